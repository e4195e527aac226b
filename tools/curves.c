/* curves.c - the course of training runs as a picture: one panel for each quantity, one line for each run.
 *
 * Long runs are drawn as the means of a few hundred stretches. */
#include "tool.h"

#include <cairo-svg.h>
#include <cairo.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { POINTS_MOST = 600, PANEL_W = 460, PANEL_H = 270, COLUMNS = 2, LINE_H = 16, MARGIN = 14 };

typedef struct series { /* one line */
    int run;
    char *label; /* of the data set; owned, NULL: none */
    double *x, *y;
    size_t n, cap;
} series;

typedef struct panel {
    char *title; /* owned */
    series *lines;
    size_t n;
} panel;

struct curves {
    char **runs; /* (n_runs) owned */
    int n_runs;
    panel *panels;
    size_t n;
};

/* ---- collecting --------------------------------------------------------------------------------------------------- */

static sca_status find_panel(curves *c, const char *title, panel **out)
{
    for (size_t i = 0; i < c->n; i++)
        if (strcmp(c->panels[i].title, title) == 0) {
            *out = &c->panels[i];
            return SCA_OK;
        }
    panel *more = mem_resize(c->panels, (c->n + 1) * sizeof *more);
    if (!more) return mem_fail((c->n + 1) * sizeof *more, "curves");
    c->panels = more;
    more[c->n] = (panel){ .title = text_copy(title, strlen(title)) };
    if (!more[c->n].title) return mem_fail(strlen(title), "curves");
    *out = &more[c->n++];
    return SCA_OK;
}

static bool is_line(const series *s, int run, const char *label)
{
    return s->run == run && (s->label && label ? strcmp(s->label, label) == 0 : s->label == label);
}

static sca_status find_line(panel *p, int run, const char *label, series **out)
{
    for (size_t i = 0; i < p->n; i++)
        if (is_line(&p->lines[i], run, label)) {
            *out = &p->lines[i];
            return SCA_OK;
        }
    series *more = mem_resize(p->lines, (p->n + 1) * sizeof *more);
    if (!more) return mem_fail((p->n + 1) * sizeof *more, "curves");
    p->lines = more;
    more[p->n] = (series){ .run = run, .label = label ? text_copy(label, strlen(label)) : NULL };
    if (label && !more[p->n].label) return mem_fail(strlen(label), "curves");
    *out = &more[p->n++];
    return SCA_OK;
}

static sca_status add_point(curves *c, const char *title, int run, const char *label, double x, const json_t *y)
{
    panel *p;
    series *s;
    if (!json_is_number(y)) return SCA_OK; /* a loss that was not finite */
    TRY(find_panel(c, title, &p));
    TRY(find_line(p, run, label, &s));
    if (s->n == s->cap) {
        size_t cap = s->cap ? 2 * s->cap : 64;
        double *xs = mem_resize(s->x, cap * sizeof *xs);
        if (xs) s->x = xs;
        double *ys = xs ? mem_resize(s->y, cap * sizeof *ys) : NULL;
        if (!ys) return mem_fail(2 * cap * sizeof *xs, "curves");
        s->y = ys;
        s->cap = cap;
    }
    s->x[s->n] = x;
    s->y[s->n++] = json_number_value(y);
    return SCA_OK;
}

static sca_status add_step(curves *c, int run, const json_t *line)
{
    static const char *const quantity[][2] = { { "loss", "training loss" },
                                               { "lr", "learning rate" },
                                               { "grad_norm", "gradient norm, before clipping" } };
    double step = json_number_value(json_object_get(line, "step"));
    for (size_t i = 0; i < LENGTH(quantity); i++)
        TRY(add_point(c, quantity[i][1], run, NULL, step, json_object_get(line, quantity[i][0])));
    return SCA_OK;
}

/* As tables show them. */
static sca_status add_score(curves *c, int run, double step, const json_t *set, const report_metric *metric)
{
    char title[96];
    const json_t *value = json_object_get(json_object_get(set, "scores"), metric->key);
    json_t *scaled = json_is_number(value) ? json_real(metric->scale * json_number_value(value)) : NULL;
    snprintf(title, sizeof title, "evaluation: %s%s", metric->head, metric->scale > 1 ? " x 100" : "");
    sca_status status = add_point(c, title, run, json_string_value(json_object_get(set, "name")), step, scaled);
    json_decref(scaled);
    return status;
}

/* The loss first: it stands beside that of training. */
static sca_status add_scores(curves *c, int run, double step, const json_t *set)
{
    for (int rest = 0; rest < 2; rest++)
        for (size_t k = 0; report_metrics[k].key; k++)
            if ((strcmp(report_metrics[k].key, "loss") != 0) == rest)
                TRY(add_score(c, run, step, set, &report_metrics[k]));
    return SCA_OK;
}

static sca_status add_evaluation(curves *c, int run, const json_t *line)
{
    double step = json_number_value(json_object_get(line, "step"));
    const json_t *sets = json_object_get(line, "sets");
    for (size_t i = 0; i < json_array_size(sets); i++) TRY(add_scores(c, run, step, json_array_get(sets, i)));
    return SCA_OK;
}

/* The whole lines of a file; a run that goes on may be writing another. */
static sca_status each_line(curves *c, int run, const char *path,
                            sca_status (*add)(curves *c, int run, const json_t *line))
{
    file_view v;
    TRY(file_map(path, &v));
    const char *text = (const char *)v.data, *end;
    sca_status status = SCA_OK;
    for (size_t at = 0; status == SCA_OK && (end = memchr(text + at, '\n', v.bytes - at)) != NULL;
         at = (size_t)(end - text) + 1) {
        json_t *line = NULL;
        status = json_parse(text + at, (size_t)(end - text) - at, path, &line);
        if (status == SCA_OK) status = add(c, run, line);
        json_decref(line);
    }
    file_unmap(&v);
    return status;
}

static sca_status read_run(curves *c, int run)
{
    char *log = path_join(c->runs[run], "log.jsonl"), *evals = path_join(c->runs[run], "eval.jsonl");
    sca_status status = log && evals ? each_line(c, run, log, add_step) : mem_fail(64, "a file name");
    if (status == SCA_OK && file_exists(evals)) status = each_line(c, run, evals, add_evaluation);
    mem_free(log);
    mem_free(evals);
    return status;
}

/* The means of stretches of equal length. */
static void thin(series *s)
{
    size_t each = (s->n + POINTS_MOST - 1) / POINTS_MOST, n = 0;
    for (size_t i = 0; i < s->n && each > 1; i += each, n++) {
        double x = 0, y = 0;
        size_t k = 0;
        for (; k < each && i + k < s->n; k++) {
            x += s->x[i + k];
            y += s->y[i + k];
        }
        s->x[n] = x / (double)k;
        s->y[n] = y / (double)k;
    }
    if (each > 1) s->n = n;
}

sca_status curves_open(const char *const *runs, int n, curves **out)
{
    *out = NULL;
    curves *c = mem_zero(1, sizeof *c);
    if (!c) return mem_fail(sizeof *c, "curves");
    c->runs = mem_zero((size_t)n, sizeof *c->runs);
    if (!c->runs) {
        mem_free(c);
        return mem_fail((size_t)n * sizeof(char *), "curves");
    }
    sca_status status = SCA_OK;
    for (int i = 0; i < n && status == SCA_OK; i++) {
        c->runs[i] = text_copy(runs[i], strlen(runs[i]));
        c->n_runs++;
        status = c->runs[i] ? read_run(c, i) : mem_fail(strlen(runs[i]), "curves");
    }
    for (size_t i = 0; i < c->n; i++)
        for (size_t k = 0; k < c->panels[i].n; k++) thin(&c->panels[i].lines[k]);
    if (status == SCA_OK)
        *out = c;
    else
        curves_close(c);
    return status;
}

void curves_close(curves *c)
{
    if (!c) return;
    for (size_t i = 0; i < c->n; i++) {
        for (size_t k = 0; k < c->panels[i].n; k++) {
            mem_free(c->panels[i].lines[k].label);
            mem_free(c->panels[i].lines[k].x);
            mem_free(c->panels[i].lines[k].y);
        }
        mem_free(c->panels[i].lines);
        mem_free(c->panels[i].title);
    }
    for (int i = 0; i < c->n_runs; i++) mem_free(c->runs[i]);
    mem_free(c->runs);
    mem_free(c->panels);
    mem_free(c);
}

/* ---- drawing ------------------------------------------------------------------------------------------------------- */

typedef struct axes { /* a panel's place on the page, and what it shows */
    double left, top, right, bottom;
    double x0, x1, y0, y1;
} axes;

static const double palette[][3] = { { 0.12, 0.47, 0.71 }, { 0.84, 0.15, 0.16 }, { 0.17, 0.63, 0.17 },
                                     { 0.58, 0.40, 0.74 }, { 1.00, 0.50, 0.05 }, { 0.09, 0.75, 0.81 },
                                     { 0.89, 0.47, 0.76 }, { 0.55, 0.34, 0.29 }, { 0.50, 0.50, 0.50 },
                                     { 0.74, 0.74, 0.13 } };

static void use_colour(cairo_t *to, size_t i)
{
    const double *rgb = palette[i % LENGTH(palette)];
    cairo_set_source_rgb(to, rgb[0], rgb[1], rgb[2]);
}

static void use_ink(cairo_t *to) { cairo_set_source_rgb(to, 0.1, 0.1, 0.1); }

/* align: 0 from x, 0.5 around it, 1 up to it. */
static void draw_text(cairo_t *to, double x, double y, double align, const char *text)
{
    cairo_text_extents_t size;
    cairo_text_extents(to, text, &size);
    cairo_move_to(to, x - align * size.x_advance, y);
    cairo_show_text(to, text);
}

/* 1, 2 or 5 times a power of ten, so that there are four to ten steps. */
static double nice_step(double range)
{
    double power = pow(10, floor(log10(range / 4)));
    for (int k = 5; k > 1; k = k == 5 ? 2 : 1)
        if (range / (k * power) >= 4) return k * power;
    return power;
}

static axes axes_of(const panel *p, size_t number, double head)
{
    double left = (double)(number % COLUMNS) * PANEL_W, top = head + (double)(number / COLUMNS) * PANEL_H;
    axes a = { left + 66, top + 30, left + PANEL_W - 16, top + PANEL_H - 34, INFINITY, -INFINITY,
               INFINITY,  -INFINITY };
    for (size_t k = 0; k < p->n; k++)
        for (size_t i = 0; i < p->lines[k].n; i++) {
            a.x0 = fmin(a.x0, p->lines[k].x[i]);
            a.x1 = fmax(a.x1, p->lines[k].x[i]);
            a.y0 = fmin(a.y0, p->lines[k].y[i]);
            a.y1 = fmax(a.y1, p->lines[k].y[i]);
        }
    if (a.x1 - a.x0 < 1) a.x1 = a.x0 + 1;
    double pad = a.y1 > a.y0 ? 0.04 * (a.y1 - a.y0) : fmax(fabs(a.y0) * 0.1, 1e-6);
    a.y0 -= a.y0 == 0 ? 0 : pad;
    a.y1 += pad;
    return a;
}

static double at_x(const axes *a, double x)
{
    return a->left + (x - a->x0) / (a->x1 - a->x0) * (a->right - a->left);
}
static double at_y(const axes *a, double y)
{
    return a->bottom - (y - a->y0) / (a->y1 - a->y0) * (a->bottom - a->top);
}

static void draw_rule(cairo_t *to, double x0, double y0, double x1, double y1)
{
    cairo_set_source_rgb(to, 0.85, 0.85, 0.85);
    cairo_move_to(to, x0, y0);
    cairo_line_to(to, x1, y1);
    cairo_stroke(to);
    use_ink(to);
}

static void draw_axes(cairo_t *to, const axes *a, const char *title)
{
    char text[32];
    double dx = nice_step(a->x1 - a->x0), dy = nice_step(a->y1 - a->y0);
    cairo_set_line_width(to, 0.8);
    cairo_set_font_size(to, 11);
    for (int64_t k = (int64_t)ceil(a->y0 / dy); (double)k * dy <= a->y1; k++) {
        double y = (double)k * dy;
        draw_rule(to, a->left, at_y(a, y), a->right, at_y(a, y));
        snprintf(text, sizeof text, "%.4g", y);
        draw_text(to, a->left - 6, at_y(a, y) + 4, 1, text);
    }
    for (int64_t k = (int64_t)ceil(a->x0 / dx); (double)k * dx <= a->x1; k++) {
        double x = (double)k * dx;
        draw_rule(to, at_x(a, x), a->top, at_x(a, x), a->bottom);
        snprintf(text, sizeof text, "%.6g", x);
        draw_text(to, at_x(a, x), a->bottom + 15, 0.5, text);
    }
    cairo_rectangle(to, a->left, a->top, a->right - a->left, a->bottom - a->top);
    cairo_stroke(to);
    draw_text(to, a->right, a->bottom + 29, 1, "step");
    cairo_set_font_size(to, 13);
    draw_text(to, a->left, a->top - 9, 0, title);
}

static void draw_line(cairo_t *to, const axes *a, const series *s)
{
    cairo_set_line_width(to, 1.4);
    cairo_new_path(to);
    for (size_t i = 0; i < s->n; i++) cairo_line_to(to, at_x(a, s->x[i]), at_y(a, s->y[i]));
    cairo_stroke(to);
    for (size_t i = 0; i < s->n && s->n <= 40; i++) {
        cairo_arc(to, at_x(a, s->x[i]), at_y(a, s->y[i]), 2.2, 0, 6.2832);
        cairo_fill(to);
    }
}

/* Several data sets in a panel are told apart by the run's colour, and by names at the right end. */
static void draw_panel(cairo_t *to, const panel *p, size_t number, double head)
{
    axes a = axes_of(p, number, head);
    bool named = false;
    for (size_t k = 1; k < p->n; k++) named |= p->lines[k].run == p->lines[k - 1].run;
    draw_axes(to, &a, p->title);
    for (size_t k = 0; k < p->n; k++) {
        const series *s = &p->lines[k];
        use_colour(to, (size_t)s->run);
        draw_line(to, &a, s);
        cairo_set_font_size(to, 10);
        if (named && s->label && s->n) draw_text(to, a.right - 4, at_y(&a, s->y[s->n - 1]) - 4, 1, s->label);
    }
}

static int page_height(const curves *c)
{
    size_t rows = (c->n + COLUMNS - 1) / COLUMNS;
    return 2 * MARGIN + c->n_runs * LINE_H + (int)rows * PANEL_H;
}

static void draw(cairo_t *to, const curves *c)
{
    double head = 2 * MARGIN + (double)c->n_runs * LINE_H;
    cairo_set_source_rgb(to, 1, 1, 1);
    cairo_paint(to);
    cairo_select_font_face(to, "DejaVu Sans", CAIRO_FONT_SLANT_NORMAL, CAIRO_FONT_WEIGHT_NORMAL);
    for (int i = 0; i < c->n_runs; i++) {
        double y = MARGIN + LINE_H * (i + 0.8);
        str name = { 0 };
        put_printable(&name, c->runs[i]);
        use_colour(to, (size_t)i);
        cairo_rectangle(to, MARGIN, y - 8, 18, 8);
        cairo_fill(to);
        use_ink(to);
        cairo_set_font_size(to, 12);
        draw_text(to, MARGIN + 26, y, 0, str_text(&name));
        str_free(&name);
    }
    for (size_t i = 0; i < c->n; i++) draw_panel(to, &c->panels[i], i, head);
}

static cairo_status_t put_bytes(void *to, const unsigned char *data, unsigned n)
{
    str_put_bytes(to, data, n);
    return CAIRO_STATUS_SUCCESS;
}

/* Draws and gives the surface up. */
static sca_status draw_on(cairo_surface_t *surface, const curves *c, str *png)
{
    cairo_t *to = cairo_create(surface);
    draw(to, c);
    cairo_status_t state = cairo_status(to);
    cairo_destroy(to);
    if (state == CAIRO_STATUS_SUCCESS && png) state = cairo_surface_write_to_png_stream(surface, put_bytes, png);
    cairo_surface_finish(surface);
    cairo_surface_destroy(surface);
    return state == CAIRO_STATUS_SUCCESS
               ? SCA_OK
               : status_fail(SCA_ERR_MEMORY, "cannot draw: %s", cairo_status_to_string(state));
}

sca_status curves_svg(const curves *c, str *svg)
{
    double width = COLUMNS * PANEL_W;
    TRY(draw_on(cairo_svg_surface_create_for_stream(put_bytes, svg, width, page_height(c)), c, NULL));
    return svg->failed ? mem_fail(svg->bytes, "a picture") : SCA_OK;
}

static sca_status curves_png(const curves *c, str *png)
{
    TRY(draw_on(cairo_image_surface_create(CAIRO_FORMAT_RGB24, COLUMNS * PANEL_W, page_height(c)), c, png));
    return png->failed ? mem_fail(png->bytes, "a picture") : SCA_OK;
}

sca_status curves_save(const curves *c, const char *path)
{
    str data = { 0 };
    bool png = text_ends(path, ".png");
    if (!png && !text_ends(path, ".svg"))
        return status_fail(SCA_ERR_ARGUMENT, "%s: expected a name that ends in .svg or .png", path);
    sca_status status = png ? curves_png(c, &data) : curves_svg(c, &data);
    if (status == SCA_OK) status = file_write(path, data.data, data.bytes);
    str_free(&data);
    return status;
}
