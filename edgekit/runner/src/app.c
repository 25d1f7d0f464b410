#define _GNU_SOURCE
#include "app.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "durable.h"
#include "fail.h"
#include "lock.h"

#define STATE_FILE "state"
#define LOCK_FILE "lock"
#define CURRENT "current"
#define BACK ".current.back" /* a link as `current` is while nothing is on trial */
#define SPARE ".state.spare" /* a file that is as large as the state then is */
#define SLOTS "slots"
#define STAGING ".staging"
#define LOCK_MS 1000 /* a rehearsal has it for a moment */

bool app_open(struct app *app, const struct device *device, const char *application) {
    char name[128];
    snprintf(name, sizeof name, "apps/%s", application);
    *app = (struct app){.path = joined(device->path, name), .slots = -1};
    app->folder = device->root < 0 ? -1 : openat(device->root, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (app->folder < 0 && device->root >= 0 && errno != ENOENT)
        fail(EXIT_IO, "%s: %s", app->path, strerror(errno));
    if (app->folder >= 0)
        app->slots = openat(app->folder, SLOTS, OPEN_FOLDER);
    return app->folder >= 0;
}

void app_make(struct app *app, const struct device *device, const char *application) {
    int apps = durable_folder(device->root, "apps", joined(device->path, "apps"));
    close(durable_folder(apps, application, application));
    close(apps);
    app_open(app, device, application);
}

static _Noreturn void fail_lock(const struct app *app) {
    if (errno == EWOULDBLOCK)
        fail(EXIT_BUSY, "%s: another install or rollback is under way", app->path);
    fail(EXIT_IO, "%s/" LOCK_FILE ": %s", app->path, strerror(errno));
}

void app_lock(const struct app *app) {
    if (lock_file(app->folder, LOCK_FILE, O_RDWR | O_CREAT, LOCK_EX, LOCK_MS) < 0)
        fail_lock(app);
}

void app_refuse_locked(const struct app *app) {
    int file = lock_file(app->folder, LOCK_FILE, O_RDONLY, LOCK_SH, 0);
    if (file >= 0)
        close(file);
    else if (errno != ENOENT)
        fail_lock(app);
}

/* The slot that the link `name` leads to. */
static bool read_link(const struct app *app, const char *name, char id[ID_ROOM]) {
    char target[sizeof SLOTS + ID_ROOM + 1];
    ssize_t length = readlinkat(app->folder, name, target, sizeof target - 1);
    if (length != (ssize_t)(sizeof SLOTS + ID_ROOM - 1) || strncmp(target, SLOTS "/", sizeof SLOTS) != 0)
        return false;
    target[length] = '\0';
    memcpy(id, target + sizeof SLOTS, ID_ROOM);
    return is_slot(id);
}

bool app_current(const struct app *app, char id[ID_ROOM]) { return read_link(app, CURRENT, id); }

bool app_is_confirmed(const struct app *app, const char *id) {
    return app->state.count && strcmp(app->state.slots[0], id) == 0;
}

bool app_lists(const struct app *app, const char *id) {
    for (size_t i = 0; i < app->state.count; i++)
        if (strcmp(app->state.slots[i], id) == 0)
            return true;
    return false;
}

int app_slot(const struct app *app, const char *id) {
    return app->slots < 0 ? -1 : openat(app->slots, id, OPEN_FOLDER);
}

char *app_slot_path(const struct app *app, const char *id) { return joined(joined(app->path, SLOTS), id); }

/* All names first: `each` may remove what it is called for. */
void app_each_slot(const struct app *app, void (*each)(const char *id, void *with), void *with) {
    char(*ids)[ID_ROOM] = NULL;
    size_t count = 0;
    int copy = app->slots < 0 ? -1 : openat(app->slots, ".", OPEN_FOLDER);
    DIR *dir = copy < 0 ? NULL : fdopendir(copy);
    for (struct dirent *entry; dir && (entry = readdir(dir));) {
        struct stat info;
        if (!is_slot(entry->d_name) || fstatat(app->slots, entry->d_name, &info, AT_SYMLINK_NOFOLLOW) != 0 ||
            !S_ISDIR(info.st_mode))
            continue;
        ids = reallocate(ids, count + 1, sizeof *ids);
        memcpy(ids[count++], entry->d_name, ID_ROOM);
    }
    if (dir)
        closedir(dir);
    for (size_t i = 0; i < count; i++)
        each(ids[i], with);
    free(ids);
}

static void note(const char *id, void *with) {
    (void)id;
    *(bool *)with = true;
}

/* Written before there is any slot: from then on a line that is missing was lost. */
static void load_missing(struct app *app) {
    bool any = false;
    char id[ID_ROOM];
    app_each_slot(app, note, &any);
    if (any || app_current(app, id))
        fail(EXIT_INPUT, "%s/" STATE_FILE ": missing, though there are slots: nothing is changed here before it is back",
             app->path);
}

void app_load(struct app *app) {
    char text[STATE_ROOM + 1];
    int file = openat(app->folder, STATE_FILE, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (file < 0 && errno == ENOENT) {
        load_missing(app);
        return;
    }
    ssize_t size = file < 0 ? -1 : read(file, text, sizeof text);
    if (size < 0)
        fail(EXIT_IO, "%s/" STATE_FILE ": %s", app->path, strerror(errno));
    close(file);
    const char *reason = state_parse(text, (size_t)size, &app->state);
    if (reason)
        fail(EXIT_INPUT, "%s/" STATE_FILE ": damaged, %s: nothing is changed here before it is restored", app->path,
             reason);
}

static void save(struct app *app, const struct state *state) {
    char text[STATE_ROOM];
    durable_file(app->folder, STATE_FILE, (struct bytes){text, state_text(state, text)}, joined(app->path, STATE_FILE));
    app->state = *state;
}

static char *slot_target(const char *id) { return joined(SLOTS, id); }

static void point(const struct app *app, const char *id) {
    durable_link(app->folder, CURRENT, slot_target(id), joined(app->path, CURRENT));
}

static bool is_there(int folder, const char *name) {
    struct stat info;
    return fstatat(folder, name, &info, AT_SYMLINK_NOFOLLOW) == 0;
}

static bool leads_to_confirmed(const struct app *app, const char *link) {
    char id[ID_ROOM];
    return read_link(app, link, id) && app_is_confirmed(app, id);
}

/* What only the way back needs; where it is left behind it does no harm. */
static void drop_spares(const struct app *app) {
    unlinkat(app->folder, BACK, 0);
    unlinkat(app->folder, SPARE, 0);
}

void app_recover(struct app *app) {
    bool right = !app->state.count || leads_to_confirmed(app, CURRENT);
    app->took_back = *app->state.trial;
    app->recovered = app->took_back || !right || is_there(app->folder, STAGING);
    remove_tree(app->folder, STAGING);
    if (app->slots >= 0)
        close(app->slots);
    app->slots = durable_folder(app->folder, SLOTS, joined(app->path, SLOTS));
    if (app->took_back || !right)
        app_take_back(app);
    else if (!is_there(app->folder, STATE_FILE))
        save(app, &app->state);
    drop_spares(app);
    app_prune(app);
    app->recovered |= app->removed.count;
    app->removed.count = 0; /* they were no slots that counted */
}

static void make_spares(const struct app *app) {
    char text[STATE_ROOM];
    struct bytes line = {text, state_text(&app->state, text)};
    if (app->state.count)
        durable_spare_link(app->folder, BACK, slot_target(app->state.slots[0]), joined(app->path, BACK));
    durable_spare(app->folder, SPARE, line, joined(app->path, SPARE));
}

void app_try(struct app *app, const char *id) {
    struct state state = app->state;
    make_spares(app);
    memcpy(state.trial, id, ID_ROOM);
    save(app, &state);
}

void app_switch(struct app *app) { point(app, app->state.trial); }

static void point_back(const struct app *app) {
    const char *shown = joined(app->path, CURRENT);
    if (!app->state.count)
        durable_unlink(app->folder, CURRENT, shown);
    else if (leads_to_confirmed(app, BACK))
        durable_take(app->folder, BACK, CURRENT, shown);
    else if (!leads_to_confirmed(app, CURRENT))
        point(app, app->state.slots[0]);
    else if (!sync_folder(app->folder)) /* who pointed it back may have been killed before it was */
        fail(EXIT_IO, "%s: %s", shown, strerror(errno));
}

/* With nothing on trial; without room on the disk, too. */
static void save_back(struct app *app) {
    char text[STATE_ROOM];
    struct state state = app->state;
    *state.trial = '\0';
    struct bytes line = {text, state_text(&state, text)};
    if (durable_refill(app->folder, SPARE, STATE_FILE, line))
        app->state = state;
    else
        save(app, &state);
}

/* The slot on trial, which may be what has filled the disk, is removed before anything is made. */
void app_take_back(struct app *app) {
    point_back(app);
    if (*app->state.trial && !app_lists(app, app->state.trial))
        remove_tree(app->slots, app->state.trial);
    save_back(app);
    drop_spares(app);
    app_prune(app);
}

void app_confirm(struct app *app, uint64_t counter, size_t keep) {
    struct state state = {.counter = counter > app->state.counter ? counter : app->state.counter, .count = 1};
    memcpy(state.slots[0], app->state.trial, ID_ROOM);
    for (size_t i = 0; i < app->state.count && state.count < keep; i++)
        if (strcmp(app->state.slots[i], app->state.trial) != 0)
            memcpy(state.slots[state.count++], app->state.slots[i], ID_ROOM);
    save(app, &state);
    drop_spares(app);
}

void app_cut(struct app *app, const char *id, size_t keep) {
    const struct state all = app->state;
    size_t others = 0;
    app->state.count = 0;
    for (size_t i = 0; i < all.count; i++) {
        bool other = strcmp(all.slots[i], id) != 0;
        if (i > 0 && (!other || others + 1 >= keep))
            continue;
        memcpy(app->state.slots[app->state.count++], all.slots[i], ID_ROOM);
        others += other;
    }
}

void app_save(struct app *app) { save(app, &app->state); }

struct spare {
    const struct app *app;
    uint64_t bytes;
};

static void add_unlisted(const char *id, void *with) {
    struct spare *spare = with;
    if (!app_lists(spare->app, id))
        spare->bytes += tree_bytes(spare->app->slots, id);
}

uint64_t app_spare_bytes(const struct app *app) {
    struct spare spare = {app, app->folder < 0 ? 0 : tree_bytes(app->folder, STAGING)};
    app_each_slot(app, add_unlisted, &spare);
    return spare.bytes;
}

static void remove_unlisted(const char *id, void *with) {
    struct app *app = with;
    if (app_lists(app, id) || strcmp(app->state.trial, id) == 0)
        return;
    remove_tree(app->slots, id);
    if (!is_there(app->slots, id) && app->removed.count < MOST_SLOTS)
        memcpy(app->removed.slots[app->removed.count++], id, ID_ROOM);
}

void app_prune(struct app *app) { app_each_slot(app, remove_unlisted, app); }
