/* test_image.c - images: pixels equal to Pillow's, limits, damage, failing memory and files. */
#include "check.h"
#include "base/rng.h"
#include "data/data.h"
#include "data/resize_rows.h"

#include <sys/stat.h>
#include <unistd.h>

#define GOLDEN SCA_SOURCE "/tests/golden/image/"
#define SCRATCH SCA_BUILD "/test_image_scratch"

/* ---- SHA-256: the golden files hold checksums -------------------------------------------------------- */

static uint32_t rotate(uint32_t x, int n) { return x >> n | x << (32 - n); }

static void sha256_constants(uint32_t k[64], uint32_t h[8])
{
    int n = 0;
    for (uint32_t p = 2; n < 64; p++) {
        bool prime = true;
        for (uint32_t d = 2; d * d <= p; d++) prime = prime && p % d != 0;
        if (!prime) continue;
        long double cube = 1, square = 1; /* Newton: the first 32 bits of the fractional parts of the roots */
        for (int i = 0; i < 60; i++) {
            cube = (2 * cube + p / (cube * cube)) / 3;
            square = (square + p / square) / 2;
        }
        k[n] = (uint32_t)((cube - (long double)(uint32_t)cube) * 4294967296.0L);
        if (n < 8) h[n] = (uint32_t)((square - (long double)(uint32_t)square) * 4294967296.0L);
        n++;
    }
}

static void sha256_block(const uint8_t *p, const uint32_t k[64], uint32_t h[8])
{
    uint32_t w[64], s[8];
    for (int i = 0; i < 16; i++, p += 4)
        w[i] = (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
    for (int i = 16; i < 64; i++)
        w[i] = w[i - 16] + w[i - 7] + (rotate(w[i - 15], 7) ^ rotate(w[i - 15], 18) ^ w[i - 15] >> 3) +
               (rotate(w[i - 2], 17) ^ rotate(w[i - 2], 19) ^ w[i - 2] >> 10);
    memcpy(s, h, sizeof s);
    for (int i = 0; i < 64; i++) {
        uint32_t t = s[7] + (rotate(s[4], 6) ^ rotate(s[4], 11) ^ rotate(s[4], 25)) +
                     ((s[4] & s[5]) ^ (~s[4] & s[6])) + k[i] + w[i];
        uint32_t u = (rotate(s[0], 2) ^ rotate(s[0], 13) ^ rotate(s[0], 22)) +
                     ((s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]));
        memmove(s + 1, s, 7 * sizeof *s);
        s[4] += t;
        s[0] = t + u;
    }
    for (int i = 0; i < 8; i++) h[i] += s[i];
}

static const char *sha256(const void *data, size_t n)
{
    static char hex[65];
    static uint32_t k[64], start[8];
    if (!k[0]) sha256_constants(k, start);
    uint32_t h[8];
    uint8_t tail[128] = { 0 };
    const uint8_t *p = data;
    size_t whole = n / 64 * 64, rest = n - whole, tail_bytes = rest < 56 ? 64 : 128;
    memcpy(h, start, sizeof h);
    for (size_t i = 0; i < whole; i += 64) sha256_block(p + i, k, h);
    if (rest) memcpy(tail, p + whole, rest);
    tail[rest] = 0x80;
    for (size_t i = 0; i < 8; i++) tail[tail_bytes - 1 - i] = (uint8_t)((uint64_t)n * 8 >> 8 * i);
    for (size_t i = 0; i < tail_bytes; i += 64) sha256_block(tail + i, k, h);
    for (size_t i = 0; i < 8; i++) snprintf(hex + 8 * i, 9, "%08x", h[i]);
    return hex;
}

/* ---- helpers ----------------------------------------------------------------------------------------- */

static const char *text_of(const json_t *o, const char *key) { return json_string_value(json_object_get(o, key)); }
static int int_of(const json_t *o, const char *key) { return (int)json_integer_value(json_object_get(o, key)); }
static int at(const json_t *array, size_t i) { return (int)json_integer_value(json_array_get(array, i)); }

static void check_sha(const json_t *o, const char *key, const void *data, size_t bytes)
{
    const char *expected = text_of(o, key), *found = sha256(data, bytes);
    const char *name = text_of(o, "file") ? text_of(o, "file") : text_of(o, "image");
    CHECKF(expected && strcmp(found, expected) == 0, "%s: %s is %s, expected %s", name, key, found, expected);
}

static size_t bytes_of(const sca_image *image) { return (size_t)image->width * (size_t)image->height * 3; }

static bool has_shared(void)
{
    if (dir_exists(SCA_SHARED "/golden/image")) return true;
    check_skip("shared: the shared folder is absent");
    return false;
}

typedef struct bytes {
    char *data;
    size_t n;
} bytes;

static bytes load(const char *name)
{
    bytes b = { 0 };
    char *path = path_join(GOLDEN, name);
    CHECK_OK(file_read(path, 1 << 24, &b.data, &b.n));
    mem_free(path);
    return b;
}

static sca_status decode(const void *data, size_t n, int exif, sca_image *out)
{
    return image_decode(data, n, "test", &(sca_image_options){ .honour_exif = exif, .max_pixels = 100000 }, out);
}

/* ---- equal to Pillow --------------------------------------------------------------------------------- */

static void check_preprocess_entry(const json_t *entry, const char *root)
{
    static const double mean[3] = { 0.485, 0.456, 0.406 }, std[3] = { 0.229, 0.224, 0.225 };
    char *path = path_join(root, text_of(entry, "image"));
    int size = int_of(entry, "target"), width, height, w, h;
    const json_t *hw = json_object_get(entry, "reshaped_hw");
    size_t plane = (size_t)size * (size_t)size;
    sca_image image = { 0 }, resized = { 0 };
    float *pixels = mem_alloc(plane * 3 * sizeof *pixels), *planes = mem_alloc(plane * 3 * sizeof *planes);
    CHECK_OK(sca_image_read(path, &image));
    if (image.rgb && pixels && planes) {
        check_sha(entry, "rgb_sha256", image.rgb, bytes_of(&image));
        image_target(image.width, image.height, size, &width, &height);
        CHECK(width == at(hw, 1) && height == at(hw, 0));
        CHECK_OK(image_resize(&image, width, height, &resized));
        check_sha(entry, "resized_sha256", resized.rgb, bytes_of(&resized));
        CHECK_OK(image_pixels(&image, size, mean, std, pixels, &w, &h));
        CHECK(w == width && h == height);
        for (size_t i = 0; i < 3 * plane; i++) planes[i % 3 * plane + i / 3] = pixels[i];
        check_sha(entry, "pixel_values_f32_sha256", planes, 3 * plane * sizeof *planes);
    }
    mem_free(pixels);
    mem_free(planes);
    sca_image_free(&resized);
    sca_image_free(&image);
    mem_free(path);
}

static void check_preprocess(const char *list, const char *root)
{
    json_t *doc = NULL;
    CHECK_OK(json_open(list, &doc));
    const json_t *images = json_object_get(doc, "images");
    CHECK(json_array_size(images) > 0);
    for (size_t i = 0; i < json_array_size(images); i++) check_preprocess_entry(json_array_get(images, i), root);
    json_decref(doc);
}

static void preprocess_equals_pillow(void) { check_preprocess(GOLDEN "preprocess.json", SCA_SOURCE "/tests"); }

static void preprocess_of_photos_equals_pillow(void)
{
    if (has_shared()) check_preprocess(SCA_SHARED "/golden/image/preprocess.json", SCA_SHARED);
}

static void check_resize(const json_t *c)
{
    const json_t *in_hw = json_object_get(c, "in_hw"), *out_hw = json_object_get(c, "out_hw");
    const json_t *in = json_object_get(c, "in"), *expected = json_object_get(c, "out");
    sca_image from = { 0 }, to = { 0 };
    CHECK_OK(image_alloc(at(in_hw, 1), at(in_hw, 0), &from));
    CHECK(json_array_size(in) == bytes_of(&from));
    for (size_t i = 0; i < bytes_of(&from); i++) from.rgb[i] = (uint8_t)at(in, i);
    CHECK_OK(image_resize(&from, at(out_hw, 1), at(out_hw, 0), &to));
    size_t wrong = 0;
    for (size_t i = 0; i < bytes_of(&to); i++) wrong += to.rgb[i] != at(expected, i);
    CHECKF(wrong == 0 && json_array_size(expected) == bytes_of(&to), "%d x %d to %d x %d: %zu bytes differ",
           from.width, from.height, to.width, to.height, wrong);
    sca_image_free(&from);
    sca_image_free(&to);
}

static void check_resizes(const char *path)
{
    json_t *doc = NULL;
    CHECK_OK(json_open(path, &doc));
    const json_t *cases = json_object_get(doc, "cases");
    CHECK(json_array_size(cases) > 0);
    for (size_t i = 0; i < json_array_size(cases); i++) check_resize(json_array_get(cases, i));
    json_decref(doc);
}

static void resize_equals_pillow(void)
{
    check_resizes(GOLDEN "resize_small.json");
    if (has_shared()) check_resizes(SCA_SHARED "/golden/image/resize_small.json");
}

static uint32_t below(uint64_t *r, uint32_t most) { return rng_philox(11, ++*r, 0).word[0] % most; }

/* Weights that sum to one at most, at random places; what follows them up to the stride is 0. */
static axis random_axis(uint64_t *r, int from, int to)
{
    int most = 1 + (int)below(r, from < 9 ? (uint32_t)from : 9);
    axis a = { .stride = (size_t)most + 2 - (size_t)most % 2 };
    a.first = mem_zero((size_t)to, sizeof *a.first);
    a.taps = mem_zero((size_t)to, sizeof *a.taps);
    a.weights = mem_zero((size_t)to * a.stride, sizeof *a.weights);
    for (int i = 0; i < to; i++) {
        a.taps[i] = i + 1 < to ? 1 + (int)below(r, (uint32_t)most) : most;
        a.first[i] = (int)((int64_t)(from - most) * i / (to > 1 ? to - 1 : 1));
        for (int k = 0; k < a.taps[i]; k++)
            a.weights[(size_t)i * a.stride + (size_t)k] =
                (int32_t)below(r, (1u << WEIGHT_BITS) / (uint32_t)a.taps[i] + 1);
    }
    return a;
}

static void axis_close(axis *a)
{
    mem_free(a->first);
    mem_free(a->taps);
    mem_free(a->weights);
}

/* Random axes over pictures of odd sizes in memory of exactly their size: every way of summing gives the same bytes. */
static void resize_units_agree(void)
{
#if defined(__x86_64__)
    if (!__builtin_cpu_supports("avx2")) {
        check_skip("avx2: this machine has none");
        return;
    }
    uint64_t r = 0;
    for (int round = 0; round < 300; round++) {
        int from = 1 + (int)below(&r, 90), to = 1 + (int)below(&r, 90), rows = 1 + (int)below(&r, 5);
        sca_image in, a, b;
        CHECK_OK(image_alloc(from, rows, &in));
        for (size_t i = 0; i < bytes_of(&in); i++) in.rgb[i] = (uint8_t)below(&r, 256);
        axis across = random_axis(&r, from, to), down = random_axis(&r, rows, 3);
        CHECK_OK(image_alloc(to, 1, &a));
        CHECK_OK(image_alloc(to, 1, &b));
        for (size_t y = 0; y < (size_t)rows; y++) {
            const uint8_t *row = in.rgb + y * 3 * (size_t)from;
            resize_across_any(row, bytes_of(&in) - y * 3 * (size_t)from, &across, to, a.rgb);
            resize_across_avx2(row, bytes_of(&in) - y * 3 * (size_t)from, &across, to, b.rgb);
            CHECK(memcmp(a.rgb, b.rgb, bytes_of(&a)) == 0);
        }
        sca_image_free(&a);
        sca_image_free(&b);
        CHECK_OK(image_alloc(from, 1, &a));
        CHECK_OK(image_alloc(from, 1, &b));
        for (int y = 0; y < 3; y++) {
            resize_down_any(in.rgb, 3 * (size_t)from, &down, y, a.rgb);
            resize_down_avx2(in.rgb, 3 * (size_t)from, &down, y, b.rgb);
            CHECK(memcmp(a.rgb, b.rgb, bytes_of(&a)) == 0);
        }
        axis_close(&across);
        axis_close(&down);
        sca_image_free(&a);
        sca_image_free(&b);
        sca_image_free(&in);
    }
#else
    check_skip("avx2: another kind of machine");
#endif
}

static void check_gray(const json_t *v)
{
    int width = 0, height = 0;
    uint8_t *gray = NULL;
    char *path = path_join(GOLDEN, text_of(v, "file"));
    CHECK_OK(image_read_gray(path, 0, &width, &height, &gray));
    CHECK(width == int_of(v, "width") && height == int_of(v, "height"));
    if (gray) check_sha(v, "gray_sha256", gray, (size_t)width * (size_t)height);
    mem_free(gray);
    mem_free(path);
}

static void check_variant(const json_t *v)
{
    bytes file = load(text_of(v, "file"));
    sca_image image = { 0 };
    const json_t *upright = json_object_get(v, "upright_hw");
    CHECK_OK(decode(file.data, file.n, 0, &image));
    CHECK(image.width == int_of(v, "width") && image.height == int_of(v, "height"));
    check_sha(v, "rgb_sha256", image.rgb, bytes_of(&image));
    sca_image_free(&image);
    CHECK_OK(decode(file.data, file.n, 1, &image));
    CHECK(!upright || (image.width == at(upright, 1) && image.height == at(upright, 0)));
    check_sha(v, upright ? "upright_sha256" : "rgb_sha256", image.rgb, bytes_of(&image));
    sca_image_free(&image);
    if (text_of(v, "gray_sha256")) check_gray(v);
    mem_free(file.data);
}

static void variants_equal_pillow(void)
{
    json_t *doc = NULL;
    CHECK_OK(json_open(GOLDEN "variants.json", &doc));
    CHECK(json_array_size(doc) > 40);
    for (size_t i = 0; i < json_array_size(doc); i++) check_variant(json_array_get(doc, i));
    json_decref(doc);
}

static void targets(void)
{
    static const int cases[][5] = { { 640, 480, 1024, 1024, 768 },    { 333, 500, 256, 170, 256 },
                                    { 1, 5000, 1024, 1, 1024 },       { 1, 1, 1024, 1024, 1024 },
                                    { 1023, 1024, 1024, 1023, 1024 }, { 2147483647, 1, 1024, 1024, 1 } };
    for (size_t i = 0; i < LENGTH(cases); i++) {
        int w, h;
        image_target(cases[i][0], cases[i][1], cases[i][2], &w, &h);
        CHECKF(w == cases[i][3] && h == cases[i][4], "case %zu: %d x %d", i, w, h);
    }
}

/* ---- damage and limits ------------------------------------------------------------------------------- */

static const char *const samples[] = {
    "jpeg_420.jpg", "jpeg_progressive.jpg",      "jpeg_cmyk.jpg",    "jpeg_gray.jpg",       "exif_6.jpg",
    "png_rgb8.png", "png_gray16_interlaced.png", "png_palette4.png", "png_exif_late_8.png", "ppm_255.ppm",
    "pgm_1000.pgm"
};

static void truncation_is_an_error(void)
{
    for (size_t i = 0; i < LENGTH(samples); i++) {
        bytes file = load(samples[i]);
        for (size_t n = 0; n < file.n; n++) {
            char *cut = mem_alloc(n); /* of this very size, so that ASan sees a read beyond it */
            sca_image image = { 0 };
            if (n) memcpy(cut, file.data, n);
            sca_status status = decode(cut, n, 1, &image);
            CHECKF(status == SCA_ERR_FORMAT && !image.rgb && strstr(sca_last_error(), "test: "),
                   "%s cut to %zu of %zu bytes: %s, '%s'", samples[i], n, file.n, sca_status_name(status),
                   sca_last_error());
            sca_image_free(&image);
            mem_free(cut);
        }
        mem_free(file.data);
    }
}

/* A flipped bit may go unseen in JPEG and PPM, which have no checksums; it never does in PNG. */
static void flipped_bits_do_no_harm(void)
{
    for (size_t i = 0; i < LENGTH(samples); i++) {
        bytes file = load(samples[i]);
        for (size_t bit = 0; bit < 8 * file.n; bit += 3) {
            sca_image image = { 0 };
            file.data[bit / 8] = (char)(file.data[bit / 8] ^ 1 << bit % 8);
            sca_status status = decode(file.data, file.n, 1, &image);
            CHECKF(status == SCA_ERR_FORMAT || (status == SCA_OK && image.rgb && !text_ends(samples[i], ".png")),
                   "%s with bit %zu flipped: %s, '%s'", samples[i], bit, sca_status_name(status), sca_last_error());
            sca_image_free(&image);
            file.data[bit / 8] = (char)(file.data[bit / 8] ^ 1 << bit % 8);
        }
        mem_free(file.data);
    }
}

static void strange_contents_are_refused(void)
{
    static const struct {
        const char *bytes, *message;
    } cases[] = { { "", "empty" },
                  { "\xff\xd8", "unknown kind" },
                  { "GIF89a", "unknown kind" },
                  { "P3\n1 1\n255\n0 0 0\n", "unknown kind" },
                  { "P6", "unknown kind" },
                  { "P6\n0 5\n255\n", "width" },
                  { "P6\n5 0\n255\n", "height" },
                  { "P6\n5 5\n0\n", "largest value" },
                  { "P6\n5 5\n65536\n", "largest value" },
                  { "P6\n5 -5\n255\n", "height" },
                  { "P6\n99999999999999999999 5\n255\n", "width" },
                  { "P6\n5 5\n255", "largest value" },
                  { "P6\n5 5\n255\nabc", "truncated" },
                  { "P6 # only a comment", "width" } };
    for (size_t i = 0; i < LENGTH(cases); i++) {
        sca_image image = { 0 };
        CHECK_FAILS(decode(cases[i].bytes, strlen(cases[i].bytes), 0, &image), SCA_ERR_FORMAT, cases[i].message);
        CHECK(!image.rgb);
    }
    sca_image image = { 0 };
    CHECK_FAILS(sca_image_decode(NULL, 5, &image), SCA_ERR_ARGUMENT, "NULL");
    CHECK_FAILS(sca_image_decode(NULL, 0, &image), SCA_ERR_FORMAT, "empty");
    CHECK_FAILS(sca_image_read(NULL, &image), SCA_ERR_ARGUMENT, "NULL");
}

/* PNG: the header with its checksum, then nothing: the claim alone must be refused. */
static void check_png_claim(uint32_t width, uint32_t height, const char *message)
{
    bytes file = load("png_rgb8.png");
    sca_image image = { 0 };
    for (int i = 0; i < 4; i++) {
        file.data[16 + i] = (char)(width >> (24 - 8 * i));
        file.data[20 + i] = (char)(height >> (24 - 8 * i));
    }
    uint32_t crc = 0xffffffff;
    for (int i = 12; i < 29; i++) {
        crc ^= (uint8_t)file.data[i];
        for (int k = 0; k < 8; k++) crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
    }
    for (int i = 0; i < 4; i++) file.data[29 + i] = (char)(~crc >> (24 - 8 * i));
    CHECK_FAILS(image_decode(file.data, file.n, "test", NULL, &image), SCA_ERR_FORMAT, message);
    sca_image_free(&image);
    mem_free(file.data);
}

static void check_jpeg_claim(int width, int height, const char *message)
{
    bytes file = load("jpeg_420.jpg");
    sca_image image = { 0 };
    for (size_t i = 0; i + 9 < file.n; i++) {
        if ((uint8_t)file.data[i] != 0xff || (uint8_t)file.data[i + 1] != 0xc0) continue;
        file.data[i + 5] = (char)(height >> 8);
        file.data[i + 6] = (char)height;
        file.data[i + 7] = (char)(width >> 8);
        file.data[i + 8] = (char)width;
        break;
    }
    CHECK_FAILS(image_decode(file.data, file.n, "test", NULL, &image), SCA_ERR_FORMAT, message);
    mem_free(file.data);
}

static void size_claims_are_checked_first(void)
{
    const char *ppm = "P6\n100000 100000\n255\nabc";
    sca_image image = { 0 };
    CHECK_FAILS(sca_image_decode(ppm, strlen(ppm), &image), SCA_ERR_FORMAT, "100000 x 100000 pixels");
    check_png_claim(100000, 100000, "100000 x 100000 pixels");
    check_png_claim(0x7fffffff, 0x7fffffff, "pixels");
    check_png_claim(0, 5, "PNG");
    check_png_claim(0xffffffff, 5, "PNG");
    check_png_claim(200, 200, "PNG");
    check_jpeg_claim(65000, 65000, "65000 x 65000 pixels");
    check_jpeg_claim(65535, 65535, "JPEG");
    check_jpeg_claim(0, 5, "JPEG");
    check_jpeg_claim(5, 0, "JPEG");
}

static void the_limit_is_exact(void)
{
    bytes file = load("png_rgb8.png"); /* 11 x 9 */
    sca_image image = { 0 };
    sca_image_options o = { .max_pixels = 99 };
    CHECK_OK(image_decode(file.data, file.n, "test", &o, &image));
    sca_image_free(&image);
    o.max_pixels = 98;
    CHECK_FAILS(image_decode(file.data, file.n, "test", &o, &image), SCA_ERR_FORMAT, "at most 98");
    o.max_pixels = -1;
    CHECK_FAILS(image_decode(file.data, file.n, "test", &o, &image), SCA_ERR_ARGUMENT, "max_pixels");
    o.max_pixels = INT64_MAX;
    CHECK_OK(image_decode(file.data, file.n, "test", &o, &image));
    sca_image_free(&image);
    CHECK_OK(sca_image_read_with(GOLDEN "png_rgb8.png", &o, &image));
    sca_image_free(&image);
    mem_free(file.data);
}

/* Repeats the first scan of a progressive file: the same bytes, so the same picture, at a few bytes a pass. */
static void scans_are_limited(void)
{
    bytes file = load("jpeg_progressive.jpg");
    size_t scan = 0, end = 0;
    for (size_t i = 0; i + 1 < file.n && !end; i++) {
        uint8_t marker = (uint8_t)file.data[i] == 0xff ? (uint8_t)file.data[i + 1] : 0;
        if (scan && (marker == 0xda || marker == 0xc4)) end = i;
        if (!scan && marker == 0xda) scan = i;
    }
    for (size_t copies = 1; copies <= IMAGE_MAX_SCANS; copies += IMAGE_MAX_SCANS - 1) {
        str big = { 0 };
        sca_image image = { 0 };
        str_put_bytes(&big, file.data, end);
        for (size_t i = 0; i < copies; i++) str_put_bytes(&big, file.data + scan, end - scan);
        str_put_bytes(&big, file.data + end, file.n - end);
        if (copies == 1)
            CHECK_OK(decode(big.data, big.bytes, 0, &image));
        else
            CHECK_FAILS(decode(big.data, big.bytes, 0, &image), SCA_ERR_FORMAT, "more than 500 scans");
        sca_image_free(&image);
        str_free(&big);
    }
    mem_free(file.data);
}

static void only_regular_files(void)
{
    sca_image image = { 0 };
    int width, height;
    uint8_t *gray = NULL;
    unlink(SCRATCH);
    CHECK_FAILS(sca_image_read(SCRATCH, &image), SCA_ERR_IO, "test_image_scratch");
    CHECK_FAILS(image_read_gray(SCRATCH, 0, &width, &height, &gray), SCA_ERR_IO, "test_image_scratch");
    CHECK(mkfifo(SCRATCH, 0600) == 0);
    CHECK_FAILS(sca_image_read(SCRATCH, &image), SCA_ERR_IO, "test_image_scratch");
    unlink(SCRATCH);
    CHECK_FAILS(sca_image_read(SCA_BUILD, &image), SCA_ERR_IO, SCA_BUILD);
    CHECK(symlink(GOLDEN "png_rgb8.png", SCRATCH) == 0);
    CHECK_OK(sca_image_read(SCRATCH, &image));
    sca_image_free(&image);
    unlink(SCRATCH);
    CHECK_OK(file_write(SCRATCH, "P6\n2 2\n255\nabc", 14));
    CHECK_FAILS(sca_image_read(SCRATCH, &image), SCA_ERR_FORMAT, "test_image_scratch: truncated");
    CHECK(!image.rgb && !gray);
    unlink(SCRATCH);
}

/* ---- failing memory and files ------------------------------------------------------------------------ */

static sca_status whole_path(const char *path)
{
    static float out[64 * 64 * 3];
    static const double mean[3] = { 0.5, 0.5, 0.5 }, std[3] = { 0.5, 0.5, 0.5 };
    sca_image image;
    TRY(sca_image_read_with(path, &(sca_image_options){ .honour_exif = 1 }, &image));
    sca_status status = image_pixels(&image, 64, mean, std, out, NULL, NULL);
    sca_image_free(&image);
    return status;
}

static void check_faults(const char *path, void (*fault)(int64_t), sca_status expected)
{
    for (int64_t n = 1; n < 10000; n++) {
        fault(n);
        sca_status status = whole_path(path);
        bool fired = fault_fired();
        fault(0);
        if (!fired) {
            CHECKF(status == SCA_OK, "%s: %s", path, sca_last_error());
            CHECK(n > 1);
            return;
        }
        CHECKF(status == expected && sca_last_error()[0], "%s, failure %lld: %s, '%s'", path, (long long)n,
               sca_status_name(status), sca_last_error());
    }
}

static void failing_memory_and_files(void)
{
    static const char *const names[] = { GOLDEN "jpeg_420.jpg",
                                         GOLDEN "jpeg_cmyk.jpg",
                                         GOLDEN "exif_6.jpg",
                                         GOLDEN "png_exif_6.png",
                                         GOLDEN "png_gray16_interlaced.png",
                                         GOLDEN "ppm_255.ppm" };
    for (size_t i = 0; i < LENGTH(names); i++) {
        check_faults(names[i], fault_alloc, SCA_ERR_MEMORY);
        check_faults(names[i], fault_io, SCA_ERR_IO);
    }
}

static void wrong_arguments(void)
{
    sca_image image = { 0 }, out = { 0 };
    CHECK_FAILS(image_alloc(0, 5, &image), SCA_ERR_ARGUMENT, "0 x 5");
    CHECK_FAILS(image_alloc(5, -1, &image), SCA_ERR_ARGUMENT, "5 x -1");
    CHECK_FAILS(image_resize(&image, 5, 5, &out), SCA_ERR_ARGUMENT, "0 x 0");
    CHECK_OK(image_alloc(2, 2, &image));
    CHECK_FAILS(image_resize(&image, 0, 5, &out), SCA_ERR_ARGUMENT, "0 x 5");
    sca_image_free(&image);
    sca_image_free(&image);
    sca_image_free(NULL);
}

int main(int argc, char **argv)
{
    RUN(preprocess_equals_pillow);
    RUN(preprocess_of_photos_equals_pillow);
    RUN(resize_equals_pillow);
    RUN(resize_units_agree);
    RUN(variants_equal_pillow);
    RUN(targets);
    RUN(truncation_is_an_error);
    RUN(flipped_bits_do_no_harm);
    RUN(strange_contents_are_refused);
    RUN(size_claims_are_checked_first);
    RUN(the_limit_is_exact);
    RUN(scans_are_limited);
    RUN(only_regular_files);
    RUN(failing_memory_and_files);
    RUN(wrong_arguments);
    return check_done();
}
