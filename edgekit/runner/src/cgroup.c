#define _GNU_SOURCE
#include "cgroup.h"

#include <stdio.h>
#include <string.h>

#include "sysfile.h"

#define PATH_SIZE 4096

static double tighter(double a, double b) {
    if (a < 0 || b < 0)
        return a < 0 ? b : a;
    return a < b ? a : b;
}

/* v2: "max 100000" or "50000 100000". */
static double quota_v2(const char *folder) {
    char path[PATH_SIZE + 16], text[64];
    long quota, period;
    snprintf(path, sizeof path, "%s/cpu.max", folder);
    if (!sys_read_line(path, text, sizeof text) || sscanf(text, "%ld %ld", &quota, &period) != 2 || period <= 0)
        return -1;
    return (double)quota / (double)period;
}

/* v1: a quota of -1 means none. */
static double quota_v1(const char *folder) {
    char path[PATH_SIZE + 32];
    long quota = -1, period = -1;
    char text[64];
    snprintf(path, sizeof path, "%s/cpu.cfs_quota_us", folder);
    if (!sys_read_line(path, text, sizeof text) || sscanf(text, "%ld", &quota) != 1)
        return -1;
    snprintf(path, sizeof path, "%s/cpu.cfs_period_us", folder);
    if (!sys_read_line(path, text, sizeof text) || sscanf(text, "%ld", &period) != 1)
        return -1;
    return quota > 0 && period > 0 ? (double)quota / (double)period : -1;
}

/* From the group up to the mount's root. In a container the path may name folders that only the host sees: the
 * container's own limit then stands at the root of what is mounted. */
static double walk_up(const char *mount, const char *group, double (*quota)(const char *folder)) {
    char folder[PATH_SIZE];
    double least = -1;
    size_t root = strlen(mount);
    if (snprintf(folder, sizeof folder, "%s%s", mount, group) >= (int)sizeof folder)
        return -1;
    for (;;) {
        least = tighter(least, quota(folder));
        char *slash = strrchr(folder + root, '/');
        if (!slash)
            return least;
        *slash = '\0';
    }
}

/* True when `name` is one of the comma-separated `controllers`. */
static bool has_controller(const char *controllers, size_t length, const char *name) {
    size_t wanted = strlen(name);
    for (const char *at = controllers, *end = controllers + length; at < end;) {
        size_t size = strcspn(at, ",:");
        if (size == wanted && memcmp(at, name, size) == 0)
            return true;
        at += size + 1;
    }
    return false;
}

/* A line "0::/group" (v2) or "4:cpu,cpuacct:/group" (v1). */
static double quota_of_line(const char *line) {
    const char *controllers = strchr(line, ':');
    const char *group = controllers ? strchr(controllers + 1, ':') : NULL;
    if (!group)
        return -1;
    controllers++;
    size_t length = (size_t)(group - controllers);
    group++;
    if (length == 0)
        return tighter(walk_up("/sys/fs/cgroup", group, quota_v2), walk_up("/sys/fs/cgroup/unified", group, quota_v2));
    if (!has_controller(controllers, length, "cpu"))
        return -1;
    return tighter(walk_up("/sys/fs/cgroup/cpu", group, quota_v1),
                   walk_up("/sys/fs/cgroup/cpu,cpuacct", group, quota_v1));
}

double cgroup_cpu_quota(void) {
    char text[8192], *rest = NULL;
    double least = -1;
    if (!sys_read("/proc/self/cgroup", text, sizeof text))
        return -1;
    for (char *line = strtok_r(text, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest))
        least = tighter(least, quota_of_line(line));
    return least;
}
