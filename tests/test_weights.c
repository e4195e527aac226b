/* test_weights.c - weight files: the golden models in every form, hand-made hostile files, quantisation, faults. */
#include "check.h"
#include "faults.h"
#include "made.h"
#include "model/weights.h"

#include <math.h>
#include <sys/stat.h>
#include <unistd.h>

#define MODELS SCA_SHARED "/golden/models/"

static bool shared_there(void)
{
    if (dir_exists(MODELS)) return true;
    check_skip("shared: the golden models are absent");
    return false;
}

/* ---- golden models ----------------------------------------------------------------------------------- */

/* Whether both hold the same values to `tolerance`, relative to the larger of 1 and the value. */
static bool same_values(const weight *a, const weight *b, double tolerance)
{
    bool same = a->count == b->count && a->ndim == b->ndim;
    for (int i = 0; same && i < a->ndim; i++) same = a->dim[i] == b->dim[i];
    double *x = malloc((size_t)a->count * 8 + 8), *y = malloc((size_t)a->count * 8 + 8);
    same = same && weight_read(a, DT_F64, x) == SCA_OK && weight_read(b, DT_F64, y) == SCA_OK;
    for (int64_t i = 0; same && i < a->count; i++) same = fabs(x[i] - y[i]) <= tolerance * fmax(1, fabs(x[i]));
    free(x);
    free(y);
    return same;
}

/* Every tensor of `a` is in `b` with equal values. */
static void check_subset(const weights *a, const weights *b, double tolerance, const char *what)
{
    for (size_t i = 0; i < weights_count(a); i++) {
        const weight *x = weights_at(a, i), *y = weights_find(b, x->name);
        CHECKF(y && same_values(x, y, tolerance), "%s: '%s' %s", what, x->name, y ? "differs" : "is missing");
        weight_drop(x);
    }
}

static void golden_forms(void)
{
    static const struct {
        const char *name;
        double tolerance;
        size_t more; /* tensors that safetensors leaves out */
    } forms[] = { { "gpt2-tiny", 0, 0 },
                  { "gpt2-tiny-bin", 0, 2 },
                  { "gpt2-tiny-legacy", 0, 2 },
                  { "gpt2-tiny-f16", 0x1p-11, 0 },
                  { "gpt2-tiny-bf16", 0x1p-8, 0 } };
    weights *first, *w;
    if (!shared_there()) return;
    CHECK_OK(weights_open(MODELS "gpt2-tiny", &first));
    CHECKF(weights_count(first) == 364, "%zu tensors", weights_count(first));
    for (size_t i = 0; i < LENGTH(forms); i++) {
        char path[512];
        snprintf(path, sizeof path, MODELS "%s", forms[i].name);
        CHECK_OK(weights_open(path, &w));
        if (!w) continue;
        CHECKF(weights_count(w) == weights_count(first) + forms[i].more, "%s: %zu", path, weights_count(w));
        check_subset(first, w, forms[i].tolerance, forms[i].name);
        weights_close(w);
    }
    weights_close(first);
}

static void golden_tied(void)
{
    weights *w;
    if (!shared_there()) return;
    CHECK_OK(weights_open(MODELS "gpt2-tiny-bin/pytorch_model.bin", &w));
    const weight *head = weights_find(w, "language_model.lm_head.weight");
    const weight *embedding = weights_find(w, "language_model.transformer.wte.weight");
    CHECK(head && embedding && !head->data);
    CHECK_OK(weight_map(head));
    CHECK_OK(weight_map(embedding));
    CHECK(head->data && head->data == embedding->data);
    weights_close(w);
}

static void golden_shards(void)
{
    weights *w, *fresh, *one;
    if (!shared_there()) return;
    CHECK_OK(weights_open(MODELS "llama-tiny", &w));
    CHECK(weights_find(w, "language_model.lm_head.weight") != NULL);
    CHECK_OK(weights_open(MODELS "gpt2-tiny-fresh", &fresh));
    CHECK_OK(weights_open(MODELS "gpt2-tiny", &one));
    CHECKF(weights_count(fresh) == 366, "%zu", weights_count(fresh));
    const weight *a = weights_find(fresh, "vision_encoder.pos_embed"),
                 *b = weights_find(one, "vision_encoder.pos_embed");
    CHECK(a && b && same_values(a, b, 0));
    weights_close(w);
    weights_close(fresh);
    weights_close(one);
}

static void golden_sam(void)
{
    weights *pth, *hf, *whole;
    if (!shared_there()) return;
    CHECK_OK(weights_open(MODELS "parts/sam_tiny.pth", &pth));
    CHECK_OK(weights_open(MODELS "parts/sam-tiny-hf", &hf));
    CHECK_OK(weights_open(MODELS "gpt2-tiny", &whole));
    CHECK_OK(weights_as_sam(pth));
    CHECK_OK(weights_as_sam(hf));
    CHECKF(weights_count(pth) == weights_count(hf) + 1, "%zu and %zu", weights_count(pth), weights_count(hf));
    check_subset(hf, pth, 0, "pth");
    check_subset(hf, whole, 0, "model");
    weights_close(pth);
    weights_close(hf);
    weights_close(whole);
}

static void golden_lm(void)
{
    static const char *const pairs[][2] = { { "parts/gpt2-lm", "gpt2-tiny" },
                                            { "parts/gpt2-lm-hub", "gpt2-tiny" },
                                            { "parts/open_llama-lm", "llama-tiny" } };
    if (!shared_there()) return;
    for (size_t i = 0; i < LENGTH(pairs); i++) {
        char part[512], whole[512];
        weights *a, *b;
        snprintf(part, sizeof part, MODELS "%s", pairs[i][0]);
        snprintf(whole, sizeof whole, MODELS "%s", pairs[i][1]);
        CHECK_OK(weights_open(part, &a));
        CHECK_OK(weights_open(whole, &b));
        CHECK_OK(weights_as_lm(a));
        size_t n = 0;
        for (size_t k = 0; k < weights_count(b); k++) n += text_starts(weights_at(b, k)->name, "language_model.");
        CHECKF(weights_count(a) == n, "%s: %zu and %zu", part, weights_count(a), n);
        check_subset(a, b, 0, pairs[i][0]);
        weights_close(a);
        weights_close(b);
    }
}

/* The untrained models have the same SAM as the trained ones. */
static void golden_fresh(void)
{
    static const char *const pairs[][2] = { { "gpt2-tiny-fresh", "gpt2-tiny" },
                                            { "llama-tiny-fresh", "llama-tiny" },
                                            { "gpt2-wide", "gpt2-wide" } };
    static const char *const frozen[] = { "vision_encoder.", "prompt_encoder.", "mask_decoder.transformer.",
                                          "shared_image_embedding." };
    if (!shared_there()) return;
    for (size_t i = 0; i < LENGTH(pairs); i++) {
        char path[2][512];
        weights *w[2];
        size_t compared = 0;
        for (int k = 0; k < 2; k++) {
            snprintf(path[k], sizeof path[k], MODELS "%s", pairs[i][k]);
            CHECK_OK(weights_open(path[k], &w[k]));
        }
        for (size_t n = 0; n < weights_count(w[1]); n++) {
            const weight *b = weights_at(w[1], n), *a = weights_find(w[0], b->name);
            bool wanted = false;
            for (size_t k = 0; k < LENGTH(frozen); k++) wanted = wanted || text_starts(b->name, frozen[k]);
            if (wanted) CHECKF(a && same_values(a, b, 0), "%s: '%s' differs", pairs[i][0], b->name);
            compared += wanted;
        }
        CHECKF(compared > 100, "%zu tensors compared", compared);
        weights_close(w[0]);
        weights_close(w[1]);
    }
}

/* ---- hand-made files --------------------------------------------------------------------------------- */

/* Opens the bytes of s, which are released; closes what was opened. */
static sca_status parse(str *s)
{
    weights *w;
    sca_status status = weights_parse(s->data, s->bytes, "test.file", &w);
    weights_close(w);
    str_free(s);
    return status;
}

static sca_status parse_text(const char *text, size_t bytes)
{
    str s = { 0 };
    str_put_bytes(&s, text, bytes);
    return parse(&s);
}

/* ---- safetensors ------------------------------------------------------------------------------------- */

static str safetensors_of(const char *header, size_t data_bytes)
{
    str s = { 0 };
    put_le(&s, strlen(header), 8);
    str_put(&s, header);
    for (size_t i = 0; i < data_bytes; i++) str_putc(&s, (char)i);
    return s;
}

static void safetensors_hostile(void)
{
    static const struct {
        const char *header;
        size_t data;
        const char *message;
    } cases[] = {
        { "[1]", 0, "begins with" },
        { "{\"a\":3}", 0, "'a' is no object" },
        { "{\"a\"", 0, "line 1" },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 3, "cut or damaged" },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 5,
          "has 5 bytes of data, expected 4" },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[1,5]}}", 5, "hole" },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,8]}}", 8, "has 8 bytes, expected 4" },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,0]}}", 8, "lies at 4 to 0" },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[-4,0]}}", 8, "lies at -4" },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0]}}", 8, "data_offsets" },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[1]}}", 8, "data_offsets" },
        { "{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", 4, "no 'shape'" },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,4]}}", 4, "shape" },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[1.5],\"data_offsets\":[0,4]}}", 4, "shape" },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,4]}}", 4, "overflows" },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[9223372036854775807],\"data_offsets\":[0,4]}}", 4, "overflows" },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,4]}}", 4, "9 dimensions" },
        { "{\"a\":{\"dtype\":\"F33\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "dtype 'F33'" },
        { "{\"a\":{\"dtype\":7,\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "dtype" },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
          "\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[2,6]}}",
          6, "overlaps" },
        { "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
          "\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}",
          8, "duplicate object key 'a'" },
        { "{\"__metadata__\":{\"a\":1}}", 0, "'__metadata__'" },
        { "{\"__metadata__\":[]}", 0, "'__metadata__'" },
        { "{\"\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "empty" },
    };
    for (size_t i = 0; i < LENGTH(cases); i++) {
        str s = safetensors_of(cases[i].header, cases[i].data);
        CHECK_FAILS(parse(&s), SCA_ERR_FORMAT, cases[i].message);
    }
    CHECK_FAILS(parse_text("\377\377\377\377\377\377\377\177{}", 10), SCA_ERR_FORMAT, "its header has");
    CHECK_FAILS(parse_text("\100\0\0\0\0\0\0\0{}", 10), SCA_ERR_FORMAT, "its header has 64 bytes");
    CHECK_FAILS(parse_text("\3\0\0\0\0\0\0\0{}\377", 11), SCA_ERR_FORMAT, "test.file");
    CHECK_FAILS(parse_text("", 0), SCA_ERR_FORMAT, "an empty file");
    CHECK_FAILS(parse_text("hello", 5), SCA_ERR_FORMAT, "68 65 6c 6c 6f");
    CHECK_FAILS(parse_text("version https://git-lfs.github.com/spec/v1\n", 43), SCA_ERR_FORMAT, "Git LFS");
}

static void safetensors_right(void)
{
    str s = safetensors_of("{\"b\":{\"dtype\":\"BF16\",\"shape\":[2,2],\"data_offsets\":[4,12]},"
                           "\"none\":{\"dtype\":\"F32\",\"shape\":[0,3],\"data_offsets\":[12,12]},"
                           "\"scalar\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]},"
                           "\"ids\":{\"dtype\":\"I64\",\"shape\":[1],\"data_offsets\":[12,20]},"
                           "\"d\":{\"dtype\":\"F64\",\"shape\":[1],\"data_offsets\":[20,28]}}   ",
                           28);
    weights *w;
    float values[4];
    CHECK_OK(weights_parse(s.data, s.bytes, "test.file", &w));
    CHECK(weights_count(w) == 5 && weights_find(w, "a") == NULL && strcmp(weights_at(w, 0)->name, "b") == 0);
    const weight *b = weights_find(w, "b"), *scalar = weights_find(w, "scalar"), *none = weights_find(w, "none");
    CHECK(b->type == DT_BF16 && b->ndim == 2 && b->count == 4 && b->numeric);
    CHECK(scalar->ndim == 0 && scalar->count == 1 && none->count == 0 && none->dim[1] == 3);
    CHECK_OK(weight_read(b, DT_F32, values));
    CHECK(values[0] == bf16_to_f32(0x0504) && values[3] == bf16_to_f32(0x0b0a));
    CHECK_OK(weight_read(none, DT_F32, values));
    CHECK_FAILS(weight_read(weights_find(w, "ids"), DT_F32, values), SCA_ERR_FORMAT, "I64");
    CHECK(!weights_find(w, "ids")->numeric && weights_find(w, "ids")->type == DT_NONE);
    CHECK_FAILS(weight_read(b, DT_I32, values), SCA_ERR_ARGUMENT, "'b'");
    weights_close(w);
    str_free(&s);
}

/* Data at an odd address is read through copies. */
static void unaligned(void)
{
    str s = safetensors_of("{\"a\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,12]}}", 12);
    char *shifted = malloc(s.bytes + 1);
    weights *w;
    float a[3], b[3];
    memcpy(shifted + 1, s.data, s.bytes);
    for (int odd = 0; odd < 2; odd++) {
        CHECK_OK(weights_parse(odd ? shifted + 1 : s.data, s.bytes, "test.file", &w));
        CHECK_OK(weight_read(weights_at(w, 0), DT_F32, odd ? a : b));
        weights_close(w);
    }
    CHECK(memcmp(a, b, sizeof a) == 0);
    free(shifted);
    str_free(&s);
}

/* ---- folders ----------------------------------------------------------------------------------------- */

#define FOLDER SCA_BUILD "/test_weights.tmp"

static void write_file(const char *name, const void *data, size_t bytes)
{
    char path[512];
    snprintf(path, sizeof path, FOLDER "/%s", name);
    CHECK_OK(file_write(path, data, bytes));
}

static void write_tensor(const char *file, const char *name)
{
    char header[200];
    snprintf(header, sizeof header, "{\"%s\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", name);
    str s = safetensors_of(header, 4);
    write_file(file, s.data, s.bytes);
    str_free(&s);
}

static sca_status open_with_index(const char *index)
{
    weights *w;
    write_file("model.safetensors.index.json", index, strlen(index));
    sca_status status = weights_open(FOLDER, &w);
    weights_close(w);
    return status;
}

static void clean_folder(void)
{
    static const char *const names[] = { "model.safetensors.index.json",
                                         "a.safetensors",
                                         "b.safetensors",
                                         "model.safetensors",
                                         "out.safetensors",
                                         "fifo.safetensors" };
    for (size_t i = 0; i < LENGTH(names); i++) {
        char path[512];
        snprintf(path, sizeof path, FOLDER "/%s", names[i]);
        unlink(path);
    }
    rmdir(FOLDER);
}

static void folders(void)
{
    weights *w;
    clean_folder();
    CHECK_OK(dir_make(FOLDER));
    CHECK_FAILS(weights_open(FOLDER, &w), SCA_ERR_IO, "no weights here");
    CHECK_FAILS(weights_open(FOLDER "/none.safetensors", &w), SCA_ERR_IO, "none.safetensors");
    write_tensor("a.safetensors", "x");
    write_tensor("b.safetensors", "y");
    CHECK_OK(open_with_index("{\"weight_map\":{\"x\":\"a.safetensors\",\"y\":\"b.safetensors\"}}"));
    CHECK_FAILS(open_with_index("{\"weight_map\":{\"x\":\"../a.safetensors\"}}"), SCA_ERR_FORMAT,
                "plain file name");
    CHECK_FAILS(open_with_index("{\"weight_map\":{\"x\":\"/etc/passwd\"}}"), SCA_ERR_FORMAT, "plain file name");
    CHECK_FAILS(open_with_index("{\"weight_map\":{\"x\":\"sub/a.safetensors\"}}"), SCA_ERR_FORMAT,
                "plain file name");
    CHECK_FAILS(open_with_index("{\"weight_map\":{\"x\":\"\"}}"), SCA_ERR_FORMAT, "plain file name");
    CHECK_FAILS(open_with_index("{\"weight_map\":{\"x\":7}}"), SCA_ERR_FORMAT, "'x' is 7");
    CHECK_FAILS(open_with_index("{\"weight_map\":[]}"), SCA_ERR_FORMAT, "weight_map");
    CHECK_FAILS(open_with_index("[]"), SCA_ERR_FORMAT, "weight_map");
    CHECK_FAILS(open_with_index("{\"weight_map\":{\"x\":\"c.safetensors\"}}"), SCA_ERR_IO, "c.safetensors");
    CHECK_FAILS(open_with_index("{\"weight_map\":{\"z\":\"a.safetensors\"}}"), SCA_ERR_FORMAT, "in no shard");
    CHECK_FAILS(open_with_index("{\"weight_map\":{\"x\":\"b.safetensors\",\"y\":\"a.safetensors\"}}"),
                SCA_ERR_FORMAT, "says that tensor 'x' is in b.safetensors");
    write_tensor("b.safetensors", "x");
    CHECK_FAILS(open_with_index("{\"weight_map\":{\"x\":\"a.safetensors\",\"y\":\"b.safetensors\"}}"),
                SCA_ERR_FORMAT, "too, expected it once");
    write_tensor("model.safetensors", "whole"); /* counts before the index */
    CHECK_OK(weights_open(FOLDER, &w));
    CHECK(weights_count(w) == 1 && weights_find(w, "whole"));
    weights_close(w);
    CHECK(mkfifo(FOLDER "/fifo.safetensors", 0600) == 0);
    CHECK_FAILS(weights_open(FOLDER "/fifo.safetensors", &w), SCA_ERR_IO, "fifo.safetensors");
    clean_folder();
}

/* ---- the writer -------------------------------------------------------------------------------------- */

static const weight_entry entries[] = { { "f", DT_F32, 2, { 2, 3 } },
                                        { "h\"\\", DT_F16, 1, { 3 } },
                                        { "none", DT_BF16, 3, { 2, 0, 4 } },
                                        { "scalar", DT_BF16, 0, { 0 } } };

static sca_status write_all(void *user)
{
    uint8_t data[32];
    safetensors_out *f;
    (void)user;
    for (int i = 0; i < 32; i++) data[i] = (uint8_t)i;
    TRY(safetensors_create(FOLDER "/out.safetensors", entries, LENGTH(entries), &f));
    sca_status status = safetensors_put(f, data, 10);
    if (status == SCA_OK) status = safetensors_put(f, data + 10, 22);
    if (status == SCA_OK) return safetensors_commit(f);
    safetensors_abort(f);
    return status;
}

static void writer(void)
{
    static const weight_entry wrong[] = { { "a", DT_I32, 1, { 1 } } };
    static const weight_entry huge[] = { { "a", DT_F32, 2, { INT64_MAX, INT64_MAX } } };
    weights *w;
    float values[6];
    safetensors_out *f;
    clean_folder();
    CHECK_OK(dir_make(FOLDER));
    CHECK_OK(write_all(NULL));
    CHECK_OK(weights_open(FOLDER "/out.safetensors", &w));
    CHECK(weights_count(w) == 4 && weights_find(w, "h\"\\") && weights_find(w, "none")->count == 0);
    CHECK_OK(weight_read(weights_find(w, "f"), DT_F32, values));
    CHECK(memcmp(values, (uint8_t[]){ 0, 1, 2, 3 }, 4) == 0 && weights_find(w, "f")->data != NULL);
    weights_close(w);
    CHECK_OK(safetensors_create(FOLDER "/out.safetensors", entries, LENGTH(entries), &f));
    CHECK_FAILS(safetensors_put(f, values, 64), SCA_ERR_ARGUMENT, "more data");
    CHECK_OK(safetensors_put(f, values, 6));
    CHECK_FAILS(safetensors_commit(f), SCA_ERR_STATE, "6 bytes of data were given, expected 32");
    CHECK_FAILS(safetensors_create(FOLDER "/out.safetensors", wrong, 1, &f), SCA_ERR_ARGUMENT, "i32");
    CHECK_FAILS(safetensors_create(FOLDER "/out.safetensors", huge, 1, &f), SCA_ERR_ARGUMENT, "overflows");
    CHECK_OK(weights_open(FOLDER "/out.safetensors", &w)); /* the old file is still whole */
    CHECK(weights_count(w) == 4);
    weights_close(w);
    CHECK(check_faults(fault_alloc, write_all, NULL, "writer") > 2);
    CHECK(check_faults(fault_io, write_all, NULL, "writer") > 2);
    clean_folder();
    CHECKF(!dir_exists(FOLDER), "%s is not empty", FOLDER);
}

/* ---- what torch.save writes -------------------------------------------------------------------------- */

static void put_text(str *s, const char *text)
{
    str_putc(s, 'X');
    put_le(s, strlen(text), 4);
    str_put(s, text);
}

static void put_int(str *s, int64_t value)
{
    str_put(s, "\x8a\x08");
    put_le(s, (uint64_t)value, 8);
}

static void put_ints(str *s, const int64_t *values, int n)
{
    str_putc(s, '(');
    for (int i = 0; i < n; i++) put_int(s, values[i]);
    str_putc(s, 't');
}

typedef struct torch_tensor { /* one tensor of a pickle */
    const char *name, *storage, *key;
    int64_t numel, offset;
    int ndim;
    int64_t size[9], stride[9];
} torch_tensor;

static void put_tensor(str *s, const torch_tensor *t)
{
    put_text(s, t->name);
    str_put(s, "ctorch._utils\n_rebuild_tensor_v2\n((");
    put_text(s, "storage");
    str_printf(s, "ctorch\n%s\n", t->storage);
    put_text(s, t->key);
    put_text(s, "cpu");
    put_int(s, t->numel);
    str_put(s, "tQ");
    put_int(s, t->offset);
    put_ints(s, t->size, t->ndim);
    put_ints(s, t->stride, t->ndim);
    str_put(s, "\x89"
               "ccollections\nOrderedDict\n)RtR");
}

static str pickle_of(const torch_tensor *tensors, size_t n)
{
    str s = { 0 };
    str_put(&s, "\x80\x02}(");
    for (size_t i = 0; i < n; i++) put_tensor(&s, &tensors[i]);
    str_put(&s, "u.");
    return s;
}

/* An archive with these tensors and one storage "0" of six floats 0 to 5. */
static str archive_of(const torch_tensor *tensors, size_t n)
{
    static const float data[] = { 0, 1, 2, 3, 4, 5 };
    str pickled = pickle_of(tensors, n);
    const member members[] = { { "m/data.pkl", pickled.data, pickled.bytes },
                               { "m/byteorder", "little", 6 },
                               { "m/data/0", data, sizeof data },
                               { "m/version", "3\n", 2 } };
    str s = zip_of(members, LENGTH(members));
    str_free(&pickled);
    return s;
}

static void torch_views(void)
{
    static const torch_tensor tensors[] = {
        { "rows", "FloatStorage", "0", 6, 0, 2, { 2, 3 }, { 3, 1 } },
        { "turned", "FloatStorage", "0", 6, 0, 2, { 3, 2 }, { 1, 3 } },
        { "part", "FloatStorage", "0", 6, 4, 1, { 2 }, { 1 } },
        { "repeated", "FloatStorage", "0", 6, 5, 2, { 2, 2 }, { 0, 0 } },
        { "one", "FloatStorage", "0", 6, 3, 0, { 0 }, { 0 } },
        { "none", "FloatStorage", "0", 6, 6, 2, { 0, 3 }, { 3, 1 } },
        { "flat", "FloatStorage", "0", 6, 0, 3, { 1, 2, 3 }, { 77, 3, 1 } },
    };
    str s = archive_of(tensors, LENGTH(tensors));
    weights *w;
    float v[6];
    CHECK_OK(weights_parse(s.data, s.bytes, "test.file", &w));
    CHECK(weights_count(w) == LENGTH(tensors));
    CHECK_OK(weight_read(weights_find(w, "turned"), DT_F32, v));
    CHECK(v[0] == 0 && v[1] == 3 && v[2] == 1 && v[3] == 4 && v[4] == 2 && v[5] == 5);
    CHECK_OK(weight_read(weights_find(w, "part"), DT_F32, v));
    CHECK(v[0] == 4 && v[1] == 5 && !weights_find(w, "turned")->data);
    CHECK_OK(weight_read(weights_find(w, "repeated"), DT_F32, v));
    CHECK(v[0] == 5 && v[1] == 5 && v[2] == 5 && v[3] == 5);
    CHECK_OK(weight_read(weights_find(w, "one"), DT_F32, v));
    CHECK(v[0] == 3 && weights_find(w, "one")->count == 1 && weights_find(w, "none")->count == 0);
    CHECK_OK(weight_read(weights_find(w, "flat"), DT_F32, v));
    CHECK(v[5] == 5);
    weights_close(w);
    str_free(&s);
}

static void torch_hostile(void)
{
    static const struct {
        torch_tensor t;
        const char *message;
    } cases[] = {
        { { "a", "FloatStorage", "0", 6, 1, 2, { 2, 3 }, { 3, 1 } }, "reaches element 6" },
        { { "a", "FloatStorage", "0", 6, 7, 1, { 0 }, { 1 } }, "reaches element" },
        { { "a", "FloatStorage", "0", 6, -1, 1, { 1 }, { 1 } }, "integers from 0" },
        { { "a", "FloatStorage", "0", 7, 0, 1, { 1 }, { 1 } }, "24 bytes, expected 7" },
        { { "a", "DoubleStorage", "0", 6, 0, 1, { 1 }, { 1 } }, "24 bytes, expected 6 elements of 8" },
        { { "a", "FloatStorage", "1", 6, 0, 1, { 1 }, { 1 } }, "storage '1'" },
        { { "a", "FloatStorage", "../0", 6, 0, 1, { 1 }, { 1 } }, "storage '../0'" },
        { { "a", "FloatStorage", "0", -1, 0, 1, { 1 }, { 1 } }, "proper storage" },
        { { "a", "FloatStorage", "0", 6, 0, 1, { 2 }, { -1 } }, "negative stride" },
        { { "a", "FloatStorage", "0", 6, 0, 1, { -2 }, { 1 } }, "negative dimension" },
        { { "a", "FloatStorage", "0", 6, 0, 2, { 2, 2 }, { INT64_MAX, 1 } }, "overflow" },
        { { "a", "FloatStorage", "0", 6, INT64_MAX, 1, { 2 }, { 1 } }, "reaches" },
        { { "a", "FloatStorage", "0", 6, 0, 2, { INT64_MAX, 3 }, { 0, 0 } }, "overflows" },
        { { "a", "FloatStorage", "0", 6, 0, 9, { 1, 1, 1, 1, 1, 1, 1, 1, 1 }, { 1 } }, "9 dimensions" },
        { { "a", "FunnyStorage", "0", 6, 0, 1, { 1 }, { 1 } }, "FunnyStorage" },
    };
    for (size_t i = 0; i < LENGTH(cases); i++) {
        str s = archive_of(&cases[i].t, 1);
        CHECK_FAILS(parse(&s), SCA_ERR_FORMAT, cases[i].message);
    }
    const torch_tensor twice[] = { cases[0].t, cases[0].t };
    torch_tensor good[] = { twice[0], twice[1] };
    good[0].offset = good[1].offset = 0;
    str s = archive_of(good, 2);
    CHECK_FAILS(parse(&s), SCA_ERR_FORMAT, "appears twice");
    s = archive_of(good, 1);
    CHECK_OK(parse(&s));
}

/* An archive with this pickle and this text in `byteorder`. */
static sca_status parse_pickle(const char *text, size_t bytes, const char *order_text)
{
    const member members[] = { { "m/data.pkl", text, bytes },
                               { "m/byteorder", order_text, strlen(order_text) },
                               { "m/data/0", "\0\0\0\0", 4 } };
    str s = zip_of(members, LENGTH(members));
    return parse(&s);
}

#define PICKLE(text) text, sizeof(text) - 1

static void torch_pickles(void)
{
    static const member other[] = { { "m/data.txt", "a", 1 } };
    static const member two[] = { { "m/data.pkl", "}.", 2 }, { "n/data.pkl", "}.", 2 } };
    CHECK_OK(parse_pickle(PICKLE("\x80\x02}."), "little"));
    CHECK_FAILS(parse_pickle(PICKLE("\x80\x02}."), "big"), SCA_ERR_UNSUPPORTED, "byte order");
    CHECK_FAILS(parse_pickle(PICKLE("\x80\x02]."), "little"), SCA_ERR_FORMAT, "no dictionary");
    CHECK_FAILS(parse_pickle(PICKLE("\x80\x02}X\1\0\0\0aK\1s."), "little"), SCA_ERR_FORMAT, "'a' is no tensor");
    CHECK_FAILS(parse_pickle(PICKLE("\x80\x02}X\1\0\0\0a}s."), "little"), SCA_ERR_FORMAT, "training checkpoint");
    CHECK_FAILS(parse_pickle(PICKLE("\x80\x02}K\1K\1s."), "little"), SCA_ERR_FORMAT, "no text");
    CHECK_FAILS(parse_pickle(PICKLE("cposix\nsystem\n(X\1\0\0\0atR."), "little"), SCA_ERR_FORMAT, "posix system");
    CHECK_FAILS(parse_pickle(PICKLE("ctorch.storage\n_load_from_bytes\n(U\1atR."), "little"), SCA_ERR_FORMAT,
                "torch.storage _load_from_bytes");
    CHECK_FAILS(parse_pickle(PICKLE("\x80\x02}X\1\0\0\0actorch._utils\n_rebuild_tensor_v2\n(K\1tRs."), "little"),
                SCA_ERR_FORMAT, "'a' is no tensor");
    CHECK_FAILS(parse_pickle(PICKLE("\x80\x02}"), "little"), SCA_ERR_FORMAT, "test.file");
    str s = zip_of(other, 1);
    CHECK_FAILS(parse(&s), SCA_ERR_FORMAT, "without NAME/data.pkl");
    s = zip_of(two, 2);
    CHECK_FAILS(parse(&s), SCA_ERR_FORMAT, "expected one pickle");
}

static void torch_checksum(void)
{
    static const torch_tensor good = { "a", "FloatStorage", "0", 6, 0, 1, { 6 }, { 1 } };
    str s = archive_of(&good, 1);
    weights *w;
    float v[6];
    for (size_t i = 0; i + 24 < s.bytes; i++)
        if (memcmp(s.data + i, (const float[]){ 0, 1, 2, 3 }, 16) == 0) s.data[i + 1] = 1;
    CHECK_OK(weights_parse(s.data, s.bytes, "test.file", &w)); /* the data is not looked at yet */
    CHECK_FAILS(weight_read(weights_at(w, 0), DT_F32, v), SCA_ERR_FORMAT, "m/data/0");
    CHECK_FAILS(weight_map(weights_at(w, 0)), SCA_ERR_FORMAT, "m/data/0");
    CHECK(!weights_at(w, 0)->data);
    weights_close(w);
    str_free(&s);
}

/* The format before 1.6 with one tensor "a" of two floats 1, 2. */
static str legacy_of(const torch_tensor *t, const char *system, const char *key, uint64_t count, size_t bytes)
{
    static const float data[] = { 1, 2, 3, 4 };
    str s = { 0 }, object = pickle_of(t, 1);
    str_put(&s, "\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.");
    str_put(&s, "\x80\x02M\xe9\x03.\x80\x02}(");
    put_text(&s, "little_endian");
    str_put(&s, system);
    str_put(&s, "u.");
    str_put_bytes(&s, object.data, object.bytes);
    str_put(&s, "\x80\x02](");
    put_text(&s, key);
    str_put(&s, "e.");
    put_le(&s, count, 8);
    str_put_bytes(&s, data, bytes);
    str_free(&object);
    return s;
}

static void torch_legacy(void)
{
    static const torch_tensor t = { "a", "FloatStorage", "77", 2, 0, 1, { 2 }, { 1 } };
    str s = legacy_of(&t, "\x88", "77", 2, 8);
    weights *w;
    float v[2];
    CHECK_OK(weights_parse(s.data, s.bytes, "test.file", &w));
    CHECK_OK(weight_read(weights_find(w, "a"), DT_F32, v));
    CHECK(weights_count(w) == 1 && v[0] == 1 && v[1] == 2);
    weights_close(w);
    str_free(&s);
    s = legacy_of(&t, "\x89", "77", 2, 8);
    CHECK_FAILS(parse(&s), SCA_ERR_UNSUPPORTED, "big-endian");
    s = legacy_of(&t, "\x88", "78", 2, 8);
    CHECK_FAILS(parse(&s), SCA_ERR_FORMAT, "storage '77'");
    s = legacy_of(&t, "\x88", "77", 2, 7);
    CHECK_FAILS(parse(&s), SCA_ERR_FORMAT, "the file is cut");
    s = legacy_of(&t, "\x88", "77", 2, 9);
    CHECK_FAILS(parse(&s), SCA_ERR_FORMAT, "1 bytes after");
    s = legacy_of(&t, "\x88", "77", 3, 12);
    CHECK_FAILS(parse(&s), SCA_ERR_FORMAT, "12 bytes, expected 2");
    s = legacy_of(&t, "\x88", "77", UINT64_MAX / 2, 12);
    CHECK_FAILS(parse(&s), SCA_ERR_FORMAT, "the file is cut");
}

/* ---- faults ------------------------------------------------------------------------------------------ */

/* Opens, renames and reads everything. */
static sca_status read_whole(weights *w)
{
    double values[64];
    sca_status status = weights_as_sam(w);
    if (status == SCA_OK) status = weights_as_lm(w);
    for (size_t i = 0; status == SCA_OK && i < weights_count(w); i++)
        status = weight_read(weights_at(w, i), DT_F64, values);
    weights_close(w);
    return status;
}

static sca_status read_parsed(void *user)
{
    const str *s = user;
    weights *w;
    TRY(weights_parse(s->data, s->bytes, "test.file", &w));
    return read_whole(w);
}

static sca_status read_opened(void *user)
{
    weights *w;
    TRY(weights_open(user, &w));
    return read_whole(w);
}

static void faults(void)
{
    static const torch_tensor t = {
        "image_encoder.neck.0.weight", "FloatStorage", "0", 6, 0, 2, { 3, 2 }, { 1, 3 }
    };
    static const torch_tensor old = { "h.0.attn.bias", "FloatStorage", "77", 2, 0, 1, { 2 }, { 1 } };
    /* Short texts: a longer one grows inside the JSON library, which does not survive a failure there. */
    str files[] = { archive_of(&t, 1), legacy_of(&old, "\x88", "77", 2, 8),
                    safetensors_of("{\"wte.weight\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}",
                                   8) };
    for (size_t i = 0; i < LENGTH(files); i++) {
        CHECK(check_faults(fault_alloc, read_parsed, &files[i], "parsing") > 5);
        str_free(&files[i]);
    }
    CHECK_OK(dir_make(FOLDER));
    write_tensor("model.safetensors", "wpe.weight");
    CHECK(check_faults(fault_alloc, read_opened, FOLDER, "opening") > 5);
    CHECK(check_faults(fault_io, read_opened, FOLDER, "opening") >= 1);
    clean_folder();
}

int main(int argc, char **argv)
{
    RUN(golden_forms);
    RUN(golden_tied);
    RUN(golden_shards);
    RUN(golden_sam);
    RUN(golden_lm);
    RUN(golden_fresh);
    RUN(safetensors_hostile);
    RUN(safetensors_right);
    RUN(unaligned);
    RUN(folders);
    RUN(writer);
    RUN(torch_views);
    RUN(torch_hostile);
    RUN(torch_pickles);
    RUN(torch_checksum);
    RUN(torch_legacy);
    RUN(faults);
    return check_done();
}
