#if defined(__aarch64__)

#include <stdio.h>
#include <sys/auxv.h>

#include "cpu.h"
#include "cpuinfo.h"

const char *const CPU_ARCH = "aarch64";

#define AT_HWCAP2_KEY 26 /* AT_HWCAP2, missing in old headers */
#define HWCAP_CPUID_BIT 11
#define MOST_PARTS 8

/* Names as in /proc/cpuinfo, by bit: Linux kernel, arch/arm64, uapi/asm/hwcap.h. */
static const char *const HWCAP_NAMES[] = {
    "fp",    "asimd",    "evtstrm", "aes",   "pmull",  "sha1",  "sha2", "crc32", "atomics", "fphp",    "asimdhp",
    "cpuid", "asimdrdm", "jscvt",   "fcma",  "lrcpc",  "dcpop", "sha3", "sm3",   "sm4",     "asimddp", "sha512",
    "sve",   "asimdfhm", "dit",     "uscat", "ilrcpc", "flagm", "ssbs", "sb",    "paca",    "pacg",
};
static const char *const HWCAP2_NAMES[] = {
    "dcpodp", "sve2",    "sveaes",   "svepmull", "svebitperm", "svesha3", "svesm4", "flagm2",
    "frint",  "svei8mm", "svef32mm", "svef64mm", "svebf16",    "i8mm",    "bf16",   "dgh",
    "rng",    "bti",     "mte",      "ecv",      "afp",        "rpres",   "mte3",   "sme",
};

/* Parts of implementer 0x41 (Arm), from each core's Technical Reference Manual, MIDR_EL1. */
static const struct {
    long part;
    const char *name;
} ARM_PARTS[] = {
    {0xd03, "Cortex-A53"},   {0xd04, "Cortex-A35"},  {0xd05, "Cortex-A55"},  {0xd07, "Cortex-A57"},
    {0xd08, "Cortex-A72"},   {0xd09, "Cortex-A73"},  {0xd0a, "Cortex-A75"},  {0xd0b, "Cortex-A76"},
    {0xd0c, "Neoverse-N1"},  {0xd0d, "Cortex-A77"},  {0xd40, "Neoverse-V1"}, {0xd41, "Cortex-A78"},
    {0xd42, "Cortex-A78AE"}, {0xd44, "Cortex-X1"},   {0xd46, "Cortex-A510"}, {0xd47, "Cortex-A710"},
    {0xd49, "Neoverse-N2"},  {0xd4b, "Cortex-A78C"}, {0xd4d, "Cortex-A715"}, {0xd4f, "Neoverse-V2"},
    {0xd80, "Cortex-A520"},  {0xd81, "Cortex-A720"},
};

struct part {
    long implementer, part;
    int cpus;
};

static size_t add_features(const char **found, unsigned long bits, const char *const *names, size_t count) {
    size_t added = 0;
    for (size_t bit = 0; bit < count; bit++)
        if (bits >> bit & 1)
            found[added++] = names[bit];
    return added;
}

size_t cpu_features(const char *names[MOST_FEATURES]) {
    size_t count = add_features(names, getauxval(AT_HWCAP), HWCAP_NAMES, sizeof HWCAP_NAMES / sizeof *HWCAP_NAMES);
    return count + add_features(names + count, getauxval(AT_HWCAP2_KEY), HWCAP2_NAMES,
                                sizeof HWCAP2_NAMES / sizeof *HWCAP2_NAMES);
}

static const char *part_name(const struct part *part) {
    for (size_t i = 0; part->implementer == 0x41 && i < sizeof ARM_PARTS / sizeof *ARM_PARTS; i++)
        if (ARM_PARTS[i].part == part->part)
            return ARM_PARTS[i].name;
    return NULL;
}

static int add_part(struct part *parts, int count, long implementer, long part) {
    for (int i = 0; i < count; i++)
        if (parts[i].implementer == implementer && parts[i].part == part)
            return parts[i].cpus++, count;
    if (count == MOST_PARTS)
        return count;
    parts[count] = (struct part){implementer, part, 1};
    return count + 1;
}

static int parts_from_cpuinfo(struct part *parts) {
    static struct core cores[MOST_CPUS];
    int count = 0, core_count = cpuinfo_cores(cores);
    for (int i = 0; i < core_count; i++)
        count = add_part(parts, count, cores[i].implementer, cores[i].part);
    return count;
}

/* The kernel, and qemu, emulate a user program's read of MIDR_EL1 where HWCAP_CPUID is set. It is this core's only. */
static int part_from_register(struct part *parts) {
    if (!(getauxval(AT_HWCAP) >> HWCAP_CPUID_BIT & 1))
        return 0;
    unsigned long midr;
    __asm__("mrs %0, midr_el1" : "=r"(midr));
    parts[0] = (struct part){(long)(midr >> 24 & 0xff), (long)(midr >> 4 & 0xfff), 1};
    return 1;
}

static void write_part(struct json *j, const struct part *part) {
    char text[16];
    json_begin(j, NULL, '{');
    snprintf(text, sizeof text, "0x%02lx", part->implementer & 0xff);
    json_string(j, "implementer", text);
    snprintf(text, sizeof text, "0x%03lx", part->part & 0xfff);
    json_string(j, "part", text);
    json_string(j, "name", part_name(part));
    json_int(j, "cpus", part->cpus);
    json_end(j, '}');
}

/* Distinct core names joined by " + "; a part without a known name by its number. */
static void write_model(struct json *j, const struct part *parts, int count) {
    char model[256] = "";
    size_t used = 0;
    for (int i = 0; i < count && used < sizeof model; i++) {
        const char *name = part_name(&parts[i]), *joint = i ? " + " : "";
        used += (size_t)(name ? snprintf(model + used, sizeof model - used, "%s%s", joint, name)
                              : snprintf(model + used, sizeof model - used, "%s0x%02lx:0x%03lx", joint,
                                         parts[i].implementer & 0xff, parts[i].part & 0xfff));
    }
    json_string(j, "cpu_model", count ? model : NULL);
}

void write_cpu_model(struct json *j) {
    struct part parts[MOST_PARTS];
    int count = parts_from_cpuinfo(parts);
    if (count == 0)
        count = part_from_register(parts);
    write_model(j, parts, count);
    if (count == 0) {
        json_null(j, "cpu_parts");
        return;
    }
    json_begin(j, "cpu_parts", '[');
    for (int i = 0; i < count; i++)
        write_part(j, &parts[i]);
    json_end(j, ']');
}

#endif
