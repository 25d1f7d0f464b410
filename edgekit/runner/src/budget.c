#include "budget.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "deployment.h"
#include "fail.h"
#include "proc.h"

#define BURSTS 3
#define FEWEST_RUNS 20
#define MOST_RUNS 100000
#define BURST_NS INT64_C(2000000000)

static int64_t infer(struct engine *engine, struct feeds *feeds, size_t sample) {
    feeds_load(feeds, engine, sample, sample == 0);
    int64_t before = now_ns();
    engine->ops->infer(engine, 0);
    int64_t latency = now_ns() - before;
    feeds_keep_state(feeds, engine);
    engine->ops->release_outputs(engine, 0);
    return latency;
}

static int ascending(const void *one, const void *other) {
    int64_t a = *(const int64_t *)one, b = *(const int64_t *)other;
    return (a > b) - (a < b);
}

/* The smallest latency with at least that share of the runs at or below it, in ms. */
static double at_percentile(int64_t *latencies, size_t count, double percentile) {
    qsort(latencies, count, sizeof *latencies, ascending);
    double rank = ceil(percentile * (double)count / 100 - 1e-9);
    size_t index = rank < 1 ? 0 : rank > (double)count ? count - 1 : (size_t)rank - 1;
    return (double)latencies[index] / 1e6;
}

static double burst(struct engine *engine, struct feeds *feeds, double percentile, int64_t *latencies) {
    size_t count = 0;
    int64_t end = now_ns() + BURST_NS;
    while (count < MOST_RUNS && (count < FEWEST_RUNS || now_ns() < end)) {
        latencies[count] = infer(engine, feeds, count % feeds->samples);
        count++;
    }
    return at_percentile(latencies, count, percentile);
}

static double number(const char *text, double largest, const char *name) {
    char *end;
    double value = strtod(text, &end);
    if (*end || !(value > 0) || value > largest)
        fail(EXIT_INPUT, "deployment.json: latency_budget: %s %s is none", name, text);
    return value;
}

void check_budget(struct latency *latency, struct engine *engine, struct feeds *feeds) {
    const struct deployment *d = engine->options->deployment;
    *latency = (struct latency){0};
    if (!d->budget_ms || emulated())
        return;
    latency->checked = true;
    latency->percentile = number(d->budget_percentile, 100, "percentile");
    latency->budget_ms = number(d->budget_ms, 1e12, "ms");
    latency->found_ms = INFINITY;
    int64_t *latencies = allocate(MOST_RUNS, sizeof *latencies);
    for (int i = 0; i < BURSTS && latency->found_ms > latency->budget_ms; i++)
        latency->found_ms = fmin(latency->found_ms, burst(engine, feeds, latency->percentile, latencies));
    free(latencies);
    if (latency->found_ms > latency->budget_ms)
        snprintf(latency->failure, sizeof latency->failure,
                 "latency: p%g is %.4g ms in the best of %d bursts, %.4g ms are allowed", latency->percentile,
                 latency->found_ms, BURSTS, latency->budget_ms);
}

void write_latency(const struct latency *latency, struct json *j) {
    if (!latency->checked) {
        json_null(j, "latency");
        return;
    }
    json_begin(j, "latency", '{');
    json_real(j, "percentile", latency->percentile);
    json_real(j, "budget_ms", latency->budget_ms);
    json_real(j, "found_ms", latency->found_ms);
    json_end(j, '}');
}
