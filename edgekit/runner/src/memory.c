/* Memory, and how engines say that there is none left. Shared by ekrun and libekrun, which fail in ways of their own. */
#include <stdlib.h>
#include <string.h>

#include "fail.h"

enum exit_code unless_memory(enum exit_code code, const char *engine_message) {
    static const char *const signs[] = {
        "bad_alloc",   "Failed to allocate memory",  "Cannot allocate memory", "cannot allocate memory",
        "can't alloc", "cannot map zero-fill pages",
        "Resource temporarily unavailable", /* no room for a thread's stack */
    };
    for (size_t i = 0; i < sizeof signs / sizeof *signs; i++)
        if (strstr(engine_message, signs[i]))
            return EXIT_MEMORY;
    return code;
}

void *allocate(size_t count, size_t size) {
    void *memory = calloc(count ? count : 1, size ? size : 1);
    if (!memory)
        fail(EXIT_MEMORY, "out of memory: %zu x %zu bytes", count, size);
    return memory;
}

void *reallocate(void *old, size_t count, size_t size) {
    size_t bytes;
    void *memory = __builtin_mul_overflow(count, size, &bytes) ? NULL : realloc(old, bytes ? bytes : 1);
    if (!memory)
        fail(EXIT_MEMORY, "out of memory: %zu x %zu bytes", count, size);
    return memory;
}
