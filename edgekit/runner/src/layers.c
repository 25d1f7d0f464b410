/* `ekrun layers`: the time of each layer, from the engine's own profiler. A pass of its own, as profiling slows a run.
 *
 * - the first inference, which allocates and tunes, is not to be counted;
 * - a file that the engine writes is complete or absent: it appears by rename, and a failed pass leaves none.
 */
#define _GNU_SOURCE
#include "layers.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bench.h"
#include "fail.h"
#include "verbs.h"

#define PART "profile.part"
#define LONGEST_PATH 4096

static const char *out;

static void path_in(char path[LONGEST_PATH], const char *folder, const char *name) {
    if (snprintf(path, LONGEST_PATH, "%s/%s", folder, name) >= LONGEST_PATH)
        fail(EXIT_IO, "%s: %s", folder, strerror(ENAMETOOLONG));
}

/* What the engine has begun, whatever it has appended to the prefix. */
static void remove_parts(void) {
    DIR *dir = opendir(out);
    if (!dir)
        return;
    for (struct dirent *entry; (entry = readdir(dir));)
        if (strncmp(entry->d_name, PART, strlen(PART)) == 0)
            unlinkat(dirfd(dir), entry->d_name, 0);
    closedir(dir);
}

const char *layers_file_prefix(const char *folder) {
    static char prefix[LONGEST_PATH];
    path_in(prefix, folder, PART);
    return prefix;
}

void layers_keep_file(const char *folder, const char *made) {
    char path[LONGEST_PATH];
    path_in(path, folder, LAYERS_FILE);
    if (rename(made, path) != 0)
        fail(EXIT_IO, "%s: %s", path, strerror(errno));
}

static void open_folder(const char *folder) {
    char path[LONGEST_PATH];
    out = folder;
    if (mkdir(folder, 0777) != 0 && errno != EEXIST)
        fail(EXIT_IO, "%s: %s", folder, strerror(errno));
    path_in(path, folder, LAYERS_FILE);
    if (unlink(path) != 0 && errno != ENOENT)
        fail(EXIT_IO, "%s: %s", path, strerror(errno));
    remove_parts();
    set_cleanup(remove_parts);
}

static int64_t infer_samples(struct engine *engine, struct feeds *feeds, int64_t count) {
    int64_t spent = 0;
    for (int64_t i = 0; i < count; i++) {
        size_t sample = (size_t)i % feeds->samples;
        feeds_load(feeds, engine, sample, sample == 0);
        int64_t before = now_ns();
        engine->ops->infer(engine, 0);
        spent += now_ns() - before;
        feeds_keep_state(feeds, engine);
        engine->ops->release_outputs(engine, 0);
    }
    return spent;
}

void layers(const struct options *options) {
    struct engine engine;
    struct feeds feeds;
    struct json j;
    open_folder(options->out);
    engine_open(&engine, options);
    feeds_open(&feeds, &engine, 0, options);
    infer_samples(&engine, &feeds, 1);
    engine.ops->skip_layers(&engine);
    int64_t spent = infer_samples(&engine, &feeds, options->runs);
    json_open(&j);
    json_begin(&j, NULL, '{');
    json_int(&j, "protocol", EKRUN_PROTOCOL);
    json_string(&j, "verb", "layers");
    engine_describe(&engine, &j);
    json_int(&j, "samples", (int64_t)feeds.samples);
    json_int(&j, "runs", options->runs);
    json_int(&j, "calls_ns", spent);
    engine.ops->write_layers(&engine, options->runs, &j);
    json_end(&j, '}');
    set_cleanup(NULL);
    engine.ops->close(&engine);
    feeds_close(&feeds, &engine);
    json_print(&j);
}
