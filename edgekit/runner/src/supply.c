#define _GNU_SOURCE
#include "supply.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "durable.h"
#include "fail.h"
#include "source.h"
#include "staging.h"

static void load(void *slot) {
    struct slot *s = slot;
    bundle_load(&s->bundle, s->folder);
}

static void add_slot(struct supply *supply, const struct app *app, const char *id) {
    struct failure failure;
    struct slot *slot = &supply->slots[supply->count];
    *slot = (struct slot){
        .bundle = {.trust = supply->bundle->trust, .allow_unsigned = supply->bundle->allow_unsigned},
        .folder = app_slot(app, id),
        .path = app_slot_path(app, id),
    };
    if (slot->folder < 0)
        return;
    bool good = attempt(load, slot, &failure) && strcmp(slot->bundle.manifest_sha256, id) == 0;
    if (good)
        supply->count++;
    else
        close(slot->folder);
}

void supply_open(struct supply *supply, const struct bundle *bundle, const struct app *app, const char *parts) {
    *supply = (struct supply){.bundle = bundle, .parts = parts, .parts_folder = -1};
    if (parts)
        supply->parts_folder = open(parts, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (parts && supply->parts_folder < 0)
        fail(EXIT_INPUT, "--parts %s: %s", parts, strerror(errno));
    for (size_t i = 0; i < app->state.count; i++)
        add_slot(supply, app, app->state.slots[i]);
}

/* One file, from one slot. */
struct taking {
    const struct bundle *bundle;
    size_t index;
    const struct slot *slot;
    const struct bundle_file *file; /* as the slot has it */
    bool copying;
};

static void take(void *taking) {
    const struct taking *t = taking;
    bundle_place(t->slot->path);
    source_open(t->slot->folder, t->file->path, joined(t->slot->path, t->file->path), (int)t->file->mode);
    bundle_read_file(t->bundle, t->index, t->copying);
    source_close();
}

/* From the first slot that holds it whole. `failure` is of the last one that did not. */
static bool take_from_slots(struct supply *supply, size_t index, bool copying, struct failure *failure) {
    for (size_t i = 0; i < supply->count; i++) {
        const struct slot *slot = &supply->slots[i];
        struct bundle_file file;
        if (!bundle_find(supply->bundle, index, &slot->bundle, &file))
            continue;
        struct taking taking = {supply->bundle, index, slot, &file, copying};
        if (attempt(take, &taking, failure))
            return true;
        if (copying)
            staging_restart_file();
    }
    return false;
}

bool supply_has(struct supply *supply, size_t index) {
    struct failure failure;
    return take_from_slots(supply, index, false, &failure);
}

static bool take_part(struct supply *supply, size_t index, const struct bundle_file *file) {
    struct stat info;
    if (supply->parts_folder < 0 || fstatat(supply->parts_folder, file->stored_sha256, &info, AT_SYMLINK_NOFOLLOW) != 0)
        return false;
    char *shown = joined(supply->parts, file->stored_sha256);
    bundle_place(shown);
    source_open(supply->parts_folder, file->stored_sha256, shown, ANY_MODE);
    bundle_expand_file(supply->bundle, index);
    source_close();
    supply->unpacked += file->size;
    return true;
}

static void supply_file(struct supply *supply, size_t index) {
    struct bundle_file file;
    struct failure failure = {.code = EXIT_INPUT};
    bundle_file(supply->bundle, index, &file);
    snprintf(failure.message, sizeof failure.message, "%s: no slot holds it, and --parts has no %s", file.path,
             file.stored_sha256);
    staging_file(file.path, file.mode);
    if (take_from_slots(supply, index, true, &failure))
        supply->copied += file.size;
    else if (!take_part(supply, index, &file))
        fail(failure.code, "%s", failure.message);
    staging_end_file();
}

void supply_all(struct supply *supply) {
    for (size_t i = 0; i < supply->bundle->files; i++)
        supply_file(supply, i);
    bundle_put_head(supply->bundle);
}
