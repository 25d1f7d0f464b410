/* `ekrun status`: what is installed, by the manifests of the slots. Takes no lock, changes nothing, reads no more. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "app.h"
#include "fail.h"
#include "verbs.h"

struct slot_status {
    const struct device *device;
    const struct app *app;
    struct json *j;
    struct bundle bundle;
    const char *id;
    int folder;
};

static void load_slot(void *slot_status) {
    struct slot_status *s = slot_status;
    s->bundle = device_bundle(s->device, true);
    if (s->folder < 0)
        fail(EXIT_IO, "%s", strerror(errno));
    bundle_load(&s->bundle, s->folder);
    if (strcmp(s->bundle.manifest_sha256, s->id) != 0)
        fail(EXIT_REFUSED, "another bundle");
}

static const char *standing(const struct app *app, const char *id) {
    if (strcmp(app->state.trial, id) == 0)
        return "trial";
    if (app_is_confirmed(app, id))
        return "confirmed";
    if (app->state.count > 1 && strcmp(app->state.slots[1], id) == 0)
        return "previous";
    return app_lists(app, id) ? "kept" : "unknown";
}

/* Nothing is told of a manifest whose signature does not hold. */
static void write_slot(const char *id, void *slot_status) {
    struct slot_status *s = slot_status;
    struct failure failure;
    s->id = id;
    s->folder = app_slot(s->app, id);
    bool good = attempt(load_slot, s, &failure);
    if (s->folder >= 0)
        close(s->folder);
    json_begin(s->j, NULL, '{');
    json_string(s->j, "id", id);
    json_string(s->j, "version", good ? s->bundle.version : NULL);
    json_count(s->j, "counter", good ? (int64_t)s->bundle.counter : -1);
    json_string(s->j, "signer", good && *s->bundle.signer ? s->bundle.signer : NULL);
    json_count(s->j, "bytes", good ? (int64_t)s->bundle.size : -1);
    json_string(s->j, "state", standing(s->app, id));
    json_bool(s->j, "trusted", good && *s->bundle.signer);
    json_end(s->j, '}');
}

struct opening {
    struct app *app;
    const struct device *device;
    const char *name;
};

static void load_state(void *opening) {
    const struct opening *o = opening;
    if (app_open(o->app, o->device, o->name))
        app_load(o->app);
}

static void write_application(const struct device *device, const char *name, struct json *j) {
    struct app app = {.folder = -1, .slots = -1};
    struct failure failure;
    char current[ID_ROOM];
    bool good = attempt(load_state, &(struct opening){&app, device, name}, &failure);
    const struct state *state = &app.state;
    if (!good)
        app.state = (struct state){0};
    json_begin(j, NULL, '{');
    json_string(j, "application", name);
    json_count(j, "counter", good ? (int64_t)state->counter : -1);
    json_string(j, "trial", *state->trial ? state->trial : NULL);
    json_string(j, "current", app_current(&app, current) ? current : NULL);
    json_string(j, "confirmed", state->count ? state->slots[0] : NULL);
    if (!good)
        json_string(j, "damaged", failure.message);
    json_begin(j, "slots", '[');
    struct slot_status slot = {.device = device, .app = &app, .j = j};
    app_each_slot(&app, write_slot, &slot);
    json_end(j, ']');
    json_end(j, '}');
    if (app.folder >= 0)
        close(app.folder);
    if (app.slots >= 0)
        close(app.slots);
}

static int is_shown(const struct dirent *entry) { return is_application(entry->d_name); }

static bool is_folder(int at, const char *name) {
    struct stat info;
    return fstatat(at, name, &info, 0) == 0 && S_ISDIR(info.st_mode);
}

static void write_applications(const struct device *device, struct json *j) {
    struct dirent **entries = NULL;
    int apps = device->root < 0 ? -1 : openat(device->root, "apps", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int count = apps < 0 ? 0 : scandirat(apps, ".", &entries, is_shown, alphasort);
    json_begin(j, "applications", '[');
    for (int i = 0; i < count; i++) {
        if (is_folder(apps, entries[i]->d_name))
            write_application(device, entries[i]->d_name, j);
        free(entries[i]);
    }
    json_end(j, ']');
    free(entries);
    if (apps >= 0)
        close(apps);
}

void status(const struct options *options) {
    struct device device;
    struct json j;
    device_open(&device, options, false);
    device_own_trust(&device, &device.trust);
    json_open(&j);
    json_begin(&j, NULL, '{');
    json_int(&j, "protocol", EKRUN_PROTOCOL);
    json_string(&j, "verb", "status");
    json_string(&j, "root", device.path);
    write_applications(&device, &j);
    json_end(&j, '}');
    json_print(&j);
}
