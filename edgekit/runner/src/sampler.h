/* The machine's state beside a run, every so many milliseconds: why some of its samples are not like the others.
 *
 * - a thread of its own, which sleeps between its looks and is only made when asked for;
 * - files are opened once, before the clock, and read again with pread; memory is taken before the clock as well;
 * - a look costs one wake-up and 30 to 50 us of CPU time (measured: x86-64, 2 CPUs, no sensors; most of it is the
 *   kernel's, for /proc/stat): at 250 ms, 0.02 % of a core, and on one ten times slower 0.2 %;
 * - at most 4000 looks are kept: then every second one is forgotten, and the interval doubled.
 */
#ifndef EKRUN_SAMPLER_H
#define EKRUN_SAMPLER_H

#include "json.h"

struct sampler;

/* Takes the first look. NULL for an interval of 0: nothing is sampled, and the other calls do nothing. */
struct sampler *sampler_start(long interval_ms);

/* Takes the last look and ends the thread. */
void sampler_stop(struct sampler *sampler);

/* Writes the fields of PROTOCOL.md, times from `origin_ns`, and frees. */
void sampler_write(struct sampler *sampler, int64_t origin_ns, struct json *j);

#endif
