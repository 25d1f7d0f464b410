/* Whether this machine has what a bundle asks for. */
#ifndef EKRUN_REQUIRES_H
#define EKRUN_REQUIRES_H

#include "bundle.h"

/* Fails with EXIT_INCOMPATIBLE and names everything that is not there. What is not known is taken to be there. */
void check_requires(const struct bundle *bundle);

#endif
