/* The C and C++ libraries a program of this architecture finds here. */
#ifndef EKRUN_USERLAND_H
#define EKRUN_USERLAND_H

#include "json.h"

/* The strings `libc`, `glibc` and `libstdcxx`, and the number `userland_bits`. */
void write_userland(struct json *j);

#endif
