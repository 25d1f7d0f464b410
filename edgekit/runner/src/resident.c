#include "resident.h"

#include <stdlib.h>

#include "fail.h"

#define MOST_BYTES (32 << 20)
#define MOST_SAMPLES 4096

static size_t how_many(const struct feeds *feeds, size_t inputs) {
    size_t bytes = 1, most = feeds->samples < MOST_SAMPLES ? feeds->samples : MOST_SAMPLES;
    for (size_t i = 0; i < inputs; i++)
        bytes += feeds->inputs[i].feed.npy.bytes / (size_t)feeds->inputs[i].feed.npy.dims[0];
    size_t fitting = bytes < MOST_BYTES ? MOST_BYTES / bytes : 1;
    return fitting < most ? fitting : most;
}

void resident_load(struct resident *r, const struct feeds *feeds, const struct engine *engine) {
    *r = (struct resident){.count = how_many(feeds, engine->input_count), .inputs = engine->input_count};
    r->tensors = allocate(r->count * r->inputs, sizeof *r->tensors);
    for (size_t k = 0; k < r->count * r->inputs; k++) {
        feeds_copy(feeds, engine, k % r->inputs, k / r->inputs, &r->tensors[k]);
        r->bytes += (int64_t)r->tensors[k].bytes;
    }
}

void resident_bind(const struct resident *r, struct engine *engine, size_t lane, size_t sample) {
    for (size_t i = 0; i < r->inputs; i++)
        engine->ops->bind(engine, lane, i, &r->tensors[sample * r->inputs + i]);
}

void resident_free(struct resident *r) {
    for (size_t k = 0; k < r->count * r->inputs; k++)
        free(r->tensors[k].data);
    free(r->tensors);
}
