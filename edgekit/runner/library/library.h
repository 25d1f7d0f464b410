/* The parts of libekrun. */
#ifndef EKRUN_LIBRARY_H
#define EKRUN_LIBRARY_H

#include <stdatomic.h>

#include "deployment.h"
#include "ekrun.h"
#include "engine.h"
#include "fail.h"

/* Runs body(with), which may fail(); a status, and the words for it told. Not within another one. */
int call(void (*body)(void *), void *with);

/* This status, and EKRUN_USAGE, with these words. */
int refuse(enum exit_code code, const char *text);
int misuse(const char *text);

/* Reads `folder`/deployment.json; the folder's absolute path, the record's room, and the paths that options names are
 * then to be freed, whether or not it fails. */
struct place {
    char *folder, *text, *library, *model;
    void *room;
    struct deployment deployment;
};
void place_open(struct place *place, const char *folder);
void place_free(struct place *place);

/* Loads the engine's library into this process, or finds that it is there. */
void load_engine(struct engine *engine, struct options *options, const struct deployment *deployment);

struct ekrun_model {
    struct place place;
    struct options options;
    struct engine engine;
    char label[160];
    long *states;      /* for each input the output that feeds it, or -1 */
    atomic_long users; /* whoever opened it, and each stream */
};

/* Was this process forked after an engine was loaded? Then none is used in it. EKRUN_USAGE, with words for it. */
bool is_forked(void);
int refuse_forked(void);

/* Frees it when nobody is left. Nothing happens where is_forked(). */
void model_release(ekrun_model *model);

#endif
