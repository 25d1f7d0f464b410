/* What comes out of the model, stacked into <folder>/<index>.npy.
 *
 * - a file is complete or absent: written as <index>.npy.part, synced, renamed; a failed run leaves none;
 * - equal shapes give [N, *shape]; otherwise one flat array, with each sample's shape in the answer.
 */
#ifndef EKRUN_OUTPUTS_H
#define EKRUN_OUTPUTS_H

#include "engine.h"
#include "json.h"

/* Makes `folder` if needed and removes older files of the same names. Fails with EXIT_IO. */
void outputs_open(struct engine *engine, const char *folder);

/* Appends the outputs of the last inference of a lane. */
void outputs_append(struct engine *engine, size_t lane);

/* Completes every file and writes the list `outputs` into the answer. */
void outputs_finish(struct engine *engine, const char *folder, struct json *j);

#endif
