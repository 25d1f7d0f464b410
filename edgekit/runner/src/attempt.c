/* What may fail and leave the process alive: ekrun's checks, each call of libekrun.
 *
 * - fail() is called by code of ekrun only, between calls of an engine: no frame of an engine is ever jumped over;
 * - what was acquired before is in records that whoever attempts frees; nothing else is held where something can fail.
 */
#include <setjmp.h>
#include <stdio.h>

#include "fail.h"

/* One that is under way, and the one around it. */
struct attempt {
    jmp_buf back;
    struct attempt *around;
    struct failure *failure;
};

/* Each thread's own: who fails beside an attempt of another thread is not within it. */
static _Thread_local struct attempt *attempting;

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

void fail_attempt(enum exit_code code, const char *format, va_list args) {
    if (!attempting)
        return;
    struct failure *failure = attempting->failure;
    failure->code = code;
    vsnprintf(failure->message, sizeof failure->message, format, args);
    longjmp(attempting->back, 1);
}
