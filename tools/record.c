/* record.c - what is said about a region: as JSON for programs, as text for people. */
#include "tool.h"

#include <math.h>
#include <string.h>

/* ---- JSON ------------------------------------------------------------------------------------------------------
 */

/* The shortest text that gives the same float again. */
static void put_float(str *s, float value)
{
    double shortest = value;
    for (int digits = 6; digits <= 9 && isfinite(value); digits++) {
        str text = { 0 };
        str_printf(&text, "%.*g", digits, (double)value);
        bool same = text_to_double(str_text(&text), &shortest) && (float)shortest == value;
        str_free(&text);
        if (same) break;
    }
    json_put_real(s, shortest);
}

static void put_prompt(const record *r, str *s)
{
    const region *g = r->region;
    const char *comma = "";
    str_putc(s, '{');
    if (g->has_box) {
        str_put(s, "\"box\": [");
        for (int i = 0; i < 4; i++) {
            if (i) str_put(s, ", ");
            json_put_real(s, g->box[i]);
        }
        str_putc(s, ']');
        comma = ", ";
    }
    if (g->n_points > 0) {
        str_printf(s, "%s\"points\": [", comma);
        for (int i = 0; i < g->n_points; i++) {
            str_put(s, i ? ", [" : "[");
            json_put_real(s, g->points[i].x_px);
            str_put(s, ", ");
            json_put_real(s, g->points[i].y_px);
            str_putc(s, ']');
        }
        str_put(s, "], \"labels\": [");
        for (int i = 0; i < g->n_points; i++) str_printf(s, "%s%d", i ? ", " : "", g->points[i].label);
        str_putc(s, ']');
        comma = ", ";
    }
    if (g->mask) {
        str_printf(s, "%s\"mask\": ", comma);
        json_put_text(s, g->mask, strlen(g->mask));
    }
    str_putc(s, '}');
}

static void put_text(const sca_text *t, str *s)
{
    str_put(s, "\"caption\": ");
    json_put_text(s, t->text, strlen(t->text));
    str_put(s, ", \"tokens\": [");
    for (int i = 0; i < t->n_tokens; i++) str_printf(s, "%s%d", i ? ", " : "", t->tokens[i]);
    str_put(s, "], \"logprob\": ");
    put_float(s, t->logprob);
}

static sca_status put_mask(const sca_mask *m, str *s)
{
    char *counts = NULL;
    TRY(sca_mask_rle(m, &counts));
    str_put(s, "\"iou\": [");
    for (int i = 0; i < m->n_iou; i++) {
        if (i) str_put(s, ", ");
        put_float(s, m->iou[i]);
    }
    str_printf(s, "], \"mask\": {\"size\": [%d, %d], \"counts\": ", m->height, m->width);
    json_put_text(s, counts, strlen(counts));
    str_put(s, "}, \"box\": [");
    for (int i = 0; i < 4; i++) str_printf(s, "%s%.0f", i ? ", " : "", (double)m->box_px[i]);
    str_putc(s, ']');
    sca_free(counts);
    return SCA_OK;
}

const sca_text *record_text(const record *r)
{
    if (!r->texts) return NULL;
    return &r->texts[r->heads == r->mask->n_iou ? r->mask->best : 0];
}

sca_status record_put_json(const record *r, str *s)
{
    str_put(s, "{\"image\": ");
    json_put_text(s, r->image, strlen(r->image));
    str_put(s, ", \"prompt\": ");
    put_prompt(r, s);
    str_put(s, ", ");
    if (r->texts) {
        put_text(record_text(r), s);
        str_put(s, ", ");
    }
    if (r->texts && r->heads > 1) {
        str_put(s, "\"captions\": [");
        for (int i = 0; i < r->heads; i++) {
            str_put(s, i ? ", {" : "{");
            put_text(&r->texts[i], s);
            str_putc(s, '}');
        }
        str_put(s, "], ");
    }
    TRY(put_mask(r->mask, s));
    str_putc(s, '}');
    return s->failed ? mem_fail(s->bytes, "the output") : SCA_OK;
}

/* ---- text ------------------------------------------------------------------------------------------------------
 */

static void put_prompt_text(const region *g, str *s)
{
    const char *comma = "";
    if (g->has_box) {
        str_printf(s, "box %g,%g - %g,%g", g->box[0], g->box[1], g->box[2], g->box[3]);
        comma = ", ";
    }
    for (int i = 0; i < g->n_points; i++) {
        static const char *const words[] = { "outside", "inside" };
        int label = g->points[i].label;
        str_printf(s, "%spoint %g,%g %s", comma, g->points[i].x_px, g->points[i].y_px,
                   label >= 0 ? words[label] : "ignored");
        comma = ", ";
    }
    if (g->mask) {
        str_printf(s, "%smask ", comma);
        put_printable(s, g->mask);
    }
}

static int64_t area(const sca_mask *m)
{
    int64_t n = 0;
    for (size_t i = 0; i < (size_t)m->width * (size_t)m->height; i++) n += m->on[i];
    return n;
}

void record_put_text(const record *r, str *s)
{
    const sca_mask *m = r->mask;
    if (r->number == 1) {
        put_printable(s, r->image);
        str_printf(s, " (%d x %d)\n", m->width, m->height);
    }
    str_printf(s, "%4d  ", r->number);
    put_prompt_text(r->region, s);
    str_putc(s, '\n');
    const sca_text *best = record_text(r);
    for (int i = 0; r->texts && i < r->heads; i++) {
        str_put(s, &r->texts[i] == best ? "      " : "      or: ");
        put_printable(s, r->texts[i].text);
        str_printf(s, "  (log-probability %.3f)\n", (double)r->texts[i].logprob);
    }
    double share = 100.0 * (double)area(m) / ((double)m->width * m->height);
    const float *b = m->box_px;
    str_printf(s, "      mask: %.1f %% of the photo, box %.0f,%.0f - %.0f,%.0f, predicted IoU %.3f\n", share,
               (double)b[0], (double)b[1], (double)b[2], (double)b[3], (double)m->iou[m->best]);
}
