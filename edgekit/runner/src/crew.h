/* Several lanes that run a burst together: `ekrun bench --stdin --streams S`. */
#ifndef EKRUN_CREW_H
#define EKRUN_CREW_H

#include "bench.h"

struct crew;

/* As many lanes as --streams, warm and asleep; samples are resident. There must be no state. */
struct crew *crew_open(struct bench *b, const struct options *options);

/* Runs `count` inferences and notes each latency, in the order of their starts. Returns the nanoseconds from the burst's
 * start to its last completion. */
int64_t crew_burst(struct crew *crew, int64_t *latencies, int64_t count);

/* Bytes of the samples that it holds. */
int64_t crew_holds(const struct crew *crew);

/* Ends the lanes' threads, before the engine is closed; frees the samples, after it. */
void crew_rest(struct crew *crew);
void crew_close(struct crew *crew);

#endif
