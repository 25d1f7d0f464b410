/* What untrusted bytes are read from: one regular file at a time. */
#ifndef EKRUN_SOURCE_H
#define EKRUN_SOURCE_H

#include "bundle.h"

/* Opens `path` for bundle_read; `what` names it in messages. Below the folder `at` no link is followed, and what is not
 * a regular file of this mode fails with EXIT_REFUSED. AT_FDCWD takes any regular file; others fail with EXIT_INPUT. */
void source_open(int at, const char *path, const char *what, int mode);
void source_close(void);

/* All of a file of at most `limit` bytes; below a folder, of mode 0644. */
struct bytes source_load(int at, const char *path, const char *what, size_t limit);

#endif
