#define _GNU_SOURCE
#include "board.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sysfile.h"

#define MOST_ZONES 128
#define MOST_TRIPS 32
#define MOST_CPUS 4096
#define MOST_SENSORS 64
#define THERMAL "/sys/class/thermal"

/* A string of the device tree ends with a NUL, one of the DMI table with a newline. */
static void write_name(struct json *j) {
    char text[256];
    bool known = sys_read_line("/proc/device-tree/model", text, sizeof text) ||
                 sys_read_line("/sys/class/dmi/id/product_name", text, sizeof text);
    json_string(j, "board", known ? text : NULL);
}

/* Strings, the most specific first, each with a NUL after it. */
static void write_compatible(struct json *j) {
    char text[1024];
    size_t size = sys_read_bytes("/proc/device-tree/compatible", text, sizeof text);
    if (size == 0) {
        json_null(j, "compatible");
        return;
    }
    json_begin(j, "compatible", '[');
    for (const char *at = text; at < text + size; at += strlen(at) + 1)
        if (*at)
            json_string(j, NULL, at);
    json_end(j, ']');
}

/* /sys/devices/soc0, where a driver of the system on a chip registers itself. */
static void write_soc(struct json *j) {
    static const char *const names[] = {"family", "machine", "soc_id", "revision"};
    json_begin(j, "soc", '{');
    write_compatible(j);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[64], text[256];
        snprintf(path, sizeof path, "/sys/devices/soc0/%s", names[i]);
        json_string(j, names[i], sys_read_line(path, text, sizeof text) ? text : NULL);
    }
    json_end(j, '}');
}

static void write_temperature(struct json *j, int zone) {
    char path[128], text[64], *end = text;
    snprintf(path, sizeof path, THERMAL "/thermal_zone%d/temp", zone);
    bool known = sys_read_line(path, text, sizeof text);
    errno = 0;
    long long millideg = known ? strtoll(text, &end, 10) : 0;
    if (end == text || errno) /* a zone may refuse to be read */
        json_null(j, "millideg");
    else
        json_int(j, "millideg", millideg);
}

/* The lowest temperature at which the zone does something of this type, or -1. */
static int64_t lowest_trip(int zone, const char *type) {
    int64_t lowest = -1;
    for (int i = 0; i < MOST_TRIPS; i++) {
        char path[128], text[64];
        snprintf(path, sizeof path, THERMAL "/thermal_zone%d/trip_point_%d_type", zone, i);
        if (!sys_read_line(path, text, sizeof text))
            return lowest;
        int64_t millideg = sys_number(THERMAL "/thermal_zone%d/trip_point_%d_temp", zone, i);
        if (strcmp(text, type) == 0 && millideg > 0 && (lowest < 0 || millideg < lowest))
            lowest = millideg;
    }
    return lowest;
}

static void write_zone(struct json *j, int zone) {
    char path[128], text[64];
    json_begin(j, NULL, '{');
    json_int(j, "zone", zone);
    snprintf(path, sizeof path, THERMAL "/thermal_zone%d/type", zone);
    json_string(j, "type", sys_read_line(path, text, sizeof text) ? text : NULL);
    write_temperature(j, zone);
    json_count(j, "passive_millideg", lowest_trip(zone, "passive"));
    json_count(j, "critical_millideg", lowest_trip(zone, "critical"));
    json_end(j, '}');
}

static void write_thermal(struct json *j) {
    static int zones[MOST_ZONES];
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

/* Raspberry Pi: the firmware's flags, hexadecimal. Its device is called by the address of the bus on some boards. */
static bool read_firmware_flags(char *text, size_t size) {
    char device[128], path[256];
    if (sys_read_line("/sys/devices/platform/soc/soc:firmware/get_throttled", text, size))
        return true;
    if (!sys_find("/sys/bus/platform/devices", ":firmware", device, sizeof device))
        return false;
    snprintf(path, sizeof path, "/sys/bus/platform/devices/%s/get_throttled", device);
    return sys_read_line(path, text, size);
}

static void write_firmware_flags(struct json *j) {
    char text[64], flags[32], *end = text;
    bool known = read_firmware_flags(text, sizeof text);
    errno = 0;
    unsigned long value = known ? strtoul(text, &end, 16) : 0;
    snprintf(flags, sizeof flags, "0x%lx", value);
    json_string(j, "raspberry_pi", end == text || errno ? NULL : flags);
}

static int64_t under_voltage_alarm(void) {
    static int sensors[MOST_SENSORS];
    int count = sys_list("/sys/class/hwmon", "hwmon", sensors, MOST_SENSORS);
    for (int i = 0; i < count; i++) {
        char path[64], name[32];
        snprintf(path, sizeof path, "/sys/class/hwmon/hwmon%d/name", sensors[i]);
        if (sys_read_line(path, name, sizeof name) && strcmp(name, "rpi_volt") == 0)
            return sys_number("/sys/class/hwmon/hwmon%d/in0_lcrit_alarm", sensors[i]);
    }
    return -1;
}

/* x86: how often each logical CPU's core has been throttled since boot, summed. */
static int64_t core_throttle_count(void) {
    static int cpus[MOST_CPUS];
    int64_t sum = -1;
    int count = sys_list("/sys/devices/system/cpu", "cpu", cpus, MOST_CPUS);
    for (int i = 0; i < count; i++) {
        int64_t one = sys_number("/sys/devices/system/cpu/cpu%d/thermal_throttle/core_throttle_count", cpus[i]);
        if (one >= 0 && __builtin_add_overflow(sum < 0 ? 0 : sum, one, &sum))
            return -1;
    }
    return sum;
}

static void write_throttled(struct json *j) {
    int64_t alarm = under_voltage_alarm();
    json_begin(j, "throttled", '{');
    write_firmware_flags(j);
    if (alarm < 0)
        json_null(j, "under_voltage");
    else
        json_bool(j, "under_voltage", alarm != 0);
    json_count(j, "core_throttle_count", core_throttle_count());
    json_end(j, '}');
}

void write_board(struct json *j) {
    write_name(j);
    write_soc(j);
    write_thermal(j);
    write_throttled(j);
}
