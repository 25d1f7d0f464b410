/* Bursts on several lanes.
 *
 * - the first lane is the main thread; the others are made once and sleep at a barrier between bursts, so that what is
 *   measured beside this process meets no threads being made, and no spinning;
 * - a lane takes the next inference as soon as it is free, as in `--scenario offline`;
 * - within a lane's clock is the engine's call alone; within a burst's, binding the resident samples too.
 */
#define _GNU_SOURCE
#include "crew.h"

#include <pthread.h>
#include <stdlib.h>

#include "fail.h"
#include "resident.h"

#define NO_SAMPLE ((size_t)-1)

struct hand {
    struct crew *crew;
    size_t lane, bound;
    pthread_t thread;
};

struct crew {
    struct bench *b;
    struct resident resident;
    struct hand *hands;
    size_t count;
    pthread_barrier_t begin, end;
    pthread_mutex_t lock; /* of what follows */
    int64_t *latencies;
    int64_t wanted, taken, last_ns;
    size_t next_sample;
    bool over;
};

/* The number of the next inference, or -1. */
static int64_t take(struct crew *crew, size_t *sample) {
    pthread_mutex_lock(&crew->lock);
    int64_t number = crew->taken < crew->wanted ? crew->taken++ : -1;
    *sample = crew->next_sample % crew->resident.count;
    crew->next_sample += number >= 0;
    pthread_mutex_unlock(&crew->lock);
    return number;
}

static void work(struct hand *hand) {
    struct crew *crew = hand->crew;
    struct engine *engine = &crew->b->engine;
    int64_t ended = 0;
    size_t sample;
    for (int64_t number; (number = take(crew, &sample)) >= 0;) {
        if (hand->bound != sample)
            resident_bind(&crew->resident, engine, hand->lane, hand->bound = sample);
        int64_t began = now_ns();
        engine->ops->infer(engine, hand->lane);
        ended = now_ns();
        engine->ops->release_outputs(engine, hand->lane);
        crew->latencies[number] = ended - began;
    }
    pthread_mutex_lock(&crew->lock);
    crew->last_ns = ended > crew->last_ns ? ended : crew->last_ns;
    pthread_mutex_unlock(&crew->lock);
}

static void *serve(void *argument) {
    struct hand *hand = argument;
    for (;;) {
        pthread_barrier_wait(&hand->crew->begin);
        if (hand->crew->over)
            return NULL;
        work(hand);
        pthread_barrier_wait(&hand->crew->end);
    }
}

int64_t crew_burst(struct crew *crew, int64_t *latencies, int64_t count) {
    crew->latencies = latencies;
    crew->wanted = count;
    crew->taken = crew->last_ns = 0;
    int64_t origin = now_ns();
    pthread_barrier_wait(&crew->begin);
    work(&crew->hands[0]);
    pthread_barrier_wait(&crew->end);
    return crew->last_ns - origin;
}

/* All lanes at once: what an engine allocates for several at a time is warm too. */
static void warm_up(struct crew *crew, long rounds) {
    int64_t count = (int64_t)crew->count * (1 + rounds);
    int64_t *forgotten = allocate((size_t)count, sizeof *forgotten);
    crew_burst(crew, forgotten, count);
    free(forgotten);
}

struct crew *crew_open(struct bench *b, const struct options *options) {
    struct crew *crew = allocate(1, sizeof *crew);
    crew->b = b;
    crew->count = (size_t)options->streams;
    crew->hands = allocate(crew->count, sizeof *crew->hands);
    resident_load(&crew->resident, &b->feeds, &b->engine);
    pthread_mutex_init(&crew->lock, NULL);
    pthread_barrier_init(&crew->begin, NULL, (unsigned)crew->count);
    pthread_barrier_init(&crew->end, NULL, (unsigned)crew->count);
    for (size_t i = 0; i < crew->count; i++) {
        crew->hands[i] = (struct hand){.crew = crew, .lane = i, .bound = NO_SAMPLE};
        if (i > 0 && pthread_create(&crew->hands[i].thread, NULL, serve, &crew->hands[i]) != 0)
            fail(EXIT_MEMORY, "cannot start %zu threads", crew->count);
    }
    warm_up(crew, options->warmup);
    return crew;
}

int64_t crew_holds(const struct crew *crew) { return crew->resident.bytes; }

void crew_rest(struct crew *crew) {
    crew->over = true;
    pthread_barrier_wait(&crew->begin);
    for (size_t i = 1; i < crew->count; i++)
        pthread_join(crew->hands[i].thread, NULL);
}

void crew_close(struct crew *crew) {
    resident_free(&crew->resident);
    free(crew->hands);
    free(crew);
}
