/* meteor_data.c - the data file, mapped and checked. */
#include "eval/meteor_parts.h"

#include <string.h>
#include <zlib.h>

static sca_status broken(const meteor_data *d, const char *what)
{
    return status_fail(SCA_ERR_FORMAT, "%s: %s; make the file again with tools/meteor_data.sh", d->file.path, what);
}

/* A section as an array of elements of `size` bytes. */
static sca_status section_get(const meteor_data *d, int index, size_t size, const void **data, size_t *n)
{
    const meteor_header *h = (const meteor_header *)(const void *)d->file.data;
    meteor_section s = h->section[index];
    if (s.offset % 8 || s.bytes % size || s.offset > d->file.bytes || s.bytes > d->file.bytes - s.offset)
        return broken(d, "a section lies outside of the file");
    *data = d->file.data + s.offset;
    *n = (size_t)s.bytes / size;
    return SCA_OK;
}

static sca_status list_get(meteor_data *d, int list)
{
    const void *at, *text;
    size_t bytes;
    word_list *l = &d->list[list];
    TRY(section_get(d, 2 * list, sizeof(uint32_t), &at, &l->n));
    TRY(section_get(d, 2 * list + 1, 1, &text, &bytes));
    l->at = at, l->text = text;
    if (bytes > 0 && l->text[bytes - 1] != 0) return broken(d, "a word list has no end");
    for (size_t i = 0; i < l->n; i++)
        if (l->at[i] >= bytes) return broken(d, "a word lies outside of its list");
    return SCA_OK;
}

/* An array of `n` + 1 ascending numbers from 0 to `end`. */
static sca_status firsts_get(const meteor_data *d, int index, size_t n, size_t end, const uint32_t **out)
{
    const void *data;
    size_t count;
    TRY(section_get(d, index, sizeof(uint32_t), &data, &count));
    const uint32_t *first = data;
    bool good = count == n + 1 && first[0] == 0 && first[n] == end;
    for (size_t i = 0; good && i < n; i++) good = first[i] <= first[i + 1];
    if (!good) return broken(d, "a table does not fit its rows");
    *out = first;
    return SCA_OK;
}

static sca_status synsets_get(meteor_data *d)
{
    const void *data;
    size_t n;
    TRY(section_get(d, ARRAY_SYNSET, sizeof(uint32_t), &data, &n));
    d->synset = data;
    TRY(firsts_get(d, ARRAY_SYNSET_FIRST, d->list[LIST_SYNSET].n, n, &d->synset_first));
    TRY(section_get(d, ARRAY_FORM_BASE, sizeof(uint32_t), &data, &n));
    d->form_base = data;
    for (size_t i = 0; i < n; i++)
        if (d->form_base[i] >= d->list[LIST_SYNSET].n) return broken(d, "a base form is unknown");
    return firsts_get(d, ARRAY_FORM_FIRST, d->list[LIST_FORM].n, n, &d->form_first);
}

static sca_status words_check(const meteor_data *d, const uint16_t *word, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (word[i] >= d->list[LIST_PHRASE].n) return broken(d, "a word of a phrase is unknown");
    return SCA_OK;
}

static sca_status phrases_get(meteor_data *d)
{
    const void *data;
    size_t n_entries, n_ids;
    TRY(section_get(d, ARRAY_NODE_WORD, sizeof(uint16_t), &data, &d->n_nodes));
    d->node_word = data;
    if (d->n_nodes == 0 || d->n_nodes > INT32_MAX || d->list[LIST_PHRASE].n >= METEOR_NONE)
        return broken(d, "the phrases do not fit");
    TRY(section_get(d, ARRAY_ENTRY_LENGTH, 1, &data, &n_entries));
    d->entry_length = data;
    TRY(section_get(d, ARRAY_ENTRY_IDS, sizeof(uint16_t), &data, &n_ids));
    d->entry_ids = data;
    TRY(words_check(d, d->node_word + 1, d->n_nodes - 1));
    TRY(words_check(d, d->entry_ids, n_ids));
    TRY(firsts_get(d, ARRAY_NODE_ENTRY, d->n_nodes, n_entries, &d->entry));
    TRY(firsts_get(d, ARRAY_NODE_IDS, d->n_nodes, n_ids, &d->ids));
    for (size_t i = 0; i < d->n_nodes; i++) {
        size_t sum = 0;
        for (size_t e = d->entry[i]; e < d->entry[i + 1]; e++) {
            if (d->entry_length[e] == 0 || d->entry_length[e] > METEOR_MAX_PHRASE)
                return broken(d, "a phrase is too long");
            sum += d->entry_length[e];
        }
        if (sum != d->ids[i + 1] - d->ids[i]) return broken(d, "phrases and their words differ");
    }
    TRY(section_get(d, ARRAY_NODE_CHILD, sizeof(uint32_t), &data, &n_ids));
    d->child = data;
    bool good = n_ids == d->n_nodes + 1 && d->child[0] == 1 && d->child[d->n_nodes] == d->n_nodes;
    for (size_t i = 0; good && i < d->n_nodes; i++) good = d->child[i] > i && d->child[i] <= d->child[i + 1];
    return good ? SCA_OK : broken(d, "the tree of phrases is broken");
}

static sca_status data_check(meteor_data *d)
{
    const meteor_header *h = (const meteor_header *)(const void *)d->file.data;
    if (d->file.bytes < sizeof *h || memcmp(h->magic, METEOR_MAGIC, sizeof h->magic) != 0)
        return broken(d, "not a METEOR data file of this version");
    uint32_t crc = (uint32_t)crc32_z(0, d->file.data + sizeof *h, d->file.bytes - sizeof *h);
    if (crc != h->crc) return broken(d, "the checksum is wrong");
    d->has_phrases = h->has_phrases != 0;
    for (int i = 0; i < N_LISTS; i++) TRY(list_get(d, i));
    TRY(synsets_get(d));
    return phrases_get(d);
}

sca_status meteor_data_open(const char *path, meteor_data *out)
{
    *out = (meteor_data){ 0 };
    TRY(file_map(path, &out->file));
    sca_status status = data_check(out);
    if (status != SCA_OK) meteor_data_close(out);
    return status;
}

void meteor_data_close(meteor_data *d)
{
    file_unmap(&d->file);
    *d = (meteor_data){ 0 };
}

int64_t word_list_find(const word_list *l, const char *word)
{
    size_t low = 0, high = l->n;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (strcmp(l->text + l->at[middle], word) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low < l->n && strcmp(l->text + l->at[low], word) == 0 ? (int64_t)low : -1;
}
