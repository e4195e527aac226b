/* score_parts.h - sets of items between the parts of score; private to eval/. */
#ifndef SCA_EVAL_SCORE_PARTS_H
#define SCA_EVAL_SCORE_PARTS_H

#include "eval/eval.h"
#include "eval/words.h"

typedef struct score_record {
    json_t *id;               /* owned */
    size_t hyp;               /* in score_set.hyps */
    size_t first_ref, n_refs; /* in score_set.refs */
    bool several;             /* had more than one candidate */
} score_record;

struct score_set {
    texts hyps, refs;
    score_record *records;
    size_t n, cap;
    lexicon keys; /* of ids: record i has key i */
    size_t skipped;
    ptb_version tokenizer;
};

/* A name for an id: equal for equal ids, numbers and strings apart. Any other type is an error. */
sca_status score_key(const json_t *id, const char *file, str *key);
/* Hands over every element of a JSON list, or of JSON Lines. */
sca_status score_each(const char *path, json_item_fn *fn, void *user);

/* Mean of SPICE and its value per item. hyps, refs: tokens; raw: the same captions before (spice_read.c). */
typedef struct spice_texts {
    const eval_item *tokens, *raw;
    size_t n;
} spice_texts;
sca_status spice_from_file(meteor *m, const char *path, const spice_texts *t, double *mean, double *per_item);
sca_status spice_from_command(const char *command, const spice_texts *t, double *mean, double *per_item);

#endif
