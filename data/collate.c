/* collate.c - a batch of images with the same number of regions, and texts of the same length (data.md 6). */
#include "data/loader_parts.h"

#include <string.h>

static sca_status get(void **out, size_t a, size_t b, size_t size, bool wanted)
{
    size_t bytes;
    if (!wanted) return SCA_OK;
    if (!size_mul(a, b, &bytes) || !size_mul(bytes, size, &bytes)) return mem_fail(SIZE_MAX, "a batch");
    *out = mem_alloc(bytes);
    return *out ? SCA_OK : mem_fail(bytes, "a batch");
}

static sca_status get_arrays(const loader_options *o, batch_store *b)
{
    size_t B = (size_t)o->batch_images, m = (size_t)o->regions_per_image, side = (size_t)o->side;
    size_t mask = (size_t)o->mask_side * (size_t)o->mask_side, embedding = 0;
    if (b->embedding) embedding = b->embedding->bytes;
    struct {
        void **to;
        size_t a, b, size;
        bool wanted;
    } arrays[] = {
        { (void **)&b->pixels, B, side * side * 3, sizeof *b->pixels, o->pixels },
        { (void **)&b->embeddings, B, embedding, 1, o->embeddings },
        { (void **)&b->masks, B * m, mask, 1, o->masks },
        { (void **)&b->recognition, B, 1, 1, true },
        { (void **)&b->valid, B, 1, sizeof *b->valid, true },
        { (void **)&b->original, B, 1, sizeof *b->original, true },
        { (void **)&b->boxes, B, m, sizeof *b->boxes, true },
        { (void **)&b->lengths, B, m, sizeof *b->lengths, o->tokens },
        { (void **)&b->image_ids, B, 1, sizeof *b->image_ids, true },
        { (void **)&b->region_ids, B, m, sizeof *b->region_ids, true },
    };
    for (size_t i = 0; i < LENGTH(arrays); i++) {
        void *p = NULL;
        TRY(get(&p, arrays[i].a, arrays[i].b, arrays[i].size, arrays[i].wanted));
        memcpy(arrays[i].to, &p, sizeof p);
    }
    return SCA_OK;
}

sca_status batch_store_init(const loader_options *o, const dataset *first, batch_store *b)
{
    *b = (batch_store){ .examples = mem_zero((size_t)o->batch_images, sizeof *b->examples) };
    if (!b->examples) return mem_fail(sizeof *b->examples, "a batch");
    for (int i = 0; i < o->batch_images; i++) {
        example *e = &b->examples[i];
        e->regions = mem_zero((size_t)o->regions_per_image, sizeof *e->regions);
        if (!e->regions) return mem_fail((size_t)o->regions_per_image * sizeof *e->regions, "a batch");
    }
    if (o->embeddings) b->embedding = dataset_embeddings(first);
    return get_arrays(o, b);
}

void batch_store_free(const loader_options *o, batch_store *b)
{
    for (int i = 0; b->examples && i < o->batch_images; i++) {
        example_clear(&b->examples[i]);
        mem_free(b->examples[i].regions);
    }
    void *owned[] = { b->examples, b->pixels, b->embeddings, b->masks,   b->recognition, b->valid,     b->original,
                      b->boxes,    b->ids,    b->labels,     b->lengths, b->image_ids,   b->region_ids };
    for (size_t i = 0; i < LENGTH(owned); i++) mem_free(owned[i]);
    skip_free(&b->skipped);
    *b = (batch_store){ 0 };
}

/* Room for n ids; what was there is lost. */
static sca_status make_room(int32_t **items, size_t *cap, size_t n)
{
    size_t bytes;
    if (n <= *cap) return SCA_OK;
    if (!size_mul(n, sizeof **items, &bytes)) return mem_fail(SIZE_MAX, "the texts of a batch");
    mem_free(*items);
    *cap = 0;
    *items = mem_alloc(bytes);
    if (!*items) return mem_fail(bytes, "the texts of a batch");
    *cap = n;
    return SCA_OK;
}

/* The padding is that of all texts, also of those that are cut off. */
static sca_status size_texts(const loader_options *o, batch_store *b, int n)
{
    loader_batch *v = &b->view;
    size_t m = (size_t)o->regions_per_image;
    for (int i = 0; i < n; i++) {
        const example *e = &b->examples[i];
        if ((size_t)e->n < m) m = (size_t)e->n;
        for (int r = 0; r < e->n; r++)
            if (e->regions[r].n_ids > v->length) v->length = e->regions[r].n_ids;
    }
    v->regions = (int)m;
    if (!o->tokens) return SCA_OK;
    size_t texts = (size_t)n * m, length = (size_t)v->length;
    TRY(make_room(&b->ids, &b->ids_cap, texts * length));
    return make_room(&b->labels, &b->labels_cap, texts * (length + 1));
}

static void put_text(const loader_options *o, batch_store *b, size_t text, const example_region *r)
{
    int32_t *ids = b->ids + text * (size_t)b->view.length;
    int32_t *labels = b->labels + text * (size_t)(b->view.length + 1);
    *labels++ = -100;
    for (int i = 0; i < b->view.length; i++) {
        ids[i] = i < r->n_ids ? r->ids[i] : o->pad_id;
        labels[i] = i < r->n_ids ? r->ids[i] : -100;
    }
    b->lengths[text] = r->n_ids;
    b->view.targets += r->n_ids;
}

static void put_image(const loader_options *o, batch_store *b, int image)
{
    const example *e = &b->examples[image];
    int m = b->view.regions;
    b->image_ids[image] = e->image_id;
    b->recognition[image] = e->recognition;
    memcpy(b->valid[image], e->valid, sizeof e->valid);
    memcpy(b->original[image], e->original, sizeof e->original);
    for (int r = 0; r < m; r++) {
        size_t at = (size_t)image * (size_t)m + (size_t)r;
        b->region_ids[at] = e->regions[r].id;
        memcpy(b->boxes[at], e->regions[r].box, sizeof b->boxes[at]);
        if (o->tokens) put_text(o, b, at, &e->regions[r]);
    }
}

/* Masks were written with room for as many regions as there may be. */
static void close_ranks(const loader_options *o, batch_store *b, int n)
{
    size_t mask = (size_t)o->mask_side * (size_t)o->mask_side, m = (size_t)b->view.regions;
    for (size_t i = 1; b->masks && i < (size_t)n; i++)
        memmove(b->masks + i * m * mask, b->masks + i * (size_t)o->regions_per_image * mask, m * mask);
}

sca_status collate(const loader_options *o, batch_store *b, int n)
{
    b->view = (loader_batch){ .images = n };
    TRY(size_texts(o, b, n));
    for (int i = 0; i < n; i++) put_image(o, b, i);
    close_ranks(o, b, n);
    loader_batch *v = &b->view;
    v->pixels = b->pixels;
    v->embeddings = b->embeddings;
    if (b->embedding) {
        v->embeddings_f16 = b->embedding->f16;
        v->grid = b->embedding->grid;
        v->channels = b->embedding->channels;
    }
    v->valid = (const int(*)[2])b->valid;
    v->original = (const int(*)[2])b->original;
    v->boxes = (const double(*)[4])b->boxes;
    v->ids = b->ids;
    v->labels = b->labels;
    v->lengths = b->lengths;
    v->recognition = b->recognition;
    v->masks = b->masks;
    v->image_ids = b->image_ids;
    v->region_ids = b->region_ids;
    return SCA_OK;
}
