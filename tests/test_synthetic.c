/* test_synthetic.c - the synthetic world: what is said of a scene can be seen in it. */
#include "data/data.h"
#include "faults.h"

#include <math.h>

static const char *const shapes[] = { "circle", "square", "triangle", "star", "cross", "ring" };
static const char *const textures[] = { "striped", "dotted", "checkered" };
static const struct {
    const char *name;
    int rgb[3];
} colours[] = { { "red", { 205, 35, 35 } },     { "green", { 40, 150, 50 } },   { "blue", { 35, 75, 205 } },
                { "yellow", { 235, 210, 40 } }, { "purple", { 135, 50, 165 } }, { "orange", { 240, 130, 25 } },
                { "white", { 243, 243, 240 } }, { "black", { 22, 22, 25 } } };

static dataset *open_world(const char *settings, const char *split)
{
    config_dataset set = { .kind = "synthetic" };
    dataset *d = NULL;
    snprintf(set.annotations, sizeof set.annotations, "%s", settings);
    snprintf(set.split, sizeof set.split, "%s", split);
    CHECK_OK(dataset_open_masks(&set, &d));
    return d;
}

/* ---- a description taken apart --------------------------------------------------------------------------------- */

typedef struct described {
    int size;                   /* -1 small, 0, 1 large */
    int colour, texture, shape; /* texture -1: plain */
    char relation[16];
    int other_colour, other_shape; /* -1: no relation */
} described;

static const char *word_of(const char *text, char *word)
{
    size_t n = strcspn(text, " ");
    memcpy(word, text, n);
    word[n] = 0;
    return text + n + (text[n] == ' ');
}

static int find(const char *word, const char *const *names, int n)
{
    for (int i = 0; i < n; i++)
        if (strcmp(word, names[i]) == 0) return i;
    return -1;
}

static int find_colour(const char *word)
{
    for (int i = 0; i < (int)LENGTH(colours); i++)
        if (strcmp(word, colours[i].name) == 0) return i;
    return -1;
}

/* "the [small|large] COLOUR [TEXTURE] SHAPE [RELATION the COLOUR SHAPE]" */
static bool take_apart(const char *text, described *d)
{
    char word[200];
    *d = (described){ .other_colour = -1, .other_shape = -1 };
    text = word_of(text, word);
    if (strcmp(word, "the") != 0) return false;
    text = word_of(text, word);
    d->size = strcmp(word, "small") == 0 ? -1 : strcmp(word, "large") == 0;
    if (d->size) text = word_of(text, word);
    d->colour = find_colour(word);
    text = word_of(text, word);
    d->texture = find(word, textures, 3);
    if (d->texture >= 0) text = word_of(text, word);
    d->shape = find(word, shapes, 6);
    if (d->colour < 0 || d->shape < 0) return false;
    if (*text == 0) return true;
    const char *the = strstr(text, " the ");
    if (!the || the - text >= 16) return false;
    memcpy(d->relation, text, (size_t)(the - text));
    text = word_of(the + 5, word);
    d->other_colour = find_colour(word);
    text = word_of(text, word);
    d->other_shape = find(word, shapes, 6);
    return d->other_colour >= 0 && d->other_shape >= 0 && *text == 0;
}

/* ---- what can be seen -------------------------------------------------------------------------------------------- */

/* The named colour nearest to the brightest third (or, of black, the darkest) of the mask's pixels. */
static int seen_colour(const sca_image *image, const uint8_t *on, int named)
{
    int64_t sums[3] = { 0 }, n = 0, pixels = (int64_t)image->width * image->height;
    bool black = named == 7;
    int limit = 0;
    for (int pass = 0; pass < 2; pass++) {
        int64_t light = 0, count = 0;
        for (int64_t i = 0; i < pixels; i++) {
            const uint8_t *p = image->rgb + 3 * i;
            int v = p[0] + p[1] + p[2];
            if (!on[i]) continue;
            if (pass == 0) light += v, count++;
            if (pass == 0 || (black ? v > limit : v < limit)) continue;
            for (int c = 0; c < 3; c++) sums[c] += p[c];
            n++;
        }
        if (pass == 0) limit = (int)(light / (count ? count : 1));
    }
    int best = -1;
    double least = INFINITY;
    for (int k = 0; k < (int)LENGTH(colours) && n; k++) {
        double far = 0;
        for (int c = 0; c < 3; c++) far += pow((double)sums[c] / (double)n - colours[k].rgb[c], 2);
        if (far < least) least = far, best = k;
    }
    return best;
}

typedef struct seen {
    described says;
    double x, y, box[4];
} seen;

static const seen *other_of(const seen *all, size_t n, const described *d)
{
    for (size_t i = 0; i < n; i++)
        if (all[i].says.colour == d->other_colour && all[i].says.shape == d->other_shape) return &all[i];
    return NULL;
}

/* Of boxes, which shapes partly hidden move: with room for it. */
static bool relation_holds(const seen *a, const seen *b, const char *relation, double slack)
{
    double dx = a->x - b->x, dy = a->y - b->y;
    if (strcmp(relation, "left of") == 0) return dx < slack;
    if (strcmp(relation, "right of") == 0) return dx > -slack;
    if (strcmp(relation, "above") == 0) return dy < slack;
    if (strcmp(relation, "below") == 0) return dy > -slack;
    bool touch =
        a->box[0] <= b->box[2] && b->box[0] <= a->box[2] && a->box[1] <= b->box[3] && b->box[1] <= a->box[3];
    return touch && (strcmp(relation, "in front of") == 0 || strcmp(relation, "behind") == 0);
}

typedef struct tally {
    int regions, colours_right, relations, relations_right, kinds[6], sizes[3];
} tally;

static void check_region(const dataset *d, int64_t index, const sample_region *r, const sca_image *image,
                         uint8_t *claimed, tally *t)
{
    mask_runs runs;
    bool found;
    double box[4];
    size_t pixels = (size_t)image->width * (size_t)image->height;
    uint8_t *on = mem_alloc(pixels);
    described says;
    CHECK_OK(dataset_mask(d, index, r, image->width, image->height, &runs, &found));
    CHECK_OK(mask_decode(&runs, on));
    mask_box(&runs, box);
    CHECK(found && box[0] == r->box[0] && box[1] == r->box[1] && box[0] + box[2] == r->box[2] &&
          box[1] + box[3] == r->box[3]);
    for (size_t i = 0; i < pixels; i++) {
        CHECK(!(on[i] && claimed[i])); /* every pixel is seen of one shape */
        claimed[i] |= on[i];
    }
    if (CHECKF(take_apart(r->phrases[0], &says), "'%s'", r->phrases[0])) {
        t->regions++;
        t->kinds[says.shape]++;
        t->sizes[says.size + 1]++;
        t->colours_right += seen_colour(image, on, says.colour) == says.colour;
    }
    mask_runs_free(&runs);
    mem_free(on);
}

static void check_relations(const data_sample *s, tally *t)
{
    seen all[16];
    for (size_t i = 0; i < s->n_regions; i++) {
        const double *b = s->regions[i].box;
        take_apart(s->regions[i].phrases[0], &all[i].says);
        all[i].x = (b[0] + b[2]) / 2;
        all[i].y = (b[1] + b[3]) / 2;
        memcpy(all[i].box, b, sizeof all[i].box);
    }
    for (size_t i = 0; i < s->n_regions; i++) {
        if (s->n_regions == 1) continue;
        const seen *other = other_of(all, s->n_regions, &all[i].says);
        CHECKF(other && other != &all[i], "'%s' names no other shape", s->regions[i].phrases[0]);
        t->relations++;
        if (other) t->relations_right += relation_holds(&all[i], other, all[i].says.relation, s->width * 0.06);
        for (size_t k = 0; k < i; k++) CHECK(strcmp(s->regions[i].phrases[0], s->regions[k].phrases[0]) != 0);
    }
}

static void what_is_said(void)
{
    dataset *d = open_world("count=60 size=96", "train");
    tally t = { 0 };
    if (!d) return;
    for (int64_t i = 0; i < dataset_count(d); i++) {
        data_sample s;
        sca_image image;
        int width, height;
        CHECK_OK(dataset_read(d, i, &s));
        CHECK_OK(dataset_image(d, i, &s, NULL, &image));
        CHECK(image.width == 96 && image.height == 96 && s.width == 96 && s.n_regions >= 1 && s.n_regions <= 6);
        CHECK(dataset_size(d, i, &width, &height) && width == 96 && height == 96);
        uint8_t *claimed = mem_zero(96, 96);
        for (size_t r = 0; r < s.n_regions; r++) check_region(d, i, &s.regions[r], &image, claimed, &t);
        check_relations(&s, &t);
        mem_free(claimed);
        sca_image_free(&image);
        sample_free(&s);
    }
    CHECK(t.regions == dataset_counted(d)->regions);
    CHECKF(t.colours_right * 100 >= t.regions * 99, "%d of %d colours", t.colours_right, t.regions);
    CHECKF(t.relations_right == t.relations && t.relations > 100, "%d of %d relations", t.relations_right,
           t.relations);
    for (int i = 0; i < 6; i++) CHECKF(t.kinds[i] > t.regions / 20, "%d %ss", t.kinds[i], shapes[i]);
    for (int i = 0; i < 3; i++) CHECKF(t.sizes[i] > t.regions / 8, "%d of size %d", t.sizes[i], i);
    dataset_close(d);
}

/* ---- seeds, splits, labels ----------------------------------------------------------------------------------------- */

static uint64_t print_of(const dataset *d)
{
    uint64_t h = 14695981039346656037u;
    for (int64_t i = 0; i < dataset_count(d); i++) {
        data_sample s;
        sca_image image;
        CHECK_OK(dataset_read(d, i, &s));
        CHECK_OK(dataset_image(d, i, &s, NULL, &image));
        for (int k = 0; k < image.width * image.height * 3; k++) h = (h ^ image.rgb[k]) * 0x100000001b3u;
        for (size_t r = 0; r < s.n_regions; r++)
            for (const char *p = s.regions[r].phrases[0]; *p; p++) h = (h ^ (uint8_t)*p) * 0x100000001b3u;
        sca_image_free(&image);
        sample_free(&s);
    }
    return h;
}

static uint64_t print_world(const char *settings, const char *split)
{
    dataset *d = open_world(settings, split);
    uint64_t h = d ? print_of(d) : 0;
    dataset_close(d);
    return h;
}

static void from_a_seed(void)
{
    uint64_t h = print_world("count=5 size=40 seed=3", "train");
    CHECK(h == print_world("seed=3, size=40, count=5", ""));
    CHECK(h != print_world("count=5 size=40 seed=4", "train"));
    CHECK(h != print_world("count=5 size=40 seed=3", "val"));
    CHECK(h != print_world("count=5 size=40 seed=3", "test"));
    CHECK(print_world("count=1 size=40", "validation") == print_world("count=1 size=40", "val"));
}

static void labels(void)
{
    dataset *d = open_world("count=3 phrases=labels shapes=4", "test"),
            *same = open_world("count=3 shapes=4", "test");
    CHECK(strcmp(dataset_name(d), "synthetic-test") == 0 && !dataset_recognition(d));
    for (int64_t i = 0; i < 3; i++) {
        data_sample label, whole;
        CHECK_OK(dataset_read(d, i, &label));
        CHECK_OK(dataset_read(same, i, &whole));
        CHECK(label.n_regions == whole.n_regions && label.n_regions <= 4);
        for (size_t r = 0; r < label.n_regions; r++) {
            CHECK(find(label.regions[r].phrases[0], shapes, 6) >= 0);
            CHECK(strstr(whole.regions[r].phrases[0], label.regions[r].phrases[0]) != NULL);
            CHECK(label.regions[r].id == whole.regions[r].id);
        }
        sample_free(&whole);
        sample_free(&label);
    }
    dataset_close(same);
    dataset_close(d);
}

/* ---- mistakes --------------------------------------------------------------------------------------------------------- */

static sca_status try_world(const char *settings, const char *split)
{
    config_dataset set = { .kind = "synthetic" };
    dataset *d;
    snprintf(set.annotations, sizeof set.annotations, "%s", settings);
    snprintf(set.split, sizeof set.split, "%s", split);
    sca_status status = dataset_open(&set, &d);
    dataset_close(d);
    return status;
}

static void mistakes(void)
{
    CHECK_FAILS(try_world("cuont=3", ""), SCA_ERR_ARGUMENT, "did you mean 'count'?");
    CHECK_FAILS(try_world("count=0", ""), SCA_ERR_ARGUMENT, "count is '0', expected 1 to");
    CHECK_FAILS(try_world("size=9", ""), SCA_ERR_ARGUMENT, "size is '9', expected 32 to 2048");
    CHECK_FAILS(try_world("size", ""), SCA_ERR_ARGUMENT, "found 'size', expected settings as in");
    CHECK_FAILS(try_world("phrases=none", ""), SCA_ERR_ARGUMENT, "expected labels or descriptions");
    CHECK_FAILS(try_world("", "dev"), SCA_ERR_ARGUMENT, "split is 'dev', expected train, val or test");
    dataset *d = open_world("count=1", "");
    data_sample s;
    mask_runs runs;
    bool found;
    CHECK_OK(dataset_read(d, 0, &s));
    CHECK_FAILS(dataset_mask(d, 0, &s.regions[0], 7, 7, &runs, &found), SCA_ERR_ARGUMENT, "7 x 7");
    sample_free(&s);
    dataset_close(d);
}

static sca_status whole_work(void *user)
{
    config_dataset set = { .kind = "synthetic", .annotations = "count=2 size=32" };
    dataset *d;
    data_sample s = { 0 };
    sca_image image = { 0 };
    mask_runs runs = { 0 };
    bool found;
    (void)user;
    TRY(dataset_open(&set, &d));
    sca_status status = dataset_read(d, 1, &s);
    if (status == SCA_OK) status = dataset_image(d, 1, &s, NULL, &image);
    if (status == SCA_OK) status = dataset_mask(d, 1, &s.regions[0], 32, 32, &runs, &found);
    mask_runs_free(&runs);
    sca_image_free(&image);
    sample_free(&s);
    dataset_close(d);
    return status;
}

static void faults(void) { CHECK(check_faults(fault_alloc, whole_work, NULL, "allocation") > 8); }

int main(int argc, char **argv)
{
    RUN(what_is_said);
    RUN(from_a_seed);
    RUN(labels);
    RUN(mistakes);
    RUN(faults);
    return check_done();
}
