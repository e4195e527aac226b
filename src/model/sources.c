/* sources.c - where parameters come from: a model directory, a SAM and a language model, or the seed. */
#include "model/inside.h"

#include "base/rng.h"

#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

/* ---- opening ----------------------------------------------------------------------------------------- */

static sca_status open_part(const char *path, sca_status (*rename)(weights *w), weights **out)
{
    *out = NULL;
    if (!*path || text_starts(path, "random:")) return SCA_OK;
    TRY(weights_open(path, out));
    return rename(*out);
}

sca_status sources_open(const config *c, sources *s, model_config *sizes)
{
    *s = (sources){ .seed = (uint64_t)c->train_seed, .directory = *c->model_path != 0 };
    *sizes = (model_config){ 0 };
    sca_status status;
    if (*c->model_path) {
        TRY_GOTO(failed, model_config_read(c->model_path, sizes));
        TRY_GOTO(failed, weights_open(c->model_path, &s->files[0]));
    } else {
        TRY_GOTO(failed, open_part(c->model_sam, weights_as_sam, &s->files[0]));
        TRY_GOTO(failed, open_part(c->model_lm, weights_as_lm, &s->files[1]));
        TRY_GOTO(failed, model_config_fresh(c, s->files[0], s->files[1], sizes));
    }
    s->range = sizes->initializer_range;
    return SCA_OK;
failed:
    sources_close(s);
    model_config_free(sizes);
    return status;
}

void sources_close(sources *s)
{
    weights_close(s->files[0]);
    weights_close(s->files[1]);
    mem_free(s->of);
    *s = (sources){ 0 };
}

/* ---- matching ---------------------------------------------------------------------------------------- */

/* The file that must hold an entry, or NULL when it is initialised. A model directory (one file set) holds all. */
static weights *home(const sources *s, const param_entry *e)
{
    if (s->directory) return s->files[0];
    if (text_starts(e->name, "language_model.")) return s->files[1];
    return e->trained ? NULL : s->files[0];
}

static void shape_text(const int64_t *dim, int ndim, char text[96])
{
    str s = { 0 };
    for (int i = 0; i < ndim && i < 8; i++) str_printf(&s, "%s%lld", i ? "," : "(", (long long)dim[i]);
    if (ndim == 0) str_put(&s, "(");
    str_put(&s, ")");
    snprintf(text, 96, "%s", str_text(&s));
    str_free(&s);
}

static sca_status check_shape(const weight *w, const param_entry *e)
{
    bool same = w->ndim == e->ndim;
    for (int i = 0; same && i < e->ndim; i++) same = w->dim[i] == e->dim[i];
    char found[96], expected[96];
    shape_text(w->dim, w->ndim, found);
    shape_text(e->dim, e->ndim, expected);
    if (!same)
        return status_fail(SCA_ERR_FORMAT, "%s: tensor '%s' is %s, expected %s by the configuration", w->file,
                           e->name, found, expected);
    if (!w->numeric)
        return status_fail(SCA_ERR_FORMAT, "%s: tensor '%s' holds integers, expected F32, F16 or BF16", w->file,
                           e->name);
    return SCA_OK;
}

/* Equal values, so that one tensor can stand for both. */
static sca_status equal(const weight *a, const weight *b, bool *same)
{
    *same = a->count == b->count;
    if (!*same || (a->data && a->data == b->data)) return SCA_OK;
    size_t bytes = (size_t)a->count * sizeof(float);
    if (a->data && b->data && a->type == b->type) {
        *same = memcmp(a->data, b->data, (size_t)a->count * dtype_bytes(a->type)) == 0;
        return SCA_OK;
    }
    float *x = mem_alloc(bytes), *y = mem_alloc(bytes);
    sca_status status = x && y ? SCA_OK : mem_fail(bytes, "comparing two tensors");
    if (status == SCA_OK) status = weight_read(a, DT_F32, x);
    if (status == SCA_OK) status = weight_read(b, DT_F32, y);
    if (status == SCA_OK) *same = memcmp(x, y, bytes) == 0;
    mem_free(x);
    mem_free(y);
    return status;
}

/* Quantised values are kept as F16, as those who dequantise such files do: 4 or 8 bits hold no more. */
static dtype storable(const weight *w)
{
    if (w->type == DT_F16 || w->type == DT_BF16) return w->type;
    return w->type == DT_NONE ? DT_F16 : DT_F32;
}

/* An entry that may share the value of another (tied head): model.md 10.2. */
static sca_status match_alias(sources *s, const param_set *params, size_t i, const weight *own)
{
    const param_entry *e = &params->entries[i];
    size_t other = (size_t)(param_find(params, e->alias) - params->entries);
    source *to = &s->of[i], *from = &s->of[other];
    to->shares = (int)other;
    to->stored = from->stored;
    if (!own) return SCA_OK;
    TRY(check_shape(own, e));
    if (!from->weight) { /* the file has the value under the second name only */
        from->weight = own;
        to->stored = from->stored = storable(own);
        return SCA_OK;
    }
    bool same;
    TRY(equal(own, from->weight, &same));
    if (same) return SCA_OK;
    log_warn("%s: '%s' differs from '%s', which it should share: both are kept", own->file, e->name, e->alias);
    to->shares = -1;
    to->weight = own;
    return SCA_OK;
}

static sca_status missing(const weights *w, const param_set *params, const sources *s, size_t first)
{
    const param_entry *e = &params->entries[first];
    size_t count = 0;
    for (size_t i = 0; i < params->n; i++)
        count += !weights_find(w, params->entries[i].name) && s->of[i].shares < 0 && !params->entries[i].alias;
    char shape[96];
    shape_text(e->dim, e->ndim, shape);
    const char *file = weights_count(w) ? weights_at(w, 0)->file : "the weight file";
    return status_fail(SCA_ERR_FORMAT,
                       "%s: tensor '%s' %s is missing (%zu of %zu tensors are); is this the weight file "
                       "of this configuration?",
                       file, e->name, shape, count, params->n);
}

static void note_unknown(const weights *w, const param_set *params)
{
    size_t count = 0;
    const weight *first = NULL;
    for (size_t i = 0; w && i < weights_count(w); i++) {
        const weight *t = weights_at(w, i);
        if (param_find(params, t->name) || weight_is_buffer(t->name)) continue;
        if (!count++) first = t;
    }
    if (!count) return;
    char shape[96];
    shape_text(first->dim, first->ndim, shape);
    log_warn("%s: tensor '%s' %s is left out, for this model has none of that name (%zu of %zu tensors)",
             first->file, first->name, shape, count, weights_count(w));
}

sca_status sources_match(sources *s, const param_set *params)
{
    s->of = mem_zero(params->n, sizeof *s->of);
    if (!s->of) return mem_fail(params->n * sizeof *s->of, "the list of tensors");
    for (size_t i = 0; i < params->n; i++) s->of[i] = (source){ .shares = -1, .stored = DT_F32 };
    for (size_t i = 0; i < params->n; i++) {
        const param_entry *e = &params->entries[i];
        weights *w = home(s, e);
        const weight *own = w ? weights_find(w, e->name) : NULL;
        if (e->alias) {
            TRY(match_alias(s, params, i, own));
            continue;
        }
        s->of[i].weight = own;
        if (own) {
            TRY(check_shape(own, e));
            s->of[i].stored = storable(own);
        }
    }
    for (size_t i = 0; i < params->n; i++) { /* after the second names have been seen */
        weights *w = home(s, &params->entries[i]);
        if (w && !s->of[i].weight && s->of[i].shares < 0) return missing(w, params, s, i);
    }
    note_unknown(s->files[0], params);
    note_unknown(s->files[1], params);
    return SCA_OK;
}

/* ---- values ------------------------------------------------------------------------------------------ */

/* Index of the first value that is NaN or infinite, or -1: the exponent is all ones. */
static int64_t first_bad16(const uint16_t *v, int64_t n, uint16_t exponent)
{
    for (int64_t i = 0; i < n; i++)
        if ((v[i] & exponent) == exponent) return i;
    return -1;
}

static int64_t first_bad_of(const char *data, dtype t, int64_t from, int64_t n)
{
    const void *v = data + (size_t)from * dtype_bytes(t);
    if (t == DT_F16) return first_bad16(v, n, 0x7C00);
    if (t == DT_BF16) return first_bad16(v, n, 0x7F80);
    for (int64_t i = 0; t == DT_F32 && i < n; i++)
        if ((((const uint32_t *)v)[i] & 0x7F800000u) == 0x7F800000u) return i;
    for (int64_t i = 0; t == DT_F64 && i < n; i++)
        if ((((const uint64_t *)v)[i] >> 52 & 0x7FF) == 0x7FF) return i;
    return -1;
}

enum { BLOCK = 1 << 18 }; /* values of a thread's task */

typedef struct search { /* for the first bad value */
    const void *data;
    dtype type;
    int64_t count;
    _Atomic int64_t least;
} search;

static void search_task(void *context, int64_t task)
{
    search *s = context;
    int64_t from = task * BLOCK, n = s->count - from < BLOCK ? s->count - from : BLOCK;
    if (from >= atomic_load(&s->least)) return;
    int64_t at = first_bad_of(s->data, s->type, from, n), least = atomic_load(&s->least);
    while (at >= 0 && from + at < least && !atomic_compare_exchange_weak(&s->least, &least, from + at)) {
    }
}

static int64_t first_bad(const void *data, dtype t, int64_t n)
{
    search s = { .data = data, .type = t, .count = n, .least = INT64_MAX };
    threads_each((n + BLOCK - 1) / BLOCK, search_task, &s);
    int64_t least = atomic_load(&s.least);
    return least == INT64_MAX ? -1 : least;
}

static sca_status refuse_bad(const weight *w, const void *data, dtype t)
{
    int64_t at = first_bad(data, t, w->count);
    if (at < 0) return SCA_OK;
    return status_fail(SCA_ERR_FORMAT,
                       "%s: tensor '%s' holds NaN or infinity at index %lld, expected finite numbers; "
                       "the file is damaged, or its training run failed",
                       w->file, w->name, (long long)at);
}

sca_status sources_check(const weight *w) { return w->data ? refuse_bad(w, w->data, w->type) : SCA_OK; }

typedef struct filling {
    const param_entry *e;
    uint64_t key;
    float range;
    dtype to;
    char *out;
} filling;

/* 1024 values, or what is left of them, from the i-th on; in blocks of 4 of the generator. */
static void fill_some(const filling *f, int64_t i, int64_t count)
{
    float values[1024], scale = f->e->init == INIT_NORMAL ? f->range : 1;
    bool random = f->e->init >= INIT_NORMAL;
    for (int64_t k = 0; k < count; k += 4) {
        if (random)
            rng_normal(rng_philox(f->key, (uint64_t)(i + k) / 4, 0), values + k);
        else
            for (int c = 0; c < 4; c++) values[k + c] = f->e->init == INIT_ONE;
    }
    for (int64_t k = 0; k < count && random; k++) values[k] *= scale;
    dtype_convert(f->to, f->out + (size_t)i * dtype_bytes(f->to), DT_F32, values, (size_t)count);
}

static void fill_task(void *context, int64_t task)
{
    const filling *f = context;
    int64_t n = param_count(f->e), end = n < (task + 1) * BLOCK ? n : (task + 1) * BLOCK;
    for (int64_t i = task * BLOCK; i < end; i += 1024) fill_some(f, i, end - i < 1024 ? end - i : 1024);
}

/* N(0, range) by name and seed: the same on any number of threads. */
static void init_values(const sources *s, const param_entry *e, dtype to, void *out)
{
    filling f = { .e = e, .key = rng_key(s->seed, e->name), .range = s->range, .to = to, .out = out };
    threads_each((param_count(e) + BLOCK - 1) / BLOCK, fill_task, &f);
}

sca_status sources_read(const sources *s, const param_set *params, size_t i, dtype to, void *out)
{
    const source *at = &s->of[i];
    if (at->shares >= 0) return sources_read(s, params, (size_t)at->shares, to, out);
    if (!at->weight) {
        init_values(s, &params->entries[i], to, out);
        return SCA_OK;
    }
    TRY(weight_read(at->weight, to, out));
    TRY(refuse_bad(at->weight, out, to));
    weight_drop(at->weight);
    return SCA_OK;
}

/* ---- placing ----------------------------------------------------------------------------------------- */

typedef struct slot { /* how one entry is kept on a device */
    dtype type;
    bool panels, in_place;
    int64_t N, K;
    size_t bytes;
} slot;

static slot slot_of(const param_entry *e, const source *from, const backend *kind, dtype precision)
{
    slot t = { .type = from ? from->stored : DT_F32 };
    int64_t count = param_count(e);
    bool matrix = e->kind == PARAM_MATRIX || e->kind == PARAM_MATRIX_IN_OUT;
    if (precision == DT_BF16 && !e->trained) t.type = DT_BF16;
    if (e->kind == PARAM_SMALL) t.type = DT_F32;
    if (kind->act == DT_F64) t.type = DT_F64;
    t.panels = matrix && kind->panel_bytes && kind->act != DT_F64;
    t.N = e->kind == PARAM_MATRIX_IN_OUT ? count / e->dim[0] : e->dim[0];
    t.K = count / t.N;
    const weight *w = from ? from->weight : NULL;
    t.in_place = !t.panels && kind->host_memory && w && w->data && w->type == t.type;
    if (from && from->shares >= 0)
        t.bytes = 0;
    else if (t.panels)
        t.bytes = kind->panel_bytes(t.type, t.N, t.K);
    else
        t.bytes = t.in_place ? 0 : (size_t)count * dtype_bytes(t.type);
    return t;
}

void place_bytes(const param_set *params, const sources *s, const backend *kind, dtype precision, size_t bytes[2],
                 size_t *mapped)
{
    bytes[0] = bytes[1] = *mapped = 0;
    for (size_t i = 0; i < params->n; i++) {
        const param_entry *e = &params->entries[i];
        slot t = slot_of(e, &s->of[i], kind, precision);
        bytes[e->trained] += (t.bytes + 255) / 256 * 256;
        if (t.in_place && s->of[i].shares < 0) *mapped += (size_t)param_count(e) * dtype_bytes(t.type);
    }
}

static tensor logical(const param_entry *e, void *data, dtype type)
{
    return tensor_on(data, type, e->ndim, e->dim);
}

/* A matrix into panels: from the mapped file where it can be, else through a copy on the host. */
static sca_status place_panels(const param_set *params, const sources *s, size_t i, slot t, arena *into)
{
    const param_entry *e = &params->entries[i];
    const weight *w = s->of[i].weight;
    tensor to = logical(e, arena_bytes(into, t.bytes), t.type);
    to.layout = LAYOUT_PANELS;
    void *copy = NULL;
    arena staging = { 0 }; /* on a device that does not see the host's memory */
    sca_status status = SCA_OK;
    dtype from = w && w->data && w->type != DT_F64 ? w->type : t.type;
    if (w && w->data && w->type == from && into->d->kind->host_memory) {
        TRY(sources_check(w));
    } else {
        size_t bytes = (size_t)param_count(e) * dtype_bytes(from);
        copy = mem_alloc(bytes);
        if (!copy) return mem_fail(bytes, e->name);
        TRY_GOTO(done, sources_read(s, params, i, from, copy));
    }
    const void *data = copy;
    if (!data && w) data = w->data;
    tensor rows = logical(e, NULL, from);
    if (into->d->kind->host_memory) {
        memcpy(&rows.data, &data, sizeof rows.data); /* a tensor's data is not const; op_pack only reads it */
    } else {
        TRY_GOTO(done, arena_open(into->d, tensor_bytes(rows), &staging));
        rows.data = arena_bytes(&staging, tensor_bytes(rows));
        dev_put(into->d, rows, data, tensor_bytes(rows));
    }
    op_pack(into->d, to, rows, e->kind == PARAM_MATRIX_IN_OUT);
    TRY_GOTO(done, dev_check(into->d));
    if (w) weight_drop(w);
    e->p->v = to;
done:
    arena_close(&staging);
    mem_free(copy);
    return status;
}

static sca_status place_rows(const param_set *params, const sources *s, size_t i, slot t, arena *into)
{
    const param_entry *e = &params->entries[i];
    if (t.in_place) {
        TRY(sources_check(s->of[i].weight));
        void *data;
        memcpy(&data, &s->of[i].weight->data, sizeof data); /* read only, as all frozen values */
        e->p->v = logical(e, data, t.type);
        return SCA_OK;
    }
    e->p->v = arena_tensor(into, t.type, e->ndim, e->dim);
    void *copy = mem_alloc(t.bytes);
    if (!copy) return mem_fail(t.bytes, e->name);
    sca_status status = sources_read(s, params, i, t.type, copy);
    if (status == SCA_OK) dev_put(into->d, e->p->v, copy, t.bytes);
    mem_free(copy);
    return status == SCA_OK ? dev_check(into->d) : status;
}

sca_status place(const param_set *params, const sources *s, arena *const into[2], dtype precision)
{
    const backend *kind = into[0]->d->kind;
    for (size_t i = 0; i < params->n; i++) {
        const param_entry *e = &params->entries[i];
        slot t = slot_of(e, s ? &s->of[i] : NULL, kind, precision);
        arena *to = into[e->trained];
        if (!s) { /* a plan: shapes only */
            e->p->v = arena_tensor(to, t.type, e->ndim, e->dim);
            continue;
        }
        if (!to || s->of[i].shares >= 0) continue;
        TRY(t.panels ? place_panels(params, s, i, t, to) : place_rows(params, s, i, t, to));
        progress("load weights", (int64_t)i, (int64_t)params->n);
    }
    place_shared(params, s);
    if (s) progress("load weights", (int64_t)params->n, (int64_t)params->n);
    return SCA_OK;
}

void place_shared(const param_set *params, const sources *s)
{
    for (size_t i = 0; s && i < params->n; i++)
        if (s->of[i].shares >= 0) *params->entries[i].p = *params->entries[s->of[i].shares].p;
}
