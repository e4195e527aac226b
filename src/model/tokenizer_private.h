/* tokenizer_private.h - what the tokenizer's files share; nothing outside src/model and its tests includes it.
 *
 * One text goes through these stages, each of which may be empty:
 *   bytes -> valid UTF-8 -> added tokens cut out -> normaliser -> added tokens again -> splitters -> model -> ids
 */
#ifndef TOKENIZER_PRIVATE_H
#define TOKENIZER_PRIVATE_H

#include "model/model.h"
#include "model/sentencepiece.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#define REPLACEMENT "\xef\xbf\xbd"  /* U+FFFD */
#define SPACE_SYMBOL "\xe2\x96\x81" /* U+2581, a space in SentencePiece vocabularies */
#define SPACE_SYMBOL_BYTES 3u
#define TOKENIZER_FILE_MOST ((size_t)256 << 20)

/* ---- tables (tokenizer_table.c) ------------------------------------------------------------------------ */

enum {
    TOKEN_PRESENT = 1,
    TOKEN_SPECIAL = 2, /* left out when decoding without special tokens */
    TOKEN_ADDED = 4,   /* cut out of the text before anything else */
    TOKEN_CONTROL = 8, /* SentencePiece: never made from text, decodes to nothing */
    TOKEN_UNKNOWN = 16,
    TOKEN_BYTE = 32,
    TOKEN_USER = 64,    /* SentencePiece: taken from the text whole, never merged */
    TOKEN_UNUSED = 128, /* SentencePiece: never made from text without the library */
    TOKEN_EXTRA = 256   /* one of additional_special_tokens */
};

typedef struct vocab_token {
    size_t offset; /* of its text in the vocabulary's blob */
    uint32_t bytes;
    uint32_t hash;
    float score;
    uint16_t flags;
    uint8_t byte; /* TOKEN_BYTE: which */
} vocab_token;

typedef struct vocab {
    vocab_token *tokens; /* by id */
    int size, cap;       /* ids 0..size-1; some may be absent until vocab_check */
    int64_t limit;       /* ids from here on are refused: more than the files have tokens */
    str blob;
    int32_t *slots; /* open addressing: id or -1 */
    size_t n_slots, used;
    uint32_t longest; /* bytes of the longest token */
} vocab;

sca_status vocab_put(vocab *v, int64_t id, const char *text, size_t bytes, const char *file);
int vocab_find(const vocab *v, const char *text, size_t bytes); /* -1: none */
const char *vocab_text(const vocab *v, int id);                 /* not 0-terminated */
sca_status vocab_check(const vocab *v, const char *file);       /* no id may be missing */
void vocab_free(vocab *v);

/* (left id, right id) -> (rank, merged id), or (node, byte) -> node of a trie. */
typedef struct pair_slot {
    uint64_t key;
    uint32_t rank, id;
} pair_slot;
typedef struct pair_table {
    pair_slot *slots;
    size_t n_slots, used;
} pair_table;

sca_status pair_put(pair_table *t, uint32_t left, uint32_t right, uint32_t rank, uint32_t id); /* replaces */
const pair_slot *pair_find(const pair_table *t, uint32_t left, uint32_t right);                /* NULL: none */
void pair_free(pair_table *t);

typedef struct int_list {
    int *data;
    size_t n, cap;
} int_list;
sca_status int_list_put(int_list *l, int id);

/* Like Python's errors="replace": one U+FFFD for each longest run that begins a character but does not end it. */
void put_lossy(str *s, const char *text, size_t bytes);
bool is_white_space(int32_t code);                    /* Unicode's White_Space */
sca_status str_check(const str *s, const char *what); /* SCA_ERR_MEMORY when it failed to grow */

/* ---- added tokens (tokenizer_added.c) ------------------------------------------------------------------ */

typedef struct added_token {
    int id;
    bool left_strip, right_strip, single_word, normalized;
} added_token;

typedef struct added_set { /* tokens found in one form of the text */
    pair_table trie;       /* node 0 is the root; rank of an edge: index of the token that ends there + 1, or 0 */
    uint32_t n_nodes;
    bool first[256]; /* bytes a token can begin with */
} added_set;

typedef struct added_match {
    size_t start, end; /* of the text that it replaces, stripped white space included */
    int index;         /* into tokenizer.added */
} added_match;

sca_status added_put(added_set *s, const char *text, size_t bytes, int index);
/* The longest token that begins at text[at], strip rules aside: its index, or -1. */
int added_longest(const added_set *s, const char *text, size_t bytes, size_t at, size_t *end);
/* The next match at or after `from`; false: none. */
bool added_next(const tokenizer *t, const added_set *s, const char *text, size_t bytes, size_t from,
                added_match *out);

/* ---- normaliser (tokenizer_normal.c) --------------------------------------------------------------------- */

typedef enum normal_kind {
    NORMAL_NFC,
    NORMAL_NFD,
    NORMAL_NFKC,
    NORMAL_NFKD,
    NORMAL_PREPEND,
    NORMAL_REPLACE
} normal_kind;
typedef struct normal_step {
    normal_kind kind;
    char *from, *to; /* PREPEND: to; REPLACE: every `from` becomes `to` */
} normal_step;

/* text -> out (cleared first). */
sca_status normal_apply(const normal_step *steps, int n, const char *text, size_t bytes, str *out);

/* ---- splitters (tokenizer_split.c) ----------------------------------------------------------------------- */

typedef enum split_kind {
    SPLIT_ISOLATED, /* matches and what lies between them are pieces */
    SPLIT_REMOVED,  /* matches vanish */
    SPLIT_INVERTED, /* REMOVED, inverted: only the matches stay */
    SPLIT_PREFIX,   /* a space in front unless there is one (ByteLevel with add_prefix_space) */
    SPLIT_METASPACE /* spaces become `replacement`, one is put in front, pieces begin with it */
} split_kind;

typedef struct split_step {
    split_kind kind;
    pcre2_code *code;
    bool jit;
    char *replacement; /* METASPACE */
    bool prepend, prepend_always,
        whole; /* METASPACE: in front of the text's beginning only / of every piece; not split */
} split_step;

#define SPLIT_STEPS_MOST 16
#define PATTERN_GPT2 "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"
#define PATTERN_DIGIT "\\p{N}"
#define PATTERN_DIGITS "\\p{N}+"

sca_status split_add(tokenizer *t, split_kind kind, const char *pattern_or_null, const char *file);
sca_status split_add_metaspace(tokenizer *t, const char *replacement, bool prepend, bool always, bool whole,
                               const char *file);
void split_free(split_step *s);

/* ---- the tokenizer --------------------------------------------------------------------------------------- */

typedef enum model_kind {
    MODEL_BPE_BYTES, /* symbols are bytes, written in GPT-2's alphabet */
    MODEL_BPE_CHARS, /* symbols are characters, perhaps with byte fallback */
    MODEL_SPM_LIBRARY,
    MODEL_SPM_SCORES /* SentencePiece's BPE over scores, for a vocabulary without its model file */
} model_kind;
typedef enum decode_kind { DECODE_BYTES, DECODE_SPM_FAST, DECODE_SPM_SLOW } decode_kind;

typedef struct spm_rules { /* of a SentencePiece model */
    bool dummy_prefix, remove_extra_spaces;
    bool byte_fallback;
    char *unknown_surface;
} spm_rules;

struct tokenizer {
    char *dir; /* NULL: from a GGUF file or memory */
    const char *files[8];
    model_kind model;
    decode_kind decode;
    vocab vocab;
    pair_table merges;
    int32_t byte_ids[256]; /* of each byte alone; -1: none */
    bool ignore_merges, fuse_unknown;
    spm *library;
    spm_rules rules;
    bool legacy, clean_up;
    bool keeps_first_space; /* DECODE_SPM_FAST */
    added_token *added;
    int n_added;
    added_set raw, normalized;
    normal_step *normal;
    int n_normal;
    split_step split[SPLIT_STEPS_MOST];
    int n_split;
    const char *split_pattern; /* of a GGUF file's GPT-2 family, static; NULL: of files */
    bool split_digits;         /* before it, every digit is made to stand alone */
    int_list before, after;    /* ids around every text */
    int bos, eos, unknown, pad;
    int model_unknown; /* what a symbol outside the vocabulary becomes; -1: nothing */
    int model_size;    /* ids of the model without those added to it */
};

/* Scratch of one encode call. */
typedef struct encoder {
    const tokenizer *t;
    int_list ids;
    str clean, normal, scratch[SPLIT_STEPS_MOST];
    pcre2_match_data *match[SPLIT_STEPS_MOST];
    pcre2_match_context *context;
    void *symbols, *heap; /* of the model, kept from word to word */
    size_t n_symbols, n_heap;
    int_list word;        /* symbols of a word */
    bool text_begins;     /* the segment at hand is the first of the text */
    bpe_learner *learner; /* takes the words in place of the model; NULL: none */
} encoder;
void encoder_free(encoder *e);

/* Sends the pieces of a normalised segment to model_encode. */
sca_status split_run(encoder *e, int step, const char *text, size_t bytes);
sca_status model_encode(encoder *e, const char *text, size_t bytes); /* tokenizer.c */

/* ---- byte-level BPE (tokenizer_bpe.c) --------------------------------------------------------------------- */

sca_status bpe_prepare(tokenizer *t); /* byte_ids, once the vocabulary is whole */
sca_status bpe_add_merge(tokenizer *t, uint32_t rank, const char *left, size_t left_bytes, const char *right,
                         size_t right_bytes, const char *where);
sca_status bpe_add_line(tokenizer *t, uint32_t rank, const char *line, size_t bytes, const char *where);
sca_status bpe_encode(encoder *e, const char *text, size_t bytes);
/* Merges e->word in place; both give the same ids, the first in quadratic time without a heap. */
void bpe_merge_short(const pair_table *merges, int_list *word);
sca_status bpe_merge_long(encoder *e);
int bpe_write_byte(int byte, char out[8]); /* in GPT-2's alphabet; bytes written */
int bpe_rank_of_byte(int byte);            /* place in that alphabet, 0 to 255 */
void bpe_put_bytes(const tokenizer *t, int id,
                   str *out); /* the bytes that a token of GPT-2's alphabet stands for */

sca_status bpe_learner_word(bpe_learner *l, const char *text, size_t bytes); /* tokenizer_learn.c */

/* ---- SentencePiece (tokenizer_spm.c, tokenizer_model.c) ----------------------------------------------------- */

/* Reads and checks a model file (the library trusts its input); fills the vocabulary and the rules. */
sca_status spm_read(tokenizer *t, const uint8_t *data, size_t bytes, const char *file);
/* The library recurses once for each byte of user-defined and unused pieces: their length is a matter of stack. */
#define SPM_DEEP_PIECE_MOST 512
/* Finds the byte tokens, after types are known. */
sca_status spm_prepare(tokenizer *t, const char *file);
sca_status spm_encode_segment(encoder *e, const char *text,
                              size_t bytes); /* the library, with transformers' rules */
sca_status spm_encode_scores(encoder *e, const char *text, size_t bytes);
void spm_decode_fast(const tokenizer *t, const int *ids, size_t n, str *out);
void spm_decode_slow(const tokenizer *t, const int *ids, size_t n, str *out);

/* ---- files (tokenizer_json.c, tokenizer_special.c) ---------------------------------------------------------- */

enum { FILE_MODEL, FILE_JSON, FILE_VOCAB, FILE_MERGES, FILE_ADDED, FILE_SPECIAL, FILE_CONFIG, FILE_COUNT };
extern const char *const tokenizer_file_names[FILE_COUNT];

typedef struct tokenizer_source { /* the files of a directory, in memory */
    const char *data[FILE_COUNT]; /* NULL: absent */
    size_t bytes[FILE_COUNT];
    char *names[FILE_COUNT]; /* for messages */
} tokenizer_source;

typedef struct special_names {    /* what the two small files say */
    json_t *config, *map, *added; /* NULL: absent */
    const char *class_name;       /* "" if not said */
    const char *config_file, *map_file, *added_file;
} special_names;

sca_status tokenizer_build(const tokenizer_source *s, tokenizer **out);
/* Reads the small files of s. special_close releases what was read, also after a failure. */
sca_status special_open(const tokenizer_source *s, special_names *out);
/* add_prefix_space of GPT-2's classes, which overrides tokenizer.json; -1: not their business. */
int special_prefix_space(const special_names *n);
void special_close(special_names *n);
int64_t special_count(const special_names *n); /* most tokens that these files can add */
/* Adds their tokens, finds BOS, EOS, unknown and padding, and sets how ids are decoded. */
sca_status special_apply(tokenizer *t, const special_names *n);
/* BOS and EOS around texts; tokenizer.json says that itself. */
sca_status special_surround(tokenizer *t, const special_names *n);
/* Marks a token as cut out of the text. An `id` below 0: wherever it is in the vocabulary, else a new one. */
sca_status tokenizer_add(tokenizer *t, int64_t id, const char *text, size_t bytes, const added_token *how,
                         unsigned flags, const char *file);
sca_status tokenizer_add_json(tokenizer *t, int64_t id, const json_t *object, const char *file);
sca_status tokenizer_read_json(tokenizer *t, const json_t *root, const special_names *n, const char *file);
/* {"text": id, ...} into the vocabulary. */
sca_status tokenizer_read_vocab(tokenizer *t, const json_t *object, const char *file);
sca_status tokenizer_new(tokenizer **out);
/* Builds the tries, once all tokens are known. */
sca_status tokenizer_finish(tokenizer *t, const char *file);

#endif
