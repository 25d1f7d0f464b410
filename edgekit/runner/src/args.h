/* The command line: `ekrun VERB --option value ...`. Strings point into argv. */
#ifndef EKRUN_ARGS_H
#define EKRUN_ARGS_H

#include <stdbool.h>
#include <stddef.h>

/* Also the most that a feed may hold: more is a forged header, not data. */
#define MAX_SAMPLES 1000000000

enum verb {
    VERB_FACTS = 1,
    VERB_RUN = 2,
    VERB_BENCH = 4,
    VERB_LAYERS = 8,
    VERB_CHECK = 16,
    VERB_UNPACK = 32,
    VERB_VERIFY = 64,
    VERB_INSTALL = 128,
    VERB_ROLLBACK = 256,
    VERB_STATUS = 512,
    VERB_TRUST = 1024,
};

#define ENGINE_VERBS (VERB_RUN | VERB_BENCH | VERB_LAYERS | VERB_CHECK)

/* How queries come, in bench; PROTOCOL.md defines them. */
enum scenario { NO_SCENARIO, SINGLE_STREAM, MULTI_STREAM, SERVER, OFFLINE, FIXED_RATE };

struct pair {
    const char *key, *value;
};

struct pairs {
    struct pair *items;
    size_t count;
};

struct options {
    enum verb verb;
    const char *engine, *lib, *model, *precision, *out, *reset, *cores;
    const char *root, *folder; /* root: of recorded files for facts, where bundles live for the others */
    const char *bundle, *dir, *trust; /* dir: of an unpacked bundle */
    const char *application, *parts, *to;
    long keep, check_seconds;
    bool allow_unsigned, allow_unchecked, allow_downgrade, dry_run, budget;
    const struct deployment *deployment; /* what `dir` says, or NULL */
    long threads, samples, warmup, runs; /* samples 0: all */
    long memory_limit;                   /* bytes; 0: none */
    bool from_stdin, together, tether; /* together: bursts of as many streams as were asked for */
    const char *scenario_name, *latencies;
    enum scenario scenario;
    double duration, qps, fps; /* seconds and events a second; 0: not given */
    long streams, min_runs, samples_per_query, seed, sample_ms;
    struct pairs inputs, states, engine_options;
};

/* Reads the command line, then checks it once what a bundle says has been added. Fail with EXIT_USAGE. */
void parse_args(int argc, char **argv, struct options *options);
void check_args(struct options *options);

/* The value of engine option `key`, or NULL. */
const char *find_option(const struct options *options, const char *key);

#endif
