/* prepare.c - a data set made into a store: every image is decoded once, by several ranks, each with a part file of what
 * it found; rank 0 then writes the store from the annotations and the parts.
 *
 * A part file can be cut at any record: work that was interrupted goes on from all part files that are there. */
#include "data/store.h"

#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <zlib.h>

enum { KEY_BYTES = 64, BLOCK = 256, THREADS_MOST = 256, MESSAGE_MOST = 400 };

typedef struct
    part_record { /* in a part file, followed by `bytes` of an embedding, or of the message of a bad image */
    int64_t image;
    int32_t width, height; /* 0: it cannot be decoded */
    uint64_t bytes;
    uint32_t crc;   /* of those bytes */
    uint32_t check; /* of what is above */
} part_record;

typedef struct found { /* what is known of an image */
    bool known;
    int32_t width, height;
    size_t part, at; /* where its bytes are */
    uint64_t bytes;
} found;

typedef struct preparing {
    const prepare_options *o;
    dataset *d;
    int64_t n;
    char key[KEY_BYTES + 1];
    file_view *parts;
    size_t n_parts;
    found *images; /* (n) */
} preparing;

/* ---- part files ---------------------------------------------------------------------------------------------------- */

static uint64_t mix(uint64_t h, const void *data, size_t bytes)
{
    const uint8_t *p = data;
    for (size_t i = 0; i < bytes; i++) h = (h ^ p[i]) * 0x100000001b3u;
    return h;
}

/* What decides the records: a part file with another key is of other work. */
static void make_key(preparing *p)
{
    const prepare_options *o = p->o;
    const dataset_counts *c = dataset_counted(p->d);
    uint64_t h = 14695981039346656037u;
    h = mix(h, o->set.annotations, strlen(o->set.annotations) + 1);
    h = mix(h, o->set.images, strlen(o->set.images) + 1);
    h = mix(h, dataset_split(p->d), strlen(dataset_split(p->d)) + 1);
    h = mix(h, c, sizeof *c);
    h = mix(h, &o->photo.honour_exif, sizeof o->photo.honour_exif);
    if (o->embed) {
        h = mix(h, o->embedding.encoder, strlen(o->embedding.encoder));
        h = mix(h, &o->embedding.bytes, sizeof o->embedding.bytes);
        h = mix(h, &o->embedding.f16, sizeof o->embedding.f16);
    }
    int n = snprintf(p->key, sizeof p->key, "sca part 1 %.24s %016llx", o->set.kind, (unsigned long long)h);
    memset(p->key + n, ' ', (size_t)(KEY_BYTES - n));
    p->key[KEY_BYTES - 1] = '\n';
    p->key[KEY_BYTES] = 0;
}

static char *part_path(const preparing *p, int rank)
{
    str s = { 0 };
    char *path = NULL;
    str_printf(&s, "%s.part-%d", p->o->to, rank);
    if (str_take(&s, &path) != SCA_OK) return NULL;
    return path;
}

static uint32_t crc_of(const void *data, size_t bytes) { return (uint32_t)crc32_z(0, data, bytes); }

/* Notes the whole records of a part, and how many bytes they take. */
static void note_records(preparing *p, size_t part, size_t *end)
{
    const file_view *v = &p->parts[part];
    size_t at = KEY_BYTES;
    for (part_record r; v->bytes - at >= sizeof r; at += sizeof r + r.bytes) {
        memcpy(&r, v->data + at, sizeof r);
        if (r.check != crc_of(&r, offsetof(part_record, check)) || r.bytes > v->bytes - at - sizeof r) break;
        if (r.image < 0 || r.image >= p->n || r.crc != crc_of(v->data + at + sizeof r, r.bytes)) break;
        p->images[r.image] = (found){ true, r.width, r.height, part, at + sizeof r, r.bytes };
    }
    *end = at;
}

typedef struct listing {
    preparing *p;
    const char *beginning; /* of the names of part files */
} listing;

static sca_status map_part(preparing *p, const char *path)
{
    file_view *wider = mem_resize(p->parts, (p->n_parts + 1) * sizeof *wider);
    if (!wider) return mem_fail((p->n_parts + 1) * sizeof *wider, "part files");
    p->parts = wider;
    TRY(file_map(path, &p->parts[p->n_parts]));
    p->n_parts++;
    return SCA_OK;
}

static sca_status take_part(void *user, const char *name)
{
    const listing *l = user;
    preparing *p = l->p;
    int64_t rank;
    size_t end;
    if (!text_starts(name, l->beginning) || !text_to_int(name + strlen(l->beginning), 0, INT32_MAX, &rank))
        return SCA_OK;
    char *path = part_path(p, (int)rank);
    sca_status status = path ? map_part(p, path) : mem_fail(64, "a path");
    mem_free(path);
    TRY(status);
    const file_view *v = &p->parts[p->n_parts - 1];
    if (v->bytes < KEY_BYTES) return SCA_OK; /* its writer did not come far */
    if (memcmp(v->data, p->key, KEY_BYTES) != 0)
        return status_fail(SCA_ERR_STATE,
                           "%s: of another preparation (other annotations, images, options or model); remove it to "
                           "begin anew",
                           v->path);
    note_records(p, p->n_parts - 1, &end);
    return SCA_OK;
}

static void unmap_parts(preparing *p)
{
    for (size_t i = 0; i < p->n_parts; i++) file_unmap(&p->parts[i]);
    mem_free(p->parts);
    p->parts = NULL;
    p->n_parts = 0;
}

/* The folder of `to`, and the beginning of the names of part files. */
static sca_status split_path(const preparing *p, char **folder, char **beginning)
{
    const char *name = path_name(p->o->to);
    size_t bytes = (size_t)(name - p->o->to);
    str s = { 0 };
    *beginning = NULL;
    *folder = bytes ? text_copy(p->o->to, bytes) : text_copy(".", 1);
    if (!*folder) return mem_fail(bytes, "a path");
    str_printf(&s, "%s.part-", name);
    return str_take(&s, beginning);
}

static sca_status read_parts(preparing *p)
{
    char *folder, *beginning;
    unmap_parts(p);
    if (p->images) memset(p->images, 0, (size_t)p->n * sizeof *p->images);
    sca_status status = split_path(p, &folder, &beginning);
    listing l = { p, beginning };
    if (status == SCA_OK) status = dir_each(folder, take_part, &l);
    mem_free(beginning);
    mem_free(folder);
    return status;
}

/* This rank's part, cut after its last whole record. */
static sca_status open_part(preparing *p, file_log **out)
{
    char *path = part_path(p, p->o->rank);
    if (!path) return mem_fail(64, "a path");
    size_t end = 0;
    for (size_t i = 0; i < p->n_parts; i++)
        if (strcmp(p->parts[i].path, path) == 0 && p->parts[i].bytes >= KEY_BYTES) note_records(p, i, &end);
    sca_status status = file_log_open(path, end, out);
    if (status == SCA_OK && end == 0) {
        status = file_log_put(*out, p->key, KEY_BYTES);
        if (status != SCA_OK) {
            file_log_close(*out);
            *out = NULL;
        }
    }
    mem_free(path);
    return status;
}

/* ---- decoding -------------------------------------------------------------------------------------------------------- */

typedef struct decoded {
    int64_t image;
    sca_status status;
    sca_image photo;
    int width, height;
    char message[MESSAGE_MOST];
} decoded;

typedef struct block { /* images that threads decode together */
    preparing *p;
    decoded items[BLOCK];
    int n, next;
    bool keep; /* the pixels */
    pthread_mutex_t lock;
} block;

static sca_status decode_image(const preparing *p, decoded *w)
{
    data_sample s;
    TRY(dataset_read(p->d, w->image, &s));
    sca_status status = dataset_image(p->d, w->image, &s, &p->o->photo, &w->photo);
    sample_free(&s);
    return status;
}

static void decode_one(const block *b, decoded *w)
{
    w->status = decode_image(b->p, w);
    w->width = w->photo.width;
    w->height = w->photo.height;
    if (w->status != SCA_OK) snprintf(w->message, sizeof w->message, "%s", status_message());
    if (!b->keep) sca_image_free(&w->photo);
}

static void *decode_some(void *user)
{
    block *b = user;
    for (;;) {
        pthread_mutex_lock(&b->lock);
        int i = b->next++;
        pthread_mutex_unlock(&b->lock);
        if (i >= b->n) return NULL;
        decode_one(b, &b->items[i]);
    }
}

static void decode_block(block *b)
{
    pthread_t threads[THREADS_MOST];
    int n = 0, wanted = b->p->o->threads - 1;
    if (wanted > THREADS_MOST) wanted = THREADS_MOST;
    if (wanted > b->n - 1) wanted = b->n - 1;
    b->next = 0;
    while (n < wanted && pthread_create(&threads[n], NULL, decode_some, b) == 0) n++;
    decode_some(b);
    while (n > 0) pthread_join(threads[--n], NULL);
}

static sca_status put_record(file_log *part, const decoded *w, const void *data, size_t bytes)
{
    part_record r;
    memset(&r, 0, sizeof r);
    r.image = w->image;
    r.width = w->status == SCA_OK ? w->width : 0;
    r.height = w->status == SCA_OK ? w->height : 0;
    r.bytes = bytes;
    r.crc = crc_of(data, bytes);
    r.check = crc_of(&r, offsetof(part_record, check));
    TRY(file_log_put(part, &r, sizeof r));
    return file_log_put(part, data, bytes);
}

static sca_status finish_image(const preparing *p, decoded *w, file_log *part, void *embedding)
{
    const prepare_options *o = p->o;
    if (w->status == SCA_ERR_MEMORY) return status_set(w->status, w->message);
    if (w->status != SCA_OK) return put_record(part, w, w->message, strlen(w->message));
    if (!o->embed) return put_record(part, w, "", 0);
    TRY(o->embed(o->embedder, &w->photo, embedding));
    return put_record(part, w, embedding, o->embedding.bytes);
}

static sca_status finish_block(block *b, file_log *part, void *embedding)
{
    sca_status status = SCA_OK;
    for (int i = 0; i < b->n; i++) {
        if (status == SCA_OK) status = finish_image(b->p, &b->items[i], part, embedding);
        sca_image_free(&b->items[i].photo);
        b->items[i] = (decoded){ 0 };
    }
    b->n = 0;
    return status == SCA_OK && embedding ? file_log_sync(part) : status;
}

/* Images are dealt to the ranks in turn. */
static sca_status decode_all(preparing *p, block *b, file_log *part, void *embedding)
{
    const prepare_options *o = p->o;
    int full = o->embed ? (o->threads < BLOCK ? o->threads : BLOCK) : BLOCK;
    for (int64_t i = o->rank; i < p->n; i += o->size) {
        if (!p->images[i].known) b->items[b->n++].image = i;
        if (b->n < full && i + o->size < p->n) continue;
        decode_block(b);
        TRY(finish_block(b, part, embedding));
        progress("prepare", i + 1, p->n);
    }
    return file_log_sync(part);
}

static sca_status decode_share(preparing *p)
{
    file_log *part = NULL;
    void *embedding = NULL;
    block *b = mem_zero(1, sizeof *b);
    if (!b) return mem_fail(sizeof *b, "images");
    b->p = p;
    b->keep = p->o->embed != NULL;
    pthread_mutex_init(&b->lock, NULL);
    sca_status status = open_part(p, &part);
    if (status == SCA_OK && b->keep && !(embedding = mem_alloc(p->o->embedding.bytes)))
        status = mem_fail(p->o->embedding.bytes, "an image embedding");
    if (status == SCA_OK) status = decode_all(p, b, part, embedding);
    for (int i = 0; i < b->n; i++) sca_image_free(&b->items[i].photo);
    file_log_close(part);
    pthread_mutex_destroy(&b->lock);
    mem_free(embedding);
    mem_free(b);
    return status;
}

/* ---- the whole ----------------------------------------------------------------------------------------------------------- */

static sca_status agree(const preparing *p, sca_status mine)
{
    return p->o->agree ? p->o->agree(p->o->ranks, mine) : mine;
}

static sca_status remove_parts(preparing *p)
{
    sca_status status = SCA_OK;
    for (size_t i = 0; i < p->n_parts && status == SCA_OK; i++) status = file_remove(p->parts[i].path);
    return status;
}

static sca_status join(preparing *p, str *table)
{
    store_source from = { .o = p->o, .d = p->d, .n = p->n };
    store_image_info *images = from.images = mem_zero((size_t)p->n, sizeof *images);
    if (!images) return mem_fail((size_t)p->n * sizeof *images, "images");
    sca_status status = read_parts(p);
    for (int64_t i = 0; i < p->n && status == SCA_OK; i++) {
        const found *f = &p->images[i];
        if (!f->known)
            status = status_fail(SCA_ERR_STATE, "%s: image %lld is in no part file", p->o->to, (long long)i);
        if (status == SCA_OK)
            images[i] = (store_image_info){ f->width, f->height, p->parts[f->part].data + f->at, f->bytes };
    }
    if (status == SCA_OK) status = store_write(&from, table);
    mem_free(images);
    return status == SCA_OK ? remove_parts(p) : status;
}

static sca_status run(preparing *p, str *table)
{
    p->n = dataset_count(p->d);
    make_key(p);
    p->images = mem_zero((size_t)p->n, sizeof *p->images);
    sca_status status = p->images ? read_parts(p) : mem_fail((size_t)p->n * sizeof *p->images, "images");
    TRY(agree(p, status)); /* no one writes before all have read */
    status = decode_share(p);
    TRY(agree(p, status));
    return agree(p, p->o->rank == 0 ? join(p, table) : SCA_OK);
}

sca_status prepare_store(const prepare_options *o, str *table)
{
    preparing p = { .o = o };
    /* A label map is decoded for each of its segments: too slow to be done for a whole set. */
    bool masks = strcmp(o->set.kind, "coco_panoptic") != 0;
    sca_status status = masks ? dataset_open_masks(&o->set, &p.d) : dataset_open(&o->set, &p.d);
    if (status == SCA_OK && !dataset_pictures(p.d))
        status = status_fail(SCA_ERR_ARGUMENT, "kind %s: it has no images to prepare; train reads it as it is",
                             o->set.kind);
    status = agree(&p, status);
    if (status == SCA_OK) status = run(&p, table);
    unmap_parts(&p);
    mem_free(p.images);
    dataset_close(p.d);
    return status;
}
