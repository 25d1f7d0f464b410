/* `ekrun unpack` and `ekrun verify`: a bundle into a folder, and an unpacked one read again. */
#define _GNU_SOURCE
#include "bundle.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "durable.h"
#include "fail.h"
#include "json.h"
#include "source.h"
#include "staging.h"
#include "stop.h"
#include "verbs.h"

#define DEEPEST 8

static const char *place = "-"; /* the bundle, or the folder, as asked */

_Noreturn void bundle_refuse(const char *text, bool is_bundle) {
    if (is_bundle)
        fail(EXIT_REFUSED, "%s: %s", place, text);
    fail(EXIT_INPUT, "%s", text);
}

void bundle_place(const char *shown) { place = shown; }

static void begin(struct bundle *bundle, const struct options *options) {
    bundle_place(options->bundle ? options->bundle : options->dir);
    *bundle = (struct bundle){.allow_unsigned = options->allow_unsigned};
    bundle->trust = (struct bytes){"", 0};
    if (options->trust)
        bundle->trust = source_load(AT_FDCWD, options->trust, options->trust, TRUST_MAX_BYTES);
}

static void answer(const struct bundle *bundle, const char *verb) {
    struct json j;
    json_open(&j);
    json_begin(&j, NULL, '{');
    json_int(&j, "protocol", EKRUN_PROTOCOL);
    json_string(&j, "verb", verb);
    json_string(&j, "application", bundle->application);
    json_string(&j, "version", bundle->version);
    json_int(&j, "counter", (int64_t)bundle->counter);
    json_string(&j, "manifest_sha256", bundle->manifest_sha256);
    json_string(&j, "signer", *bundle->signer ? bundle->signer : NULL);
    json_begin(&j, "requires", '{');
    json_string(&j, "arch", bundle->arch);
    json_string(&j, "glibc", bundle->glibc);
    json_begin(&j, "isa", '[');
    for (size_t i = 0; i < bundle->isa; i++)
        json_string(&j, NULL, bundle_isa(bundle, i));
    json_end(&j, ']');
    json_string(&j, "libstdcxx", *bundle->libstdcxx ? bundle->libstdcxx : NULL);
    json_end(&j, '}');
    json_int(&j, "files", (int64_t)bundle->files);
    json_int(&j, "bytes", (int64_t)bundle->size);
    json_count(&j, "bundle_bytes", bundle->read ? (int64_t)bundle->read : -1);
    json_end(&j, '}');
    json_print(&j);
}

static void put(const char *path, struct bytes bytes) {
    staging_file(path, 0644);
    bundle_write(bytes.at, bytes.size);
    staging_end_file();
}

void bundle_put_head(const struct bundle *bundle) {
    put(MANIFEST_FILE, bundle->manifest);
    put(SIGNATURE_FILE, bundle->signature);
}

void bundle_unpack_all(struct bundle *bundle) {
    for (size_t i = 0; i < bundle->files; i++) {
        struct bundle_file file;
        bundle_file(bundle, i, &file);
        staging_file(file.path, file.mode);
        bundle_unpack_file(bundle, i);
        staging_end_file();
    }
    bundle_close(bundle);
    bundle_put_head(bundle);
}

void unpack(const struct options *options) {
    struct bundle bundle;
    begin(&bundle, options);
    stop_on_signals();
    source_open(AT_FDCWD, options->bundle, options->bundle, ANY_MODE);
    bundle_open(&bundle);
    staging_open(options->dir);
    bundle_unpack_all(&bundle);
    staging_sync();
    stop_if_asked();
    stop_no_more();
    staging_place(false);
    answer(&bundle, "unpack");
}

static void check_others(const struct bundle *bundle, int folder, const char *path, int depth, bool removing);

/* An entry of the folder `path`; whether it was removed. */
static bool check_entry(const struct bundle *bundle, int folder, const char *path, const char *entry, int depth,
                        bool removing) {
    char below[4096];
    bool fits = snprintf(below, sizeof below - 1, "%s%s", path, entry) < (int)sizeof below - 1;
    if (fits && bundle_has(bundle, below, false))
        return false;
    bool is_folder = fits && depth < DEEPEST && bundle_has(bundle, below, true);
    int next = is_folder ? openat(folder, entry, OPEN_FOLDER) : -1;
    if (next < 0 && !removing)
        fail(EXIT_REFUSED, "%s: not a part of the bundle", below);
    if (next < 0) {
        remove_tree(folder, entry);
        return true;
    }
    strcat(below, "/");
    check_others(bundle, next, below, depth + 1, removing);
    return false;
}

/* Refuses, or removes, what the manifest does not name. `path` is the folder's, "" or ending with a slash. */
static void check_others(const struct bundle *bundle, int folder, const char *path, int depth, bool removing) {
    DIR *dir = fdopendir(folder); /* which closes it */
    bool removed = false;
    if (!dir)
        fail(EXIT_IO, "%s: %s", path, strerror(errno));
    for (struct dirent *entry; (entry = readdir(dir));)
        if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
            removed |= check_entry(bundle, dirfd(dir), path, entry->d_name, depth, removing);
    if (removed && !sync_folder(dirfd(dir))) /* a power cut does not bring it back */
        fail(EXIT_IO, "%s: %s", path, strerror(errno));
    closedir(dir);
}

static void verify_files(const struct bundle *bundle, int folder) {
    for (size_t i = 0; i < bundle->files; i++) {
        struct bundle_file file;
        bundle_file(bundle, i, &file);
        source_open(folder, file.path, file.path, (int)file.mode);
        bundle_read_file(bundle, i, false);
        source_close();
    }
}

void bundle_load(struct bundle *bundle, int folder) {
    bundle->manifest = source_load(folder, MANIFEST_FILE, MANIFEST_FILE, MANIFEST_MAX_BYTES);
    bundle->signature = source_load(folder, SIGNATURE_FILE, SIGNATURE_FILE, SIGNATURE_MAX_BYTES);
    bundle_believe(bundle);
}

void bundle_verify(const struct bundle *bundle, int folder, enum others others) {
    if (others == OTHERS_REMOVED)
        check_others(bundle, openat(folder, ".", OPEN_FOLDER), "", 0, true);
    verify_files(bundle, folder);
    if (others != OTHERS_IGNORED)
        check_others(bundle, openat(folder, ".", OPEN_FOLDER), "", 0, false);
}

void verify(const struct options *options) {
    struct bundle bundle;
    begin(&bundle, options);
    int folder = open(options->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder < 0)
        fail(EXIT_INPUT, "%s: %s", options->dir, strerror(errno));
    bundle_load(&bundle, folder);
    bundle_verify(&bundle, folder, OTHERS_REFUSED);
    answer(&bundle, "verify");
}
