/* What goes into the model: stacked .npy files, and outputs fed back as state.
 *
 * - a feed file has a leading sample axis: sample k of [N, *shape] goes in at inference k; all files agree in N;
 * - files are read with pread, one sample at a time: no mapped page counts as the model's memory, and a file cut short
 *   while it is read is an error instead of a SIGBUS;
 * - a state input holds the previous sample's output; before sample 0 and at each reset it holds its own feed's sample,
 *   or zeros when it has no feed.
 */
#ifndef EKRUN_FEEDS_H
#define EKRUN_FEEDS_H

#include <stdint.h>

#include "engine.h"
#include "npy.h"

struct feed {
    int fd; /* -1: no file */
    const char *path;
    struct npy npy;
};

/* A file of samples, and bytes of it. Fail with EXIT_INPUT. */
void feed_open(struct feed *feed, const char *path);
void feed_read(const struct feed *feed, void *buffer, size_t bytes, size_t offset);

struct input {
    struct feed feed;
    struct tensor tensor; /* the bound buffer */
    struct tensor next;   /* state only: what the last inference left */
    size_t capacity, next_capacity;
    long state_output; /* index of the output that feeds it, or -1 */
    bool bound;
};

struct feeds {
    size_t lane; /* of the engine, whose inputs these are */
    struct input *inputs;
    size_t samples;
    uint8_t *resets; /* one per sample, or NULL */
    bool has_state;
};

/* Opens and checks everything the options name. Fails with EXIT_INPUT. */
void feeds_open(struct feeds *feeds, struct engine *engine, size_t lane, const struct options *options);

/* Fills and binds the inputs for sample `index`; `first` begins a sequence: states are reset whatever the marks say. */
void feeds_load(struct feeds *feeds, struct engine *engine, size_t index, bool first);

/* Copies the outputs of the last inference that are states. Call before the outputs are released. */
void feeds_keep_state(struct feeds *feeds, struct engine *engine);

/* Reads sample `index` of an input without state into a tensor of its own. The caller frees its data. */
void feeds_copy(const struct feeds *feeds, const struct engine *engine, size_t input, size_t index,
                struct tensor *tensor);

void feeds_close(struct feeds *feeds, const struct engine *engine);

#endif
