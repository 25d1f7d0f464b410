/* OpenVINO through its C API on the CPU, declared by hand and bound by dlsym.
 *
 * Settings are made on the core before the model is compiled: ov_core_compile_model takes its properties as variadic
 * arguments, whose number C cannot choose at run time, and its array form is missing before 2026.
 */
#define _GNU_SOURCE /* sigaltstack */
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine.h"
#include "fail.h"
#include "proc.h"

typedef struct ov_core ov_core;
typedef struct ov_model ov_model;
typedef struct ov_compiled ov_compiled;
typedef struct ov_request ov_request;
typedef struct ov_port ov_port;
typedef struct ov_tensor ov_tensor;

struct ov_shape {
    int64_t rank;
    int64_t *dims;
};

struct ov_dimension {
    int64_t min, max; /* fixed when equal */
};

struct ov_partial_shape {
    struct ov_dimension rank, *dims;
};

struct ov_layer {
    int status;
    int64_t real_us, cpu_us; /* the mean of all inferences of the stream so far, in whole microseconds */
    const char *name, *exec_type, *type;
};

struct ov_layers {
    struct ov_layer *items;
    size_t count;
};

struct ov_version {
    const char *build_number, *description;
};

#define DEVICE "CPU"

enum { OV_INVALID_C_PARAM = -14, OV_LAYER_EXECUTED = 2 };

#define OV_FUNCTIONS(X)                                                                                                \
    X(const char *, ov_get_last_err_msg, (void))                                                                       \
    X(int, ov_get_openvino_version, (struct ov_version *))                                                             \
    X(void, ov_version_free, (struct ov_version *))                                                                    \
    X(void, ov_free, (const char *))                                                                                   \
    X(int, ov_core_create, (ov_core **))                                                                               \
    X(void, ov_core_free, (ov_core *))                                                                                 \
    X(int, ov_core_read_model, (const ov_core *, const char *path, const char *weights, ov_model **))                  \
    X(int, ov_core_get_property, (const ov_core *, const char *device, const char *key, char **value))                 \
    X(int, ov_core_set_property, (const ov_core *, const char *device, ...))                                           \
    X(int, ov_core_compile_model,                                                                                      \
      (const ov_core *, const ov_model *, const char *device, size_t, ov_compiled **, ...))                            \
    X(void, ov_model_free, (ov_model *))                                                                               \
    X(void, ov_compiled_model_free, (ov_compiled *))                                                                   \
    X(int, ov_compiled_model_inputs_size, (const ov_compiled *, size_t *))                                             \
    X(int, ov_compiled_model_outputs_size, (const ov_compiled *, size_t *))                                            \
    X(int, ov_compiled_model_input_by_index, (const ov_compiled *, size_t, ov_port **))                                \
    X(int, ov_compiled_model_output_by_index, (const ov_compiled *, size_t, ov_port **))                               \
    X(int, ov_compiled_model_input_by_name, (const ov_compiled *, const char *, ov_port **))                           \
    X(int, ov_compiled_model_output_by_name, (const ov_compiled *, const char *, ov_port **))                          \
    X(int, ov_compiled_model_get_property, (const ov_compiled *, const char *key, char **value))                       \
    X(int, ov_compiled_model_create_infer_request, (const ov_compiled *, ov_request **))                               \
    X(void, ov_infer_request_free, (ov_request *))                                                                     \
    X(int, ov_infer_request_infer, (ov_request *))                                                                     \
    X(int, ov_infer_request_set_input_tensor_by_index, (ov_request *, size_t, const ov_tensor *))                      \
    X(int, ov_infer_request_get_output_tensor_by_index, (const ov_request *, size_t, ov_tensor **))                    \
    X(int, ov_infer_request_get_profiling_info, (const ov_request *, struct ov_layers *))                              \
    X(void, ov_profiling_info_list_free, (struct ov_layers *))                                                         \
    X(int, ov_port_get_any_name, (const ov_port *, char **))                                                           \
    X(int, ov_port_get_element_type, (const ov_port *, int *))                                                         \
    X(int, ov_port_get_partial_shape, (const ov_port *, struct ov_partial_shape *))                                    \
    X(void, ov_output_const_port_free, (ov_port *))                                                                    \
    X(void, ov_partial_shape_free, (struct ov_partial_shape *))                                                        \
    X(int, ov_shape_free, (struct ov_shape *))                                                                         \
    X(int, ov_tensor_create, (int type, struct ov_shape, ov_tensor **))                                                \
    X(int, ov_tensor_create_from_host_ptr, (int type, struct ov_shape, void *, ov_tensor **))                          \
    X(int, ov_tensor_get_shape, (const ov_tensor *, struct ov_shape *))                                                \
    X(int, ov_tensor_get_byte_size, (const ov_tensor *, size_t *))                                                     \
    X(int, ov_tensor_data, (const ov_tensor *, void **))                                                               \
    X(void, ov_tensor_free, (ov_tensor *))

struct api {
#define DECLARE(result, name, args) result(*name) args;
    OV_FUNCTIONS(DECLARE)
#undef DECLARE
};

struct lane {
    ov_request *request;
    ov_tensor **inputs, **outputs;
};

struct openvino {
    struct api api;
    ov_core *core;
    ov_model *model;
    ov_compiled *compiled;
    struct lane *lanes;
    ov_port *port;            /* while it is read */
    struct ov_layers skipped; /* verb layers */
    char *resolved;
};

/* Element types by OpenVINO's number, since 2025. */
static const enum dtype OV_DTYPES[] = {
    [1] = DT_BOOL,    [2] = DT_BFLOAT16, [3] = DT_FLOAT16, [4] = DT_FLOAT32, [5] = DT_FLOAT64,
    [7] = DT_INT8,    [8] = DT_INT16,    [9] = DT_INT32,   [10] = DT_INT64,  [16] = DT_UINT8,
    [17] = DT_UINT16, [18] = DT_UINT32,  [19] = DT_UINT64,
};

enum { OV_DTYPE_COUNT = sizeof OV_DTYPES / sizeof *OV_DTYPES };

static enum dtype from_ov(int type) { return type > 0 && type < OV_DTYPE_COUNT ? OV_DTYPES[type] : DT_NONE; }

static int to_ov(enum dtype dtype) {
    int type = 1;
    while (OV_DTYPES[type] != dtype)
        type++;
    return type;
}

static void must(struct openvino *ov, int status, enum exit_code code, const char *what) {
    if (status == 0)
        return;
    char message[2048] = "";
    const char *told = ov->api.ov_get_last_err_msg(); /* a copy, and of whichever thread failed last */
    if (told) {
        snprintf(message, sizeof message, "%s", told);
        ov->api.ov_free(told);
    }
    if (*message)
        fail(unless_memory(code, message), "%s: %s", what, message);
    fail(code, "%s: OpenVINO status %d", what, status);
}

static void load_api(struct engine *engine, struct openvino *ov) {
#define ASSIGN(result, name, args) ov->api.name = (result(*) args)engine_symbol(engine, #name);
    OV_FUNCTIONS(ASSIGN)
#undef ASSIGN
    struct ov_version version = {0};
    must(ov, ov->api.ov_get_openvino_version(&version), EXIT_LIBRARY, "version");
    snprintf(engine->version, sizeof engine->version, "%s", version.build_number ? version.build_number : "");
    ov->api.ov_version_free(&version);
}

/* OpenVINO has renumbered its element types before. A wrong number would misread data, so each is checked by the size
 * of a tensor made with it: eight elements, so that types below a byte show. */
static void check_numbering(struct engine *engine, struct openvino *ov) {
    int64_t eight = 8;
    struct ov_shape shape = {1, &eight};
    for (int type = 1; type < OV_DTYPE_COUNT; type++) {
        ov_tensor *tensor = NULL;
        size_t bytes = 0;
        if (OV_DTYPES[type] == DT_NONE)
            continue;
        must(ov, ov->api.ov_tensor_create(type, shape, &tensor), EXIT_LIBRARY, "element types");
        int status = ov->api.ov_tensor_get_byte_size(tensor, &bytes);
        ov->api.ov_tensor_free(tensor);
        must(ov, status, EXIT_LIBRARY, "element types");
        if (bytes != 8 * DTYPES[OV_DTYPES[type]].size)
            fail(EXIT_LIBRARY, "OpenVINO %s numbers its element types in another way than 2025 to 2026 do",
                 engine->version);
    }
}

static const char *const COMPANIONS[] = {"libgcc_s.so.", "libstdc++.so.", "libtbb.so.", "libopenvino.so.", NULL};

static void openvino_load(struct engine *engine) {
    struct openvino *ov = engine->impl = allocate(1, sizeof *ov);
    load_api(engine, ov);
    check_numbering(engine, ov);
}

enum { PRECISION, THREADS, STREAMS, PINNING, DEFAULTS };

struct defaults {
    char threads[16], streams[16];
    struct pair pairs[DEFAULTS];
};

/* What ekrun itself sets; --option may set each of them otherwise. One thread must not be pinned to CPU 0. */
static void default_settings(const struct options *asked, struct defaults *d) {
    snprintf(d->threads, sizeof d->threads, "%ld", asked->threads);
    snprintf(d->streams, sizeof d->streams, "%ld", asked->streams);
    d->pairs[PRECISION] = (struct pair){"INFERENCE_PRECISION_HINT", asked->precision};
    d->pairs[THREADS] = (struct pair){"INFERENCE_NUM_THREADS", d->threads};
    d->pairs[STREAMS] = (struct pair){"NUM_STREAMS", d->streams};
    d->pairs[PINNING] = (struct pair){"ENABLE_CPU_PINNING", "NO"};
}

/* Until the device's plugin is loaded, a core stores its properties unchecked, and a wrong one would fail later, as if
 * the model were at fault. */
static void load_plugin(struct openvino *ov) {
    char *name;
    stack_t own;
    sigaltstack(NULL, &own);
    int status = ov->api.ov_core_get_property(ov->core, DEVICE, "FULL_DEVICE_NAME", &name);
    /* The plugin gives this thread a signal stack that has room for AMX, and unmaps it when it is unloaded. Where two were
     * loaded, or another thread unloads it, what was there before does not come back: a signal would end the process. So the
     * thread keeps its own. */
    sigaltstack(&own, NULL);
    must(ov, status, EXIT_LIBRARY, "OpenVINO's plugin for the " DEVICE);
    ov->api.ov_free(name);
}

static void set_property(struct openvino *ov, const struct pair *option) {
    must(ov, ov->api.ov_core_set_property(ov->core, DEVICE, option->key, option->value), EXIT_USAGE, option->key);
}

static void apply_settings(struct openvino *ov, const struct options *asked) {
    static const struct pair profiled = {"PERF_COUNT", "YES"};
    struct defaults defaults;
    default_settings(asked, &defaults);
    for (size_t i = 0; i < DEFAULTS; i++)
        set_property(ov, &defaults.pairs[i]);
    if (asked->verb == VERB_LAYERS)
        set_property(ov, &profiled);
    for (size_t i = 0; i < asked->engine_options.count; i++)
        set_property(ov, &asked->engine_options.items[i]);
}

static void close_port(struct openvino *ov) {
    if (ov->port)
        ov->api.ov_output_const_port_free(ov->port);
    ov->port = NULL;
}

/* A tensor needs no name: then it goes by `unnamed`, or is refused where that is NULL. */
static char *port_name(struct openvino *ov, const ov_port *port, const char *unnamed) {
    char *name = NULL;
    int status = ov->api.ov_port_get_any_name(port, &name);
    if (!unnamed)
        must(ov, status, EXIT_MODEL, "name of a tensor");
    char *copy = copy_text(status == 0 ? name : unnamed);
    if (name)
        ov->api.ov_free(name);
    if (!copy)
        fail(EXIT_MEMORY, "out of memory for the name of a tensor");
    return copy;
}

static int read_shape(const struct api *api, const ov_port *handle, struct port *port) {
    struct ov_partial_shape shape = {0};
    int status = api->ov_port_get_partial_shape(handle, &shape);
    if (status != 0)
        return status;
    bool ranked = shape.rank.min == shape.rank.max;
    port->rank = !ranked ? -1 : shape.rank.min > INT16_MAX ? INT16_MAX : (int)shape.rank.min;
    for (int i = 0; i < port->rank && i < MAX_RANK; i++)
        port->dims[i] = shape.dims[i].min == shape.dims[i].max ? shape.dims[i].min : -1;
    api->ov_partial_shape_free(&shape);
    return 0;
}

/* The handle stays in `ov`, for close, where this fails. */
static void read_port(struct openvino *ov, struct port *port, size_t index, bool is_input) {
    const struct api *api = &ov->api;
    char unnamed[32];
    int type;
    snprintf(unnamed, sizeof unnamed, "output%zu", index);
    must(ov,
         (is_input ? api->ov_compiled_model_input_by_index : api->ov_compiled_model_output_by_index)(ov->compiled,
                                                                                                     index, &ov->port),
         EXIT_MODEL, "tensor of the model");
    port->name = port_name(ov, ov->port, is_input ? NULL : unnamed);
    must(ov, api->ov_port_get_element_type(ov->port, &type), EXIT_MODEL, port->name);
    must(ov, read_shape(api, ov->port, port), EXIT_MODEL, port->name);
    port->dtype = from_ov(type);
    check_port(port, is_input ? "input" : "output");
    close_port(ov);
}

static void read_ports(struct engine *engine, struct openvino *ov) {
    must(ov, ov->api.ov_compiled_model_inputs_size(ov->compiled, &engine->input_count), EXIT_MODEL, "inputs");
    must(ov, ov->api.ov_compiled_model_outputs_size(ov->compiled, &engine->output_count), EXIT_MODEL, "outputs");
    engine->inputs = allocate(engine->input_count, sizeof *engine->inputs);
    engine->outputs = allocate(engine->output_count, sizeof *engine->outputs);
    for (size_t i = 0; i < engine->input_count; i++)
        read_port(ov, &engine->inputs[i], i, true);
    for (size_t i = 0; i < engine->output_count; i++)
        read_port(ov, &engine->outputs[i], i, false);
}

static void open_lanes(struct engine *engine, struct openvino *ov) {
    ov->lanes = allocate(engine->lane_count, sizeof *ov->lanes);
    for (size_t i = 0; i < engine->lane_count; i++)
        must(ov, ov->api.ov_compiled_model_create_infer_request(ov->compiled, &ov->lanes[i].request), EXIT_MODEL,
             engine->options->model);
}

/* Once the number of ports is known. */
static void fit_lanes(struct engine *engine, struct openvino *ov) {
    for (size_t i = 0; i < engine->lane_count; i++) {
        ov->lanes[i].inputs = allocate(engine->input_count, sizeof *ov->lanes[i].inputs);
        ov->lanes[i].outputs = allocate(engine->output_count, sizeof *ov->lanes[i].outputs);
    }
}

static void openvino_open(struct engine *engine) {
    const struct options *asked = engine->options;
    struct openvino *ov = engine->impl;
    int64_t started = now_ns();
    must(ov, ov->api.ov_core_create(&ov->core), EXIT_LIBRARY, "OpenVINO core");
    load_plugin(ov);
    apply_settings(ov, asked);
    int64_t created = now_ns();
    must(ov, ov->api.ov_core_read_model(ov->core, asked->model, NULL, &ov->model), EXIT_MODEL, asked->model);
    int64_t read = now_ns();
    must(ov, ov->api.ov_core_compile_model(ov->core, ov->model, DEVICE, (size_t)0, &ov->compiled), EXIT_MODEL,
         asked->model);
    open_lanes(engine, ov);
    engine->model_read_ns = read - created;
    engine->session_create_ns = created - started + now_ns() - read;
    ov->api.ov_model_free(ov->model); /* the compiled model holds what it needs */
    ov->model = NULL;
    read_ports(engine, ov);
    fit_lanes(engine, ov);
}

/* Core and compiled model are the engine's, which outlives it. */
static void openvino_branch(struct engine *branch, const struct engine *engine) {
    const struct openvino *whole = engine->impl;
    struct openvino *ov = branch->impl = allocate(1, sizeof *ov);
    *ov = (struct openvino){.api = whole->api, .compiled = whole->compiled};
    open_lanes(branch, ov);
    fit_lanes(branch, ov);
}

static void openvino_bind(struct engine *engine, size_t lane, size_t index, const struct tensor *tensor) {
    struct openvino *ov = engine->impl;
    const struct lane *l = &ov->lanes[lane];
    const char *name = engine->inputs[index].name;
    struct ov_shape shape = {tensor->rank, (int64_t *)tensor->dims};
    ov_tensor *made;
    must(ov, ov->api.ov_tensor_create_from_host_ptr(to_ov(tensor->dtype), shape, tensor->data, &made), EXIT_INPUT,
         name);
    if (l->inputs[index])
        ov->api.ov_tensor_free(l->inputs[index]); /* the request holds it as long as it needs it */
    l->inputs[index] = made;
    must(ov, ov->api.ov_infer_request_set_input_tensor_by_index(l->request, index, made), EXIT_INPUT, name);
}

static void openvino_infer(struct engine *engine, size_t lane) {
    struct openvino *ov = engine->impl;
    must(ov, ov->api.ov_infer_request_infer(ov->lanes[lane].request), EXIT_INFERENCE, "inference");
}

static void openvino_output(struct engine *engine, size_t lane, size_t index, struct tensor *view) {
    struct openvino *ov = engine->impl;
    ov_tensor **tensor = &ov->lanes[lane].outputs[index];
    const char *name = engine->outputs[index].name;
    struct ov_shape shape = {0, NULL};
    if (!*tensor)
        must(ov, ov->api.ov_infer_request_get_output_tensor_by_index(ov->lanes[lane].request, index, tensor),
             EXIT_INFERENCE, name);
    int status = ov->api.ov_tensor_get_shape(*tensor, &shape);
    if (status != OV_INVALID_C_PARAM) /* what it answers for a scalar: its shape record cannot have rank 0 */
        must(ov, status, EXIT_INFERENCE, name);
    view->dtype = engine->outputs[index].dtype;
    view->rank = shape.rank <= MAX_RANK ? (int)shape.rank : -1;
    if (view->rank > 0)
        memcpy(view->dims, shape.dims, (size_t)view->rank * sizeof *view->dims);
    ov->api.ov_shape_free(&shape);
    if (view->rank < 0)
        fail(EXIT_INFERENCE, "output '%s' has more than %d dimensions", name, MAX_RANK);
    if (!shape_bytes(view->dims, view->rank, DTYPES[view->dtype].size, &view->bytes))
        fail(EXIT_INFERENCE, "output '%s' is too large", name);
    size_t present;
    must(ov, ov->api.ov_tensor_get_byte_size(*tensor, &present), EXIT_INFERENCE, name);
    if (present != view->bytes)
        fail(EXIT_INFERENCE, "output '%s' has %zu bytes, its declared type and shape %zu", name, present, view->bytes);
    view->data = NULL;
    if (view->bytes)
        must(ov, ov->api.ov_tensor_data(*tensor, &view->data), EXIT_INFERENCE, name);
}

static void openvino_release_outputs(struct engine *engine, size_t lane) {
    struct openvino *ov = engine->impl;
    ov_tensor **outputs = ov->lanes[lane].outputs;
    for (size_t i = 0; i < engine->output_count; i++) {
        if (outputs[i])
            ov->api.ov_tensor_free(outputs[i]);
        outputs[i] = NULL;
    }
}

/* A tensor of an OpenVINO model may have several names, of which a port shows one. */
static const char *openvino_resolve(struct engine *engine, const char *name, bool is_input) {
    struct openvino *ov = engine->impl;
    const struct api *api = &ov->api;
    ov_port *port = NULL;
    if ((is_input ? api->ov_compiled_model_input_by_name : api->ov_compiled_model_output_by_name)(ov->compiled, name,
                                                                                                  &port) != 0)
        return NULL;
    free(ov->resolved);
    ov->resolved = port_name(ov, port, name);
    api->ov_output_const_port_free(port);
    return ov->resolved;
}

static void write_property(struct openvino *ov, struct json *j, const char *key, const char *as) {
    char *value = NULL;
    bool known = ov->api.ov_compiled_model_get_property(ov->compiled, key, &value) == 0;
    json_string(j, as, known ? value : NULL);
    if (value)
        ov->api.ov_free(value);
}

static bool is_default(const struct defaults *defaults, const char *key) {
    for (size_t i = 0; i < DEFAULTS; i++)
        if (strcmp(defaults->pairs[i].key, key) == 0)
            return true;
    return false;
}

static void openvino_settings(struct engine *engine, struct json *j) {
    struct openvino *ov = engine->impl;
    const struct options *asked = engine->options;
    struct defaults defaults;
    char *threads = NULL;
    default_settings(asked, &defaults);
    bool known = ov->api.ov_compiled_model_get_property(ov->compiled, defaults.pairs[THREADS].key, &threads) == 0;
    json_count(j, "threads", known && threads ? strtol(threads, NULL, 10) : -1);
    if (threads)
        ov->api.ov_free(threads);
    write_property(ov, j, defaults.pairs[PRECISION].key, "precision");
    json_begin(j, "options", '{');
    for (size_t i = 0; i < DEFAULTS; i++)
        write_property(ov, j, defaults.pairs[i].key, defaults.pairs[i].key);
    for (size_t i = 0; i < asked->engine_options.count; i++) {
        const char *key = asked->engine_options.items[i].key;
        if (!is_default(&defaults, key))
            write_property(ov, j, key, key);
    }
    json_end(j, '}');
}

static void read_layers(struct openvino *ov, struct ov_layers *layers) {
    *layers = (struct ov_layers){0};
    must(ov, ov->api.ov_infer_request_get_profiling_info(ov->lanes[0].request, layers), EXIT_INFERENCE, "profile");
}

static void openvino_skip_layers(struct engine *engine) {
    struct openvino *ov = engine->impl;
    read_layers(ov, &ov->skipped);
}

/* OpenVINO keeps the mean of all inferences so far; the first one, which is skipped, is taken out of it again. */
static int64_t total_us(int64_t mean, int64_t first, int64_t runs) {
    int64_t total = mean * (runs + 1) - first;
    return total > 0 ? total : 0;
}

static void write_layer(const struct ov_layer *layer, const struct ov_layer *first, int64_t runs, struct json *j) {
    json_begin(j, NULL, '{');
    json_string(j, "name", layer->name);
    json_string(j, "type", layer->type);
    json_string(j, "exec_type", layer->exec_type);
    json_int(j, "real_us", total_us(layer->real_us, first->real_us, runs));
    json_int(j, "cpu_us", total_us(layer->cpu_us, first->cpu_us, runs));
    json_int(j, "runs", runs);
    json_end(j, '}');
}

static void openvino_write_layers(struct engine *engine, int64_t runs, struct json *j) {
    struct openvino *ov = engine->impl;
    struct ov_layers layers;
    read_layers(ov, &layers);
    if (layers.count != ov->skipped.count)
        fail(EXIT_INFERENCE, "the profile had %zu layers and then %zu", ov->skipped.count, layers.count);
    json_begin(j, "layers", '[');
    for (size_t i = 0; i < layers.count; i++)
        if (layers.items[i].status == OV_LAYER_EXECUTED)
            write_layer(&layers.items[i], &ov->skipped.items[i], runs, j);
    json_end(j, ']');
    json_null(j, "profile");
    ov->api.ov_profiling_info_list_free(&layers);
}

static void free_tensors(struct openvino *ov, ov_tensor **tensors, size_t count) {
    for (size_t i = 0; tensors && i < count; i++)
        if (tensors[i])
            ov->api.ov_tensor_free(tensors[i]);
    free(tensors);
}

static void close_lane(struct engine *engine, struct openvino *ov, const struct lane *l) {
    free_tensors(ov, l->inputs, engine->input_count);
    free_tensors(ov, l->outputs, engine->output_count);
    if (l->request)
        ov->api.ov_infer_request_free(l->request);
}

/* What was made, where opening has failed on the way. */
static void close_model(struct openvino *ov) {
    close_port(ov);
    if (ov->skipped.items)
        ov->api.ov_profiling_info_list_free(&ov->skipped);
    if (ov->compiled)
        ov->api.ov_compiled_model_free(ov->compiled);
    if (ov->model)
        ov->api.ov_model_free(ov->model);
    if (ov->core)
        ov->api.ov_core_free(ov->core);
}

static void openvino_close(struct engine *engine) {
    struct openvino *ov = engine->impl;
    for (size_t i = 0; ov->lanes && i < engine->lane_count; i++)
        close_lane(engine, ov, &ov->lanes[i]);
    free(ov->lanes);
    if (!engine->is_branch)
        close_model(ov);
    free(ov->resolved);
    free(ov);
}

const struct engine_ops ENGINE_OPENVINO = {
    .name = "openvino",
    .companions = COMPANIONS,
    .load = openvino_load,
    .open = openvino_open,
    .branch = openvino_branch,
    .bind = openvino_bind,
    .infer = openvino_infer,
    .output = openvino_output,
    .release_outputs = openvino_release_outputs,
    .resolve = openvino_resolve,
    .settings = openvino_settings,
    .skip_layers = openvino_skip_layers,
    .write_layers = openvino_write_layers,
    .close = openvino_close,
};
