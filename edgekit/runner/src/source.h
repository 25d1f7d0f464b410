/* What untrusted bytes are read from: one regular file at a time. */
#ifndef EKRUN_SOURCE_H
#define EKRUN_SOURCE_H

#include "bundle.h"

/* Opens `path` for bundle_read; `what` names it in messages. Below the folder `at` no link is followed, and what is not
 * a regular file of this mode, or of any for ANY_MODE, fails with EXIT_REFUSED. AT_FDCWD takes any regular file; others
 * fail with EXIT_INPUT. One that is still open is closed. */
#define ANY_MODE (-1)
void source_open(int at, const char *path, const char *what, int mode);
void source_close(void);

/* Whether nothing is left to read. */
bool source_at_end(void);

/* Puts it aside while others are read, and takes it up again. */
int source_keep(void);
void source_resume(int kept, const char *what);

/* All of a file of at most `limit` bytes; below a folder, of mode 0644. */
struct bytes source_load(int at, const char *path, const char *what, size_t limit);

/* The same of a file that is open, of any mode; it is closed. Fails with EXIT_INPUT. */
struct bytes source_load_open(int file, const char *what, size_t limit);

#endif
