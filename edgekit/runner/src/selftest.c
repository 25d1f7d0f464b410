#define _GNU_SOURCE
#include "selftest.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "device.h"
#include "fail.h"
#include "orphans.h"
#include "proc.h"
#include "state.h"
#include "stop.h"

#define OUTPUT_MAX (1 << 20)
#define TAIL_ROOM 1024
#define REASON_ROOM 300 /* of what it says on stderr */
#define LOOK_MS 20      /* between looks whether it has ended */
#define DEATH_NS INT64_C(5000000000)
#define READS_AT_ONCE 64
#ifndef SYS_close_range
#define SYS_close_range 436
#endif

struct child {
    pid_t pid;
    int out, err; /* what it prints; -1 once that has ended */
    char *text;
    size_t used;
    char tail[TAIL_ROOM + 1]; /* the last of what it prints on stderr */
    size_t tail_used;
    siginfo_t end;
};

/* The group that is killed when this process ends, by whatever thread; 0: none. */
static atomic_int group;

static void kill_group(void) {
    int pid = atomic_exchange(&group, 0);
    if (pid)
        kill(-pid, SIGKILL);
}

/* Another thread ends the process (tether.h): what this one sees of it is not how the check has ended. */
static atomic_bool ending;

static void kill_all(void) {
    atomic_store(&ending, true);
    kill_group();
    orphans_end();
}

/* The greatest number of an open descriptor. */
static int highest_descriptor(void) {
    int highest = 1023;
    DIR *dir = opendir("/proc/self/fd");
    for (struct dirent *entry; dir && (entry = readdir(dir));)
        if (atoi(entry->d_name) > highest)
            highest = atoi(entry->d_name);
    if (dir)
        closedir(dir);
    return highest;
}

/* Also those that this process was given by its caller. */
static void close_others(int highest) {
    if (syscall(SYS_close_range, 3U, ~0U, 0U) == 0)
        return;
    for (int fd = 3; fd <= highest; fd++)
        close(fd);
}

struct beginning {
    const char *program;
    char *const *argv;
    pid_t parent;
    int out, err, highest;
};

/* In the child: only what is safe after fork beside other threads. */
static _Noreturn void become(const struct beginning *b) {
    const struct rlimit none = {0, 0};
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    setpgid(0, 0);
    setrlimit(RLIMIT_CORE, &none);
    signal(SIGPIPE, SIG_DFL);
    signal(SIGXFSZ, SIG_DFL);
    bool ready = getppid() == b->parent && null >= 0 && dup2(null, STDIN_FILENO) >= 0 &&
                 dup2(b->err, STDERR_FILENO) >= 0 && dup2(b->out, STDOUT_FILENO) >= 0 && chdir("/") == 0;
    close_others(b->highest);
    if (ready)
        execv(b->program, b->argv);
    dprintf(STDOUT_FILENO, "{\"error\":{\"message\":\"it cannot be started: %s\"}}\n", strerror(errno));
    _exit(127);
}

static void make_pipe(int pipes[2]) {
    if (pipe2(pipes, O_CLOEXEC) != 0)
        fail(EXIT_IO, "no pipe for the check: %s", strerror(errno));
    fcntl(pipes[0], F_SETFL, O_NONBLOCK);
}

static void start(struct child *child, const char *folder) {
    int out[2], err[2];
    char *program = joined(folder, "bin/ekrun");
    char *const argv[] = {program, "check", (char *)folder, "--budget", NULL};
    make_pipe(out);
    make_pipe(err);
    child->text = allocate(OUTPUT_MAX, 1);
    signal(SIGCHLD, SIG_DFL); /* else, where the caller ignores it, nobody tells how the check has ended */
    orphans_begin();
    const struct beginning beginning = {program, argv, getpid(), out[1], err[1], highest_descriptor()};
    child->pid = fork();
    if (child->pid == 0)
        become(&beginning);
    close(out[1]);
    close(err[1]);
    if (child->pid < 0)
        fail(EXIT_MEMORY, "no process for the check: %s", strerror(errno));
    setpgid(child->pid, child->pid); /* the child does so too: whoever comes first */
    atomic_store(&group, child->pid);
    set_cleanup(kill_all);
    child->out = out[0];
    child->err = err[0];
    free(program);
}

/* At most `size` bytes; 0 where there are none for now, or no more at all. */
static size_t read_some(int *from, char *to, size_t size) {
    ssize_t n = *from < 0 ? 0 : read(*from, to, size);
    if (n > 0)
        return (size_t)n;
    if (*from >= 0 && (n == 0 || (errno != EINTR && errno != EAGAIN))) {
        close(*from);
        *from = -1;
    }
    return 0;
}

/* All of stdout, up to a limit, and of stderr the end. */
static void read_more(struct child *child) {
    char some[TAIL_ROOM];
    for (size_t n; child->used < OUTPUT_MAX;) {
        n = read_some(&child->out, child->text + child->used, OUTPUT_MAX - child->used);
        child->used += n;
        if (n == 0)
            break;
    }
    for (int i = 0; i < READS_AT_ONCE; i++) { /* it may write faster than this reads */
        size_t n = read_some(&child->err, some, sizeof some);
        size_t kept = child->tail_used < TAIL_ROOM - n ? child->tail_used : TAIL_ROOM - n;
        if (n == 0)
            break;
        memmove(child->tail, child->tail + child->tail_used - kept, kept);
        memcpy(child->tail + kept, some, n);
        child->tail_used = kept + n;
    }
}

/* Not reaped: its number, and so its group's, stays its own. */
static bool has_ended(struct child *child, const char **lost) {
    child->end.si_pid = 0;
    int result = waitid(P_PID, (id_t)child->pid, &child->end, WEXITED | WNOHANG | WNOWAIT);
    if (result != 0 && errno != EINTR)
        *lost = "how it has ended cannot be told";
    return result == 0 && child->end.si_pid;
}

/* NULL when it ended by itself, or why it was not waited for. */
static const char *watch(struct child *child, long seconds, char words[1024]) {
    int64_t deadline = now_ns() + seconds * INT64_C(1000000000);
    for (const char *lost = NULL;;) {
        bool ended = has_ended(child, &lost);
        read_more(child);
        if (lost) {
            atomic_store(&group, 0); /* its number may be another's by now */
            return lost;
        }
        if (child->used == OUTPUT_MAX)
            return "it prints without end";
        if (ended)
            return NULL;
        if (stop_asked())
            return "it was stopped";
        if (now_ns() >= deadline) {
            snprintf(words, 1024, "it has not ended after %ld s", seconds);
            return words;
        }
        struct pollfd ends[] = {{.fd = child->out, .events = POLLIN}, {.fd = child->err, .events = POLLIN}};
        poll(ends, 2, LOOK_MS);
    }
}

/* False where it is killed and does not die, as what waits for a device that hangs. */
static bool reap(const struct child *child) {
    for (int64_t deadline = now_ns() + DEATH_NS; now_ns() < deadline;) {
        pid_t pid = waitpid(child->pid, NULL, WNOHANG);
        if (pid == child->pid || (pid < 0 && errno != EINTR))
            return true;
        poll(NULL, 0, LOOK_MS / 4);
    }
    return false;
}

static bool end(struct child *child) {
    kill_group();
    bool died = reap(child);
    orphans_end();
    set_cleanup(NULL);
    if (child->out >= 0)
        close(child->out);
    if (child->err >= 0)
        close(child->err);
    return died;
}

/* The last line on stderr that is not empty, as far as it is printable. */
static void find_reason(struct child *child, char reason[512]) {
    char *end = child->tail + child->tail_used;
    while (end > child->tail && (end[-1] == '\n' || end[-1] == '\r'))
        end--;
    char *line = end;
    while (line > child->tail && line[-1] != '\n')
        line--;
    size_t used = 0;
    for (; line < end && used < REASON_ROOM; line++)
        if (*line >= 0x20 && *line < 0x7f)
            reason[used++] = *line;
    reason[used] = '\0';
}

static void describe(struct child *child, char words[1024]) {
    char reason[512];
    reply_words(child->text, child->used, reason);
    if (!*reason)
        find_reason(child, reason);
    const char *colon = *reason ? ": " : "";
    if (child->end.si_code == CLD_EXITED)
        snprintf(words, 1024, "exit code %d%s%s", child->end.si_status, colon, reason);
    else
        snprintf(words, 1024, "it died by signal %d, %s%s%s", child->end.si_status, strsignal(child->end.si_status),
                 colon, reason);
}

bool selftest(const char *folder, long seconds, char words[1024]) {
    struct child child = {.out = -1, .err = -1};
    start(&child, folder);
    const char *given_up = watch(&child, seconds, words);
    bool died = end(&child);
    while (atomic_load(&ending))
        pause();
    if (!died)
        given_up = "it is killed, and does not die";
    bool passed = !given_up && child.end.si_code == CLD_EXITED && child.end.si_status == 0;
    if (given_up && given_up != words)
        snprintf(words, 1024, "%s", given_up);
    else if (!given_up && !passed)
        describe(&child, words);
    free(child.text);
    return passed;
}
