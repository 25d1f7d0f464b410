/* Which CPUs there are: kernel lists of them, and the cores /proc/cpuinfo tells apart. */
#ifndef EKRUN_CPUINFO_H
#define EKRUN_CPUINFO_H

#include "json.h"

#define MOST_CPUS 4096

/* The CPUs of a kernel list, "0-3,5", at most MOST_CPUS; -1 when it is none. */
int cpu_list(const char *text, int *cpus);

/* The CPUs that are online, or -1. */
int cpus_online(int *cpus);

struct core {
    int cpu;
    long implementer, part;
};

/* One for each "CPU part" of /proc/cpuinfo (ARM), at most MOST_CPUS. Returns how many. */
int cpuinfo_cores(struct core *cores);

/* The list `clusters` of {cpus, part, max_khz, capacity, governor}, or null: CPUs of one part and maximum frequency. */
void write_clusters(struct json *j);

/* The object `cores_by_max_khz`: how many cores share a maximum frequency, or null. */
void write_cores_by_max_khz(struct json *j);

#endif
