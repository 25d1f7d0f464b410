#define _GNU_SOURCE
#include "tether.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include "fail.h"

/* A pthread needs room for the thread-local data of every library; it is address space, hardly touched. */
#define STACK_BYTES (256 << 10)

static int threads;

/* No answer: whoever would read it is gone. Files are removed as far as another thread does not go on making them; no
 * process left matters more. */
static _Noreturn void end(void) {
    run_cleanup();
    _exit(EXIT_LINK);
}

static void *read_to_the_end(void *unused) {
    char dropped[256];
    for (ssize_t n; (n = read(STDIN_FILENO, dropped, sizeof dropped)) != 0;)
        if (n < 0 && errno != EINTR && errno != EAGAIN)
            break;
        else if (n < 0 && errno == EAGAIN) /* someone else's O_NONBLOCK */
            poll(&(struct pollfd){.fd = STDIN_FILENO, .events = POLLIN}, 1, -1);
    end();
    return unused;
}

/* A hang-up is reported without being asked for. */
static void *wait_for_hang_up(void *unused) {
    struct pollfd link = {.fd = STDIN_FILENO, .events = POLLRDHUP};
    while (poll(&link, 1, -1) < 1)
        ;
    end();
    return unused;
}

/* Signals are for the main thread. */
static int start(void *(*body)(void *)) {
    sigset_t all, before;
    pthread_t thread;
    pthread_attr_t attributes;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK_BYTES);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    int error = pthread_create(&thread, &attributes, body, NULL);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return error;
}

void tether(bool stdin_has_commands) {
    if (start(stdin_has_commands ? wait_for_hang_up : read_to_the_end) != 0)
        fail(EXIT_MEMORY, "no thread to watch stdin with");
    threads = 1;
}

int tether_threads(void) { return threads; }
