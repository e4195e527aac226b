/* test_model_config.c - sizes of the golden models, wrong values, fresh models. */
#include "check.h"
#include "model/model_classes.h"

#include <unistd.h>

#define GOLDEN SCA_SHARED "/golden/"

static bool shared_there(void)
{
    if (dir_exists(GOLDEN "models")) return true;
    check_skip("shared: the golden models are absent");
    return false;
}

/* ---- golden models ----------------------------------------------------------------------------------- */

static void golden_gpt2(void)
{
    model_config m;
    if (!shared_there()) return;
    CHECK_OK(model_config_read(GOLDEN "models/gpt2-tiny", &m));
    const sam_config *s = &m.sam;
    const lm_config *l = &m.lm;
    CHECK(m.variant == VARIANT_MULTITASK_V2 && m.mixer_layers == 3 && m.caption_tokens == 8 && m.task_tokens == 6);
    CHECK(s->image == 256 && s->grid == 16 && s->width == 48 && s->layers == 4 && s->heads == 3 && s->mlp == 192);
    CHECK(s->window == 6 && !s->global[0] && s->global[1] && !s->global[2] && s->global[3]);
    CHECK(s->channels == 64 && s->pos_feats == 32 && s->mask_channels == 16 && s->masks == 4 && s->iou_depth == 3);
    CHECK(s->decoder_layers == 2 && s->decoder_heads == 8 && s->decoder_mlp == 128 && s->downsample == 2);
    CHECK(s->encoder_act == ACT_GELU && s->prompt_act == ACT_GELU && s->decoder_act == ACT_RELU);
    CHECK(s->qkv_bias && s->abs_pos && s->rel_pos && s->encoder_eps == 1e-6f);
    CHECK(l->family == LM_GPT2 && l->width == 48 && l->layers == 3 && l->heads == 4 && l->head == 12);
    CHECK(l->mlp == 192 && l->vocab == 700 && l->positions == 64 && l->act == ACT_GELU_TANH && l->tied);
    CHECK(l->bos == 699 && l->eos == 699 && l->pad == -1 && l->eps == 1e-5f && l->dropout_attn == 0.1);
    CHECK(m.mean[0] == 0.485 && m.std[2] == 0.225 && m.initializer_range == 0.02f && m.generation);
    model_config_free(&m);
}

static void golden_llama(void)
{
    model_config m;
    if (!shared_there()) return;
    CHECK_OK(model_config_read(GOLDEN "models/llama-tiny", &m));
    const lm_config *l = &m.lm;
    CHECK(m.sam.window == 5 && m.sam.mlp == 64 && m.sam.iou_hidden == 40 && m.sam.mask_channels == 8);
    CHECK(l->family == LM_LLAMA && l->kv_heads == 2 && l->heads == 4 && l->head == 12 && l->mlp == 120 && !l->tied);
    CHECK(l->bos == 1 && l->eos == 2 && l->pad == 0 && l->rope_theta == 10000 && l->eps == 1e-6f);
    model_config_free(&m);
}

static void golden_variants(void)
{
    static const struct {
        const char *dir;
        variant variant;
    } cases[] = { { "base_sca", VARIANT_BASE },
                  { "base_sca_multitask", VARIANT_MULTITASK },
                  { "base_sca_direct_decoding", VARIANT_DIRECT },
                  { "base_sca_direct_decoding_v2", VARIANT_DIRECT_V2 },
                  { "base_sca_multitask_split_mixer", VARIANT_SPLIT_MIXER },
                  { "base_sca_multitask_roi_pool", VARIANT_ROI_POOL },
                  { "base_sca_multitask_roi_pool_mlp", VARIANT_ROI_POOL },
                  { "base_sca_multitask_roi_pool_prenorm", VARIANT_ROI_POOL },
                  { "base_sca_multitask_v2_heads2", VARIANT_MULTITASK_V2 } };
    if (!shared_there()) return;
    for (size_t i = 0; i < LENGTH(cases); i++) {
        char path[512];
        model_config m;
        snprintf(path, sizeof path, GOLDEN "ablation/%s/model", cases[i].dir);
        CHECK_OK(model_config_read(path, &m));
        CHECKF(m.variant == cases[i].variant, "%s is %s", path, variant_name(m.variant));
        CHECK(m.projector_mlp == (strstr(path, "_mlp") != NULL));
        CHECK(m.projector_norm == (strstr(path, "_prenorm") != NULL));
        CHECK(m.caption_heads == (strstr(path, "heads2") ? 2 : 1));
        model_config_free(&m);
    }
}

/* ---- wrong values ------------------------------------------------------------------------------------ */

/* model_config_parse of this text. */
static sca_status parse(const char *text, model_config *m)
{
    json_t *root;
    *m = (model_config){ 0 };
    TRY(json_parse(text, strlen(text), "config.json", &root));
    sca_status status = model_config_parse(root, "config.json", m);
    json_decref(root);
    return status;
}

/* The smallest configuration, with the given members of one section. */
static sca_status parse_with(const char *key, const char *members, model_config *m)
{
    char text[2000];
    snprintf(text, sizeof text, "{\"architectures\":[\"ScaMultitaskV2Model\"],\"%s\":{%s}}", key, members);
    return parse(text, m);
}

static void defaults(void)
{
    model_config m;
    CHECK_OK(parse("{\"architectures\":[\"ScaModel\"]}", &m));
    CHECK(m.sam.image == 1024 && m.sam.width == 768 && m.sam.mlp == 3072 && m.sam.global[11] && m.sam.window == 14);
    CHECK(m.lm.family == LM_GPT2 && m.lm.vocab == 50257 && m.lm.eos == 50256 && m.lm.tied && m.lm.mlp == 3072);
    CHECK(m.mixer_layers == 2 && m.caption_tokens == 1 && m.task_tokens == 6 && m.caption_heads == 1);
    CHECK_OK(parse_with("text_config", "\"model_type\":\"llama\"", &m));
    CHECK(m.lm.family == LM_LLAMA && m.lm.kv_heads == 32 && m.lm.positions == 2048 && !m.lm.tied && m.lm.pad == -1);
    CHECK_OK(parse_with("text_config", "\"model_type\":\"mistral\"", &m));
    CHECK(m.lm.family == LM_LLAMA && m.lm.kv_heads == 8 && m.lm.positions == 4096);
    CHECK_OK(parse_with("text_config", "\"model_type\":\"mistral\",\"sliding_window\":null", &m));
    CHECK(m.lm.positions == 131072);
    CHECK_OK(parse_with("text_config", "\"n_embd\":8,\"hidden_size\":24,\"vocab_size\":60000", &m));
    CHECK(m.lm.width == 24);
    CHECK_OK(parse_with("vision_config", "\"window_size\":0,\"mlp_dim\":null,\"mlp_ratio\":2.5", &m));
    CHECK(m.sam.global[0] && m.sam.global[1] && m.sam.mlp == 1920);
}

static void wrong_values(void)
{
    static const struct {
        const char *section, *members, *message;
        sca_status status;
    } cases[] = {
        { "vision_config", "\"hidden_size\":0", "vision_config: 'hidden_size' is 0", SCA_ERR_FORMAT },
        { "vision_config", "\"hidden_size\":-5", "'hidden_size' is -5", SCA_ERR_FORMAT },
        { "vision_config", "\"hidden_size\":\"768\"", "'hidden_size' is '768'", SCA_ERR_FORMAT },
        { "vision_config", "\"hidden_size\":768.5", "'hidden_size' is 768.5", SCA_ERR_FORMAT },
        { "vision_config", "\"hidden_size\":null", "'hidden_size' is null", SCA_ERR_FORMAT },
        { "vision_config", "\"hidden_size\":100000", "'hidden_size' is 100000", SCA_ERR_FORMAT },
        { "vision_config", "\"hidden_size\":769", "multiple of 'num_attention_heads'", SCA_ERR_FORMAT },
        { "vision_config", "\"image_size\":1000", "multiple of 'patch_size'", SCA_ERR_FORMAT },
        { "vision_config", "\"num_pos_feats\":64", "twice 'num_pos_feats'", SCA_ERR_FORMAT },
        { "vision_config", "\"num_hidden_layers\":1000", "from 1 to 256", SCA_ERR_FORMAT },
        { "vision_config", "\"global_attn_indexes\":[12]", "holds 12", SCA_ERR_FORMAT },
        { "vision_config", "\"global_attn_indexes\":3", "no list", SCA_ERR_FORMAT },
        { "vision_config", "\"hidden_act\":\"tanh\"", "'hidden_act' is 'tanh'", SCA_ERR_UNSUPPORTED },
        { "vision_config", "\"qkv_bias\":1", "'qkv_bias'", SCA_ERR_FORMAT },
        { "vision_config", "\"mlp_dim\":0", "'mlp_dim' is 0", SCA_ERR_FORMAT },
        { "vision_config", "\"mlp_dim\":null,\"mlp_ratio\":0", "'mlp_ratio'", SCA_ERR_FORMAT },
        { "vision_config", "\"num_channels\":1", "'num_channels' is 1", SCA_ERR_FORMAT },
        { "vision_config", "\"dropout\":0.1", "'dropout' is 0.1", SCA_ERR_UNSUPPORTED },
        { "vision_config", "\"layer_norm_eps\":-1", "'layer_norm_eps' is -1", SCA_ERR_FORMAT },
        { "vision_config", "\"a\":1,\"a\":2", "config.json: line 1", SCA_ERR_FORMAT },
        { "prompt_encoder_config", "\"hidden_size\":128", "'output_channels' of vision_config", SCA_ERR_FORMAT },
        { "prompt_encoder_config", "\"image_size\":512", "that of vision_config", SCA_ERR_FORMAT },
        { "prompt_encoder_config", "\"mask_input_channels\":6", "'mask_input_channels' is 6", SCA_ERR_FORMAT },
        { "prompt_encoder_config", "\"num_point_embeddings\":5", "'num_point_embeddings' is 5", SCA_ERR_FORMAT },
        { "mask_caption_decoder_config", "\"num_attention_heads\":7", "'num_attention_heads'", SCA_ERR_FORMAT },
        { "mask_caption_decoder_config", "\"attention_downsample_rate\":3", "downsample", SCA_ERR_FORMAT },
        { "mask_caption_decoder_config", "\"num_attention_heads\":256", "after division", SCA_ERR_FORMAT },
        { "mask_caption_decoder_config", "\"additional_num_hidden_layers\":0", "is 0", SCA_ERR_FORMAT },
        { "mask_caption_decoder_config", "\"num_caption_tokens\":[1]", "a list", SCA_ERR_FORMAT },
        { "text_config", "\"model_type\":\"opt\"", "'model_type' is 'opt'", SCA_ERR_UNSUPPORTED },
        { "text_config", "\"model_type\":3", "'model_type' is 3", SCA_ERR_FORMAT },
        { "text_config", "\"n_embd\":770", "multiple of 'n_head'", SCA_ERR_FORMAT },
        { "text_config", "\"vocab_size\":5000000", "'vocab_size' is 5000000", SCA_ERR_FORMAT },
        { "text_config", "\"vocab_size\":100", "'bos_token_id' is no id", SCA_ERR_FORMAT },
        { "text_config", "\"activation_function\":\"mish\"", "'mish'", SCA_ERR_UNSUPPORTED },
        { "text_config", "\"scale_attn_weights\":false", "'scale_attn_weights'", SCA_ERR_UNSUPPORTED },
        { "text_config", "\"model_type\":\"llama\",\"rope_scaling\":{\"type\":\"linear\",\"factor\":2}",
          "'rope_scaling'", SCA_ERR_UNSUPPORTED },
        { "text_config", "\"model_type\":\"llama\",\"attention_bias\":true", "'attention_bias'",
          SCA_ERR_UNSUPPORTED },
        { "text_config", "\"model_type\":\"llama\",\"hidden_act\":\"gelu\"", "only silu", SCA_ERR_UNSUPPORTED },
        { "text_config", "\"model_type\":\"llama\",\"num_key_value_heads\":5", "'num_key_value_heads'",
          SCA_ERR_FORMAT },
        { "text_config", "\"model_type\":\"llama\",\"num_attention_heads\":4096", "even", SCA_ERR_FORMAT },
        { "text_config", "\"model_type\":\"llama\",\"head_dim\":64", "'head_dim' is 64", SCA_ERR_FORMAT },
        { "text_config", "\"model_type\":\"mistral\",\"sliding_window\":0", "'sliding_window' is 0",
          SCA_ERR_FORMAT },
    };
    for (size_t i = 0; i < LENGTH(cases); i++) {
        model_config m;
        CHECK_FAILS(parse_with(cases[i].section, cases[i].members, &m), cases[i].status, cases[i].message);
    }
}

static void wrong_top(void)
{
    model_config m;
    CHECK_FAILS(parse("[1]", &m), SCA_ERR_FORMAT, "no object");
    CHECK_FAILS(parse("{}", &m), SCA_ERR_FORMAT, "'architectures'");
    CHECK_FAILS(parse("{\"architectures\":[\"ScaMultitaskV3Model\"]}", &m), SCA_ERR_UNSUPPORTED,
                "ScaMultitaskV3Model");
    CHECK_FAILS(parse("{\"architectures\":[\"ScaModel\",\"ScaModel\"]}", &m), SCA_ERR_FORMAT, "one class");
    CHECK_FAILS(parse("{\"architectures\":[\"ScaModel\"],\"model_type\":\"sam\"}", &m), SCA_ERR_UNSUPPORTED,
                "'sam'");
    CHECK_FAILS(parse("{\"architectures\":[\"ScaModel\"],\"text_config\":[]}", &m), SCA_ERR_FORMAT,
                "'text_config'");
    CHECK_FAILS(parse("{\"architectures\":[\"ScaModel\"],\"num_task_tokens\":0}", &m), SCA_ERR_FORMAT,
                "'num_task_tokens' is 0");
    CHECK_FAILS(parse("{\"architectures\":[\"ScaModel\"],\"vl_projector_type\":\"conv\"}", &m), SCA_ERR_UNSUPPORTED,
                "'conv'");
    CHECK_FAILS(model_config_read(SCA_BUILD "/no-such-folder", &m), SCA_ERR_IO, "config.json");
}

static sca_status parse_preprocessor(const char *text)
{
    model_config m = { .sam.image = 256 };
    json_t *root;
    TRY(json_parse(text, strlen(text), "preprocessor_config.json", &root));
    sca_status status = preprocessor_parse(root, "preprocessor_config.json", &m);
    json_decref(root);
    return status;
}

static void preprocessor(void)
{
    CHECK_OK(parse_preprocessor("{}"));
    CHECK_OK(parse_preprocessor("{\"size\":256,\"pad_size\":{\"height\":256,\"width\":256}}"));
    CHECK_FAILS(parse_preprocessor("{\"size\":{\"longest_edge\":512}}"), SCA_ERR_FORMAT, "'longest_edge' is 512");
    CHECK_FAILS(parse_preprocessor("{\"pad_size\":{\"height\":256}}"), SCA_ERR_FORMAT, "'width'");
    CHECK_FAILS(parse_preprocessor("{\"image_std\":[0,1,1]}"), SCA_ERR_FORMAT, "'image_std'");
    CHECK_FAILS(parse_preprocessor("{\"image_mean\":[0,1]}"), SCA_ERR_FORMAT, "'image_mean'");
    CHECK_FAILS(parse_preprocessor("{\"do_pad\":false}"), SCA_ERR_UNSUPPORTED, "'do_pad'");
    CHECK_FAILS(parse_preprocessor("{\"resample\":3}"), SCA_ERR_UNSUPPORTED, "'resample'");
    CHECK_FAILS(parse_preprocessor("[]"), SCA_ERR_FORMAT, "no object");
}

/* ---- fresh models ------------------------------------------------------------------------------------ */

/* A fresh model from assignments; opens the weights that they name. */
static sca_status fresh(const char *const *assignments, size_t n, model_config *out)
{
    config *c = NULL;
    weights *sam = NULL, *text = NULL;
    sca_status status;
    *out = (model_config){ 0 };
    TRY_GOTO(done, config_open(NULL, &c));
    for (size_t i = 0; i < n; i++) TRY_GOTO(done, config_set(c, assignments[i]));
    if (c->model_sam[0] && !text_starts(c->model_sam, "random:")) {
        TRY_GOTO(done, weights_open(c->model_sam, &sam));
        TRY_GOTO(done, weights_as_sam(sam));
    }
    if (c->model_lm[0] && !text_starts(c->model_lm, "random:")) {
        TRY_GOTO(done, weights_open(c->model_lm, &text));
        TRY_GOTO(done, weights_as_lm(text));
    }
    status = model_config_fresh(c, sam, text, out);
done:
    weights_close(sam);
    weights_close(text);
    config_close(c);
    return status;
}

/* The JSON of m, and of the golden model it stands for, are the same text. */
static void check_same(const json_t *ours, const json_t *golden, const char *what)
{
    char *a = json_dumps(ours, JSON_INDENT(2)), *b = json_dumps(golden, JSON_INDENT(2));
    size_t at = 0;
    while (a && b && a[at] && a[at] == b[at]) at++;
    CHECKF(a && b && strcmp(a, b) == 0, "%s: '%.60s', expected '%.60s'", what, a ? a + at : "", b ? b + at : "");
    free(a);
    free(b);
}

static void fresh_golden(void)
{
    static const char *const sams[] = { "model.sam=" GOLDEN "models/parts/sam-tiny-hf",
                                        "model.sam=" GOLDEN "models/parts/sam_tiny.pth" };
    if (!shared_there()) return;
    for (size_t i = 0; i < LENGTH(sams); i++) {
        const char *const set[] = { sams[i], "model.lm=" GOLDEN "models/parts/gpt2-lm", "model.mixer_layers=3" };
        model_config m, golden;
        CHECK_OK(fresh(set, LENGTH(set), &m));
        CHECK_OK(model_config_read(GOLDEN "models/gpt2-tiny-fresh", &golden));
        check_same(m.json, golden.json, "config.json");
        check_same(m.preprocessor, golden.preprocessor, "preprocessor_config.json");
        check_same(m.generation, golden.generation, "generation_config.json");
        json_t *json = m.json, *preprocessor_json = m.preprocessor, *generation = m.generation;
        m.json = golden.json, m.preprocessor = golden.preprocessor, m.generation = golden.generation;
        CHECK(memcmp(&m.sam, &golden.sam, sizeof m.sam) == 0);
        m.json = json, m.preprocessor = preprocessor_json, m.generation = generation;
        model_config_free(&m);
        model_config_free(&golden);
    }
}

static void fresh_llama(void)
{
    static const char *const set[] = { "model.sam=random:vit_b", "model.lm=" GOLDEN "models/parts/open_llama-lm" };
    model_config m, golden;
    if (!shared_there()) return;
    CHECK_OK(fresh(set, LENGTH(set), &m));
    CHECK_OK(model_config_read(GOLDEN "models/llama-tiny", &golden));
    check_same(json_object_get(m.json, "text_config"), json_object_get(golden.json, "text_config"), "text_config");
    check_same(m.generation, golden.generation, "generation_config.json");
    CHECK(json_is_false(json_object_get(m.json, "tie_word_embeddings")));
    model_config_free(&m);
    model_config_free(&golden);
}

static void fresh_random(void)
{
    static const char *const large[] = { "model.sam=random:vit_h", "model.lm=random:gpt2-large" };
    static const char *const llama[] = { "model.sam=random:vit_l",    "model.lm=random:open_llama_3b",
                                         "model.variant=roi_pool",    "model.projector=mlp",
                                         "model.projector_norm=post", "model.task_tokens=5",
                                         "model.caption_heads=2",     "model.caption_tokens=3" };
    static const char *const wrong_sam[] = { "model.sam=random:vit_x", "model.lm=random:gpt2" };
    static const char *const wrong_lm[] = { "model.sam=random:vit_b", "model.lm=random:gpt3" };
    model_config m;
    CHECK_OK(fresh(large, LENGTH(large), &m));
    CHECK(m.variant == VARIANT_MULTITASK_V2 && m.mixer_layers == 12 && m.caption_tokens == 8 && m.task_tokens == 6);
    CHECK(m.sam.width == 1280 && m.sam.layers == 32 && m.sam.heads == 16 && m.sam.mlp == 5120 &&
          m.sam.window == 14);
    CHECK(m.sam.global[31] && m.sam.global[7] && !m.sam.global[8] && m.sam.image == 1024 && m.sam.channels == 256);
    CHECK(m.lm.width == 1280 && m.lm.layers == 36 && m.lm.heads == 20 && m.lm.eos == 50256 && m.lm.vocab == 50257);
    model_config_free(&m);
    CHECK_OK(fresh(llama, LENGTH(llama), &m));
    CHECK(m.variant == VARIANT_ROI_POOL && m.projector_mlp && m.projector_norm == 2 && m.task_tokens == 5);
    CHECK(m.caption_heads == 2 && m.caption_tokens == 3 && m.sam.width == 1024 && m.sam.mlp == 4096);
    CHECK(m.lm.width == 3200 && m.lm.mlp == 8640 && m.lm.layers == 26 && m.lm.head == 100 && m.lm.kv_heads == 32);
    CHECK(m.lm.positions == 2048 && m.lm.vocab == 32000 && !m.lm.tied && m.lm.bos == 1 && m.lm.pad == 0);
    model_config_free(&m);
    CHECK_FAILS(fresh(wrong_sam, 2, &m), SCA_ERR_ARGUMENT, "vit_x");
    CHECK_FAILS(fresh(wrong_lm, 2, &m), SCA_ERR_ARGUMENT, "gpt3");
    CHECK_FAILS(fresh(wrong_lm, 1, &m), SCA_ERR_ARGUMENT, "model.lm");
    CHECK_FAILS(fresh(NULL, 0, &m), SCA_ERR_ARGUMENT, "model.sam");
}

static void fresh_config(void)
{
    static const char *const set[] = { "model.config=" GOLDEN "models/llama-tiny/config.json" };
    model_config m, golden;
    if (!shared_there()) return;
    CHECK_OK(fresh(set, 1, &m));
    CHECK_OK(model_config_read(GOLDEN "models/llama-tiny", &golden));
    check_same(m.json, golden.json, "config.json");
    check_same(m.preprocessor, golden.preprocessor, "preprocessor_config.json");
    check_same(m.generation, golden.generation, "generation_config.json");
    model_config_free(&m);
    model_config_free(&golden);
}

int main(int argc, char **argv)
{
    RUN(golden_gpt2);
    RUN(golden_llama);
    RUN(golden_variants);
    RUN(defaults);
    RUN(wrong_values);
    RUN(wrong_top);
    RUN(preprocessor);
    RUN(fresh_golden);
    RUN(fresh_llama);
    RUN(fresh_random);
    RUN(fresh_config);
    return check_done();
}
