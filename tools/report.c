/* report.c - one page about an evaluation: scores beside the published ones, histograms, regions with their captions.
 *
 * Everything is inside: pictures as data, no script, nothing from elsewhere. */
#include "report.h"

#include <math.h>
#include <string.h>

enum { THUMB_SIDE = 360, PUBLISHED_IMAGES = 5000 };

/* Text as HTML: nothing in it acts, and it is what a terminal would show, too. */
void report_put_html(str *s, const char *text)
{
    str clean = { 0 };
    put_printable(&clean, text ? text : "");
    for (const char *p = str_text(&clean); *p; p++) switch (*p) {
        case '&': str_put(s, "&amp;"); break;
        case '<': str_put(s, "&lt;"); break;
        case '>': str_put(s, "&gt;"); break;
        case '"': str_put(s, "&quot;"); break;
        default: str_putc(s, *p);
        }
    if (clean.failed) s->failed = true;
    str_free(&clean);
}

static void put_number_of(str *s, const json_t *set, const char *key, const char *one)
{
    int64_t n = json_integer_value(json_object_get(set, key));
    put_count(s, n);
    str_printf(s, " %s%s", one, n == 1 ? "" : "s");
}

static const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text ? text : "";
}

/* ---- head ---------------------------------------------------------------------------------- */

static const char page_head[] =
    "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
    "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
    "<link rel=\"icon\" href=\"data:,\">\n<style>\n"
    ":root{color-scheme:light dark;--line:#8884;--soft:#8882;--bar:#3b7dd8}\n"
    "body{font:16px/1.45 system-ui,sans-serif;margin:0 auto;padding:0 14px "
    "40px;max-width:1200px;overflow-wrap:anywhere}\n"
    "h1{font-size:1.5em}h2{font-size:1.2em;margin-top:2em;border-top:1px solid var(--line);padding-top:.8em}\n"
    "h3{font-size:1em;margin:1.4em 0 .4em}.note{font-size:.9em;opacity:.8}\n"
    ".wide{overflow-x:auto}table{border-collapse:collapse;font-variant-numeric:tabular-nums;white-space:nowrap}\n"
    "th,td{padding:4px 9px;text-align:right;border-bottom:1px solid var(--line)}th:first-child,td:first-child"
    "{text-align:left;position:sticky;left:0;background:Canvas}\n"
    "tr.group th{text-align:left;background:var(--soft)}tr.ours td{font-weight:600}\n"
    ".line{display:inline-block;position:sticky;left:9px;max-width:calc(100vw - 46px);white-space:normal}\n"
    ".plots{display:flex;flex-wrap:wrap;gap:16px}.plots figure{margin:0;flex:1 1 300px;min-width:0}\n"
    "svg{width:100%;height:auto}svg text{font:11px system-ui,sans-serif;fill:currentColor}\n"
    "figcaption{font-size:.9em}\n"
    ".cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,250px),1fr));gap:14px;align-items:"
    "start}\n"
    ".card{border:1px solid var(--line);border-radius:8px;overflow:hidden}.card "
    "img{display:block;width:100%;height:"
    "auto}\n"
    ".card div{padding:8px 10px}.card p{margin:0 0 4px}.ref{opacity:.8;font-size:.92em}\n"
    ".none{padding:30px 10px!important;background:var(--soft);text-align:center}\n"
    "</style>\n";

void report_begin(str *s, const char *title)
{
    str_put(s, page_head);
    str_printf(s, "<title>%s</title>\n</head>\n<body>\n", title);
}

void report_end(str *s)
{
    str_put(s,
            "<p class=\"note\">Made by sca " SCA_VERSION ". Masks are red, boxes yellow.</p>\n</body>\n</html>\n");
}

static void put_head(str *s, const json_t *root)
{
    const json_t *g = json_object_get(root, "generate");
    report_begin(s, "Evaluation");
    str_put(s, "<h1>Evaluation of ");
    report_put_html(s, text_of(root, "model"));
    str_put(s, "</h1>\n<p>");
    report_put_html(s, text_of(root, "variant"));
    str_put(s, ", language model ");
    report_put_html(s, text_of(root, "language_model"));
    str_put(s, "; prompt ");
    report_put_html(s, text_of(root, "prompt"));
    str_printf(s, "; %lld beams, at most %lld tokens, length penalty %g, temperature %g.</p>\n",
               (long long)json_integer_value(json_object_get(g, "beams")),
               (long long)json_integer_value(json_object_get(g, "max_tokens")),
               json_number_value(json_object_get(g, "length_penalty")),
               json_number_value(json_object_get(g, "temperature")));
}

/* ---- scores -------------------------------------------------------------------------------- */

/* The next published row for what was evaluated; they are all of captions. */
static const published_row *next_row(const json_t *set, size_t *at)
{
    if (strcmp(text_of(set, "task"), "caption") != 0) return NULL;
    return published_next(text_of(set, "kind"), text_of(set, "source"), text_of(set, "split"), at);
}

/* Columns that any of our sets fills, and those of the published tables where they are shown. */
static void find_columns(const json_t *sets, bool used[REPORT_COLUMNS])
{
    size_t i;
    json_t *set;
    json_array_foreach(sets, i, set)
    {
        size_t at = 0;
        const published_row *p;
        for (size_t k = 0; k < REPORT_COLUMNS; k++)
            used[k] |= json_object_get(json_object_get(set, "scores"), report_metrics[k].key) != NULL;
        while ((p = next_row(set, &at)))
            for (size_t k = 0; k < REPORT_COLUMNS; k++) used[k] |= p->value[k] >= 0;
    }
}

static void put_cell(str *s, bool there, double value, int digits)
{
    if (there)
        str_printf(s, "<td>%.*f</td>", digits, value);
    else
        str_put(s, "<td>&ndash;</td>");
}

static void put_ours(str *s, const json_t *set, const bool used[REPORT_COLUMNS])
{
    const json_t *scores = json_object_get(set, "scores");
    str_put(s, "<tr class=\"ours\"><td>this model</td>");
    for (size_t k = 0; k < REPORT_COLUMNS; k++) {
        const json_t *v = json_object_get(scores, report_metrics[k].key);
        double scale = report_metrics[k].scale;
        if (used[k]) put_cell(s, v != NULL, scale * json_number_value(v), scale > 1 ? 2 : 4);
    }
    str_put(s, "</tr>\n");
}

/* Published rows are shown where the same was evaluated: all images of the split, with the box as prompt. */
static void put_published(str *s, const json_t *root, const json_t *set, const bool used[REPORT_COLUMNS])
{
    size_t at = 0, columns = 1;
    const published_row *p = next_row(set, &at);
    for (size_t k = 0; k < REPORT_COLUMNS; k++) columns += used[k];
    bool box = strcmp(text_of(root, "prompt"), "box") == 0;
    int64_t images = json_integer_value(json_object_get(set, "images"));
    bool whole = json_is_true(json_object_get(set, "complete")) &&
                 (strcmp(text_of(set, "kind"), "visual_genome") != 0 || images == PUBLISHED_IMAGES);
    if (!p || !box || !whole)
        str_printf(
            s, "<tr><td class=\"note\" colspan=\"%zu\"><span class=\"line\">%s</span></td></tr>\n", columns,
            !p     ? "No published row for this protocol."
            : !box ? "Published rows prompt with the box: not comparable."
                   : "Published rows, for scale only: they are of all images of the split, where CIDEr-D weighs "
                     "words differently.");
    for (; p && box; p = next_row(set, &at)) {
        str_put(s, "<tr><td>");
        report_put_html(s, p->method);
        str_put(s, ", published</td>");
        for (size_t k = 0; k < REPORT_COLUMNS; k++)
            if (used[k]) put_cell(s, p->value[k] >= 0, p->value[k], 1);
        str_put(s, "</tr>\n");
    }
}

void report_put_table(str *s, const json_t *root)
{
    bool used[REPORT_COLUMNS] = { false };
    size_t i, columns = 1;
    json_t *set;
    const json_t *sets = json_object_get(root, "sets");
    find_columns(sets, used);
    str_put(s, "<h2>Scores</h2>\n<div class=\"wide\"><table>\n<tr><th>times 100</th>");
    for (size_t k = 0; k < REPORT_COLUMNS; k++) {
        if (!used[k]) continue;
        columns++;
        str_printf(s, "<th>%s</th>", report_metrics[k].head);
    }
    str_put(s, "</tr>\n");
    json_array_foreach(sets, i, set)
    {
        str_printf(s, "<tr class=\"group\"><th colspan=\"%zu\"><span class=\"line\">", columns);
        report_put_html(s, text_of(set, "name"));
        str_put(s, " &mdash; ");
        report_put_html(s, text_of(set, "protocol"));
        str_put(s, "; ");
        put_number_of(s, set, "images", "image");
        str_put(s, ", ");
        put_number_of(s, set, "regions", "region");
        str_put(s, "</span></th></tr>\n");
        put_ours(s, set, used);
        put_published(s, root, set, used);
    }
    str_put(
        s,
        "</table></div>\n<p class=\"note\">The loss is not multiplied. Only numbers below the same heading are of "
        "the same protocol.</p>\n");
}

static void put_notes(str *s, const json_t *set)
{
    size_t i;
    json_t *note;
    json_array_foreach(json_object_get(set, "notes"), i, note)
    {
        str_put(s, "<p class=\"note\">");
        report_put_html(s, json_string_value(note));
        str_put(s, "</p>\n");
    }
}

/* ---- histograms ---------------------------------------------------------------------------- */

static void put_histogram(str *s, const json_t *bins, double step, const char *what)
{
    size_t n = json_array_size(bins);
    int64_t most = 1;
    for (size_t i = 0; i < n; i++) {
        int64_t v = json_integer_value(json_array_get(bins, i));
        if (v > most) most = v;
    }
    double width = 400.0 / (double)(n ? n : 1);
    str_printf(s, "<figure><svg viewBox=\"0 0 420 170\" role=\"img\" aria-label=\"%s\">\n", what);
    str_printf(s,
               "<text x=\"10\" y=\"11\">%lld</text><line x1=\"10\" y1=\"150\" x2=\"410\" y2=\"150\" "
               "stroke=\"currentColor\"/>\n",
               (long long)most);
    for (size_t i = 0; i < n; i++) {
        int64_t v = json_integer_value(json_array_get(bins, i));
        double high = 134.0 * (double)v / (double)most, x = 10 + width * (double)i;
        str_printf(s,
                   "<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" fill=\"var(--bar)\"><title>%s%g: "
                   "%lld</title></rect>\n",
                   x, 150 - high, width - 1.5, high, i + 1 == n ? "from " : "", step * (double)i, (long long)v);
        if (i % 4 == 0) str_printf(s, "<text x=\"%.1f\" y=\"164\">%g</text>\n", x, step * (double)i);
    }
    str_printf(s, "</svg><figcaption>%s</figcaption></figure>\n", what);
}

/* ---- gallery ------------------------------------------------------------------------------- */

static void put_lines(str *s, const json_t *texts, const char *class)
{
    size_t i;
    json_t *text;
    json_array_foreach(texts, i, text)
    {
        if (i == 5) break; /* a region may have dozens of phrases */
        str_printf(s, "<p class=\"%s\">", class);
        report_put_html(s, json_string_value(text));
        str_put(s, "</p>");
    }
}

static void put_picture(str *s, const json_t *item, size_t limit)
{
    double box[4] = { 0 };
    str data = { 0 };
    for (size_t k = 0; k < 4; k++) box[k] = json_number_value(json_array_get(json_object_get(item, "box"), k));
    sca_status status =
        s->bytes < limit ? thumb_put(text_of(item, "file"), text_of(item, "mask"), box, THUMB_SIDE, &data) : SCA_OK;
    if (status == SCA_OK && data.bytes) {
        str_put(s, "<img loading=\"lazy\" alt=\"the region on its photo\" src=\"data:image/jpeg;base64,");
        str_put_bytes(s, data.data, data.bytes);
        str_put(s, "\">");
    } else {
        str_put(s, "<div class=\"none\">");
        report_put_html(s, status == SCA_OK ? "no room for this photo" : sca_last_error());
        str_put(s, "</div>");
    }
    str_free(&data);
}

static void put_card(str *s, const json_t *item, size_t limit)
{
    str_put(s, "<div class=\"card\">");
    put_picture(s, item, limit);
    str_put(s, "<div>");
    put_lines(s, json_object_get(item, "candidates"), "own");
    put_lines(s, json_object_get(item, "phrases"), "ref");
    str_printf(s, "<p class=\"note\">CIDEr-D %.3f; image %lld, region %lld</p></div></div>\n",
               json_number_value(json_object_get(item, "cider_d")),
               (long long)json_integer_value(json_object_get(item, "image_id")),
               (long long)json_integer_value(json_object_get(item, "region_id")));
}

static void put_gallery(str *s, const json_t *items, size_t limit)
{
    static const char *const groups[][2] = { { "best", "Best regions" },
                                             { "worst", "Worst regions" },
                                             { "random", "Random regions" } };
    for (size_t g = 0; g < LENGTH(groups); g++) {
        size_t i;
        json_t *item;
        str_printf(s, "<h3>%s</h3>\n<div class=\"cards\">\n", groups[g][1]);
        json_array_foreach(items, i, item) if (strcmp(text_of(item, "why"), groups[g][0]) == 0)
            put_card(s, item, limit);
        str_put(s, "</div>\n");
    }
}

/* ---- the page ------------------------------------------------------------------------------ */

static sca_status read_details(const char *dir, const char *name, json_t **out)
{
    char *folder = path_join(dir, name), *path = folder ? path_join(folder, "details.json") : NULL;
    sca_status status = path ? json_open(path, out) : mem_fail(strlen(dir) + strlen(name), "a file name");
    mem_free(folder);
    mem_free(path);
    return status;
}

/* limit: bytes of the page up to which photos are put in. */
sca_status report_put_set(str *s, const char *dir, const json_t *set, size_t limit)
{
    json_t *details = NULL;
    TRY(read_details(dir, text_of(set, "name"), &details));
    const json_t *histograms = json_object_get(details, "histograms");
    str_put(s, "<h2>");
    report_put_html(s, text_of(set, "name"));
    str_put(s, "</h2>\n<p>");
    report_put_html(s, text_of(set, "protocol"));
    str_put(s, "; ");
    put_number_of(s, set, "regions", "region");
    str_put(s, ".</p>\n");
    put_notes(s, set);
    str_put(s, "<div class=\"plots\">\n");
    put_histogram(s, json_object_get(histograms, "cider_d"), 0.5, "Regions by CIDEr-D (0 to 10)");
    put_histogram(s, json_object_get(histograms, "words"), 1, "Regions by words of the caption");
    str_put(s, "</div>\n");
    put_gallery(s, json_object_get(details, "gallery"), limit);
    json_decref(details);
    return s->failed ? mem_fail(s->bytes, "the report") : SCA_OK;
}

sca_status report_write(const char *dir, const json_t *root)
{
    const json_t *sets = json_object_get(root, "sets");
    size_t n = json_array_size(sets);
    str page = { 0 };
    char *path = path_join(dir, "report.html");
    sca_status status = path ? SCA_OK : mem_fail(strlen(dir), "a file name");
    put_head(&page, root);
    report_put_table(&page, root);
    for (size_t i = 0; i < n && status == SCA_OK; i++)
        status = report_put_set(&page, dir, json_array_get(sets, i), REPORT_BYTES / n * (i + 1));
    report_end(&page);
    if (status == SCA_OK && page.failed) status = mem_fail(page.bytes, "the report");
    if (status == SCA_OK) status = file_write(path, page.data, page.bytes);
    mem_free(path);
    str_free(&page);
    return status;
}
