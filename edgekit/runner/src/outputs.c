#define _GNU_SOURCE
#include "outputs.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fail.h"
#include "npy.h"

struct output {
    FILE *file;
    char *path, *part;
    size_t header;   /* bytes reserved for it */
    int64_t samples; /* written so far */
    int64_t elements, nonfinite;
    int rank; /* of the first sample */
    int64_t dims[MAX_RANK];
    bool ragged;
    int64_t *shapes; /* rank, then dimensions, of every sample */
    size_t shapes_used, shapes_room;
};

/* One set per process: the clean-up of fail() has to find the part files. */
static struct output *outputs;
static size_t output_count;

static void remove_parts(void) {
    for (size_t i = 0; i < output_count; i++)
        if (outputs[i].part)
            unlink(outputs[i].part);
}

static void check_io(bool good, const char *path) {
    if (!good)
        fail(EXIT_IO, "%s: %s", path, strerror(errno));
}

static char *join(const char *folder, size_t index, const char *suffix) {
    size_t size = strlen(folder) + 48;
    char *path = allocate(size, 1);
    snprintf(path, size, "%s/%zu.npy%s", folder, index, suffix);
    return path;
}

void outputs_open(struct engine *engine, const char *folder) {
    check_io(mkdir(folder, 0777) == 0 || errno == EEXIST, folder);
    outputs = allocate(engine->output_count, sizeof *outputs);
    set_cleanup(remove_parts);
    for (size_t i = 0; i < engine->output_count; i++) {
        struct output *o = &outputs[i];
        char *part = join(folder, i, ".part");
        o->path = join(folder, i, "");
        o->file = fopen(part, "wbe");
        check_io(o->file, part);
        o->part = part;
        output_count = i + 1;
    }
}

static void note_shape(struct output *o, const struct tensor *view) {
    size_t needed = o->shapes_used + 1 + (size_t)view->rank;
    if (needed > o->shapes_room) {
        o->shapes_room = needed * 2;
        o->shapes = reallocate(o->shapes, o->shapes_room, sizeof *o->shapes);
    }
    o->shapes[o->shapes_used] = view->rank;
    memcpy(o->shapes + o->shapes_used + 1, view->dims, (size_t)view->rank * sizeof *view->dims);
    o->shapes_used = needed;
}

/* The header is written last, when the shape is known; its size depends on the first sample's rank only. */
static void begin(struct output *o, const struct tensor *view) {
    o->rank = view->rank;
    memcpy(o->dims, view->dims, (size_t)view->rank * sizeof *view->dims);
    o->header = npy_header_size(view->rank + 1);
    check_io(fseeko(o->file, (off_t)o->header, SEEK_SET) == 0, o->part);
}

static void append(struct output *o, const struct tensor *view) {
    if (o->samples++ == 0)
        begin(o, view);
    o->ragged |= view->rank != o->rank || memcmp(view->dims, o->dims, (size_t)o->rank * sizeof *o->dims) != 0;
    note_shape(o, view);
    o->elements += (int64_t)(view->bytes / DTYPES[view->dtype].size);
    o->nonfinite += count_nonfinite(view);
    if (view->bytes)
        check_io(fwrite(view->data, 1, view->bytes, o->file) == view->bytes, o->part);
}

void outputs_append(struct engine *engine) {
    struct tensor view;
    for (size_t i = 0; i < engine->output_count; i++) {
        engine->ops->output(engine, i, &view);
        append(&outputs[i], &view);
    }
}

/* The shape of the whole file; returns its rank. */
static int stacked_shape(const struct output *o, int64_t dims[NPY_MAX_RANK]) {
    dims[0] = o->ragged ? o->elements : o->samples;
    if (o->ragged)
        return 1;
    memcpy(dims + 1, o->dims, (size_t)o->rank * sizeof *dims);
    return o->rank + 1;
}

static void complete(struct output *o, enum dtype dtype) {
    int64_t dims[NPY_MAX_RANK];
    int rank = stacked_shape(o, dims);
    char *header = allocate(o->header, 1);
    npy_format(header, o->header, dtype, dims, rank);
    bool written = fseeko(o->file, 0, SEEK_SET) == 0 && fwrite(header, 1, o->header, o->file) == o->header &&
                   fflush(o->file) == 0 && fsync(fileno(o->file)) == 0;
    check_io(written, o->part);
    check_io(fclose(o->file) == 0, o->part);
    free(header);
}

static void write_dims(struct json *j, const char *key, const int64_t *dims, int rank) {
    json_begin(j, key, '[');
    for (int i = 0; i < rank; i++)
        json_int(j, NULL, dims[i]);
    json_end(j, ']');
}

static void describe(const struct output *o, size_t index, const struct port *port, struct json *j) {
    int64_t dims[NPY_MAX_RANK];
    int rank = stacked_shape(o, dims);
    json_begin(j, NULL, '{');
    json_int(j, "index", (int64_t)index);
    json_string(j, "name", port->name);
    json_string(j, "dtype", DTYPES[port->dtype].name);
    json_string(j, "file", strrchr(o->path, '/') + 1);
    write_dims(j, "shape", dims, rank);
    if (!o->ragged) {
        json_string(j, "shapes", "equal");
    } else {
        json_begin(j, "shapes", '[');
        for (size_t at = 0; at < o->shapes_used; at += 1 + (size_t)o->shapes[at])
            write_dims(j, NULL, o->shapes + at + 1, (int)o->shapes[at]);
        json_end(j, ']');
    }
    json_int(j, "nonfinite", o->nonfinite);
    json_end(j, '}');
}

void outputs_finish(struct engine *engine, struct json *j) {
    for (size_t i = 0; i < output_count; i++)
        complete(&outputs[i], engine->outputs[i].dtype);
    for (size_t i = 0; i < output_count; i++)
        check_io(rename(outputs[i].part, outputs[i].path) == 0, outputs[i].path);
    set_cleanup(NULL);
    json_begin(j, "outputs", '[');
    for (size_t i = 0; i < output_count; i++) {
        struct output *o = &outputs[i];
        describe(o, i, &engine->outputs[i], j);
        free(o->path);
        free(o->part);
        free(o->shapes);
    }
    json_end(j, ']');
    free(outputs);
}
