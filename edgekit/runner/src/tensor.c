#define _GNU_SOURCE
#include "tensor.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fail.h"

const struct dtype_info DTYPES[DT_COUNT] = {
    [DT_NONE] = {"unsupported", "", 0},   [DT_FLOAT16] = {"float16", "<f2", 2}, [DT_BFLOAT16] = {"bfloat16", "<u2", 2},
    [DT_FLOAT32] = {"float32", "<f4", 4}, [DT_FLOAT64] = {"float64", "<f8", 8}, [DT_INT8] = {"int8", "|i1", 1},
    [DT_INT16] = {"int16", "<i2", 2},     [DT_INT32] = {"int32", "<i4", 4},     [DT_INT64] = {"int64", "<i8", 8},
    [DT_UINT8] = {"uint8", "|u1", 1},     [DT_UINT16] = {"uint16", "<u2", 2},   [DT_UINT32] = {"uint32", "<u4", 4},
    [DT_UINT64] = {"uint64", "<u8", 8},   [DT_BOOL] = {"bool", "|b1", 1},
};

bool shape_bytes(const int64_t *dims, int rank, size_t unit, size_t *bytes) {
    *bytes = unit;
    bool empty = false;
    for (int i = 0; i < rank; i++) {
        if (dims[i] < 0)
            return false;
        empty |= dims[i] == 0;
        /* A zero later on must not hide an overflow before it, nor the other way round: numpy refuses both. */
        if (dims[i] != 0 && __builtin_mul_overflow(*bytes, (size_t)dims[i], bytes))
            return false;
    }
    if (*bytes > PTRDIFF_MAX)
        return false;
    if (empty)
        *bytes = 0;
    return true;
}

bool shape_admits(const struct port *port, const int64_t *dims, int rank) {
    if (port->rank < 0)
        return true;
    if (port->rank != rank)
        return false;
    for (int i = 0; i < rank; i++)
        if (port->dims[i] >= 0 && port->dims[i] != dims[i])
            return false;
    return true;
}

char *shape_text(const int64_t *dims, int rank, char *text, size_t size) {
    size_t used = (size_t)snprintf(text, size, rank < 0 ? "[...]" : "[");
    for (int i = 0; i < rank && used < size; i++) {
        const char *comma = i ? "," : "";
        used += (size_t)(dims[i] < 0 ? snprintf(text + used, size - used, "%s?", comma)
                                     : snprintf(text + used, size - used, "%s%" PRId64, comma, dims[i]));
    }
    if (rank >= 0 && used < size)
        snprintf(text + used, size - used, "]");
    return text;
}

/* IEEE 754: an element is not finite when all its exponent bits are set. */
#define COUNT_NONFINITE(type, exponent)                                                                                \
    for (size_t i = 0; i < tensor->bytes / sizeof(type); i++) {                                                        \
        type bits;                                                                                                     \
        memcpy(&bits, (const char *)tensor->data + i * sizeof bits, sizeof bits);                                      \
        count += (bits & (exponent)) == (exponent);                                                                    \
    }

int64_t count_nonfinite(const struct tensor *tensor) {
    int64_t count = 0;
    switch (tensor->dtype) {
    case DT_FLOAT16: COUNT_NONFINITE(uint16_t, 0x7c00) break;
    case DT_BFLOAT16: COUNT_NONFINITE(uint16_t, 0x7f80) break;
    case DT_FLOAT32: COUNT_NONFINITE(uint32_t, 0x7f800000) break;
    case DT_FLOAT64: COUNT_NONFINITE(uint64_t, 0x7ff0000000000000) break;
    default: break;
    }
    return count;
}

void *allocate_aligned(size_t bytes) {
    void *memory = NULL;
    if (posix_memalign(&memory, 64, bytes ? bytes : 1) != 0)
        fail(EXIT_MEMORY, "out of memory: %zu bytes", bytes);
    return memory;
}
