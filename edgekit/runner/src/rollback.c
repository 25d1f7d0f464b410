/* `ekrun rollback`: to the slot that was confirmed before, or to another one that was kept; proved like a new one. */
#include <inttypes.h>
#include <string.h>

#include "requires.h"
#include "stop.h"
#include "trial.h"
#include "verbs.h"

/* What was to be left was a trial that was cut short, and recovery has left it already. */
static bool returned(const struct app *app, const struct options *options) {
    return !options->to && app->took_back && app->state.count;
}

static const char *choose(const struct app *app, const struct options *options) {
    if (options->to && !app_lists(app, options->to))
        fail(EXIT_INPUT, "--to %s: no slot of %s that was confirmed and kept", options->to, options->application);
    if (options->to)
        return options->to;
    if (returned(app, options))
        return app->state.slots[0];
    if (app->state.count < 2)
        fail(EXIT_INPUT, "%s: there is no earlier slot to go back to", options->application);
    return app->state.slots[1];
}

static void load_slot(const struct app *app, const struct device *device, const char *id, const struct options *options,
                      struct bundle *bundle) {
    struct failure failure;
    if (!slot_is_whole(app, device, id, options->allow_unsigned, OTHERS_REMOVED, bundle, &failure))
        fail(failure.code, "%s", failure.message);
    if (bundle->counter < app->state.counter && !options->allow_downgrade && !returned(app, options))
        fail(EXIT_REFUSED,
             "%s %s: its security counter is %" PRIu64 ", this device has confirmed %" PRIu64
             "; --allow-downgrade goes back all the same",
             bundle->application, bundle->version, bundle->counter, app->state.counter);
    check_requires(bundle);
}

static void answer(const struct trial *trial) {
    struct json j;
    json_open(&j);
    json_begin(&j, NULL, '{');
    write_trial(trial, "rollback", &j);
    json_end(&j, '}');
    json_print(&j);
}

void rollback(const struct options *options) {
    struct device device;
    struct bundle bundle;
    struct app app;
    struct trial trial = {.app = &app, .device = &device, .options = options, .bundle = &bundle};
    stop_on_signals();
    device_open(&device, options, false);
    if (!is_application(options->application) || !app_open(&app, &device, options->application))
        fail(EXIT_INPUT, "%s: no such application in %s", options->application, device.path);
    device_trust(&device, options, true);
    app_lock(&app);
    app_load(&app);
    app_recover(&app);
    load_slot(&app, &device, choose(&app, options), options, &bundle);
    prove(&trial);
    trial.changed = returned(&app, options);
    if (!app_is_confirmed(&app, bundle.manifest_sha256))
        switch_to(&trial, MOST_SLOTS);
    answer(&trial);
}
