/* score.c - calls the metrics on a set of captions and writes the scores (eval.md 5.9). */
#include "eval/score_parts.h"

#include <stdlib.h>
#include <string.h>

/* ---- items --------------------------------------------------------------------------------- */

/* The captions of a set as lists, raw and as tokens. */
typedef struct captions {
    eval_item *raw, *tokens;
    const char **raw_ref, **token_ref; /* the references of all items, one after the other */
    const char **hyp;
    size_t n, n_refs;
} captions;

static void captions_free(captions *c)
{
    mem_free(c->raw);
    mem_free(c->tokens);
    mem_free(c->raw_ref);
    mem_free(c->token_ref);
    mem_free(c->hyp);
}

static sca_status captions_list(const score_set *s, captions *c)
{
    *c = (captions){ .n = s->n };
    for (size_t i = 0; i < s->n; i++) c->n_refs += s->records[i].n_refs;
    c->raw = mem_alloc(c->n * sizeof *c->raw);
    c->tokens = mem_alloc(c->n * sizeof *c->tokens);
    c->hyp = mem_alloc(c->n * sizeof *c->hyp);
    c->raw_ref = mem_alloc(c->n_refs * sizeof *c->raw_ref);
    c->token_ref = mem_alloc(c->n_refs * sizeof *c->token_ref);
    if (!c->raw || !c->tokens || !c->hyp || !c->raw_ref || !c->token_ref)
        return mem_fail((c->n + c->n_refs) * sizeof *c->raw, "captions to score");
    for (size_t i = 0, ref = 0; i < s->n; i++) {
        const score_record *r = &s->records[i];
        c->hyp[i] = texts_get(&s->hyps, r->hyp);
        c->raw[i] = (eval_item){ c->hyp[i], c->raw_ref + ref, r->n_refs };
        for (size_t k = 0; k < r->n_refs; k++) c->raw_ref[ref++] = texts_get(&s->refs, r->first_ref + k);
    }
    return SCA_OK;
}

/* True for a text with a line break other than LF, which the reference programs would stumble over. */
static bool breaks_line(const char *text)
{
    return strpbrk(text, "\r\v\f") || strstr(text, "\xC2\x85") || strstr(text, "\xE2\x80\xA8") ||
           strstr(text, "\xE2\x80\xA9");
}

static void note_breaks(const captions *c, str *notes)
{
    size_t n = 0;
    for (size_t i = 0; i < c->n; i++) n += breaks_line(c->hyp[i]);
    for (size_t i = 0; i < c->n_refs; i++) n += breaks_line(c->raw_ref[i]);
    if (n)
        str_printf(notes,
                   "%zu captions hold line breaks other than LF; they count as spaces here, while the reference "
                   "programs would mix up the captions that follow\n",
                   n);
}

/* All references as one stream, then all candidates. */
static sca_status captions_tokenise(captions *c, ptb_version version, score_result *out)
{
    ptb *p = NULL;
    TRY(ptb_open(version, &p));
    sca_status status = ptb_captions(p, c->raw_ref, c->n_refs, &out->refs);
    if (status == SCA_OK) status = ptb_captions(p, c->hyp, c->n, &out->hyps);
    ptb_close(p);
    TRY(status);
    for (size_t i = 0; i < c->n_refs; i++) c->token_ref[i] = texts_get(&out->refs, i);
    for (size_t i = 0; i < c->n; i++)
        c->tokens[i] =
            (eval_item){ texts_get(&out->hyps, i), c->token_ref + (c->raw[i].refs - c->raw_ref), c->raw[i].n_refs };
    return SCA_OK;
}

/* ---- metrics ------------------------------------------------------------------------------- */

void score_result_free(score_result *r)
{
    mem_free(r->bleus);
    mem_free(r->rouges);
    mem_free(r->ciders);
    mem_free(r->meteors);
    mem_free(r->spices);
    mem_free(r->exacts);
    mem_free(r->stats);
    texts_free(&r->hyps);
    texts_free(&r->refs);
    *r = (score_result){ 0 };
}

static sca_status items_room(score_result *r, size_t n)
{
    r->bleus = mem_zero(n, sizeof *r->bleus);
    r->rouges = mem_zero(n, sizeof(double));
    r->ciders = mem_zero(n, sizeof(double));
    r->meteors = mem_zero(n, sizeof(double));
    r->spices = mem_zero(n, sizeof(double));
    r->exacts = mem_zero(n, sizeof(double));
    r->stats = mem_zero(n, sizeof *r->stats);
    bool all = r->bleus && r->rouges && r->ciders && r->meteors && r->spices && r->exacts && r->stats;
    return all ? SCA_OK : mem_fail(n * sizeof *r->stats, "scores");
}

static sca_status score_grams(const captions *c, score_result *r)
{
    grams *g = NULL;
    TRY(grams_open(c->tokens, c->n, &g));
    bleu_score(g, r->bleu, r->bleus);
    sca_status status = cider_score(g, false, &r->cider, r->ciders);
    grams_close(g);
    return status == SCA_OK ? rouge_score(c->tokens, c->n, &r->rouge, r->rouges) : status;
}

/* Exact match, ours: the share of captions whose tokens are those of one of their references. */
static void score_exact(const captions *c, score_result *r)
{
    size_t equal = 0;
    for (size_t i = 0; i < c->n; i++) {
        bool same = false;
        for (size_t k = 0; k < c->tokens[i].n_refs && !same; k++)
            same = strcmp(c->tokens[i].hyp, c->tokens[i].refs[k]) == 0;
        if (r->exacts) r->exacts[i] = same;
        equal += same;
    }
    r->exact = c->n ? (double)equal / (double)c->n : 0;
}

/* *out stays NULL, with a note, when there is no data. */
static sca_status data_open(const score_options *o, meteor **out, str *notes)
{
    char *path = o->resources ? path_join(o->resources, METEOR_FILE) : NULL;
    sca_status status = SCA_OK;
    if (o->resources && !path) return mem_fail(strlen(o->resources), "path");
    if (path && file_exists(path))
        status = meteor_open(path, out);
    else
        str_printf(notes,
                   "METEOR is left out: %s is absent; tools/meteor_data.sh makes it, --resources (for sca eval the "
                   "setting "
                   "eval.resources) names its folder\n",
                   path ? path : METEOR_FILE);
    mem_free(path);
    return status;
}

static sca_status score_meteor(meteor *m, const captions *c, const score_options *o, score_result *r, str *notes)
{
    r->has_phrases = meteor_has_phrases(m);
    if (!r->has_phrases)
        str_put(
            notes,
            "METEOR is left out, METEOR-no-paraphrase takes its place: the data was made without the paraphrase "
            "table; run tools/meteor_data.sh\n");
    TRY(meteor_score(m, c->tokens, c->n, o->threads, &r->meteor, r->meteors, r->stats));
    r->has_meteor = true;
    return SCA_OK;
}

static sca_status score_spice(meteor *m, const captions *c, const score_options *o, score_result *r, str *notes)
{
    spice_texts t = { c->tokens, c->raw, c->n };
    sca_status status = SCA_OK;
    if (!o->spice_tuples && !o->spice_command) {
        str_put(notes, "SPICE is left out: it needs --spice-tuples or --spice-command (for sca eval the setting "
                       "eval.spice_command); tools/spice_data.sh makes a command\n");
        return SCA_OK;
    }
    if (o->spice_tuples && !m) {
        str_put(notes, "SPICE is left out: its synonyms come from METEOR's data\n");
        return SCA_OK;
    }
    if (o->spice_tuples)
        status = spice_from_file(m, o->spice_tuples, &t, &r->spice, r->spices);
    else
        status = spice_from_command(o->spice_command, &t, &r->spice, r->spices);
    r->has_spice = status == SCA_OK;
    if (status == SCA_ERR_FORMAT && o->partial) {
        str_printf(notes, "SPICE is left out: %s\n", status_message());
        return SCA_OK;
    }
    return status;
}

static sca_status score_recall(const captions *c, const score_options *o, score_result *r, str *notes)
{
    tags *t = NULL;
    if (!o->tags) {
        str_put(notes, "noun and verb recall are left out: they need sca score with --tags\n");
        return SCA_OK;
    }
    TRY(tags_open(o->tags, &t));
    sca_status status = recall_score(t, c->raw, c->n, &r->recall);
    tags_close(t);
    r->has_recall = status == SCA_OK;
    if (r->has_recall && !r->recall.has_fuzzy)
        str_printf(notes, "fuzzy recall is left out: %s holds no word vectors\n", o->tags);
    return status;
}

sca_status score_compute(const score_set *s, const score_options *o, score_result *out, str *notes)
{
    captions c = { 0 };
    meteor *m = NULL;
    sca_status status = SCA_OK;
    *out = (score_result){ .regions = s->n, .tokenizer = s->tokenizer };
    if (o->per_item) TRY_GOTO(done, items_room(out, s->n));
    TRY_GOTO(done, captions_list(s, &c));
    note_breaks(&c, notes);
    TRY_GOTO(done, captions_tokenise(&c, s->tokenizer, out));
    TRY_GOTO(done, score_grams(&c, out));
    score_exact(&c, out);
    TRY_GOTO(done, data_open(o, &m, notes));
    if (m) TRY_GOTO(done, score_meteor(m, &c, o, out, notes));
    TRY_GOTO(done, score_spice(m, &c, o, out, notes));
    TRY_GOTO(done, score_recall(&c, o, out, notes));
    if (s->n == 1) str_put(notes, "CIDEr-D of a single item is 0: its word weights come from the other items\n");
done:
    meteor_close(m);
    captions_free(&c);
    if (status != SCA_OK) score_result_free(out);
    return status;
}

/* ---- output -------------------------------------------------------------------------------- */

typedef struct column {
    const char *name;
    double value;
} column;
enum { MOST_COLUMNS = 16 };

/* The scores that there are, in the order of the published tables. */
static size_t columns_of(const score_result *r, column *out)
{
    static const char *const bleu[] = { "BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4" };
    size_t n = 0;
    out[n++] = (column){ "CIDEr-D", r->cider };
    if (r->has_meteor) out[n++] = (column){ r->has_phrases ? "METEOR" : "METEOR-no-paraphrase", r->meteor };
    if (r->has_spice) out[n++] = (column){ "SPICE", r->spice };
    for (int k = 0; k < 4; k++) out[n++] = (column){ bleu[k], r->bleu[k] };
    out[n++] = (column){ "ROUGE-L", r->rouge };
    out[n++] = (column){ "exact-match", r->exact };
    if (!r->has_recall) return n;
    out[n++] = (column){ "noun-recall", r->recall.noun };
    out[n++] = (column){ "verb-recall", r->recall.verb };
    if (!r->recall.has_fuzzy) return n;
    out[n++] = (column){ "noun-recall-fuzzy", r->recall.noun_fuzzy };
    out[n++] = (column){ "verb-recall-fuzzy", r->recall.verb_fuzzy };
    return n;
}

static void put_field(str *s, const char *name, double value)
{
    str_printf(s, ", \"%s\": ", name);
    json_put_real(s, value);
}

static sca_status put_json_id(str *s, const json_t *id)
{
    char *text = json_dumps(id, JSON_ENCODE_ANY | JSON_REAL_PRECISION(17));
    if (!text) return mem_fail(0, "scores");
    str_put(s, text);
    free(text);
    return SCA_OK;
}

static sca_status put_json_item(str *s, const score_set *set, const score_result *r, size_t i, size_t ref)
{
    str_put(s, "{\"_id\": ");
    TRY(put_json_id(s, set->records[i].id));
    str_put(s, ", \"hyp_tokens\": ");
    json_put_text(s, texts_get(&r->hyps, i), strlen(texts_get(&r->hyps, i)));
    str_put(s, ", \"ref_tokens\": [");
    for (size_t k = 0; k < set->records[i].n_refs; k++) {
        const char *text = texts_get(&r->refs, ref + k);
        if (k) str_put(s, ", ");
        json_put_text(s, text, strlen(text));
    }
    str_put(s, "], \"bleu\": [");
    for (int k = 0; k < 4; k++) {
        if (k) str_put(s, ", ");
        json_put_real(s, r->bleus[i][k]);
    }
    str_putc(s, ']');
    put_field(s, "rouge_l", r->rouges[i]);
    put_field(s, "cider_d", r->ciders[i]);
    put_field(s, "exact_match", r->exacts[i]);
    if (r->has_meteor) {
        put_field(s, r->has_phrases ? "meteor" : "meteor_no_paraphrase", r->meteors[i]);
        str_put(s, ", \"meteor_stats\": [");
        for (int k = 0; k < METEOR_STATS; k++) str_printf(s, k ? ", %d" : "%d", (int)r->stats[i].n[k]);
        str_putc(s, ']');
    }
    if (r->has_spice) put_field(s, "spice", r->spices[i]);
    str_putc(s, '}');
    return SCA_OK;
}

static sca_status write_json(const score_set *set, const score_result *r, const score_options *o, str *s)
{
    column c[MOST_COLUMNS];
    size_t n = columns_of(r, c), ref = 0;
    static const char *const order[] = { "BLEU-1",  "BLEU-2",  "BLEU-3",
                                         "BLEU-4",  "METEOR",  "METEOR-no-paraphrase",
                                         "ROUGE-L", "CIDEr-D", "exact-match" };
    str_printf(s, "{\"regions\": %zu", r->regions);
    for (size_t k = 0; k < LENGTH(order); k++)
        for (size_t i = 0; i < n; i++)
            if (strcmp(c[i].name, order[k]) == 0) put_field(s, c[i].name, c[i].value);
    str_printf(s, ", \"tokenizer\": \"%s\"", r->tokenizer == PTB_3_4_1 ? "ptb-3.4.1" : "ptb-3.6.0");
    if (r->has_spice) put_field(s, "SPICE", r->spice);
    for (size_t i = 0; i < n; i++)
        if (strstr(c[i].name, "recall")) put_field(s, c[i].name, c[i].value);
    if (o->partial) str_printf(s, ", \"partial\": true, \"skipped\": %zu", set->skipped);
    if (o->per_item) {
        str_put(s, ", \"items\": [\n");
        for (size_t i = 0; i < set->n; i++) {
            TRY(put_json_item(s, set, r, i, ref));
            str_put(s, i + 1 < set->n ? ",\n" : "\n");
            ref += set->records[i].n_refs;
        }
        str_putc(s, ']');
    }
    str_put(s, "}\n");
    return SCA_OK;
}

/* The columns that exist per item, in the same order. */
static size_t item_columns(const score_result *r, size_t i, column *out)
{
    score_result one = { .cider = r->ciders[i],
                         .meteor = r->meteors[i],
                         .spice = r->spices[i],
                         .rouge = r->rouges[i],
                         .exact = r->exacts[i],
                         .has_meteor = r->has_meteor,
                         .has_phrases = r->has_phrases,
                         .has_spice = r->has_spice };
    memcpy(one.bleu, r->bleus[i], sizeof one.bleu);
    return columns_of(&one, out);
}

static sca_status write_text(const score_set *set, const score_result *r, const score_options *o, str *s)
{
    column c[MOST_COLUMNS];
    size_t n = columns_of(r, c);
    for (size_t i = 0; i < n; i++) str_printf(s, "%-20s %7.2f\n", c[i].name, 100 * c[i].value);
    if (o->partial) str_printf(s, "partial: %zu records skipped, %zu scored\n", set->skipped, set->n);
    for (size_t i = 0; i < set->n && o->per_item; i++) {
        n = item_columns(r, i, c);
        TRY(put_json_id(s, set->records[i].id));
        for (size_t k = 0; k < n; k++) str_printf(s, "  %s %.2f", c[k].name, 100 * c[k].value);
        str_putc(s, '\n');
    }
    return SCA_OK;
}

static void markdown_head(str *s, const column *c, size_t n, const char *first, bool partial)
{
    str_put(s, first ? "|" : "");
    if (first) str_printf(s, " %s ", first);
    for (size_t i = 0; i < n; i++) str_printf(s, "| %s ", c[i].name);
    str_put(s, partial ? "| skipped (partial) |\n" : "|\n");
    for (size_t i = 0; i < n + (first != NULL) + partial; i++) str_put(s, "|---");
    str_put(s, "|\n");
}

static sca_status write_markdown(const score_set *set, const score_result *r, const score_options *o, str *s)
{
    column c[MOST_COLUMNS];
    size_t n = columns_of(r, c);
    markdown_head(s, c, n, NULL, o->partial);
    for (size_t i = 0; i < n; i++) str_printf(s, "| %.1f ", 100 * c[i].value);
    if (o->partial) str_printf(s, "| %zu ", set->skipped);
    str_put(s, "|\n");
    for (size_t i = 0; i < set->n && o->per_item; i++) {
        n = item_columns(r, i, c);
        if (i == 0) str_putc(s, '\n');
        if (i == 0) markdown_head(s, c, n, "_id", false);
        str_put(s, "| ");
        TRY(put_json_id(s, set->records[i].id));
        for (size_t k = 0; k < n; k++) str_printf(s, " | %.1f", 100 * c[k].value);
        str_put(s, " |\n");
    }
    return SCA_OK;
}

sca_status score_write(const score_set *s, const score_result *r, const score_options *o, str *out)
{
    sca_status status = o->format == SCORE_JSON       ? write_json(s, r, o, out)
                        : o->format == SCORE_MARKDOWN ? write_markdown(s, r, o, out)
                                                      : write_text(s, r, o, out);
    if (status == SCA_OK && out->failed) status = mem_fail(out->bytes, "scores");
    return status;
}

sca_status score_run(const score_options *o, str *out, str *notes)
{
    score_set *set = NULL;
    score_result result = { 0 };
    sca_status status = SCA_OK;
    TRY_GOTO(done, score_set_open(o, &set, notes));
    TRY_GOTO(done, score_compute(set, o, &result, notes));
    TRY_GOTO(done, score_write(set, &result, o, out));
    if (notes->failed) status = mem_fail(notes->bytes, "notes");
done:
    if (status != SCA_OK) str_clear(out);
    score_result_free(&result);
    score_set_close(set);
    return status;
}
