/* `ekrun run`: every sample once, outputs to files.
 *
 * With several streams, as many samples at a time as there are streams, each on a lane and a thread of its own. Outputs
 * are written in the order of the samples, so the files are the same as with one stream.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdlib.h>

#include "engine.h"
#include "fail.h"
#include "feeds.h"
#include "json.h"
#include "outputs.h"
#include "verbs.h"

struct stream {
    struct engine *engine;
    struct feeds feeds;
    size_t sample;
    pthread_t thread;
};

static void *infer_one(void *argument) {
    struct stream *s = argument;
    feeds_load(&s->feeds, s->engine, s->sample, s->sample == 0);
    s->engine->ops->infer(s->engine, s->feeds.lane);
    return NULL;
}

/* The first lane runs on this thread, so one stream makes no other. */
static void infer_together(struct stream *streams, size_t count) {
    for (size_t i = 1; i < count; i++)
        if (pthread_create(&streams[i].thread, NULL, infer_one, &streams[i]) != 0)
            fail(EXIT_MEMORY, "cannot start a thread");
    infer_one(&streams[0]);
    for (size_t i = 1; i < count; i++)
        pthread_join(streams[i].thread, NULL);
}

static void keep(struct stream *s) {
    outputs_append(s->engine, s->feeds.lane);
    feeds_keep_state(&s->feeds, s->engine);
    s->engine->ops->release_outputs(s->engine, s->feeds.lane);
}

static void run_all(struct stream *streams, size_t count, size_t samples) {
    for (size_t k = 0; k < samples; k += count) {
        size_t now = samples - k < count ? samples - k : count;
        for (size_t i = 0; i < now; i++)
            streams[i].sample = k + i;
        infer_together(streams, now);
        for (size_t i = 0; i < now; i++)
            keep(&streams[i]);
    }
}

void run(const struct options *options) {
    struct engine engine;
    struct json j;
    size_t count = (size_t)options->streams;
    struct stream *streams = allocate(count, sizeof *streams);
    engine_open(&engine, options);
    for (size_t i = 0; i < count; i++) {
        streams[i].engine = &engine;
        feeds_open(&streams[i].feeds, &engine, i, options);
    }
    outputs_open(&engine, options->out);
    run_all(streams, count, streams[0].feeds.samples);
    json_open(&j);
    json_begin(&j, NULL, '{');
    json_int(&j, "protocol", EKRUN_PROTOCOL);
    json_string(&j, "verb", "run");
    engine_describe(&engine, &j);
    json_int(&j, "samples", (int64_t)streams[0].feeds.samples);
    outputs_finish(&engine, options->out, &j);
    json_end(&j, '}');
    engine.ops->close(&engine);
    for (size_t i = 0; i < count; i++)
        feeds_close(&streams[i].feeds, &engine);
    free(streams);
    json_print(&j);
}
