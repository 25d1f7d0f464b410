#include "cpuinfo.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sysfile.h"

#define CPUS "/sys/devices/system/cpu"

/* A CPU's number at `*at`, and past it; -1 when none is there. */
static long take_cpu(const char **at) {
    char *end;
    if (**at < '0' || **at > '9')
        return -1;
    long number = strtol(*at, &end, 10);
    *at = end;
    return number < MOST_CPUS ? number : -1;
}

int cpu_list(const char *text, int *cpus) {
    int count = 0;
    for (const char *at = text; *at;) {
        long first = take_cpu(&at), last = first;
        if (*at == '-') {
            at++;
            last = take_cpu(&at);
        }
        if (first < 0 || last < first || (*at && *at != ',') || last - first >= MOST_CPUS - count)
            return -1;
        for (long cpu = first; cpu <= last; cpu++)
            cpus[count++] = (int)cpu;
        at += *at == ',';
    }
    return count;
}

int cpus_online(int *cpus) {
    char text[1024];
    return sys_read_line(CPUS "/online", text, sizeof text) ? cpu_list(text, cpus) : -1;
}

/* The value after the colon of a line of /proc/cpuinfo that begins with `key`, or -1. */
static long cpuinfo_value(const char *line, const char *key) {
    if (strncmp(line, key, strlen(key)) != 0)
        return -1;
    const char *colon = strchr(line, ':');
    return colon ? strtol(colon + 1, NULL, 0) : -1;
}

int cpuinfo_cores(struct core *cores) {
    static char text[1 << 18];
    struct core core = {-1, -1, -1};
    int count = 0;
    if (!sys_read("/proc/cpuinfo", text, sizeof text))
        return 0;
    for (char *line = text, *next; line && count < MOST_CPUS; line = next) {
        next = strchr(line, '\n');
        if (next)
            *next++ = '\0';
        long cpu = cpuinfo_value(line, "processor"), implementer = cpuinfo_value(line, "CPU implementer");
        if (cpu >= 0)
            core.cpu = cpu < MOST_CPUS ? (int)cpu : -1;
        if (implementer >= 0)
            core.implementer = implementer;
        core.part = cpuinfo_value(line, "CPU part");
        if (core.part >= 0)
            cores[count++] = core;
    }
    return count;
}

struct cpu {
    int number, cluster;
    long part;
    int64_t khz;
};

static int ascending(const void *a, const void *b) { return *(const int *)a - *(const int *)b; }

/* CPUs that are online; where the kernel does not list them, those it has folders for or /proc/cpuinfo names. */
static int find_cpus(int *numbers, const struct core *cores, int core_count) {
    int count = cpus_online(numbers);
    if (count <= 0)
        count = sys_list(CPUS, "cpu", numbers, MOST_CPUS);
    for (int i = 0; count == 0 && i < core_count; i++)
        numbers[i] = cores[i].cpu;
    if (count == 0)
        count = core_count;
    qsort(numbers, (size_t)count, sizeof *numbers, ascending);
    return count;
}

static long part_of(int cpu, const struct core *cores, int count) {
    for (int i = 0; i < count; i++)
        if (cores[i].cpu == cpu)
            return cores[i].part;
    return -1;
}

static int read_cpus(struct cpu *cpus) {
    static struct core cores[MOST_CPUS];
    static int numbers[MOST_CPUS];
    int core_count = cpuinfo_cores(cores), count = find_cpus(numbers, cores, core_count);
    for (int i = 0; i < count; i++) {
        int64_t khz = numbers[i] < 0 ? -1 : sys_number(CPUS "/cpu%d/cpufreq/cpuinfo_max_freq", numbers[i]);
        cpus[i] = (struct cpu){numbers[i], -1, part_of(numbers[i], cores, core_count), khz > 0 ? khz : -1};
    }
    return count;
}

/* A cluster is called by the number of its first CPU in the list. */
static void group(struct cpu *cpus, int count) {
    for (int i = 0; i < count; i++)
        for (int k = 0; k <= i && cpus[i].cluster < 0; k++)
            if (cpus[k].part == cpus[i].part && cpus[k].khz == cpus[i].khz)
                cpus[i].cluster = k;
}

/* A policy is called by its first CPU; the folder of a CPU links to it. */
static bool read_governor(int cpu, char *text, size_t size) {
    char path[128];
    snprintf(path, sizeof path, CPUS "/cpu%d/cpufreq/scaling_governor", cpu);
    if (sys_read_line(path, text, size))
        return true;
    snprintf(path, sizeof path, CPUS "/cpufreq/policy%d/scaling_governor", cpu);
    return sys_read_line(path, text, size);
}

static void write_cluster(struct json *j, const struct cpu *cpus, int count, int first) {
    char part[24], governor[64];
    json_begin(j, NULL, '{');
    json_begin(j, "cpus", '[');
    for (int i = first; i < count; i++)
        if (cpus[i].cluster == first)
            json_count(j, NULL, cpus[i].number);
    json_end(j, ']');
    snprintf(part, sizeof part, "0x%03lx", cpus[first].part & 0xfff);
    json_string(j, "part", cpus[first].part < 0 ? NULL : part);
    json_count(j, "max_khz", cpus[first].khz);
    json_count(j, "capacity", sys_number(CPUS "/cpu%d/cpu_capacity", cpus[first].number));
    json_string(j, "governor", read_governor(cpus[first].number, governor, sizeof governor) ? governor : NULL);
    json_end(j, '}');
}

void write_clusters(struct json *j) {
    static struct cpu cpus[MOST_CPUS];
    int count = read_cpus(cpus);
    if (count == 0) {
        json_null(j, "clusters");
        return;
    }
    group(cpus, count);
    json_begin(j, "clusters", '[');
    for (int i = 0; i < count; i++)
        if (cpus[i].cluster == i)
            write_cluster(j, cpus, count, i);
    json_end(j, ']');
}

void write_cores_by_max_khz(struct json *j) {
    static int cpus[MOST_CPUS];
    static int64_t khz[MOST_CPUS];
    int count = sys_list(CPUS, "cpu", cpus, MOST_CPUS);
    bool known = false;
    for (int i = 0; i < count; i++) {
        khz[i] = sys_number(CPUS "/cpu%d/cpufreq/cpuinfo_max_freq", cpus[i]);
        known |= khz[i] > 0;
    }
    if (!known) {
        json_null(j, "cores_by_max_khz");
        return;
    }
    json_begin(j, "cores_by_max_khz", '{');
    for (int i = 0; i < count; i++) {
        int64_t group = khz[i];
        int cores = 0;
        char key[32];
        if (group <= 0)
            continue;
        for (int k = i; k < count; k++) {
            if (khz[k] != group)
                continue;
            cores++;
            khz[k] = 0; /* counted */
        }
        snprintf(key, sizeof key, "%" PRId64, group);
        json_int(j, key, cores);
    }
    json_end(j, '}');
}
