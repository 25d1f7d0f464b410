/* Bundles (docs/bundle-format.md): what bundle.zig does, and what it asks of C.
 *
 * - bundle.zig decides what is believed: it reads, compares, hashes, expands, and names no file;
 * - C opens, makes and syncs files, and never looks into them;
 * - what is refused ends the process with EXIT_REFUSED.
 */
#ifndef EKRUN_BUNDLE_H
#define EKRUN_BUNDLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MANIFEST_FILE "manifest.json"
#define SIGNATURE_FILE "manifest.sig"
#define MANIFEST_MAX_BYTES (1 << 20)
#define SIGNATURE_MAX_BYTES 202
#define TRUST_MAX_BYTES (64 << 10)

struct bytes {
    const void *at;
    size_t size;
};

/* As `Bundle` in bundle.zig. Texts are terminated. */
struct bundle {
    struct bytes trust; /* of the trust file; no bytes: no key is trusted */
    bool allow_unsigned;
    struct bytes manifest, signature; /* the two files as they are */
    const void *believed; /* bundle.zig's */
    size_t files, isa; /* how many */
    uint64_t counter;
    uint64_t size; /* bytes of all files, unpacked */
    uint64_t read; /* bytes of the container so far */
    char application[65], version[65], arch[65], glibc[65], libstdcxx[65];
    char signer[65]; /* the key's name in the trust file; empty for an unsigned bundle */
    char manifest_sha256[65];
};

struct bundle_file {
    char path[97];
    uint32_t mode;
    uint64_t size, stored_size;
    char stored_sha256[65];
};

/* The source is a container: manifest and signature are read and believed, then each file in order, then the end. */
void bundle_open(struct bundle *bundle);
void bundle_unpack_file(struct bundle *bundle, size_t index);
void bundle_close(struct bundle *bundle);

/* Believes `manifest` by `signature`, which were read from a folder. */
void bundle_believe(struct bundle *bundle);

/* The source is file `index`: its stored bytes, to be expanded and written, or itself, to be hashed, and written where
 * `copying`. */
void bundle_expand_file(const struct bundle *bundle, size_t index);
void bundle_read_file(const struct bundle *bundle, size_t index, bool copying);

/* What the manifest that is believed says of file `index`; which file of another bundle has the same bytes, if any; the
 * CPU feature `index` that it asks for; whether it has `path` as a file, or as a folder. */
void bundle_file(const struct bundle *bundle, size_t index, struct bundle_file *file);
bool bundle_find(const struct bundle *bundle, size_t index, const struct bundle *other, struct bundle_file *file);
const char *bundle_isa(const struct bundle *bundle, size_t index);
bool bundle_has(const struct bundle *bundle, const char *path, bool folder);

/* In bundle.c: what is refused from here on is named by `place`. */
void bundle_place(const char *place);
/* All of a container, whose head has been read, and manifest and signature, into the staging folder. */
void bundle_unpack_all(struct bundle *bundle);
void bundle_put_head(const struct bundle *bundle);
/* Reads and believes manifest and signature of an unpacked bundle; all of its files, and that there are no others, or
 * with them removed first, or whatever else is there. */
enum others { OTHERS_REFUSED, OTHERS_REMOVED, OTHERS_IGNORED };
void bundle_load(struct bundle *bundle, int folder);
void bundle_verify(const struct bundle *bundle, int folder, enum others others);

/* For bundle.zig, in source.c: the next bytes of the source, 0 at its end. Fails with EXIT_IO. */
size_t bundle_read(void *bytes, size_t size);
/* In staging.c: to the file that is open there. Fails with EXIT_IO. */
void bundle_write(const void *bytes, size_t size);
/* In bundle.c: fails with EXIT_REFUSED, or EXIT_INPUT for what is no part of a bundle. */
_Noreturn void bundle_refuse(const char *text, bool is_bundle);

#endif
