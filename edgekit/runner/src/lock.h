/* Locks between processes: a file that only its owner can open, so that no other user can hold it. */
#ifndef EKRUN_LOCK_H
#define EKRUN_LOCK_H

/* Locks the file `name` in the open folder `at`, until what it returns is closed; `flags` open it (O_CREAT makes it),
 * `kind` is flock's. Tries for up to `milliseconds`. -1 and errno: EWOULDBLOCK where another process has it. */
int lock_file(int at, const char *name, int flags, int kind, int milliseconds);

#endif
