/* ekrun: runs and measures one model on this machine, and tells what machine it is. See PROTOCOL.md. */
#define _GNU_SOURCE
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>

#include "fail.h"
#include "json.h"
#include "proc.h"
#include "sigill.h"
#include "tether.h"
#include "verbs.h"
#ifndef EKRUN_FACTS_ONLY
#include "cores.h"
#include "deployment.h"
#include "limit.h"
#endif

/* One file for each output of a model may exceed the usual soft limit of 1024. */
static void raise_file_limit(void) {
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

/* The build for boards whose C library an engine could not use has the verb `facts` only. */
static void serve(const struct options *options, int64_t started_ns) {
#ifndef EKRUN_FACTS_ONLY
    if (options->memory_limit)
        limit_memory(options->memory_limit); /* forks: before there are threads */
    if (options->cores)
        keep_to_cores(options->cores); /* threads that are made later inherit it */
#endif
    if (options->tether)
        tether(options->from_stdin);
    switch (options->verb) {
    case VERB_FACTS: facts(options); break;
#ifdef EKRUN_FACTS_ONLY
    default: (void)started_ns;
#else
    case VERB_RUN: run(options); break;
    case VERB_BENCH: bench(options, started_ns); break;
    case VERB_LAYERS: layers(options); break;
    case VERB_CHECK: check(options); break;
    case VERB_UNPACK: unpack(options); break;
    case VERB_VERIFY: verify(options); break;
    case VERB_INSTALL: install(options); break;
    case VERB_ROLLBACK: rollback(options); break;
    case VERB_STATUS: status(options); break;
    case VERB_TRUST: trust(options); break;
#endif
    }
}

int main(int argc, char **argv) {
    int64_t started = now_ns();
    struct options options;
    answers_open();
    signal(SIGPIPE, SIG_IGN); /* a closed pipe, and a file over RLIMIT_FSIZE, are write errors with an exit code */
    signal(SIGXFSZ, SIG_IGN);
    sigill_report();
    parse_args(argc, argv, &options);
#ifndef EKRUN_FACTS_ONLY
    if (options.dir && options.verb & ENGINE_VERBS)
        deployment_fill(&options);
#endif
    check_args(&options);
    raise_file_limit();
    /* ONNX Runtime's telemetry can only be stopped before the library is loaded. */
    if (setenv("ORT_DISABLE_TELEMETRY", "1", 1) != 0)
        fail(EXIT_MEMORY, "out of memory");
    serve(&options, started);
    finish();
}
