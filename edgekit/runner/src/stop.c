#define _GNU_SOURCE
#include "stop.h"

#include <signal.h>
#include <stddef.h>
#include <unistd.h>

#include "fail.h"

static const int SIGNALS[] = {SIGINT, SIGTERM, SIGHUP};
#define SIGNAL_COUNT (sizeof SIGNALS / sizeof *SIGNALS)

static volatile sig_atomic_t asked;
static bool failing;

static void note(int number) { asked = number; }

/* A signal that the caller ignores, as nohup does, stays ignored. */
void stop_on_signals(void) {
    const struct sigaction action = {.sa_handler = note};
    struct sigaction before;
    for (size_t i = 0; i < SIGNAL_COUNT; i++)
        if (sigaction(SIGNALS[i], NULL, &before) == 0 && before.sa_handler != SIG_IGN)
            sigaction(SIGNALS[i], &action, NULL);
}

bool stop_asked(void) { return asked != 0; }

/* The first process of a container does not die by a signal: it ends as a shell would say that it had. */
static _Noreturn void die(int number) {
    run_cleanup();
    signal(number, SIG_DFL);
    raise(number);
    _exit(128 + number);
}

void stop_if_asked(void) {
    if (asked && failing)
        fail(EXIT_REFUSED, "stopped");
    if (asked)
        die(asked);
}

void stop_by_failing(bool fails) { failing = fails; }

void stop_no_more(void) {
    for (size_t i = 0; i < SIGNAL_COUNT; i++)
        signal(SIGNALS[i], SIG_IGN);
}
