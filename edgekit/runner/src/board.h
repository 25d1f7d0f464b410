/* The board around the CPU: its name, its system on a chip, temperatures and what slows it down. */
#ifndef EKRUN_BOARD_H
#define EKRUN_BOARD_H

#include "json.h"

/* The string `board`, the objects `soc` and `throttled`, the list `thermal`. */
void write_board(struct json *j);

#endif
