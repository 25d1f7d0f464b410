#define _GNU_SOURCE
#include "recorder.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fail.h"
#include "npy.h"

#define CHUNK 4096

struct record {
    int64_t start_ns, latency_ns;
};

struct chunk {
    struct record records[CHUNK];
    int64_t used;
    struct chunk *next; /* spare */
};

/* One per process: the clean-up of fail() has to find it. */
static const char *part_path;

static void remove_part(void) { unlink(part_path); }

static void check_io(bool good, const char *path) {
    if (!good)
        fail(EXIT_IO, "%s: %s", path, strerror(errno));
}

static struct chunk *new_chunk(void) {
    struct chunk *chunk = allocate(1, sizeof *chunk);
    memset(chunk, 0, sizeof *chunk); /* touched now, not at the first record of each page */
    return chunk;
}

static void open_part(struct recorder *r) {
    size_t size = strlen(r->path) + sizeof ".part";
    r->part = allocate(size, 1);
    snprintf(r->part, size, "%s.part", r->path);
    check_io(unlink(r->path) == 0 || errno == ENOENT, r->path);
    r->fd = open(r->part, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    check_io(r->fd >= 0, r->part);
    r->header = npy_header_size(2);
    part_path = r->part;
    set_cleanup(remove_part);
}

void recorder_open(struct recorder *r, const char *path) {
    *r = (struct recorder){.path = path, .fd = -1, .room = 1024};
    pthread_mutex_init(&r->lock, NULL);
    r->chunks = allocate(r->room, sizeof *r->chunks);
    r->chunks[0] = new_chunk();
    r->spare = new_chunk();
    if (path)
        open_part(r);
}

static void write_at(struct recorder *r, const void *bytes, size_t size, size_t offset) {
    for (size_t done = 0; done < size;) {
        ssize_t n = pwrite(r->fd, (const char *)bytes + done, size - done, (off_t)(offset + done));
        check_io(n >= 0 || errno == EINTR, r->part);
        done += n > 0 ? (size_t)n : 0;
    }
}

static void write_chunk(struct recorder *r, const struct chunk *chunk, size_t index) {
    size_t offset = r->header + index * sizeof chunk->records;
    write_at(r, chunk->records, (size_t)chunk->used * sizeof *chunk->records, offset);
}

/* The chunk of an index, under the lock. */
static struct chunk *chunk_at(struct recorder *r, size_t index) {
    if (index >= r->room) {
        size_t room = index * 2;
        r->chunks = reallocate(r->chunks, room, sizeof *r->chunks);
        memset(r->chunks + r->room, 0, (room - r->room) * sizeof *r->chunks);
        r->room = room;
    }
    if (!r->chunks[index]) {
        struct chunk *spare = r->spare;
        r->spare = spare ? spare->next : NULL;
        r->chunks[index] = spare ? spare : new_chunk();
    }
    return r->chunks[index];
}

static void put_spare(struct recorder *r, struct chunk *chunk) {
    pthread_mutex_lock(&r->lock);
    chunk->used = 0;
    chunk->next = r->spare;
    r->spare = chunk;
    pthread_mutex_unlock(&r->lock);
}

void recorder_put(struct recorder *r, int64_t number, int64_t start_ns, int64_t latency_ns) {
    size_t index = (size_t)number / CHUNK;
    pthread_mutex_lock(&r->lock);
    struct chunk *chunk = chunk_at(r, index);
    chunk->records[number % CHUNK] = (struct record){start_ns, latency_ns};
    r->count++;
    bool full = ++chunk->used == CHUNK && r->path;
    if (full)
        r->chunks[index] = NULL;
    pthread_mutex_unlock(&r->lock);
    if (full) { /* no other thread holds it now, and none waits while it is written */
        write_chunk(r, chunk, index);
        put_spare(r, chunk);
    }
}

static void complete_file(struct recorder *r) {
    int64_t dims[] = {r->count, 2};
    char *header = allocate(r->header, 1);
    for (size_t i = 0; i < r->room; i++)
        if (r->chunks[i])
            write_chunk(r, r->chunks[i], i);
    npy_format(header, r->header, DT_INT64, dims, 2);
    write_at(r, header, r->header, 0);
    check_io(fsync(r->fd) == 0 || errno == EINVAL, r->part);
    check_io(close(r->fd) == 0, r->part);
    check_io(rename(r->part, r->path) == 0, r->path);
    set_cleanup(NULL);
    free(header);
    free(r->part);
}

static void write_list(struct recorder *r, struct json *j) {
    json_begin(j, "latencies_ns", '[');
    for (int64_t i = 0; i < r->count; i++)
        json_int(j, NULL, r->chunks[i / CHUNK]->records[i % CHUNK].latency_ns);
    json_end(j, ']');
}

void recorder_finish(struct recorder *r, struct json *j) {
    json_int(j, "count", r->count);
    if (r->path)
        complete_file(r);
    else
        write_list(r, j);
    for (size_t i = 0; i < r->room; i++)
        free(r->chunks[i]);
    for (struct chunk *spare = r->spare, *next; spare; spare = next) {
        next = spare->next;
        free(spare);
    }
    free(r->chunks);
}
