/* null.c - the device that computes nothing: the same program runs on it to measure its memory. */
#include "ops/args.h"

#include <string.h>

#define OP(name, parameters, arguments)                                                                            \
    static void null_##name(dev *d, OP_UNPACK parameters)                                                          \
    {                                                                                                              \
        const op_arg unused[] = { ARGS arguments };                                                                \
        (void)unused;                                                                                              \
        (void)d;                                                                                                   \
    }
#include "ops.def"
#undef OP

static const op_table null_ops = {
#define OP(name, parameters, arguments) .name = null_##name,
#include "ops.def"
#undef OP
};

static sca_status null_open(dev *d, const char *options)
{
    TRY(op_no_options("null", options));
    d->impl = mem_zero(1, sizeof(uintptr_t));
    return d->impl ? SCA_OK : mem_fail(sizeof(uintptr_t), "a device");
}

static void null_close(dev *d) { mem_free(d->impl); }

/* Ranges that differ from arena to arena, so that the overlap checks say the same as on a real machine. */
static void *null_alloc(dev *d, size_t bytes)
{
    uintptr_t *last = d->impl;
    *last += bytes;
    return (void *)*last; /* never dereferenced */
}

static void null_release(dev *d, void *p, size_t bytes)
{
    (void)d;
    (void)p;
    (void)bytes;
}

static void null_put(dev *d, void *dst, const void *src, size_t bytes)
{
    (void)d;
    (void)dst;
    (void)src;
    (void)bytes;
}

static void null_get(dev *d, void *dst, const void *src, size_t bytes)
{
    (void)d;
    (void)src;
    memset(dst, 0, bytes);
}

static void null_sync(dev *d) { (void)d; }

/* Rows rounded up as the CPU's panels are, so that a plan does not promise too little. */
static size_t null_panel_bytes(dtype type, int64_t N, int64_t K)
{
    return (size_t)((N + 63) / 64 * 64 * K) * dtype_bytes(type);
}

const backend null_backend = {
    .name = "null",
    .act = DT_F32,
    .host_memory = false,
    .measures = true,
    .open = null_open,
    .close = null_close,
    .alloc = null_alloc,
    .release = null_release,
    .put = null_put,
    .get = null_get,
    .sync = null_sync,
    .panel_bytes = null_panel_bytes,
    .ops = &null_ops,
};
