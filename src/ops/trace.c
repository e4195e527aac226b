/* trace.c - a device that wraps another: names, times, NaN checks and dumps of every op, expanded from ops.def. */
#include "ops/args.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

typedef struct trace {
    backend kind; /* the inner device's, with this file's functions */
    bool names, time, nan, sync;
    char *dump; /* folder, or NULL */
    str index;  /* lines of index.txt in it */
    int64_t calls;
    struct {
        int64_t calls;
        double seconds;
    } total[OP_COUNT];
} trace;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* ---- what is looked at after a call ---------------------------------------------------------------------- */

/* An output as float on the host, row-major; NULL when it is none of numbers, or memory is short (inner says so). */
static float *output_values(dev *d, tensor t)
{
    if (!tensor_given(t) || !dtype_is_float(t.type) || t.layout != LAYOUT_ROWS) return NULL;
    float *v = mem_alloc((size_t)tensor_count(t) * sizeof *v);
    if (!v) return NULL;
    while (t.ndim < 4) t = tensor_unsqueeze(t, 0);
    int64_t row = tensor_contiguous(t) ? tensor_count(t) : t.dim[3], count = tensor_count(t);
    for (int64_t at = 0; at < count; at += row) { /* strided views come row by row */
        int64_t i = at / t.dim[3], k = i % t.dim[2], j = i / t.dim[2] % t.dim[1], n = i / t.dim[2] / t.dim[1];
        int64_t offset = n * t.stride[0] + j * t.stride[1] + k * t.stride[2];
        char *from = (char *)t.data + offset * (int64_t)dtype_bytes(t.type);
        if (dev_get_f32(d->inner, v + at, tensor_on(from, t.type, 1, &row)) == SCA_OK) continue;
        mem_free(v);
        return NULL;
    }
    return v;
}

static void look_for_nan(dev *d, op_id id, const op_arg *args, size_t n, const char *name, const float *v,
                         int64_t count)
{
    int64_t at = 0;
    while (at < count && isfinite(v[at])) at++;
    if (at == count) return;
    char text[512];
    op_args_text(args, n, text, sizeof text);
    dev_fail(d, SCA_ERR_DEVICE, "op_%s gave %g in %s at index %lld: %s", op_name(id), (double)v[at], name,
             (long long)at, text);
}

/* NNNNNN-OP.f32: the first output, row-major; further ones NNNNNN-OP-NAME.f32; the index tells their shapes. */
static void write_dump(dev *d, op_id id, const char *output, tensor t, const float *v)
{
    trace *x = d->impl;
    char name[96], shape[96];
    snprintf(name, sizeof name, "%06lld-%s%s%s.f32", (long long)x->calls, op_name(id), *output ? "-" : "", output);
    char *path = path_join(x->dump, name);
    sca_status s = path ? file_write(path, v, (size_t)tensor_count(t) * sizeof *v) : SCA_ERR_MEMORY;
    if (s != SCA_OK) dev_fail(d, s, "%s", status_message());
    str_printf(&x->index, "%s %s\n", name, tensor_text(t, shape));
    mem_free(path);
}

static void after(dev *d, op_id id, const op_arg *args, size_t n, double seconds)
{
    trace *x = d->impl;
    if (d->inner->status != SCA_OK) { /* the failure belongs to the outer stream */
        dev_fail(d, d->inner->status, "op_%s: %s", op_name(id), d->inner->error);
        d->inner->status = SCA_OK;
        return;
    }
    x->calls++;
    x->total[id].calls++;
    x->total[id].seconds += seconds;
    if (x->names) {
        char text[512];
        op_args_text(args, n, text, sizeof text);
        log_info("%6lld op_%s(%s) %.3f ms", (long long)x->calls, op_name(id), text, 1e3 * seconds);
    }
    if (!x->nan && !x->dump) return;
    for (int i = 0; i < op_outputs(id); i++) {
        tensor t = *(const tensor *)args[i].value;
        float *v = output_values(d, t);
        if (v && x->nan) look_for_nan(d, id, args, n, args[i].name, v, tensor_count(t));
        if (v && x->dump) write_dump(d, id, i ? args[i].name : "", t, v);
        mem_free(v);
    }
}

/* So that a time is the op's own, and a failure is found at the op that made it. */
static void wait_for_inner(dev *d)
{
    const trace *x = d->impl;
    if (x->time || x->names || x->sync) d->inner->kind->sync(d->inner);
}

/* ---- the ops --------------------------------------------------------------------------------------------- */

#define OP(name, parameters, arguments)                                                                            \
    static void trace_##name(dev *d, OP_UNPACK parameters)                                                         \
    {                                                                                                              \
        const op_arg list[] = { ARGS arguments };                                                                  \
        double start = now();                                                                                      \
        d->inner->ops->name(d->inner, OP_UNPACK arguments);                                                        \
        wait_for_inner(d);                                                                                         \
        after(d, OP_##name, list, LENGTH(list), now() - start);                                                    \
    }
#include "ops.def"
#undef OP

static const op_table trace_ops = {
#define OP(name, parameters, arguments) .name = trace_##name,
#include "ops.def"
#undef OP
};

/* ---- the device ------------------------------------------------------------------------------------------ */

static sca_status trace_open(dev *d, const char *options)
{
    (void)options;
    return status_fail(SCA_ERR_STATE, "%s: opened by dev_trace only", d->kind->name);
}

static void report_times(const trace *x)
{
    bool told[OP_COUNT] = { false };
    for (;;) {
        int top = -1;
        for (int i = 0; i < OP_COUNT; i++)
            if (!told[i] && x->total[i].calls && (top < 0 || x->total[i].seconds > x->total[top].seconds)) top = i;
        if (top < 0) return;
        told[top] = true;
        log_info("%10.3f ms %8lld calls  op_%s", 1e3 * x->total[top].seconds, (long long)x->total[top].calls,
                 op_name((op_id)top));
    }
}

static void trace_close(dev *d)
{
    trace *x = d->impl;
    if (x->time) report_times(x);
    char *path = x->dump ? path_join(x->dump, "index.txt") : NULL;
    if (path && !x->index.failed && file_write(path, str_text(&x->index), x->index.bytes) != SCA_OK)
        log_warn("%s", status_message());
    mem_free(path);
    mem_free(x->dump);
    str_free(&x->index);
    dev_close(d->inner);
    mem_free(x);
}

static void *trace_alloc(dev *d, size_t bytes)
{
    void *p = d->inner->kind->alloc(d->inner, bytes);
    if (p || d->inner->status == SCA_OK) return p;
    dev_fail(d, d->inner->status, "%s", d->inner->error); /* it belongs to the outer stream */
    d->inner->status = SCA_OK;
    return NULL;
}
static void trace_release(dev *d, void *p, size_t bytes) { d->inner->kind->release(d->inner, p, bytes); }
static void trace_put(dev *d, void *dst, const void *src, size_t bytes)
{
    d->inner->kind->put(d->inner, dst, src, bytes);
}
static void trace_get(dev *d, void *dst, const void *src, size_t bytes)
{
    d->inner->kind->get(d->inner, dst, src, bytes);
}
static void trace_sync(dev *d) { d->inner->kind->sync(d->inner); }

static backend wrapped(const backend *inner)
{
    backend b = *inner;
    b.name = "trace";
    b.open = trace_open;
    b.close = trace_close;
    b.alloc = trace_alloc;
    b.release = trace_release;
    b.put = trace_put;
    b.get = trace_get;
    b.sync = trace_sync;
    b.repeat = NULL; /* every op is seen, each time */
    b.repeated = NULL;
    b.ops = &trace_ops;
    return b;
}

static sca_status read_what(trace *x, const char *what)
{
    x->names = strcmp(what, "names") == 0;
    x->time = strcmp(what, "time") == 0;
    x->nan = strcmp(what, "nan") == 0;
    x->sync = strcmp(what, "sync") == 0;
    if (x->names || x->time || x->nan || x->sync) return SCA_OK;
    if (!text_starts(what, "dump:") || !what[5])
        return status_fail(SCA_ERR_ARGUMENT, "trace '%s': expected names, time, nan, sync or dump:DIR", what);
    TRY(dir_make(what + 5));
    x->dump = text_copy(what + 5, strlen(what + 5));
    return x->dump ? SCA_OK : mem_fail(strlen(what), "a path");
}

sca_status dev_trace(dev *inner, const char *what, dev **out)
{
    *out = NULL;
    dev *d = mem_zero(1, sizeof *d);
    op_table *ops = mem_alloc(sizeof *ops);
    trace *x = mem_zero(1, sizeof *x);
    sca_status status = d && ops && x ? SCA_OK : mem_fail(sizeof *x, "a trace device");
    if (status == SCA_OK) status = read_what(x, what);
    if (status != SCA_OK) {
        mem_free(d);
        mem_free(ops);
        mem_free(x);
        dev_close(inner);
        return status;
    }
    *ops = trace_ops;
    x->kind = wrapped(inner->kind);
    *d = (dev){ .kind = &x->kind, .ops = ops, .impl = x, .inner = inner };
    *out = d;
    return SCA_OK;
}
