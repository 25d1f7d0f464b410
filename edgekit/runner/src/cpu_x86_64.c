#if defined(__x86_64__)

#include <cpuid.h>
#include <stdint.h>
#include <string.h>

#include "cpu.h"

const char *const CPU_ARCH = "x86_64";

enum leaf { LEAF_1, LEAF_7_0, LEAF_7_1, LEAF_COUNT };
enum reg { EAX, EBX, ECX, EDX };

/* Register state the operating system must save for a feature to be usable (XCR0). */
enum { STATE_NONE = 0, STATE_AVX = 0x6, STATE_AVX512 = 0xe6, STATE_AMX = 0x60000 };

/* Bits from Intel's Software Developer's Manual, volume 2, CPUID. */
static const struct {
    const char *name;
    enum leaf leaf;
    enum reg reg;
    int bit;
    uint64_t state;
} FEATURES[] = {
    {"sse4_2", LEAF_1, ECX, 20, STATE_NONE},
    {"avx", LEAF_1, ECX, 28, STATE_AVX},
    {"fma", LEAF_1, ECX, 12, STATE_AVX},
    {"f16c", LEAF_1, ECX, 29, STATE_AVX},
    {"avx2", LEAF_7_0, EBX, 5, STATE_AVX},
    {"avx_vnni", LEAF_7_1, EAX, 4, STATE_AVX},
    {"avx512f", LEAF_7_0, EBX, 16, STATE_AVX512},
    {"avx512dq", LEAF_7_0, EBX, 17, STATE_AVX512},
    {"avx512bw", LEAF_7_0, EBX, 30, STATE_AVX512},
    {"avx512vl", LEAF_7_0, EBX, 31, STATE_AVX512},
    {"avx512_vnni", LEAF_7_0, ECX, 11, STATE_AVX512},
    {"avx512_bf16", LEAF_7_1, EAX, 5, STATE_AVX512},
    {"avx512_fp16", LEAF_7_0, EDX, 23, STATE_AVX512},
    {"amx_tile", LEAF_7_0, EDX, 24, STATE_AMX},
    {"amx_int8", LEAF_7_0, EDX, 25, STATE_AMX},
    {"amx_bf16", LEAF_7_0, EDX, 22, STATE_AMX},
};

static uint64_t enabled_state(uint32_t leaf1_ecx) {
    uint32_t low, high;
    if (!(leaf1_ecx & bit_OSXSAVE))
        return 0;
    __asm__("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
    return (uint64_t)high << 32 | low;
}

size_t cpu_features(const char *names[MOST_FEATURES]) {
    size_t count = 0;
    uint32_t regs[LEAF_COUNT][4] = {{0}};
    __get_cpuid(1, &regs[LEAF_1][EAX], &regs[LEAF_1][EBX], &regs[LEAF_1][ECX], &regs[LEAF_1][EDX]);
    uint32_t *seven = regs[LEAF_7_0], *seven_one = regs[LEAF_7_1];
    if (__get_cpuid_count(7, 0, &seven[EAX], &seven[EBX], &seven[ECX], &seven[EDX]) && seven[EAX] >= 1)
        __get_cpuid_count(7, 1, &seven_one[EAX], &seven_one[EBX], &seven_one[ECX], &seven_one[EDX]);
    uint64_t state = enabled_state(regs[LEAF_1][ECX]);
    for (size_t i = 0; i < sizeof FEATURES / sizeof *FEATURES; i++)
        if (regs[FEATURES[i].leaf][FEATURES[i].reg] >> FEATURES[i].bit & 1 &&
            (state & FEATURES[i].state) == FEATURES[i].state)
            names[count++] = FEATURES[i].name;
    return count;
}

void write_cpu_model(struct json *j) {
    uint32_t words[12];
    char brand[sizeof words + 1] = "";
    bool known = true;
    for (uint32_t i = 0; i < 3; i++)
        known = known &&
                __get_cpuid(0x80000002 + i, &words[i * 4], &words[i * 4 + 1], &words[i * 4 + 2], &words[i * 4 + 3]);
    if (known)
        memcpy(brand, words, sizeof words);
    json_string(j, "cpu_model", known ? brand + strspn(brand, " ") : NULL);
    json_null(j, "cpu_parts");
}

#endif
