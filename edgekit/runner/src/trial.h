/* What install and rollback share: a slot that proves itself, and the switch to it, which is taken back when it does
 * not prove itself there too. */
#ifndef EKRUN_TRIAL_H
#define EKRUN_TRIAL_H

#include "app.h"
#include "fail.h"

struct trial {
    struct app *app;
    const struct device *device;
    const struct options *options;
    const struct bundle *bundle; /* in the slot that is called by its manifest's SHA-256 */
    bool unchecked; /* it has nothing to prove itself with, and that is allowed */
    bool changed;
};

/* Opens slot `id`, believes and verifies all of it; `others` is what becomes of what is no part of it. False where it
 * is not there or not whole; `failure` says why. */
bool slot_is_whole(const struct app *app, const struct device *device, const char *id, bool allow_unsigned,
                   enum others others, struct bundle *bundle, struct failure *failure);

/* The self-test in the slot, before anything is switched. Fails with EXIT_REFUSED and removes a slot that is
 * nobody's. */
void prove(struct trial *trial);

/* Makes the slot the confirmed one, and keeps `keep` in all, once it has proved itself through `current` and is
 * verified again, by the keys that are trusted then. On failure, and when a signal comes, everything is taken back: the
 * message says so. */
void switch_to(struct trial *trial, size_t keep);

/* The fields that both answer with; removes the slots that are no longer kept. */
void write_trial(const struct trial *trial, const char *verb, struct json *j);

#endif
