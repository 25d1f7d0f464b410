#include "npy.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#define MAGIC "\x93NUMPY"
#define MAGIC_SIZE 6

/* The header's text: a Python dictionary literal. Every read checks `at` against `end`. */
struct cursor {
    const char *at, *end;
};

static void skip_space(struct cursor *c) {
    while (c->at < c->end && (*c->at == ' ' || *c->at == '\t' || *c->at == '\n' || *c->at == '\r'))
        c->at++;
}

/* True, and past it, when the next token is `expected`. */
static bool take(struct cursor *c, const char *expected) {
    size_t length = strlen(expected);
    skip_space(c);
    if ((size_t)(c->end - c->at) < length || memcmp(c->at, expected, length) != 0)
        return false;
    c->at += length;
    return true;
}

/* A quoted string without escapes, copied with its terminator. */
static bool take_string(struct cursor *c, char *text, size_t size) {
    skip_space(c);
    if (c->at == c->end || (*c->at != '\'' && *c->at != '"'))
        return false;
    char quote = *c->at++;
    for (size_t used = 0; c->at < c->end && used < size; used++) {
        if (*c->at == quote) {
            text[used] = '\0';
            c->at++;
            return true;
        }
        if (*c->at == '\\' || *c->at == '\0')
            return false;
        text[used] = *c->at++;
    }
    return false;
}

static bool take_dimension(struct cursor *c, int64_t *value) {
    skip_space(c);
    const char *first = c->at;
    *value = 0;
    while (c->at < c->end && *c->at >= '0' && *c->at <= '9') {
        if (__builtin_mul_overflow(*value, 10, value) || __builtin_add_overflow(*value, *c->at - '0', value))
            return false;
        c->at++;
    }
    bool any = c->at > first;
    if (any && c->at < c->end && *c->at == 'L') /* written by Python 2 */
        c->at++;
    return any;
}

static const char *take_shape(struct cursor *c, struct npy *npy) {
    if (!take(c, "("))
        return "its shape is not a tuple";
    npy->rank = 0;
    bool comma = true;
    while (!take(c, ")")) {
        if (!comma)
            return "its shape is malformed";
        if (npy->rank == NPY_MAX_RANK)
            return "its shape has more than 32 dimensions";
        if (!take_dimension(c, &npy->dims[npy->rank]))
            return "its shape holds something other than a whole number in range";
        npy->rank++;
        comma = take(c, ",");
    }
    if (npy->rank == 1 && !comma)
        return "its shape is not a tuple"; /* "(3)" is a number in Python */
    return NULL;
}

static const char *take_dtype(struct cursor *c, struct npy *npy) {
    char descr[16];
    if (!take_string(c, descr, sizeof descr))
        return "its dtype is structured or malformed";
    if (!*descr)
        return "its dtype is empty";
    if (descr[0] == '>')
        return "it is big endian; save it as little endian";
    for (int dtype = DT_NONE + 1; dtype < DT_COUNT; dtype++) {
        if (dtype != DT_BFLOAT16 && strchr("<|=", descr[0]) && strcmp(descr + 1, DTYPES[dtype].npy + 1) == 0) {
            npy->dtype = (enum dtype)dtype;
            return NULL;
        }
    }
    return "its dtype is not one of float16/32/64, int8..64, uint8..64 and bool";
}

static const char *take_order(struct cursor *c) {
    if (take(c, "True"))
        return "it is in Fortran order; save it in C order";
    return take(c, "False") ? NULL : "its fortran_order is malformed";
}

/* The three keys, each once, in any order, and nothing after them. */
static const char *parse_text(struct cursor *c, struct npy *npy) {
    static const char *const keys[] = {"descr", "fortran_order", "shape"};
    unsigned seen = 0;
    if (!take(c, "{"))
        return "its header is not a dictionary";
    while (!take(c, "}")) {
        char key[16];
        if (!take_string(c, key, sizeof key) || !take(c, ":"))
            return "its header is malformed";
        unsigned which = 0;
        while (which < 3 && strcmp(key, keys[which]) != 0)
            which++;
        if (which == 3 || seen & 1u << which)
            return "its header has an unknown or repeated key";
        seen |= 1u << which;
        const char *reason = which == 0 ? take_dtype(c, npy) : which == 1 ? take_order(c) : take_shape(c, npy);
        if (reason)
            return reason;
        if (!take(c, ",")) {
            if (!take(c, "}"))
                return "its header is malformed";
            break;
        }
    }
    skip_space(c);
    if (c->at != c->end)
        return "its header has text after the dictionary";
    return seen == 7 ? NULL : "its header lacks one of descr, fortran_order and shape";
}

static uint32_t little_endian(const unsigned char *bytes, int count) {
    uint32_t value = 0;
    for (int i = count - 1; i >= 0; i--)
        value = value << 8 | bytes[i];
    return value;
}

const char *npy_parse(const void *head, size_t size, uint64_t file_size, struct npy *npy) {
    const unsigned char *bytes = head;
    memset(npy, 0, sizeof *npy);
    if (size < MAGIC_SIZE + 2 || memcmp(bytes, MAGIC, MAGIC_SIZE) != 0)
        return "it is not a .npy file";
    int major = bytes[MAGIC_SIZE], minor = bytes[MAGIC_SIZE + 1];
    if (major < 1 || major > 3 || minor != 0)
        return "its .npy version is unknown";
    int length_size = major == 1 ? 2 : 4;
    size_t text = MAGIC_SIZE + 2 + (size_t)length_size;
    if (size < text)
        return "it is truncated in its header";
    uint32_t length = little_endian(bytes + MAGIC_SIZE + 2, length_size);
    if (length > NPY_MAX_HEADER - text)
        return "its header is too long";
    npy->offset = text + length;
    if (npy->offset > size || npy->offset > file_size)
        return "it is truncated in its header";
    struct cursor c = {(const char *)bytes + text, (const char *)bytes + npy->offset};
    const char *reason = parse_text(&c, npy);
    if (reason)
        return reason;
    if (!shape_bytes(npy->dims, npy->rank, DTYPES[npy->dtype].size, &npy->bytes))
        return "its shape is too large";
    uint64_t present = file_size - npy->offset;
    if (present < npy->bytes)
        return "it is truncated";
    return present > npy->bytes ? "it is longer than its header says" : NULL;
}

/* Magic, version and length: 10 bytes; the dictionary's fixed text: under 64; a dimension: at most 20 digits and a
 * comma. */
size_t npy_header_size(int rank) { return (10 + 64 + (size_t)rank * 21 + 63) / 64 * 64; }

void npy_format(char *header, size_t size, enum dtype dtype, const int64_t *dims, int rank) {
    memcpy(header, MAGIC "\x01\x00", 8);
    header[8] = (char)((size - 10) & 0xff);
    header[9] = (char)((size - 10) >> 8);
    int used =
        10 + snprintf(header + 10, size - 10, "{'descr': '%s', 'fortran_order': False, 'shape': (", DTYPES[dtype].npy);
    for (int i = 0; i < rank; i++)
        used += snprintf(header + used, size - (size_t)used, "%" PRId64 ",", dims[i]);
    used += snprintf(header + used, size - (size_t)used, ")}");
    memset(header + used, ' ', size - (size_t)used);
    header[size - 1] = '\n';
}
