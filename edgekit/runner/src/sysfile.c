#define _GNU_SOURCE
#include "sysfile.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char *root = "";

void sys_set_root(const char *path) { root = path; }

bool sys_read(const char *path, char *text, size_t size) {
    char full[4096];
    if (snprintf(full, sizeof full, "%s%s", root, path) >= (int)sizeof full)
        return false;
    int fd = open(full, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return false;
    size_t used = 0;
    while (used < size - 1) {
        ssize_t n = read(fd, text + used, size - 1 - used);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        used += (size_t)n;
    }
    close(fd);
    text[used] = '\0';
    return used > 0;
}

bool sys_read_line(const char *path, char *text, size_t size) {
    if (!sys_read(path, text, size))
        return false;
    text[strcspn(text, "\n")] = '\0';
    return *text != '\0';
}

static int64_t parse_number(const char *text) {
    char *end;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    return end == text || errno ? -1 : value;
}

int64_t sys_number(const char *format, ...) {
    char path[512], text[64];
    va_list args;
    va_start(args, format);
    int length = vsnprintf(path, sizeof path, format, args);
    va_end(args);
    return length < (int)sizeof path && sys_read(path, text, sizeof text) ? parse_number(text) : -1;
}

int64_t sys_field(const char *text, const char *key) {
    size_t length = strlen(key);
    for (const char *line = text; line; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncmp(line, key, length) == 0)
            return parse_number(line + length);
    }
    return -1;
}

int64_t sys_kib_bytes(const char *text, const char *key) {
    int64_t kib = sys_field(text, key), bytes;
    return kib < 0 || __builtin_mul_overflow(kib, 1024, &bytes) ? -1 : bytes;
}

static int ascending(const void *a, const void *b) { return *(const int *)a - *(const int *)b; }

int sys_list(const char *directory, const char *prefix, int *numbers, int limit) {
    char full[4096];
    if (snprintf(full, sizeof full, "%s%s", root, directory) >= (int)sizeof full)
        return 0;
    DIR *dir = opendir(full);
    if (!dir)
        return 0;
    int count = 0;
    size_t length = strlen(prefix);
    for (struct dirent *entry; count < limit && (entry = readdir(dir));) {
        char *end;
        if (strncmp(entry->d_name, prefix, length) != 0 || entry->d_name[length] < '0' || entry->d_name[length] > '9')
            continue;
        long number = strtol(entry->d_name + length, &end, 10);
        if (*end == '\0' && number <= INT_MAX)
            numbers[count++] = (int)number;
    }
    closedir(dir);
    qsort(numbers, (size_t)count, sizeof *numbers, ascending);
    return count;
}
