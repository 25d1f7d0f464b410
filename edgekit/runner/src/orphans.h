/* What a check leaves behind: as this process is their subreaper, its descendants become its own children when their
 * parents die, whatever group or session they have made for themselves. */
#ifndef EKRUN_ORPHANS_H
#define EKRUN_ORPHANS_H

/* Before the check is started: children that are there by now are another's. */
void orphans_begin(void);

/* Kills and reaps all others, again and again until none is left, for at most a second. Needs /proc. */
void orphans_end(void);

#endif
