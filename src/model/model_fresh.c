/* model_fresh.c - the configuration of a new model: a SAM and a language model, and the settings of what joins
 * them, written as the official ScaConfig would save it. */
#include "model/model_classes.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static sca_status set(json_t *object, const char *key, json_t *value)
{
    return json_object_set_new(object, key, value) == 0 ? SCA_OK : mem_fail(0, "configuration");
}

/* ---- SAM: vision, prompt encoder and decoder ------------------------------------------------------------------
 */

typedef struct parts { /* partial configurations, owned */
    json_t *vision, *prompt, *decoder, *text;
} parts;

static void parts_close(parts *p)
{
    json_decref(p->vision);
    json_decref(p->prompt);
    json_decref(p->decoder);
    json_decref(p->text);
}

static sca_status random_sam(const char *size, parts *p)
{
    static const struct {
        const char *name;
        int width, layers, heads, global[4];
    } sizes[] = { { "vit_b", 768, 12, 12, { 2, 5, 8, 11 } },
                  { "vit_l", 1024, 24, 16, { 5, 11, 17, 23 } },
                  { "vit_h", 1280, 32, 16, { 7, 15, 23, 31 } } };
    for (size_t i = 0; i < LENGTH(sizes); i++) {
        if (strcmp(size, sizes[i].name) != 0) continue;
        const int *g = sizes[i].global;
        p->vision = json_pack("{s:i,s:i,s:i,s:[i,i,i,i],s:i}", "hidden_size", sizes[i].width, "num_hidden_layers",
                              sizes[i].layers, "num_attention_heads", sizes[i].heads, "global_attn_indexes", g[0],
                              g[1], g[2], g[3], "mlp_dim", 4 * sizes[i].width);
        p->prompt = json_pack("{s:i}", "image_embedding_size", 64);
        p->decoder = json_object();
        return p->vision && p->prompt && p->decoder ? SCA_OK : mem_fail(0, "configuration");
    }
    return status_fail(SCA_ERR_ARGUMENT, "model.sam=random:%.100s: expected vit_b, vit_l or vit_h", size);
}

static sca_status take_part(const json_t *root, const char *file, const char *key, json_t **out)
{
    json_t *part = json_object_get(root, key);
    if (part && !json_is_object(part) && !json_is_null(part))
        return status_fail(SCA_ERR_FORMAT, "%s: '%s' is no object", file, key);
    *out = json_is_object(part) ? json_copy(part) : json_object();
    return *out ? SCA_OK : mem_fail(0, "configuration");
}

static sca_status sam_from_config(const char *file, parts *p)
{
    json_t *root;
    const char *type;
    sca_status status;
    TRY(json_open(file, &root));
    TRY_GOTO(done, json_need_text(root, "model_type", file, &type));
    if (strcmp(type, "sam") != 0)
        TRY_GOTO(done, status_fail(SCA_ERR_UNSUPPORTED, "%s: 'model_type' is '%.100s', expected sam", file, type));
    TRY_GOTO(done, take_part(root, file, "vision_config", &p->vision));
    TRY_GOTO(done, take_part(root, file, "prompt_encoder_config", &p->prompt));
    TRY_GOTO(done, take_part(root, file, "mask_decoder_config", &p->decoder));
done:
    json_decref(root);
    return status;
}

/* ---- SAM: sizes from the shapes of an original checkpoint -------------------------------------------------------
 */

typedef struct shapes {
    const weights *w;
    const char *path;
    int width, layers, head, grid, patch, mlp, channels, window, pos_feats;
    bool qkv_bias;
    json_t *global;
} shapes;

static sca_status need_shape(const shapes *s, const char *name, int ndim, const weight **out)
{
    *out = weights_find(s->w, name);
    if (!*out)
        return status_fail(SCA_ERR_FORMAT, "%s: lacks '%s', which says a size of SAM; is it a SAM checkpoint?",
                           s->path, name);
    if ((*out)->ndim != ndim)
        return status_fail(SCA_ERR_FORMAT, "%s: tensor '%s' has %d dimensions, expected %d", s->path, name,
                           (*out)->ndim, ndim);
    for (int i = 0; i < ndim; i++)
        if ((*out)->dim[i] < 1 || (*out)->dim[i] > SIZE_MOST)
            return status_fail(SCA_ERR_FORMAT, "%s: tensor '%s' has a side of %lld, expected 1 to %d", s->path,
                               name, (long long)(*out)->dim[i], SIZE_MOST);
    return SCA_OK;
}

/* How many of PREFIX0SUFFIX, PREFIX1SUFFIX, ... there are without a gap. */
static int count_layers(const weights *w, const char *prefix, const char *suffix)
{
    char name[160];
    int n = 0;
    for (; n < SIZE_MOST; n++) {
        snprintf(name, sizeof name, "%s%d%s", prefix, n, suffix);
        if (!weights_find(w, name)) break;
    }
    return n;
}

/* Blocks whose relative-position table spans the whole map attend globally; the others share one window. */
static sca_status read_tables(shapes *s)
{
    for (int i = 0; i < s->layers; i++) {
        const weight *table;
        char name[96];
        snprintf(name, sizeof name, "vision_encoder.layers.%d.attn.rel_pos_h", i);
        TRY(need_shape(s, name, 2, &table));
        int side = (int)(table->dim[0] + 1) / 2;
        if (i == 0) s->head = (int)table->dim[1];
        if (table->dim[0] % 2 == 0 || table->dim[1] != s->head)
            return status_fail(SCA_ERR_FORMAT,
                               "%s: '%s' is (%lld, %lld), expected an odd number of rows and %d columns", s->path,
                               name, (long long)table->dim[0], (long long)table->dim[1], s->head);
        if (side == s->grid) {
            if (json_array_append_new(s->global, json_integer(i)) != 0) return mem_fail(0, "configuration");
        } else if (s->window != 0 && s->window != side) {
            return status_fail(SCA_ERR_FORMAT, "%s: '%s' is for a window of %d, others for %d", s->path, name, side,
                               s->window);
        } else {
            s->window = side;
        }
    }
    if (s->width % s->head == 0) return SCA_OK;
    return status_fail(SCA_ERR_FORMAT, "%s: heads of %d do not divide the width %d", s->path, s->head, s->width);
}

static sca_status vision_shapes(shapes *s, json_t **out)
{
    const weight *patch, *position, *mlp_up, *neck, *gaussian;
    TRY(need_shape(s, "vision_encoder.patch_embed.projection.weight", 4, &patch));
    TRY(need_shape(s, "vision_encoder.pos_embed", 4, &position));
    TRY(need_shape(s, "vision_encoder.layers.0.mlp.lin1.weight", 2, &mlp_up));
    TRY(need_shape(s, "vision_encoder.neck.conv1.weight", 4, &neck));
    TRY(need_shape(s, "shared_image_embedding.positional_embedding", 2, &gaussian));
    s->width = (int)patch->dim[0];
    s->patch = (int)patch->dim[3];
    s->grid = (int)position->dim[1];
    s->mlp = (int)mlp_up->dim[0];
    s->channels = (int)neck->dim[0];
    s->pos_feats = (int)gaussian->dim[1];
    s->layers = count_layers(s->w, "vision_encoder.layers.", ".attn.qkv.weight");
    s->qkv_bias = weights_find(s->w, "vision_encoder.layers.0.attn.qkv.bias") != NULL;
    TRY(read_tables(s));
    if (s->grid > SIZE_MOST / s->patch)
        return status_fail(SCA_ERR_FORMAT, "%s: a grid of %d patches of %d pixels is larger than %d", s->path,
                           s->grid, s->patch, SIZE_MOST);
    *out = json_pack("{s:i,s:i,s:i,s:i,s:i,s:i,s:i,s:i,s:i,s:b,s:O,s:f}", "hidden_size", s->width,
                     "num_hidden_layers", s->layers, "num_attention_heads", s->width / s->head, "image_size",
                     s->grid * s->patch, "patch_size", s->patch, "output_channels", s->channels, "num_pos_feats",
                     s->pos_feats, "mlp_dim", s->mlp, "window_size", s->window ? s->window : 14, "qkv_bias",
                     s->qkv_bias, "global_attn_indexes", s->global, "mlp_ratio", (double)s->mlp / s->width);
    return *out ? SCA_OK : mem_fail(0, "configuration");
}

static sca_status prompt_shapes(const shapes *s, json_t **out)
{
    const weight *mask;
    TRY(need_shape(s, "prompt_encoder.mask_embed.conv3.weight", 4, &mask));
    *out = json_pack("{s:i,s:i,s:i,s:i,s:i}", "hidden_size", (int)mask->dim[0], "image_size", s->grid * s->patch,
                     "patch_size", s->patch, "mask_input_channels", (int)mask->dim[1], "image_embedding_size",
                     s->grid);
    return *out ? SCA_OK : mem_fail(0, "configuration");
}

static sca_status decoder_shapes(const shapes *s, json_t **out)
{
    const weight *masks, *up, *q, *iou;
    TRY(need_shape(s, "mask_decoder.mask_tokens.weight", 2, &masks));
    TRY(need_shape(s, "mask_decoder.transformer.layers.0.mlp.lin1.weight", 2, &up));
    TRY(need_shape(s, "mask_decoder.transformer.final_attn_token_to_image.q_proj.weight", 2, &q));
    TRY(need_shape(s, "mask_decoder.iou_prediction_head.proj_in.weight", 2, &iou));
    int layers = count_layers(s->w, "mask_decoder.transformer.layers.", ".mlp.lin1.weight");
    int depth = 2 + count_layers(s->w, "mask_decoder.iou_prediction_head.layers.", ".weight");
    if (q->dim[1] % q->dim[0] != 0 || masks->dim[0] < 2)
        return status_fail(SCA_ERR_FORMAT,
                           "%s: the mask decoder has attention of width %lld of %lld and %lld masks", s->path,
                           (long long)q->dim[0], (long long)q->dim[1], (long long)masks->dim[0]);
    /* No shape tells the heads of the decoder: every published SAM has 8. */
    *out = json_pack("{s:i,s:i,s:i,s:i,s:i,s:i,s:i,s:i}", "hidden_size", (int)masks->dim[1], "mlp_dim",
                     (int)up->dim[0], "num_hidden_layers", layers, "num_attention_heads", 8,
                     "attention_downsample_rate", (int)(q->dim[1] / q->dim[0]), "num_multimask_outputs",
                     (int)masks->dim[0] - 1, "iou_head_depth", depth, "iou_head_hidden_dim", (int)iou->dim[0]);
    return *out ? SCA_OK : mem_fail(0, "configuration");
}

static sca_status sam_from_shapes(const weights *w, const char *path, parts *p)
{
    shapes s = { .w = w, .path = path, .global = json_array() };
    sca_status status = s.global ? vision_shapes(&s, &p->vision) : mem_fail(0, "configuration");
    if (status == SCA_OK) status = prompt_shapes(&s, &p->prompt);
    if (status == SCA_OK) status = decoder_shapes(&s, &p->decoder);
    json_decref(s.global);
    return status;
}

static sca_status read_sam(const config *c, const weights *w, parts *p)
{
    const char *path = c->model_sam;
    if (text_starts(path, "random:")) return random_sam(path + strlen("random:"), p);
    if (!w)
        return status_fail(SCA_ERR_ARGUMENT,
                           "model.sam: is empty, expected a checkpoint, a folder or random:vit_b");
    if (!dir_exists(path)) return sam_from_shapes(w, path, p);
    char *file = path_join(path, "config.json");
    if (!file) return mem_fail(strlen(path), "path");
    sca_status status = sam_from_config(file, p);
    mem_free(file);
    return status;
}

/* ---- the language model
 * --------------------------------------------------------------------------------------------- */

static sca_status random_lm(const char *size, json_t **out)
{
    if (strcmp(size, "gpt2") == 0)
        *out = json_pack("{s:[s],s:s}", "architectures", "GPT2LMHeadModel", "model_type", "gpt2");
    else if (strcmp(size, "gpt2-large") == 0)
        *out = json_pack("{s:[s],s:s,s:i,s:i,s:i}", "architectures", "GPT2LMHeadModel", "model_type", "gpt2",
                         "n_embd", 1280, "n_head", 20, "n_layer", 36);
    else if (strcmp(size, "open_llama_3b") == 0)
        *out = json_pack("{s:[s],s:s,s:i,s:i,s:i,s:i,s:i}", "architectures", "LlamaForCausalLM", "model_type",
                         "llama", "hidden_size", 3200, "intermediate_size", 8640, "num_attention_heads", 32,
                         "num_hidden_layers", 26, "pad_token_id", 0);
    else
        return status_fail(SCA_ERR_ARGUMENT, "model.lm=random:%.100s: expected gpt2, gpt2-large or open_llama_3b",
                           size);
    return *out ? SCA_OK : mem_fail(0, "configuration");
}

static sca_status open_in(const char *dir, const char *name, bool must, json_t **out)
{
    *out = NULL;
    char *file = path_join(dir, name);
    if (!file) return mem_fail(strlen(dir), "path");
    sca_status status = must || file_exists(file) ? json_open(file, out) : SCA_OK;
    mem_free(file);
    return status;
}

/* *generation: of the language model's folder, or NULL. */
static sca_status read_lm(const config *c, const weights *w, json_t **text, json_t **generation)
{
    const char *path = c->model_lm;
    *generation = NULL;
    if (text_starts(path, "random:")) return random_lm(path + strlen("random:"), text);
    if (!w)
        return status_fail(SCA_ERR_ARGUMENT, "model.lm: is empty, expected a folder, a .gguf file or random:gpt2");
    if (!dir_exists(path)) return weights_lm_config(w, text);
    TRY(open_in(path, "config.json", true, text));
    return open_in(path, "generation_config.json", false, generation);
}

/* The special ids of generation_config.json are those that count. */
static sca_status put_ids(json_t *to, const json_t *from)
{
    static const char *const keys[] = { "bos_token_id", "eos_token_id", "pad_token_id" };
    for (size_t i = 0; i < LENGTH(keys); i++) {
        json_t *id = json_object_get(from, keys[i]);
        if (id && !json_is_null(id) && json_object_set(to, keys[i], id) != 0) return mem_fail(0, "configuration");
    }
    return SCA_OK;
}

static sca_status make_generation(const json_t *text, const json_t *own, json_t **out)
{
    *out = json_pack("{s:b}", "_from_model_config", 1);
    if (!*out) return mem_fail(0, "configuration");
    TRY(put_ids(*out, text));
    if (own) TRY(put_ids(*out, own));
    return set(*out, "transformers_version", json_string("4.36.2"));
}

/* ---- the whole -------------------------------------------------------------------------------------------------
 */

/* Completes a part with its class's defaults, in place. */
static sca_status complete(config_class c, json_t **part)
{
    json_t *whole;
    TRY(class_complete(c, *part, &whole));
    json_decref(*part);
    *part = whole;
    return SCA_OK;
}

static sca_status complete_text(const char *file, json_t **text)
{
    config_class class;
    if (!json_is_object(*text)) return status_fail(SCA_ERR_FORMAT, "%s: config.json is no object", file);
    TRY(class_of_text(*text, file, &class));
    TRY(complete(class, text));
    json_t *kv = json_object_get(*text, "num_key_value_heads");
    if (class == CLASS_LLAMA && json_is_null(kv))
        TRY(set(*text, "num_key_value_heads", json_incref(json_object_get(*text, "num_attention_heads"))));
    TRY(set(*text, "transformers_version", json_string("4.36.2")));
    return set(*text, "_name_or_path", json_string("")); /* where it was is nobody's business */
}

static sca_status complete_parts(const config *c, parts *p)
{
    TRY(complete(CLASS_VISION, &p->vision));
    TRY(complete(CLASS_PROMPT, &p->prompt));
    TRY(set(p->decoder, "additional_num_hidden_layers", json_integer(c->model_mixer_layers)));
    TRY(set(p->decoder, "num_caption_tokens", json_integer(c->model_caption_tokens)));
    TRY(set(p->decoder, "num_caption_heads", json_integer(c->model_caption_heads)));
    TRY(complete(CLASS_DECODER, &p->decoder));
    return complete_text(c->model_lm, &p->text);
}

static const char *variant_of(const config *c)
{
    static const struct {
        const char *name;
        variant variant;
    } names[] = { { "base", VARIANT_BASE },
                  { "multitask", VARIANT_MULTITASK },
                  { "multitask_v2", VARIANT_MULTITASK_V2 },
                  { "direct_decoding", VARIANT_DIRECT },
                  { "direct_decoding_v2", VARIANT_DIRECT_V2 },
                  { "split_mixer", VARIANT_SPLIT_MIXER },
                  { "roi_pool", VARIANT_ROI_POOL } };
    for (size_t i = 0; i < LENGTH(names); i++)
        if (strcmp(c->model_variant, names[i].name) == 0) return variant_name(names[i].variant);
    return variant_name(VARIANT_MULTITASK_V2);
}

static sca_status assemble(const config *c, const parts *p, json_t **out)
{
    bool pre = strcmp(c->model_projector_norm, "pre") == 0, post = strcmp(c->model_projector_norm, "post") == 0;
    json_t *given = json_pack("{s:[s],s:O,s:O,s:O,s:O,s:I,s:s,s:s,s:s}", "architectures", variant_of(c),
                              "vision_config", p->vision, "prompt_encoder_config", p->prompt,
                              "mask_caption_decoder_config", p->decoder, "text_config", p->text, "num_task_tokens",
                              (json_int_t)c->model_task_tokens, "torch_dtype", "float32", "vl_projector_norm_type",
                              pre    ? "pre_norm"
                              : post ? "post_norm"
                                     : "none",
                              "vl_projector_type", c->model_projector);
    if (!given) return mem_fail(0, "configuration");
    /* At the top the official writer leaves out what is as in every class. */
    sca_status status = SCA_OK;
    if (json_is_false(json_object_get(p->text, "tie_word_embeddings")))
        status = set(given, "tie_word_embeddings", json_false());
    if (status == SCA_OK) status = class_complete(CLASS_SCA, given, out);
    json_decref(given);
    return status;
}

static sca_status join(const config *c, const weights *sam, const weights *text, model_config *out)
{
    parts p = { 0 };
    json_t *generation = NULL;
    sca_status status;
    TRY_GOTO(done, read_sam(c, sam, &p));
    TRY_GOTO(done, read_lm(c, text, &p.text, &generation));
    TRY_GOTO(done, complete_parts(c, &p));
    TRY_GOTO(done, assemble(c, &p, &out->json));
    TRY_GOTO(done, make_generation(p.text, generation, &out->generation));
done:
    json_decref(generation);
    parts_close(&p);
    return status;
}

sca_status model_config_fresh(const config *c, const weights *sam, const weights *text, model_config *out)
{
    bool whole = c->model_config[0] != 0;
    const char *name = whole ? c->model_config : "model.sam and model.lm";
    sca_status status;
    *out = (model_config){ 0 };
    if (whole)
        TRY_GOTO(fail, json_open(c->model_config, &out->json));
    else
        TRY_GOTO(fail, join(c, sam, text, out));
    TRY_GOTO(fail, model_config_parse(out->json, name, out));
    if (whole) TRY_GOTO(fail, make_generation(json_object_get(out->json, "text_config"), NULL, &out->generation));
    TRY_GOTO(fail, lm_config_ids(out->generation, name, &out->lm));
    TRY_GOTO(fail, preprocessor_make(out->sam.image, &out->preprocessor));
    TRY_GOTO(fail, preprocessor_parse(out->preprocessor, name, out));
    return SCA_OK;
fail:
    model_config_free(out);
    return status;
}
