/* The C and C++ libraries a program of this architecture finds here. */
#ifndef EKRUN_USERLAND_H
#define EKRUN_USERLAND_H

#include "json.h"

/* The versions, "2.36" and "3.4.30"; false where they are not known. */
bool glibc_version(char *text, size_t room);
bool libstdcxx_version(char *text, size_t room);

/* The strings `libc`, `glibc` and `libstdcxx`, and the number `userland_bits`. */
void write_userland(struct json *j);

#endif
