/* Ends this process when its stdin does: on a board, when the link to whoever started it is gone. */
#ifndef EKRUN_TETHER_H
#define EKRUN_TETHER_H

#include <stdbool.h>

/* Starts a thread that sleeps until stdin ends, and then ends the process with EXIT_LINK. Where stdin carries
 * commands it is not read: only a hang-up, when the other side has closed it, ends the process. */
void tether(bool stdin_has_commands);

/* Threads of this process that are ekrun's own and not the engine's: 0 or 1. */
int tether_threads(void);

#endif
