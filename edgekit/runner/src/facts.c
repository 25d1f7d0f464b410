/* `ekrun facts`: what machine this is, from /proc, /sys, the auxiliary vector and cpuid. Absent is null. */
#define _GNU_SOURCE
#include <math.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/statvfs.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "board.h"
#include "cgroup.h"
#include "conditions.h"
#include "cpu.h"
#include "cpuinfo.h"
#include "fail.h"
#include "json.h"
#include "proc.h"
#include "sysfile.h"
#include "userland.h"
#include "verbs.h"

#define FACTS_VERSION 2
#define AT_HWCAP2_KEY 26 /* AT_HWCAP2, missing in old headers */
#define MOST_AUXILIARY 64
#ifndef ST_NOEXEC
#define ST_NOEXEC 8 /* the kernel's number: Linux, include/linux/statfs.h */
#endif

static void write_isa(struct json *j) {
    const char *names[MOST_FEATURES];
    size_t count = cpu_features(names);
    json_begin(j, "isa", '[');
    for (size_t i = 0; i < count; i++)
        json_string(j, NULL, names[i]);
    json_end(j, ']');
}

static int online_cpus(void) {
    static int cpus[MOST_CPUS];
    char text[8];
    bool listed = sys_read_line("/sys/devices/system/cpu/online", text, sizeof text);
    return listed ? cpus_online(cpus) : (int)sysconf(_SC_NPROCESSORS_ONLN);
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

static void write_memory(struct json *j) {
    char text[8192];
    if (!sys_read("/proc/meminfo", text, sizeof text))
        *text = '\0';
    json_count(j, "ram_total_bytes", sys_kib_bytes(text, "MemTotal:"));
    json_count(j, "ram_available_bytes", sys_kib_bytes(text, "MemAvailable:"));
    json_count(j, "swap_total_bytes", sys_kib_bytes(text, "SwapTotal:"));
    json_count(j, "swap_free_bytes", sys_kib_bytes(text, "SwapFree:"));
}

/* What the kernel passed to this process of its auxiliary vector, before glibc, which on x86 puts hints of its own in
 * their place. */
struct auxiliary {
    unsigned long hwcap, hwcap2;
};

static struct auxiliary read_auxiliary(void) {
    struct auxiliary found = {0};
    unsigned long pairs[2 * MOST_AUXILIARY + 1];
    size_t size = sys_read_bytes("/proc/self/auxv", (char *)pairs, sizeof pairs);
    for (size_t i = 0; i + 1 < size / sizeof *pairs; i += 2) {
        if (pairs[i] == AT_HWCAP)
            found.hwcap = pairs[i + 1];
        else if (pairs[i] == AT_HWCAP2_KEY)
            found.hwcap2 = pairs[i + 1];
    }
    return found;
}

static void write_auxiliary(struct json *j, const struct auxiliary *auxiliary) {
    char text[24];
    snprintf(text, sizeof text, "0x%lx", auxiliary->hwcap);
    json_string(j, "hwcap", text);
    snprintf(text, sizeof text, "0x%lx", auxiliary->hwcap2);
    json_string(j, "hwcap2", text);
    json_int(j, "page_bytes", sysconf(_SC_PAGESIZE));
}

static void write_limits(struct json *j) {
    static int cpus[MOST_CPUS];
    char text[1024];
    int count = cgroup_cpuset(text, sizeof text) ? cpu_list(text, cpus) : -1;
    json_count(j, "cgroup_memory_limit_bytes", cgroup_memory_limit());
    if (count < 0) {
        json_null(j, "cpuset");
        return;
    }
    json_begin(j, "cpuset", '[');
    for (int i = 0; i < count; i++)
        json_int(j, NULL, cpus[i]);
    json_end(j, ']');
}

static int64_t disk_bytes(uint64_t blocks, uint64_t size) {
    int64_t bytes;
    return __builtin_mul_overflow(blocks, size, &bytes) ? -1 : bytes;
}

/* Of a folder as this process sees it, whatever `--root` says: where engines and models would lie. */
static void write_disk(struct json *j, const char *folder) {
    char here[4096];
    struct statvfs disk;
    if (!folder)
        folder = getcwd(here, sizeof here);
    if (!folder || statvfs(folder, &disk) != 0) {
        json_null(j, "disk");
        return;
    }
    json_begin(j, "disk", '{');
    json_string(j, "path", folder);
    json_count(j, "free_bytes", disk_bytes(disk.f_bavail, disk.f_frsize));
    json_count(j, "total_bytes", disk_bytes(disk.f_blocks, disk.f_frsize));
    json_bool(j, "noexec", disk.f_flag & ST_NOEXEC);
    json_end(j, '}');
}

static void write_kernel(struct json *j) {
    struct utsname system;
    json_string(j, "kernel", uname(&system) == 0 ? system.release : NULL);
}

void facts(const struct options *options) {
    struct json j;
    const struct auxiliary auxiliary = read_auxiliary(); /* this process's own, whatever `--root` says */
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
    write_cores_by_max_khz(&j);
    write_clusters(&j);
    write_auxiliary(&j, &auxiliary);
    write_memory(&j);
    write_limits(&j);
    write_disk(&j, options->folder);
    write_kernel(&j);
    write_userland(&j);
    write_board(&j);
    write_governors(&j);
    write_conditions(&j, "conditions");
    json_end(&j, '}');
    json_print(&j);
}
