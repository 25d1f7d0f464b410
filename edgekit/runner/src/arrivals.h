/* When queries come and which is next, as offsets from the start. Pure: the caller tells the time and holds the lock.
 *
 * Nobody hands queries out: a lane that is free takes the next one, and sleeps until its time if it is to come. That is
 * the order of one queue, served by several lanes, without a thread that would take CPU time from them.
 */
#ifndef EKRUN_ARRIVALS_H
#define EKRUN_ARRIVALS_H

#include <stdbool.h>
#include <stdint.h>

/* A schedule ends when both its time is over and enough have come; at `most` in any case. */
struct extent {
    int64_t duration_ns, least, most;
};

/* Independent users: Poisson arrivals into a queue, first come first served. Who finds it full is turned away. */
#define QUEUE_LIMIT 4096

struct queue {
    struct extent extent;
    double rate; /* a second */
    uint64_t random;
    double next_s; /* the next arrival, not yet in the queue */
    bool closed;   /* there is none */
    int64_t scheduled, dropped, unfinished;
    int64_t waiting_since[QUEUE_LIMIT];
    int head, waiting, longest;
};

void queue_open(struct queue *queue, double rate, uint64_t seed, struct extent extent);

/* The next query's time, or false when all is done. What still waits 1 to 10 s (as long as the schedule was, within
 * these bounds) after the last arrival is `unfinished`: an overloaded run ends too. */
bool queue_take(struct queue *queue, int64_t now_ns, int64_t *due_ns);

/* A camera that keeps its newest frame only: a frame that is not begun before the next one is dropped. */
struct frames {
    double period_ns;
    int64_t scheduled, next, dropped;
};

void frames_open(struct frames *frames, double rate, struct extent extent);
bool frames_take(struct frames *frames, int64_t now_ns, int64_t *due_ns);

#endif
