/* weights.h - what the readers of weight files share; private to weights.c, safetensors.c, torch.c, gguf.c,
 * names.c. */
#ifndef WEIGHTS_H
#define WEIGHTS_H

#include "model/model.h"

#include <stdatomic.h>

/* How the elements of a tensor are stored. */
typedef enum element { EL_OTHER, EL_F32, EL_F64, EL_F16, EL_BF16, EL_Q8_0, EL_Q4_0, EL_Q4_1 } element;

#define QUANT_BLOCK 32 /* elements that share a scale in every quantised kind above */

/* Where the elements are, seen from the order that the caller gets. */
typedef enum arrangement {
    ORDER_ROWS,      /* row-major, one after the other                                                        */
    ORDER_STRIDES,   /* torch views: stride[] in elements                                                     */
    ORDER_ROTARY,    /* GGUF: rows of each head are (half, 2) pairs, Hugging Face has (2, half)                */
    ORDER_TRANSPOSED /* GGUF: the file has (dim[1], dim[0])                                                   */
} arrangement;

/* A run of bytes with a checksum, shared by the tensors that look into it. */
typedef struct storage {
    const zip *z;
    const zip_entry *entry;
    atomic_bool verified;
} storage;

typedef struct weight_file weight_file;
struct weight_file {
    file_view view;
    bool borrowed; /* view.data is the caller's */
    zip *z;
    storage *storages;
    struct gguf *gguf;
    weight_file *next;
};

/* What weight.hidden points to. */
typedef struct stored {
    const weight_file *file;
    const uint8_t *first; /* of the first element or block */
    size_t span;          /* bytes from there that belong to the tensor */
    element kind;
    const char *kind_name; /* as the format calls it; static text */
    arrangement order;
    int64_t stride[8];  /* ORDER_STRIDES */
    int64_t heads;      /* ORDER_ROTARY */
    storage *storage;   /* NULL: no checksum */
    const void *mapped; /* what data becomes once the checksum is found right; NULL: nothing */
} stored;

typedef struct weight_slot {
    weight w;
    stored s;
    char *name; /* owned */
} weight_slot;

struct weights {
    char *path;
    weight_slot *slots;
    size_t n, cap;
    const weight **by_name; /* sorted */
    weight_file *files;
};

/* A new tensor of `file` with that name (copied), all else 0; the pointer is good until the next call. */
sca_status weights_add(weights *w, const weight_file *file, const char *name, size_t name_bytes, weight_slot **out);
/* Sets the shape and the count, refusing what cannot be counted in bytes. */
sca_status slot_shape(weight_slot *slot, int ndim, const int64_t *dim);
/* Sets kind, type, numeric and, when the elements lie one after the other and are aligned, data. */
void slot_place(weight_slot *slot, element kind, const char *kind_name, arrangement how, const uint8_t *first,
                size_t span);
size_t element_bytes(element e); /* 0 for quantised and other kinds */
/* Bytes of `count` elements of any numeric kind (count a multiple of QUANT_BLOCK where it is quantised). */
size_t element_span(element e, size_t count);
/* Sorts the names and refuses duplicates; called again after names have changed. */
sca_status weights_sort(weights *w);
/* status_fail with "FILE: tensor 'NAME' " in front; visibly no SCA_OK to the compiler, as status_fail. */
sca_status slot_fail(const weight_slot *slot, sca_status s, const char *format, ...) PRINTF_LIKE(3, 4);
#define slot_fail(slot, s, ...) (slot_fail((slot), (s), __VA_ARGS__), status_same(s))

/* The readers: add every tensor of the file. */
sca_status safetensors_read(weights *w, weight_file *file);
bool torch_is_legacy(const uint8_t *data, size_t bytes);
sca_status torch_read_zip(weights *w, weight_file *file);
sca_status torch_read_legacy(weights *w, weight_file *file);
sca_status gguf_read(weights *w, weight_file *file);
void gguf_free(struct gguf *g); /* accepts NULL */

/* Whether `name` is what `from` says; then `to` is appended to out. In patterns '#' is a number, '*' at the end the
 * rest. */
bool name_apply(const char *from, const char *to, const char *name, str *out);

/* weights_open on memory that outlives the weights; for tests and fuzzing. */
sca_status weights_parse(const void *data, size_t bytes, const char *name, weights **out);

#endif
