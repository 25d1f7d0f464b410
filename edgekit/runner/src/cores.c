#define _GNU_SOURCE
#include "cores.h"

#include <errno.h>
#include <sched.h>
#include <string.h>

#include "cpuinfo.h"
#include "fail.h"

void keep_to_cores(const char *list) {
    static int cpus[MOST_CPUS];
    int count = cpu_list(list, cpus);
    if (count <= 0)
        fail(EXIT_USAGE, "--cores takes a list of CPUs such as 0-3,5, not %s", list);
    cpu_set_t *set = CPU_ALLOC(MOST_CPUS);
    if (!set)
        fail(EXIT_MEMORY, "out of memory");
    CPU_ZERO_S(CPU_ALLOC_SIZE(MOST_CPUS), set);
    for (int i = 0; i < count; i++)
        CPU_SET_S(cpus[i], CPU_ALLOC_SIZE(MOST_CPUS), set);
    int status = sched_setaffinity(0, CPU_ALLOC_SIZE(MOST_CPUS), set);
    CPU_FREE(set);
    if (status != 0)
        fail(EXIT_USAGE, "--cores %s: %s", list, strerror(errno));
}
