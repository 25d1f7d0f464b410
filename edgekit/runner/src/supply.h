/* Where the files of a bundle come from when only its head is here: slots of the same application that hold them
 * already, then a folder of stored files, each under its stored SHA-256.
 *
 * - a slot is taken from only where its own manifest is believed; what is read is hashed against the new one;
 * - a slot's file that is damaged counts for nothing.
 */
#ifndef EKRUN_SUPPLY_H
#define EKRUN_SUPPLY_H

#include "app.h"

struct supply {
    const struct bundle *bundle; /* whose files are wanted */
    struct slot {
        struct bundle bundle;
        int folder;
        const char *path;
    } slots[MOST_SLOTS];
    size_t count;
    const char *parts; /* the folder; NULL: none */
    int parts_folder;
    uint64_t copied, unpacked; /* bytes so far */
};

/* Of the slots that the state lists. Fails with EXIT_INPUT where `parts` cannot be opened. */
void supply_open(struct supply *supply, const struct bundle *bundle, const struct app *app, const char *parts);

/* Whether a slot holds file `index`, whole. */
bool supply_has(struct supply *supply, size_t index);

/* All files, and manifest and signature, into the staging folder. Fails with EXIT_INPUT where nothing holds one. */
void supply_all(struct supply *supply);

#endif
