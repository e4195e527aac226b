/* training.c - the trained part of a model: its ranges of values and gradients, its checkpoints, its memory. */
#include "model/training.h"

#include <stdlib.h>
#include <string.h>

/* ---- which parameters -------------------------------------------------------------------------------- */

/* Shares its value with another entry, whose gradient is its own. */
static bool is_second_name(const model *m, size_t i) { return m->from.of[i].shares >= 0; }

static bool in_range(const model *m, size_t i) { return m->net.params.entries[i].trained && !is_second_name(m, i); }

/* SAM's normalisation of maps is no nn.LayerNorm, so its weights decay (training.md 1). */
static bool decays(const param_entry *e)
{
    static const char *const map_norm[] = { ".neck.layer_norm", ".upscale_layer_norm", ".mask_embed.layer_norm" };
    if (strstr(e->name, "bias")) return false;
    if (e->init != INIT_ONE) return true;
    for (size_t i = 0; i < LENGTH(map_norm); i++)
        if (strstr(e->name, map_norm[i])) return true;
    return false;
}

static sca_status rate_of(const config *c, const char *name, int *rate)
{
    *rate = -1;
    for (size_t i = 0; i < c->n_train_lr_overrides; i++) {
        if (!strstr(name, c->train_lr_overrides_key[i])) continue;
        if (*rate >= 0)
            return status_fail(
                SCA_ERR_ARGUMENT,
                "train.lr_overrides: '%s' and '%s' are both part of the name %s, expected one rate for each "
                "parameter",
                c->train_lr_overrides_key[*rate], c->train_lr_overrides_key[i], name);
        *rate = (int)i;
    }
    return SCA_OK;
}

static sca_status check_prefixes(const config *c, const model *m)
{
    for (size_t k = 0; k < c->n_train_trainable; k++) {
        bool found = false;
        for (size_t i = 0; i < m->net.params.n && !found; i++)
            found = in_range(m, i) && text_starts(m->net.params.entries[i].name, c->train_trainable[k]);
        if (!found)
            return status_fail(
                SCA_ERR_ARGUMENT,
                "train.trainable: no parameter's name begins with '%s'; 'sca info --model' lists the parts",
                c->train_trainable[k]);
    }
    return SCA_OK;
}

static int compare_entries(const void *a, const void *b)
{
    const training_entry *x = a, *y = b;
    if (x->rate != y->rate) return x->rate < y->rate ? -1 : 1;
    if (x->decay != y->decay) return x->decay ? -1 : 1;
    return x->offset < y->offset ? -1 : x->offset > y->offset; /* until it is placed: the order of the registry */
}

static const param_entry *entry_of(const training *t, size_t k)
{
    return param_find(&t->m->net.params, t->entries[k].name);
}

enum { ENTRY_ALIGNMENT = 16 }; /* elements: what the widest loads want */

static sca_status list_entries(training *t, const config *c)
{
    const param_set *params = &t->m->net.params;
    t->entries = mem_zero(params->n, sizeof *t->entries);
    if (!t->entries) return mem_fail(params->n * sizeof *t->entries, "the list of trained parameters");
    for (size_t i = 0; i < params->n; i++) {
        const param_entry *e = &params->entries[i];
        if (!in_range(t->m, i)) continue;
        training_entry *to = &t->entries[t->n++];
        *to =
            (training_entry){ .name = e->name, .offset = (int64_t)i, .count = param_count(e), .decay = decays(e) };
        TRY(rate_of(c, e->name, &to->rate));
    }
    qsort(t->entries, t->n, sizeof *t->entries, compare_entries);
    for (size_t k = 0; k < t->n; k++) {
        t->entries[k].offset = t->count;
        t->count += (t->entries[k].count + ENTRY_ALIGNMENT - 1) / ENTRY_ALIGNMENT * ENTRY_ALIGNMENT;
    }
    if (t->n == 0) return status_fail(SCA_ERR_ARGUMENT, "nothing of this model is to be trained");
    return SCA_OK;
}

/* How far down backward has to go. */
static void find_depth(training *t)
{
    for (size_t k = 0; k < t->n; k++) {
        const char *name = t->entries[k].name;
        bool mixing = text_starts(name, "mask_decoder.additional_transformer.") ||
                      text_starts(name, "mask_decoder.caption_tokens.") || text_starts(name, "language_project.");
        t->encoder |= text_starts(name, "vision_encoder.");
        t->prompt |= text_starts(name, "prompt_encoder.");
        t->decoder |= text_starts(name, "mask_decoder.") && !mixing;
        t->mixer |= mixing;
    }
    t->prompt |= t->encoder; /* both need the gradient at the decoder's image tokens */
    t->decoder |= t->prompt;
    t->mixer |= t->decoder;
}

/* ---- placing ----------------------------------------------------------------------------------------- */

static tensor part_of(const training *t, tensor range, size_t k)
{
    const param_entry *e = entry_of(t, k);
    return tensor_reshape(tensor_slice(range, 0, t->entries[k].offset, t->entries[k].count), e->ndim, e->dim);
}

static sca_status put_values(const training *t, size_t k)
{
    model *m = t->m;
    const param_entry *e = entry_of(t, k);
    tensor to = part_of(t, t->values, k);
    void *copy = mem_alloc(tensor_bytes(to));
    if (!copy) return mem_fail(tensor_bytes(to), e->name);
    sca_status status = sources_read(&m->from, &m->net.params, (size_t)(e - m->net.params.entries), to.type, copy);
    if (status == SCA_OK) dev_put(m->d, to, copy, tensor_bytes(to));
    mem_free(copy);
    if (status == SCA_OK) status = dev_check(m->d);
    e->p->v = to;
    return status;
}

static dtype range_type(const model *m) { return m->d->kind->act == DT_F64 ? DT_F64 : DT_F32; }

static sca_status open_values(training *t)
{
    model *m = t->m;
    size_t bytes = (size_t)t->count * dtype_bytes(range_type(m));
    arena_close(&m->trained);
    TRY(arena_open(m->d, bytes, &m->trained));
    t->values = arena_tensor(&m->trained, range_type(m), 1, &t->count);
    op_fill(m->d, t->values, 0);
    TRY(dev_check(m->d));
    for (size_t k = 0; k < t->n; k++) TRY(put_values(t, k));
    for (size_t i = 0; i < m->net.params.n; i++)
        if (m->net.params.entries[i].trained) m->from.of[i].stored = DT_F32;
    m->live = true;
    return SCA_OK;
}

/* Gradients of one registry: on the device, or as shapes on null. */
static void give_gradients(const training *t, const param_set *params, tensor range)
{
    for (size_t k = 0; k < t->n; k++) {
        size_t i = (size_t)(entry_of(t, k) - t->m->net.params.entries);
        params->entries[i].p->g = part_of(t, range, k);
    }
    place_shared(params, &t->m->from);
}

static void take_gradients(const param_set *params)
{
    for (size_t i = 0; i < params->n; i++) params->entries[i].p->g = tensor_none();
}

static sca_status open_gradients(training *t)
{
    model *m = t->m;
    TRY(arena_open(m->d, (size_t)t->count * dtype_bytes(range_type(m)), &t->memory));
    t->gradients = arena_tensor(&t->memory, range_type(m), 1, &t->count);
    op_fill(m->d, t->gradients, 0);
    TRY(dev_check(m->d));
    give_gradients(t, &m->net.params, t->gradients);
    return SCA_OK;
}

/* The same on the null device. */
static sca_status open_plan_gradients(training *t)
{
    TRY(arena_open(t->m->null, 0, &t->plan_memory));
    give_gradients(t, &t->m->plan.params, arena_tensor(&t->plan_memory, DT_F32, 1, &t->count));
    return SCA_OK;
}

/* ---- opening ----------------------------------------------------------------------------------------- */

static sca_status read_settings(training *t, const config *c)
{
    t->objective = strcmp(c->train_objective, "mask") == 0   ? OBJECTIVE_MASK
                   : strcmp(c->train_objective, "text") == 0 ? OBJECTIVE_TEXT
                                                             : OBJECTIVE_CAPTION;
    t->smoothing = (float)c->train_label_smoothing;
    t->restore = c->train_restore;
    if (t->objective == OBJECTIVE_CAPTION) t->smoothing = (float)model_smoothing(t->m, c->train_label_smoothing);
    t->lm_dropout = c->train_lm_dropout;
    t->recompute_encoder = strcmp(c->train_checkpointing, "all") == 0;
    t->recompute_lm = t->recompute_encoder || strcmp(c->train_checkpointing, "lm") == 0;
    if (t->restore == 0) return SCA_OK;
    if (t->objective != OBJECTIVE_MASK)
        return status_fail(
            SCA_ERR_ARGUMENT,
            "train.restore is %g with train.objective %s; it belongs to the objective mask, which trains "
            "the encoder",
            t->restore, c->train_objective);
    if (t->m->sizes.sam.channels <= restore_channels())
        return status_fail(SCA_ERR_ARGUMENT,
                           "train.restore: the image embedding has %d channels, expected more than %d",
                           (int)t->m->sizes.sam.channels, restore_channels());
    return SCA_OK;
}

static sca_status open_parts(training *t, const config *c)
{
    model *m = t->m;
    mark_trained(c, &m->plan.params);
    if (mark_trained(c, &m->net.params)) { /* other parameters than those set apart when the model was opened */
        arena_close(&m->weights);
        arena_close(&m->trained);
        TRY(model_place(m, false));
    }
    TRY(check_prefixes(c, m));
    TRY(read_settings(t, c));
    TRY(list_entries(t, c));
    find_depth(t);
    TRY(open_values(t));
    TRY(open_gradients(t));
    return open_plan_gradients(t);
}

sca_status training_open(model *m, const config *c, training **out)
{
    *out = NULL;
    if (m->live)
        return status_fail(SCA_ERR_STATE,
                           "this model is or was being trained, expected one that has just been opened");
    training *t = mem_zero(1, sizeof *t);
    if (!t) return mem_fail(sizeof *t, "training");
    t->m = m;
    sca_status status = open_parts(t, c);
    if (status == SCA_OK)
        *out = t;
    else
        training_close(t);
    return status;
}

void training_close(training *t)
{
    if (!t) return;
    take_gradients(&t->m->net.params);
    take_gradients(&t->m->plan.params);
    arena_close(&t->keep);
    arena_close(&t->memory);
    arena_close(&t->plan_memory);
    mem_free(t->entries);
    mem_free(t);
}

const training_entry *training_entries(const training *t, size_t *n)
{
    *n = t->n;
    return t->entries;
}

dev *training_device(const training *t) { return t->m->d; }
tensor training_values(const training *t) { return t->values; }
tensor training_gradients(const training *t) { return t->gradients; }

/* ---- checkpoints ------------------------------------------------------------------------------------- */

static sca_status load_entry(const training *t, const weights *from, const char *path, size_t k)
{
    const param_entry *e = entry_of(t, k);
    const weight *w = weights_find(from, e->name);
    if (!w) return status_fail(SCA_ERR_FORMAT, "%s: tensor '%s' is missing, but it is trained here", path, e->name);
    bool same = w->ndim == e->ndim;
    for (int i = 0; i < e->ndim && same; i++) same = w->dim[i] == e->dim[i];
    if (!same)
        return status_fail(SCA_ERR_FORMAT, "%s: tensor '%s' has another shape than the parameter of this model",
                           w->file, e->name);
    tensor to = e->p->v;
    void *copy = mem_alloc(tensor_bytes(to));
    if (!copy) return mem_fail(tensor_bytes(to), e->name);
    sca_status status = weight_read(w, to.type, copy);
    if (status == SCA_OK) dev_put(t->m->d, to, copy, tensor_bytes(to));
    mem_free(copy);
    return status == SCA_OK ? dev_check(t->m->d) : status;
}

sca_status training_load(training *t, const char *path)
{
    weights *from;
    TRY(weights_open(path, &from));
    sca_status status = SCA_OK;
    for (size_t k = 0; k < t->n && status == SCA_OK; k++) status = load_entry(t, from, path, k);
    weights_close(from);
    return status;
}

/* ---- batches ----------------------------------------------------------------------------------------- */

typedef struct peaks {
    size_t keep, temp;
} peaks;

static sca_status measure(const training *t, const training_input *in, bool train, peaks *out)
{
    arena temp, keep = { 0 };
    run r;
    training_result unused;
    TRY(null_run(t->m, &temp, &r));
    sca_status status = arena_open(t->m->null, 0, &keep);
    r.p.keep = &keep;
    if (status == SCA_OK) status = training_run(t, &r, in, train, 1, &unused);
    *out = (peaks){ keep.peak, temp.peak };
    arena_close(&keep);
    arena_close(&temp);
    sca_status stream = dev_check(t->m->null);
    return status != SCA_OK ? status : stream;
}

static sca_status keep_reserve(training *t, size_t measured)
{
    size_t need = measured * dtype_bytes(t->m->d->kind->act) / sizeof(float) + 4096;
    if (t->keep.cap >= need) return SCA_OK;
    arena_close(&t->keep);
    return arena_open(t->m->d, need, &t->keep);
}

static sca_status batch(training *t, const training_input *in, bool train, double scale, training_result *out)
{
    peaks need;
    *out = (training_result){ 0 };
    TRY(training_check(t, in));
    TRY(measure(t, in, train, &need));
    TRY(temp_reserve(t->m, need.temp, "the activations of a training step",
                     "a smaller train.batch_images or data.regions_per_image needs less"));
    TRY(keep_reserve(t, need.keep));
    run r = real_run(t->m);
    r.p.keep = &t->keep;
    return training_run(t, &r, in, train, scale, out);
}

sca_status training_batch(training *t, const training_input *in, double scale, training_result *out)
{
    return batch(t, in, true, scale, out);
}

sca_status training_loss(training *t, const training_input *in, training_result *out)
{
    return batch(t, in, false, 1, out);
}

/* ---- memory plan ------------------------------------------------------------------------------------- */

static sca_status plan_text(const training *t, const training_input *in, str *json)
{
    const model *m = t->m;
    size_t placed[2], mapped, act = dtype_bytes(m->d->kind->act),
                              range = (size_t)t->count * dtype_bytes(range_type(m));
    peaks need;
    TRY(measure(t, in, true, &need));
    place_bytes(&m->plan.params, &m->from, m->d->kind, m->precision, placed, &mapped);
    struct {
        const char *name;
        size_t bytes;
    } row[] = {
        { "frozen weights", placed[0] + (size_t)(image_tokens(&m->sizes) * m->sizes.sam.channels) * act },
        { "weights used in mapped files", mapped },
        { "trained values", range },
        { "gradients", range },
        { "moments", 2 * range },
        { "kept for backward", need.keep * act / sizeof(float) },
        { "temporary", need.temp * act / sizeof(float) },
    };
    size_t total = 0;
    str_put(json, "{\"arenas\": [");
    for (size_t i = 0; i < LENGTH(row); i++) {
        str_printf(json, "%s{\"name\": \"%s\", \"bytes\": %zu}", i ? ", " : "", row[i].name, row[i].bytes);
        total += row[i].bytes;
    }
    str_printf(json, "], \"total_bytes\": %zu}", total);
    return json->failed ? mem_fail(json->bytes, "the memory plan") : SCA_OK;
}

/* As open_parts, without values. */
static sca_status plan_parts(training *t, const config *c, const training_input *shape, str *json)
{
    model *m = t->m;
    TRY(model_prepare(c, m));
    TRY(net_bind(&m->net, &m->sizes));
    mark_trained(c, &m->net.params);
    TRY(check_prefixes(c, m));
    TRY(read_settings(t, c));
    TRY(list_entries(t, c));
    find_depth(t);
    TRY(open_plan_gradients(t));
    return plan_text(t, shape, json);
}

sca_status training_plan(const config *c, const training_input *shape, str *json)
{
    training t = { .m = mem_zero(1, sizeof *t.m) };
    if (!t.m) return mem_fail(sizeof *t.m, "a model");
    sca_status status = plan_parts(&t, c, shape, json);
    arena_close(&t.plan_memory);
    mem_free(t.entries);
    model_close(t.m);
    return status;
}
