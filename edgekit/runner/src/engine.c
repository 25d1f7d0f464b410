#define _GNU_SOURCE
#include "engine.h"

#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "fail.h"
#include "limit.h"
#include "proc.h"

#define LONGEST_PATH 4096

static bool open_library(const char *path, void **library) {
    *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    return *library != NULL;
}

static _Noreturn void fail_to_open(const char *path) {
    const char *reason = dlerror();
    reason = reason ? reason : path;
    fail(unless_memory(EXIT_LIBRARY, reason), "%s", reason);
}

/* `prefix` and a version: libstdc++.so.6.0.30, not the libstdc++.so.6.0.30-gdb.py that a system keeps beside it. */
static bool is_library(const char *name, const char *prefix) {
    size_t length = strlen(prefix);
    return strncmp(name, prefix, length) == 0 && name[length] && !name[length + strspn(name + length, "0123456789.")];
}

/* Opened by absolute path before the engine's library, they satisfy its DT_NEEDED by soname: no LD_LIBRARY_PATH, and no
 * mixture with a system copy. */
static void open_companions(const char *library, const char *prefix) {
    char folder[LONGEST_PATH], path[LONGEST_PATH + 256];
    bool opened = true;
    snprintf(folder, sizeof folder, "%.*s", (int)(strrchr(library, '/') - library), library);
    DIR *dir = opendir(folder);
    if (!dir)
        return; /* dlopen of the library itself gives the reason */
    for (struct dirent *entry; opened && (entry = readdir(dir));) {
        void *companion;
        if (!is_library(entry->d_name, prefix))
            continue;
        snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        opened = open_library(path, &companion);
    }
    closedir(dir);
    if (!opened)
        fail_to_open(path);
}

static void load_library(struct engine *engine) {
    int64_t started = now_ns();
    const char *path = engine->options->lib;
    if (strlen(path) >= LONGEST_PATH)
        fail(EXIT_LIBRARY, "%.64s...: %s", path, strerror(ENAMETOOLONG));
    for (const char *const *prefix = engine->ops->companions; *prefix; prefix++)
        open_companions(path, *prefix);
    if (!open_library(path, &engine->library))
        fail_to_open(path);
    engine->ops->load(engine);
    engine->library_load_ns = now_ns() - started;
}

/* A FIFO would hang the engine, and engines word these cases badly. */
static void check_model_file(const char *path) {
    struct stat info;
    if (stat(path, &info) != 0)
        fail(EXIT_MODEL, "%s: %s", path, strerror(errno));
    if (!S_ISREG(info.st_mode))
        fail(EXIT_MODEL, "%s: not a regular file", path);
}

void engine_load(struct engine *engine, const struct options *options) {
    static const struct engine_ops *const engines[] = {&ENGINE_ONNXRUNTIME, &ENGINE_OPENVINO};
    *engine = (struct engine){.options = options, .model_read_ns = -1};
    for (size_t i = 0; i < sizeof engines / sizeof *engines; i++)
        if (strcmp(engines[i]->name, options->engine) == 0)
            engine->ops = engines[i];
    if (!engine->ops)
        fail(EXIT_USAGE, "--engine takes onnxruntime or openvino, not %s", options->engine);
    check_model_file(options->model);
    load_library(engine);
}

void engine_open(struct engine *engine, const struct options *options) {
    engine_load(engine, options);
    engine->lane_count = (size_t)options->streams;
    engine->ops->open(engine);
}

void engine_branch(struct engine *branch, const struct engine *engine) {
    *branch = *engine;
    branch->impl = NULL;
    branch->is_branch = true;
    branch->lane_count = 1;
    engine->ops->branch(branch, engine);
}

static void free_ports(struct port *ports, size_t count) {
    for (size_t i = 0; ports && i < count; i++)
        free(ports[i].name);
    free(ports);
}

void engine_close(struct engine *engine) {
    if (engine->impl)
        engine->ops->close(engine);
    engine->impl = NULL;
    if (engine->is_branch)
        return;
    free_ports(engine->inputs, engine->input_count);
    free_ports(engine->outputs, engine->output_count);
    engine->inputs = engine->outputs = NULL;
}

static long find_port(const struct port *ports, size_t count, const char *name) {
    for (size_t i = 0; i < count; i++)
        if (strcmp(ports[i].name, name) == 0)
            return (long)i;
    return -1;
}

long engine_find(struct engine *engine, const char *name, bool is_input) {
    const struct port *ports = is_input ? engine->inputs : engine->outputs;
    size_t count = is_input ? engine->input_count : engine->output_count;
    long index = find_port(ports, count, name);
    if (index >= 0 || !engine->ops->resolve)
        return index;
    const char *known = engine->ops->resolve(engine, name, is_input);
    return known ? find_port(ports, count, known) : -1;
}

static void describe_settings(struct engine *engine, struct json *j) {
    const struct options *asked = engine->options;
    json_begin(j, "settings_asked", '{');
    json_int(j, "threads", asked->threads);
    json_string(j, "precision", asked->precision);
    json_begin(j, "options", '{');
    for (size_t i = 0; i < asked->engine_options.count; i++)
        json_string(j, asked->engine_options.items[i].key, asked->engine_options.items[i].value);
    json_end(j, '}');
    json_end(j, '}');
    json_begin(j, "settings_in_force", '{');
    engine->ops->settings(engine, j);
    json_end(j, '}');
}

static void describe_time(struct json *j, const char *key, int64_t ns) {
    if (ns < 0)
        json_null(j, key);
    else
        json_real(j, key, (double)ns / 1e6);
}

void engine_describe(struct engine *engine, struct json *j) {
    json_string(j, "engine", engine->ops->name);
    json_string(j, "engine_version", engine->version);
    json_bool(j, "emulated", emulated());
    write_memory_limit(j);
    describe_settings(engine, j);
    describe_time(j, "library_load_ms", engine->library_load_ns);
    describe_time(j, "model_read_ms", engine->model_read_ns);
    describe_time(j, "session_create_ms", engine->session_create_ns);
}

char *copy_text(const char *text) {
    size_t size = strlen(text) + 1;
    char *copy = malloc(size);
    return copy ? memcpy(copy, text, size) : NULL;
}

void *engine_symbol(struct engine *engine, const char *name) {
    void *symbol = dlsym(engine->library, name);
    if (!symbol)
        fail(EXIT_LIBRARY, "%s has no %s: another library, or too old", engine->options->lib, name);
    return symbol;
}

void check_port(const struct port *port, const char *what) {
    if (port->dtype == DT_NONE)
        fail(EXIT_MODEL,
             "%s '%s' has an element type ekrun does not carry (it carries floats, integers and bool, not strings)",
             what, port->name);
    if (port->rank > MAX_RANK)
        fail(EXIT_MODEL, "%s '%s' has %d dimensions, at most %d are carried", what, port->name, port->rank, MAX_RANK);
}
