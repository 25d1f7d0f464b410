#define _GNU_SOURCE
#include "device.h"

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
#include "json.h"
#include "lock.h"
#include "source.h"
#include "state.h"
#include "verbs.h"

#define TRUST_FILE "trust"
#define TRUST_SHOWN "ROOT/" TRUST_FILE
#define TRUST_LOCK ".trust.lock"
#define LOCK_MS 10000

char *joined(const char *first, const char *second) {
    size_t size = strlen(first) + 1 + strlen(second) + 1;
    char *text = allocate(size, 1);
    snprintf(text, size, "%s/%s", first, second);
    return text;
}

static const char *default_root(void) {
    const char *home = getenv("HOME");
    if (geteuid() == 0)
        return "/var/lib/edgekit";
    if (!home || home[0] != '/')
        fail(EXIT_USAGE, "--root is required: there is no HOME");
    return joined(home, ".local/share/edgekit");
}

/* Makes the folder `path`, whose parent is there. */
static void make_one(const char *path) {
    const char *slash = strrchr(path, '/');
    char *above = slash == path ? strdup("/") : slash ? strndup(path, (size_t)(slash - path)) : strdup(".");
    int parent = above ? open(above, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    if (parent < 0)
        fail(EXIT_USAGE, "--root %s: its folder is not there: %s", path, strerror(errno));
    close(durable_folder(parent, slash ? slash + 1 : path, path));
    close(parent);
    free(above);
}

static void make_all(char *path) {
    for (char *slash = path; (slash = strchr(slash + 1, '/'));) {
        *slash = '\0';
        if (access(path, F_OK) != 0)
            make_one(path);
        *slash = '/';
    }
    make_one(path);
}

/* Without slashes at its end. */
static char *trimmed(const char *path) {
    size_t length = strlen(path);
    while (length > 1 && path[length - 1] == '/')
        length--;
    char *text = allocate(length + 1, 1);
    memcpy(text, path, length);
    if (length == 0)
        fail(EXIT_USAGE, "--root is empty");
    return text;
}

void device_open(struct device *device, const struct options *options, bool make) {
    char *path = trimmed(options->root ? options->root : default_root());
    *device = (struct device){.path = path, .trust = {"", 0}};
    umask(022);
    if (make && access(path, F_OK) != 0) {
        if (options->root)
            make_one(path);
        else
            make_all(path);
    }
    device->root = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (device->root < 0 && (make || errno != ENOENT))
        fail(EXIT_IO, "%s: %s", path, strerror(errno));
    if (device->root >= 0 && !(device->path = realpath(path, NULL)))
        fail(EXIT_IO, "%s: %s", path, strerror(errno));
}

/* Or -1 where there is none. Anything else that keeps it from being opened is an error: who governs is not known. */
static int open_trust(int root) {
    struct stat info;
    int file = openat(root, TRUST_FILE, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (file >= 0)
        return file;
    bool none = errno == ENOENT && fstatat(root, TRUST_FILE, &info, AT_SYMLINK_NOFOLLOW) != 0 && errno == ENOENT;
    if (!none)
        fail(EXIT_IO, TRUST_SHOWN ": cannot be read: %s", strerror(errno ? errno : ENOENT));
    return -1;
}

bool device_own_trust(const struct device *device, struct bytes *trust) {
    *trust = (struct bytes){"", 0};
    int file = device->root < 0 ? -1 : open_trust(device->root);
    if (file < 0)
        return false;
    *trust = source_load_open(file, TRUST_SHOWN, TRUST_MAX_BYTES);
    trust_check(trust->at, trust->size);
    return true;
}

static struct bytes given_trust(const char *path) {
    struct bytes text = source_load(AT_FDCWD, path, path, TRUST_MAX_BYTES);
    trust_check(text.at, text.size);
    return text;
}

static bool same(struct bytes one, struct bytes other) {
    return one.size == other.size && memcmp(one.at, other.at, one.size) == 0;
}

/* One process at a time writes it. */
static int lock_trust(const struct device *device) {
    int lock = lock_file(device->root, TRUST_LOCK, O_RDWR | O_CREAT, LOCK_EX, LOCK_MS);
    if (lock < 0)
        fail(errno == EWOULDBLOCK ? EXIT_BUSY : EXIT_IO, "%s/" TRUST_LOCK ": %s", device->path,
             errno == EWOULDBLOCK ? "another process is writing the trust file" : strerror(errno));
    return lock;
}

static void write_trust(const struct device *device, struct bytes text) {
    durable_file(device->root, TRUST_FILE, text, TRUST_SHOWN);
}

void device_trust(struct device *device, const struct options *options, bool make) {
    bool own = device_own_trust(device, &device->trust);
    if (!options->trust) {
        if (!own && !options->allow_unsigned)
            fail(EXIT_USAGE, "--trust is required: %s has no trust file", device->path);
        return;
    }
    struct bytes given = given_trust(options->trust);
    int lock = !own && make ? lock_trust(device) : -1;
    own = lock < 0 ? own : device_own_trust(device, &device->trust); /* another one may have been first */
    if (own && !same(given, device->trust))
        fail(EXIT_USAGE, "--trust %s: the device has a trust file of its own, another one; 'ekrun trust' replaces it",
             options->trust);
    if (!own && make)
        write_trust(device, given);
    if (lock >= 0)
        close(lock);
    device->trust = given;
}

struct bundle device_bundle(const struct device *device, bool allow_unsigned) {
    return (struct bundle){.trust = device->trust, .allow_unsigned = allow_unsigned};
}

void trust(const struct options *options) {
    struct device device;
    struct json j;
    struct bytes given = given_trust(options->trust);
    device_open(&device, options, true);
    lock_trust(&device);
    write_trust(&device, given);
    json_open(&j);
    json_begin(&j, NULL, '{');
    json_int(&j, "protocol", EKRUN_PROTOCOL);
    json_string(&j, "verb", "trust");
    json_string(&j, "root", device.path);
    json_end(&j, '}');
    json_print(&j);
}
