/* test_ops.c - every op on every device against the float64 reference, on the same rounded inputs.
 *
 *   test_ops [NAME...]   the cases whose test function's name contains one of NAME
 *   test_ops perf [NAME] the sizes of the models, timed on the cpu: milliseconds, GFLOP/s or GB/s
 *
 * Outputs start as NaN, whole buffers are compared afterwards (gaps between rows and inputs must not change), values
 * come from the case's own text. A device with other options (threads, instruction set) is a device of its own. */
#include "check.h"
#include "op_cases.h"

#include "base/rng.h"

#include <ctype.h>
#include <float.h>
#include <math.h>
#include <time.h>

/* ---- one tensor of a case ---------------------------------------------------------------------------- */

typedef struct slot {
    char in_place[16]; /* name of the parameter it is, or "" */
    char letter;       /* 0: absent */
    bool adds, strided, swapped, repeats, panels, big, coarse, unit, signed_unit;
    int ndim;
    int64_t dim[4];
} slot;

typedef struct layout_in_memory {
    int64_t dim[4], stride[4], offset, count; /* of the buffer, elements */
} layout_in_memory;

static bool parse_slot(const char **text, slot *s)
{
    *s = (slot){ 0 };
    const char *p = *text + strspn(*text, " ");
    size_t n = strcspn(p, " ");
    *text = p + n;
    if (n == 1 && *p == '-') return true;
    if (*p == '@') return n - 1 < sizeof s->in_place && memcpy(s->in_place, p + 1, n - 1) != NULL;
    const char *end = p + n;
    if (*p == '+') s->adds = true, p++;
    s->letter = *p++;
    for (; p < end && s->ndim < 4; p += *p == 'x') {
        char *after;
        s->dim[s->ndim++] = strtoll(p, &after, 10);
        p = after;
        if (p >= end || *p != 'x') break;
    }
    if (p < end && *p == '/')
        for (p++; p < end; p++) {
            s->strided |= *p == 's';
            s->swapped |= *p == 't';
            s->repeats |= *p == 'r';
            s->panels |= *p == 'p';
            s->big |= *p == 'b';
            s->coarse |= *p == 'q';
            s->unit |= *p == 'u';
            s->signed_unit |= *p == 'o';
        }
    return s->ndim > 0 && strchr("APFWIUfhg", s->letter) != NULL;
}

/* How the tensor lies in its buffer, and the view of it. */
static layout_in_memory lay_out(const slot *s)
{
    layout_in_memory m = { .offset = s->strided ? 1 : 0 };
    int64_t held[4] = { 0 }, padded[4] = { 0 };
    for (int i = 0; i < s->ndim; i++) held[i] = i == 0 && s->repeats ? 1 : s->dim[i];
    if (s->swapped) {
        int64_t one = held[1];
        held[1] = held[2];
        held[2] = one;
    }
    for (int i = 0; i < s->ndim; i++)
        padded[i] = held[i] + (s->strided && i == s->ndim - 1 ? 3 : s->strided && i ? 1 : 0);
    int64_t step = 1;
    for (int i = s->ndim - 1; i >= 0; i--) {
        m.dim[i] = held[i];
        m.stride[i] = step;
        step *= padded[i];
    }
    m.count = step + m.offset + 4;
    if (s->swapped) {
        int64_t d = m.dim[1], t = m.stride[1];
        m.dim[1] = m.dim[2], m.stride[1] = m.stride[2];
        m.dim[2] = d, m.stride[2] = t;
    }
    if (s->repeats) m.dim[0] = s->dim[0], m.stride[0] = 0;
    return m;
}

/* ---- a case on one device ---------------------------------------------------------------------------- */

typedef struct buffer { /* one tensor on a device, and its image on the host */
    tensor t;           /* the view */
    tensor whole;       /* the buffer, contiguous */
    void *before, *after;
    size_t bytes;
    bool output;
} buffer;

typedef struct on_device {
    dev *d;
    arena a;
    buffer b[OP_MAX_TENSORS];
    tensor view[OP_MAX_TENSORS];
    int n;
} on_device;

typedef struct setup {
    const op_case *c;
    slot s[OP_MAX_TENSORS];
    char name[OP_MAX_TENSORS][16];
    int n;
    dtype w;     /* type of W tensors on the device under test */
    bool panels; /* W tensors with /p are packed */
    char text[400];
} setup;

static bool is_output(op_id op, int i);

static void parameter_names(setup *u)
{
    const char *p = op_signatures[u->c->op].parameters;
    for (u->n = 0; (p = strstr(p, "tensor ")) != NULL && u->n < OP_MAX_TENSORS; u->n++) {
        p += 7;
        size_t n = strcspn(p, ",)");
        snprintf(u->name[u->n], sizeof u->name[0], "%.*s", (int)n, p);
    }
}

static int parameter(const setup *u, const char *name)
{
    for (int i = 0; i < u->n; i++)
        if (strcmp(u->name[i], name) == 0) return i;
    return -1;
}

static bool prepare(setup *u, const op_case *c, dtype w, bool panels)
{
    char options[100];
    *u = (setup){ .c = c, .w = w, .panels = panels };
    parameter_names(u);
    const char *p = c->tensors;
    for (int i = 0; i < u->n; i++)
        if (!parse_slot(&p, &u->s[i])) return check_that(false, __FILE__, __LINE__, "cannot read '%s'", c->tensors);
    if (strspn(p, " ") != strlen(p))
        return check_that(false, __FILE__, __LINE__, "too many tensors: '%s'", c->tensors);
    op_options_text(c->op, &c->o, options, sizeof options);
    snprintf(u->text, sizeof u->text, "%s '%s' %s%s%s", op_name(c->op), c->tensors, options, options[0] ? " " : "",
             dtype_name(w));
    return true;
}

static dtype type_of(const setup *u, const slot *s, const dev *d)
{
    bool ref = d->kind->act == DT_F64;
    switch (s->letter) {
    case 'A': return d->kind->act;
    case 'P':
    case 'F': return ref ? DT_F64 : DT_F32;
    case 'W': return ref ? DT_F64 : u->w;
    case 'I': return DT_I32;
    case 'U': return DT_U8;
    case 'f': return DT_F32;
    case 'h': return DT_F16;
    default: return DT_BF16;
    }
}

/* The value of element i: rounded to what the device under test stores, so that both see the same number. */
static double value(const setup *u, int slot_index, int64_t i)
{
    const slot *s = &u->s[slot_index];
    float four[4];
    rng_block b =
        rng_philox(rng_key(1, u->c->tensors) + (uint64_t)slot_index * 77777 + (uint64_t)u->c->op, (uint64_t)i, 0);
    rng_normal(b, four);
    float v = four[0];
    if (s->big) v *= 50;
    if (s->coarse) v = roundf(v * 2) / 2;
    if (s->unit) v = rng_unit(b.word[3]) * 0.9999f;
    if (s->signed_unit) v = 2 * rng_unit(b.word[3]) - 1;
    if (s->letter == 'W' && u->w == DT_BF16) v = bf16_to_f32(f32_to_bf16(v));
    if (s->letter == 'W' && u->w == DT_F16) v = f16_to_f32(f32_to_f16(v));
    return (double)v;
}

/* Integers mean something to most ops: rows of a table, labels. */
static int32_t integer(const setup *u, int slot_index, int64_t i)
{
    uint32_t r = rng_philox(rng_key(2, u->c->tensors), (uint64_t)i, (uint64_t)slot_index).word[0];
    int64_t most = 1000;
    if (u->c->op == OP_embedding_fwd) most = u->s[parameter(u, "table")].dim[0];
    if (u->c->op == OP_attention_fwd) most = u->s[parameter(u, "k")].dim[0];
    if (u->c->op == OP_cross_entropy_fwd) {
        most = u->s[parameter(u, "x")].dim[1];
        if (i % 5 == 3) return -100;
    }
    return (int32_t)(r % (uint32_t)most);
}

static void put_element(void *data, dtype t, int64_t i, double v, int32_t whole)
{
    float f = (float)v;
    switch (t) {
    case DT_F32: ((float *)data)[i] = f; break;
    case DT_F64: ((double *)data)[i] = v; break;
    case DT_F16: ((uint16_t *)data)[i] = f32_to_f16(f); break;
    case DT_BF16: ((uint16_t *)data)[i] = f32_to_bf16(f); break;
    case DT_I32: ((int32_t *)data)[i] = whole; break;
    default: ((uint8_t *)data)[i] = (uint8_t)whole; break;
    }
}

static double get_element(const void *data, dtype t, int64_t i)
{
    switch (t) {
    case DT_F32: return (double)((const float *)data)[i];
    case DT_F64: return ((const double *)data)[i];
    case DT_F16: return (double)f16_to_f32(((const uint16_t *)data)[i]);
    case DT_BF16: return (double)bf16_to_f32(((const uint16_t *)data)[i]);
    case DT_I32: return ((const int32_t *)data)[i];
    default: return ((const uint8_t *)data)[i];
    }
}

/* Element `i` (row-major over the view's shape) as an index into the buffer. */
static int64_t place_of(const slot *s, const layout_in_memory *m, int64_t i)
{
    int64_t at = m->offset;
    for (int k = s->ndim - 1; k >= 0; k--) {
        at += i % s->dim[k] * m->stride[k];
        i /= s->dim[k];
    }
    return at;
}

static int64_t slot_count(const slot *s)
{
    int64_t n = 1;
    for (int i = 0; i < s->ndim; i++) n *= s->dim[i];
    return n;
}

static void fill_image(const setup *u, int i, dtype t, const layout_in_memory *m, bool output, void *data)
{
    const slot *s = &u->s[i];
    for (int64_t k = 0; k < m->count; k++) put_element(data, t, k, (double)NAN, 0x5A5A5A5A); /* gaps, and outputs */
    if (output && !s->adds) return;
    for (int64_t k = 0; k < slot_count(s); k++) {
        int64_t at = place_of(s, m, k);
        put_element(data, t, at, value(u, i, at), integer(u, i, at));
    }
}

static bool in_out_of(const op_case *c)
{
    if (c->op == OP_linear_fwd) return c->o.linear.in_out;
    return c->op == OP_conv_transpose_fwd || (c->op == OP_pack && c->o.in_out);
}

/* The same weight in the device's panels. */
static tensor packed(on_device *x, tensor rows, bool in_out)
{
    int64_t count = tensor_count(rows), N = in_out ? count / rows.dim[0] : rows.dim[0];
    tensor t = tensor_on(arena_bytes(&x->a, x->d->kind->panel_bytes(rows.type, N, count / N)), rows.type, rows.ndim,
                         rows.dim);
    t.layout = LAYOUT_PANELS;
    op_pack(x->d, t, rows, in_out);
    return t;
}

static bool open_slot(on_device *x, const setup *u, int i)
{
    const slot *s = &u->s[i];
    buffer *b = &x->b[i];
    x->view[i] = tensor_none();
    if (!s->letter) return true;
    layout_in_memory m = lay_out(s);
    dtype t = type_of(u, s, x->d);
    b->bytes = (size_t)m.count * dtype_bytes(t);
    b->before = mem_alloc(b->bytes);
    b->after = mem_alloc(b->bytes);
    if (!b->before || !b->after) return false;
    b->output = is_output(u->c->op, i);
    fill_image(u, i, t, &m, b->output, b->before);
    b->whole = arena_tensor(&x->a, t, 1, &m.count);
    if (!b->whole.data) return false;
    dev_put(x->d, b->whole, b->before, b->bytes);
    tensor v = tensor_on((char *)b->whole.data + (size_t)m.offset * dtype_bytes(t), t, s->ndim, s->dim);
    memcpy(v.stride, m.stride, sizeof v.stride);
    b->t = x->view[i] = v;
    return true;
}

static bool is_output(op_id op, int i)
{
    static const int outputs[OP_COUNT] = {
        [OP_layernorm_fwd] = 3,  [OP_rmsnorm_fwd] = 2, [OP_attention_fwd] = 2, [OP_relpos_attention_fwd] = 2,
        [OP_image_pool_fwd] = 2, [OP_argmax_fwd] = 2,  [OP_topk_fwd] = 2,      [OP_cross_entropy_fwd] = 2
    };
    return i < (outputs[op] ? outputs[op] : 1);
}

static void device_close(on_device *x)
{
    for (int i = 0; i < x->n; i++) {
        mem_free(x->b[i].before);
        mem_free(x->b[i].after);
    }
    arena_close(&x->a);
    dev_close(x->d);
}

static size_t bytes_needed(const setup *u)
{
    size_t total = (size_t)1 << 20;
    for (int i = 0; i < u->n; i++) {
        layout_in_memory m = lay_out(&u->s[i]);
        if (u->s[i].letter)
            total += 5 * (size_t)m.count * sizeof(double) + 4096; /* and its panels, rows rounded up */
        if (u->s[i].panels)
            total += (size_t)128 * (size_t)slot_count(&u->s[i]) / (size_t)u->s[i].dim[0] * 16 + (1 << 16);
    }
    return total;
}

static bool device_open(on_device *x, const setup *u, const char *kind, const char *options)
{
    *x = (on_device){ .n = u->n };
    bool ok = dev_open(kind, options, &x->d) == SCA_OK && arena_open(x->d, bytes_needed(u), &x->a) == SCA_OK;
    for (int i = 0; i < u->n && ok; i++) ok = open_slot(x, u, i);
    for (int i = 0; i < u->n && ok; i++) {
        int same = u->s[i].in_place[0] ? parameter(u, u->s[i].in_place) : -1;
        if (same < 0) continue;
        x->view[i] = x->view[same];
        x->b[same].output = true; /* overwritten on purpose */
    }
    for (int i = 0; i < u->n && ok && u->panels && x->d->kind->panel_bytes; i++)
        if (u->s[i].panels) x->view[i] = packed(x, x->view[i], in_out_of(u->c));
    return check_that(ok && x->d->status == SCA_OK, __FILE__, __LINE__, "%s on %s %s: %s %s", u->text, kind,
                      options, sca_last_error(), x->d ? x->d->error : "");
}

static bool device_run(on_device *x, const setup *u, const char *where)
{
    op_signatures[u->c->op].call(x->d, x->view, &u->c->o);
    for (int i = 0; i < u->n; i++)
        if (x->b[i].whole.data && dev_get(x->d, x->b[i].after, x->b[i].whole, x->b[i].bytes) != SCA_OK)
            return check_that(false, __FILE__, __LINE__, "%s on %s: %s", u->text, where, sca_last_error());
    return true;
}

/* ---- comparing --------------------------------------------------------------------------------------- */

static double epsilon(dtype t) { return t == DT_F16 ? 0x1p-11 : t == DT_BF16 ? 0x1p-8 : 0x1p-24; }

/* Bytes outside the view's elements, and inputs, must not change. */
static void check_untouched(const on_device *x, const setup *u, const char *where)
{
    for (int i = 0; i < u->n; i++) {
        const buffer *b = &x->b[i];
        if (!u->s[i].letter) continue;
        if (!b->output) {
            CHECKF(memcmp(b->before, b->after, b->bytes) == 0, "%s on %s: input %s was changed", u->text, where,
                   u->name[i]);
            continue;
        }
        layout_in_memory m = lay_out(&u->s[i]);
        size_t size = dtype_bytes(b->whole.type);
        bool *inside = mem_zero((size_t)m.count, sizeof *inside);
        for (int64_t k = 0; k < slot_count(&u->s[i]); k++) inside[place_of(&u->s[i], &m, k)] = true;
        int64_t at = 0;
        while (at < m.count && (inside[at] || memcmp((char *)b->before + (size_t)at * size,
                                                     (char *)b->after + (size_t)at * size, size) == 0))
            at++;
        CHECKF(at == m.count, "%s on %s: wrote outside of %s, at element %lld of its buffer", u->text, where,
               u->name[i], (long long)at);
        mem_free(inside);
    }
}

static void compare_output(const on_device *x, const on_device *ref, const setup *u, int i, const char *where)
{
    int from = u->s[i].in_place[0] ? parameter(u, u->s[i].in_place) : i;
    const slot *s = &u->s[from];
    if (!s->letter) return;
    layout_in_memory m = lay_out(s);
    dtype t = x->b[from].whole.type, rt = ref->b[from].whole.type;
    double worst = 0, scale = 0, K = op_sum_length(u->c->op, ref->view, &u->c->o);
    int64_t worst_at = -1;
    bool same_nan = true;
    for (int64_t k = 0; k < slot_count(s); k++) {
        int64_t at = place_of(s, &m, k);
        double want = get_element(ref->b[from].after, rt, at), got = get_element(x->b[from].after, t, at);
        if (fabs(want) > scale && isfinite(want)) scale = fabs(want);
        double d = want == got ? 0 : fabs(want - got);
        same_nan &= isnan(want) == isnan(got);
        if (d > worst) worst = d, worst_at = k;
    }
    double limit = dtype_is_float(t)
                       ? scale * (8 * 0x1p-24 * sqrt(K) + 2 * epsilon(t)) * (u->c->loosen > 0 ? u->c->loosen : 1)
                       : 0;
    CHECKF(worst <= limit && same_nan,
           "%s on %s: output %s differs by %.3g at %lld, limit %.3g (largest value %.3g)%s", u->text, where,
           u->name[i], worst, (long long)worst_at, limit, scale, same_nan ? "" : ", NaN or never written");
}

/* ---- every case on every device ---------------------------------------------------------------------- */

static const char *const cpu_options[] = { "threads=1", "threads=3", "threads=2,isa=generic",
                                           "threads=2,isa=avx2" };

static bool has_weights(const setup *u, bool panels)
{
    for (int i = 0; i < u->n; i++)
        if (u->s[i].letter == 'W' && (!panels || u->s[i].panels)) return true;
    return false;
}

/* Panels remember a weight: a unit matrix through them gives it back exactly. */
static void check_pack(const setup *u, const char *options)
{
    on_device x;
    if (!device_open(&x, u, "cpu", options)) {
        device_close(&x);
        return;
    }
    tensor w = x.view[1], panels = packed(&x, w, u->c->o.in_out);
    int64_t count = tensor_count(w), N = u->c->o.in_out ? count / w.dim[0] : w.dim[0], K = count / N;
    arena a;
    CHECK_OK(arena_open(x.d, (size_t)(K * K + K * N + 4096) * sizeof(float), &a));
    tensor unit = arena_tensor(&a, DT_F32, 2, (int64_t[]){ K, K }),
           y = arena_tensor(&a, DT_F32, 2, (int64_t[]){ K, N });
    float *one = mem_zero((size_t)(K * K), sizeof *one), *got = mem_alloc((size_t)(K * N) * sizeof *got);
    for (int64_t k = 0; k < K; k++) one[k * K + k] = 1;
    dev_put_f32(x.d, unit, one);
    op_linear_fwd(x.d, y, unit, panels, tensor_none(), tensor_none(), (linear_options){ ACT_NONE, u->c->o.in_out });
    CHECK_OK(dev_get_f32(x.d, got, y));
    layout_in_memory m = lay_out(&u->s[1]);
    bool same = true;
    for (int64_t k = 0; k < K; k++)
        for (int64_t n = 0; n < N; n++) {
            int64_t at = place_of(&u->s[1], &m, u->c->o.in_out ? k * N + n : n * K + k);
            same &= (double)got[k * N + n] == get_element(x.b[1].before, x.b[1].whole.type, at);
        }
    CHECKF(same, "%s on cpu %s: panels do not hold the weight", u->text, options);
    mem_free(one);
    mem_free(got);
    arena_close(&a);
    device_close(&x);
}

/* One setup on all devices; bitwise the same for every number of threads. */
static void check_setup(const setup *u)
{
    on_device ref, first = { 0 };
    bool have = device_open(&ref, u, "ref", "") && device_run(&ref, u, "ref");
    if (have) check_untouched(&ref, u, "ref");
    for (size_t k = 0; k < LENGTH(cpu_options) && have; k++) {
        char where[64];
        on_device x;
        snprintf(where, sizeof where, "cpu %s%s", cpu_options[k], u->panels ? ", panels" : "");
        if (device_open(&x, u, "cpu", cpu_options[k]) && device_run(&x, u, where)) {
            check_untouched(&x, u, where);
            for (int i = 0; i < u->n; i++)
                if (is_output(u->c->op, i)) compare_output(&x, &ref, u, i, where);
            for (int i = 0; i < u->n && k == 1; i++)
                if (x.b[i].bytes)
                    CHECKF(memcmp(x.b[i].after, first.b[i].after, x.b[i].bytes) == 0,
                           "%s: %s depends on the number of threads", u->text, u->name[i]);
        }
        if (k == 0)
            first = x;
        else
            device_close(&x);
    }
    if (first.d) device_close(&first);
    device_close(&ref);
}

static void every_case(void)
{
    static const dtype types[] = { DT_F32, DT_F16, DT_BF16 };
    for (size_t c = 0; c < n_op_cases; c++)
        for (size_t k = 0; k < LENGTH(types); k++)
            for (int panels = 0; panels < 2; panels++) {
                setup u = { 0 };
                if (!prepare(&u, &op_cases[c], types[k], panels)) break;
                if ((k && !has_weights(&u, false)) || (panels && !has_weights(&u, true))) continue;
                if (u.c->op != OP_pack)
                    check_setup(&u);
                else
                    for (size_t o = 0; o < LENGTH(cpu_options); o++) check_pack(&u, cpu_options[o]);
            }
}

static void every_op_has_a_case(void)
{
    for (int op = 0; op < OP_COUNT; op++) {
        bool found = false, timed = false;
        for (size_t c = 0; c < n_op_cases; c++) found |= op_cases[c].op == (op_id)op;
        for (size_t c = 0; c < n_op_timed; c++) timed |= op_timed[c].op == (op_id)op;
        CHECKF(found, "op_%s has no case", op_name((op_id)op));
        CHECKF(timed || op == OP_pack, "op_%s has no timed case", op_name((op_id)op));
    }
    for (size_t c = 0; c < n_op_cases; c++)
        CHECKF(!(op_cases[c].loosen > 0) || op_cases[c].why, "'%s' is loosened without a reason",
               op_cases[c].tensors);
}

/* ---- rows do not know each other --------------------------------------------------------------------- */

static bool in_batch(const setup *u, int i)
{
    size_t n = strlen(u->name[i]);
    for (const char *p = op_signatures[u->c->op].batch; (p = strstr(p, u->name[i])) != NULL; p += n)
        if ((p == op_signatures[u->c->op].batch || p[-1] == ' ') && (p[n] == 0 || p[n] == ' ')) return true;
    return false;
}

/* Row r alone gives what it gives among the others, to the bit, and touches nothing else. */
static void check_row(const setup *u, const on_device *full, int64_t r)
{
    on_device x;
    bool indexed = u->c->op == OP_attention_fwd && u->s[parameter(u, "index")].letter;
    if (device_open(&x, u, "cpu", "threads=2")) {
        for (int i = 0; i < u->n; i++) {
            bool cut = in_batch(u, i) && tensor_given(x.view[i]);
            if (indexed && (u->name[i][0] == 'k' || u->name[i][0] == 'v')) cut = false;
            if (cut) x.view[i] = tensor_slice(x.view[i], 0, r, 1);
        }
        if (device_run(&x, u, "cpu, one row"))
            for (int i = 0; i < u->n; i++) {
                if (!is_output(u->c->op, i) || !u->s[i].letter) continue;
                layout_in_memory m = lay_out(&u->s[i]);
                size_t size = dtype_bytes(x.b[i].whole.type);
                int64_t per_row = slot_count(&u->s[i]) / u->s[i].dim[0];
                bool same = true, quiet = true;
                for (int64_t k = 0; k < slot_count(&u->s[i]); k++) {
                    size_t at = (size_t)place_of(&u->s[i], &m, k) * size;
                    const char *got = (const char *)x.b[i].after + at;
                    if (k / per_row == r)
                        same &= memcmp(got, (const char *)full->b[i].after + at, size) == 0;
                    else
                        quiet &= memcmp(got, (const char *)x.b[i].before + at, size) == 0;
                }
                CHECKF(same, "%s: row %lld of %s is another one alone", u->text, (long long)r, u->name[i]);
                CHECKF(quiet, "%s: row %lld alone wrote into other rows of %s", u->text, (long long)r, u->name[i]);
            }
    }
    device_close(&x);
}

static void rows_alone(void)
{
    for (size_t c = 0; c < n_op_cases; c++) {
        setup u = { 0 };
        if (!prepare(&u, &op_cases[c], DT_F32, has_weights(&u, true))) continue;
        u.panels = has_weights(&u, true);
        if (u.s[0].in_place[0] || !op_signatures[u.c->op].batch[0] || !u.s[0].letter || u.s[0].dim[0] < 2) continue;
        if (u.c->op == OP_matmul_fwd && u.s[0].ndim < 3) continue;
        on_device full;
        if (device_open(&full, &u, "cpu", "threads=2") && device_run(&full, &u, "cpu")) {
            check_row(&u, &full, 0);
            check_row(&u, &full, u.s[0].dim[0] - 1);
        }
        device_close(&full);
    }
}

/* ---- the reference against closed forms -------------------------------------------------------------- */

typedef struct ref_bench {
    dev *d;
    arena a;
} ref_bench;

static ref_bench ref_open(void)
{
    ref_bench r = { 0 };
    CHECK_OK(dev_open("ref", "", &r.d));
    CHECK_OK(arena_open(r.d, (size_t)4 << 20, &r.a));
    return r;
}

static void ref_close(ref_bench *r)
{
    CHECK_OK(dev_check(r->d));
    arena_close(&r->a);
    dev_close(r->d);
}

/* A tensor of given values (NULL: zeros). */
static tensor of(ref_bench *r, const double *v, int ndim, const int64_t *dim)
{
    tensor t = arena_tensor(&r->a, DT_F64, ndim, dim);
    for (int64_t i = 0; i < tensor_count(t); i++) ((double *)t.data)[i] = v ? v[i] : 0;
    return t;
}

static bool near(double a, double b) { return fabs(a - b) <= 1e-12 * fmax(1, fabs(b)); }
#define DIM(...)                                                                                                   \
    (int)LENGTH(((int64_t[]){ __VA_ARGS__ })), (int64_t[]) { __VA_ARGS__ }
#define AT(t, i) (((const double *)(t).data)[i])

static void ref_pointwise(void)
{
    ref_bench r = ref_open();
    tensor x = of(&r, (double[]){ -1, 0, 2 }, DIM(3)), y = of(&r, NULL, DIM(3));
    op_activation_fwd(r.d, y, x, ACT_GELU);
    for (int i = 0; i < 3; i++) CHECK(near(AT(y, i), AT(x, i) * 0.5 * (1 + erf(AT(x, i) / sqrt(2)))));
    op_activation_fwd(r.d, y, x, ACT_GELU_TANH);
    CHECK(fabs(AT(y, 0) + 0.15880801) < 1e-7 && fabs(AT(y, 2) - 1.95459769) < 1e-7);
    op_activation_fwd(r.d, y, x, ACT_RELU);
    CHECK(AT(y, 0) == 0 && AT(y, 2) == 2);
    tensor a = of(&r, (double[]){ 1, -2 }, DIM(1, 2)), b = of(&r, (double[]){ 3, 5 }, DIM(1, 2)),
           c = of(&r, NULL, DIM(1, 2));
    op_silu_mul_fwd(r.d, c, a, b);
    CHECK(near(AT(c, 0), 3 / (1 + exp(-1))) && near(AT(c, 1), -10 / (1 + exp(2))));
    ref_close(&r);
}

static void ref_products(void)
{
    ref_bench r = ref_open();
    tensor x = of(&r, (double[]){ 1, 2, 3, 4, 5, 6 }, DIM(2, 3)),
           w = of(&r, (double[]){ 1, 0, -1, 2, 1, 0 }, DIM(2, 3));
    tensor b = of(&r, (double[]){ 10, 20 }, DIM(2)), y = of(&r, NULL, DIM(2, 2));
    op_linear_fwd(r.d, y, x, w, b, tensor_none(), (linear_options){ ACT_NONE, false });
    CHECK(AT(y, 0) == 8 && AT(y, 1) == 24 && AT(y, 2) == 8 && AT(y, 3) == 33);
    tensor t = of(&r, (double[]){ 1, 2, 0, 1, -1, 0 }, DIM(3, 2));
    op_linear_fwd(r.d, y, x, t, b, y, (linear_options){ ACT_NONE, true }); /* the same weight transposed, added */
    CHECK(AT(y, 0) == 16 && AT(y, 1) == 48 && AT(y, 2) == 16 && AT(y, 3) == 66);
    op_matmul_fwd(r.d, y, x, t, (matmul_options){ 0.5f, false });
    CHECK(AT(y, 0) == -1 && AT(y, 1) == 2 && AT(y, 2) == -1 && AT(y, 3) == 6.5);
    ref_close(&r);
}

static void ref_norms(void)
{
    ref_bench r = ref_open();
    tensor x = of(&r, (double[]){ 1, 2, 3, 6 }, DIM(1, 4)), y = of(&r, NULL, DIM(1, 4)),
           one = of(&r, (double[]){ 1, 1, 1, 1 }, DIM(4));
    tensor zero = of(&r, NULL, DIM(4)), mean = of(&r, NULL, DIM(1)), rstd = of(&r, NULL, DIM(1));
    op_layernorm_fwd(r.d, y, mean, rstd, x, one, zero, 0);
    CHECK(near(AT(mean, 0), 3) && near(AT(rstd, 0), 1 / sqrt(3.5)) && near(AT(y, 3), 3 / sqrt(3.5)));
    op_rmsnorm_fwd(r.d, y, rstd, x, one, 0);
    CHECK(near(AT(rstd, 0), 1 / sqrt(12.5)) && near(AT(y, 0), 1 / sqrt(12.5)));
    ref_close(&r);
}

static void ref_attention(void)
{
    ref_bench r = ref_open();
    tensor q = of(&r, (double[]){ 1, 2 }, DIM(1, 1, 1, 2)), k = of(&r, (double[]){ 1, 0, 0, 1 }, DIM(1, 2, 1, 2));
    tensor v = of(&r, (double[]){ 10, 0, 0, 20 }, DIM(1, 2, 1, 2)), y = of(&r, NULL, DIM(1, 1, 1, 2)),
           lse = of(&r, NULL, DIM(1, 1, 1));
    op_attention_fwd(r.d, y, lse, q, k, v, tensor_none(), (attention_options){ 0.5f, false });
    double p = 1 / (1 + exp(0.5));
    CHECK(near(AT(y, 0), 10 * p) && near(AT(y, 1), 20 * (1 - p)) && near(AT(lse, 0), log(exp(0.5) + exp(1))));
    tensor q2 = of(&r, (double[]){ 1, 2, 3, 4 }, DIM(1, 2, 1, 2)), y2 = of(&r, NULL, DIM(1, 2, 1, 2));
    op_attention_fwd(r.d, y2, tensor_none(), q2, k, v, tensor_none(), (attention_options){ 1, true });
    CHECK(near(AT(y2, 0), 10) && near(AT(y2, 1), 0)); /* the first query sees one key */
    int64_t map[4] = { 1, 2, 2, 6 };
    double qkv[24];
    for (int i = 0; i < 24; i++) qkv[i] = sin(i);
    tensor all = of(&r, qkv, 4, map), out = of(&r, NULL, DIM(1, 2, 2, 2)), plain = of(&r, NULL, DIM(1, 4, 1, 2));
    tensor flat = tensor_reshape3(all, 1, 4, 6), none = tensor_none();
    tensor zero = of(&r, NULL, DIM(3, 2));
    op_relpos_attention_fwd(r.d, out, none, all, none, zero, zero, (relpos_options){ 0.7f, 1, 0 });
    op_attention_fwd(r.d, plain, none, tensor_split(tensor_slice(flat, 2, 0, 2), 2, 1),
                     tensor_split(tensor_slice(flat, 2, 2, 2), 2, 1),
                     tensor_split(tensor_slice(flat, 2, 4, 2), 2, 1), none, (attention_options){ 0.7f, false });
    for (int i = 0; i < 8; i++) CHECK(near(AT(out, i), AT(plain, i))); /* tables of zeros change nothing */
    ref_close(&r);
}

static void ref_image_attention(void)
{
    ref_bench r = ref_open();
    tensor x = of(&r, (double[]){ 1, 5, 3, 7 }, DIM(1, 2, 2)), pe = of(&r, NULL, DIM(2, 2)),
           a = of(&r, NULL, DIM(1, 1, 2));
    tensor y = of(&r, NULL, DIM(1, 1, 2)), z = of(&r, NULL, DIM(1, 2, 2)), kb = of(&r, NULL, DIM(1, 1));
    op_image_pool_fwd(r.d, y, tensor_none(), x, pe, a);
    CHECK(near(AT(y, 0), 2) && near(AT(y, 1), 6)); /* equal scores: the mean */
    tensor v = of(&r, (double[]){ 1, 2 }, DIM(1, 1, 2)), vb = of(&r, (double[]){ 0, 1 }, DIM(2)),
           one = of(&r, (double[]){ 1, 1 }, DIM(2));
    tensor zero = of(&r, NULL, DIM(2));
    op_image_update_fwd(r.d, z, x, pe, a, kb, v, vb, one, zero, (image_update_options){ 1, 0 });
    CHECK(near(AT(z, 0), -1) &&
          near(AT(z, 1), 1)); /* one token: x + v + vb, then normalised: two values become -1, 1 */
    ref_close(&r);
}

static void ref_images(void)
{
    ref_bench r = ref_open();
    tensor x = of(&r, (double[]){ 1, 2, 3, 4 }, DIM(1, 2, 2, 1)),
           w = of(&r, (double[]){ 1, 10, 100, 1000 }, DIM(1, 1, 2, 2));
    tensor y = of(&r, NULL, DIM(1, 1, 1, 1)), padded = of(&r, NULL, DIM(1, 3, 3, 1)),
           up = of(&r, NULL, DIM(1, 4, 4, 1));
    op_conv_fwd(r.d, y, x, w, tensor_none(), (conv_options){ 1, 0, ACT_NONE });
    CHECK(AT(y, 0) == 4321);
    op_conv_fwd(r.d, padded, x, w, tensor_none(), (conv_options){ 1, 1, ACT_NONE });
    CHECK(AT(padded, 0) == 1000 && AT(padded, 8) == 4 && AT(padded, 1) == 2100);
    op_conv_transpose_fwd(r.d, up, x, w, tensor_none());
    CHECK(AT(up, 0) == 1 && AT(up, 1) == 10 && AT(up, 4) == 100 && AT(up, 15) == 4000);
    tensor line = of(&r, (double[]){ 0, 1 }, DIM(1, 1, 2)), wide = of(&r, NULL, DIM(1, 1, 4));
    op_resize_fwd(r.d, wide, line);
    CHECK(near(AT(wide, 0), 0) && near(AT(wide, 1), 0.25) && near(AT(wide, 2), 0.75) && near(AT(wide, 3), 1));
    tensor c = of(&r, (double[]){ 0.5, -1 }, DIM(1, 2)), g = of(&r, (double[]){ 0.25, 0.125 }, DIM(2, 1)),
           code = of(&r, NULL, DIM(1, 2));
    op_fourier_fwd(r.d, code, c, g);
    CHECK(fabs(AT(code, 0)) < 1e-12 && near(AT(code, 1), 1)); /* 0.5*0.25 - 0.125 = 0 */
    ref_close(&r);
}

static void ref_loss(void)
{
    ref_bench r = ref_open();
    tensor x = of(&r, (double[]){ 1, 2, 3, 0, 0, 0 }, DIM(2, 3)), y = of(&r, NULL, DIM(2, 3)),
           loss = of(&r, NULL, DIM(2));
    op_log_softmax_fwd(r.d, y, x);
    CHECK(near(exp(AT(y, 0)) + exp(AT(y, 1)) + exp(AT(y, 2)), 1) && near(AT(y, 4), -log(3)));
    tensor label = arena_tensor(&r.a, DT_I32, 1, (int64_t[]){ 2 });
    memcpy(label.data, (int32_t[]){ 2, -100 }, 8);
    op_cross_entropy_fwd(r.d, loss, tensor_none(), x, label, 0.25f);
    double smooth = -0.75 * AT(y, 2) - 0.25 / 3 * (AT(y, 0) + AT(y, 1) + AT(y, 2));
    CHECK(near(AT(loss, 0), smooth) && AT(loss, 1) == 0);
    ref_close(&r);
}

static void ref_choices(void)
{
    ref_bench r = ref_open();
    tensor x = of(&r, (double[]){ 1, 3, 3, 2, log(0.5), log(0.3), log(0.15), log(0.05) }, DIM(2, 4)),
           value = of(&r, NULL, DIM(2, 2));
    tensor index = arena_tensor(&r.a, DT_I32, 2, (int64_t[]){ 2, 2 }),
           best = arena_tensor(&r.a, DT_I32, 1, (int64_t[]){ 2 });
    const int32_t *i = index.data, *b = best.data;
    op_topk_fwd(r.d, value, index, x);
    CHECK(i[0] == 1 && i[1] == 2 && AT(value, 1) == 3 && i[2] == 0 && i[3] == 1);
    op_argmax_fwd(r.d, best, tensor_none(), x);
    CHECK(b[0] == 1 && b[1] == 0);
    tensor u = of(&r, (double[]){ 0, 0.6 }, DIM(2));
    op_sample_fwd(r.d, best, x, u, (sample_options){ 1, 0, 1 });
    CHECK(b[1] == 1); /* 0.5 <= 0.6 < 0.8 */
    op_sample_fwd(r.d, best, x, u, (sample_options){ 1, 1, 1 });
    CHECK(b[1] == 0); /* only the best is left */
    op_sample_fwd(r.d, best, x, u, (sample_options){ 1, 0, 0.45f });
    CHECK(b[1] == 0); /* the best alone reaches 0.45 */
    tensor q = of(&r, (double[]){ 1, 2, 3, 4 }, DIM(1, 1, 1, 4)), y = of(&r, NULL, DIM(1, 1, 1, 4));
    op_rope_fwd(r.d, y, q, (rope_options){ 2, 100 });
    CHECK(near(AT(y, 0), cos(2) - 3 * sin(2)) && near(AT(y, 3), 4 * cos(0.2) + 2 * sin(0.2)));
    tensor table = of(&r, (double[]){ 1, 2, 3, 4 }, DIM(2, 2)), rows = of(&r, NULL, DIM(2, 2)),
           ids = arena_tensor(&r.a, DT_I32, 1, (int64_t[]){ 2 });
    memcpy(ids.data, (int32_t[]){ 1, 0 }, 8);
    op_embedding_fwd(r.d, rows, table, ids);
    CHECK(AT(rows, 0) == 3 && AT(rows, 3) == 2);
    ref_close(&r);
}

/* ---- contracts and sticky streams -------------------------------------------------------------------- */

static void wrong_shapes_stop_the_stream(void)
{
    for (const char *const *kind = dev_kinds(); *kind; kind++) {
        dev *d = NULL;
        arena a;
        CHECK_OK(dev_open(*kind, "", &d));
        CHECK_OK(arena_open(d, 1 << 16, &a));
        dtype t = d->kind->act;
        tensor x = arena_tensor(&a, t, 2, (int64_t[]){ 2, 3 }), y = arena_tensor(&a, t, 2, (int64_t[]){ 2, 4 });
        op_fill(d, y, 7);
        op_copy(d, y, x);
        op_fill(d, y, 9); /* does not run any more */
        float after[8] = { 0 };
        CHECK(d->status == SCA_ERR_ARGUMENT);
        CHECK_FAILS(dev_check(d), SCA_ERR_ARGUMENT, "op_copy");
        CHECK(strstr(sca_last_error(), "(2,3)") && strstr(sca_last_error(), "(2,4)"));
        CHECK_OK(dev_get_f32(d, after, y)); /* the report cleared the stream */
        if (!d->kind->measures) CHECKF(after[0] == 7 && after[7] == 7, "%s ran an op after a failure", *kind);
        op_linear_fwd(d, y, x, arena_tensor(&a, t, 2, (int64_t[]){ 4, 2 }), tensor_none(), tensor_none(),
                      (linear_options){ ACT_NONE, false });
        CHECK_FAILS(dev_check(d), SCA_ERR_ARGUMENT, "op_linear_fwd");
        op_add_fwd(d, tensor_expand(tensor_slice(x, 0, 0, 1), 0, 2), x, x); /* outputs never repeat */
        CHECK_FAILS(dev_check(d), SCA_ERR_ARGUMENT, "op_add_fwd");
        arena_close(&a);
        dev_close(d);
    }
    dev *d = NULL;
    CHECK_FAILS(dev_open("gpu9", "", &d), SCA_ERR_DEVICE, "cpu");
    CHECK_FAILS(dev_open("cpu", "colour=red", &d), SCA_ERR_ARGUMENT, "colour");
}

static void full_arenas_stop_the_stream(void)
{
    dev *d = NULL;
    arena a;
    CHECK_OK(dev_open("cpu", "threads=1", &d));
    CHECK_OK(arena_open(d, 1024, &a));
    size_t mark = arena_mark(&a);
    CHECK(arena_tensor(&a, DT_F32, 1, (int64_t[]){ 64 }).data != NULL);
    CHECK(arena_tensor(&a, DT_F32, 1, (int64_t[]){ 1000000 }).data == NULL);
    CHECK_FAILS(dev_check(d), SCA_ERR_MEMORY, "arena");
    arena_release(&a, mark);
    CHECK(arena_tensor(&a, DT_F32, 1, (int64_t[]){ 200 }).data != NULL && a.peak == 1024);
    arena_close(&a);
    dev_close(d);
}

static void guarded_arenas(void)
{
    dev *d = NULL;
    arena a;
    CHECK_OK(dev_open("cpu", "threads=1", &d));
    CHECK_OK(arena_open(d, 1 << 16, &a));
    a.debug = true;
    tensor t = arena_tensor(&a, DT_F32, 1, (int64_t[]){ 5 });
    CHECK(isnan(((float *)t.data)[0]) && arena_guards_intact(&a));
    ((float *)t.data)[5] = 1; /* one past the end */
    CHECK(!arena_guards_intact(&a));
    arena_close(&a);
    dev_close(d);
}

/* ---- timing ------------------------------------------------------------------------------------------ */

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void time_setup(const setup *u)
{
    on_device x;
    if (device_open(&x, u, "cpu", "")) {
        double t[9], total = 0, bytes = 0;
        int n = 0;
        op_signatures[u->c->op].call(x.d, x.view, &u->c->o);
        for (; n < 9 && (n < 3 || total < 1); n++) {
            double start = seconds();
            op_signatures[u->c->op].call(x.d, x.view, &u->c->o);
            t[n] = seconds() - start;
            total += t[n];
        }
        qsort(t, (size_t)n, sizeof *t, ascending);
        for (int i = 0; i < u->n; i++) bytes += (double)x.b[i].bytes;
        double flops = op_flops(u->c->op, x.view, &u->c->o);
        printf("%-22s %-28s %-5s %10.3f ms %9.1f %s\n", op_name(u->c->op), u->c->label ? u->c->label : "",
               dtype_name(u->w), 1e3 * t[n / 2], 1e-9 * (flops > 0 ? flops : bytes) / t[n / 2],
               flops > 0 ? "GFLOP/s" : "GB/s");
    }
    device_close(&x);
}

static void perf(const char *only)
{
    for (size_t c = 0; c < n_op_timed; c++)
        for (int bf16 = 0; bf16 < 2; bf16++) {
            setup u = { 0 };
            if (only && !strstr(op_name(op_timed[c].op), only)) continue;
            if (!prepare(&u, &op_timed[c], bf16 ? DT_BF16 : DT_F32, true) || (bf16 && !has_weights(&u, false)))
                continue;
            time_setup(&u);
        }
}

int main(int argc, char **argv)
{
    if (argc > 1 && strcmp(argv[1], "perf") == 0) {
        perf(argc > 2 ? argv[2] : NULL);
        return 0;
    }
    RUN(every_op_has_a_case);
    RUN(ref_pointwise);
    RUN(ref_products);
    RUN(ref_norms);
    RUN(ref_attention);
    RUN(ref_image_attention);
    RUN(ref_images);
    RUN(ref_loss);
    RUN(ref_choices);
    RUN(wrong_shapes_stop_the_stream);
    RUN(full_arenas_stop_the_stream);
    RUN(guarded_arenas);
    RUN(every_case);
    RUN(rows_alone);
    return check_done();
}
