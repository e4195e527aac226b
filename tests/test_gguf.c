/* test_gguf.c - GGUF files: every quantisation, names and row order, configuration, hostile input, SmolLM2. */
#include "check.h"
#include "faults.h"
#include "made.h"
#include "model/gguf.h"
#include "model/model_classes.h"

#include <math.h>

#define SMOLLM2 SCA_SOURCE "/resources/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"

/* ---- a writer ---------------------------------------------------------------------------------------- */

typedef struct made { /* a file in the making: header parts that are put together at the end */
    str values, infos, data;
    uint64_t n_values, n_tensors;
} made;

static void put_text(str *s, const char *text)
{
    put_le(s, strlen(text), 8);
    str_put(s, text);
}

static void add_text(made *m, const char *key, const char *text)
{
    put_text(&m->values, key);
    put_le(&m->values, GGUF_STRING, 4);
    put_text(&m->values, text);
    m->n_values++;
}

static void add_u32(made *m, const char *key, uint32_t value)
{
    put_text(&m->values, key);
    put_le(&m->values, GGUF_U32, 4);
    put_le(&m->values, value, 4);
    m->n_values++;
}

static void add_f32(made *m, const char *key, float value)
{
    uint32_t bits;
    memcpy(&bits, &value, 4);
    put_text(&m->values, key);
    put_le(&m->values, GGUF_F32, 4);
    put_le(&m->values, bits, 4);
    m->n_values++;
}

static void add_list(made *m, const char *key, gguf_type type, uint64_t count)
{
    put_text(&m->values, key);
    put_le(&m->values, GGUF_ARRAY, 4);
    put_le(&m->values, type, 4);
    put_le(&m->values, count, 8);
    m->n_values++;
}

/* dim: the fastest first, as in the file */
static void add_tensor(made *m, const char *name, uint32_t type, int ndim, const uint64_t *dim, const void *data,
                       size_t bytes)
{
    while (m->data.bytes % 32) str_putc(&m->data, 0);
    put_text(&m->infos, name);
    put_le(&m->infos, (uint64_t)ndim, 4);
    for (int i = 0; i < ndim; i++) put_le(&m->infos, dim[i], 8);
    put_le(&m->infos, type, 4);
    put_le(&m->infos, m->data.bytes, 8);
    str_put_bytes(&m->data, data, bytes);
    m->n_tensors++;
}

static str finish(made *m, uint32_t version)
{
    str s = { 0 };
    str_put(&s, "GGUF");
    put_le(&s, version, 4);
    put_le(&s, m->n_tensors, 8);
    put_le(&s, m->n_values, 8);
    str_put_bytes(&s, str_text(&m->values), m->values.bytes);
    str_put_bytes(&s, str_text(&m->infos), m->infos.bytes);
    while (s.bytes % 32) str_putc(&s, 0);
    str_put_bytes(&s, str_text(&m->data), m->data.bytes);
    str_free(&m->values);
    str_free(&m->infos);
    str_free(&m->data);
    return s;
}

static made start(const char *arch)
{
    made m = { 0 };
    add_text(&m, "general.architecture", arch);
    return m;
}

/* Opens the bytes of s, which are released. */
static sca_status parse(str s)
{
    weights *w;
    sca_status status = weights_parse(s.data, s.bytes, "test.gguf", &w);
    weights_close(w);
    str_free(&s);
    return status;
}

/* ---- values ------------------------------------------------------------------------------------------ */

static uint32_t next_random(uint32_t *state) { return *state = *state * 1664525u + 1013904223u; }

/* Two rows of two blocks of that kind, and the same values computed here from the definition. */
static size_t make_blocks(uint32_t type, uint8_t *blocks, float *values)
{
    uint32_t state = type + 1;
    size_t at = 0;
    for (int block = 0; block < 4; block++) {
        uint16_t d = f32_to_f16(0.01f + (float)(next_random(&state) >> 24) / 100);
        uint16_t least = f32_to_f16(-(float)(next_random(&state) >> 24) / 77);
        float scale = f16_to_f32(d), offset = f16_to_f32(least);
        memcpy(blocks + at, &d, 2), at += 2;
        if (type == 3) memcpy(blocks + at, &least, 2), at += 2;
        int n = type == 8 ? 32 : 16;
        for (int i = 0; i < n; i++) {
            uint8_t q = (uint8_t)(next_random(&state) >> 24);
            blocks[at++] = q;
            float *v = values + 32 * block + i;
            if (type == 8) {
                v[0] = (float)(int8_t)q * scale;
            } else {
                int zero = type == 2 ? 8 : 0;
                v[0] = (float)((q & 15) - zero) * scale + (type == 3 ? offset : 0);
                v[16] = (float)((q >> 4) - zero) * scale + (type == 3 ? offset : 0);
            }
        }
    }
    return at;
}

static void quantised(void)
{
    static const uint32_t types[] = { 8, 2, 3 };
    for (size_t i = 0; i < LENGTH(types); i++) {
        uint8_t blocks[256];
        float expected[128], got[128];
        uint16_t half[128];
        made m = start("llama");
        size_t bytes = make_blocks(types[i], blocks, expected);
        add_tensor(&m, "blk.0.ffn_up.weight", types[i], 2, (const uint64_t[]){ 64, 2 }, blocks, bytes);
        str s = finish(&m, 3);
        weights *w;
        CHECK_OK(weights_parse(s.data, s.bytes, "test.gguf", &w));
        const weight *t = weights_find(w, "model.layers.0.mlp.up_proj.weight");
        CHECK(t && t->dim[0] == 2 && t->dim[1] == 64 && t->type == DT_NONE && t->numeric && !t->data);
        CHECK_OK(weight_read(t, DT_F32, got));
        CHECKF(memcmp(got, expected, sizeof got) == 0, "type %u: %g, expected %g", types[i], got[17], expected[17]);
        CHECK_OK(weight_read(t, DT_F16, half));
        CHECK(half[99] == f32_to_f16(expected[99]));
        weights_close(w);
        str_free(&s);
    }
}

static void plain(void)
{
    static const float f32[] = { 1.5f, -2, 3, 4 };
    static const double f64[] = { 0.1 };
    uint16_t f16[2] = { f32_to_f16(0.5f), f32_to_f16(-7) }, bf16[2] = { f32_to_bf16(3), f32_to_bf16(-1) };
    made m = start("llama");
    weights *w;
    float v[4];
    double d;
    add_tensor(&m, "output_norm.weight", 0, 1, (const uint64_t[]){ 4 }, f32, sizeof f32);
    add_tensor(&m, "blk.10.attn_norm.weight", 1, 1, (const uint64_t[]){ 2 }, f16, sizeof f16);
    add_tensor(&m, "blk.10.ffn_norm.weight", 30, 1, (const uint64_t[]){ 2 }, bf16, sizeof bf16);
    add_tensor(&m, "blk.11.ffn_norm.weight", 28, 1, (const uint64_t[]){ 1 }, f64, sizeof f64);
    str s = finish(&m, 2);
    CHECK_OK(weights_parse(s.data, s.bytes, "test.gguf", &w));
    CHECK_OK(weights_as_lm(w));
    CHECK_OK(weight_read(weights_find(w, "language_model.model.norm.weight"), DT_F32, v));
    CHECK(memcmp(v, f32, sizeof f32) == 0);
    CHECK_OK(weight_read(weights_find(w, "language_model.model.layers.10.input_layernorm.weight"), DT_F32, v));
    CHECK(v[0] == 0.5f && v[1] == -7);
    CHECK_OK(
        weight_read(weights_find(w, "language_model.model.layers.10.post_attention_layernorm.weight"), DT_F32, v));
    CHECK(v[0] == 3 && v[1] == -1);
    CHECK_OK(
        weight_read(weights_find(w, "language_model.model.layers.11.post_attention_layernorm.weight"), DT_F64, &d));
    CHECK(d == 0.1);
    weights_close(w);
    str_free(&s);
}

/* Two heads of four rows: the file has them as (half, 2) pairs. */
static void rotary(void)
{
    float rows[8][2], got[8][2];
    made m = start("llama");
    weights *w;
    for (int head = 0; head < 2; head++)
        for (int half = 0; half < 2; half++)
            for (int i = 0; i < 2; i++) { /* Hugging Face's row h*4 + half*2 + i is the file's h*4 + i*2 + half */
                int official = head * 4 + half * 2 + i;
                rows[head * 4 + i * 2 + half][0] = (float)official;
                rows[head * 4 + i * 2 + half][1] = (float)-official;
            }
    add_u32(&m, "llama.attention.head_count", 2);
    add_u32(&m, "llama.attention.head_count_kv", 1);
    add_tensor(&m, "blk.0.attn_q.weight", 0, 2, (const uint64_t[]){ 2, 8 }, rows, sizeof rows);
    add_tensor(&m, "blk.0.attn_k.weight", 0, 2, (const uint64_t[]){ 2, 4 }, rows, sizeof rows / 2);
    add_tensor(&m, "blk.0.attn_v.weight", 0, 2, (const uint64_t[]){ 2, 4 }, rows, sizeof rows / 2);
    str s = finish(&m, 3);
    CHECK_OK(weights_parse(s.data, s.bytes, "test.gguf", &w));
    CHECK_OK(weight_read(weights_find(w, "model.layers.0.self_attn.q_proj.weight"), DT_F32, got));
    for (int i = 0; i < 8; i++)
        CHECKF(got[i][0] == (float)i && got[i][1] == (float)-i, "row %d is %g", i, got[i][0]);
    CHECK_OK(weight_read(weights_find(w, "model.layers.0.self_attn.k_proj.weight"), DT_F32, got));
    for (int i = 0; i < 4; i++) CHECKF(got[i][0] == (float)i, "row %d is %g", i, got[i][0]);
    CHECK_OK(weight_read(weights_find(w, "model.layers.0.self_attn.v_proj.weight"), DT_F32, got));
    CHECK(memcmp(got, rows, sizeof rows / 2) == 0);
    weights_close(w);
    str_free(&s);
}

/* GPT-2: the converter transposes what Hugging Face keeps as (in, out). */
static void conv1d(void)
{
    static const float file[3][2] = { { 0, 1 }, { 2, 3 }, { 4, 5 } }; /* (out 3, in 2) */
    uint8_t blocks[256];
    float expected[128], got[128];
    made m = start("gpt2");
    weights *w;
    size_t bytes = make_blocks(8, blocks, expected);
    add_tensor(&m, "blk.0.attn_qkv.weight", 0, 2, (const uint64_t[]){ 2, 3 }, file, sizeof file);
    add_tensor(&m, "blk.0.attn_qkv.bias", 0, 1, (const uint64_t[]){ 3 }, file, 12);
    add_tensor(&m, "blk.0.ffn_down.weight", 8, 2, (const uint64_t[]){ 64, 2 }, blocks, bytes);
    add_tensor(&m, "position_embd.weight", 0, 2, (const uint64_t[]){ 2, 3 }, file, sizeof file);
    str s = finish(&m, 3);
    CHECK_OK(weights_parse(s.data, s.bytes, "test.gguf", &w));
    const weight *t = weights_find(w, "transformer.h.0.attn.c_attn.weight");
    CHECK(t && t->dim[0] == 2 && t->dim[1] == 3);
    CHECK_OK(weight_read(t, DT_F32, got));
    CHECK(got[0] == 0 && got[1] == 2 && got[2] == 4 && got[3] == 1 && got[5] == 5);
    t = weights_find(w, "transformer.h.0.mlp.c_proj.weight");
    CHECK(t && t->dim[0] == 64 && t->dim[1] == 2);
    CHECK_OK(weight_read(t, DT_F32, got));
    for (int i = 0; i < 64; i++) CHECK(got[2 * i] == expected[i] && got[2 * i + 1] == expected[64 + i]);
    t = weights_find(w, "transformer.wpe.weight");
    CHECK(t && t->dim[0] == 3 && t->dim[1] == 2 && t->data);
    CHECK(weights_find(w, "transformer.h.0.attn.c_attn.bias") != NULL);
    weights_close(w);
    str_free(&s);
}

/* ---- configuration and tokenizer --------------------------------------------------------------------- */

static void add_llama_sizes(made *m)
{
    static const float embedding[8 * 16];
    add_u32(m, "llama.embedding_length", 8);
    add_u32(m, "llama.block_count", 2);
    add_u32(m, "llama.attention.head_count", 2);
    add_u32(m, "llama.context_length", 32);
    add_u32(m, "llama.feed_forward_length", 24);
    add_f32(m, "llama.attention.layer_norm_rms_epsilon", 1e-5f);
    add_u32(m, "tokenizer.ggml.bos_token_id", 1);
    add_u32(m, "tokenizer.ggml.eos_token_id", 2);
    add_tensor(m, "token_embd.weight", 0, 2, (const uint64_t[]){ 8, 16 }, embedding, sizeof embedding);
}

/* weights_lm_config of the file, which is released, and what it means. */
static sca_status configure(str s, lm_config *out)
{
    weights *w;
    json_t *json = NULL;
    sca_status status = weights_parse(s.data, s.bytes, "test.gguf", &w);
    if (status == SCA_OK) status = weights_lm_config(w, &json);
    if (status == SCA_OK) status = lm_config_parse(json, "test.gguf", out);
    json_decref(json);
    weights_close(w);
    str_free(&s);
    return status;
}

static void configuration(void)
{
    lm_config c;
    made m = start("llama");
    add_llama_sizes(&m);
    CHECK_OK(configure(finish(&m, 3), &c));
    CHECK(c.family == LM_LLAMA && c.width == 8 && c.layers == 2 && c.heads == 2 && c.kv_heads == 2 && c.mlp == 24);
    CHECK(c.vocab == 16 && c.positions == 32 && c.eps == 1e-5f && c.rope_theta == 10000 && c.tied);
    CHECK(c.bos == 1 && c.eos == 2 && c.pad == -1);
    m = start("llama");
    add_llama_sizes(&m);
    add_u32(&m, "llama.attention.head_count_kv", 1);
    add_f32(&m, "llama.rope.freq_base", 100000);
    add_u32(&m, "llama.rope.dimension_count", 4);
    add_tensor(&m, "output.weight", 0, 2, (const uint64_t[]){ 1, 1 }, "\0\0\0\0", 4);
    CHECK_OK(configure(finish(&m, 3), &c));
    CHECK(c.kv_heads == 1 && c.rope_theta == 100000 && !c.tied);
    m = start("llama");
    add_llama_sizes(&m);
    add_text(&m, "llama.rope.scaling.type", "yarn");
    CHECK_FAILS(configure(finish(&m, 3), &c), SCA_ERR_UNSUPPORTED, "'yarn'");
    m = start("llama");
    add_llama_sizes(&m);
    add_u32(&m, "llama.attention.key_length", 64);
    CHECK_FAILS(configure(finish(&m, 3), &c), SCA_ERR_UNSUPPORTED, "key_length");
    m = start("llama");
    CHECK_FAILS(configure(finish(&m, 3), &c), SCA_ERR_FORMAT, "token_embd");
    m = start("llama");
    add_tensor(&m, "token_embd.weight", 0, 2, (const uint64_t[]){ 1, 1 }, "\0\0\0\0", 4);
    CHECK_FAILS(configure(finish(&m, 3), &c), SCA_ERR_FORMAT, "embedding_length");
}

static void configuration_gpt2(void)
{
    lm_config c;
    made m = start("gpt2");
    add_u32(&m, "gpt2.embedding_length", 8);
    add_u32(&m, "gpt2.block_count", 3);
    add_u32(&m, "gpt2.attention.head_count", 4);
    add_u32(&m, "gpt2.context_length", 40);
    add_u32(&m, "gpt2.feed_forward_length", 32);
    add_f32(&m, "gpt2.attention.layer_norm_epsilon", 1e-5f);
    add_tensor(&m, "token_embd.weight", 0, 2, (const uint64_t[]){ 1, 1 }, "\0\0\0\0", 4);
    CHECK_OK(configure(finish(&m, 3), &c));
    CHECK(c.family == LM_GPT2 && c.width == 8 && c.layers == 3 && c.heads == 4 && c.positions == 40 && c.mlp == 32);
    CHECK(c.tied && c.act == ACT_GELU_TANH && c.vocab == 1 && c.bos == -1 && c.eps == 1e-5f);
}

static void wrong_tokenizer(void)
{
    weights *w;
    tokenizer *t;
    made m = start("llama");
    str s = finish(&m, 3);
    CHECK_OK(weights_parse(s.data, s.bytes, "test.gguf", &w));
    CHECK_FAILS(weights_tokenizer(w, &t), SCA_ERR_FORMAT, "holds no tokenizer");
    weights_close(w);
    str_free(&s);
    m = start("llama");
    add_text(&m, "tokenizer.ggml.model", "gpt2");
    add_list(&m, "tokenizer.ggml.tokens", GGUF_STRING, 2);
    put_text(&m.values, "a");
    put_text(&m.values, "b");
    add_list(&m, "tokenizer.ggml.token_type", GGUF_I32, 1);
    put_le(&m.values, 1, 4);
    s = finish(&m, 3);
    CHECK_OK(weights_parse(s.data, s.bytes, "test.gguf", &w));
    CHECK_FAILS(weights_tokenizer(w, &t), SCA_ERR_FORMAT, "no list of 2 numbers");
    weights_close(w);
    str_free(&s);
}

/* Only GGUF files hold a configuration. */
static void other_format(void)
{
    static const char file[] = "\2\0\0\0\0\0\0\0{}";
    weights *w;
    json_t *json;
    tokenizer *t;
    CHECK_OK(weights_parse(file, 10, "test.safetensors", &w));
    CHECK_FAILS(weights_lm_config(w, &json), SCA_ERR_STATE, "no GGUF file");
    CHECK_FAILS(weights_tokenizer(w, &t), SCA_ERR_STATE, "no GGUF file");
    weights_close(w);
}

/* ---- hostile files ----------------------------------------------------------------------------------- */

static sca_status parse_tensor(const char *name, uint32_t type, int ndim, const uint64_t *dim, size_t bytes)
{
    uint8_t data[512] = { 0 };
    made m = start("llama");
    add_u32(&m, "llama.attention.head_count", 2);
    add_tensor(&m, name, type, ndim, dim, data, bytes);
    return parse(finish(&m, 3));
}

static void hostile_tensors(void)
{
    static const char norm_name[] = "output_norm.weight", query[] = "blk.0.attn_q.weight";
    CHECK_OK(parse_tensor(norm_name, 0, 1, (const uint64_t[]){ 4 }, 16));
    CHECK_FAILS(parse_tensor(norm_name, 0, 1, (const uint64_t[]){ 5 }, 16), SCA_ERR_FORMAT, "cut or damaged");
    CHECK_FAILS(parse_tensor(norm_name, 0, 1, (const uint64_t[]){ 0 }, 16), SCA_ERR_FORMAT, "dimension of no size");
    CHECK_FAILS(parse_tensor(norm_name, 0, 1, (const uint64_t[]){ UINT64_MAX }, 16), SCA_ERR_FORMAT, "no size");
    CHECK_FAILS(parse_tensor(norm_name, 0, 2, (const uint64_t[]){ 1ull << 62, 8 }, 16), SCA_ERR_FORMAT,
                "overflows");
    CHECK_FAILS(parse_tensor(norm_name, 0, 5, (const uint64_t[]){ 1, 1, 1, 1, 1 }, 16), SCA_ERR_FORMAT,
                "5 dimensions");
    CHECK_FAILS(parse_tensor(norm_name, 8, 1, (const uint64_t[]){ 33 }, 68), SCA_ERR_FORMAT, "no multiple of 32");
    CHECK_FAILS(parse_tensor(norm_name, 14, 1, (const uint64_t[]){ 256 }, 210), SCA_ERR_UNSUPPORTED, "Q6_K");
    CHECK_FAILS(parse_tensor(norm_name, 99, 1, (const uint64_t[]){ 256 }, 210), SCA_ERR_UNSUPPORTED, "type 99");
    CHECK_FAILS(parse_tensor("blk.0.attn_q.bias", 0, 1, (const uint64_t[]){ 4 }, 16), SCA_ERR_UNSUPPORTED,
                "biases");
    CHECK_FAILS(parse_tensor("rope_freqs.weight", 0, 1, (const uint64_t[]){ 4 }, 16), SCA_ERR_UNSUPPORTED,
                "rope_freqs.weight");
    CHECK_FAILS(parse_tensor(query, 0, 2, (const uint64_t[]){ 2, 6 }, 48), SCA_ERR_FORMAT, "has 6 rows");
    CHECK_FAILS(parse_tensor(query, 0, 1, (const uint64_t[]){ 4 }, 16), SCA_ERR_FORMAT, "expected a matrix");
    CHECK_FAILS(parse_tensor("\xff", 0, 1, (const uint64_t[]){ 4 }, 16), SCA_ERR_FORMAT, "no UTF-8");
}

static void hostile_header(void)
{
    made m = start("llama");
    str s = finish(&m, 3);
    for (size_t n = 4; n < s.bytes; n++) { /* every cut is noticed, the padding's aside */
        weights *w;
        sca_status status = weights_parse(s.data, n, "test.gguf", &w);
        weights_close(w);
        CHECKF(status == SCA_ERR_FORMAT || n >= 65, "%zu bytes: %s", n, sca_status_name(status));
    }
    str_free(&s);
    m = start("falcon");
    CHECK_FAILS(parse(finish(&m, 3)), SCA_ERR_UNSUPPORTED, "'falcon'");
    m = start("llama");
    CHECK_FAILS(parse(finish(&m, 1)), SCA_ERR_UNSUPPORTED, "version 1");
    m = start("llama");
    CHECK_FAILS(parse(finish(&m, 3u << 24)), SCA_ERR_UNSUPPORTED, "big-endian");
    m = start("llama");
    m.n_tensors = UINT64_MAX;
    CHECK_FAILS(parse(finish(&m, 3)), SCA_ERR_FORMAT, "more than its size allows");
    m = start("llama");
    m.n_values = UINT64_MAX;
    CHECK_FAILS(parse(finish(&m, 3)), SCA_ERR_FORMAT, "metadata");
    m = start("llama");
    add_text(&m, "general.architecture", "llama");
    CHECK_FAILS(parse(finish(&m, 3)), SCA_ERR_FORMAT, "appears twice");
    m = start("llama");
    add_list(&m, "list", GGUF_U64, UINT64_MAX / 4);
    CHECK_FAILS(parse(finish(&m, 3)), SCA_ERR_FORMAT, "ends within");
    m = start("llama");
    add_list(&m, "list", GGUF_ARRAY, 1);
    CHECK_FAILS(parse(finish(&m, 3)), SCA_ERR_UNSUPPORTED, "list of lists");
    m = start("llama");
    add_list(&m, "list", (gguf_type)77, 1);
    CHECK_FAILS(parse(finish(&m, 3)), SCA_ERR_FORMAT, "type 77");
    m = start("llama");
    add_u32(&m, "general.alignment", 12);
    CHECK_FAILS(parse(finish(&m, 3)), SCA_ERR_FORMAT, "general.alignment");
    m = start("llama");
    add_u32(&m, "split.count", 2);
    CHECK_FAILS(parse(finish(&m, 3)), SCA_ERR_UNSUPPORTED, "one of 2 parts");
}

static void overlaps(void)
{
    made m = start("llama");
    uint8_t data[64] = { 0 };
    add_tensor(&m, "output_norm.weight", 0, 1, (const uint64_t[]){ 16 }, data, 64);
    m.data.bytes = 32; /* the next begins within this one */
    add_tensor(&m, "blk.0.ffn_norm.weight", 0, 1, (const uint64_t[]){ 8 }, data, 64);
    CHECK_FAILS(parse(finish(&m, 3)), SCA_ERR_FORMAT, "overlaps");
    m = start("llama");
    add_tensor(&m, "output_norm.weight", 0, 1, (const uint64_t[]){ 16 }, data, 64);
    add_tensor(&m, "output_norm.weight", 0, 1, (const uint64_t[]){ 16 }, data, 64);
    CHECK_FAILS(parse(finish(&m, 3)), SCA_ERR_FORMAT, "appears twice");
}

static sca_status open_and_read(void *user)
{
    const str *s = user;
    weights *w;
    float values[64 * 2];
    TRY(weights_parse(s->data, s->bytes, "test.gguf", &w));
    sca_status status = weights_as_lm(w);
    for (size_t i = 0; status == SCA_OK && i < weights_count(w); i++)
        status = weight_read(weights_at(w, i), DT_F32, values);
    weights_close(w);
    return status;
}

static void faults(void)
{
    uint8_t blocks[256];
    float expected[128];
    made m = start("gpt2");
    size_t bytes = make_blocks(8, blocks, expected);
    add_tensor(&m, "blk.0.ffn_down.weight", 8, 2, (const uint64_t[]){ 64, 2 }, blocks, bytes);
    add_tensor(&m, "blk.0.ffn_down.bias", 0, 1, (const uint64_t[]){ 2 }, expected, 8);
    str s = finish(&m, 3);
    CHECK(check_faults(fault_alloc, open_and_read, &s, "gguf") > 5);
    str_free(&s);
}

/* ---- a real model ------------------------------------------------------------------------------------ */

static void smollm2(void)
{
    weights *w;
    json_t *json;
    lm_config c;
    tokenizer *t;
    if (!file_exists(SMOLLM2)) {
        check_skip("smollm2: run tools/fetch_smollm2.sh");
        return;
    }
    CHECK_OK(weights_open(SMOLLM2, &w));
    CHECK(weights_count(w) == 272);
    CHECK_OK(weights_as_lm(w));
    CHECK_OK(weights_lm_config(w, &json));
    CHECK_OK(lm_config_parse(json, SMOLLM2, &c));
    CHECK(c.family == LM_LLAMA && c.width == 576 && c.layers == 30 && c.heads == 9 && c.kv_heads == 3);
    CHECK(c.mlp == 1536 && c.vocab == 49152 && c.positions == 8192 && c.rope_theta == 100000 && c.eps == 1e-5f);
    CHECK(c.tied && c.bos == 1 && c.eos == 2 && c.pad == 2);
    const weight *k = weights_find(w, "language_model.model.layers.29.self_attn.k_proj.weight");
    CHECK(k && k->dim[0] == 192 && k->dim[1] == 576);
    float *values = malloc((size_t)k->count * sizeof *values);
    double sum = 0;
    CHECK_OK(weight_read(k, DT_F32, values));
    for (int64_t i = 0; i < k->count; i++) sum += (double)values[i] * values[i];
    sum = sqrt(sum / (double)k->count);
    CHECKF(isfinite(sum) && sum > 0.01 && sum < 1, "root mean square %g", sum);
    CHECK_OK(weights_tokenizer(w, &t));
    CHECK(t && tokenizer_size(t) == 49152);
    tokenizer_close(t);
    free(values);
    json_decref(json);
    weights_close(w);
}

int main(int argc, char **argv)
{
    RUN(quantised);
    RUN(plain);
    RUN(rotary);
    RUN(conv1d);
    RUN(configuration);
    RUN(configuration_gpt2);
    RUN(wrong_tokenizer);
    RUN(other_format);
    RUN(hostile_tensors);
    RUN(hostile_header);
    RUN(overlaps);
    RUN(faults);
    RUN(smollm2);
    return check_done();
}
