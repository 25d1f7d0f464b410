#define _GNU_SOURCE
#include "lock.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "proc.h"

#define LOOK_MS 20

/* What an earlier ekrun has made may be open to all. */
static void make_private(int file) {
    struct stat info;
    if (fstat(file, &info) == 0 && info.st_mode & 077 && info.st_uid == geteuid())
        fchmod(file, 0600);
}

int lock_file(int at, const char *name, int flags, int kind, int milliseconds) {
    int64_t deadline = now_ns() + milliseconds * INT64_C(1000000);
    int file = openat(at, name, flags | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (file < 0)
        return -1;
    if (flags & O_CREAT)
        make_private(file);
    while (flock(file, kind | LOCK_NB) != 0) {
        int reason = errno;
        if (reason != EINTR && (reason != EWOULDBLOCK || now_ns() >= deadline)) {
            close(file);
            errno = reason;
            return -1;
        }
        poll(0, 0, LOOK_MS);
    }
    return file;
}
