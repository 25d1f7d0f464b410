/* What ekrun asks of an inference engine. Two implementations: ONNX Runtime and OpenVINO, each loaded by dlopen.
 *
 * - an engine never returns an error: it fail()s with its own message. In libekrun that is a jump: what is held then is
 *   in the engine's records, and close frees whatever of them was made;
 * - engine objects are made in open and freed in close, and the library is never unloaded;
 * - infer is the call that is timed, so it does nothing else;
 * - a lane is what one stream of inferences needs of its own: bound inputs and outputs. Calls on different lanes may run
 *   at the same time, calls on one lane may not. ekrun opens options->streams of them, libekrun a branch for each stream.
 */
#ifndef EKRUN_ENGINE_H
#define EKRUN_ENGINE_H

#include <stdint.h>

#include "args.h"
#include "json.h"
#include "tensor.h"

struct engine;

struct engine_ops {
    const char *name;
    /* What the library needs and a bundle may carry beside it, as "libname.so.", in the order of their own needs. */
    const char *const *companions;
    /* Binds the functions of the library, fills version. */
    void (*load)(struct engine *engine);
    /* Opens the model, fills ports and the times but library_load_ns. */
    void (*open)(struct engine *engine);
    /* Makes `branch`, a copy of `engine` without impl, another one on its session, with lanes of its own. It is closed
     * before `engine`. */
    void (*branch)(struct engine *branch, const struct engine *engine);
    /* Makes `tensor` input `index` of the lane's runs to come. Its buffer stays the caller's. */
    void (*bind)(struct engine *engine, size_t lane, size_t index, const struct tensor *tensor);
    void (*infer)(struct engine *engine, size_t lane);
    /* A view of an output, valid until release_outputs. */
    void (*output)(struct engine *engine, size_t lane, size_t index, struct tensor *view);
    void (*release_outputs)(struct engine *engine, size_t lane);
    /* The port name that an alternative tensor name stands for, or NULL. */
    const char *(*resolve)(struct engine *engine, const char *name, bool is_input);
    /* Writes the fields threads, precision and options of the settings in force. */
    void (*settings)(struct engine *engine, struct json *j);
    /* For verb layers: after an inference on lane 0 that is not to count, and once after the `runs` that are. The
     * second writes the fields layers and profile. */
    void (*skip_layers)(struct engine *engine);
    void (*write_layers)(struct engine *engine, int64_t runs, struct json *j);
    void (*close)(struct engine *engine);
};

struct engine {
    const struct engine_ops *ops;
    const struct options *options;
    void *library;
    void *impl;
    struct port *inputs, *outputs;
    size_t input_count, output_count, lane_count;
    bool is_branch;
    char version[128];
    int64_t library_load_ns, model_read_ns, session_create_ns; /* model_read_ns -1: not apart from session creation */
};

extern const struct engine_ops ENGINE_ONNXRUNTIME, ENGINE_OPENVINO;

/* The library, then the model with as many lanes as streams. */
void engine_open(struct engine *engine, const struct options *options);

/* The library alone; then ops->open opens the model, with engine->lane_count lanes. */
void engine_load(struct engine *engine, const struct options *options);

/* ops->close, where it was loaded, and frees the ports. */
void engine_close(struct engine *engine);

/* ops->branch of `engine`. */
void engine_branch(struct engine *branch, const struct engine *engine);

/* Index of the port called `name`, or -1. */
long engine_find(struct engine *engine, const char *name, bool is_input);

/* Writes the fields engine, engine_version, settings_asked, settings_in_force and the load times. */
void engine_describe(struct engine *engine, struct json *j);

/* A copy of a text that a record keeps; NULL without memory. */
char *copy_text(const char *text);

/* dlsym or fail(EXIT_LIBRARY). */
void *engine_symbol(struct engine *engine, const char *name);

/* Refuses a model port that ekrun cannot carry: fail(EXIT_MODEL). */
void check_port(const struct port *port, const char *what);

#endif
