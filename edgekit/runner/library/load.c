/* The engines of this process: of each, one library, which is never unloaded. It is all that libekrun keeps for good.
 *
 * - another bundle with the same version of the engine runs with the library that is there: its own is not opened;
 * - two copies of an engine in one process would share parts of their state by the rules of the dynamic linker, so one of
 *   another version is refused. The one that was opened counts, also when its model was closed long ago;
 * - OpenVINO looks into the folder of its library whenever it opens a model: for its plugin, and for what reads models.
 *   So once that folder is gone, it is refused, though its code is there: nothing tells it of another folder;
 * - a process that is forked after one was loaded uses none: an engine lacks its threads there, OpenVINO even waits for
 *   them to end, and locks that other threads held at the fork stay locked.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "library.h"

struct loaded {
    const char *engine;
    bool needs_folder, is_open;
    char *path, *version;
    off_t bytes;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct loaded loaded[] = {{.engine = "onnxruntime"}, {.engine = "openvino", .needs_folder = true}};
static atomic_long process; /* that loads engines, or 0 */

#define TELEMETRY "ORT_DISABLE_TELEMETRY"

/* ONNX Runtime's telemetry can only be stopped before its library is loaded, and setenv() only be called safely while
 * there is one thread: that is when libekrun itself is loaded, for programs that are linked with it. */
static bool stop_telemetry(void) {
    const char *value = getenv(TELEMETRY);
    return (value && strcmp(value, "1") == 0) || setenv(TELEMETRY, "1", 1) == 0;
}

__attribute__((constructor)) static void when_loaded(void) { (void)stop_telemetry(); /* load() sees to it again */ }

bool is_forked(void) {
    long loading = atomic_load(&process);
    return loading != 0 && loading != getpid();
}

int refuse_forked(void) {
    return misuse("a model was opened before this process was forked, and engines do not survive that: fork first, and "
                  "open models then");
}

static struct loaded *find(const char *engine) {
    for (size_t i = 0; i < sizeof loaded / sizeof *loaded; i++)
        if (strcmp(loaded[i].engine, engine) == 0)
            return &loaded[i];
    fail(EXIT_INPUT, DEPLOYMENT_FILE ": no engine is called %s", engine);
}

static off_t size_of(const char *path) {
    struct stat info;
    if (stat(path, &info) != 0)
        fail(EXIT_LIBRARY, "%s: %s", path, strerror(errno));
    if (!S_ISREG(info.st_mode))
        fail(EXIT_LIBRARY, "%s: not a regular file", path);
    return info.st_size;
}

static void refuse_another(const struct loaded *own, const char *path, const char *version, off_t bytes) {
    if (strcmp(own->version, version) != 0 || own->bytes != bytes)
        fail(EXIT_LIBRARY, "%s: this process has %s %s open, and takes no other, here %s: start it again", path,
             own->engine, own->version, version);
    if (own->needs_folder && access(own->path, F_OK) != 0)
        fail(EXIT_LIBRARY, "%s: this process has %s %s open, whose own folder it needs and has lost: start it again",
             path, own->engine, own->version);
}

static void replace(char **text, const char *by) {
    free(*text);
    if (!(*text = copy_text(by)))
        fail(EXIT_MEMORY, "out of memory");
}

struct loading {
    struct engine *engine;
    struct options *options;
    const struct deployment *deployment;
};

static void load(void *argument) {
    struct loading *l = argument;
    const char *path = l->options->lib, *version = l->deployment->engine_version;
    struct loaded *own = find(l->deployment->engine);
    off_t bytes = size_of(path);
    if (own->is_open) {
        refuse_another(own, path, version, bytes);
        l->options->lib = own->path;
    } else {
        replace(&own->path, path);
        replace(&own->version, version);
        own->bytes = bytes;
    }
    if (!stop_telemetry())
        fail(EXIT_MEMORY, "out of memory");
    engine_load(l->engine, l->options);
    own->is_open = true;
}

void load_engine(struct engine *engine, struct options *options, const struct deployment *deployment) {
    struct loading l = {engine, options, deployment};
    struct failure failure;
    atomic_store(&process, getpid()); /* before the lock: who is forked while it is held must not ask for it */
    pthread_mutex_lock(&lock);
    bool done = attempt(load, &l, &failure);
    pthread_mutex_unlock(&lock);
    if (!done)
        fail(failure.code, "%s", failure.message);
}
