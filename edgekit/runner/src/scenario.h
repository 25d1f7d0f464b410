/* `ekrun bench --scenario`: queries as they come in use, on one or several streams. */
#ifndef EKRUN_SCENARIO_H
#define EKRUN_SCENARIO_H

#include "bench.h"

/* Measures the scenario of `options` on a warm bench and prints the answer. */
void run_scenario(struct bench *b, const struct options *options);

#endif
