/* The folder of an unpacked bundle: what deployment.json says of it. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "library.h"

#define MOST_BYTES MANIFEST_MAX_BYTES

/* Bytes read, or -1: it cannot be read, is not a regular file, or is too large. */
static ssize_t read_file(int fd, char *text) {
    struct stat info;
    size_t used = 0;
    if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode) || info.st_size > MOST_BYTES)
        return -1;
    for (;;) {
        ssize_t n = read(fd, text + used, MOST_BYTES - used);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return n < 0 ? -1 : (ssize_t)used;
        used += (size_t)n;
    }
}

/* O_NONBLOCK: a FIFO must not hang here. */
static ssize_t load(const char *path, char *text) {
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW);
    if (fd < 0)
        return -1;
    ssize_t size = read_file(fd, text);
    close(fd);
    return size;
}

static char *join(const char *folder, const char *path) {
    size_t size = strlen(folder) + 1 + strlen(path) + 1;
    char *joined = allocate(size, 1);
    snprintf(joined, size, "%s/%s", folder, path);
    return joined;
}

void place_open(struct place *place, const char *folder) {
    char path[4096 + sizeof DEPLOYMENT_FILE];
    if (!(place->folder = realpath(folder, NULL)))
        fail(errno == ENOMEM ? EXIT_MEMORY : EXIT_INPUT, "%s: %s", folder, strerror(errno));
    snprintf(path, sizeof path, "%s/%s", place->folder, DEPLOYMENT_FILE);
    if (access(path, F_OK) != 0)
        fail(EXIT_INPUT, "%s: it has no " DEPLOYMENT_FILE ": not an unpacked bundle", folder);
    place->text = allocate(MOST_BYTES, 1);
    ssize_t size = load(path, place->text);
    if (size < 0)
        fail(EXIT_INPUT, "%s: not a regular file of at most %d bytes that can be read", path, MOST_BYTES);
    place->room = allocate(DEPLOYMENT_ROOM, 1);
    const char *reason = deployment_parse(place->text, (size_t)size, place->room, &place->deployment);
    if (reason)
        fail(EXIT_INPUT, "%s: %s", path, reason);
    free(place->text);
    place->text = NULL;
    place->library = join(place->folder, place->deployment.library);
    place->model = join(place->folder, place->deployment.model);
}

void place_free(struct place *place) {
    free(place->folder);
    free(place->text);
    free(place->library);
    free(place->model);
    free(place->room);
}
