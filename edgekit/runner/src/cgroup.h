/* How much CPU this process's control group may use. */
#ifndef EKRUN_CGROUP_H
#define EKRUN_CGROUP_H

/* CPUs' worth of time, the least over the group and its ancestors (v1 or v2); negative: unlimited or unknown. */
double cgroup_cpu_quota(void);

#endif
