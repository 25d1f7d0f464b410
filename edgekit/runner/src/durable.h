/* Changes of a folder that outlast a power cut: each is on the disk, the folder's own entry included, when the call
 * returns. They fail with EXIT_IO.
 *
 * - what replaces something is made beside it, as `.NAME.new`, and takes its name by rename;
 * - `at` is an open folder; `shown` names what is made, in messages.
 */
#ifndef EKRUN_DURABLE_H
#define EKRUN_DURABLE_H

#include <stdbool.h>

#include "bundle.h"

#define OPEN_FOLDER (O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)

/* Some file systems have no fsync for folders: that is no error. */
bool sync_folder(int folder);

/* Opens the folder, which is made where it is missing, of mode 0755 less the umask. */
int durable_folder(int at, const char *name, const char *shown);

void durable_file(int at, const char *name, struct bytes bytes, const char *shown);
void durable_link(int at, const char *name, const char *target, const char *shown);
void durable_unlink(int at, const char *name, const char *shown);

/* In two steps: what is made under the name `made` takes `name` when that is needed, which asks for no room on the
 * disk. durable_spare makes a file, durable_refill writes other bytes, not more of them, into it, and has it take
 * `name`; it is false where that cannot be, as it needs a file that is there. */
void durable_spare(int at, const char *made, struct bytes bytes, const char *shown);
bool durable_refill(int at, const char *made, const char *name, struct bytes bytes);
void durable_spare_link(int at, const char *made, const char *target, const char *shown);
void durable_take(int at, const char *made, const char *name, const char *shown);

/* Removes whatever is there, as far as it lets itself; follows no link, and leaves what is mounted there. */
void remove_tree(int at, const char *name);
/* As remove_tree, all that is in a folder. */
void empty_folder(int folder);
/* The bytes of the disk that remove_tree would free. */
uint64_t tree_bytes(int at, const char *name);

#endif
