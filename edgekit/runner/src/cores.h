/* `--cores`: the CPUs that this process may use. */
#ifndef EKRUN_CORES_H
#define EKRUN_CORES_H

/* Keeps to the CPUs of a kernel list such as "0-3,5". Must be called while this is the only thread. Fails with EXIT_USAGE
 * where it is no list, or where none of them may be used. */
void keep_to_cores(const char *list);

#endif
