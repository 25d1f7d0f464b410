#define _GNU_SOURCE
#include "feeds.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fail.h"

/* Samples without elements take no room, so the length of a file does not vouch for their number. */
#define MOST_EMPTY_SAMPLES 1000000

void feed_read(const struct feed *feed, void *buffer, size_t bytes, size_t offset) {
    for (size_t done = 0; done < bytes;) {
        ssize_t n = pread(feed->fd, (char *)buffer + done, bytes - done, (off_t)(offset + done));
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            fail(n < 0 ? EXIT_IO : EXIT_INPUT, "%s: %s", feed->path, n < 0 ? strerror(errno) : "it became shorter");
        done += (size_t)n;
    }
}

void feed_open(struct feed *feed, const char *path) {
    struct stat info;
    feed->path = path;
    feed->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO must not hang here */
    if (feed->fd < 0 || fstat(feed->fd, &info) != 0)
        fail(EXIT_INPUT, "%s: %s", path, strerror(errno));
    if (!S_ISREG(info.st_mode))
        fail(EXIT_INPUT, "%s: not a regular file", path);
    size_t size = info.st_size < NPY_MAX_HEADER ? (size_t)info.st_size : NPY_MAX_HEADER;
    void *head = allocate(size, 1);
    feed_read(feed, head, size, 0);
    const char *reason = npy_parse(head, size, (uint64_t)info.st_size, &feed->npy);
    if (reason)
        fail(EXIT_INPUT, "%s: %s", path, reason);
    free(head);
    if (feed->npy.rank == 0)
        fail(EXIT_INPUT, "%s: it has no sample axis; samples are stacked along a new first axis", path);
}

static void agree_in_samples(struct feeds *feeds, const struct feed *feed) {
    size_t samples = (size_t)feed->npy.dims[0];
    if (samples == 0)
        fail(EXIT_INPUT, "%s: it holds no samples", feed->path);
    size_t most = feed->npy.bytes ? MAX_SAMPLES : MOST_EMPTY_SAMPLES;
    if (samples > most)
        fail(EXIT_INPUT, "%s: it claims %zu samples, at most %zu are taken", feed->path, samples, most);
    if (feeds->samples && samples != feeds->samples)
        fail(EXIT_INPUT, "%s: it holds %zu samples, the other feeds %zu", feed->path, samples, feeds->samples);
    feeds->samples = samples;
}

static void check_feed(const struct feed *feed, const struct port *port) {
    char wanted[256], given[256];
    const struct npy *npy = &feed->npy;
    bool same_type = npy->dtype == port->dtype || (port->dtype == DT_BFLOAT16 && npy->dtype == DT_UINT16);
    if (!same_type)
        fail(EXIT_INPUT, "input '%s' is %s%s, %s holds %s", port->name, DTYPES[port->dtype].name,
             port->dtype == DT_BFLOAT16 ? " (uint16 in a file)" : "", feed->path, DTYPES[npy->dtype].name);
    if (!shape_admits(port, npy->dims + 1, npy->rank - 1))
        fail(EXIT_INPUT, "input '%s' has shape %s, samples in %s have %s", port->name,
             shape_text(port->dims, port->rank, wanted, sizeof wanted), feed->path,
             shape_text(npy->dims + 1, npy->rank - 1, given, sizeof given));
}

/* Sets dtype, shape and size, and grows the buffer when it is too small. True when the buffer has moved. */
static bool reshape(struct tensor *tensor, size_t *capacity, enum dtype dtype, int rank, const int64_t *dims) {
    tensor->dtype = dtype;
    tensor->rank = rank;
    memcpy(tensor->dims, dims, (size_t)rank * sizeof *dims);
    if (!shape_bytes(dims, rank, DTYPES[dtype].size, &tensor->bytes))
        fail(EXIT_INPUT, "a tensor is too large");
    if (tensor->data && tensor->bytes <= *capacity)
        return false;
    free(tensor->data);
    tensor->data = allocate_aligned(tensor->bytes);
    *capacity = tensor->bytes;
    return true;
}

static void add_inputs(struct feeds *feeds, struct engine *engine, const struct pairs *pairs) {
    for (size_t i = 0; i < pairs->count; i++) {
        const struct pair *pair = &pairs->items[i];
        long index = engine_find(engine, pair->key, true);
        if (index < 0)
            fail(EXIT_INPUT, "the model has no input '%s'", pair->key);
        struct feed *feed = &feeds->inputs[index].feed;
        if (feed->fd >= 0)
            fail(EXIT_INPUT, "input '%s' is fed twice", pair->key);
        feed_open(feed, pair->value);
        check_feed(feed, &engine->inputs[index]);
        agree_in_samples(feeds, feed);
    }
}

static void add_states(struct feeds *feeds, struct engine *engine, const struct pairs *pairs) {
    for (size_t i = 0; i < pairs->count; i++) {
        const struct pair *pair = &pairs->items[i];
        long output = engine_find(engine, pair->key, false), index = engine_find(engine, pair->value, true);
        if (output < 0)
            fail(EXIT_INPUT, "the model has no output '%s'", pair->key);
        if (index < 0)
            fail(EXIT_INPUT, "the model has no input '%s'", pair->value);
        if (feeds->inputs[index].state_output >= 0)
            fail(EXIT_INPUT, "input '%s' is the state of two outputs", pair->value);
        if (engine->outputs[output].dtype != engine->inputs[index].dtype)
            fail(EXIT_INPUT, "state '%s' is %s, but input '%s' is %s", pair->key,
                 DTYPES[engine->outputs[output].dtype].name, pair->value, DTYPES[engine->inputs[index].dtype].name);
        feeds->inputs[index].state_output = output;
        feeds->has_state = true;
    }
}

static void check_unfed(const struct input *input, const struct port *port) {
    if (input->feed.fd >= 0)
        return;
    if (input->state_output < 0)
        fail(EXIT_INPUT, "input '%s' has no feed", port->name);
    bool fixed = port->rank >= 0;
    for (int i = 0; i < port->rank; i++)
        fixed = fixed && port->dims[i] >= 0;
    if (!fixed)
        fail(EXIT_INPUT,
             "state input '%s' has no fixed shape to begin with as zeros: give its initial value with --input",
             port->name);
}

static void read_resets(struct feeds *feeds, const char *path) {
    struct feed feed;
    feed_open(&feed, path);
    if (feed.npy.rank != 1 || (feed.npy.dtype != DT_BOOL && feed.npy.dtype != DT_UINT8))
        fail(EXIT_INPUT, "%s: --reset takes one bool or uint8 per sample", path);
    agree_in_samples(feeds, &feed);
    feeds->resets = allocate(feed.npy.bytes, 1);
    feed_read(&feed, feeds->resets, feed.npy.bytes, feed.npy.offset);
    close(feed.fd);
}

void feeds_open(struct feeds *feeds, struct engine *engine, size_t lane, const struct options *options) {
    *feeds = (struct feeds){.lane = lane, .inputs = allocate(engine->input_count, sizeof *feeds->inputs)};
    for (size_t i = 0; i < engine->input_count; i++) {
        feeds->inputs[i].feed.fd = -1;
        feeds->inputs[i].state_output = -1;
    }
    add_inputs(feeds, engine, &options->inputs);
    add_states(feeds, engine, &options->states);
    if (options->reset)
        read_resets(feeds, options->reset);
    for (size_t i = 0; i < engine->input_count; i++)
        check_unfed(&feeds->inputs[i], &engine->inputs[i]);
    if (!feeds->samples) /* nothing is fed: a model without inputs, or with states only */
        feeds->samples = options->samples ? (size_t)options->samples : 1;
    if (options->samples && (size_t)options->samples < feeds->samples)
        feeds->samples = (size_t)options->samples;
}

static bool load_fed(struct input *input, const struct port *port, size_t index) {
    const struct npy *npy = &input->feed.npy;
    bool moved = reshape(&input->tensor, &input->capacity, port->dtype, npy->rank - 1, npy->dims + 1);
    feed_read(&input->feed, input->tensor.data, input->tensor.bytes, npy->offset + index * input->tensor.bytes);
    return moved;
}

static bool load_zeros(struct input *input, const struct port *port) {
    bool moved = reshape(&input->tensor, &input->capacity, port->dtype, port->rank, port->dims);
    memset(input->tensor.data, 0, input->tensor.bytes);
    return moved;
}

static bool load_state(struct input *input, const struct port *port) {
    const struct tensor *state = &input->next;
    char wanted[256], given[256];
    if (!shape_admits(port, state->dims, state->rank))
        fail(EXIT_INPUT, "the state of input '%s' has shape %s, the input takes %s", port->name,
             shape_text(state->dims, state->rank, given, sizeof given),
             shape_text(port->dims, port->rank, wanted, sizeof wanted));
    bool moved = reshape(&input->tensor, &input->capacity, state->dtype, state->rank, state->dims);
    memcpy(input->tensor.data, state->data, state->bytes);
    return moved;
}

static bool same_shape(const struct tensor *tensor, int rank, const int64_t *dims) {
    return tensor->rank == rank && memcmp(tensor->dims, dims, (size_t)rank * sizeof *dims) == 0;
}

void feeds_load(struct feeds *feeds, struct engine *engine, size_t index, bool first) {
    bool reset = first || (feeds->resets && feeds->resets[index]);
    for (size_t i = 0; i < engine->input_count; i++) {
        struct input *input = &feeds->inputs[i];
        const struct port *port = &engine->inputs[i];
        struct tensor before = input->tensor;
        bool moved = input->state_output >= 0 && !reset ? load_state(input, port)
                     : input->feed.fd >= 0              ? load_fed(input, port, index)
                                                        : load_zeros(input, port);
        if (!input->bound || moved || !same_shape(&before, input->tensor.rank, input->tensor.dims))
            engine->ops->bind(engine, feeds->lane, i, &input->tensor);
        input->bound = true;
    }
}

void feeds_keep_state(struct feeds *feeds, struct engine *engine) {
    for (size_t i = 0; feeds->has_state && i < engine->input_count; i++) {
        struct input *input = &feeds->inputs[i];
        struct tensor view;
        if (input->state_output < 0)
            continue;
        /* Into a buffer of its own: an engine may hand out a graph input's buffer as an output. */
        engine->ops->output(engine, feeds->lane, (size_t)input->state_output, &view);
        reshape(&input->next, &input->next_capacity, view.dtype, view.rank, view.dims);
        if (view.bytes)
            memcpy(input->next.data, view.data, view.bytes);
    }
}

void feeds_copy(const struct feeds *feeds, const struct engine *engine, size_t input, size_t index,
                struct tensor *tensor) {
    struct input copy = {.feed = feeds->inputs[input].feed};
    load_fed(&copy, &engine->inputs[input], index);
    *tensor = copy.tensor;
}

void feeds_close(struct feeds *feeds, const struct engine *engine) {
    for (size_t i = 0; i < engine->input_count; i++) {
        struct input *input = &feeds->inputs[i];
        if (input->feed.fd >= 0)
            close(input->feed.fd);
        free(input->tensor.data);
        free(input->next.data);
    }
    free(feeds->inputs);
    free(feeds->resets);
}
