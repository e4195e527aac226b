/* test_loader.c - batches for training: order, mixtures, jitter, collation, threads, ranks, bad records. */
#include "data/loader_parts.h"
#include "faults.h"
#include "model/model.h"
#include "sets.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define GOLDEN SCA_SHARED "/golden"
#define PHOTOS SCA_SHARED "/data"
#define GENOME PHOTOS "/vg-mini"

static const double mean[3] = { 0.485, 0.456, 0.406 }, deviation[3] = { 0.229, 0.224, 0.225 };

static bool have_shared(void)
{
    if (dir_exists(GENOME) && dir_exists(GOLDEN "/augment")) return true;
    check_skip("shared: golden vectors or vg-mini are absent");
    return false;
}

/* Words stand for their first bytes; one id per byte, at most 18, and 0 at the end. */
static sca_status tokenise_bytes(void *user, const char *text, size_t bytes, int **ids, int *n)
{
    (void)user;
    *n = (int)(bytes < 18 ? bytes : 18) + 1;
    *ids = mem_zero((size_t)*n, sizeof **ids);
    if (!*ids) return mem_fail(64, "ids");
    for (int i = 0; i + 1 < *n; i++) (*ids)[i] = (uint8_t)text[i];
    return SCA_OK;
}

static loader_options options_of(const config_dataset *sets, size_t n)
{
    loader_options o = { .sets = sets,
                         .n_sets = n,
                         .shuffle = true,
                         .regions_per_image = 4,
                         .jitter_scale = { 0.1, 2 },
                         .max_bad = 0.01,
                         .seed = 42,
                         .batch_images = 1,
                         .size = 1,
                         .accumulate = 1,
                         .pixels = true,
                         .tokens = true,
                         .side = 64,
                         .mask_side = 16,
                         .tokenise = tokenise_bytes };
    memcpy(o.mean, mean, sizeof mean);
    memcpy(o.std, deviation, sizeof deviation);
    return o;
}

static config_dataset scenes(const char *annotations) { return set_of("synthetic", annotations, "", "train"); }

/* ---- fingerprints ---------------------------------------------------------------------------------------------- */

static uint64_t mix(uint64_t h, const void *data, size_t bytes)
{
    const uint8_t *p = data;
    for (size_t i = 0; i < bytes; i++) h = (h ^ p[i]) * 0x100000001b3u;
    return h;
}

static uint64_t print_of(const loader_batch *b, const loader_options *o)
{
    size_t B = (size_t)b->images, N = B * (size_t)b->regions, L = (size_t)b->length;
    size_t side = (size_t)o->side, mask = (size_t)o->mask_side;
    uint64_t h = mix(14695981039346656037u, &b->images, sizeof b->images);
    h = mix(h, &b->regions, sizeof b->regions);
    if (b->pixels) h = mix(h, b->pixels, B * side * side * 3 * sizeof(float));
    if (b->masks) h = mix(h, b->masks, N * mask * mask);
    if (b->ids) h = mix(h, b->ids, N * L * sizeof *b->ids);
    if (b->ids) h = mix(h, b->labels, N * (L + 1) * sizeof *b->labels);
    if (b->ids) h = mix(h, b->lengths, N * sizeof *b->lengths);
    h = mix(h, b->boxes, N * sizeof *b->boxes);
    h = mix(h, b->valid, B * sizeof *b->valid);
    h = mix(h, b->original, B * sizeof *b->original);
    h = mix(h, b->recognition, B);
    h = mix(h, b->image_ids, B * sizeof *b->image_ids);
    return mix(h, b->region_ids, N * sizeof *b->region_ids);
}

/* The fingerprints of the next n batches. */
static void take_prints(loader *l, const loader_options *o, uint64_t *out, size_t n)
{
    const loader_batch *b;
    for (size_t i = 0; i < n; i++) {
        out[i] = 0;
        CHECK_OK(loader_next(l, &b));
        if (b) out[i] = print_of(b, o);
    }
}

static void prints_of(const loader_options *o, uint64_t *out, size_t n)
{
    loader *l = NULL;
    memset(out, 0, n * sizeof *out);
    CHECK_OK(loader_open(o, &l));
    if (l) take_prints(l, o, out, n);
    loader_close(l);
}

/* ---- random numbers -------------------------------------------------------------------------------------------- */

/* numpy.random.default_rng(seed).random(3) */
static void numpy_generator(void)
{
    static const struct {
        uint64_t seed;
        double expected[3];
    } cases[] = { { 42, { 0.7739560485559633, 0.4388784397520523, 0.8585979199113825 } },
                  { 0, { 0.6369616873214543, 0.2697867137638703, 0.04097352393619469 } },
                  { 12345, { 0.22733602246716966, 0.31675833970975287, 0.7973654573327341 } } };
    for (size_t i = 0; i < LENGTH(cases); i++) {
        pcg64 g;
        pcg64_init(&g, cases[i].seed);
        for (int k = 0; k < 3; k++) {
            double u = pcg64_unit(&g);
            CHECKF(u == cases[i].expected[k], "seed %d, draw %d: %.17g", (int)cases[i].seed, k, u);
        }
    }
}

static void draw_ranges(void)
{
    draws d = draws_at(7, "test", 3);
    int counts[5] = { 0 };
    double sum = 0;
    for (int i = 0; i < 5000; i++) counts[draw_below(&d, 5)]++;
    for (int i = 0; i < 5; i++) CHECKF(counts[i] > 850 && counts[i] < 1150, "%d of 5000", counts[i]);
    for (int i = 0; i < 5000; i++) {
        double u = draw_unit(&d);
        CHECK(u >= 0 && u < 1);
        sum += u;
    }
    CHECKF(fabs(sum / 5000 - 0.5) < 0.02, "mean %g", sum / 5000);
    draws same = draws_at(7, "test", 3), other = draws_at(7, "test", 4);
    CHECK(draw_below(&same, 5) < 5 && draw_below(&same, UINT64_MAX) != draw_below(&other, UINT64_MAX));
}

/* ---- mixtures (data.md 3) ----------------------------------------------------------------------------------------- */

static void turns(void)
{
    static const int64_t images[] = { 2, 5, 1 };
    static const double none[3] = { 0 };
    static const int expected[15][2] = { { 0, 0 }, { 1, 0 }, { 2, 0 }, { 0, 1 }, { 1, 1 },
                                         { 2, 0 }, { 0, 0 }, { 1, 2 }, { 2, 0 }, { 0, 1 },
                                         { 1, 3 }, { 2, 0 }, { 0, 0 }, { 1, 4 }, { 2, 0 } };
    mixture m;
    CHECK_OK(mixture_init(images, none, 3, 42, &m));
    CHECK(m.count == 15);
    for (int64_t i = 0; i < m.count; i++) {
        size_t set;
        int64_t image;
        mixture_at(&m, i, &set, &image);
        CHECKF((int)set == expected[i][0] && image == expected[i][1], "place %d: set %d, image %d", (int)i,
               (int)set, (int)image);
    }
    mixture_free(&m);
}

/* The list that datasets.interleave_datasets makes of sets of 3 and 5 images with p = [0.25, 0.75], seed 42; the draws
 * are the ones of numpy_generator: 0.77, 0.44, 0.86, ... */
static void by_weight(void)
{
    static const int64_t images[] = { 3, 5 };
    const double shares[] = { 1, 3 }, some[] = { 1, 0 };
    mixture m;
    CHECK_OK(mixture_init(images, shares, 2, 42, &m));
    pcg64 g;
    pcg64_init(&g, 42);
    int64_t next[2] = { 0, 0 }, rounds[2] = { 0, 0 };
    for (int64_t i = 0; i < m.count; i++) {
        size_t set, expected = pcg64_unit(&g) >= 0.25;
        int64_t image;
        CHECK(rounds[0] == 0 || rounds[1] == 0); /* it ends when the last set is through */
        mixture_at(&m, i, &set, &image);
        CHECKF(set == expected && image == next[expected], "place %d", (int)i);
        if (++next[expected] == images[expected]) next[expected] = 0, rounds[expected]++;
    }
    CHECK(rounds[0] > 0 && rounds[1] > 0);
    mixture_free(&m);
    CHECK_FAILS(mixture_init(images, some, 2, 42, &m), SCA_ERR_ARGUMENT, "1 of 2 sets have a weight");

    static const int64_t large[] = { 2000, 3000 };
    CHECK_OK(mixture_init(large, shares, 2, 42, &m));
    int64_t of_second = 0;
    for (int64_t i = 0; i < m.count; i++) of_second += m.drawn[i] >= 2000;
    double share = (double)of_second / (double)m.count;
    CHECKF(fabs(share - 0.75) < 0.02 && m.count > 7500 && m.count < 8500, "share %g of %d", share, (int)m.count);
    mixture_free(&m);
}

/* ---- golden tensors of integers, which the reader of weights leaves alone ------------------------------------------ */

typedef struct tensors {
    file_view file;
    json_t *header;
    const uint8_t *data;
} tensors;

static void tensors_open(const char *path, tensors *t)
{
    uint64_t n;
    CHECK_OK(file_map(path, &t->file));
    memcpy(&n, t->file.data, sizeof n);
    CHECK_OK(json_parse((const char *)t->file.data + 8, (size_t)n, path, &t->header));
    t->data = t->file.data + 8 + n;
}

static void tensors_close(tensors *t)
{
    json_decref(t->header);
    file_unmap(&t->file);
}

/* dim: (3). */
static const void *tensor_of(const tensors *t, const char *name, int dim[3])
{
    const json_t *entry = json_object_get(t->header, name), *shape = json_object_get(entry, "shape");
    for (size_t i = 0; i < 3; i++) dim[i] = (int)json_integer_value(json_array_get(shape, i));
    CHECKF(entry != NULL, "%s is absent", name);
    return t->data + json_integer_value(json_array_get(json_object_get(entry, "data_offsets"), 0));
}

/* ---- jitter against the official transform ----------------------------------------------------------------------- */

static double real_of(const json_t *o, const char *key) { return json_number_value(json_object_get(o, key)); }

static void check_pixels(const char *name, const sca_image *image, const json_t *want, const uint8_t *expected)
{
    int differ = 0;
    double sum[3] = { 0 };
    int side = image->width;
    for (int y = 0; y < side; y++)
        for (int x = 0; x < side; x++)
            for (int c = 0; c < 3; c++) {
                int v = image->rgb[3 * (y * side + x) + c];
                sum[c] += v;
                if (y % 2 || x % 2) continue;
                differ += v != expected[3 * (y / 2 * (side / 2) + x / 2) + c];
            }
    CHECKF(differ == 0, "%s: %d values differ", name, differ);
    for (size_t c = 0; c < 3; c++) {
        double wanted = json_number_value(json_array_get(json_object_get(want, "image_sum"), c));
        CHECKF(sum[c] == wanted, "%s: sum %.0f, expected %.0f", name, sum[c], wanted);
    }
}

static void check_boxes(const char *name, const jitter *j, const json_t *want)
{
    const json_t *in = json_object_get(want, "regions_in"), *out = json_object_get(want, "input_boxes");
    size_t kept = 0;
    for (size_t i = 0; i < json_array_size(in); i++) {
        double box[4];
        for (size_t k = 0; k < 4; k++) box[k] = json_number_value(json_array_get(json_array_get(in, i), k));
        jitter_box(j, box);
        for (int k = 0; k < 4; k++) box[k] = box[k] < 0 ? 0 : box[k] > j->side ? j->side : box[k];
        if (box[2] - box[0] < 1 || box[3] - box[1] < 1) continue;
        const json_t *expected = json_array_get(out, kept++);
        for (size_t k = 0; k < 4; k++)
            CHECKF(box[k] == json_number_value(json_array_get(expected, k)), "%s: region %d, side %d: %g", name,
                   (int)i, (int)k, box[k]);
    }
    CHECKF(kept == json_array_size(out), "%s: %d regions", name, (int)kept);
}

static void jitter_case(const json_t *want, size_t number, const tensors *t)
{
    char path[600], key[64];
    sca_image photo, image;
    jitter j;
    const char *name = json_string_value(json_object_get(want, "image"));
    snprintf(path, sizeof path, PHOTOS "/%s", name);
    snprintf(key, sizeof key, "case%d.image_u8_every2", (int)number);
    int dim[3];
    const uint8_t *every2 = tensor_of(t, key, dim);
    CHECK_OK(image_read(path, NULL, &photo));
    jitter_init(&j, photo.width, photo.height, (int)real_of(want, "target"), real_of(want, "uniform_flip"),
                real_of(want, "scale"), real_of(want, "uniform_crop"));
    CHECK(j.flip == json_is_true(json_object_get(want, "flipped")));
    CHECK_OK(jitter_image(&j, &photo, mean, deviation, &image));
    CHECK(2 * dim[0] == image.height && 2 * dim[1] == image.width);
    check_pixels(name, &image, want, every2);
    check_boxes(name, &j, want);
    sca_image_free(&image);
    sca_image_free(&photo);
}

static void jitter_golden(void)
{
    json_t *root;
    tensors t;
    if (!have_shared()) return;
    CHECK_OK(json_open(GOLDEN "/augment/lsj.json", &root));
    tensors_open(GOLDEN "/augment/lsj.safetensors", &t);
    const json_t *cases = json_object_get(root, "cases");
    CHECK(json_array_size(cases) == 6);
    for (size_t i = 0; i < json_array_size(cases); i++) jitter_case(json_array_get(cases, i), i, &t);
    tensors_close(&t);
    json_decref(root);
}

/* ---- masks in the model's frame --------------------------------------------------------------------------------- */

static void mask_frames(void)
{
    enum { W = 40, H = 20, SIDE = 64, CELLS = 16 };
    uint8_t on[W * H] = { 0 }, out[CELLS * CELLS];
    for (int y = 5; y < 15; y++)
        for (int x = 10; x < 20; x++) on[y * W + x] = 1;
    CHECK_OK(mask_frame(on, W, H, NULL, SIDE, CELLS, out)); /* 1.6 times as large: 16..32 across, 8..24 down */
    for (int y = 0; y < CELLS; y++)
        for (int x = 0; x < CELLS; x++)
            CHECKF(out[y * CELLS + x] == (x >= 4 && x < 8 && y >= 2 && y < 6), "cell %d, %d", x, y);
    jitter j; /* half as large, flipped: 32 x 16, the mask at 16..24 across, 4..12 down */
    jitter_init(&j, W, H, SIDE, 0, 0.5, 0.3);
    CHECK(j.width == 32 && j.height == 16 && j.flip && j.left == 0);
    CHECK_OK(mask_frame(on, W, H, &j, SIDE, CELLS, out));
    for (int y = 0; y < CELLS; y++)
        for (int x = 0; x < CELLS; x++)
            CHECKF(out[y * CELLS + x] == (x >= 4 && x < 6 && y >= 1 && y < 3), "jittered cell %d, %d", x, y);
    jitter_init(&j, W, H, SIDE, 0.9, 2, 1); /* 128 x 64, cut at 64: the mask at 32..64 - 64 across */
    CHECK(j.left == 64 && j.top == 0 && !j.flip);
    CHECK_OK(mask_frame(on, W, H, &j, SIDE, CELLS, out));
    for (int i = 0; i < CELLS * CELLS; i++) CHECK(out[i] == 0);
}

/* ---- the official collator's batch ------------------------------------------------------------------------------- */

static sca_status tokenise(void *user, const char *text, size_t bytes, int **ids, int *n)
{
    return tokenizer_encode(user, text, bytes, true, ids, n);
}

static void check_ints(const char *what, const int32_t *found, const int64_t *expected, int n)
{
    for (int i = 0; i < n; i++)
        CHECKF(found[i] == expected[i], "%s at %d: %d, expected %d", what, i, found[i], (int)expected[i]);
}

static void check_batch(const loader_batch *b, const tensors *t)
{
    int dim[3];
    const int64_t *mask = tensor_of(t, "attention_mask", dim);
    if (!CHECKF(b->images == dim[0] && b->regions == dim[1] && b->length == dim[2], "%d x %d x %d", b->images,
                b->regions, b->length))
        return;
    int texts = b->images * b->regions;
    check_ints("id", b->ids, tensor_of(t, "input_ids", dim), texts * b->length);
    check_ints("label", b->labels, tensor_of(t, "labels", dim), texts * (b->length + 1));
    for (int i = 0; i < texts * b->length; i++) CHECK(mask[i] == (i % b->length < b->lengths[i / b->length]));
    const double *boxes = tensor_of(t, "input_boxes", dim), *found = b->boxes[0];
    for (int i = 0; i < texts * 4; i++)
        CHECKF(fabs(found[i] - boxes[i]) < 1e-9, "box value %d: %.12g, expected %.12g", i, found[i], boxes[i]);
}

static void golden_batch(const char *name)
{
    char path[400];
    tokenizer *t;
    tensors expected;
    loader *l;
    const loader_batch *b;
    snprintf(path, sizeof path, GOLDEN "/models/%s-fresh", name);
    CHECK_OK(tokenizer_open(path, &t));
    snprintf(path, sizeof path, GOLDEN "/train/%s/batch.safetensors", name);
    tensors_open(path, &expected);
    config_dataset set = set_of("visual_genome", GENOME "/annotations", GENOME, "train");
    loader_options o = options_of(&set, 1);
    o.shuffle = false;
    o.batch_images = 2;
    o.regions_per_image = 8;
    o.side = strcmp(name, "gpt2-tiny") == 0 ? 256 : 320;
    o.tokenise = tokenise;
    o.tokeniser = t;
    o.pad_id = tokenizer_eos(t);
    CHECK_OK(loader_open(&o, &l));
    CHECK_OK(loader_next(l, &b));
    check_batch(b, &expected);
    CHECK(b->image_ids[0] == 9 && b->recognition[0] == 0);
    loader_close(l);
    tensors_close(&expected);
    tokenizer_close(t);
}

static void collator(void)
{
    if (!have_shared()) return;
    golden_batch("gpt2-tiny");
    golden_batch("llama-tiny");
}

/* The images, regions and target tokens of all steps of a golden trajectory. */
static void file_order(void)
{
    if (!have_shared()) return;
    json_t *root;
    tokenizer *t;
    CHECK_OK(tokenizer_open(GOLDEN "/models/gpt2-tiny-fresh", &t));
    CHECK_OK(json_open(GOLDEN "/train/gpt2-tiny/adamw_1rank.json", &root));
    const json_t *steps = json_object_get(root, "steps");
    config_dataset set = set_of("visual_genome", GENOME "/annotations", GENOME, "train");
    loader_options o = options_of(&set, 1);
    loader *l;
    const loader_batch *b;
    o.shuffle = false;
    o.tokenise = tokenise;
    o.tokeniser = t;
    o.batch_images = 2;
    o.regions_per_image = 8;
    CHECK_OK(loader_open(&o, &l));
    CHECK(loader_images(l) == 110 && json_array_size(steps) == 100);
    for (size_t i = 0; i < json_array_size(steps); i++) {
        const json_t *step = json_array_get(steps, i), *ids = json_object_get(step, "images");
        CHECK_OK(loader_next(l, &b));
        CHECKF(b->image_ids[0] == json_integer_value(json_array_get(ids, 0)) &&
                   b->image_ids[1] == json_integer_value(json_array_get(ids, 1)),
               "step %d: images %d, %d", (int)i, (int)b->image_ids[0], (int)b->image_ids[1]);
        CHECK(2 * b->regions == json_integer_value(json_array_get(json_object_get(step, "regions"), 0)));
        CHECK(b->targets == json_integer_value(json_array_get(json_object_get(step, "tokens"), 0)));
    }
    loader_close(l);
    json_decref(root);
    tokenizer_close(t);
}

/* ---- threads, ranks, epochs ---------------------------------------------------------------------------------------- */

static void any_workers(void)
{
    enum { N = 25 };
    uint64_t alone[N], many[N];
    config_dataset set = scenes("count=9 size=40");
    loader_options o = options_of(&set, 1);
    o.jitter = o.masks = true;
    o.batch_images = 2;
    prints_of(&o, alone, N);
    for (o.workers = 1; o.workers <= 4; o.workers += 3) {
        prints_of(&o, many, N);
        CHECKF(memcmp(alone, many, sizeof alone) == 0, "%d workers make other batches", o.workers);
    }
    o.workers = 0;
    o.seed++;
    prints_of(&o, many, N);
    for (int i = 0; i < N; i++) CHECK(alone[i] != many[i]);
}

/* What a step holds depends on ranks times batches only. */
static void any_ranks(void)
{
    enum { STEPS = 6, SHARES = 4 };
    uint64_t whole[STEPS * SHARES], part[STEPS * SHARES];
    config_dataset set = scenes("count=7 size=40");
    loader_options o = options_of(&set, 1);
    o.accumulate = SHARES;
    for (int shuffled = 0; shuffled < 2; shuffled++) {
        o.shuffle = shuffled;
        o.size = 1;
        o.rank = 0;
        o.accumulate = SHARES;
        prints_of(&o, whole, STEPS * SHARES);
        for (o.size = 2; o.size <= SHARES; o.size *= 2) {
            o.accumulate = SHARES / o.size;
            for (o.rank = 0; o.rank < o.size; o.rank++) {
                size_t n = STEPS * (size_t)o.accumulate;
                prints_of(&o, part, n);
                for (size_t i = 0; i < n; i++)
                    CHECKF(part[i] == whole[i * (size_t)o.size + (size_t)o.rank], "rank %d of %d, batch %d", o.rank,
                           o.size, (int)i);
            }
        }
    }
}

static void resumed(void)
{
    enum { N = 16 };
    uint64_t whole[N], rest[N];
    config_dataset set = scenes("count=5 size=40");
    loader_options o = options_of(&set, 1);
    loader *l;
    o.size = 2;
    o.rank = 1;
    o.workers = 2;
    prints_of(&o, whole, N);
    CHECK_OK(loader_open(&o, &l));
    take_prints(l, &o, rest, 7);
    o.start = loader_position(l);
    CHECK(o.start == 14);
    loader_close(l);
    o.size = 1; /* two batches per step still */
    o.rank = 0;
    o.accumulate = 2;
    CHECK_OK(loader_open(&o, &l));
    uint64_t ignored;
    for (size_t i = 7; i < N; i++) {
        take_prints(l, &o, &ignored, 1);
        take_prints(l, &o, &rest[i], 1);
    }
    CHECK(memcmp(whole, rest, sizeof whole) == 0);
    CHECK(loader_position(l) == 2 * N);
    loader_close(l);
    o.start = 7;
    CHECK_FAILS(loader_open(&o, &l), SCA_ERR_ARGUMENT, "multiple of 1 ranks x 2 batches");
}

/* Every image once, then again in another order; what is missing in the last step comes from the epoch's beginning. */
static void epochs(void)
{
    enum { IMAGES = 10, BATCH = 3, STEPS = 4 };
    config_dataset set = scenes("count=10 size=40");
    loader_options o = options_of(&set, 1);
    loader *l;
    const loader_batch *b;
    int64_t order[2][STEPS * BATCH];
    o.batch_images = BATCH;
    o.pixels = false;
    CHECK_OK(loader_open(&o, &l));
    for (int epoch = 0; epoch < 2; epoch++) {
        int seen[IMAGES] = { 0 };
        for (int i = 0; i < STEPS * BATCH; i++) {
            if (i % BATCH == 0) CHECK_OK(loader_next(l, &b));
            order[epoch][i] = b->image_ids[i % BATCH];
            seen[b->image_ids[i % BATCH]]++;
        }
        for (int i = 0; i < IMAGES; i++)
            CHECKF(seen[i] == 1 + (i == order[epoch][0] || i == order[epoch][1]), "image %d: %d times", i, seen[i]);
        CHECK(order[epoch][10] == order[epoch][0] && order[epoch][11] == order[epoch][1]);
    }
    CHECK(memcmp(order[0], order[1], sizeof order[0]) != 0);
    loader_close(l);
}

/* ---- what a batch holds -------------------------------------------------------------------------------------------- */

static void sets_of_all_kinds(void)
{
    config_dataset sets[] = { scenes("count=4 size=48"), scenes("count=2 size=40 phrases=labels") };
    loader_options o = options_of(sets, 2);
    loader *l;
    const loader_batch *b;
    strcpy(sets[1].task, "recognition");
    o.shuffle = false;
    o.masks = true;
    o.regions_per_image = 3;
    CHECK_OK(loader_open(&o, &l));
    for (int i = 0; i < 8; i++) {
        CHECK_OK(loader_next(l, &b));
        CHECK(b->recognition[0] == i % 2 && b->image_ids[0] == i / 2 % (i % 2 ? 2 : 4));
        CHECK(b->original[0][0] == (i % 2 ? 40 : 48) && b->valid[0][0] == 64 && b->valid[0][1] == 64);
        int64_t targets = 0;
        for (int r = 0; r < b->regions; r++) {
            const double *box = b->boxes[r];
            const int32_t *ids = b->ids + r * b->length, *labels = b->labels + r * (b->length + 1);
            targets += b->lengths[r];
            CHECK(box[0] >= 0 && box[0] < box[2] && box[2] <= 64 && box[1] < box[3] && box[3] <= 64);
            CHECK(labels[0] == -100 && labels[1] == ids[0]);
            int inside = 0;
            for (int k = 0; k < 16 * 16; k++) inside += b->masks[r * 256 + k];
            double cells = (box[2] - box[0]) * (box[3] - box[1]) / 16;
            CHECKF(inside > 0 && inside <= cells * 1.5 + 4, "mask of %d cells in a box of %g", inside, cells);
        }
        CHECK(b->targets == targets);
    }
    loader_close(l);
}

/* The smallest number of regions; padding as long as the longest text of all of them. */
static void cut_to_the_least(void)
{
    config_dataset set = scenes("count=6 size=64 shapes=5");
    loader_options o = options_of(&set, 1);
    dataset *d;
    loader *l;
    const loader_batch *b;
    size_t least = 100, longest = 0;
    o.shuffle = false;
    o.batch_images = 6;
    o.regions_per_image = 100;
    o.pad_id = 999;
    CHECK_OK(dataset_open(&set, &d));
    for (int64_t i = 0; i < 6; i++) {
        data_sample s;
        CHECK_OK(dataset_read(d, i, &s));
        if (s.n_regions < least) least = s.n_regions;
        for (size_t r = 0; r < s.n_regions; r++) {
            size_t n = strlen(s.regions[r].phrases[0]);
            if (n > 18) n = 18;
            if (n + 1 > longest) longest = n + 1;
        }
        sample_free(&s);
    }
    CHECK_OK(loader_open(&o, &l));
    CHECK_OK(loader_next(l, &b));
    CHECK(b->images == 6 && (size_t)b->regions == least && (size_t)b->length == longest);
    for (int64_t i = 0; i < (int64_t)b->images * b->regions; i++)
        for (int k = b->lengths[i]; k < b->length; k++)
            CHECK(b->ids[i * b->length + k] == 999 && b->labels[i * (b->length + 1) + k + 1] == -100);
    loader_close(l);
    dataset_close(d);
}

/* ---- files with mistakes -------------------------------------------------------------------------------------------- */

static char folder[] = SCA_BUILD "/loader.XXXXXX";

static const char *in_folder(const char *name) { return made_path(folder, name); }

static void put_file(const char *name, const void *data, size_t bytes)
{
    CHECK_OK(file_write(in_folder(name), data, bytes));
}

static void put_picture(const char *name)
{
    str ppm = { 0 };
    str_put(&ppm, "P6 20 10 255\n");
    for (int i = 0; i < 600; i++) str_putc(&ppm, (char)(i * 7));
    put_file(name, ppm.data, ppm.bytes);
    str_free(&ppm);
}

/* 1.ppm is whole, 2.ppm cut, 3.ppm absent; of the regions of 1.ppm four can be used. */
static void put_mistakes(void)
{
    static const char text[] =
        "{\"images\": [{\"id\": 1, \"file_name\": \"1.ppm\"}, {\"id\": 2, \"file_name\": \"2.ppm\"},"
        "{\"id\": 3, \"file_name\": \"3.ppm\"}, {\"id\": 1, \"file_name\": \"4.ppm\"}],"
        "\"annotations\": [{\"id\": 1, \"image_id\": 1, \"bbox\": [0, 0, 5, 5], \"caption\": \"good\"},"
        "{\"id\": 2, \"image_id\": 1, \"bbox\": [1, 1, 0, 5], \"caption\": \"flat\"},"
        "{\"id\": 3, \"image_id\": 1, \"bbox\": [1, 1, -3, 5], \"caption\": \"inverted\"},"
        "{\"id\": 4, \"image_id\": 1, \"bbox\": [20, 0, 5, 5], \"caption\": \"outside\"},"
        "{\"id\": 5, \"image_id\": 1, \"bbox\": [1e999, 0, 5, 5], \"caption\": \"no number\"},"
        "{\"id\": 6, \"image_id\": 1, \"bbox\": [1, 1, 5, 5], \"caption\": \" \"},"
        "{\"id\": 7, \"image_id\": 1, \"bbox\": [15, 5, 50, 50], \"caption\": \"half outside\"},"
        "{\"id\": 7, \"image_id\": 1, \"bbox\": [1, 1, 5, 5], \"caption\": \"the same id\"},"
        "{\"id\": 8, \"image_id\": \"1\", \"bbox\": [1, 1, 5, 5], \"caption\": \"type\"},"
        "{\"id\": 9, \"image_id\": 2, \"bbox\": [1, 1, 5, 5], \"caption\": \"of a cut file\"},"
        "{\"id\": 10, \"image_id\": 3, \"bbox\": [1, 1, 5, 5], \"caption\": \"of an absent file\"},"
        "{\"id\": 11, \"image_id\": 1, \"bbox\": [1, 1, 5, 5], \"caption\": \"HUGE\"}],"
        "\"categories\": []}";
    str s = { 0 };
    const char *huge = strstr(text, "HUGE");
    str_put_bytes(&s, text, (size_t)(huge - text));
    for (int i = 0; i < 70000; i++) str_putc(&s, 'x');
    str_put(&s, huge);
    const char *number = strstr(s.data, "1e999"); /* JSON knows no infinity */
    memcpy((char *)(uintptr_t)number, "1e300", 5);
    put_file("mistakes.json", s.data, s.bytes);
    str_free(&s);
    put_picture("1.ppm");
    put_file("2.ppm", "P6 20 10 255\nabc", 16);
}

typedef struct told {
    char text[32][700];
    int n;
} told;

static sca_status on_skip(void *user, const loader_skip *s)
{
    told *t = user;
    if (t->n < 32)
        snprintf(t->text[t->n++], sizeof t->text[0], "%s %s %d %s", path_name(s->file), s->what, (int)s->id,
                 s->reason);
    return SCA_OK;
}

static int count_told(const told *t, const char *part, const char *why)
{
    int n = 0;
    for (int i = 0; i < t->n; i++) n += strstr(t->text[i], part) && strstr(t->text[i], why);
    return n;
}

static void mistakes(void)
{
    static const char *const expected[][2] = {
        { "mistakes.json annotation 3", "negative side" },
        { "mistakes.json annotation 5", "in range" },
        { "mistakes.json annotation 8", "wrong type" },
        { "mistakes.json image 1", "been there" },
        { "mistakes.json region 7", "been there" },
        { "1.ppm region 2", "no area" },
        { "1.ppm region 4", "no area" },
        { "1.ppm region 6", "empty" },
        { "1.ppm region 11", "longer" },
        { "2.ppm image 2", "2.ppm" },
        { "3.ppm image 3", "3.ppm" },
    };
    put_mistakes();
    config_dataset set = set_of("grit", in_folder("mistakes.json"), folder, "");
    told t = { .n = 0 };
    loader_options o = options_of(&set, 1);
    loader *l;
    const loader_batch *b;
    o.max_bad = 1;
    o.skipped = on_skip;
    o.skipped_user = &t;
    o.workers = 2;
    o.batch_images = 2;
    CHECK_OK(loader_open(&o, &l));
    for (int i = 0; i < 12; i++) {
        CHECK_OK(loader_next(l, &b));
        CHECK(b->regions == 2);
        for (int k = 0; k < b->images; k++) CHECK(b->image_ids[k] == 1);
        for (int r = 0; r < 2; r++) CHECK(b->region_ids[r] == 1 || b->region_ids[r] == 7);
    }
    loader_close(l);
    for (size_t i = 0; i < LENGTH(expected); i++)
        CHECKF(count_told(&t, expected[i][0], expected[i][1]) == 1, "%s, %s: %d times", expected[i][0],
               expected[i][1], count_told(&t, expected[i][0], expected[i][1]));
    CHECKF(t.n == LENGTH(expected), "%d records told", t.n);
    for (int i = 0; t.n != LENGTH(expected) && i < t.n; i++) fprintf(stderr, "  %s\n", t.text[i]);
}

/* Too many of them end the run: those of the file at once, those of images when they are met. */
static void too_many_mistakes(void)
{
    put_mistakes();
    config_dataset set = set_of("grit", in_folder("mistakes.json"), folder, "");
    loader_options o = options_of(&set, 1);
    loader *l;
    const loader_batch *b;
    CHECK_FAILS(loader_open(&o, &l), SCA_ERR_FORMAT,
                "5 of 16 records are bad, more than data.max_bad allows (0.01)");
    CHECK(l == NULL);
    o.max_bad = 5.5 / 16;
    CHECK_OK(loader_open(&o, &l));
    sca_status status = SCA_OK;
    for (int i = 0; i < 20 && status == SCA_OK; i++) status = loader_next(l, &b);
    CHECK(status == SCA_ERR_FORMAT && strstr(sca_last_error(), "6 of 16 records"));
    loader_close(l);

    unlink(in_folder("1.ppm")); /* nothing is left */
    o.max_bad = 1;
    CHECK_OK(loader_open(&o, &l));
    CHECK_FAILS(loader_next(l, &b), SCA_ERR_FORMAT, "no image with a region that can be used");
    loader_close(l);
}

static void texts(void)
{
    static const char text[] = "one\n\n  two words \r\n\xff\n\t\nthree";
    put_file("words.txt", text, sizeof text - 1);
    config_dataset set = set_of("text", in_folder("words.txt"), "", "");
    loader_options o = options_of(&set, 1);
    loader *l;
    const loader_batch *b;
    dataset *d;
    CHECK_OK(dataset_open(&set, &d));
    const dataset_counts *c = dataset_counted(d);
    CHECK(c->images == 3 && c->phrases == 3 && c->empty == 2 && c->by_reason[DATASET_TYPE] == 1);
    CHECK(!dataset_pictures(d) && strcmp(dataset_name(d), "text") == 0);
    dataset_close(d);
    o.max_bad = 0.5;
    CHECK_FAILS(loader_open(&o, &l), SCA_ERR_ARGUMENT, "texts without images");
    o.pixels = false;
    o.shuffle = false;
    o.batch_images = 3;
    CHECK_OK(loader_open(&o, &l));
    CHECK_OK(loader_next(l, &b));
    CHECK(b->images == 3 && b->regions == 1 && b->length == 10 && !b->pixels && b->targets == 4 + 10 + 6);
    CHECK(b->ids[10] == 't' && b->ids[18] == 's' && b->ids[19] == 0 && b->lengths[2] == 6);
    loader_close(l);
}

static void wrong_options(void)
{
    config_dataset set = scenes("count=3 size=40"), none = { 0 };
    loader_options o = options_of(&set, 0);
    loader *l;
    CHECK_FAILS(loader_open(&o, &l), SCA_ERR_ARGUMENT, "data.train is empty");
    o.n_sets = 1;
    o.jitter = true;
    o.jitter_scale[0] = 3;
    CHECK_FAILS(loader_open(&o, &l), SCA_ERR_ARGUMENT, "data.lsj_scale");
    o.jitter = false;
    o.sets = &none;
    CHECK_FAILS(loader_open(&o, &l), SCA_ERR_ARGUMENT, "kind is ''");
    set = set_of("sbu", in_folder("none.json"), folder, "");
    o.sets = &set;
    CHECK_FAILS(loader_open(&o, &l), SCA_ERR_IO, "none.json");
}

static void from_settings(void)
{
    config *c;
    loader_options o;
    CHECK_OK(config_open(NULL, &c));
    CHECK_OK(config_set(c, "data.augment=lsj"));
    CHECK_OK(config_set(c, "train.accumulate=3"));
    CHECK_OK(config_set(c, "data.train.0.kind=synthetic"));
    loader_options_from(c, &o);
    CHECK(o.n_sets == 1 && o.shuffle && o.regions_per_image == 16 && o.jitter && o.jitter_scale[1] == 2);
    CHECK(o.workers == 4 && o.max_bad == 0.01 && o.seed == 42 && o.accumulate == 3 && o.size == 1);
    config_close(c);
}

/* ---- failures of the machine ------------------------------------------------------------------------------------------- */

static sca_status three_batches(void *user)
{
    const loader_options *o = user;
    loader *l;
    const loader_batch *b;
    TRY(loader_open(o, &l));
    sca_status status = SCA_OK;
    for (int i = 0; i < 3 && status == SCA_OK; i++) status = loader_next(l, &b);
    loader_close(l);
    return status;
}

static void faults(void)
{
    put_picture("1.ppm");
    put_mistakes();
    config_dataset sets[] = { scenes("count=3 size=32"), set_of("grit", in_folder("mistakes.json"), folder, "") };
    loader_options o = options_of(sets, 1);
    o.jitter = o.masks = true;
    o.side = 32;
    sca_log_to(NULL, NULL, SCA_LOG_ERROR);
    CHECK(check_faults(fault_alloc, three_batches, &o, "allocation") > 20);
    o.n_sets = 2;
    o.max_bad = 0.6;
    o.shuffle = o.jitter = o.masks = false;
    CHECK(check_faults(fault_alloc, three_batches, &o, "allocation, from files") > 40);
}

int main(int argc, char **argv)
{
    CHECK(mkdtemp(folder) != NULL);
    RUN(numpy_generator);
    RUN(draw_ranges);
    RUN(turns);
    RUN(by_weight);
    RUN(jitter_golden);
    RUN(mask_frames);
    RUN(collator);
    RUN(file_order);
    RUN(any_workers);
    RUN(any_ranks);
    RUN(resumed);
    RUN(epochs);
    RUN(sets_of_all_kinds);
    RUN(cut_to_the_least);
    RUN(mistakes);
    RUN(too_many_mistakes);
    RUN(texts);
    RUN(wrong_options);
    RUN(from_settings);
    RUN(faults);
    static const char *const made[] = { "1.ppm", "2.ppm", "mistakes.json", "words.txt" };
    for (size_t i = 0; i < LENGTH(made); i++) unlink(in_folder(made[i]));
    rmdir(folder);
    return check_done();
}
