/* Samples below a planted root: probe ROOT INTERVAL_MS DURATION_MS. Half-way the board gets hotter and slower. */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "fail.h"
#include "json.h"
#include "proc.h"
#include "sampler.h"
#include "sysfile.h"

static void rest(long ms) {
    const struct timespec time = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
    nanosleep(&time, NULL);
}

/* In place: the sampler holds the file open, as it does the kernel's. */
static void plant(const char *root, const char *path, const char *text) {
    char full[4096];
    snprintf(full, sizeof full, "%s%s", root, path);
    FILE *file = fopen(full, "r+");
    if (!file || fputs(text, file) < 0 || fclose(file) != 0)
        exit(1);
}

int main(int argc, char **argv) {
    struct json j;
    if (argc != 4)
        return 2;
    answers_open();
    sys_set_root(argv[1]);
    int64_t origin = now_ns();
    struct sampler *sampler = sampler_start(atol(argv[2]));
    rest(atol(argv[3]) / 2);
    plant(argv[1], "/sys/class/thermal/thermal_zone0/temp", "85000\n");
    plant(argv[1], "/sys/devices/system/cpu/cpufreq/policy0/scaling_cur_freq", "0600000\n");
    rest(atol(argv[3]) / 2);
    sampler_stop(sampler);
    json_open(&j);
    json_begin(&j, NULL, '{');
    sampler_write(sampler, origin, &j);
    json_end(&j, '}');
    json_print(&j);
    finish();
}
