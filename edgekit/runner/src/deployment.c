#define _GNU_SOURCE
#include "deployment.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fail.h"
#include "source.h"

static char *folder; /* absolute */

const char *deployment_path(const char *path) {
    size_t size = strlen(folder) + 1 + strlen(path) + 1;
    char *joined = allocate(size, 1);
    snprintf(joined, size, "%s/%s", folder, path);
    return joined;
}

static void read_deployment(const char *dir, struct deployment *deployment) {
    folder = realpath(dir, NULL);
    int fd = folder ? open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    if (fd < 0)
        fail(EXIT_INPUT, "%s: %s", dir, strerror(errno));
    if (faccessat(fd, DEPLOYMENT_FILE, F_OK, 0) != 0)
        fail(EXIT_INPUT, "%s: it has no " DEPLOYMENT_FILE ": not an unpacked bundle", dir);
    struct bytes text = source_load(fd, DEPLOYMENT_FILE, DEPLOYMENT_FILE, MANIFEST_MAX_BYTES);
    close(fd);
    const char *reason = deployment_parse(text.at, text.size, allocate(DEPLOYMENT_ROOM, 1), deployment);
    if (reason)
        fail(EXIT_INPUT, DEPLOYMENT_FILE ": %s", reason);
}

static bool has(const struct pairs *pairs, const char *key) {
    for (size_t i = 0; i < pairs->count; i++)
        if (strcmp(pairs->items[i].key, key) == 0)
            return true;
    return false;
}

static void add(struct pairs *to, const struct pairs *from, bool paths) {
    size_t given = to->count;
    for (size_t i = 0; i < from->count; i++) {
        struct pair pair = from->items[i];
        if (has(&(struct pairs){to->items, given}, pair.key))
            continue;
        if (paths)
            pair.value = deployment_path(pair.value);
        to->items = reallocate(to->items, to->count + 1, sizeof pair);
        to->items[to->count++] = pair;
    }
}

static void set(const char **option, const char *value) { *option = *option ? *option : value; }

/* Feeds are given all together or not at all: samples of one and of another do not belong together. */
static void fill_feeds(struct options *options, const struct deployment *deployment) {
    if (options->inputs.count)
        return;
    add(&options->inputs, &deployment->inputs, true);
    if (deployment->reset)
        set(&options->reset, deployment_path(deployment->reset));
}

void deployment_fill(struct options *options) {
    static struct deployment deployment;
    read_deployment(options->dir, &deployment);
    set(&options->engine, deployment.engine);
    set(&options->lib, deployment_path(deployment.library));
    set(&options->model, deployment_path(deployment.model));
    set(&options->precision, deployment.precision);
    if (!options->threads)
        options->threads = (long)deployment.threads;
    add(&options->engine_options, &deployment.options, false);
    add(&options->states, &deployment.states, false);
    fill_feeds(options, &deployment);
    options->deployment = &deployment;
}
