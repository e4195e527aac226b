/* meteor_make.c - the files of the METEOR release into one data file. */
#include "eval/meteor_parts.h"

#include <stdlib.h>
#include <string.h>
#include <zlib.h>

enum { TEXT_LIMIT = 64 << 20 }; /* of the small text files */

/* The end of a path of words; the path to a node with entries is a phrase A. */
typedef struct tree_node {
    int32_t parent, word;
    uint32_t depth, number, entries, words;
} tree_node;
typedef struct tree_slot {
    int32_t parent, word, node;
} tree_slot; /* node 0: free */

typedef struct maker {
    lexicon words[N_LISTS];
    uint32_t *rank[N_LISTS]; /* per word: its place in the sorted list */
    uint32_t *sorted[N_LISTS];
    str synset, synset_first; /* u32, by word in the order of the file */
    str base;                 /* the base form whose line was read last */
    str form, form_base;      /* u32 pairs: form, base (or -1) */
    tree_node *nodes;
    size_t n_nodes, cap_nodes;
    tree_slot *slots;
    size_t n_slots;
    str entry_node, entry_length, entry_ids; /* u32, u8, u32 in the order of the table */
    str line;
    size_t n_lines;
    const char *path; /* of the file being read, for messages */
    str file;
    bool has_phrases;
} maker;

static sca_status put_number(str *s, uint32_t x)
{
    str_put_bytes(s, &x, sizeof x);
    return s->failed ? mem_fail(s->bytes, "METEOR data") : SCA_OK;
}

static const uint32_t *numbers(const str *s) { return (const uint32_t *)(const void *)s->data; }
static size_t n_numbers(const str *s) { return s->bytes / sizeof(uint32_t); }

/* ---- text files ---------------------------------------------------------------------------- */

/* Called for every line, without its end; the text may be changed. */
typedef sca_status line_fn(maker *m, char *line, size_t number);

static sca_status each_line(maker *m, const char *dir, const char *name, line_fn *fn)
{
    sca_status status = SCA_OK;
    char *text = NULL, *path = path_join(dir, name);
    size_t bytes, number = 0;
    if (!path) return mem_fail(strlen(dir), "path");
    m->path = path;
    TRY_GOTO(done, file_read(path, TEXT_LIMIT, &text, &bytes));
    for (char *p = text, *end; *p; p = end) {
        end = p + strcspn(p, "\n");
        if (*end) *end++ = 0;
        size_t length = strlen(p);
        if (length && p[length - 1] == '\r') p[length - 1] = 0;
        TRY_GOTO(done, fn(m, p, number++));
    }
done:
    mem_free(text);
    mem_free(path);
    return status;
}

/* Cuts the next word out of *line; NULL at its end. */
static char *next_word(char **line)
{
    char *word = *line + strspn(*line, " ");
    if (!*word) return NULL;
    *line = word + strcspn(word, " ");
    if (**line) *(*line)++ = 0;
    return word;
}

static sca_status function_line(maker *m, char *line, size_t number)
{
    (void)number;
    int32_t id;
    return *line ? lexicon_add(&m->words[LIST_FUNCTION], line, strlen(line), &id) : SCA_OK;
}

static sca_status prefix_line(maker *m, char *line, size_t number)
{
    (void)number;
    int32_t id;
    if (*line == '#' || !*line) return SCA_OK;
    size_t length = strcspn(line, " \t");
    bool numeric = strstr(line + length, "#NUMERIC_ONLY#") != NULL;
    return lexicon_add(&m->words[numeric ? LIST_NUMERIC : LIST_PREFIX], line, length, &id);
}

/* Two lines per word: the word, its synsets. */
static sca_status synset_line(maker *m, char *line, size_t number)
{
    lexicon *v = &m->words[LIST_SYNSET];
    int32_t id;
    if (number % 2 == 0) {
        if (lexicon_find(v, line, strlen(line)) >= 0)
            return status_fail(SCA_ERR_FORMAT, "%s line %zu: '%s' occurs twice, expected once", m->path, number + 1,
                               line);
        TRY(lexicon_add(v, line, strlen(line), &id));
        return put_number(&m->synset_first, (uint32_t)n_numbers(&m->synset));
    }
    for (char *p; (p = next_word(&line));) {
        int64_t synset;
        if (!text_to_int(p, 0, UINT32_MAX, &synset))
            return status_fail(SCA_ERR_FORMAT, "%s line %zu: '%s', expected a synset number", m->path, number + 1,
                               p);
        TRY(put_number(&m->synset, (uint32_t)synset));
    }
    return SCA_OK;
}

/* Two lines per base form: the base form, its irregular forms. */
static sca_status form_line(maker *m, char *line, size_t number)
{
    if (number % 2 == 0) {
        str_clear(&m->base);
        str_put(&m->base, line);
        return m->base.failed ? mem_fail(strlen(line), "METEOR data") : SCA_OK;
    }
    int32_t form, base = lexicon_find(&m->words[LIST_SYNSET], str_text(&m->base), m->base.bytes);
    for (char *p; (p = next_word(&line));) {
        TRY(lexicon_add(&m->words[LIST_FORM], p, strlen(p), &form));
        TRY(put_number(&m->form, (uint32_t)form));
        TRY(put_number(&m->form_base, (uint32_t)base)); /* -1: known, but without synsets */
    }
    return SCA_OK;
}

/* ---- paraphrases --------------------------------------------------------------------------- */

static size_t slot_of(const tree_slot *slots, size_t n, int32_t parent, int32_t word)
{
    uint64_t h = ((uint64_t)(uint32_t)parent << 32 | (uint32_t)word) * 0x9E3779B97F4A7C15u;
    size_t k = (size_t)(h >> 20) & (n - 1);
    while (slots[k].node && (slots[k].parent != parent || slots[k].word != word)) k = (k + 1) & (n - 1);
    return k;
}

static sca_status slots_grow(maker *m)
{
    size_t n = m->n_slots ? m->n_slots * 2 : 4096;
    tree_slot *slots = mem_zero(n, sizeof *slots);
    if (!slots) return mem_fail(n * sizeof *slots, "phrases");
    for (size_t i = 0; i < m->n_slots; i++)
        if (m->slots[i].node) slots[slot_of(slots, n, m->slots[i].parent, m->slots[i].word)] = m->slots[i];
    mem_free(m->slots);
    m->slots = slots, m->n_slots = n;
    return SCA_OK;
}

static sca_status node_add(maker *m, int32_t parent, int32_t word)
{
    if (m->n_nodes == m->cap_nodes) {
        size_t cap = m->cap_nodes ? m->cap_nodes * 2 : 1024;
        tree_node *nodes = mem_resize(m->nodes, cap * sizeof *nodes);
        if (!nodes) return mem_fail(cap * sizeof *nodes, "phrases");
        m->nodes = nodes, m->cap_nodes = cap;
    }
    uint32_t depth = m->n_nodes ? m->nodes[parent].depth + 1 : 0;
    m->nodes[m->n_nodes++] = (tree_node){ .parent = parent, .word = word, .depth = depth };
    return SCA_OK;
}

static sca_status node_child(maker *m, int32_t parent, int32_t word, int32_t *node)
{
    if (m->n_nodes * 2 >= m->n_slots) TRY(slots_grow(m));
    size_t k = slot_of(m->slots, m->n_slots, parent, word);
    if (m->slots[k].node) return *node = m->slots[k].node, SCA_OK;
    *node = (int32_t)m->n_nodes;
    m->slots[k] = (tree_slot){ parent, word, *node };
    return node_add(m, parent, word);
}

static sca_status phrase_length(const maker *m, int n)
{
    if (n > 0 && n <= METEOR_MAX_PHRASE) return SCA_OK;
    return status_fail(SCA_ERR_FORMAT, "%s line %zu: a phrase of %d words, expected 1 to %d", m->path, m->n_lines,
                       n, METEOR_MAX_PHRASE);
}

/* Three lines per entry: probability (not used), phrase A, phrase B. */
static sca_status phrase_line(maker *m, char *line)
{
    lexicon *v = &m->words[LIST_PHRASE];
    int32_t id, node = 0;
    int n = 0;
    size_t part = m->n_lines++ % 3;
    if (part == 0) return SCA_OK;
    for (char *p; (p = next_word(&line)); n++) {
        TRY(lexicon_add(v, p, strlen(p), &id));
        if (part == 2)
            TRY(put_number(&m->entry_ids, (uint32_t)id));
        else
            TRY(node_child(m, node, id, &node));
    }
    TRY(phrase_length(m, n));
    if (v->words.count >= METEOR_NONE)
        return status_fail(SCA_ERR_UNSUPPORTED, "%s: more than %d different words", m->path, METEOR_NONE - 1);
    if (part == 1) return put_number(&m->entry_node, (uint32_t)node);
    tree_node *a = &m->nodes[numbers(&m->entry_node)[n_numbers(&m->entry_node) - 1]];
    a->entries++, a->words += (uint32_t)n;
    str_putc(&m->entry_length, (char)n);
    return m->entry_length.failed ? mem_fail(m->entry_length.bytes, "phrases") : SCA_OK;
}

/* Hands over the complete lines of a piece of the table; the rest waits in m->line. */
static sca_status phrase_piece(maker *m, const char *piece, size_t bytes)
{
    while (bytes) {
        const char *end = memchr(piece, '\n', bytes);
        size_t length = end ? (size_t)(end - piece) : bytes;
        str_put_bytes(&m->line, piece, length);
        if (m->line.failed) return mem_fail(bytes, "phrases");
        if (!end) return SCA_OK;
        if (m->line.bytes)
            TRY(phrase_line(m, m->line.data));
        else
            m->n_lines++;
        str_clear(&m->line);
        piece = end + 1, bytes -= length + 1;
    }
    return SCA_OK;
}

/* The table as gzip or plain text. */
static sca_status phrases_inflate(maker *m, const file_view *v)
{
    enum { PIECE = 1 << 18 };
    if (v->bytes < 2 || v->data[0] != 0x1F || v->data[1] != 0x8B)
        return phrase_piece(m, (const char *)v->data, v->bytes);
    z_stream z = { 0 };
    char *piece = mem_alloc(PIECE);
    sca_status status = SCA_OK;
    int code = inflateInit2(&z, 15 + 16);
    if (!piece || code != Z_OK) status = mem_fail(PIECE, "phrases");
    z.next_in = (Bytef *)(uintptr_t)v->data;
    for (size_t left = v->bytes; status == SCA_OK && code == Z_OK;) {
        if (z.avail_in == 0) {
            z.avail_in = left < 1 << 30 ? (uInt)left : 1 << 30;
            left -= z.avail_in;
        }
        z.next_out = (Bytef *)piece, z.avail_out = PIECE;
        code = inflate(&z, Z_NO_FLUSH);
        if (code != Z_OK && code != Z_STREAM_END)
            status = status_fail(SCA_ERR_FORMAT, "%s: damaged or cut off; obtain it again", v->path);
        else
            status = phrase_piece(m, piece, PIECE - z.avail_out);
    }
    inflateEnd(&z);
    mem_free(piece);
    return status;
}

static sca_status phrases_read(maker *m, const char *dir)
{
    file_view v = { 0 };
    sca_status status = SCA_OK;
    char *path = path_join(dir, "paraphrase-en.gz");
    if (!path) return mem_fail(strlen(dir), "path");
    TRY_GOTO(done, node_add(m, 0, -1));
    m->has_phrases = file_exists(path);
    if (!m->has_phrases) goto done;
    m->path = path;
    TRY_GOTO(done, file_map(path, &v));
    TRY_GOTO(done, phrases_inflate(m, &v));
    if (m->line.bytes || m->n_lines % 3)
        status = status_fail(SCA_ERR_FORMAT, "%s: %zu lines, expected three per entry", path, m->n_lines);
done:
    file_unmap(&v);
    mem_free(path);
    return status;
}

/* ---- order --------------------------------------------------------------------------------- */

typedef struct sort_word {
    const char *text;
    uint32_t id;
} sort_word;

static int compare_words(const void *a, const void *b)
{
    return strcmp(((const sort_word *)a)->text, ((const sort_word *)b)->text);
}

static sca_status list_sort(maker *m, int list)
{
    const texts *t = &m->words[list].words;
    sort_word *words = mem_alloc(t->count * sizeof *words);
    m->rank[list] = mem_alloc(t->count * sizeof(uint32_t));
    m->sorted[list] = mem_alloc(t->count * sizeof(uint32_t));
    if (!words || !m->rank[list] || !m->sorted[list]) {
        mem_free(words);
        return mem_fail(t->count * sizeof *words, "METEOR data");
    }
    for (size_t i = 0; i < t->count; i++) words[i] = (sort_word){ texts_get(t, i), (uint32_t)i };
    if (t->count) qsort(words, t->count, sizeof *words, compare_words);
    for (size_t i = 0; i < t->count; i++)
        m->rank[list][words[i].id] = (uint32_t)i, m->sorted[list][i] = words[i].id;
    mem_free(words);
    return SCA_OK;
}

typedef struct sort_node {
    uint32_t depth, parent, word, node;
} sort_node;

static int compare_nodes(const void *a, const void *b)
{
    const sort_node *p = a, *q = b;
    if (p->depth != q->depth) return p->depth < q->depth ? -1 : 1;
    if (p->parent != q->parent) return p->parent < q->parent ? -1 : 1;
    return (p->word > q->word) - (p->word < q->word);
}

/* Numbers the nodes level by level; keys[number].node is the node. */
static void nodes_number(maker *m, sort_node *keys)
{
    size_t n = m->n_nodes;
    for (size_t i = 0; i < n; i++)
        keys[i] = (sort_node){ m->nodes[i].depth, 0, i ? m->rank[LIST_PHRASE][m->nodes[i].word] : 0, (uint32_t)i };
    qsort(keys, n, sizeof *keys, compare_nodes);
    for (size_t first = 1, end; first < n; first = end) {
        for (end = first; end < n && keys[end].depth == keys[first].depth; end++)
            keys[end].parent = m->nodes[m->nodes[keys[end].node].parent].number;
        qsort(keys + first, end - first, sizeof *keys, compare_nodes);
        for (size_t i = first; i < end; i++) m->nodes[keys[i].node].number = (uint32_t)i;
    }
}

/* ---- writing ------------------------------------------------------------------------------- */

static void section_begin(maker *m, int index)
{
    while (!m->file.failed && m->file.bytes % 8) str_putc(&m->file, 0);
    if (m->file.failed) return;
    meteor_header *h = (meteor_header *)(void *)m->file.data;
    h->section[index].offset = m->file.bytes;
}

static void section_end(maker *m, int index)
{
    if (m->file.failed) return;
    meteor_header *h = (meteor_header *)(void *)m->file.data;
    h->section[index].bytes = m->file.bytes - h->section[index].offset;
}

static void put_u32(maker *m, size_t x)
{
    uint32_t number = (uint32_t)x;
    str_put_bytes(&m->file, &number, sizeof number);
}

static void put_list(maker *m, int list)
{
    const texts *t = &m->words[list].words;
    size_t at = 0;
    section_begin(m, 2 * list);
    for (size_t i = 0; i < t->count; i++) {
        put_u32(m, at);
        at += strlen(texts_get(t, m->sorted[list][i])) + 1;
    }
    section_end(m, 2 * list);
    section_begin(m, 2 * list + 1);
    for (size_t i = 0; i < t->count; i++) {
        const char *word = texts_get(t, m->sorted[list][i]);
        str_put_bytes(&m->file, word, strlen(word) + 1);
    }
    section_end(m, 2 * list + 1);
}

/* Row i of the file is row sorted[i] of first and values. */
static void put_rows(maker *m, int array_first, int array, const uint32_t *sorted, size_t n, const uint32_t *first,
                     const uint32_t *values)
{
    size_t at = 0;
    section_begin(m, array_first);
    for (size_t i = 0; i < n; i++) {
        put_u32(m, at);
        at += first[sorted[i] + 1] - first[sorted[i]];
    }
    put_u32(m, at);
    section_end(m, array_first);
    section_begin(m, array);
    for (size_t i = 0; i < n; i++)
        for (size_t k = first[sorted[i]]; k < first[sorted[i] + 1]; k++) put_u32(m, values[k]);
    section_end(m, array);
}

/* The base forms of every irregular form, those without synsets left out. */
static sca_status put_forms(maker *m)
{
    size_t n = m->words[LIST_FORM].words.count, pairs = n_numbers(&m->form);
    const uint32_t *form = numbers(&m->form), *base = numbers(&m->form_base);
    uint32_t *first = mem_zero(n + 2, sizeof *first), *values = mem_alloc((pairs + 1) * sizeof *values);
    if (!first || !values) {
        mem_free(first);
        mem_free(values);
        return mem_fail((n + pairs + 3) * sizeof *first, "METEOR data");
    }
    for (size_t i = 0; i < pairs; i++)
        if (base[i] != UINT32_MAX) first[form[i] + 2]++;
    for (size_t i = 2; i < n + 2; i++) first[i] += first[i - 1];
    for (size_t i = 0; i < pairs; i++)
        if (base[i] != UINT32_MAX) values[first[form[i] + 1]++] = m->rank[LIST_SYNSET][base[i]];
    put_rows(m, ARRAY_FORM_FIRST, ARRAY_FORM_BASE, m->sorted[LIST_FORM], n, first, values);
    mem_free(first);
    mem_free(values);
    return SCA_OK;
}

/* Per node, in the order of their numbers: where its children, entries and words begin. */
static void put_tree(maker *m, const sort_node *keys)
{
    size_t n = m->n_nodes, children = 1, entries = 0, words = 0;
    section_begin(m, ARRAY_NODE_WORD);
    for (size_t i = 0; i < n; i++) {
        uint16_t word = (uint16_t)keys[i].word;
        str_put_bytes(&m->file, &word, sizeof word);
    }
    section_end(m, ARRAY_NODE_WORD);
    section_begin(m, ARRAY_NODE_CHILD);
    for (size_t i = 0; i < n; i++) {
        put_u32(m, children);
        while (children < n && keys[children].parent == i) children++;
    }
    put_u32(m, children);
    section_end(m, ARRAY_NODE_CHILD);
    section_begin(m, ARRAY_NODE_ENTRY);
    for (size_t i = 0; i < n; i++) {
        put_u32(m, entries);
        entries += m->nodes[keys[i].node].entries;
    }
    put_u32(m, entries);
    section_end(m, ARRAY_NODE_ENTRY);
    section_begin(m, ARRAY_NODE_IDS);
    for (size_t i = 0; i < n; i++) {
        put_u32(m, words);
        words += m->nodes[keys[i].node].words;
    }
    put_u32(m, words);
    section_end(m, ARRAY_NODE_IDS);
}

/* The entries of every node together, in the order of the table. */
static sca_status put_entries(maker *m, const sort_node *keys)
{
    size_t n_entries = m->entry_length.bytes, n_ids = n_numbers(&m->entry_ids);
    uint8_t *length = mem_alloc(n_entries + 1);
    uint16_t *ids = mem_alloc((n_ids + 1) * sizeof *ids);
    uint32_t *at = mem_alloc(2 * m->n_nodes * sizeof *at); /* per node: next entry, next word */
    if (!length || !ids || !at) {
        mem_free(length), mem_free(ids), mem_free(at);
        return mem_fail(n_entries + n_ids * sizeof *ids, "METEOR data");
    }
    uint32_t entries = 0, words = 0;
    for (size_t i = 0; i < m->n_nodes; i++) {
        const tree_node *node = &m->nodes[keys[i].node];
        at[2 * keys[i].node] = entries, at[2 * keys[i].node + 1] = words;
        entries += node->entries, words += node->words;
    }
    const uint32_t *node = numbers(&m->entry_node), *from = numbers(&m->entry_ids);
    for (size_t i = 0; i < n_entries; i++) {
        uint8_t n = (uint8_t)m->entry_length.data[i];
        length[at[2 * node[i]]++] = n;
        for (uint8_t k = 0; k < n; k++) ids[at[2 * node[i] + 1]++] = (uint16_t)m->rank[LIST_PHRASE][*from++];
    }
    section_begin(m, ARRAY_ENTRY_LENGTH);
    str_put_bytes(&m->file, length, n_entries);
    section_end(m, ARRAY_ENTRY_LENGTH);
    section_begin(m, ARRAY_ENTRY_IDS);
    str_put_bytes(&m->file, ids, n_ids * sizeof *ids);
    section_end(m, ARRAY_ENTRY_IDS);
    mem_free(length), mem_free(ids), mem_free(at);
    return SCA_OK;
}

static sca_status put_phrases(maker *m)
{
    sort_node *keys = mem_alloc(m->n_nodes * sizeof *keys);
    if (!keys) return mem_fail(m->n_nodes * sizeof *keys, "phrases");
    nodes_number(m, keys);
    put_tree(m, keys);
    sca_status status = put_entries(m, keys);
    mem_free(keys);
    return status;
}

static sca_status put_all(maker *m)
{
    meteor_header header = { .magic = METEOR_MAGIC, .has_phrases = m->has_phrases };
    str_put_bytes(&m->file, &header, sizeof header);
    for (int i = 0; i < N_LISTS; i++) TRY(list_sort(m, i));
    for (int i = 0; i < N_LISTS; i++) put_list(m, i);
    TRY(put_number(&m->synset_first, (uint32_t)n_numbers(&m->synset)));
    put_rows(m, ARRAY_SYNSET_FIRST, ARRAY_SYNSET, m->sorted[LIST_SYNSET], m->words[LIST_SYNSET].words.count,
             numbers(&m->synset_first), numbers(&m->synset));
    TRY(put_forms(m));
    TRY(put_phrases(m));
    if (m->file.failed) return mem_fail(m->file.bytes, "METEOR data");
    meteor_header *h = (meteor_header *)(void *)m->file.data;
    h->crc = (uint32_t)crc32_z(0, (const Bytef *)m->file.data + sizeof *h, m->file.bytes - sizeof *h);
    return SCA_OK;
}

static void maker_free(maker *m)
{
    for (int i = 0; i < N_LISTS; i++) {
        lexicon_free(&m->words[i]);
        mem_free(m->rank[i]);
        mem_free(m->sorted[i]);
    }
    str *texts_used[] = { &m->synset,     &m->synset_first, &m->base,      &m->form, &m->form_base,
                          &m->entry_node, &m->entry_length, &m->entry_ids, &m->line, &m->file };
    for (size_t i = 0; i < LENGTH(texts_used); i++) str_free(texts_used[i]);
    mem_free(m->nodes);
    mem_free(m->slots);
}

sca_status meteor_make(const char *dir, const char *path)
{
    maker *m = mem_zero(1, sizeof *m);
    if (!m) return mem_fail(sizeof *m, "METEOR data");
    sca_status status = SCA_OK;
    TRY_GOTO(done, each_line(m, dir, "english.words", function_line));
    TRY_GOTO(done, each_line(m, dir, "english.prefixes", prefix_line));
    TRY_GOTO(done, each_line(m, dir, "english.synsets", synset_line));
    TRY_GOTO(done, each_line(m, dir, "english.exceptions", form_line));
    TRY_GOTO(done, phrases_read(m, dir));
    TRY_GOTO(done, put_all(m));
    TRY_GOTO(done, file_write(path, m->file.data, m->file.bytes));
done:
    maker_free(m);
    mem_free(m);
    return status;
}
