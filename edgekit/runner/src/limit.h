/* `--memory-limit`: a real cap on this process's memory, set before an engine is loaded. */
#ifndef EKRUN_LIMIT_H
#define EKRUN_LIMIT_H

#include "json.h"

/* By a memory control group of this process's own where it may make one, else by RLIMIT_DATA. Fails with EXIT_USAGE
 * under emulation. Must be called while this is the only thread. */
void limit_memory(long bytes);

/* The object `memory_limit` {bytes, kind}, or null without a limit. */
void write_memory_limit(struct json *j);

#endif
