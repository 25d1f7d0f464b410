/* What the processor can do and is called. */
#ifndef EKRUN_CPU_H
#define EKRUN_CPU_H

#include "json.h"

#define MOST_FEATURES 128

extern const char *const CPU_ARCH; /* what this program was built for: "x86_64" or "aarch64" */

/* Instruction-set features by the kernel's names, usable by this process. Returns how many. */
size_t cpu_features(const char *names[MOST_FEATURES]);

/* The string `cpu_model` and, on aarch64, the list `cpu_parts` of {implementer, part, name, cpus}. */
void write_cpu_model(struct json *j);

#endif
