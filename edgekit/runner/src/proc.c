#define _GNU_SOURCE
#include "proc.h"

#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "sysfile.h"
#include "tether.h"

#define MOST_THREADS 4096

static int64_t read_clock(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

int64_t now_ns(void) { return read_clock(CLOCK_MONOTONIC); }

int64_t cpu_ns(void) { return read_clock(CLOCK_PROCESS_CPUTIME_ID); }

void sample_memory(struct memory *memory) {
    char status[4096];
    *memory = (struct memory){-1, -1, -1, -1, -1};
    if (emulated() || !sys_read("/proc/self/status", status, sizeof status))
        return;
    memory->rss = sys_kib_bytes(status, "VmRSS:");
    memory->peak = sys_kib_bytes(status, "VmHWM:");
    memory->anon = sys_kib_bytes(status, "RssAnon:"); /* Linux 4.5 */
    memory->file = sys_kib_bytes(status, "RssFile:");
    memory->threads = sys_field(status, "Threads:");
    if (memory->threads > tether_threads())
        memory->threads -= tether_threads();
}

bool reset_peak(void) {
    int fd = open("/proc/self/clear_refs", O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return false;
    bool done = write(fd, "5", 1) == 1;
    close(fd);
    return done;
}

/* qemu's user mode started by name is in `Name`. Started by binfmt_misc it is not: then its guest stands as /proc/self/exe,
 * and qemu itself where it does not look, in the thread's entry. */
bool emulated(void) {
    char status[4096], path[64], told[4096], real[4096];
    if (sys_read("/proc/self/status", status, sizeof status) && strncmp(status, "Name:\tqemu-", 11) == 0)
        return true;
    snprintf(path, sizeof path, "/proc/self/task/%d/exe", (int)syscall(SYS_gettid));
    ssize_t length = readlink("/proc/self/exe", told, sizeof told);
    return length > 0 && (readlink(path, real, sizeof real) != length || memcmp(told, real, (size_t)length) != 0);
}

void sample_usage(struct usage *usage) {
    struct rusage r;
    getrusage(RUSAGE_SELF, &r);
    *usage = (struct usage){now_ns(), cpu_ns(), r.ru_nvcsw, r.ru_nivcsw, r.ru_minflt, r.ru_majflt};
}

struct usage usage_between(const struct usage *before, const struct usage *after) {
    return (struct usage){after->wall_ns - before->wall_ns,
                          after->cpu_ns - before->cpu_ns,
                          after->voluntary_switches - before->voluntary_switches,
                          after->involuntary_switches - before->involuntary_switches,
                          after->minor_faults - before->minor_faults,
                          after->major_faults - before->major_faults};
}

/* Runnable, by the state letter after the name in parentheses, which may hold anything. */
static bool is_runnable(int thread) {
    char path[64], stat[512];
    snprintf(path, sizeof path, "/proc/self/task/%d/stat", thread);
    const char *end = sys_read(path, stat, sizeof stat) ? strrchr(stat, ')') : NULL;
    return end && strncmp(end, ") R", 3) == 0;
}

static bool others_sleep(void) {
    static int threads[MOST_THREADS];
    int count = sys_list("/proc/self/task", "", threads, MOST_THREADS), self = (int)syscall(SYS_gettid);
    for (int i = 0; i < count; i++)
        if (threads[i] != self && is_runnable(threads[i]))
            return false;
    return true;
}

void wait_until_idle(int64_t limit_ns) {
    const struct timespec nap = {.tv_nsec = 500000};
    for (int64_t end = now_ns() + limit_ns; !others_sleep() && now_ns() < end;)
        nanosleep(&nap, NULL);
}
