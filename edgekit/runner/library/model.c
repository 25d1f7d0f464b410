/* A model: opened once, used by all threads, never changed until it is closed. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "library.h"

#define SAME(name) _Static_assert((int)EKRUN_##name == (int)DT_##name, #name)
SAME(FLOAT16);
SAME(BFLOAT16);
SAME(FLOAT32);
SAME(FLOAT64);
SAME(INT8);
SAME(INT16);
SAME(INT32);
SAME(INT64);
SAME(UINT8);
SAME(UINT16);
SAME(UINT32);
SAME(UINT64);
SAME(BOOL);
_Static_assert(EKRUN_MAX_RANK == MAX_RANK, "EKRUN_MAX_RANK");

#define SAME_CODE(name) _Static_assert((int)EKRUN_##name == (int)EXIT_##name, #name)
SAME_CODE(USAGE);
SAME_CODE(LIBRARY);
SAME_CODE(MODEL);
SAME_CODE(INPUT);
SAME_CODE(INFERENCE);
SAME_CODE(IO);
SAME_CODE(MEMORY);

uint32_t ekrun_api(void) { return EKRUN_API; }

static bool is_dtype(int32_t dtype) { return dtype > DT_NONE && dtype < DT_COUNT; }

const char *ekrun_dtype_name(int32_t dtype) { return is_dtype(dtype) ? DTYPES[dtype].name : NULL; }

size_t ekrun_dtype_size(int32_t dtype) { return is_dtype(dtype) ? DTYPES[dtype].size : 0; }

/* ------------------------------------------------------------------------------------------------------------ opening */

struct opening {
    const char *folder;
    const ekrun_options *asked;
    ekrun_model *model;
};

/* Fields that the caller's header does not have yet are zero; those that this library does not know must be. */
static ekrun_options known_options(const ekrun_options *asked) {
    ekrun_options options = {0};
    if (!asked)
        return options;
    const unsigned char *bytes = (const unsigned char *)asked;
    if (asked->size < sizeof asked->size || asked->size > 4096)
        fail(EXIT_USAGE, "options: their size, %zu bytes, is none", asked->size);
    for (size_t i = sizeof options; i < asked->size; i++)
        if (bytes[i])
            fail(EXIT_USAGE, "options: they have a field that this libekrun does not know");
    memcpy(&options, asked, asked->size < sizeof options ? asked->size : sizeof options);
    if (options.reserved || options.threads < 0 || options.threads > 1024)
        fail(EXIT_USAGE, "options: threads are 1 to 1024, or 0 for those of the bundle; reserved is 0");
    return options;
}

static void fill_options(struct options *options, const struct place *place, const ekrun_options *asked) {
    const struct deployment *d = &place->deployment;
    ekrun_options given = known_options(asked);
    *options = (struct options){
        .engine = d->engine,
        .lib = place->library,
        .model = place->model,
        .precision = d->precision,
        .threads = given.threads ? given.threads : (long)d->threads,
        .streams = 1, /* what OpenVINO computes at a time, unless the bundle says otherwise; more streams take turns */
        .engine_options = d->options,
        .states = d->states,
    };
    if (strcmp(d->precision, "f32") && strcmp(d->precision, "bf16") && strcmp(d->precision, "f16"))
        fail(EXIT_INPUT, DEPLOYMENT_FILE ": no precision is called %s", d->precision);
}

static void add_state(ekrun_model *model, const struct pair *pair) {
    struct engine *engine = &model->engine;
    long output = engine_find(engine, pair->key, false), input = engine_find(engine, pair->value, true);
    if (output < 0 || input < 0)
        fail(EXIT_INPUT, DEPLOYMENT_FILE ": the model has no state '%s' from '%s'", pair->value, pair->key);
    if (model->states[input] >= 0)
        fail(EXIT_INPUT, DEPLOYMENT_FILE ": input '%s' is the state of two outputs", pair->value);
    enum dtype left = engine->outputs[output].dtype, taken = engine->inputs[input].dtype;
    if (left != taken)
        fail(EXIT_INPUT, DEPLOYMENT_FILE ": state '%s' is %s, but input '%s' is %s", pair->key, DTYPES[left].name,
             pair->value, DTYPES[taken].name);
    model->states[input] = output;
}

static void open_model(void *argument) {
    struct opening *o = argument;
    ekrun_model *model = o->model = allocate(1, sizeof *model);
    model->users = 1;
    place_open(&model->place, o->folder);
    fill_options(&model->options, &model->place, o->asked);
    load_engine(&model->engine, &model->options, &model->place.deployment);
    model->engine.ops->open(&model->engine);
    model->states = allocate(model->engine.input_count, sizeof *model->states);
    for (size_t i = 0; i < model->engine.input_count; i++)
        model->states[i] = -1;
    for (size_t i = 0; i < model->options.states.count; i++)
        add_state(model, &model->options.states.items[i]);
    snprintf(model->label, sizeof model->label, "%s %s", model->engine.ops->name, model->engine.version);
}

int ekrun_model_open(const char *folder, const ekrun_options *options, ekrun_model **model) {
    if (model)
        *model = NULL;
    if (!folder || !model)
        return misuse("ekrun_model_open: a folder and a place for the model are needed");
    if (is_forked())
        return refuse_forked();
    struct opening opening = {.folder = folder, .asked = options};
    int status = call(open_model, &opening);
    if (status == EKRUN_OK)
        *model = opening.model;
    else
        model_release(opening.model);
    return status;
}

void model_release(ekrun_model *model) {
    if (!model || is_forked() || atomic_fetch_sub(&model->users, 1) != 1)
        return;
    engine_close(&model->engine);
    place_free(&model->place);
    free(model->states);
    free(model);
}

void ekrun_model_close(ekrun_model *model) { model_release(model); }

/* ------------------------------------------------------------------------------------------------------------- telling */

const char *ekrun_model_engine(const ekrun_model *model) { return model ? model->label : NULL; }

size_t ekrun_model_inputs(const ekrun_model *model) { return model ? model->engine.input_count : 0; }

size_t ekrun_model_outputs(const ekrun_model *model) { return model ? model->engine.output_count : 0; }

static int describe(const struct port *ports, size_t count, size_t index, ekrun_tensor *told) {
    if (index >= count)
        return misuse("the model has no tensor of this index");
    const struct port *port = &ports[index];
    *told = (ekrun_tensor){.name = port->name, .dims = port->dims, .rank = port->rank, .dtype = (int32_t)port->dtype};
    if (port->rank >= 0 && !shape_bytes(port->dims, port->rank, DTYPES[port->dtype].size, &told->bytes))
        told->bytes = 0; /* a dimension is not fixed */
    return EKRUN_OK;
}

int ekrun_model_input(const ekrun_model *model, size_t index, ekrun_tensor *input) {
    if (!model || !input)
        return misuse("ekrun_model_input: a model and a place for the answer are needed");
    return describe(model->engine.inputs, model->engine.input_count, index, input);
}

int ekrun_model_output(const ekrun_model *model, size_t index, ekrun_tensor *output) {
    if (!model || !output)
        return misuse("ekrun_model_output: a model and a place for the answer are needed");
    return describe(model->engine.outputs, model->engine.output_count, index, output);
}

int64_t ekrun_model_state(const ekrun_model *model, size_t input) {
    return model && input < model->engine.input_count ? model->states[input] : -1;
}
