#define _GNU_SOURCE
#include "sampler.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "conditions.h"
#include "fail.h"
#include "proc.h"
#include "sysfile.h"

#ifndef MOST_LOOKS
#define MOST_LOOKS 4000
#endif
#define MOST_POLICIES 32
#define MOST_ZONES 32
#define MOST_CPUS 256
#define UNKNOWN INT64_MIN

/* One look is a row: these, then kHz of each policy, then millidegrees of each zone. */
enum column {
    AT,
    OWN_CPU,
    USER,
    SYSTEM,
    IDLE,
    IOWAIT,
    STEAL,
    LOAD, /* thousandths */
    THROTTLE_FLAGS,
    THROTTLE_COUNT,
    VOLUNTARY,
    INVOLUNTARY,
    MINOR_FAULTS,
    MAJOR_FAULTS,
    COLUMNS,
};

struct sampler {
    int stat, load, flags;
    int frequencies[MOST_POLICIES], zones[MOST_ZONES], throttles[MOST_CPUS];
    int policy_numbers[MOST_POLICIES], zone_numbers[MOST_ZONES];
    int policy_count, zone_count, throttle_count;
    size_t width, count;
    int64_t *rows;
    int64_t interval_ns;
    bool ending;
    pthread_mutex_t lock;
    pthread_cond_t end;
    pthread_t thread;
};

static bool read_again(int fd, char *text, size_t size) {
    ssize_t n = fd < 0 ? -1 : pread(fd, text, size - 1, 0);
    text[n > 0 ? n : 0] = '\0';
    return n > 0;
}

static int64_t number_again(int fd, int base) {
    char text[64], *end;
    if (!read_again(fd, text, sizeof text))
        return UNKNOWN;
    errno = 0;
    int64_t number = strtoll(text, &end, base);
    return end == text || errno ? UNKNOWN : number;
}

/* The first line of /proc/stat: user nice system idle iowait irq softirq steal, summed over all CPUs (proc(5)). Time of
 * guests is within user. */
static void look_at_cpus(const struct sampler *s, int64_t *row) {
    char text[256];
    long long user, nice, system, idle, iowait, irq, softirq, steal;
    for (int i = USER; i <= STEAL; i++)
        row[i] = UNKNOWN;
    if (!read_again(s->stat, text, sizeof text) || sscanf(text, "cpu %lld %lld %lld %lld %lld %lld %lld %lld", &user,
                                                          &nice, &system, &idle, &iowait, &irq, &softirq, &steal) != 8)
        return;
    row[USER] = user + nice;
    row[SYSTEM] = system + irq + softirq;
    row[IDLE] = idle;
    row[IOWAIT] = iowait;
    row[STEAL] = steal;
}

static void look_at_load(const struct sampler *s, int64_t *row) {
    char text[64], *end = text;
    double load = read_again(s->load, text, sizeof text) ? strtod(text, &end) : 0;
    row[LOAD] = end != text && load >= 0 && load < 1e9 ? (int64_t)(load * 1000 + 0.5) : UNKNOWN;
}

static void look_at_throttling(const struct sampler *s, int64_t *row) {
    row[THROTTLE_FLAGS] = number_again(s->flags, 16);
    row[THROTTLE_COUNT] = s->throttle_count ? 0 : UNKNOWN;
    for (int i = 0; i < s->throttle_count; i++) {
        int64_t count = number_again(s->throttles[i], 10);
        row[THROTTLE_COUNT] += count >= 0 && count < INT32_MAX ? count : 0;
    }
}

static void look_at_self(int64_t *row) {
    struct usage usage;
    sample_usage(&usage);
    row[AT] = usage.wall_ns;
    row[OWN_CPU] = usage.cpu_ns;
    row[VOLUNTARY] = usage.voluntary_switches;
    row[INVOLUNTARY] = usage.involuntary_switches;
    row[MINOR_FAULTS] = usage.minor_faults;
    row[MAJOR_FAULTS] = usage.major_faults;
}

static void forget_every_second(struct sampler *s) {
    for (size_t i = 1; i < MOST_LOOKS / 2; i++)
        memcpy(s->rows + i * s->width, s->rows + 2 * i * s->width, s->width * sizeof *s->rows);
    s->count = MOST_LOOKS / 2;
    s->interval_ns *= 2;
}

static void look(struct sampler *s) {
    if (s->count == MOST_LOOKS)
        forget_every_second(s);
    int64_t *row = s->rows + s->count++ * s->width;
    look_at_self(row);
    look_at_cpus(s, row);
    look_at_load(s, row);
    look_at_throttling(s, row);
    for (int i = 0; i < s->policy_count; i++)
        row[COLUMNS + i] = number_again(s->frequencies[i], 10);
    for (int i = 0; i < s->zone_count; i++)
        row[COLUMNS + s->policy_count + i] = number_again(s->zones[i], 10);
}

/* Until the next look is due; false when it is the end. Under the lock. */
static bool wait_for_next(struct sampler *s, int64_t due_ns) {
    const struct timespec due = {.tv_sec = due_ns / 1000000000, .tv_nsec = due_ns % 1000000000};
    while (!s->ending && now_ns() < due_ns)
        pthread_cond_timedwait(&s->end, &s->lock, &due);
    return !s->ending;
}

/* A look that comes late does not hurry the next one. */
static void *watch(void *argument) {
    struct sampler *s = argument;
    pthread_mutex_lock(&s->lock);
    while (wait_for_next(s, s->rows[(s->count - 1) * s->width + AT] + s->interval_ns))
        look(s);
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

/* The files that some of a list of numbers have; the list is cut to those. */
static int open_each(const char *format, int *numbers, int count, int *files) {
    int opened = 0;
    for (int i = 0; i < count; i++) {
        int fd = sys_open(format, numbers[i]);
        if (fd < 0)
            continue;
        files[opened] = fd;
        numbers[opened++] = numbers[i];
    }
    return opened;
}

/* Hexadecimal flags of the Raspberry Pi's firmware, whose device is called by the address of the bus on some boards. */
static int open_firmware_flags(void) {
    char device[128];
    int fd = sys_open("/sys/devices/platform/soc/soc:firmware/get_throttled");
    if (fd >= 0 || !sys_find("/sys/bus/platform/devices", ":firmware", device, sizeof device))
        return fd;
    return sys_open("/sys/bus/platform/devices/%s/get_throttled", device);
}

static void open_files(struct sampler *s) {
    int cpus[MOST_CPUS];
    s->stat = sys_open("/proc/stat");
    s->load = sys_open("/proc/loadavg");
    s->flags = open_firmware_flags();
    int policies = sys_list(CPUFREQ, "policy", s->policy_numbers, MOST_POLICIES);
    int zones = sys_list(THERMAL, "thermal_zone", s->zone_numbers, MOST_ZONES);
    int count = sys_list("/sys/devices/system/cpu", "cpu", cpus, MOST_CPUS);
    s->policy_count = open_each(CPUFREQ "/policy%d/scaling_cur_freq", s->policy_numbers, policies, s->frequencies);
    s->zone_count = open_each(THERMAL "/thermal_zone%d/temp", s->zone_numbers, zones, s->zones);
    s->throttle_count =
        open_each("/sys/devices/system/cpu/cpu%d/thermal_throttle/core_throttle_count", cpus, count, s->throttles);
}

static void close_each(const int *files, int count) {
    for (int i = 0; i < count; i++)
        close(files[i]);
}

static void close_files(struct sampler *s) {
    const int single[] = {s->stat, s->load, s->flags};
    for (size_t i = 0; i < sizeof single / sizeof *single; i++)
        if (single[i] >= 0)
            close(single[i]);
    close_each(s->frequencies, s->policy_count);
    close_each(s->zones, s->zone_count);
    close_each(s->throttles, s->throttle_count);
}

struct sampler *sampler_start(long interval_ms) {
    if (!interval_ms)
        return NULL;
    struct sampler *s = allocate(1, sizeof *s);
    pthread_condattr_t monotonic;
    open_files(s);
    s->interval_ns = interval_ms * 1000000;
    s->width = COLUMNS + (size_t)(s->policy_count + s->zone_count);
    s->rows = allocate(MOST_LOOKS * s->width, sizeof *s->rows);
    pthread_mutex_init(&s->lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&s->end, &monotonic);
    look(s);
    if (pthread_create(&s->thread, NULL, watch, s) != 0)
        fail(EXIT_MEMORY, "cannot start a thread");
    return s;
}

void sampler_stop(struct sampler *s) {
    if (!s)
        return;
    pthread_mutex_lock(&s->lock);
    s->ending = true;
    pthread_cond_signal(&s->end);
    pthread_mutex_unlock(&s->lock);
    pthread_join(s->thread, NULL);
    look(s);
    close_files(s);
}

static void write_known(struct json *j, const char *key, int64_t value) {
    if (value == UNKNOWN)
        json_null(j, key);
    else
        json_int(j, key, value);
}

static void write_list(struct json *j, const char *key, const int64_t *values, int count) {
    json_begin(j, key, '[');
    for (int i = 0; i < count; i++)
        write_known(j, NULL, values[i]);
    json_end(j, ']');
}

static void write_jiffies(const int64_t *row, struct json *j) {
    json_begin(j, "cpu_jiffies", '{');
    write_known(j, "user", row[USER]);
    write_known(j, "system", row[SYSTEM]);
    write_known(j, "idle", row[IDLE]);
    write_known(j, "iowait", row[IOWAIT]);
    write_known(j, "steal", row[STEAL]);
    json_end(j, '}');
}

static void write_look(const struct sampler *s, const int64_t *row, int64_t origin_ns, struct json *j) {
    json_begin(j, NULL, '{');
    json_real(j, "t_ms", (double)(row[AT] - origin_ns) / 1e6);
    write_list(j, "khz", row + COLUMNS, s->policy_count);
    write_list(j, "millideg", row + COLUMNS + s->policy_count, s->zone_count);
    write_jiffies(row, j);
    json_int(j, "own_cpu_ns", row[OWN_CPU]);
    if (row[LOAD] == UNKNOWN)
        json_null(j, "load");
    else
        json_real(j, "load", (double)row[LOAD] / 1000);
    write_known(j, "throttle_flags", row[THROTTLE_FLAGS]);
    write_known(j, "throttle_count", row[THROTTLE_COUNT]);
    json_int(j, "voluntary_switches", row[VOLUNTARY]);
    json_int(j, "involuntary_switches", row[INVOLUNTARY]);
    json_int(j, "minor_faults", row[MINOR_FAULTS]);
    json_int(j, "major_faults", row[MAJOR_FAULTS]);
    json_end(j, '}');
}

static void write_names(const struct sampler *s, struct json *j) {
    json_begin(j, "trace_policies", '[');
    for (int i = 0; i < s->policy_count; i++)
        json_int(j, NULL, s->policy_numbers[i]);
    json_end(j, ']');
    json_begin(j, "trace_zones", '[');
    for (int i = 0; i < s->zone_count; i++) {
        char path[128], text[64];
        snprintf(path, sizeof path, THERMAL "/thermal_zone%d/type", s->zone_numbers[i]);
        json_string(j, NULL, sys_read_line(path, text, sizeof text) ? text : "");
    }
    json_end(j, ']');
    write_governors(j);
}

void sampler_write(struct sampler *s, int64_t origin_ns, struct json *j) {
    if (!s)
        return;
    json_int(j, "trace_interval_ms", s->interval_ns / 1000000);
    json_int(j, "jiffies_per_second", sysconf(_SC_CLK_TCK));
    write_names(s, j);
    json_begin(j, "trace", '[');
    for (size_t i = 0; i < s->count; i++)
        write_look(s, s->rows + i * s->width, origin_ns, j);
    json_end(j, ']');
    free(s->rows);
    free(s);
}
