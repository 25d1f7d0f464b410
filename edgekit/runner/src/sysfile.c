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
#include <sys/stat.h>
#include <unistd.h>

static const char *root = "";

void sys_set_root(const char *path) { root = path; }

bool sys_has_root(void) { return *root != '\0'; }

static int open_below_root(const char *path) {
    char full[4096];
    if (snprintf(full, sizeof full, "%s%s", root, path) >= (int)sizeof full)
        return -1;
    return open(full, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
}

static size_t read_all(int fd, char *bytes, size_t size) {
    size_t used = 0;
    while (used < size) {
        ssize_t n = read(fd, bytes + used, size - used);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            break;
        used += (size_t)n;
    }
    return used;
}

size_t sys_read_bytes(const char *path, char *text, size_t size) {
    int fd = open_below_root(path);
    *text = '\0';
    if (fd < 0)
        return 0;
    size_t used = read_all(fd, text, size - 1);
    close(fd);
    text[used] = '\0';
    return used;
}

bool sys_read(const char *path, char *text, size_t size) { return sys_read_bytes(path, text, size) > 0; }

char *sys_load(const char *path, size_t limit, size_t *size) {
    struct stat info;
    int fd = open_below_root(path);
    char *bytes = NULL;
    if (fd < 0)
        return NULL;
    if (fstat(fd, &info) == 0 && S_ISREG(info.st_mode) && info.st_size > 0 && (uint64_t)info.st_size <= limit)
        bytes = malloc((size_t)info.st_size);
    if (bytes)
        *size = read_all(fd, bytes, (size_t)info.st_size);
    close(fd);
    return bytes;
}

bool sys_read_line(const char *path, char *text, size_t size) {
    if (!sys_read(path, text, size))
        return false;
    text[strcspn(text, "\n")] = '\0';
    return *text != '\0';
}

int sys_open(const char *format, ...) {
    char path[512];
    va_list args;
    va_start(args, format);
    int length = vsnprintf(path, sizeof path, format, args);
    va_end(args);
    return length < (int)sizeof path ? open_below_root(path) : -1;
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

static DIR *open_directory(const char *directory) {
    char full[4096];
    return snprintf(full, sizeof full, "%s%s", root, directory) < (int)sizeof full ? opendir(full) : NULL;
}

int sys_list(const char *directory, const char *prefix, int *numbers, int limit) {
    DIR *dir = open_directory(directory);
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

bool sys_find(const char *directory, const char *suffix, char *name, size_t size) {
    DIR *dir = open_directory(directory);
    bool found = false;
    if (!dir)
        return false;
    size_t length = strlen(suffix);
    for (struct dirent *entry; !found && (entry = readdir(dir));) {
        size_t all = strlen(entry->d_name);
        found = all >= length && all < size && strcmp(entry->d_name + all - length, suffix) == 0;
        if (found)
            memcpy(name, entry->d_name, all + 1);
    }
    closedir(dir);
    return found;
}
