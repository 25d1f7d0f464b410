#define _GNU_SOURCE
#include "json.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

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

static void write_escaped(FILE *out, const char *text) {
    fputc('"', out);
    for (const unsigned char *s = (const unsigned char *)text; *s;) {
        size_t length = utf8_length(s);
        if (length == 0)
            fputs("\\ufffd", out);
        else if (*s == '"' || *s == '\\')
            fprintf(out, "\\%c", *s);
        else if (*s < 0x20 || *s == 0x7f)
            fprintf(out, "\\u%04x", *s);
        else
            fwrite(s, 1, length, out);
        s += length ? length : 1;
    }
    fputc('"', out);
}

static void before_value(struct json *j, const char *key) {
    if (j->comma)
        fputc(',', j->out);
    j->comma = true;
    if (key) {
        write_escaped(j->out, key);
        fputc(':', j->out);
    }
}

void json_open(struct json *j) {
    *j = (struct json){0};
    j->out = open_memstream(&j->text, &j->size);
    if (!j->out)
        fail(EXIT_MEMORY, "out of memory for the answer");
}

void json_print(struct json *j) {
    if (fputc('\n', j->out) == EOF || fclose(j->out) != 0)
        fail(EXIT_MEMORY, "out of memory for the answer");
    if (fwrite(j->text, 1, j->size, stdout) != j->size || fflush(stdout) != 0)
        fail(EXIT_IO, "cannot write to stdout: %s", strerror(errno));
    free(j->text);
}

void json_begin(struct json *j, const char *key, char bracket) {
    before_value(j, key);
    fputc(bracket, j->out);
    j->comma = false;
}

void json_end(struct json *j, char bracket) {
    fputc(bracket, j->out);
    j->comma = true;
}

void json_string(struct json *j, const char *key, const char *value) {
    before_value(j, key);
    if (value)
        write_escaped(j->out, value);
    else
        fputs("null", j->out);
}

void json_int(struct json *j, const char *key, int64_t value) {
    before_value(j, key);
    fprintf(j->out, "%" PRId64, value);
}

void json_count(struct json *j, const char *key, int64_t value) {
    if (value < 0)
        json_null(j, key);
    else
        json_int(j, key, value);
}

void json_real(struct json *j, const char *key, double value) {
    before_value(j, key);
    if (isfinite(value))
        fprintf(j->out, "%.6f", value);
    else
        fputs("null", j->out);
}

void json_bool(struct json *j, const char *key, bool value) {
    before_value(j, key);
    fputs(value ? "true" : "false", j->out);
}

void json_null(struct json *j, const char *key) {
    before_value(j, key);
    fputs("null", j->out);
}
