#define _GNU_SOURCE
#include "durable.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "fail.h"

#define DEEPEST 64 /* of what is removed; a bundle's own folders are at most 7 deep */
#define NAME_ROOM 256
#define SAME_MOUNT 1 /* RESOLVE_NO_XDEV */
#ifndef SYS_openat2
#define SYS_openat2 437
#endif

static _Noreturn void fail_io(const char *shown) { fail(EXIT_IO, "%s: %s", shown, strerror(errno)); }

bool sync_folder(int folder) { return fsync(folder) == 0 || errno == EINVAL; }

int durable_folder(int at, const char *name, const char *shown) {
    bool there = mkdirat(at, name, 0755) == 0 || errno == EEXIST;
    int folder = there ? openat(at, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    if (folder < 0 || !sync_folder(at)) /* who made it may have been killed before it was */
        fail_io(shown);
    return folder;
}

static void new_name(char *text, const char *name) { snprintf(text, NAME_ROOM, ".%s.new", name); }

void durable_take(int at, const char *made, const char *name, const char *shown) {
    if (renameat(at, made, at, name) != 0 || !sync_folder(at))
        fail_io(shown);
}

static bool write_all(int file, struct bytes bytes) {
    while (bytes.size) {
        ssize_t n = write(file, bytes.at, bytes.size);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return false;
        bytes = (struct bytes){(const char *)bytes.at + n, bytes.size - (size_t)n};
    }
    return true;
}

static void make_file(int at, const char *made, struct bytes bytes, const char *shown) {
    unlinkat(at, made, 0);
    int file = openat(at, made, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    bool good = file >= 0 && fchmod(file, 0644) == 0 && write_all(file, bytes) && fsync(file) == 0;
    int reason = errno;
    if (file >= 0)
        close(file);
    errno = reason;
    if (!good)
        fail_io(shown);
}

static void make_link(int at, const char *made, const char *target, const char *shown) {
    unlinkat(at, made, 0);
    if (symlinkat(target, at, made) != 0)
        fail_io(shown);
}

void durable_file(int at, const char *name, struct bytes bytes, const char *shown) {
    char made[NAME_ROOM];
    new_name(made, name);
    make_file(at, made, bytes, shown);
    durable_take(at, made, name, shown);
}

void durable_link(int at, const char *name, const char *target, const char *shown) {
    char made[NAME_ROOM];
    new_name(made, name);
    make_link(at, made, target, shown);
    durable_take(at, made, name, shown);
}

void durable_spare(int at, const char *made, struct bytes bytes, const char *shown) {
    make_file(at, made, bytes, shown);
    if (!sync_folder(at))
        fail_io(shown);
}

void durable_spare_link(int at, const char *made, const char *target, const char *shown) {
    make_link(at, made, target, shown);
    if (!sync_folder(at))
        fail_io(shown);
}

bool durable_refill(int at, const char *made, const char *name, struct bytes bytes) {
    off_t size = (off_t)bytes.size;
    int file = openat(at, made, O_WRONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    bool good = file >= 0 && write_all(file, bytes) && ftruncate(file, size) == 0 && fsync(file) == 0;
    if (file >= 0)
        close(file);
    return good && renameat(at, made, at, name) == 0 && sync_folder(at);
}

void durable_unlink(int at, const char *name, const char *shown) {
    if ((unlinkat(at, name, 0) != 0 && errno != ENOENT) || !sync_folder(at))
        fail_io(shown);
}

/* A folder on the same mount as the one it is in, or -1 with errno. A bind mount may be of the same device, which only
 * openat2, from Linux 5.6 on, tells. */
static int open_here(int folder, const char *entry) {
    const struct {
        uint64_t flags, mode, resolve;
    } how = {OPEN_FOLDER, 0, SAME_MOUNT};
    struct stat one, other;
    int below = (int)syscall(SYS_openat2, folder, entry, &how, sizeof how);
    if (below >= 0 || errno == EXDEV)
        return below;
    below = openat(folder, entry, OPEN_FOLDER);
    if (below < 0 || (fstat(folder, &one) == 0 && fstat(below, &other) == 0 && one.st_dev == other.st_dev))
        return below;
    close(below);
    errno = EXDEV;
    return -1;
}

/* Calls `each` for all that is in a folder. */
static void each_entry(int folder, int depth, void (*each)(int, const char *, int, void *), void *with) {
    int copy = openat(folder, ".", OPEN_FOLDER); /* closedir closes it */
    DIR *dir = copy < 0 ? NULL : fdopendir(copy);
    if (!dir)
        return;
    for (struct dirent *entry; (entry = readdir(dir));)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            each(folder, entry->d_name, depth, with);
    closedir(dir);
}

static void remove_entry(int folder, const char *entry, int depth, void *unused) {
    if (unlinkat(folder, entry, 0) == 0 || (errno != EISDIR && errno != EPERM))
        return;
    int below = depth < DEEPEST ? open_here(folder, entry) : -1;
    if (below >= 0) {
        each_entry(below, depth + 1, remove_entry, unused);
        close(below);
    }
    unlinkat(folder, entry, AT_REMOVEDIR); /* not of what is mounted: the kernel keeps it */
}

void empty_folder(int folder) { each_entry(folder, 0, remove_entry, NULL); }

void remove_tree(int at, const char *name) { remove_entry(at, name, 0, NULL); }

static void add_entry(int folder, const char *entry, int depth, void *sum) {
    struct stat info;
    if (fstatat(folder, entry, &info, AT_SYMLINK_NOFOLLOW) != 0)
        return;
    if (!S_ISDIR(info.st_mode)) {
        *(uint64_t *)sum += info.st_nlink == 1 ? (uint64_t)info.st_blocks * 512 : 0;
        return;
    }
    int below = depth < DEEPEST ? open_here(folder, entry) : -1;
    if (below >= 0) {
        each_entry(below, depth + 1, add_entry, sum);
        close(below);
    }
}

uint64_t tree_bytes(int at, const char *name) {
    uint64_t sum = 0;
    add_entry(at, name, 0, &sum);
    return sum;
}
