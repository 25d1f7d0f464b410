/* ROOT/apps/APPLICATION: its lock, its slots, what `current` leads to, its state (docs/device-layout.md).
 *
 * - every change is durable before the call returns, and leaves `current` on a slot that was confirmed, or on the one
 *   on trial;
 * - what is not ekrun's is left alone.
 */
#ifndef EKRUN_APP_H
#define EKRUN_APP_H

#include "device.h"
#include "json.h"
#include "state.h"

struct app {
    const char *path; /* of the folder */
    int folder, slots;
    struct state state;
    bool recovered, took_back; /* the remains of one that was killed; a trial was among them */
    struct state removed;      /* its slots: those that were removed since */
};

/* Opens the folder; false where it is not there. `app_make` makes it first. */
bool app_open(struct app *app, const struct device *device, const char *application);
void app_make(struct app *app, const struct device *device, const char *application);

/* For this process alone, until it ends. Fails with EXIT_BUSY where another one keeps it. */
void app_lock(const struct app *app);
/* Fails with EXIT_BUSY where another one has it; changes nothing. */
void app_refuse_locked(const struct app *app);

/* Reads the state; a new application's is a counter of 0 and no slots. Fails with EXIT_INPUT where it is damaged. */
void app_load(struct app *app);

/* Takes back what an install that was killed has left: its trial, and what it was making. */
void app_recover(struct app *app);

/* The slot that `current` leads to; false where it leads to none. */
bool app_current(const struct app *app, char id[ID_ROOM]);
bool app_is_confirmed(const struct app *app, const char *id);
bool app_lists(const struct app *app, const char *id);

/* The folder of a slot, open, or -1. */
int app_slot(const struct app *app, const char *id);
char *app_slot_path(const struct app *app, const char *id);

/* Calls `each` for every slot that is there. */
void app_each_slot(const struct app *app, void (*each)(const char *id, void *with), void *with);

/* The steps of a switch: what the way back needs is made, and the state says which slot is on trial; `current` leads to
 * it; the state says it is confirmed. */
void app_try(struct app *app, const char *id);
void app_switch(struct app *app);
void app_confirm(struct app *app, uint64_t counter, size_t keep);
/* The way back from any of them, also on a disk that is full. */
void app_take_back(struct app *app);

/* Cuts the list to what `keep` in all leave beside the new slot `id`, the confirmed one always; here alone. */
void app_cut(struct app *app, const char *id, size_t keep);
/* What is listed now is what the state says. */
void app_save(struct app *app);
/* Bytes of the disk that recovery, and the removal of what is not listed now, would free. */
uint64_t app_spare_bytes(const struct app *app);

/* Removes the slots that are nobody's, and notes those that are gone in `removed`. */
void app_prune(struct app *app);

#endif
