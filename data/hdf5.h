/* hdf5.h - the part of HDF5 that stores need: flat files of arrays that are stored in one piece; private to data/.
 *
 * Our own, not libhdf5: a reader must stand up to hostile files and serve many threads at once from a mapped file, and
 * a writer must end well on a full disk. The tests hold both to libhdf5.
 */
#ifndef DATA_HDF5_H
#define DATA_HDF5_H

#include "base/base.h"

typedef enum hdf5_type { HDF5_U8, HDF5_I32, HDF5_I64, HDF5_F16, HDF5_F32, HDF5_F64, HDF5_OTHER } hdf5_type;

enum { HDF5_RANK = 4 };

typedef struct hdf5_array {
    const char *name;
    hdf5_type type;
    int rank;                /* 1 to HDF5_RANK */
    uint64_t dim[HDF5_RANK]; /* may be 0 */
} hdf5_array;
size_t hdf5_bytes(hdf5_type t);

/* Writes a file: the header at once, then the values of every array in the given order, in pieces of any size. */
typedef struct hdf5_out hdf5_out;
sca_status hdf5_create(const char *path, const hdf5_array *arrays, size_t n, hdf5_out **out);
sca_status hdf5_put(hdf5_out *f, const void *data, size_t bytes);
sca_status hdf5_commit(hdf5_out *f); /* frees f, also when it fails; fails when values are missing */
void hdf5_abort(hdf5_out *f);        /* accepts NULL */

/* A file whose root group holds such arrays; others are left out. Everything is checked against the file's size. */
typedef struct hdf5 hdf5;
sca_status hdf5_open(const char *path, hdf5 **out);
/* The values (aligned to an element; little-endian, as the machine is). dim -1: any, and it is filled in.
 * Absent, or of another type or shape: SCA_ERR_FORMAT. */
sca_status hdf5_get(const hdf5 *f, const char *name, hdf5_type type, int rank, int64_t *dim, const void **values);
bool hdf5_has(const hdf5 *f, const char *name);
void hdf5_close(hdf5 *f); /* accepts NULL */

#endif
