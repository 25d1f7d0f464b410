/* How ekrun ends: exit codes, and the one way out on an error.
 *
 * A process serves one request, so an error ends it: one line for people on stderr, one JSON object on stdout, an exit
 * code. Nothing is unwound; the kernel frees what a dead process held, and part files are removed first. Only what runs
 * within attempt() may fail and leave the process alive.
 */
#ifndef EKRUN_FAIL_H
#define EKRUN_FAIL_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>

#define EKRUN_PROTOCOL 1

enum exit_code {
    EXIT_USAGE = 2,
    EXIT_LIBRARY = 3,
    EXIT_MODEL = 4,
    EXIT_INPUT = 5,
    EXIT_INFERENCE = 6,
    EXIT_IO = 7,
    EXIT_REFUSED = 8, /* as edgekit's own exit code: what was not signed so, or not as the bundle says, is not used */
    EXIT_ILLEGAL = 9,
    EXIT_LINK = 10, /* stdin ended under --tether: nobody is left to answer to */
    EXIT_MEMORY = 11,
    EXIT_INCOMPATIBLE = 12,
    EXIT_BUSY = 13,
};

_Noreturn void fail(enum exit_code code, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Runs body(with). True when it has returned; where it failed, `failure` says why, nobody was told and no clean-up has
 * run, and what it had opened or allocated is lost. */
struct failure {
    enum exit_code code;
    char message[4096];
};
bool attempt(void (*body)(void *), void *with, struct failure *failure);

/* The part of fail() that ends the calling thread's innermost attempt; where there is none, it returns. */
void fail_attempt(enum exit_code code, const char *format, va_list args);

/* For an answer that holds more than the error: its field `error`, and then the end, with the line for people. */
struct json;
void write_error(struct json *j, enum exit_code code, const char *message);
_Noreturn void finish_failed(enum exit_code code, const char *message);

/* `code`, or EXIT_MEMORY when an engine's own message says that memory ran out. Engines have no code for it. */
enum exit_code unless_memory(enum exit_code code, const char *engine_message);

/* The protocol's name of a code. */
const char *code_name(enum exit_code code);

/* Called by fail() before the process ends, and by the other ways out on an error. */
void set_cleanup(void (*cleanup)(void));
void run_cleanup(void);

/* Ends the process, whose answers are written, without running the exit handlers of engines, whose threads may still be
 * alive. */
_Noreturn void finish(void);

/* Zeroed memory or fail(EXIT_MEMORY). A request for no bytes still yields a valid pointer. */
void *allocate(size_t count, size_t size);

/* realloc or fail(EXIT_MEMORY). */
void *reallocate(void *old, size_t count, size_t size);

#endif
