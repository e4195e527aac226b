/* bench.c - how fast the parts are, on random weights of real size. tools/bench.sh runs it; the table is for
 * people, the JSON beside it for programs. Built on the models themselves, unlike the rest of tools/: it times what
 * is inside.
 *
 *   sca_bench [--json FILE] [--peer COMMAND] [--threads N] [--only WORD] [--trace WHAT]
 *   sca_bench --real SAM LM PRECISION     one photo with 16 boxes; fails above weights + 1.5 GiB of memory
 */
#include "bench_peer.h"
#include "model/model.h"
#include "sca.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

enum { REGIONS = 16, ROUNDS_MOST = 9, ROUNDS_LEAST = 5, PEERS = 2, THREADS_MOST = 1024 };
static const double SECONDS_PER_CASE = 12, SECONDS_MOST = 130; /* the second: of the rounds that must be */

/* ---- what the machine reaches: products in registers, plain reads of memory ---------------------------------- */

enum { CHAINS = 12, STEPS = 4000000, STREAMS = 4 };
#define READ_BYTES ((size_t)192 << 20)

typedef struct prober {
    double (*fn)(void *data); /* returns its amount of work */
    void *data;
    double work;
} prober;

typedef struct machine {
    int threads, probers;
    double flops, bytes; /* per second, the best seen: other users of the machine take from both at times */
    prober each[THREADS_MOST];
} machine;

#if defined(__x86_64__)
__attribute__((target("avx512f"))) static double fma_512(void *data)
{
    __m512 acc[CHAINS], a = _mm512_set1_ps(0.999f), b = _mm512_set1_ps(0.001f);
    for (int k = 0; k < CHAINS; k++) acc[k] = _mm512_set1_ps((float)k);
    for (int i = 0; i < STEPS; i++)
        for (int k = 0; k < CHAINS; k++) acc[k] = _mm512_fmadd_ps(acc[k], a, b);
    for (int k = 1; k < CHAINS; k++) acc[0] = _mm512_add_ps(acc[0], acc[k]);
    *(volatile float *)data = _mm512_reduce_add_ps(acc[0]);
    return 2.0 * 16 * CHAINS * STEPS;
}

__attribute__((target("avx2,fma"))) static double fma_256(void *data)
{
    __m256 acc[CHAINS], a = _mm256_set1_ps(0.999f), b = _mm256_set1_ps(0.001f);
    for (int k = 0; k < CHAINS; k++) acc[k] = _mm256_set1_ps((float)k);
    for (int i = 0; i < STEPS; i++)
        for (int k = 0; k < CHAINS; k++) acc[k] = _mm256_fmadd_ps(acc[k], a, b);
    for (int k = 1; k < CHAINS; k++) acc[0] = _mm256_add_ps(acc[0], acc[k]);
    float out[8];
    _mm256_storeu_ps(out, acc[0]);
    *(volatile float *)data = out[0];
    return 2.0 * 8 * CHAINS * STEPS;
}
#endif

static double fma_plain(void *data)
{
    float acc[CHAINS];
    for (int k = 0; k < CHAINS; k++) acc[k] = (float)k;
    for (int i = 0; i < STEPS / 8; i++)
        for (int k = 0; k < CHAINS; k++) acc[k] = acc[k] * 0.999f + 0.001f;
    for (int k = 1; k < CHAINS; k++) acc[0] += acc[k];
    *(volatile float *)data = acc[0];
    return 2.0 * CHAINS * (STEPS / 8);
}

/* Several streams at once, as the products with weights have them: one alone leaves bandwidth unused. */
static double read_memory(void *data)
{
    const size_t part = READ_BYTES / STREAMS / sizeof(uint64_t);
    const uint64_t *v = data;
    uint64_t sum[8] = { 0 };
    for (size_t i = 0; i < part; i += 8)
        for (size_t stream = 0; stream < STREAMS; stream++)
            for (size_t k = 0; k < 8; k++) sum[k] += v[stream * part + i + k];
    for (size_t k = 1; k < 8; k++) sum[0] ^= sum[k];
    *(volatile uint64_t *)data = sum[0];
    return (double)READ_BYTES;
}

static void *probe(void *p)
{
    prober *one = p;
    one->work = one->fn(one->data);
    return NULL;
}

/* Work per second of all threads together, now. */
static double rate_of(machine *m, double (*fn)(void *))
{
    static pthread_t thread[THREADS_MOST];
    double start = now_s(), work = 0;
    int started = 0;
    for (int i = 0; i < m->probers; i++) m->each[i].fn = fn;
    while (started < m->probers && pthread_create(&thread[started], NULL, probe, &m->each[started]) == 0) started++;
    for (int i = 0; i < started; i++) {
        pthread_join(thread[i], NULL);
        work += m->each[i].work;
    }
    return work / (now_s() - start);
}

static double flops_now(machine *m)
{
    double (*fma)(void *) = fma_plain;
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) fma = fma_256;
    if (__builtin_cpu_supports("avx512f")) fma = fma_512;
#endif
    double rate = rate_of(m, fma);
    m->flops = fmax(m->flops, rate);
    return rate;
}

static double bytes_now(machine *m)
{
    double rate = rate_of(m, read_memory);
    m->bytes = fmax(m->bytes, rate);
    return rate;
}

static void machine_close(machine *m)
{
    for (int i = 0; i < m->probers; i++) mem_free(m->each[i].data);
    m->probers = 0;
}

static sca_status machine_open(machine *m, int threads)
{
    const size_t huge = (size_t)2 << 20; /* weights lie in huge pages too */
    *m = (machine){ .threads = threads };
    for (; m->probers < threads; m->probers++) {
        void *data = mem_aligned(huge, READ_BYTES);
        if (!data) {
            machine_close(m);
            return mem_fail(READ_BYTES, "measuring the memory");
        }
        (void)madvise(data, READ_BYTES, MADV_HUGEPAGE);
        memset(data, 1, READ_BYTES);
        m->each[m->probers].data = data;
    }
    for (int i = 0; i < 5; i++) {
        flops_now(m);
        bytes_now(m);
    }
    return SCA_OK;
}

/* ---- arithmetic of the parts, counted as the plain definition does it -------------------------------------------
 */

static double product(double rows, double outputs, double inputs) { return 2 * rows * outputs * inputs; }

static double encoder_flops(const sam_config *c)
{
    double g = c->grid, S = g * g, D = c->width, total = product(S, D, 3.0 * c->patch * c->patch);
    for (int i = 0; i < c->layers; i++) {
        double windows = c->global[i] ? 1 : ceil(g / c->window) * ceil(g / c->window);
        double T = c->global[i] ? S : (double)c->window * c->window;
        total += product(windows * T, 3 * D, D) + product(windows * T, D, D) + 2 * product(S, c->mlp, D);
        total += windows * 2 * product(T, T, D);
    }
    return total + product(S, c->channels, D) + product(S, c->channels, 9.0 * c->channels);
}

/* One region through `layers` two-way blocks and the final attention: T tokens, S image tokens. */
static double twoway_flops(double layers, double T, double S, double C, double M, double hidden)
{
    double there = product(T, M, C) + 2 * product(S, M, C) + 2 * product(T, S, M) + product(T, C, M);
    double back = product(S, M, C) + 2 * product(T, M, C) + 2 * product(S, T, M) + product(S, C, M);
    double own = 4 * product(T, C, C) + 2 * product(T, T, C), feed = 2 * product(T, hidden, C);
    return layers * (own + there + feed + back) + there;
}

static double mixer_flops(const model_config *c, int regions)
{
    const sam_config *s = &c->sam;
    double S = (double)s->grid * s->grid, C = s->channels, M = C / s->downsample, T = 1 + s->masks + 2;
    double decoder = twoway_flops(s->decoder_layers, T, S, C, M, s->decoder_mlp);
    double mixing =
        twoway_flops(c->mixer_layers, T + c->caption_tokens * c->caption_heads, S, C, M, s->decoder_mlp);
    return regions * (decoder + mixing);
}

/* Bytes of weights that a step reads: everything but GPT-2's positions and an embedding that is not the head too.
 */
static double lm_bytes(const model *m)
{
    double total = 0;
    bool tied = false;
    const param_set *params = &model_net(m)->params;
    for (size_t i = 0; i < params->n; i++) tied = tied || params->entries[i].alias;
    for (size_t i = 0; i < params->n; i++) {
        const param_entry *e = &params->entries[i];
        if (!text_starts(e->name, "language_model.") || e->alias || strstr(e->name, "wpe")) continue;
        if (!tied && (strstr(e->name, "embed_tokens") || strstr(e->name, "wte"))) continue;
        total += (double)param_count(e) * (double)dtype_bytes(e->p->v.type);
    }
    return total;
}

/* ---- cases
 * --------------------------------------------------------------------------------------------------------- */

typedef struct bench {
    model *m;
    float *pixels;
    float *image; /* the encoded photo, (S,C) */
    float boxes[REGIONS][4];
    sca_prompt prompts[REGIONS];
    arena memory; /* of the decoder, the mixer and the language model's steps */
} bench;

static sca_status photo_open(bench *b, scene **out)
{
    int side = model_sizes(b->m)->sam.image;
    return scene_open(b->m, b->pixels, side, side, side, side, out);
}

static sca_status encode(bench *b, int n)
{
    (void)n;
    scene *s = NULL;
    sca_status status = photo_open(b, &s);
    scene_close(s);
    return status;
}

static sca_status encode_once(bench *b)
{
    const sam_config *c = &model_sizes(b->m)->sam;
    scene *s = NULL;
    if (b->image) return SCA_OK;
    size_t count = (size_t)c->grid * (size_t)c->grid * (size_t)c->channels;
    b->image = mem_alloc(count * sizeof *b->image);
    if (!b->image) return mem_fail(count * sizeof *b->image, "the encoded photo");
    sca_status status = photo_open(b, &s);
    if (status == SCA_OK) status = scene_embedding(s, b->image);
    scene_close(s);
    return status;
}

/* Empty temporary memory, so that every round finds the same places. */
static sca_status fresh_pass(bench *b, pass *p)
{
    enum { TEMP_BYTES = 1 << 30 };
    dev *d = model_device(b->m);
    if (!b->memory.base) {
        TRY(arena_open(d, TEMP_BYTES, &b->memory));
        if (d->kind->host_memory) memset(b->memory.base, 0, TEMP_BYTES); /* the cache must not hold denormals */
    }
    arena_release(&b->memory, 0);
    *p = (pass){ .d = d, .temp = &b->memory };
    return SCA_OK;
}

static sca_status mix(bench *b, int n)
{
    const model_config *c = model_sizes(b->m);
    const net *m = model_net(b->m);
    int64_t S = (int64_t)c->sam.grid * c->sam.grid, C = c->sam.channels;
    prompt_token corners[2 * REGIONS];
    pass p;
    TRY(encode_once(b));
    TRY(fresh_pass(b, &p));
    for (int i = 0; i < 2 * n; i++) {
        const float *xy = b->boxes[i / 2] + i % 2 * 2;
        corners[i] = (prompt_token){ xy[0], xy[1], i % 2 ? TOKEN_CORNER2 : TOKEN_CORNER1 };
    }
    tensor image = pass_3d(&p, 1, S, C), pe = pass_2d(&p, S, C);
    dev_put_f32(p.d, image, b->image);
    prompt_dense_pe(&p, &m->prompt, pe);
    mixer_input in = decoded_new(&p, &c->sam, n, 2);
    decode_tokens(&p, m, &in, corners, tensor_expand(image, 0, n), pe, NULL);
    tensor mixed = pass_3d(&p, n, (int64_t)c->caption_tokens * c->caption_heads, C);
    mixer_fwd(&p, &m->mixer, mixed, in.x, &in, pe, NULL);
    return dev_check(p.d);
}

/* One decoding step in the middle of a caption: 14 positions of prefix and 10 tokens are in the cache. */
static sca_status step(bench *b, int n)
{
    enum { BEFORE = 24 };
    int32_t rows[REGIONS * (BEFORE + 1)], ids[REGIONS];
    const lm *m = &model_net(b->m)->lm;
    pass p;
    TRY(fresh_pass(b, &p));
    lm_cache cache = lm_cache_new(&p, m, n, BEFORE + 1);
    tensor index = tensor_reshape2(pass_ids(&p, (int64_t)n * (BEFORE + 1)), n, BEFORE + 1),
           tokens = pass_ids(&p, n);
    tensor h = pass_3d(&p, n, 1, m->config->width), logits = pass_2d(&p, n, m->config->vocab);
    for (int i = 0; i < n * (BEFORE + 1); i++) rows[i] = i / (BEFORE + 1);
    for (int i = 0; i < n; i++) ids[i] = 100 + i;
    dev_put(p.d, index, rows, tensor_bytes(index));
    dev_put(p.d, tokens, ids, tensor_bytes(tokens));
    lm_embed(&p, m, tensor_reshape2(h, n, m->config->width), tokens);
    lm_fwd(&p, m, h, BEFORE, &cache, 1, index);
    lm_logits(&p, m, logits, tensor_reshape2(h, n, m->config->width));
    return dev_check(p.d);
}

static sca_status whole(bench *b, int n)
{
    region_result results[REGIONS] = { 0 };
    describe_options o = { .masks = true, .captions = true };
    scene *s = NULL;
    sca_status status = photo_open(b, &s);
    if (status == SCA_OK) status = scene_describe(s, b->prompts, n, &o, results);
    region_result_free(results, n);
    scene_close(s);
    return status;
}

typedef struct bench_case {
    const char *name, *peer[PEERS]; /* peer: what the peer program calls it, in f32 and as ours is stored */
    const char *sam, *lm, *precision;
    sca_status (*fn)(bench *b, int n);
    int n;
} bench_case;

/* A 3B model in f32 and ours do not fit together into the memory of a small machine, and PyTorch 2.1 takes half a minute per step of
 * 16 sequences in bf16 where the CPU has no such instructions. */
static const bench_case cases[] = {
    { "encoder, ViT-B", { "encoder vit_b f32" }, "vit_b", "gpt2-large", "f32", encode, 1 },
    { "decoder + mixer, 16 regions", { "mixer 16 f32" }, "vit_b", "gpt2-large", "f32", mix, 16 },
    { "GPT-2 large step, 1 sequence", { "gpt2-large 1 f32" }, "vit_b", "gpt2-large", "f32", step, 1 },
    { "GPT-2 large step, 16 sequences", { "gpt2-large 16 f32" }, "vit_b", "gpt2-large", "f32", step, 16 },
    { "photo with 16 boxes, GPT-2 large", { "photo 16 f32" }, "vit_b", "gpt2-large", "f32", whole, 16 },
    { "GPT-2 large bf16 step, 1 sequence",
      { "gpt2-large 1 f32", "gpt2-large 1 bf16" },
      "vit_b",
      "gpt2-large",
      "bf16",
      step,
      1 },
    { "GPT-2 large bf16 step, 16 sequences", { "gpt2-large 16 f32" }, "vit_b", "gpt2-large", "bf16", step, 16 },
    { "3B bf16 step, 1 sequence", { "open_llama_3b 1 bf16" }, "vit_b", "open_llama_3b", "bf16", step, 1 },
    { "3B bf16 step, 16 sequences", { NULL }, "vit_b", "open_llama_3b", "bf16", step, 16 },
};

static double work_of(const bench_case *c, const bench *b)
{
    if (c->fn == encode) return encoder_flops(&model_sizes(b->m)->sam);
    if (c->fn == mix) return mixer_flops(model_sizes(b->m), c->n);
    return c->fn == step ? lm_bytes(b->m) : 0;
}

/* ---- a model of random weights
 * ------------------------------------------------------------------------------------- */

static void bench_close(bench *b)
{
    arena_close(&b->memory);
    model_close(b->m);
    mem_free(b->pixels);
    mem_free(b->image);
    *b = (bench){ 0 };
}

typedef struct options {
    const char *json, *peer, *only, *trace; /* NULL: not asked for */
    int threads;
} options;

static sca_status set_all(config *c, const char *sam, const char *text, const char *precision, const options *o)
{
    char setting[256];
    snprintf(setting, sizeof setting, "model.sam=random:%s", sam);
    TRY(config_set(c, setting));
    snprintf(setting, sizeof setting, "model.lm=random:%s", text);
    TRY(config_set(c, setting));
    snprintf(setting, sizeof setting, "run.precision=%s", precision);
    TRY(config_set(c, setting));
    snprintf(setting, sizeof setting, "run.threads=%d", o->threads);
    TRY(config_set(c, setting));
    snprintf(setting, sizeof setting, "run.trace=%s", o->trace ? o->trace : "");
    TRY(config_set(c, setting));
    return config_set(c, "generate.beams=1");
}

static sca_status bench_open(bench *b, const config *c)
{
    *b = (bench){ 0 };
    TRY(model_open(c, &b->m));
    int side = model_sizes(b->m)->sam.image;
    size_t count = (size_t)side * (size_t)side * 3;
    b->pixels = mem_alloc(count * sizeof *b->pixels);
    if (!b->pixels) return mem_fail(count * sizeof *b->pixels, "the photo");
    for (size_t i = 0; i < count; i++) b->pixels[i] = (float)((i * 2654435761u >> 8) & 1023) / 256 - 2;
    for (int i = 0; i < REGIONS; i++) {
        float x = (float)(i % 4 * side) / 4, y = (float)(i / 4 * side) / 4, size = (float)side / 4;
        memcpy(b->boxes[i], (float[4]){ x, y, x + size, y + size }, sizeof b->boxes[i]);
        b->prompts[i].box_px = b->boxes[i];
    }
    return SCA_OK;
}

/* ---- running and printing
 * --------------------------------------------------------------------------------------------- */

typedef struct timing {
    double ours, theirs[PEERS]; /* medians in seconds; NAN: none */
    double peak;                /* what the machine reached between the rounds, per second: median */
    int rounds;
} timing;

/* In turns, so that a machine that slows down slows all of them. The first round only warms up. */
static sca_status time_case(const bench_case *c, bench *b, machine *m, const peer *p, timing *out)
{
    double ours[ROUNDS_MOST], theirs[PEERS][ROUNDS_MOST], peak[ROUNDS_MOST], spent = 0;
    bool asked[PEERS];
    int n = 0;
    for (int i = 0; i < PEERS; i++) asked[i] = c->peer[i] != NULL;
    for (int round = 0; n < ROUNDS_MOST && spent < (n < ROUNDS_LEAST ? SECONDS_MOST : SECONDS_PER_CASE); round++) {
        double start = now_s(), other[PEERS];
        TRY(c->fn(b, c->n));
        double own = now_s() - start;
        for (int i = 0; i < PEERS; i++) {
            other[i] = asked[i] ? peer_ask(p, c->peer[i]) : NAN;
            asked[i] = !isnan(other[i]);
        }
        if (round == 0) continue;
        ours[n] = own;
        peak[n] = c->fn == step ? bytes_now(m) : flops_now(m);
        for (int i = 0; i < PEERS; i++) theirs[i][n] = other[i];
        for (int i = 0; i < PEERS; i++) spent += asked[i] ? other[i] : 0;
        spent += own;
        n++;
    }
    *out = (timing){ .ours = median(ours, n), .peak = median(peak, n), .rounds = n };
    for (int i = 0; i < PEERS; i++) out->theirs[i] = asked[i] ? median(theirs[i], n) : NAN;
    return SCA_OK;
}

/* The arithmetic type is the last word of the peer's name. */
static const char *peer_type(const bench_case *c, int i) { return strrchr(c->peer[i], ' ') + 1; }

static void put_case(const bench_case *c, double work, const timing *t, str *json, bool first)
{
    bool memory = c->fn == step;
    double rate = work / t->ours, share = rate / t->peak;
    printf("%-36s %2d x %8.3f s", c->name, t->rounds, t->ours);
    if (work > 0)
        printf(" %6.1f %-7s %4.0f %%", rate * 1e-9, memory ? "GB/s" : "GFLOP/s", 100 * share);
    else
        printf(" %21s", "");
    for (int i = 0; i < PEERS; i++)
        if (c->peer[i] && !isnan(t->theirs[i]))
            printf("   PyTorch %s %.3f s, %.2f x", peer_type(c, i), t->theirs[i], t->theirs[i] / t->ours);
    printf("\n");
    fflush(stdout);
    str_printf(json, "%s\n    {\"name\": \"%s\", \"seconds\": ", first ? "" : ",", c->name);
    json_put_real(json, t->ours);
    str_printf(json, ", \"rounds\": %d, \"work\": ", t->rounds);
    json_put_real(json, work);
    str_printf(json, ", \"unit\": \"%s\", \"share_of_peak\": ", memory ? "byte" : "FLOP");
    json_put_real(json, work > 0 ? share : NAN);
    str_put(json, ", \"peak_per_second\": ");
    json_put_real(json, t->peak);
    for (int i = 0; i < PEERS && c->peer[i]; i++) {
        str_printf(json, ", \"pytorch_%s_seconds\": ", peer_type(c, i));
        json_put_real(json, t->theirs[i]);
    }
    str_putc(json, '}');
}

static bool same_model(const bench_case *a, const bench_case *b)
{
    return strcmp(a->sam, b->sam) == 0 && strcmp(a->lm, b->lm) == 0 && strcmp(a->precision, b->precision) == 0;
}

static bool wanted(const bench_case *c, const char *only)
{
    bool yes = !only || strstr(c->name, only);
    for (int i = 0; i < PEERS && c->peer[i]; i++) yes = yes || strstr(c->peer[i], only);
    return yes;
}

/* The model of a case in place of the one before. */
static sca_status bench_change(bench *b, const bench_case *c, const options *o)
{
    config *settings = NULL;
    sca_status status;
    bench_close(b);
    TRY_GOTO(done, config_open(NULL, &settings));
    TRY_GOTO(done, set_all(settings, c->sam, c->lm, c->precision, o));
    status = bench_open(b, settings);
done:
    config_close(settings);
    return status;
}

static sca_status run_cases(machine *m, const peer *p, const options *o, str *json)
{
    bench b = { 0 };
    const bench_case *open = NULL;
    sca_status status = SCA_OK;
    bool first = true;
    for (size_t i = 0; i < LENGTH(cases) && status == SCA_OK; i++) {
        const bench_case *c = &cases[i];
        timing t = { 0 };
        if (!wanted(c, o->only)) continue;
        if (!open || !same_model(open, c) || o->trace) status = bench_change(&b, c, o); /* a trace per case */
        open = c;
        if (status == SCA_OK) status = time_case(c, &b, m, p, &t);
        if (status == SCA_OK) put_case(c, work_of(c, &b), &t, json, first);
        first = false;
    }
    bench_close(&b);
    return status;
}

static sca_status run_bench(const options *o)
{
    static machine m;
    TRY(machine_open(&m, o->threads));
    str json = { 0 };
    printf("%d threads; %.0f GFLOP/s in registers (f32), %.1f GB/s from memory\n\n", o->threads, m.flops * 1e-9,
           m.bytes * 1e-9);
    str_printf(&json, "{\n  \"threads\": %d,\n  \"cases\": [", o->threads);
    peer p = peer_start(o->peer);
    sca_status status = run_cases(&m, &p, o, &json);
    peer_stop(&p);
    machine_close(&m);
    str_put(&json, "\n  ],\n  \"peak_flops\": ");
    json_put_real(&json, m.flops);
    str_put(&json, ",\n  \"peak_bytes_per_second\": ");
    json_put_real(&json, m.bytes);
    str_put(&json, "\n}\n");
    if (status == SCA_OK && o->json) status = file_write(o->json, str_text(&json), json.bytes);
    str_free(&json);
    return status;
}

/* ---- models of real size
 * ------------------------------------------------------------------------------------------------ */

/* Bytes of weights, from the memory plan. */
static sca_status weight_bytes(const config *c, double *out)
{
    str text = { 0 };
    json_t *plan = NULL, *row;
    size_t i;
    sca_status status;
    *out = 0;
    TRY_GOTO(done, model_plan(c, REGIONS, &text));
    TRY_GOTO(done, json_parse(str_text(&text), text.bytes, "the memory plan", &plan));
    json_array_foreach(json_object_get(plan, "arenas"), i, row)
    {
        if (text_starts(json_string_value(json_object_get(row, "name")), "weights"))
            *out += json_number_value(json_object_get(row, "bytes"));
    }
done:
    json_decref(plan);
    str_free(&text);
    return status;
}

static sca_status run_real(const char *sam, const char *text, const char *precision, const options *o)
{
    bench b = { 0 };
    config *c = NULL;
    double owned, start, seconds, gib = 1u << 30;
    sca_status status;
    TRY_GOTO(done, config_open(NULL, &c));
    TRY_GOTO(done, set_all(c, sam, text, precision, o));
    TRY_GOTO(done, weight_bytes(c, &owned));
    TRY_GOTO(done, bench_open(&b, c));
    start = now_s();
    TRY_GOTO(done, whole(&b, REGIONS));
    seconds = now_s() - start;
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    double peak = 1024.0 * (double)usage.ru_maxrss, most = owned + 1.5 * gib;
    printf("%s + %s in %s: a photo with %d boxes in %.1f s; peak memory %.2f GiB, weights %.2f GiB\n", sam, text,
           precision, REGIONS, seconds, peak / gib, owned / gib);
    if (peak > most)
        status = status_fail(SCA_ERR_MEMORY, "%s + %s: peak memory of %.2f GiB, expected at most %.2f GiB", sam,
                             text, peak / gib, most / gib);
done:
    bench_close(&b);
    config_close(c);
    return status;
}

static void on_log(void *user, sca_level level, const char *message)
{
    (void)user;
    (void)level;
    printf("  %s\n", message);
}

static int failed(sca_status status)
{
    if (status != SCA_OK) fprintf(stderr, "sca_bench: %s\n", sca_last_error());
    return status != SCA_OK;
}

int main(int argc, char **argv)
{
    options o = { .threads = (int)sysconf(_SC_NPROCESSORS_ONLN) };
    struct {
        const char *name, **value;
    } texts[] = { { "--json", &o.json }, { "--peer", &o.peer }, { "--only", &o.only }, { "--trace", &o.trace } };
    if (argc == 5 && strcmp(argv[1], "--real") == 0) return failed(run_real(argv[2], argv[3], argv[4], &o));
    for (int i = 1; i < argc; i += 2) {
        size_t k = 0;
        int64_t threads;
        while (k < LENGTH(texts) && strcmp(argv[i], texts[k].name) != 0) k++;
        if (i + 1 < argc && k < LENGTH(texts))
            *texts[k].value = argv[i + 1];
        else if (i + 1 < argc && strcmp(argv[i], "--threads") == 0 &&
                 text_to_int(argv[i + 1], 1, THREADS_MOST, &threads))
            o.threads = (int)threads;
        else
            return fprintf(stderr, "sca_bench: wrong usage at %s\n", argv[i]), 2;
    }
    if (o.trace) sca_log_to(on_log, NULL, SCA_LOG_INFO);
    return failed(run_bench(&o));
}
