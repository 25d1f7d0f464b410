#include "args.h"

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "fail.h"

enum kind { TEXT, NUMBER, REAL, FLAG, PAIR_FIRST, PAIR_LAST }; /* a pair splits at its first or its last '=' */

struct rule {
    const char *name;
    enum kind kind;
    int verbs;
    size_t offset;
    long smallest, largest; /* a REAL is larger than the smallest */
};

#define FIELD(name) offsetof(struct options, name)
#define MODEL_VERBS (VERB_RUN | VERB_BENCH | VERB_LAYERS) /* check takes nothing but what the bundle says */
#define BUNDLE_VERBS (VERB_UNPACK | VERB_VERIFY)
#define SWITCH_VERBS (VERB_INSTALL | VERB_ROLLBACK)
#define DEVICE_VERBS (SWITCH_VERBS | VERB_STATUS | VERB_TRUST)
#define EVERY_VERB (VERB_FACTS | ENGINE_VERBS | BUNDLE_VERBS | DEVICE_VERBS)
#define MOST_KEPT 64
#define MOST_STREAMS 64
#define SLOWEST_RATE 0.001 /* a second */

static const struct rule RULES[] = {
    {"--engine", TEXT, MODEL_VERBS, FIELD(engine), 0, 0},
    {"--lib", TEXT, MODEL_VERBS, FIELD(lib), 0, 0},
    {"--model", TEXT, MODEL_VERBS, FIELD(model), 0, 0},
    {"--precision", TEXT, MODEL_VERBS, FIELD(precision), 0, 0},
    {"--threads", NUMBER, ENGINE_VERBS, FIELD(threads), 1, 1024},
    {"--cores", TEXT, ENGINE_VERBS, FIELD(cores), 0, 0},
    {"--samples", NUMBER, MODEL_VERBS, FIELD(samples), 1, MAX_SAMPLES},
    {"--input", PAIR_LAST, MODEL_VERBS, FIELD(inputs), 0, 0},
    {"--state", PAIR_LAST, MODEL_VERBS, FIELD(states), 0, 0},
    {"--reset", TEXT, MODEL_VERBS, FIELD(reset), 0, 0},
    {"--option", PAIR_FIRST, MODEL_VERBS, FIELD(engine_options), 0, 0},
    {"--streams", NUMBER, VERB_RUN | VERB_BENCH, FIELD(streams), 1, MOST_STREAMS},
    {"--out", TEXT, VERB_RUN | VERB_LAYERS, FIELD(out), 0, 0},
    {"--warmup", NUMBER, VERB_BENCH, FIELD(warmup), 0, 10000000},
    {"--runs", NUMBER, VERB_BENCH, FIELD(runs), 1, 10000000},
    {"--runs", NUMBER, VERB_LAYERS, FIELD(runs), 1, 10000},
    {"--stdin", FLAG, VERB_BENCH, FIELD(from_stdin), 0, 0},
    {"--scenario", TEXT, VERB_BENCH, FIELD(scenario_name), 0, 0},
    {"--duration", REAL, VERB_BENCH, FIELD(duration), 0, 86400},
    {"--min-runs", NUMBER, VERB_BENCH, FIELD(min_runs), 1, 10000000},
    {"--qps", REAL, VERB_BENCH, FIELD(qps), 0, 100000},
    {"--fps", REAL, VERB_BENCH, FIELD(fps), 0, 100000},
    {"--samples-per-query", NUMBER, VERB_BENCH, FIELD(samples_per_query), 1, 1024},
    {"--seed", NUMBER, VERB_BENCH, FIELD(seed), 0, LONG_MAX},
    {"--latencies", TEXT, VERB_BENCH, FIELD(latencies), 0, 0},
    {"--sample-ms", NUMBER, VERB_BENCH, FIELD(sample_ms), 0, 60000},
    {"--memory-limit", NUMBER, ENGINE_VERBS, FIELD(memory_limit), 1 << 20, LONG_MAX},
    {"--tether", FLAG, EVERY_VERB, FIELD(tether), 0, 0},
    {"--trust", TEXT, BUNDLE_VERBS | SWITCH_VERBS, FIELD(trust), 0, 0},
    {"--allow-unsigned", FLAG, BUNDLE_VERBS | SWITCH_VERBS, FIELD(allow_unsigned), 0, 0},
    {"--allow-unchecked", FLAG, SWITCH_VERBS, FIELD(allow_unchecked), 0, 0},
    {"--allow-downgrade", FLAG, VERB_ROLLBACK, FIELD(allow_downgrade), 0, 0},
    {"--to", TEXT, VERB_ROLLBACK, FIELD(to), 0, 0},
    {"--parts", TEXT, VERB_INSTALL, FIELD(parts), 0, 0},
    {"--keep", NUMBER, VERB_INSTALL, FIELD(keep), 1, MOST_KEPT},
    {"--check-seconds", NUMBER, SWITCH_VERBS, FIELD(check_seconds), 1, 86400},
    {"--dry-run", FLAG, VERB_INSTALL, FIELD(dry_run), 0, 0},
    {"--budget", FLAG, VERB_CHECK, FIELD(budget), 0, 0},
    {"--root", TEXT, VERB_FACTS | DEVICE_VERBS, FIELD(root), 0, 0},
    {"--folder", TEXT, VERB_FACTS, FIELD(folder), 0, 0},
};

#define RULE_COUNT (sizeof RULES / sizeof *RULES)

static const struct rule *find_rule(const char *name, enum verb verb) {
    for (size_t i = 0; i < RULE_COUNT; i++)
        if (strcmp(RULES[i].name, name) == 0 && RULES[i].verbs & verb)
            return &RULES[i];
    fail(EXIT_USAGE, "unknown option %s", name);
}

static long parse_number(const struct rule *rule, const char *text) {
    char *end;
    errno = 0;
    long value = strtol(text, &end, 10);
    if (end == text || *end || errno || value < rule->smallest || value > rule->largest)
        fail(EXIT_USAGE, "%s takes a whole number from %ld to %ld, not %s", rule->name, rule->smallest, rule->largest,
             text);
    return value;
}

/* Plain decimals: strtod alone would take "inf", "nan" and hexadecimal too. */
static double parse_real(const struct rule *rule, const char *text) {
    char *end;
    double value = strtod(text, &end);
    if (end == text || *end || text[strspn(text, "0123456789.e+-")] || !(value > rule->smallest) ||
        value > (double)rule->largest)
        fail(EXIT_USAGE, "%s takes a number above %ld, at most %ld, not %s", rule->name, rule->smallest, rule->largest,
             text);
    return value;
}

static void add_pair(struct pairs *pairs, const struct rule *rule, char *text) {
    char *equals = rule->kind == PAIR_LAST ? strrchr(text, '=') : strchr(text, '=');
    if (!equals || equals == text)
        fail(EXIT_USAGE, "%s takes NAME=VALUE, not %s", rule->name, text);
    *equals = '\0';
    pairs->items = reallocate(pairs->items, pairs->count + 1, sizeof *pairs->items);
    pairs->items[pairs->count++] = (struct pair){text, equals + 1};
}

static void store(struct options *options, const struct rule *rule, char *value) {
    void *field = (char *)options + rule->offset;
    switch (rule->kind) {
    case TEXT: *(const char **)field = value; break;
    case NUMBER: *(long *)field = parse_number(rule, value); break;
    case REAL: *(double *)field = parse_real(rule, value); break;
    case FLAG: *(bool *)field = true; break;
    case PAIR_FIRST:
    case PAIR_LAST: add_pair(field, rule, value); break;
    }
}

static enum verb parse_verb(const char *name) {
    static const struct {
        const char *name;
        enum verb verb;
    } verbs[] = {
        {"facts", VERB_FACTS},
#ifndef EKRUN_FACTS_ONLY
        {"run", VERB_RUN},
        {"bench", VERB_BENCH},
        {"layers", VERB_LAYERS},
        {"check", VERB_CHECK},
        {"unpack", VERB_UNPACK},
        {"verify", VERB_VERIFY},
        {"install", VERB_INSTALL},
        {"rollback", VERB_ROLLBACK},
        {"status", VERB_STATUS},
        {"trust", VERB_TRUST},
#endif
    };
    for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++)
        if (name && strcmp(name, verbs[i].name) == 0)
            return verbs[i].verb;
#ifdef EKRUN_FACTS_ONLY
    fail(EXIT_USAGE, "usage: ekrun-facts facts --option value ...: this build has no engines");
#else
    fail(EXIT_USAGE, "usage: ekrun facts|run|bench|layers|check|unpack|verify|install|rollback|status|trust ... "
                     "--option value ...");
#endif
}

static void require(const void *value, const char *name) {
    if (!value)
        fail(EXIT_USAGE, "%s is required", name);
}

static void refuse_repeated(const struct pairs *pairs, const char *name) {
    for (size_t i = 0; i < pairs->count; i++)
        for (size_t k = 0; k < i; k++)
            if (strcmp(pairs->items[i].key, pairs->items[k].key) == 0)
                fail(EXIT_USAGE, "%s %s is given twice", name, pairs->items[i].key);
}

static enum scenario parse_scenario(const char *name) {
    static const char *const names[] = {
        [SINGLE_STREAM] = "single-stream", [MULTI_STREAM] = "multi-stream", [SERVER] = "server", [OFFLINE] = "offline",
        [FIXED_RATE] = "fixed-rate",
    };
    for (int i = SINGLE_STREAM; i <= FIXED_RATE; i++)
        if (name && strcmp(names[i], name) == 0)
            return (enum scenario)i;
    if (name)
        fail(EXIT_USAGE, "--scenario takes single-stream, multi-stream, server, offline or fixed-rate, not %s", name);
    return NO_SCENARIO;
}

/* `needed` where the option must be given, else it must not. */
static void only_for(bool needed, bool given, const char *name, const char *scenario) {
    if (needed && !given)
        fail(EXIT_USAGE, "%s needs %s", scenario, name);
    if (given && !needed)
        fail(EXIT_USAGE, "%s is for %s", name, scenario);
}

static void check_scenario(struct options *options) {
    enum scenario scenario = options->scenario = parse_scenario(options->scenario_name);
    if ((options->runs != 0) + options->from_stdin + (scenario != NO_SCENARIO) != 1)
        fail(EXIT_USAGE, "bench takes one of --runs, --stdin and --scenario");
    only_for(scenario != NO_SCENARIO, options->duration > 0 || options->min_runs, "--duration or --min-runs",
             "a --scenario");
    only_for(scenario == SERVER, options->qps > 0, "--qps", "--scenario server");
    only_for(scenario == FIXED_RATE, options->fps > 0, "--fps", "--scenario fixed-rate");
    if ((options->qps > 0 && options->qps < SLOWEST_RATE) || (options->fps > 0 && options->fps < SLOWEST_RATE))
        fail(EXIT_USAGE, "--qps and --fps are at least %g", SLOWEST_RATE);
    if (options->samples_per_query)
        only_for(scenario == MULTI_STREAM, true, "--samples-per-query", "--scenario multi-stream");
    if (options->seed)
        only_for(scenario == SERVER, true, "--seed", "--scenario server");
    if (options->latencies)
        only_for(scenario != NO_SCENARIO, true, "--latencies", "a --scenario");
    options->together = options->from_stdin && options->streams;
    if (options->together && options->states.count)
        fail(EXIT_USAGE, "--streams of --stdin takes samples from memory, --state needs them in their order");
    if (options->streams > 1 && !options->together && (scenario == NO_SCENARIO || scenario == SINGLE_STREAM))
        fail(EXIT_USAGE, "--streams is for --stdin and the scenarios multi-stream, server, offline and fixed-rate");
    if (!options->samples_per_query)
        options->samples_per_query = 8; /* MLPerf Inference's multi-stream since v2.0 */
}

static void check_bundle(const struct options *options) {
    if (options->verb == VERB_UNPACK && !options->dir)
        fail(EXIT_USAGE, "unpack takes the bundle's file and a new folder");
    if (!options->trust && !options->allow_unsigned)
        fail(EXIT_USAGE, "--trust is required: the file that lists the keys to trust");
}

static void check_device(struct options *options) {
    if (options->verb == VERB_INSTALL && !options->bundle)
        fail(EXIT_USAGE, "install takes the bundle's file");
    if (options->verb == VERB_ROLLBACK && !options->application)
        fail(EXIT_USAGE, "rollback takes the application's name");
    if (options->verb == VERB_TRUST && !options->trust)
        fail(EXIT_USAGE, "trust takes the file that lists the keys to trust");
    if (!options->keep)
        options->keep = 2;
    if (!options->check_seconds)
        options->check_seconds = 120;
}

void check_args(struct options *options) {
    if (options->verb & DEVICE_VERBS)
        check_device(options);
    if ((options->verb & (VERB_VERIFY | VERB_CHECK)) && !options->dir)
        fail(EXIT_USAGE, "the folder of an unpacked bundle is required");
    if (options->verb & BUNDLE_VERBS)
        check_bundle(options);
    if (!(options->verb & ENGINE_VERBS))
        return;
    refuse_repeated(&options->engine_options, "--option");
    require(options->engine, "--engine");
    require(options->lib, "--lib");
    require(options->model, "--model");
    if (!options->threads)
        fail(EXIT_USAGE, "--threads is required");
    if (options->verb & (VERB_RUN | VERB_LAYERS))
        require(options->out, "--out");
    if (options->verb == VERB_LAYERS && !options->runs)
        fail(EXIT_USAGE, "--runs is required");
    if (options->verb == VERB_BENCH)
        check_scenario(options);
    if (!options->streams)
        options->streams = 1;
    if (options->streams > 1 && options->states.count)
        fail(EXIT_USAGE, "--state needs the samples in their order: one stream");
    if (options->lib[0] != '/')
        fail(EXIT_USAGE, "--lib takes an absolute path, not %s", options->lib);
    if (!options->precision)
        options->precision = "f32";
    if (strcmp(options->precision, "f32") && strcmp(options->precision, "bf16") && strcmp(options->precision, "f16"))
        fail(EXIT_USAGE, "--precision takes f32, bf16 or f16, not %s", options->precision);
    if (options->reset && !options->states.count)
        fail(EXIT_USAGE, "--reset needs a --state to reset");
}

/* What stands before the options: at most two places, by verb. Returns where the options begin. */
static int parse_places(int argc, char **argv, struct options *options) {
    const struct {
        int verbs;
        const char **place;
    } places[] = {
        {VERB_UNPACK | VERB_INSTALL, &options->bundle},
        {VERB_UNPACK | VERB_VERIFY | ENGINE_VERBS, &options->dir},
        {VERB_ROLLBACK, &options->application},
        {VERB_TRUST, &options->trust},
    };
    int next = 2;
    for (size_t i = 0; i < sizeof places / sizeof *places; i++)
        if (options->verb & places[i].verbs && next < argc && strncmp(argv[next], "--", 2) != 0)
            *places[i].place = argv[next++];
    return next;
}

void parse_args(int argc, char **argv, struct options *options) {
    bool seen[RULE_COUNT] = {false};
    *options = (struct options){.verb = parse_verb(argc > 1 ? argv[1] : NULL)};
    for (int i = parse_places(argc, argv, options); i < argc; i++) {
        const struct rule *rule = find_rule(argv[i], options->verb);
        bool repeatable = rule->kind == PAIR_FIRST || rule->kind == PAIR_LAST;
        if (seen[rule - RULES] && !repeatable)
            fail(EXIT_USAGE, "%s is given twice", rule->name);
        seen[rule - RULES] = true;
        if (rule->kind != FLAG && ++i == argc)
            fail(EXIT_USAGE, "%s needs a value", rule->name);
        store(options, rule, argv[i]);
    }
}

const char *find_option(const struct options *options, const char *key) {
    for (size_t i = 0; i < options->engine_options.count; i++)
        if (strcmp(options->engine_options.items[i].key, key) == 0)
            return options->engine_options.items[i].value;
    return NULL;
}
