/* `ekrun bench`: times inferences, at once or in bursts asked for on stdin.
 *
 * - inside the clock is the engine's call alone: inputs are in their buffers before, outputs are released after;
 * - raw nanoseconds are kept; statistics are the caller's;
 * - memory is sampled between phases, each with a high-water mark of its own, before an answer is written.
 */
#define _GNU_SOURCE
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench.h"
#include "conditions.h"
#include "crew.h"
#include "fail.h"
#include "sampler.h"
#include "scenario.h"
#include "verbs.h"

#define IDLE_LIMIT_NS 1000000000
#define LONGEST_BURST 10000000

/* One timed inference on the next sample, in nanoseconds. */
static int64_t infer_next(struct bench *b) {
    struct engine *engine = &b->engine;
    feeds_load(&b->feeds, engine, b->next_sample, b->next_sample == 0);
    int64_t before = now_ns();
    engine->ops->infer(engine, 0);
    b->returned_ns = now_ns();
    int64_t latency = b->returned_ns - before;
    feeds_keep_state(&b->feeds, engine);
    engine->ops->release_outputs(engine, 0);
    b->next_sample = (b->next_sample + 1) % b->feeds.samples;
    return latency;
}

static int64_t larger(int64_t a, int64_t b) { return a > b ? a : b; }

void note_memory(struct bench *b) {
    int64_t peak = b->finished.peak;
    sample_memory(&b->finished);
    b->finished.peak = larger(peak, b->finished.peak);
}

static void start(struct bench *b, const struct options *options, int64_t started_ns) {
    b->finished.peak = -1;
    reset_peak();
    sample_memory(&b->baseline);
    engine_open(&b->engine, options);
    sample_memory(&b->loaded);
    feeds_open(&b->feeds, &b->engine, 0, options);
    b->inference_peak_known = reset_peak();
    b->first_inference_ns = infer_next(b);
    b->to_first_inference_ns = b->returned_ns - started_ns;
    for (long i = 0; i < options->warmup; i++)
        infer_next(b);
    note_memory(b);
}

/* Returns its nanoseconds, from the start to the last completion. */
static int64_t burst(struct bench *b, int64_t *latencies, int64_t count) {
    b->runs += count;
    if (b->crew)
        return crew_burst(b->crew, latencies, count);
    int64_t began = now_ns();
    for (int64_t i = 0; i < count; i++)
        latencies[i] = infer_next(b);
    return b->returned_ns - began;
}

void write_load(struct bench *b, struct json *j) {
    engine_describe(&b->engine, j);
    json_real(j, "first_inference_ms", (double)b->first_inference_ns / 1e6);
    json_real(j, "process_to_first_inference_ms", (double)b->to_first_inference_ns / 1e6);
    json_count(j, "process_threads", b->loaded.threads);
    json_int(j, "samples", (int64_t)b->feeds.samples);
}

void write_memory(struct bench *b, struct json *j) {
    /* Without a reset the mark still holds for the load, which nothing larger precedes; not for what follows. */
    int64_t inference_peak = b->inference_peak_known ? b->finished.peak : -1;
    json_begin(j, "memory", '{');
    json_count(j, "baseline_rss", b->baseline.rss);
    json_count(j, "baseline_anon", b->baseline.anon);
    json_count(j, "baseline_file", b->baseline.file);
    json_count(j, "after_load_rss", b->loaded.rss);
    json_count(j, "after_load_anon", b->loaded.anon);
    json_count(j, "after_load_file", b->loaded.file);
    json_count(j, "after_inference_rss", b->finished.rss);
    json_count(j, "after_inference_anon", b->finished.anon);
    json_count(j, "after_inference_file", b->finished.file);
    json_count(j, "peak_load_rss", b->loaded.peak);
    json_count(j, "peak_inference_rss", inference_peak);
    json_count(j, "peak_rss", larger(b->loaded.peak, b->finished.peak));
    json_end(j, '}');
}

void write_usage(const struct usage *usage, struct json *j) {
    json_int(j, "wall_ns", usage->wall_ns);
    json_int(j, "cpu_ns", usage->cpu_ns);
    json_int(j, "voluntary_switches", usage->voluntary_switches);
    json_int(j, "involuntary_switches", usage->involuntary_switches);
    json_int(j, "minor_faults", usage->minor_faults);
    json_int(j, "major_faults", usage->major_faults);
}

/* Runs a burst and writes its latencies and what it used. */
static void measure(struct bench *b, int64_t count, struct json *j) {
    int64_t *latencies = allocate((size_t)count, sizeof *latencies);
    struct usage before, after;
    memset(latencies, 0, (size_t)count * sizeof *latencies); /* its pages are touched before the clock runs */
    struct sampler *sampler = sampler_start(b->engine.options->sample_ms);
    reset_peak(); /* the last answer's */
    sample_usage(&before);
    int64_t span = burst(b, latencies, count);
    sample_usage(&after);
    sampler_stop(sampler);
    note_memory(b);
    after = usage_between(&before, &after);
    json_begin(j, "latencies_ns", '[');
    for (int64_t i = 0; i < count; i++)
        json_int(j, NULL, latencies[i]);
    json_end(j, ']');
    json_int(j, "span_ns", span);
    write_usage(&after, j);
    sampler_write(sampler, before.wall_ns, j);
    free(latencies);
}

static void begin_event(struct json *j, const char *event) {
    json_open(j);
    json_begin(j, NULL, '{');
    json_int(j, "protocol", EKRUN_PROTOCOL);
    json_string(j, "event", event);
}

static void end_event(struct json *j) {
    json_end(j, '}');
    json_print(j);
}

void finish_bench(struct bench *b, struct json *j) {
    json_int(j, "runs", b->runs);
    write_memory(b, j);
    if (b->crew)
        crew_rest(b->crew);
    b->engine.ops->close(&b->engine);
    feeds_close(&b->feeds, &b->engine);
    if (b->crew)
        crew_close(b->crew);
}

static void run_at_once(struct bench *b, const struct options *options) {
    struct json j;
    json_open(&j);
    json_begin(&j, NULL, '{');
    json_int(&j, "protocol", EKRUN_PROTOCOL);
    json_string(&j, "verb", "bench");
    write_load(b, &j);
    write_conditions(&j, "conditions_before");
    measure(b, options->runs, &j);
    write_conditions(&j, "conditions_after");
    finish_bench(b, &j);
    json_end(&j, '}');
    json_print(&j);
}

/* The count of "go N"; 0 for "quit". */
static int64_t parse_command(char *line) {
    char *end;
    line[strcspn(line, "\r\n")] = '\0';
    if (strcmp(line, "quit") == 0)
        return 0;
    long count = strncmp(line, "go ", 3) == 0 ? strtol(line + 3, &end, 10) : 0;
    if (count < 1 || count > LONGEST_BURST || *end)
        fail(EXIT_USAGE, "stdin takes 'go N' with N from 1 to %d, or 'quit', not '%s'", LONGEST_BURST, line);
    return count;
}

/* An engine's pool spins on for a while after a run. Others are measured while this process waits, so it answers only
 * when its threads sleep. The engine runs as shipped, which it would not if an option stopped the spin. */
static void answer_when_idle(struct json *j) {
    int64_t before = now_ns();
    wait_until_idle(IDLE_LIMIT_NS);
    json_int(j, "settle_ns", now_ns() - before);
    end_event(j);
}

static void serve_bursts(struct bench *b) {
    char line[64];
    struct json j;
    begin_event(&j, "ready");
    write_load(b, &j);
    answer_when_idle(&j);
    for (int64_t count; fgets(line, sizeof line, stdin) && (count = parse_command(line));) {
        begin_event(&j, "ran");
        measure(b, count, &j);
        write_memory(b, &j);
        json_int(&j, "resident_bytes", b->crew ? crew_holds(b->crew) : 0);
        answer_when_idle(&j);
    }
    begin_event(&j, "closed");
    finish_bench(b, &j);
    end_event(&j);
}

void bench(const struct options *options, int64_t started_ns) {
    struct bench b = {0};
    start(&b, options, started_ns);
    if (options->together)
        b.crew = crew_open(&b, options);
    if (options->from_stdin)
        serve_bursts(&b);
    else if (options->scenario != NO_SCENARIO)
        run_scenario(&b, options);
    else
        run_at_once(&b, options);
}
