/* Clocks and this process's own figures from /proc. Sampling allocates nothing: it does not move what it measures. */
#ifndef EKRUN_PROC_H
#define EKRUN_PROC_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

int64_t now_ns(void); /* CLOCK_MONOTONIC */
int64_t cpu_ns(void); /* user and system time of all threads */

/* Every figure is -1 where the kernel does not give it. */
struct memory {
    int64_t rss, anon, file, peak; /* bytes; peak since the last reset_peak() that succeeded */
    int64_t threads;
};

void sample_memory(struct memory *memory);

/* Resets the kernel's high-water mark of this process; false where it refuses (Linux before 4.0, hardened /proc). */
bool reset_peak(void);

/* Running under qemu-user: then times and memory are the emulator's. */
bool emulated(void);

struct usage {
    int64_t wall_ns, cpu_ns, voluntary_switches, involuntary_switches, minor_faults, major_faults;
};

void sample_usage(struct usage *usage);
struct usage usage_between(const struct usage *before, const struct usage *after);

/* Waits until every other thread of this process sleeps, at most `limit_ns`. CPU time would not tell: a spinning thread
 * that others have displaced uses none. */
void wait_until_idle(int64_t limit_ns);

#endif
