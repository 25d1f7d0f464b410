#include "fail.h"

#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "json.h"

static void (*cleanup_hook)(void);

void set_cleanup(void (*cleanup)(void)) { cleanup_hook = cleanup; }

void run_cleanup(void) {
    if (cleanup_hook)
        cleanup_hook();
}

const char *code_name(enum exit_code code) {
    switch (code) {
    case EXIT_USAGE: return "usage";
    case EXIT_LIBRARY: return "library";
    case EXIT_MODEL: return "model_refused";
    case EXIT_INPUT: return "bad_input";
    case EXIT_INFERENCE: return "inference_failed";
    case EXIT_IO: return "io";
    case EXIT_REFUSED: return "verification_failed";
    case EXIT_ILLEGAL: return "illegal_instruction";
    case EXIT_MEMORY: return "out_of_memory";
    case EXIT_INCOMPATIBLE: return "incompatible";
    case EXIT_BUSY: return "busy";
    case EXIT_LINK: break; /* never told */
    }
    return "internal";
}

/* One line of printable ASCII: the message may quote names and engine texts that hold newlines or terminal codes. */
static void print_for_people(const char *message) {
    fputs("ekrun: ", stderr);
    for (const unsigned char *c = (const unsigned char *)message; *c; c++) {
        if (*c >= 0x20 && *c < 0x7f)
            fputc(*c, stderr);
        else if (*c == '\n')
            fputc(' ', stderr);
        else
            fprintf(stderr, "\\x%02x", *c);
    }
    fputc('\n', stderr);
}

void write_error(struct json *j, enum exit_code code, const char *message) {
    json_begin(j, "error", '{');
    json_string(j, "code", code_name(code));
    json_string(j, "message", message);
    json_end(j, '}');
}

static void print_for_programs(enum exit_code code, const char *message) {
    struct json j = {.out = answers};
    if (!answers)
        return;
    json_begin(&j, NULL, '{');
    json_int(&j, "protocol", EKRUN_PROTOCOL);
    write_error(&j, code, message);
    json_end(&j, '}');
    fputc('\n', answers);
    fflush(answers);
}

/* Lanes may fail together: the first to do so speaks for all, and ends them. */
static void be_the_only_one(void) {
    static atomic_flag failing = ATOMIC_FLAG_INIT;
    while (atomic_flag_test_and_set(&failing))
        pause();
}

_Noreturn void fail(enum exit_code code, const char *format, ...) {
    char message[4096];
    va_list args;
    va_start(args, format);
    fail_attempt(code, format, args);
    be_the_only_one();
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    run_cleanup();
    print_for_people(message);
    print_for_programs(code, message);
    _exit(code);
}

_Noreturn void finish_failed(enum exit_code code, const char *message) {
    print_for_people(message);
    _exit(code);
}

_Noreturn void finish(void) { _exit(0); }
