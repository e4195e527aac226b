/* score_read.c - inference files and COCO pairs into a set of items (eval.md 5.9). */
#include "eval/score_parts.h"

#include <math.h>
#include <string.h>

/* ---- sets ---------------------------------------------------------------------------------- */

sca_status score_set_new(ptb_version tokenizer, score_set **out)
{
    *out = mem_zero(1, sizeof **out);
    if (!*out) return mem_fail(sizeof **out, "captions to score");
    (*out)->tokenizer = tokenizer;
    return SCA_OK;
}

void score_set_close(score_set *s)
{
    if (!s) return;
    for (size_t i = 0; i < s->n; i++) json_decref(s->records[i].id);
    mem_free(s->records);
    texts_free(&s->hyps);
    texts_free(&s->refs);
    lexicon_free(&s->keys);
    mem_free(s);
}

size_t score_set_count(const score_set *s) { return s->n; }
size_t score_set_skipped(const score_set *s) { return s->skipped; }

sca_status score_key(const json_t *id, const char *file, str *key)
{
    str_clear(key);
    if (json_is_string(id))
        str_printf(key, "s%s", json_string_value(id));
    else if (json_is_integer(id))
        str_printf(key, "n%lld", (long long)json_integer_value(id));
    else if (json_is_real(id)) {
        double x = json_real_value(id); /* 1.0 is the same as 1 */
        if (floor(x) == x && fabs(x) < 9e15)
            str_printf(key, "n%lld", (long long)x);
        else
            str_printf(key, "n%.17g", x);
    } else
        return status_fail(SCA_ERR_FORMAT, "%s: an id is neither a number nor a string", file);
    return key->failed ? mem_fail(key->bytes, "id") : SCA_OK;
}

static sca_status record_room(score_set *s)
{
    if (s->n < s->cap) return SCA_OK;
    size_t cap = s->cap ? s->cap * 2 : 256;
    score_record *records = mem_resize(s->records, cap * sizeof *records);
    if (!records) return mem_fail(cap * sizeof *records, "captions to score");
    s->records = records, s->cap = cap;
    return SCA_OK;
}

sca_status score_set_add(score_set *s, json_t *id, const char *hyp, const char *const *refs, size_t n_refs)
{
    str key = { 0 };
    int32_t at = 0;
    sca_status status = score_key(id, "score_set_add", &key);
    score_record r = { .hyp = s->hyps.count, .first_ref = s->refs.count, .n_refs = n_refs };
    if (status == SCA_OK) status = record_room(s);
    if (status == SCA_OK) status = texts_add(&s->hyps, hyp, strlen(hyp));
    for (size_t i = 0; i < n_refs && status == SCA_OK; i++) status = texts_add(&s->refs, refs[i], strlen(refs[i]));
    if (status == SCA_OK) status = lexicon_add(&s->keys, str_text(&key), key.bytes, &at);
    str_free(&key);
    TRY(status);
    if ((size_t)at < s->n)
        json_decref(s->records[at].id);
    else
        s->n++;
    r.id = json_incref(id);
    s->records[at] = r;
    return SCA_OK;
}

/* ---- lists and lines ----------------------------------------------------------------------- */

typedef struct line_reader {
    const char *path;
    json_item_fn *fn;
    void *user;
} line_reader;

static sca_status each_json_line(const line_reader *r, const file_view *v)
{
    const char *p = (const char *)v->data, *end = p + v->bytes;
    int64_t index = 0;
    for (size_t line = 1; p < end; line++) {
        const char *stop = memchr(p, '\n', (size_t)(end - p));
        size_t bytes = (size_t)((stop ? stop : end) - p), blank = 0;
        char name[CONFIG_TEXT];
        json_t *item = NULL;
        while (blank < bytes && memchr(" \t\r", p[blank], 3)) blank++;
        if (blank < bytes) {
            snprintf(name, sizeof name, "%s line %zu", r->path, line);
            TRY(json_parse(p, bytes, name, &item));
            sca_status status = r->fn(r->user, NULL, index++, item);
            json_decref(item);
            if (status != SCA_OK) return status_context(status, "%s", r->path);
        }
        p += bytes + 1;
    }
    return SCA_OK;
}

sca_status score_each(const char *path, json_item_fn *fn, void *user)
{
    file_view v;
    line_reader r = { path, fn, user };
    TRY(file_map(path, &v));
    size_t i = v.bytes >= 3 && memcmp(v.data, "\xEF\xBB\xBF", 3) == 0 ? 3 : 0;
    while (i < v.bytes && memchr(" \t\r\n", v.data[i], 4)) i++;
    bool lines = i < v.bytes && v.data[i] == '{';
    sca_status status = SCA_OK;
    if (lines) status = each_json_line(&r, &v);
    file_unmap(&v);
    return lines ? status : json_stream(path, fn, user);
}

/* ---- inference records --------------------------------------------------------------------- */

typedef struct reader {
    const score_options *o;
    score_set *set;
    bool coco; /* known from the first record */
    int64_t n_records;
    str key, unfit, several; /* the first record whose scores do not fit, the first with several candidates */
    str fault, replaced;     /* the first record that cannot be scored and why, the first _id that is repeated */
    size_t n_replaced;
    /* COCO */
    lexicon images; /* keys of ids */
    struct image *image;
    size_t n_images, cap_images;
    struct annotation *annotations;
    size_t n_annotations, cap_annotations;
    texts captions, results;
    int64_t *order; /* images in the order of the file */
    size_t n_order, cap_order;
    size_t n_unknown, n_second, n_bare; /* results: for unknown images, for one seen before, without captions */
    str unknown, second, bare;
    size_t n_missing; /* images with captions, but without a result */
    str missing;
} reader;

/* An image of a COCO file; result: its place in reader.results plus 1. */
typedef struct image {
    json_t *id;
    size_t result, first, n;
    bool listed;
} image;
typedef struct annotation {
    int32_t image;
    size_t caption;
} annotation;

static sca_status room(void *array, size_t size, size_t used, size_t *cap)
{
    if (used < *cap) return SCA_OK;
    size_t n = *cap ? *cap * 2 : 256, bytes;
    if (!size_mul(n, size, &bytes)) return mem_fail(SIZE_MAX, "captions");
    void *old, *p;
    memcpy(&old, array, sizeof old);
    p = mem_resize(old, bytes);
    if (!p) return mem_fail(bytes, "captions");
    memcpy(array, &p, sizeof p);
    *cap = n;
    return SCA_OK;
}

static void reader_free(reader *r)
{
    str *used[] = { &r->key,  &r->unfit, &r->several,  &r->unknown, &r->second,
                    &r->bare, &r->fault, &r->replaced, &r->missing };
    for (size_t i = 0; i < LENGTH(used); i++) str_free(used[i]);
    for (size_t i = 0; i < r->n_images; i++) json_decref(r->image[i].id);
    mem_free(r->image);
    mem_free(r->annotations);
    mem_free(r->order);
    lexicon_free(&r->images);
    texts_free(&r->captions);
    texts_free(&r->results);
}

/* "record 3 (_id 7)" */
static void name_record(str *s, int64_t index, const json_t *id)
{
    str_clear(s);
    str_printf(s, "record %lld", (long long)index);
    if (json_is_string(id))
        str_printf(s, " (_id '%.100s')", json_string_value(id));
    else if (json_is_number(id))
        str_printf(s, " (_id %.17g)", json_number_value(id));
}

static bool is_text_list(const json_t *list, size_t least)
{
    if (!json_is_array(list) || json_array_size(list) < least) return false;
    for (size_t i = 0; i < json_array_size(list); i++)
        if (!json_is_string(json_array_get(list, i))) return false;
    return true;
}

/* The scores of a record, or NULL when their number is not that of its candidates. */
static const json_t *fitting_scores(const json_t *record, size_t n)
{
    const json_t *scores = json_object_get(json_object_get(record, "logits"), "iou_scores");
    if (!json_is_array(scores) || json_array_size(scores) != n) return NULL;
    for (size_t i = 0; i < n; i++)
        if (!json_is_number(json_array_get(scores, i))) return NULL;
    return scores;
}

static size_t best_candidate(const json_t *scores)
{
    size_t best = 0;
    for (size_t i = 1; scores && i < json_array_size(scores); i++)
        if (json_number_value(json_array_get(scores, i)) > json_number_value(json_array_get(scores, best)))
            best = i;
    return best;
}

/* What is wrong with a record, or NULL. */
static const char *record_fault(const json_t *record)
{
    const json_t *refs = json_object_get(record, "references"), *hyps = json_object_get(record, "candidates");
    if (!json_is_object(record)) return "not an object";
    if (!is_text_list(hyps, 1)) return "'candidates' is missing, empty or no list of strings";
    if (!is_text_list(refs, 1)) return "'references' is missing, empty or no list of strings";
    const json_t *id = json_object_get(record, "_id");
    if (id && !json_is_number(id) && !json_is_string(id)) return "'_id' is neither a number nor a string";
    return NULL;
}

/* Counts, and keeps the id of the first. */
static void count_fault(size_t *n, str *first, const str *key)
{
    if ((*n)++ == 0) str_put(first, str_text(key) + 1);
}

static sca_status add_record(reader *r, json_t *record, int64_t index, const json_t *scores)
{
    json_t *id = json_object_get(record, "_id"), *position = NULL;
    const json_t *refs = json_object_get(record, "references"), *hyps = json_object_get(record, "candidates");
    size_t n = json_array_size(refs), before = r->set->n;
    const char **text = mem_alloc(n * sizeof *text);
    if (!id) id = position = json_integer(index);
    if (!text || !id) {
        mem_free(text);
        json_decref(position);
        return mem_fail(n * sizeof *text, "captions");
    }
    for (size_t i = 0; i < n; i++) text[i] = json_string_value(json_array_get(refs, i));
    const char *hyp = json_string_value(json_array_get(hyps, best_candidate(scores)));
    sca_status status = score_set_add(r->set, id, hyp, text, n);
    if (status == SCA_OK) status = score_key(id, r->o->results, &r->key);
    if (status == SCA_OK && r->set->n == before) count_fault(&r->n_replaced, &r->replaced, &r->key);
    if (status == SCA_OK && json_array_size(hyps) > 1)
        r->set->records[lexicon_find(&r->set->keys, str_text(&r->key), r->key.bytes)].several = true;
    mem_free(text);
    json_decref(position);
    return status;
}

/* A record that cannot be scored; the file is read to its end, so that their number is known. */
static void name_fault(reader *r, int64_t index, const json_t *id, const char *fault)
{
    if (r->set->skipped++) return;
    name_record(&r->fault, index, id);
    str_printf(&r->fault, ": %s", fault);
}

static sca_status check_faults(const reader *r)
{
    if (r->o->partial || r->set->skipped == 0) return SCA_OK;
    return status_fail(SCA_ERR_FORMAT,
                       "%s: %zu of %lld records cannot be scored, the first is %s; --partial scores "
                       "the others",
                       r->o->results, r->set->skipped, (long long)r->n_records, str_text(&r->fault));
}

static sca_status inference_record(reader *r, int64_t index, json_t *record)
{
    const char *wanted = r->o->split ? r->o->split : "inference", *split;
    size_t n = json_array_size(json_object_get(record, "candidates"));
    const json_t *scores = fitting_scores(record, n);
    if (!scores && !r->unfit.bytes) name_record(&r->unfit, index, json_object_get(record, "_id"));
    if (n > 1 && !r->several.bytes) name_record(&r->several, index, json_object_get(record, "_id"));
    split = json_string_value(json_object_get(record, "split"));
    if (*wanted && json_is_object(record) && (!split || strcmp(split, wanted) != 0)) return SCA_OK;
    const char *fault = record_fault(record);
    if (!fault) return add_record(r, record, index, scores);
    name_fault(r, index, json_object_get(record, "_id"), fault);
    return SCA_OK;
}

/* Records with several candidates are usable only when all records of the file have scores that fit. */
static sca_status drop_several(reader *r)
{
    if (!r->several.bytes || !r->unfit.bytes) return SCA_OK;
    if (!r->o->partial)
        return status_fail(SCA_ERR_FORMAT,
                           "%s: %s has several candidates, but %s has not one IoU score per candidate; the best "
                           "candidate is known only when all records have",
                           r->o->results, str_text(&r->several), str_text(&r->unfit));
    score_set *s = r->set;
    size_t kept = 0;
    for (size_t i = 0; i < s->n; i++) {
        if (s->records[i].several)
            json_decref(s->records[i].id);
        else
            s->records[kept++] = s->records[i];
    }
    s->skipped += s->n - kept;
    s->n = kept;
    lexicon_free(&s->keys); /* nothing is added any more */
    return SCA_OK;
}

/* ---- COCO ---------------------------------------------------------------------------------- */

static sca_status image_of(reader *r, json_t *id, const char *file, int32_t *at)
{
    TRY(score_key(id, file, &r->key));
    TRY(lexicon_add(&r->images, str_text(&r->key), r->key.bytes, at));
    if ((size_t)*at < r->n_images) return SCA_OK;
    TRY(room(&r->image, sizeof *r->image, r->n_images, &r->cap_images));
    r->image[r->n_images++] = (image){ .id = json_incref(id) };
    return SCA_OK;
}

/* An element of "images" or "annotations". */
static sca_status reference_item(void *user, const char *key, int64_t index, json_t *item)
{
    reader *r = user;
    int32_t at;
    if (index < 0 || !key) return SCA_OK;
    bool is_image = strcmp(key, "images") == 0;
    if (!is_image && strcmp(key, "annotations") != 0) return SCA_OK;
    json_t *id = json_object_get(item, is_image ? "id" : "image_id");
    const char *caption = json_string_value(json_object_get(item, "caption"));
    if (!id || (!is_image && !caption))
        return status_fail(SCA_ERR_FORMAT, "element %lld of '%s': expected %s", (long long)index, key,
                           is_image ? "'id'" : "'image_id' and 'caption'");
    TRY(image_of(r, id, r->o->references, &at));
    if (is_image) {
        if (r->image[at].listed) return SCA_OK;
        r->image[at].listed = true;
        TRY(room(&r->order, sizeof *r->order, r->n_order, &r->cap_order));
        r->order[r->n_order++] = at;
        return SCA_OK;
    }
    TRY(room(&r->annotations, sizeof *r->annotations, r->n_annotations, &r->cap_annotations));
    r->annotations[r->n_annotations++] = (annotation){ at, r->captions.count };
    r->image[at].n++;
    return texts_add(&r->captions, caption, strlen(caption));
}

static sca_status result_record(reader *r, int64_t index, json_t *record)
{
    json_t *id = json_object_get(record, "image_id");
    const char *caption = json_string_value(json_object_get(record, "caption"));
    if (!caption || !(json_is_number(id) || json_is_string(id)))
        return name_fault(r, index, NULL, "expected 'image_id' and 'caption'"), SCA_OK;
    TRY(score_key(id, r->o->results, &r->key));
    int32_t at = lexicon_find(&r->images, str_text(&r->key), r->key.bytes);
    if (at < 0 || !r->image[at].listed) return count_fault(&r->n_unknown, &r->unknown, &r->key), SCA_OK;
    if (r->image[at].result) return count_fault(&r->n_second, &r->second, &r->key), SCA_OK;
    if (!r->image[at].n) return count_fault(&r->n_bare, &r->bare, &r->key), SCA_OK;
    r->image[at].result = r->results.count + 1;
    return texts_add(&r->results, caption, strlen(caption));
}

static sca_status result_faults(reader *r)
{
    const char *file = r->o->results, *refs = r->o->references;
    r->set->skipped += r->n_unknown + r->n_second + r->n_bare;
    if (r->o->partial) return SCA_OK;
    if (r->n_unknown)
        return status_fail(SCA_ERR_FORMAT, "%s: %zu results for images that are not in %s, the first for id %s",
                           file, r->n_unknown, refs, str_text(&r->unknown));
    if (r->n_second)
        return status_fail(SCA_ERR_FORMAT, "%s: %zu second results for the same image, the first for id %s", file,
                           r->n_second, str_text(&r->second));
    if (r->n_bare)
        return status_fail(SCA_ERR_FORMAT,
                           "%s: %zu results for images without a caption in %s, the first for id %s", file,
                           r->n_bare, refs, str_text(&r->bare));
    return SCA_OK;
}

static sca_status put_id(str *s, const json_t *id)
{
    str key = { 0 };
    sca_status status = score_key(id, "an image", &key);
    if (status == SCA_OK) str_put(s, str_text(&key) + 1);
    str_free(&key);
    return status;
}

/* Images with a result become items, in the order of the references file; captions keep the order of annotations.
 */
static sca_status coco_items(reader *r)
{
    size_t sum = 0;
    const char **text = mem_alloc((r->n_annotations + 1) * sizeof *text);
    if (!text) return mem_fail(r->n_annotations * sizeof *text, "captions");
    for (size_t i = 0; i < r->n_images; i++) {
        r->image[i].first = sum;
        sum += r->image[i].n;
        r->image[i].n = 0;
    }
    for (size_t i = 0; i < r->n_annotations; i++) {
        image *m = &r->image[r->annotations[i].image];
        text[m->first + m->n++] = texts_get(&r->captions, r->annotations[i].caption);
    }
    sca_status status = SCA_OK;
    for (size_t i = 0; i < r->n_order && status == SCA_OK; i++) {
        const image *m = &r->image[r->order[i]];
        if (!m->result && m->n && r->n_missing++ == 0) status = put_id(&r->missing, m->id);
        if (m->result)
            status = score_set_add(r->set, m->id, texts_get(&r->results, m->result - 1), text + m->first, m->n);
    }
    mem_free(text);
    return status;
}

/* ---- both ---------------------------------------------------------------------------------- */

static sca_status first_record(reader *r, const json_t *record)
{
    r->coco = json_object_get(record, "caption") && !json_object_get(record, "candidates");
    if (!r->coco && !json_object_get(record, "candidates"))
        return status_fail(SCA_ERR_FORMAT,
                           "the first record has neither 'candidates' (inference file) nor 'caption' "
                           "(COCO results)");
    if (r->coco && !r->o->references)
        return status_fail(SCA_ERR_ARGUMENT, "these are COCO results; name their captions file with --references");
    if (!r->coco && r->o->references)
        return status_fail(SCA_ERR_ARGUMENT,
                           "an inference file holds its own references; --references %s does not "
                           "belong to it",
                           r->o->references);
    r->set->tokenizer = r->coco ? PTB_3_4_1 : PTB_3_6_0;
    return r->coco ? json_stream(r->o->references, reference_item, r) : SCA_OK;
}

static sca_status any_record(void *user, const char *key, int64_t index, json_t *record)
{
    reader *r = user;
    if (key) return status_fail(SCA_ERR_FORMAT, "an object, expected a list of records");
    if (r->n_records++ == 0) TRY(first_record(r, record));
    return r->coco ? result_record(r, index, record) : inference_record(r, index, record);
}

static sca_status set_read(reader *r, str *notes)
{
    const char *wanted = r->o->split ? r->o->split : "inference";
    TRY(score_each(r->o->results, any_record, r));
    TRY(check_faults(r));
    if (r->coco) {
        TRY(result_faults(r));
        TRY(coco_items(r));
    } else
        TRY(drop_several(r));
    if (r->n_replaced)
        str_printf(notes, "%s: %zu records repeat an _id, the first %s; each takes the place of the earlier one\n",
                   r->o->results, r->n_replaced, str_text(&r->replaced));
    if (r->n_missing)
        str_printf(notes,
                   "%s: %zu images of %s have captions but no result, the first with id %s; they are left out\n",
                   r->o->results, r->n_missing, r->o->references, str_text(&r->missing));
    if (r->set->n) return SCA_OK;
    if (!r->coco && r->n_records && *wanted)
        return status_fail(SCA_ERR_FORMAT,
                           "%s: none of %lld records can be scored; the split asked for is '%s' (--split)",
                           r->o->results, (long long)r->n_records, wanted);
    return status_fail(SCA_ERR_FORMAT, "%s: nothing to score among %lld records", r->o->results,
                       (long long)r->n_records);
}

static sca_status tokenizer_choose(const score_options *o, score_set *s)
{
    if (!o->tokenizer) return SCA_OK;
    bool old = strcmp(o->tokenizer, "ptb-3.4.1") == 0;
    if (!old && strcmp(o->tokenizer, "ptb-3.6.0") != 0)
        return status_fail(SCA_ERR_ARGUMENT, "tokenizer '%s', expected ptb-3.6.0 or ptb-3.4.1", o->tokenizer);
    s->tokenizer = old ? PTB_3_4_1 : PTB_3_6_0;
    return SCA_OK;
}

sca_status score_set_open(const score_options *o, score_set **out, str *notes)
{
    reader r = { .o = o };
    TRY(score_set_new(PTB_3_6_0, &r.set));
    sca_status status = tokenizer_choose(o, r.set);
    if (status == SCA_OK) status = set_read(&r, notes);
    if (status == SCA_OK) status = tokenizer_choose(o, r.set);
    reader_free(&r);
    *out = NULL;
    if (status == SCA_OK)
        *out = r.set;
    else
        score_set_close(r.set);
    return status;
}
