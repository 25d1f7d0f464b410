/* `ekrun check`: the golden samples of an unpacked bundle, against the outputs that were expected when it was made.
 *
 * - every element is finite and within the output's tolerance;
 * - every decision that counts is the same: the index of the greatest value along an axis, the first of equals;
 * - one sample at a time, of the expected values too;
 * - with --budget the latency that the bundle asks for is checked, too, once the outputs are right (budget.h).
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "budget.h"
#include "deployment.h"
#include "engine.h"
#include "fail.h"
#include "feeds.h"
#include "json.h"
#include "verbs.h"

struct golden {
    const struct expected *expected;
    const char *name;
    struct feed feed;
    double tolerance;
    bool *decided; /* one a decision of all samples; NULL where there are none */
    size_t decided_count;
    size_t offset; /* in the file, of the next sample's values */
    void *buffer;  /* one sample of the expected values */
    size_t room;
    double greatest; /* difference so far */
    int64_t nonfinite, decisions, differing;
    char failure[512]; /* the first; empty: none yet */
};

static double half(uint16_t bits) {
    int exponent = bits >> 10 & 31, mantissa = bits & 1023;
    double value = exponent == 31  ? (mantissa ? (double)NAN : (double)INFINITY)
                   : exponent == 0 ? ldexp(mantissa, -24)
                                   : ldexp(mantissa + 1024, exponent - 25);
    return bits >> 15 ? -value : value;
}

static double brain(uint16_t bits) {
    uint32_t wide = (uint32_t)bits << 16;
    float value;
    memcpy(&value, &wide, sizeof value);
    return (double)value;
}

#define AS(type)                                                                                                       \
    {                                                                                                                  \
        type value;                                                                                                    \
        memcpy(&value, at, sizeof value);                                                                              \
        return (double)value;                                                                                          \
    }

static double element(const void *data, enum dtype dtype, size_t index) {
    const char *at = (const char *)data + index * DTYPES[dtype].size;
    uint16_t bits = 0;
    if (dtype == DT_FLOAT16 || dtype == DT_BFLOAT16)
        memcpy(&bits, at, sizeof bits);
    switch (dtype) {
    case DT_FLOAT16: return half(bits);
    case DT_BFLOAT16: return brain(bits);
    case DT_FLOAT32: AS(float)
    case DT_FLOAT64: AS(double)
    case DT_INT8: AS(int8_t)
    case DT_INT16: AS(int16_t)
    case DT_INT32: AS(int32_t)
    case DT_INT64: AS(int64_t)
    case DT_UINT8:
    case DT_BOOL: AS(uint8_t)
    case DT_UINT16: AS(uint16_t)
    case DT_UINT32: AS(uint32_t)
    case DT_UINT64: AS(uint64_t)
    case DT_NONE:
    case DT_COUNT: break;
    }
    return (double)NAN;
}

__attribute__((format(printf, 2, 3))) static void note_failure(struct golden *g, const char *format, ...) {
    va_list args;
    if (*g->failure)
        return;
    va_start(args, format);
    vsnprintf(g->failure, sizeof g->failure, format, args);
    va_end(args);
}

static void load_decided(struct golden *g) {
    struct feed feed;
    const struct expected *e = g->expected;
    g->decided = NULL;
    g->decided_count = e->decided_count;
    if (!e->argmax)
        return;
    if (!e->decided_file) {
        g->decided = allocate(e->decided_count, 1);
        memcpy(g->decided, e->decided, e->decided_count);
        return;
    }
    feed_open(&feed, deployment_path(e->decided_file));
    if (feed.npy.dtype != DT_BOOL)
        fail(EXIT_INPUT, "%s: it does not hold bool", feed.path);
    g->decided_count = feed.npy.bytes;
    g->decided = allocate(feed.npy.bytes, 1);
    feed_read(&feed, g->decided, feed.npy.bytes, feed.npy.offset);
    for (size_t i = 0; i < g->decided_count; i++)
        g->decided[i] = ((const unsigned char *)g->decided)[i] != 0;
    close(feed.fd);
}

static void golden_open(struct golden *g, const struct expected *expected, const struct engine *engine) {
    char *end;
    *g = (struct golden){.expected = expected};
    if (expected->index >= engine->output_count)
        fail(EXIT_INPUT, "deployment.json: the model has no output %" PRIu64, expected->index);
    g->name = engine->outputs[expected->index].name;
    g->tolerance = strtod(expected->tolerance, &end);
    if (*end || !(g->tolerance >= 0) || !isfinite(g->tolerance))
        fail(EXIT_INPUT, "deployment.json: tolerance %s of output '%s' is none", expected->tolerance, g->name);
    feed_open(&g->feed, deployment_path(expected->file));
    g->offset = g->feed.npy.offset;
    load_decided(g);
}

/* NaN compares with nothing, and integers of 64 bits may differ by less than a double tells. */
static double difference(const struct tensor *view, const void *wanted, size_t i) {
    size_t size = DTYPES[view->dtype].size;
    double apart = fabs(element(view->data, view->dtype, i) - element(wanted, view->dtype, i));
    const char *one = (const char *)view->data + i * size, *other = (const char *)wanted + i * size;
    bool whole = view->dtype >= DT_INT8;
    return whole && apart == 0 && memcmp(one, other, size) != 0 ? 1 : apart;
}

static void compare_elements(struct golden *g, const struct tensor *view, size_t sample) {
    size_t count = view->bytes / DTYPES[view->dtype].size;
    for (size_t i = 0; i < count; i++) {
        double apart = difference(view, g->buffer, i);
        if (isfinite(apart) && apart > g->greatest)
            g->greatest = apart;
        if (!(apart <= g->tolerance))
            note_failure(g, "output '%s', sample %zu, element %zu: %g where %g is expected, %g apart are allowed",
                         g->name, sample, i, element(view->data, view->dtype, i),
                         element(g->buffer, view->dtype, i), g->tolerance);
    }
    g->nonfinite += count_nonfinite(view);
}

static int64_t argmax(const void *data, const struct tensor *view, size_t first, size_t stride, int64_t count) {
    int64_t best = 0;
    for (int64_t i = 1; i < count; i++)
        if (element(data, view->dtype, first + (size_t)i * stride) >
            element(data, view->dtype, first + (size_t)best * stride))
            best = i;
    return best;
}

static void compare_decisions(struct golden *g, const struct tensor *view, size_t sample, size_t samples) {
    int64_t axis = g->expected->axis < 0 ? g->expected->axis + view->rank : g->expected->axis;
    if (axis < 0 || axis >= view->rank)
        fail(EXIT_INPUT, "deployment.json: output '%s' has no axis %" PRId64, g->name, g->expected->axis);
    int64_t along = view->dims[axis];
    size_t stride = 1, count = along ? view->bytes / DTYPES[view->dtype].size / (size_t)along : 0;
    for (int i = view->rank - 1; i > axis; i--)
        stride *= (size_t)view->dims[i];
    if (g->decided_count != count * samples)
        fail(EXIT_INPUT, "deployment.json: output '%s' has %zu decisions, %zu are listed", g->name, count * samples,
             g->decided_count);
    for (size_t i = 0; i < count; i++) {
        if (!g->decided[sample * count + i])
            continue;
        size_t first = i / stride * stride * (size_t)along + i % stride;
        int64_t found = argmax(view->data, view, first, stride, along);
        int64_t wanted = argmax(g->buffer, view, first, stride, along);
        g->decisions++;
        g->differing += found != wanted;
        if (found != wanted)
            note_failure(g, "output '%s', sample %zu, decision %zu: %" PRId64 " where %" PRId64 " is expected", g->name,
                         sample, i, found, wanted);
    }
}

/* Whether the device's output can be compared with the expected one at all. An output whose shape differs from sample
 * to sample is known by its file of one dimension, which says how many elements there are in all. */
static bool same_kind(struct golden *g, const struct tensor *view, size_t sample, size_t samples) {
    char found[256], wanted[256];
    const struct npy *npy = &g->feed.npy;
    bool same_type = npy->dtype == view->dtype || (view->dtype == DT_BFLOAT16 && npy->dtype == DT_UINT16);
    bool same_shape = view->rank == npy->rank - 1 && (size_t)npy->dims[0] == samples &&
                      memcmp(view->dims, npy->dims + 1, (size_t)view->rank * sizeof *view->dims) == 0;
    bool flat = npy->rank == 1 && view->bytes <= npy->offset + npy->bytes - g->offset;
    if (same_type && (same_shape || flat))
        return true;
    note_failure(g, "output '%s', sample %zu: %s%s where %s%s is expected for %zu samples", g->name, sample,
                 DTYPES[view->dtype].name, shape_text(view->dims, view->rank, found, sizeof found),
                 DTYPES[npy->dtype].name, shape_text(npy->dims, npy->rank, wanted, sizeof wanted), samples);
    return false;
}

static void read_expected(struct golden *g, size_t bytes) {
    if (bytes > g->room || !g->buffer) {
        free(g->buffer);
        g->buffer = allocate_aligned(bytes);
        g->room = bytes;
    }
    feed_read(&g->feed, g->buffer, bytes, g->offset);
    g->offset += bytes;
}

static void compare(struct golden *g, struct engine *engine, size_t sample, size_t samples) {
    struct tensor view;
    engine->ops->output(engine, 0, (size_t)g->expected->index, &view);
    if (!same_kind(g, &view, sample, samples))
        return;
    read_expected(g, view.bytes);
    compare_elements(g, &view, sample);
    if (g->expected->argmax)
        compare_decisions(g, &view, sample, samples);
}

static void golden_end(struct golden *g) {
    size_t end = g->feed.npy.offset + g->feed.npy.bytes;
    if (g->offset != end)
        note_failure(g, "output '%s': fewer elements than are expected", g->name);
}

static void describe(const struct golden *g, struct json *j) {
    json_begin(j, NULL, '{');
    json_int(j, "index", (int64_t)g->expected->index);
    json_string(j, "name", g->name);
    json_bool(j, "passed", !*g->failure);
    json_exact(j, "tolerance", g->tolerance);
    json_exact(j, "greatest_difference", g->greatest);
    json_int(j, "nonfinite", g->nonfinite);
    json_int(j, "decisions", g->decisions);
    json_int(j, "differing", g->differing);
    json_end(j, '}');
}

static const char *first_failure(const struct golden *goldens, size_t count) {
    for (size_t i = 0; i < count; i++)
        if (*goldens[i].failure)
            return goldens[i].failure;
    return NULL;
}

/* Everything that was found, and an error where that is not what was expected. */
static void write_answer(struct engine *engine, const struct golden *goldens, size_t samples,
                         const struct latency *latency, const char *failure, struct json *j) {
    size_t count = engine->options->deployment->output_count;
    json_open(j);
    json_begin(j, NULL, '{');
    json_int(j, "protocol", EKRUN_PROTOCOL);
    json_string(j, "verb", "check");
    json_bool(j, "passed", !failure);
    engine_describe(engine, j);
    json_int(j, "samples", (int64_t)samples);
    json_begin(j, "outputs", '[');
    for (size_t i = 0; i < count; i++)
        describe(&goldens[i], j);
    json_end(j, ']');
    if (engine->options->budget)
        write_latency(latency, j);
    if (failure)
        write_error(j, EXIT_REFUSED, failure);
    json_end(j, '}');
}

static void run_all(struct golden *goldens, size_t count, struct engine *engine, struct feeds *feeds) {
    for (size_t k = 0; k < feeds->samples; k++) {
        feeds_load(feeds, engine, k, k == 0);
        engine->ops->infer(engine, 0);
        for (size_t i = 0; i < count; i++)
            compare(&goldens[i], engine, k, feeds->samples);
        feeds_keep_state(feeds, engine);
        engine->ops->release_outputs(engine, 0);
    }
    for (size_t i = 0; i < count; i++)
        golden_end(&goldens[i]);
}

void check(const struct options *options) {
    const struct deployment *d = options->deployment;
    struct engine engine;
    struct feeds feeds;
    struct json j;
    if (!d->output_count)
        fail(EXIT_INPUT, "deployment.json: the bundle has no golden samples to check with");
    engine_open(&engine, options);
    feeds_open(&feeds, &engine, 0, options);
    if (feeds.samples != d->samples)
        fail(EXIT_INPUT, "deployment.json: %" PRIu64 " golden samples, the inputs hold %zu", d->samples, feeds.samples);
    struct golden *goldens = allocate(d->output_count, sizeof *goldens);
    for (size_t i = 0; i < d->output_count; i++)
        golden_open(&goldens[i], &d->outputs[i], &engine);
    run_all(goldens, d->output_count, &engine, &feeds);
    const char *failure = first_failure(goldens, d->output_count);
    struct latency latency = {0};
    if (options->budget && !failure) {
        check_budget(&latency, &engine, &feeds);
        failure = *latency.failure ? latency.failure : NULL;
    }
    write_answer(&engine, goldens, feeds.samples, &latency, failure, &j);
    engine.ops->close(&engine);
    feeds_close(&feeds, &engine);
    json_print(&j);
    if (failure)
        finish_failed(EXIT_REFUSED, failure);
}
