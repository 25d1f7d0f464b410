#define _GNU_SOURCE
#include "json.h"

#include <errno.h>
#include <fcntl.h>
#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fail.h"

/* Length of the UTF-8 sequence at `s`, or 0 (RFC 3629: no overlong form, no surrogate, at most U+10FFFF). */
static size_t utf8_length(const unsigned char *s) {
    static const uint32_t smallest[] = {0, 0, 0x80, 0x800, 0x10000};
    size_t length = s[0] < 0x80 ? 1 : s[0] >> 5 == 6 ? 2 : s[0] >> 4 == 14 ? 3 : s[0] >> 3 == 30 ? 4 : 0;
    if (length < 2)
        return length;
    uint32_t code = s[0] & (0xffu >> (length + 1));
    for (size_t i = 1; i < length; i++) {
        if (s[i] >> 6 != 2)
            return 0;
        code = code << 6 | (s[i] & 0x3fu);
    }
    bool valid = code >= smallest[length] && code <= 0x10ffff && (code < 0xd800 || code > 0xdfff);
    return valid ? length : 0;
}

/* A stream in memory does not keep its error once memory has run out: each write is checked. */
static void put(struct json *j, const char *text, size_t size) { j->failed |= fwrite(text, 1, size, j->out) != size; }

static void put_text(struct json *j, const char *text) { put(j, text, strlen(text)); }

static void put_escaped(struct json *j, const char *text) {
    char code[12];
    put(j, "\"", 1);
    for (const unsigned char *s = (const unsigned char *)text; *s;) {
        size_t length = utf8_length(s);
        bool plain = length && *s != '"' && *s != '\\' && *s >= 0x20 && *s != 0x7f;
        snprintf(code, sizeof code, "\\u%04x", length ? *s : 0xfffd);
        put(j, plain ? (const char *)s : code, plain ? length : 6);
        s += length ? length : 1;
    }
    put(j, "\"", 1);
}

static void before_value(struct json *j, const char *key) {
    if (j->comma)
        put(j, ",", 1);
    j->comma = true;
    if (key) {
        put_escaped(j, key);
        put(j, ":", 1);
    }
}

FILE *answers;

void answers_open(void) {
    int fd = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
    answers = fd < 0 ? NULL : fdopen(fd, "w");
    if (!answers || dup2(STDERR_FILENO, STDOUT_FILENO) < 0)
        fail(EXIT_IO, "stdout and stderr must be open: %s", strerror(errno));
}

void json_open(struct json *j) {
    *j = (struct json){0};
    j->out = open_memstream(&j->text, &j->size);
    if (!j->out)
        fail(EXIT_MEMORY, "out of memory for the answer");
}

void json_print(struct json *j) {
    put(j, "\n", 1);
    if (fclose(j->out) != 0 || j->failed)
        fail(EXIT_MEMORY, "out of memory for the answer");
    if (fwrite(j->text, 1, j->size, answers) != j->size || fflush(answers) != 0)
        fail(EXIT_IO, "cannot write to stdout: %s", strerror(errno));
    free(j->text);
}

void json_begin(struct json *j, const char *key, char bracket) {
    before_value(j, key);
    put(j, &bracket, 1);
    j->comma = false;
}

void json_end(struct json *j, char bracket) {
    put(j, &bracket, 1);
    j->comma = true;
}

void json_string(struct json *j, const char *key, const char *value) {
    before_value(j, key);
    if (value)
        put_escaped(j, value);
    else
        put_text(j, "null");
}

void json_int(struct json *j, const char *key, int64_t value) {
    char text[24];
    before_value(j, key);
    snprintf(text, sizeof text, "%" PRId64, value);
    put_text(j, text);
}

void json_count(struct json *j, const char *key, int64_t value) {
    if (value < 0)
        json_null(j, key);
    else
        json_int(j, key, value);
}

void json_real(struct json *j, const char *key, double value) {
    char text[DBL_MAX_10_EXP + 16] = "null";
    before_value(j, key);
    if (isfinite(value))
        snprintf(text, sizeof text, "%.6f", value);
    put_text(j, text);
}

void json_exact(struct json *j, const char *key, double value) {
    char text[32] = "null";
    before_value(j, key);
    if (isfinite(value))
        snprintf(text, sizeof text, "%.17g", value);
    put_text(j, text);
}

void json_bool(struct json *j, const char *key, bool value) {
    before_value(j, key);
    put_text(j, value ? "true" : "false");
}

void json_null(struct json *j, const char *key) {
    before_value(j, key);
    put_text(j, "null");
}
