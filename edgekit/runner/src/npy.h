/* The header of a .npy file (numpy.lib.format, versions 1.0, 2.0 and 3.0), parsed from untrusted bytes.
 *
 * - pure: bytes in, a record or a reason out; it reads nothing past `size` and allocates nothing;
 * - C order, little endian, plain dtypes only; no pickles, no structured types;
 * - the file must be exactly as long as its header says.
 */
#ifndef EKRUN_NPY_H
#define EKRUN_NPY_H

#include <stddef.h>
#include <stdint.h>

#include "tensor.h"

#define NPY_MAX_RANK (MAX_RANK + 1)
#define NPY_MAX_HEADER 65536 /* numpy itself refuses to evaluate more than 10,000 bytes by default */

struct npy {
    enum dtype dtype;
    int rank;
    int64_t dims[NPY_MAX_RANK];
    size_t offset; /* of the first element in the file */
    size_t bytes;  /* of all elements */
};

/* Parses the first `size` bytes: the whole file or at least NPY_MAX_HEADER. Returns NULL, or why it is refused. */
const char *npy_parse(const void *head, size_t size, uint64_t file_size, struct npy *npy);

/* The header size that npy_format needs for a shape of `rank` dimensions, whatever they turn out to be. */
size_t npy_header_size(int rank);

/* Writes exactly `size` bytes of version 1.0 header; size >= npy_header_size(rank). */
void npy_format(char *header, size_t size, enum dtype dtype, const int64_t *dims, int rank);

#endif
