/* run_report.c - one page about a training run: curves, the settings, and what its latest evaluation says and shows. */
#include "report.h"

#include <stdio.h>
#include <string.h>

enum { LOG_LINE_MOST = 1 << 26, SETTINGS_MOST = 1 << 20 };

/* The last line of a log; *line NULL when there is none. */
static sca_status last_line(const char *path, json_t **line)
{
    file_view v;
    *line = NULL;
    if (!file_exists(path)) return SCA_OK;
    TRY(file_map(path, &v));
    const char *text = (const char *)v.data;
    const char *end = v.bytes ? memrchr(text, '\n', v.bytes) : NULL;
    const char *begin = end && end > text ? memrchr(text, '\n', (size_t)(end - text)) : NULL;
    begin = begin ? begin + 1 : text;
    sca_status status = end ? json_parse(begin, (size_t)(end - begin), path, line) : SCA_OK;
    file_unmap(&v);
    return status;
}

static void put_last_step(str *s, const json_t *line)
{
    if (!line) return;
    str_put(s, "<p>After ");
    put_count(s, json_integer_value(json_object_get(line, "step")));
    str_printf(s, " steps: loss %.4f, rate %.3g, gradient norm %.3g; ",
               json_number_value(json_object_get(line, "loss")), json_number_value(json_object_get(line, "lr")),
               json_number_value(json_object_get(line, "grad_norm")));
    put_count(s, json_integer_value(json_object_get(line, "images")));
    str_put(s, " images and ");
    put_count(s, json_integer_value(json_object_get(line, "regions")));
    str_printf(s, " regions a step, %.2f s, of which %.2f s wait for data.</p>\n",
               json_number_value(json_object_get(line, "seconds")),
               json_number_value(json_object_get(line, "data_seconds")));
}

/* An SVG file begins with an XML declaration, which a page must not hold inside. */
static sca_status put_curves(str *s, const char *dir)
{
    curves *c = NULL;
    str svg = { 0 };
    sca_status status = curves_open(&dir, 1, &c);
    if (status == SCA_OK) status = curves_svg(c, &svg);
    const char *begin = status == SCA_OK ? strstr(str_text(&svg), "<svg") : NULL;
    if (begin) str_put(s, begin);
    str_free(&svg);
    curves_close(c);
    return status;
}

static sca_status put_settings(str *s, const char *path)
{
    char *text = NULL;
    size_t bytes;
    if (!file_exists(path)) return SCA_OK;
    TRY(file_read(path, SETTINGS_MOST, &text, &bytes));
    str_put(s, "<h2>Settings</h2>\n<details><summary>config.yaml</summary><pre>");
    report_put_html(s, text);
    str_put(s, "</pre></details>\n");
    mem_free(text);
    return SCA_OK;
}

static sca_status put_evaluation(str *s, const char *dir, const json_t *line)
{
    const json_t *sets = json_object_get(line, "sets");
    size_t n = json_array_size(sets);
    char name[64];
    long long step = (long long)json_integer_value(json_object_get(line, "step"));
    if (n == 0) return SCA_OK;
    snprintf(name, sizeof name, "eval/step-%lld", step);
    char *folder = path_join(dir, name);
    if (!folder) return mem_fail(64, "a file name");
    str_printf(s, "<h2>Evaluation after %lld steps</h2>\n", step);
    sca_status status = SCA_OK;
    report_put_table(s, line);
    bool regions = dir_exists(folder); /* the loss of masks or texts alone leaves none to show */
    for (size_t i = 0; i < n && regions && status == SCA_OK; i++)
        status = report_put_set(s, folder, json_array_get(sets, i), REPORT_BYTES / n * (i + 1));
    mem_free(folder);
    return status;
}

static sca_status put_page(str *s, const char *dir, const char *const files[3])
{
    json_t *step = NULL, *evaluation = NULL;
    sca_status status = last_line(files[0], &step);
    report_begin(s, "Training run");
    str_put(s, "<h1>Training run ");
    report_put_html(s, dir);
    str_put(s, "</h1>\n");
    put_last_step(s, step);
    if (status == SCA_OK) status = put_curves(s, dir);
    if (status == SCA_OK) status = put_settings(s, files[2]);
    if (status == SCA_OK) status = last_line(files[1], &evaluation);
    if (status == SCA_OK) status = put_evaluation(s, dir, evaluation);
    report_end(s);
    json_decref(step);
    json_decref(evaluation);
    return status;
}

sca_status run_report_write(const char *dir)
{
    static const char *const names[] = { "log.jsonl", "eval.jsonl", "config.yaml", "report.html" };
    char *files[LENGTH(names)] = { 0 };
    str page = { 0 };
    sca_status status = SCA_OK;
    for (size_t i = 0; i < LENGTH(names); i++)
        if (!(files[i] = path_join(dir, names[i]))) status = mem_fail(64, "a file name");
    if (status == SCA_OK) status = put_page(&page, dir, (const char *const *)files);
    if (status == SCA_OK && page.failed) status = mem_fail(page.bytes, "the report");
    if (status == SCA_OK) status = file_write(files[3], page.data, page.bytes);
    for (size_t i = 0; i < LENGTH(names); i++) mem_free(files[i]);
    str_free(&page);
    return status;
}
