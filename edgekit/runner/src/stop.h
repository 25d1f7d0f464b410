/* SIGINT, SIGTERM and SIGHUP while files are made: what was begun is removed before the process dies by the signal. */
#ifndef EKRUN_STOP_H
#define EKRUN_STOP_H

/* The signals only leave a note from here on. */
void stop_on_signals(void);

/* Between two steps: runs the clean-up and ends the process when a signal has come. */
void stop_if_asked(void);

/* The work is done: signals that come now come too late. */
void stop_no_more(void);

#endif
