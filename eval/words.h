/* words.h - words and their numbers; private to eval/. */
#ifndef SCA_EVAL_WORDS_H
#define SCA_EVAL_WORDS_H

#include "eval/eval.h"

/* Words numbered from 0 in order of first use. Zero-initialise; lexicon_free when done. */
typedef struct lexicon_slot {
    uint32_t hash;
    int32_t id; /* plus 1; 0: free */
} lexicon_slot;
typedef struct lexicon {
    texts words;
    lexicon_slot *slots;
    size_t n_slots;
} lexicon;
/* The number of a word, new or known. text need not be 0-terminated; without 0 bytes. */
sca_status lexicon_add(lexicon *v, const char *text, size_t bytes, int32_t *id);
int32_t lexicon_find(const lexicon *v, const char *text, size_t bytes); /* -1 when unknown */
void lexicon_free(lexicon *v);

uint64_t words_hash(const char *text, size_t bytes);

/* Walks the words of a text split at (Unicode) white space. Start with *at = text, *bytes = 0; false at the end. */
bool words_next(const char **at, size_t *bytes);

#endif
