/* Samples held in memory before the clock, like LoadGen's "performance samples": lanes draw from them at the price of a
 * binding, and no file is read during the run. */
#ifndef EKRUN_RESIDENT_H
#define EKRUN_RESIDENT_H

#include "feeds.h"

struct resident {
    size_t count, inputs;
    int64_t bytes;
    struct tensor *tensors; /* [count][inputs] */
};

/* As many of the first samples as 32 MiB hold, at least one. There must be no state. */
void resident_load(struct resident *resident, const struct feeds *feeds, const struct engine *engine);

void resident_bind(const struct resident *resident, struct engine *engine, size_t lane, size_t sample);

/* After the engine is closed. */
void resident_free(struct resident *resident);

#endif
