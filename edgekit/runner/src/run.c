/* `ekrun run`: every sample once, outputs to files. */
#include "engine.h"
#include "fail.h"
#include "feeds.h"
#include "json.h"
#include "outputs.h"
#include "verbs.h"

void run(const struct options *options) {
    struct engine engine;
    struct feeds feeds;
    struct json j;
    engine_open(&engine, options);
    feeds_open(&feeds, &engine, options);
    outputs_open(&engine, options->out);
    for (size_t k = 0; k < feeds.samples; k++) {
        feeds_load(&feeds, &engine, k, k == 0);
        engine.ops->infer(&engine);
        outputs_append(&engine);
        feeds_keep_state(&feeds, &engine);
        engine.ops->release_outputs(&engine);
    }
    json_open(&j);
    json_begin(&j, NULL, '{');
    json_int(&j, "protocol", EKRUN_PROTOCOL);
    json_string(&j, "verb", "run");
    engine_describe(&engine, &j);
    json_int(&j, "samples", (int64_t)feeds.samples);
    outputs_finish(&engine, options->out, &j);
    json_end(&j, '}');
    engine.ops->close(&engine);
    feeds_close(&feeds, &engine);
    json_print(&j);
}
