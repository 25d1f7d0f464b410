/* What the processor can do and is called. */
#ifndef EKRUN_CPU_H
#define EKRUN_CPU_H

#include "json.h"

extern const char *const CPU_ARCH; /* what this program was built for: "x86_64" or "aarch64" */

/* The list `isa`: instruction-set features by the kernel's names, usable by this process. */
void write_isa(struct json *j);

/* The string `cpu_model` and, on aarch64, the list `cpu_parts` of {implementer, part, name, cpus}. */
void write_cpu_model(struct json *j);

#endif
