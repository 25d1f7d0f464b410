/* OpenVINO through its C API on the CPU, declared by hand and bound by dlsym.
 *
 * Settings are made on the core before the model is compiled: ov_core_compile_model takes its properties as variadic
 * arguments, whose number C cannot choose at run time, and its array form is missing before 2026.
 */
#include <inttypes.h>
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

struct ov_version {
    const char *build_number, *description;
};

#define DEVICE "CPU"

enum { OV_INVALID_C_PARAM = -14 };

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

struct openvino {
    struct api api;
    ov_core *core;
    ov_model *model;
    ov_compiled *compiled;
    ov_request *request;
    ov_tensor **inputs, **outputs;
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
    const char *message = ov->api.ov_get_last_err_msg();
    message = message ? message : "";
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
        must(ov, ov->api.ov_tensor_get_byte_size(tensor, &bytes), EXIT_LIBRARY, "element types");
        if (bytes != 8 * DTYPES[OV_DTYPES[type]].size)
            fail(EXIT_LIBRARY, "OpenVINO %s numbers its element types in another way than 2025 to 2026 do",
                 engine->version);
        ov->api.ov_tensor_free(tensor);
    }
}

static const char *const COMPANIONS[] = {"libgcc_s.so.", "libstdc++.so.", "libtbb.so.", "libopenvino.so.", NULL};

static void openvino_load(struct engine *engine) {
    struct openvino *ov = engine->impl = allocate(1, sizeof *ov);
    load_api(engine, ov);
    check_numbering(engine, ov);
}

/* What ekrun itself sets; --option may set each of them otherwise. One thread must not be pinned to CPU 0. */
static void default_settings(const struct options *asked, char *threads, size_t size, struct pair defaults[4]) {
    snprintf(threads, size, "%ld", asked->threads);
    defaults[0] = (struct pair){"INFERENCE_PRECISION_HINT", asked->precision};
    defaults[1] = (struct pair){"INFERENCE_NUM_THREADS", threads};
    defaults[2] = (struct pair){"NUM_STREAMS", "1"};
    defaults[3] = (struct pair){"ENABLE_CPU_PINNING", "NO"};
}

/* Until the device's plugin is loaded, a core stores its properties unchecked, and a wrong one would fail later, as if
 * the model were at fault. */
static void load_plugin(struct openvino *ov) {
    char *name;
    must(ov, ov->api.ov_core_get_property(ov->core, DEVICE, "FULL_DEVICE_NAME", &name), EXIT_LIBRARY,
         "OpenVINO's plugin for the " DEVICE);
    ov->api.ov_free(name);
}

static void set_property(struct openvino *ov, const struct pair *option) {
    must(ov, ov->api.ov_core_set_property(ov->core, DEVICE, option->key, option->value), EXIT_USAGE, option->key);
}

static void apply_settings(struct openvino *ov, const struct options *asked) {
    char threads[16];
    struct pair defaults[4];
    default_settings(asked, threads, sizeof threads, defaults);
    for (size_t i = 0; i < 4; i++)
        set_property(ov, &defaults[i]);
    for (size_t i = 0; i < asked->engine_options.count; i++)
        set_property(ov, &asked->engine_options.items[i]);
}

/* A tensor needs no name: then it goes by `unnamed`, or is refused where that is NULL. */
static char *port_name(struct openvino *ov, const ov_port *port, const char *unnamed) {
    char *name = NULL;
    int status = ov->api.ov_port_get_any_name(port, &name);
    if (!unnamed)
        must(ov, status, EXIT_MODEL, "name of a tensor");
    const char *shown = status == 0 ? name : unnamed;
    char *copy = allocate(strlen(shown) + 1, 1);
    strcpy(copy, shown);
    if (name)
        ov->api.ov_free(name);
    return copy;
}

static void read_port(struct openvino *ov, struct port *port, size_t index, bool is_input) {
    const struct api *api = &ov->api;
    struct ov_partial_shape shape = {0};
    ov_port *handle;
    char unnamed[32];
    int type;
    snprintf(unnamed, sizeof unnamed, "output%zu", index);
    must(ov,
         (is_input ? api->ov_compiled_model_input_by_index : api->ov_compiled_model_output_by_index)(ov->compiled,
                                                                                                     index, &handle),
         EXIT_MODEL, "tensor of the model");
    port->name = port_name(ov, handle, is_input ? NULL : unnamed);
    must(ov, api->ov_port_get_element_type(handle, &type), EXIT_MODEL, port->name);
    must(ov, api->ov_port_get_partial_shape(handle, &shape), EXIT_MODEL, port->name);
    bool ranked = shape.rank.min == shape.rank.max;
    port->dtype = from_ov(type);
    port->rank = !ranked ? -1 : shape.rank.min > INT16_MAX ? INT16_MAX : (int)shape.rank.min;
    check_port(port, is_input ? "input" : "output");
    for (int i = 0; i < port->rank; i++)
        port->dims[i] = shape.dims[i].min == shape.dims[i].max ? shape.dims[i].min : -1;
    api->ov_partial_shape_free(&shape);
    api->ov_output_const_port_free(handle);
}

static void read_ports(struct engine *engine, struct openvino *ov) {
    must(ov, ov->api.ov_compiled_model_inputs_size(ov->compiled, &engine->input_count), EXIT_MODEL, "inputs");
    must(ov, ov->api.ov_compiled_model_outputs_size(ov->compiled, &engine->output_count), EXIT_MODEL, "outputs");
    engine->inputs = allocate(engine->input_count, sizeof *engine->inputs);
    engine->outputs = allocate(engine->output_count, sizeof *engine->outputs);
    ov->inputs = allocate(engine->input_count, sizeof *ov->inputs);
    ov->outputs = allocate(engine->output_count, sizeof *ov->outputs);
    for (size_t i = 0; i < engine->input_count; i++)
        read_port(ov, &engine->inputs[i], i, true);
    for (size_t i = 0; i < engine->output_count; i++)
        read_port(ov, &engine->outputs[i], i, false);
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
    must(ov, ov->api.ov_compiled_model_create_infer_request(ov->compiled, &ov->request), EXIT_MODEL, asked->model);
    engine->model_read_ns = read - created;
    engine->session_create_ns = created - started + now_ns() - read;
    ov->api.ov_model_free(ov->model); /* the compiled model holds what it needs */
    read_ports(engine, ov);
}

static void openvino_bind(struct engine *engine, size_t index, const struct tensor *tensor) {
    struct openvino *ov = engine->impl;
    const char *name = engine->inputs[index].name;
    struct ov_shape shape = {tensor->rank, (int64_t *)tensor->dims};
    ov_tensor *made;
    must(ov, ov->api.ov_tensor_create_from_host_ptr(to_ov(tensor->dtype), shape, tensor->data, &made), EXIT_INPUT,
         name);
    must(ov, ov->api.ov_infer_request_set_input_tensor_by_index(ov->request, index, made), EXIT_INPUT, name);
    if (ov->inputs[index])
        ov->api.ov_tensor_free(ov->inputs[index]);
    ov->inputs[index] = made;
}

static void openvino_infer(struct engine *engine) {
    struct openvino *ov = engine->impl;
    must(ov, ov->api.ov_infer_request_infer(ov->request), EXIT_INFERENCE, "inference");
}

static void openvino_output(struct engine *engine, size_t index, struct tensor *view) {
    struct openvino *ov = engine->impl;
    const char *name = engine->outputs[index].name;
    struct ov_shape shape = {0, NULL};
    if (!ov->outputs[index])
        must(ov, ov->api.ov_infer_request_get_output_tensor_by_index(ov->request, index, &ov->outputs[index]),
             EXIT_INFERENCE, name);
    int status = ov->api.ov_tensor_get_shape(ov->outputs[index], &shape);
    if (status != OV_INVALID_C_PARAM) /* what it answers for a scalar: its shape record cannot have rank 0 */
        must(ov, status, EXIT_INFERENCE, name);
    if (shape.rank > MAX_RANK)
        fail(EXIT_INFERENCE, "output '%s' has more than %d dimensions", name, MAX_RANK);
    view->dtype = engine->outputs[index].dtype;
    view->rank = (int)shape.rank;
    if (shape.rank)
        memcpy(view->dims, shape.dims, (size_t)shape.rank * sizeof *view->dims);
    ov->api.ov_shape_free(&shape);
    if (!shape_bytes(view->dims, view->rank, DTYPES[view->dtype].size, &view->bytes))
        fail(EXIT_INFERENCE, "output '%s' is too large", name);
    size_t present;
    must(ov, ov->api.ov_tensor_get_byte_size(ov->outputs[index], &present), EXIT_INFERENCE, name);
    if (present != view->bytes)
        fail(EXIT_INFERENCE, "output '%s' has %zu bytes, its declared type and shape %zu", name, present, view->bytes);
    view->data = NULL;
    if (view->bytes)
        must(ov, ov->api.ov_tensor_data(ov->outputs[index], &view->data), EXIT_INFERENCE, name);
}

static void openvino_release_outputs(struct engine *engine) {
    struct openvino *ov = engine->impl;
    for (size_t i = 0; i < engine->output_count; i++) {
        if (ov->outputs[i])
            ov->api.ov_tensor_free(ov->outputs[i]);
        ov->outputs[i] = NULL;
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
    ov->resolved = port_name(ov, port, NULL);
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

static void openvino_settings(struct engine *engine, struct json *j) {
    struct openvino *ov = engine->impl;
    const struct options *asked = engine->options;
    char text[16], *threads = NULL;
    struct pair defaults[4];
    default_settings(asked, text, sizeof text, defaults);
    bool known = ov->api.ov_compiled_model_get_property(ov->compiled, defaults[1].key, &threads) == 0 && threads;
    json_count(j, "threads", known ? strtol(threads, NULL, 10) : -1);
    if (threads)
        ov->api.ov_free(threads);
    write_property(ov, j, defaults[0].key, "precision");
    json_begin(j, "options", '{');
    for (size_t i = 0; i < 4; i++)
        write_property(ov, j, defaults[i].key, defaults[i].key);
    for (size_t i = 0; i < asked->engine_options.count; i++) {
        const char *key = asked->engine_options.items[i].key;
        if (!(strcmp(key, defaults[0].key) == 0 || strcmp(key, defaults[1].key) == 0 ||
              strcmp(key, defaults[2].key) == 0 || strcmp(key, defaults[3].key) == 0))
            write_property(ov, j, key, key);
    }
    json_end(j, '}');
}

static void openvino_close(struct engine *engine) {
    struct openvino *ov = engine->impl;
    for (size_t i = 0; i < engine->input_count; i++)
        if (ov->inputs[i])
            ov->api.ov_tensor_free(ov->inputs[i]);
    ov->api.ov_infer_request_free(ov->request);
    ov->api.ov_compiled_model_free(ov->compiled);
    ov->api.ov_core_free(ov->core);
    free(ov->inputs);
    free(ov->outputs);
    free(ov->resolved);
    free(ov);
}

const struct engine_ops ENGINE_OPENVINO = {
    .name = "openvino",
    .companions = COMPANIONS,
    .load = openvino_load,
    .open = openvino_open,
    .bind = openvino_bind,
    .infer = openvino_infer,
    .output = openvino_output,
    .release_outputs = openvino_release_outputs,
    .resolve = openvino_resolve,
    .settings = openvino_settings,
    .close = openvino_close,
};
