#include "arrivals.h"

#include <math.h>

#define SECOND 1000000000LL

/* SplitMix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014): any seed will do. */
static uint64_t next_random(uint64_t *state) {
    uint64_t z = *state += 0x9e3779b97f4a7c15;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
    z = (z ^ z >> 27) * 0x94d049bb133111eb;
    return z ^ z >> 31;
}

/* The gap between Poisson arrivals is exponential: inverse of its distribution at a uniform number in (0, 1]. */
static double next_gap(struct queue *q) {
    double uniform = (double)((next_random(&q->random) >> 11) + 1) / 9007199254740992.0;
    return -log(uniform) / q->rate;
}

static int64_t next_ns(const struct queue *q) { return (int64_t)(q->next_s * 1e9); }

static void draw(struct queue *q) {
    double next_s = q->next_s + next_gap(q);
    bool due = next_s * 1e9 < (double)q->extent.duration_ns || q->scheduled < q->extent.least;
    q->closed = !due || q->scheduled >= q->extent.most;
    if (q->closed)
        return; /* next_s stays the last arrival's */
    q->next_s = next_s;
    q->scheduled++;
}

void queue_open(struct queue *q, double rate, uint64_t seed, struct extent extent) {
    *q = (struct queue){.extent = extent, .rate = rate, .random = seed};
    draw(q);
}

static void admit_arrived(struct queue *q, int64_t now_ns) {
    for (; !q->closed && next_ns(q) <= now_ns; draw(q)) {
        if (q->waiting == QUEUE_LIMIT) {
            q->dropped++;
            continue;
        }
        q->waiting_since[(q->head + q->waiting++) % QUEUE_LIMIT] = next_ns(q);
        q->longest = q->waiting > q->longest ? q->waiting : q->longest;
    }
}

static bool too_late(const struct queue *q, int64_t now_ns) {
    int64_t last = next_ns(q), grace = last < SECOND ? SECOND : last > 10 * SECOND ? 10 * SECOND : last;
    return q->closed && now_ns > last + grace;
}

bool queue_take(struct queue *q, int64_t now_ns, int64_t *due_ns) {
    admit_arrived(q, now_ns);
    if (too_late(q, now_ns)) {
        q->unfinished += q->waiting;
        q->waiting = 0;
    }
    if (q->waiting) {
        *due_ns = q->waiting_since[q->head];
        q->head = (q->head + 1) % QUEUE_LIMIT;
        q->waiting--;
        return true;
    }
    if (q->closed)
        return false;
    *due_ns = next_ns(q);
    draw(q);
    return true;
}

void frames_open(struct frames *f, double rate, struct extent extent) {
    int64_t count = (int64_t)ceil((double)extent.duration_ns / 1e9 * rate);
    count = count < extent.least ? extent.least : count;
    *f = (struct frames){.period_ns = 1e9 / rate, .scheduled = count < extent.most ? count : extent.most};
}

static int64_t frame_ns(const struct frames *f, int64_t frame) { return (int64_t)((double)frame * f->period_ns); }

bool frames_take(struct frames *f, int64_t now_ns, int64_t *due_ns) {
    if (f->next >= f->scheduled)
        return false;
    int64_t newest = now_ns < 0 ? 0 : (int64_t)((double)now_ns / f->period_ns);
    newest = newest < f->scheduled ? newest : f->scheduled - 1;
    if (newest > f->next) {
        f->dropped += newest - f->next;
        f->next = newest;
    }
    *due_ns = frame_ns(f, f->next++);
    return true;
}
