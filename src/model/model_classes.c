/* model_classes.c - defaults of the official configuration classes (configuration_sca, configuration_sam, and
 * transformers 4.36.2), so that a missing key means what it means there and a fresh config.json is complete. */
#include "model/model_classes.h"

#include <stdlib.h>
#include <string.h>

/* Every configuration has these. */
static const char common[] =
    "{\"_name_or_path\":\"\",\"add_cross_attention\":false,\"architectures\":null,\"bad_words_ids\":null,"
    "\"begin_suppress_tokens\":null,\"bos_token_id\":null,\"chunk_size_feed_forward\":0,"
    "\"cross_attention_hidden_size\":null,\"decoder_start_token_id\":null,\"diversity_penalty\":0.0,"
    "\"do_sample\":false,\"early_stopping\":false,\"encoder_no_repeat_ngram_size\":0,\"eos_token_id\":null,"
    "\"exponential_decay_length_penalty\":null,\"finetuning_task\":null,\"forced_bos_token_id\":null,"
    "\"forced_eos_token_id\":null,\"id2label\":{\"0\":\"LABEL_0\",\"1\":\"LABEL_1\"},\"is_decoder\":false,"
    "\"is_encoder_decoder\":false,\"label2id\":{\"LABEL_0\":0,\"LABEL_1\":1},\"length_penalty\":1.0,"
    "\"max_length\":20,\"min_length\":0,\"model_type\":\"\",\"no_repeat_ngram_size\":0,\"num_beam_groups\":1,"
    "\"num_beams\":1,\"num_return_sequences\":1,\"output_attentions\":false,\"output_hidden_states\":false,"
    "\"output_scores\":false,\"pad_token_id\":null,\"prefix\":null,\"problem_type\":null,\"pruned_heads\":{},"
    "\"remove_invalid_values\":false,\"repetition_penalty\":1.0,\"return_dict\":true,"
    "\"return_dict_in_generate\":false,\"sep_token_id\":null,\"suppress_tokens\":null,"
    "\"task_specific_params\":null,\"temperature\":1.0,\"tf_legacy_loss\":false,\"tie_encoder_decoder\":false,"
    "\"tie_word_embeddings\":true,\"tokenizer_class\":null,\"top_k\":50,\"top_p\":1.0,\"torch_dtype\":null,"
    "\"torchscript\":false,\"transformers_version\":\"4.36.2\",\"typical_p\":1.0,\"use_bfloat16\":false}";

static const char *const own[] = {
    [CLASS_SCA] = "{\"_commit_hash\":null,\"_name_or_path\":\"\",\"architectures\":null,\"initializer_range\":0.02,"
                  "\"model_type\":\"sca\",\"num_task_tokens\":6,\"transformers_version\":null,"
                  "\"use_decoder_only_language_model\":true,\"vl_projector_norm_type\":\"none\","
                  "\"vl_projector_type\":\"linear\"}",
    [CLASS_VISION] =
        "{\"hidden_size\":768,\"intermediate_size\":6144,\"projection_dim\":512,\"output_channels\":256,"
        "\"num_hidden_layers\":12,\"num_attention_heads\":12,\"num_channels\":3,\"image_size\":1024,"
        "\"patch_size\":16,\"hidden_act\":\"gelu\",\"layer_norm_eps\":1e-06,\"dropout\":0.0,"
        "\"attention_dropout\":0.0,\"initializer_range\":1e-10,\"initializer_factor\":1.0,\"qkv_bias\":true,"
        "\"mlp_ratio\":4.0,\"use_abs_pos\":true,\"use_rel_pos\":true,\"window_size\":14,"
        "\"global_attn_indexes\":[2,5,8,11],\"num_pos_feats\":128,\"mlp_dim\":null}",
    [CLASS_PROMPT] = "{\"hidden_size\":256,\"image_size\":1024,\"patch_size\":16,\"mask_input_channels\":16,"
                     "\"num_point_embeddings\":4,\"hidden_act\":\"gelu\",\"layer_norm_eps\":1e-06}",
    [CLASS_DECODER] = "{\"hidden_size\":256,\"hidden_act\":\"relu\",\"mlp_dim\":2048,\"num_hidden_layers\":2,"
                      "\"num_attention_heads\":8,\"attention_downsample_rate\":2,\"num_multimask_outputs\":3,"
                      "\"iou_head_depth\":3,\"iou_head_hidden_dim\":256,\"layer_norm_eps\":1e-06,"
                      "\"additional_num_hidden_layers\":2,\"num_caption_tokens\":1,\"num_caption_heads\":1}",
    [CLASS_GPT2] =
        "{\"model_type\":\"gpt2\",\"vocab_size\":50257,\"n_positions\":1024,\"n_embd\":768,\"n_layer\":12,"
        "\"n_head\":12,\"n_inner\":null,\"activation_function\":\"gelu_new\",\"resid_pdrop\":0.1,"
        "\"embd_pdrop\":0.1,\"attn_pdrop\":0.1,\"layer_norm_epsilon\":1e-05,\"initializer_range\":0.02,"
        "\"summary_type\":\"cls_index\",\"summary_use_proj\":true,\"summary_activation\":null,"
        "\"summary_proj_to_labels\":true,\"summary_first_dropout\":0.1,\"scale_attn_weights\":true,"
        "\"use_cache\":true,\"bos_token_id\":50256,\"eos_token_id\":50256,"
        "\"scale_attn_by_inverse_layer_idx\":false,\"reorder_and_upcast_attn\":false}",
    [CLASS_LLAMA] =
        "{\"model_type\":\"llama\",\"vocab_size\":32000,\"hidden_size\":4096,\"intermediate_size\":11008,"
        "\"num_hidden_layers\":32,\"num_attention_heads\":32,\"num_key_value_heads\":null,"
        "\"hidden_act\":\"silu\",\"max_position_embeddings\":2048,\"initializer_range\":0.02,"
        "\"rms_norm_eps\":1e-06,\"use_cache\":true,\"pad_token_id\":null,\"bos_token_id\":1,\"eos_token_id\":2,"
        "\"pretraining_tp\":1,\"tie_word_embeddings\":false,\"rope_theta\":10000.0,\"rope_scaling\":null,"
        "\"attention_bias\":false,\"attention_dropout\":0.0}",
    [CLASS_MISTRAL] =
        "{\"model_type\":\"mistral\",\"vocab_size\":32000,\"hidden_size\":4096,\"intermediate_size\":14336,"
        "\"num_hidden_layers\":32,\"num_attention_heads\":32,\"num_key_value_heads\":8,"
        "\"hidden_act\":\"silu\",\"max_position_embeddings\":131072,\"initializer_range\":0.02,"
        "\"rms_norm_eps\":1e-06,\"use_cache\":true,\"pad_token_id\":null,\"bos_token_id\":1,\"eos_token_id\":2,"
        "\"tie_word_embeddings\":false,\"rope_theta\":10000.0,\"sliding_window\":4096,\"attention_dropout\":0.0}",
};

static int compare_texts(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

sca_status json_sorted(const json_t *object, json_t **out)
{
    size_t n = json_object_size(object), i = 0;
    const char *key;
    json_t *value, *result = json_object();
    const char **keys = mem_zero(n + 1, sizeof *keys);
    bool failed = !keys || !result;
    *out = NULL;
    if (!failed) {
        json_object_foreach((json_t *)object, key, value) keys[i++] = key;
        qsort(keys, n, sizeof *keys, compare_texts);
        for (i = 0; i < n; i++)
            failed = json_object_set(result, keys[i], json_object_get(object, keys[i])) != 0 || failed;
    }
    mem_free(keys);
    if (failed) {
        json_decref(result);
        return mem_fail(n * sizeof *keys, "configuration");
    }
    *out = result;
    return SCA_OK;
}

static sca_status overlay(json_t *into, const char *text)
{
    json_t *more;
    TRY(json_parse(text, strlen(text), "defaults", &more));
    int failed = json_object_update(into, more);
    json_decref(more);
    return failed ? mem_fail(strlen(text), "configuration") : SCA_OK;
}

sca_status class_complete(config_class c, const json_t *given, json_t **out)
{
    sca_status status = SCA_OK;
    *out = NULL;
    json_t *all = json_object();
    if (!all) return mem_fail(0, "configuration");
    if (c != CLASS_SCA) TRY_GOTO(done, overlay(all, common));
    TRY_GOTO(done, overlay(all, own[c]));
    if (given && json_object_update(all, (json_t *)given) != 0) TRY_GOTO(done, mem_fail(0, "configuration"));
    status = json_sorted(all, out);
done:
    json_decref(all);
    return status;
}

sca_status class_of_text(const json_t *text, const char *file, config_class *out)
{
    static const struct {
        const char *name;
        config_class class;
    } known[] = { { "gpt2", CLASS_GPT2 }, { "llama", CLASS_LLAMA }, { "mistral", CLASS_MISTRAL } };
    const char *name = "gpt2";
    if (json_object_size(text) > 0) TRY(json_may_text(text, "model_type", file, &name));
    for (size_t i = 0; i < LENGTH(known); i++)
        if (strcmp(name, known[i].name) == 0) {
            *out = known[i].class;
            return SCA_OK;
        }
    return status_fail(SCA_ERR_UNSUPPORTED, "%s: 'model_type' is '%.100s', expected gpt2, llama or mistral", file,
                       name);
}
