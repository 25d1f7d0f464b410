/* ekrun: runs and measures one model on this machine, and tells what machine it is. See PROTOCOL.md. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>

#include "fail.h"
#include "json.h"
#include "proc.h"
#include "verbs.h"

/* One file for each output of a model may exceed the usual soft limit of 1024. */
static void raise_file_limit(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

int main(int argc, char **argv) {
    int64_t started = now_ns();
    struct options options;
    answers_open();
    signal(SIGPIPE, SIG_IGN); /* a closed pipe, and a file over RLIMIT_FSIZE, are write errors with an exit code */
    signal(SIGXFSZ, SIG_IGN);
    parse_args(argc, argv, &options);
    raise_file_limit();
    /* ONNX Runtime's telemetry can only be stopped before the library is loaded. */
    if (setenv("ORT_DISABLE_TELEMETRY", "1", 1) != 0)
        fail(EXIT_MEMORY, "out of memory");
    switch (options.verb) {
    case VERB_FACTS: facts(&options); break;
    case VERB_RUN: run(&options); break;
    case VERB_BENCH: bench(&options, started); break;
    }
    finish();
}
