#define _GNU_SOURCE
#include "trial.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "deployment.h"
#include "durable.h"
#include "fail.h"
#include "selftest.h"
#include "source.h"
#include "stop.h"

struct slot_check {
    const char *id, *path;
    int folder;
    enum others others;
    struct bundle *bundle;
};

static void check_slot(void *slot_check) {
    const struct slot_check *c = slot_check;
    if (c->folder < 0)
        fail(EXIT_INPUT, "%s: %s", c->path, strerror(errno));
    bundle_load(c->bundle, c->folder);
    if (strcmp(c->bundle->manifest_sha256, c->id) != 0)
        fail(EXIT_REFUSED, "%s: holds another bundle", c->path);
    bundle_verify(c->bundle, c->folder, c->others);
}

/* What is said of a file in a slot says which slot. */
static void name_place(const char *path, struct failure *failure) {
    char said[sizeof failure->message];
    if (strstr(failure->message, path))
        return;
    memcpy(said, failure->message, sizeof said);
    snprintf(failure->message, sizeof failure->message, "%s: %.3000s", path, said);
}

bool slot_is_whole(const struct app *app, const struct device *device, const char *id, bool allow_unsigned,
                   enum others others, struct bundle *bundle, struct failure *failure) {
    *bundle = device_bundle(device, allow_unsigned);
    struct slot_check check = {id, app_slot_path(app, id), app_slot(app, id), others, bundle};
    bundle_place(check.path);
    bool whole = attempt(check_slot, &check, failure);
    if (!whole)
        name_place(check.path, failure);
    if (check.folder >= 0)
        close(check.folder);
    return whole;
}

static void look_whether_unchecked(void *with) {
    struct trial *trial = with;
    struct deployment deployment;
    int folder = app_slot(trial->app, trial->bundle->manifest_sha256);
    struct bytes text = source_load(folder, DEPLOYMENT_FILE, DEPLOYMENT_FILE, MANIFEST_MAX_BYTES);
    close(folder);
    trial->unchecked = !deployment_parse(text.at, text.size, allocate(DEPLOYMENT_ROOM, 1), &deployment) &&
                       !deployment.output_count;
}

/* Decided once, before anything is switched. */
static void decide_whether_unchecked(struct trial *trial) {
    struct failure failure;
    if (trial->options->allow_unchecked && bundle_has(trial->bundle, DEPLOYMENT_FILE, false))
        attempt(look_whether_unchecked, trial, &failure);
}

void prove(struct trial *trial) {
    char words[1024];
    const char *id = trial->bundle->manifest_sha256;
    stop_by_failing(true);
    decide_whether_unchecked(trial);
    stop_by_failing(false);
    bool good = trial->unchecked || selftest(app_slot_path(trial->app, id), trial->options->check_seconds, words);
    if (good && !stop_asked())
        return;
    app_prune(trial->app);
    stop_if_asked();
    fail(EXIT_REFUSED, "%s %s: its self-test failed: %s", trial->bundle->application, trial->bundle->version, words);
}

struct switching {
    const struct trial *trial;
    size_t keep;
};

/* The check ran what is in the slot, and may have changed it; a key may have been revoked meanwhile. */
static void verify_again(const struct trial *trial) {
    struct device now = *trial->device;
    struct bundle bundle;
    struct failure failure;
    device_own_trust(&now, &now.trust);
    if (!slot_is_whole(trial->app, &now, trial->bundle->manifest_sha256, trial->options->allow_unsigned, OTHERS_REFUSED,
                       &bundle, &failure))
        fail(failure.code, "%s", failure.message);
}

static void switch_and_confirm(void *switching) {
    const struct trial *trial = ((const struct switching *)switching)->trial;
    char words[1024];
    app_switch(trial->app);
    if (!trial->unchecked && !selftest(joined(trial->app->path, "current"), trial->options->check_seconds, words))
        fail(EXIT_REFUSED, "%s %s: its health check failed: %s", trial->bundle->application, trial->bundle->version,
             words);
    verify_again(trial);
    stop_if_asked();
    stop_no_more();
    app_confirm(trial->app, trial->bundle->counter, ((const struct switching *)switching)->keep);
}

static void take_back(void *app) { app_take_back(app); }

/* A slot that was kept stays, but without what its trial has left there. */
static void clear(const struct trial *trial) {
    struct bundle bundle;
    struct failure failure;
    const char *id = trial->bundle->manifest_sha256;
    if (app_lists(trial->app, id))
        slot_is_whole(trial->app, trial->device, id, trial->options->allow_unsigned, OTHERS_REMOVED, &bundle, &failure);
}

void switch_to(struct trial *trial, size_t keep) {
    struct app *app = trial->app;
    struct switching switching = {trial, keep};
    struct failure failure, worse;
    app_try(app, trial->bundle->manifest_sha256);
    stop_by_failing(true);
    trial->changed = attempt(switch_and_confirm, &switching, &failure);
    if (trial->changed)
        return;
    if (!attempt(take_back, app, &worse))
        fail(worse.code, "switched, not confirmed: %s; %s", worse.message, failure.message);
    clear(trial);
    stop_by_failing(false);
    stop_if_asked();
    fail(failure.code, "switched back: %s", failure.message);
}

void write_trial(const struct trial *trial, const char *verb, struct json *j) {
    const struct bundle *bundle = trial->bundle;
    const struct state *state = &trial->app->state;
    json_int(j, "protocol", EKRUN_PROTOCOL);
    json_string(j, "verb", verb);
    json_string(j, "application", bundle->application);
    json_string(j, "version", bundle->version);
    json_int(j, "counter", (int64_t)bundle->counter);
    json_string(j, "id", bundle->manifest_sha256);
    json_bool(j, "changed", trial->changed);
    json_string(j, "previous", state->count > 1 ? state->slots[1] : NULL);
    json_begin(j, "removed", '[');
    if (trial->changed)
        app_prune(trial->app);
    for (size_t i = 0; i < trial->app->removed.count; i++)
        json_string(j, NULL, trial->app->removed.slots[i]);
    json_end(j, ']');
    json_int(j, "device_counter", (int64_t)state->counter);
    json_bool(j, "recovered", trial->app->recovered);
}
