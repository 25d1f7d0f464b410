/* ONNX Runtime through its C API, without its header.
 *
 * The API is a table of function pointers that is only ever appended to, so a program that asks for version 21 works
 * with every library from 1.21 on. Slots and signatures here are those of that version; only what is used is declared.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine.h"
#include "fail.h"
#include "layers.h"
#include "proc.h"

#define ORT_API 21

typedef struct OrtStatus OrtStatus;
typedef struct OrtEnv OrtEnv;
typedef struct OrtSession OrtSession;
typedef struct OrtOptions OrtOptions;
typedef struct OrtValue OrtValue;
typedef struct OrtTypeInfo OrtTypeInfo;
typedef struct OrtTensorInfo OrtTensorInfo;
typedef struct OrtMemoryInfo OrtMemoryInfo;
typedef struct OrtAllocator OrtAllocator;

enum { ORT_LOG_ERROR = 3, ORT_LOG_FATAL = 4, ORT_TYPE_TENSOR = 1, ORT_ARENA_ALLOCATOR = 1, ORT_MEMORY_DEFAULT = 0 };

#define ORT_FUNCTIONS(X)                                                                                               \
    X(2, const char *, GetErrorMessage, (const OrtStatus *))                                                           \
    X(3, OrtStatus *, CreateEnv, (int level, const char *log_id, OrtEnv **))                                           \
    X(7, OrtStatus *, CreateSession, (const OrtEnv *, const char *path, const OrtOptions *, OrtSession **))            \
    X(9, OrtStatus *, Run,                                                                                             \
      (OrtSession *, const void *run_options, const char *const *input_names, const OrtValue *const *inputs,           \
       size_t input_count, const char *const *output_names, size_t output_count, OrtValue **outputs))                  \
    X(10, OrtStatus *, CreateSessionOptions, (OrtOptions **))                                                          \
    X(13, OrtStatus *, SetSessionExecutionMode, (OrtOptions *, int))                                                   \
    X(14, OrtStatus *, EnableProfiling, (OrtOptions *, const char *prefix))                                            \
    X(16, OrtStatus *, EnableMemPattern, (OrtOptions *))                                                               \
    X(17, OrtStatus *, DisableMemPattern, (OrtOptions *))                                                              \
    X(18, OrtStatus *, EnableCpuMemArena, (OrtOptions *))                                                              \
    X(19, OrtStatus *, DisableCpuMemArena, (OrtOptions *))                                                             \
    X(22, OrtStatus *, SetSessionLogSeverityLevel, (OrtOptions *, int))                                                \
    X(23, OrtStatus *, SetSessionGraphOptimizationLevel, (OrtOptions *, int))                                          \
    X(24, OrtStatus *, SetIntraOpNumThreads, (OrtOptions *, int))                                                      \
    X(25, OrtStatus *, SetInterOpNumThreads, (OrtOptions *, int))                                                      \
    X(30, OrtStatus *, SessionGetInputCount, (const OrtSession *, size_t *))                                           \
    X(31, OrtStatus *, SessionGetOutputCount, (const OrtSession *, size_t *))                                          \
    X(33, OrtStatus *, SessionGetInputTypeInfo, (const OrtSession *, size_t, OrtTypeInfo **))                          \
    X(34, OrtStatus *, SessionGetOutputTypeInfo, (const OrtSession *, size_t, OrtTypeInfo **))                         \
    X(36, OrtStatus *, SessionGetInputName, (const OrtSession *, size_t, OrtAllocator *, char **))                     \
    X(37, OrtStatus *, SessionGetOutputName, (const OrtSession *, size_t, OrtAllocator *, char **))                    \
    X(49, OrtStatus *, CreateTensorWithDataAsOrtValue,                                                                 \
      (const OrtMemoryInfo *, void *data, size_t bytes, const int64_t *dims, size_t rank, int type, OrtValue **))      \
    X(51, OrtStatus *, GetTensorMutableData, (OrtValue *, void **))                                                    \
    X(55, OrtStatus *, CastTypeInfoToTensorInfo, (const OrtTypeInfo *, const OrtTensorInfo **))                        \
    X(56, OrtStatus *, GetOnnxTypeFromTypeInfo, (const OrtTypeInfo *, int *))                                          \
    X(60, OrtStatus *, GetTensorElementType, (const OrtTensorInfo *, int *))                                           \
    X(61, OrtStatus *, GetDimensionsCount, (const OrtTensorInfo *, size_t *))                                          \
    X(62, OrtStatus *, GetDimensions, (const OrtTensorInfo *, int64_t *, size_t))                                      \
    X(65, OrtStatus *, GetTensorTypeAndShape, (const OrtValue *, OrtTensorInfo **))                                    \
    X(69, OrtStatus *, CreateCpuMemoryInfo, (int allocator, int memory, OrtMemoryInfo **))                             \
    X(76, OrtStatus *, AllocatorFree, (OrtAllocator *, void *))                                                        \
    X(78, OrtStatus *, GetAllocatorWithDefaultOptions, (OrtAllocator **))                                              \
    X(92, void, ReleaseEnv, (OrtEnv *))                                                                                \
    X(93, void, ReleaseStatus, (OrtStatus *))                                                                          \
    X(94, void, ReleaseMemoryInfo, (OrtMemoryInfo *))                                                                  \
    X(95, void, ReleaseSession, (OrtSession *))                                                                        \
    X(96, void, ReleaseValue, (OrtValue *))                                                                            \
    X(98, void, ReleaseTypeInfo, (OrtTypeInfo *))                                                                      \
    X(99, void, ReleaseTensorTypeAndShapeInfo, (OrtTensorInfo *))                                                      \
    X(100, void, ReleaseSessionOptions, (OrtOptions *))                                                                \
    X(110, OrtStatus *, SessionEndProfiling, (OrtSession *, OrtAllocator *, char **))                                  \
    X(130, OrtStatus *, AddSessionConfigEntry, (OrtOptions *, const char *key, const char *value))                     \
    X(238, OrtStatus *, GetSessionConfigEntry, (const OrtOptions *, const char *key, char *value, size_t *))

struct api {
#define DECLARE(slot, result, name, args) result(*name) args;
    ORT_FUNCTIONS(DECLARE)
#undef DECLARE
};

struct api_base {
    const void *const *(*GetApi)(uint32_t version);
    const char *(*GetVersionString)(void);
};

struct lane {
    OrtValue **inputs, **outputs;
};

struct ort {
    struct api api;
    OrtAllocator *allocator; /* the library's own: never released */
    OrtEnv *env;
    OrtOptions *options;
    OrtSession *session;
    OrtMemoryInfo *memory;
    const char **input_names, **output_names;
    struct lane *lanes; /* of one session, whose Run is thread-safe */
};

/* ONNX element types by ORT's number. */
static const enum dtype ORT_DTYPES[] = {
    [1] = DT_FLOAT32, [2] = DT_UINT8,   [3] = DT_INT8,      [4] = DT_UINT16,   [5] = DT_INT16,
    [6] = DT_INT32,   [7] = DT_INT64,   [9] = DT_BOOL,      [10] = DT_FLOAT16, [11] = DT_FLOAT64,
    [12] = DT_UINT32, [13] = DT_UINT64, [16] = DT_BFLOAT16,
};

enum { ORT_DTYPE_COUNT = sizeof ORT_DTYPES / sizeof *ORT_DTYPES };

static enum dtype from_ort(int type) { return type > 0 && type < ORT_DTYPE_COUNT ? ORT_DTYPES[type] : DT_NONE; }

static int to_ort(enum dtype dtype) {
    int type = 1;
    while (ORT_DTYPES[type] != dtype)
        type++;
    return type;
}

static void must(struct ort *ort, OrtStatus *status, enum exit_code code, const char *what) {
    char message[2048];
    if (!status)
        return;
    snprintf(message, sizeof message, "%s", ort->api.GetErrorMessage(status));
    ort->api.ReleaseStatus(status);
    fail(unless_memory(code, message), "%s: %s", what, message);
}

static const char *const COMPANIONS[] = {"libgcc_s.so.", "libstdc++.so.", NULL};

static void ort_load(struct engine *engine) {
    struct ort *ort = engine->impl = allocate(1, sizeof *ort);
    const struct api_base *(*get_base)(void) = (const struct api_base *(*)(void))engine_symbol(engine, "OrtGetApiBase");
    const struct api_base *base = get_base();
    const char *version = base->GetVersionString();
    const void *const *slots = base->GetApi(ORT_API);
    snprintf(engine->version, sizeof engine->version, "%s", version);
    if (!slots)
        fail(EXIT_LIBRARY, "ONNX Runtime %s is too old: 1.%d or later is needed", version, ORT_API);
#define ASSIGN(slot, result, name, args) ort->api.name = (result(*) args)slots[slot];
    ORT_FUNCTIONS(ASSIGN)
#undef ASSIGN
}

/* An option with a setter of its own rather than a session config entry: its name, and the values it takes. */
struct choice {
    const char *name;
    const char *values[5];
    int numbers[4];
    int fallback; /* index into values */
};

static const struct choice OPTIMIZATION = {
    "graph_optimization", {"disable", "basic", "extended", "all"}, {0, 1, 2, 99}, 3};
static const struct choice EXECUTION = {"execution_mode", {"sequential", "parallel"}, {0, 1}, 0};
static const struct choice ARENA = {"arena", {"0", "1"}, {0, 1}, 1};
static const struct choice MEM_PATTERN = {"mem_pattern", {"0", "1"}, {0, 1}, 1};
static const struct choice *const CHOICES[] = {&OPTIMIZATION, &EXECUTION, &ARENA, &MEM_PATTERN};

#define CHOICE_COUNT (sizeof CHOICES / sizeof *CHOICES)
#define INTER_OP "inter_op_threads"

static int chosen(const struct options *options, const struct choice *choice) {
    const char *value = find_option(options, choice->name);
    if (!value)
        return choice->fallback;
    for (int i = 0; choice->values[i]; i++)
        if (strcmp(choice->values[i], value) == 0)
            return i;
    fail(EXIT_USAGE, "option %s does not take %s", choice->name, value);
}

static int number_of(const struct options *options, const struct choice *choice) {
    return choice->numbers[chosen(options, choice)];
}

static int inter_op_threads(const struct options *options) {
    const char *value = find_option(options, INTER_OP);
    char *end = "";
    long threads = value ? strtol(value, &end, 10) : 1;
    if (*end || threads < 1 || threads > 1024)
        fail(EXIT_USAGE, "option " INTER_OP " takes a whole number from 1 to 1024, not %s", value);
    return (int)threads;
}

static bool is_config_entry(const char *key) {
    for (size_t i = 0; i < CHOICE_COUNT; i++)
        if (strcmp(CHOICES[i]->name, key) == 0)
            return false;
    return strcmp(key, INTER_OP) != 0;
}

/* libekrun, which has no verb, prints nothing: what ONNX Runtime would say there it also returns. */
static int log_level(const struct options *asked) { return asked->verb ? ORT_LOG_ERROR : ORT_LOG_FATAL; }

static void create_options(struct ort *ort, const struct options *asked) {
    const struct api *api = &ort->api;
    must(ort, api->CreateSessionOptions(&ort->options), EXIT_LIBRARY, "session options");
    OrtOptions *o = ort->options;
    OrtStatus *(*arena)(OrtOptions *) = number_of(asked, &ARENA) ? api->EnableCpuMemArena : api->DisableCpuMemArena;
    OrtStatus *(*pattern)(OrtOptions *) =
        number_of(asked, &MEM_PATTERN) ? api->EnableMemPattern : api->DisableMemPattern;
    must(ort, api->SetSessionLogSeverityLevel(o, log_level(asked)), EXIT_USAGE, "log level");
    must(ort, api->SetIntraOpNumThreads(o, (int)asked->threads), EXIT_USAGE, "--threads");
    must(ort, api->SetInterOpNumThreads(o, inter_op_threads(asked)), EXIT_USAGE, INTER_OP);
    must(ort, api->SetSessionGraphOptimizationLevel(o, number_of(asked, &OPTIMIZATION)), EXIT_USAGE, OPTIMIZATION.name);
    must(ort, api->SetSessionExecutionMode(o, number_of(asked, &EXECUTION)), EXIT_USAGE, EXECUTION.name);
    must(ort, arena(o), EXIT_USAGE, ARENA.name);
    must(ort, pattern(o), EXIT_USAGE, MEM_PATTERN.name);
    if (asked->verb == VERB_LAYERS)
        must(ort, api->EnableProfiling(o, layers_file_prefix(asked->out)), EXIT_IO, "profile");
    for (size_t i = 0; i < asked->engine_options.count; i++) {
        const struct pair *option = &asked->engine_options.items[i];
        if (is_config_entry(option->key))
            must(ort, api->AddSessionConfigEntry(o, option->key, option->value), EXIT_USAGE, option->key);
    }
}

/* Dimensions only where they fit. */
static OrtStatus *read_shape(const struct api *api, const OrtTensorInfo *info, int *type, size_t *rank, int64_t *dims) {
    OrtStatus *status = api->GetTensorElementType(info, type);
    if (!status)
        status = api->GetDimensionsCount(info, rank);
    if (!status && *rank <= MAX_RANK)
        status = api->GetDimensions(info, dims, *rank);
    return status;
}

struct value_type {
    int kind, type;
    size_t rank;
};

static OrtStatus *read_type(const struct api *api, const OrtTypeInfo *info, struct value_type *found, int64_t *dims) {
    const OrtTensorInfo *tensor;
    OrtStatus *status = api->GetOnnxTypeFromTypeInfo(info, &found->kind);
    if (status || found->kind != ORT_TYPE_TENSOR)
        return status;
    status = api->CastTypeInfoToTensorInfo(info, &tensor);
    return status ? status : read_shape(api, tensor, &found->type, &found->rank, dims);
}

static char *port_name(struct ort *ort, size_t index, bool is_input) {
    const struct api *api = &ort->api;
    char *name;
    must(ort,
         (is_input ? api->SessionGetInputName : api->SessionGetOutputName)(ort->session, index, ort->allocator, &name),
         EXIT_MODEL, "name of a tensor");
    char *copy = copy_text(name);
    OrtStatus *status = api->AllocatorFree(ort->allocator, name);
    if (!copy)
        fail(EXIT_MEMORY, "out of memory for the name of a tensor");
    if (status)
        api->ReleaseStatus(status); /* nothing follows from a name that cannot be freed */
    return copy;
}

/* ORT says "rank 0" both of a scalar and of a tensor without a declared shape, so rank 0 is taken as undeclared. */
static void read_port(struct ort *ort, struct port *port, size_t index, bool is_input) {
    const struct api *api = &ort->api;
    struct value_type found = {0};
    OrtTypeInfo *info;
    port->name = port_name(ort, index, is_input);
    must(ort, (is_input ? api->SessionGetInputTypeInfo : api->SessionGetOutputTypeInfo)(ort->session, index, &info),
         EXIT_MODEL, port->name);
    OrtStatus *status = read_type(api, info, &found, port->dims);
    api->ReleaseTypeInfo(info);
    must(ort, status, EXIT_MODEL, port->name);
    if (found.kind != ORT_TYPE_TENSOR)
        fail(EXIT_MODEL, "%s '%s' is not a tensor", is_input ? "input" : "output", port->name);
    port->dtype = from_ort(found.type);
    port->rank = found.rank ? (int)found.rank : -1;
    check_port(port, is_input ? "input" : "output");
}

static void read_ports(struct engine *engine, struct ort *ort) {
    must(ort, ort->api.SessionGetInputCount(ort->session, &engine->input_count), EXIT_MODEL, "inputs");
    must(ort, ort->api.SessionGetOutputCount(ort->session, &engine->output_count), EXIT_MODEL, "outputs");
    engine->inputs = allocate(engine->input_count, sizeof *engine->inputs);
    engine->outputs = allocate(engine->output_count, sizeof *engine->outputs);
    ort->input_names = allocate(engine->input_count, sizeof *ort->input_names);
    ort->output_names = allocate(engine->output_count, sizeof *ort->output_names);
    for (size_t i = 0; i < engine->input_count; i++) {
        read_port(ort, &engine->inputs[i], i, true);
        ort->input_names[i] = engine->inputs[i].name;
    }
    for (size_t i = 0; i < engine->output_count; i++) {
        read_port(ort, &engine->outputs[i], i, false);
        ort->output_names[i] = engine->outputs[i].name;
    }
}

static void open_lanes(struct engine *engine, struct ort *ort) {
    ort->lanes = allocate(engine->lane_count, sizeof *ort->lanes);
    for (size_t i = 0; i < engine->lane_count; i++) {
        ort->lanes[i].inputs = allocate(engine->input_count, sizeof *ort->lanes[i].inputs);
        ort->lanes[i].outputs = allocate(engine->output_count, sizeof *ort->lanes[i].outputs);
    }
}

static void ort_open(struct engine *engine) {
    const struct options *asked = engine->options;
    struct ort *ort = engine->impl;
    if (strcmp(asked->precision, "f32") != 0)
        fail(EXIT_USAGE, "--precision is for openvino: onnxruntime computes in the model's own types");
    int64_t started = now_ns();
    must(ort, ort->api.GetAllocatorWithDefaultOptions(&ort->allocator), EXIT_LIBRARY, "allocator");
    must(ort, ort->api.CreateEnv(log_level(asked), "ekrun", &ort->env), EXIT_LIBRARY, "environment");
    create_options(ort, asked);
    must(ort, ort->api.CreateSession(ort->env, asked->model, ort->options, &ort->session), EXIT_MODEL, asked->model);
    engine->session_create_ns = now_ns() - started;
    must(ort, ort->api.CreateCpuMemoryInfo(ORT_ARENA_ALLOCATOR, ORT_MEMORY_DEFAULT, &ort->memory), EXIT_LIBRARY,
         "memory");
    read_ports(engine, ort);
    open_lanes(engine, ort);
}

/* The session, its options and names are the engine's, which outlives it. */
static void ort_branch(struct engine *branch, const struct engine *engine) {
    struct ort *ort = branch->impl = allocate(1, sizeof *ort);
    *ort = *(const struct ort *)engine->impl;
    ort->lanes = NULL;
    open_lanes(branch, ort);
}

static void ort_bind(struct engine *engine, size_t lane, size_t index, const struct tensor *tensor) {
    struct ort *ort = engine->impl;
    OrtValue **bound = &ort->lanes[lane].inputs[index];
    if (*bound)
        ort->api.ReleaseValue(*bound);
    *bound = NULL;
    must(ort,
         ort->api.CreateTensorWithDataAsOrtValue(ort->memory, tensor->data, tensor->bytes, tensor->dims,
                                                 (size_t)tensor->rank, to_ort(tensor->dtype), bound),
         EXIT_INPUT, engine->inputs[index].name);
}

static void ort_infer(struct engine *engine, size_t lane) {
    struct ort *ort = engine->impl;
    const struct lane *l = &ort->lanes[lane];
    OrtStatus *status = ort->api.Run(ort->session, NULL, ort->input_names, (const OrtValue *const *)l->inputs,
                                     engine->input_count, ort->output_names, engine->output_count, l->outputs);
    must(ort, status, EXIT_INFERENCE, "inference");
}

static void ort_output(struct engine *engine, size_t lane, size_t index, struct tensor *view) {
    struct ort *ort = engine->impl;
    OrtValue *value = ort->lanes[lane].outputs[index];
    const char *name = engine->outputs[index].name;
    OrtTensorInfo *info;
    int type;
    size_t rank;
    must(ort, ort->api.GetTensorTypeAndShape(value, &info), EXIT_INFERENCE, name);
    OrtStatus *status = read_shape(&ort->api, info, &type, &rank, view->dims);
    ort->api.ReleaseTensorTypeAndShapeInfo(info);
    must(ort, status, EXIT_INFERENCE, name);
    if (rank > MAX_RANK || from_ort(type) != engine->outputs[index].dtype)
        fail(EXIT_INFERENCE, "output '%s' is not of its declared type, or has more than %d dimensions", name, MAX_RANK);
    view->dtype = from_ort(type);
    view->rank = (int)rank;
    must(ort, ort->api.GetTensorMutableData(value, &view->data), EXIT_INFERENCE, name);
    if (!shape_bytes(view->dims, view->rank, DTYPES[view->dtype].size, &view->bytes))
        fail(EXIT_INFERENCE, "output '%s' is too large", name);
}

static void ort_release_outputs(struct engine *engine, size_t lane) {
    struct ort *ort = engine->impl;
    OrtValue **outputs = ort->lanes[lane].outputs;
    for (size_t i = 0; i < engine->output_count; i++) {
        if (outputs[i])
            ort->api.ReleaseValue(outputs[i]);
        outputs[i] = NULL; /* Run allocates where it finds NULL */
    }
}

/* Config entries are read back from the session's options. The rest has no getter: what the setters accepted. */
static void ort_settings(struct engine *engine, struct json *j) {
    struct ort *ort = engine->impl;
    const struct options *asked = engine->options;
    json_int(j, "threads", asked->threads);
    json_null(j, "precision");
    json_begin(j, "options", '{');
    for (size_t i = 0; i < CHOICE_COUNT; i++)
        json_string(j, CHOICES[i]->name, CHOICES[i]->values[chosen(asked, CHOICES[i])]);
    char number[16];
    snprintf(number, sizeof number, "%d", inter_op_threads(asked));
    json_string(j, INTER_OP, number);
    for (size_t i = 0; i < asked->engine_options.count; i++) {
        const char *key = asked->engine_options.items[i].key;
        char value[1024];
        size_t size = sizeof value;
        if (!is_config_entry(key))
            continue;
        OrtStatus *status = ort->api.GetSessionConfigEntry(ort->options, key, value, &size);
        json_string(j, key, status ? NULL : value);
        if (status)
            ort->api.ReleaseStatus(status);
    }
    json_end(j, '}');
}

/* ORT writes each event of each node into a file of its own naming, the first inference among them. */
static void ort_skip_layers(struct engine *engine) { (void)engine; }

static void ort_write_layers(struct engine *engine, int64_t runs, struct json *j) {
    (void)runs;
    struct ort *ort = engine->impl;
    char *made;
    must(ort, ort->api.SessionEndProfiling(ort->session, ort->allocator, &made), EXIT_IO, "profile");
    layers_keep_file(engine->options->out, made);
    must(ort, ort->api.AllocatorFree(ort->allocator, made), EXIT_IO, "profile");
    json_null(j, "layers");
    json_string(j, "profile", LAYERS_FILE);
}

static void release_values(struct ort *ort, OrtValue **values, size_t count) {
    for (size_t i = 0; values && i < count; i++)
        if (values[i])
            ort->api.ReleaseValue(values[i]);
    free(values);
}

static void close_lanes(struct engine *engine, struct ort *ort) {
    for (size_t i = 0; ort->lanes && i < engine->lane_count; i++) {
        release_values(ort, ort->lanes[i].inputs, engine->input_count);
        release_values(ort, ort->lanes[i].outputs, engine->output_count);
    }
    free(ort->lanes);
}

/* What was made, where opening has failed on the way. */
static void close_session(struct ort *ort) {
    if (ort->memory)
        ort->api.ReleaseMemoryInfo(ort->memory);
    if (ort->session)
        ort->api.ReleaseSession(ort->session);
    if (ort->options)
        ort->api.ReleaseSessionOptions(ort->options);
    if (ort->env)
        ort->api.ReleaseEnv(ort->env);
    free(ort->input_names);
    free(ort->output_names);
}

static void ort_close(struct engine *engine) {
    struct ort *ort = engine->impl;
    close_lanes(engine, ort);
    if (!engine->is_branch)
        close_session(ort);
    free(ort);
}

const struct engine_ops ENGINE_ONNXRUNTIME = {
    .name = "onnxruntime",
    .companions = COMPANIONS,
    .load = ort_load,
    .open = ort_open,
    .branch = ort_branch,
    .bind = ort_bind,
    .infer = ort_infer,
    .output = ort_output,
    .release_outputs = ort_release_outputs,
    .settings = ort_settings,
    .skip_layers = ort_skip_layers,
    .write_layers = ort_write_layers,
    .close = ort_close,
};
