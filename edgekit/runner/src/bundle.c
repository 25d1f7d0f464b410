/* `ekrun unpack` and `ekrun verify`: a bundle into a folder, and an unpacked one read again. */
#define _GNU_SOURCE
#include "bundle.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "fail.h"
#include "json.h"
#include "source.h"
#include "staging.h"
#include "stop.h"
#include "verbs.h"

#define DEEPEST 8
#define OPEN_FOLDER (O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)

static const char *place = "-"; /* the bundle, or the folder, as asked */

_Noreturn void bundle_refuse(const char *text, bool is_bundle) {
    if (is_bundle)
        fail(EXIT_REFUSED, "%s: %s", place, text);
    fail(EXIT_INPUT, "%s", text);
}

static void begin(struct bundle *bundle, const struct options *options) {
    place = options->bundle ? options->bundle : options->dir;
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
        json_string(&j, NULL, bundle_isa(i));
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

void unpack(const struct options *options) {
    struct bundle bundle;
    begin(&bundle, options);
    stop_on_signals();
    source_open(AT_FDCWD, options->bundle, options->bundle, 0);
    bundle_open(&bundle);
    staging_open(options->dir);
    for (size_t i = 0; i < bundle.files; i++) {
        struct bundle_file file;
        bundle_file(i, &file);
        staging_file(file.path, file.mode);
        bundle_unpack_file(&bundle, i);
        staging_end_file();
    }
    bundle_close(&bundle);
    put(MANIFEST_FILE, bundle.manifest);
    put(SIGNATURE_FILE, bundle.signature);
    staging_commit();
    answer(&bundle, "unpack");
}

/* Refuses what the manifest does not name. `path` is the folder's, "" or ending with a slash. */
static void refuse_others(int folder, const char *path, int depth) {
    DIR *dir = fdopendir(folder); /* which closes it */
    if (!dir)
        fail(EXIT_IO, "%s: %s", path, strerror(errno));
    for (struct dirent *entry; (entry = readdir(dir));) {
        char below[4096];
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        bool fits = snprintf(below, sizeof below - 1, "%s%s", path, entry->d_name) < (int)sizeof below - 1;
        if (fits && bundle_has(below, false))
            continue;
        bool is_folder = fits && depth < DEEPEST && bundle_has(below, true);
        int next = is_folder ? openat(dirfd(dir), entry->d_name, OPEN_FOLDER) : -1;
        if (next < 0)
            fail(EXIT_REFUSED, "%s: not a part of the bundle", below);
        strcat(below, "/");
        refuse_others(next, below, depth + 1);
    }
    closedir(dir);
}

static void verify_files(const struct bundle *bundle, int folder) {
    for (size_t i = 0; i < bundle->files; i++) {
        struct bundle_file file;
        bundle_file(i, &file);
        source_open(folder, file.path, file.path, (int)file.mode);
        bundle_verify_file(i);
        source_close();
    }
}

void verify(const struct options *options) {
    struct bundle bundle;
    begin(&bundle, options);
    int folder = open(options->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder < 0)
        fail(EXIT_INPUT, "%s: %s", options->dir, strerror(errno));
    bundle.manifest = source_load(folder, MANIFEST_FILE, MANIFEST_FILE, MANIFEST_MAX_BYTES);
    bundle.signature = source_load(folder, SIGNATURE_FILE, SIGNATURE_FILE, SIGNATURE_MAX_BYTES);
    bundle_believe(&bundle);
    verify_files(&bundle, folder);
    refuse_others(folder, "", 0);
    answer(&bundle, "verify");
}
