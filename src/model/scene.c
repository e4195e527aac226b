/* scene.c - an encoded image, and regions of it through decoder, mixer and language model.
 *
 * Before a call runs, the same code runs on the null device to learn how much temporary memory it takes; nothing is
 * allocated on the device while it computes. */
#include "model/inside.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { LM_CACHE_BYTES = 1 << 30 }; /* keys and values of the sequences generated together */

/* ---- encoding ---------------------------------------------------------------------------------------- */

static void encode_run(const run *r, tensor embedding, tensor base, const float *pixels)
{
    size_t mark = arena_mark(r->p.temp);
    int64_t S = r->c->sam.image;
    tensor x = pass_4d(&r->p, 1, S, S, 3);
    if (pixels) dev_put_f32(r->p.d, x, pixels);
    tensor no_mask = r->n->prompt.no_mask.v;
    const int64_t key[] = { place_of(x), place_of(embedding), place_of(base), place_of(no_mask), S };
    if (dev_repeat(r->p.d, "encoder", key, sizeof key)) {
        sam_encoder_fwd(&r->p, &r->n->encoder, embedding, x, NULL);
        op_add_fwd(r->p.d, base, embedding, tensor_expand(no_mask, 0, embedding.dim[0]));
        dev_repeated(r->p.d);
    }
    arena_release(r->p.temp, mark);
}

sca_status encode_peak(model *m, size_t *peak)
{
    arena a;
    run r;
    TRY(null_run(m, &a, &r));
    size_t before;
    tensor embedding = image_map(&a, &m->sizes), base = image_map(&a, &m->sizes);
    before = a.used;
    encode_run(&r, embedding, base, NULL);
    *peak = a.peak - before;
    arena_close(&a);
    return dev_check(m->null);
}

size_t scene_bytes(const model *m)
{
    return 2 * (size_t)(image_tokens(&m->sizes) * m->sizes.sam.channels) * dtype_bytes(m->d->kind->act) + 4096;
}

sca_status scene_open(model *m, const float *pixels, int valid_width, int valid_height, int original_width,
                      int original_height, scene **out)
{
    *out = NULL;
    size_t peak;
    TRY(encode_peak(m, &peak));
    TRY(temp_reserve(m, peak, "the activations of the image encoder", HINT_ENCODE));
    scene *s = mem_zero(1, sizeof *s);
    if (!s) return mem_fail(sizeof *s, "a scene");
    *s = (scene){ .m = m,
                  .valid_width = valid_width,
                  .valid_height = valid_height,
                  .width = original_width,
                  .height = original_height };
    sca_status status;
    TRY_GOTO(failed,
             take_memory(m, scene_bytes(m), &s->memory, "what is kept of a photo",
                         "a smaller image encoder (vit_b) needs less, and so do fewer photos held at a time"));
    s->embedding = image_map(&s->memory, &m->sizes);
    s->base = image_map(&s->memory, &m->sizes);
    run r = real_run(m);
    encode_run(&r, s->embedding, s->base, pixels);
    TRY_GOTO(failed, dev_check(m->d));
    *out = s;
    return SCA_OK;
failed:
    scene_close(s);
    return status;
}

void scene_close(scene *s)
{
    if (!s) return;
    arena_close(&s->memory);
    mem_free(s);
}

sca_status scene_embedding(const scene *s, float *out) { return dev_get_f32(s->m->d, out, s->embedding); }

int scene_mask_side(const scene *s) { return 4 * s->m->sizes.sam.grid; }

/* ---- prompts ----------------------------------------------------------------------------------------- */

static int sparse_count(const sca_prompt *p)
{
    if (p->box_px) return p->n_points + 2;
    return p->n_points ? p->n_points + 1 : 0; /* quirk Q7: a padding point when there is no box */
}

static int point_kind(int label)
{
    switch (label) {
    case 1: return TOKEN_POSITIVE;
    case 0: return TOKEN_NEGATIVE;
    case -1: return TOKEN_PAD;
    case -10: return TOKEN_ZERO;
    default: return -1;
    }
}

static sca_status check_prompts(const model *m, const sca_prompt *p, int n)
{
    for (int i = 0; i < n; i++) {
        bool finite = true;
        for (int k = 0; k < 4 && p[i].box_px; k++) finite = finite && isfinite(p[i].box_px[k]);
        for (int k = 0; k < p[i].n_points; k++) {
            const sca_point *at = &p[i].points[k];
            finite = finite && isfinite(at->x_px) && isfinite(at->y_px);
            if (point_kind(at->label) < 0)
                return status_fail(SCA_ERR_ARGUMENT,
                                   "region %d: point %d has label %d, expected 1 (inside), 0 (outside), "
                                   "-1 or -10",
                                   i, k, at->label);
        }
        if (m->plan.mixer.rule->roi && !p[i].box_px)
            return status_fail(SCA_ERR_ARGUMENT, "region %d has no box, but this model (%s) describes boxes alone",
                               i, variant_name(m->sizes.variant));
        if (!finite) return status_fail(SCA_ERR_ARGUMENT, "region %d: a coordinate is not a finite number", i);
        if (p[i].n_points < 0 || p[i].n_points > 4096)
            return status_fail(SCA_ERR_ARGUMENT, "region %d: %d points, expected 0 to 4096", i, p[i].n_points);
    }
    return SCA_OK;
}

/* Scales one prompt to the model's image: points, padding point, box corners (model.md 1, 3). */
static void write_tokens(const scene *s, const sca_prompt *p, prompt_token *t)
{
    double sx = (double)s->valid_width / s->width, sy = (double)s->valid_height / s->height;
    for (int i = 0; i < p->n_points; i++)
        *t++ = (prompt_token){ p->points[i].x_px * sx, p->points[i].y_px * sy, point_kind(p->points[i].label) };
    if (p->n_points && !p->box_px) *t++ = (prompt_token){ 0, 0, TOKEN_PAD };
    for (int i = 0; i < 2 && p->box_px; i++)
        *t++ =
            (prompt_token){ (double)p->box_px[2 * i] * sx, (double)p->box_px[2 * i + 1] * sy, TOKEN_CORNER1 + i };
}

/* ---- decoder and mixer of regions with equally many tokens ------------------------------------------- */

/* Image tokens of the group before the decoder: shared, or with each region's own mask. */
static tensor image_input(const run *r, const scene *s, const group *g, const sca_prompt *prompts, tensor own)
{
    const pass *p = &r->p;
    int64_t S = image_tokens(r->c), C = r->c->sam.channels, side = 4 * r->c->sam.grid;
    if (!g->masked) return tensor_expand(tensor_unsqueeze(s->base, 0), 0, g->N);
    size_t mark = arena_mark(p->temp);
    for (int i = 0; i < g->N; i++) { /* one by one: the mask's maps are larger than its result */
        tensor mask = pass_4d(p, 1, side, side, 1);
        if (prompts) dev_put_f32(p->d, mask, prompts[g->member[i]].mask);
        prompt_mask_fwd(p, &r->n->prompt, tensor_slice(own, 0, i, 1), mask);
        arena_release(p->temp, mark);
    }
    op_add_fwd(p->d, own, own, tensor_expand(tensor_reshape3(s->embedding, 1, S, C), 0, g->N));
    return own;
}

mixer_input decoded_new(const pass *to, const sam_config *c, int64_t N, int64_t n)
{
    int64_t S = (int64_t)c->grid * c->grid, C = c->channels, T = 1 + c->masks + n;
    return (mixer_input){ .tokens = pass_3d(to, N, T, C),
                          .fused = pass_3d(to, N, T, C),
                          .sparse = n ? pass_3d(to, N, n, C) : tensor_none(),
                          .x = pass_3d(to, N, S, C),
                          .embedding = tensor_none(),
                          .boxes = tensor_none() };
}

void decode_tokens(const pass *p, const net *m, const mixer_input *out, const prompt_token *list, tensor x,
                   tensor pe, twoway_kept *k)
{
    if (tensor_given(out->sparse)) prompt_sparse_fwd(p, &m->prompt, out->sparse, list);
    const int64_t key[] = { place_of(out->tokens),
                            place_of(out->fused),
                            place_of(out->sparse),
                            place_of(out->x),
                            place_of(x),
                            x.stride[0],
                            place_of(pe),
                            out->tokens.dim[0],
                            out->tokens.dim[1],
                            x.dim[1],
                            place_of(m->prompt.no_mask.v),
                            (int64_t)arena_mark(p->temp) };
    if (!k && !dev_repeat(p->d, "mask decoder", key, sizeof key)) return;
    mask_decoder_tokens(p, &m->decoder, out->tokens, out->sparse);
    twoway_fwd(p, &m->decoder.transformer, out->fused, out->x, out->tokens, x, pe, k);
    if (!k) dev_repeated(p->d);
}

tensor region_boxes(const pass *to, const prompt_token *list, int64_t N, int64_t n)
{
    tensor boxes = tensor_reshape2(pass_stat(to, 4 * N), N, 4);
    for (int64_t i = 0; i < N; i++) { /* the last two tokens are the corners */
        const prompt_token *corner = list + i * n + n - 2;
        float xyxy[4] = { (float)corner[0].x, (float)corner[0].y, (float)corner[1].x, (float)corner[1].y };
        dev_put_f32(to->d, tensor_at(boxes, i), xyxy);
    }
    return boxes;
}

sca_status decode(const run *r, const scene *s, const group *g, const sca_prompt *prompts, tensor pe, decoded *out)
{
    const pass *p = &r->p;
    const sam_config *c = &r->c->sam;
    prompt_token *list = mem_zero((size_t)g->N * (size_t)g->n + 1, sizeof *list);
    if (!list) return mem_fail((size_t)g->N * (size_t)g->n * sizeof *list, "prompt tokens");
    for (int i = 0; i < g->N && prompts; i++)
        write_tokens(s, &prompts[g->member[i]], list + (size_t)i * (size_t)g->n);
    out->to_mixer = decoded_new(p, c, g->N, g->n);
    out->iou = pass_2d(p, g->N, c->masks);
    decode_tokens(p, r->n, &out->to_mixer, list, image_input(r, s, g, prompts, out->to_mixer.x), pe, NULL);
    if (r->n->mixer.rule->roi) {
        out->to_mixer.embedding = s->embedding;
        out->to_mixer.boxes = region_boxes(p, list, g->N, g->n);
    }
    mem_free(list);
    mask_decoder_iou(p, &r->n->decoder, out->iou, out->to_mixer.fused, NULL);
    return SCA_OK;
}

/* mixed (N, heads*tokens, C), soft (N*heads, tokens, d): the caption tokens, and the same in the language model's space.
 * Overwrites the decoder's image tokens. */
static void mix(const run *r, const scene *s, const group *g, const sca_prompt *prompts, const decoded *from,
                tensor pe, tensor mixed, tensor soft)
{
    const mixer *m = &r->n->mixer;
    mixer_input in = from->to_mixer;
    tensor y = in.x;
    if (m->rule->raw) in.x = image_input(r, s, g, prompts, y);
    const int64_t key[] = { place_of(mixed),
                            place_of(soft),
                            place_of(y),
                            place_of(in.tokens),
                            place_of(in.fused),
                            place_of(in.sparse),
                            place_of(in.x),
                            in.x.stride[0],
                            place_of(in.embedding),
                            place_of(in.boxes),
                            place_of(pe),
                            mixed.dim[0],
                            in.tokens.dim[1],
                            place_of(r->n->prompt.no_mask.v),
                            (int64_t)arena_mark(r->p.temp) };
    if (!dev_repeat(r->p.d, "mixer", key, sizeof key)) return;
    mixer_fwd(&r->p, m, mixed, y, &in, pe, NULL);
    int64_t rows = mixed.dim[0] * mixed.dim[1];
    projector_fwd(&r->p, &m->project, tensor_reshape2(soft, rows, soft.dim[2]),
                  tensor_reshape2(mixed, rows, mixed.dim[2]), NULL);
    dev_repeated(r->p.d);
}

/* ---- masks ------------------------------------------------------------------------------------------- */

static int first_largest(const float *v, int n)
{
    int best = 0;
    for (int i = 1; i < n; i++)
        if (v[i] > v[best]) best = i;
    return best;
}

/* low (1,4g,4g) logits to the original size, thresholded at 0 (model.md 5); on NULL: a plan. */
static sca_status full_mask(const run *r, const scene *s, tensor low, uint8_t *on)
{
    const pass *p = &r->p;
    int64_t S = r->c->sam.image;
    size_t mark = arena_mark(p->temp);
    sca_status status = SCA_OK;
    tensor frame = pass_3d(p, 1, S, S), full = pass_3d(p, 1, s->height, s->width);
    tensor bits = arena_tensor(p->temp, DT_U8, 3, (int64_t[]){ 1, s->height, s->width });
    op_resize_fwd(p->d, frame, low);
    op_resize_fwd(p->d, full, tensor_slice(tensor_slice(frame, 1, 0, s->valid_height), 2, 0, s->valid_width));
    op_threshold_fwd(p->d, bits, full, 0);
    if (on) status = dev_get(p->d, on, bits, tensor_bytes(bits));
    arena_release(p->temp, mark);
    return status;
}

static void *copy_out(size_t count, size_t size, const void *data)
{
    void *p = mem_alloc(count * size);
    if (p && count) memcpy(p, data, count * size);
    return p;
}

/* Predicted IoU of the group on the host: (N,masks), mem_free. */
static sca_status read_iou(const run *r, tensor iou, float **out)
{
    size_t bytes = (size_t)tensor_count(iou) * sizeof **out;
    *out = mem_zero(1, bytes);
    if (!*out) return mem_fail(bytes, "IoU scores");
    return dev_get_f32(r->p.d, *out, iou);
}

static sca_status masks_run(const run *r, const scene *s, const group *g, const decoded *in,
                            const describe_options *o, region_result *results)
{
    const pass *p = &r->p;
    int masks = r->c->sam.masks, first = o->single ? 0 : 1, n_iou = o->single ? 1 : masks - 1;
    int64_t side = 4 * r->c->sam.grid;
    float *iou = NULL;
    size_t mark = arena_mark(p->temp);
    sca_status status;
    tensor logits = tensor_none();
    if (o->masks || o->keep) {
        logits = pass_4d(p, g->N, masks, side, side);
        mask_decoder_masks(p, &r->n->decoder, logits, in->to_mixer.fused, in->to_mixer.x, NULL);
    }
    TRY_GOTO(done, read_iou(r, in->iou, &iou));
    for (int i = 0; i < g->N; i++) {
        const float *scores = iou + (size_t)i * (size_t)masks + first;
        int best = first_largest(scores, n_iou);
        region_result *out = results ? &results[g->member[i]] : NULL;
        if (out) {
            *out = (region_result){ .iou = copy_out((size_t)n_iou, sizeof *out->iou, scores),
                                    .n_iou = n_iou,
                                    .best = best };
            if (o->masks) out->mask = mem_alloc((size_t)s->width * (size_t)s->height);
            if (o->keep) out->logits = mem_alloc((size_t)(n_iou * side * side) * sizeof *out->logits);
            if (!out->iou || (o->masks && !out->mask) || (o->keep && !out->logits)) {
                status = mem_fail((size_t)s->width * (size_t)s->height, "a mask");
                goto done;
            }
            if (o->keep)
                TRY_GOTO(done, dev_get_f32(p->d, out->logits, tensor_slice(tensor_at(logits, i), 0, first, n_iou)));
        }
        if (o->masks)
            TRY_GOTO(done, full_mask(r, s, tensor_slice(tensor_at(logits, i), 0, first + best, 1),
                                     out ? out->mask : NULL));
    }
done:
    arena_release(p->temp, mark);
    mem_free(iou);
    return status;
}

/* ---- captions ---------------------------------------------------------------------------------------- */

static int sequences_at_once(const model *m)
{
    const lm_config *c = &m->sizes.lm;
    size_t positions = (size_t)(m->plan.mixer.task_tokens + m->plan.mixer.tokens + m->generation.max_tokens);
    size_t bytes = 2 * (size_t)c->layers * (size_t)c->kv_heads * (size_t)c->head * positions * sizeof(float) *
                   (size_t)m->generation.beams;
    size_t fit = bytes ? (size_t)LM_CACHE_BYTES / bytes : 1;
    return fit < 1 ? 1 : fit > 1024 ? 1024 : (int)fit;
}

static tensor task_rows(const run *r, bool recognition)
{
    int64_t t = r->n->mixer.task_tokens;
    if (t == 0) return tensor_none();
    return tensor_slice(r->n->mixer.task.v, 0, recognition ? 0 : t, t);
}

static sca_status ids_text(const generated *g, char **text)
{
    str s = { 0 };
    for (int i = 0; i < g->n; i++) str_printf(&s, "%s%d", i ? " " : "", g->tokens[i]);
    return str_take(&s, text);
}

static sca_status words(const model *m, const generated *g, char **text)
{
    if (!m->tokenizer) return ids_text(g, text);
    int n = g->n, size = tokenizer_size(m->tokenizer);
    for (int i = 0; i < n; i++)
        if (g->tokens[i] >= size)
            return ids_text(g, text); /* a vocabulary with more rows than the tokenizer has ids */
    return tokenizer_decode(m->tokenizer, g->tokens, n, false, text);
}

/* Texts of the sequences soft (N*heads,q,d); out NULL: a plan. */
static sca_status texts_run(const run *r, model *m, tensor soft, const describe_options *o, generated *out)
{
    int at_once = sequences_at_once(m);
    sca_status status = SCA_OK;
    for (int64_t i = 0; i < soft.dim[0] && status == SCA_OK; i += at_once) {
        int64_t n = soft.dim[0] - i < at_once ? soft.dim[0] - i : at_once;
        status = generate(&r->p, &r->n->lm, task_rows(r, o->recognition), tensor_slice(soft, 0, i, n),
                          &m->generation, m->streams + i, out + i);
    }
    return status;
}

static sca_status keep_prefix(const run *r, const group *g, const describe_options *o, tensor mixed, tensor soft,
                              region_result *results)
{
    int64_t heads = r->n->mixer.heads, q = r->n->mixer.tokens, t = r->n->mixer.task_tokens, C = r->c->sam.channels,
            d = r->c->lm.width;
    for (int i = 0; i < g->N; i++) {
        region_result *out = &results[g->member[i]];
        out->mixed = mem_alloc((size_t)(heads * q * C) * sizeof(float));
        out->prefix = mem_alloc((size_t)(heads * (t + q) * d) * sizeof(float));
        if (!out->mixed || !out->prefix) return mem_fail((size_t)(heads * (t + q) * d) * sizeof(float), "a prefix");
        TRY(dev_get_f32(r->p.d, out->mixed, tensor_at(mixed, i)));
        for (int64_t h = 0; h < heads; h++) {
            float *to = out->prefix + h * (t + q) * d;
            if (t) TRY(dev_get_f32(r->p.d, to, task_rows(r, o->recognition)));
            TRY(dev_get_f32(r->p.d, to + t * d, tensor_at(soft, i * heads + h)));
        }
    }
    return SCA_OK;
}

/* Hands the texts over to the regions of the group. */
static sca_status give_texts(const model *m, const group *g, generated *texts, region_result *results)
{
    int heads = m->plan.mixer.heads;
    for (int i = 0; i < g->N; i++) {
        region_result *out = &results[g->member[i]];
        out->text = mem_zero((size_t)heads, sizeof *out->text);
        out->generated = mem_zero((size_t)heads, sizeof *out->generated);
        if (!out->text || !out->generated) return mem_fail((size_t)heads * sizeof *out->generated, "captions");
        out->heads = heads;
        for (int h = 0; h < heads; h++) {
            out->generated[h] = texts[i * heads + h];
            texts[i * heads + h] = (generated){ 0 };
            TRY(words(m, &out->generated[h], &out->text[h]));
        }
    }
    return SCA_OK;
}

static sca_status captions_run(const run *r, const scene *s, const group *g, const sca_prompt *prompts,
                               const decoded *in, tensor pe, const describe_options *o, region_result *results)
{
    const model_config *c = r->c;
    model *m = s->m;
    int64_t heads = r->n->mixer.heads, q = r->n->mixer.tokens, n = g->N * heads;
    size_t mark = arena_mark(r->p.temp);
    generated *texts = mem_zero((size_t)n, sizeof *texts);
    if (!texts) return mem_fail((size_t)n * sizeof *texts, "captions");
    sca_status status = SCA_OK;
    tensor mixed = pass_3d(&r->p, g->N, heads * q, c->sam.channels), soft = pass_3d(&r->p, n, q, c->lm.width);
    mix(r, s, g, prompts, in, pe, mixed, soft);
    if (results && o->keep) TRY_GOTO(done, keep_prefix(r, g, o, mixed, soft, results));
    TRY_GOTO(done, texts_run(r, m, soft, o, texts));
    if (results) {
        m->streams += n;
        status = give_texts(m, g, texts, results);
    }
done:
    for (int64_t i = 0; i < n; i++) mem_free(texts[i].tokens);
    mem_free(texts);
    arena_release(r->p.temp, mark);
    return status;
}

/* ---- describing regions ------------------------------------------------------------------------------ */

static sca_status group_run(const run *r, const scene *s, const group *g, const sca_prompt *prompts, tensor pe,
                            const describe_options *o, region_result *results)
{
    size_t mark = arena_mark(r->p.temp);
    decoded between;
    sca_status status;
    TRY_GOTO(done, decode(r, s, g, prompts, pe, &between));
    TRY_GOTO(done, masks_run(r, s, g, &between, o, results));
    if (o->captions) TRY_GOTO(done, captions_run(r, s, g, prompts, &between, pe, o, results));
    status = dev_check(r->p.d);
done:
    arena_release(r->p.temp, mark);
    return status;
}

/* The temporary memory of a group, from the null device. */
static sca_status group_peak(scene *s, const group *g, const describe_options *o, size_t *peak)
{
    arena a;
    run r;
    model *m = s->m;
    TRY(null_run(m, &a, &r));
    scene shadow = *s;
    shadow.embedding = image_map(&a, &m->sizes);
    shadow.base = image_map(&a, &m->sizes);
    tensor pe = image_map(&a, &m->sizes);
    size_t before = a.used;
    sca_status status = group_run(&r, &shadow, g, NULL, pe, o, NULL);
    *peak = a.peak - before;
    arena_close(&a);
    sca_status stream = dev_check(m->null);
    return status != SCA_OK ? status : stream;
}

sca_status boxes_peak(model *m, int regions, size_t *peak)
{
    int side = m->sizes.sam.image;
    scene s = { .m = m, .valid_width = side, .valid_height = side, .width = side, .height = side };
    group g = { .N = regions < REGIONS_AT_ONCE ? regions : REGIONS_AT_ONCE, .n = 2 };
    return group_peak(&s, &g, &(describe_options){ .masks = true, .captions = true }, peak);
}

/* Regions that go through the decoder together: the next at most REGIONS_AT_ONCE of the same kind. */
static bool next_group(const sca_prompt *p, int n, bool *taken, group *g)
{
    g->N = 0;
    for (int i = 0; i < n && g->N < REGIONS_AT_ONCE; i++) {
        if (taken[i]) continue;
        if (g->N == 0) {
            g->n = sparse_count(&p[i]);
            g->masked = p[i].mask != NULL;
        }
        if (sparse_count(&p[i]) != g->n || (p[i].mask != NULL) != g->masked) continue;
        taken[i] = true;
        g->member[g->N++] = i;
    }
    return g->N > 0;
}

static sca_status reserve_group(model *m, const group *g, size_t peak)
{
    char what[160];
    const lm_config *c = &m->sizes.lm;
    int at_once = g->N < sequences_at_once(m) ? g->N : sequences_at_once(m);
    double positions = m->plan.mixer.task_tokens + m->plan.mixer.tokens + m->generation.max_tokens;
    double cache = 2.0 * c->layers * c->kv_heads * c->head * positions * at_once * m->generation.beams *
                   (double)dtype_bytes(m->d->kind->act);
    snprintf(what, sizeof what, "the activations of %d regions and keys and values (%.1f MiB) of %d captions", g->N,
             cache / (1 << 20), at_once * m->generation.beams);
    return temp_reserve(m, peak, what, HINT_DESCRIBE);
}

sca_status scene_describe(scene *s, const sca_prompt *regions, int n, const describe_options *o,
                          region_result *results)
{
    if (n < 0) return status_fail(SCA_ERR_ARGUMENT, "the number of regions is %d, expected 0 or more", n);
    TRY(check_prompts(s->m, regions, n));
    bool *taken = mem_zero((size_t)n, sizeof *taken);
    if (!taken && n) return mem_fail((size_t)n, "a list of regions");
    sca_status status = SCA_OK;
    int done = 0;
    for (group g; status == SCA_OK && next_group(regions, n, taken, &g);) {
        size_t peak;
        status = group_peak(s, &g, o, &peak);
        if (status == SCA_OK) status = reserve_group(s->m, &g, peak);
        run r = real_run(s->m);
        if (status == SCA_OK) status = group_run(&r, s, &g, regions, s->m->pe, o, results);
        progress("describe regions", done += g.N, n);
    }
    mem_free(taken);
    return status;
}

void region_result_free(region_result *r, int n)
{
    for (int i = 0; r && i < n; i++) {
        for (int h = 0; h < r[i].heads; h++) {
            mem_free(r[i].text[h]);
            mem_free(r[i].generated[h].tokens);
        }
        mem_free(r[i].text);
        mem_free(r[i].generated);
        mem_free(r[i].iou);
        mem_free(r[i].mask);
        mem_free(r[i].logits);
        mem_free(r[i].mixed);
        mem_free(r[i].prefix);
        r[i] = (region_result){ 0 };
    }
}

/* ---- teacher forcing --------------------------------------------------------------------------------- */

/* One region, all of its heads. out NULL: a plan. logits (heads,L+1,V) of the last L+1 positions. */
static sca_status teach_run(const run *r, const scene *s, const group *g, const sca_prompt *prompts, tensor pe,
                            const int32_t *ids, int64_t L, float *out)
{
    const pass *p = &r->p;
    const lm *m = &r->n->lm;
    const mixer *x = &r->n->mixer;
    int64_t t = x->task_tokens, q = x->tokens, d = r->c->lm.width, T = t + q + L, N = x->heads;
    size_t mark = arena_mark(p->temp);
    decoded between;
    int32_t *own = mem_zero((size_t)(N * T), sizeof *own);
    if (!own) return mem_fail((size_t)(N * T) * sizeof *own, "cache rows");
    for (int64_t i = 0; i < N * T; i++) own[i] = (int32_t)(i / T);
    sca_status status;
    TRY_GOTO(done, decode(r, s, g, prompts, pe, &between));
    tensor mixed = pass_3d(p, 1, N * q, r->c->sam.channels), soft = pass_3d(p, N, q, d), h = pass_3d(p, N, T, d);
    mix(r, s, g, prompts, &between, pe, mixed, soft);
    tensor list = pass_ids(p, L), text = pass_2d(p, L, d), logits = pass_2d(p, N * (L + 1), r->c->lm.vocab);
    tensor index = arena_tensor(p->temp, DT_I32, 2, (int64_t[]){ N, T }), last = pass_3d(p, N, L + 1, d);
    if (ids) dev_put(p->d, list, ids, (size_t)L * sizeof *ids);
    dev_put(p->d, index, own, (size_t)(N * T) * sizeof *own);
    lm_embed(p, m, text, list);
    if (t)
        op_copy(p->d, tensor_slice(h, 1, 0, t),
                tensor_expand(tensor_unsqueeze(task_rows(r, g->recognition), 0), 0, N));
    op_copy(p->d, tensor_slice(h, 1, t, q), soft);
    op_copy(p->d, tensor_slice(h, 1, t + q, L), tensor_expand(tensor_unsqueeze(text, 0), 0, N));
    lm_cache cache = lm_cache_new(p, m, N, T);
    lm_fwd(p, m, h, 0, &cache, 1, index);
    op_copy(p->d, last, tensor_slice(h, 1, T - L - 1, L + 1));
    lm_logits(p, m, logits, tensor_reshape2(last, N * (L + 1), d));
    if (out) TRY_GOTO(done, dev_get_f32(p->d, out, logits));
    status = dev_check(p->d);
done:
    arena_release(p->temp, mark);
    mem_free(own);
    return status;
}

sca_status scene_logits(scene *s, const sca_prompt *regions, int n, bool recognition, const int *ids, int L,
                        float *logits)
{
    model *m = s->m;
    int64_t rows = (int64_t)m->plan.mixer.heads * (L + 1) * m->sizes.lm.vocab;
    TRY(check_prompts(m, regions, n));
    for (int i = 0; i < n; i++) { /* one region at a time: only tests and scores of given texts come here */
        group g = { .N = 1,
                    .n = sparse_count(&regions[i]),
                    .masked = regions[i].mask != NULL,
                    .recognition = recognition,
                    .member = { i } };
        arena a;
        run r;
        TRY(null_run(m, &a, &r));
        scene shadow = *s;
        shadow.embedding = image_map(&a, &m->sizes);
        shadow.base = image_map(&a, &m->sizes);
        sca_status status = teach_run(&r, &shadow, &g, NULL, image_map(&a, &m->sizes), NULL, L, NULL);
        size_t peak = a.peak;
        arena_close(&a);
        TRY(status);
        TRY(temp_reserve(m, peak, "the activations of a region", HINT_DESCRIBE));
        r = real_run(m);
        TRY(teach_run(&r, s, &g, regions, m->pe, ids + (int64_t)i * L, L, logits + i * rows));
    }
    return SCA_OK;
}
