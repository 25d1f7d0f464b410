/* `ekrun facts`: what machine this is, from /proc, /sys, the auxiliary vector and cpuid. Absent is null. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <inttypes.h>
#include <math.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "cgroup.h"
#include "conditions.h"
#include "cpu.h"
#include "fail.h"
#include "json.h"
#include "proc.h"
#include "sysfile.h"
#include "verbs.h"

#define FACTS_VERSION 1
#define MOST_CPUS 4096

/* A CPU's number at `*at`, and past it; -1 when none is there. */
static long take_cpu(char **at) {
    if (**at < '0' || **at > '9')
        return -1;
    long number = strtol(*at, at, 10);
    return number < MOST_CPUS ? number : -1;
}

static int online_cpus(void) {
    char text[1024];
    int count = 0;
    if (!sys_read_line("/sys/devices/system/cpu/online", text, sizeof text))
        return (int)sysconf(_SC_NPROCESSORS_ONLN);
    for (char *at = text; *at;) { /* "0-3,5" */
        long first = take_cpu(&at), last = first;
        if (*at == '-') {
            at++;
            last = take_cpu(&at);
        }
        if (first < 0 || last < first || (*at && *at != ','))
            return -1;
        count += (int)(last - first + 1);
        at += *at == ',';
    }
    return count;
}

static int affinity_cpus(void) {
    cpu_set_t sets[MOST_CPUS / CPU_SETSIZE];
    if (sched_getaffinity(0, sizeof sets, sets) != 0)
        return -1;
    return CPU_COUNT_S(sizeof sets, sets);
}

/* What a thread pool should be sized by: CPUs this process may use, and time its control group grants it. */
static int64_t usable_threads(int affinity, int online, double quota) {
    int64_t threads = affinity > 0 ? affinity : online > 0 ? online : 1;
    if (quota >= 0 && ceil(quota) < (double)threads)
        threads = (int64_t)ceil(quota);
    return threads < 1 ? 1 : threads;
}

static void write_cpus(struct json *j) {
    int online = online_cpus(), affinity = affinity_cpus();
    double quota = cgroup_cpu_quota();
    json_count(j, "cpus_online", online);
    json_count(j, "cpus_affinity", affinity);
    if (quota < 0)
        json_null(j, "cgroup_cpu_quota");
    else
        json_real(j, "cgroup_cpu_quota", quota);
    json_int(j, "usable_threads", usable_threads(affinity, online, quota));
}

/* How many cores share a maximum frequency: clusters, on a heterogeneous part. */
static void write_clusters(struct json *j) {
    static int cpus[MOST_CPUS];
    static int64_t khz[MOST_CPUS];
    int count = sys_list("/sys/devices/system/cpu", "cpu", cpus, MOST_CPUS);
    bool known = false;
    for (int i = 0; i < count; i++) {
        khz[i] = sys_number("/sys/devices/system/cpu/cpu%d/cpufreq/cpuinfo_max_freq", cpus[i]);
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

static void write_memory(struct json *j) {
    char text[8192];
    if (!sys_read("/proc/meminfo", text, sizeof text))
        *text = '\0';
    json_count(j, "ram_total_bytes", sys_kib_bytes(text, "MemTotal:"));
    json_count(j, "ram_available_bytes", sys_kib_bytes(text, "MemAvailable:"));
    json_count(j, "swap_total_bytes", sys_kib_bytes(text, "SwapTotal:"));
    json_count(j, "swap_free_bytes", sys_kib_bytes(text, "SwapFree:"));
}

static void write_system(struct json *j) {
    struct utsname system;
    bool known = uname(&system) == 0;
    const char *(*libc_version)(void) = (const char *(*)(void))dlsym(RTLD_DEFAULT, "gnu_get_libc_version");
    json_string(j, "kernel", known ? system.release : NULL);
    json_string(j, "glibc", libc_version ? libc_version() : NULL);
}

void facts(const struct options *options) {
    struct json j;
    if (options->root)
        sys_set_root(options->root);
    json_open(&j);
    json_begin(&j, NULL, '{');
    json_int(&j, "protocol", EKRUN_PROTOCOL);
    json_string(&j, "verb", "facts");
    json_int(&j, "facts_version", FACTS_VERSION);
    json_string(&j, "arch", CPU_ARCH);
    json_bool(&j, "emulated", emulated());
    write_isa(&j);
    write_cpu_model(&j);
    write_cpus(&j);
    write_clusters(&j);
    write_memory(&j);
    write_system(&j);
    write_governors(&j);
    write_conditions(&j, "conditions");
    json_end(&j, '}');
    json_print(&j);
}
