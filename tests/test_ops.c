/* test_ops.c - every op on every device against the reference device.
 *
 *   test_ops [WORD...]          every case whose text or device carries one of the words (default: all)
 *   test_ops perf [WORD...]     times the sizes of real models: CSV with GB/s and GFLOP/s
 *   test_ops support            which ops each device has
 */
#include "check.h"

#include "avx512_emulated.h"
#include "cpu/cpu.h"
#include "op_run.h"

#include <float.h>
#include <math.h>
#include <time.h>

/* ---- devices: each variant is a device of its own ------------------------------------------------------------- */

typedef struct machine {
    const char *name, *kind, *options, *trace; /* trace: wrapped by dev_trace, or NULL */
    bool own_order;                            /* sums in an order that depends on the company: a BLAS */
    bool own_products;                         /* products alone do: tensor cores */
    bool forward_only;                         /* may refuse what only training calls */
    bool emulated;                             /* runs the kernels of avx512_emulated.c */
    bool vendor; /* rows of a vendor's library: of interest are the ops that have them */
    dev *d;      /* NULL: not here; `why` says so */
    char why[256];
} machine;

/* A host's stand-in for the library; without the toolkit's headers neither is built. */
#define STANDIN(name) name "=" SCA_BUILD "/libstandin_" name ".so"
#define VENDORS "gemm=cublaslt,attention=cudnn," STANDIN("cublaslt") "," STANDIN("cudnn")

static machine machines[] = {
    { .name = "ref", .kind = "ref", .options = "" },
    { .name = "cpu", .kind = "cpu", .options = "threads=2" },
    { .name = "cpu-generic", .kind = "cpu", .options = "threads=1,isa=generic" },
    { .name = "cpu-avx2", .kind = "cpu", .options = "threads=1,isa=avx2" },
    { .name = "cpu-blas", .kind = "cpu", .options = "threads=2,gemm=blas", .own_order = true },
    { .name = "cpu-avx512", .kind = "cpu", .options = "threads=1,isa=avx512" },
    { .name = "cpu-avx512-emulated", .kind = "cpu", .options = "threads=2,isa=avx2", .emulated = true },
    { .name = "simt", .kind = "simt", .forward_only = true, .options = "" },
    { .name = "simt-bf16", .kind = "simt", .forward_only = true, .options = "act=bf16", .own_products = true },
    { .name = "simt-f16", .kind = "simt", .forward_only = true, .options = "act=f16", .own_products = true },
    { .name = "simt-vendor",
      .kind = "simt",
      .forward_only = true,
      .options = VENDORS,
      .own_order = true,
      .vendor = true },
    { .name = "simt-vendor-bf16",
      .kind = "simt",
      .forward_only = true,
      .options = VENDORS ",act=bf16",
      .own_order = true,
      .vendor = true },
    { .name = "simt-vendor-f16",
      .kind = "simt",
      .forward_only = true,
      .options = VENDORS ",act=f16",
      .own_order = true,
      .vendor = true },
    { .name = "cuda", .kind = "cuda", .forward_only = true, .options = "" },
    { .name = "cuda-bf16", .kind = "cuda", .forward_only = true, .options = "act=bf16", .own_products = true },
    { .name = "cuda-f16", .kind = "cuda", .forward_only = true, .options = "act=f16", .own_products = true },
    { .name = "cuda-vendor",
      .kind = "cuda",
      .forward_only = true,
      .options = "gemm=cublaslt,attention=cudnn",
      .own_order = true,
      .vendor = true },
    { .name = "cuda-vendor-bf16",
      .kind = "cuda",
      .forward_only = true,
      .options = "gemm=cublaslt,attention=cudnn,act=bf16",
      .own_order = true,
      .vendor = true },
    { .name = "cuda-vendor-f16",
      .kind = "cuda",
      .forward_only = true,
      .options = "gemm=cublaslt,attention=cudnn,act=f16",
      .own_order = true,
      .vendor = true },
    { .name = "trace", .kind = "cpu", .options = "threads=1", .trace = "nan" },
};
static dev *reference;

static bool built_in(const char *kind)
{
    for (const char *const *name = dev_kinds(); *name; name++)
        if (strcmp(*name, kind) == 0) return true;
    return false;
}

static void open_machines(void)
{
    CHECK_OK(dev_open("ref", "", &reference));
    for (size_t i = 0; i < LENGTH(machines); i++) {
        machine *m = &machines[i];
        if (!built_in(m->kind)) {
            snprintf(m->why, sizeof m->why, "%s: not built in", m->kind);
            continue;
        }
        sca_status s = dev_open(m->kind, m->options, &m->d);
#if defined(__x86_64__)
        if (s == SCA_OK && m->emulated) cpu_of(m->d)->kernels = &avx512_emulated;
#endif
        if (s == SCA_OK && m->trace) s = dev_trace(m->d, m->trace, &m->d);
        /* This machine may lack an instruction set; anything else is a failure. */
        if (s != SCA_OK) snprintf(m->why, sizeof m->why, "%s: %s", m->name, sca_last_error());
        if (s != SCA_ERR_UNSUPPORTED) CHECKF(s == SCA_OK, "%s", m->why);
    }
}

/* NULL, and a skip, when this machine lacks the device. */
static dev *open_here(const char *kind)
{
    dev *d = NULL;
    sca_status s = dev_open(kind, "", &d);
    if (s == SCA_ERR_UNSUPPORTED)
        check_skip(sca_last_error());
    else
        CHECKF(s == SCA_OK, "%s: %s", kind, sca_last_error());
    return d;
}

static void close_machines(void)
{
    for (size_t i = 0; i < LENGTH(machines); i++) dev_close(machines[i].d);
    dev_close(reference);
}

/* ---- how far a result may be off (architecture.md 3.11) ---------------------------------------------------------- */

static double epsilon_of(dtype t)
{
    switch (t) {
    case DT_F64: return DBL_EPSILON;
    case DT_F16: return 0x1p-10;
    case DT_BF16: return 0x1p-7;
    case DT_F32: return (double)FLT_EPSILON;
    default: return 0;
    }
}

/* One constant for every op: sums of K terms in F32, or in F64 on the reference. */
#define TOLERANCE 4.0

typedef struct bound {
    double absolute, relative;
} bound;

/* Two products, one after the other: on devices whose activations have 16 bits, what lies between may be rounded to
 * them as well. */
static bool rounds_within(op_id op)
{
    return op == OP_attention_fwd || op == OP_relpos_attention_fwd || op == OP_image_pool_fwd ||
           op == OP_image_update_fwd;
}

static bound bound_of(const op_plan *p, const op_instance *s, const op_instance *ref, const double *want, int i)
{
    int64_t n = tensor_count(ref->t[i]);
    double scale = n < 64 ? 1 : 0; /* few numbers say little of the scale: that of the inputs, then */
    for (int64_t k = 0; k < n; k++)
        if (fabs(want[k]) > scale) scale = fabs(want[k]);
    bool wide = s->d->kind->act == DT_F64;
    double epsilon = wide ? DBL_EPSILON : (double)FLT_EPSILON;
    double length = op_sum_length(p->op, ref->t, &p->o);
    double stored = epsilon_of(s->t[i].type);
    bound b = { TOLERANCE * p->loosen * epsilon * sqrt(length) * scale,
                stored > epsilon || p->op == OP_fill ? 0.5 * stored : 0 };
    if (s->t[i].type == DT_F16) b.absolute += 0x1p-25; /* half a step of its smallest numbers */
    if (stored > epsilon && rounds_within(p->op)) b.absolute += 0.5 * stored * scale;
    return b;
}

/* Ops that only move or compare numbers have no rounding of their own. */
static bool is_exact(op_id op)
{
    switch (op) {
    case OP_copy:
    case OP_fill:
    case OP_embedding_fwd:
    case OP_place:
    case OP_threshold_fwd:
    case OP_argmax_fwd:
    case OP_topk_fwd:
    case OP_sample_fwd:
    case OP_pack: return true;
    default: return false;
    }
}

static int slot_of(const op_plan *p, const op_instance *s, int i)
{
    return p->spec[i].same_as >= 0 && !s->plain ? p->spec[i].same_as : i;
}

/* Which of the weights' types and layouts a run uses, for messages. */
static const char *run_text(const op_plan *p, const op_instance *s)
{
    static char text[64];
    if (!op_plan_has(p, 'W', 0)) return "";
    snprintf(text, sizeof text, ", W %s %s", dtype_name(op_type('W', s->d, s->weight)),
             s->panels ? "panels" : "rows");
    return text;
}

static double worst_share[LENGTH(machines)][OP_COUNT]; /* of the bound, over all runs of a device */

/* What the reference gives for a case, rounded as a device rounds: computed once for all that round alike. */
typedef struct expectation {
    dtype act, weight;
    op_instance s;
    double *want[OP_MAX_TENSORS]; /* of the outputs; NULL where it failed */
} expectation;
static expectation expected[12]; /* of the present case: types of activations times types of weights */
static int n_expected;

static void compare_output(const machine *m, const op_plan *p, op_instance *s, const expectation *e, int i)
{
    double *got = op_instance_values(s, slot_of(p, s, i)), *want = e->want[i], *worst = worst_share[m - machines];
    CHECKF(got && want, "%s: no results", p->text);
    int64_t n = got && want ? tensor_count(e->s.t[i]) : 0;
    bound b = n ? bound_of(p, s, &e->s, want, i) : (bound){ 0 };
    if (is_exact(p->op))
        b.absolute = s->t[i].type == DT_F16 ? 0x1p-25 : 0; /* half a step of its smallest numbers */
    int64_t wrong = 0, first = -1;
    for (int64_t k = 0; k < n; k++) {
        double off = fabs(got[k] - want[k]), allowed = b.absolute + b.relative * fabs(want[k]);
        if (is_exact(p->op) && isnan(got[k]) && isnan(want[k])) continue;
        if (off <= allowed) {
            if (b.absolute > 0 && off / allowed > worst[p->op]) worst[p->op] = off / allowed;
        } else if (wrong++ == 0)
            first = k; /* also when NaN */
    }
    CHECKF(!wrong,
           "%s: %s%s: %s: %lld of %lld wrong, the first at %lld: %.9g, expected %.9g within %.3g; seed %016llx",
           m->name, p->text, run_text(p, s), p->spec[i].name, (long long)wrong, (long long)n, (long long)first,
           got && first >= 0 ? got[first] : 0, want && first >= 0 ? want[first] : 0, b.absolute,
           (unsigned long long)p->seed);
    free(got);
}

static void check_memory(const machine *m, const op_plan *p, op_instance *s)
{
    for (int i = 0; i < p->n; i++) {
        if (!p->spec[i].given || slot_of(p, s, i) != i) continue;
        bool written = p->spec[i].output;
        for (int j = 0; j < p->n; j++)
            if (p->spec[j].output && p->spec[j].given && slot_of(p, s, j) == i) written = true;
        CHECKF(op_instance_kept(s, p, i, written), "%s: %s%s: %s was written %s", m->name, p->text, run_text(p, s),
               p->spec[i].name, written ? "outside its view" : "though it is an input");
    }
    CHECKF(arena_guards_intact(&s->a), "%s: %s%s: bytes around a tensor were written", m->name, p->text,
           run_text(p, s));
}

/* ---- one case on one device ------------------------------------------------------------------------------------- */

static bool run_instance(const machine *m, const op_plan *p, op_instance *s)
{
    op_signatures[p->op].call(s->d, s->t, &p->o);
    sca_status status = dev_check(s->d);
    if (status == SCA_ERR_UNSUPPORTED && m->forward_only && op_is_training(p->op)) {
        CHECKF(strstr(sca_last_error(), op_name(p->op)), "%s: '%s' names the op", m->name, sca_last_error());
        return false;
    }
    return CHECKF(status == SCA_OK, "%s: %s%s: %s", m->name, p->text, run_text(p, s), sca_last_error());
}

static bool open_instance(const machine *m, op_instance *s, dev *d, const op_plan *p, dtype weight, bool panels,
                          bool plain, const dev *round)
{
    bool ok = op_instance_open(s, d, p, weight, panels, plain, round);
    if (!ok) dev_check(d);
    return CHECKF(ok, "%s: %s%s: cannot be set up: %s", m->name, p->text, run_text(p, s), sca_last_error());
}

static const expectation *expect(const machine *m, const op_plan *p, dtype weight)
{
    dtype act = m->d->kind->act;
    for (int i = 0; i < n_expected; i++)
        if (expected[i].act == act && expected[i].weight == weight) return &expected[i];
    if (!CHECK(n_expected < (int)LENGTH(expected))) return NULL;
    expectation *e = &expected[n_expected++];
    *e = (expectation){ .act = act, .weight = weight };
    if (open_instance(m, &e->s, reference, p, weight, false, true, m->d) && run_instance(m, p, &e->s))
        for (int i = 0; i < p->n; i++)
            if (p->spec[i].given && p->spec[i].output) e->want[i] = op_instance_values(&e->s, i);
    return e;
}

static void forget_expected(void)
{
    for (; n_expected; n_expected--) {
        expectation *e = &expected[n_expected - 1];
        for (int i = 0; i < OP_MAX_TENSORS; i++) free(e->want[i]);
        op_instance_close(&e->s);
    }
}

/* Calls fn for each type, and layout, that the weights of a case may have on the device. */
typedef void weight_fn(const machine *m, const op_plan *p, dtype weight, bool panels);

static void each_weight(const machine *m, const op_plan *p, weight_fn *fn)
{
    static const dtype types[] = { DT_F32, DT_F16, DT_BF16 };
    bool weights = op_plan_has(p, 'W', 0), wide = m->d->kind->act == DT_F64;
    size_t n = weights && !wide ? LENGTH(types) : 1;
    for (size_t i = 0; i < n; i++) {
        fn(m, p, types[i], false);
        if (op_plan_has(p, 'W', 'p') && m->d->kind->panel_bytes) fn(m, p, types[i], true);
    }
}

/* ---- packing: seen through a product with the unit matrix, which must give the weights back ------------------------ */

static void check_unit_product(const machine *m, const op_plan *p, op_instance *s, tensor panels, bool in_out)
{
    int64_t first = panels.dim[0], rest = tensor_count(panels) / first;
    int64_t N = in_out ? rest : first, K = in_out ? first : rest;
    dtype act = m->d->kind->act;
    float *unit = calloc((size_t)(K * K), sizeof *unit), *got = malloc((size_t)(K * N) * sizeof *got);
    tensor x = arena_tensor(&s->a, act, 2, (int64_t[]){ K, K }),
           y = arena_tensor(&s->a, act, 2, (int64_t[]){ K, N });
    for (int64_t k = 0; k < K; k++) unit[k * K + k] = 1;
    dev_put_f32(m->d, x, unit);
    op_linear_fwd(m->d, y, x, panels, TENSOR_NONE, TENSOR_NONE, (linear_options){ .in_out = in_out });
    CHECK_OK(dev_get_f32(m->d, got, y));
    int64_t wrong = 0;
    for (int64_t k = 0; k < K; k++)
        for (int64_t n = 0; n < N; n++) {
            double value = p->values[1][in_out ? k * N + n : n * K + k], once, want;
            char narrow[8];
            dtype_convert(op_type('W', m->d, s->weight), narrow, DT_F64, &value, 1);
            dtype_convert(DT_F64, &once, op_type('W', m->d, s->weight), narrow, 1);
            dtype_convert(panels.type, narrow, DT_F64, &once, 1);
            dtype_convert(DT_F64, &want, panels.type, narrow, 1);
            dtype_convert(act, narrow, DT_F64, &want, 1); /* the product's own rounding */
            dtype_convert(DT_F64, &want, act, narrow, 1);
            wrong += fabs((double)got[k * N + n] - want) > 0x1p-24 * fabs(want) * (act == DT_F64);
        }
    CHECKF(wrong == 0, "%s: %s: %s to %s: %lld weights differ", m->name, p->text, dtype_name(s->weight),
           dtype_name(panels.type), (long long)wrong);
    free(unit);
    free(got);
}

static void run_pack(const machine *m, const op_plan *p, dtype from, bool unused)
{
    (void)unused;
    static const dtype types[] = { DT_F32, DT_F16, DT_BF16 };
    if (!m->d->kind->panel_bytes) return;
    for (size_t i = 0; i < (m->d->kind->act == DT_F64 ? 1 : LENGTH(types)); i++) {
        op_instance s;
        if (open_instance(m, &s, m->d, p, from, false, false, m->d)) {
            tensor w = s.t[1], y = w;
            int64_t first = w.dim[0], rest = tensor_count(w) / first;
            bool in_out = p->o.in_out;
            y.type = op_type('W', m->d, types[i]);
            y.layout = LAYOUT_PANELS;
            y.data =
                arena_bytes(&s.a, m->d->kind->panel_bytes(y.type, in_out ? rest : first, in_out ? first : rest));
            op_pack(m->d, y, w, in_out);
            check_unit_product(m, p, &s, y, in_out);
            CHECKF(op_instance_kept(&s, p, 1, false), "%s: %s: w was written", m->name, p->text);
            CHECKF(arena_guards_intact(&s.a), "%s: %s: bytes around a tensor were written", m->name, p->text);
        }
        op_instance_close(&s);
    }
}

/* ---- company: a row alone gives the same bits as in the batch ------------------------------------------------------- */

static bool is_batched(const op_plan *p, int i)
{
    const char *name = p->spec[i].name, *at = op_signatures[p->op].batch;
    bool product = p->op == OP_matmul_fwd || p->op == OP_matmul_bwd;
    if (product && (strcmp(name, "b") == 0 || strcmp(name, "db") == 0))
        return p->spec[i].ndim > 2 && p->spec[i].dim[0] == p->spec[p->op == OP_matmul_bwd ? 2 : 0].dim[0];
    if (p->op == OP_attention_fwd && (strcmp(name, "k") == 0 || strcmp(name, "v") == 0)) return !p->spec[5].given;
    size_t n = strlen(name);
    for (; *at; at += strcspn(at, " "), at += *at == ' ')
        if (strcspn(at, " ") == n && memcmp(at, name, n) == 0) return true;
    return false;
}

/* The same buffers, cut to `count` rows from `from`; in-place inputs were overwritten and are put back first. */
static void cut_and_run(const machine *m, const op_plan *p, op_instance *s, int64_t from, int64_t count)
{
    tensor cut[OP_MAX_TENSORS];
    for (int i = 0; i < p->n; i++) {
        cut[i] = s->t[i];
        if (p->spec[i].given && is_batched(p, i)) cut[i] = tensor_slice(s->t[i], 0, from, count);
        if (s->before[i]) dev_put(m->d, s->whole[i], s->before[i], tensor_bytes(s->whole[i]));
    }
    op_options o = p->o; /* dropped numbers belong to the place in the whole */
    o.drop.first += from;
    o.attention.drop.first += from;
    op_signatures[p->op].call(m->d, cut, &o);
}

static void compare_rows(const machine *m, const op_plan *p, op_instance *s, double **batch, int64_t from,
                         int64_t count)
{
    for (int i = 0; i < p->n; i++) {
        if (!p->spec[i].given || !p->spec[i].output || !is_batched(p, i)) continue;
        int slot = slot_of(p, s, i);
        double *alone = op_instance_values(s, slot), *before = op_instance_before(s, slot);
        int64_t row = tensor_count(s->t[i]) / s->t[i].dim[0], end = (from + count) * row,
                all = tensor_count(s->t[i]);
        bool have = alone && before && batch[i];
        CHECKF(have &&
                   memcmp(alone + from * row, batch[i] + from * row, (size_t)(count * row) * sizeof *alone) == 0,
               "%s: %s%s: rows %lld to %lld of %s differ when they are alone", m->name, p->text, run_text(p, s),
               (long long)from, (long long)(from + count - 1), p->spec[i].name);
        CHECKF(have && memcmp(alone, before, (size_t)(from * row) * sizeof *alone) == 0 &&
                   memcmp(alone + end, before + end, (size_t)(all - end) * sizeof *alone) == 0,
               "%s: %s%s: rows %lld to %lld of %s alone wrote into other rows", m->name, p->text, run_text(p, s),
               (long long)from, (long long)(from + count - 1), p->spec[i].name);
        free(alone);
        free(before);
    }
}

static bool is_product(op_id op)
{
    return op == OP_linear_fwd || op == OP_matmul_fwd || op == OP_conv_fwd || op == OP_conv_transpose_fwd;
}

/* The first row, the last and some between, each alone. */
static void check_company(const machine *m, const op_plan *p, op_instance *s)
{
    if (m->own_order || (m->own_products && is_product(p->op))) return;
    double *batch[OP_MAX_TENSORS] = { 0 };
    int64_t n = 0;
    for (int i = 0; i < p->n && n == 0; i++)
        if (p->spec[i].given && p->spec[i].output && is_batched(p, i)) n = p->spec[i].dim[0];
    if (n == 0) return;
    for (int i = 0; i < p->n; i++)
        if (p->spec[i].given && p->spec[i].output) batch[i] = op_instance_values(s, slot_of(p, s, i));
    const int64_t cuts[][2] = { { 0, 1 }, { n - 1, 1 }, { n / 3, n / 2 } };
    for (size_t k = 0; k < (n < 3 ? (size_t)n : LENGTH(cuts));
         k++) { /* of one or two rows, the last cut is the first */
        cut_and_run(m, p, s, cuts[k][0], cuts[k][1]);
        CHECK_OK(dev_check(m->d));
        compare_rows(m, p, s, batch, cuts[k][0], cuts[k][1]);
    }
    for (int i = 0; i < OP_MAX_TENSORS; i++) free(batch[i]);
}

/* ---- a case on a device ------------------------------------------------------------------------------------------- */

static void run_weight(const machine *m, const op_plan *p, dtype weight, bool panels)
{
    op_instance s;
    if (open_instance(m, &s, m->d, p, weight, panels, false, m->d) && run_instance(m, p, &s)) {
        const expectation *e = expect(m, p, weight);
        for (int i = 0; e && i < p->n; i++)
            if (p->spec[i].given && p->spec[i].output) compare_output(m, p, &s, e, i);
        check_company(m, p, &s);
        check_memory(m, p, &s);
    }
    op_instance_close(&s);
}

/* ---- threads: any number of them gives the same bits ------------------------------------------------------------------ */

static dev *one_thread, *three_threads;

static void run_threads(const machine *m, const op_plan *p, dtype weight, bool panels)
{
    op_instance a, b = { 0 };
    if (open_instance(m, &a, one_thread, p, weight, panels, false, one_thread) &&
        open_instance(m, &b, three_threads, p, weight, panels, false, one_thread) && run_instance(m, p, &a) &&
        run_instance(m, p, &b))
        for (int i = 0; i < p->n; i++) {
            if (!p->spec[i].given || !p->spec[i].output) continue;
            double *one = op_instance_values(&a, slot_of(p, &a, i)),
                   *three = op_instance_values(&b, slot_of(p, &b, i));
            size_t bytes = (size_t)tensor_count(a.t[i]) * sizeof *one;
            CHECKF(one && three && memcmp(one, three, bytes) == 0, "%s%s: %s differs between 1 and 3 threads",
                   p->text, run_text(p, &a), p->spec[i].name);
            free(one);
            free(three);
        }
    op_instance_close(&a);
    if (b.d) op_instance_close(&b);
}

/* ---- the test ------------------------------------------------------------------------------------------------------------ */

static int n_words;
static char **words;

static bool wanted(const char *device, const char *text)
{
    for (int i = 0; i < n_words; i++)
        if (strstr(text, words[i]) || strcmp(device, words[i]) == 0) return true;
    return n_words == 0;
}

static void each_case(void (*fn)(const op_plan *p))
{
    for (size_t i = 0; i < n_op_cases; i++) {
        op_plan p;
        if (CHECKF(op_plan_read(&op_cases[i], &p), "case %zu of %s is malformed", i, op_name(op_cases[i].op)))
            fn(&p);
        op_plan_free(&p);
    }
}

static void on_every_device(const op_plan *p)
{
    for (const machine *m = machines; m < machines + LENGTH(machines); m++) {
        bool here = m->d && (!m->vendor || is_product(p->op) || p->op == OP_attention_fwd);
        if (here && wanted(m->name, p->text)) each_weight(m, p, p->op == OP_pack ? run_pack : run_weight);
    }
    forget_expected();
}

static void every_op_agrees_with_the_reference_and_a_row_alone_gives_the_same_bits(void)
{
    for (size_t i = 0; i < LENGTH(machines); i++)
        if (!machines[i].d) check_skip(machines[i].why);
    each_case(on_every_device);
    for (size_t i = 0; i < LENGTH(machines); i++) {
        int worst = 0;
        for (int k = 0; k < OP_COUNT; k++)
            if (worst_share[i][k] > worst_share[i][worst]) worst = k;
        if (machines[i].d)
            printf("%s: at most %.2f of the tolerance is used, by %s\n", machines[i].name, worst_share[i][worst],
                   op_name((op_id)worst));
    }
}

static void with_one_thread_and_three(const op_plan *p)
{
    machine m = { .name = "cpu", .d = one_thread };
    if (wanted(m.name, p->text) && p->op != OP_pack) each_weight(&m, p, run_threads);
}

static void any_number_of_threads_gives_the_same_bits(void)
{
    if (!built_in("cpu")) {
        check_skip("cpu: not built in");
        return;
    }
    CHECK_OK(dev_open("cpu", "threads=1", &one_thread));
    CHECK_OK(dev_open("cpu", "threads=3", &three_threads));
    if (one_thread && three_threads) each_case(with_one_thread_and_three);
    dev_close(one_thread);
    dev_close(three_threads);
}

static void every_op_has_a_case_and_every_device_a_function(void)
{
    int cases[OP_COUNT] = { 0 }, absent = 0, strided = 0;
    for (size_t i = 0; i < n_op_cases; i++) {
        op_plan p;
        if (!op_plan_read(&op_cases[i], &p)) continue;
        cases[p.op]++;
        for (int k = 0; k < p.n; k++) {
            absent += !p.spec[k].given;
            strided += strchr(p.spec[k].views, 's') != NULL;
        }
        CHECKF((op_cases[i].loosen > 0) == (op_cases[i].why != NULL), "%s: a looser tolerance says why", p.text);
        op_plan_free(&p);
    }
    CHECK(absent > 0 && strided > 0);
    for (int i = 0; i < OP_COUNT; i++) CHECKF(cases[i] > 0, "%s has no case", op_name((op_id)i));
    for (const char *const *kind = dev_kinds(); *kind; kind++) {
        dev *d = open_here(*kind);
        if (!d) continue;
#define OP(name, parameters, arguments) CHECKF(d->ops->name != NULL, "%s has no %s", *kind, #name);
#include "ops/ops.def"
#undef OP
        dev_close(d);
    }
}

/* ---- contracts -------------------------------------------------------------------------------------------------------------- */

static float numbers[4096];

static tensor host(int64_t a, int64_t b, int64_t at)
{
    return tensor_on(numbers + at, DT_F32, 2, (int64_t[]){ a, b });
}

/* A refused call: what is wrong is said, nothing is computed by it or after it, and the report clears the stream. */
static void expect_refusal(dev *d, const char *op, const char *part)
{
    tensor later = host(1, 4, 4000);
    numbers[4000] = 7;
    op_fill(d, later, 1);
    sca_status s = dev_check(d);
    CHECKF(s == SCA_ERR_ARGUMENT, "%s: status %s", op, sca_status_name(s));
    CHECKF(strstr(sca_last_error(), op) && strstr(sca_last_error(), part), "'%s' names %s and '%s'",
           sca_last_error(), op, part);
    CHECKF(numbers[4000] == 7, "%s: an op ran after the failure", op);
    CHECK_OK(dev_check(d));
}

static void refuse_shapes(dev *d)
{
    const linear_options plain = { ACT_NONE, false };
    tensor none = TENSOR_NONE;
    op_linear_fwd(d, host(2, 3, 0), host(2, 4, 100), host(3, 5, 200), none, none, plain);
    expect_refusal(d, "op_linear_fwd", "w (3,5) f32");
    op_linear_fwd(d, host(2, 3, 0), host(1, 4, 100), host(3, 4, 200), none, none, plain);
    expect_refusal(d, "op_linear_fwd", "y.dim[0] == x.dim[0]");
    op_add_fwd(d, host(2, 3, 0), host(2, 3, 100), host(3, 2, 200));
    expect_refusal(d, "op_add_fwd", "b (3,2) f32");
    op_layernorm_fwd(d, host(2, 4, 0), none, none, host(2, 4, 100), tensor_reshape1(host(1, 3, 200), 3),
                     tensor_reshape1(host(1, 4, 300), 4), 1e-5f);
    expect_refusal(d, "op_layernorm_fwd", "shape1(w, x.dim[1])");
    op_fill(d, host(0, 3, 0), 1);
    expect_refusal(d, "op_fill", "no empty axis");
    op_fill(d, none, 1);
    expect_refusal(d, "op_fill", "y absent");
}

static void refuse_overlaps(dev *d)
{
    tensor wide = host(4, 16, 0);
    op_copy(d, host(2, 8, 4), host(2, 8, 0));
    expect_refusal(d, "op_copy", "y does not overlap x");
    op_add_fwd(d, tensor_slice(wide, 1, 0, 8), tensor_slice(wide, 1, 4, 8), host(4, 8, 200));
    expect_refusal(d, "op_add_fwd", "y does not overlap a");
    tensor row = tensor_expand(host(1, 8, 0), 0, 3);
    op_fill(d, row, 1);
    expect_refusal(d, "op_fill", "y repeats nothing");
    /* Columns side by side, and exactly in place, are fine. */
    op_copy(d, tensor_slice(wide, 1, 0, 8), tensor_slice(wide, 1, 8, 8));
    op_add_fwd(d, wide, wide, host(4, 16, 200));
    CHECK_OK(dev_check(d));
}

static void refuse_values(dev *d)
{
    int32_t far[2] = { 1, 5 };
    tensor ids = tensor_on(far, DT_I32, 1, (int64_t[]){ 2 });
    op_embedding_fwd(d, host(2, 4, 0), host(5, 4, 100), ids);
    expect_refusal(d, "op_embedding_fwd", "ids_within");
    far[1] = -1;
    op_embedding_fwd(d, host(2, 4, 0), host(5, 4, 100), ids);
    expect_refusal(d, "op_embedding_fwd", "ids_within");
    op_rmsnorm_fwd(d, host(2, 4, 0), TENSOR_NONE, host(2, 4, 100), tensor_reshape1(host(1, 4, 200), 4), NAN);
    expect_refusal(d, "op_rmsnorm_fwd", "eps");
    tensor big = tensor_reshape4(host(3, 4, 0), 1, 3, 1, 4), small = tensor_reshape4(host(2, 4, 100), 1, 2, 1, 4);
    op_attention_fwd(d, big, TENSOR_NONE, tensor_reshape4(host(3, 4, 200), 1, 3, 1, 4), small, small, TENSOR_NONE,
                     (attention_options){ .scale = 1, .causal = true });
    expect_refusal(d, "op_attention_fwd", "k.dim[1] >= q.dim[1]");
}

static void wrong_calls_are_refused_in_words(void)
{
    dev *d = NULL;
    if (!built_in("cpu")) {
        check_skip("cpu: not built in");
        return;
    }
    CHECK_OK(dev_open("cpu", "threads=1", &d));
    if (!d) return;
    refuse_shapes(d);
    refuse_overlaps(d);
    refuse_values(d);
    dev_close(d);
    CHECK_FAILS(dev_open("abacus", "", &d), SCA_ERR_DEVICE, "built in are");
    CHECK_FAILS(dev_open("abacus", "", &d), SCA_ERR_DEVICE, "null");
    CHECK_FAILS(dev_open("ref", "speed=high", &d), SCA_ERR_ARGUMENT, "speed=high");
}

static void a_wrong_shape_stops_the_stream_of_every_device(void)
{
    for (const char *const *kind = dev_kinds(); *kind; kind++) {
        dev *d = open_here(*kind);
        arena a;
        if (!d) continue;
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

/* The null device holds the same contracts, and its memory may not be touched. */
static void the_null_device_checks_and_touches_nothing(void)
{
    dev *d = NULL;
    arena a = { 0 };
    CHECK_OK(dev_open("null", "", &d));
    CHECK_OK(arena_open(d, 0, &a));
    tensor y = arena_tensor(&a, DT_F32, 2, (int64_t[]){ 1 << 20, 1 << 10 });
    tensor x = arena_tensor(&a, DT_F32, 2, (int64_t[]){ 1 << 20, 1 << 10 });
    op_activation_fwd(d, y, x, ACT_GELU);
    CHECK_OK(dev_check(d));
    CHECK(a.peak == (size_t)8 << 30);
    op_activation_fwd(d, y, tensor_slice(x, 0, 0, 5), ACT_GELU);
    CHECK_FAILS(dev_check(d), SCA_ERR_ARGUMENT, "op_activation_fwd");
    arena_close(&a);
    dev_close(d);
}

/* ---- traces -------------------------------------------------------------------------------------------- */

static dev *traced(const char *what)
{
    dev *inner = NULL, *d = NULL;
    CHECK_OK(dev_open("ref", "", &inner));
    CHECK_OK(dev_trace(inner, what, &d));
    return d;
}

static void traces_find_nan_and_write_dumps(void)
{
    double x[6] = { 1, 2, 3, 4, 5, 6 }, y[6], value[2];
    int32_t best[2];
    tensor in = tensor_on(x, DT_F64, 2, (int64_t[]){ 2, 3 }), out = tensor_on(y, DT_F64, 2, (int64_t[]){ 2, 3 });
    dev *d = traced("nan");
    op_copy(d, out, in);
    CHECK_OK(dev_check(d));
    x[4] = NAN;
    op_copy(d, tensor_slice(out, 1, 0, 2), tensor_slice(in, 1, 0, 2));
    op_fill(d, out, 7);
    CHECK_FAILS(dev_check(d), SCA_ERR_DEVICE, "op_copy gave nan in y at index 3");
    CHECK(y[5] == 6);
    x[4] = 5;
    dev_close(d);
    d = traced("dump:" SCA_BUILD "/trace");
    op_copy(d, out, in);
    op_argmax_fwd(d, tensor_on(best, DT_I32, 1, (int64_t[]){ 2 }), tensor_on(value, DT_F64, 1, (int64_t[]){ 2 }),
                  in);
    CHECK_OK(dev_check(d));
    dev_close(d);
    char *text = NULL;
    size_t bytes = 0;
    CHECK_OK(file_read(SCA_BUILD "/trace/000001-copy.f32", 1000, &text, &bytes));
    CHECK(bytes == 24 && memcmp(text, (float[]){ 1, 2, 3, 4, 5, 6 }, 24) == 0);
    mem_free(text);
    CHECK_OK(file_read(SCA_BUILD "/trace/000002-argmax_fwd-value.f32", 1000, &text, &bytes));
    CHECK(bytes == 8 && memcmp(text, (float[]){ 3, 6 }, 8) == 0);
    mem_free(text);
    CHECK_OK(file_read(SCA_BUILD "/trace/index.txt", 1000, &text, &bytes));
    CHECK(strstr(text, "000001-copy.f32 (2,3) f64\n"));
    mem_free(text);
    dev *inner = NULL;
    CHECK_OK(dev_open("ref", "", &inner));
    CHECK_FAILS(dev_trace(inner, "everything", &d), SCA_ERR_ARGUMENT, "names, time, nan, sync or dump:DIR");
}

/* ---- perf and support --------------------------------------------------------------------------------------------------------- */

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* Median of up to 15 calls after one to warm up, a second at most. */
static double timed(const op_plan *p, op_instance *s)
{
    double times[15], begin = now();
    int n = 0;
    while (n < (int)LENGTH(times) && (n == 0 || now() - begin < 1)) {
        if (n == 0) op_signatures[p->op].call(s->d, s->t, &p->o);
        double start = now();
        op_signatures[p->op].call(s->d, s->t, &p->o);
        s->d->kind->sync(s->d);
        times[n++] = now() - start;
    }
    qsort(times, (size_t)n, sizeof *times, by_value);
    return times[n / 2];
}

/* Every tensor once, what repeats once only. */
static double bytes_moved(const op_plan *p, const op_instance *s)
{
    double bytes = 0;
    for (int i = 0; i < p->n; i++) {
        if (!p->spec[i].given || s->t[i].type == DT_NONE) continue;
        double n = (double)tensor_count(s->t[i]);
        if (p->op == OP_embedding_fwd && i == 1) n = (double)tensor_count(s->t[0]); /* only the rows looked up */
        if (strchr(p->spec[i].views, 'r')) n /= (double)s->t[i].dim[0];
        bytes += n * (double)dtype_bytes(s->t[i].type);
    }
    return bytes;
}

static void perf_weight(const machine *m, const op_plan *p, const char *label, dtype weight)
{
    op_instance s;
    bool panels = op_plan_has(p, 'W', 'p') && m->d->kind->panel_bytes;
    if (open_instance(m, &s, m->d, p, weight, panels, false, m->d)) {
        double seconds = timed(p, &s), flops = op_flops(p->op, s.t, &p->o);
        CHECK_OK(dev_check(m->d));
        printf("%s,%s,\"%s\",%s%s,%.4f,%.1f,%.1f\n", m->name, op_name(p->op), label,
               op_plan_has(p, 'W', 0) ? dtype_name(weight) : "", panels ? " panels" : "", 1e3 * seconds,
               bytes_moved(p, &s) / seconds * 1e-9, flops / seconds * 1e-9);
        fflush(stdout);
    }
    op_instance_close(&s);
}

static bool forward_only(const machine *m) { return strcmp(m->kind, "cuda") == 0 || strcmp(m->kind, "simt") == 0; }

static void perf(void)
{
    printf("device,op,case,weights,ms,GB/s,GFLOP/s\n");
    for (size_t k = 0; k < LENGTH(machines); k++) {
        const machine *m = &machines[k];
        if (!m->d || m->d->kind->act == DT_F64 || (n_words == 0 && strcmp(m->name, m->kind) != 0)) continue;
        for (size_t i = 0; i < n_op_timed; i++) {
            op_plan p;
            char text[sizeof p.text];
            op_case_text(&op_timed[i], text, sizeof text);
            /* A plan of a backward op runs the reference's forward, which takes minutes: only what is timed is read. */
            if (!wanted(m->name, text) && !wanted(m->name, op_timed[i].label)) continue;
            if (forward_only(m) && op_is_training(op_timed[i].op)) continue;
            if (!CHECK(op_plan_read(&op_timed[i], &p))) continue;
            perf_weight(m, &p, op_timed[i].label, DT_F32);
            if (op_plan_has(&p, 'W', 0)) perf_weight(m, &p, op_timed[i].label, DT_BF16);
            op_plan_free(&p);
        }
    }
}

/* Per op and device: yes, or why not, from a run of the op's first case. */
static void support(void)
{
    printf("%-24s", "op");
    for (size_t k = 0; k < LENGTH(machines); k++) printf(" %-12s", machines[k].name);
    for (int op = 0; op < OP_COUNT; op++) {
        printf("\n%-24s", op_name((op_id)op));
        size_t i = 0;
        while (i < n_op_cases && (int)op_cases[i].op != op) i++;
        for (size_t k = 0; k < LENGTH(machines); k++) {
            op_plan p;
            op_instance s;
            sca_status status = SCA_ERR_DEVICE;
            if (machines[k].d && i < n_op_cases && op_plan_read(&op_cases[i], &p)) {
                op_instance_open(&s, machines[k].d, &p, DT_F32, op == OP_pack, false, machines[k].d);
                if (op != OP_pack) op_signatures[op].call(s.d, s.t, &p.o);
                status = dev_check(machines[k].d);
                op_instance_close(&s);
                op_plan_free(&p);
            }
            printf(" %-12s", !machines[k].d                  ? "absent"
                             : status == SCA_OK              ? "yes"
                             : status == SCA_ERR_UNSUPPORTED ? "no"
                                                             : "FAILED");
            CHECK(!machines[k].d || status == SCA_OK || status == SCA_ERR_UNSUPPORTED);
        }
    }
    printf("\n");
}

int main(int argc, char **argv)
{
    const char *mode = argc > 1 ? argv[1] : "";
    bool timing = strcmp(mode, "perf") == 0, listing = strcmp(mode, "support") == 0;
    int skip = timing || listing || strcmp(mode, "test") == 0 ? 2 : 1;
    words = argv + skip;
    n_words = argc > skip ? argc - skip : 0;
    open_machines();
    if (timing)
        perf();
    else if (listing)
        support();
    else {
        argc = 1; /* the words choose cases, not functions */
        RUN(every_op_has_a_case_and_every_device_a_function);
        RUN(wrong_calls_are_refused_in_words);
        RUN(a_wrong_shape_stops_the_stream_of_every_device);
        RUN(the_null_device_checks_and_touches_nothing);
        RUN(traces_find_nan_and_write_dumps);
        RUN(every_op_agrees_with_the_reference_and_a_row_alone_gives_the_same_bits);
        RUN(any_number_of_threads_gives_the_same_bits);
    }
    close_machines();
    return check_done();
}
