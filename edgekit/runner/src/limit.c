/* A group of one's own is a folder that outlives its processes, and the kernel may kill this process at any moment. So
 * a janitor, forked first, sleeps on a pipe that the kernel closes however this process ends, and then removes the
 * folder. It has a session of its own: whoever kills this process's group does not kill it. */
#define _GNU_SOURCE
#include "limit.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "cgroup.h"
#include "fail.h"
#include "proc.h"
#include "sysfile.h"

#define PREFIX "ekrun-"
#define MOST_LEFT_OVER 256
#define PATH_ROOM (CGROUP_PATH_SIZE + 64)
#define REMOVAL_TRIES 5000 /* of 1 ms: a killed process may take a while to give its memory back */

static long limit_bytes;
static const char *limit_kind;

static bool write_file(const char *folder, const char *name, const char *text) {
    char path[PATH_ROOM];
    if (snprintf(path, sizeof path, "%s/%s", folder, name) >= (int)sizeof path)
        return false;
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    bool done = write(fd, text, strlen(text)) == (ssize_t)strlen(text);
    close(fd);
    return done;
}

static bool has_file(const char *folder, const char *name) {
    char path[PATH_ROOM];
    return snprintf(path, sizeof path, "%s/%s", folder, name) < (int)sizeof path && access(path, F_OK) == 0;
}

/* Everything this process has open, the caller's pipes first: whoever waits for their end must not wait for us. */
static void close_all_but(int kept) {
    long most = sysconf(_SC_OPEN_MAX);
    for (int fd = 0; fd < (most > 0 && most < 4096 ? most : 4096); fd++)
        if (fd != kept)
            close(fd);
}

static _Noreturn void keep_house(int link, const char *folder) {
    const struct timespec nap = {.tv_nsec = 1000000};
    char byte;
    setsid();
    prctl(PR_SET_NAME, "ekrun-janitor");
    close_all_but(link);
    while (read(link, &byte, 1) < 0 && errno == EINTR)
        ;
    for (int i = 0; i < REMOVAL_TRIES && rmdir(folder) != 0 && errno == EBUSY; i++)
        nanosleep(&nap, NULL);
    _exit(0);
}

/* The write end of the pipe is left open, to be closed by the end of this process. */
static bool start_janitor(const char *folder) {
    int link[2];
    if (pipe2(link, O_CLOEXEC) != 0)
        return false;
    pid_t janitor = fork();
    if (janitor == 0) {
        close(link[1]);
        keep_house(link[0], folder);
    }
    close(link[0]);
    if (janitor < 0)
        close(link[1]);
    return janitor > 0;
}

/* Groups whose janitor was killed too. A group in use cannot be removed. */
static void remove_left_over(const char *parent) {
    static int left[MOST_LEFT_OVER];
    char path[PATH_ROOM];
    int count = sys_list(parent, PREFIX, left, MOST_LEFT_OVER);
    for (int i = 0; i < count; i++)
        if (kill(left[i], 0) != 0 && errno == ESRCH &&
            snprintf(path, sizeof path, "%s/" PREFIX "%d", parent, left[i]) < (int)sizeof path)
            rmdir(path);
}

/* Swap would only hide that memory ran out. Not every kernel counts it. */
static bool set_limits(const char *folder, const char *bytes, bool v2) {
    bool done = write_file(folder, v2 ? "memory.max" : "memory.limit_in_bytes", bytes);
    if (done)
        write_file(folder, v2 ? "memory.swap.max" : "memory.memsw.limit_in_bytes", v2 ? "0" : bytes);
    return done;
}

/* What this process holds already stays charged to its old group: some hundred kB, before any engine. */
static bool enter_group_below(const char *parent, bool v2) {
    char folder[PATH_ROOM], bytes[24];
    snprintf(bytes, sizeof bytes, "%ld", limit_bytes);
    if (snprintf(folder, sizeof folder, "%s/" PREFIX "%d", parent, (int)getpid()) >= (int)sizeof folder)
        return false;
    remove_left_over(parent);
    rmdir(folder); /* of an older process that had this one's number */
    if (mkdir(folder, 0755) != 0)
        return false;
    if (start_janitor(folder) && set_limits(folder, bytes, v2) && write_file(folder, "cgroup.procs", "0"))
        return true;
    rmdir(folder);
    return false;
}

/* v1: a child of this process's group. In a container the path may be the host's: then of the mount's root. */
static bool enter_v1(void) {
    char group[CGROUP_PATH_SIZE], parent[PATH_ROOM];
    if (!cgroup_path("memory", group, sizeof group))
        return false;
    snprintf(parent, sizeof parent, "/sys/fs/cgroup/memory%s", strcmp(group, "/") ? group : "");
    if (access(parent, F_OK) != 0)
        snprintf(parent, sizeof parent, "/sys/fs/cgroup/memory");
    return enter_group_below(parent, false);
}

/* True when the v2 group in `folder` limits memory itself: its processes must not leave it. */
static bool is_limited(const char *folder) {
    char path[PATH_ROOM], text[64];
    return snprintf(path, sizeof path, "%s/memory.max", folder) < (int)sizeof path &&
           sys_read_line(path, text, sizeof text) && strcmp(text, "max") != 0;
}

static bool gives_memory(const char *folder) {
    char path[PATH_ROOM], text[512];
    return snprintf(path, sizeof path, "%s/cgroup.subtree_control", folder) < (int)sizeof path &&
           sys_read_line(path, text, sizeof text) && strstr(text, "memory");
}

/* v2: a group that hands memory control down holds no processes, so ours becomes a sibling of the present one, below
 * the nearest ancestor that does. No setting of the system's groups is changed. */
static bool enter_v2(const char *mount) {
    char group[CGROUP_PATH_SIZE], folder[PATH_ROOM];
    if (!has_file(mount, "cgroup.controllers") || !cgroup_path("", group, sizeof group))
        return false;
    snprintf(folder, sizeof folder, "%s%s", mount, strcmp(group, "/") ? group : "");
    while (!gives_memory(folder)) {
        char *slash = strrchr(folder + strlen(mount), '/');
        if (!slash || is_limited(folder))
            return false;
        *slash = '\0';
    }
    return enter_group_below(folder, true);
}

/* DATA and not AS: engines map libraries and models, and reserve room for stacks and arenas, many times what they
 * touch. DATA counts private writable memory only (since Linux 4.7), which is nearest to what has to fit in RAM. */
static void limit_data(void) {
    const struct rlimit limit = {(rlim_t)limit_bytes, (rlim_t)limit_bytes};
    if (setrlimit(RLIMIT_DATA, &limit) != 0)
        fail(EXIT_USAGE, "--memory-limit cannot be set: %s", strerror(errno));
}

void limit_memory(long bytes) {
    if (emulated())
        fail(EXIT_USAGE, "--memory-limit proves nothing under emulation: the memory would be the emulator's");
    limit_bytes = bytes;
    limit_kind = "cgroup";
    if (enter_v1() || enter_v2("/sys/fs/cgroup"))
        return;
    limit_kind = "rlimit_data";
    limit_data();
}

void write_memory_limit(struct json *j) {
    if (!limit_kind) {
        json_null(j, "memory_limit");
        return;
    }
    json_begin(j, "memory_limit", '{');
    json_int(j, "bytes", limit_bytes);
    json_string(j, "kind", limit_kind);
    json_end(j, '}');
}
