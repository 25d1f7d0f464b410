/* `deployment.json` of an unpacked bundle: how its model is opened, run and checked. Read by deployment.zig.
 *
 * - what it says stands for options that were not given;
 * - it is believed as the folder is: `verify` is what checks a folder.
 */
#ifndef EKRUN_DEPLOYMENT_H
#define EKRUN_DEPLOYMENT_H

#include "args.h"
#include "bundle.h"

/* An output's expected values: samples stacked along a first axis. Paths are below the bundle's folder. */
struct expected {
    uint64_t index;
    const char *file;
    const char *tolerance; /* a number: greatest allowed difference of any element */
    bool argmax;           /* the index of the greatest value along `axis` is a decision */
    int64_t axis;
    const char *decided_file; /* bool, one a decision: whether it counts; or NULL, then `decided` has them */
    const bool *decided;
    size_t decided_count;
};

#define DEPLOYMENT_FILE "deployment.json"

/* As `Deployment` in deployment.zig. */
struct deployment {
    const char *engine, *library, *model, *precision, *reset;
    uint64_t threads, samples; /* samples 0: there is no golden check */
    struct pairs options, states, inputs;
    struct expected *outputs;
    size_t output_count;
    const char *budget_percentile, *budget_ms; /* numbers; NULL: no latency is asked for */
    const char *engine_version;                /* empty: not told */
};

/* NULL, or why `text` is none. What is read is kept in `room`, DEPLOYMENT_ROOM bytes of which few are touched. */
#define DEPLOYMENT_ROOM (4 << 20)
const char *deployment_parse(const void *text, size_t size, void *room, struct deployment *deployment);

/* Adds what the folder options->dir says. Fails with EXIT_INPUT. */
void deployment_fill(struct options *options);

/* The absolute path of a file of the bundle. */
const char *deployment_path(const char *path);

#endif
