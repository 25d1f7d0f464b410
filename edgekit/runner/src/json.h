/* A JSON writer, no reader. Every string is escaped: names come from models and boards and are untrusted. */
#ifndef EKRUN_JSON_H
#define EKRUN_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

/* Where answers go: what stdout was when ekrun began. Engines print on stdout too, which from then on is stderr. */
extern FILE *answers;

/* First of all in main. Fails with EXIT_IO. */
void answers_open(void);

struct json {
    FILE *out;
    bool failed; /* a write did not go through */
    bool comma;  /* the next value needs one before it */
    char *text;  /* json_open only */
    size_t size;
};

/* A writer into memory, so that no half-written object ever reaches stdout. */
void json_open(struct json *j);
/* Writes what json_open collected and a newline, flushes, and frees. Fails with EXIT_MEMORY or EXIT_IO. */
void json_print(struct json *j);

/* `bracket` is '{' or '['. `key` is NULL inside an array and for the outermost value. */
void json_begin(struct json *j, const char *key, char bracket);
void json_end(struct json *j, char bracket);
void json_string(struct json *j, const char *key, const char *value); /* NULL writes null */
void json_int(struct json *j, const char *key, int64_t value);
void json_count(struct json *j, const char *key, int64_t value); /* a negative value means unknown: null */
void json_real(struct json *j, const char *key, double value);   /* NaN and infinities write null */
void json_exact(struct json *j, const char *key, double value);  /* as json_real, with all its digits */
void json_bool(struct json *j, const char *key, bool value);
void json_null(struct json *j, const char *key);

#endif
