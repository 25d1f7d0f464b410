/* What this process's control groups grant it, v1 and v2 alike, and where they are. */
#ifndef EKRUN_CGROUP_H
#define EKRUN_CGROUP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CGROUP_PATH_SIZE 4096

/* CPUs' worth of time, the least over the group and its ancestors; negative: unlimited or unknown. */
double cgroup_cpu_quota(void);

/* Bytes, the least over the group and its ancestors; -1: unlimited or unknown. */
int64_t cgroup_memory_limit(void);

/* The CPUs of the nearest group that says so, as the kernel writes them ("0-3,5"); false when none does. */
bool cgroup_cpuset(char *text, size_t size);

/* This process's group of a v1 `controller`, or of v2 when it is "": a path that begins with '/'. */
bool cgroup_path(const char *controller, char *group, size_t size);

#endif
