/* tokenizer_learn.c - learns a byte-level BPE vocabulary from texts.
 *
 * The words of GPT-2's split pattern begin as bytes; the most frequent pair of neighbours becomes a token, again and
 * again (Sennrich et al. 2016, "Neural Machine Translation of Rare Words with Subword Units"). Of equally frequent
 * pairs the one of smaller ids wins and a pair must be there twice, as in Hugging Face's tokenizers (BpeTrainer), which
 * gives the same merges. Ids as in GPT-2: the 256 bytes in the order of its alphabet, the merges, <|endoftext|>.
 */
#include "model/tokenizer_private.h"

#include <string.h>

#define END_OF_TEXT "<|endoftext|>"
#define LEAST_SIZE 257
#define MOST_SIZE (1 << 20)

typedef struct word {
    size_t start; /* of its symbols */
    uint32_t n;
    int64_t count;
} word;

typedef struct pair { /* two neighbours and how often they are there */
    int left, right;
    int64_t count;
} pair;

struct bpe_learner {
    tokenizer split; /* only its splitter is used */
    encoder e;
    int size;
    vocab seen; /* words by text; an id is an index of words */
    word *words;
    size_t cap_words;
    int *symbols;
    pair *pairs;
    size_t n_pairs, cap_pairs;
    pair_table index; /* of pairs */
    vocab tokens;
    str merges;
};

sca_status bpe_learner_open(int size, bpe_learner **out)
{
    *out = NULL;
    if (size < LEAST_SIZE || size > MOST_SIZE)
        return status_fail(SCA_ERR_ARGUMENT, "a vocabulary of %d tokens, expected %d (all bytes and %s) to %d",
                           size, LEAST_SIZE, END_OF_TEXT, MOST_SIZE);
    bpe_learner *l = mem_zero(1, sizeof *l);
    if (!l) return mem_fail(sizeof *l, "a vocabulary");
    l->size = size;
    l->seen.limit = INT32_MAX / 2;
    l->tokens.limit = size;
    l->e = (encoder){ .t = &l->split, .learner = l };
    sca_status status = split_add(&l->split, SPLIT_ISOLATED, PATTERN_GPT2, "the vocabulary");
    if (status != SCA_OK) {
        bpe_learner_close(l);
        return status;
    }
    *out = l;
    return SCA_OK;
}

void bpe_learner_close(bpe_learner *l)
{
    if (!l) return;
    encoder_free(&l->e);
    for (int i = 0; i < l->split.n_split; i++) split_free(&l->split.split[i]);
    vocab_free(&l->seen);
    vocab_free(&l->tokens);
    pair_free(&l->index);
    str_free(&l->merges);
    mem_free(l->words);
    mem_free(l->symbols);
    mem_free(l->pairs);
    mem_free(l);
}

/* ---- counting words ------------------------------------------------------------------------------------- */

sca_status bpe_learner_word(bpe_learner *l, const char *text, size_t bytes)
{
    int id = vocab_find(&l->seen, text, bytes);
    if (id >= 0) {
        l->words[id].count++;
        return SCA_OK;
    }
    id = l->seen.size;
    if ((size_t)id == l->cap_words) {
        size_t cap = l->cap_words ? 2 * l->cap_words : 1024;
        word *more = mem_resize(l->words, cap * sizeof *more);
        if (!more) return mem_fail(cap * sizeof *more, "the words of a vocabulary");
        l->words = more;
        l->cap_words = cap;
    }
    l->words[id] = (word){ .count = 1 };
    return vocab_put(&l->seen, id, text, bytes, "the vocabulary's texts");
}

sca_status bpe_learner_add(bpe_learner *l, const char *text, size_t bytes)
{
    if (!utf8_valid(text, bytes)) {
        str_clear(&l->e.clean);
        put_lossy(&l->e.clean, text, bytes);
        TRY(str_check(&l->e.clean, "a text"));
        text = str_text(&l->e.clean);
        bytes = l->e.clean.bytes;
    }
    return split_run(&l->e, 0, text, bytes);
}

/* ---- counting pairs ------------------------------------------------------------------------------------- */

static sca_status count_pair(bpe_learner *l, int left, int right, int64_t by)
{
    const pair_slot *at = pair_find(&l->index, (uint32_t)left, (uint32_t)right);
    if (at) {
        l->pairs[at->id].count += by;
        return SCA_OK;
    }
    if (l->n_pairs == l->cap_pairs) {
        size_t cap = l->cap_pairs ? 2 * l->cap_pairs : 4096;
        pair *more = mem_resize(l->pairs, cap * sizeof *more);
        if (!more) return mem_fail(cap * sizeof *more, "the pairs of a vocabulary");
        l->pairs = more;
        l->cap_pairs = cap;
    }
    l->pairs[l->n_pairs] = (pair){ left, right, by };
    return pair_put(&l->index, (uint32_t)left, (uint32_t)right, 0, (uint32_t)l->n_pairs++);
}

static sca_status count_word(bpe_learner *l, const word *w, int64_t by)
{
    const int *s = l->symbols + w->start;
    for (uint32_t i = 0; i + 1 < w->n; i++) TRY(count_pair(l, s[i], s[i + 1], by));
    return SCA_OK;
}

/* Words as bytes, and every pair of them counted. */
static sca_status begin(bpe_learner *l)
{
    size_t total = 0;
    for (int i = 0; i < l->seen.size; i++) total += l->seen.tokens[i].bytes;
    l->symbols = mem_alloc((total + 1) * sizeof *l->symbols);
    if (!l->symbols) return mem_fail((total + 1) * sizeof *l->symbols, "the words of a vocabulary");
    size_t at = 0;
    for (int i = 0; i < l->seen.size; i++) {
        const char *text = vocab_text(&l->seen, i);
        l->words[i].start = at;
        l->words[i].n = l->seen.tokens[i].bytes;
        for (uint32_t k = 0; k < l->words[i].n; k++) l->symbols[at++] = bpe_rank_of_byte((uint8_t)text[k]);
        TRY(count_word(l, &l->words[i], l->words[i].count));
    }
    return SCA_OK;
}

static const pair *best_pair(const bpe_learner *l)
{
    const pair *best = NULL;
    for (size_t i = 0; i < l->n_pairs; i++) {
        const pair *p = &l->pairs[i];
        if (best && (p->count < best->count ||
                     (p->count == best->count &&
                      (p->left > best->left || (p->left == best->left && p->right > best->right)))))
            continue;
        best = p;
    }
    return best && best->count >= 2 ? best : NULL;
}

static bool holds(const int *s, uint32_t n, pair p)
{
    for (uint32_t i = 0; i + 1 < n; i++)
        if (s[i] == p.left && s[i + 1] == p.right) return true;
    return false;
}

static sca_status merge(bpe_learner *l, pair p, int id)
{
    for (int w = 0; w < l->seen.size; w++) {
        word *at = &l->words[w];
        int *s = l->symbols + at->start;
        if (!holds(s, at->n, p)) continue;
        TRY(count_word(l, at, -at->count));
        uint32_t n = 0;
        for (uint32_t i = 0; i < at->n; i++) {
            bool pair_here = i + 1 < at->n && s[i] == p.left && s[i + 1] == p.right;
            s[n++] = pair_here ? id : s[i];
            i += pair_here;
        }
        at->n = n;
        TRY(count_word(l, at, at->count));
    }
    return SCA_OK;
}

/* ---- learning ------------------------------------------------------------------------------------------- */

static sca_status put_alphabet(bpe_learner *l)
{
    for (int b = 0; b < 256; b++) {
        char text[8];
        int n = bpe_write_byte(b, text);
        TRY(vocab_put(&l->tokens, bpe_rank_of_byte(b), text, (size_t)n, "the vocabulary"));
    }
    return SCA_OK;
}

/* The pair as a line of merges.txt and as a token, which another pair may have made before. */
static sca_status put_merge(bpe_learner *l, pair p, int *id)
{
    const char *left = vocab_text(&l->tokens, p.left), *right = vocab_text(&l->tokens, p.right);
    size_t left_bytes = l->tokens.tokens[p.left].bytes, right_bytes = l->tokens.tokens[p.right].bytes;
    str joined = { 0 };
    str_put_bytes(&joined, left, left_bytes);
    str_put_bytes(&joined, right, right_bytes);
    str_put_bytes(&l->merges, left, left_bytes);
    str_putc(&l->merges, ' ');
    str_put_bytes(&l->merges, right, right_bytes);
    str_putc(&l->merges, '\n');
    sca_status status = str_check(&joined, "a token");
    if (status == SCA_OK) status = str_check(&l->merges, "the merges");
    if (status == SCA_OK) {
        *id = vocab_find(&l->tokens, str_text(&joined), joined.bytes);
        if (*id < 0) {
            *id = l->tokens.size;
            status = vocab_put(&l->tokens, *id, str_text(&joined), joined.bytes, "the vocabulary");
        }
    }
    str_free(&joined);
    return status;
}

static sca_status learn(bpe_learner *l)
{
    TRY(put_alphabet(l));
    TRY(begin(l));
    str_put(&l->merges, "#version: 0.2\n");
    while (l->tokens.size + 1 < l->size) {
        const pair *best = best_pair(l);
        if (!best) break;
        pair p = *best;
        int id = 0;
        TRY(put_merge(l, p, &id));
        TRY(merge(l, p, id));
    }
    return vocab_put(&l->tokens, l->tokens.size, END_OF_TEXT, strlen(END_OF_TEXT), "the vocabulary");
}

static sca_status write_text(const char *dir, const char *name, const str *text)
{
    TRY(str_check(text, name));
    char *path = path_join(dir, name);
    if (!path) return mem_fail(strlen(dir), "a path");
    sca_status status = file_write(path, str_text(text), text->bytes);
    mem_free(path);
    return status;
}

static sca_status write_vocabulary(const bpe_learner *l, const char *dir)
{
    str text = { 0 };
    for (int id = 0; id < l->tokens.size; id++) {
        str_put(&text, id ? ", " : "{");
        json_put_text(&text, vocab_text(&l->tokens, id), l->tokens.tokens[id].bytes);
        str_printf(&text, ": %d", id);
    }
    str_put(&text, "}\n");
    sca_status status = write_text(dir, "vocab.json", &text);
    str_free(&text);
    return status;
}

static sca_status write_config(const char *dir)
{
    str text = { 0 };
    str_put(&text, "{\"add_prefix_space\": false, \"bos_token\": \"" END_OF_TEXT "\", \"eos_token\": \"" END_OF_TEXT
                   "\", \"unk_token\": \"" END_OF_TEXT
                   "\", \"model_max_length\": 20, \"tokenizer_class\": \"GPT2Tokenizer\"}\n");
    sca_status status = write_text(dir, "tokenizer_config.json", &text);
    str_free(&text);
    return status;
}

sca_status bpe_learner_save(bpe_learner *l, const char *dir, int *size)
{
    if (l->symbols) return status_fail(SCA_ERR_STATE, "%s: the vocabulary has been saved before", dir);
    if (l->seen.size == 0)
        return status_fail(SCA_ERR_STATE, "%s: no text to learn a vocabulary from; give at least one", dir);
    TRY(learn(l));
    TRY(dir_make(dir));
    TRY(write_vocabulary(l, dir));
    TRY(write_text(dir, "merges.txt", &l->merges));
    TRY(write_config(dir));
    *size = l->tokens.size;
    return SCA_OK;
}
