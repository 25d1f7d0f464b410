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
    uint64_t size;
};

/* The source is a container: manifest and signature are read and believed, then each file in order, then the end. */
void bundle_open(struct bundle *bundle);
void bundle_unpack_file(struct bundle *bundle, size_t index);
void bundle_close(struct bundle *bundle);

/* Believes `manifest` by `signature`, which were read from a folder. */
void bundle_believe(struct bundle *bundle);

/* The source is file `index`, unpacked. */
void bundle_verify_file(size_t index);

/* What the manifest that is believed says of file `index`; the CPU feature `index` that it asks for; whether it has
 * `path` as a file, or as a folder. */
void bundle_file(size_t index, struct bundle_file *file);
const char *bundle_isa(size_t index);
bool bundle_has(const char *path, bool folder);

/* For bundle.zig, in source.c: the next bytes of the source, 0 at its end. Fails with EXIT_IO. */
size_t bundle_read(void *bytes, size_t size);
/* In staging.c: to the file that is open there. Fails with EXIT_IO. */
void bundle_write(const void *bytes, size_t size);
/* In bundle.c: fails with EXIT_REFUSED, or EXIT_INPUT for what is no part of a bundle. */
_Noreturn void bundle_refuse(const char *text, bool is_bundle);

#endif
