/* SIGINT, SIGTERM and SIGHUP while files are made: what was begun is removed before the process dies by the signal. */
#ifndef EKRUN_STOP_H
#define EKRUN_STOP_H

#include <stdbool.h>

/* The signals only leave a note from here on. */
void stop_on_signals(void);

/* Whether a signal has come. */
bool stop_asked(void);

/* Between two steps: runs the clean-up and ends the process by the signal, when one has come. */
void stop_if_asked(void);

/* From now on, until it is false again, stop_if_asked fails instead: what runs is taken back by who attempts it. */
void stop_by_failing(bool fails);

/* The work is done: signals that come now come too late. */
void stop_no_more(void);

#endif
