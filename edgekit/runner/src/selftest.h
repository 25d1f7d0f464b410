/* A bundle proves itself: its own `bin/ekrun check DIR --budget`, in a process of its own. */
#ifndef EKRUN_SELFTEST_H
#define EKRUN_SELFTEST_H

#include <stdbool.h>

/* Checks the unpacked bundle `folder`, an absolute path, for at most `seconds`. Where it fails, `words` say why.
 *
 * - only exit code 0 passes: no other, no death by a signal, no silence at the deadline, no output without end;
 * - it and all that it has started are killed when it is over, when a signal of stop.h has come, and when this process
 *   ends by itself; a child that does not even die then is left alone after some seconds;
 * - it reads nothing and has nothing of this process but its environment.
 */
bool selftest(const char *folder, long seconds, char words[1024]);

#endif
