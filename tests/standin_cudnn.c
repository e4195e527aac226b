/* standin_cudnn.c - the part of cuDNN's graphs that cuda/cudnn.c uses, on the host: a library for the device simt. Strict:
 * every attribute has its type and count, nothing changes once it is finalised, ids are given once, shapes and strides
 * agree; scores and sums are F32. */
#include "core/core.h"

#include <cudnn.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))

/* What was done, for tests that look the library up a second time. `version`, `prerequisite`: what it pretends. */
typedef struct standin_counts {
    int64_t attentions, plans, objects; /* objects: alive */
    size_t version;
    bool prerequisite_missing;
} standin_counts;
EXPORT standin_counts standin = { .version = CUDNN_VERSION };

enum { WORKSPACE = 512 };

typedef struct object {
    cudnnBackendDescriptorType_t type;
    bool final, by_value;
    int64_t id, align, data_type, dim[4], stride[4];
    struct object
        *part[6]; /* op: q k v o stats scale; graph: op; heuristics: graph; plan: configuration; that: graph */
    int64_t mode, n;
    int64_t ids[8];
    void *pointers[8], *workspace;
} object;

EXPORT size_t cudnnGetVersion(void) { return standin.version; }
EXPORT const char *cudnnGetErrorString(cudnnStatus_t s)
{
    return s == CUDNN_STATUS_SUCCESS ? "CUDNN_STATUS_SUCCESS"
           : s < 3000                ? "CUDNN_STATUS_BAD_PARAM"
                                     : "CUDNN_STATUS_NOT_SUPPORTED";
}
EXPORT cudnnStatus_t cudnnCreate(cudnnHandle_t *h)
{
    *h = calloc(1, 1);
    standin.objects++;
    return CUDNN_STATUS_SUCCESS;
}
EXPORT cudnnStatus_t cudnnDestroy(cudnnHandle_t h)
{
    free(h);
    standin.objects--;
    return CUDNN_STATUS_SUCCESS;
}
EXPORT cudnnStatus_t cudnnSetStream(cudnnHandle_t h, cudaStream_t stream)
{
    (void)stream;
    return h ? CUDNN_STATUS_SUCCESS : CUDNN_STATUS_BAD_PARAM;
}

EXPORT cudnnStatus_t cudnnBackendCreateDescriptor(cudnnBackendDescriptorType_t type, cudnnBackendDescriptor_t *out)
{
    object *o = calloc(1, sizeof *o);
    if (!o) return CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED;
    o->type = type;
    *out = o;
    standin.objects++;
    return CUDNN_STATUS_SUCCESS;
}
EXPORT cudnnStatus_t cudnnBackendDestroyDescriptor(cudnnBackendDescriptor_t d)
{
    free(d);
    standin.objects--;
    return CUDNN_STATUS_SUCCESS;
}

/* ---- attributes ------------------------------------------------------------------------------------------------------ */

/* Where the value of an attribute goes, and of what type and count it must be; NULL: not an attribute of the object. */
static void *place_of(object *o, cudnnBackendAttributeName_t name, cudnnBackendAttributeType_t *type, int64_t *n)
{
    *n = 1;
    *type = CUDNN_TYPE_INT64;
    switch (o->type) {
    case CUDNN_BACKEND_TENSOR_DESCRIPTOR:
        if (name == CUDNN_ATTR_TENSOR_UNIQUE_ID) return &o->id;
        if (name == CUDNN_ATTR_TENSOR_BYTE_ALIGNMENT) return &o->align;
        if (name == CUDNN_ATTR_TENSOR_DIMENSIONS) return *n = 4, o->dim;
        if (name == CUDNN_ATTR_TENSOR_STRIDES) return *n = 4, o->stride;
        if (name == CUDNN_ATTR_TENSOR_DATA_TYPE) return *type = CUDNN_TYPE_DATA_TYPE, &o->data_type;
        if (name == CUDNN_ATTR_TENSOR_IS_BY_VALUE) return *type = CUDNN_TYPE_BOOLEAN, &o->by_value;
        return NULL;
    case CUDNN_BACKEND_OPERATION_SDPA_FWD_DESCRIPTOR:
        *type = CUDNN_TYPE_BACKEND_DESCRIPTOR;
        if (name < CUDNN_ATTR_OPERATION_SDPA_FWD_QDESC || name > CUDNN_ATTR_OPERATION_SDPA_FWD_SCALEDESC)
            return NULL;
        return &o->part[name - CUDNN_ATTR_OPERATION_SDPA_FWD_QDESC];
    case CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR:
        if (name == CUDNN_ATTR_OPERATIONGRAPH_HANDLE) return *type = CUDNN_TYPE_HANDLE, &o->workspace;
        if (name == CUDNN_ATTR_OPERATIONGRAPH_OPS) return *type = CUDNN_TYPE_BACKEND_DESCRIPTOR, &o->part[0];
        return NULL;
    case CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR:
        if (name == CUDNN_ATTR_ENGINEHEUR_OPERATION_GRAPH)
            return *type = CUDNN_TYPE_BACKEND_DESCRIPTOR, &o->part[0];
        if (name == CUDNN_ATTR_ENGINEHEUR_MODE) return *type = CUDNN_TYPE_HEUR_MODE, &o->mode;
        return NULL;
    case CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR:
        if (name == CUDNN_ATTR_EXECUTION_PLAN_HANDLE) return *type = CUDNN_TYPE_HANDLE, &o->workspace;
        if (name == CUDNN_ATTR_EXECUTION_PLAN_ENGINE_CONFIG)
            return *type = CUDNN_TYPE_BACKEND_DESCRIPTOR, &o->part[0];
        return NULL;
    case CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR:
        *n = -1; /* several */
        if (name == CUDNN_ATTR_VARIANT_PACK_UNIQUE_IDS) return o->ids;
        *type = CUDNN_TYPE_VOID_PTR;
        if (name == CUDNN_ATTR_VARIANT_PACK_DATA_POINTERS) return o->pointers;
        *n = 1;
        return name == CUDNN_ATTR_VARIANT_PACK_WORKSPACE ? &o->workspace : NULL;
    default: return NULL;
    }
}

static size_t bytes_of(cudnnBackendAttributeType_t type)
{
    return type == CUDNN_TYPE_BOOLEAN                                     ? sizeof(bool)
           : type == CUDNN_TYPE_DATA_TYPE || type == CUDNN_TYPE_HEUR_MODE ? sizeof(int)
                                                                          : sizeof(int64_t);
}

EXPORT cudnnStatus_t cudnnBackendSetAttribute(cudnnBackendDescriptor_t d, cudnnBackendAttributeName_t name,
                                              cudnnBackendAttributeType_t type, int64_t n, const void *values)
{
    object *o = d;
    cudnnBackendAttributeType_t wanted;
    int64_t count;
    void *to = o ? place_of(o, name, &wanted, &count) : NULL;
    if (!to || o->final || !values) return CUDNN_STATUS_BAD_PARAM;
    if (type != wanted) return CUDNN_STATUS_BAD_PARAM_ATTRIBUTE_TYPE;
    if (count > 0 ? n != count : n < 1 || n > 8) return CUDNN_STATUS_BAD_PARAM_OUT_OF_BOUND;
    memcpy(to, values, (size_t)n * bytes_of(type));
    if (count < 0) {
        if (o->n && o->n != n) return CUDNN_STATUS_BAD_PARAM_SHAPE_MISMATCH;
        o->n = n;
    }
    if (type != CUDNN_TYPE_BACKEND_DESCRIPTOR) return CUDNN_STATUS_SUCCESS;
    const object *part = *(object *const *)to;
    return part && part->final ? CUDNN_STATUS_SUCCESS : CUDNN_STATUS_BAD_PARAM_NOT_FINALIZED;
}

/* ---- what must hold ---------------------------------------------------------------------------------------------------- */

static bool good_tensor(const object *t)
{
    if (t->id == 0 || t->align < 1 || (t->align & (t->align - 1))) return false;
    for (int i = 0; i < 4; i++)
        if (t->dim[i] < 1 || t->stride[i] < 1) return false;
    return t->stride[3] == 1;
}

static bool has_shape(const object *t, int64_t a, int64_t b, int64_t c, int64_t d)
{
    return t->dim[0] == a && t->dim[1] == b && t->dim[2] == c && t->dim[3] == d;
}

static cudnnStatus_t check_op(const object *op)
{
    const object *const *t = (const object *const *)op->part;
    if (!t[0] || !t[1] || !t[2] || !t[3] || !t[5]) return CUDNN_STATUS_BAD_PARAM_NULL_POINTER;
    int64_t B = t[0]->dim[0], H = t[0]->dim[1], T = t[0]->dim[2], D = t[0]->dim[3], G = t[1]->dim[1],
            S = t[1]->dim[2];
    for (int i = 0; i < 6; i++)
        for (int j = i + 1; j < 6; j++)
            if (t[i] && t[j] && t[i]->id == t[j]->id) return CUDNN_STATUS_BAD_PARAM_DUPLICATED_ENTRIES;
    if (!has_shape(t[1], B, G, S, D) || !has_shape(t[2], B, G, S, D) || !has_shape(t[3], B, H, T, D) || H % G ||
        (t[4] && !has_shape(t[4], B, H, T, 1)) || !has_shape(t[5], 1, 1, 1, 1))
        return CUDNN_STATUS_BAD_PARAM_SHAPE_MISMATCH;
    for (int i = 0; i < 4; i++) {
        if (t[i]->data_type != CUDNN_DATA_HALF && t[i]->data_type != CUDNN_DATA_BFLOAT16)
            return CUDNN_STATUS_NOT_SUPPORTED_DATA_TYPE;
        for (int k = 0; k < 3; k++)
            if (t[i]->stride[k] % 8) return CUDNN_STATUS_NOT_SUPPORTED_LAYOUT;
        if (t[i]->data_type != t[0]->data_type || t[i]->align < 16 || t[i]->by_value) return CUDNN_STATUS_BAD_PARAM;
    }
    if ((t[4] && t[4]->data_type != CUDNN_DATA_FLOAT) || t[5]->data_type != CUDNN_DATA_FLOAT || !t[5]->by_value)
        return CUDNN_STATUS_BAD_PARAM;
    return D % 8 || D > 256 ? CUDNN_STATUS_NOT_SUPPORTED_SHAPE : CUDNN_STATUS_SUCCESS;
}

EXPORT cudnnStatus_t cudnnBackendFinalize(cudnnBackendDescriptor_t d)
{
    object *o = d;
    cudnnStatus_t s = CUDNN_STATUS_SUCCESS;
    if (!o || o->final) return CUDNN_STATUS_BAD_PARAM;
    switch (o->type) {
    case CUDNN_BACKEND_TENSOR_DESCRIPTOR: s = good_tensor(o) ? s : CUDNN_STATUS_BAD_PARAM; break;
    case CUDNN_BACKEND_OPERATION_SDPA_FWD_DESCRIPTOR: s = check_op(o); break;
    case CUDNN_BACKEND_ENGINEHEUR_DESCRIPTOR:
    case CUDNN_BACKEND_OPERATIONGRAPH_DESCRIPTOR: s = o->part[0] ? s : CUDNN_STATUS_BAD_PARAM_NULL_POINTER; break;
    case CUDNN_BACKEND_EXECUTION_PLAN_DESCRIPTOR:
        if (!o->part[0] || !o->workspace) return CUDNN_STATUS_BAD_PARAM_NULL_POINTER;
        if (standin.prerequisite_missing) return CUDNN_STATUS_NOT_SUPPORTED_RUNTIME_PREREQUISITE_MISSING;
        standin.plans++;
        break;
    case CUDNN_BACKEND_VARIANT_PACK_DESCRIPTOR: s = o->n > 0 ? s : CUDNN_STATUS_BAD_PARAM; break;
    default: s = CUDNN_STATUS_BAD_PARAM;
    }
    o->final = s == CUDNN_STATUS_SUCCESS;
    return s;
}

EXPORT cudnnStatus_t cudnnBackendGetAttribute(cudnnBackendDescriptor_t const d, cudnnBackendAttributeName_t name,
                                              cudnnBackendAttributeType_t type, int64_t wanted, int64_t *n,
                                              void *values)
{
    object *o = d;
    if (!o || !o->final || wanted < 1) return CUDNN_STATUS_BAD_PARAM;
    if (name == CUDNN_ATTR_ENGINEHEUR_RESULTS && type == CUDNN_TYPE_BACKEND_DESCRIPTOR) {
        object *chosen = *(object **)values;
        if (!chosen || chosen->type != CUDNN_BACKEND_ENGINECFG_DESCRIPTOR) return CUDNN_STATUS_BAD_PARAM;
        chosen->part[0] = o->part[0];
        chosen->final = true;
    } else if (name == CUDNN_ATTR_EXECUTION_PLAN_WORKSPACE_SIZE && type == CUDNN_TYPE_INT64)
        *(int64_t *)values = WORKSPACE;
    else if (name == CUDNN_ATTR_OPERATIONGRAPH_ENGINE_GLOBAL_COUNT && type == CUDNN_TYPE_INT64)
        *(int64_t *)values = 1;
    else
        return CUDNN_STATUS_BAD_PARAM;
    *n = 1;
    return CUDNN_STATUS_SUCCESS;
}

/* ---- the operation ---------------------------------------------------------------------------------------------------- */

static int64_t offset(const object *t, int64_t b, int64_t h, int64_t row)
{
    return b * t->stride[0] + h * t->stride[1] + row * t->stride[2];
}

static void load_row(const object *t, const void *from, int64_t at, float *to)
{
    dtype type = t->data_type == CUDNN_DATA_HALF ? DT_F16 : DT_BF16;
    dtype_convert(DT_F32, to, type, (const char *)from + 2 * at, (size_t)t->dim[3]);
}

/* One query: the softmax of its scores, and what it weighs. */
static void attend(const object *op, void *const p[6], int64_t b, int64_t h, int64_t i, float *score)
{
    const object *const *t = (const object *const *)op->part;
    int64_t D = t[0]->dim[3], S = t[1]->dim[2], g = h / (t[0]->dim[1] / t[1]->dim[1]);
    float q[256], row[256], scale, top = -INFINITY;
    double total = 0, sum[256] = { 0 };
    memcpy(&scale, p[5], sizeof scale);
    load_row(t[0], p[0], offset(t[0], b, h, i), q);
    for (int64_t j = 0; j < S; j++) {
        double dot = 0;
        load_row(t[1], p[1], offset(t[1], b, g, j), row);
        for (int64_t d = 0; d < D; d++) dot += (double)q[d] * (double)row[d];
        score[j] = scale * (float)dot;
        if (score[j] > top) top = score[j];
    }
    for (int64_t j = 0; j < S; j++) {
        double weight = exp((double)(score[j] - top));
        total += weight;
        load_row(t[2], p[2], offset(t[2], b, g, j), row);
        for (int64_t d = 0; d < D; d++) sum[d] += weight * (double)row[d];
    }
    for (int64_t d = 0; d < D; d++) row[d] = (float)(sum[d] / total);
    dtype type = t[3]->data_type == CUDNN_DATA_HALF ? DT_F16 : DT_BF16;
    dtype_convert(type, (char *)p[3] + 2 * offset(t[3], b, h, i), DT_F32, row, (size_t)D);
    if (t[4]) ((float *)p[4])[offset(t[4], b, h, i)] = (float)((double)top + log(total));
}

/* The pointer of each operand by its id; false: one is missing, doubled or not aligned. */
static bool bind(const object *op, const object *pack, void *p[6])
{
    int64_t known = 0;
    for (int i = 0; i < 6; i++) {
        p[i] = NULL;
        for (int64_t k = 0; op->part[i] && k < pack->n; k++)
            if (pack->ids[k] == op->part[i]->id) p[i] = pack->pointers[k], known++;
        if (op->part[i] && (!p[i] || (uintptr_t)p[i] % (uint64_t)op->part[i]->align)) return false;
    }
    return known == pack->n;
}

EXPORT cudnnStatus_t cudnnBackendExecute(cudnnHandle_t h, cudnnBackendDescriptor_t plan, cudnnBackendDescriptor_t d)
{
    const object *e = plan, *pack = d;
    void *p[6];
    if (!h || !e || !e->final || !pack || !pack->final || !pack->workspace) return CUDNN_STATUS_BAD_PARAM;
    const object *op = e->part[0]->part[0]->part[0]; /* configuration, graph, operation */
    if (!bind(op, pack, p)) return CUDNN_STATUS_BAD_PARAM_MISALIGNED_POINTER;
    float *score = malloc((size_t)op->part[1]->dim[2] * sizeof *score);
    if (!score) return CUDNN_STATUS_INTERNAL_ERROR_HOST_ALLOCATION_FAILED;
    memset(pack->workspace, 0xff, WORKSPACE);
    for (int64_t b = 0; b < op->part[0]->dim[0]; b++)
        for (int64_t n = 0; n < op->part[0]->dim[1]; n++)
            for (int64_t i = 0; i < op->part[0]->dim[2]; i++) attend(op, p, b, n, i, score);
    free(score);
    standin.attentions++;
    return CUDNN_STATUS_SUCCESS;
}
