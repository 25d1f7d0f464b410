#define _GNU_SOURCE
#include "sigill.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cpu.h"
#include "fail.h"
#include "json.h"
#include "sysfile.h"

#if defined(__aarch64__)
#define INSTRUCTION_BYTES 4
#define ALIGNED_STACK
#else
#define INSTRUCTION_BYTES 15 /* at most; the rest belongs to those that follow */
#define ALIGNED_STACK __attribute__((force_align_arg_pointer)) /* qemu 7.2 enters x86 handlers 8 bytes off */
#endif

#define STACK_BYTES (64 << 10)

/* Where the address is mapped from. The text points into `maps`. */
struct mapping {
    uintptr_t start, end, offset;
    const char *path;
};

static char maps[1 << 18]; /* untouched, and so no memory, until it is needed */
static int answers_fd;
static atomic_flag reporting = ATOMIC_FLAG_INIT;

/* "7f00-7f10 r-xp 00001000 08:01 1234    /lib/x.so" */
static bool parse_mapping(char *line, struct mapping *m) {
    unsigned long start, end, offset;
    int path = 0;
    if (sscanf(line, "%lx-%lx %*s %lx %*s %*s %n", &start, &end, &offset, &path) < 3)
        return false;
    *m = (struct mapping){start, end, offset, path ? line + path : ""};
    return true;
}

static bool find_mapping(uintptr_t address, struct mapping *m) {
    char *rest = NULL;
    if (!sys_read("/proc/self/maps", maps, sizeof maps))
        return false;
    for (char *line = strtok_r(maps, "\n", &rest); line; line = strtok_r(NULL, "\n", &rest))
        if (parse_mapping(line, m) && m->start <= address && address < m->end)
            return true;
    return false;
}

/* Names may hold anything; JSON and a terminal get what is harmless in both. */
static void copy_harmless(char *to, size_t size, const char *from) {
    size_t used = 0;
    for (; *from && used + 1 < size; from++)
        to[used++] = *from >= 0x20 && *from < 0x7f && *from != '"' && *from != '\\' ? *from : '?';
    to[used] = '\0';
}

static void to_hex(char *to, const unsigned char *bytes, size_t count, bool as_word) {
    *to = '\0';
    for (size_t i = 0; i < count; i++)
        snprintf(to + 2 * i, 3, "%02x", bytes[as_word ? count - 1 - i : i]);
}

static void write_out(int fd, const char *text, size_t size) {
    for (ssize_t n; size && (n = write(fd, text, size)) > 0; text += n)
        size -= (size_t)n;
}

/* One write for each reader; no stdio, whose locks another thread may hold. snprintf of numbers and short strings takes
 * neither locks nor memory. */
static void report(const unsigned char *bytes, size_t count, const char *object, uintptr_t offset) {
    char hex[2 * INSTRUCTION_BYTES + 1], shown[2 * INSTRUCTION_BYTES + 1], message[1024], line[2048];
    to_hex(hex, bytes, count, false);
    to_hex(shown, bytes, count, INSTRUCTION_BYTES == 4);
    snprintf(message, sizeof message, "illegal instruction %s at %s+0x%lx", shown, object, (unsigned long)offset);
    int length = snprintf(line, sizeof line, "ekrun: %s\n", message);
    write_out(STDERR_FILENO, line, (size_t)length);
    length = snprintf(line, sizeof line,
                      "{\"protocol\":%d,\"error\":{\"code\":\"%s\",\"message\":\"%s\",\"arch\":\"%s\","
                      "\"instruction\":\"%s\",\"object\":\"%s\",\"offset\":%lu}}\n",
                      EKRUN_PROTOCOL, code_name(EXIT_ILLEGAL), message, CPU_ARCH, hex, object, (unsigned long)offset);
    write_out(answers_fd, line, (size_t)length);
}

ALIGNED_STACK static void on_sigill(int number, siginfo_t *info, void *context) {
    (void)context;
    if (info->si_code <= 0) { /* sent by a process: its death is what was asked for */
        signal(number, SIG_DFL);
        raise(number);
        return;
    }
    if (atomic_flag_test_and_set(&reporting)) /* all threads of a pool may meet it at once; the first one tells */
        for (;;)
            pause();
    uintptr_t address = (uintptr_t)info->si_addr;
    struct mapping m;
    char object[512] = "?";
    if (find_mapping(address, &m)) { /* else a jump into nothing, which cannot be read */
        copy_harmless(object, sizeof object, *m.path ? m.path : "?");
        size_t count = m.end - address < INSTRUCTION_BYTES ? m.end - address : INSTRUCTION_BYTES;
        report((const unsigned char *)address, count, object, address - m.start + m.offset);
    } else {
        report(NULL, 0, object, address);
    }
    run_cleanup();
    _exit(EXIT_ILLEGAL);
}

void sigill_report(void) {
    static char stack[STACK_BYTES];
    const stack_t alternate = {.ss_sp = stack, .ss_size = sizeof stack};
    struct sigaction action = {.sa_sigaction = on_sigill, .sa_flags = SA_SIGINFO | SA_ONSTACK};
    answers_fd = fileno(answers);
    sigaltstack(&alternate, NULL); /* this thread's; an engine's others use their own stacks, which are whole */
    sigemptyset(&action.sa_mask);
    sigaction(SIGILL, &action, NULL);
}
