#define _GNU_SOURCE
#include "conditions.h"

#include <stdio.h>
#include <stdlib.h>

#include "sysfile.h"

#define MOST_ZONES 128
#define MOST_POLICIES 512

static void write_load_average(struct json *j) {
    char text[128];
    double load[3];
    if (!sys_read_line("/proc/loadavg", text, sizeof text) ||
        sscanf(text, "%lf %lf %lf", &load[0], &load[1], &load[2]) != 3) {
        json_null(j, "load_average");
        return;
    }
    json_begin(j, "load_average", '[');
    for (int i = 0; i < 3; i++)
        json_real(j, NULL, load[i]);
    json_end(j, ']');
}

static const char *read_governor(int policy, char *text, size_t size) {
    char path[128];
    snprintf(path, sizeof path, CPUFREQ "/policy%d/scaling_governor", policy);
    return sys_read_line(path, text, size) ? text : NULL;
}

void write_governors(struct json *j) {
    int policies[MOST_POLICIES];
    int count = sys_list(CPUFREQ, "policy", policies, MOST_POLICIES);
    if (count == 0) {
        json_null(j, "governors");
        return;
    }
    json_begin(j, "governors", '{');
    for (int i = 0; i < count; i++) {
        char key[32], text[64];
        const char *governor = read_governor(policies[i], text, sizeof text);
        snprintf(key, sizeof key, "policy%d", policies[i]);
        if (governor)
            json_string(j, key, governor);
    }
    json_end(j, '}');
}

static void write_frequencies(struct json *j) {
    int policies[MOST_POLICIES];
    int count = sys_list(CPUFREQ, "policy", policies, MOST_POLICIES);
    if (count == 0) {
        json_null(j, "frequencies");
        return;
    }
    json_begin(j, "frequencies", '[');
    for (int i = 0; i < count; i++) {
        char text[64];
        json_begin(j, NULL, '{');
        json_int(j, "policy", policies[i]);
        json_string(j, "governor", read_governor(policies[i], text, sizeof text));
        json_count(j, "khz", sys_number(CPUFREQ "/policy%d/scaling_cur_freq", policies[i]));
        json_count(j, "max_khz", sys_number(CPUFREQ "/policy%d/scaling_max_freq", policies[i]));
        json_end(j, '}');
    }
    json_end(j, ']');
}

static void write_zone(struct json *j, int zone) {
    char path[128], text[64], *end;
    json_begin(j, NULL, '{');
    json_int(j, "zone", zone);
    snprintf(path, sizeof path, THERMAL "/thermal_zone%d/type", zone);
    json_string(j, "type", sys_read_line(path, text, sizeof text) ? text : NULL);
    snprintf(path, sizeof path, THERMAL "/thermal_zone%d/temp", zone);
    long long millideg = sys_read_line(path, text, sizeof text) ? strtoll(text, &end, 10) : (end = text, 0);
    if (end == text) /* a zone may refuse to be read */
        json_null(j, "millideg");
    else
        json_int(j, "millideg", millideg);
    json_end(j, '}');
}

static void write_thermal(struct json *j) {
    int zones[MOST_ZONES];
    int count = sys_list(THERMAL, "thermal_zone", zones, MOST_ZONES);
    if (count == 0) {
        json_null(j, "thermal");
        return;
    }
    json_begin(j, "thermal", '[');
    for (int i = 0; i < count; i++)
        write_zone(j, zones[i]);
    json_end(j, ']');
}

void write_conditions(struct json *j, const char *key) {
    json_begin(j, key, '{');
    write_load_average(j);
    write_frequencies(j);
    write_thermal(j);
    json_end(j, '}');
}
