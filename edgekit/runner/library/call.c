/* How a call of libekrun fails: fail() ends the attempt that the call is, and the call returns the code. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "library.h"

static _Thread_local char words[sizeof(((struct failure *)NULL)->message)];

/* Only attempts call what may fail: `fail_attempt` does not return to here. */
_Noreturn void fail(enum exit_code code, const char *format, ...) {
    va_list args;
    va_start(args, format);
    fail_attempt(code, format, args);
    __builtin_trap();
}

/* What host.zig refuses here is a deployment.json that breaks a safety check. */
_Noreturn void bundle_refuse(const char *text, bool is_bundle) {
    (void)is_bundle;
    fail(EXIT_INPUT, "%s", text);
}

const char *ekrun_error(void) { return words; }

/* One line of printable ASCII: the message may quote names and engine texts that hold newlines or terminal codes. */
static int tell(const struct failure *failure) {
    size_t used = 0;
    for (const unsigned char *c = (const unsigned char *)failure->message; *c && used + 5 < sizeof words; c++) {
        bool plain = *c >= 0x20 && *c < 0x7f;
        used += (size_t)snprintf(words + used, sizeof words - used, plain || *c == '\n' ? "%c" : "\\x%02x",
                                 *c == '\n' ? ' ' : *c);
    }
    words[used] = '\0';
    return (int)failure->code;
}

int call(void (*body)(void *), void *with) {
    struct failure failure;
    return attempt(body, with, &failure) ? EKRUN_OK : tell(&failure);
}

int misuse(const char *text) { return refuse(EXIT_USAGE, text); }

int refuse(enum exit_code code, const char *text) {
    struct failure failure = {.code = code};
    snprintf(failure.message, sizeof failure.message, "%s", text);
    return tell(&failure);
}
