/* How a call of libekrun fails: fail() jumps back to its entry, which returns the code.
 *
 * - fail() is called by code of ekrun only, between calls of an engine: no frame of an engine is ever jumped over;
 * - what was acquired before is in records that the entry frees; nothing else is held where something can fail.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "library.h"

/* One that is under way, and the one around it: an engine is loaded within one, as a lock is held. */
struct attempt {
    jmp_buf back;
    struct attempt *around;
    struct failure *failure;
};

static _Thread_local struct attempt *attempting;
static _Thread_local char words[sizeof(((struct failure *)NULL)->message)];

bool attempt(void (*body)(void *), void *with, struct failure *failure) {
    struct attempt this = {.around = attempting, .failure = failure};
    attempting = &this;
    if (setjmp(this.back) == 0) {
        body(with);
        attempting = this.around;
        return true;
    }
    attempting = attempting->around;
    return false;
}

_Noreturn void fail(enum exit_code code, const char *format, ...) {
    struct failure *failure = attempting->failure;
    va_list args;
    va_start(args, format);
    vsnprintf(failure->message, sizeof failure->message, format, args);
    va_end(args);
    failure->code = code;
    longjmp(attempting->back, 1);
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
