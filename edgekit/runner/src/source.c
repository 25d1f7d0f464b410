#define _GNU_SOURCE
#include "source.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fail.h"
#include "stop.h"

static int source = -1;
static const char *name;

/* Folder by folder, so that no link on the way leads out. Returns the folder of the last segment, to be closed. */
static int open_folder_of(int at, const char *path, const char **last) {
    int folder = openat(at, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    for (const char *slash; folder >= 0 && (slash = strchr(path, '/')); path = slash + 1) {
        char segment[256] = {0};
        if (slash - path < (int)sizeof segment)
            memcpy(segment, path, (size_t)(slash - path));
        int next = openat(folder, segment, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        int reason = errno;
        close(folder);
        folder = next;
        errno = reason;
    }
    *last = path;
    return folder;
}

/* O_NONBLOCK: a FIFO must not hang here. */
static int open_below(int at, const char *path) {
    const char *last;
    int folder = open_folder_of(at, path, &last);
    if (folder < 0)
        return -1;
    int fd = openat(folder, last, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW);
    int reason = errno;
    close(folder);
    errno = reason;
    return fd;
}

/* What is not there, or is a link, is not what was signed; other reasons say nothing about the bundle. */
static enum exit_code code_of(int reason, bool below) {
    if (!below)
        return EXIT_INPUT;
    return reason == ENOENT || reason == ENOTDIR || reason == ELOOP || reason == ENXIO ? EXIT_REFUSED : EXIT_IO;
}

static void check_regular(const struct stat *info, const char *what, enum exit_code code) {
    if (!S_ISREG(info->st_mode))
        fail(code, "%s: not a regular file", what);
}

void source_open(int at, const char *path, const char *what, int mode) {
    struct stat info;
    bool below = at != AT_FDCWD;
    source_close();
    source = below ? open_below(at, path) : open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    name = what;
    if (source < 0 || fstat(source, &info) != 0)
        fail(code_of(errno, below), "%s: %s", what, strerror(errno));
    check_regular(&info, what, below ? EXIT_REFUSED : EXIT_INPUT);
    if (below && mode != ANY_MODE && (info.st_mode & 07777) != (mode_t)mode)
        fail(EXIT_REFUSED, "%s: mode %o, not %o", what, info.st_mode & 07777, mode);
}

void source_close(void) {
    if (source >= 0)
        close(source);
    source = -1;
}

int source_keep(void) {
    int kept = source;
    source = -1;
    return kept;
}

void source_resume(int kept, const char *what) {
    source_close();
    source = kept;
    name = what;
}

bool source_at_end(void) {
    struct stat info;
    off_t at = lseek(source, 0, SEEK_CUR);
    return at >= 0 && fstat(source, &info) == 0 && at >= info.st_size;
}

size_t bundle_read(void *bytes, size_t size) {
    for (;;) {
        stop_if_asked();
        ssize_t n = read(source, bytes, size);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            fail(EXIT_IO, "%s: %s", name, strerror(errno));
        return (size_t)n;
    }
}

static struct bytes load(size_t limit, enum exit_code code) {
    char *text = allocate(limit + 1, 1);
    size_t used = 0;
    for (size_t n; used <= limit && (n = bundle_read(text + used, limit + 1 - used)) > 0;)
        used += n;
    if (used > limit)
        fail(code, "%s: larger than %zu bytes", name, limit);
    source_close();
    return (struct bytes){text, used};
}

struct bytes source_load(int at, const char *path, const char *what, size_t limit) {
    source_open(at, path, what, 0644);
    return load(limit, at == AT_FDCWD ? EXIT_INPUT : EXIT_REFUSED);
}

struct bytes source_load_open(int file, const char *what, size_t limit) {
    struct stat info;
    source_resume(file, what);
    if (fstat(file, &info) != 0)
        fail(EXIT_IO, "%s: %s", what, strerror(errno));
    check_regular(&info, what, EXIT_INPUT);
    return load(limit, EXIT_INPUT);
}
