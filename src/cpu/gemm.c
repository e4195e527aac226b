/* gemm.c - products with weights and between activations.
 *
 * Weights lie in panels of nr columns, [N/nr][K][nr], so that a tile product reads them in order. Few rows (a
 * decoding step): the panels are streamed once, every panel against all rows. Many rows: a task is a block of rows
 * times a block of columns; it walks over K in pieces that keep the piece of A in the second-level cache and one
 * panel piece in the first, and carries the sums from piece to piece in scratch. Both ways, every output is the
 * same chain of multiply-adds over ascending k, so the result does not depend on the way. */
#include "cpu/cpu.h"

#include <string.h>

enum {
    PIECE = 6144,    /* elements of a panel's piece: 24 KiB of floats, most of the first-level cache */
    MC = 96,         /* rows of a block: divided by every tile height; 150 KiB of A */
    MC_ROWS = 240,   /* the same when B must be rearranged for every block */
    NC = 512,        /* columns of a block: 192 KiB of sums */
    ROW_PANELS = 4,  /* panels that one row meets at once */
    FEW_ROWS = 24,   /* up to here the panels are streamed */
    A_PAD = 16,      /* keeps rows of the copy of A off each other's cache sets */
    PANEL_ROUND = 32 /* the widest panel: sizes then do not depend on the instruction set */
};

/* Depth of a piece. It is no part of the result: the sums go on from piece to piece. */
static int64_t depth(const cpu_kernels *k) { return PIECE / k->nr; }

gemm_job cpu_gemm_job(int64_t M, int64_t N, int64_t K)
{
    return (gemm_job){ .M = M, .N = N, .K = K, .alpha = 1.0f, .act = ACT_NONE, .batch = { 1, 1 } };
}

void cpu_gemm_weight(gemm_job *j, tensor w, bool in_out)
{
    j->b = w.data;
    j->b_type = w.type;
    j->b_kind = w.layout == LAYOUT_PANELS ? GEMM_PANELS : in_out ? GEMM_COLS : GEMM_ROWS;
    j->ldb = w.stride[0];
}

void cpu_gemm_weight_turned(gemm_job *j, tensor w, bool in_out)
{
    cpu_gemm_weight(j, w, !in_out);
    if (w.layout == LAYOUT_PANELS) j->b_kind = GEMM_TURNED;
}

void cpu_gemm_fill_turned(const gemm_job *j, int64_t m0, int64_t rows, int64_t k0, int64_t count, float *dst,
                          int64_t ld)
{
    const gemm_turned *t = j->context;
    j->kernels->transpose(dst, ld, t->a + k0 * t->lda + m0, t->lda, count, rows);
}

size_t cpu_panel_bytes(dtype type, int64_t N, int64_t K)
{
    return (size_t)round_up(N, PANEL_ROUND) * (size_t)K * dtype_bytes(type);
}

void cpu_tiles(const cpu_kernels *k, int64_t lanes, int64_t rows, int64_t K, const float *a, int64_t lda,
               const float *b, int64_t ldb, float *c, int64_t ldc, bool add)
{
    bool whole = lanes == k->nr;
    int64_t tiles = ceil_div(rows, whole ? k->mr : 2 * k->mr), at = 0;
    for (int64_t i = 0; i < tiles; i++) {
        int64_t next = rows * (i + 1) / tiles;
        (whole ? k->tile : k->tile_half)((int)(next - at), K, a + at * lda, lda, b, ldb, c + at * ldc, ldc, add);
        at = next;
    }
}

void cpu_tiles_cols(const cpu_kernels *k, int64_t lanes, int64_t rows, int64_t K, const float *a, int64_t lda,
                    const float *b, int64_t ldb, float *c, int64_t ldc, bool add)
{
    bool whole = lanes == k->nr;
    int64_t tiles = ceil_div(rows, whole ? k->mr : 2 * k->mr), at = 0;
    for (int64_t i = 0; i < tiles; i++) {
        int64_t next = rows * (i + 1) / tiles;
        (whole ? k->tile_cols : k->tile_cols_half)((int)(next - at), K, a + at, lda, b, ldb, c + at * ldc, ldc,
                                                   add);
        at = next;
    }
}

/* Memory that the next products will read, in `parts` portions: what comes in pieces apart from each other the machine does
 * not foresee. */
static void fetch_part(const char *from, size_t bytes, int64_t part, int64_t parts)
{
    size_t lines = (bytes + 63) / 64, to = lines * (size_t)(part + 1) / (size_t)parts;
    for (size_t l = lines * (size_t)part / (size_t)parts; from && l < to; l++)
        __builtin_prefetch(from + 64 * l, 0, 2);
}

/* c[rows][nr] (+)= a times `count` lines of a panel of any type; meanwhile `next`, as much again or NULL, is fetched. */
static void panel_tiles(const cpu_kernels *k, int64_t rows, int64_t count, const float *a, int64_t lda,
                        const void *b, dtype type, const void *next, float *c, bool add)
{
    int64_t tiles = ceil_div(rows, k->mr), at = 0;
    size_t bytes = (size_t)(count * k->nr) * dtype_bytes(type);
    for (int64_t i = 0; i < tiles; i++) {
        int64_t to = rows * (i + 1) / tiles;
        int height = (int)(to - at);
        fetch_part(next, bytes, i, tiles);
        if (type == DT_F32)
            k->tile_f32(height, count, a + at * lda, lda, b, c + at * k->nr, k->nr, add);
        else
            (type == DT_BF16 ? k->tile_bf16 : k->tile_f16)(height, count, a + at * lda, lda, b, c + at * k->nr,
                                                           k->nr, add);
        at = to;
    }
}

/* ---- arranging B ------------------------------------------------------------------------------------------ */

/* dst[k][nr] = columns n0.. of B at k0..: floats, columns beyond N zero. `turn`: nr x count floats of scratch. */
static void arrange(const gemm_job *j, const void *b, int64_t n0, int64_t k0, int64_t count, float *dst,
                    float *turn)
{
    const cpu_kernels *k = j->kernels;
    int64_t nr = k->nr, cols = min64(nr, j->N - n0);
    size_t size = dtype_bytes(j->b_type);
    if (cols < nr) memset(dst, 0, (size_t)(count * nr) * sizeof *dst);
    if (j->b_kind == GEMM_COLS) {
        const char *p = (const char *)b + (size_t)(k0 * j->ldb + n0) * size;
        for (int64_t i = 0; i < count; i++)
            k->widen(dst + i * nr, j->b_type, p + (size_t)(i * j->ldb) * size, cols);
        return;
    }
    const char *p = (const char *)b + (size_t)(n0 * j->ldb + k0) * size;
    if (j->b_type == DT_F32) {
        k->transpose(dst, nr, (const float *)(const void *)p, j->ldb, cols, count);
        return;
    }
    for (int64_t i = 0; i < cols; i++)
        k->widen(turn + i * count, j->b_type, p + (size_t)(i * j->ldb) * size, count);
    k->transpose(dst, nr, turn, count, cols, count);
}

/* ---- the two ways ------------------------------------------------------------------------------------------- */

typedef struct plan {
    gemm_job job;
    const cpu *c;
    int64_t mc, nc, m_blocks, n_blocks; /* many rows */
    int64_t panels_per_task;            /* few rows */
} plan;

static void finish(const gemm_job *j, int64_t batch, int64_t m0, int64_t rows, int64_t n0, const float *c)
{
    int64_t nr = j->kernels->nr, cols = min64(nr, j->N - n0);
    if (j->sink) {
        j->sink(j, m0, rows, n0, cols, c, nr);
        return;
    }
    float *y = j->y + batch / j->batch[1] * j->batch_y[0] + batch % j->batch[1] * j->batch_y[1] + m0 * j->ldy + n0;
    const float *r = j->r ? j->r + m0 * j->ldr + n0 : NULL;
    j->kernels->finish(rows, cols, c, y, j->ldy, j->bias ? j->bias + n0 : NULL, r, j->ldr, j->alpha, j->act);
}

/* A task streams some panels against all rows; against one row several at once. */
static void few_rows_task(void *context, int64_t task, int thread)
{
    const plan *p = context;
    const gemm_job *j = &p->job;
    const cpu_kernels *k = j->kernels;
    float *sums = cpu_scratch_of(p->c, thread);
    int64_t nr = k->nr, kc = depth(k), panels = ceil_div(j->N, nr);
    int64_t from = task * p->panels_per_task, to = min64(panels, from + p->panels_per_task);
    size_t size = dtype_bytes(j->b_type);
    for (int64_t n = from, count = 1; n < to; n += count) {
        const char *b = (const char *)j->b + (size_t)(n * j->K * nr) * size;
        if (j->M == 1) {
            count = min64(ROW_PANELS, to - n);
            k->row((int)count, j->K, j->a, b, j->b_type, sums);
        } else {
            for (int64_t k0 = 0; k0 < j->K; k0 += kc)
                panel_tiles(k, j->M, min64(kc, j->K - k0), j->a + k0, j->lda, b + (size_t)(k0 * nr) * size,
                            j->b_type, NULL, sums, k0 > 0);
        }
        for (int64_t i = 0; i < count; i++) finish(j, 0, 0, j->M, (n + i) * nr, sums + i * nr);
    }
}

/* Rows m0.. of A at k0.., copied so that they lie close together. */
static void copy_a(const gemm_job *j, const float *a, int64_t m0, int64_t rows, int64_t k0, int64_t count,
                   float *dst)
{
    const int64_t ld = depth(j->kernels) + A_PAD;
    if (j->fill) {
        j->fill(j, m0, rows, k0, count, dst, ld);
        return;
    }
    for (int64_t i = 0; i < rows; i++)
        memcpy(dst + i * ld, a + (m0 + i) * j->lda + k0, (size_t)count * sizeof *dst);
}

static void many_rows_task(void *context, int64_t task, int thread)
{
    const plan *p = context;
    const gemm_job *j = &p->job;
    const cpu_kernels *k = j->kernels;
    int64_t nr = k->nr, batch = task / (p->m_blocks * p->n_blocks), block = task % (p->m_blocks * p->n_blocks);
    int64_t m0 = block % p->m_blocks * p->mc, n0 = block / p->m_blocks * p->nc;
    int64_t rows = min64(p->mc, j->M - m0), cols = min64(p->nc, j->N - n0);
    int64_t outer = batch / j->batch[1], inner = batch % j->batch[1];
    size_t size = dtype_bytes(j->b_type);
    const float *a = j->a ? j->a + outer * j->batch_a[0] + inner * j->batch_a[1] : NULL;
    const char *b = (const char *)j->b + (size_t)(outer * j->batch_b[0] + inner * j->batch_b[1]) * size;
    const int64_t kc = depth(k), ld = kc + A_PAD;
    float *a_copy = cpu_scratch_of(p->c, thread), *sums = a_copy + p->mc * ld;
    float *line = sums + p->mc * round_up(p->nc, nr), *turn = line + PIECE;
    for (int64_t k0 = 0; k0 < j->K; k0 += kc) {
        int64_t count = min64(kc, j->K - k0);
        copy_a(j, a, m0, rows, k0, count, a_copy);
        for (int64_t n = 0; n < cols; n += nr) {
            float *c = sums + n * p->mc;
            if (j->b_kind == GEMM_PANELS) {
                const char *panel = b + (size_t)((n0 + n) * j->K + k0 * nr) * size;
                const char *next = n + nr < cols ? panel + (size_t)(j->K * nr) * size : NULL;
                panel_tiles(k, rows, count, a_copy, ld, panel, j->b_type, next, c, k0 > 0);
            } else {
                arrange(j, b, n0 + n, k0, count, line, turn);
                cpu_tiles(k, nr, rows, count, a_copy, ld, line, nr, c, nr, k0 > 0);
            }
            if (k0 + count == j->K) finish(j, batch, m0, rows, n0 + n, c);
        }
    }
}

/* ---- a weight in panels, turned --------------------------------------------------------------------------- */

/* B's columns lie as rows of nr in the panels: they are what A is otherwise, and A, turned once, is what panels are. The
 * sums come out turned. */
static const char *turned_at(const gemm_job *j, int64_t n0, int64_t k0)
{
    return (const char *)j->b + (size_t)(k0 * j->N + n0 * j->kernels->nr) * dtype_bytes(j->b_type);
}

/* dst[m / nr][K][nr] = A, a task for each nr of its rows */
static void turn_a_task(void *context, int64_t task, int thread)
{
    const plan *p = context;
    const gemm_job *j = &p->job;
    int64_t nr = j->kernels->nr, m0 = task * nr, rows = min64(nr, j->M - m0), kc = depth(j->kernels);
    float *dst = (float *)cpu_scratch_shared(p->c) + m0 * j->K, *made = cpu_scratch_of(p->c, thread);
    if (rows < nr) memset(dst, 0, (size_t)(j->K * nr) * sizeof *dst);
    for (int64_t k0 = 0; k0 < j->K; k0 += kc) {
        int64_t count = min64(kc, j->K - k0);
        if (j->fill) j->fill(j, m0, rows, k0, count, made, kc + A_PAD);
        const float *from = j->fill ? made : j->a + m0 * j->lda + k0;
        j->kernels->transpose(dst + k0 * nr, nr, from, j->fill ? kc + A_PAD : j->lda, rows, count);
    }
}

/* dst[count / nr][columns][nr] = B at k0..; close together, for a power of two apart they would share cache sets */
static void copy_turned(const gemm_job *j, int64_t n0, int64_t columns, int64_t k0, int64_t count, float *dst)
{
    int64_t nr = j->kernels->nr;
    for (int64_t i = 0; i < count; i += nr) /* k0 is a multiple of nr */
        j->kernels->widen(dst + i * columns, j->b_type, turned_at(j, n0, k0 + i), columns * nr);
}

/* c[columns][nr] (+)= b of copy_turned times a panel of A; meanwhile the next one, `apart` from it, is fetched. */
static void turned_tiles(const cpu_kernels *k, int64_t columns, int64_t count, const float *b, const float *a,
                         int64_t apart, float *c, bool add)
{
    int64_t tiles = ceil_div(columns, k->mr), at = 0;
    for (int64_t i = 0; i < tiles; i++) {
        int64_t to = columns * (i + 1) / tiles;
        if (apart) fetch_part((const char *)(a + apart), (size_t)(count * k->nr) * sizeof *a, i, tiles);
        k->tile_turned((int)(to - at), count, b + at * k->nr, columns * k->nr, a, c + at * k->nr, add);
        at = to;
    }
}

/* Sums of rows m0.. and columns n0.., [column][nr], to where they belong. */
static void finish_turned(const gemm_job *j, int64_t m0, int64_t n0, int64_t columns, const float *c, float *turn)
{
    int64_t nr = j->kernels->nr, rows = min64(nr, j->M - m0);
    for (int64_t n = 0; n < columns; n += nr) {
        j->kernels->transpose(turn, nr, c + n * nr, nr, min64(nr, columns - n), rows);
        finish(j, 0, m0, rows, n0 + n, turn);
    }
}

/* What copy_turned will read: of this task, then of one to come. */
static void fetch_turned(const plan *p, int64_t n0, int64_t k0, int64_t columns)
{
    const gemm_job *j = &p->job;
    if (k0 >= j->K) {
        n0 += p->nc;
        k0 -= round_up(j->K, j->kernels->nr);
        columns = min64(columns, j->N - n0);
    }
    if (columns > 0)
        fetch_part(turned_at(j, n0, k0), (size_t)(columns * j->kernels->nr) * dtype_bytes(j->b_type), 0, 1);
}

static void turned_task(void *context, int64_t task, int thread)
{
    const plan *p = context;
    const gemm_job *j = &p->job;
    const cpu_kernels *k = j->kernels;
    int64_t nr = k->nr, n0 = task / p->m_blocks * p->nc, m0 = task % p->m_blocks * p->mc;
    int64_t columns = min64(p->nc, j->N - n0), rows = min64(p->mc, j->M - m0), kc = depth(k);
    int64_t panels = ceil_div(rows, nr);
    const float *a = (const float *)cpu_scratch_shared(p->c) + m0 * j->K;
    float *b = cpu_scratch_of(p->c, thread), *sums = b + p->nc * kc, *turn = sums + p->nc * p->mc;
    for (int64_t k0 = 0; k0 < j->K; k0 += kc) {
        int64_t count = min64(kc, j->K - k0), blocks = ceil_div(count, nr);
        copy_turned(j, n0, columns, k0, count, b);
        for (int64_t i = 0; i < panels; i++) {
            float *c = sums + i * nr * p->nc;
            for (int64_t f = blocks * i / panels; f < blocks * (i + 1) / panels; f++)
                fetch_turned(p, n0, k0 + count + f * nr, columns);
            turned_tiles(k, columns, count, b, a + (i * j->K + k0) * nr, i + 1 < panels ? j->K * nr : 0, c, k0 > 0);
            if (k0 + count == j->K) finish_turned(j, m0 + i * nr, n0, columns, c, turn);
        }
    }
}

static void run_tasks(const plan *p, int64_t tasks, cpu_task *fn)
{
    const gemm_job *j = &p->job;
    plan *context = (plan *)(uintptr_t)p;
    double work = (double)j->M * (double)j->N * (double)j->K * (double)(j->batch[0] * j->batch[1]);
    if (work > 2e5) {
        cpu_parallel(p->c, tasks, fn, context);
    } else {
        for (int64_t i = 0; i < tasks; i++) fn(context, i, 0);
    }
}

static void few_rows(dev *d, plan *p)
{
    gemm_job *j = &p->job;
    int64_t nr = j->kernels->nr, panels = ceil_div(j->N, nr), ld = j->K + A_PAD;
    if (!cpu_scratch(d, (size_t)(FEW_ROWS * nr) * sizeof(float), (size_t)(j->M * ld) * sizeof(float))) return;
    float *copy = cpu_scratch_shared(p->c); /* rows a power of two apart would share cache sets */
    for (int64_t i = 0; i < j->M; i++) memcpy(copy + i * ld, j->a + i * j->lda, (size_t)j->K * sizeof *copy);
    j->a = copy;
    j->lda = ld;
    p->panels_per_task = max64(1, ceil_div(panels, 6 * (int64_t)p->c->threads));
    run_tasks(p, ceil_div(panels, p->panels_per_task), few_rows_task);
}

/* Equal blocks of columns, and smaller ones when there would be too few tasks. */
static void cut(plan *p)
{
    const gemm_job *j = &p->job;
    int64_t nr = j->kernels->nr, enough = 4 * (int64_t)p->c->threads, batches = j->batch[0] * j->batch[1];
    p->m_blocks = ceil_div(j->M, j->b_kind == GEMM_PANELS ? MC : MC_ROWS);
    p->mc = round_up(ceil_div(j->M, p->m_blocks), j->kernels->mr);
    p->m_blocks = ceil_div(j->M, p->mc);
    p->n_blocks = ceil_div(j->N, NC);
    if (p->m_blocks * p->n_blocks * batches < enough) p->n_blocks = ceil_div(enough, p->m_blocks * batches);
    p->nc = max64(round_up(ceil_div(j->N, p->n_blocks), nr), 2 * nr);
    p->n_blocks = ceil_div(j->N, p->nc);
}

static void many_rows(dev *d, plan *p)
{
    const gemm_job *j = &p->job;
    cut(p);
    int64_t floats = p->mc * (depth(j->kernels) + A_PAD) + p->mc * p->nc + 2 * PIECE;
    if (!cpu_scratch(d, (size_t)floats * sizeof(float), 0)) return;
    run_tasks(p, j->batch[0] * j->batch[1] * p->m_blocks * p->n_blocks, many_rows_task);
}

static void turned(dev *d, plan *p)
{
    gemm_job *j = &p->job;
    int64_t nr = j->kernels->nr, panels = ceil_div(j->M, nr), enough = 8 * (int64_t)p->c->threads;
    p->m_blocks = ceil_div(j->M, NC);
    if (ceil_div(j->N, MC) * p->m_blocks < enough && panels >= 16) p->m_blocks *= 2;
    p->mc = round_up(ceil_div(j->M, p->m_blocks), nr);
    p->m_blocks = ceil_div(j->M, p->mc);
    p->n_blocks = max64(ceil_div(j->N, MC), ceil_div(enough, p->m_blocks));
    p->nc = max64(round_up(ceil_div(j->N, p->n_blocks), nr), 2 * nr);
    p->n_blocks = ceil_div(j->N, p->nc);
    int64_t floats = p->nc * (depth(j->kernels) + A_PAD + p->mc) + nr * nr;
    if (!cpu_scratch(d, (size_t)floats * sizeof(float), (size_t)(panels * nr * j->K) * sizeof(float))) return;
    run_tasks(p, panels, turn_a_task);
    run_tasks(p, p->m_blocks * p->n_blocks, turned_task);
}

void cpu_gemm(dev *d, const gemm_job *job)
{
    plan p = { .job = *job, .c = cpu_of(d) };
    p.job.kernels = p.c->kernels;
    if (job->M == 0 || job->N == 0 || job->batch[0] * job->batch[1] == 0) return;
    bool stream =
        job->M <= FEW_ROWS && !job->fill && job->b_kind == GEMM_PANELS && job->batch[0] * job->batch[1] == 1;
    if (stream)
        few_rows(d, &p);
    else if (job->b_kind == GEMM_TURNED)
        turned(d, &p);
    else
        many_rows(d, &p);
}

/* ---- the ops ----------------------------------------------------------------------------------------------------
 */

void cpu_linear_fwd(dev *d, tensor y, tensor x, tensor w, tensor b, tensor r, linear_options o)
{
    gemm_job j = cpu_gemm_job(y.dim[0], y.dim[1], x.dim[1]);
    cpu_gemm_weight(&j, w, o.in_out);
    j.a = x.data;
    j.lda = x.stride[0];
    j.y = y.data;
    j.ldy = y.stride[0];
    j.act = o.act;
    if (tensor_given(b)) j.bias = b.data;
    if (tensor_given(r)) {
        j.r = r.data;
        j.ldr = r.stride[0];
    }
    if (!cpu_of(d)->blas || !cpu_blas_gemm(d, &j)) cpu_gemm(d, &j);
}

void cpu_matmul_fwd(dev *d, tensor y, tensor a, tensor b, matmul_options o)
{
    int m = y.ndim - 2, n = y.ndim - 1;
    gemm_job j = cpu_gemm_job(y.dim[m], y.dim[n], a.dim[n]);
    j.a = a.data;
    j.lda = a.stride[m];
    j.b = b.data;
    j.b_type = b.type;
    j.b_kind = o.trans_b ? GEMM_ROWS : GEMM_COLS;
    j.ldb = b.stride[m];
    j.y = y.data;
    j.ldy = y.stride[m];
    j.alpha = o.alpha;
    for (int i = 0; i < m; i++) {
        int to = 2 - m + i;
        j.batch[to] = y.dim[i];
        j.batch_a[to] = a.stride[i];
        j.batch_b[to] = b.stride[i];
        j.batch_y[to] = y.stride[i];
    }
    cpu_gemm(d, &j);
}

/* ---- packing
 * ------------------------------------------------------------------------------------------------------- */

typedef struct packing {
    gemm_job job; /* describes w */
    tensor y;
    const cpu *c;
} packing;

static void pack_task(void *context, int64_t panel, int thread)
{
    const packing *p = context;
    const gemm_job *j = &p->job;
    int64_t nr = j->kernels->nr, n0 = panel * nr;
    float *line = cpu_scratch_of(p->c, thread), *turn = line + PIECE;
    const int64_t kc = depth(j->kernels);
    size_t size = dtype_bytes(p->y.type);
    for (int64_t k0 = 0; k0 < j->K; k0 += kc) {
        int64_t count = min64(kc, j->K - k0);
        char *dst = (char *)p->y.data + (size_t)(n0 * j->K + k0 * nr) * size;
        if (n0 < j->N)
            arrange(j, j->b, n0, k0, count, line, turn);
        else
            memset(line, 0, (size_t)(count * nr) * sizeof *line);
        dtype_convert(p->y.type, dst, DT_F32, line, (size_t)(count * nr));
    }
}

void cpu_pack(dev *d, tensor y, tensor w, bool in_out)
{
    packing p = { .y = y, .c = cpu_of(d) };
    int64_t rest = tensor_count(w) / max64(w.dim[0], 1);
    p.job = in_out ? cpu_gemm_job(0, rest, w.dim[0]) : cpu_gemm_job(0, w.dim[0], rest);
    cpu_gemm_weight(&p.job, w, in_out);
    p.job.kernels = p.c->kernels;
    int64_t nr = p.job.kernels->nr;
    if (!cpu_scratch(d, (size_t)(2 * PIECE) * sizeof(float), 0)) return;
    cpu_parallel(p.c, round_up(p.job.N, PANEL_ROUND) / nr, pack_task, &p);
}
