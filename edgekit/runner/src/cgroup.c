#define _GNU_SOURCE
#include "cgroup.h"

#include <stdio.h>
#include <string.h>

#include "sysfile.h"

#define EXACT_BYTES (1LL << 53) /* a double holds every whole number up to here; no machine has as much memory */

/* Looks at the folder of one group; true ends the walk. */
typedef bool visit(const char *folder, void *context);

/* v2 may be mounted alone, or beside v1. */
static const char *const MOUNTS_V2[] = {"/sys/fs/cgroup", "/sys/fs/cgroup/unified", NULL};
static const char *const MOUNTS_CPU[] = {"/sys/fs/cgroup/cpu", "/sys/fs/cgroup/cpu,cpuacct", NULL};
static const char *const MOUNTS_MEMORY[] = {"/sys/fs/cgroup/memory", NULL};
static const char *const MOUNTS_CPUSET[] = {"/sys/fs/cgroup/cpuset", NULL};

/* True when `name` is one of the comma-separated `controllers`, which end at a colon. */
static bool has_controller(const char *controllers, const char *name) {
    size_t wanted = strlen(name);
    for (const char *at = controllers;; at++) {
        size_t size = strcspn(at, ",:");
        if (size == wanted && memcmp(at, name, size) == 0)
            return true;
        at += size;
        if (*at != ',')
            return false;
    }
}

/* Lines "0::/group" (v2) or "4:cpu,cpuacct:/group" (v1). */
bool cgroup_path(const char *controller, char *group, size_t size) {
    char text[8192], *rest = NULL;
    if (!sys_read("/proc/self/cgroup", text, sizeof text))
        return false;
    for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest)) {
        const char *controllers = strchr(line, ':');
        const char *path = controllers ? strchr(controllers + 1, ':') : NULL;
        if (path && path[1] == '/' && has_controller(controllers + 1, controller))
            return snprintf(group, size, "%s", path + 1) < (int)size;
    }
    return false;
}

/* From the group up to the mount's root. In a container the path may name folders that only the host sees: the
 * container's own limit then stands at the root of what is mounted. */
static bool walk_up(const char *mount, const char *group, visit *look, void *context) {
    char folder[CGROUP_PATH_SIZE];
    size_t root = strlen(mount);
    if (snprintf(folder, sizeof folder, "%s%s", mount, group) >= (int)sizeof folder)
        return false;
    for (;;) {
        if (look(folder, context))
            return true;
        char *slash = strrchr(folder + root, '/');
        if (!slash)
            return false;
        *slash = '\0';
    }
}

static bool walk(const char *controller, const char *const *mounts, visit *look, void *context) {
    char group[CGROUP_PATH_SIZE];
    if (!cgroup_path(controller, group, sizeof group))
        return false;
    for (; *mounts; mounts++)
        if (walk_up(*mounts, group, look, context))
            return true;
    return false;
}

static bool read_in(const char *folder, const char *name, char *text, size_t size) {
    char path[CGROUP_PATH_SIZE + 64];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return sys_read_line(path, text, size);
}

static void tighten(double *least, double value) {
    if (value >= 0 && (*least < 0 || value < *least))
        *least = value;
}

/* v2: "max 100000" or "50000 100000". */
static bool look_quota_v2(const char *folder, void *least) {
    char text[64];
    long quota, period;
    if (read_in(folder, "cpu.max", text, sizeof text) && sscanf(text, "%ld %ld", &quota, &period) == 2 && period > 0)
        tighten(least, (double)quota / (double)period);
    return false;
}

/* v1: a quota of -1 means none. */
static bool look_quota_v1(const char *folder, void *least) {
    char text[64];
    long quota, period;
    if (!read_in(folder, "cpu.cfs_quota_us", text, sizeof text) || sscanf(text, "%ld", &quota) != 1)
        return false;
    if (!read_in(folder, "cpu.cfs_period_us", text, sizeof text) || sscanf(text, "%ld", &period) != 1)
        return false;
    if (quota > 0 && period > 0)
        tighten(least, (double)quota / (double)period);
    return false;
}

double cgroup_cpu_quota(void) {
    double least = -1;
    walk("", MOUNTS_V2, look_quota_v2, &least);
    walk("cpu", MOUNTS_CPU, look_quota_v1, &least);
    return least;
}

/* "max", or in v1 the largest multiple of a page below 2^63, is no limit. */
static bool look_memory(const char *folder, const char *name, double *least) {
    char text[64];
    long long bytes;
    if (read_in(folder, name, text, sizeof text) && sscanf(text, "%lld", &bytes) == 1 && bytes < EXACT_BYTES)
        tighten(least, (double)bytes);
    return false;
}

static bool look_memory_v2(const char *folder, void *least) { return look_memory(folder, "memory.max", least); }

static bool look_memory_v1(const char *folder, void *least) {
    return look_memory(folder, "memory.limit_in_bytes", least);
}

int64_t cgroup_memory_limit(void) {
    double least = -1;
    walk("", MOUNTS_V2, look_memory_v2, &least);
    walk("memory", MOUNTS_MEMORY, look_memory_v1, &least);
    return (int64_t)least;
}

struct text {
    char *text;
    size_t size;
};

static bool look_cpuset_v2(const char *folder, void *context) {
    struct text *to = context;
    return read_in(folder, "cpuset.cpus.effective", to->text, to->size);
}

static bool look_cpuset_v1(const char *folder, void *context) {
    struct text *to = context;
    return read_in(folder, "cpuset.effective_cpus", to->text, to->size) ||
           read_in(folder, "cpuset.cpus", to->text, to->size);
}

bool cgroup_cpuset(char *text, size_t size) {
    struct text to = {text, size};
    return walk("", MOUNTS_V2, look_cpuset_v2, &to) || walk("cpuset", MOUNTS_CPUSET, look_cpuset_v1, &to);
}
