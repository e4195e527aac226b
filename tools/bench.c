/* bench.c - how fast the parts are, on random weights of real size. tools/bench.sh runs it; the table is for
 * people, the JSON beside it for programs. Built on the models themselves, unlike the rest of tools/: it times what
 * is inside.
 *
 *   sca_bench [--json FILE] [--peer COMMAND] [--threads N] [--only WORD]
 *   sca_bench --real SAM LM PRECISION     one photo with 16 boxes; fails above weights + 1.5 GiB of memory
 */
#include "model/inside.h"

#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

enum { REGIONS = 16, ROUNDS_MOST = 9, ROUNDS_LEAST = 3, THREADS_MOST = 1024 };
static const double SECONDS_PER_CASE = 12, SECONDS_MOST = 60; /* the second: of the rounds that must be */

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int by_size(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *v, int n)
{
    qsort(v, (size_t)n, sizeof *v, by_size);
    return n % 2 ? v[n / 2] : 0.5 * (v[n / 2 - 1] + v[n / 2]);
}

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
    for (size_t i = 0; i < m->net.params.n; i++) tied = tied || m->net.params.entries[i].alias;
    for (size_t i = 0; i < m->net.params.n; i++) {
        const param_entry *e = &m->net.params.entries[i];
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
    scene *photo;
    float boxes[REGIONS][4];
    sca_prompt prompts[REGIONS];
    arena memory; /* of the language model's steps */
} bench;

static sca_status encode(bench *b, int n)
{
    (void)n;
    scene *s = NULL;
    int side = b->m->sizes.sam.image;
    sca_status status = scene_open(b->m, b->pixels, side, side, side, side, &s);
    scene_close(s);
    return status;
}

static sca_status mix(bench *b, int n)
{
    const model_config *c = &b->m->sizes;
    size_t peak;
    TRY(boxes_peak(b->m, n, &peak));
    TRY(temp_reserve(b->m, peak));
    run r = real_run(b->m);
    group g = { .N = n, .n = 2 };
    for (int i = 0; i < n; i++) g.member[i] = i;
    decoded out;
    size_t mark = arena_mark(r.p.temp);
    sca_status status = decode(&r, b->photo, &g, b->prompts, b->m->pe, &out);
    tensor mixed = pass_3d(&r.p, n, (int64_t)c->caption_tokens * c->caption_heads, c->sam.channels);
    if (status == SCA_OK) mixer_fwd(&r.p, &r.n->mixer, mixed, out.to_mixer.x, &out.to_mixer, b->m->pe, NULL);
    arena_release(r.p.temp, mark);
    return status == SCA_OK ? dev_check(b->m->d) : status;
}

/* One decoding step in the middle of a caption: 14 positions of prefix and 10 tokens are in the cache. */
static sca_status step(bench *b, int n)
{
    enum { BEFORE = 24, TEMP_BYTES = 1 << 30 };
    int32_t rows[REGIONS * (BEFORE + 1)], ids[REGIONS];
    const lm *m = &b->m->net.lm;
    dev *d = b->m->d;
    if (!b->memory.base) {
        TRY(arena_open(d, TEMP_BYTES, &b->memory));
        if (d->kind->host_memory) memset(b->memory.base, 0, TEMP_BYTES); /* the cache must not hold denormals */
    }
    arena_release(&b->memory, 0);
    pass p = { .d = d, .temp = &b->memory };
    lm_cache cache = lm_cache_new(&p, m, n, BEFORE + 1);
    tensor index = tensor_reshape2(pass_ids(&p, (int64_t)n * (BEFORE + 1)), n, BEFORE + 1),
           tokens = pass_ids(&p, n);
    tensor h = pass_3d(&p, n, 1, m->config->width), logits = pass_2d(&p, n, m->config->vocab);
    for (int i = 0; i < n * (BEFORE + 1); i++) rows[i] = i / (BEFORE + 1);
    for (int i = 0; i < n; i++) ids[i] = 100 + i;
    dev_put(d, index, rows, tensor_bytes(index));
    dev_put(d, tokens, ids, tensor_bytes(tokens));
    lm_embed(&p, m, tensor_reshape2(h, n, m->config->width), tokens);
    lm_fwd(&p, m, h, BEFORE, &cache, 1, index);
    lm_logits(&p, m, logits, tensor_reshape2(h, n, m->config->width));
    return dev_check(d);
}

static sca_status whole(bench *b, int n)
{
    region_result results[REGIONS] = { 0 };
    describe_options o = { .masks = true, .captions = true };
    scene *s = NULL;
    int side = b->m->sizes.sam.image;
    sca_status status = scene_open(b->m, b->pixels, side, side, side, side, &s);
    if (status == SCA_OK) status = scene_describe(s, b->prompts, n, &o, results);
    region_result_free(results, n);
    scene_close(s);
    return status;
}

typedef struct bench_case {
    const char *name, *peer; /* peer: what the peer program calls it */
    const char *sam, *lm, *precision;
    sca_status (*fn)(bench *b, int n);
    int n;
} bench_case;

static const bench_case cases[] = {
    { "encoder, ViT-B", "encoder vit_b", "vit_b", "gpt2-large", "f32", encode, 1 },
    { "decoder + mixer, 16 regions", "mixer 16", "vit_b", "gpt2-large", "f32", mix, 16 },
    { "GPT-2 large step, 1 sequence", "gpt2-large f32 1", "vit_b", "gpt2-large", "f32", step, 1 },
    { "GPT-2 large step, 16 sequences", "gpt2-large f32 16", "vit_b", "gpt2-large", "f32", step, 16 },
    { "photo with 16 boxes, GPT-2 large", "photo f32 16", "vit_b", "gpt2-large", "f32", whole, 16 },
    { "GPT-2 large bf16 step, 1 sequence", "gpt2-large bf16 1", "vit_b", "gpt2-large", "bf16", step, 1 },
    { "GPT-2 large bf16 step, 16 sequences", "gpt2-large bf16 16", "vit_b", "gpt2-large", "bf16", step, 16 },
    { "3B bf16 step, 1 sequence", "open_llama_3b bf16 1", "vit_b", "open_llama_3b", "bf16", step, 1 },
    { "3B bf16 step, 16 sequences", "open_llama_3b bf16 16", "vit_b", "open_llama_3b", "bf16", step, 16 },
};

static double work_of(const bench_case *c, const bench *b)
{
    if (c->fn == encode) return encoder_flops(&b->m->sizes.sam);
    if (c->fn == mix) return mixer_flops(&b->m->sizes, c->n);
    return c->fn == step ? lm_bytes(b->m) : 0;
}

/* ---- a model of random weights
 * ------------------------------------------------------------------------------------- */

static void bench_close(bench *b)
{
    arena_close(&b->memory);
    scene_close(b->photo);
    model_close(b->m);
    mem_free(b->pixels);
    *b = (bench){ 0 };
}

static sca_status set_all(config *c, const char *sam, const char *text, const char *precision, int threads)
{
    char setting[256];
    snprintf(setting, sizeof setting, "model.sam=random:%s", sam);
    TRY(config_set(c, setting));
    snprintf(setting, sizeof setting, "model.lm=random:%s", text);
    TRY(config_set(c, setting));
    snprintf(setting, sizeof setting, "run.precision=%s", precision);
    TRY(config_set(c, setting));
    snprintf(setting, sizeof setting, "run.threads=%d", threads);
    TRY(config_set(c, setting));
    return config_set(c, "generate.beams=1");
}

static sca_status bench_open(bench *b, const char *sam, const char *text, const char *precision, int threads)
{
    config *c = NULL;
    *b = (bench){ 0 };
    sca_status status;
    TRY_GOTO(done, config_open(NULL, &c));
    TRY_GOTO(done, set_all(c, sam, text, precision, threads));
    TRY_GOTO(done, model_open(c, &b->m));
    int side = b->m->sizes.sam.image;
    size_t count = (size_t)side * (size_t)side * 3;
    b->pixels = mem_alloc(count * sizeof *b->pixels);
    if (!b->pixels) TRY_GOTO(done, mem_fail(count * sizeof *b->pixels, "the photo"));
    for (size_t i = 0; i < count; i++) b->pixels[i] = (float)((i * 2654435761u >> 8) & 1023) / 256 - 2;
    for (int i = 0; i < REGIONS; i++) {
        float x = (float)(i % 4 * side) / 4, y = (float)(i / 4 * side) / 4, size = (float)side / 4;
        memcpy(b->boxes[i], (float[4]){ x, y, x + size, y + size }, sizeof b->boxes[i]);
        b->prompts[i].box_px = b->boxes[i];
    }
    TRY_GOTO(done, scene_open(b->m, b->pixels, side, side, side, side, &b->photo));
done:
    config_close(c);
    return status;
}

/* ---- the peer: another program that times the same thing when asked
 * -------------------------------------------------- */

typedef struct peer {
    FILE *to, *from; /* NULL: none */
    pid_t process;
} peer;

static peer peer_start(const char *command)
{
    int to[2], from[2];
    peer p = { 0 };
    if (!command || pipe(to) != 0 || pipe(from) != 0) return p;
    p.process = fork();
    if (p.process == 0) {
        dup2(to[0], 0);
        dup2(from[1], 1);
        for (int i = 0; i < 2; i++) {
            close(to[i]);
            close(from[i]);
        }
        execl("/bin/sh", "sh", "-c", command, (char *)NULL);
        _exit(127);
    }
    close(to[0]);
    close(from[1]);
    p.to = fdopen(to[1], "w");
    p.from = fdopen(from[0], "r");
    return p;
}

/* Seconds, or NAN when the peer does not do this. */
static double peer_time(const peer *p, const char *what)
{
    char line[64];
    double seconds;
    if (!p->to || fprintf(p->to, "%s\n", what) < 0 || fflush(p->to) != 0) return NAN;
    if (!fgets(line, sizeof line, p->from)) return NAN;
    line[strcspn(line, "\n")] = 0;
    return text_to_double(line, &seconds) && seconds > 0 ? seconds : NAN;
}

static void peer_stop(peer *p)
{
    if (p->to) fclose(p->to);
    if (p->from) fclose(p->from);
    if (p->process > 0) waitpid(p->process, NULL, 0);
}

/* ---- running and printing
 * --------------------------------------------------------------------------------------------- */

typedef struct timing {
    double ours, theirs; /* medians in seconds; NAN: none */
    double peak;         /* what the machine reached between the rounds, per second: median */
    int rounds;
} timing;

/* In turns, so that a machine that slows down slows all of them. The first round only warms up. */
static sca_status time_case(const bench_case *c, bench *b, machine *m, const peer *p, timing *out)
{
    double ours[ROUNDS_MOST], theirs[ROUNDS_MOST], peak[ROUNDS_MOST], spent = 0;
    int n = 0;
    bool has_peer = true;
    for (int round = 0; n < ROUNDS_MOST && spent < (n < ROUNDS_LEAST ? SECONDS_MOST : SECONDS_PER_CASE); round++) {
        double start = now_s();
        TRY(c->fn(b, c->n));
        double own = now_s() - start, other = has_peer ? peer_time(p, c->peer) : NAN;
        has_peer = !isnan(other);
        if (round == 0) continue;
        ours[n] = own;
        peak[n] = c->fn == step ? bytes_now(m) : flops_now(m);
        theirs[n++] = other;
        spent += own + (has_peer ? other : 0);
    }
    *out = (timing){ median(ours, n), has_peer ? median(theirs, n) : NAN, median(peak, n), n };
    return SCA_OK;
}

static void put_case(const bench_case *c, double work, const timing *t, str *json, bool first)
{
    bool memory = c->fn == step;
    double rate = work / t->ours, share = rate / t->peak;
    printf("%-38s %9.3f s", c->name, t->ours);
    if (work > 0)
        printf(" %8.1f %-7s %5.0f %%", rate * 1e-9, memory ? "GB/s" : "GFLOP/s", 100 * share);
    else
        printf(" %24s", "");
    if (!isnan(t->theirs)) printf("   PyTorch %8.3f s, %5.2f x", t->theirs, t->theirs / t->ours);
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
    str_put(json, ", \"pytorch_seconds\": ");
    json_put_real(json, t->theirs);
    str_putc(json, '}');
}

static bool same_model(const bench_case *a, const bench_case *b)
{
    return strcmp(a->sam, b->sam) == 0 && strcmp(a->lm, b->lm) == 0 && strcmp(a->precision, b->precision) == 0;
}

static sca_status run_cases(machine *m, const peer *p, const char *only, str *json)
{
    bench b = { 0 };
    const bench_case *open = NULL;
    sca_status status = SCA_OK;
    bool first = true;
    for (size_t i = 0; i < LENGTH(cases) && status == SCA_OK; i++) {
        const bench_case *c = &cases[i];
        timing t = { 0 };
        if (only && !strstr(c->name, only) && !strstr(c->peer, only)) continue;
        if (!open || !same_model(open, c)) {
            bench_close(&b);
            open = c;
            status = bench_open(&b, c->sam, c->lm, c->precision, m->threads);
        }
        if (status == SCA_OK) status = time_case(c, &b, m, p, &t);
        if (status == SCA_OK) put_case(c, work_of(c, &b), &t, json, first);
        first = false;
    }
    bench_close(&b);
    return status;
}

static sca_status run_bench(const char *json_path, const char *peer_command, int threads, const char *only)
{
    static machine m;
    TRY(machine_open(&m, threads));
    str json = { 0 };
    printf("%d threads; %.0f GFLOP/s in registers (f32), %.1f GB/s from memory\n\n", threads, m.flops * 1e-9,
           m.bytes * 1e-9);
    str_printf(&json, "{\n  \"threads\": %d,\n  \"cases\": [", threads);
    peer p = peer_start(peer_command);
    sca_status status = run_cases(&m, &p, only, &json);
    peer_stop(&p);
    machine_close(&m);
    str_put(&json, "\n  ],\n  \"peak_flops\": ");
    json_put_real(&json, m.flops);
    str_put(&json, ",\n  \"peak_bytes_per_second\": ");
    json_put_real(&json, m.bytes);
    str_put(&json, "\n}\n");
    if (status == SCA_OK && json_path) status = file_write(json_path, str_text(&json), json.bytes);
    str_free(&json);
    return status;
}

/* ---- models of real size
 * ------------------------------------------------------------------------------------------------ */

static sca_status run_real(const char *sam, const char *text, const char *precision, int threads)
{
    bench b = { 0 };
    sca_status status;
    TRY_GOTO(done, bench_open(&b, sam, text, precision, threads));
    size_t mapped, placed[2];
    place_bytes(&b.m->net.params, &b.m->from, b.m->d->kind, b.m->precision, placed, &mapped);
    size_t owned = placed[0] + placed[1];
    double start = now_s();
    TRY_GOTO(done, whole(&b, REGIONS));
    double seconds = now_s() - start, gib = 1u << 30;
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    double peak = 1024.0 * (double)usage.ru_maxrss, most = (double)(owned + mapped) + 1.5 * gib;
    printf("%s + %s in %s: a photo with %d boxes in %.1f s; peak memory %.2f GiB, weights %.2f GiB\n", sam, text,
           precision, REGIONS, seconds, peak / gib, (double)(owned + mapped) / gib);
    if (peak > most)
        status = status_fail(SCA_ERR_MEMORY, "%s + %s: peak memory of %.2f GiB, expected at most %.2f GiB", sam,
                             text, peak / gib, most / gib);
done:
    bench_close(&b);
    return status;
}

int main(int argc, char **argv)
{
    const char *json = NULL, *peer_command = NULL, *only = NULL;
    int64_t threads = sysconf(_SC_NPROCESSORS_ONLN);
    if (argc == 5 && strcmp(argv[1], "--real") == 0) {
        if (run_real(argv[2], argv[3], argv[4], (int)threads) == SCA_OK) return 0;
        fprintf(stderr, "sca_bench: %s\n", sca_last_error());
        return 1;
    }
    for (int i = 1; i < argc; i += 2) {
        bool known = i + 1 < argc;
        if (known && strcmp(argv[i], "--json") == 0)
            json = argv[i + 1];
        else if (known && strcmp(argv[i], "--peer") == 0)
            peer_command = argv[i + 1];
        else if (known && strcmp(argv[i], "--only") == 0)
            only = argv[i + 1];
        else if (!known || strcmp(argv[i], "--threads") != 0 ||
                 !text_to_int(argv[i + 1], 1, THREADS_MOST, &threads))
            return fprintf(stderr, "sca_bench: wrong usage at %s\n", argv[i]), 2;
    }
    if (run_bench(json, peer_command, (int)threads, only) == SCA_OK) return 0;
    fprintf(stderr, "sca_bench: %s\n", sca_last_error());
    return 1;
}
