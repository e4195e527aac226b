/* op_run.c - cases on devices. */
#include "op_run.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- reading a case ------------------------------------------------------------------------------------------ */

static int count_tensors(const char *parameters)
{
    int n = 0;
    for (const char *p = parameters; (p = strstr(p, "tensor ")) != NULL; p++) n++;
    return n;
}

void op_parameter_name(op_id op, int i, char name[16])
{
    const op_signature *g = &op_signatures[op];
    const char *p = g->arguments + 1;
    name[0] = 0;
    if (i >= count_tensors(g->parameters)) return;
    for (; i > 0; i--) p = strchr(p, ',') + 1;
    p += strspn(p, " ");
    snprintf(name, 16, "%.*s", (int)strcspn(p, ",)"), p);
}

static int find_name(const op_plan *p, const char *name)
{
    for (int i = 0; i < p->n; i++)
        if (strcmp(p->spec[i].name, name) == 0) return i;
    return -1;
}

static bool read_word(op_plan *p, op_spec *s, const char *word)
{
    s->same_as = -1;
    if (strcmp(word, "-") == 0) return true;
    s->given = true;
    if (*word == '@') return (s->same_as = find_name(p, word + 1)) >= 0;
    if (*word == '+') s->adds = *word++ == '+';
    if (!strchr("APFWIUfhgD", *word)) return false;
    s->type = *word++;
    while (s->ndim < 4) {
        char *end;
        s->dim[s->ndim] = strtoll(word, &end, 10);
        if (end == word || s->dim[s->ndim++] < 1) return false;
        word = end;
        if (*word != 'x') break;
        word++;
    }
    if (*word == '/') snprintf(s->views, sizeof s->views, "%s", ++word);
    return s->ndim > 0 && strspn(s->views, "strpbquoxen") == strlen(s->views) && strlen(word) == strlen(s->views);
}

static bool read_words(op_plan *p, const char *words)
{
    const op_signature *g = &op_signatures[p->op];
    p->n = count_tensors(g->parameters);
    for (int i = 0; i < p->n; i++) {
        op_parameter_name(p->op, i, p->spec[i].name);
        p->spec[i].output = i < op_outputs(p->op);
    }
    for (int i = 0; i < p->n; i++) {
        char word[64];
        size_t n = strcspn(words, " ");
        snprintf(word, sizeof word, "%.*s", (int)n, words);
        if (!read_word(p, &p->spec[i], word)) return false;
        words += n + strspn(words + n, " ");
    }
    for (int i = 0; i < p->n; i++) /* in place: the same type, dims and views */
        if (p->spec[i].given && p->spec[i].same_as >= 0) {
            const op_spec *other = &p->spec[p->spec[i].same_as];
            p->spec[i].type = other->type;
            p->spec[i].ndim = other->ndim;
            memcpy(p->spec[i].dim, other->dim, sizeof other->dim);
        }
    return *words == 0;
}

/* ---- numbers --------------------------------------------------------------------------------------------------- */

static uint64_t next_random(uint64_t *state) /* splitmix64 */
{
    uint64_t z = (*state += 0x9E3779B97F4A7C15ull);
    z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ull;
    z = (z ^ (z >> 27)) * 0x94D049BB133111EBull;
    return z ^ (z >> 31);
}

static double uniform(uint64_t *state) { return (double)(next_random(state) >> 11) * 0x1p-53; }

static uint64_t seed_of(const char *text) /* FNV-1a */
{
    uint64_t h = 0xCBF29CE484222325ull;
    for (; *text; text++) h = (h ^ (unsigned char)*text) * 0x100000001B3ull;
    return h;
}

static int64_t elements(const op_spec *s)
{
    int64_t n = 1;
    for (int i = 0; i < s->ndim; i++) n *= s->dim[i];
    return n;
}

/* Largest index + 1 that an integer input of this op may hold. */
static int64_t index_limit(const op_plan *p)
{
    switch (p->op) {
    case OP_embedding_fwd: return p->spec[1].dim[0];
    case OP_attention_fwd: return p->spec[3].dim[0];
    case OP_place: return p->spec[0].dim[1];
    case OP_cross_entropy_fwd: return p->spec[2].dim[1];
    case OP_cross_entropy_bwd: return p->spec[3].dim[1];
    case OP_embedding_bwd: return p->spec[0].dim[0];
    case OP_roi_align_fwd: return p->spec[1].dim[0];
    case OP_roi_align_bwd: return p->spec[0].dim[0];
    default: return 100;
    }
}

/* `spread` is the one view that says how values are spread, or 0. */
static double draw(const op_plan *p, const op_spec *s, char spread, uint64_t *state)
{
    double u = uniform(state);
    if (s->type == 'I') {
        bool labels = p->op == OP_cross_entropy_fwd || p->op == OP_cross_entropy_bwd;
        if (labels && uniform(state) < 0.2) return -100;
        return floor(u * (double)index_limit(p));
    }
    if (s->type == 'U') return u < 0.5;
    if (spread == 'x') return 100 * u - 10;
    if (spread == 'u') return u;
    if (spread == 'o') return 2 * u - 1;
    double normal = u + uniform(state) + uniform(state) + uniform(state) - 2; /* variance 1/3 */
    normal *= 1.7320508075688772;
    if (spread == 'b') return 40 * normal;
    if (spread == 'q') return rint(4 * normal) / 4;
    return normal;
}

/* Numbers of a tensor that repeats are drawn once. */
static bool draw_values(op_plan *p)
{
    for (int i = 0; i < p->n; i++) {
        const op_spec *s = &p->spec[i];
        if (!s->given || s->same_as >= 0 || (s->output && !s->adds)) continue;
        uint64_t state = p->seed + 0x9E3779B97F4A7C15ull * (unsigned)i;
        int64_t n = elements(s), unique = strchr(s->views, 'r') ? n / s->dim[0] : n;
        char spread = s->views[strcspn(s->views, "xuobq")];
        p->values[i] = malloc((size_t)n * sizeof(double));
        if (!p->values[i]) return false;
        for (int64_t k = 0; k < n; k++)
            p->values[i][k] = k < unique ? draw(p, s, spread, &state) : p->values[i][k - unique];
        for (int64_t k = 0; strchr(s->views, 'n') && k < n; k++)
            if (k % 7 == 3 || k % 11 == 0) p->values[i][k] = (double)NAN;
        for (int64_t k = 0; strchr(s->views, 'e') && k < n; k++) {
            int64_t row = k / s->dim[1], keys = 1 + (7 * row + 2) % s->dim[1];
            if (k % s->dim[1] >= keys) p->values[i][k] = -1;
        }
        for (int64_t k = 0; strchr(s->views, 'x') && k < n; k++) /* the second corner: a size from the first */
            if (k % 4 >= 2) p->values[i][k] = p->values[i][k - 2] + 0.5 + 0.7 * fabs(p->values[i][k]);
    }
    return true;
}

/* ---- what a forward op gives its backward op ------------------------------------------------------------------ */

static tensor drawn(const op_plan *p, const char *name)
{
    int i = find_name(p, name);
    if (i < 0 || !p->spec[i].given) return TENSOR_NONE;
    return tensor_on(p->values[i], DT_F64, p->spec[i].ndim, p->spec[i].dim);
}

/* Overwrites drawn y, lse, mean, rstd by the reference's; `unused` has room for a tensor of y's size. */
static void call_forward(const op_plan *p, dev *d, double *unused)
{
    tensor none = TENSOR_NONE, x = drawn(p, "x"), y = drawn(p, "y"), lse = drawn(p, "lse"), w = drawn(p, "w");
    tensor mean = drawn(p, "mean"), rstd = drawn(p, "rstd"), out = x;
    out.data = unused;
    switch (p->op) {
    case OP_layernorm_bwd: op_layernorm_fwd(d, out, mean, rstd, x, w, w, 1e-5f); break;
    case OP_rmsnorm_bwd: op_rmsnorm_fwd(d, out, rstd, x, w, 1e-5f); break;
    case OP_attention_bwd:
        op_attention_fwd(d, y, lse, drawn(p, "q"), drawn(p, "k"), drawn(p, "v"), none, p->o.attention);
        break;
    case OP_relpos_attention_bwd:
        op_relpos_attention_fwd(d, y, lse, drawn(p, "qkv"), drawn(p, "pad"), drawn(p, "rel_h"), drawn(p, "rel_w"),
                                p->o.relpos);
        break;
    case OP_image_pool_bwd: op_image_pool_fwd(d, y, lse, x, drawn(p, "pe"), drawn(p, "a")); break;
    case OP_cross_entropy_bwd: /* lse does not need the labels */
        op_log_softmax_fwd(d, out, x);
        for (int64_t i = 0; i < x.dim[0]; i++)
            ((double *)lse.data)[i] = ((double *)x.data)[i * x.dim[1]] - unused[i * x.dim[1]];
        break;
    default: break;
    }
}

static bool derive_values(op_plan *p)
{
    int x = find_name(p, "x");
    dev *d = NULL;
    double *unused = malloc(x < 0 || !p->spec[x].given ? 8 : (size_t)elements(&p->spec[x]) * sizeof *unused);
    bool ok = unused && dev_open("ref", "", &d) == SCA_OK;
    if (ok) call_forward(p, d, unused);
    ok = ok && dev_check(d) == SCA_OK;
    dev_close(d);
    free(unused);
    return ok;
}

void op_case_text(const op_case *c, char *out, size_t size)
{
    char options[128];
    op_options_text(c->op, &c->o, options, sizeof options);
    snprintf(out, size, "%s %s%s%s", op_name(c->op), c->tensors, *options ? " | " : "", options);
}

bool op_plan_read(const op_case *c, op_plan *p)
{
    *p = (op_plan){ .op = c->op, .o = c->o, .loosen = c->loosen > 0 ? c->loosen : 1 };
    op_case_text(c, p->text, sizeof p->text);
    p->seed = seed_of(p->text);
    if (read_words(p, c->tensors) && draw_values(p) && (!op_is_training(p->op) || derive_values(p))) return true;
    fprintf(stderr, "malformed case: %s\n", p->text);
    op_plan_free(p);
    return false;
}

void op_plan_free(op_plan *p)
{
    for (int i = 0; i < OP_MAX_TENSORS; i++) {
        free(p->values[i]);
        p->values[i] = NULL;
    }
}

bool op_plan_has(const op_plan *p, char type, char view)
{
    for (int i = 0; i < p->n; i++)
        if (p->spec[i].given && p->spec[i].type == type && (!view || strchr(p->spec[i].views, view))) return true;
    return false;
}

/* ---- tensors on a device ------------------------------------------------------------------------------------------ */

dtype op_type(char letter, const dev *d, dtype weight)
{
    bool wide = d->kind->act == DT_F64;
    switch (letter) {
    case 'A': return d->kind->act;
    case 'P':
    case 'F': return wide ? DT_F64 : DT_F32;
    case 'W': return wide ? DT_F64 : weight;
    case 'I': return DT_I32;
    case 'U': return DT_U8;
    case 'f': return DT_F32;
    case 'h': return DT_F16;
    case 'D': return DT_F64;
    default: return DT_BF16;
    }
}

/* The buffer a view lies in: axes in memory order, room to spare. */
static int whole_dims(const op_spec *s, bool plain, int64_t dim[4])
{
    memcpy(dim, s->dim, sizeof s->dim);
    if (plain) return s->ndim;
    if (strchr(s->views, 'r')) dim[0] = 1;
    if (strchr(s->views, 't')) {
        dim[1] = s->dim[2];
        dim[2] = s->dim[1];
    }
    if (strchr(s->views, 's')) {
        dim[s->ndim - 1] += 5;
        if (s->ndim >= 2) dim[s->ndim - 2] += 1;
    }
    return s->ndim;
}

static tensor view_of(tensor whole, const op_spec *s, bool plain)
{
    if (plain) return whole;
    if (strchr(s->views, 's')) {
        whole = tensor_slice(whole, s->ndim - 1, 2, whole.dim[s->ndim - 1] - 5);
        if (s->ndim >= 2) whole = tensor_slice(whole, s->ndim - 2, 1, whole.dim[s->ndim - 2] - 1);
    }
    if (strchr(s->views, 't')) whole = tensor_swap(whole, 1, 2);
    /* Strided and one axis less to repeat: the axis of 1 may have been widened, its first row is used. */
    if (strchr(s->views, 'r')) whole = tensor_expand(tensor_slice(whole, 0, 0, 1), 0, s->dim[0]);
    return whole;
}

static char *element(tensor t, int64_t index)
{
    int64_t offset = 0;
    for (int i = t.ndim - 1; i >= 0; i--) {
        offset += index % t.dim[i] * t.stride[i];
        index /= t.dim[i];
    }
    return (char *)t.data + offset * (int64_t)dtype_bytes(t.type);
}

/* n numbers that lie one after the other. */
static void store_run(dtype type, void *to, const double *from, int64_t n)
{
    if (type == DT_I32)
        for (int64_t k = 0; k < n; k++) ((int32_t *)to)[k] = (int32_t)from[k];
    else if (type == DT_U8)
        for (int64_t k = 0; k < n; k++) ((uint8_t *)to)[k] = (uint8_t)from[k];
    else
        dtype_convert(type, to, DT_F64, from, (size_t)n);
}

static void load_run(dtype type, double *to, const void *from, int64_t n)
{
    if (type == DT_I32)
        for (int64_t k = 0; k < n; k++) to[k] = ((const int32_t *)from)[k];
    else if (type == DT_U8)
        for (int64_t k = 0; k < n; k++) to[k] = ((const uint8_t *)from)[k];
    else
        dtype_convert(DT_F64, to, type, from, (size_t)n);
}

/* How many numbers of the last axis lie one after the other. */
static int64_t run_length(tensor t) { return t.stride[t.ndim - 1] == 1 ? t.dim[t.ndim - 1] : 1; }

static void store(tensor t, const double *values)
{
    int64_t n = run_length(t);
    for (int64_t k = 0; k < tensor_count(t); k += n) store_run(t.type, element(t, k), values + k, n);
}

static void load(tensor t, double *values)
{
    int64_t n = run_length(t);
    for (int64_t k = 0; k < tensor_count(t); k += n) load_run(t.type, values + k, element(t, k), n);
}

/* The values as `type` holds them; free. */
static double *rounded(dtype type, const double *values, int64_t n)
{
    double *same = malloc((size_t)n * sizeof *same);
    void *narrow = malloc((size_t)n * dtype_bytes(type));
    if (same && narrow) {
        memcpy(same, values, (size_t)n * sizeof *same);
        if (dtype_is_float(type)) {
            dtype_convert(type, narrow, DT_F64, values, (size_t)n);
            dtype_convert(DT_F64, same, type, narrow, (size_t)n);
        }
    }
    free(narrow);
    return same;
}

static bool in_out_of(const op_plan *p)
{
    if (p->op == OP_conv_transpose_fwd || p->op == OP_conv_transpose_bwd) return true;
    return p->op == OP_linear_fwd ? p->o.linear.in_out : p->o.in_out;
}

/* The same weight in the device's panels. */
static tensor packed(op_instance *s, const op_plan *p, tensor w)
{
    bool in_out = in_out_of(p);
    int64_t first = w.dim[0], rest = tensor_count(w) / first;
    size_t bytes = s->d->kind->panel_bytes(w.type, in_out ? rest : first, in_out ? first : rest);
    tensor y = tensor_on(arena_bytes(&s->a, bytes), w.type, w.ndim, w.dim);
    y.layout = LAYOUT_PANELS;
    op_pack(s->d, y, w, in_out);
    return y;
}

static bool place(op_instance *s, const op_plan *p, int i, const dev *round)
{
    const op_spec *spec = &p->spec[i];
    int64_t dim[4];
    dtype type = op_type(spec->type, s->d, s->weight);
    s->whole[i] = arena_tensor(&s->a, type, whole_dims(spec, s->plain, dim), dim);
    s->t[i] = view_of(s->whole[i], spec, s->plain);
    size_t bytes = tensor_bytes(s->whole[i]);
    s->before[i] = malloc(bytes);
    if (!s->before[i] || !s->whole[i].data) return false;
    memset(s->before[i], 0xFF, bytes); /* NaN of every float type */
    tensor on_host = s->whole[i];
    on_host.data = s->before[i];
    on_host = view_of(on_host, spec, s->plain);
    if (p->values[i]) {
        double *values = rounded(op_type(spec->type, round, s->weight), p->values[i], elements(spec));
        if (!values) return false;
        store(on_host, values);
        free(values);
    }
    dev_put(s->d, s->whole[i], s->before[i], bytes);
    return true;
}

static size_t room(const op_plan *p, const dev *d)
{
    size_t bytes = 65536;
    for (int i = 0; i < p->n; i++) {
        int64_t dim[4];
        size_t n = 8;
        if (!p->spec[i].given) continue;
        whole_dims(&p->spec[i], false, dim);
        for (int k = 0; k < p->spec[i].ndim; k++)
            n *= (size_t)(dim[k] > p->spec[i].dim[k] ? dim[k] : p->spec[i].dim[k]);
        bytes += n + 1024;
        if (p->spec[i].type != 'W' || !d->kind->panel_bytes) continue;
        int64_t first = p->spec[i].dim[0], rest = elements(&p->spec[i]) / first;
        bytes += d->kind->panel_bytes(DT_F64, first, rest) + d->kind->panel_bytes(DT_F64, rest, first);
        /* the product with the unit matrix that shows what was packed */
        if (p->op == OP_pack) bytes += (size_t)(first * first + rest * rest + first * rest) * 8;
    }
    return bytes;
}

bool op_instance_open(op_instance *s, dev *d, const op_plan *p, dtype weight, bool panels, bool plain,
                      const dev *round)
{
    *s = (op_instance){ .d = d, .weight = weight, .panels = panels, .plain = plain };
    if (arena_open(d, room(p, d), &s->a) != SCA_OK) return false;
    s->a.debug = true;
    for (int i = 0; i < p->n; i++) {
        const op_spec *spec = &p->spec[i];
        if (!spec->given || (spec->same_as >= 0 && !plain)) continue;
        if (!place(s, p, i, round)) return false;
    }
    for (int i = 0; i < p->n; i++) {
        const op_spec *spec = &p->spec[i];
        if (spec->given && spec->same_as >= 0 && !plain) s->t[i] = s->t[spec->same_as];
        if (panels && !spec->output && spec->type == 'W' && strchr(spec->views, 'p'))
            s->t[i] = packed(s, p, s->t[i]);
    }
    return d->status == SCA_OK;
}

void op_instance_close(op_instance *s)
{
    arena_close(&s->a);
    for (int i = 0; i < OP_MAX_TENSORS; i++) free(s->before[i]);
    *s = (op_instance){ 0 };
}

/* The whole buffer that t[i] lies in, fetched; free. */
static void *fetched(op_instance *s, int i)
{
    size_t bytes = tensor_bytes(s->whole[i]);
    void *now = malloc(bytes);
    if (now && dev_get(s->d, now, s->whole[i], bytes) == SCA_OK) return now;
    free(now);
    return NULL;
}

static tensor host_view(const op_instance *s, int i, void *bytes)
{
    tensor t = s->t[i];
    if (t.layout != LAYOUT_ROWS) t = s->whole[i];
    t.data = (char *)bytes + ((const char *)t.data - (const char *)s->whole[i].data);
    return t;
}

static double *as_doubles(const op_instance *s, int i, void *bytes)
{
    tensor t = host_view(s, i, bytes);
    double *v = malloc((size_t)tensor_count(t) * sizeof *v);
    if (v) load(t, v);
    return v;
}

double *op_instance_values(op_instance *s, int i)
{
    void *now = fetched(s, i);
    double *v = now ? as_doubles(s, i, now) : NULL;
    free(now);
    return v;
}

double *op_instance_before(op_instance *s, int i) { return as_doubles(s, i, s->before[i]); }

bool op_instance_kept(op_instance *s, const op_plan *p, int i, bool output)
{
    void *now = fetched(s, i);
    if (!now) return false;
    size_t bytes = tensor_bytes(s->whole[i]);
    if (output) { /* what the op may write is put out of sight on both sides */
        tensor a = host_view(s, i, now), b = host_view(s, i, s->before[i]);
        int64_t n = run_length(a);
        for (int64_t k = 0; k < elements(&p->spec[i]); k += n) {
            memset(element(a, k), 0, (size_t)n * dtype_bytes(a.type));
            memset(element(b, k), 0, (size_t)n * dtype_bytes(b.type));
        }
    }
    bool kept = memcmp(now, s->before[i], bytes) == 0;
    free(now);
    return kept;
}
