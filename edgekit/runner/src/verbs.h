/* The verbs: each serves one request and returns when its answer is printed. */
#ifndef EKRUN_VERBS_H
#define EKRUN_VERBS_H

#include <stdint.h>

#include "args.h"

void run(const struct options *options);
void bench(const struct options *options, int64_t started_ns);
void layers(const struct options *options);
void facts(const struct options *options);
void unpack(const struct options *options);
void verify(const struct options *options);
void check(const struct options *options);
void install(const struct options *options);
void rollback(const struct options *options);
void status(const struct options *options);
void trust(const struct options *options);

#endif
