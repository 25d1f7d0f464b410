/* The scenarios of bench, after MLPerf Inference's LoadGen; PROTOCOL.md defines them.
 *
 * - a lane is a thread with bindings of its own; the first is the main thread, so one stream makes no other;
 * - every lane is warm and its inputs are bound before the clock starts; what is noted is noted after a call's clock
 *   has been read, under one lock that is never held during a call;
 * - where queries have a time, latency counts from that time, not from when a lane was free for it.
 */
#define _GNU_SOURCE
#include "scenario.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <time.h>

#include "arrivals.h"
#include "conditions.h"
#include "fail.h"
#include "recorder.h"
#include "resident.h"
#include "sampler.h"
#include "spread.h"

#define UNBOUNDED 1000000000000LL
#define LEAD_NS 2000000 /* all lanes are at their work when the first query comes */
#define NO_SAMPLE ((size_t)-1)

/* One inference to make. Times are offsets from the start. */
struct turn {
    int64_t number; /* of its query */
    int64_t due_ns; /* -1: at once */
    int64_t began_ns, ended_ns;
    size_t sample;
};

/* A finished query, as it is recorded. */
struct outcome {
    int64_t number, start_ns, latency_ns;
};

struct load;

/* How a scenario chooses what is next. Both are called under the lock. */
struct policy {
    bool (*take)(struct load *l, struct turn *turn);
    bool (*done)(struct load *l, const struct turn *turn, struct outcome *outcome); /* true: its query is finished */
};

/* multi-stream: one query at a time, of several samples. */
struct group {
    int64_t number, start_ns, latest_ns;
    long taken, done;
    bool over;
};

struct load {
    struct bench *b;
    const struct options *options;
    const struct policy *policy;
    bool in_order; /* one lane that reads each sample from its file, as bench --runs does, and carries state */
    struct resident resident;
    pthread_mutex_t lock;
    pthread_cond_t turned; /* multi-stream: a query begins or all is over */
    pthread_barrier_t warm, started;
    int64_t origin_ns; /* CLOCK_MONOTONIC */
    struct extent extent;
    int64_t issued, inferences, last_ns, misses;
    struct queue queue;
    struct frames frames;
    struct group group;
    struct spread call, wait, late;
    struct recorder recorder;
};

struct lane {
    struct load *load;
    size_t index, bound;
    pthread_t thread;
};

static int64_t offset_now(const struct load *l) { return now_ns() - l->origin_ns; }

static bool wanted(const struct load *l, int64_t queries) {
    bool enough = queries >= l->extent.least && offset_now(l) >= l->extent.duration_ns;
    return !enough && queries < l->extent.most;
}

/* single-stream, offline: a lane takes the next as soon as it is free. */
static bool take_at_once(struct load *l, struct turn *turn) {
    if (!wanted(l, l->issued))
        return false;
    turn->number = l->issued;
    turn->due_ns = -1;
    return true;
}

static bool call_done(struct load *l, const struct turn *turn, struct outcome *outcome) {
    (void)l;
    *outcome = (struct outcome){turn->number, turn->began_ns, turn->ended_ns - turn->began_ns};
    return true;
}

static bool timed_done(struct load *l, const struct turn *turn, struct outcome *outcome) {
    spread_add(&l->wait, turn->began_ns - turn->due_ns);
    *outcome = (struct outcome){turn->number, turn->due_ns, turn->ended_ns - turn->due_ns};
    return true;
}

static bool take_arrival(struct load *l, struct turn *turn) {
    turn->number = l->issued;
    return queue_take(&l->queue, offset_now(l), &turn->due_ns);
}

static bool take_frame(struct load *l, struct turn *turn) {
    turn->number = l->issued;
    return frames_take(&l->frames, offset_now(l), &turn->due_ns);
}

static bool frame_done(struct load *l, const struct turn *turn, struct outcome *outcome) {
    l->misses += (double)(turn->ended_ns - turn->due_ns) > l->frames.period_ns;
    return timed_done(l, turn, outcome);
}

static void begin_group(struct load *l, int64_t number) {
    l->group = (struct group){.number = number, .over = !wanted(l, number)};
    l->group.start_ns = offset_now(l);
    pthread_cond_broadcast(&l->turned);
}

static bool take_of_group(struct load *l, struct turn *turn) {
    struct group *g = &l->group;
    while (!g->over && g->taken == l->options->samples_per_query)
        pthread_cond_wait(&l->turned, &l->lock);
    if (g->over)
        return false;
    if (g->number == 0 && g->taken == 0) /* the first query begins when the first lane is there */
        g->start_ns = offset_now(l);
    g->taken++;
    turn->number = g->number;
    turn->due_ns = -1;
    return true;
}

static bool group_done(struct load *l, const struct turn *turn, struct outcome *outcome) {
    struct group *g = &l->group;
    g->latest_ns = turn->ended_ns > g->latest_ns ? turn->ended_ns : g->latest_ns;
    if (++g->done < l->options->samples_per_query)
        return false;
    *outcome = (struct outcome){g->number, g->start_ns, g->latest_ns - g->start_ns};
    begin_group(l, g->number + 1);
    return true;
}

static const struct policy POLICIES[] = {
    [SINGLE_STREAM] = {take_at_once, call_done}, [MULTI_STREAM] = {take_of_group, group_done},
    [SERVER] = {take_arrival, timed_done},       [OFFLINE] = {take_at_once, call_done},
    [FIXED_RATE] = {take_frame, frame_done},
};

static void load_sample(struct lane *lane, size_t sample) {
    struct load *l = lane->load;
    if (l->in_order) {
        feeds_load(&l->b->feeds, &l->b->engine, sample, sample == 0);
    } else if (lane->bound != sample % l->resident.count) {
        lane->bound = sample % l->resident.count;
        resident_bind(&l->resident, &l->b->engine, lane->index, lane->bound);
    }
}

static void let_go(struct lane *lane) {
    struct load *l = lane->load;
    if (l->in_order)
        feeds_keep_state(&l->b->feeds, &l->b->engine);
    l->b->engine.ops->release_outputs(&l->b->engine, lane->index);
}

/* Returns how late the wake-up was, or -1 without a sleep. */
static int64_t sleep_until(const struct load *l, int64_t due_ns) {
    int64_t at = l->origin_ns + due_ns;
    const struct timespec when = {.tv_sec = at / 1000000000, .tv_nsec = at % 1000000000};
    if (due_ns < 0 || now_ns() >= at)
        return -1;
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &when, NULL) == EINTR)
        continue;
    return now_ns() - at;
}

static bool take(struct load *l, struct turn *turn) {
    pthread_mutex_lock(&l->lock);
    bool taken = l->policy->take(l, turn);
    turn->sample = (size_t)l->issued % l->b->feeds.samples;
    l->issued += taken;
    pthread_mutex_unlock(&l->lock);
    return taken;
}

static void note(struct load *l, const struct turn *turn, int64_t late_ns) {
    struct outcome outcome;
    pthread_mutex_lock(&l->lock);
    l->inferences++;
    l->last_ns = turn->ended_ns > l->last_ns ? turn->ended_ns : l->last_ns;
    spread_add(&l->call, turn->ended_ns - turn->began_ns);
    if (late_ns >= 0)
        spread_add(&l->late, late_ns);
    bool finished = l->policy->done(l, turn, &outcome);
    pthread_mutex_unlock(&l->lock);
    if (finished)
        recorder_put(&l->recorder, outcome.number, outcome.start_ns, outcome.latency_ns);
}

static void serve(struct lane *lane) {
    struct load *l = lane->load;
    const struct engine_ops *ops = l->b->engine.ops;
    for (struct turn turn; take(l, &turn);) {
        load_sample(lane, turn.sample);
        int64_t late_ns = sleep_until(l, turn.due_ns);
        int64_t began = now_ns();
        ops->infer(&l->b->engine, lane->index);
        int64_t ended = now_ns();
        let_go(lane);
        turn.began_ns = began - l->origin_ns;
        turn.ended_ns = ended - l->origin_ns;
        note(l, &turn, late_ns);
    }
}

/* All lanes at once: what an engine allocates for several at a time is warm too. One that carries state is warm. */
static void warm_up(struct lane *lane) {
    struct load *l = lane->load;
    for (long i = 0; !l->in_order && i <= l->options->warmup; i++) {
        load_sample(lane, (size_t)i + lane->index);
        l->b->engine.ops->infer(&l->b->engine, lane->index);
        let_go(lane);
    }
    prctl(PR_SET_TIMERSLACK, 1UL); /* the default would let each wake-up be 50 us late */
}

static void *run_lane(void *argument) {
    struct lane *lane = argument;
    warm_up(lane);
    pthread_barrier_wait(&lane->load->warm);
    pthread_barrier_wait(&lane->load->started);
    serve(lane);
    return NULL;
}

static void start_clock(struct load *l) {
    uint64_t seed = (uint64_t)l->options->seed;
    queue_open(&l->queue, l->options->qps > 0 ? l->options->qps : 1, seed, l->extent);
    frames_open(&l->frames, l->options->fps > 0 ? l->options->fps : 1, l->extent);
    bool timed = l->options->scenario == SERVER || l->options->scenario == FIXED_RATE;
    l->origin_ns = now_ns() + (timed ? LEAD_NS : 0);
    begin_group(l, 0);
}

/* Runs all lanes to their end; what was used counts from the start of the clock. */
static struct sampler *drive(struct load *l, struct lane *lanes, struct usage *used) {
    size_t count = (size_t)l->options->streams;
    struct usage before, after;
    for (size_t i = 0; i < count; i++) {
        lanes[i] = (struct lane){.load = l, .index = i, .bound = NO_SAMPLE};
        if (i > 0 && pthread_create(&lanes[i].thread, NULL, run_lane, &lanes[i]) != 0)
            fail(EXIT_MEMORY, "cannot start %zu threads", count);
    }
    warm_up(&lanes[0]);
    pthread_barrier_wait(&l->warm);
    struct sampler *sampler = sampler_start(l->options->sample_ms);
    reset_peak();
    sample_usage(&before);
    start_clock(l);
    pthread_barrier_wait(&l->started);
    serve(&lanes[0]);
    for (size_t i = 1; i < count; i++)
        pthread_join(lanes[i].thread, NULL);
    sample_usage(&after);
    sampler_stop(sampler);
    note_memory(l->b);
    *used = usage_between(&before, &after);
    return sampler;
}

static void open_load(struct load *l, struct bench *b, const struct options *options) {
    l->b = b;
    l->options = options;
    l->policy = &POLICIES[options->scenario];
    l->in_order = options->scenario == SINGLE_STREAM || b->feeds.has_state;
    l->extent = (struct extent){(int64_t)(options->duration * 1e9), options->min_runs,
                                options->latencies ? UNBOUNDED : MOST_HELD_QUERIES};
    pthread_mutex_init(&l->lock, NULL);
    pthread_cond_init(&l->turned, NULL);
    pthread_barrier_init(&l->warm, NULL, (unsigned)options->streams);
    pthread_barrier_init(&l->started, NULL, (unsigned)options->streams);
    if (!l->in_order)
        resident_load(&l->resident, &b->feeds, &b->engine);
    recorder_open(&l->recorder, options->latencies);
}

static void write_asked(const struct options *options, struct json *j) {
    json_begin(j, "scenario", '{');
    json_string(j, "kind", options->scenario_name);
    json_real(j, "duration_s", options->duration);
    json_int(j, "min_runs", options->min_runs);
    json_int(j, "streams", options->streams);
    json_real(j, "qps", options->qps);
    json_real(j, "fps", options->fps);
    json_int(j, "samples_per_query", options->scenario == MULTI_STREAM ? options->samples_per_query : 1);
    json_int(j, "seed", options->seed);
    json_end(j, '}');
}

/* What came: null where nothing is scheduled. */
static void write_arrivals(const struct load *l, struct json *j) {
    bool server = l->options->scenario == SERVER, camera = l->options->scenario == FIXED_RATE;
    json_count(j, "scheduled", server ? l->queue.scheduled : camera ? l->frames.scheduled : -1);
    json_count(j, "dropped", server ? l->queue.dropped : camera ? l->frames.dropped : -1);
    json_count(j, "unfinished", server ? l->queue.unfinished : -1);
    json_count(j, "longest_queue", server ? l->queue.longest : -1);
    json_count(j, "deadline_misses", camera ? l->misses + l->frames.dropped : -1);
    spread_write(&l->wait, j, "wait_ns");
    spread_write(&l->late, j, "late_ns");
}

static void write_result(struct load *l, const struct usage *used, struct json *j) {
    recorder_finish(&l->recorder, j);
    json_int(j, "inferences", l->inferences);
    json_int(j, "span_ns", l->last_ns);
    spread_write(&l->call, j, "call_ns");
    write_arrivals(l, j);
    json_int(j, "resident_samples", (int64_t)l->resident.count);
    json_int(j, "resident_bytes", l->resident.bytes);
    write_usage(used, j);
}

void run_scenario(struct bench *b, const struct options *options) {
    struct load *l = allocate(1, sizeof *l);
    struct lane *lanes = allocate((size_t)options->streams, sizeof *lanes);
    struct usage used;
    struct json j;
    json_open(&j);
    json_begin(&j, NULL, '{');
    json_int(&j, "protocol", EKRUN_PROTOCOL);
    json_string(&j, "verb", "bench");
    write_asked(options, &j);
    write_load(b, &j);
    write_conditions(&j, "conditions_before");
    open_load(l, b, options);
    struct sampler *sampler = drive(l, lanes, &used);
    write_conditions(&j, "conditions_after");
    b->runs = l->inferences;
    write_result(l, &used, &j);
    sampler_write(sampler, l->origin_ns, &j);
    finish_bench(b, &j);
    resident_free(&l->resident);
    json_end(&j, '}');
    json_print(&j);
}
