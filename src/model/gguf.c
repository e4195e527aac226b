/* gguf.c - reads GGUF files (versions 2 and 3) of the LLaMA and GPT-2 families: metadata, tensors, and their names
 * and row order as Hugging Face has them. */
#include "model/gguf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct cursor {
    const uint8_t *data;
    size_t bytes, at;
    const char *path;
} cursor;

/* ---- numbers and texts ------------------------------------------------------------------------------------ */

uint64_t gguf_le64(const uint8_t *p)
{
    uint64_t v = 0;
    for (int i = 7; i >= 0; i--) v = v << 8 | p[i];
    return v;
}

static uint32_t le32(const uint8_t *p)
{
    return (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
}

static sca_status take(cursor *c, uint64_t bytes, const char *what, const uint8_t **out)
{
    if (bytes > c->bytes - c->at)
        return status_fail(SCA_ERR_FORMAT,
                           "%s: ends within %s, at byte %zu; the file is cut or damaged: fetch it again", c->path,
                           what, c->at);
    *out = c->data + c->at;
    c->at += (size_t)bytes;
    return SCA_OK;
}

static sca_status take_u32(cursor *c, const char *what, uint32_t *out)
{
    const uint8_t *p;
    TRY(take(c, 4, what, &p));
    *out = le32(p);
    return SCA_OK;
}

static sca_status take_u64(cursor *c, const char *what, uint64_t *out)
{
    const uint8_t *p;
    TRY(take(c, 8, what, &p));
    *out = gguf_le64(p);
    return SCA_OK;
}

static sca_status take_text(cursor *c, const char *what, const char **text, size_t *bytes)
{
    uint64_t n;
    const uint8_t *p;
    TRY(take_u64(c, what, &n));
    TRY(take(c, n, what, &p));
    *text = (const char *)p;
    *bytes = (size_t)n;
    return SCA_OK;
}

/* ---- metadata ----------------------------------------------------------------------------------------------- */

static size_t type_bytes(gguf_type t)
{
    switch (t) {
    case GGUF_U8:
    case GGUF_I8:
    case GGUF_BOOL: return 1;
    case GGUF_U16:
    case GGUF_I16: return 2;
    case GGUF_U32:
    case GGUF_I32:
    case GGUF_F32: return 4;
    case GGUF_U64:
    case GGUF_I64:
    case GGUF_F64: return 8;
    default: return 0; /* strings and arrays say so themselves */
    }
}

static sca_status take_type(cursor *c, const char *what, gguf_type *out)
{
    uint32_t t;
    TRY(take_u32(c, what, &t));
    if (t >= GGUF_TYPES)
        return status_fail(SCA_ERR_FORMAT, "%s: %s has type %u, expected 0 to %d", c->path, what, t,
                           GGUF_TYPES - 1);
    *out = (gguf_type)t;
    return SCA_OK;
}

static sca_status take_value(cursor *c, gguf_value *v)
{
    const uint8_t *p;
    uint64_t bytes = 0;
    TRY(take_text(c, "the name of a metadata value", &v->key, &v->key_bytes));
    TRY(take_type(c, "a metadata value", &v->type));
    v->count = 1;
    v->array = v->type == GGUF_ARRAY;
    if (v->array) {
        TRY(take_type(c, "a metadata list", &v->type));
        TRY(take_u64(c, "a metadata list", &v->count));
        if (v->type == GGUF_ARRAY)
            return status_fail(SCA_ERR_UNSUPPORTED, "%s: '%.*s' is a list of lists, which is not supported",
                               c->path, (int)(v->key_bytes < 200 ? v->key_bytes : 200), v->key);
    }
    v->data = c->data + c->at;
    if (v->type != GGUF_STRING) {
        if (__builtin_mul_overflow(v->count, type_bytes(v->type), &bytes)) bytes = UINT64_MAX;
        return take(c, bytes, "a metadata value", &p);
    }
    for (uint64_t i = 0; i < v->count; i++) {
        const char *text;
        size_t n;
        TRY(take_text(c, "a metadata text", &text, &n));
    }
    return SCA_OK;
}

static int compare_bytes(const char *a, size_t n, const char *b, size_t m)
{
    int order = memcmp(a, b, n < m ? n : m);
    return order ? order : n < m ? -1 : n > m;
}

static int compare_values(const void *a, const void *b)
{
    const gguf_value *x = a, *y = b;
    return compare_bytes(x->key, x->key_bytes, y->key, y->key_bytes);
}

static sca_status read_values(cursor *c, gguf *g, uint64_t count)
{
    size_t cap = 0;
    for (uint64_t i = 0; i < count; i++) {
        if (g->n == cap) {
            size_t bytes = (cap = cap ? 2 * cap : 64) * sizeof *g->values;
            gguf_value *more = mem_resize(g->values, bytes);
            if (!more) return mem_fail(bytes, "GGUF metadata");
            g->values = more;
        }
        TRY(take_value(c, &g->values[g->n]));
        g->n++;
    }
    if (g->n > 0) qsort(g->values, g->n, sizeof *g->values, compare_values);
    for (size_t i = 1; i < g->n; i++)
        if (compare_values(&g->values[i - 1], &g->values[i]) == 0)
            return status_fail(SCA_ERR_FORMAT, "%s: metadata value '%.*s' appears twice", c->path,
                               (int)(g->values[i].key_bytes < 200 ? g->values[i].key_bytes : 200),
                               g->values[i].key);
    return SCA_OK;
}

const gguf_value *gguf_find(const gguf *g, const char *key)
{
    size_t low = 0, high = g->n;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = compare_bytes(g->values[middle].key, g->values[middle].key_bytes, key, strlen(key));
        if (order == 0) return &g->values[middle];
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return NULL;
}

const gguf_value *gguf_find_own(const gguf *g, const char *key)
{
    char name[128];
    int bytes = snprintf(name, sizeof name, "%s.%s", g->arch, key);
    return bytes > 0 && bytes < (int)sizeof name ? gguf_find(g, name) : NULL;
}

bool gguf_int(const gguf_value *v, int64_t *out)
{
    if (!v || v->array) return false;
    size_t bytes = type_bytes(v->type);
    uint64_t bits = 0;
    switch (v->type) {
    case GGUF_U8:
    case GGUF_U16:
    case GGUF_U32:
    case GGUF_U64:
    case GGUF_I8:
    case GGUF_I16:
    case GGUF_I32:
    case GGUF_I64: break;
    default: return false;
    }
    for (size_t i = bytes; i-- > 0;) bits = bits << 8 | v->data[i];
    if (v->type == GGUF_I8) bits = (uint64_t)(int8_t)bits;
    if (v->type == GGUF_I16) bits = (uint64_t)(int16_t)bits;
    if (v->type == GGUF_I32) bits = (uint64_t)(int32_t)bits;
    if (v->type == GGUF_U64 && bits > INT64_MAX) return false;
    *out = (int64_t)bits;
    return true;
}

bool gguf_real(const gguf_value *v, double *out)
{
    int64_t integer;
    float f;
    if (v && !v->array && v->type == GGUF_F32) {
        memcpy(&f, v->data, sizeof f);
        *out = f;
        return true;
    }
    if (v && !v->array && v->type == GGUF_F64) {
        memcpy(out, v->data, sizeof *out);
        return true;
    }
    if (!gguf_int(v, &integer)) return false;
    *out = (double)integer;
    return true;
}

bool gguf_bool(const gguf_value *v, bool *out)
{
    if (!v || v->array || v->type != GGUF_BOOL) return false;
    *out = v->data[0] != 0;
    return true;
}

bool gguf_text(const gguf_value *v, const char **text, size_t *bytes)
{
    if (!v || v->array || v->type != GGUF_STRING) return false;
    *bytes = (size_t)gguf_le64(v->data);
    *text = (const char *)v->data + 8;
    return true;
}

void gguf_free(gguf *g)
{
    if (!g) return;
    mem_free(g->values);
    mem_free(g);
}

static sca_status find_arch(const weight_file *file, gguf *g)
{
    static const char *const known[] = { "llama", "gpt2" };
    const char *text;
    size_t bytes;
    int64_t parts = 1;
    if (!gguf_text(gguf_find(g, "general.architecture"), &text, &bytes))
        return status_fail(SCA_ERR_FORMAT, "%s: has no text 'general.architecture'", file->view.path);
    for (size_t i = 0; i < LENGTH(known); i++)
        if (strlen(known[i]) == bytes && memcmp(text, known[i], bytes) == 0) g->arch = known[i];
    if (!g->arch)
        return status_fail(SCA_ERR_UNSUPPORTED,
                           "%s: holds a model of the architecture '%.*s', expected llama or gpt2", file->view.path,
                           (int)(bytes < 100 ? bytes : 100), text);
    if (gguf_int(gguf_find(g, "split.count"), &parts) && parts > 1)
        return status_fail(SCA_ERR_UNSUPPORTED,
                           "%s: is one of %lld parts; join them first (llama-gguf-split --merge)", file->view.path,
                           (long long)parts);
    return SCA_OK;
}

/* ---- names ----------------------------------------------------------------------------------------------------
 */

typedef enum role { ROLE_PLAIN, ROLE_QUERY, ROLE_KEY, ROLE_CONV1D } role;

typedef struct name_rule {
    const char *from, *to; /* patterns as in names.c */
    role role;
} name_rule;

static const name_rule llama_rules[] = {
    { "token_embd.weight", "model.embed_tokens.weight", ROLE_PLAIN },
    { "output_norm.weight", "model.norm.weight", ROLE_PLAIN },
    { "output.weight", "lm_head.weight", ROLE_PLAIN },
    { "blk.#.attn_norm.weight", "model.layers.#.input_layernorm.weight", ROLE_PLAIN },
    { "blk.#.ffn_norm.weight", "model.layers.#.post_attention_layernorm.weight", ROLE_PLAIN },
    { "blk.#.attn_q.weight", "model.layers.#.self_attn.q_proj.weight", ROLE_QUERY },
    { "blk.#.attn_k.weight", "model.layers.#.self_attn.k_proj.weight", ROLE_KEY },
    { "blk.#.attn_v.weight", "model.layers.#.self_attn.v_proj.weight", ROLE_PLAIN },
    { "blk.#.attn_output.weight", "model.layers.#.self_attn.o_proj.weight", ROLE_PLAIN },
    { "blk.#.ffn_gate.weight", "model.layers.#.mlp.gate_proj.weight", ROLE_PLAIN },
    { "blk.#.ffn_up.weight", "model.layers.#.mlp.up_proj.weight", ROLE_PLAIN },
    { "blk.#.ffn_down.weight", "model.layers.#.mlp.down_proj.weight", ROLE_PLAIN },
};

static const name_rule gpt2_rules[] = {
    { "token_embd.weight", "transformer.wte.weight", ROLE_PLAIN },
    { "position_embd.weight", "transformer.wpe.weight", ROLE_PLAIN },
    { "output_norm.*", "transformer.ln_f.*", ROLE_PLAIN },
    { "output.weight", "lm_head.weight", ROLE_PLAIN },
    { "blk.#.attn_norm.*", "transformer.h.#.ln_1.*", ROLE_PLAIN },
    { "blk.#.attn_qkv.weight", "transformer.h.#.attn.c_attn.weight", ROLE_CONV1D },
    { "blk.#.attn_qkv.bias", "transformer.h.#.attn.c_attn.bias", ROLE_PLAIN },
    { "blk.#.attn_output.weight", "transformer.h.#.attn.c_proj.weight", ROLE_CONV1D },
    { "blk.#.attn_output.bias", "transformer.h.#.attn.c_proj.bias", ROLE_PLAIN },
    { "blk.#.ffn_norm.*", "transformer.h.#.ln_2.*", ROLE_PLAIN },
    { "blk.#.ffn_up.weight", "transformer.h.#.mlp.c_fc.weight", ROLE_CONV1D },
    { "blk.#.ffn_up.bias", "transformer.h.#.mlp.c_fc.bias", ROLE_PLAIN },
    { "blk.#.ffn_down.weight", "transformer.h.#.mlp.c_proj.weight", ROLE_CONV1D },
    { "blk.#.ffn_down.bias", "transformer.h.#.mlp.c_proj.bias", ROLE_PLAIN },
};

static sca_status find_rule(const gguf *g, const char *path, const char *name, str *renamed, role *out)
{
    bool llama = strcmp(g->arch, "llama") == 0;
    const name_rule *rules = llama ? llama_rules : gpt2_rules;
    size_t n = llama ? LENGTH(llama_rules) : LENGTH(gpt2_rules);
    for (size_t i = 0; i < n; i++)
        if (name_apply(rules[i].from, rules[i].to, name, renamed)) {
            *out = rules[i].role;
            return renamed->failed ? mem_fail(strlen(name), "tensor name") : SCA_OK;
        }
    return status_fail(SCA_ERR_UNSUPPORTED,
                       "%s: tensor '%.200s' is no part of a plain %s model; biases, experts and scaled rotary "
                       "positions are not supported",
                       path, name, llama ? "LLaMA" : "GPT-2");
}

/* ---- tensors ---------------------------------------------------------------------------------------------------
 */

typedef struct ggml_kind {
    uint32_t id;
    const char *name;
    element element; /* EL_OTHER: not supported */
} ggml_kind;

static const ggml_kind kinds[] = {
    { 0, "F32", EL_F32 },     { 1, "F16", EL_F16 },     { 2, "Q4_0", EL_Q4_0 },     { 3, "Q4_1", EL_Q4_1 },
    { 6, "Q5_0", EL_OTHER },  { 7, "Q5_1", EL_OTHER },  { 8, "Q8_0", EL_Q8_0 },     { 9, "Q8_1", EL_OTHER },
    { 10, "Q2_K", EL_OTHER }, { 11, "Q3_K", EL_OTHER }, { 12, "Q4_K", EL_OTHER },   { 13, "Q5_K", EL_OTHER },
    { 14, "Q6_K", EL_OTHER }, { 15, "Q8_K", EL_OTHER }, { 20, "IQ4_NL", EL_OTHER }, { 23, "IQ4_XS", EL_OTHER },
    { 28, "F64", EL_F64 },    { 30, "BF16", EL_BF16 },
};

typedef struct info { /* one tensor of the list */
    size_t slot;
    uint64_t offset, bytes;
} info;

static sca_status find_kind(const weight_slot *slot, uint32_t id, const ggml_kind **out)
{
    static const char expected[] = "expected F32, F16, BF16, Q8_0, Q4_0 or Q4_1; convert the model to one of these";
    for (size_t i = 0; i < LENGTH(kinds); i++)
        if (kinds[i].id == id && kinds[i].element != EL_OTHER) {
            *out = &kinds[i];
            return SCA_OK;
        } else if (kinds[i].id == id) {
            return slot_fail(slot, SCA_ERR_UNSUPPORTED, "is stored as %s, %s", kinds[i].name, expected);
        }
    return slot_fail(slot, SCA_ERR_UNSUPPORTED, "is stored as type %u, %s", id, expected);
}

/* The file's dimensions begin with the fastest. */
static sca_status take_shape(cursor *c, weight_slot *slot, role how)
{
    uint32_t n;
    int64_t dim[4] = { 0 };
    TRY(take_u32(c, "a tensor's shape", &n));
    if (n < 1 || n > LENGTH(dim)) return slot_fail(slot, SCA_ERR_FORMAT, "has %u dimensions, expected 1 to 4", n);
    for (uint32_t i = 0; i < n; i++) {
        uint64_t d;
        TRY(take_u64(c, "a tensor's shape", &d));
        if (d < 1 || d > INT64_MAX) return slot_fail(slot, SCA_ERR_FORMAT, "has a dimension of no size");
        dim[how == ROLE_CONV1D ? i : n - 1 - i] = (int64_t)d;
    }
    if (how != ROLE_PLAIN && n != 2)
        return slot_fail(slot, SCA_ERR_FORMAT, "has %u dimensions, expected a matrix", n);
    return slot_shape(slot, (int)n, dim);
}

static sca_status set_heads(const gguf *g, weight_slot *slot, role how)
{
    int64_t heads = 0, kv;
    if (!gguf_int(gguf_find_own(g, "attention.head_count"), &heads) || heads < 1 || heads > SIZE_MOST)
        return status_fail(SCA_ERR_FORMAT, "%s: '%s.attention.head_count' is missing or no size from 1 to %d",
                           slot->s.file->view.path, g->arch, SIZE_MOST);
    if (how == ROLE_KEY && gguf_int(gguf_find_own(g, "attention.head_count_kv"), &kv)) heads = kv;
    if (heads < 1 || slot->w.dim[0] % heads != 0 || slot->w.dim[0] / heads % 2 != 0)
        return slot_fail(slot, SCA_ERR_FORMAT, "has %lld rows, expected %lld heads of an even size",
                         (long long)slot->w.dim[0], (long long)heads);
    slot->s.heads = heads;
    return SCA_OK;
}

static sca_status take_tensor(cursor *c, weights *w, weight_file *file, info *out)
{
    const gguf *g = file->gguf;
    const char *text;
    size_t bytes;
    uint32_t id;
    const ggml_kind *k;
    weight_slot *slot;
    role how;
    str renamed = { 0 };
    TRY(take_text(c, "a tensor's name", &text, &bytes));
    if (bytes > 256 || !utf8_valid(text, bytes))
        return status_fail(SCA_ERR_FORMAT, "%s: the name of a tensor is too long or no UTF-8", c->path);
    TRY(weights_add(w, file, text, bytes, &slot));
    sca_status status = find_rule(g, c->path, slot->name, &renamed, &how);
    if (status == SCA_OK) {
        mem_free(slot->name);
        slot->name = NULL;
        status = str_take(&renamed, &slot->name);
    }
    str_free(&renamed);
    TRY(status);
    TRY(take_shape(c, slot, how));
    TRY(take_u32(c, "a tensor's type", &id));
    TRY(take_u64(c, "a tensor's place", &out->offset));
    TRY(find_kind(slot, id, &k));
    if (element_bytes(k->element) == 0 && slot->w.dim[how == ROLE_CONV1D ? 0 : slot->w.ndim - 1] % QUANT_BLOCK != 0)
        return slot_fail(slot, SCA_ERR_FORMAT, "is stored as %s with rows that are no multiple of %d elements",
                         k->name, QUANT_BLOCK);
    if (how == ROLE_QUERY || how == ROLE_KEY) TRY(set_heads(g, slot, how));
    out->slot = w->n - 1;
    out->bytes = element_span(k->element, (size_t)slot->w.count);
    slot_place(slot, k->element, k->name,
               how == ROLE_PLAIN    ? ORDER_ROWS
               : how == ROLE_CONV1D ? ORDER_TRANSPOSED
                                    : ORDER_ROTARY,
               c->data, (size_t)out->bytes);
    return SCA_OK;
}

static int compare_infos(const void *a, const void *b)
{
    const info *x = a, *y = b;
    if (x->offset != y->offset) return x->offset < y->offset ? -1 : 1;
    return x->slot < y->slot ? -1 : x->slot > y->slot;
}

/* Now that the end of the list is known: where the data is. */
static sca_status place_tensors(const cursor *c, weights *w, info *infos, size_t n, uint64_t alignment)
{
    uint64_t start = (c->at + alignment - 1) / alignment * alignment, end = 0;
    uint64_t have = start > c->bytes ? 0 : c->bytes - start;
    qsort(infos, n, sizeof *infos, compare_infos);
    for (size_t i = 0; i < n; i++) {
        weight_slot *slot = &w->slots[infos[i].slot];
        const stored s = slot->s;
        if (infos[i].offset % alignment != 0 || infos[i].offset > have || infos[i].bytes > have - infos[i].offset)
            return slot_fail(
                slot, SCA_ERR_FORMAT,
                "lies at %llu with %llu bytes, expected a multiple of %llu within the %llu bytes of data; "
                "the file is cut or damaged",
                (unsigned long long)infos[i].offset, (unsigned long long)infos[i].bytes,
                (unsigned long long)alignment, (unsigned long long)have);
        if (infos[i].offset < end)
            return slot_fail(slot, SCA_ERR_FORMAT, "overlaps the one before; the file is damaged");
        end = infos[i].offset + infos[i].bytes;
        slot->w.data = NULL;
        slot_place(slot, s.kind, s.kind_name, s.order, c->data + start + infos[i].offset, s.span);
    }
    return SCA_OK;
}

static sca_status read_tensors(cursor *c, weights *w, weight_file *file, uint64_t count)
{
    sca_status status = SCA_OK;
    int64_t alignment = 32;
    const gguf_value *own = gguf_find(file->gguf, "general.alignment");
    if (own && (!gguf_int(own, &alignment) || alignment < 8 || alignment > 1 << 20 || alignment % 8 != 0))
        return status_fail(SCA_ERR_FORMAT, "%s: 'general.alignment' is no multiple of 8 from 8 to %d", c->path,
                           1 << 20);
    if (count > (c->bytes - c->at) / 32) /* none takes less */
        return status_fail(SCA_ERR_FORMAT, "%s: says that it has %llu tensors, more than its size allows", c->path,
                           (unsigned long long)count);
    info *infos = mem_zero((size_t)count + 1, sizeof *infos);
    if (!infos) return mem_fail((size_t)count * sizeof *infos, "tensor list");
    for (uint64_t i = 0; i < count; i++) TRY_GOTO(done, take_tensor(c, w, file, &infos[i]));
    TRY_GOTO(done, place_tensors(c, w, infos, (size_t)count, (uint64_t)alignment));
done:
    mem_free(infos);
    return status;
}

sca_status gguf_read(weights *w, weight_file *file)
{
    cursor c = { file->view.data, file->view.bytes, 4, file->view.path };
    uint32_t version;
    uint64_t tensors, values;
    TRY(take_u32(&c, "the header", &version));
    if (version != 2 && version != 3)
        return status_fail(SCA_ERR_UNSUPPORTED, "%s: is GGUF version %u%s, expected 2 or 3 in little-endian order",
                           c.path, version, version > 0xffff ? " (a big-endian file?)" : "");
    TRY(take_u64(&c, "the header", &tensors));
    TRY(take_u64(&c, "the header", &values));
    file->gguf = mem_zero(1, sizeof *file->gguf);
    if (!file->gguf) return mem_fail(sizeof *file->gguf, "GGUF metadata");
    TRY(read_values(&c, file->gguf, values));
    TRY(find_arch(file, file->gguf));
    return read_tensors(&c, w, file, tensors);
}
