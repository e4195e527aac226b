/* grams.h - the n-grams of all captions of a file; private to eval/. */
#ifndef SCA_EVAL_GRAMS_H
#define SCA_EVAL_GRAMS_H

#include "eval/eval.h"

enum { GRAM_ORDERS = 4 };

/* One distinct n-gram of a caption. `id` numbers the n-grams of the file; orders are mixed. */
typedef struct gram {
    int32_t id, count;
} gram;

/* One caption: its distinct n-grams, ascending by id. */
typedef struct gram_caption {
    size_t first, n; /* in grams.all */
    size_t words;
} gram_caption;

struct grams {
    size_t n_items;
    size_t *item; /* n_items + 1: the captions of item i are item[i] (hypothesis) to item[i + 1] - 1 */
    gram_caption *captions;
    size_t n_captions;
    gram *all;
    size_t n_all, cap_all;
    uint8_t *order; /* per id: 0 for words, 3 for four-grams */
    size_t n_ids, cap_ids;
};

#endif
