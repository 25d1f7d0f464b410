/* Small kernel files under /proc and /sys. Anything may be absent: that is an answer, not an error. */
#ifndef EKRUN_SYSFILE_H
#define EKRUN_SYSFILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Read below `root` instead of "/": recorded boards, in tests. */
void sys_set_root(const char *root);

bool sys_has_root(void);

/* Bytes read, at most size - 1, with a terminator after them; 0 when absent or unreadable. */
size_t sys_read_bytes(const char *path, char *text, size_t size);

/* Reads up to size - 1 bytes, terminated; false when absent, unreadable or empty. Bytes beyond are dropped. */
bool sys_read(const char *path, char *text, size_t size);

/* As sys_read, up to the first newline. */
bool sys_read_line(const char *path, char *text, size_t size);

/* A whole file of at most `limit` bytes, to be freed, or NULL. */
char *sys_load(const char *path, size_t limit, size_t *size);

/* A file that holds one whole number, or -1. `format` makes the path. */
int64_t sys_number(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* The number after a line that begins with `key` in `text`, or -1. */
int64_t sys_field(const char *text, const char *key);

/* As sys_field, of a field in kB: its bytes, or -1. */
int64_t sys_kib_bytes(const char *text, const char *key);

/* Opens the file at the path that `format` makes, to be read and closed by the caller; -1 when absent. */
int sys_open(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* A directory's numbers: the n of each entry called <prefix><n>, ascending, at most `limit`. Returns how many. */
int sys_list(const char *directory, const char *prefix, int *numbers, int limit);

/* The first entry of a directory that ends with `suffix`, or false. */
bool sys_find(const char *directory, const char *suffix, char *name, size_t size);

#endif
