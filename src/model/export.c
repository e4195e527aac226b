/* export.c - a model written as files, and described without being loaded. */
#include "model/inside.h"

#include <stdio.h>
#include <string.h>

/* ---- export ------------------------------------------------------------------------------------------ */

/* Second names of one buffer are not written (the official writer leaves them out as well); a tied head is, because
 * the official reader would leave it random (model.md 10.2). */
static bool written(const param_entry *e, bool trained_only)
{
    if (trained_only) return e->trained;
    return !e->alias || text_ends(e->name, "lm_head.weight");
}

static sca_status put_entries(const model *m, const weight_entry *list, bool trained_only, safetensors_out *file)
{
    const param_set *params = &m->net.params;
    size_t k = 0;
    for (size_t i = 0; i < params->n; i++) {
        const param_entry *e = &params->entries[i];
        if (!written(e, trained_only)) continue;
        dtype type = list[k++].type;
        size_t bytes = (size_t)param_count(e) * dtype_bytes(type);
        void *data = mem_alloc(bytes);
        if (!data) return mem_fail(bytes, e->name);
        sca_status status = model_value(m, i, type, data);
        if (status == SCA_OK) status = safetensors_put(file, data, bytes);
        mem_free(data);
        TRY(status);
        progress("export", (int64_t)i + 1, (int64_t)params->n);
    }
    return SCA_OK;
}

static sca_status write_weights(const char *path, const model *m, dtype type, bool trained_only)
{
    const sources *s = &m->from;
    const param_set *params = &m->net.params;
    weight_entry *list = mem_zero(params->n, sizeof *list);
    if (!list) return mem_fail(params->n * sizeof *list, "the list of tensors");
    size_t n = 0;
    for (size_t i = 0; i < params->n; i++) {
        const param_entry *e = &params->entries[i];
        if (!written(e, trained_only)) continue;
        list[n] =
            (weight_entry){ .name = e->name, .type = type == DT_NONE ? s->of[i].stored : type, .ndim = e->ndim };
        memcpy(list[n].dim, e->dim, sizeof e->dim);
        n++;
    }
    safetensors_out *file = NULL;
    sca_status status = safetensors_create(path, list, n, &file);
    if (status == SCA_OK) status = put_entries(m, list, trained_only, file);
    if (status == SCA_OK)
        status = safetensors_commit(file);
    else
        safetensors_abort(file);
    mem_free(list);
    return status;
}

static sca_status save_json(const char *dir, const char *name, const json_t *value)
{
    char *path = path_join(dir, name);
    if (!path) return mem_fail(strlen(dir) + strlen(name), "a path");
    sca_status status = json_save(path, value);
    mem_free(path);
    return status;
}

static sca_status save_config(const char *dir, const model_config *c, dtype type)
{
    static const char *const name[] = { [DT_F32] = "float32", [DT_F16] = "float16", [DT_BF16] = "bfloat16" };
    json_t *copy = json_deep_copy(c->json);
    if (!copy || (type != DT_NONE && json_object_set_new(copy, "torch_dtype", json_string(name[type])))) {
        json_decref(copy);
        return mem_fail(0, "config.json");
    }
    sca_status status = save_json(dir, "config.json", copy);
    json_decref(copy);
    return status;
}

sca_status model_export(const model *m, const char *path, dtype type, bool trained_only)
{
    if (type != DT_NONE && type != DT_F32 && type != DT_F16 && type != DT_BF16)
        return status_fail(SCA_ERR_ARGUMENT, "export as %s: expected f32, f16 or bf16", dtype_name(type));
    if (text_ends(path, ".safetensors")) return write_weights(path, m, type, trained_only);
    const model_config *c = model_sizes(m);
    TRY(dir_make(path));
    if (model_tokenizer(m))
        TRY(tokenizer_save(model_tokenizer(m), path)); /* first: it refuses what is not its own */
    TRY(save_config(path, c, type));
    TRY(save_json(path, "preprocessor_config.json", c->preprocessor));
    if (c->generation) TRY(save_json(path, "generation_config.json", c->generation));
    char *file = path_join(path, "model.safetensors"); /* last: a directory without it is visibly incomplete */
    if (!file) return mem_fail(strlen(path), "a path");
    sca_status status = write_weights(file, m, type, trained_only);
    mem_free(file);
    return status;
}

/* ---- the parameter table (model.md 10.3) ------------------------------------------------------------- */

typedef struct part {
    const char *name, *prefix;
} part;
static const part parts[] = {
    /* the first prefix that fits counts */
    { "image encoder", "vision_encoder." },
    { "prompt encoder", "prompt_encoder." },
    { "feature mixer", "mask_decoder.additional_transformer." },
    { "caption tokens", "mask_decoder.caption_tokens." },
    { "mask decoder", "mask_decoder." },
    { "task tokens", "task_tokens." },
    { "projection", "language_project." },
    { "language model", "language_model." },
};

/* Buffers and second names are no parameters. */
static bool counted(const param_entry *e) { return !e->alias && !text_ends(e->name, "positional_embedding"); }

static size_t part_of(const param_entry *e)
{
    size_t i = 0;
    while (i < LENGTH(parts) - 1 && !text_starts(e->name, parts[i].prefix)) i++;
    return i;
}

static void put_parts(const param_set *params, str *json)
{
    int64_t count[LENGTH(parts)] = { 0 }, total = 0, trained_total = 0;
    bool trained[LENGTH(parts)] = { false };
    for (size_t i = 0; i < params->n; i++) {
        const param_entry *e = &params->entries[i];
        if (!counted(e)) continue;
        size_t at = part_of(e);
        count[at] += param_count(e);
        trained[at] |= e->trained;
        total += param_count(e);
        if (e->trained) trained_total += param_count(e);
    }
    str_put(json, "\"parts\": [");
    for (size_t i = 0; i < LENGTH(parts); i++)
        str_printf(json, "%s{\"name\": \"%s\", \"parameters\": %lld, \"trained\": %s}", i ? ", " : "",
                   parts[i].name, (long long)count[i], trained[i] ? "true" : "false");
    str_printf(json, "], \"total\": %lld, \"trained\": %lld", (long long)total, (long long)trained_total);
}

static void put_sizes(const model_config *c, str *json)
{
    const sam_config *s = &c->sam;
    const lm_config *l = &c->lm;
    struct {
        const char *name;
        int value;
    } size[] = {
        { "image", s->image },
        { "patch", s->patch },
        { "encoder_width", s->width },
        { "encoder_layers", s->layers },
        { "encoder_heads", s->heads },
        { "window", s->window },
        { "decoder_width", s->channels },
        { "decoder_layers", s->decoder_layers },
        { "mixer_layers", c->mixer_layers },
        { "caption_tokens", c->caption_tokens },
        { "caption_heads", c->caption_heads },
        { "task_tokens", c->task_tokens },
        { "lm_width", l->width },
        { "lm_layers", l->layers },
        { "lm_heads", l->heads },
        { "lm_kv_heads", l->kv_heads },
        { "vocabulary", l->vocab },
        { "positions", l->positions },
    };
    str_printf(json, "\"sizes\": {\"language_model\": \"%s\"", l->family == LM_GPT2 ? "gpt2" : "llama");
    for (size_t i = 0; i < LENGTH(size); i++) str_printf(json, ", \"%s\": %d", size[i].name, size[i].value);
    str_put(json, "}");
}

sca_status model_info(const config *c, str *json)
{
    sources from;
    model_config sizes;
    net n = { 0 };
    TRY(sources_open(c, &from, &sizes));
    sca_status status = net_bind(&n, &sizes);
    if (status == SCA_OK) status = sources_match(&from, &n.params);
    if (status == SCA_OK) {
        str_printf(json, "{\"model\": \"%s\", ", variant_name(sizes.variant));
        put_parts(&n.params, json);
        str_put(json, ", ");
        put_sizes(&sizes, json);
        str_put(json, "}");
        if (json->failed) status = mem_fail(json->bytes, "the parameter table");
    }
    net_free(&n);
    sources_close(&from);
    model_config_free(&sizes);
    return status;
}

/* ---- identity of the encoder ---------------------------------------------------------------------------- */

/* FNV-1a over words. */
static uint64_t mix_values(uint64_t h, const uint32_t *values, int64_t n)
{
    for (int64_t i = 0; i < n; i++) h = (h ^ values[i]) * 0x100000001b3u;
    return h;
}

sca_status model_encoder_key(const model *m, char key[17])
{
    const param_set *params = &m->net.params;
    uint64_t h = mix_values(0xcbf29ce484222325u, &(uint32_t){ (uint32_t)m->sizes.sam.image }, 1);
    for (size_t i = 0; i < params->n; i++) {
        const param_entry *e = &params->entries[i];
        if (!text_starts(e->name, "vision_encoder.")) continue;
        size_t bytes = (size_t)param_count(e) * sizeof(float);
        uint32_t *values = mem_alloc(bytes);
        if (!values) return mem_fail(bytes, e->name);
        sca_status status = model_value(m, i, DT_F32, values);
        if (status == SCA_OK) h = mix_values(h, values, param_count(e));
        mem_free(values);
        TRY(status);
    }
    snprintf(key, 17, "%016llx", (unsigned long long)h);
    return SCA_OK;
}
