#include "requires.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cpu.h"
#include "fail.h"
#include "userland.h"

struct missing {
    char text[4096];
    size_t used;
};

__attribute__((format(printf, 2, 3))) static void add(struct missing *missing, const char *format, ...) {
    va_list args;
    size_t room = sizeof missing->text - missing->used;
    va_start(args, format);
    int length = vsnprintf(missing->text + missing->used, room, format, args);
    va_end(args);
    if (length > 0)
        missing->used += (size_t)length < room ? (size_t)length : room - 1;
}

/* Versions of up to four numbers, as "2.36". */
static bool is_below(const char *found, const char *wanted) {
    for (int i = 0; i < 4; i++) {
        char *found_end, *wanted_end;
        long one = strtol(found, &found_end, 10), other = strtol(wanted, &wanted_end, 10);
        if (one != other)
            return one < other;
        found = found_end + (*found_end == '.');
        wanted = wanted_end + (*wanted_end == '.');
    }
    return false;
}

static void check_version(struct missing *missing, const char *name, const char *found, const char *wanted) {
    if (is_below(found, wanted))
        add(missing, "; it needs %s %s, here is %s", name, wanted, found);
}

static bool has_feature(const char *name) {
    const char *names[MOST_FEATURES];
    size_t count = cpu_features(names);
    for (size_t i = 0; i < count; i++)
        if (strcmp(names[i], name) == 0)
            return true;
    return false;
}

static void check_features(struct missing *missing, const struct bundle *bundle) {
    const char *joint = "; this CPU lacks ";
    for (size_t i = 0; i < bundle->isa; i++) {
        const char *name = bundle_isa(bundle, i);
        if (has_feature(name))
            continue;
        add(missing, "%s%s", joint, name);
        joint = ", ";
    }
}

void check_requires(const struct bundle *bundle) {
    struct missing missing = {.used = 0};
    char found[32];
    bool same_arch = strcmp(bundle->arch, CPU_ARCH) == 0;
    if (!same_arch)
        add(&missing, "; it is for %s, this is %s", bundle->arch, CPU_ARCH);
    if (glibc_version(found, sizeof found))
        check_version(&missing, "glibc", found, bundle->glibc);
    if (*bundle->libstdcxx && libstdcxx_version(found, sizeof found))
        check_version(&missing, "libstdc++", found, bundle->libstdcxx);
    if (same_arch)
        check_features(&missing, bundle);
    if (missing.used)
        fail(EXIT_INCOMPATIBLE, "%s %s does not run here%s", bundle->application, bundle->version, missing.text);
}
