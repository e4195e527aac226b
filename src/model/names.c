/* names.c - other people's parameter names become the official ones (model.md 10.2, 10.4). */
#include "model/weights.h"

#include <string.h>

static sca_status rename_slot(weight_slot *slot, str *name)
{
    char *text;
    TRY(str_take(name, &text));
    mem_free(slot->name);
    slot->name = text;
    return SCA_OK;
}

/* Takes out the slots whose name has been given up. */
static void compact(weights *w)
{
    size_t kept = 0;
    for (size_t i = 0; i < w->n; i++)
        if (w->slots[i].name) w->slots[kept++] = w->slots[i];
    w->n = kept;
}

static void drop_slot(weight_slot *slot)
{
    mem_free(slot->name);
    slot->name = NULL;
}

/* ---- original segment_anything --------------------------------------------------------------------------- */

typedef struct rule {
    const char *from, *to; /* '#' stands for a number, '*' at the end for the rest; both sides have the same */
} rule;

/* The first rule that matches the whole name counts; a name that none matches stays as it is. */
static const rule sam_rules[] = {
    { "image_encoder.pos_embed", "vision_encoder.pos_embed" },
    { "image_encoder.patch_embed.proj.*", "vision_encoder.patch_embed.projection.*" },
    { "image_encoder.blocks.#.norm1.*", "vision_encoder.layers.#.layer_norm1.*" },
    { "image_encoder.blocks.#.norm2.*", "vision_encoder.layers.#.layer_norm2.*" },
    { "image_encoder.blocks.#.*", "vision_encoder.layers.#.*" },
    { "image_encoder.neck.0.*", "vision_encoder.neck.conv1.*" },
    { "image_encoder.neck.1.*", "vision_encoder.neck.layer_norm1.*" },
    { "image_encoder.neck.2.*", "vision_encoder.neck.conv2.*" },
    { "image_encoder.neck.3.*", "vision_encoder.neck.layer_norm2.*" },
    { "prompt_encoder.pe_layer.positional_encoding_gaussian_matrix",
      "prompt_encoder.shared_embedding.positional_embedding" },
    { "prompt_encoder.point_embeddings.#.*", "prompt_encoder.point_embed.#.*" },
    { "prompt_encoder.mask_downscaling.0.*", "prompt_encoder.mask_embed.conv1.*" },
    { "prompt_encoder.mask_downscaling.1.*", "prompt_encoder.mask_embed.layer_norm1.*" },
    { "prompt_encoder.mask_downscaling.3.*", "prompt_encoder.mask_embed.conv2.*" },
    { "prompt_encoder.mask_downscaling.4.*", "prompt_encoder.mask_embed.layer_norm2.*" },
    { "prompt_encoder.mask_downscaling.6.*", "prompt_encoder.mask_embed.conv3.*" },
    { "mask_decoder.transformer.layers.#.norm1.*", "mask_decoder.transformer.layers.#.layer_norm1.*" },
    { "mask_decoder.transformer.layers.#.norm2.*", "mask_decoder.transformer.layers.#.layer_norm2.*" },
    { "mask_decoder.transformer.layers.#.norm3.*", "mask_decoder.transformer.layers.#.layer_norm3.*" },
    { "mask_decoder.transformer.layers.#.norm4.*", "mask_decoder.transformer.layers.#.layer_norm4.*" },
    { "mask_decoder.transformer.norm_final_attn.*", "mask_decoder.transformer.layer_norm_final_attn.*" },
    { "mask_decoder.output_upscaling.0.*", "mask_decoder.upscale_conv1.*" },
    { "mask_decoder.output_upscaling.1.*", "mask_decoder.upscale_layer_norm.*" },
    { "mask_decoder.output_upscaling.3.*", "mask_decoder.upscale_conv2.*" },
};

/* The multilayer perceptrons number all their layers; the official names set the first and the last apart. */
static const char *const mlp_rules[] = { "mask_decoder.output_hypernetworks_mlps.#.layers.#.*",
                                         "mask_decoder.iou_prediction_head.layers.#.*" };

static bool is_digit(char c) { return c >= '0' && c <= '9'; }

/* Whether `name` is `pattern`; numbers[] and *rest are what '#' and '*' stood for. Without '*', *rest is what is
 * left. */
static bool match(const char *pattern, const char *name, const char *numbers[4], const char **rest)
{
    size_t n = 0;
    for (; *pattern && *pattern != '*'; pattern++) {
        if (*pattern != '#') {
            if (*name++ != *pattern) return false;
            continue;
        }
        if (!is_digit(*name)) return false;
        numbers[n++] = name;
        while (is_digit(*name)) name++;
    }
    *rest = name;
    return *pattern == '*' || *name == 0;
}

static void put_number(str *out, const char *number)
{
    while (is_digit(*number)) str_putc(out, *number++);
}

bool name_apply(const char *from, const char *to, const char *name, str *out)
{
    const char *numbers[4], *rest;
    size_t n = 0;
    if (!match(from, name, numbers, &rest)) return false;
    for (const char *p = to; *p; p++) {
        if (*p == '#')
            put_number(out, numbers[n++]);
        else if (*p == '*')
            str_put(out, rest);
        else
            str_putc(out, *p);
    }
    return true;
}

/* "PREFIX.layers.N.weight": proj_in for the first, proj_out for the last, layers.(N-1) between. */
static bool apply_mlp(const weights *w, const char *name, str *out)
{
    const char *numbers[4], *rest;
    for (size_t i = 0; i < LENGTH(mlp_rules); i++) {
        if (!match(mlp_rules[i], name, numbers, &rest)) continue;
        const char *number = numbers[i == 0 ? 1 : 0];
        int layer = 0;
        for (const char *p = number; is_digit(*p) && layer < 1000; p++) layer = 10 * layer + (*p - '0');
        str next = { 0 };
        str_put_bytes(&next, name, (size_t)(number - name));
        str_printf(&next, "%d.%s", layer + 1, rest);
        bool last = !weights_find(w, str_text(&next));
        out->failed = out->failed || next.failed;
        str_free(&next);
        str_put_bytes(out, name, (size_t)(number - name) - strlen("layers."));
        if (layer > 0 && !last)
            str_printf(out, "layers.%d.%s", layer - 1, rest);
        else
            str_printf(out, "%s.%s", layer > 0 ? "proj_out" : "proj_in", rest);
        return true;
    }
    return false;
}

static bool is_original(const weights *w)
{
    for (size_t i = 0; i < w->n; i++)
        if (text_starts(w->slots[i].name, "image_encoder.")) return true;
    return false;
}

/* The new name of every tensor; an empty one stays as it is. */
static sca_status sam_names(const weights *w, str *names)
{
    for (size_t i = 0; i < w->n; i++) {
        const char *name = w->slots[i].name;
        bool done = apply_mlp(w, name, &names[i]);
        for (size_t r = 0; r < LENGTH(sam_rules) && !done; r++)
            done = name_apply(sam_rules[r].from, sam_rules[r].to, name, &names[i]);
        if (names[i].failed) return mem_fail(strlen(name), "tensor name");
    }
    return SCA_OK;
}

static sca_status rename_all(weights *w, str *names)
{
    for (size_t i = 0; i < w->n; i++)
        if (names[i].bytes > 0) TRY(rename_slot(&w->slots[i], &names[i]));
    return SCA_OK;
}

/* The official model has the Gaussian matrix under two names. */
static sca_status copy_gaussian(weights *w)
{
    static const char from[] = "prompt_encoder.shared_embedding.positional_embedding";
    static const char to[] = "shared_image_embedding.positional_embedding";
    for (size_t i = 0; i < w->n; i++) {
        weight_slot *copy;
        if (strcmp(w->slots[i].name, from) != 0) continue;
        TRY(weights_add(w, w->slots[i].s.file, to, strlen(to), &copy));
        copy->w = w->slots[i].w;
        copy->s = w->slots[i].s;
        break;
    }
    return SCA_OK;
}

sca_status weights_as_sam(weights *w)
{
    sca_status status = SCA_OK;
    if (!is_original(w)) return SCA_OK;
    size_t n = w->n;
    str *names = mem_zero(n + 1, sizeof *names);
    if (!names) return mem_fail((n + 1) * sizeof *names, "tensor names");
    TRY_GOTO(done, sam_names(w, names));
    TRY_GOTO(done, rename_all(w, names));
    for (size_t i = 0; i < n; i++)
        if (strcmp(w->slots[i].name, "pixel_mean") == 0 || strcmp(w->slots[i].name, "pixel_std") == 0)
            drop_slot(&w->slots[i]);
    compact(w);
    TRY_GOTO(done, copy_gaussian(w));
    status = weights_sort(w);
done:
    for (size_t i = 0; i < n; i++) str_free(&names[i]);
    mem_free(names);
    return status;
}

/* ---- language models ------------------------------------------------------------------------------------- */

static const char *const buffers[] = { "h.#.attn.bias", "h.#.attn.masked_bias",
                                       "layers.#.self_attn.rotary_emb.inv_freq", "rotary_emb.inv_freq" };

bool weight_is_buffer(const char *name)
{
    const char *numbers[4], *rest;
    if (text_starts(name, "language_model.")) name += strlen("language_model.");
    if (text_starts(name, "transformer.")) name += strlen("transformer.");
    if (text_starts(name, "model.")) name += strlen("model.");
    for (size_t i = 0; i < LENGTH(buffers); i++)
        if (match(buffers[i], name, numbers, &rest)) return true;
    return false;
}

/* GPT2Model's own names, as in the hub's first files, lack the name of the model that holds it. */
static const char *const gpt2_bare[] = { "h.#.*", "wte.*", "wpe.*", "ln_f.*" };

static bool is_bare(const char *name)
{
    const char *numbers[4], *rest;
    for (size_t i = 0; i < LENGTH(gpt2_bare); i++)
        if (match(gpt2_bare[i], name, numbers, &rest)) return true;
    return false;
}

sca_status weights_as_lm(weights *w)
{
    static const char prefix[] = "language_model.";
    for (size_t i = 0; i < w->n; i++) {
        weight_slot *slot = &w->slots[i];
        const char *name = slot->name;
        if (text_starts(name, prefix)) name += strlen(prefix);
        if (weight_is_buffer(name)) {
            drop_slot(slot);
            continue;
        }
        if (name != slot->name) continue;
        str longer = { 0 };
        str_put(&longer, prefix);
        if (is_bare(name)) str_put(&longer, "transformer.");
        str_put(&longer, name);
        sca_status status = rename_slot(slot, &longer);
        str_free(&longer);
        TRY(status);
    }
    compact(w);
    return weights_sort(w);
}
