#define _GNU_SOURCE
#include "staging.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "bundle.h"
#include "durable.h"
#include "fail.h"
#include "stop.h"

#define NAME_ROOM 256
#define EXCHANGE 2 /* RENAME_EXCHANGE; the C library knows renameat2 from 2.28 on */

static int parent = -1, root = -1;         /* the folder above the staging folder, the staging folder */
static int target = -1;                    /* the folder above DIR */
static char name[NAME_ROOM];               /* of DIR in `target` */
static char staging[NAME_ROOM];            /* of the staging folder in `parent` */
static const char *destination;            /* DIR as asked, for messages */
static int file = -1;                      /* the one being written */
static char file_path[NAME_ROOM];          /* below the staging folder */
static bool committed;
/* Another thread may clean up (tether.h): once it has this, nothing is made and nothing gets its name any more. */
static pthread_mutex_t making = PTHREAD_MUTEX_INITIALIZER;

static _Noreturn void fail_io(const char *what) { fail(EXIT_IO, "%s: %s", what, strerror(errno)); }

/* The lock on the folder is held until the process ends, so no other process makes it anew meanwhile. */
static void remove_all(void) {
    pthread_mutex_lock(&making);
    if (committed)
        return;
    empty_folder(root);
    unlinkat(parent, staging, AT_REMOVEDIR);
}

/* Splits DIR into the folder above and a name. "a/b/" is "a/b". */
static void open_parent(const char *path) {
    size_t end = strlen(path);
    while (end > 1 && path[end - 1] == '/')
        end--;
    size_t start = end;
    while (start > 0 && path[start - 1] != '/')
        start--;
    size_t length = end - start;
    if (length == 0 || length > NAME_ROOM - sizeof ".." - sizeof ".staging" || strncmp(path + start, "..", length) == 0)
        fail(EXIT_USAGE, "%s: not the name of a new folder", path);
    memcpy(name, path + start, length);
    snprintf(staging, sizeof staging, ".%.*s.staging", (int)length, name);
    char *above = allocate(start + 2, 1);
    memcpy(above, start ? path : ".", start ? start : 1);
    parent = target = open(above, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (parent < 0)
        fail(EXIT_USAGE, "%s: %s", above, strerror(errno));
    free(above);
}

static bool is_still_there(int folder) {
    struct stat one, other;
    return fstat(folder, &one) == 0 && fstatat(parent, staging, &other, AT_SYMLINK_NOFOLLOW) == 0 &&
           one.st_dev == other.st_dev && one.st_ino == other.st_ino;
}

/* Before it is ours it may be removed only as long as it is empty. */
static _Noreturn void fail_staging(void) {
    int reason = errno;
    unlinkat(parent, staging, AT_REMOVEDIR);
    errno = reason;
    fail_io(staging);
}

/* Made by us or left behind by a process that was killed; whoever has the lock may empty it. Between opening and
 * locking its former owner may have removed it: then again. */
static void lock_staging(void) {
    for (;;) {
        if (mkdirat(parent, staging, 0700) != 0 && errno != EEXIST)
            fail_io(staging);
        root = openat(parent, staging, OPEN_FOLDER);
        if (root < 0 && errno == ENOENT)
            continue;
        if (root < 0)
            fail_staging();
        bool locked = flock(root, LOCK_EX | LOCK_NB) == 0;
        if (!locked && errno == EWOULDBLOCK)
            fail(EXIT_IO, "%s: another process is making this folder", destination);
        if (!locked)
            fail_staging();
        if (is_still_there(root))
            return;
        close(root);
    }
}

static void check_absent(void) {
    struct stat info;
    if (fstatat(target, name, &info, AT_SYMLINK_NOFOLLOW) == 0)
        fail(EXIT_USAGE, "%s: exists already; unpack takes a new folder", destination);
    if (errno != ENOENT)
        fail_io(destination);
}

static void check_ours(void) {
    struct stat info;
    if (fstat(root, &info) != 0 || info.st_uid != geteuid())
        fail(EXIT_IO, "%s: belongs to another user", staging);
}

static void begin(void) {
    lock_staging();
    check_ours();
    set_cleanup(remove_all);
    empty_folder(root);
    if (fchmod(root, 0755) != 0)
        fail_io(staging);
}

void staging_open(const char *path) {
    destination = path;
    open_parent(path);
    check_absent();
    begin();
}

void staging_open_at(int above, int place, const char *named, const char *shown) {
    destination = shown;
    parent = above;
    target = place;
    snprintf(name, sizeof name, "%s", named);
    snprintf(staging, sizeof staging, ".staging");
    begin();
}

/* A folder that this process made, or makes now; -1 on failure. */
static int open_or_make(int folder, const char *segment) {
    pthread_mutex_lock(&making);
    bool made = mkdirat(folder, segment, 0700) == 0;
    int below = made || errno == EEXIST ? openat(folder, segment, OPEN_FOLDER) : -1;
    if (below >= 0 && made && fchmod(below, 0755) != 0) { /* whatever the umask */
        close(below);
        below = -1;
    }
    pthread_mutex_unlock(&making);
    return below;
}

static int make_file(int folder, const char *segment, unsigned mode) {
    pthread_mutex_lock(&making);
    int made = openat(folder, segment, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (made >= 0 && fchmod(made, mode) != 0) {
        close(made);
        made = -1;
    }
    pthread_mutex_unlock(&making);
    return made;
}

void staging_file(const char *path, unsigned mode) {
    char segments[NAME_ROOM];
    stop_if_asked();
    snprintf(file_path, sizeof file_path, "%s", path);
    snprintf(segments, sizeof segments, "%s", path);
    char *segment = segments;
    int folder = root;
    for (char *slash; (slash = strchr(segment, '/')); segment = slash + 1) {
        *slash = '\0';
        int below = open_or_make(folder, segment);
        if (below < 0)
            fail_io(path);
        if (folder != root)
            close(folder);
        folder = below;
    }
    file = make_file(folder, segment, mode);
    if (file < 0)
        fail_io(path);
    if (folder != root)
        close(folder);
}

void bundle_write(const void *bytes, size_t size) {
    while (size) {
        stop_if_asked();
        ssize_t n = write(file, bytes, size);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            fail_io(file_path);
        bytes = (const char *)bytes + n;
        size -= (size_t)n;
    }
}

void staging_restart_file(void) {
    if (ftruncate(file, 0) != 0 || lseek(file, 0, SEEK_SET) != 0)
        fail_io(file_path);
}

void staging_end_file(void) {
    if (fsync(file) != 0 || close(file) != 0)
        fail_io(file_path);
}

static bool sync_below(int folder) {
    int copy = openat(folder, ".", OPEN_FOLDER);
    DIR *dir = copy < 0 ? NULL : fdopendir(copy);
    bool good = dir;
    for (struct dirent *entry; good && (entry = readdir(dir));) {
        int below = entry->d_name[0] == '.' ? -1 : openat(folder, entry->d_name, OPEN_FOLDER);
        if (below < 0)
            continue; /* a file */
        good = sync_below(below);
        close(below);
    }
    if (dir)
        closedir(dir);
    return good && sync_folder(folder);
}

void staging_sync(void) {
    if (!sync_below(root))
        fail_io(staging);
}

static bool take_place(bool exchange) {
    if (exchange && syscall(SYS_renameat2, parent, staging, target, name, EXCHANGE) == 0)
        return true;
    if (exchange && errno != ENOENT) /* else what has its name was lost */
        return false;
    return renameat(parent, staging, target, name) == 0;
}

static _Noreturn void fail_placing(bool exchange) {
    if (exchange && (errno == EINVAL || errno == ENOSYS || errno == EPERM))
        fail(EXIT_IO, "%s: it is damaged and current, and this file system cannot replace it in one step (%s); install "
             "another bundle first, then this one again", destination, strerror(errno));
    fail_io(destination);
}

void staging_place(bool exchange) {
    pthread_mutex_lock(&making);
    committed = take_place(exchange);
    pthread_mutex_unlock(&making);
    if (!committed)
        fail_placing(exchange);
    if (!sync_folder(target) || (parent != target && !sync_folder(parent)))
        fail(EXIT_IO, "%s: is in place, but may not outlast a power cut: %s", destination, strerror(errno));
}
