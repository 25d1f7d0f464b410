/* Element types and dense tensors, as both engines and .npy files know them. */
#ifndef EKRUN_TENSOR_H
#define EKRUN_TENSOR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* numpy before 2.0 reads 32 dimensions, and a stacked file spends one on the samples. */
#define MAX_RANK 31

enum dtype {
    DT_NONE, /* a type ekrun does not carry: strings, complex, sub-byte and 8-bit floats */
    DT_FLOAT16,
    DT_BFLOAT16,
    DT_FLOAT32,
    DT_FLOAT64,
    DT_INT8,
    DT_INT16,
    DT_INT32,
    DT_INT64,
    DT_UINT8,
    DT_UINT16,
    DT_UINT32,
    DT_UINT64,
    DT_BOOL,
    DT_COUNT,
};

struct dtype_info {
    const char *name; /* numpy's name */
    const char *npy;  /* the descr of a .npy file; bfloat16 travels as uint16 */
    size_t size;
};

extern const struct dtype_info DTYPES[DT_COUNT];

struct tensor {
    enum dtype dtype;
    int rank;
    int64_t dims[MAX_RANK];
    void *data;
    size_t bytes;
};

/* A model's input or output. rank is -1 when undeclared, a dimension -1 when not fixed. */
struct port {
    char *name;
    enum dtype dtype;
    int rank;
    int64_t dims[MAX_RANK];
};

/* The product of `rank` dimensions and `unit`; false on overflow or a negative dimension. */
bool shape_bytes(const int64_t *dims, int rank, size_t unit, size_t *bytes);

/* Whether a tensor of these dimensions may be what `port` declares. */
bool shape_admits(const struct port *port, const int64_t *dims, int rank);

/* Writes "[1,3,?]" into `text`, truncated to fit; returns `text`. */
char *shape_text(const int64_t *dims, int rank, char *text, size_t size);

/* Number of NaN and infinite elements; 0 for types that have none. */
int64_t count_nonfinite(const struct tensor *tensor);

/* A 64-byte aligned buffer of at least one byte, or fail(EXIT_MEMORY). */
void *allocate_aligned(size_t bytes);

#endif
