/* libekrun: the model of an unpacked edgekit bundle, run by the engine that the bundle carries.
 *
 *     ekrun_model *model;
 *     ekrun_stream *stream;
 *     if (ekrun_model_open("/var/lib/edgekit/apps/digits/current", NULL, &model) != EKRUN_OK ||
 *         ekrun_stream_open(model, &stream) != EKRUN_OK)
 *         fprintf(stderr, "%s\n", ekrun_error());
 *
 * - nothing here prints, ends the process or installs a signal handler; what fails returns a status, and ekrun_error()
 *   has the words for it;
 * - a model may be used by any number of threads at once. A stream is one sequence of runs: its buffers, its states. It
 *   may go from thread to thread, but is in one call at a time; threads that run at once have a stream each;
 * - engines do not survive a fork. In a process that is forked after a model was opened, calls that would use an engine
 *   return EKRUN_USAGE, that of opening another model too, and closing does nothing. So fork first, and open then;
 * - the folder is believed. `ekrun verify` and the installation check signatures and digests, libekrun does not;
 * - link with -lekrun, or open libekrun.so by its path. The functions here stay as they are as long as EKRUN_API does.
 *
 * See docs/libekrun.md in edgekit's repository.
 */
#ifndef EKRUN_H
#define EKRUN_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define EKRUN_API 1

/* What functions return. The numbers are those of ekrun's exit codes. */
enum ekrun_status {
    EKRUN_OK = 0,
    EKRUN_USAGE = 2,     /* a call that makes no sense: a null pointer, a stream in use, an output before a run, a fork
                            after a model was opened; or an option of the bundle that its engine does not take */
    EKRUN_LIBRARY = 3,   /* the engine's library cannot be loaded, or this process has another one of it, or one whose
                            folder is gone */
    EKRUN_MODEL = 4,     /* the model is missing or refused by the engine */
    EKRUN_INPUT = 5,     /* no unpacked bundle, or an input that does not fit the model */
    EKRUN_INFERENCE = 6, /* the engine failed while running */
    EKRUN_IO = 7,        /* a file cannot be read */
    EKRUN_MEMORY = 11,   /* out of memory */
};

enum ekrun_dtype {
    EKRUN_FLOAT16 = 1,
    EKRUN_BFLOAT16 = 2,
    EKRUN_FLOAT32 = 3,
    EKRUN_FLOAT64 = 4,
    EKRUN_INT8 = 5,
    EKRUN_INT16 = 6,
    EKRUN_INT32 = 7,
    EKRUN_INT64 = 8,
    EKRUN_UINT8 = 9,
    EKRUN_UINT16 = 10,
    EKRUN_UINT32 = 11,
    EKRUN_UINT64 = 12,
    EKRUN_BOOL = 13, /* one byte, 0 or 1 */
};

#define EKRUN_MAX_RANK 31

typedef struct ekrun_model ekrun_model;
typedef struct ekrun_stream ekrun_stream;

/* A dense tensor, its elements in C order; or what the model declares of one, then `data` is NULL, a dimension that is
 * not fixed is -1, `rank` is -1 where nothing is declared, and `bytes` is 0 unless all dimensions are fixed. */
typedef struct ekrun_tensor {
    const char *name;
    const void *data;
    size_t bytes;
    const int64_t *dims; /* `rank` of them */
    int32_t rank;
    int32_t dtype; /* enum ekrun_dtype */
} ekrun_tensor;

/* `size` is sizeof(ekrun_options); later versions may have more fields. Zero in a field is what the bundle says. */
typedef struct ekrun_options {
    size_t size;
    int32_t threads;  /* of the engine, for all streams together; 1 to 1024 */
    int32_t reserved; /* 0 */
} ekrun_options;

/* The EKRUN_API of the library that is loaded. */
uint32_t ekrun_api(void);

/* Why the last call of this thread that failed did: one line of printable ASCII, valid until the next one that does. */
const char *ekrun_error(void);

/* Its name as numpy has it, NULL for no dtype, and the bytes of an element, 0 for none. */
const char *ekrun_dtype_name(int32_t dtype);
size_t ekrun_dtype_size(int32_t dtype);

/* Opens the model of the unpacked bundle in `folder`; `options` may be NULL. On failure *model is NULL. */
int ekrun_model_open(const char *folder, const ekrun_options *options, ekrun_model **model);

/* NULL is fine. With streams open, the model goes when the last of them is closed. */
void ekrun_model_close(ekrun_model *model);

/* "onnxruntime 1.32.0". Names and dimensions that are told live as long as the model. */
const char *ekrun_model_engine(const ekrun_model *model);
size_t ekrun_model_inputs(const ekrun_model *model);
size_t ekrun_model_outputs(const ekrun_model *model);
int ekrun_model_input(const ekrun_model *model, size_t index, ekrun_tensor *input);
int ekrun_model_output(const ekrun_model *model, size_t index, ekrun_tensor *output);

/* The output that this input holds in the next run, or -1: the input is no state. */
int64_t ekrun_model_state(const ekrun_model *model, size_t input);

int ekrun_stream_open(ekrun_model *model, ekrun_stream **stream);

/* NULL is fine. No other call on it may be under way. */
void ekrun_stream_close(ekrun_stream *stream);

/* One inference. `inputs` are `count` tensors in any order, found by name; every input of the model must be there, but
 * states need not: they hold zeros in the first run, then what their outputs left; one that is given holds that for this
 * run. Name, dtype, shape and size are checked before anything is computed. Data is read during the call only, and best
 * aligned to 64 bytes. A run that fails leaves the states as they were. */
int ekrun_stream_run(ekrun_stream *stream, const ekrun_tensor *inputs, size_t count);

/* Output `index` of the last run. The stream owns its data and dimensions, until its next run or its end. */
int ekrun_stream_output(const ekrun_stream *stream, size_t index, ekrun_tensor *output);

/* States hold zeros again in the next run. */
int ekrun_stream_reset(ekrun_stream *stream);

#ifdef __cplusplus
}
#endif

#endif
