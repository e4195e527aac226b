/* synthetic.c - rendered scenes of coloured, textured, overlapping shapes: images, masks, labels and descriptions from a
 * seed, without a file. Scene i of a split is a function of the seed, the split and i.
 *
 * What a region is called follows from what can be seen, so that a model can learn it: size and texture words have gaps
 * between their ranges, colours lie apart, and the relation is to the nearest other shape. */
#include "base/rng.h"
#include "data/dataset_parts.h"
#include "data/loader_parts.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

enum { SHAPES_MOST = 12, TRIES = 200, SIZE_MOST = 2048, TEXT_MOST = 160 };

typedef struct world { /* the settings */
    int64_t count, seed, size, shapes;
    bool labels;
} world;

typedef enum shape_kind { CIRCLE, SQUARE, TRIANGLE, STAR, CROSS, RING, SHAPE_KINDS } shape_kind;
typedef enum texture { PLAIN, STRIPED, DOTTED, CHECKERED, TEXTURES } texture;
typedef enum extent { SMALL, MEDIUM, LARGE, EXTENTS } extent;

static const char *const shape_names[] = { "circle", "square", "triangle", "star", "cross", "ring" };
static const char *const texture_names[] = { "", "striped ", "dotted ", "checkered " };
static const char *const extent_names[] = { "small ", "", "large " };
static const double extent_range[][2] = { { 0.085, 0.11 }, { 0.14, 0.17 }, { 0.215, 0.26 } }; /* of the side */
static const struct {
    const char *name;
    double rgb[3];
} colours[] = {
    { "red", { 205, 35, 35 } },     { "green", { 40, 150, 50 } },   { "blue", { 35, 75, 205 } },
    { "yellow", { 235, 210, 40 } }, { "purple", { 135, 50, 165 } }, { "orange", { 240, 130, 25 } },
    { "white", { 243, 243, 240 } }, { "black", { 22, 22, 25 } },
};

typedef struct shape {
    shape_kind kind;
    texture texture;
    extent extent;
    int colour;
    double x, y, radius;     /* pixels */
    double cosine, sine;     /* of its turn */
    double rgb[3], other[3]; /* its colour here, and that of the texture's second part */
    int seen, whole;         /* pixels */
    int box[4];              /* of what is seen: x0, y0, x1, y1 */
} shape;

typedef struct scene { /* later shapes lie in front of earlier ones */
    int side, n;
    shape shapes[SHAPES_MOST];
    uint8_t *top; /* (side, side) number of the shape that is seen, from 1; 0: the background */
} scene;

/* ---- settings ------------------------------------------------------------------------------------------------- */

static sca_status set_one(world *w, const char *name, const char *value)
{
    static const char *const names[] = { "count", "seed", "size", "shapes", "phrases" };
    const struct {
        const char *name;
        int64_t least, most, *to;
    } numbers[] = { { "count", 1, 100000000, &w->count },
                    { "seed", 0, INT32_MAX, &w->seed },
                    { "size", 32, SIZE_MOST, &w->size },
                    { "shapes", 1, SHAPES_MOST, &w->shapes } };
    for (size_t i = 0; i < LENGTH(numbers); i++) {
        if (strcmp(name, numbers[i].name) != 0) continue;
        if (text_to_int(value, numbers[i].least, numbers[i].most, numbers[i].to)) return SCA_OK;
        return status_fail(SCA_ERR_ARGUMENT, "kind synthetic: annotations: %s is '%s', expected %lld to %lld", name,
                           value, (long long)numbers[i].least, (long long)numbers[i].most);
    }
    if (strcmp(name, "phrases") == 0) {
        w->labels = strcmp(value, "labels") == 0;
        if (w->labels || strcmp(value, "descriptions") == 0) return SCA_OK;
        return status_fail(SCA_ERR_ARGUMENT,
                           "kind synthetic: annotations: phrases is '%s', expected labels or descriptions", value);
    }
    const char *near = text_nearest(name, names, LENGTH(names));
    return status_fail(SCA_ERR_ARGUMENT,
                       "kind synthetic: annotations: unknown setting '%s', expected count, seed, size, shapes or "
                       "phrases%s%s%s",
                       name, near ? "; did you mean '" : "", near ? near : "", near ? "'?" : "");
}

/* "count=1000 size=64" */
static sca_status read_settings(const char *text, world *w)
{
    char word[CONFIG_TEXT];
    while (*(text += strspn(text, " ,"))) {
        size_t n = strcspn(text, " ,");
        memcpy(word, text, n);
        word[n] = 0;
        char *equals = strchr(word, '=');
        if (!equals)
            return status_fail(
                SCA_ERR_ARGUMENT,
                "kind synthetic: annotations: found '%s', expected settings as in 'count=1000 size=64'", word);
        *equals = 0;
        TRY(set_one(w, word, equals + 1));
        text += n;
    }
    return SCA_OK;
}

/* ---- shapes --------------------------------------------------------------------------------------------------------- */

static bool in_star(double u, double v)
{
    /* Five points: the plane is folded into a tenth of the circle, where the outline is one line. */
    double angle = atan2(u, -v), fifth = 2 * 3.14159265358979323846 / 5;
    angle = fabs(angle - fifth * rint(angle / fifth));
    double r = sqrt(u * u + v * v), x = r * cos(angle), y = r * sin(angle);
    const double inner = 0.45, ix = inner * cos(fifth / 2), iy = inner * sin(fifth / 2);
    return y * (1 - ix) <= (1 - x) * iy;
}

/* u, v: coordinates of the shape, in units of its radius. */
static bool inside(shape_kind kind, double u, double v)
{
    double r2 = u * u + v * v;
    switch (kind) {
    case CIRCLE: return r2 <= 1;
    case SQUARE: return fabs(u) <= 0.85 && fabs(v) <= 0.85;
    case TRIANGLE: return v <= 0.75 && fabs(u) <= (v + 1) * 0.58;
    case STAR: return in_star(u, v);
    case CROSS: return fabs(u) <= 1 && fabs(v) <= 1 && (fabs(u) <= 0.32 || fabs(v) <= 0.32);
    case RING: return r2 <= 1 && r2 >= 0.3;
    default: return false;
    }
}

static bool second_part(texture t, double u, double v)
{
    double a = 1.7 * u + 8.2, b = 1.7 * v + 8.2, du, dv;
    switch (t) {
    case STRIPED: return fmod(b, 1) < 0.5;
    case CHECKERED: return (fmod(a, 1) < 0.5) != (fmod(b, 1) < 0.5);
    case DOTTED:
        du = fmod(a, 1) - 0.5;
        dv = fmod(b, 1) - 0.5;
        return du * du + dv * dv < 0.075;
    default: return false;
    }
}

static void into(const shape *s, double x, double y, double *u, double *v)
{
    double dx = (x - s->x) / s->radius, dy = (y - s->y) / s->radius;
    *u = dx * s->cosine + dy * s->sine;
    *v = dy * s->cosine - dx * s->sine;
}

static bool covers(const shape *s, double x, double y)
{
    double u, v;
    into(s, x, y, &u, &v);
    return fabs(u) <= 1.05 && fabs(v) <= 1.05 && inside(s->kind, u, v);
}

/* ---- scenes ------------------------------------------------------------------------------------------------------------ */

static void draw_shape(draws *d, const world *w, shape *s)
{
    double side = (double)w->size;
    *s = (shape){ .kind = (shape_kind)draw_below(d, SHAPE_KINDS),
                  .texture = (texture)draw_below(d, TEXTURES),
                  .extent = (extent)draw_below(d, EXTENTS),
                  .colour = (int)draw_below(d, LENGTH(colours)) };
    const double *range = extent_range[s->extent];
    s->radius = side * (range[0] + draw_unit(d) * (range[1] - range[0]));
    double room = side - 2 * s->radius, turn = (draw_unit(d) - 0.5) * 0.5;
    s->x = s->radius + draw_unit(d) * room;
    s->y = s->radius + draw_unit(d) * room;
    s->cosine = cos(turn);
    s->sine = sin(turn);
    bool black = strcmp(colours[s->colour].name, "black") == 0;
    for (int c = 0; c < 3; c++) {
        s->rgb[c] = colours[s->colour].rgb[c] + (draw_unit(d) - 0.5) * 20;
        s->other[c] = black ? s->rgb[c] + 75 : s->rgb[c] * 0.52;
    }
}

/* Puts the last shape into the map of what is seen. */
static void put_shape(scene *s)
{
    shape *f = &s->shapes[s->n - 1];
    int reach = (int)(f->radius * 1.21) + 2, x0 = (int)f->x - reach, y0 = (int)f->y - reach;
    int x1 = (int)f->x + reach + 1, y1 = (int)f->y + reach + 1;
    if (x1 > s->side) x1 = s->side;
    if (y1 > s->side) y1 = s->side;
    for (int y = y0 < 0 ? 0 : y0; y < y1; y++)
        for (int x = x0 < 0 ? 0 : x0; x < x1; x++) {
            uint8_t *top = &s->top[y * s->side + x];
            if (!covers(f, x + 0.5, y + 0.5)) continue;
            if (*top) s->shapes[*top - 1].seen--;
            *top = (uint8_t)s->n;
            f->whole++;
            f->seen++;
        }
}

/* Enough of each shape is seen to tell what it is, and no two go by the same name. */
static bool acceptable(const scene *s)
{
    const shape *last = &s->shapes[s->n - 1];
    for (int i = 0; i < s->n; i++)
        if (s->shapes[i].seen * 10 < s->shapes[i].whole * 6) return false;
    for (int i = 0; i + 1 < s->n; i++)
        if (s->shapes[i].kind == last->kind && s->shapes[i].colour == last->colour) return false;
    return true;
}

/* Draws the shape that lies in front of the others; false and nothing is changed where it does not fit. */
static bool add_shape(scene *s, const world *w, draws *from, uint8_t *kept)
{
    int seen[SHAPES_MOST] = { 0 };
    for (int i = 0; i < s->n; i++) seen[i] = s->shapes[i].seen;
    memcpy(kept, s->top, (size_t)s->side * (size_t)s->side);
    draw_shape(from, w, &s->shapes[s->n++]);
    put_shape(s);
    if (acceptable(s)) return true;
    s->n--;
    memcpy(s->top, kept, (size_t)s->side * (size_t)s->side);
    for (int i = 0; i < s->n; i++) s->shapes[i].seen = seen[i];
    return false;
}

static void scene_close(scene *s)
{
    mem_free(s->top);
    s->top = NULL;
}

/* One shape after the other, drawn again until it fits; the scene stays smaller when it never does. */
static sca_status scene_open(const dataset *d, int64_t index, scene *s)
{
    const world *w = d->own;
    size_t pixels = (size_t)(w->size * w->size);
    char purpose[96];
    snprintf(purpose, sizeof purpose, "synthetic %s", d->set.split);
    draws from = draws_at((uint64_t)w->seed, purpose, (uint64_t)index);
    *s = (scene){ .side = (int)w->size, .top = mem_zero(2 * pixels, 1) };
    if (!s->top) return mem_fail(2 * pixels, "a scene");
    int least = w->shapes > 1 ? 2 : 1, wanted = least + (int)draw_below(&from, (uint64_t)(w->shapes - least + 1));
    for (int try = 0; s->n < wanted && try < TRIES; try++) add_shape(s, w, &from, s->top + pixels);
    return SCA_OK;
}

/* The boxes of what is seen. */
static void find_boxes(scene *s)
{
    for (int i = 0; i < s->n; i++) memcpy(s->shapes[i].box, (int[4]){ s->side, s->side, 0, 0 }, sizeof(int[4]));
    for (int y = 0; y < s->side; y++)
        for (int x = 0; x < s->side; x++) {
            int top = s->top[y * s->side + x];
            if (top == 0) continue;
            int *box = s->shapes[top - 1].box;
            if (x < box[0]) box[0] = x;
            if (y < box[1]) box[1] = y;
            if (x >= box[2]) box[2] = x + 1;
            if (y >= box[3]) box[3] = y + 1;
        }
}

/* ---- words -------------------------------------------------------------------------------------------------------------- */

static int nearest(const scene *s, int i)
{
    int best = -1;
    double least = INFINITY;
    for (int k = 0; k < s->n; k++) {
        double dx = s->shapes[k].x - s->shapes[i].x, dy = s->shapes[k].y - s->shapes[i].y;
        if (k == i || dx * dx + dy * dy >= least) continue;
        least = dx * dx + dy * dy;
        best = k;
    }
    return best;
}

/* A tenth of the smaller of the two is common to both. */
static bool overlap(const scene *s, const shape *a, const shape *b)
{
    int common = 0, smaller = a->whole < b->whole ? a->whole : b->whole;
    for (int y = 0; y < s->side; y++)
        for (int x = 0; x < s->side; x++) common += covers(a, x + 0.5, y + 0.5) && covers(b, x + 0.5, y + 0.5);
    return common * 10 > smaller;
}

static const char *relation(const scene *s, int i, int k)
{
    const shape *a = &s->shapes[i], *b = &s->shapes[k];
    double dx = a->x - b->x, dy = a->y - b->y, reach = 1.5 * (a->radius + b->radius);
    if (dx * dx + dy * dy < reach * reach && overlap(s, a, b)) return i > k ? "in front of" : "behind";
    if (fabs(dx) >= fabs(dy)) return dx < 0 ? "left of" : "right of";
    return dy < 0 ? "above" : "below";
}

static void say(const scene *s, int i, bool label, char text[TEXT_MOST])
{
    const shape *a = &s->shapes[i];
    int k = nearest(s, i);
    if (label) {
        snprintf(text, TEXT_MOST, "%s", shape_names[a->kind]);
        return;
    }
    int n = snprintf(text, TEXT_MOST, "the %s%s %s%s", extent_names[a->extent], colours[a->colour].name,
                     texture_names[a->texture], shape_names[a->kind]);
    if (k < 0) return;
    const shape *b = &s->shapes[k];
    snprintf(text + n, TEXT_MOST - (size_t)n, " %s the %s %s", relation(s, i, k), colours[b->colour].name,
             shape_names[b->kind]);
}

/* ---- pixels -------------------------------------------------------------------------------------------------------------- */

typedef struct ground { /* a gradient of two dull colours with a faint wave and grain */
    double from[3], to[3], cosine, sine, wave, phase;
    uint64_t key, index;
} ground;

static ground ground_of(const dataset *d, int64_t index)
{
    const world *w = d->own;
    char purpose[96];
    snprintf(purpose, sizeof purpose, "synthetic ground %s", d->set.split);
    draws from = draws_at((uint64_t)w->seed, purpose, (uint64_t)index);
    double turn = 6.283185307 * draw_unit(&from), grey = 105 + 55 * draw_unit(&from),
           step = 20 + 25 * draw_unit(&from);
    ground g = { .cosine = cos(turn), .sine = sin(turn), .index = (uint64_t)index, .key = from.key };
    for (int c = 0; c < 3; c++) {
        double tint = 30 * (draw_unit(&from) - 0.5);
        g.from[c] = grey + tint - step / 2;
        g.to[c] = grey + tint + step / 2;
    }
    g.wave = 3 + 6 * draw_unit(&from);
    g.phase = 6.283185307 * draw_unit(&from);
    return g;
}

static void ground_at(const ground *g, double x, double y, int side, double rgb[3])
{
    double a = ((x - side / 2.0) * g->cosine + (y - side / 2.0) * g->sine) / side;
    double b = ((y - side / 2.0) * g->cosine - (x - side / 2.0) * g->sine) / side;
    double t = 0.5 + 0.7 * a, wave = 5 * sin(6.283185307 * g->wave * b + g->phase);
    for (int c = 0; c < 3; c++) rgb[c] = g->from[c] + t * (g->to[c] - g->from[c]) + wave;
}

/* The colour at a point, of the frontmost shape there. */
static void colour_at(const scene *s, const ground *g, double x, double y, double rgb[3])
{
    for (int i = s->n - 1; i >= 0; i--) {
        double u, v;
        const shape *f = &s->shapes[i];
        if (!covers(f, x, y)) continue;
        into(f, x, y, &u, &v);
        memcpy(rgb, second_part(f->texture, u, v) ? f->other : f->rgb, 3 * sizeof *rgb);
        return;
    }
    ground_at(g, x, y, s->side, rgb);
}

/* The mean of 3 x 3 points, and grain. */
static void pixel_at(const scene *s, const ground *g, int x, int y, uint8_t out[3])
{
    double sum[3] = { 0 }, rgb[3];
    for (int i = 0; i < 9; i++) {
        colour_at(s, g, x + (i % 3 + 0.5) / 3, y + (i / 3 + 0.5) / 3, rgb);
        for (int c = 0; c < 3; c++) sum[c] += rgb[c];
    }
    rng_block grain = rng_philox(g->key, ((uint64_t)y << 32 | (uint64_t)x) | (uint64_t)1 << 63, g->index);
    for (int c = 0; c < 3; c++) {
        double v = sum[c] / 9 + 8 * ((double)(grain.word[c] >> 16) / 65536 - 0.5);
        out[c] = (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : (int)(v + 0.5));
    }
}

/* ---- the data set ---------------------------------------------------------------------------------------------------------- */

sca_status synthetic_open(dataset *d)
{
    static const char *const splits[] = { "train", "val", "test" };
    world *w = d->own = mem_zero(1, sizeof *w);
    if (!w) return mem_fail(sizeof *w, "a synthetic world");
    *w = (world){ .count = 1000, .seed = 1, .size = 128, .shapes = 6 };
    bool known = false;
    for (size_t i = 0; i < LENGTH(splits); i++) known = known || strcmp(d->set.split, splits[i]) == 0;
    if (!known)
        return status_fail(SCA_ERR_ARGUMENT, "kind synthetic: split is '%s', expected train, val or test",
                           d->set.split);
    TRY(read_settings(d->set.annotations, w));
    d->counts.images = w->count;
    for (int64_t i = 0; i < w->count; i++) {
        scene s;
        TRY(scene_open(d, i, &s));
        d->counts.regions += s.n;
        scene_close(&s);
    }
    d->counts.phrases = d->counts.regions;
    return SCA_OK;
}

void synthetic_close(dataset *d) { mem_free(d->own); }

bool synthetic_size(const dataset *d, int64_t index, int *width, int *height)
{
    (void)index;
    *width = *height = (int)((const world *)d->own)->size;
    return true;
}

static sca_status fill_sample(const dataset *d, int64_t index, scene *s, data_sample *out)
{
    const world *w = d->own;
    size_t n = (size_t)s->n;
    str path = { 0 };
    *out = (data_sample){ .image_id = index, .width = s->side, .height = s->side };
    str_printf(&path, "synthetic/%s/%lld", d->set.split, (long long)index);
    out->regions = mem_zero(n, sizeof *out->regions);
    out->phrases = mem_zero(n, sizeof *out->phrases);
    out->text = mem_zero(n, TEXT_MOST);
    if (str_take(&path, &out->path) != SCA_OK || !out->regions || !out->phrases || !out->text)
        return mem_fail(n * TEXT_MOST, "a scene");
    find_boxes(s);
    for (size_t i = 0; i < n; i++) {
        const int *b = s->shapes[i].box;
        char *text = out->text + i * TEXT_MOST;
        say(s, (int)i, w->labels, text);
        out->phrases[i] = text;
        out->regions[i] = (sample_region){ .id = index * SHAPES_MOST + (int64_t)i,
                                           .box = { b[0], b[1], b[2], b[3] },
                                           .phrases = &out->phrases[i],
                                           .n_phrases = 1,
                                           .mask = (int64_t)i };
    }
    out->n_regions = n;
    return SCA_OK;
}

sca_status synthetic_read(const dataset *d, int64_t index, data_sample *out)
{
    scene s;
    TRY(scene_open(d, index, &s));
    sca_status status = fill_sample(d, index, &s, out);
    scene_close(&s);
    if (status != SCA_OK) sample_free(out);
    return status;
}

sca_status synthetic_image(const dataset *d, int64_t index, const sca_image_options *o, sca_image *out)
{
    (void)o;
    scene s;
    TRY(scene_open(d, index, &s));
    ground g = ground_of(d, index);
    sca_status status = image_alloc(s.side, s.side, out);
    for (int y = 0; y < s.side && status == SCA_OK; y++)
        for (int x = 0; x < s.side; x++)
            pixel_at(&s, &g, x, y, out->rgb + 3 * ((size_t)y * (size_t)s.side + (size_t)x));
    scene_close(&s);
    return status;
}

/* What is seen of the shape. */
sca_status synthetic_mask(const dataset *d, int64_t index, const sample_region *r, int width, int height,
                          mask_runs *out, bool *found)
{
    scene s;
    TRY(scene_open(d, index, &s));
    sca_status status = SCA_OK;
    if (width != s.side || height != s.side)
        status = status_fail(SCA_ERR_ARGUMENT, "%s: mask of %d x %d pixels, the scenes have %d x %d",
                             dataset_name(d), width, height, s.side, s.side);
    for (size_t i = 0; i < (size_t)s.side * (size_t)s.side; i++) s.top[i] = s.top[i] == r->mask + 1;
    if (status == SCA_OK) status = mask_encode(s.top, s.side, s.side, out);
    *found = status == SCA_OK;
    scene_close(&s);
    return status;
}
