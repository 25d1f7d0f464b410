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

/* The children of one thread, as kernels with CONFIG_PROC_CHILDREN list them; -1 where this one does not. */
static int each_child_of(const char *thread, bool (*each)(pid_t)) {
    char path[64];
    int pid, count = 0;
    snprintf(path, sizeof path, "/proc/self/task/%.32s/children", thread);
    FILE *list = fopen(path, "re");
    if (!list)
        return -1;
    while (fscanf(list, "%d", &pid) == 1)
        count += each(pid);
    fclose(list);
    return count;
}

static int each_listed_child(bool (*each)(pid_t)) {
    DIR *threads = opendir("/proc/self/task");
    int count = threads ? 0 : -1;
    for (struct dirent *entry; count >= 0 && (entry = readdir(threads));)
        if (atoi(entry->d_name) > 0) {
            int more = each_child_of(entry->d_name, each);
            count = more < 0 ? -1 : count + more;
        }
    if (threads)
        closedir(threads);
    return count;
}

/* What every kernel has: all processes, and whose child each is. */
static int each_child_of_all(bool (*each)(pid_t)) {
    DIR *proc = opendir("/proc");
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

static int each_child(bool (*each)(pid_t)) {
    if (!is_our_proc())
        return 0;
    int count = each_listed_child(each);
    return count < 0 ? each_child_of_all(each) : count;
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
