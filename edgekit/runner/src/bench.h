/* What the ways to bench share: a loaded and warm engine, and the fields of their answers. */
#ifndef EKRUN_BENCH_H
#define EKRUN_BENCH_H

#include "engine.h"
#include "feeds.h"
#include "json.h"
#include "proc.h"

struct crew;

struct bench {
    struct engine engine;
    struct feeds feeds; /* of lane 0 */
    struct crew *crew;  /* of bursts with --streams, or NULL */
    size_t next_sample;
    int64_t returned_ns; /* when the last inference did */
    int64_t first_inference_ns, to_first_inference_ns;
    struct memory baseline, loaded, finished;
    bool inference_peak_known;
    int64_t runs;
};

/* Memory after inferences, at once: what an answer takes to write is not the model's. The peak is that of all so far.
 */
void note_memory(struct bench *b);

/* Fields of an answer: engine and load times; of `usage`; `memory`. */
void write_load(struct bench *b, struct json *j);
void write_usage(const struct usage *usage, struct json *j);
void write_memory(struct bench *b, struct json *j);

/* Writes the fields runs and memory, and closes the engine. */
void finish_bench(struct bench *b, struct json *j);

#endif
