/* cudnn.c - the row attention=cudnn: op_attention_fwd by cuDNN's graphs, of one operation: its scaled dot product attention.
 *
 *   Q (B,H,Tq,D)  K,V (B,G,Tk,D)  scale (a number)  ->  O (B,H,Tq,D)  stats (B,H,Tq,1): the log of the sum of exponentials
 *
 * any strides of which the last is 1. Sums are kept in F32. Left to our own kernels: F32 activations, causal masks (an
 * operation of cuDNN 9.19 has none), keys by index, dropout, rows that are not aligned to 16 bytes, op_relpos_attention_fwd
 * (its bias would have to be written to memory), and shapes that no engine of the library knows.
 */
#ifdef SCA_CUDNN
#include <cudnn.h>
#endif

#include "cuda/vendor.h"

#include <stdio.h>
#include <string.h>

#ifdef SCA_CUDNN

enum { MOST_PLANS = 32, MOST_CONFIGS = 8, LEAST_VERSION = 91301, ALIGN = 16 };
enum { ID_Q = 1, ID_K, ID_V, ID_O, ID_STATS, ID_SCALE };

#define FUNCTIONS(F)                                                                                               \
    F(cudnnGetVersion)                                                                                             \
    F(cudnnGetErrorString)                                                                                         \
    F(cudnnCreate)                                                                                                 \
    F(cudnnDestroy)                                                                                                \
    F(cudnnSetStream)                                                                                              \
    F(cudnnBackendCreateDescriptor)                                                                                \
    F(cudnnBackendDestroyDescriptor)                                                                               \
    F(cudnnBackendSetAttribute)                                                                                    \
    F(cudnnBackendGetAttribute)                                                                                    \
    F(cudnnBackendFinalize)                                                                                        \
    F(cudnnBackendExecute)

static const char *const names[] = { FUNCTIONS(VENDOR_NAME) };
#ifdef SIMT
static const char *const files[] = { NULL };
#else
static const char *const files[] = { "libcudnn.so." VENDOR_TEXT(CUDNN_MAJOR), "libcudnn.so", NULL };
#endif

typedef struct table { /* in the order of names */
    FUNCTIONS(VENDOR_ADDRESS)
} table;

typedef cudnnBackendDescriptor_t descriptor;

/* What a plan is made for: dimensions and strides (batch, head, row) of q, k, v and y. Compared as bytes. */
typedef struct shape {
    int64_t B, H, G, Tq, Tk, D, type, stats; /* stats: lse is wanted */
    int64_t q[3], k[3], v[3], y[3], lse[2];
} shape;

enum part { PART_Q, PART_K, PART_V, PART_O, PART_STATS, PART_SCALE, PART_OP, PART_GRAPH, PART_HEUR, PART_COUNT };

typedef struct plan {
    shape key;
    int64_t last; /* when it was asked for */
    bool refused; /* no engine knows it */
    descriptor part[PART_COUNT];
    descriptor config[MOST_CONFIGS];
    descriptor execution; /* NULL until one is found */
    int64_t workspace;
} plan;

typedef struct cudnn {
    table f;
    cudnnHandle_t handle;
    plan plans[MOST_PLANS];
    int64_t clock;
} cudnn;

static sca_status load(table *f, const char *file)
{
    void (*address[LENGTH(names)])(void);
    const vendor_library l = { "attention=cudnn", files, names, address, (int)LENGTH(names) };
    TRY(cuda_vendor_load(&l, file));
    memcpy(f, address, sizeof *f);
    size_t v = f->cudnnGetVersion();
    if (v >= LEAST_VERSION) return SCA_OK;
    return status_fail(SCA_ERR_UNSUPPORTED,
                       "device " KIND ": attention=cudnn: found cuDNN %zu.%zu.%zu, expected %d.%d.%d or later; "
                       "install a newer one, or leave attention=cudnn out",
                       v / 10000, v / 100 % 100, v % 100, LEAST_VERSION / 10000, LEAST_VERSION / 100 % 100,
                       LEAST_VERSION % 100);
}

sca_status cuda_cudnn_open(cuda *c, const char *file)
{
    table f;
    TRY(load(&f, file));
    cudnn *l = mem_zero(1, sizeof *l);
    if (!l) return mem_fail(sizeof *l, "cuDNN's plans");
    l->f = f;
    cudnnStatus_t s = f.cudnnCreate(&l->handle);
    if (s == CUDNN_STATUS_SUCCESS) s = f.cudnnSetStream(l->handle, c->stream);
    c->cudnn = l;
    if (s == CUDNN_STATUS_SUCCESS) return SCA_OK;
    cuda_cudnn_close(c);
    return status_fail(SCA_ERR_DEVICE, "device " KIND ": attention=cudnn: cudnnCreate: %s",
                       f.cudnnGetErrorString(s));
}

static void forget(const table *f, plan *p)
{
    if (p->execution) f->cudnnBackendDestroyDescriptor(p->execution);
    for (int i = 0; i < MOST_CONFIGS; i++)
        if (p->config[i]) f->cudnnBackendDestroyDescriptor(p->config[i]);
    for (int i = PART_COUNT - 1; i >= 0; i--)
        if (p->part[i]) f->cudnnBackendDestroyDescriptor(p->part[i]);
    *p = (plan){ 0 };
}

void cuda_cudnn_close(cuda *c)
{
    cudnn *l = c->cudnn;
    if (!l) return;
    for (int i = 0; i < MOST_PLANS; i++) forget(&l->f, &l->plans[i]);
    if (l->handle) l->f.cudnnDestroy(l->handle);
    mem_free(l);
    c->cudnn = NULL;
}

/* ---- descriptors: the first failure stays, later calls do nothing --------------------------------------------- */

typedef struct builder {
    const table *f;
    cudnnStatus_t status;
    const char *at; /* what failed */
} builder;

static void note(builder *b, cudnnStatus_t s, const char *what)
{
    if (b->status != CUDNN_STATUS_SUCCESS || s == CUDNN_STATUS_SUCCESS) return;
    b->status = s;
    b->at = what;
}

static void create(builder *b, cudnnBackendDescriptorType_t type, descriptor *out, const char *what)
{
    if (b->status == CUDNN_STATUS_SUCCESS) note(b, b->f->cudnnBackendCreateDescriptor(type, out), what);
}

static void set(builder *b, descriptor d, cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t type,
                int64_t n, const void *values, const char *what)
{
    if (b->status == CUDNN_STATUS_SUCCESS) note(b, b->f->cudnnBackendSetAttribute(d, name, type, n, values), what);
}

static void set_part(builder *b, descriptor d, cudnnBackendAttributeName_t name, descriptor part, const char *what)
{
    set(b, d, name, CUDNN_TYPE_BACKEND_DESCRIPTOR, 1, &part, what);
}

static void finalize(builder *b, descriptor d, const char *what)
{
    if (b->status == CUDNN_STATUS_SUCCESS) note(b, b->f->cudnnBackendFinalize(d), what);
}

static void make_tensor(builder *b, descriptor *out, int64_t id, cudnnDataType_t type, const int64_t dim[4],
                        const int64_t stride[4], bool by_value, const char *what)
{
    int64_t align = type == CUDNN_DATA_FLOAT ? (int64_t)sizeof(float) : ALIGN;
    create(b, CUDNN_BACKEND_TENSOR_DESCRIPTOR, out, what);
    set(b, *out, CUDNN_ATTR_TENSOR_UNIQUE_ID, CUDNN_TYPE_INT64, 1, &id, what);
    set(b, *out, CUDNN_ATTR_TENSOR_DATA_TYPE, CUDNN_TYPE_DATA_TYPE, 1, &type, what);
    set(b, *out, CUDNN_ATTR_TENSOR_DIMENSIONS, CUDNN_TYPE_INT64, 4, dim, what);
    set(b, *out, CUDNN_ATTR_TENSOR_STRIDES, CUDNN_TYPE_INT64, 4, stride, what);
    set(b, *out, CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT, CUDNN_TYPE_INT64, 1, &align, what);
    if (by_value) set(b, *out, CUDNN_ATTR_TENSOR_IS_BY_VALUE, CUDNN_TYPE_BOOLEAN, 1, &by_value, what);
    finalize(b, *out, what);
}

static void make_tensors(builder *b, plan *p)
{
    const shape *s = &p->key;
    cudnnDataType_t type = s->type == DT_BF16 ? CUDNN_DATA_BFLOAT16 : CUDNN_DATA_HALF;
    const int64_t queries[4] = { s->B, s->H, s->Tq, s->D }, keys[4] = { s->B, s->G, s->Tk, s->D };
    const int64_t one[4] = { 1, 1, 1, 1 }, rows[4] = { s->B, s->H, s->Tq, 1 };
    const int64_t row_strides[4] = { s->lse[0], s->lse[1], 1, 1 };
#define STRIDES(x) ((const int64_t[4]){ s->x[0], s->x[1], s->x[2], 1 })
    make_tensor(b, &p->part[PART_Q], ID_Q, type, queries, STRIDES(q), false, "q");
    make_tensor(b, &p->part[PART_K], ID_K, type, keys, STRIDES(k), false, "k");
    make_tensor(b, &p->part[PART_V], ID_V, type, keys, STRIDES(v), false, "v");
    make_tensor(b, &p->part[PART_O], ID_O, type, queries, STRIDES(y), false, "y");
#undef STRIDES
    if (s->stats) make_tensor(b, &p->part[PART_STATS], ID_STATS, CUDNN_DATA_FLOAT, rows, row_strides, false, "lse");
    make_tensor(b, &p->part[PART_SCALE], ID_SCALE, CUDNN_DATA_FLOAT, one, one, true, "the scale");
}

static void make_graph(builder *b, plan *p)
{
    static const struct {
        enum part part;
        cudnnBackendAttributeName_t name;
    } row[] = { { PART_Q, CUDNN_ATTR_OPERATION_SDPA_FWD_QDESC },
                { PART_K, CUDNN_ATTR_OPERATION_SDPA_FWD_KDESC },
                { PART_V, CUDNN_ATTR_OPERATION_SDPA_FWD_VDESC },
                { PART_O, CUDNN_ATTR_OPERATION_SDPA_FWD_ODESC },
                { PART_STATS, CUDNN_ATTR_OPERATION_SDPA_FWD_STATSDESC },
                { PART_SCALE, CUDNN_ATTR_OPERATION_SDPA_FWD_SCALEDESC } };
    descriptor *op = &p->part[PART_OP], *graph = &p->part[PART_GRAPH];
    make_tensors(b, p);
    create(b, CUDNN_BACKEND_OPERATION_SDPA_FWD_DESCRIPTOR, op, "the operation");
    for (size_t i = 0; i < LENGTH(row); i++)
        if (p->part[row[i].part]) set_part(b, *op, row[i].name, p->part[row[i].part], "an operand");
    finalize(b, *op, "the operation");
    create(b, CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR, graph, "the graph");
    set_part(b, *graph, CUDNN_ATTR_OPERATIONGRAPH_OPS, *op, "the graph");
}

/* The first of the configurations that the library's own judgement names and that this GPU can run. */
static void choose(builder *b, const cudnn *l, plan *p)
{
    cudnnBackendHeurMode_t mode = CUDNN_HEUR_MODE_A;
    int64_t n = 0, one = 0;
    descriptor heur = NULL;
    create(b, CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR, &p->part[PART_HEUR], "the choice");
    heur = p->part[PART_HEUR];
    set_part(b, heur, CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH, p->part[PART_GRAPH], "the choice");
    set(b, heur, CUDNN_ATTR_ENGINEHEUR_MODE, CUDNN_TYPE_HEUR_MODE, 1, &mode, "the choice");
    finalize(b, heur, "the choice");
    for (int i = 0; i < MOST_CONFIGS; i++)
        create(b, CUDNN_BACKEND_ENGINECFG_DESCRIPTOR, &p->config[i], "the choice");
    if (b->status == CUDNN_STATUS_SUCCESS)
        note(b,
             l->f.cudnnBackendGetAttribute(heur, CUDNN_ATTR_ENGINEHEUR_RESULTS, CUDNN_TYPE_BACKEND_DESCRIPTOR,
                                           MOST_CONFIGS, &n, p->config),
             "the choice");
    for (int64_t i = 0; i < n && i < MOST_CONFIGS && b->status == CUDNN_STATUS_SUCCESS && !p->execution; i++) {
        builder trial = { .f = b->f };
        descriptor e = NULL;
        create(&trial, CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR, &e, "the plan");
        set(&trial, e, CUDNN_ATTR_EXECUTION_PLAN_HANDLE, CUDNN_TYPE_HANDLE, 1, &l->handle, "the plan");
        set_part(&trial, e, CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG, p->config[i], "the plan");
        finalize(&trial, e, "the plan");
        if (trial.status == CUDNN_STATUS_SUCCESS)
            note(&trial,
                 l->f.cudnnBackendGetAttribute(e, CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE, CUDNN_TYPE_INT64, 1,
                                               &one, &p->workspace),
                 "the workspace");
        if (trial.status == CUDNN_STATUS_SUCCESS)
            p->execution = e;
        else if (e)
            l->f.cudnnBackendDestroyDescriptor(e);
    }
}

/* ---- plans ---------------------------------------------------------------------------------------------------------- */

static plan *find(cudnn *l, const shape *key)
{
    plan *oldest = l->plans;
    for (plan *p = l->plans; p < l->plans + MOST_PLANS; p++) {
        if (p->last && memcmp(&p->key, key, sizeof *key) == 0) return p;
        if (p->last < oldest->last) oldest = p;
    }
    forget(&l->f, oldest);
    oldest->key = *key;
    return oldest;
}

static bool means_unsupported(cudnnStatus_t s)
{
    return s >= CUDNN_STATUS_NOT_SUPPORTED && s < CUDNN_STATUS_INTERNAL_ERROR;
}

/* NULL: the stream has failed. */
static plan *plan_of(dev *d, cudnn *l, const shape *key)
{
    plan *p = find(l, key);
    bool known = p->last > 0;
    p->last = ++l->clock;
    if (known) return p;
    builder b = { .f = &l->f };
    make_graph(&b, p);
    set(&b, p->part[PART_GRAPH], CUDNN_ATTR_OPERATIONGRAPH_HANDLE, CUDNN_TYPE_HANDLE, 1, &l->handle, "the graph");
    finalize(&b, p->part[PART_GRAPH], "the graph");
    choose(&b, l, p);
    if (b.status == CUDNN_STATUS_SUCCESS || means_unsupported(b.status)) {
        p->refused = !p->execution;
        return p;
    }
    dev_fail(d, SCA_ERR_DEVICE, "device " KIND ": attention=cudnn: %s of (%lld,%lld,%lld,%lld): %s", b.at,
             (long long)key->B, (long long)key->H, (long long)key->Tq, (long long)key->D,
             l->f.cudnnGetErrorString(b.status));
    forget(&l->f, p);
    return NULL;
}

/* ---- the op ----------------------------------------------------------------------------------------------------------- */

/* Rows of (B,T,H,D) as (batch, head, row); false: not aligned. An axis of one may have any stride: here it has none. */
static bool put_side(tensor t, int64_t to[3])
{
    int64_t unit = ALIGN / (int64_t)dtype_bytes(t.type);
    to[0] = t.stride[0], to[1] = t.stride[2], to[2] = t.stride[1];
    if (t.dim[1] == 1) to[2] = t.dim[3];
    if (t.dim[2] == 1) to[1] = to[2] * t.dim[1];
    if (t.dim[0] == 1) to[0] = to[1] * t.dim[2];
    return (uintptr_t)t.data % ALIGN == 0 && to[0] % unit == 0 && to[1] % unit == 0 && to[2] % unit == 0 &&
           to[0] > 0 && to[1] > 0 && to[2] > 0;
}

static bool shape_of(shape *s, tensor y, tensor lse, tensor q, tensor k, tensor v)
{
    memset(s, 0, sizeof *s);
    s->B = q.dim[0], s->Tq = q.dim[1], s->H = q.dim[2], s->D = q.dim[3];
    s->Tk = k.dim[1], s->G = k.dim[2];
    s->type = q.type;
    s->stats = tensor_given(lse);
    if (s->stats) s->lse[0] = lse.stride[0], s->lse[1] = lse.stride[1];
    return q.type != DT_F32 && put_side(q, s->q) && put_side(k, s->k) && put_side(v, s->v) && put_side(y, s->y);
}

static void execute(dev *d, const cudnn *l, const plan *p, void *const pointer[6])
{
    static const int64_t id[6] = { ID_Q, ID_K, ID_V, ID_O, ID_SCALE, ID_STATS };
    int64_t n = p->key.stats ? 6 : 5;
    void *workspace = p->workspace > 0 ? cuda_scratch(d, (size_t)p->workspace, "cuDNN's workspace") : NULL;
    if (d->status != SCA_OK) return;
    builder b = { .f = &l->f };
    descriptor pack = NULL;
    create(&b, CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR, &pack, "the operands");
    set(&b, pack, CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS, CUDNN_TYPE_INT64, n, id, "the operands");
    set(&b, pack, CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS, CUDNN_TYPE_VOID_PTR, n, pointer, "the operands");
    set(&b, pack, CUDNN_ATTR_VARIANT_PACK_WORKSPACE, CUDNN_TYPE_VOID_PTR, 1, &workspace, "the operands");
    finalize(&b, pack, "the operands");
    if (b.status == CUDNN_STATUS_SUCCESS)
        note(&b, l->f.cudnnBackendExecute(l->handle, p->execution, pack), "cudnnBackendExecute");
    if (pack) l->f.cudnnBackendDestroyDescriptor(pack);
    if (b.status != CUDNN_STATUS_SUCCESS)
        dev_fail(d, SCA_ERR_DEVICE, "device " KIND ": attention=cudnn: %s: %s", b.at,
                 l->f.cudnnGetErrorString(b.status));
}

bool cuda_cudnn_attention(dev *d, tensor y, tensor lse, tensor q, tensor k, tensor v, tensor index,
                          attention_options o)
{
    cudnn *l = cuda_of(d)->cudnn;
    shape key;
    if (!l || o.causal || o.drop.rate > 0 || tensor_given(index) || !shape_of(&key, y, lse, q, k, v)) return false;
    const plan *p = plan_of(d, l, &key);
    if (!p || p->refused) return !p;
    execute(d, l, p, (void *const[6]){ q.data, k.data, v.data, y.data, &o.scale, lse.data });
    return true;
}

sca_status cuda_cudnn_engines(const char *file, tensor y, tensor lse, tensor q, tensor k, tensor v,
                              int64_t *engines)
{
    table f;
    plan p = { 0 };
    int64_t n = 0;
    *engines = 0;
    TRY(load(&f, file));
    if (!shape_of(&p.key, y, lse, q, k, v))
        return status_fail(SCA_ERR_ARGUMENT, "attention=cudnn does not take these operands");
    builder b = { .f = &f };
    make_graph(&b, &p);
    finalize(&b, p.part[PART_GRAPH], "the graph");
    if (b.status == CUDNN_STATUS_SUCCESS)
        note(&b,
             f.cudnnBackendGetAttribute(p.part[PART_GRAPH], CUDNN_ATTR_OPERATIONGRAPH_ENGINE_GLOBAL_COUNT,
                                        CUDNN_TYPE_INT64, 1, &n, engines),
             "the number of engines");
    forget(&f, &p);
    if (b.status == CUDNN_STATUS_SUCCESS) return SCA_OK;
    return status_fail(SCA_ERR_DEVICE, "attention=cudnn: %s: %s", b.at, f.cudnnGetErrorString(b.status));
}

void cuda_cudnn_state(char *text, size_t bytes)
{
#ifdef SIMT
    snprintf(text, bytes, "a stand-in for the host, named with cudnn=FILE");
#else
    table f;
    if (load(&f, NULL) != SCA_OK) {
        snprintf(text, bytes, "library not found, looked for %s, %s", files[0], files[1]);
        return;
    }
    size_t v = f.cudnnGetVersion();
    snprintf(text, bytes, "cuDNN %zu.%zu.%zu", v / 10000, v / 100 % 100, v % 100);
#endif
}

#else /* ---- built without its header ---------------------------------------------------------------------------- */

static const char absent[] = "cudnn.h of cuDNN 9.13.1 or later was not found";

sca_status cuda_cudnn_open(cuda *c, const char *file)
{
    (void)c;
    (void)file;
    return status_fail(SCA_ERR_UNSUPPORTED,
                       "device " KIND
                       ": attention=cudnn is not built in: %s; install libcudnn9-dev and build again, "
                       "or leave it out",
                       absent);
}
void cuda_cudnn_close(cuda *c) { (void)c; }
bool cuda_cudnn_attention(dev *d, tensor y, tensor lse, tensor q, tensor k, tensor v, tensor index,
                          attention_options o)
{
    (void)d, (void)y, (void)lse, (void)q, (void)k, (void)v, (void)index, (void)o;
    return false;
}
sca_status cuda_cudnn_engines(const char *file, tensor y, tensor lse, tensor q, tensor k, tensor v,
                              int64_t *engines)
{
    (void)file, (void)y, (void)lse, (void)q, (void)k, (void)v;
    *engines = 0;
    return status_fail(SCA_ERR_UNSUPPORTED, "attention=cudnn is not built in: %s", absent);
}
void cuda_cudnn_state(char *text, size_t bytes) { snprintf(text, bytes, "not built: %s", absent); }
#endif
