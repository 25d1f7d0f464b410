/* `ekrun install`: a bundle, whole or in parts, into a slot of its own; proved, switched to, proved again, confirmed.
 *
 * - nothing of what is there changes before the new slot is whole and has passed its self-test;
 * - each step is on the disk before the next one begins (app.h), so a process that is killed, or a power cut, leaves
 *   `current` on a slot that was verified and checked, and the next install goes on from there;
 * - all is decided by the device's trust file and the application's state, never by what lies around.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>

#include "durable.h"
#include "fail.h"
#include "requires.h"
#include "source.h"
#include "staging.h"
#include "stop.h"
#include "supply.h"
#include "trial.h"
#include "verbs.h"

#define SPARE_BYTES (1 << 20) /* for folders, and what the file system itself takes */

struct job {
    const struct options *options;
    struct device device;
    struct bundle bundle;
    struct app app;
    struct supply supply;
};

static void read_head(struct job *job) {
    const struct options *options = job->options;
    job->bundle = device_bundle(&job->device, options->allow_unsigned);
    bundle_place(options->bundle);
    source_open(AT_FDCWD, options->bundle, options->bundle, ANY_MODE);
    bundle_open(&job->bundle);
    check_requires(&job->bundle);
}

static void refuse_older(const struct job *job) {
    const struct bundle *b = &job->bundle;
    if (b->counter < job->app.state.counter)
        fail(EXIT_REFUSED, "%s %s: its security counter is %" PRIu64 ", this device has confirmed %" PRIu64,
             b->application, b->version, b->counter, job->app.state.counter);
}

/* Of the nearest folder that is there. */
static bool disk_of(const char *path, struct statvfs *disk) {
    char *folder = joined(path, "");
    for (char *slash; statvfs(folder, disk) != 0; *slash = '\0')
        if (errno != ENOENT || !(slash = strrchr(folder, '/')) || slash == folder)
            return false;
    free(folder);
    return true;
}

struct room {
    uint64_t needed, free_bytes;
};

/* Whether the bundle fits on the disk once `spare` more bytes are free; also where that is not known. */
static bool has_room(const struct job *job, uint64_t spare, struct room *room) {
    const struct bundle *b = &job->bundle;
    struct statvfs disk;
    room->needed = b->size + b->manifest.size + b->signature.size + SPARE_BYTES;
    if (!disk_of(job->app.path, &disk) ||
        __builtin_mul_overflow((uint64_t)disk.f_bavail, (uint64_t)disk.f_frsize, &room->free_bytes))
        return true;
    room->free_bytes += spare;
    return room->free_bytes >= room->needed;
}

static void check_room(const struct job *job, uint64_t spare) {
    const struct bundle *b = &job->bundle;
    struct room room;
    if (!has_room(job, spare, &room))
        fail(EXIT_IO, "%s %s needs %" PRIu64 " bytes, the disk has %" PRIu64 " free", b->application, b->version,
             room.needed, room.free_bytes);
}

/* Where room lacks, the list is cut to what it will be cut to anyway, if that makes room; so is what those slots held. */
static void plan_room(struct job *job) {
    struct app *app = &job->app;
    struct room room;
    if (has_room(job, app_spare_bytes(app), &room))
        return;
    app_cut(app, job->bundle.manifest_sha256, (size_t)job->options->keep);
    check_room(job, app_spare_bytes(app));
}

static void make_room(struct job *job) {
    size_t before = job->app.state.count;
    plan_room(job);
    if (job->app.state.count == before)
        return;
    app_save(&job->app);
    app_prune(&job->app);
    check_room(job, 0);
}

/* Whether a slot that counts is this bundle, whole. */
static bool has_slot(const struct job *job, enum others others) {
    const char *id = job->bundle.manifest_sha256;
    struct bundle found;
    struct failure failure;
    if (!app_lists(&job->app, id))
        return false;
    int container = source_keep();
    bool whole = slot_is_whole(&job->app, &job->device, id, job->options->allow_unsigned, others, &found,
                               &failure);
    source_resume(container, job->options->bundle);
    bundle_place(job->options->bundle);
    return whole;
}

static void fill(struct job *job) {
    bool head_only = job->options->parts && source_at_end();
    if (head_only) {
        supply_open(&job->supply, &job->bundle, &job->app, job->options->parts);
        supply_all(&job->supply);
        return;
    }
    bundle_unpack_all(&job->bundle);
    job->supply.unpacked = job->bundle.size;
}

/* A damaged slot makes room for the new one; but `current` always leads to a slot, so there both change places. */
static void place(struct job *job) {
    const char *id = job->bundle.manifest_sha256;
    char current[ID_ROOM];
    bool exchange = app_current(&job->app, current) && strcmp(current, id) == 0;
    staging_sync();
    stop_if_asked();
    if (!exchange)
        remove_tree(job->app.slots, id);
    staging_place(exchange);
    set_cleanup(NULL);
    remove_tree(job->app.folder, ".staging");
}

static void make_slot(struct job *job) {
    const char *id = job->bundle.manifest_sha256;
    make_room(job);
    staging_open_at(job->app.folder, job->app.slots, id, app_slot_path(&job->app, id));
    fill(job);
    place(job);
}

static void answer(const struct job *job, const struct trial *trial) {
    struct json j;
    json_open(&j);
    json_begin(&j, NULL, '{');
    write_trial(trial, "install", &j);
    json_int(&j, "copied_bytes", (int64_t)job->supply.copied);
    json_int(&j, "unpacked_bytes", (int64_t)job->supply.unpacked);
    json_end(&j, '}');
    json_print(&j);
}

static void install_now(struct job *job) {
    struct app *app = &job->app;
    struct trial trial = {.app = app, .device = &job->device, .options = job->options, .bundle = &job->bundle};
    app_make(app, &job->device, job->bundle.application);
    app_lock(app);
    app_load(app);
    app_recover(app);
    refuse_older(job);
    bool whole = has_slot(job, OTHERS_REMOVED);
    if (!whole)
        make_slot(job);
    prove(&trial);
    if (app_is_confirmed(app, job->bundle.manifest_sha256))
        trial.changed = !whole;
    else
        switch_to(&trial, (size_t)job->options->keep);
    answer(job, &trial);
}

/* The stored files that no slot holds, each once; none where the whole bundle is there. */
static void write_lacking(struct job *job, bool whole, struct json *j) {
    struct bundle_file file, other;
    json_begin(j, "lacking", '[');
    for (size_t i = 0, k; i < job->bundle.files && !whole; i++) {
        bundle_file(&job->bundle, i, &file);
        for (k = 0; k < i; k++) {
            bundle_file(&job->bundle, k, &other);
            if (strcmp(other.stored_sha256, file.stored_sha256) == 0)
                break;
        }
        if (k < i || supply_has(&job->supply, i))
            continue;
        json_begin(j, NULL, '{');
        json_string(j, "sha256", file.stored_sha256);
        json_int(j, "size", (int64_t)file.stored_size);
        json_end(j, '}');
    }
    json_end(j, ']');
}

static void answer_rehearsed(struct job *job, bool whole) {
    const struct trial trial = {.app = &job->app, .bundle = &job->bundle};
    struct json j;
    json_open(&j);
    json_begin(&j, NULL, '{');
    write_trial(&trial, "install", &j);
    json_bool(&j, "installed", whole && app_is_confirmed(&job->app, job->bundle.manifest_sha256));
    write_lacking(job, whole, &j);
    json_end(&j, '}');
    json_print(&j);
}

/* What can refuse an install before it begins, and what it would need. */
static void rehearse(struct job *job) {
    struct app *app = &job->app;
    if (app_open(app, &job->device, job->bundle.application)) {
        app_refuse_locked(app);
        app_load(app);
    }
    refuse_older(job);
    bool whole = has_slot(job, OTHERS_IGNORED);
    const struct state state = app->state;
    if (!whole)
        plan_room(job);
    supply_open(&job->supply, &job->bundle, app, job->options->parts); /* of the slots that will be there */
    app->state = state;
    answer_rehearsed(job, whole);
}

void install(const struct options *options) {
    static struct job job;
    job.options = options;
    stop_on_signals();
    device_open(&job.device, options, !options->dry_run);
    device_trust(&job.device, options, !options->dry_run);
    read_head(&job);
    if (options->dry_run)
        rehearse(&job);
    else
        install_now(&job);
}
