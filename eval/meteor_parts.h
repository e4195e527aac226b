/* meteor_parts.h - METEOR's data file, words and aligner; private to eval/. */
#ifndef SCA_EVAL_METEOR_PARTS_H
#define SCA_EVAL_METEOR_PARTS_H

#include "eval/eval.h"
#include "eval/words.h"

/* ---- the data file (meteor_data.c; written by meteor_make.c) --------------------------------
 *
 * A header, then sections, each aligned to 8 bytes; little endian. Word lists are sorted by bytes: the texts with
 * their closing 0, and the offset of each. Paraphrases are a tree: the path to a node spells a phrase A, the
 * entries of the node are its phrases B in the order of the table. Nodes are numbered by level, so that the
 * children of node i are child[i] to child[i + 1] - 1, ascending by word; node 0 is the root. */

enum { METEOR_MAX_PHRASE = 7, METEOR_NONE = 0xFFFF };

typedef enum meteor_list {
    LIST_FUNCTION,
    LIST_PREFIX,
    LIST_NUMERIC,
    LIST_SYNSET,
    LIST_FORM,
    LIST_PHRASE,
    N_LISTS
} meteor_list;
typedef enum meteor_array {
    ARRAY_SYNSET_FIRST = 2 * N_LISTS, /* u32, per word of LIST_SYNSET and one more: where its synsets begin  */
    ARRAY_SYNSET,                     /* u32 synset numbers                                                 */
    ARRAY_FORM_FIRST,                 /* u32, per word of LIST_FORM and one more: where its base forms begin */
    ARRAY_FORM_BASE,                  /* u32 indices into LIST_SYNSET                                       */
    ARRAY_NODE_WORD,                  /* u16 index into LIST_PHRASE                                         */
    ARRAY_NODE_CHILD,                 /* u32, one more than nodes                                           */
    ARRAY_NODE_ENTRY,                 /* u32, one more than nodes: first entry                              */
    ARRAY_NODE_IDS,                   /* u32, one more than nodes: where the words of its entries begin     */
    ARRAY_ENTRY_LENGTH,               /* u8                                                                 */
    ARRAY_ENTRY_IDS,                  /* u16 indices into LIST_PHRASE                                       */
    N_SECTIONS
} meteor_array;
/* Sections 2 * list: u32 offset of each word; 2 * list + 1: the texts. */

typedef struct meteor_section {
    uint64_t offset, bytes;
} meteor_section;
typedef struct meteor_header {
    char magic[8];
    uint32_t has_phrases; /* 0: made without the paraphrase table */
    uint32_t crc;         /* of everything behind the header */
    meteor_section section[N_SECTIONS];
} meteor_header;
#define METEOR_MAGIC "SCAmetr1"

typedef struct word_list {
    const uint32_t *at;
    const char *text;
    size_t n;
} word_list;
typedef struct meteor_data {
    file_view file;
    bool has_phrases;
    word_list list[N_LISTS];
    const uint32_t *synset_first, *synset, *form_first, *form_base, *child, *entry, *ids;
    const uint16_t *node_word, *entry_ids;
    const uint8_t *entry_length;
    size_t n_nodes;
} meteor_data;
sca_status meteor_data_open(const char *path, meteor_data *out);
void meteor_data_close(meteor_data *d);
/* The index of a word, or -1. */
int64_t word_list_find(const word_list *l, const char *word);

/* ---- words (meteor_words.c) ---------------------------------------------------------------- */

/* What is known of a distinct word. */
typedef struct word_facts {
    int32_t stem;
    uint32_t synset, n_synsets; /* ascending, in meteor_words.synsets */
    uint64_t marks;             /* one bit per synset, hashed: no common bit, no common synset */
    uint16_t phrase_word;       /* index into LIST_PHRASE or METEOR_NONE */
    bool function;
} word_facts;

typedef struct meteor_words {
    const meteor_data *data;
    struct sb_stemmer *stemmer;
    lexicon words, stems;
    word_facts *facts;
    size_t n_facts, cap_facts;
    uint32_t *synsets;
    size_t n_synsets, cap_synsets;
    int32_t *code, *spare; /* the text being normalised */
    size_t cap_code;
    str line, word;
} meteor_words;
sca_status meteor_words_open(const meteor_data *data, meteor_words *out);
void meteor_words_close(meteor_words *w);
/* -norm and lower-casing: words joined by single spaces. *line is valid until the next call. */
sca_status meteor_normalise(meteor_words *w, const char *text, const char **line);
/* The synset set of a text: its own and those of its base form, ascending and distinct, appended to w->synsets. */
sca_status meteor_synsets(meteor_words *w, const char *word, uint32_t *first, uint32_t *n);

/* One normalised text; ids borrowed. */
typedef struct meteor_text {
    const int32_t *id;
    size_t n;
} meteor_text;
/* Number of a word, its facts filled in. */
sca_status meteor_word(meteor_words *w, const char *word, size_t bytes, int32_t *id);

/* A METEOR lends its words to SPICE. */
meteor_words *meteor_lend_words(meteor *m);

/* ---- aligner (meteor_align.c) -------------------------------------------------------------- */

typedef struct meteor_aligner meteor_aligner; /* used by one thread at a time; many may share the words */
sca_status meteor_aligner_open(const meteor_words *w, meteor_aligner **out);
void meteor_aligner_close(meteor_aligner *a);
/* The 23 statistics of hypothesis t against reference r. */
sca_status meteor_align(meteor_aligner *a, meteor_text t, meteor_text r, meteor_stats *out);

#endif
