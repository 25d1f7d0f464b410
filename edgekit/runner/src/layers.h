/* `ekrun layers`: the time of each layer, from the engine's own profiler. */
#ifndef EKRUN_LAYERS_H
#define EKRUN_LAYERS_H

/* The name under which an engine's own profile is left in the folder of --out. */
#define LAYERS_FILE "profile.json"

/* Where an engine that names its file itself is to put it: a prefix in `folder`, which is made. */
const char *layers_file_prefix(const char *folder);

/* Gives the file `made` its name. Fails with EXIT_IO. */
void layers_keep_file(const char *folder, const char *made);

#endif
