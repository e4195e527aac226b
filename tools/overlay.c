/* overlay.c - masks, boxes, points and captions drawn on photos, as one PNG.
 *
 * A page per photo, at the photo's size; pages lie below each other in the file. Masks and prompts are drawn as
 * they come, captions at the end, when all boxes are known: each is wrapped, stands on a box of its region's
 * colour, and is put where it covers no other caption and as little of the regions as possible.
 */
#include "tool.h"

#include <cairo.h>
#include <limits.h>
#include <math.h>
#include <png.h>
#include <setjmp.h>
#include <string.h>

enum { SIDE_MOST = 32000 }; /* Cairo's surfaces end at 32767 */

typedef struct rect {
    double x, y, w, h;
} rect;

typedef struct label { /* a caption to be placed */
    char *text;        /* owned */
    region prompt;     /* borrows from the caller, until the photo ends */
    rect about;        /* the region it belongs to, on the page */
    int number;
    rect at; /* where it was put */
} label;

typedef struct page {
    cairo_surface_t *surface;
    cairo_t *cairo;
    double scale; /* page pixels per photo pixel; 1 except for photos beyond SIDE_MOST */
    double unit;  /* a line's width, growing with the page */
    label *labels;
    int n_labels, room;
} page;

struct overlay {
    page *pages;
    int n, room;
};

static const double palette[][3] = {
    { 0.90, 0.22, 0.21 }, { 0.12, 0.53, 0.90 }, { 0.98, 0.75, 0.18 }, { 0.26, 0.63, 0.28 },
    { 0.56, 0.27, 0.68 }, { 0.96, 0.49, 0.00 }, { 0.00, 0.67, 0.76 }, { 0.85, 0.26, 0.55 },
    { 0.49, 0.70, 0.26 }, { 0.36, 0.42, 0.75 }, { 0.55, 0.43, 0.39 }, { 0.00, 0.54, 0.48 },
};

static const double *colour_of(int number) { return palette[(size_t)(number - 1) % LENGTH(palette)]; }

static double at_least(double x, double least) { return x < least ? least : x; }
static double at_most(double x, double most) { return x > most ? most : x; }

static sca_status grow(void **items, int count, int *room, size_t size, const char *what)
{
    if (count < *room) return SCA_OK;
    int more = *room ? 2 * *room : 8;
    void *bigger = mem_resize(*items, (size_t)more * size);
    if (!bigger) return mem_fail((size_t)more * size, what);
    *items = bigger;
    *room = more;
    return SCA_OK;
}

/* ---- pages
 * ------------------------------------------------------------------------------------------------------- */

sca_status overlay_open(overlay **out)
{
    *out = mem_zero(1, sizeof **out);
    return *out ? SCA_OK : mem_fail(sizeof **out, "the overlay");
}

static void page_close(page *p)
{
    for (int i = 0; i < p->n_labels; i++) mem_free(p->labels[i].text);
    mem_free(p->labels);
    if (p->cairo) cairo_destroy(p->cairo);
    if (p->surface) cairo_surface_destroy(p->surface);
}

void overlay_drop(overlay *o) { page_close(&o->pages[--o->n]); }

void overlay_close(overlay *o)
{
    if (!o) return;
    for (int i = 0; i < o->n; i++) page_close(&o->pages[i]);
    mem_free(o->pages);
    mem_free(o);
}

/* Row y of the page's pixels, 0x00RRGGBB. */
static uint32_t *page_row(const page *p, int y)
{
    unsigned char *data = cairo_image_surface_get_data(p->surface);
    return (uint32_t *)(void *)(data + (size_t)y * (size_t)cairo_image_surface_get_stride(p->surface));
}

static int page_width(const page *p) { return cairo_image_surface_get_width(p->surface); }
static int page_height(const page *p) { return cairo_image_surface_get_height(p->surface); }

static void copy_photo(const page *p, const sca_image *photo)
{
    for (int y = 0; y < page_height(p); y++) {
        uint32_t *row = page_row(p, y);
        int from_y = (int)at_most(y / p->scale, photo->height - 1);
        for (int x = 0; x < page_width(p); x++) {
            int from_x = (int)at_most(x / p->scale, photo->width - 1);
            const uint8_t *rgb = photo->rgb + 3 * ((size_t)from_y * (size_t)photo->width + (size_t)from_x);
            row[x] = (uint32_t)rgb[0] << 16 | (uint32_t)rgb[1] << 8 | rgb[2];
        }
    }
}

sca_status overlay_photo(overlay *o, const sca_image *photo)
{
    TRY(grow((void **)&o->pages, o->n, &o->room, sizeof *o->pages, "the overlay"));
    page *p = &o->pages[o->n];
    int longest = photo->width > photo->height ? photo->width : photo->height;
    double scale = longest > SIDE_MOST ? (double)SIDE_MOST / longest : 1;
    int width = (int)at_least(photo->width * scale, 1), height = (int)at_least(photo->height * scale, 1);
    *p = (page){ .scale = scale, .unit = at_least(sqrt((double)width * height) / 300, 1) };
    p->surface = cairo_image_surface_create(CAIRO_FORMAT_RGB24, width, height);
    p->cairo = cairo_create(p->surface);
    o->n++;
    if (cairo_status(p->cairo) != CAIRO_STATUS_SUCCESS) {
        overlay_drop(o);
        return mem_fail(4 * (size_t)width * (size_t)height, "the overlay");
    }
    cairo_surface_flush(p->surface);
    copy_photo(p, photo);
    cairo_surface_mark_dirty(p->surface);
    cairo_set_line_join(p->cairo, CAIRO_LINE_JOIN_ROUND);
    return SCA_OK;
}

/* ---- masks
 * --------------------------------------------------------------------------------------------------------- */

static uint32_t blend(uint32_t pixel, const double *colour, double share)
{
    uint32_t out = 0;
    for (int i = 0; i < 3; i++) {
        int shift = 16 - 8 * i;
        double old = (double)(pixel >> shift & 255);
        out |= (uint32_t)(old + share * (255 * colour[i] - old) + 0.5) << shift;
    }
    return out;
}

static bool mask_on(const sca_mask *m, int x, int y)
{
    return x >= 0 && y >= 0 && x < m->width && y < m->height && m->on[(size_t)y * (size_t)m->width + (size_t)x];
}

/* A pixel of the mask with the outside within `reach`; the edge of the photo is no outline. */
static bool on_edge(const sca_mask *m, int x, int y, int reach)
{
    for (int dy = -1; dy <= 1; dy++)
        for (int dx = -1; dx <= 1; dx++) {
            int nx = x + dx * reach, ny = y + dy * reach;
            if (nx < 0 || ny < 0 || nx >= m->width || ny >= m->height) continue;
            if (!mask_on(m, nx, ny)) return true;
        }
    return false;
}

static void draw_mask(const page *p, const sca_mask *m, const double *colour)
{
    int reach = (int)(p->unit / p->scale + 0.5);
    if (reach < 1) reach = 1;
    cairo_surface_flush(p->surface);
    for (int y = 0; y < page_height(p); y++) {
        uint32_t *row = page_row(p, y);
        int from_y = (int)(y / p->scale);
        for (int x = 0; x < page_width(p); x++) {
            int from_x = (int)(x / p->scale);
            if (!mask_on(m, from_x, from_y)) continue;
            row[x] = blend(row[x], colour, on_edge(m, from_x, from_y, reach) ? 0.85 : 0.35);
        }
    }
    cairo_surface_mark_dirty(p->surface);
}

/* ---- prompts
 * ------------------------------------------------------------------------------------------------------- */

/* Cairo's fixed-point numbers end at 2^23; what lies far outside the page is not seen anyway. */
static double near_page(double x) { return at_most(at_least(x, -100000), 100000); }

static rect prompt_rect(const page *p, const double box[4])
{
    double x1 = near_page(p->scale * fmin(box[0], box[2])), x2 = near_page(p->scale * fmax(box[0], box[2]));
    double y1 = near_page(p->scale * fmin(box[1], box[3])), y2 = near_page(p->scale * fmax(box[1], box[3]));
    return (rect){ x1, y1, x2 - x1, y2 - y1 };
}

/* Strokes the path in the colour, on a dark line that keeps it visible on any background. */
static void stroke(const page *p, const double *colour, double width)
{
    cairo_set_source_rgba(p->cairo, 0, 0, 0, 0.55);
    cairo_set_line_width(p->cairo, width + p->unit);
    cairo_stroke_preserve(p->cairo);
    cairo_set_source_rgb(p->cairo, colour[0], colour[1], colour[2]);
    cairo_set_line_width(p->cairo, width);
    cairo_stroke(p->cairo);
}

static void draw_box(const page *p, rect r, const double *colour)
{
    cairo_rectangle(p->cairo, r.x, r.y, r.w, r.h);
    stroke(p, colour, 1.6 * p->unit);
}

/* Inside: a disc of the region's colour; outside: a white disc with a cross. */
static void draw_point(const page *p, const sca_point *point, const double *colour)
{
    static const double white[] = { 1, 1, 1 };
    double x = near_page(point->x_px * p->scale), y = near_page(point->y_px * p->scale), radius = 4 * p->unit;
    bool inside = point->label == 1;
    const double *fill = inside ? colour : white, *ring = inside ? white : colour;
    cairo_new_path(p->cairo);
    cairo_arc(p->cairo, x, y, radius, 0, 2 * M_PI);
    cairo_set_source_rgb(p->cairo, fill[0], fill[1], fill[2]);
    cairo_fill_preserve(p->cairo);
    stroke(p, ring, 1.2 * p->unit);
    if (inside) return;
    double arm = 0.5 * radius;
    for (int sign = -1; sign <= 1; sign += 2) {
        cairo_move_to(p->cairo, x - arm, y - sign * arm);
        cairo_line_to(p->cairo, x + arm, y + sign * arm);
    }
    cairo_set_source_rgb(p->cairo, colour[0], colour[1], colour[2]);
    cairo_set_line_width(p->cairo, 1.4 * p->unit);
    cairo_stroke(p->cairo);
}

/* What the label stands beside: the box that was given, else that of the mask, else the points. */
static rect region_rect(const page *p, const record *r)
{
    const region *g = r->region;
    const float *b = r->mask->box_px;
    if (g->has_box) return prompt_rect(p, g->box);
    if (b[2] > b[0]) return prompt_rect(p, (double[4]){ b[0], b[1], b[2], b[3] });
    if (g->n_points == 0) return (rect){ 0, 0, page_width(p), page_height(p) };
    return (rect){ near_page(g->points[0].x_px * p->scale), near_page(g->points[0].y_px * p->scale), 1, 1 };
}

static void draw_prompt(const page *p, const label *l)
{
    const double *colour = colour_of(l->number);
    if (l->prompt.has_box) draw_box(p, l->about, colour);
    for (int i = 0; i < l->prompt.n_points; i++)
        if (l->prompt.points[i].label >= 0) draw_point(p, &l->prompt.points[i], colour);
}

sca_status overlay_region(overlay *o, const record *r)
{
    page *p = &o->pages[o->n - 1];
    draw_mask(p, r->mask, colour_of(r->number));
    TRY(grow((void **)&p->labels, p->n_labels, &p->room, sizeof *p->labels, "the captions of the overlay"));
    str text = { 0 };
    const sca_text *caption = record_text(r);
    str_printf(&text, "%d", r->number);
    if (caption && caption->text[0]) {
        str_put(&text, caption->text[0] == ' ' ? " " : "  ");
        put_printable(&text, caption->text);
    }
    label *l = &p->labels[p->n_labels];
    *l = (label){ .prompt = *r->region, .about = region_rect(p, r), .number = r->number };
    TRY(str_take(&text, &l->text));
    p->n_labels++;
    return SCA_OK;
}

/* ---- wrapped text
 * ---------------------------------------------------------------------------------------------------- */

enum { LINES_MOST = 6 };

typedef struct layout {
    const char *start[LINES_MOST];
    size_t bytes[LINES_MOST];
    int n;
    bool cut;     /* the last line ends in an ellipsis */
    double width; /* of the widest line */
    double line, ascent, pad;
} text_layout;

static double text_width(cairo_t *cairo, const char *text, size_t bytes)
{
    char line[1024];
    cairo_text_extents_t extents;
    if (bytes >= sizeof line) return 1e9;
    memcpy(line, text, bytes);
    line[bytes] = 0;
    cairo_text_extents(cairo, line, &extents);
    return extents.x_advance;
}

/* Bytes of the longest beginning of text that fits `width`: whole words if there is one, else characters. */
static size_t fitting(cairo_t *cairo, const char *text, double width)
{
    size_t total = strlen(text), word = 0, characters = 0;
    for (size_t i = 0; i < total;) {
        size_t begin = i;
        (void)utf8_next(text, total, &i);
        if (text[begin] == ' ') word = begin;
        if (begin > 0 && text_width(cairo, text, i) > width) return word ? word : characters;
        characters = i;
    }
    return total;
}

static text_layout lay_out(cairo_t *cairo, const char *text, double width)
{
    text_layout l = { 0 };
    cairo_font_extents_t font;
    cairo_font_extents(cairo, &font);
    l.line = font.height;
    l.ascent = font.ascent;
    l.pad = 0.35 * font.ascent;
    while (*text && l.n < LINES_MOST) {
        size_t bytes = fitting(cairo, text, width);
        l.start[l.n] = text;
        l.bytes[l.n++] = bytes;
        l.width = fmax(l.width, text_width(cairo, text, bytes));
        text += bytes;
        while (*text == ' ') text++;
    }
    l.cut = *text != 0;
    if (l.cut) l.width += text_width(cairo, "\xe2\x80\xa6", 3);
    return l;
}

static double label_width(const text_layout *l) { return l->width + 2 * l->pad; }
static double label_height(const text_layout *l) { return l->n * l->line + l->pad; }

/* ---- placing
 * ---------------------------------------------------------------------------------------------------------- */

static double overlap(rect a, rect b)
{
    double w = fmin(a.x + a.w, b.x + b.w) - fmax(a.x, b.x), h = fmin(a.y + a.h, b.y + b.h) - fmax(a.y, b.y);
    return w > 0 && h > 0 ? w * h : 0;
}

/* Smaller is better; a place on another caption is none. */
static double badness(const page *p, int i, rect r)
{
    const label *l = &p->labels[i];
    for (int k = 0; k < i; k++)
        if (overlap(r, p->labels[k].at) > 0) return INFINITY;
    double hidden = 0, area = r.w * r.h;
    for (int k = 0; k < p->n_labels; k++)
        hidden +=
            overlap(r, p->labels[k].about) / (k == i ? 3 * area : area); /* one's own region is the smaller evil */
    double dx = fmax(fmax(l->about.x - (r.x + r.w), r.x - (l->about.x + l->about.w)), 0);
    double dy = fmax(fmax(l->about.y - (r.y + r.h), r.y - (l->about.y + l->about.h)), 0);
    return hidden + 30 * (dx + dy) / (page_width(p) + page_height(p));
}

static void try_place(const page *p, int i, rect r, rect *best, double *least)
{
    double margin = p->unit;
    r.x = at_least(at_most(r.x, page_width(p) - margin - r.w), margin);
    r.y = at_least(at_most(r.y, page_height(p) - margin - r.h), margin);
    double bad = badness(p, i, r);
    if (bad < *least) {
        *least = bad;
        *best = r;
    }
}

/* Beside the region first, then anywhere on a grid. */
static bool place(page *p, int i, double width, double height)
{
    label *l = &p->labels[i];
    l->at = (rect){ 0 };
    rect a = l->about, best = { 0 };
    double least = INFINITY, gap = p->unit;
    if (width + 2 * gap > page_width(p) || height + 2 * gap > page_height(p)) return false;
    double xs[] = { a.x, a.x + a.w - width, a.x + (a.w - width) / 2 };
    double ys[] = { a.y - height - gap, a.y + a.h + gap, a.y + gap, a.y + a.h - height - gap };
    for (size_t y = 0; y < LENGTH(ys); y++)
        for (size_t x = 0; x < LENGTH(xs); x++)
            try_place(p, i, (rect){ xs[x], ys[y], width, height }, &best, &least);
    for (int side = 0; side < 2; side++) {
        double x = side ? a.x - width - gap : a.x + a.w + gap;
        try_place(p, i, (rect){ x, a.y, width, height }, &best, &least);
        try_place(p, i, (rect){ x, a.y + a.h - height, width, height }, &best, &least);
    }
    enum { GRID = 24 };
    for (int y = 0; y <= GRID && least > 2; y++)
        for (int x = 0; x <= GRID; x++)
            try_place(p, i, (rect){ page_width(p) * x / GRID, page_height(p) * y / GRID, width, height }, &best,
                      &least);
    l->at = best;
    return least < INFINITY;
}

static double wrap_width(const page *p, const label *l)
{
    double widest = page_width(p) - 4 * p->unit;
    return at_most(fmax(at_most(l->about.w, 0.6 * page_width(p)), 0.3 * page_width(p)), widest);
}

/* True when every caption found a place at this size. */
static bool place_all(page *p, double size)
{
    cairo_set_font_size(p->cairo, size);
    for (int i = 0; i < p->n_labels; i++) {
        text_layout l = lay_out(p->cairo, p->labels[i].text, wrap_width(p, &p->labels[i]));
        if (!place(p, i, label_width(&l), label_height(&l))) return false;
    }
    return true;
}

/* ---- captions
 * --------------------------------------------------------------------------------------------------------- */

static void rounded_rectangle(cairo_t *cairo, rect r, double radius)
{
    cairo_new_path(cairo);
    cairo_arc(cairo, r.x + r.w - radius, r.y + radius, radius, -M_PI / 2, 0);
    cairo_arc(cairo, r.x + r.w - radius, r.y + r.h - radius, radius, 0, M_PI / 2);
    cairo_arc(cairo, r.x + radius, r.y + r.h - radius, radius, M_PI / 2, M_PI);
    cairo_arc(cairo, r.x + radius, r.y + radius, radius, M_PI, 3 * M_PI / 2);
    cairo_close_path(cairo);
}

static void draw_label(const page *p, const label *l, double size)
{
    cairo_t *cairo = p->cairo;
    const double *c = colour_of(l->number);
    cairo_set_font_size(cairo, size);
    text_layout text = lay_out(cairo, l->text, wrap_width(p, l));
    rounded_rectangle(cairo, l->at, 0.8 * text.pad);
    cairo_set_source_rgba(cairo, c[0], c[1], c[2], 0.92);
    cairo_fill_preserve(cairo);
    cairo_set_source_rgba(cairo, 0, 0, 0, 0.5);
    cairo_set_line_width(cairo, 0.5 * p->unit);
    cairo_stroke(cairo);
    /* Black or white, whichever the eye tells better from the colour. */
    bool dark = 0.299 * c[0] + 0.587 * c[1] + 0.114 * c[2] < 0.55;
    cairo_set_source_rgb(cairo, dark, dark, dark);
    for (int i = 0; i < text.n; i++) {
        char line[1024];
        size_t bytes = text.bytes[i] < sizeof line - 4 ? text.bytes[i] : sizeof line - 4;
        memcpy(line, text.start[i], bytes);
        line[bytes] = 0;
        if (text.cut && i + 1 == text.n) memcpy(line + bytes, "\xe2\x80\xa6", 4);
        cairo_move_to(cairo, l->at.x + text.pad, l->at.y + 0.5 * text.pad + text.ascent + i * text.line);
        cairo_show_text(cairo, line);
    }
}

/* The largest text for which all captions find a place; when even small text does not, the numbers alone, and of
 * those that do not fit either only the mask is left. */
sca_status overlay_labels(overlay *o)
{
    page *p = &o->pages[o->n - 1];
    double shorter = fmin(page_width(p), page_height(p));
    double size = at_least(shorter / 28, 11), least = at_least(0.45 * size, 9);
    for (int i = 0; i < p->n_labels; i++) draw_prompt(p, &p->labels[i]);
    cairo_select_font_face(p->cairo, "DejaVu Sans", CAIRO_FONT_SLANT_NORMAL, CAIRO_FONT_WEIGHT_NORMAL);
    while (size > least && !place_all(p, size)) size *= 0.9;
    bool all = place_all(p, size);
    for (int i = 0; i < p->n_labels; i++) {
        label *l = &p->labels[i];
        if (!all) {
            l->text[strcspn(l->text, " ")] = 0;
            text_layout text = lay_out(p->cairo, l->text, wrap_width(p, l));
            if (!place(p, i, label_width(&text), label_height(&text))) continue;
        }
        draw_label(p, l, size);
    }
    cairo_surface_flush(p->surface);
    if (cairo_status(p->cairo) != CAIRO_STATUS_SUCCESS)
        return status_fail(SCA_ERR_MEMORY, "the overlay: %s", cairo_status_to_string(cairo_status(p->cairo)));
    return SCA_OK;
}

/* ---- PNG
 * -------------------------------------------------------------------------------------------------------------- */

typedef struct png_job {
    str file;
    png_bytep row;
    jmp_buf failed;
} png_job;

static void png_put(png_structp png, png_bytep data, size_t bytes)
{
    str_put_bytes(&((png_job *)png_get_io_ptr(png))->file, data, bytes);
}

static void png_flush_nothing(png_structp png) { (void)png; }

static void png_failed(png_structp png, png_const_charp text)
{
    (void)status_fail(SCA_ERR_IO, "the overlay: %s", text);
    longjmp(((png_job *)png_get_error_ptr(png))->failed, 1);
}

static void png_warned(png_structp png, png_const_charp text)
{
    (void)png;
    log_warn("the overlay: %s", text);
}

/* Row y of a page, white to the right of it. */
static void png_row(const page *p, int y, int width, png_bytep out)
{
    const uint32_t *row = page_row(p, y);
    memset(out, 255, 3 * (size_t)width);
    for (int x = 0; x < page_width(p); x++)
        for (int i = 0; i < 3; i++) out[3 * x + i] = (png_byte)(row[x] >> (16 - 8 * i) & 255);
}

static void put_pages(const overlay *o, int width, int height, png_structp png, png_infop info, png_bytep row)
{
    png_set_user_limits(png, 0x7fffffff, 0x7fffffff);
    png_set_IHDR(png, info, (png_uint_32)width, (png_uint_32)height, 8, PNG_COLOR_TYPE_RGB, PNG_INTERLACE_NONE,
                 PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    png_write_info(png, info);
    for (int i = 0; i < o->n; i++)
        for (int y = 0; y < page_height(&o->pages[i]); y++) {
            png_row(&o->pages[i], y, width, row);
            png_write_row(png, row);
        }
    png_write_end(png, info);
}

static sca_status encode_png(const overlay *o, int width, int height, png_job *j)
{
    /* libpng leaves by longjmp: what must survive it is not changed after setjmp, or volatile. */
    png_structp volatile png = png_create_write_struct(PNG_LIBPNG_VER_STRING, j, png_failed, png_warned);
    png_infop volatile info = png ? png_create_info_struct(png) : NULL;
    volatile sca_status status = SCA_OK;
    if (!info) {
        status = mem_fail(0, "the overlay");
    } else if (setjmp(j->failed)) {
        status = SCA_ERR_IO;
    } else {
        png_set_write_fn(png, j, png_put, png_flush_nothing);
        put_pages(o, width, height, png, info, j->row);
    }
    png_structp done_png = png;
    png_infop done_info = info;
    if (done_png) png_destroy_write_struct(&done_png, &done_info);
    return status;
}

sca_status overlay_save(const overlay *o, const char *path)
{
    int width = 1;
    int64_t height = 0;
    for (int i = 0; i < o->n; i++) {
        width = page_width(&o->pages[i]) > width ? page_width(&o->pages[i]) : width;
        height += page_height(&o->pages[i]);
    }
    if (height > INT_MAX)
        return status_fail(SCA_ERR_ARGUMENT, "%s: would be %lld pixels high; draw fewer photos at once", path,
                           (long long)height);
    png_job j = { .row = mem_alloc(3 * (size_t)width) };
    sca_status status = j.row ? encode_png(o, width, (int)height, &j) : mem_fail(3 * (size_t)width, "the overlay");
    if (status == SCA_OK && j.file.failed) status = mem_fail(j.file.bytes, "the overlay");
    if (status == SCA_OK) status = file_write(path, str_text(&j.file), j.file.bytes);
    str_free(&j.file);
    mem_free(j.row);
    return status;
}
