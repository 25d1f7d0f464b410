/* The line `state` of an application (docs/device-layout.md): all that an install or a rollback decides by. */
#ifndef EKRUN_STATE_H
#define EKRUN_STATE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ID_ROOM 65 /* 64 hexadecimal digits, terminated */
#define MOST_SLOTS 64
#define STATE_ROOM (32 + ID_ROOM * (1 + MOST_SLOTS))

/* As `State` in device.zig, which has its functions. */
struct state {
    uint64_t counter;
    char trial[ID_ROOM]; /* empty: none */
    size_t count;
    char slots[MOST_SLOTS][ID_ROOM]; /* those that were confirmed, the newest confirmation first, each once */
};

/* NULL, or why `text` is none. */
const char *state_parse(const void *text, size_t size, struct state *state);
/* Its line, and how long that is. */
size_t state_text(const struct state *state, char text[STATE_ROOM]);

/* Whether a slot, or an application, may be called so. */
bool is_slot(const char *name);
bool is_application(const char *name);

/* Fails with EXIT_INPUT where `text` is no trust file. */
void trust_check(const void *text, size_t size);

/* The reason that the last line of an ekrun's answer gives, at most 511 bytes, or an empty one. */
void reply_words(const void *text, size_t size, char words[512]);

#endif
