/* ROOT: the folder where bundles live on a device, and its trust file (docs/device-layout.md). */
#ifndef EKRUN_DEVICE_H
#define EKRUN_DEVICE_H

#include "args.h"
#include "bundle.h"

struct device {
    const char *path; /* ROOT, absolute as soon as it is there */
    int root;         /* -1: it is not there */
    struct bytes trust;
};

/* Opens ROOT, and makes it where `make`. Fails with EXIT_USAGE where it cannot be, with EXIT_IO. */
void device_open(struct device *device, const struct options *options, bool make);

/* Decides which trust file governs; where `make`, --trust becomes the device's own. Fails with EXIT_USAGE or
 * EXIT_INPUT. */
void device_trust(struct device *device, const struct options *options, bool make);

/* Reads the device's own trust file; false, and no bytes, where it has none. Fails with EXIT_IO where it cannot be told
 * whether it has, and with EXIT_INPUT. */
bool device_own_trust(const struct device *device, struct bytes *trust);

/* What is refused by which rules is the device's to say: a bundle that nothing is known of yet. */
struct bundle device_bundle(const struct device *device, bool allow_unsigned);

/* `first/second`, never freed. */
char *joined(const char *first, const char *second);

#endif
