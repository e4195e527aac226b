/* model.c - the whole: a model on a device, an encoded image, regions through decoder, mixer and language model.
 *
 * Memory: weights, one scene per image, and one temporary range. Before a call runs, the same code runs on the null
 * device to learn how much temporary memory it takes; nothing is allocated while it computes. */
#include "model/inside.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- all parameters ---------------------------------------------------------------------------------- */

static bool starts_with_any(const char *name, const char *const *prefix, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (text_starts(name, prefix[i])) return true;
    return false;
}

/* The published trainable set (model.md 10.1), which is the mixer's side. */
static bool is_published(const char *name)
{
    static const char *const part[] = { "mask_decoder.additional_transformer.", "mask_decoder.caption_tokens.",
                                        "task_tokens.", "language_project." };
    return starts_with_any(name, part, LENGTH(part));
}

static bool wanted(const config *c, const char *name)
{
    if (text_ends(name, "positional_embedding")) return false; /* a buffer */
    if (c->n_train_trainable)
        return starts_with_any(name, (const char *const *)c->train_trainable, c->n_train_trainable);
    if (strcmp(c->train_objective, "text") == 0) return text_starts(name, "language_model.");
    if (strcmp(c->train_objective, "mask") == 0)
        return !is_published(name) && !text_starts(name, "language_model.");
    return is_published(name);
}

bool mark_trained(const config *c, const param_set *params)
{
    bool changed = false;
    for (size_t i = 0; i < params->n; i++) {
        param_entry *e = &params->entries[i];
        bool trained = wanted(c, e->name);
        changed |= trained != e->trained;
        e->trained = trained;
    }
    return changed;
}

sca_status net_bind(net *n, const model_config *c)
{
    *n = (net){ 0 };
    sca_status status;
    TRY_GOTO(failed, prompt_encoder_bind(&n->params, &n->prompt, &c->sam));
    TRY_GOTO(failed, sam_encoder_bind(&n->params, &n->encoder, &c->sam));
    TRY_GOTO(failed, mask_decoder_bind(&n->params, &n->decoder, &c->sam));
    TRY_GOTO(failed, mixer_bind(&n->params, &n->mixer, c));
    TRY_GOTO(failed, lm_bind(&n->params, &n->lm, &c->lm));
    if (n->params.failed) {
        status = mem_fail(n->params.cap * sizeof(param_entry), "the list of parameters");
        goto failed;
    }
    for (size_t i = 0; i < n->params.n; i++) n->params.entries[i].trained = is_published(n->params.entries[i].name);
    return SCA_OK;
failed:
    net_free(n);
    return status;
}

void net_free(net *n)
{
    sam_encoder_free(&n->encoder);
    mask_decoder_free(&n->decoder);
    mixer_free(&n->mixer);
    lm_free(&n->lm);
    param_set_free(&n->params);
}

/* ---- opening ----------------------------------------------------------------------------------------- */

int64_t image_tokens(const model_config *c) { return (int64_t)c->sam.grid * c->sam.grid; }
tensor image_map(arena *a, const model_config *c)
{
    return arena_tensor(a, a->d->kind->act, 2, (int64_t[]){ image_tokens(c), c->sam.channels });
}

static sca_status open_tokenizer(const config *c, model *m)
{
    const char *dir = *c->model_tokenizer ? c->model_tokenizer : *c->model_path ? c->model_path : c->model_lm;
    if (*c->model_tokenizer || dir_exists(dir)) {
        TRY(tokenizer_open(dir, &m->tokenizer));
    } else if (m->from.files[1]) {
        TRY(weights_tokenizer(m->from.files[1], &m->tokenizer));
    }
    if (m->tokenizer && tokenizer_size(m->tokenizer) > m->sizes.lm.vocab)
        return status_fail(SCA_ERR_FORMAT,
                           "%s: the tokenizer has %d ids, but the language model's vocabulary %d; name "
                           "the tokenizer that belongs to this language model",
                           dir, tokenizer_size(m->tokenizer), m->sizes.lm.vocab);
    return SCA_OK;
}

/* The model's shapes on the null device. */
static sca_status open_plan(model *m)
{
    TRY(dev_open("null", "", &m->null));
    TRY(net_bind(&m->plan, &m->sizes));
    TRY(arena_open(m->null, 0, &m->plan_weights));
    return place(&m->plan.params, NULL, (arena *const[2]){ &m->plan_weights, &m->plan_weights }, DT_F32);
}

static sca_status device_options(const config *c, str *s)
{
    str_printf(s, "threads=%lld", (long long)c->run_threads);
    if (*c->run_variants) str_printf(s, ",%s", c->run_variants);
    return s->failed ? mem_fail(s->bytes, "device options") : SCA_OK;
}

static sca_status open_device(const config *c, model *m)
{
    str options = { 0 };
    sca_status status = device_options(c, &options);
    if (status == SCA_OK) status = dev_open(c->run_device, str_text(&options), &m->d);
    str_free(&options);
    if (status != SCA_OK || !*c->run_trace) return status;
    dev *inner = m->d;
    m->d = NULL;
    return dev_trace(inner, c->run_trace, &m->d);
}

void model_generation_from(const config *c, generate_options *o)
{
    *o = (generate_options){ .beams = (int)c->generate_beams,
                             .max_tokens = (int)c->generate_max_tokens,
                             .top_k = (int)c->generate_top_k,
                             .length_penalty = c->generate_length_penalty,
                             .temperature = c->generate_temperature,
                             .top_p = c->generate_top_p,
                             .seed = (uint64_t)c->generate_seed };
}

sca_status model_prepare(const config *c, model *m)
{
    if (!*c->model_path && (!*c->model_sam || !*c->model_lm) && !*c->model_config)
        return status_fail(SCA_ERR_ARGUMENT,
                           "no model is named: set model.path to a model directory, or model.sam and "
                           "model.lm to assemble a fresh model");
    m->precision = strcmp(c->run_precision, "bf16") == 0 ? DT_BF16 : DT_F32;
    model_generation_from(c, &m->generation);
    TRY(sources_open(c, &m->from, &m->sizes));
    TRY(open_plan(m));
    TRY(sources_match(&m->from, &m->plan.params));
    mark_trained(c, &m->plan.params);
    return open_device(c, m);
}

static size_t map_bytes(const model *m)
{
    return (size_t)(image_tokens(&m->sizes) * m->sizes.sam.channels) * dtype_bytes(m->d->kind->act);
}

/* Tensors of zip archives can be used in place once their checksums have been found right. */
static sca_status map_weights(model *m)
{
    for (size_t i = 0; i < m->net.params.n; i++)
        if (m->from.of[i].weight) TRY(weight_map(m->from.of[i].weight));
    return SCA_OK;
}

static sca_status load(const config *c, model *m)
{
    TRY(model_prepare(c, m));
    TRY(open_tokenizer(c, m));
    TRY(net_bind(&m->net, &m->sizes));
    mark_trained(c, &m->net.params);
    TRY(map_weights(m));
    return model_place(m, true);
}

/* ---- passes ------------------------------------------------------------------------------------------ */

enum { MIB = 1 << 20 };

/* A device without room says how much was wanted; the model adds what for, what it holds already, and what to change. */
sca_status take_memory(model *m, size_t bytes, arena *out, const char *what, const char *advice)
{
    sca_status status = arena_open(m->d, bytes, out);
    if (status != SCA_ERR_MEMORY) return status;
    char why[400];
    snprintf(why, sizeof why, "%s", sca_last_error());
    return status_fail(status, "%s; it was for %s, %.1f MiB; the weights hold %.1f MiB; %s", why, what,
                       (double)bytes / MIB, (double)(m->weights.cap + m->trained.cap) / MIB, advice);
}

/* Temporary memory that a measured pass took on the null device (activations f32), on the real one. */
sca_status temp_reserve(model *m, size_t measured, const char *what, const char *advice)
{
    size_t need = measured * dtype_bytes(m->d->kind->act) / sizeof(float) + 4096;
    if (m->temp.cap >= need) return SCA_OK;
    arena_close(&m->temp);
    return take_memory(m, need + need / 8, &m->temp, what, advice);
}

sca_status null_run(model *m, arena *a, run *r)
{
    TRY(arena_open(m->null, 0, a));
    *r = (run){ { .d = m->null, .temp = a }, &m->plan, &m->sizes };
    return SCA_OK;
}

run real_run(model *m) { return (run){ { .d = m->d, .temp = &m->temp }, &m->net, &m->sizes }; }

/* The position code of the image tokens: computed once, kept beside the weights. */
static sca_status place_positions(model *m)
{
    arena a;
    run r;
    TRY(null_run(m, &a, &r));
    prompt_dense_pe(&r.p, &r.n->prompt, image_map(&a, &m->sizes));
    size_t peak = a.peak;
    arena_close(&a);
    TRY(dev_check(m->null));
    TRY(temp_reserve(m, peak, "the activations of the position code", HINT_ENCODE));
    m->pe = image_map(&m->weights, &m->sizes);
    r = real_run(m);
    prompt_dense_pe(&r.p, &r.n->prompt, m->pe);
    return dev_check(m->d);
}

sca_status model_place(model *m, bool trained)
{
    size_t bytes[2], mapped;
    arena *into[2] = { &m->weights, trained ? &m->trained : NULL };
    place_bytes(&m->net.params, &m->from, m->d->kind, m->precision, bytes, &mapped);
    const char *advice =
        "run.precision=bf16 (--precision bf16) halves f32 weights, and a smaller model needs fewer";
    TRY(take_memory(m, bytes[0] + map_bytes(m) + 4096, &m->weights, "the weights", advice));
    if (trained) TRY(take_memory(m, bytes[1], &m->trained, "the weights that may be trained", advice));
    TRY(place(&m->net.params, &m->from, into, m->precision));
    return place_positions(m);
}

sca_status model_value(const model *m, size_t i, dtype to, void *out)
{
    int shared = m->from.of[i].shares;
    const param_entry *e = &m->net.params.entries[shared >= 0 ? (size_t)shared : i];
    if (!m->live || !e->trained) return sources_read(&m->from, &m->net.params, i, to, out);
    dtype stored = e->p->v.type;
    if (to == stored) return dev_get(m->d, out, e->p->v, tensor_bytes(e->p->v));
    size_t bytes = tensor_bytes(e->p->v);
    void *copy = mem_alloc(bytes);
    if (!copy) return mem_fail(bytes, e->name);
    sca_status status = dev_get(m->d, copy, e->p->v, bytes);
    if (status == SCA_OK) dtype_convert(to, out, stored, copy, (size_t)param_count(e));
    mem_free(copy);
    return status;
}

sca_status model_open(const config *c, model **out)
{
    *out = NULL;
    model *m = mem_zero(1, sizeof *m);
    if (!m) return mem_fail(sizeof *m, "a model");
    sca_status status = load(c, m);
    if (status == SCA_OK)
        *out = m;
    else
        model_close(m);
    return status;
}

void model_close(model *m)
{
    if (!m) return;
    arena_close(&m->temp);
    arena_close(&m->weights);
    arena_close(&m->trained);
    arena_close(&m->plan_weights);
    net_free(&m->net);
    net_free(&m->plan);
    dev_close(m->d);
    dev_close(m->null);
    tokenizer_close(m->tokenizer);
    sources_close(&m->from);
    model_config_free(&m->sizes);
    mem_free(m);
}

const model_config *model_sizes(const model *m) { return &m->sizes; }
const tokenizer *model_tokenizer(const model *m) { return m->tokenizer; }
double model_smoothing(const model *m, double asked) { return m->net.mixer.rule->task ? asked : 0; }
int model_heads(const model *m) { return m->net.mixer.heads; }
generate_options *model_generation(model *m) { return &m->generation; }
const net *model_net(const model *m) { return &m->net; }
dev *model_device(const model *m) { return m->d; }

void model_streams(model *m, int64_t next) { m->streams = next; }

/* ---- memory plan ------------------------------------------------------------------------------------- */

static sca_status plan_text(model *m, const config *c, int regions, str *json)
{
    size_t placed[2], mapped, encode, describe;
    place_bytes(&m->plan.params, &m->from, m->d->kind, m->precision, placed, &mapped);
    TRY(encode_peak(m, &encode));
    TRY(boxes_peak(m, regions, &describe));
    size_t act = dtype_bytes(m->d->kind->act), image = scene_bytes(m);
    struct {
        const char *name;
        size_t bytes;
    } row[] = {
        { "weights", placed[0] + placed[1] + map_bytes(m) },
        { "weights used in mapped files", mapped },
        { "scene", image },
        { "temporary, to encode", encode * act / sizeof(float) },
        { "temporary, to describe", describe * act / sizeof(float) },
    };
    str_printf(json, "{\"device\": \"%s\", \"regions\": %d, \"arenas\": [", c->run_device, regions);
    for (size_t i = 0; i < LENGTH(row); i++)
        str_printf(json, "%s{\"name\": \"%s\", \"bytes\": %zu}", i ? ", " : "", row[i].name, row[i].bytes);
    size_t temp = row[3].bytes > row[4].bytes ? row[3].bytes : row[4].bytes; /* one range serves both */
    str_printf(json, "], \"total_bytes\": %zu}", row[0].bytes + mapped + image + temp);
    return json->failed ? mem_fail(json->bytes, "the memory plan") : SCA_OK;
}

sca_status model_plan(const config *c, int regions, str *json)
{
    if (regions < 1) return status_fail(SCA_ERR_ARGUMENT, "a plan for %d regions, expected 1 or more", regions);
    model *m = mem_zero(1, sizeof *m);
    if (!m) return mem_fail(sizeof *m, "a model");
    sca_status status = model_prepare(c, m);
    if (status == SCA_OK) status = plan_text(m, c, regions, json);
    model_close(m);
    return status;
}
