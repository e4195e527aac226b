/* fuzz_dataset.c - annotations from strangers. The first byte chooses the kind and which of its files the rest is;
 * the other files of the kind are small and right. */
#include "data/data.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const char ref[] = "\x80\x02](}(U\x06ref_idK\x01U\x06"
                          "ann_idK\x01U\x08image_idK\x01U\x05splitU\x03valU\x09sentences](}(U\x04sentU\x01xueue.";
static const struct row {
    const char *kind, *file;
    bool folder; /* annotations is the folder, else the file */
} rows[] = { { "coco", "a.json", false },
             { "coco_caption", "a.json", false },
             { "coco_panoptic", "a.json", false },
             { "grit", "a.json", false },
             { "v3det", "a.json", false },
             { "visual_genome", "densecap_splits.json", true },
             { "visual_genome", "image_data.json", true },
             { "visual_genome", "region_descriptions.json", true },
             { "refcoco", "refs(x).p", true },
             { "refcoco", "instances.json", true },
             { "sbu", "a.json", false },
             { "text", "a.json", false },
             { "store", "a.json", false } };
static const struct file {
    const char *name, *text;
    size_t bytes;
} files[] = {
#define TEXT(name, text)                                                                                           \
    {                                                                                                              \
        name, text, sizeof text - 1                                                                                \
    }
    TEXT("densecap_splits.json", "{\"test\": [1, 2]}"),
    TEXT("image_data.json",
         "[{\"image_id\": 1, \"url\": \"https://cs.stanford.edu/people/rak248/VG_100K/1.jpg\"}]"),
    TEXT("region_descriptions.json", "[{\"id\": 1, \"regions\": [{\"region_id\": 1, \"phrase\": \"x\", \"x\": 1, "
                                     "\"y\": 1, \"width\": 1, \"height\": 1}]}]"),
    TEXT("refs(x).p", ref),
    TEXT("instances.json", "{\"images\": [{\"id\": 1, \"file_name\": \"a.jpg\"}], \"annotations\": [{\"id\": 1, "
                           "\"bbox\": [1, 2, 3, 4]}]}"),
    TEXT("a.json", ""),
#undef TEXT
};

/* The folder holds links to files in memory. */
static char folder[] = P_tmpdir "/sca-fuzz-XXXXXX";
static int opened[LENGTH(files)];

static size_t file_at(const char *name)
{
    size_t i = 0;
    while (strcmp(files[i].name, name) != 0) i++;
    return i;
}

static void put(size_t file, const void *data, size_t size)
{
    int fd = opened[file];
    if (ftruncate(fd, 0) != 0 || pwrite(fd, data, size, 0) != (ssize_t)size) __builtin_trap();
}

static void clean(void)
{
    char path[200];
    for (size_t i = 0; i < LENGTH(files); i++) {
        snprintf(path, sizeof path, "%s/%s", folder, files[i].name);
        unlink(path);
    }
    rmdir(folder);
}

static void prepare(void)
{
    static bool ready;
    char path[200], to[100];
    if (ready) return;
    if (!mkdtemp(folder)) __builtin_trap();
    for (size_t i = 0; i < LENGTH(files); i++) {
        opened[i] = memfd_create("annotations", MFD_CLOEXEC);
        snprintf(path, sizeof path, "%s/%s", folder, files[i].name);
        snprintf(to, sizeof to, "/proc/self/fd/%d", opened[i]);
        if (opened[i] < 0 || symlink(to, path) != 0) __builtin_trap();
        put(i, files[i].text, files[i].bytes);
    }
    atexit(clean);
    ready = true;
}

/* Paths stay in the folder, boxes have sides of at least 0, phrases are UTF-8. */
static int64_t check_sample(const data_sample *s)
{
    if (!text_starts(s->path, folder) || strstr(s->path, "/../") || text_ends(s->path, "/..")) __builtin_trap();
    if (s->width < 0 || s->height < 0) __builtin_trap();
    for (size_t i = 0; i < s->n_regions; i++) {
        const sample_region *r = &s->regions[i];
        if (!(r->box[2] >= r->box[0] && r->box[3] >= r->box[1]) || r->n_phrases == 0) __builtin_trap();
        for (size_t k = 0; k < r->n_phrases; k++)
            if (!utf8_valid(r->phrases[k], strlen(r->phrases[k]))) __builtin_trap();
    }
    return (int64_t)s->n_regions;
}

/* What a store says of an image is looked at when it is asked for: whatever it is, nothing breaks. */
static void ask_store(const dataset *d, int64_t i, const data_sample *s)
{
    sca_image image;
    mask_runs runs;
    bool found;
    if (dataset_image(d, i, s, &(sca_image_options){ .max_pixels = 4096 }, &image) == SCA_OK) {
        for (size_t r = 0; r < s->n_regions; r++)
            if (dataset_mask(d, i, &s->regions[r], image.width, image.height, &runs, &found) == SCA_OK)
                mask_runs_free(&runs);
        sca_image_free(&image);
    }
    const embeddings_info *e = dataset_embeddings(d);
    void *out = e ? malloc(e->bytes) : NULL;
    if (out && dataset_embedding(d, i, out) != SCA_OK) __builtin_trap();
    free(out);
}

static void check_store(const dataset *d)
{
    for (int64_t i = 0; i < dataset_count(d); i++) {
        data_sample s;
        if (dataset_read(d, i, &s) == SCA_OK) {
            check_sample(&s);
            ask_store(d, i, &s);
        }
        sample_free(&s);
    }
}

static void check_set(const dataset *d)
{
    int64_t regions = 0, bad = 0;
    const dataset_counts *c = dataset_counted(d);
    for (int64_t i = 0; i < dataset_count(d); i++) {
        data_sample s;
        if (dataset_read(d, i, &s) != SCA_OK) __builtin_trap();
        regions += check_sample(&s);
        sample_free(&s);
    }
    for (int r = 0; r < DATASET_REASONS; r++) bad += c->by_reason[r];
    if (dataset_count(d) == 0 || regions != c->regions || bad != c->bad || c->phrases < regions) __builtin_trap();
    for (int64_t i = 0; i < c->bad; i++)
        if (!dataset_bad_at(d, i).file) __builtin_trap();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    config_dataset set = { .split = "" };
    dataset *d;
    if (size == 0) return 0;
    prepare();
    const struct row *row = &rows[data[0] % LENGTH(rows)];
    size_t file = file_at(row->file);
    put(file, data + 1, size - 1);
    snprintf(set.kind, sizeof set.kind, "%s", row->kind);
    snprintf(set.images, sizeof set.images, "%s", folder);
    snprintf(set.annotations, sizeof set.annotations, "%s%s%s", folder, row->folder ? "/" : "",
             row->folder ? "" : "/a.json");
    if (dataset_open(&set, &d) == SCA_OK)
        (strcmp(row->kind, "store") == 0 ? check_store : check_set)(d);
    else if (d || !*status_message())
        __builtin_trap();
    dataset_close(d);
    put(file, files[file].text, files[file].bytes); /* right again for the next one */
    return 0;
}
