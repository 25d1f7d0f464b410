/* An application of libekrun: every thread runs all samples on a stream of its own, and all must get the same bytes.
 *
 *     probe FOLDER OUT SAMPLES THREADS [NAME DTYPE DIMS FILE]...
 *
 * FILE holds the samples one after the other, DIMS is "1,3,5" or "-". OUT.i gets the bytes of output i, of all samples,
 * and stdout a line for each sample and output: its dimensions. */
#include <ekrun.h>

#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST = 16 };

struct feed {
    ekrun_tensor tensor;
    int64_t dims[EKRUN_MAX_RANK];
    char *bytes;
};

struct job {
    ekrun_model *model;
    ekrun_stream *stream;
    const struct feed *feeds;
    size_t feed_count, samples;
    char *found[MOST]; /* by output */
    size_t sizes[MOST];
    FILE *told;
    pthread_t thread;
};

static void *failed(const char *what) {
    fprintf(stderr, "%s: %s\n", what, ekrun_error());
    exit(1);
}

static void append(struct job *job, size_t output, const ekrun_tensor *tensor) {
    job->found[output] = realloc(job->found[output], job->sizes[output] + tensor->bytes + 1);
    memcpy(job->found[output] + job->sizes[output], tensor->data, tensor->bytes);
    job->sizes[output] += tensor->bytes;
    fprintf(job->told, "%s", tensor->name);
    for (int i = 0; i < tensor->rank; i++)
        fprintf(job->told, " %" PRId64, tensor->dims[i]);
    fprintf(job->told, "\n");
}

static void *run_all(void *argument) {
    struct job *job = argument;
    for (size_t k = 0; k < job->samples; k++) {
        ekrun_tensor inputs[MOST], output;
        for (size_t i = 0; i < job->feed_count; i++) {
            inputs[i] = job->feeds[i].tensor;
            inputs[i].data = job->feeds[i].bytes + k * inputs[i].bytes;
        }
        if (ekrun_stream_run(job->stream, inputs, job->feed_count) != EKRUN_OK)
            return failed("run");
        for (size_t i = 0; i < ekrun_model_outputs(job->model); i++) {
            if (ekrun_stream_output(job->stream, i, &output) != EKRUN_OK)
                return failed("output");
            append(job, i, &output);
        }
    }
    ekrun_stream_close(job->stream);
    return NULL;
}

static char *read_all(const char *path) {
    FILE *file = fopen(path, "rb");
    fseek(file, 0, SEEK_END);
    size_t size = (size_t)ftell(file);
    char *bytes = malloc(size + 1);
    rewind(file);
    if (fread(bytes, 1, size, file) != size)
        exit(2);
    fclose(file);
    return bytes;
}

static void read_feed(struct feed *feed, char **words) {
    feed->tensor = (ekrun_tensor){.name = words[0], .dims = feed->dims};
    while (!ekrun_dtype_name(feed->tensor.dtype) || strcmp(ekrun_dtype_name(feed->tensor.dtype), words[1]) != 0)
        feed->tensor.dtype++;
    feed->tensor.bytes = ekrun_dtype_size(feed->tensor.dtype);
    for (char *word = strtok(words[2], ",-"); word; word = strtok(NULL, ",-"))
        feed->tensor.bytes *= (size_t)(feed->dims[feed->tensor.rank++] = strtoll(word, NULL, 10));
    feed->bytes = read_all(words[3]);
}

static void write_all(const char *out, size_t index, const struct job *job) {
    char path[4096];
    snprintf(path, sizeof path, "%s.%zu", out, index);
    FILE *file = fopen(path, "wb");
    fwrite(job->found[index], 1, job->sizes[index], file);
    fclose(file);
}

/* So that whatever a leak checker finds is libekrun's. */
static void free_all(struct job *jobs, size_t threads, struct feed *feeds) {
    for (size_t t = 0; t < threads; t++)
        for (size_t i = 0; i < MOST; i++)
            free(jobs[t].found[i]);
    for (size_t i = 0; i < MOST; i++)
        free(feeds[i].bytes);
    free(jobs);
}

int main(int argc, char **argv) {
    struct feed feeds[MOST] = {0};
    size_t threads = (size_t)atoi(argv[4]), count = 0;
    struct job *jobs = calloc(threads, sizeof *jobs);
    ekrun_model *model;
    if (ekrun_api() != EKRUN_API || ekrun_model_open(argv[1], NULL, &model) != EKRUN_OK)
        failed("model");
    for (int i = 5; i + 3 < argc; i += 4)
        read_feed(&feeds[count++], argv + i);
    for (size_t t = 0; t < threads; t++) {
        jobs[t] = (struct job){.model = model, .feeds = feeds, .feed_count = count, .told = t ? tmpfile() : stdout};
        jobs[t].samples = (size_t)atoi(argv[3]);
        if (ekrun_stream_open(model, &jobs[t].stream) != EKRUN_OK)
            failed("stream");
        pthread_create(&jobs[t].thread, NULL, run_all, &jobs[t]);
    }
    size_t outputs = ekrun_model_outputs(model);
    for (size_t t = 0; t < threads; t++) {
        pthread_join(jobs[t].thread, NULL);
        for (size_t i = 0; i < outputs; i++)
            if (jobs[t].sizes[i] != jobs[0].sizes[i] || memcmp(jobs[t].found[i], jobs[0].found[i], jobs[0].sizes[i]) != 0)
                return 3;
    }
    ekrun_model_close(model);
    for (size_t i = 0; i < outputs; i++)
        write_all(argv[2], i, &jobs[0]);
    free_all(jobs, threads, feeds);
    return 0;
}
