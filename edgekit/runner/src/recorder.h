/* Raw samples: start and latency of every query, in the order of the queries' numbers.
 *
 * - memory is taken and touched a chunk at a time: 16 pages for 4096 queries, a few microseconds outside any clock;
 * - with a file, a full chunk is written and used again, so that a run of any length holds few of them;
 * - the file, a .npy of int64 [n,2], is complete or absent: written as <path>.part, synced, renamed.
 */
#ifndef EKRUN_RECORDER_H
#define EKRUN_RECORDER_H

#include <pthread.h>

#include "json.h"

/* Without a file all samples are held, and written into the answer: more would not fit a small board. */
#define MOST_HELD_QUERIES 10000000

struct recorder {
    pthread_mutex_t lock;
    const char *path; /* NULL: hold all */
    char *part;
    int fd;
    size_t header;
    struct chunk **chunks; /* by number; NULL before and after its use */
    size_t room;
    struct chunk *spare;
    int64_t count;
};

/* Makes the file, if there is to be one, and removes an older one. Fails with EXIT_IO. */
void recorder_open(struct recorder *recorder, const char *path);

/* From any thread. Numbers count up from 0 without a gap by the time of recorder_finish. */
void recorder_put(struct recorder *recorder, int64_t number, int64_t start_ns, int64_t latency_ns);

/* Completes the file, and writes the field count, and latencies_ns where there is no file. */
void recorder_finish(struct recorder *recorder, struct json *j);

#endif
