/* The machine's state of the moment, which explains a latency: load, clock frequencies, temperatures. */
#ifndef EKRUN_CONDITIONS_H
#define EKRUN_CONDITIONS_H

#include "json.h"

#define THERMAL "/sys/class/thermal"
#define CPUFREQ "/sys/devices/system/cpu/cpufreq"

/* Fields load_average, frequencies and thermal, each null where the kernel does not give it. */
void write_conditions(struct json *j, const char *key);

/* The object `governors`: frequency policy to governor, or null. */
void write_governors(struct json *j);

#endif
