#define _GNU_SOURCE
#include "outputs.h"

#include <errno.h>
#include <fcntl.h>
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
    int64_t alike;   /* samples of that shape before the first that differs */
    int64_t *shapes; /* rank, then dimensions, of that one and every later sample */
    size_t shapes_used, shapes_room;
};

/* One set per process: the clean-up of fail() has to find the part files. */
static struct output *outputs;
static size_t output_count;

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

/* A run that fails leaves no file of its own, and no older one that would pass for it. */
static void remove_all(void) {
    for (size_t i = 0; i < output_count; i++) {
        unlink(outputs[i].part);
        unlink(outputs[i].path);
    }
}

void outputs_open(struct engine *engine, const char *folder) {
    check_io(mkdir(folder, 0777) == 0 || errno == EEXIST, folder);
    outputs = allocate(engine->output_count, sizeof *outputs);
    for (size_t i = 0; i < engine->output_count; i++) {
        outputs[i].path = join(folder, i, "");
        outputs[i].part = join(folder, i, ".part");
    }
    output_count = engine->output_count;
    set_cleanup(remove_all);
    for (size_t i = 0; i < output_count; i++) {
        struct output *o = &outputs[i];
        check_io(unlink(o->path) == 0 || errno == ENOENT, o->path);
        o->file = fopen(o->part, "wbe");
        check_io(o->file, o->part);
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

static bool has_first_shape(const struct output *o, const struct tensor *view) {
    return view->rank == o->rank && memcmp(view->dims, o->dims, (size_t)o->rank * sizeof *o->dims) == 0;
}

static void append(struct output *o, const struct tensor *view) {
    if (o->samples++ == 0)
        begin(o, view);
    if (o->alike == o->samples - 1 && has_first_shape(o, view))
        o->alike++;
    else
        note_shape(o, view);
    o->elements += (int64_t)(view->bytes / DTYPES[view->dtype].size);
    o->nonfinite += count_nonfinite(view);
    if (view->bytes)
        check_io(fwrite(view->data, 1, view->bytes, o->file) == view->bytes, o->part);
}

void outputs_append(struct engine *engine, size_t lane) {
    struct tensor view;
    for (size_t i = 0; i < engine->output_count; i++) {
        engine->ops->output(engine, lane, i, &view);
        append(&outputs[i], &view);
    }
}

static bool is_ragged(const struct output *o) { return o->alike < o->samples; }

/* The shape of the whole file; returns its rank. */
static int stacked_shape(const struct output *o, int64_t dims[NPY_MAX_RANK]) {
    dims[0] = is_ragged(o) ? o->elements : o->samples;
    if (is_ragged(o))
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

static void write_shapes(const struct output *o, struct json *j) {
    json_begin(j, "shapes", '[');
    for (int64_t i = 0; i < o->alike; i++)
        write_dims(j, NULL, o->dims, o->rank);
    for (size_t at = 0; at < o->shapes_used; at += 1 + (size_t)o->shapes[at])
        write_dims(j, NULL, o->shapes + at + 1, (int)o->shapes[at]);
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
    if (is_ragged(o))
        write_shapes(o, j);
    else
        json_string(j, "shapes", "equal");
    json_int(j, "nonfinite", o->nonfinite);
    json_end(j, '}');
}

/* Makes the renames last. Some file systems have no fsync for folders. */
static void sync_folder(const char *folder) {
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    check_io(fd >= 0 && (fsync(fd) == 0 || errno == EINVAL), folder);
    close(fd);
}

void outputs_finish(struct engine *engine, const char *folder, struct json *j) {
    for (size_t i = 0; i < output_count; i++)
        complete(&outputs[i], engine->outputs[i].dtype);
    for (size_t i = 0; i < output_count; i++)
        check_io(rename(outputs[i].part, outputs[i].path) == 0, outputs[i].path);
    sync_folder(folder);
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
