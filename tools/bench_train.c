/* bench_train.c - how fast training's parts are: a step and the mixer of the published shape on random weights, the sum
 * over ranks, photos, and the store. tools/bench.sh --train runs it; the table is for people, the JSON beside it for
 * programs. Built on the parts themselves, as bench.c is.
 *
 *   sca_bench_train [--json FILE] [--peer COMMAND] [--threads N] [--only WORD] [--photos FOLDER] [--trace WHAT]
 *   mpirun -n 2 sca_bench_train --reduce
 *   sca_bench_train --store FOLDER     which must be there; holds 0.5 GB meanwhile
 */
#include "bench_peer.h"
#include "data/data.h"
#include "model/inside.h"
#include "train/train.h"

#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { REGIONS = 16, ROUNDS_MOST = 7, ROUNDS_LEAST = 3, TRAINED = 19432832, WIDTH = 256 };
static const double SECONDS_PER_ROW = 20;

/* Tokens of 16 captions with their EOS, mean 9, as of Visual Genome's descriptions; the peer pads to the longest. */
static const int lengths[REGIONS] = { 6, 7, 7, 8, 8, 8, 9, 9, 9, 9, 10, 10, 10, 11, 11, 12 };
enum { LONGEST = 12 };

typedef struct options {
    const char *json, *peer, *only, *photos, *trace, *store; /* NULL: not given */
    int64_t threads;
} options;

typedef struct bench {
    const options *o;
    const char *precision; /* of the model that is open */
    model *m;
    training *t;
    arena memory, keep, temp; /* the optimiser's moments; the mixer's */
    tensor moment1, moment2;
    float *image; /* (S,C) in place of an encoded photo */
    int64_t step;
    char **photo; /* owned paths */
    size_t photos;
} bench;

static void on_log(void *user, sca_level level, const char *line)
{
    (void)user;
    (void)level;
    fprintf(stderr, "%s\n", line);
}

static float noise(size_t i) { return (float)((i * 2654435761u >> 7) & 1023) / 512 - 1; }

/* ---- memory of this process ------------------------------------------------------------------------------ */

/* From here on the peak counts anew, where the kernel can. */
static void peak_restart(void)
{
    FILE *f = fopen("/proc/self/clear_refs", "w");
    if (!f) return;
    fputs("5\n", f);
    fclose(f);
}

static double peak_bytes(void)
{
    char line[256];
    double kib = NAN;
    FILE *f = fopen("/proc/self/status", "r");
    while (f && fgets(line, sizeof line, f))
        if (strncmp(line, "VmHWM:", 6) == 0) kib = strtod(line + 6, NULL);
    if (f) fclose(f);
    return 1024 * kib;
}

/* ---- a training step --------------------------------------------------------------------------------------- */

static void model_shut(bench *b)
{
    arena_close(&b->memory);
    arena_close(&b->keep);
    arena_close(&b->temp);
    training_close(b->t);
    model_close(b->m);
    mem_free(b->image);
    *b = (bench){ .o = b->o, .photo = b->photo, .photos = b->photos };
}

static sca_status set_all(config *c, const bench *b, const char *precision)
{
    char threads[32], precise[64], trace[256];
    snprintf(threads, sizeof threads, "run.threads=%lld", (long long)b->o->threads);
    snprintf(precise, sizeof precise, "run.precision=%s", precision);
    snprintf(trace, sizeof trace, "run.trace=%s", b->o->trace ? b->o->trace : "");
    const char *const all[] = { "model.sam=random:vit_b", "model.lm=random:gpt2-large", threads, precise, trace };
    for (size_t i = 0; i < LENGTH(all); i++) TRY(config_set(c, all[i]));
    return SCA_OK;
}

static sca_status open_training(bench *b, const config *c)
{
    TRY(model_open(c, &b->m));
    TRY(training_open(b->m, c, &b->t));
    tensor values = training_values(b->t);
    TRY(arena_open(b->m->d, 2 * tensor_bytes(values) + 4096, &b->memory));
    b->moment1 = arena_tensor(&b->memory, values.type, 1, values.dim);
    b->moment2 = arena_tensor(&b->memory, values.type, 1, values.dim);
    op_fill(b->m->d, b->moment1, 0);
    op_fill(b->m->d, b->moment2, 0);
    size_t count = (size_t)image_tokens(&b->m->sizes) * (size_t)b->m->sizes.sam.channels;
    b->image = mem_alloc(count * sizeof *b->image);
    if (!b->image) return mem_fail(count * sizeof *b->image, "an image");
    for (size_t i = 0; i < count; i++) b->image[i] = noise(i);
    return dev_check(b->m->d);
}

static sca_status model_ready(bench *b, const char *precision)
{
    if (b->precision && strcmp(b->precision, precision) == 0) return SCA_OK;
    config *c = NULL;
    sca_status status;
    model_shut(b);
    TRY_GOTO(done, config_open(NULL, &c));
    TRY_GOTO(done, set_all(c, b, precision));
    status = open_training(b, c);
    b->precision = precision;
done:
    config_close(c);
    return status;
}

/* One image with 16 boxes, its embedding cached. */
static sca_status train_step(bench *b)
{
    double boxes[REGIONS][4];
    int32_t ids[REGIONS][LONGEST], labels[REGIONS][LONGEST + 1];
    for (int r = 0; r < REGIONS; r++) {
        double x = r % 4 * 256, y = r / 4 * 256.0;
        memcpy(boxes[r], (double[4]){ x, y, x + 200, y + 220 }, sizeof boxes[r]);
        labels[r][0] = -100;
        for (int k = 0; k < LONGEST; k++) {
            ids[r][k] = (r * 977 + k * 61 + (int)b->step * 7) % 50000;
            labels[r][k + 1] = k < lengths[r] ? ids[r][k] : -100;
        }
    }
    training_input in = { .images = 1,
                          .regions = REGIONS,
                          .embeddings = b->image,
                          .stored = DT_F32,
                          .boxes = boxes[0],
                          .ids = ids[0],
                          .labels = labels[0],
                          .length = LONGEST,
                          .seed = 1,
                          .step = b->step,
                          .batch = 0 };
    training_result got;
    dev *d = b->m->d;
    tensor g = training_gradients(b->t);
    op_fill(d, g, 0);
    TRY(training_batch(b->t, &in, 1, &got));
    op_adamw(d, training_values(b->t), b->moment1, b->moment2, g,
             (adamw_options){ .rate = 1e-4,
                              .beta1 = 0.9,
                              .beta2 = 0.999,
                              .eps = 1e-8,
                              .decay = 1e-4,
                              .scale = 1,
                              .step = ++b->step });
    return dev_check(d);
}

static sca_status step_f32(bench *b)
{
    TRY(model_ready(b, "f32"));
    return train_step(b);
}

static sca_status step_bf16(bench *b)
{
    TRY(model_ready(b, "bf16"));
    return train_step(b);
}

/* Forward and backward of the mixer's transformer: 8 caption, 5 output and 2 prompt tokens of 16 regions. */
static sca_status mix(bench *b)
{
    TRY(model_ready(b, "f32"));
    enum { TOKENS = 15 };
    const twoway *m = &b->m->net.mixer.transformer;
    int64_t S = image_tokens(&b->m->sizes);
    dev *d = b->m->d;
    if (!b->keep.base) {
        TRY(arena_open(d, (size_t)5 << 28, &b->keep));
        TRY(arena_open(d, (size_t)1 << 29, &b->temp));
    }
    arena_release(&b->keep, 0);
    arena_release(&b->temp, 0);
    pass p = { .d = d, .temp = &b->temp, .keep = &b->keep };
    twoway_kept kept;
    TRY(twoway_kept_open(&kept, m));
    tensor q = pass_3d(&p, REGIONS, TOKENS, WIDTH), t = pass_3d(&p, REGIONS, TOKENS, WIDTH);
    tensor dq = pass_3d(&p, REGIONS, TOKENS, WIDTH), dt = pass_3d(&p, REGIONS, TOKENS, WIDTH);
    pass keep = pass_keeping(&p);
    tensor x = pass_3d(&keep, REGIONS, S, WIDTH), y = pass_3d(&keep, REGIONS, S, WIDTH);
    for (int64_t i = 0; i < REGIONS; i++) dev_put_f32(d, tensor_at(x, i), b->image);
    dev_put_f32(d, tensor_reshape1(t, tensor_count(t)), b->image);
    op_fill(d, dq, 0.01);
    twoway_fwd(&p, m, q, y, t, x, b->m->pe, &kept);
    twoway_bwd(&p, m, dt, tensor_none(), dq, tensor_none(), &kept);
    twoway_kept_free(&kept);
    return dev_check(d);
}

/* ---- photos ------------------------------------------------------------------------------------------------ */

/* The JPEGs of a folder, at most 64, by name. */
static sca_status list_photos(bench *b, const char *folder)
{
    enum { MOST = 64 };
    struct dirent **entry = NULL;
    int n = scandir(folder, &entry, NULL, alphasort);
    if (n < 0) return status_fail(SCA_ERR_IO, "%s: cannot be listed, expected a folder of photos", folder);
    b->photo = mem_zero(MOST, sizeof *b->photo);
    for (int i = 0; i < n; i++) {
        str path = { 0 };
        if (b->photo && b->photos < MOST && text_ends(entry[i]->d_name, ".jpg")) {
            str_printf(&path, "%s/%s", folder, entry[i]->d_name);
            b->photo[b->photos++] = text_copy(str_text(&path), path.bytes);
        }
        str_free(&path);
        free(entry[i]); /* scandir's */
    }
    free(entry);
    return SCA_OK;
}

/* One thread: decode, and resize the longest side to 1024. */
static sca_status photos(bench *b)
{
    for (size_t i = 0; i < b->photos; i++) {
        sca_image photo = { 0 }, sized = { 0 };
        TRY(image_read(b->photo[i], &(sca_image_options){ 0 }, &photo));
        int longest = photo.width > photo.height ? photo.width : photo.height;
        int width = (photo.width * 1024 + longest / 2) / longest,
            height = (photo.height * 1024 + longest / 2) / longest;
        sca_status status = image_resize(&photo, width, height, &sized);
        sca_image_free(&photo);
        sca_image_free(&sized);
        TRY(status);
    }
    return SCA_OK;
}

/* ---- rows -------------------------------------------------------------------------------------------------- */

typedef struct row {
    const char *name, *peer;
    sca_status (*fn)(bench *b);
    bool photos; /* needs them */
} row;

static const row rows[] = {
    { "training step, 16 regions, f32", "step", step_f32, false },
    { "mixer forward + backward, 16 regions", "mixer", mix, false },
    { "training step, 16 regions, bf16 frozen", "step", step_bf16, false },
    { "photos, 1 thread, against Pillow", "photos", photos, true },
    { "photos, 1 thread, against torchvision", "torchvision", photos, true },
};

typedef struct timing {
    double ours, theirs, our_bytes, their_bytes; /* medians in seconds, peaks; NAN: none */
    int rounds;
} timing;

/* In turns, so that a machine that slows down slows both. The first round only warms up. */
static sca_status time_row(const row *r, bench *b, const peer *p, timing *out)
{
    double ours[ROUNDS_MOST], theirs[ROUNDS_MOST], spent = 0;
    int n = 0;
    bool asked = b->o->peer != NULL;
    peak_restart();
    for (int round = 0; n < ROUNDS_MOST && (n < ROUNDS_LEAST || spent < SECONDS_PER_ROW); round++) {
        double start = now_s();
        TRY(r->fn(b));
        double own = now_s() - start, other = asked ? peer_ask(p, r->peer) : NAN;
        asked = !isnan(other);
        if (round == 0) continue;
        ours[n] = own;
        theirs[n++] = other;
        spent += own + (asked ? other : 0);
    }
    *out = (timing){ median(ours, n), NAN, peak_bytes(), NAN, n };
    if (!asked) return SCA_OK;
    out->theirs = median(theirs, n);
    out->their_bytes = peer_ask(p, "memory");
    return SCA_OK;
}

static void put_row(const row *r, const timing *t, str *json)
{
    printf("%-42s %d x %8.3f s %6.2f GB", r->name, t->rounds, t->ours, t->our_bytes * 1e-9);
    if (!isnan(t->theirs))
        printf("   peer %8.3f s %6.2f GB: %5.2f x, %3.0f %% of the memory", t->theirs, t->their_bytes * 1e-9,
               t->theirs / t->ours, 100 * t->our_bytes / t->their_bytes);
    printf("\n");
    fflush(stdout);
    const double value[] = { t->ours, t->our_bytes, t->theirs, t->their_bytes };
    static const char *const name[] = { "seconds", "peak_bytes", "peer_seconds", "peer_peak_bytes" };
    str_printf(json, "%s\n    {\"name\": \"%s\", \"rounds\": %d", json->bytes > 20 ? "," : "", r->name, t->rounds);
    for (size_t i = 0; i < LENGTH(value); i++) {
        str_printf(json, ", \"%s\": ", name[i]);
        json_put_real(json, value[i]);
    }
    str_putc(json, '}');
}

static sca_status run_rows(bench *b, const peer *p, str *json)
{
    for (size_t i = 0; i < LENGTH(rows); i++) {
        const row *r = &rows[i];
        timing t;
        if (b->o->only && !strstr(r->name, b->o->only)) continue;
        if (r->photos && b->photos == 0) continue;
        TRY(time_row(r, b, p, &t));
        put_row(r, &t, json);
    }
    return SCA_OK;
}

static sca_status run_bench(const options *o)
{
    bench b = { .o = o };
    str json = { 0 };
    sca_status status = SCA_OK;
    peer p = peer_start(o->peer);
    str_put(&json, "{\n  \"rows\": [");
    if (o->photos) status = list_photos(&b, o->photos);
    if (status == SCA_OK) status = run_rows(&b, &p, &json);
    peer_stop(&p);
    str_put(&json, "\n  ]\n}\n");
    if (status == SCA_OK && o->json) status = file_write(o->json, str_text(&json), json.bytes);
    str_free(&json);
    for (size_t i = 0; i < b.photos; i++) mem_free(b.photo[i]);
    mem_free(b.photo);
    b.photos = 0;
    model_shut(&b);
    return status;
}

/* ---- the sum over ranks -------------------------------------------------------------------------------------- */

/* The mixer's gradients summed over the ranks, against a copy of as many bytes. */
static sca_status run_reduce(void)
{
    enum { ROUNDS = 15 };
    double sum[ROUNDS], copy[ROUNDS];
    comm *ranks = NULL;
    size_t bytes = (size_t)TRAINED * sizeof(float);
    float *values = mem_alloc(bytes), *other = mem_alloc(bytes);
    sca_status status = values && other ? SCA_OK : mem_fail(2 * bytes, "gradients");
    if (status == SCA_OK) status = comm_open(true, &ranks);
    for (int i = -1; i < ROUNDS && status == SCA_OK; i++) {
        for (size_t k = 0; k < TRAINED; k++) values[k] = noise(k);
        status = comm_barrier(ranks);
        double start = now_s();
        memcpy(other, values, bytes);
        double middle = now_s();
        if (status == SCA_OK) status = comm_barrier(ranks);
        double again = now_s();
        if (status == SCA_OK) status = comm_reduce(ranks, COMM_F32, COMM_SUM, values, TRAINED);
        if (i < 0) continue;
        copy[i] = middle - start;
        sum[i] = now_s() - again;
    }
    if (status == SCA_OK && ranks->rank == 0) {
        double s = median(sum, ROUNDS), c = median(copy, ROUNDS);
        printf("sum of %d floats over %d ranks: %.1f ms; a copy of them: %.1f ms; %.2f x\n", TRAINED, ranks->size,
               1e3 * s, 1e3 * c, s / c);
    }
    comm_close(ranks, status != SCA_OK);
    mem_free(values);
    mem_free(other);
    return status;
}

/* ---- the store ------------------------------------------------------------------------------------------------ */

enum { STORED = 64, EMBEDDING = 4096 * 256 * 4 };

static sca_status embed(void *user, const sca_image *photo, void *out)
{
    (void)photo;
    memset(out, ++*(unsigned char *)user, EMBEDDING);
    return SCA_OK;
}

static const char *in_folder(const char *folder, int64_t i, char path[CONFIG_TEXT])
{
    snprintf(path, CONFIG_TEXT, i < 0 ? "%s/bench.h5" : "%s/%lld.raw", folder, (long long)i);
    return path;
}

/* A store of embeddings, and the same in a file each. */
static sca_status store_files(const char *folder, config_dataset *set)
{
    char path[CONFIG_TEXT];
    unsigned char count = 0;
    str table = { 0 };
    prepare_options p = { .threads = 2, .size = 1, .embed = embed, .embedder = &count };
    void *values = mem_zero(1, EMBEDDING);
    sca_status status = values ? SCA_OK : mem_fail(EMBEDDING, "an embedding");
    snprintf(p.set.kind, sizeof p.set.kind, "synthetic");
    snprintf(p.set.split, sizeof p.set.split, "train");
    snprintf(p.set.annotations, sizeof p.set.annotations, "count=%d size=64", STORED);
    p.to = in_folder(folder, -1, path);
    p.embedding = (embeddings_info){ .grid = 64, .channels = 256, .bytes = EMBEDDING, .encoder = "bench" };
    if (status == SCA_OK) status = prepare_store(&p, &table);
    snprintf(set->kind, sizeof set->kind, "store");
    snprintf(set->annotations, sizeof set->annotations, "%s", path);
    for (int i = 0; i < STORED && status == SCA_OK; i++)
        status = file_write(in_folder(folder, i, path), values, EMBEDDING);
    str_free(&table);
    mem_free(values);
    return status;
}

static sca_status read_all(const dataset *d, const char *folder, void *values, double *store, double *files)
{
    char path[CONFIG_TEXT];
    double start = now_s();
    for (int i = 0; i < STORED; i++) TRY(dataset_embedding(d, i, values));
    double middle = now_s();
    for (int i = 0; i < STORED; i++) {
        char *raw;
        size_t bytes;
        TRY(file_read(in_folder(folder, i, path), EMBEDDING, &raw, &bytes));
        mem_free(raw);
    }
    *store = middle - start;
    *files = now_s() - middle;
    return SCA_OK;
}

static sca_status run_store(const char *folder)
{
    enum { ROUNDS = 9 };
    double store[ROUNDS + 1], files[ROUNDS + 1];
    config_dataset set = { 0 };
    dataset *d = NULL;
    void *values = mem_zero(1, EMBEDDING);
    sca_status status = values ? SCA_OK : mem_fail(EMBEDDING, "an embedding");
    if (status == SCA_OK) status = store_files(folder, &set);
    if (status == SCA_OK) status = dataset_open(&set, &d);
    for (int i = 0; i <= ROUNDS && status == SCA_OK; i++)
        status = read_all(d, folder, values, &store[i], &files[i]);
    if (status == SCA_OK) {
        double s = median(store + 1, ROUNDS), f = median(files + 1, ROUNDS), all = (double)STORED * EMBEDDING;
        printf("%d embeddings of 4 MiB from memory's copy of the disk: store %.2f GB/s, a file each %.2f GB/s; "
               "%.2f x\n",
               STORED, all / s * 1e-9, all / f * 1e-9, f / s);
    }
    dataset_close(d);
    mem_free(values);
    return status;
}

int main(int argc, char **argv)
{
    options o = { .threads = sysconf(_SC_NPROCESSORS_ONLN) };
    bool reduce = argc == 2 && strcmp(argv[1], "--reduce") == 0;
    struct {
        const char *name, **to;
    } known[] = { { "--json", &o.json },     { "--peer", &o.peer },   { "--only", &o.only },
                  { "--photos", &o.photos }, { "--trace", &o.trace }, { "--store", &o.store } };
    for (int i = 1; i < argc && !reduce; i += 2) {
        size_t k = 0;
        while (k < LENGTH(known) && strcmp(argv[i], known[k].name) != 0) k++;
        if (i + 1 < argc && k < LENGTH(known))
            *known[k].to = argv[i + 1];
        else if (i + 1 == argc || strcmp(argv[i], "--threads") != 0 ||
                 !text_to_int(argv[i + 1], 1, 1024, &o.threads))
            return fprintf(stderr, "sca_bench_train: wrong usage at %s\n", argv[i]), 2;
    }
    if (o.trace) sca_log_to(on_log, NULL, SCA_LOG_INFO);
    sca_status status = reduce ? run_reduce() : o.store ? run_store(o.store) : run_bench(&o);
    if (status == SCA_OK) return 0;
    fprintf(stderr, "sca_bench_train: %s\n", sca_last_error());
    return 1;
}
