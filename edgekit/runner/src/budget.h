/* `ekrun check --budget`: whether the model is as fast here as the bundle asks for, in bursts over golden inputs. */
#ifndef EKRUN_BUDGET_H
#define EKRUN_BUDGET_H

#include "engine.h"
#include "feeds.h"

struct latency {
    bool checked; /* false: none is asked for, or the time would be an emulator's */
    double percentile, budget_ms, found_ms;
    char failure[256]; /* empty: within the budget */
};

/* Up to three bursts, until one is within the budget; found_ms is the best one's. Fails with EXIT_INPUT. */
void check_budget(struct latency *latency, struct engine *engine, struct feeds *feeds);

/* The object `latency`, or null. */
void write_latency(const struct latency *latency, struct json *j);

#endif
