/* evaluate_join.c - from the records of all regions to predictions.json, scored.json and the set's scores. */
#include "base/rng.h"
#include "eval/eval.h"
#include "eval/evaluate_parts.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { GALLERY = 12, SCORE_BINS = 20, LENGTH_BINS = 21 };

/* ---- the official format (eval.md 4): Python's json.dump with indent 4 --------------------- */

/* ASCII only: Python escapes the rest, above U+FFFF as two surrogates. */
static void put_ascii(str *s, const char *text)
{
    size_t bytes = strlen(text);
    str_putc(s, '"');
    for (size_t i = 0; i < bytes;) {
        int32_t c = utf8_next(text, bytes, &i);
        static const char plain[] = "\"\\\b\f\n\r\t", *names = "\"\\bfnrt";
        const char *short_form = c > 0 && c < 0x80 ? strchr(plain, c) : NULL;
        if (c < 0) c = 0xfffd;
        if (short_form)
            str_putc(s, '\\'), str_putc(s, names[short_form - plain]);
        else if (c >= 0x10000)
            str_printf(s, "\\u%04x\\u%04x", (unsigned)(0xd800 + ((c - 0x10000) >> 10)),
                       (unsigned)(0xdc00 + ((c - 0x10000) & 0x3ff)));
        else if (c < 0x20 || c > 0x7e)
            str_printf(s, "\\u%04x", (unsigned)c);
        else
            str_putc(s, (char)c);
    }
    str_putc(s, '"');
}

/* "e-05" as Python has it, and ".0" behind whole numbers. */
static void put_number(str *s, const json_t *v)
{
    size_t from = s->bytes;
    if (json_is_integer(v)) {
        str_printf(s, "%lld", (long long)json_integer_value(v));
        return;
    }
    json_put_real(s, json_real_value(v));
    if (!s->failed && !strpbrk(s->data + from, ".en")) str_put(s, ".0");
}

static void put_list(str *s, const char *indent, const char *key, const json_t *items)
{
    str_printf(s, "%s\"%s\": [", indent, key);
    for (size_t i = 0; i < json_array_size(items); i++) {
        const json_t *item = json_array_get(items, i);
        str_printf(s, "%s\n%s    ", i ? "," : "", indent);
        if (json_is_string(item))
            put_ascii(s, json_string_value(item));
        else
            put_number(s, item);
    }
    if (json_array_size(items))
        str_printf(s, "\n%s]", indent);
    else
        str_putc(s, ']');
}

static void put_record(str *s, size_t number, const json_t *r, const json_t *references)
{
    static const char at8[] = "        ", at12[] = "            ";
    str_printf(s, "%s\n    {\n%s\"_id\": %zu,\n%s\"split\": \"inference\",\n", number ? "," : "", at8, number, at8);
    put_list(s, at8, "references", references);
    str_put(s, ",\n");
    put_list(s, at8, "candidates", json_object_get(r, "candidates"));
    str_printf(s, ",\n%s\"metadata\": {\n", at8);
    put_list(s, at12, "metadata_input_boxes", json_object_get(r, "box"));
    str_printf(s, ",\n%s\"metadata_image_id\": %lld", at12,
               (long long)json_integer_value(json_object_get(r, "image_id")));
    str_printf(s, ",\n%s\"metadata_region_id\": %lld\n%s},\n%s\"logits\": {\n", at12,
               (long long)json_integer_value(json_object_get(r, "region_id")), at8, at8);
    put_list(s, at12, "iou_scores", json_object_get(r, "iou"));
    str_printf(s, "\n%s}\n    }", at8);
}

/* ---- sums over the regions ----------------------------------------------------------------- */

typedef struct totals {
    size_t regions, masks, loss_images;
    bool several;            /* an image has none or more than one region */
    double mask_iou;         /* sum over the regions with an annotated mask */
    double loss;             /* sum over the images */
    double own, all, tokens; /* of the image at hand */
    double smoothing, vocab;
} totals;

static void add_region(totals *t, const json_t *r)
{
    const json_t *loss = json_object_get(r, "loss"), *iou = json_object_get(r, "mask-iou");
    t->masks += iou != NULL;
    t->mask_iou += json_number_value(iou);
    if (json_array_size(loss) == 3) {
        t->own += json_number_value(json_array_get(loss, 0));
        t->all += json_number_value(json_array_get(loss, 1));
        t->tokens += json_number_value(json_array_get(loss, 2));
    }
    t->regions++;
}

/* The official evaluation loss is the mean over the images of the mean over their tokens. */
static void end_image(totals *t)
{
    if (t->tokens > 0) {
        t->loss += ((1 - t->smoothing) * t->own + t->smoothing / t->vocab * t->all) / t->tokens;
        t->loss_images++;
    }
    t->own = t->all = t->tokens = 0;
}

/* ---- writing both files -------------------------------------------------------------------- */

typedef struct writer {
    file_out *predictions, *scored;
    str text; /* of one record */
} writer;

static sca_status put_text(file_out *to, str *text)
{
    if (text->failed) return mem_fail(text->bytes, "a record");
    sca_status status = file_out_put(to, str_text(text), text->bytes);
    str_clear(text);
    return status;
}

static sca_status write_region(writer *w, const eval_line *line, const char *file, totals *t)
{
    json_t *r;
    TRY(json_parse(line->text, line->bytes, file, &r));
    json_t *label = json_array();
    sca_status status = SCA_OK;
    if (!label || json_array_append(label, json_object_get(r, "label")) < 0) status = mem_fail(64, "a record");
    if (status == SCA_OK) {
        put_record(&w->text, t->regions, r, label);
        status = put_text(w->predictions, &w->text);
    }
    if (status == SCA_OK) {
        put_record(&w->text, t->regions, r, json_object_get(r, "phrases"));
        status = put_text(w->scored, &w->text);
    }
    add_region(t, r);
    json_decref(label);
    json_decref(r);
    return status;
}

static sca_status write_all(const eval_set *e, const eval_parts *p, writer *w, totals *t)
{
    TRY(file_out_put(w->predictions, "[", 1));
    TRY(file_out_put(w->scored, "[", 1));
    for (size_t i = 0; i < p->n_images; i++) {
        if (!eval_parts_complete(p, i))
            return status_fail(
                SCA_ERR_STATE,
                "%s: image %zu of the set was not written by any rank; do all ranks see this folder?", e->dir, i);
        for (size_t k = 0; k < p->images[i].count; k++) TRY(write_region(w, &p->images[i].of[k], e->dir, t));
        t->several |= p->images[i].count != 1;
        end_image(t);
    }
    TRY(file_out_put(w->predictions, "\n]", 2));
    return file_out_put(w->scored, "\n]", 2);
}

static sca_status open_in(const char *dir, const char *name, file_out **out)
{
    char *path = path_join(dir, name);
    if (!path) return mem_fail(strlen(dir) + strlen(name), "a file name");
    sca_status status = file_out_open(path, out);
    mem_free(path);
    return status;
}

static sca_status write_files(const eval_set *e, const eval_parts *p, totals *t)
{
    writer w = { 0 };
    sca_status status;
    TRY_GOTO(done, open_in(e->dir, "predictions.json", &w.predictions));
    TRY_GOTO(done, open_in(e->dir, "scored.json", &w.scored));
    TRY_GOTO(done, write_all(e, p, &w, t));
    file_out *last = w.predictions;
    w.predictions = NULL;
    TRY_GOTO(done, file_out_commit(last));
    last = w.scored;
    w.scored = NULL;
    status = file_out_commit(last);
done:
    file_out_abort(w.predictions);
    file_out_abort(w.scored);
    str_free(&w.text);
    return status;
}

/* ---- histograms and gallery: what a report shows ------------------------------------------- */

static bool set_new(json_t *object, const char *key, json_t *value)
{
    return json_object_set_new(object, key, value) == 0;
}

static json_t *counts_of(const size_t *n, size_t bins)
{
    json_t *list = json_array();
    for (size_t i = 0; i < bins; i++) json_array_append_new(list, json_integer((json_int_t)n[i]));
    return list;
}

static size_t words_of(const char *tokens)
{
    size_t n = *tokens != 0;
    for (; *tokens; tokens++) n += *tokens == ' ';
    return n;
}

/* CIDEr-D in steps of 0.5, the last bin with everything above; length in words, the last bin with everything longer. */
static json_t *histograms(const score_result *r)
{
    size_t score[SCORE_BINS] = { 0 }, length[LENGTH_BINS] = { 0 };
    for (size_t i = 0; i < r->regions; i++) {
        double bin = floor(r->ciders[i] * 2);
        score[bin < 0 ? 0 : bin < SCORE_BINS ? (size_t)bin : SCORE_BINS - 1]++;
        size_t words = words_of(texts_get(&r->hyps, i));
        length[words < LENGTH_BINS ? words : LENGTH_BINS - 1]++;
    }
    json_t *out = json_object();
    set_new(out, "cider_d", counts_of(score, SCORE_BINS));
    set_new(out, "words", counts_of(length, LENGTH_BINS));
    return out;
}

typedef struct choice {
    size_t region;
    const char *why;
} choice;

/* The next region that is not chosen yet, by score (sign 1: largest) - the first on ties. */
static bool next_by_score(const double *score, size_t n, double sign, const bool *taken, size_t *out)
{
    bool found = false;
    for (size_t i = 0; i < n; i++)
        if (!taken[i] && (!found || sign * score[i] > sign * score[*out])) {
            *out = i;
            found = true;
        }
    return found;
}

static size_t choose(const score_result *r, uint64_t seed, bool *taken, choice *out)
{
    size_t n = 0, at = 0;
    for (int i = 0; i < GALLERY && next_by_score(r->ciders, r->regions, 1, taken, &at); i++) {
        taken[at] = true;
        out[n++] = (choice){ at, "best" };
    }
    for (int i = 0; i < GALLERY && next_by_score(r->ciders, r->regions, -1, taken, &at); i++) {
        taken[at] = true;
        out[n++] = (choice){ at, "worst" };
    }
    size_t left = r->regions - n, random = 0;
    for (uint64_t draw = 0; random < GALLERY && random < left; draw++) {
        at = (size_t)((double)rng_unit(rng_philox(rng_key(seed, "gallery"), draw, 0).word[0]) * (double)r->regions);
        if (at >= r->regions || taken[at]) continue;
        taken[at] = true;
        out[n++] = (choice){ at, "random" };
        random++;
    }
    return n;
}

static const eval_line *line_at(const eval_parts *p, size_t region)
{
    for (size_t i = 0; i < p->n_images; i++) {
        if (region < p->images[i].count) return &p->images[i].of[region];
        region -= p->images[i].count;
    }
    return NULL;
}

/* A rendered scene, or an image in a store, is no file that a report could show: it is written as one. */
static sca_status put_picture(const eval_set *e, const json_t *record, json_t *item)
{
    const json_t *file = json_object_get(record, "file");
    int64_t image = json_integer_value(json_object_get(record, "image"));
    if (!json_is_string(file) || file_exists(json_string_value(file))) return SCA_OK;
    data_sample sample;
    sca_image picture = { 0 };
    str path = { 0 }, ppm = { 0 };
    TRY(dataset_read(e->data, image, &sample));
    sca_status status = dataset_image(e->data, image, &sample, NULL, &picture);
    str_printf(&path, "%s/image-%lld.ppm", e->dir, (long long)image);
    str_printf(&ppm, "P6 %d %d 255\n", picture.width, picture.height);
    if (status == SCA_OK) str_put_bytes(&ppm, picture.rgb, 3 * (size_t)picture.width * (size_t)picture.height);
    if (status == SCA_OK && (path.failed || ppm.failed)) status = mem_fail(ppm.bytes, "a picture");
    if (status == SCA_OK) status = file_write(str_text(&path), ppm.data, ppm.bytes);
    if (status == SCA_OK && !set_new(item, "file", json_string(str_text(&path))))
        status = mem_fail(64, "the gallery");
    str_free(&ppm);
    str_free(&path);
    sca_image_free(&picture);
    sample_free(&sample);
    return status;
}

static sca_status gallery_item(const eval_set *e, const eval_parts *p, const score_result *r, const choice *c,
                               json_t *list)
{
    static const char *const kept[] = { "file", "image_id", "region_id",  "box",
                                        "size", "mask",     "candidates", "phrases" };
    json_t *record, *item = json_object();
    const eval_line *line = line_at(p, c->region);
    sca_status status = json_parse(line->text, line->bytes, "a record", &record);
    if (status != SCA_OK) {
        json_decref(item);
        return status;
    }
    set_new(item, "why", json_string(c->why));
    set_new(item, "cider_d", json_real(r->ciders[c->region]));
    for (size_t i = 0; i < LENGTH(kept); i++) json_object_set(item, kept[i], json_object_get(record, kept[i]));
    status = put_picture(e, record, item);
    json_decref(record);
    if (json_array_append_new(list, item) < 0 && status == SCA_OK) status = mem_fail(64, "the gallery");
    return status;
}

static sca_status gallery(const eval_set *e, const eval_parts *p, const score_result *r, json_t *entry)
{
    choice chosen[3 * GALLERY];
    bool *taken = mem_zero(r->regions, sizeof *taken);
    json_t *list = json_array();
    sca_status status = taken && list ? SCA_OK : mem_fail(r->regions, "the gallery");
    size_t n = status == SCA_OK ? choose(r, (uint64_t)e->c->generate_seed, taken, chosen) : 0;
    for (size_t i = 0; i < n && status == SCA_OK; i++) status = gallery_item(e, p, r, &chosen[i], list);
    mem_free(taken);
    if (!set_new(entry, "gallery", list) && status == SCA_OK) status = mem_fail(64, "the gallery");
    return status;
}

/* details.json: what a report shows besides the scores. */
static sca_status write_details(const eval_set *e, const eval_parts *p, const score_result *r)
{
    char *path = path_join(e->dir, "details.json");
    json_t *root = json_object();
    sca_status status =
        path && root && set_new(root, "histograms", histograms(r)) ? SCA_OK : mem_fail(64, "details");
    if (status == SCA_OK) status = gallery(e, p, r, root);
    if (status == SCA_OK) status = json_save(path, root);
    json_decref(root);
    mem_free(path);
    return status;
}

/* ---- scores -------------------------------------------------------------------------------- */

static json_t *lines_of(const char *text)
{
    json_t *list = json_array();
    while (*text) {
        size_t n = strcspn(text, "\n");
        if (n) json_array_append_new(list, json_stringn(text, n));
        text += n + (text[n] == '\n');
    }
    return list;
}

static sca_status add_scores(const score_set *set, const score_result *r, const totals *t, json_t *entry)
{
    str text = { 0 };
    json_t *scores = NULL;
    score_options plain = { .format = SCORE_JSON };
    sca_status status = score_write(set, r, &plain, &text);
    if (status == SCA_OK) status = json_parse(str_text(&text), text.bytes, "scores", &scores);
    str_free(&text);
    if (status != SCA_OK) return status;
    if (t->masks) set_new(scores, "mask-iou", json_real(t->mask_iou / (double)t->masks));
    if (t->loss_images) set_new(scores, "loss", json_real(t->loss / (double)t->loss_images));
    return set_new(entry, "scores", scores) ? SCA_OK : mem_fail(64, "scores");
}

static int threads(const config *c)
{
    return c->run_threads ? (int)c->run_threads : (int)sysconf(_SC_NPROCESSORS_ONLN);
}

static sca_status score_file(const eval_set *e, const eval_parts *p, const totals *t, json_t *entry)
{
    const config *c = e->c;
    char *path = path_join(e->dir, "scored.json");
    if (!path) return mem_fail(strlen(e->dir), "a file name");
    score_options o = { .results = path,
                        .resources = c->eval_resources[0] ? c->eval_resources : NULL,
                        .spice_command = c->eval_spice_command[0] ? c->eval_spice_command : NULL,
                        .per_item = true,
                        .threads = threads(c) };
    score_set *set = NULL;
    score_result r = { 0 };
    str notes = { 0 };
    sca_status status;
    TRY_GOTO(done, score_set_open(&o, &set, &notes));
    TRY_GOTO(done, score_compute(set, &o, &r, &notes));
    TRY_GOTO(done, add_scores(set, &r, t, entry));
    set_new(entry, "notes", lines_of(str_text(&notes)));
    status = write_details(e, p, &r);
done:
    str_free(&notes);
    score_result_free(&r);
    score_set_close(set);
    mem_free(path);
    return status;
}

/* ---- the set ------------------------------------------------------------------------------- */

/* Which file the regions are of: what tells data sets of one kind and split apart. Visual Genome is one data set;
 * RefCOCO, RefCOCO+ and RefCOCOg are told by their folders, as they all hold a refs(NAME).p. */
static const char *source(const eval_set *e)
{
    const char *path = dataset_file(e->data, 0);
    if (!path) return e->set->annotations; /* a rendered world: its size */
    const char *name = path_name(path);
    if (strcmp(e->set->kind, "visual_genome") == 0) return "";
    if (strcmp(e->set->kind, "refcoco") != 0 || name == path) return name;
    for (name--; name > path && name[-1] != '/';) name--;
    return name;
}

/* Numbers are comparable only where this text and the number of regions are the same. */
static void protocol(const eval_set *e, const totals *t, str *s)
{
    const char *parts[] = { e->set->kind, source(e), dataset_split(e->data) };
    for (size_t i = 0; i < LENGTH(parts); i++)
        if (parts[i][0]) str_printf(s, "%s%s", i ? " " : "", parts[i]);
    if (e->c->eval_max_images) str_printf(s, ", first %zu images", e->images);
    str_put(s, t->several ? ", all regions of each image" : ", one region per image");
    if (dataset_recognition(e->data)) str_put(s, ", task recognition");
    if (strcmp(e->c->eval_prompt, "box") != 0) str_printf(s, ", prompt %s", e->c->eval_prompt);
}

sca_status eval_join(const eval_set *e, const eval_parts *p, json_t **entry)
{
    totals t = { .smoothing = model_smoothing(e->m, e->c->train_label_smoothing),
                 .vocab = model_sizes(e->m)->lm.vocab };
    str text = { 0 };
    *entry = NULL;
    TRY(write_files(e, p, &t));
    if (t.regions == 0)
        return status_fail(SCA_ERR_FORMAT, "%s: its %zu images have no region; nothing can be scored", e->name,
                           e->images);
    json_t *out = json_object();
    if (!out) return mem_fail(64, "scores");
    protocol(e, &t, &text);
    sca_status status = text.failed ? mem_fail(text.bytes, "scores") : SCA_OK;
    set_new(out, "name", json_string(e->name));
    set_new(out, "kind", json_string(e->set->kind));
    set_new(out, "source", json_string(source(e)));
    set_new(out, "split", json_string(dataset_split(e->data)));
    set_new(out, "task", json_string(dataset_recognition(e->data) ? "recognition" : "caption"));
    set_new(out, "protocol", json_string(str_text(&text)));
    set_new(out, "complete", json_boolean(e->c->eval_max_images == 0));
    set_new(out, "images", json_integer((json_int_t)e->images));
    set_new(out, "regions", json_integer((json_int_t)t.regions));
    str_free(&text);
    if (status == SCA_OK) status = score_file(e, p, &t, out);
    if (status == SCA_OK)
        *entry = out;
    else
        json_decref(out);
    return status;
}
