/* A stream: a lane of the engine, what is bound to it, and the states it carries.
 *
 * - an input is the caller's memory during a run, or a state's buffer. Nothing of the caller's is read outside of a run;
 * - all is checked before the engine is asked, and states are written last, where nothing can fail any more.
 */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "library.h"

struct input {
    struct tensor bound;   /* what the engine has */
    bool is_bound, given;  /* given: in this run */
    struct tensor state;   /* what its output left, in a buffer of its own */
    size_t capacity;
    bool is_set; /* left by a run */
};

struct ekrun_stream {
    ekrun_model *model;
    struct engine engine; /* a branch of the model's */
    struct input *inputs;
    struct tensor *outputs;
    bool has_run;
    atomic_flag busy;
};

/* For tensors without elements: engines take no null pointer. */
static _Alignas(64) char nothing[64];

static void open_stream(void *argument) {
    ekrun_stream *stream = argument;
    const struct engine *engine = &stream->model->engine;
    engine_branch(&stream->engine, engine);
    stream->inputs = allocate(engine->input_count, sizeof *stream->inputs);
    stream->outputs = allocate(engine->output_count, sizeof *stream->outputs);
}

int ekrun_stream_open(ekrun_model *model, ekrun_stream **stream) {
    if (stream)
        *stream = NULL;
    if (!model || !stream)
        return misuse("ekrun_stream_open: a model and a place for the stream are needed");
    if (is_forked())
        return refuse_forked();
    ekrun_stream *made = calloc(1, sizeof *made);
    if (!made)
        return refuse(EXIT_MEMORY, "out of memory for a stream");
    atomic_flag_clear(&made->busy);
    atomic_fetch_add(&model->users, 1);
    made->model = model;
    int status = call(open_stream, made);
    if (status == EKRUN_OK)
        *stream = made;
    else
        ekrun_stream_close(made);
    return status;
}

void ekrun_stream_close(ekrun_stream *stream) {
    if (!stream || is_forked())
        return;
    if (stream->engine.ops)
        engine_close(&stream->engine);
    for (size_t i = 0; stream->inputs && i < stream->model->engine.input_count; i++)
        free(stream->inputs[i].state.data);
    free(stream->inputs);
    free(stream->outputs);
    model_release(stream->model);
    free(stream);
}

/* ----------------------------------------------------------------------------------------------------------- one run */

struct run {
    ekrun_stream *stream;
    const ekrun_tensor *inputs;
    size_t count;
};

static void check_shape(const struct port *port, const ekrun_tensor *given) {
    char wanted[256], found[256];
    if (given->rank < 0 || given->rank > MAX_RANK || (given->rank && !given->dims))
        fail(EXIT_INPUT, "input '%s' is given %" PRId32 " dimensions, or none where there must be", port->name,
             given->rank);
    if (!shape_admits(port, given->dims, given->rank))
        fail(EXIT_INPUT, "input '%s' has shape %s, %s is given", port->name,
             shape_text(port->dims, port->rank, wanted, sizeof wanted),
             shape_text(given->dims, given->rank, found, sizeof found));
}

/* What the caller gives for `port`, in the terms of engines. */
static struct tensor checked(const struct port *port, const ekrun_tensor *given) {
    struct tensor tensor = {.dtype = port->dtype};
    if (given->dtype != (int32_t)port->dtype) {
        const char *name = ekrun_dtype_name(given->dtype);
        fail(EXIT_INPUT, "input '%s' is %s, %s is given", port->name, DTYPES[port->dtype].name,
             name ? name : "no dtype");
    }
    check_shape(port, given);
    tensor.rank = given->rank;
    if (tensor.rank)
        memcpy(tensor.dims, given->dims, (size_t)tensor.rank * sizeof *tensor.dims);
    if (!shape_bytes(tensor.dims, tensor.rank, DTYPES[port->dtype].size, &tensor.bytes) ||
        tensor.bytes != given->bytes)
        fail(EXIT_INPUT, "input '%s' is given %zu bytes, its shape and type need %zu", port->name, given->bytes,
             tensor.bytes);
    if (tensor.bytes && !given->data)
        fail(EXIT_INPUT, "input '%s' is given no data", port->name);
    tensor.data = tensor.bytes ? (void *)given->data : nothing;
    return tensor;
}

static bool same(const struct tensor *one, const struct tensor *other) {
    return one->data == other->data && one->rank == other->rank &&
           memcmp(one->dims, other->dims, (size_t)one->rank * sizeof *one->dims) == 0;
}

/* The data of a tensor that is bound already may be another by now: that is not the engine's concern. */
static void bind(ekrun_stream *stream, size_t index, const struct tensor *tensor) {
    struct input *input = &stream->inputs[index];
    if (input->is_bound && same(&input->bound, tensor))
        return;
    input->is_bound = false;
    stream->engine.ops->bind(&stream->engine, 0, index, tensor);
    input->bound = *tensor;
    input->is_bound = true;
}

static void bind_given(ekrun_stream *stream, const ekrun_tensor *given) {
    if (!given->name)
        fail(EXIT_USAGE, "an input without a name is given");
    long index = engine_find(&stream->engine, given->name, true);
    if (index < 0)
        fail(EXIT_INPUT, "the model has no input '%s'", given->name);
    if (stream->inputs[index].given)
        fail(EXIT_INPUT, "input '%s' is given twice", given->name);
    struct tensor tensor = checked(&stream->engine.inputs[index], given);
    stream->inputs[index].given = true;
    bind(stream, (size_t)index, &tensor);
}

/* Makes room for a state, and keeps what is in it. */
static void reserve(struct input *input, size_t bytes) {
    if (input->state.data && bytes <= input->capacity)
        return;
    void *larger = allocate_aligned(bytes);
    if (input->is_set)
        memcpy(larger, input->state.data, input->state.bytes);
    free(input->state.data);
    input->state.data = larger;
    input->capacity = bytes;
}

static void set_zero(struct input *input, const struct port *port) {
    size_t bytes;
    if (port->rank < 0 || !shape_bytes(port->dims, port->rank, DTYPES[port->dtype].size, &bytes))
        fail(EXIT_INPUT, "state '%s' has no fixed shape to begin with as zeros: give its initial value", port->name);
    reserve(input, bytes);
    input->state.dtype = port->dtype;
    input->state.rank = port->rank;
    input->state.bytes = bytes;
    memcpy(input->state.dims, port->dims, (size_t)port->rank * sizeof *port->dims);
    memset(input->state.data, 0, bytes);
}

static void bind_state(ekrun_stream *stream, size_t index) {
    struct input *input = &stream->inputs[index];
    const struct port *port = &stream->engine.inputs[index];
    char wanted[256], left[256];
    if (stream->model->states[index] < 0)
        fail(EXIT_INPUT, "input '%s' is not given", port->name);
    if (!input->is_set)
        set_zero(input, port);
    if (!shape_admits(port, input->state.dims, input->state.rank))
        fail(EXIT_INPUT, "state '%s' was left with shape %s, the input takes %s", port->name,
             shape_text(input->state.dims, input->state.rank, left, sizeof left),
             shape_text(port->dims, port->rank, wanted, sizeof wanted));
    bind(stream, index, &input->state);
}

static void bind_all(const struct run *run) {
    ekrun_stream *stream = run->stream;
    size_t count = stream->engine.input_count;
    for (size_t i = 0; i < count; i++)
        stream->inputs[i].given = false;
    for (size_t i = 0; i < run->count; i++)
        bind_given(stream, &run->inputs[i]);
    for (size_t i = 0; i < count; i++)
        if (!stream->inputs[i].given)
            bind_state(stream, i);
}

static void view_outputs(ekrun_stream *stream) {
    for (size_t i = 0; i < stream->engine.output_count; i++)
        stream->engine.ops->output(&stream->engine, 0, i, &stream->outputs[i]);
}

static void keep_states(ekrun_stream *stream) {
    const long *states = stream->model->states;
    size_t count = stream->engine.input_count;
    for (size_t i = 0; i < count; i++)
        if (states[i] >= 0)
            reserve(&stream->inputs[i], stream->outputs[states[i]].bytes);
    for (size_t i = 0; i < count; i++) {
        if (states[i] < 0)
            continue;
        struct input *input = &stream->inputs[i];
        const struct tensor *left = &stream->outputs[states[i]];
        void *data = input->state.data;
        input->state = *left;
        input->state.data = data;
        if (left->bytes)
            memcpy(data, left->data, left->bytes);
        input->is_set = true;
    }
}

static void run_once(void *argument) {
    struct run *run = argument;
    ekrun_stream *stream = run->stream;
    stream->has_run = false;
    stream->engine.ops->release_outputs(&stream->engine, 0);
    bind_all(run);
    stream->engine.ops->infer(&stream->engine, 0);
    view_outputs(stream);
    keep_states(stream);
    stream->has_run = true;
}

static int in_use(void) { return misuse("the stream is in use by another thread: each needs one of its own"); }

int ekrun_stream_run(ekrun_stream *stream, const ekrun_tensor *inputs, size_t count) {
    struct run run = {stream, inputs, count};
    if (!stream || (count && !inputs))
        return misuse("ekrun_stream_run: a stream and its inputs are needed");
    if (is_forked())
        return refuse_forked();
    if (atomic_flag_test_and_set(&stream->busy))
        return in_use();
    int status = call(run_once, &run);
    atomic_flag_clear(&stream->busy);
    return status;
}

int ekrun_stream_output(const ekrun_stream *stream, size_t index, ekrun_tensor *output) {
    if (!stream || !output)
        return misuse("ekrun_stream_output: a stream and a place for the answer are needed");
    if (!stream->has_run)
        return misuse("the stream has no outputs: its last run failed, or there was none");
    if (index >= stream->engine.output_count)
        return misuse("the model has no output of this index");
    const struct tensor *view = &stream->outputs[index];
    *output = (ekrun_tensor){
        .name = stream->engine.outputs[index].name,
        .data = view->bytes ? view->data : nothing,
        .bytes = view->bytes,
        .dims = view->dims,
        .rank = view->rank,
        .dtype = (int32_t)view->dtype,
    };
    return EKRUN_OK;
}

int ekrun_stream_reset(ekrun_stream *stream) {
    if (!stream)
        return misuse("ekrun_stream_reset: a stream is needed");
    if (is_forked())
        return refuse_forked();
    if (atomic_flag_test_and_set(&stream->busy))
        return in_use();
    for (size_t i = 0; i < stream->engine.input_count; i++)
        stream->inputs[i].is_set = false;
    atomic_flag_clear(&stream->busy);
    return EKRUN_OK;
}
