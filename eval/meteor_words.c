/* meteor_words.c - METEOR's normaliser, and what it knows of words: stems, synonyms, function words. */
#include "eval/meteor_parts.h"

#include <libstemmer.h>
#include <string.h>
#include <utf8proc.h>

/* ---- classes of characters (metrics.md 6.3) ------------------------------------------------ */

enum { HELD_DOT = -'.' }; /* a dot of an ellipsis, exempt from the rules for dots */

static bool in_range(int32_t c, int32_t first, int32_t last) { return c >= first && c <= last; }

static bool is_letter(int32_t c)
{
    if (c < 0x80) return in_range(c | 32, 'a', 'z') && c >= 'A';
    return in_range(c, 0xC0, 0xD6) || in_range(c, 0xD8, 0xF6) || in_range(c, 0xF8, 0x17E) || c == 0x178 ||
           in_range(c, 0x400, 0x527) || in_range(c, 0xA640, 0xA66E) || in_range(c, 0xA67E, 0xA697) ||
           in_range(c, 0x1D00, 0x1D7F);
}

static bool is_digit(int32_t c) { return in_range(c, '0', '9'); }
static bool is_alnum(int32_t c) { return is_letter(c) || is_digit(c); }
static bool is_blank(int32_t c) { return c == ' ' || in_range(c, '\t', '\r'); }
static bool no_letter(int32_t c) { return !is_letter(c); }
static bool no_digit(int32_t c) { return !is_digit(c); }
static bool no_alnum(int32_t c) { return !is_alnum(c); }
static bool is_joint(int32_t c) { return is_alnum(c) || c == '.'; }
static bool is_s(int32_t c) { return c == 's'; }

static bool is_special(int32_t c)
{
    bool plain = is_alnum(c) || is_blank(c) || c == '.' || c == '\'' || c == '`' || c == ',' || c == '-';
    return !plain && c != 0x2018 && c != 0x2019 && c != HELD_DOT;
}

/* A word ends here: space, tab, LF, CR, FF; not VT. */
static bool ends_word(int32_t c) { return is_blank(c) && c != '\v'; }

/* ---- passes: from w->code to w->spare and back --------------------------------------------- */

/* No pass makes a text longer than three times its length; only few passes can. */
static sca_status code_room(meteor_words *w, size_t n)
{
    size_t wanted = 3 * n + 16;
    if (wanted <= w->cap_code) return SCA_OK;
    int32_t *code = mem_resize(w->code, wanted * sizeof *code);
    if (!code) return mem_fail(wanted * sizeof *code, "caption");
    w->code = code;
    int32_t *spare = mem_resize(w->spare, wanted * sizeof *spare);
    if (!spare) return mem_fail(wanted * sizeof *spare, "caption");
    w->spare = spare, w->cap_code = wanted;
    return SCA_OK;
}

static void swap(meteor_words *w)
{
    int32_t *code = w->code;
    w->code = w->spare, w->spare = code;
}

static bool has(const meteor_words *w, size_t n, int32_t c)
{
    for (size_t i = 0; i < n; i++)
        if (w->code[i] == c) return true;
    return false;
}

typedef bool class_fn(int32_t c);

/* Where `before` c `after` stands, c becomes [blank] with [blank]; matches do not overlap, their ends are consumed.
 */
static sca_status pass(meteor_words *w, size_t *n, class_fn *before, int32_t c, class_fn *after, const char *with)
{
    if (!has(w, *n, c)) return SCA_OK;
    TRY(code_room(w, *n));
    size_t out = 0, i = 0;
    while (i < *n) {
        bool match = i + 2 < *n && before(w->code[i]) && w->code[i + 1] == c && after(w->code[i + 2]);
        w->spare[out++] = w->code[i++];
        if (!match) continue;
        for (const char *p = with; *p; p++) w->spare[out++] = (unsigned char)*p;
        w->spare[out++] = w->code[i + 1];
        i += 2;
    }
    swap(w);
    *n = out;
    return SCA_OK;
}

/* Step 1 to 3: the text as code points with blanks around special characters and runs of dots. */
static sca_status decode(meteor_words *w, const char *text, size_t bytes, size_t *n)
{
    TRY(code_room(w, bytes + 2));
    size_t out = 0;
    w->code[out++] = ' ';
    for (size_t i = 0; i < bytes;) {
        int32_t c = utf8_next(text, bytes, &i);
        if (c < 0) c = 0xFFFD;
        bool special = is_special(c);
        size_t dots = 1;
        if (c == '.')
            while (i < bytes && text[i] == '.') i++, dots++;
        if (special || dots > 1) w->code[out++] = ' ';
        for (size_t k = 0; k < dots; k++) w->code[out++] = dots > 1 ? HELD_DOT : c;
        if (special || dots > 1) w->code[out++] = ' ';
    }
    w->code[out++] = ' ';
    *n = out;
    return SCA_OK;
}

/* Replaces pairs `c c` by `with`, between blanks if asked for. */
static sca_status join_pairs(meteor_words *w, size_t *n, int32_t c, int32_t with, bool blanks)
{
    if (!has(w, *n, c)) return SCA_OK;
    TRY(code_room(w, *n));
    size_t out = 0;
    for (size_t i = 0; i < *n; i++) {
        bool pair = w->code[i] == c && i + 1 < *n && w->code[i + 1] == c;
        if (pair && blanks) w->spare[out++] = ' ';
        w->spare[out++] = pair ? with : w->code[i];
        if (pair && blanks) w->spare[out++] = ' ';
        i += pair;
    }
    swap(w);
    *n = out;
    return SCA_OK;
}

static sca_status passes(meteor_words *w, size_t *n)
{
    TRY(pass(w, n, no_digit, ',', no_digit, " , "));
    TRY(pass(w, n, is_digit, ',', no_digit, " , "));
    TRY(pass(w, n, no_digit, ',', is_digit, " , "));
    for (size_t i = 0; i < *n; i++) {
        int32_t c = w->code[i];
        if (c == '`' || c == 0x2018 || c == 0x2019) w->code[i] = '\'';
        if (c == 0x201C || c == 0x201D) w->code[i] = '"'; /* blanks stand around it already */
        if (c == 0x2013) w->code[i] = '-';
    }
    TRY(join_pairs(w, n, '\'', '"', true));
    TRY(join_pairs(w, n, '-', '-', false));
    TRY(pass(w, n, is_joint, '-', is_alnum, " "));
    TRY(pass(w, n, no_letter, '\'', no_letter, " ' "));
    TRY(pass(w, n, no_alnum, '\'', is_letter, " ' "));
    TRY(pass(w, n, is_letter, '\'', no_letter, " ' "));
    TRY(pass(w, n, is_letter, '\'', is_letter, " '"));
    return pass(w, n, is_digit, '\'', is_s, " '");
}

/* ---- step 9: dots at the end of words ------------------------------------------------------ */

static bool is_listed(const meteor_words *w, meteor_list list, const int32_t *word, size_t n)
{
    char text[64];
    size_t bytes = 0;
    for (size_t i = 0; i < n; i++) {
        if (bytes + 5 > sizeof text || word[i] <= 0) return false;
        bytes += utf8_put(word[i], text + bytes);
    }
    text[bytes] = 0;
    return word_list_find(&w->data->list[list], text) >= 0;
}

typedef enum dot_rule { DOT_KEEP, DOT_SPLIT, DOT_DELETE } dot_rule;

/* What happens to the final dot of word[0..n]; next: what follows the blanks behind it, 0 at the end. */
static dot_rule final_dot(const meteor_words *w, const int32_t *word, size_t n, int32_t next)
{
    bool dot = false, letter = false;
    for (size_t i = 0; i < n; i++) dot |= word[i] == '.', letter |= is_letter(word[i]);
    if (dot && letter) return DOT_DELETE;
    if (in_range(next, 'a', 'z') || is_listed(w, LIST_PREFIX, word, n)) return DOT_KEEP;
    return is_digit(next) && is_listed(w, LIST_NUMERIC, word, n) ? DOT_KEEP : DOT_SPLIT;
}

static void dots(meteor_words *w, size_t *n)
{
    size_t out = 0;
    for (size_t i = 0; i < *n;) {
        while (i < *n && ends_word(w->code[i])) i++;
        size_t start = i;
        while (i < *n && !ends_word(w->code[i])) i++;
        size_t length = i - start, next = i;
        const int32_t *word = w->code + start;
        if (!length) break;
        while (next < *n && ends_word(w->code[next])) next++;
        dot_rule rule = DOT_KEEP;
        if (length > 1 && word[length - 1] == '.')
            rule = final_dot(w, word, length - 1, next < *n ? w->code[next] : 0);
        for (size_t k = 0; k < length; k++) {
            if (rule == DOT_DELETE && word[k] == '.') continue;
            if (rule == DOT_SPLIT && k + 1 == length) w->spare[out++] = ' ';
            w->spare[out++] = word[k] == HELD_DOT ? '.' : word[k];
        }
        w->spare[out++] = ' ';
    }
    swap(w);
    *n = out;
}

/* ---- step 10 ------------------------------------------------------------------------------- */

static bool is_space(int32_t c)
{
    return c == ' ' || c == 0xA0 || in_range(c, 0x2000, 0x200A) || c == 0x202F || c == 0x205F || c == 0x3000;
}

static void put_lower(str *s, int32_t c)
{
    char utf8[4];
    bool dotted = c == 0x130; /* i and a combining dot */
    str_put_bytes(s, utf8, utf8_put(dotted ? 'i' : utf8proc_tolower(c), utf8));
    if (dotted) str_put_bytes(s, "\xCC\x87", 2);
}

static sca_status encode(meteor_words *w, size_t n)
{
    size_t first = 0;
    str_clear(&w->line);
    while (first < n && (is_space(w->code[first]) || w->code[first] <= ' ')) first++;
    while (n > first && (is_space(w->code[n - 1]) || w->code[n - 1] <= ' ')) n--;
    for (size_t i = first; i < n; i++) {
        if (!is_space(w->code[i]))
            put_lower(&w->line, w->code[i]);
        else if (!is_space(w->code[i - 1]))
            str_putc(&w->line, ' ');
    }
    return w->line.failed ? mem_fail(n, "caption") : SCA_OK;
}

sca_status meteor_normalise(meteor_words *w, const char *text, const char **line)
{
    size_t n = 0, bytes = strlen(text);
    while (bytes && (uint8_t)*text <= ' ') text++, bytes--;
    while (bytes && (uint8_t)text[bytes - 1] <= ' ') bytes--;
    TRY(decode(w, text, bytes, &n));
    TRY(passes(w, &n));
    TRY(code_room(w, n));
    dots(w, &n);
    TRY(encode(w, n));
    *line = str_text(&w->line);
    return SCA_OK;
}

/* ---- synonyms ------------------------------------------------------------------------------ */

static sca_status synsets_put(meteor_words *w, int64_t index)
{
    const meteor_data *d = w->data;
    size_t first = d->synset_first[index], n = d->synset_first[index + 1] - first;
    if (w->n_synsets + n > w->cap_synsets) {
        size_t cap = (w->n_synsets + n) * 2 + 256;
        uint32_t *synsets = mem_resize(w->synsets, cap * sizeof *synsets);
        if (!synsets) return mem_fail(cap * sizeof *synsets, "synonyms");
        w->synsets = synsets, w->cap_synsets = cap;
    }
    for (size_t i = 0; i < n; i++) w->synsets[w->n_synsets++] = d->synset[first + i];
    return SCA_OK;
}

/* The regular base form that is a key of the synsets: its index, or -1. */
static sca_status morph(meteor_words *w, const char *word, int64_t *index)
{
    static const char *const rules[][2] = {
        { "s", "" },      { "ses", "s" },   { "xes", "x" }, { "zes", "z" }, { "ches", "ch" },
        { "shes", "sh" }, { "men", "man" }, { "ies", "y" }, { "s", "" },    { "ies", "y" },
        { "es", "e" },    { "es", "" },     { "ed", "e" },  { "ed", "" },   { "ing", "e" },
        { "ing", "" },    { "er", "" },     { "est", "" },  { "er", "e" },  { "est", "e" },
    };
    size_t length = strlen(word);
    *index = -1;
    if (length <= 2 || text_ends(word, "ss"))
        return *index = word_list_find(&w->data->list[LIST_SYNSET], word), SCA_OK;
    for (size_t i = 0; i < LENGTH(rules) && *index < 0; i++) {
        if (!text_ends(word, rules[i][0])) continue;
        str_clear(&w->word);
        str_put_bytes(&w->word, word, length - strlen(rules[i][0]));
        str_put(&w->word, rules[i][1]);
        if (w->word.failed) return mem_fail(length, "word");
        *index = word_list_find(&w->data->list[LIST_SYNSET], str_text(&w->word));
    }
    return SCA_OK;
}

/* Sorts w->synsets[first..] and drops repetitions. */
static void synsets_sort(meteor_words *w, size_t first)
{
    uint32_t *s = w->synsets + first;
    size_t n = w->n_synsets - first, kept = 0;
    for (size_t i = 0; i < n; i++) {
        uint32_t x = s[i];
        size_t k = kept;
        while (k > 0 && s[k - 1] > x) k--;
        if (k > 0 && s[k - 1] == x) continue;
        memmove(s + k + 1, s + k, (kept - k) * sizeof *s);
        s[k] = x;
        kept++;
    }
    w->n_synsets = first + kept;
}

sca_status meteor_synsets(meteor_words *w, const char *word, uint32_t *first, uint32_t *n)
{
    const meteor_data *d = w->data;
    size_t start = w->n_synsets;
    int64_t self = word_list_find(&d->list[LIST_SYNSET], word), form = word_list_find(&d->list[LIST_FORM], word),
            base;
    if (self >= 0) TRY(synsets_put(w, self));
    if (form >= 0)
        for (size_t i = d->form_first[form]; i < d->form_first[form + 1]; i++) TRY(synsets_put(w, d->form_base[i]));
    else {
        TRY(morph(w, word, &base));
        if (base >= 0) TRY(synsets_put(w, base));
    }
    if (w->n_synsets > start) synsets_sort(w, start);
    *first = (uint32_t)start;
    *n = (uint32_t)(w->n_synsets - start);
    return SCA_OK;
}

/* ---- words --------------------------------------------------------------------------------- */

static sca_status facts_fill(meteor_words *w, const char *word, word_facts *f)
{
    const meteor_data *d = w->data;
    size_t bytes = strlen(word);
    const sb_symbol *stem = sb_stemmer_stem(w->stemmer, (const sb_symbol *)word, (int)bytes);
    if (!stem) return mem_fail(bytes, "stem");
    TRY(lexicon_add(&w->stems, (const char *)stem, (size_t)sb_stemmer_length(w->stemmer), &f->stem));
    TRY(meteor_synsets(w, word, &f->synset, &f->n_synsets));
    for (uint32_t i = 0; i < f->n_synsets; i++) {
        uint32_t hash = w->synsets[f->synset + i] * 0x9E3779B1u;
        f->marks |= (uint64_t)1 << (hash >> 26);
    }
    int64_t phrase_word = word_list_find(&d->list[LIST_PHRASE], word);
    f->phrase_word = phrase_word < 0 ? METEOR_NONE : (uint16_t)phrase_word;
    f->function = word_list_find(&d->list[LIST_FUNCTION], word) >= 0;
    return SCA_OK;
}

static sca_status facts_add(meteor_words *w)
{
    if (w->n_facts == w->cap_facts) {
        size_t cap = w->cap_facts ? w->cap_facts * 2 : 256;
        word_facts *facts = mem_resize(w->facts, cap * sizeof *facts);
        if (!facts) return mem_fail(cap * sizeof *facts, "words");
        w->facts = facts, w->cap_facts = cap;
    }
    w->facts[w->n_facts] = (word_facts){ 0 };
    TRY(facts_fill(w, texts_get(&w->words.words, w->n_facts), &w->facts[w->n_facts]));
    w->n_facts++;
    return SCA_OK;
}

sca_status meteor_word(meteor_words *w, const char *word, size_t bytes, int32_t *id)
{
    TRY(lexicon_add(&w->words, word, bytes, id));
    while (w->n_facts <= (size_t)*id) TRY(facts_add(w)); /* more than one after a failure */
    return SCA_OK;
}

sca_status meteor_words_open(const meteor_data *data, meteor_words *out)
{
    *out = (meteor_words){ .data = data };
    out->stemmer = sb_stemmer_new("english", "UTF_8");
    return out->stemmer ? SCA_OK : mem_fail(0, "stemmer");
}

void meteor_words_close(meteor_words *w)
{
    sb_stemmer_delete(w->stemmer);
    lexicon_free(&w->words);
    lexicon_free(&w->stems);
    mem_free(w->facts);
    mem_free(w->synsets);
    mem_free(w->code);
    mem_free(w->spare);
    str_free(&w->line);
    str_free(&w->word);
    *w = (meteor_words){ 0 };
}
