#define _GNU_SOURCE
#include "stop.h"

#include <signal.h>
#include <stddef.h>

#include "fail.h"

static const int SIGNALS[] = {SIGINT, SIGTERM, SIGHUP};
#define SIGNAL_COUNT (sizeof SIGNALS / sizeof *SIGNALS)

static volatile sig_atomic_t asked;

static void note(int number) { asked = number; }

/* A signal that the caller ignores, as nohup does, stays ignored. */
void stop_on_signals(void) {
    const struct sigaction action = {.sa_handler = note};
    struct sigaction before;
    for (size_t i = 0; i < SIGNAL_COUNT; i++)
        if (sigaction(SIGNALS[i], NULL, &before) == 0 && before.sa_handler != SIG_IGN)
            sigaction(SIGNALS[i], &action, NULL);
}

void stop_if_asked(void) {
    if (!asked)
        return;
    run_cleanup();
    signal(asked, SIG_DFL);
    raise(asked);
}

void stop_no_more(void) {
    for (size_t i = 0; i < SIGNAL_COUNT; i++)
        signal(SIGNALS[i], SIG_IGN);
}
