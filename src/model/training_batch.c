/* training_batch.c - one batch through the model and back; model.md 9.
 *
 * Images go through encoder, decoder and mixer one by one; the captions of all regions are one batch of sequences for
 * the language model: [task tokens, projected caption tokens, text without its last token], which predicts nothing. Only
 * positions with a target get logits. The same code runs on the null device, which reads no array of the input. */
#include "base/rng.h"
#include "model/training.h"

#include <math.h>
#include <string.h>

enum { FOCAL_WEIGHT = 20, MASKS_MOST = 16 };

typedef struct image_kept { /* of one image, until its backward */
    tensor embedding, base; /* (S,C) the encoder's output; with the embedding of "no mask" */
    tensor looks; /* (S, restore_channels()) gradient at the embedding from what it shall restore, or absent */
    prompt_token *list;  /* (m,n) owned */
    mixer_input decoded; /* what the decoder gives, m regions */
    encoder_kept encoder;
    twoway_kept decoder, mixer; /* absent of a model without a mixer */
    masks_kept masks;
    ffn_kept iou;
} image_kept;

typedef struct lesson {
    const training *t;
    const run *r;
    const training_input *in;
    bool train, real; /* real: not on null */
    double weight;
    pass to;                             /* where lives what is needed to the end */
    int64_t m, n;                        /* regions of an image, sparse tokens of a region */
    int64_t heads, task, tokens, prefix; /* captions of a region; parts of the prefix, and both */
    int64_t N, T, words, rows;           /* sequences, their length, of it text; places that matter */
    image_kept *image;                   /* (images) owned */
    lm_kept lm;
    projector_kept project;
    tensor pe, mixed, ids;                 /* (S,C) (B*m, heads*tokens, C) (N*words) */
    int32_t *text, *target, *label, *back; /* owned: ids (N,words); rows that predict, what; their inverse (rows) */
    int32_t *place, *row[2];               /* owned: of lm_rows, (rows) (N*T) */
    lm_rows packing;
    int64_t targets;
} lesson;

static tensor none(void) { return tensor_none(); }

/* ---- input that fits --------------------------------------------------------------------------------- */

static sca_status check_text(const training *t, const training_input *in)
{
    int64_t n = (int64_t)in->images * in->regions, V = t->m->sizes.lm.vocab;
    if (!in->ids || !in->labels || in->length < (t->objective == OBJECTIVE_TEXT ? 2 : 1))
        return status_fail(SCA_ERR_ARGUMENT,
                           "a batch without text: ids, labels and a length of at least %d are expected",
                           t->objective == OBJECTIVE_TEXT ? 2 : 1);
    for (int64_t i = 0; i < n * in->length; i++)
        if (in->ids[i] < 0 || in->ids[i] >= V)
            return status_fail(SCA_ERR_ARGUMENT, "a batch: token id %d, expected 0 to %lld", in->ids[i],
                               (long long)V - 1);
    for (int64_t i = 0; i < n * (in->length + 1); i++)
        if (in->labels[i] != -100 && (in->labels[i] < 0 || in->labels[i] >= V))
            return status_fail(SCA_ERR_ARGUMENT, "a batch: label %d, expected -100 or 0 to %lld", in->labels[i],
                               (long long)V - 1);
    return SCA_OK;
}

static sca_status check_regions(const training *t, const training_input *in)
{
    int64_t n = (int64_t)in->images * in->regions;
    if (!in->pixels && !in->embeddings)
        return status_fail(SCA_ERR_ARGUMENT, "a batch without images: pixels or embeddings are expected");
    if (!in->pixels && t->encoder)
        return status_fail(SCA_ERR_ARGUMENT, "a batch of embeddings, but the image encoder is trained: pixels are "
                                             "expected");
    if (!in->pixels && in->stored != DT_F32 && in->stored != DT_F16 && in->stored != DT_BF16)
        return status_fail(SCA_ERR_ARGUMENT, "a batch of embeddings of type %s, expected f32, f16 or bf16",
                           dtype_name(in->stored));
    if (!in->boxes && t->m->plan.mixer.rule->roi)
        return status_fail(SCA_ERR_ARGUMENT, "a batch without boxes, but this model describes boxes alone");
    if (!in->boxes && !(in->points && in->point_kinds && in->n_points > 0))
        return status_fail(SCA_ERR_ARGUMENT, "a batch without prompts: boxes or points are expected");
    for (int64_t i = 0; in->boxes && i < 4 * n; i++)
        if (!isfinite(in->boxes[i]))
            return status_fail(SCA_ERR_ARGUMENT, "a batch: box %lld is not four finite numbers", (long long)i / 4);
    for (int64_t i = 0; in->points && i < n * in->n_points; i++) {
        int kind = in->point_kinds[i];
        bool known = kind == 1 || kind == 0 || kind == -1 || kind == -10;
        if (!known || !isfinite(in->points[2 * i]) || !isfinite(in->points[2 * i + 1]))
            return status_fail(SCA_ERR_ARGUMENT,
                               "a batch: point %lld is not two finite numbers with the label 1, 0, -1 or -10",
                               (long long)i);
    }
    if (t->objective == OBJECTIVE_MASK && t->m->sizes.sam.masks > MASKS_MOST)
        return status_fail(SCA_ERR_UNSUPPORTED, "training of %d masks of a region, at most %d are supported",
                           t->m->sizes.sam.masks, MASKS_MOST);
    if (t->objective == OBJECTIVE_MASK && !in->masks)
        return status_fail(SCA_ERR_ARGUMENT, "a batch without masks, but masks are what is trained");
    if (t->restore != 0 && !in->pixels)
        return status_fail(SCA_ERR_ARGUMENT,
                           "a batch of embeddings, but train.restore is set: pixels are expected");
    return SCA_OK;
}

sca_status training_check(const training *t, const training_input *in)
{
    if (in->images < 1 || in->regions < 1)
        return status_fail(SCA_ERR_ARGUMENT,
                           "a batch of %d images with %d regions each, expected 1 or more of both", in->images,
                           in->regions);
    if (t->objective != OBJECTIVE_TEXT) TRY(check_regions(t, in));
    if (t->objective == OBJECTIVE_MASK) return SCA_OK;
    TRY(check_text(t, in));
    const mixer *x = &t->m->plan.mixer;
    int64_t prefix = t->objective == OBJECTIVE_TEXT ? 0 : x->task_tokens + x->tokens,
            most = t->m->sizes.lm.positions;
    if (prefix + in->length - 1 > most)
        return status_fail(
            SCA_ERR_ARGUMENT,
            "a batch of %d tokens behind a prefix of %lld, but the language model has %lld positions", in->length,
            (long long)prefix, (long long)most);
    return SCA_OK;
}

/* ---- host side ---------------------------------------------------------------------------------------- */

static void *host(size_t count, size_t size, const char *what, sca_status *status)
{
    void *p = mem_zero(count + 1, size);
    if (!p && *status == SCA_OK) *status = mem_fail(count * size, what);
    return p;
}

/* Sequence s is region s / heads. Position prefix - 1 + k predicts label k + 1. What stands behind the last prediction of
 * a sequence takes no part. */
static void list_sequence(lesson *l, int64_t s)
{
    int64_t L = l->in->length, needed = 0, first = l->rows;
    const int32_t *labels = l->in->labels + s / l->heads * (L + 1);
    for (int64_t p = l->prefix ? l->prefix - 1 : 0; p < l->T; p++) {
        int32_t label = l->real ? labels[p - l->prefix + 2] : 0; /* on null: all there can be */
        if (label == -100) continue;
        for (; needed < p; needed++) l->back[first + needed] = -1;
        l->back[first + needed++] = (int32_t)l->targets;
        l->target[l->targets] = (int32_t)(first + p);
        l->label[l->targets++] = label;
    }
    for (int64_t p = 0; p < l->T; p++) {
        bool there = p < needed;
        if (there) l->place[first + p] = (int32_t)(s * l->T + p);
        for (int i = 0; i < 2; i++) l->row[i][s * l->T + p] = there ? (int32_t)(first + p) : -1;
    }
    l->rows += needed;
}

static sca_status list_targets(lesson *l)
{
    sca_status status = SCA_OK;
    int64_t L = l->in->length, places = l->N * l->T;
    int32_t **const list[] = { &l->target, &l->label, &l->back, &l->place, &l->row[0], &l->row[1] };
    l->text = host((size_t)(l->N * l->words), sizeof *l->text, "token ids", &status);
    for (size_t i = 0; i < LENGTH(list); i++) *list[i] = host((size_t)places, sizeof **list[i], "targets", &status);
    TRY(status);
    for (int64_t s = 0; s < l->N; s++) {
        list_sequence(l, s);
        for (int64_t k = 0; k < l->words && l->real; k++)
            l->text[s * l->words + k] = l->in->ids[s / l->heads * L + k];
    }
    for (int64_t i = 0; i < l->rows; i++)
        if (l->back[i] < 0) l->back[i] = (int32_t)l->targets; /* a row of zeros behind the others */
    for (int64_t i = 0; i < places; i++) {
        if (l->row[0][i] < 0) l->row[0][i] = 0;
        if (l->row[1][i] < 0) l->row[1][i] = (int32_t)l->rows;
    }
    return SCA_OK;
}

static int point_kind(int label)
{
    return label == 1 ? TOKEN_POSITIVE : label == 0 ? TOKEN_NEGATIVE : label == -1 ? TOKEN_PAD : TOKEN_ZERO;
}

/* Points, the padding point of quirk Q7, the corners of the box (model.md 3). */
static void list_prompts(const lesson *l, int b)
{
    const training_input *in = l->in;
    for (int64_t r = 0; r < l->m && l->real; r++) {
        int64_t region = b * l->m + r;
        prompt_token *to = l->image[b].list + r * l->n;
        for (int64_t i = 0; in->points && i < in->n_points; i++) {
            const double *xy = in->points + 2 * (region * in->n_points + i);
            *to++ = (prompt_token){ xy[0], xy[1], point_kind(in->point_kinds[region * in->n_points + i]) };
        }
        if (in->points && !in->boxes) *to++ = (prompt_token){ 0, 0, TOKEN_PAD };
        for (int i = 0; in->boxes && i < 2; i++) {
            const double *xy = in->boxes + 4 * region + 2 * i;
            *to++ = (prompt_token){ xy[0], xy[1], TOKEN_CORNER1 + i };
        }
    }
}

static sca_status image_open(lesson *l, int b)
{
    const training *t = l->t;
    image_kept *k = &l->image[b];
    sca_status status = SCA_OK;
    k->list = host((size_t)(l->m * l->n), sizeof *k->list, "prompt tokens", &status);
    TRY(status);
    list_prompts(l, b);
    if (!l->train) return SCA_OK;
    if (t->encoder) TRY(sam_encoder_kept_open(&k->encoder, &l->r->n->encoder, t->recompute_encoder));
    if (t->decoder) TRY(twoway_kept_open(&k->decoder, &l->r->n->decoder.transformer));
    if (t->objective == OBJECTIVE_MASK) return masks_kept_open(&k->masks, &l->r->n->decoder);
    return t->mixer && !l->r->n->mixer.rule->roi ? twoway_kept_open(&k->mixer, &l->r->n->mixer.transformer)
                                                 : SCA_OK;
}

static void image_close(image_kept *k)
{
    mem_free(k->list);
    sam_encoder_kept_free(&k->encoder);
    twoway_kept_free(&k->decoder);
    twoway_kept_free(&k->mixer);
    masks_kept_free(&k->masks);
}

static uint64_t dropout_key(const training_input *in)
{
    rng_block b = rng_philox(rng_key(in->seed, "language model dropout"), (uint64_t)in->step, (uint64_t)in->batch);
    return (uint64_t)b.word[1] << 32 | b.word[0];
}

static sca_status open_text(lesson *l)
{
    const training *t = l->t;
    const mixer *x = &l->r->n->mixer;
    bool regions = t->objective == OBJECTIVE_CAPTION;
    l->heads = regions ? x->heads : 1;
    l->task = regions ? x->task_tokens : 0;
    l->tokens = regions ? x->tokens : 0;
    l->prefix = l->task + l->tokens;
    l->words = l->in->length - 1;
    l->T = l->prefix + l->words;
    l->N = (int64_t)l->in->images * l->m * l->heads;
    TRY(list_targets(l));
    if (!l->train) return SCA_OK;
    TRY(lm_kept_open(&l->lm, &l->r->n->lm, t->recompute_lm));
    l->lm.drop = t->lm_dropout && l->r->c->lm.family == LM_GPT2;
    l->lm.key = dropout_key(l->in);
    return SCA_OK;
}

static sca_status lesson_open(lesson *l)
{
    const pass *p = &l->r->p;
    l->to = l->train ? pass_keeping(p) : *p;
    l->real = !p->d->kind->measures;
    l->m = l->in->regions;
    if (l->t->objective != OBJECTIVE_MASK) TRY(open_text(l));
    if (l->t->objective == OBJECTIVE_TEXT) return SCA_OK;
    l->n = l->in->boxes ? 2 : 1;
    if (l->in->points) l->n += l->in->n_points;
    l->pe = l->real ? l->t->m->pe : image_map(p->temp, l->r->c);
    sca_status status = SCA_OK;
    l->image = host((size_t)l->in->images, sizeof *l->image, "images", &status);
    TRY(status);
    for (int b = 0; b < l->in->images; b++) TRY(image_open(l, b));
    return SCA_OK;
}

static void lesson_close(lesson *l)
{
    for (int b = 0; l->image && b < l->in->images; b++) image_close(&l->image[b]);
    mem_free(l->image);
    mem_free(l->text);
    mem_free(l->target);
    mem_free(l->label);
    mem_free(l->back);
    mem_free(l->place);
    for (int i = 0; i < 2; i++) mem_free(l->row[i]);
    lm_kept_free(&l->lm);
}

sca_status training_read(dev *d, tensor t, double *out)
{
    int64_t n = tensor_count(t);
    if (t.type == DT_F64) return dev_get(d, out, t, tensor_bytes(t));
    float *f = mem_alloc((size_t)n * sizeof *f);
    if (!f) return mem_fail((size_t)n * sizeof *f, "losses");
    sca_status status = dev_get_f32(d, f, t);
    for (int64_t i = 0; i < n && status == SCA_OK; i++) out[i] = (double)f[i];
    mem_free(f);
    return status;
}

static tensor put_ids(const lesson *l, const pass *to, const int32_t *list, int64_t n)
{
    tensor ids = pass_ids(to, n);
    dev_put(l->r->p.d, ids, list, (size_t)n * sizeof *list);
    return ids;
}

/* ---- images and regions, forward ---------------------------------------------------------------------- */

static void embed_image(lesson *l, int b)
{
    const pass *p = &l->r->p;
    const training_input *in = l->in;
    image_kept *k = &l->image[b];
    int64_t S = image_tokens(l->r->c), C = l->r->c->sam.channels, side = l->r->c->sam.image;
    bool keep = l->train && l->t->encoder;
    k->embedding = pass_2d(&l->to, S, C);
    k->base = pass_2d(&l->to, S, C);
    size_t mark = arena_mark(p->temp);
    if (in->pixels) {
        tensor x = pass_4d(keep ? &l->to : p, 1, side, side, 3);
        dev_put_f32(p->d, x, in->pixels + b * side * side * 3);
        sam_encoder_fwd(p, &l->r->n->encoder, k->embedding, x, keep ? &k->encoder : NULL);
    } else {
        tensor x = arena_tensor(p->temp, in->stored, 2, (int64_t[]){ S, C });
        dev_put(p->d, x, (const char *)in->embeddings + (size_t)b * tensor_bytes(x), tensor_bytes(x));
        op_copy(p->d, k->embedding, x);
    }
    op_add_fwd(p->d, k->base, k->embedding, tensor_expand(l->r->n->prompt.no_mask.v, 0, S));
    arena_release(p->temp, mark);
}

/* (m,S,C), the same for all regions */
static tensor shared_base(const lesson *l, int b)
{
    return tensor_expand(tensor_unsqueeze(l->image[b].base, 0), 0, l->m);
}

static void decode_image(lesson *l, int b)
{
    image_kept *k = &l->image[b];
    if (l->t->objective == OBJECTIVE_CAPTION && l->r->n->mixer.rule->roi) {
        k->decoded = (mixer_input){ none(), none(), none(), none(), k->embedding, none() };
        k->decoded.boxes = region_boxes(&l->to, k->list, l->m, l->n);
        return;
    }
    k->decoded = decoded_new(&l->to, &l->r->c->sam, l->m, l->n);
    decode_tokens(&l->r->p, l->r->n, &k->decoded, k->list, shared_base(l, b), l->pe,
                  l->train && l->t->decoder ? &k->decoder : NULL);
}

/* What the mixer reads of an image. */
static mixer_input mixer_reads(const lesson *l, int b)
{
    mixer_input in = l->image[b].decoded;
    if (l->r->n->mixer.rule->raw) in.x = shared_base(l, b);
    return in;
}

static void mix_image(lesson *l, int b)
{
    bool keep = l->train && l->t->mixer, roi = l->r->n->mixer.rule->roi;
    mixer_input in = mixer_reads(l, b);
    tensor y = l->image[b].decoded.x;
    if (keep && !roi) y = pass_3d(&l->to, l->m, image_tokens(l->r->c), l->r->c->sam.channels);
    mixer_fwd(&l->r->p, &l->r->n->mixer, tensor_slice(l->mixed, 0, b * l->m, l->m), y, &in, l->pe,
              keep ? &l->image[b].mixer : NULL);
}

/* ---- sequences, forward ------------------------------------------------------------------------------- */

/* The task rows of image b, and their gradient. */
static tensor task_rows(const lesson *l, tensor table, int b)
{
    bool recognition = l->real && l->in->recognition && l->in->recognition[b];
    return tensor_unsqueeze(tensor_slice(table, 0, recognition ? 0 : l->task, l->task), 0);
}

/* Positions from..from+count of image b's sequences in h (N,T,d). */
static tensor task_part(const lesson *l, tensor h, int b)
{
    int64_t each = l->m * l->heads;
    return tensor_slice(tensor_slice(h, 0, b * each, each), 1, 0, l->task);
}

/* h (N,T,d) */
static void put_prefix(lesson *l, tensor h)
{
    const pass *p = &l->r->p;
    const mixer *m = &l->r->n->mixer;
    int64_t d = l->r->c->lm.width, rows = l->N * l->tokens;
    size_t mark = arena_mark(p->temp);
    for (int b = 0; l->task && b < l->in->images; b++)
        op_copy(p->d, task_part(l, h, b), tensor_expand(task_rows(l, m->task.v, b), 0, l->m * l->heads));
    tensor soft = pass_2d(p, rows, d);
    projector_fwd(p, &m->project, soft, tensor_reshape2(l->mixed, rows, l->r->c->sam.channels),
                  l->train ? &l->project : NULL);
    op_copy(p->d, tensor_slice(h, 1, l->task, l->tokens), tensor_reshape3(soft, l->N, l->tokens, d));
    arena_release(p->temp, mark);
}

static void put_text(lesson *l, tensor h)
{
    const pass *p = &l->r->p;
    int64_t d = l->r->c->lm.width, rows = l->N * l->words;
    if (rows == 0) return;
    l->ids = put_ids(l, &l->to, l->text, rows);
    size_t mark = arena_mark(p->temp);
    tensor text = pass_2d(p, rows, d);
    lm_embed(p, &l->r->n->lm, text, l->ids);
    op_copy(p->d, tensor_slice(h, 1, l->prefix, l->words), tensor_reshape3(text, l->N, l->words, d));
    arena_release(p->temp, mark);
}

/* ---- the loss of sequences ---------------------------------------------------------------------------- */

enum { LOGIT_ROWS = 256 }; /* a vocabulary of logits for so many positions at a time */

/* Adds the losses of rows x (R,d), targets from..from+R; dx (R,d) their gradients, absent if not wanted. */
static sca_status loss_rows(const lesson *l, tensor x, tensor dx, int64_t from, double *loss)
{
    const pass *p = &l->r->p;
    const lm *m = &l->r->n->lm;
    int64_t R = x.dim[0];
    size_t mark = arena_mark(p->temp);
    tensor logits = pass_2d(p, R, l->r->c->lm.vocab), each = pass_stat(p, R), lse = pass_stat(p, R);
    tensor label = put_ids(l, p, l->label + from, R);
    double value[LOGIT_ROWS] = { 0 };
    lm_logits(p, m, logits, x);
    op_cross_entropy_fwd(p->d, each, lse, logits, label, l->t->smoothing);
    sca_status status = training_read(p->d, each, value);
    for (int64_t i = 0; i < R && status == SCA_OK; i++) *loss += value[i] / (double)l->targets;
    if (tensor_given(dx)) {
        op_fill(p->d, each, l->weight / (double)l->targets);
        op_cross_entropy_bwd(p->d, logits, each, lse, logits, label, l->t->smoothing);
        lm_logits_bwd(p, m, dx, logits, x);
    }
    arena_release(p->temp, mark);
    return status;
}

/* The loss of y (rows,d); dy, absent if not wanted: its gradient. */
static sca_status loss_of(const lesson *l, tensor dy, tensor y, double *loss)
{
    const pass *p = &l->r->p;
    int64_t d = y.dim[1], n = l->targets;
    size_t mark = arena_mark(p->temp);
    bool back = tensor_given(dy);
    tensor x = pass_2d(p, n, d), dx = back ? pass_2d(p, n + 1, d) : none();
    op_embedding_fwd(p->d, x, y, put_ids(l, p, l->target, n)); /* picks rows */
    sca_status status = SCA_OK;
    for (int64_t i = 0; i < n && status == SCA_OK; i += LOGIT_ROWS) {
        int64_t R = n - i < LOGIT_ROWS ? n - i : LOGIT_ROWS;
        status = loss_rows(l, tensor_slice(x, 0, i, R), back ? tensor_slice(dx, 0, i, R) : none(), i, loss);
    }
    if (back) {
        op_fill(p->d, tensor_slice(dx, 0, n, 1), 0);
        op_embedding_fwd(p->d, dy, dx, put_ids(l, p, l->back, l->rows));
    }
    arena_release(p->temp, mark);
    return status;
}

/* ---- images and regions, backward --------------------------------------------------------------------- */

/* From the gradient at the image tokens before the decoder (m,S,C), which share one image. */
static void base_bwd(lesson *l, int b, tensor dx)
{
    const pass *p = &l->r->p;
    const net *n = l->r->n;
    int64_t S = image_tokens(l->r->c), C = l->r->c->sam.channels;
    size_t mark = arena_mark(p->temp);
    tensor dbase = pass_2d(p, S, C);
    tensor looks = l->image[b].looks;
    op_sum(p->d, tensor_unsqueeze(dbase, 0), dx, false);
    if (tensor_given(n->prompt.no_mask.g)) op_sum(p->d, n->prompt.no_mask.g, dbase, true);
    if (tensor_given(looks)) {
        tensor to = tensor_slice(dbase, 1, 0, looks.dim[1]);
        op_add_fwd(p->d, to, to, looks);
    }
    if (l->t->encoder) sam_encoder_bwd(p, &n->encoder, dbase, &l->image[b].encoder);
    arena_release(p->temp, mark);
}

/* From the gradients at the decoder's outputs, dq (m,T,C) and dx (m,S,C); dtokens (m,T,C): what came to its inputs from
 * elsewhere, or absent. */
static void decoder_bwd(lesson *l, int b, tensor dq, tensor dx, tensor dtokens)
{
    const pass *p = &l->r->p;
    const net *n = l->r->n;
    int64_t outputs = 1 + l->r->c->sam.masks;
    size_t mark = arena_mark(p->temp);
    tensor dt = pass_3d(p, dq.dim[0], dq.dim[1], dq.dim[2]);
    twoway_bwd(p, &n->decoder.transformer, dt, l->t->prompt ? dx : none(), dq, dx, &l->image[b].decoder);
    if (tensor_given(dtokens)) op_add_fwd(p->d, dt, dt, dtokens);
    mask_decoder_tokens_bwd(p, &n->decoder, dt);
    prompt_sparse_bwd(p, &n->prompt, tensor_slice(dt, 1, outputs, l->n), l->image[b].list);
    if (l->t->prompt) base_bwd(l, b, dx);
    arena_release(p->temp, mark);
}

/* What the mixer's backward gives to what stands before it. */
static mixer_input mixer_gradients(const lesson *l, const mixer_input *in)
{
    const pass *p = &l->r->p;
    const mixer_rule *rule = l->r->n->mixer.rule;
    int64_t S = image_tokens(l->r->c), C = l->r->c->sam.channels;
    mixer_input d = { none(), none(), none(), none(), none(), none() };
    if (rule->roi && l->t->encoder) d.embedding = pass_2d(p, S, C);
    if (rule->roi || !l->t->decoder) return d;
    d.x = pass_3d(p, l->m, S, C);
    if (rule->raw) d.sparse = pass_3d(p, l->m, l->n, C);
    if (!rule->raw) d.fused = pass_3d(p, l->m, in->fused.dim[1], C);
    if (!rule->raw && !rule->fused) d.tokens = pass_3d(p, l->m, in->fused.dim[1], C);
    return d;
}

/* dmixed (m, heads*tokens, C) */
static void image_bwd(lesson *l, int b, tensor dmixed)
{
    const pass *p = &l->r->p;
    image_kept *k = &l->image[b];
    size_t mark = arena_mark(p->temp);
    mixer_input in = mixer_reads(l, b), din = mixer_gradients(l, &in);
    mixer_bwd(p, &l->r->n->mixer, &din, dmixed, &in, &k->mixer);
    if (tensor_given(din.fused)) decoder_bwd(l, b, din.fused, din.x, din.tokens);
    if (tensor_given(din.sparse)) { /* the decoder stands beside the mixer, not before it */
        prompt_sparse_bwd(p, &l->r->n->prompt, din.sparse, k->list);
        base_bwd(l, b, din.x);
    }
    if (tensor_given(din.embedding)) sam_encoder_bwd(p, &l->r->n->encoder, din.embedding, &k->encoder);
    arena_release(p->temp, mark);
}

/* ---- captions and text -------------------------------------------------------------------------------- */

/* dh (N,T,d): the gradient at the input embeddings. */
static void prefix_bwd(lesson *l, tensor dh)
{
    const pass *p = &l->r->p;
    const mixer *m = &l->r->n->mixer;
    int64_t d = l->r->c->lm.width, C = l->r->c->sam.channels, rows = l->N * l->tokens;
    size_t mark = arena_mark(p->temp);
    for (int b = 0; tensor_given(m->task.g) && b < l->in->images; b++)
        op_sum(p->d, task_rows(l, m->task.g, b), task_part(l, dh, b), true);
    if (l->t->mixer) {
        tensor dsoft = pass_2d(p, rows, d), dmixed = pass_3d(p, l->mixed.dim[0], l->mixed.dim[1], C);
        op_copy(p->d, tensor_reshape3(dsoft, l->N, l->tokens, d), tensor_slice(dh, 1, l->task, l->tokens));
        projector_bwd(p, &m->project, tensor_reshape2(dmixed, rows, C), dsoft, &l->project);
        for (int b = 0; b < l->in->images; b++) image_bwd(l, b, tensor_slice(dmixed, 0, b * l->m, l->m));
    }
    arena_release(p->temp, mark);
}

static void text_bwd(const lesson *l, tensor dh)
{
    const pass *p = &l->r->p;
    int64_t d = l->r->c->lm.width, rows = l->N * l->words;
    if (rows == 0 || !tensor_given(l->r->n->lm.embedding.g)) return;
    size_t mark = arena_mark(p->temp);
    tensor dtext = pass_2d(p, rows, d);
    op_copy(p->d, tensor_reshape3(dtext, l->N, l->words, d), tensor_slice(dh, 1, l->prefix, l->words));
    lm_embed_bwd(p, &l->r->n->lm, dtext, l->ids);
    arena_release(p->temp, mark);
}

static void regions_fwd(lesson *l)
{
    int64_t each = l->heads * l->tokens;
    l->mixed = pass_3d(&l->to, (int64_t)l->in->images * l->m, each, l->r->c->sam.channels);
    for (int b = 0; b < l->in->images; b++) {
        embed_image(l, b);
        decode_image(l, b);
        mix_image(l, b);
    }
}

/* NULL: all places matter. On null the lists are there, for they may be on the device. */
static const lm_rows *rows_needed(lesson *l)
{
    int64_t places = l->N * l->T;
    if (l->real && l->rows == places) return NULL;
    l->packing = (lm_rows){ put_ids(l, &l->to, l->place, l->rows), put_ids(l, &l->to, l->row[0], places),
                            put_ids(l, &l->to, l->row[1], places) };
    return &l->packing;
}

static sca_status words_run(lesson *l, training_result *out)
{
    const pass *p = &l->r->p;
    const lm *m = &l->r->n->lm;
    int64_t d = l->r->c->lm.width;
    out->targets = l->targets;
    if (l->targets == 0) return SCA_OK;
    if (l->prefix) regions_fwd(l);
    const lm_rows *rows = rows_needed(l);
    tensor h = pass_3d(&l->to, l->N, l->T, d), y = pass_2d(&l->to, l->rows, d);
    if (l->prefix) put_prefix(l, h);
    put_text(l, h);
    lm_whole_fwd(p, m, y, h, rows, l->train ? &l->lm : NULL);
    tensor dy = l->train ? pass_2d(p, l->rows, d) : none();
    TRY(loss_of(l, dy, y, &out->loss));
    if (!l->train) return SCA_OK;
    tensor dh = pass_3d(p, l->N, l->T, d);
    lm_whole_bwd(p, m, dh, dy, rows, &l->lm);
    text_bwd(l, dh);
    if (l->prefix) prefix_bwd(l, dh);
    return SCA_OK;
}

/* ---- masks -------------------------------------------------------------------------------------------- */

/* SAM's losses: 20 focal + dice on the best of the masks of multimask_output, and the squared error of all their
 * predicted IoU. */

typedef struct mask_scores { /* of one region's masks: losses, true and predicted IoU */
    double focal[MASKS_MOST], dice[MASKS_MOST], iou[MASKS_MOST], predicted[MASKS_MOST];
    int best;
} mask_scores;

/* Adds region r's part of the loss to out; df, dd (n), di (n+1): gradients on the host, di with the single mask's. */
static void judge_region(const lesson *l, mask_scores *s, int n, training_result *out, float *df, float *dd,
                         float *di)
{
    double R = (double)l->in->images * (double)l->m;
    for (int k = 0; k < n; k++)
        if (FOCAL_WEIGHT * s->focal[k] + s->dice[k] < FOCAL_WEIGHT * s->focal[s->best] + s->dice[s->best])
            s->best = k;
    for (int k = 0; k < n; k++) {
        double error = s->predicted[k] - s->iou[k];
        out->loss += error * error / n / R;
        di[k + 1] = (float)(l->weight * 2 * error / n / R);
    }
    out->loss += (FOCAL_WEIGHT * s->focal[s->best] + s->dice[s->best]) / R;
    out->focal += s->focal[s->best] / R;
    out->dice += s->dice[s->best] / R;
    out->iou += s->iou[s->best] / R;
    df[s->best] = (float)(l->weight * FOCAL_WEIGHT / R);
    dd[s->best] = (float)(l->weight / R);
}

/* x (n,S) logits of one region's masks, target (n,S) repeats; the gradient takes the place of the logits. */
static sca_status judge_masks(const lesson *l, tensor x, tensor target, tensor predicted, training_result *out,
                              float *di)
{
    const pass *p = &l->r->p;
    int n = (int)x.dim[0];
    mask_scores s = { .best = 0 };
    float df[MASKS_MOST] = { 0 }, dd[MASKS_MOST] = { 0 };
    size_t mark = arena_mark(p->temp);
    tensor focal = pass_stat(p, n), dice = pass_stat(p, n), iou = pass_stat(p, n);
    sca_status status;
    op_mask_loss_fwd(p->d, focal, dice, iou, x, target);
    TRY_GOTO(done, training_read(p->d, focal, s.focal));
    TRY_GOTO(done, training_read(p->d, dice, s.dice));
    TRY_GOTO(done, training_read(p->d, iou, s.iou));
    TRY_GOTO(done, training_read(p->d, predicted, s.predicted));
    judge_region(l, &s, n, out, df, dd, di);
    if (l->train) {
        dev_put_f32(p->d, focal, df);
        dev_put_f32(p->d, dice, dd);
        op_mask_loss_bwd(p->d, x, focal, dice, x, target);
    }
done:
    arena_release(p->temp, mark);
    return status;
}

/* The loss of image b's logits (m,masks,4g,4g), whose gradient takes their place; diou (m,masks) */
static sca_status judge_image(lesson *l, int b, tensor logits, tensor iou, tensor diou, training_result *out)
{
    const pass *p = &l->r->p;
    int64_t masks = l->r->c->sam.masks, pixels = logits.dim[2] * logits.dim[3];
    float *di = mem_zero((size_t)(l->m * masks), sizeof *di);
    if (!di) return mem_fail((size_t)(l->m * masks) * sizeof *di, "IoU scores");
    sca_status status = SCA_OK;
    for (int64_t r = 0; r < l->m && status == SCA_OK; r++) {
        size_t mark = arena_mark(p->temp);
        tensor target = arena_tensor(p->temp, DT_U8, 2, (int64_t[]){ 1, pixels });
        tensor x = tensor_reshape2(tensor_at(logits, r), masks, pixels);
        dev_put(p->d, target, l->in->masks + (b * l->m + r) * pixels, (size_t)pixels);
        status = judge_masks(l, tensor_slice(x, 0, 1, masks - 1), tensor_expand(target, 0, masks - 1),
                             tensor_slice(tensor_at(iou, r), 0, 1, masks - 1), out, di + r * masks);
        if (l->train) op_fill(p->d, tensor_slice(x, 0, 0, 1), 0);
        arena_release(p->temp, mark);
    }
    dev_put_f32(p->d, diou, di);
    mem_free(di);
    return status;
}

/* The embedding's first channels shall restore colours and edges. */
static sca_status judge_embedding(lesson *l, int b, training_result *out)
{
    image_kept *k = &l->image[b];
    int64_t side = l->r->c->sam.image, grid = l->r->c->sam.grid;
    double loss, images = (double)l->in->images;
    if (l->t->restore == 0) return SCA_OK;
    if (l->train && l->t->encoder) k->looks = pass_2d(&l->to, grid * grid, restore_channels());
    TRY(restore_loss(&l->r->p, k->embedding, l->in->pixels + b * side * side * 3, side, grid,
                     l->weight * l->t->restore / images, k->looks, &loss));
    out->restore += loss / images;
    out->loss += l->t->restore * loss / images;
    return SCA_OK;
}

static sca_status masks_run(lesson *l, int b, training_result *out)
{
    const pass *p = &l->r->p;
    const mask_decoder *m = &l->r->n->decoder;
    image_kept *k = &l->image[b];
    int64_t masks = l->r->c->sam.masks, side = 4 * l->r->c->sam.grid, S = image_tokens(l->r->c);
    size_t keep = arena_mark(p->keep), temp = arena_mark(p->temp);
    embed_image(l, b);
    decode_image(l, b);
    tensor logits = pass_4d(&l->to, l->m, masks, side, side), iou = pass_2d(&l->to, l->m, masks);
    tensor q = k->decoded.fused, diou = pass_2d(p, l->m, masks);
    mask_decoder_masks(p, m, logits, q, k->decoded.x, l->train ? &k->masks : NULL);
    mask_decoder_iou(p, m, iou, q, l->train ? &k->iou : NULL);
    sca_status status = judge_image(l, b, logits, iou, diou, out);
    if (status == SCA_OK) status = judge_embedding(l, b, out);
    if (l->train && status == SCA_OK) {
        tensor dq = pass_3d(p, q.dim[0], q.dim[1], q.dim[2]), dx = pass_3d(p, l->m, S, l->r->c->sam.channels);
        op_fill(p->d, dq, 0);
        mask_decoder_masks_bwd(p, m, dq, dx, logits, &k->masks);
        mask_decoder_iou_bwd(p, m, dq, diou, &k->iou);
        decoder_bwd(l, b, dq, dx, none());
    }
    arena_release(p->keep, keep);
    arena_release(p->temp, temp);
    return status;
}

/* ---- a batch ------------------------------------------------------------------------------------------ */

sca_status training_run(const training *t, const run *r, const training_input *in, bool train, double scale,
                        training_result *out)
{
    lesson l = { .t = t, .r = r, .in = in, .train = train, .weight = scale };
    size_t keep = arena_mark(r->p.keep), temp = arena_mark(r->p.temp);
    *out = (training_result){ 0 };
    sca_status status = lesson_open(&l);
    if (status == SCA_OK && t->objective != OBJECTIVE_MASK) status = words_run(&l, out);
    for (int b = 0; status == SCA_OK && t->objective == OBJECTIVE_MASK && b < in->images; b++)
        status = masks_run(&l, b, out);
    if (t->objective == OBJECTIVE_MASK) out->targets = (int64_t)in->images * in->regions;
    sca_status stream = dev_check(r->p.d);
    lesson_close(&l);
    arena_release(r->p.keep, keep);
    arena_release(r->p.temp, temp);
    return status != SCA_OK ? status : stream;
}
