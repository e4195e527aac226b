/* mask.c - COCO run lengths with the results of pycocotools, quirks included.
 *
 * A mask is a list of runs that goes down the columns and starts with zeros; only the first run may be empty.
 * Foreign texts may hold empty runs in between; they are kept as they are.
 */
#include "data/data.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define POLYGON_SCALE 5         /* polygons are traced on a grid five times as fine */
#define POLYGON_REACH 100000000 /* largest coordinate, px: the fine grid stays within int */

void mask_runs_free(mask_runs *r)
{
    if (!r) return;
    mem_free(r->counts);
    *r = (mask_runs){ 0 };
}

static sca_status check_size(int width, int height)
{
    if (width < 1 || height < 1 || (int64_t)width * height > UINT32_MAX)
        return status_fail(SCA_ERR_ARGUMENT, "mask of %d x %d pixels, expected 1 x 1 to 2^32 pixels in all", width,
                           height);
    return SCA_OK;
}

static int64_t pixels_of(const mask_runs *r) { return (int64_t)r->width * r->height; }

/* ---- growing lists --------------------------------------------------------------------------------- */

typedef struct list {
    uint32_t *data;
    size_t count, cap;
} list;

static sca_status list_put(list *l, uint32_t value)
{
    if (l->count == l->cap) {
        size_t cap = l->cap ? 2 * l->cap : 64;
        uint32_t *data = mem_resize(l->data, cap * sizeof *data);
        if (!data) return mem_fail(cap * sizeof *data, "mask runs");
        l->data = data;
        l->cap = cap;
    }
    l->data[l->count++] = value;
    return SCA_OK;
}

/* Hands the list over as the runs of a mask. */
static void list_take(list *l, int width, int height, mask_runs *out)
{
    *out = (mask_runs){ width, height, l->data, l->count };
    *l = (list){ 0 };
}

/* ---- pixels ------------------------------------------------------------------------------------------ */

#define STRIP 64 /* columns turned at a time, so that rows are read a cache line at a time */

static void read_strip(const uint8_t *on, int width, int height, int x0, int columns, uint8_t *strip)
{
    for (size_t y = 0; y < (size_t)height; y++)
        for (size_t x = 0; x < (size_t)columns; x++)
            strip[x * (size_t)height + y] = on[y * (size_t)width + (size_t)x0 + x] != 0;
}

static void write_strip(const uint8_t *strip, int width, int height, int x0, int columns, uint8_t *on)
{
    for (size_t y = 0; y < (size_t)height; y++)
        for (size_t x = 0; x < (size_t)columns; x++)
            on[y * (size_t)width + (size_t)x0 + x] = strip[x * (size_t)height + y];
}

static int columns_at(int x0, int width) { return width - x0 < STRIP ? width - x0 : STRIP; }

static sca_status encode_strip(const uint8_t *strip, size_t n, list *runs, uint8_t *value, uint32_t *run)
{
    for (size_t i = 0; i < n; i++) {
        if (strip[i] != *value) {
            TRY(list_put(runs, *run));
            *value = strip[i];
            *run = 0;
        }
        ++*run;
    }
    return SCA_OK;
}

sca_status mask_encode(const uint8_t *on, int width, int height, mask_runs *out)
{
    sca_status status;
    list runs = { 0 };
    uint8_t value = 0;
    uint32_t run = 0;
    *out = (mask_runs){ 0 };
    TRY(check_size(width, height));
    uint8_t *strip = mem_alloc((size_t)STRIP * (size_t)height);
    if (!strip) return mem_fail((size_t)STRIP * (size_t)height, "columns of a mask");
    for (int x = 0; x < width; x += STRIP) {
        int columns = columns_at(x, width);
        read_strip(on, width, height, x, columns, strip);
        TRY_GOTO(done, encode_strip(strip, (size_t)columns * (size_t)height, &runs, &value, &run));
    }
    TRY_GOTO(done, list_put(&runs, run));
    list_take(&runs, width, height, out);
done:
    mem_free(runs.data);
    mem_free(strip);
    return status;
}

static sca_status check_total(const mask_runs *r)
{
    int64_t total = 0;
    TRY(check_size(r->width, r->height));
    for (size_t i = 0; i < r->count && total <= UINT32_MAX; i++) total += r->counts[i];
    if (total != pixels_of(r))
        return status_fail(SCA_ERR_FORMAT, "mask runs cover %lld pixels, expected %d x %d = %lld", (long long)total,
                           r->width, r->height, (long long)pixels_of(r));
    return SCA_OK;
}

sca_status mask_decode(const mask_runs *r, uint8_t *on)
{
    TRY(check_total(r));
    uint8_t *strip = mem_alloc((size_t)STRIP * (size_t)r->height);
    if (!strip) return mem_fail((size_t)STRIP * (size_t)r->height, "columns of a mask");
    size_t next = 0, left = 0; /* runs begun, and what is left of the latest */
    for (int x = 0; x < r->width; x += STRIP) {
        int columns = columns_at(x, r->width);
        size_t n = (size_t)columns * (size_t)r->height;
        for (size_t i = 0; i < n;) {
            if (left == 0) left = r->counts[next++];
            size_t part = left < n - i ? left : n - i;
            memset(strip + i, next % 2 == 0, part); /* the second, fourth, ... run is inside */
            i += part;
            left -= part;
        }
        write_strip(strip, r->width, r->height, x, columns, on);
    }
    mem_free(strip);
    return SCA_OK;
}

/* ---- compressed text ------------------------------------------------------------------------------------ */

/* Each count, from the fourth on as the difference from the one two before, is written in groups of five bits,
 * lowest first, sign-extended; bit 5 says that more follow; 48 makes it printable. */
sca_status mask_runs_text(const mask_runs *r, char **counts)
{
    str text = { 0 };
    *counts = NULL;
    for (size_t i = 0; i < r->count; i++) {
        int64_t value = r->counts[i];
        if (i > 2) value -= r->counts[i - 2];
        for (bool more = true; more;) {
            int group = (int)(value & 31);
            value >>= 5; /* arithmetic, as every compiler this builds with does it */
            more = value != (group & 16 ? -1 : 0);
            str_putc(&text, (char)(48 + group + (more ? 32 : 0)));
        }
    }
    return str_take(&text, counts);
}

/* Reads one number at *text and advances; false if it is cut, out of range, or has a character that is none. */
static bool read_number(const char **text, int64_t *out)
{
    uint64_t value = 0;
    for (int shift = 0; shift <= 30; shift += 5) {
        int group = *(*text)++ - 48;
        if (group < 0 || group > 63) return false;
        value |= (uint64_t)(group & 31) << shift;
        if (group & 32) continue;
        if (group & 16) value |= ~(uint64_t)0 << (shift + 5);
        *out = (int64_t)value;
        return true;
    }
    return false;
}

static sca_status parse_runs(const char *counts, list *runs)
{
    for (const char *p = counts; *p;) {
        int64_t value;
        size_t at = (size_t)(p - counts), n = runs->count;
        if (!read_number(&p, &value)) return status_fail(SCA_ERR_FORMAT, "mask runs: damaged text at byte %zu", at);
        if (n > 2) value += runs->data[n - 2];
        if (value < 0 || value > UINT32_MAX)
            return status_fail(SCA_ERR_FORMAT, "mask runs: run %zu is %lld, expected 0 to 2^32 - 1", n,
                               (long long)value);
        TRY(list_put(runs, (uint32_t)value));
    }
    return SCA_OK;
}

sca_status mask_runs_parse(const char *counts, int width, int height, mask_runs *out)
{
    sca_status status;
    list runs = { 0 };
    *out = (mask_runs){ 0 };
    TRY(check_size(width, height));
    TRY_GOTO(failed, parse_runs(counts, &runs));
    list_take(&runs, width, height, out);
    TRY_GOTO(failed, check_total(out));
    return SCA_OK;
failed:
    mem_free(runs.data);
    mask_runs_free(out);
    return status;
}

/* ---- polygons --------------------------------------------------------------------------------------------- */

/* Where the outline enters or leaves columns, as pixel numbers down the columns. */
typedef struct outline {
    list crossings;
    int width, height;
} outline;

/* The traced line passes the centre of pixel column x, at row v of the fine grid: the upper row of its step. */
static sca_status cross(outline *o, int x, int v)
{
    double y = (v + 0.5) / POLYGON_SCALE - 0.5;
    y = y < 0 ? 0 : y > o->height ? o->height : ceil(y);
    return list_put(&o->crossings, (uint32_t)x * (uint32_t)o->height + (uint32_t)y);
}

static int min_int(int a, int b) { return a < b ? a : b; }

/* Passing the centre of pixel column x is the step between fine columns centre_of(x) and centre_of(x) + 1. */
static int centre_of(int x) { return POLYGON_SCALE * x + POLYGON_SCALE / 2; }
static int first_centre(int u) { return u <= POLYGON_SCALE / 2 ? 0 : (u + POLYGON_SCALE / 2) / POLYGON_SCALE; }

/* An edge with more columns than rows: each step moves one column. */
static sca_status trace_flat(outline *o, int x0, int y0, int x1, int y1)
{
    double slope = x1 > x0 ? (double)(y1 - y0) / (x1 - x0) : 0;
    for (int x = first_centre(x0); x < o->width && centre_of(x) < x1; x++) {
        int t = centre_of(x) - x0;
        int v0 = (int)(y0 + slope * t + 0.5), v1 = (int)(y0 + slope * (t + 1) + 0.5);
        TRY(cross(o, x, min_int(v0, v1)));
    }
    return SCA_OK;
}

static int column_at(int x0, double slope, int t) { return (int)(x0 + slope * t + 0.5); }

/* An edge with more rows than columns: each step moves one row and sometimes a column. The step over a centre is
 * near where the exact line would make it; rounding decides. */
static sca_status trace_steep(outline *o, int x0, int y0, int x1, int y1)
{
    double slope = (double)(x1 - x0) / (y1 - y0);
    bool right = x1 > x0;
    int rows = y1 - y0, left_end = min_int(column_at(x0, slope, 0), column_at(x0, slope, rows));
    for (int x = first_centre(left_end); x < o->width; x++) {
        int centre = centre_of(x);
        if ((right ? column_at(x0, slope, rows) : column_at(x0, slope, 0)) <= centre) break;
        double near = (centre + 0.5 - x0) / slope;
        int t = near < 1 ? 1 : near > rows ? rows : (int)near;
        while (t > 1 && (column_at(x0, slope, t - 1) > centre) == right) t--;
        while (t < rows && (column_at(x0, slope, t) > centre) != right) t++;
        TRY(cross(o, x, y0 + t - 1));
    }
    return SCA_OK;
}

/* Always from the smaller to the larger coordinate: rounding depends on the direction. */
static sca_status trace(outline *o, int x0, int y0, int x1, int y1)
{
    if (abs(x1 - x0) >= abs(y1 - y0))
        return x0 > x1 ? trace_flat(o, x1, y1, x0, y0) : trace_flat(o, x0, y0, x1, y1);
    return y0 > y1 ? trace_steep(o, x1, y1, x0, y0) : trace_steep(o, x0, y0, x1, y1);
}

static sca_status check_points(const double *xy, size_t n)
{
    for (size_t i = 0; i < 2 * n; i++)
        if (!(fabs(xy[i]) <= POLYGON_REACH))
            return status_fail(SCA_ERR_FORMAT, "polygon: coordinate %zu is %g, expected at most %d px from 0", i,
                               xy[i], POLYGON_REACH);
    return SCA_OK;
}

static sca_status trace_all(outline *o, const double *xy, size_t n)
{
    TRY(check_points(xy, n));
    for (size_t i = 0; i < n; i++) {
        size_t j = i + 1 < n ? i + 1 : 0;
        TRY(trace(o, (int)(POLYGON_SCALE * xy[2 * i] + 0.5), (int)(POLYGON_SCALE * xy[2 * i + 1] + 0.5),
                  (int)(POLYGON_SCALE * xy[2 * j] + 0.5), (int)(POLYGON_SCALE * xy[2 * j + 1] + 0.5)));
    }
    return SCA_OK;
}

static int by_value(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

/* Inside and outside alternate at the sorted crossings; two at one place cancel out. */
static sca_status fill(outline *o, list *runs)
{
    list *c = &o->crossings;
    size_t kept = 0;
    if (c->count) qsort(c->data, c->count, sizeof *c->data, by_value);
    for (size_t i = 0; i < c->count; i++) {
        if (kept && c->data[kept - 1] == c->data[i])
            kept--;
        else
            c->data[kept++] = c->data[i];
    }
    uint32_t pixels = (uint32_t)o->width * (uint32_t)o->height, last = 0;
    for (size_t i = 0; i < kept; last = c->data[i++]) TRY(list_put(runs, c->data[i] - last));
    return pixels > last ? list_put(runs, pixels - last) : SCA_OK;
}

static sca_status mask_from_polygon(const double *xy, size_t n, int width, int height, mask_runs *out)
{
    sca_status status;
    outline o = { .width = width, .height = height };
    list runs = { 0 };
    *out = (mask_runs){ 0 };
    TRY_GOTO(done, trace_all(&o, xy, n));
    TRY_GOTO(done, fill(&o, &runs));
    list_take(&runs, width, height, out);
done:
    mem_free(runs.data);
    mem_free(o.crossings.data);
    return status;
}

sca_status mask_from_polygons(const double *const *xy, const size_t *n_points, size_t parts, int width, int height,
                              mask_runs *out)
{
    *out = (mask_runs){ 0 };
    TRY(check_size(width, height));
    if (parts == 0) return mask_from_polygon(NULL, 0, width, height, out);
    sca_status status = SCA_OK;
    mask_runs *each = mem_zero(parts, sizeof *each);
    if (!each) return mem_fail(parts * sizeof *each, "polygon parts");
    for (size_t i = 0; i < parts; i++)
        TRY_GOTO(done, mask_from_polygon(xy[i], n_points[i], width, height, &each[i]));
    status = mask_union(each, parts, out);
done:
    for (size_t i = 0; i < parts; i++) mask_runs_free(&each[i]);
    mem_free(each);
    return status;
}

sca_status mask_from_box(const double xywh[4], int width, int height, mask_runs *out)
{
    double x0 = xywh[0], y0 = xywh[1], x1 = x0 + xywh[2], y1 = y0 + xywh[3];
    double xy[8] = { x0, y0, x0, y1, x1, y1, x1, y0 };
    *out = (mask_runs){ 0 };
    TRY(check_size(width, height));
    return mask_from_polygon(xy, 4, width, height, out);
}

/* ---- two masks side by side --------------------------------------------------------------------------------- */

typedef struct cursor {
    const mask_runs *runs;
    size_t next;   /* run after the current one */
    uint32_t left; /* of the current run        */
    bool inside;
} cursor;

static void cursor_fill(cursor *c)
{
    while (c->left == 0 && c->next < c->runs->count) {
        c->left = c->runs->counts[c->next++];
        c->inside = c->next % 2 == 0;
    }
}

static cursor cursor_of(const mask_runs *r)
{
    cursor c = { .runs = r };
    cursor_fill(&c);
    return c;
}

/* The longest stretch on which neither mask changes; 0 at the end of either. */
static uint32_t common(const cursor *a, const cursor *b) { return a->left < b->left ? a->left : b->left; }

static void advance(cursor *c, uint32_t n)
{
    c->left -= n;
    cursor_fill(c);
}

static sca_status unite(const mask_runs *first, const mask_runs *second, mask_runs *out)
{
    sca_status status;
    list runs = { 0 };
    bool inside = false;
    uint32_t run = 0, n;
    cursor a = cursor_of(first), b = cursor_of(second);
    for (; (n = common(&a, &b)) > 0; advance(&a, n), advance(&b, n)) {
        if ((a.inside || b.inside) != inside) {
            TRY_GOTO(done, list_put(&runs, run));
            inside = !inside;
            run = 0;
        }
        run += n;
    }
    TRY_GOTO(done, list_put(&runs, run));
    list_take(&runs, first->width, first->height, out);
done:
    mem_free(runs.data);
    return status;
}

static sca_status runs_copy(const mask_runs *r, mask_runs *out)
{
    uint32_t *counts = mem_alloc(r->count * sizeof *counts);
    if (!counts) return mem_fail(r->count * sizeof *counts, "mask runs");
    if (r->count) memcpy(counts, r->counts, r->count * sizeof *counts);
    *out = (mask_runs){ r->width, r->height, counts, r->count };
    return SCA_OK;
}

sca_status mask_union(const mask_runs *a, size_t n, mask_runs *out)
{
    *out = (mask_runs){ 0 };
    if (n == 0) return status_fail(SCA_ERR_ARGUMENT, "union of no masks, expected at least one");
    for (size_t i = 0; i < n; i++) {
        if (a[i].width != a[0].width || a[i].height != a[0].height)
            return status_fail(SCA_ERR_ARGUMENT, "union of masks of %d x %d and %d x %d, expected equal sizes",
                               a[0].width, a[0].height, a[i].width, a[i].height);
        TRY(check_total(&a[i]));
    }
    mask_runs sum = { 0 };
    TRY(runs_copy(&a[0], &sum));
    for (size_t i = 1; i < n; i++) {
        mask_runs next = { 0 };
        sca_status status = unite(&sum, &a[i], &next);
        mask_runs_free(&sum);
        TRY(status);
        sum = next;
    }
    *out = sum;
    return SCA_OK;
}

int64_t mask_area(const mask_runs *r)
{
    int64_t area = 0;
    for (size_t i = 1; i < r->count; i += 2) area += r->counts[i];
    return area;
}

void mask_box(const mask_runs *r, double xywh[4])
{
    int64_t left = r->width, top = r->height, right = -1, bottom = -1, at = 0, h = r->height;
    for (size_t i = 0; i < r->count; at += r->counts[i++]) {
        if (i % 2 == 0 || r->counts[i] == 0) continue;
        int64_t end = at + r->counts[i] - 1, x0 = at / h, x1 = end / h;
        int64_t y0 = x1 > x0 ? 0 : at % h, y1 = x1 > x0 ? h - 1 : end % h;
        if (x0 < left) left = x0;
        if (x1 > right) right = x1;
        if (y0 < top) top = y0;
        if (y1 > bottom) bottom = y1;
    }
    bool empty = right < 0;
    xywh[0] = empty ? 0 : (double)left;
    xywh[1] = empty ? 0 : (double)top;
    xywh[2] = empty ? 0 : (double)(right - left + 1);
    xywh[3] = empty ? 0 : (double)(bottom - top + 1);
}

/* A crowd region stands for many objects: only the part of `a` outside it counts against the overlap. */
double mask_iou(const mask_runs *a, const mask_runs *b, bool b_is_crowd)
{
    if (a->width != b->width || a->height != b->height) return -1;
    int64_t both = 0, either = 0;
    uint32_t n;
    cursor p = cursor_of(a), q = cursor_of(b);
    for (; (n = common(&p, &q)) > 0; advance(&p, n), advance(&q, n)) {
        if (p.inside && q.inside) both += n;
        if (p.inside || q.inside) either += n;
    }
    if (both == 0) return 0;
    return (double)both / (double)(b_is_crowd ? mask_area(a) : either);
}
