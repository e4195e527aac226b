/* core.h - layer 1: element types, tensors, devices, arenas. Memory and machines, no arithmetic. */
#ifndef CORE_H
#define CORE_H

#include "base/base.h"

/* ---- element types (tensor.c) ------------------------------------------------------------------- */

typedef enum dtype { DT_NONE, DT_F32, DT_F64, DT_F16, DT_BF16, DT_I32, DT_U8 } dtype; /* DT_NONE: absent */
size_t dtype_bytes(dtype t);                                                          /* 0 for DT_NONE */
const char *dtype_name(dtype t);                                                      /* "f32", ... */
bool dtype_is_float(dtype t);

uint16_t f32_to_f16(float x); /* round to nearest even, overflow to infinity */
float f16_to_f32(uint16_t x);
uint16_t f32_to_bf16(float x); /* round to nearest even */
float bf16_to_f32(uint16_t x);
/* Element conversion on the host; a float source and a float target, or equal types. */
void dtype_convert(dtype to, void *dst, dtype from, const void *src, size_t count);

/* ---- tensors (tensor.c) --------------------------------------------------------------------------- */

/* A view: copy it, slice it, never free it. Strides in elements; the last axis is contiguous (stride 1) and every
 * other stride is >= 0; stride 0 repeats (inputs only). LAYOUT_PANELS: `data` is the device's own arrangement of a
 * linear weight (op_pack); dim still says the logical shape, strides mean nothing. */
typedef enum layout { LAYOUT_ROWS, LAYOUT_PANELS } layout;
typedef struct tensor {
    void *data;
    int64_t dim[4], stride[4];
    dtype type;
    int ndim;
    enum layout layout; /* "enum": as C++ wants it */
} tensor;

#define TENSOR_NONE tensor_none()
tensor tensor_none(void);
static inline bool tensor_given(tensor t) { return t.type != DT_NONE; }
tensor tensor_on(void *data, dtype type, int ndim, const int64_t *dim); /* contiguous view of data */
int64_t tensor_count(tensor t);                                         /* elements */
size_t tensor_bytes(tensor t);                                          /* count * element size */
bool tensor_contiguous(tensor t);
bool tensor_same_shape(tensor a, tensor b);
/* Views. A misuse is our own mistake (ASSERT). reshape needs a contiguous tensor. */
tensor tensor_reshape(tensor t, int ndim, const int64_t *dim);
tensor tensor_reshape1(tensor t, int64_t a);
tensor tensor_reshape2(tensor t, int64_t a, int64_t b);
tensor tensor_reshape3(tensor t, int64_t a, int64_t b, int64_t c);
tensor tensor_reshape4(tensor t, int64_t a, int64_t b, int64_t c, int64_t d);
tensor tensor_slice(tensor t, int axis, int64_t from, int64_t count);
tensor tensor_at(tensor t, int64_t index);               /* drops the first axis */
tensor tensor_swap(tensor t, int axis_a, int axis_b);    /* neither may be the last */
tensor tensor_split(tensor t, int axis, int64_t outer);  /* (.., n, ..) -> (.., outer, n/outer, ..); any strides */
tensor tensor_expand(tensor t, int axis, int64_t count); /* dim 1 -> count, stride 0 */
tensor tensor_unsqueeze(tensor t, int axis);             /* inserts an axis of 1 */
/* "(2,17,64) f32" into text; returns text */
const char *tensor_text(tensor t, char text[96]);

/* ---- devices (dev.c; the list of them is in ops.c) --------------------------------------------------- */

typedef struct dev dev;
struct op_table; /* defined in ops.h; core never looks inside */

typedef struct dev_row { /* an implementation that is chosen by name: setting run.variants */
    const char *name;    /* "gemm=blas" */
    void (*state)(char *text,
                  size_t bytes); /* which library does it, or why it cannot be had; NULL: it is our own */
} dev_row;

typedef struct backend { /* a kind of machine */
    const char *name;    /* "cpu" "cuda" "simt" "ref" "null" "trace" */
    dtype act;           /* element type of activations, and of small parameters (norms, biases) */
    bool host_memory;    /* the host may read and write its memory; mapped files can be used in place */
    bool measures;       /* null: memory is only measured; alloc hands out address ranges nobody may touch */
    sca_status (*open)(dev *d, const char *options); /* "threads=2,gemm=blas" */
    void (*close)(dev *d);
    void *(*alloc)(dev *d, size_t bytes); /* whole arenas only; NULL on failure */
    void (*release)(dev *d, void *p, size_t bytes);
    void (*put)(dev *d, void *dst, const void *src, size_t bytes);
    void (*get)(dev *d, void *dst, const void *src, size_t bytes); /* waits */
    void (*sync)(dev *d);
    /* Memory that kernels must not touch (debug arenas close what lies around tensors), or may again; NULL: unchecked. */
    void (*fence)(dev *d, void *p, size_t bytes, bool closed);
    /* Bytes of a linear weight in LAYOUT_PANELS; NULL when the device takes rows only. N outputs, K inputs. */
    size_t (*panel_bytes)(dtype type, int64_t N, int64_t K);
    /* dev_repeat and dev_repeated; NULL: ops run as they come. */
    bool (*repeat)(dev *d, const char *what, const void *key, size_t bytes);
    void (*repeated)(dev *d);
    const dev_row *rows; /* what can be chosen by name, up to a name of NULL; NULL: nothing */
    const struct op_table *ops;
} backend;

struct dev { /* one machine, one stream, used by one thread */
    const backend *kind;
    struct op_table *ops; /* its own copy, so that one slot can be replaced */
    void *impl;           /* the backend's own struct */
    dev *inner;           /* of a trace device: the device it wraps */
    sca_status status;    /* sticky: the first failure wins, later ops do nothing */
    char error[512];
};

/* Opens a device of that kind; unknown names are refused with the list of those built in. (ops.c) */
sca_status dev_open(const char *kind, const char *options, dev **out);
void dev_close(dev *d);                    /* accepts NULL */
const char *const *dev_kinds(void);        /* NULL-terminated names of what is built in (ops.c) */
const dev_row *dev_rows(const char *kind); /* never NULL (ops.c) */
/* Records the first failure of the stream. */
void dev_fail(dev *d, sca_status s, const char *format, ...) PRINTF_LIKE(3, 4);
/* Reports and clears a failed stream: the only ways a failure comes out. */
sca_status dev_check(dev *d);
/* Host <-> device, contiguous, whole (bytes == tensor_bytes), bytes as they are. put may return before the copy is done but src is free to reuse. */
void dev_put(dev *d, tensor dst, const void *src, size_t bytes);
sca_status dev_get(dev *d, void *dst, tensor src, size_t bytes); /* waits; reports and clears failures */
/* The same for float data of the host's type: converts to or from the tensor's element type. */
void dev_put_f32(dev *d, tensor dst, const float *src);
sca_status dev_get_f32(dev *d, float *dst, tensor src);

/* ---- work that repeats (dev.c) --------------------------------------------------------------------------- */

/* The ops from dev_repeat to dev_repeated are one piece of work, which a device may keep and start again as a whole
 * (CUDA graphs). `what` and the key say which: they hold everything the ops depend on, shapes and addresses; what
 * changes from one time to the next is in the device's memory. false: the work has been started, the caller skips the
 * ops and dev_repeated. No copies from or to the host in between. */
bool dev_repeat(dev *d, const char *what, const void *key, size_t bytes);
void dev_repeated(dev *d);

/* ---- arenas (arena.c) ------------------------------------------------------------------------------------ */

/* Bump allocation on one device, 256-byte aligned (64 in debug arenas). On the null device nothing is
 * allocated and only the peak is measured. Debug arenas (set `debug` before the first allocation) put guard bytes
 * around each tensor, fill new memory with signalling NaN and released memory with another pattern (host_memory
 * devices only), and fence both (devices that can). */
#define ARENA_MEASURED_BYTES ((size_t)1 << 46) /* cap of an arena that only measures */
typedef struct arena {
    dev *d;
    char *base;
    size_t cap, used, peak;
    bool debug;
} arena;
sca_status arena_open(dev *d, size_t cap, arena *out); /* null device: cap is ignored */
void arena_close(arena *a);                            /* accepts a zeroed arena */
size_t arena_mark(const arena *a);
void arena_release(arena *a, size_t mark);
/* Fails stickily on the device when the arena is full; the tensor returned then has data NULL and must not be read. */
tensor arena_tensor(arena *a, dtype type, int ndim, const int64_t *dim);
void *arena_bytes(arena *a, size_t bytes);
bool arena_guards_intact(const arena *a); /* debug arenas; true otherwise */

#endif
