/* The distribution of many durations in little, fixed memory: bins of 1/32 of a power of two, so within 3.2 %. */
#ifndef EKRUN_SPREAD_H
#define EKRUN_SPREAD_H

#include <stdint.h>

#include "json.h"

#define SPREAD_BINS 1920

struct spread {
    int64_t count, sum, max;
    uint32_t bins[SPREAD_BINS];
};

void spread_add(struct spread *spread, int64_t ns); /* below 0 counts as 0 */

/* Writes {count,mean,p50,p90,p99,max}, each percentile as the upper edge of its bin; null when nothing was added. */
void spread_write(const struct spread *spread, struct json *j, const char *key);

#endif
