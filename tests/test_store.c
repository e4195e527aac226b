/* test_store.c - prepared stores: the same batches as from the files, files that are right for others, work that is
 * interrupted, and stores from strangers. */
#include "data/hdf5.h"
#include "data/loader_parts.h"
#include "faults.h"
#include "sets.h"

#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define GENOME SCA_SHARED "/data/vg-mini"
#define COCO SCA_SHARED "/data/coco-mini"

static char folder[] = SCA_BUILD "/store.XXXXXX";

static const char *in_folder(const char *name) { return made_path(folder, name); }

static prepare_options prepare_of(const config_dataset *set, const char *to)
{
    return (prepare_options){ .set = *set, .to = to, .threads = 2, .size = 1 };
}

static sca_status prepare(const prepare_options *o)
{
    str table = { 0 };
    sca_status status = prepare_store(o, &table);
    str_free(&table);
    return status;
}

/* ---- HDF5 -------------------------------------------------------------------------------------------------------------- */

static void arrays_back(void)
{
    enum { MANY = 40 };
    char names[MANY][24];
    hdf5_array a[MANY];
    hdf5_out *out;
    hdf5 *f;
    const void *p;
    int64_t dim[4] = { -1, -1, -1, -1 };
    for (int i = 0; i < MANY; i++) {
        snprintf(names[i], sizeof names[i], "array %d", (i * 17) % MANY);
        a[i] = (hdf5_array){ names[i], HDF5_I32, 1, { (uint64_t)(i % 5) } };
    }
    a[3] = (hdf5_array){ names[3], HDF5_F16, 3, { 2, 3, 5 } };
    a[4] = (hdf5_array){ names[4], HDF5_F64, 2, { 2, 2 } };
    a[5] = (hdf5_array){ names[5], HDF5_U8, 1, { 100 } };
    uint8_t values[4000];
    for (size_t i = 0; i < sizeof values; i++) values[i] = (uint8_t)(i * 31 >> 3);
    CHECK_OK(hdf5_create(in_folder("a.h5"), a, MANY, &out));
    size_t at = 0;
    for (int i = 0; i < MANY; i++) {
        size_t bytes = hdf5_bytes(a[i].type);
        for (int k = 0; k < a[i].rank; k++) bytes *= a[i].dim[k];
        CHECK_OK(hdf5_put(out, values + at, bytes));
        at += bytes;
    }
    CHECK_FAILS(hdf5_put(out, values, 1), SCA_ERR_STATE, "more values");
    CHECK_OK(hdf5_commit(out));
    CHECK_OK(hdf5_open(in_folder("a.h5"), &f));
    at = 0;
    for (int i = 0; i < MANY; i++) {
        size_t bytes = hdf5_bytes(a[i].type);
        for (int k = 0; k < 4; k++) dim[k] = -1;
        CHECK_OK(hdf5_get(f, names[i], a[i].type, a[i].rank, dim, &p));
        for (int k = 0; k < a[i].rank; k++) CHECK((uint64_t)dim[k] == a[i].dim[k]), bytes *= a[i].dim[k];
        CHECK(memcmp(p, values + at, bytes) == 0);
        at += bytes;
    }
    CHECK(hdf5_has(f, "array 0") && !hdf5_has(f, "array"));
    CHECK_FAILS(hdf5_get(f, "x", HDF5_U8, 1, dim, &p), SCA_ERR_FORMAT, "no array 'x'");
    CHECK_FAILS(hdf5_get(f, names[5], HDF5_I32, 1, dim, &p), SCA_ERR_FORMAT, "is of u8 with 1 dimensions");
    dim[0] = 99;
    CHECK_FAILS(hdf5_get(f, names[5], HDF5_U8, 1, dim, &p), SCA_ERR_FORMAT, "the first 100 long");
    hdf5_close(f);

    CHECK_OK(hdf5_create(in_folder("a.h5"), a, MANY, &out));
    CHECK_FAILS(hdf5_commit(out), SCA_ERR_STATE, "values of");
    CHECK_OK(hdf5_create(in_folder("b.h5"), NULL, 0, &out));
    CHECK_OK(hdf5_commit(out));
    CHECK_OK(hdf5_open(in_folder("b.h5"), &f));
    CHECK(!hdf5_has(f, "a"));
    hdf5_close(f);
}

#ifdef SCA_HAS_HDF5
#include <hdf5.h>

static void put_library(hid_t file, const char *name, hid_t stored, hid_t given, int rank, const hsize_t *dim,
                        const void *values, hid_t how)
{
    hid_t space = H5Screate_simple(rank, dim, NULL);
    hid_t set = H5Dcreate2(file, name, stored, space, H5P_DEFAULT, how, H5P_DEFAULT);
    CHECK(set >= 0 && H5Dwrite(set, given, H5S_ALL, H5S_ALL, H5P_DEFAULT, values) >= 0);
    H5Dclose(set);
    H5Sclose(space);
}

/* A file that the library writes with its defaults, with more names than one node holds. */
static void write_by_library(const char *path)
{
    static const int64_t squares[] = { -3, -2, 1, 6, 13 };
    static const int32_t small[] = { 4, -7 };
    hid_t file = H5Fcreate(path, H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT), chunked = H5Pcreate(H5P_DATASET_CREATE);
    float reals[12];
    char name[24];
    for (int i = 0; i < 12; i++) reals[i] = (float)i / 2;
    put_library(file, "integers", H5T_STD_I64LE, H5T_NATIVE_INT64, 1, (hsize_t[]){ 5 }, squares, H5P_DEFAULT);
    put_library(file, "reals", H5T_IEEE_F32LE, H5T_NATIVE_FLOAT, 2, (hsize_t[]){ 3, 4 }, reals, H5P_DEFAULT);
    put_library(file, "bytes", H5T_STD_U8LE, H5T_NATIVE_UINT8, 1, (hsize_t[]){ 6 }, "abcdef", H5P_DEFAULT);
    put_library(file, "big", H5T_STD_I32BE, H5T_NATIVE_INT32, 1, (hsize_t[]){ 2 }, small, H5P_DEFAULT);
    for (int i = 0; i < 60; i++) {
        snprintf(name, sizeof name, "array %d", i);
        put_library(file, name, H5T_STD_I32LE, H5T_NATIVE_INT32, 1, (hsize_t[]){ 2 }, small, H5P_DEFAULT);
    }
    H5Pset_chunk(chunked, 1, (hsize_t[]){ 1 });
    put_library(file, "chunked", H5T_STD_I32LE, H5T_NATIVE_INT32, 1, (hsize_t[]){ 2 }, small, chunked);
    H5Gclose(H5Gcreate2(file, "group", H5P_DEFAULT, H5P_DEFAULT, H5P_DEFAULT));
    H5Pclose(chunked);
    H5Fclose(file);
}

static void from_library(void)
{
    hdf5 *f;
    const void *p;
    int64_t dim[3] = { -1, -1, -1 };
    write_by_library(in_folder("library.h5"));
    CHECK_OK(hdf5_open(in_folder("library.h5"), &f));
    if (!f) return;
    CHECK_OK(hdf5_get(f, "integers", HDF5_I64, 1, dim, &p));
    CHECK(dim[0] == 5 && ((const int64_t *)p)[0] == -3 && ((const int64_t *)p)[4] == 13);
    dim[0] = -1;
    CHECK_OK(hdf5_get(f, "reals", HDF5_F32, 2, dim, &p));
    CHECK(dim[0] == 3 && dim[1] == 4 && ((const float *)p)[11] == 5.5f);
    dim[0] = -1;
    CHECK_OK(hdf5_get(f, "bytes", HDF5_U8, 1, dim, &p));
    CHECK(dim[0] == 6 && memcmp(p, "abcdef", 6) == 0);
    for (int i = 0; i < 60; i++) {
        char name[24];
        snprintf(name, sizeof name, "array %d", i);
        dim[0] = 2;
        CHECK_OK(hdf5_get(f, name, HDF5_I32, 1, dim, &p));
        CHECK(((const int32_t *)p)[1] == -7);
    }
    CHECK(!hdf5_has(f, "chunked") && !hdf5_has(f, "group") && !hdf5_has(f, "big"));
    hdf5_close(f);
}

static void check_array(hid_t file, const char *name, hid_t type, hid_t stored, int rank, const hsize_t *dim,
                        const void *values, size_t bytes)
{
    hsize_t found[4] = { 0 };
    hid_t set = H5Dopen2(file, name, H5P_DEFAULT);
    if (!CHECKF(set >= 0, "the library finds no '%s'", name)) return;
    hid_t space = H5Dget_space(set), is = H5Dget_type(set);
    char *back = mem_zero(bytes, 1);
    CHECK(H5Sget_simple_extent_ndims(space) == rank && H5Sget_simple_extent_dims(space, found, NULL) == rank);
    for (int i = 0; i < rank; i++) CHECK(found[i] == dim[i]);
    CHECKF(H5Tequal(is, stored) > 0, "'%s' is of another type", name);
    CHECK(H5Dread(set, type, H5S_ALL, H5S_ALL, H5P_DEFAULT, back) >= 0 && memcmp(back, values, bytes) == 0);
    mem_free(back);
    H5Tclose(is);
    H5Sclose(space);
    H5Dclose(set);
}

static void for_library(void)
{
    enum { MANY = 70 };
    static const int32_t ints[] = { 1, -2, 3 };
    static const int64_t longs[] = { INT64_MIN, 5 };
    static const float reals[] = { 0.5f, -1e30f, 3, 4 };
    static const double doubles[] = { 0.1, -1e300 };
    static const uint16_t halves[] = { 0x3c00, 0xc500 }; /* 1, -5 */
    static const float of_halves[] = { 1, -5 };
    char names[MANY][24];
    hdf5_array a[MANY] = { { "ints", HDF5_I32, 1, { 3 } },      { "longs", HDF5_I64, 1, { 2 } },
                           { "none", HDF5_I32, 2, { 0, 4 } },   { "reals", HDF5_F32, 2, { 2, 2 } },
                           { "doubles", HDF5_F64, 1, { 2 } },   { "halves", HDF5_F16, 1, { 2 } },
                           { "bytes", HDF5_U8, 3, { 1, 1, 5 } } };
    hdf5_out *out;
    for (int i = 7; i < MANY; i++) {
        snprintf(names[i], sizeof names[i], "z %d", (i * 11) % MANY);
        a[i] = (hdf5_array){ names[i], HDF5_I32, 1, { 1 } };
    }
    CHECK_OK(hdf5_create(in_folder("ours.h5"), a, MANY, &out));
    CHECK_OK(hdf5_put(out, ints, sizeof ints));
    CHECK_OK(hdf5_put(out, longs, sizeof longs));
    CHECK_OK(hdf5_put(out, reals, sizeof reals));
    CHECK_OK(hdf5_put(out, doubles, sizeof doubles));
    CHECK_OK(hdf5_put(out, halves, sizeof halves));
    CHECK_OK(hdf5_put(out, "bytes", 5));
    for (int32_t i = 7; i < MANY; i++) CHECK_OK(hdf5_put(out, &i, sizeof i));
    CHECK_OK(hdf5_commit(out));
    hid_t file = H5Fopen(in_folder("ours.h5"), H5F_ACC_RDONLY, H5P_DEFAULT);
    if (!CHECKF(file >= 0, "the library does not open it")) return;
    hid_t half = H5Tcopy(H5T_IEEE_F32LE);
    H5Tset_fields(half, 15, 10, 5, 0, 10);
    H5Tset_size(half, 2);
    H5Tset_ebias(half, 15);
    check_array(file, "ints", H5T_NATIVE_INT32, H5T_STD_I32LE, 1, (hsize_t[]){ 3 }, ints, sizeof ints);
    check_array(file, "longs", H5T_NATIVE_INT64, H5T_STD_I64LE, 1, (hsize_t[]){ 2 }, longs, sizeof longs);
    check_array(file, "none", H5T_NATIVE_INT32, H5T_STD_I32LE, 2, (hsize_t[]){ 0, 4 }, "", 0);
    check_array(file, "reals", H5T_NATIVE_FLOAT, H5T_IEEE_F32LE, 2, (hsize_t[]){ 2, 2 }, reals, sizeof reals);
    check_array(file, "doubles", H5T_NATIVE_DOUBLE, H5T_IEEE_F64LE, 1, (hsize_t[]){ 2 }, doubles, sizeof doubles);
    check_array(file, "halves", H5T_NATIVE_FLOAT, half, 1, (hsize_t[]){ 2 }, of_halves, sizeof of_halves);
    check_array(file, "bytes", H5T_NATIVE_UINT8, H5T_STD_U8LE, 3, (hsize_t[]){ 1, 1, 5 }, "bytes", 5);
    for (int32_t i = 7; i < MANY; i++)
        check_array(file, names[i], H5T_NATIVE_INT32, H5T_STD_I32LE, 1, (hsize_t[]){ 1 }, &i, sizeof i);
    H5G_info_t info;
    CHECK(H5Gget_info(file, &info) >= 0 && info.nlinks == MANY);
    H5Tclose(half);
    H5Fclose(file);
}
#else
static void from_library(void) { check_skip("hdf5: the tests were built without libhdf5"); }
static void for_library(void) { check_skip("hdf5: the tests were built without libhdf5"); }
#endif

/* Every byte of a small file's header changed, and every length it can be cut to: an error or arrays within it. */
static void damaged_files(void)
{
    static const hdf5_array a[] = { { "x", HDF5_I64, 1, { 4 } }, { "y", HDF5_U8, 2, { 3, 3 } } };
    hdf5_out *out;
    char *data;
    size_t bytes;
    hdf5 *f;
    CHECK_OK(hdf5_create(in_folder("c.h5"), a, 2, &out));
    CHECK_OK(hdf5_put(out, "abcdefghabcdefghabcdefghabcdefgh123456789", 41));
    CHECK_OK(hdf5_commit(out));
    CHECK_OK(file_read(in_folder("c.h5"), 1 << 20, &data, &bytes));
    int refused = 0;
    for (size_t i = 0; i < bytes; i++) {
        for (int bit = 0; bit < 8; bit += 3) {
            char old = data[i];
            data[i] = (char)(old ^ 1 << bit);
            CHECK_OK(file_write(in_folder("d.h5"), data, bytes));
            data[i] = old;
            refused += hdf5_open(in_folder("d.h5"), &f) != SCA_OK;
            hdf5_close(f);
        }
    }
    CHECK(refused > 100);
    for (size_t n = 0; n < bytes; n += 7) {
        CHECK_OK(file_write(in_folder("d.h5"), data, n));
        CHECK(hdf5_open(in_folder("d.h5"), &f) == SCA_ERR_FORMAT);
    }
    mem_free(data);
}

/* ---- the same batches ---------------------------------------------------------------------------------------------------- */

static sca_status tokenise_bytes(void *user, const char *text, size_t bytes, int **ids, int *n)
{
    (void)user;
    *n = (int)(bytes < 18 ? bytes : 18) + 1;
    *ids = mem_zero((size_t)*n, sizeof **ids);
    if (!*ids) return mem_fail(64, "ids");
    for (int i = 0; i + 1 < *n; i++) (*ids)[i] = (uint8_t)text[i];
    return SCA_OK;
}

static sca_status count_skip(void *user, const loader_skip *s)
{
    uint64_t *h = user;
    for (const char *p = path_name(s->file); *p; p++) *h = (*h ^ (uint8_t)*p) * 0x100000001b3u;
    *h = (*h ^ (uint64_t)s->id) * 0x100000001b3u;
    return SCA_OK;
}

static loader_options options_of(const config_dataset *set)
{
    return (loader_options){ .sets = set,
                             .n_sets = 1,
                             .shuffle = true,
                             .regions_per_image = 4,
                             .jitter = true,
                             .jitter_scale = { 0.1, 2 },
                             .max_bad = 1,
                             .seed = 42,
                             .batch_images = 2,
                             .size = 1,
                             .accumulate = 1,
                             .pixels = true,
                             .tokens = true,
                             .side = 48,
                             .mask_side = 12,
                             .mean = { 0.5, 0.4, 0.3 },
                             .std = { 0.2, 0.2, 0.3 },
                             .tokenise = tokenise_bytes };
}

/* A number of everything in the next n batches, and of what is left out. */
static uint64_t print_of(loader_options o, int n)
{
    uint64_t h = 14695981039346656037u, skipped = h;
    loader *l = NULL;
    const loader_batch *b;
    o.skipped = count_skip;
    o.skipped_user = &skipped;
    CHECK_OK(loader_open(&o, &l));
    for (int i = 0; l && i < n; i++) {
        CHECK_OK(loader_next(l, &b));
        size_t N = (size_t)(b->images * b->regions);
        const struct {
            const void *data;
            size_t bytes;
        } parts[] = { { b->pixels, (size_t)b->images * 48 * 48 * 3 * sizeof(float) },
                      { b->ids, N * (size_t)b->length * sizeof(int32_t) },
                      { b->boxes, N * sizeof *b->boxes },
                      { b->masks, N * 144 },
                      { b->image_ids, (size_t)b->images * 8 },
                      { b->region_ids, N * 8 },
                      { b->recognition, (size_t)b->images } };
        for (size_t k = 0; k < LENGTH(parts); k++)
            for (size_t j = 0; parts[k].data && j < parts[k].bytes; j++)
                h = (h ^ ((const uint8_t *)parts[k].data)[j]) * 0x100000001b3u;
    }
    loader_close(l);
    return h ^ skipped;
}

static void check_same(const config_dataset *set, bool pack, bool masks, int batches)
{
    prepare_options p = prepare_of(set, in_folder("s.h5"));
    p.pack = pack;
    CHECK_OK(prepare(&p));
    config_dataset made = set_of("store", in_folder("s.h5"), pack ? "" : set->images, "");
    loader_options raw = options_of(set), stored = options_of(&made);
    raw.masks = stored.masks = masks;
    CHECKF(print_of(raw, batches) == print_of(stored, batches), "%s, %s: other batches", set->kind,
           pack ? "packed" : "not packed");
    dataset *a, *b;
    CHECK_OK(dataset_open_masks(set, &a));
    CHECK_OK(dataset_open(&made, &b));
    const dataset_counts *x = dataset_counted(a), *y = dataset_counted(b);
    CHECK(memcmp(x, y, sizeof *x) == 0 && strcmp(dataset_name(a), dataset_name(b)) == 0);
    for (int64_t i = 0; i < x->bad; i++)
        CHECK(dataset_bad_at(a, i).id == dataset_bad_at(b, i).id &&
              strcmp(dataset_bad_at(a, i).what, dataset_bad_at(b, i).what) == 0);
    CHECK(dataset_recognition(a) == dataset_recognition(b) && !file_exists(in_folder("s.h5.part-0")));
    dataset_close(b);
    dataset_close(a);
}

static void same_batches(void)
{
    config_dataset set = set_of("synthetic", "count=6 size=48", "", "train");
    strcpy(set.task, "recognition");
    check_same(&set, true, true, 5);
    if (!dir_exists(GENOME)) {
        check_skip("shared: vg-mini is absent");
        return;
    }
    set = set_of("visual_genome", GENOME "/annotations", GENOME, "val");
    check_same(&set, true, false, 8);
    check_same(&set, false, false, 4);
    set = set_of("coco", COCO "/annotations/instances_val2017.json", COCO "/val2017", "");
    check_same(&set, true, false, 4);
}

/* ---- sets with mistakes, masks, interruptions ------------------------------------------------------------------------------ */

static void put_picture(const char *name, int seed)
{
    str ppm = { 0 };
    str_put(&ppm, "P6 20 10 255\n");
    for (int i = 0; i < 600; i++) str_putc(&ppm, (char)(i * seed));
    CHECK_OK(file_write(in_folder(name), ppm.data, ppm.bytes));
    str_free(&ppm);
}

static config_dataset mistakes(void)
{
    static const char text[] =
        "{\"images\": [{\"id\": 1, \"file_name\": \"1.ppm\", \"width\": 20, \"height\": 10},"
        "{\"id\": 2, \"file_name\": \"2.ppm\"}, {\"id\": 3, \"file_name\": \"3.ppm\"}, {\"id\": 4, \"file_name\": "
        "4},"
        "{\"id\": 5, \"file_name\": \"5.ppm\"}],"
        "\"annotations\": [{\"id\": 1, \"image_id\": 1, \"category_id\": 1, \"bbox\": [0, 0, 5, 5], "
        "\"segmentation\":"
        " [[1, 1, 9, 1, 9, 9]]},"
        "{\"id\": 2, \"image_id\": 1, \"category_id\": 1, \"bbox\": [1, 1, 5, 5], \"segmentation\": [[1]]},"
        "{\"id\": 3, \"image_id\": 1, \"category_id\": 1, \"bbox\": [30, 1, 5, 5]},"
        "{\"id\": 4, \"image_id\": 1, \"category_id\": 2, \"bbox\": [1, 1, 5, 5], \"segmentation\":"
        " {\"counts\": [100, 20, 80], \"size\": [10, 20]}, \"iscrowd\": 1},"
        "{\"id\": 5, \"image_id\": 2, \"category_id\": 1, \"bbox\": [1, 1, 5, 5]},"
        "{\"id\": 6, \"image_id\": 3, \"category_id\": 1, \"bbox\": [1, 1, 5, 5]},"
        "{\"id\": 7, \"image_id\": 1, \"category_id\": 9, \"bbox\": [1, 1, 5, 5]}],"
        "\"categories\": [{\"id\": 1, \"name\": \"dog\"}, {\"id\": 2, \"name\": \" \"}]}";
    CHECK_OK(file_write(in_folder("m.json"), text, sizeof text - 1));
    put_picture("1.ppm", 7);
    CHECK_OK(file_write(in_folder("2.ppm"), "P6 20 10 255\nabc", 16));
    return set_of("coco", in_folder("m.json"), folder, "");
}

static void table_of_counts(void)
{
    static const char *const rows[] = {
        "images                                                    3\n",
        "regions                                                   6\n",
        "phrases                                                   6\n",
        "masks                                                     2\n",
        "images without regions                  1",
        "bad records                                               1  a member is missing",
        "bad records                                               1  no such category",
        "images that cannot be read                                2  ",
        "regions without area within their image                   1\n",
        "phrases that are empty or too long                        1\n",
        "masks that are wrong                                      1\n",
        "bytes of image files                                    613\n"
    };
    config_dataset set = mistakes();
    prepare_options p = prepare_of(&set, in_folder("m.h5"));
    str table = { 0 };
    p.pack = true;
    CHECK_OK(prepare_store(&p, &table));
    for (size_t i = 0; i < LENGTH(rows); i++)
        CHECKF(strstr(str_text(&table), rows[i]), "no '%s' in\n%s", rows[i], str_text(&table));
    str_free(&table);
    check_same(&set, true, false, 6);
    check_same(&set, false, false, 6);
    set = set_of("store", in_folder("m.h5"), "", "");
    dataset *d;
    data_sample s;
    sca_image image;
    CHECK_OK(dataset_open(&set, &d));
    CHECK_OK(dataset_read(d, 1, &s));
    CHECK_FAILS(dataset_image(d, 1, &s, NULL, &image), SCA_ERR_FORMAT, "2.ppm: it could not be read");
    sample_free(&s);
    dataset_close(d);
    strcpy(set.split, "test");
    CHECK_FAILS(dataset_open(&set, &d), SCA_ERR_ARGUMENT, "the split is 'test', but the store holds ''");
}

/* ---- embeddings ------------------------------------------------------------------------------------------------------------ */

typedef struct counting { /* an encoder that fails after some images */
    int done, most;
} counting;

static sca_status embed(void *user, const sca_image *photo, void *out)
{
    counting *c = user;
    float *values = out;
    if (c->done == c->most) return status_fail(SCA_ERR_STATE, "enough");
    c->done++;
    for (int i = 0; i < 2 * 2 * 3; i++) values[i] = (float)photo->rgb[i] + 0.25f;
    return SCA_OK;
}

static prepare_options embeddings_of(const config_dataset *set, const char *to, counting *c)
{
    prepare_options p = prepare_of(set, to);
    p.embed = embed;
    p.embedder = c;
    p.embedding = (embeddings_info){ .grid = 2, .channels = 3, .bytes = 48, .encoder = "key" };
    return p;
}

static void interrupted(void)
{
    config_dataset set = set_of("synthetic", "count=7 size=40", "", "train");
    counting c = { 0, 3 };
    prepare_options p = embeddings_of(&set, in_folder("e.h5"), &c);
    CHECK_FAILS(prepare(&p), SCA_ERR_STATE, "enough");
    CHECK(c.done == 3 && !file_exists(in_folder("e.h5")));
    char *data; /* the end of a record that was being written */
    size_t bytes;
    CHECK_OK(file_read(in_folder("e.h5.part-0"), 1 << 20, &data, &bytes));
    CHECK_OK(file_write(in_folder("e.h5.part-0"), data, bytes - 5));
    mem_free(data);
    p.embedding.encoder = "other";
    CHECK_FAILS(prepare(&p), SCA_ERR_STATE, "of another preparation");
    p.embedding.encoder = "key";
    c = (counting){ 0, 100 };
    CHECK_OK(prepare(&p));
    CHECK(c.done == 5); /* the third was cut */

    config_dataset made = set_of("store", in_folder("e.h5"), "", "");
    dataset *d, *raw;
    CHECK_OK(dataset_open(&made, &d));
    CHECK_OK(dataset_open(&set, &raw));
    const embeddings_info *e = dataset_embeddings(d);
    CHECK(e && e->grid == 2 && e->channels == 3 && !e->f16 && strcmp(e->encoder, "key") == 0);
    for (int64_t i = 0; e && i < 7; i++) {
        data_sample s;
        sca_image image;
        float values[12];
        CHECK_OK(dataset_read(raw, i, &s));
        CHECK_OK(dataset_image(raw, i, &s, NULL, &image));
        CHECK_OK(dataset_embedding(d, i, values));
        for (int k = 0; k < 12; k++) CHECK(values[k] == (float)image.rgb[k] + 0.25f);
        sca_image_free(&image);
        sample_free(&s);
    }
    dataset_close(raw);
    dataset_close(d);

    loader_options o = options_of(&made);
    loader *l;
    const loader_batch *b;
    o.jitter = false;
    o.embeddings = true;
    o.encoder = "key";
    CHECK_OK(loader_open(&o, &l));
    CHECK_OK(loader_next(l, &b));
    CHECK(!b->pixels && b->embeddings && b->grid == 2 && b->channels == 3 && !b->embeddings_f16);
    CHECK(b->valid[0][0] == 48 && b->original[0][0] == 40);
    loader_close(l);
    o.encoder = "another";
    CHECK_FAILS(loader_open(&o, &l), SCA_ERR_ARGUMENT,
                "of another encoder than the model's (key, expected another)");
}

/* Ranks work on their shares one after the other here; the last one to end is rank 0, which joins. */
static sca_status alone(void *user, sca_status mine)
{
    int *calls = user;
    ++*calls;
    return mine;
}

static void several_ranks(void)
{
    config_dataset set = set_of("synthetic", "count=7 size=40", "", "train");
    counting c = { 0, 100 };
    prepare_options p = embeddings_of(&set, in_folder("r.h5"), &c);
    int calls = 0;
    p.size = 3;
    p.agree = alone;
    p.ranks = &calls;
    for (p.rank = 2; p.rank >= 0; p.rank--) CHECK_OK(prepare(&p));
    CHECKF(c.done == 7 && calls == 12, "%d images, %d calls", c.done, calls);
    char *one, *three;
    size_t n, m;
    p = embeddings_of(&set, in_folder("e.h5"), &c);
    CHECK_OK(prepare(&p));
    CHECK_OK(file_read(in_folder("e.h5"), 1 << 24, &one, &n));
    CHECK_OK(file_read(in_folder("r.h5"), 1 << 24, &three, &m));
    CHECK(n == m && memcmp(one, three, n) == 0);
    for (int i = 0; i < 3; i++) {
        char name[32];
        snprintf(name, sizeof name, "r.h5.part-%d", i);
        CHECK(!file_exists(in_folder(name)));
    }
    mem_free(one);
    mem_free(three);
}

static void refused(void)
{
    config_dataset set = set_of("store", in_folder("none.h5"), "", "");
    dataset *d;
    CHECK_FAILS(dataset_open(&set, &d), SCA_ERR_IO, "none.h5");
    CHECK_OK(file_write(in_folder("t.h5"), "text", 4));
    set = set_of("store", in_folder("t.h5"), "", "");
    CHECK_FAILS(dataset_open(&set, &d), SCA_ERR_FORMAT, "no HDF5 file");
    hdf5_out *out;
    CHECK_OK(hdf5_create(in_folder("t.h5"), NULL, 0, &out));
    CHECK_OK(hdf5_commit(out));
    CHECK_FAILS(dataset_open(&set, &d), SCA_ERR_FORMAT, "no array 'about'");
    CHECK_OK(file_write(in_folder("w.txt"), "a b\n", 4));
    set = set_of("text", in_folder("w.txt"), "", "");
    prepare_options p = prepare_of(&set, in_folder("t.h5"));
    CHECK_FAILS(prepare(&p), SCA_ERR_ARGUMENT, "no images to prepare");
    set = mistakes();
    p = prepare_of(&set, in_folder("absent/x.h5"));
    CHECK(prepare(&p) != SCA_OK);
}

/* ---- failures of the machine -------------------------------------------------------------------------------------------------- */

static sca_status whole_work(void *user)
{
    const prepare_options *p = user;
    config_dataset made = set_of("store", p->to, "", "");
    counting *c = p->embedder;
    dataset *d;
    data_sample s = { 0 };
    mask_runs runs = { 0 };
    sca_image image = { 0 };
    bool found;
    c->done = 0;
    unlink(p->to);
    TRY(prepare(p));
    TRY(dataset_open(&made, &d));
    sca_status status = dataset_read(d, 0, &s);
    if (status == SCA_OK) status = dataset_image(d, 0, &s, NULL, &image);
    if (status == SCA_OK) status = dataset_mask(d, 0, &s.regions[0], image.width, image.height, &runs, &found);
    mask_runs_free(&runs);
    sca_image_free(&image);
    sample_free(&s);
    dataset_close(d);
    return status;
}

static void faults(void)
{
    config_dataset set = mistakes();
    counting c = { 0, 100 };
    CHECK_OK(file_write(in_folder("2.ppm"), "P6 1 1 255\nabc", 14));
    CHECK_OK(file_write(in_folder("3.ppm"), "P6 1 1 255\nabc", 14));
    set = set_of("synthetic", "count=2 size=32", "", "train");
    prepare_options p = embeddings_of(&set, in_folder("f.h5"), &c);
    p.pack = true;
    p.threads = 1;
    sca_log_to(NULL, NULL, SCA_LOG_ERROR);
    CHECK(check_faults(fault_alloc, whole_work, &p, "allocation") > 60);
    CHECK(check_faults(fault_io, whole_work, &p, "file") > 10);
    unlink(in_folder("f.h5.part-0"));
}

static sca_status remove_one(void *user, const char *name)
{
    (void)user;
    unlink(in_folder(name));
    return SCA_OK;
}

int main(int argc, char **argv)
{
    CHECK(mkdtemp(folder) != NULL);
    RUN(arrays_back);
    RUN(from_library);
    RUN(for_library);
    RUN(damaged_files);
    RUN(same_batches);
    RUN(table_of_counts);
    RUN(interrupted);
    RUN(several_ranks);
    RUN(refused);
    RUN(faults);
    CHECK_OK(dir_each(folder, remove_one, NULL));
    rmdir(folder);
    return check_done();
}
