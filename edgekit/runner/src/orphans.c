#define _GNU_SOURCE
#include "orphans.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "proc.h"

#define LIMIT_NS INT64_C(1000000000)
#define LOOK_MS 5
#define MOST_KNOWN 64

static pid_t known[MOST_KNOWN];
static int known_count;

/* Of the process whose number is the text `number`; -1 where it is gone. */
static pid_t parent_of(const char *number) {
    char path[64], text[512];
    int parent = -1;
    snprintf(path, sizeof path, "/proc/%.32s/stat", number);
    int file = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t size = file < 0 ? -1 : read(file, text, sizeof text - 1);
    if (file >= 0)
        close(file);
    if (size <= 0)
        return -1;
    text[size] = '\0';
    const char *end = strrchr(text, ')'); /* of the name, which may hold anything */
    return end && sscanf(end + 1, " %*c %d", &parent) == 1 ? parent : -1;
}

/* A /proc of another process namespace has other numbers. */
static bool is_our_proc(void) {
    char text[32] = {0};
    return readlink("/proc/self", text, sizeof text - 1) > 0 && atoi(text) == getpid();
}

static int each_child(bool (*each)(pid_t)) {
    DIR *proc = is_our_proc() ? opendir("/proc") : NULL;
    int count = 0;
    for (struct dirent *entry; proc && (entry = readdir(proc));) {
        pid_t pid = atoi(entry->d_name);
        if (pid > 0 && parent_of(entry->d_name) == getpid())
            count += each(pid);
    }
    if (proc)
        closedir(proc);
    return count;
}

static bool know(pid_t pid) {
    if (known_count < MOST_KNOWN)
        known[known_count++] = pid;
    return true;
}

static bool kill_unknown(pid_t pid) {
    for (int i = 0; i < known_count; i++)
        if (known[i] == pid)
            return false;
    kill(pid, SIGKILL);
    waitpid(pid, NULL, WNOHANG);
    return true;
}

void orphans_begin(void) {
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    known_count = 0;
    each_child(know);
}

void orphans_end(void) {
    for (int64_t deadline = now_ns() + LIMIT_NS; each_child(kill_unknown) && now_ns() < deadline;)
        poll(NULL, 0, LOOK_MS);
}
