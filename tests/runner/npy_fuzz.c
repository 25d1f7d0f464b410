/* Runs the .npy header parser under the sanitizers: a written corpus, then mutations of it by a fixed generator.
 *
 * Every input lies in a heap block of exactly its size, so one byte read too far stops the program. A header that is
 * accepted must account for the whole file. Prints the counts; exit code 1 when the corpus is judged wrongly.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "npy.h"

#define MUTATIONS 20000

struct sample {
    const char *text; /* the dictionary */
    size_t data;      /* bytes after the header */
    int major;
    int good;
};

static const struct sample CORPUS[] = {
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }", 24, 1, 1},
    {"{'descr': '', 'fortran_order': False, 'shape': (2, 3), }", 24, 1, 0}, /* must not pass for the one before */
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }", 24, 2, 1},
    {"{'descr': '|u1', 'fortran_order': False, 'shape': (5,), }", 5, 3, 1},
    {"{'shape': (), 'descr': '<i8', 'fortran_order': False}", 8, 1, 1},
    {"{\"descr\": \"|b1\", \"fortran_order\": False, \"shape\": (0, 7)}", 0, 1, 1},
    {"{'descr': '<f2', 'fortran_order': False, 'shape': (3L, 1L)}", 6, 1, 1},
    {"{'descr': '>f4', 'fortran_order': False, 'shape': (2, 3), }", 24, 1, 0},
    {"{'descr': '<f4', 'fortran_order': True, 'shape': (2, 3), }", 24, 1, 0},
    {"{'descr': '|O', 'fortran_order': False, 'shape': (2, 3), }", 24, 1, 0},
    {"{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (2,), }", 8, 1, 0},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (-2, 3), }", 24, 1, 0},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (3), }", 12, 1, 0},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (4294967296, 4294967296, 4294967296), }", 0, 1, 0},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (9223372036854775807, 0), }", 0, 1, 0},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999999999999,), }", 0, 1, 0},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }", 23, 1, 0},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }", 25, 1, 0},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), 'shape': (2, 3)}", 24, 1, 0},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3)} + x", 24, 1, 0},
    {"{'descr': '<f4', 'shape': (2, 3)}", 24, 1, 0},
    {"{'descr': '<f4\\'', 'fortran_order': False, 'shape': (2, 3)}", 24, 1, 0},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3", 24, 1, 0},
    {"{'descr': '<f4, 'fortran_order': False, 'shape': (2, 3)}", 24, 1, 0},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (,)}", 4, 1, 0},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': "
     "(1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1)}",
     4, 1, 0},
    {"{'des", 0, 1, 0},
    {"{", 0, 1, 0},
    {"", 0, 1, 0},
    {"{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }", 24, 4, 0},
};

#define CORPUS_SIZE (sizeof CORPUS / sizeof *CORPUS)

static unsigned long long state = 0x9e3779b97f4a7c15ull;

static unsigned random_below(unsigned limit) { /* xorshift64 */
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return (unsigned)((state >> 33) % limit);
}

static unsigned char *compose(const struct sample *sample, size_t *size) {
    size_t text = strlen(sample->text), prefix = sample->major == 1 ? 10 : 12;
    unsigned char *bytes = calloc(1, *size = prefix + text + sample->data);
    memcpy(bytes, "\x93NUMPY", 6);
    bytes[6] = (unsigned char)sample->major;
    bytes[8] = (unsigned char)text;
    memcpy(bytes + prefix, sample->text, text);
    return bytes;
}

/* Leaves "f4" all over the stack to come: what the parser does not set is then a good dtype. */
static void paint_stack(void) {
    volatile char paint[8192];
    for (size_t i = 0; i < sizeof paint; i++)
        paint[i] = "\0f4"[i % 4];
}

/* True when the head of a file of `file_size` bytes is accepted. If its header does not account for the file: abort. */
static int judge_head(const unsigned char *bytes, size_t size, uint64_t file_size) {
    struct npy npy;
    unsigned char *exact = malloc(size ? size : 1);
    memcpy(exact, bytes, size);
    paint_stack();
    const char *reason = npy_parse(exact, size, file_size, &npy);
    free(exact);
    if (!reason && (npy.offset + npy.bytes != file_size || npy.rank > NPY_MAX_RANK || npy.dtype == DT_NONE))
        abort();
    return !reason;
}

static int judge(const unsigned char *bytes, size_t size) {
    judge_head(bytes, size, (uint64_t)size * 1000); /* as of a file of which only the head was read */
    return judge_head(bytes, size, size);
}

static size_t mutate(unsigned char *bytes, size_t size) {
    static const char tokens[] = "{}()',:<>|=0123456789LTF\\\"\n \x93";
    for (unsigned changes = 1 + random_below(4); changes && size; changes--) {
        size_t at = random_below((unsigned)size);
        switch (random_below(4)) {
        case 0: bytes[at] = (unsigned char)random_below(256); break;
        case 1: bytes[at] = (unsigned char)tokens[random_below(sizeof tokens - 1)]; break;
        case 2: bytes[at] ^= (unsigned char)(1u << random_below(8)); break;
        case 3: size = at; break;
        }
    }
    if (size > 12 && bytes[6] == 1 && random_below(2)) { /* a header that ends where the file does */
        bytes[8] = (unsigned char)(size - 10);
        bytes[9] = 0;
    }
    return size;
}

static int check_corpus(void) {
    int wrong = 0;
    for (size_t i = 0; i < CORPUS_SIZE; i++) {
        size_t size;
        unsigned char *bytes = compose(&CORPUS[i], &size);
        if (judge(bytes, size) != CORPUS[i].good) {
            fprintf(stderr, "judged wrongly: %s\n", CORPUS[i].text);
            wrong++;
        }
        for (size_t cut = 0; CORPUS[i].good && cut < size; cut++)
            if (judge(bytes, cut))
                wrong++;
        free(bytes);
    }
    return wrong;
}

/* What is written must be read back the same. */
static int check_round_trip(void) {
    int wrong = 0;
    for (int rank = 0; rank <= NPY_MAX_RANK; rank++) {
        int64_t dims[NPY_MAX_RANK] = {0};
        struct npy npy;
        size_t size = npy_header_size(rank);
        char *header = malloc(size);
        for (int i = 0; i < rank; i++)
            dims[i] = i == 0 ? 0 : 1;
        npy_format(header, size, DT_FLOAT64, dims, rank);
        const char *reason = npy_parse(header, size, size + (rank ? 0 : 8), &npy);
        wrong += reason || npy.rank != rank || npy.offset != size || memcmp(npy.dims, dims, sizeof dims) != 0;
        free(header);
    }
    return wrong;
}

int main(void) {
    int accepted = 0, wrong = check_corpus() + check_round_trip();
    for (int i = 0; i < MUTATIONS; i++) {
        size_t size;
        unsigned char *bytes = compose(&CORPUS[random_below(CORPUS_SIZE)], &size);
        accepted += judge(bytes, mutate(bytes, size));
        free(bytes);
    }
    printf("%zu corpus %d mutations %d accepted %d wrong\n", CORPUS_SIZE, MUTATIONS, accepted, wrong);
    return wrong != 0;
}
