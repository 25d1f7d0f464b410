#define _GNU_SOURCE
#include "userland.h"

#include <ctype.h>
#include <elf.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#ifdef __GLIBC__
#include <gnu/libc-version.h>
#endif

#include "sysfile.h"

#define LARGEST_LIBRARY (64 << 20)
#if defined(__aarch64__)
#define MACHINE EM_AARCH64
#define TRIPLET "aarch64-linux-gnu"
#else
#define MACHINE EM_X86_64
#define TRIPLET "x86_64-linux-gnu"
#endif

/* Where a system keeps its libraries: Debian's folders by architecture, the 64-bit ones of others, the plain ones. */
static const char *const FOLDERS[] = {"/lib/" TRIPLET, "/usr/lib/" TRIPLET, "/lib64",
                                      "/usr/lib64",    "/lib",              "/usr/lib"};
static const char *const FOLDERS_OF_32_BITS[] = {"/lib/arm-linux-gnueabihf", "/usr/lib/arm-linux-gnueabihf",
                                                 "/lib/arm-linux-gnueabi", "/lib/i386-linux-gnu",
                                                 "/usr/lib/i386-linux-gnu"};
static const char *const MUSL[] = {"/lib/ld-musl-aarch64.so.1", "/lib/ld-musl-x86_64.so.1", "/lib/ld-musl-armhf.so.1",
                                   "/lib/ld-musl-arm.so.1", "/lib/ld-musl-i386.so.1"};

#define COUNT(array) (sizeof(array) / sizeof *(array))

static bool exists(const char *path) {
    char first[2];
    return sys_read(path, first, sizeof first);
}

static bool in_one_of(const char *const *folders, size_t count, const char *name) {
    char path[256];
    for (size_t i = 0; i < count; i++) {
        snprintf(path, sizeof path, "%s/%s", folders[i], name);
        if (exists(path))
            return true;
    }
    return false;
}

static bool is_of_this_machine(const char *bytes, size_t size) {
    Elf64_Ehdr header;
    if (size < sizeof header)
        return false;
    memcpy(&header, bytes, sizeof header);
    return memcmp(header.e_ident, ELFMAG, SELFMAG) == 0 && header.e_ident[EI_CLASS] == ELFCLASS64 &&
           header.e_machine == MACHINE;
}

/* The first library of that name that this architecture can use, to be freed, or NULL. */
static char *load_library(const char *name, size_t *size) {
    char path[256];
    for (size_t i = 0; i < COUNT(FOLDERS); i++) {
        snprintf(path, sizeof path, "%s/%s", FOLDERS[i], name);
        char *bytes = sys_load(path, LARGEST_LIBRARY, size);
        if (bytes && is_of_this_machine(bytes, *size))
            return bytes;
        free(bytes);
    }
    return NULL;
}

/* The number at `at`, of at most 4 digits, or -1. */
static int take_number(const char **at, const char *end) {
    int value = -1;
    for (int digits = 0; *at < end && isdigit((unsigned char)**at) && digits < 4; digits++)
        value = (value < 0 ? 0 : value) * 10 + (*(*at)++ - '0');
    return value;
}

/* "GNU C Library (Debian GLIBC 2.36-9) stable release version 2.36.", which the library prints when it is run. */
static bool banner_version(const char *bytes, size_t size, char *text, size_t room) {
    const char *end = bytes + size, *banner = memmem(bytes, size, "GNU C Library", 13);
    if (!banner)
        return false;
    size_t left = (size_t)(end - banner) < 256 ? (size_t)(end - banner) : 256;
    const char *at = memmem(banner, left, " version ", 9);
    if (!at)
        return false;
    at += 9;
    int major = take_number(&at, end);
    int minor = at < end && *at == '.' ? (at++, take_number(&at, end)) : -1;
    return major >= 0 && minor >= 0 && snprintf(text, room, "%d.%d", major, minor) < (int)room;
}

/* The C library this process runs with; in a static build, and of a recorded board, that of the file system. */
bool glibc_version(char *text, size_t room) {
    size_t size;
#ifdef __GLIBC__
    if (!sys_has_root())
        return snprintf(text, room, "%s", gnu_get_libc_version()) < (int)room;
#endif
    char *bytes = load_library("libc.so.6", &size);
    bool known = bytes && banner_version(bytes, size, text, room);
    free(bytes);
    return known;
}

/* The highest N of the symbol versions GLIBCXX_3.4.N that the library defines. */
bool libstdcxx_version(char *text, size_t room) {
    static const char prefix[] = "GLIBCXX_3.4.";
    size_t size;
    char *bytes = load_library("libstdc++.so.6", &size);
    int highest = -1;
    if (!bytes)
        return false;
    const char *end = bytes + size;
    for (const char *at = bytes; (at = memmem(at, (size_t)(end - at), prefix, sizeof prefix - 1));) {
        at += sizeof prefix - 1;
        int minor = take_number(&at, end);
        highest = minor > highest ? minor : highest;
    }
    free(bytes);
    return highest >= 0 && snprintf(text, room, "3.4.%d", highest) < (int)room;
}

static const char *libc_name(void) {
    if (in_one_of(FOLDERS, COUNT(FOLDERS), "libc.so.6") ||
        in_one_of(FOLDERS_OF_32_BITS, COUNT(FOLDERS_OF_32_BITS), "libc.so.6"))
        return "glibc";
    for (size_t i = 0; i < COUNT(MUSL); i++)
        if (exists(MUSL[i]))
            return "musl";
    return NULL;
}

/* 32 or 64 by the shell, or by the first process where that may be read; -1 when neither tells. */
static int userland_bits(void) {
    static const char *const programs[] = {"/bin/sh", "/proc/1/exe"};
    for (size_t i = 0; i < COUNT(programs); i++) {
        char head[EI_CLASS + 2];
        if (sys_read_bytes(programs[i], head, sizeof head) <= EI_CLASS || memcmp(head, ELFMAG, SELFMAG) != 0)
            continue;
        if (head[EI_CLASS] == ELFCLASS32 || head[EI_CLASS] == ELFCLASS64)
            return head[EI_CLASS] == ELFCLASS32 ? 32 : 64;
    }
    return -1;
}

void write_userland(struct json *j) {
    char text[32];
    json_string(j, "libc", libc_name());
    json_string(j, "glibc", glibc_version(text, sizeof text) ? text : NULL);
    json_string(j, "libstdcxx", libstdcxx_version(text, sizeof text) ? text : NULL);
    json_count(j, "userland_bits", userland_bits());
}
