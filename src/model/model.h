/* model.h - layer 4: every model's parameters and entry points. */
#ifndef MODEL_H
#define MODEL_H

#include "base/base.h"

/* ---- tokenizers (tokenizer.c) ------------------------------------------------------------------------ */

/* Byte-level BPE (vocab.json + merges.txt, or tokenizer.json) and SentencePiece (tokenizer.model). Immutable after
 * opening; encode and decode may run in several threads. Sources: data.md 5, eval.md 2.4. */
typedef struct tokenizer tokenizer;

typedef struct tokenizer_gguf { /* what a GGUF file says of its tokeniser; pointers are borrowed during the call only */
    const char *model;          /* "gpt2" or "llama" */
    const char *pre;            /* pre-tokeniser name, "" if none: "smollm", "gpt-2", ... */
    const char *const *tokens;  /* (n_tokens) UTF-8, byte-level alphabet for gpt2 */
    const size_t *token_bytes;
    const float *scores;        /* (n_tokens) or NULL */
    const int32_t *types;       /* (n_tokens) or NULL: 1 normal, 2 unknown, 3 control, 4 user, 6 byte */
    size_t n_tokens;
    const char *const *merges;  /* "left right" */
    size_t n_merges;
    int64_t bos, eos, unknown, pad; /* -1: none */
    int add_bos;                /* -1: not said */
    const char *name;           /* file, for messages */
} tokenizer_gguf;

sca_status tokenizer_open(const char *dir, tokenizer **out);
sca_status tokenizer_from_gguf(const tokenizer_gguf *g, tokenizer **out);
/* Token ids as the official call tokenizer(text) gives them; train: cut to 18 ids, then EOS (data.md 5).
 * *ids: mem_free. */
sca_status tokenizer_encode(const tokenizer *t, const char *text, size_t bytes, bool train, int **ids, int *n);
/* with_special false: drops special tokens, then cleans up as eval.md 2.4. *text: mem_free, valid UTF-8. */
sca_status tokenizer_decode(const tokenizer *t, const int *ids, int n, bool with_special, char **text);
int tokenizer_size(const tokenizer *t); /* number of ids, added tokens included */
int tokenizer_bos(const tokenizer *t);  /* -1: none */
int tokenizer_eos(const tokenizer *t);
/* Files of the tokenizer that a model directory needs (names relative to dir), for export; NULL-terminated. */
const char *const *tokenizer_files(const tokenizer *t);
const char *tokenizer_dir(const tokenizer *t); /* where they are; NULL when it came from a GGUF file */
void tokenizer_close(tokenizer *t);

#endif
