/* Tells which instruction this CPU refused: an engine built for a larger one. */
#ifndef EKRUN_SIGILL_H
#define EKRUN_SIGILL_H

/* Once, after answers_open. An engine that probes instructions installs its own handler over this one, and puts this
 * one back. */
void sigill_report(void);

#endif
