/* Opens an unpacked bundle, runs its model once on zeros, and shows what comes out.
 *
 *     cc -Iinclude examples/example.c -Llib -lekrun -Wl,-rpath,"$PWD/lib" -o example
 *     ./example .
 */
#include <ekrun.h>

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

enum { MOST = 16 };

static int failed(void) {
    fprintf(stderr, "%s\n", ekrun_error());
    return 1;
}

/* A dimension that is not fixed becomes 1. */
static void make_zeros(ekrun_tensor *tensor, int64_t *dims) {
    tensor->bytes = ekrun_dtype_size(tensor->dtype);
    for (int i = 0; i < tensor->rank; i++) {
        dims[i] = tensor->dims[i] < 0 ? 1 : tensor->dims[i];
        tensor->bytes *= (size_t)dims[i];
    }
    tensor->dims = dims;
    tensor->rank = tensor->rank < 0 ? 0 : tensor->rank;
    tensor->data = calloc(tensor->bytes + 1, 1);
}

static void show(const ekrun_tensor *tensor) {
    printf("%s: %s [", tensor->name, ekrun_dtype_name(tensor->dtype));
    for (int i = 0; i < tensor->rank; i++)
        printf("%s%" PRId64, i ? "," : "", tensor->dims[i]);
    printf("]");
    for (size_t i = 0; tensor->dtype == EKRUN_FLOAT32 && i < tensor->bytes / sizeof(float) && i < 10; i++)
        printf(" %g", ((const float *)tensor->data)[i]);
    printf("\n");
}

static int run(ekrun_model *model, ekrun_stream *stream) {
    ekrun_tensor inputs[MOST], output;
    int64_t dims[MOST][EKRUN_MAX_RANK];
    size_t count = ekrun_model_inputs(model);
    for (size_t i = 0; i < count && i < MOST; i++) {
        if (ekrun_model_input(model, i, &inputs[i]) != EKRUN_OK)
            return failed();
        make_zeros(&inputs[i], dims[i]);
    }
    if (ekrun_stream_run(stream, inputs, count < MOST ? count : MOST) != EKRUN_OK)
        return failed();
    for (size_t i = 0; ekrun_stream_output(stream, i, &output) == EKRUN_OK; i++)
        show(&output); /* its data is the stream's, until the next run */
    for (size_t i = 0; i < count && i < MOST; i++)
        free((void *)inputs[i].data);
    return 0;
}

int main(int argc, char **argv) {
    ekrun_model *model;
    ekrun_stream *stream;
    if (ekrun_model_open(argc > 1 ? argv[1] : ".", NULL, &model) != EKRUN_OK)
        return failed();
    printf("%s\n", ekrun_model_engine(model));
    if (ekrun_stream_open(model, &stream) != EKRUN_OK)
        return failed();
    int status = run(model, stream);
    ekrun_stream_close(stream);
    ekrun_model_close(model);
    return status;
}
