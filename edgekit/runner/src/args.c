#include "args.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fail.h"

enum kind { TEXT, NUMBER, FLAG, PAIR_FIRST, PAIR_LAST }; /* a pair splits at its first or its last '=' */

struct rule {
    const char *name;
    enum kind kind;
    int verbs;
    size_t offset;
    long smallest, largest;
};

#define FIELD(name) offsetof(struct options, name)
#define ENGINE_VERBS (VERB_RUN | VERB_BENCH)

static const struct rule RULES[] = {
    {"--engine", TEXT, ENGINE_VERBS, FIELD(engine), 0, 0},
    {"--lib", TEXT, ENGINE_VERBS, FIELD(lib), 0, 0},
    {"--model", TEXT, ENGINE_VERBS, FIELD(model), 0, 0},
    {"--precision", TEXT, ENGINE_VERBS, FIELD(precision), 0, 0},
    {"--threads", NUMBER, ENGINE_VERBS, FIELD(threads), 1, 1024},
    {"--samples", NUMBER, ENGINE_VERBS, FIELD(samples), 1, MAX_SAMPLES},
    {"--input", PAIR_LAST, ENGINE_VERBS, FIELD(inputs), 0, 0},
    {"--state", PAIR_LAST, ENGINE_VERBS, FIELD(states), 0, 0},
    {"--reset", TEXT, ENGINE_VERBS, FIELD(reset), 0, 0},
    {"--option", PAIR_FIRST, ENGINE_VERBS, FIELD(engine_options), 0, 0},
    {"--out", TEXT, VERB_RUN, FIELD(out), 0, 0},
    {"--warmup", NUMBER, VERB_BENCH, FIELD(warmup), 0, 10000000},
    {"--runs", NUMBER, VERB_BENCH, FIELD(runs), 1, 10000000},
    {"--stdin", FLAG, VERB_BENCH, FIELD(from_stdin), 0, 0},
    {"--root", TEXT, VERB_FACTS, FIELD(root), 0, 0},
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
    case FLAG: *(bool *)field = true; break;
    case PAIR_FIRST:
    case PAIR_LAST: add_pair(field, rule, value); break;
    }
}

static enum verb parse_verb(const char *name) {
    static const struct {
        const char *name;
        enum verb verb;
    } verbs[] = {{"facts", VERB_FACTS}, {"run", VERB_RUN}, {"bench", VERB_BENCH}};
    for (size_t i = 0; i < sizeof verbs / sizeof *verbs; i++)
        if (name && strcmp(name, verbs[i].name) == 0)
            return verbs[i].verb;
    fail(EXIT_USAGE, "usage: ekrun facts|run|bench --option value ...");
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

static void check(struct options *options) {
    if (options->verb == VERB_FACTS)
        return;
    refuse_repeated(&options->engine_options, "--option");
    require(options->engine, "--engine");
    require(options->lib, "--lib");
    require(options->model, "--model");
    if (!options->threads)
        fail(EXIT_USAGE, "--threads is required");
    if (options->verb == VERB_RUN)
        require(options->out, "--out");
    if (options->verb == VERB_BENCH && options->from_stdin == (options->runs != 0))
        fail(EXIT_USAGE, "bench takes --runs or --stdin");
    if (options->lib[0] != '/')
        fail(EXIT_USAGE, "--lib takes an absolute path, not %s", options->lib);
    if (!options->precision)
        options->precision = "f32";
    if (strcmp(options->precision, "f32") && strcmp(options->precision, "bf16") && strcmp(options->precision, "f16"))
        fail(EXIT_USAGE, "--precision takes f32, bf16 or f16, not %s", options->precision);
    if (options->reset && !options->states.count)
        fail(EXIT_USAGE, "--reset needs a --state to reset");
}

void parse_args(int argc, char **argv, struct options *options) {
    bool seen[RULE_COUNT] = {false};
    *options = (struct options){.verb = parse_verb(argc > 1 ? argv[1] : NULL)};
    for (int i = 2; i < argc; i++) {
        const struct rule *rule = find_rule(argv[i], options->verb);
        bool repeatable = rule->kind == PAIR_FIRST || rule->kind == PAIR_LAST;
        if (seen[rule - RULES] && !repeatable)
            fail(EXIT_USAGE, "%s is given twice", rule->name);
        seen[rule - RULES] = true;
        if (rule->kind != FLAG && ++i == argc)
            fail(EXIT_USAGE, "%s needs a value", rule->name);
        store(options, rule, argv[i]);
    }
    check(options);
}

const char *find_option(const struct options *options, const char *key) {
    for (size_t i = 0; i < options->engine_options.count; i++)
        if (strcmp(options->engine_options.items[i].key, key) == 0)
            return options->engine_options.items[i].value;
    return NULL;
}
