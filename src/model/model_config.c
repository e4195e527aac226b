/* model_config.c - the sizes of a model, from config.json, preprocessor_config.json and generation_config.json. */
#include "model/model_classes.h"

#include <math.h>
#include <string.h>

#define VOCAB_MOST 4000000

typedef struct section { /* one object of a configuration, complete with its class's defaults */
    json_t *json;
    char *name; /* for messages: "DIR/config.json: vision_config" */
} section;

static void section_close(section *s)
{
    json_decref(s->json);
    mem_free(s->name);
}

/* The member `key` of root, or root itself when key is NULL. */
static sca_status section_open(const char *file, const json_t *root, const char *key, config_class c, section *out)
{
    const json_t *given = key ? json_object_get(root, key) : root;
    str name = { 0 };
    *out = (section){ 0 };
    if (given && !json_is_object(given) && !json_is_null(given))
        return status_fail(SCA_ERR_FORMAT, "%s: '%s' is no object, expected a configuration", file,
                           key ? key : "the file");
    str_put(&name, file);
    if (key) str_printf(&name, ": %s", key);
    TRY(str_take(&name, &out->name));
    return class_complete(c, json_is_object(given) ? given : NULL, &out->json);
}

/* ---- members ----------------------------------------------------------------------------------------------- */

typedef struct size_rule {
    const char *key;
    int64_t least, most;
    int *to;
} size_rule;

static sca_status get_sizes(const section *s, const size_rule *rules, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        int64_t value;
        TRY(json_need_int(s->json, rules[i].key, s->name, rules[i].least, rules[i].most, &value));
        *rules[i].to = (int)value;
    }
    return SCA_OK;
}

static sca_status get_real(const section *s, const char *key, double least, double most, double *out)
{
    TRY(json_need_real(s->json, key, s->name, out));
    if (*out >= least && *out <= most) return SCA_OK;
    return status_fail(SCA_ERR_FORMAT, "%s: '%s' is %g, expected a number from %g to %g", s->name, key, *out, least,
                       most);
}

static sca_status get_float(const section *s, const char *key, double least, double most, float *out)
{
    double value;
    TRY(get_real(s, key, least, most, &value));
    *out = (float)value;
    return SCA_OK;
}

static sca_status get_activation(const section *s, const char *key, activation *out)
{
    static const struct {
        const char *name;
        activation act;
    } known[] = { { "relu", ACT_RELU },           { "gelu", ACT_GELU },
                  { "gelu_python", ACT_GELU },    { "gelu_new", ACT_GELU_TANH },
                  { "gelu_fast", ACT_GELU_TANH }, { "gelu_pytorch_tanh", ACT_GELU_TANH } };
    const char *name;
    TRY(json_need_text(s->json, key, s->name, &name));
    for (size_t i = 0; i < LENGTH(known); i++)
        if (strcmp(name, known[i].name) == 0) {
            *out = known[i].act;
            return SCA_OK;
        }
    return status_fail(SCA_ERR_UNSUPPORTED,
                       "%s: '%s' is '%.100s', expected relu, gelu, gelu_new or gelu_pytorch_tanh", s->name, key,
                       name);
}

/* A switch that must be `wanted`, because the other way is not implemented. */
static sca_status need_bool(const section *s, const char *key, bool wanted)
{
    bool value = wanted;
    TRY(json_may_bool(s->json, key, s->name, &value));
    if (value == wanted) return SCA_OK;
    return status_fail(SCA_ERR_UNSUPPORTED, "%s: '%s' is %s, only %s is supported", s->name, key,
                       value ? "true" : "false", wanted ? "true" : "false");
}

static sca_status need_zero(const section *s, const char *key)
{
    double value;
    TRY(get_real(s, key, 0, 1, &value));
    if (value == 0) return SCA_OK;
    return status_fail(SCA_ERR_UNSUPPORTED, "%s: '%s' is %g, only 0 is supported", s->name, key, value);
}

/* a % b == 0, with both keys in the message. */
static sca_status need_multiple(const section *s, const char *key, int64_t a, const char *other, int64_t b)
{
    if (a % b == 0) return SCA_OK;
    return status_fail(SCA_ERR_FORMAT, "%s: '%s' is %lld, expected a multiple of %s, %lld", s->name, key,
                       (long long)a, other, (long long)b);
}

static sca_status need_equal(const section *s, const char *key, int64_t a, const char *other, int64_t b)
{
    if (a == b) return SCA_OK;
    return status_fail(SCA_ERR_FORMAT, "%s: '%s' is %lld, expected %lld, %s", s->name, key, (long long)a,
                       (long long)b, other);
}

/* ---- SAM ----------------------------------------------------------------------------------------------------- */

static sca_status read_global_layers(const section *s, sam_config *c)
{
    size_t i;
    json_t *index, *list = json_object_get(s->json, "global_attn_indexes");
    if (!json_is_array(list))
        return status_fail(SCA_ERR_FORMAT, "%s: 'global_attn_indexes' is no list, expected layer numbers", s->name);
    /* Window 0 is the official way to say that no layer has windows. */
    for (int layer = 0; layer < c->layers; layer++) c->global[layer] = c->window == 0;
    json_array_foreach(list, i, index)
    {
        json_int_t layer = json_is_integer(index) ? json_integer_value(index) : -1;
        if (layer < 0 || layer >= c->layers)
            return status_fail(SCA_ERR_FORMAT,
                               "%s: 'global_attn_indexes' holds %lld, expected integers from 0 to %d", s->name,
                               (long long)layer, c->layers - 1);
        c->global[layer] = true;
    }
    return SCA_OK;
}

static sca_status read_mlp_dim(const section *s, sam_config *c)
{
    double ratio;
    if (!json_is_null(json_object_get(s->json, "mlp_dim")))
        return get_sizes(s, &(size_rule){ "mlp_dim", 1, SIZE_MOST, &c->mlp }, 1);
    TRY(get_real(s, "mlp_ratio", 0, SIZE_MOST, &ratio));
    double width = floor(c->width * ratio);
    if (width < 1 || width > SIZE_MOST)
        return status_fail(SCA_ERR_FORMAT, "%s: 'mlp_ratio' %g times 'hidden_size' %d gives no size from 1 to %d",
                           s->name, ratio, c->width, SIZE_MOST);
    c->mlp = (int)width;
    return SCA_OK;
}

static sca_status read_vision(const section *s, sam_config *c)
{
    int channels_in;
    const size_rule sizes[] = {
        { "image_size", 1, SIZE_MOST, &c->image },
        { "patch_size", 1, SIZE_MOST, &c->patch },
        { "hidden_size", 1, SIZE_MOST, &c->width },
        { "num_hidden_layers", 1, (int64_t)LENGTH(c->global), &c->layers },
        { "num_attention_heads", 1, SIZE_MOST, &c->heads },
        { "window_size", 0, SIZE_MOST, &c->window },
        { "output_channels", 1, SIZE_MOST, &c->channels },
        { "num_pos_feats", 1, SIZE_MOST, &c->pos_feats },
        { "num_channels", 3, 3, &channels_in },
    };
    TRY(get_sizes(s, sizes, LENGTH(sizes)));
    TRY(need_multiple(s, "image_size", c->image, "'patch_size'", c->patch));
    TRY(need_multiple(s, "hidden_size", c->width, "'num_attention_heads'", c->heads));
    TRY(need_equal(s, "output_channels", c->channels, "twice 'num_pos_feats'", 2 * (int64_t)c->pos_feats));
    c->grid = c->image / c->patch;
    TRY(read_mlp_dim(s, c));
    TRY(read_global_layers(s, c));
    TRY(json_may_bool(s->json, "qkv_bias", s->name, &c->qkv_bias));
    TRY(json_may_bool(s->json, "use_abs_pos", s->name, &c->abs_pos));
    TRY(json_may_bool(s->json, "use_rel_pos", s->name, &c->rel_pos));
    TRY(get_activation(s, "hidden_act", &c->encoder_act));
    TRY(get_float(s, "layer_norm_eps", 0, 1, &c->encoder_eps));
    TRY(need_zero(s, "dropout"));
    return need_zero(s, "attention_dropout");
}

static sca_status read_prompt(const section *s, sam_config *c)
{
    int channels, image, patch, points;
    const size_rule sizes[] = {
        { "hidden_size", 1, SIZE_MOST, &channels }, { "image_size", 1, SIZE_MOST, &image },
        { "patch_size", 1, SIZE_MOST, &patch },     { "mask_input_channels", 1, SIZE_MOST, &c->mask_channels },
        { "num_point_embeddings", 4, 4, &points },
    };
    TRY(get_sizes(s, sizes, LENGTH(sizes)));
    TRY(need_equal(s, "hidden_size", channels, "'output_channels' of vision_config", c->channels));
    TRY(need_equal(s, "image_size", image, "that of vision_config", c->image));
    TRY(need_equal(s, "patch_size", patch, "that of vision_config", c->patch));
    TRY(need_multiple(s, "mask_input_channels", c->mask_channels, "the two scalings by 2,", 4));
    TRY(get_activation(s, "hidden_act", &c->prompt_act));
    return get_float(s, "layer_norm_eps", 0, 1, &c->prompt_eps);
}

static sca_status read_decoder(const section *s, model_config *m)
{
    sam_config *c = &m->sam;
    int channels, multimask;
    const size_rule sizes[] = {
        { "hidden_size", 1, SIZE_MOST, &channels },
        { "num_hidden_layers", 1, SIZE_MOST, &c->decoder_layers },
        { "num_attention_heads", 1, SIZE_MOST, &c->decoder_heads },
        { "mlp_dim", 1, SIZE_MOST, &c->decoder_mlp },
        { "attention_downsample_rate", 1, SIZE_MOST, &c->downsample },
        { "num_multimask_outputs", 1, SIZE_MOST - 1, &multimask },
        { "iou_head_depth", 1, SIZE_MOST, &c->iou_depth },
        { "iou_head_hidden_dim", 1, SIZE_MOST, &c->iou_hidden },
        { "additional_num_hidden_layers", 1, SIZE_MOST, &m->mixer_layers },
        { "num_caption_tokens", 1, SIZE_MOST, &m->caption_tokens },
        { "num_caption_heads", 1, SIZE_MOST, &m->caption_heads },
    };
    TRY(get_sizes(s, sizes, LENGTH(sizes)));
    TRY(need_equal(s, "hidden_size", channels, "'output_channels' of vision_config", c->channels));
    TRY(need_multiple(s, "hidden_size", channels, "the two upscalings by 2,", 8));
    TRY(need_multiple(s, "hidden_size", channels, "'num_attention_heads'", c->decoder_heads));
    TRY(need_multiple(s, "hidden_size", channels, "'attention_downsample_rate'", c->downsample));
    TRY(need_multiple(s, "hidden_size", channels / c->downsample,
                      "'num_attention_heads' after division by 'attention_downsample_rate'", c->decoder_heads));
    c->masks = multimask + 1;
    if (c->iou_depth < 2) c->iou_depth = 2; /* the official class always has a first and a last layer */
    TRY(get_activation(s, "hidden_act", &c->decoder_act));
    return get_float(s, "layer_norm_eps", 0, 1, &c->decoder_eps);
}

/* ---- language models ------------------------------------------------------------------------------------------
 */

/* A special id: absent or null, or -1 as some files say it, is none. A list of one is that one. */
static sca_status read_id(const json_t *object, const char *key, const char *file, int vocab, int *out)
{
    int64_t id = -1;
    const json_t *value = json_object_get(object, key);
    *out = -1;
    if (json_array_size(value) == 1) value = json_array_get(value, 0);
    if (json_is_integer(value) && json_integer_value(value) >= -1 && json_integer_value(value) < vocab)
        id = json_integer_value(value);
    else if (value && !json_is_null(value))
        return status_fail(SCA_ERR_FORMAT, "%s: '%s' is no id of the vocabulary, expected an integer below %d",
                           file, key, vocab);
    *out = (int)id;
    return SCA_OK;
}

sca_status lm_config_ids(const json_t *generation, const char *file, lm_config *c)
{
    const struct {
        const char *key;
        int *to;
    } ids[] = { { "bos_token_id", &c->bos }, { "eos_token_id", &c->eos }, { "pad_token_id", &c->pad } };
    if (!json_is_object(generation)) return status_fail(SCA_ERR_FORMAT, "%s: is no object", file);
    for (size_t i = 0; i < LENGTH(ids); i++)
        if (json_object_get(generation, ids[i].key))
            TRY(read_id(generation, ids[i].key, file, c->vocab, ids[i].to));
    return SCA_OK;
}

/* GPT2Config takes the common names too, and they win. */
static sca_status take_aliases(const section *s)
{
    static const char *const names[][2] = { { "hidden_size", "n_embd" },
                                            { "max_position_embeddings", "n_positions" },
                                            { "num_attention_heads", "n_head" },
                                            { "num_hidden_layers", "n_layer" } };
    for (size_t i = 0; i < LENGTH(names); i++) {
        json_t *value = json_object_get(s->json, names[i][0]);
        if (value && json_object_set(s->json, names[i][1], value) != 0) return mem_fail(0, "configuration");
    }
    return SCA_OK;
}

static sca_status read_gpt2(const section *s, lm_config *c)
{
    const size_rule sizes[] = {
        { "n_embd", 1, SIZE_MOST, &c->width },          { "n_layer", 1, SIZE_MOST, &c->layers },
        { "n_head", 1, SIZE_MOST, &c->heads },          { "vocab_size", 1, VOCAB_MOST, &c->vocab },
        { "n_positions", 1, SIZE_MOST, &c->positions },
    };
    TRY(take_aliases(s));
    TRY(get_sizes(s, sizes, LENGTH(sizes)));
    TRY(need_multiple(s, "n_embd", c->width, "'n_head'", c->heads));
    c->family = LM_GPT2;
    c->kv_heads = c->heads;
    c->head = c->width / c->heads;
    c->mlp = 4 * c->width;
    if (!json_is_null(json_object_get(s->json, "n_inner")))
        TRY(get_sizes(s, &(size_rule){ "n_inner", 1, 4 * SIZE_MOST, &c->mlp }, 1));
    TRY(get_activation(s, "activation_function", &c->act));
    TRY(get_float(s, "layer_norm_epsilon", 0, 1, &c->eps));
    TRY(get_real(s, "embd_pdrop", 0, 1, &c->dropout_embd));
    TRY(get_real(s, "attn_pdrop", 0, 1, &c->dropout_attn));
    TRY(get_real(s, "resid_pdrop", 0, 1, &c->dropout_resid));
    TRY(need_bool(s, "scale_attn_weights", true));
    TRY(need_bool(s, "scale_attn_by_inverse_layer_idx", false));
    return need_bool(s, "add_cross_attention", false);
}

static sca_status check_llama_options(const section *s)
{
    const char *act;
    double dropout;
    const json_t *scaling = json_object_get(s->json, "rope_scaling");
    TRY(json_need_text(s->json, "hidden_act", s->name, &act));
    if (strcmp(act, "silu") != 0 && strcmp(act, "swish") != 0)
        return status_fail(SCA_ERR_UNSUPPORTED, "%s: 'hidden_act' is '%.100s', only silu is supported", s->name,
                           act);
    if (scaling && !json_is_null(scaling))
        return status_fail(SCA_ERR_UNSUPPORTED, "%s: 'rope_scaling' is set, only null is supported", s->name);
    TRY(need_bool(s, "attention_bias", false));
    TRY(need_bool(s, "mlp_bias", false));
    TRY(get_real(s, "attention_dropout", 0, 1, &dropout));
    if (dropout > 0) log_warn("%s: 'attention_dropout' is %g; training leaves it out", s->name, dropout);
    return SCA_OK;
}

/* Up to the window's length, attention within a sliding window is attention to everything: the window bounds the
 * positions, and nothing is approximated. */
static sca_status read_window(const section *s, lm_config *c)
{
    int window;
    if (json_is_null(json_object_get(s->json, "sliding_window"))) return SCA_OK;
    TRY(get_sizes(s, &(size_rule){ "sliding_window", 1, INT32_MAX, &window }, 1));
    if (window < c->positions) c->positions = window;
    return SCA_OK;
}

static sca_status read_llama(const section *s, config_class class, lm_config *c)
{
    const size_rule sizes[] = {
        { "hidden_size", 1, SIZE_MOST, &c->width },
        { "num_hidden_layers", 1, SIZE_MOST, &c->layers },
        { "num_attention_heads", 1, SIZE_MOST, &c->heads },
        { "intermediate_size", 1, 4 * SIZE_MOST, &c->mlp },
        { "vocab_size", 1, VOCAB_MOST, &c->vocab },
        { "max_position_embeddings", 1, 16 * SIZE_MOST, &c->positions },
    };
    TRY(get_sizes(s, sizes, LENGTH(sizes)));
    TRY(need_multiple(s, "hidden_size", c->width, "'num_attention_heads'", c->heads));
    c->family = LM_LLAMA;
    c->act = ACT_NONE;
    c->head = c->width / c->heads;
    c->kv_heads = c->heads;
    if (!json_is_null(json_object_get(s->json, "num_key_value_heads")))
        TRY(get_sizes(s, &(size_rule){ "num_key_value_heads", 1, SIZE_MOST, &c->kv_heads }, 1));
    TRY(need_multiple(s, "num_attention_heads", c->heads, "'num_key_value_heads'", c->kv_heads));
    TRY(need_multiple(s, "hidden_size", c->head, "the pairs of rotary positions: the head's size must be even,",
                      2));
    if (json_object_get(s->json, "head_dim") && !json_is_null(json_object_get(s->json, "head_dim")))
        TRY(get_sizes(s, &(size_rule){ "head_dim", c->head, c->head, &c->head }, 1));
    TRY(get_float(s, "rms_norm_eps", 0, 1, &c->eps));
    TRY(get_float(s, "rope_theta", 1, 1e12, &c->rope_theta));
    TRY(check_llama_options(s));
    return class == CLASS_MISTRAL ? read_window(s, c) : SCA_OK;
}

static sca_status read_text(const section *s, config_class class, lm_config *c)
{
    TRY(class == CLASS_GPT2 ? read_gpt2(s, c) : read_llama(s, class, c));
    TRY(get_float(s, "initializer_range", 0, 1e6, &c->initializer_range));
    TRY(json_may_bool(s->json, "tie_word_embeddings", s->name, &c->tied));
    c->bos = c->eos = c->pad = -1;
    return lm_config_ids(s->json, s->name, c);
}

static sca_status open_text(const json_t *root, const char *key, const char *file, lm_config *out)
{
    config_class class;
    section s;
    TRY(class_of_text(key ? json_object_get(root, key) : root, file, &class));
    sca_status status = section_open(file, root, key, class, &s);
    if (status == SCA_OK) status = read_text(&s, class, out);
    section_close(&s);
    return status;
}

sca_status lm_config_parse(const json_t *text, const char *file, lm_config *out)
{
    *out = (lm_config){ 0 };
    return open_text(text, NULL, file, out);
}

/* ---- the whole -------------------------------------------------------------------------------------------------
 */

static const char *const variant_names[] = {
    [VARIANT_BASE] = "ScaModel",
    [VARIANT_MULTITASK] = "ScaMultitaskModel",
    [VARIANT_MULTITASK_V2] = "ScaMultitaskV2Model",
    [VARIANT_DIRECT] = "ScaDirectDecodingModel",
    [VARIANT_DIRECT_V2] = "ScaDirectDecodingV2Model",
    [VARIANT_SPLIT_MIXER] = "ScaMultitaskSplitMixerModel",
    [VARIANT_ROI_POOL] = "ScaMultitaskROIPoolModel",
};

const char *variant_name(variant v) { return variant_names[v]; }

static sca_status read_variant(const section *s, variant *out)
{
    const json_t *list = json_object_get(s->json, "architectures");
    const char *name = json_string_value(json_array_get(list, 0));
    if (json_array_size(list) != 1 || !name)
        return status_fail(SCA_ERR_FORMAT,
                           "%s: 'architectures' does not name one class, expected for example [\"%s\"]", s->name,
                           variant_names[VARIANT_MULTITASK_V2]);
    for (size_t i = 0; i < LENGTH(variant_names); i++)
        if (strcmp(name, variant_names[i]) == 0) {
            *out = (variant)i;
            return SCA_OK;
        }
    const char *nearest = text_nearest(name, variant_names, LENGTH(variant_names));
    return status_fail(SCA_ERR_UNSUPPORTED, "%s: 'architectures' names '%.100s', which is unknown; expected %s",
                       s->name, name, nearest ? nearest : "ScaMultitaskV2Model or another class of its family");
}

static sca_status read_projector(const section *s, model_config *m)
{
    static const char *const norms[] = { "none", "pre_norm", "post_norm" };
    const char *type, *place;
    TRY(json_need_text(s->json, "vl_projector_type", s->name, &type));
    TRY(json_need_text(s->json, "vl_projector_norm_type", s->name, &place));
    m->projector_mlp = strcmp(type, "mlp") == 0;
    if (!m->projector_mlp && strcmp(type, "linear") != 0)
        return status_fail(SCA_ERR_UNSUPPORTED, "%s: 'vl_projector_type' is '%.100s', expected linear or mlp",
                           s->name, type);
    for (int i = 0; i < (int)LENGTH(norms); i++)
        if (strcmp(place, norms[i]) == 0) {
            m->projector_norm = i;
            return SCA_OK;
        }
    return status_fail(SCA_ERR_UNSUPPORTED,
                       "%s: 'vl_projector_norm_type' is '%.100s', expected none, pre_norm or post_norm", s->name,
                       place);
}

static sca_status read_top(const section *s, model_config *m)
{
    const char *type;
    TRY(json_need_text(s->json, "model_type", s->name, &type));
    if (strcmp(type, "sca") != 0)
        return status_fail(SCA_ERR_UNSUPPORTED,
                           "%s: 'model_type' is '%.100s', expected sca: is this the folder of a whole model?",
                           s->name, type);
    TRY(read_variant(s, &m->variant));
    TRY(need_bool(s, "use_decoder_only_language_model", true));
    TRY(get_sizes(s, &(size_rule){ "num_task_tokens", 1, SIZE_MOST, &m->task_tokens }, 1));
    TRY(get_float(s, "initializer_range", 0, 1e6, &m->initializer_range));
    return read_projector(s, m);
}

typedef sca_status part_fn(const section *s, model_config *m);

static sca_status part_vision(const section *s, model_config *m) { return read_vision(s, &m->sam); }
static sca_status part_prompt(const section *s, model_config *m) { return read_prompt(s, &m->sam); }

static sca_status read_part(const json_t *root, const char *file, const char *key, config_class c, part_fn *fn,
                            model_config *m)
{
    section s;
    sca_status status = section_open(file, root, key, c, &s);
    if (status == SCA_OK) status = fn(&s, m);
    section_close(&s);
    return status;
}

sca_status model_config_parse(const json_t *root, const char *file, model_config *m)
{
    if (!json_is_object(root))
        return status_fail(SCA_ERR_FORMAT, "%s: is no object, expected a configuration", file);
    TRY(read_part(root, file, NULL, CLASS_SCA, read_top, m));
    TRY(read_part(root, file, "vision_config", CLASS_VISION, part_vision, m));
    TRY(read_part(root, file, "prompt_encoder_config", CLASS_PROMPT, part_prompt, m));
    TRY(read_part(root, file, "mask_caption_decoder_config", CLASS_DECODER, read_decoder, m));
    return open_text(root, "text_config", file, &m->lm);
}

/* ---- preprocessor_config.json
 * ------------------------------------------------------------------------------------ */

sca_status preprocessor_make(int image, json_t **out)
{
    *out = json_pack("{s:b,s:b,s:b,s:b,s:b,s:[f,f,f],s:s,s:[f,f,f],s:{s:i,s:i},s:i,s:f,s:{s:i}}", "do_convert_rgb",
                     1, "do_normalize", 1, "do_pad", 1, "do_rescale", 1, "do_resize", 1, "image_mean", 0.485, 0.456,
                     0.406, "image_processor_type", "SamImageProcessor", "image_std", 0.229, 0.224, 0.225,
                     "pad_size", "height", image, "width", image, "resample", 2, "rescale_factor",
                     0.00392156862745098, "size", "longest_edge", image);
    return *out ? SCA_OK : mem_fail(0, "preprocessor_config.json");
}

/* A size is a number, or an object with the given keys. */
static sca_status check_size(const section *s, const char *key, const char *const *keys, size_t n, int image)
{
    int64_t side;
    const json_t *size = json_object_get(s->json, key);
    if (!size || json_is_null(size)) return SCA_OK;
    if (!json_is_object(size)) {
        TRY(json_need_int(s->json, key, s->name, 1, SIZE_MOST, &side));
        return need_equal(s, key, side, "the model's 'image_size'", image);
    }
    for (size_t i = 0; i < n; i++) {
        TRY(json_need_int(size, keys[i], s->name, 1, SIZE_MOST, &side));
        TRY(need_equal(s, keys[i], side, "the model's 'image_size'", image));
    }
    return SCA_OK;
}

static sca_status read_colours(const section *s, const char *key, double least, double out[3])
{
    const json_t *list = json_object_get(s->json, key);
    if (!list || json_is_null(list)) return SCA_OK;
    for (size_t i = 0; i < 3; i++) {
        const json_t *value = json_array_get(list, i);
        out[i] = json_number_value(value);
        if (json_array_size(list) != 3 || !json_is_number(value) || !isfinite(out[i]) || out[i] < least ||
            out[i] > 1000)
            return status_fail(SCA_ERR_FORMAT, "%s: '%s' is no list of three numbers from %g on", s->name, key,
                               least);
    }
    return SCA_OK;
}

sca_status preprocessor_parse(const json_t *p, const char *file, model_config *m)
{
    static const char *const steps[] = { "do_convert_rgb", "do_normalize", "do_pad", "do_rescale", "do_resize" };
    const section s = { (json_t *)p, (char *)file };
    double factor = 1.0 / 255;
    int64_t resample = 2;
    if (!json_is_object(p)) return status_fail(SCA_ERR_FORMAT, "%s: is no object", file);
    memcpy(m->mean, (const double[3]){ 0.485, 0.456, 0.406 }, sizeof m->mean);
    memcpy(m->std, (const double[3]){ 0.229, 0.224, 0.225 }, sizeof m->std);
    for (size_t i = 0; i < LENGTH(steps); i++) TRY(need_bool(&s, steps[i], true));
    TRY(check_size(&s, "size", (const char *const[]){ "longest_edge" }, 1, m->sam.image));
    TRY(check_size(&s, "pad_size", (const char *const[]){ "height", "width" }, 2, m->sam.image));
    TRY(json_may_int(p, "resample", file, INT32_MIN, INT32_MAX, &resample));
    TRY(json_may_real(p, "rescale_factor", file, &factor));
    if (resample != 2 || fabs(factor * 255 - 1) > 1e-9)
        return status_fail(
            SCA_ERR_UNSUPPORTED,
            "%s: 'resample' is %lld and 'rescale_factor' %g, only 2 (bilinear) and 1/255 are supported", file,
            (long long)resample, factor);
    TRY(read_colours(&s, "image_mean", -1000, m->mean));
    return read_colours(&s, "image_std", 1e-6, m->std);
}

/* ---- a model directory
 * --------------------------------------------------------------------------------------------- */

static sca_status read_config(const char *dir, model_config *m)
{
    char *path = path_join(dir, "config.json");
    if (!path) return mem_fail(strlen(dir), "path");
    sca_status status = json_open(path, &m->json);
    if (status == SCA_OK) status = model_config_parse(m->json, path, m);
    mem_free(path);
    return status;
}

static sca_status read_preprocessor(const char *dir, model_config *m)
{
    sca_status status;
    char *path = path_join(dir, "preprocessor_config.json");
    if (!path) return mem_fail(strlen(dir), "path");
    if (file_exists(path))
        TRY_GOTO(done, json_open(path, &m->preprocessor));
    else
        TRY_GOTO(done, preprocessor_make(m->sam.image, &m->preprocessor));
    status = preprocessor_parse(m->preprocessor, path, m);
done:
    mem_free(path);
    return status;
}

static sca_status read_generation(const char *dir, model_config *m)
{
    sca_status status = SCA_OK;
    char *path = path_join(dir, "generation_config.json");
    if (!path) return mem_fail(strlen(dir), "path");
    if (file_exists(path)) {
        TRY_GOTO(done, json_open(path, &m->generation));
        TRY_GOTO(done, lm_config_ids(m->generation, path, &m->lm));
    }
done:
    mem_free(path);
    return status;
}

sca_status model_config_read(const char *dir, model_config *out)
{
    sca_status status;
    *out = (model_config){ 0 };
    TRY_GOTO(fail, read_config(dir, out));
    TRY_GOTO(fail, read_preprocessor(dir, out));
    TRY_GOTO(fail, read_generation(dir, out));
    return SCA_OK;
fail:
    model_config_free(out);
    return status;
}

void model_config_free(model_config *m)
{
    json_decref(m->json);
    json_decref(m->preprocessor);
    json_decref(m->generation);
    *m = (model_config){ 0 };
}
