/* A folder that is complete or absent: filled beside its place under another name, synced, renamed.
 *
 * - the staging folder of DIR is `.<name of DIR>.staging` beside it; one process at a time has it locked, and empties
 *   what one that was killed has left there;
 * - every file is made anew, below folders that were made anew: no link leads out;
 * - fail() and the signals of stop.h remove it.
 */
#ifndef EKRUN_STAGING_H
#define EKRUN_STAGING_H

#include <stdbool.h>

/* Fails with EXIT_USAGE where DIR exists or cannot be made, with EXIT_IO where another process is making it. */
void staging_open(const char *destination);

/* The same for the entry `name` of the open folder `target`, which may exist, by way of `.staging` in the open folder
 * `parent`; `shown` is its name in messages. */
void staging_open_at(int parent, int target, const char *name, const char *shown);

/* Begins the file `path`, whose folders are made; bundle_write fills it; the end of it is synced. */
void staging_file(const char *path, unsigned mode);
void staging_restart_file(void); /* drops what has been written of it */
void staging_end_file(void);

/* Syncs the folders. */
void staging_sync(void);

/* Renames, or exchanges it with what has its name, if that is there, and syncs the folders above. */
void staging_place(bool exchange);

#endif
