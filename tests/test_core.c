/* test_core.c - element types, views, arenas, and the copies and failures of devices. */
#include "check.h"

#include "core/core.h"
#include "ops/ops.h"

#include <math.h>

/* ---- element types ------------------------------------------------------------------------------------------- */

static void halves_round_to_nearest_even(void)
{
    CHECK(f32_to_f16(1.0f) == 0x3C00 && f32_to_f16(-2.0f) == 0xC000 && f32_to_f16(0.0f) == 0);
    CHECK(f32_to_f16(-0.0f) == 0x8000);
    CHECK(f32_to_f16(65504.0f) == 0x7BFF && f32_to_f16(65519.0f) == 0x7BFF);
    CHECK(f32_to_f16(65520.0f) == 0x7C00 && f32_to_f16(-1e30f) == 0xFC00 && f32_to_f16(INFINITY) == 0x7C00);
    CHECK(f32_to_f16(1.0f + 0x1p-11f) == 0x3C00 && f32_to_f16(1.0f + 3 * 0x1p-11f) == 0x3C02); /* ties to even */
    CHECK(f32_to_f16(1.0f + 0x1.8p-11f) == 0x3C01);
    CHECK(f32_to_f16(0x1p-24f) == 1 && f32_to_f16(0x1p-25f) == 0 && f32_to_f16(0x1.8p-25f) == 1);
    CHECK(f32_to_f16(0x1p-14f) == 0x0400 && f32_to_f16(0x1.ff8p-15f) == 0x03FF && f32_to_f16(0x1p-26f) == 0);
    CHECK(f32_to_f16(0x1.fffffep-15f) == 0x0400); /* rounds up into the normal numbers */
    CHECK(isnan(f16_to_f32(f32_to_f16(NAN))) && isnan(bf16_to_f32(f32_to_bf16(NAN))));
    CHECK(f32_to_bf16(1.0f) == 0x3F80 && f32_to_bf16(1.0f + 0x1p-8f) == 0x3F80);
    CHECK(f32_to_bf16(1.0f + 3 * 0x1p-8f) == 0x3F82 && f32_to_bf16(3.4e38f) == 0x7F80);
}

/* Each of the 65536 halves comes back from F32 as it was. */
static void every_half_survives_f32(void)
{
    int wrong = 0;
    for (uint32_t bits = 0; bits < 65536; bits++) {
        uint16_t h = (uint16_t)bits;
        bool nan16 = (h & 0x7FFF) > 0x7C00, nanb = (h & 0x7FFF) > 0x7F80;
        wrong += nan16 ? !isnan(f16_to_f32(h)) : f32_to_f16(f16_to_f32(h)) != h;
        wrong += nanb ? !isnan(bf16_to_f32(h)) : f32_to_bf16(bf16_to_f32(h)) != h;
    }
    CHECK(wrong == 0);
}

static void conversions_go_between_all_floats(void)
{
    static const dtype types[] = { DT_F32, DT_F64, DT_F16, DT_BF16 };
    const double values[3] = { 0.5, -3, 128 }; /* exact everywhere */
    for (size_t i = 0; i < LENGTH(types); i++)
        for (size_t j = 0; j < LENGTH(types); j++) {
            char a[24], b[24];
            double back[3];
            dtype_convert(types[i], a, DT_F64, values, 3);
            dtype_convert(types[j], b, types[i], a, 3);
            dtype_convert(DT_F64, back, types[j], b, 3);
            CHECKF(memcmp(back, values, sizeof values) == 0, "%s to %s", dtype_name(types[i]),
                   dtype_name(types[j]));
        }
    CHECK(dtype_bytes(DT_NONE) == 0 && dtype_bytes(DT_F16) == 2 && dtype_bytes(DT_U8) == 1);
    CHECK(dtype_is_float(DT_BF16) && !dtype_is_float(DT_I32));
}

/* ---- views -------------------------------------------------------------------------------------------------------- */

static float data[2 * 3 * 4 * 5];

static tensor cube(void) { return tensor_on(data, DT_F32, 4, (int64_t[]){ 2, 3, 4, 5 }); }

static void views_point_where_they_should(void)
{
    tensor t = cube();
    CHECK(tensor_contiguous(t) && tensor_count(t) == 120 && tensor_bytes(t) == 480);
    tensor s = tensor_slice(t, 2, 1, 2);
    CHECK(s.data == data + 5 && s.dim[2] == 2 && s.stride[1] == 20 && !tensor_contiguous(s));
    tensor a = tensor_at(t, 1);
    CHECK(a.data == data + 60 && a.ndim == 3 && a.dim[0] == 3 && a.stride[0] == 20);
    tensor w = tensor_swap(t, 1, 2);
    CHECK(w.dim[1] == 4 && w.stride[1] == 5 && w.dim[2] == 3 && w.stride[2] == 20 && !tensor_contiguous(w));
    tensor r = tensor_reshape2(t, 6, 20);
    CHECK(r.ndim == 2 && r.stride[0] == 20 && r.data == data);
    tensor p = tensor_split(tensor_reshape3(t, 6, 4, 5), 0, 2);
    CHECK(tensor_same_shape(p, t) && p.stride[0] == 60 && p.stride[1] == 20);
    tensor last = tensor_split(tensor_reshape2(t, 12, 10), 1, 2);
    CHECK(last.dim[1] == 2 && last.dim[2] == 5 && last.stride[1] == 5 && last.stride[2] == 1);
    tensor u = tensor_expand(tensor_unsqueeze(tensor_reshape2(t, 6, 20), 0), 0, 7);
    CHECK(u.ndim == 3 && u.dim[0] == 7 && u.stride[0] == 0 && !tensor_contiguous(u) && tensor_count(u) == 840);
    CHECK(!tensor_given(TENSOR_NONE) && tensor_count(TENSOR_NONE) == 0);
    CHECK(tensor_contiguous(tensor_slice(t, 0, 1, 1)) && tensor_contiguous(tensor_slice(t, 0, 0, 0)));
    tensor nowhere = tensor_slice(tensor_on(NULL, DT_F32, 2, (int64_t[]){ 4, 4 }), 0, 2, 1);
    CHECK(nowhere.data == NULL); /* a tensor of a full arena stays without data */
}

static void tensors_read_as_text(void)
{
    char text[96];
    CHECK(strcmp(tensor_text(cube(), text), "(2,3,4,5) f32") == 0);
    CHECK(strcmp(tensor_text(TENSOR_NONE, text), "absent") == 0);
    tensor t = tensor_on(NULL, DT_BF16, 2, (int64_t[]){ INT64_MAX / 4, 2 });
    t.layout = LAYOUT_PANELS;
    CHECK(strcmp(tensor_text(t, text), "(2305843009213693951,2) bf16 panels") == 0);
}

/* ---- devices and arenas ------------------------------------------------------------------------------------------------ */

static void copies_convert_and_refuse(void)
{
    dev *d = NULL;
    arena a;
    CHECK_OK(dev_open("ref", "", &d));
    CHECK_OK(arena_open(d, 1 << 16, &a));
    const float numbers[6] = { 1, -2, 3.5f, 0, 65504, 1e-3f };
    float back[6] = { 0 };
    static const dtype types[] = { DT_F64, DT_F32, DT_F16, DT_BF16 };
    for (size_t i = 0; i < LENGTH(types); i++) {
        tensor t = arena_tensor(&a, types[i], 2, (int64_t[]){ 2, 3 });
        dev_put_f32(d, t, numbers);
        CHECK_OK(dev_get_f32(d, back, t));
        for (int k = 0; k < 6; k++)
            CHECKF(fabsf(back[k] - numbers[k]) <= fabsf(numbers[k]) * (i < 2 ? 0 : 0x1p-8f), "%s: %g for %g",
                   dtype_name(types[i]), (double)back[k], (double)numbers[k]);
    }
    tensor wide = arena_tensor(&a, DT_F32, 2, (int64_t[]){ 2, 6 });
    dev_put(d, tensor_slice(wide, 1, 0, 3), numbers, 24);
    CHECK_FAILS(dev_check(d), SCA_ERR_ARGUMENT, "contiguous");
    dev_put(d, wide, numbers, 24);
    CHECK_FAILS(dev_check(d), SCA_ERR_ARGUMENT, "24 bytes for (2,6) f32");
    CHECK_FAILS(dev_get(d, back, wide, 4), SCA_ERR_ARGUMENT, "dev_get");
    CHECK_OK(dev_check(d));
    arena_close(&a);
    dev_close(d);
}

static void the_first_failure_wins(void)
{
    dev *d = NULL;
    float x = 3;
    CHECK_OK(dev_open("ref", "", &d));
    dev_fail(d, SCA_OK, "nothing");
    CHECK_OK(dev_check(d));
    dev_fail(d, SCA_ERR_DEVICE, "first %d", 1);
    dev_fail(d, SCA_ERR_MEMORY, "second");
    CHECK_FAILS(dev_get(d, &x, tensor_on(&x, DT_F32, 1, (int64_t[]){ 1 }), 4), SCA_ERR_DEVICE, "first 1");
    CHECK_OK(dev_check(d));
    dev_close(d);
    dev_close(NULL);
}

static void short_memory_is_reported(void)
{
    for (int64_t n = 1; n < 5; n++) { /* the device, its table, the arena; then all is well */
        dev *d = NULL;
        arena a = { 0 };
        fault_alloc(n);
        sca_status s = dev_open("ref", "", &d);
        if (s == SCA_OK) s = arena_open(d, 4096, &a);
        bool fired = fault_fired();
        fault_alloc(0);
        CHECKF(fired == (s != SCA_OK), "allocation %d: %s", (int)n, sca_status_name(s));
        if (fired) CHECK(s == SCA_ERR_MEMORY && strstr(sca_last_error(), "out of memory"));
        if (a.d) arena_close(&a);
        dev_close(d);
    }
    dev *d = NULL;
    arena a;
    CHECK_OK(dev_open("ref", "", &d));
    CHECK_OK(arena_open(d, 4096, &a));
    tensor half = arena_tensor(&a, DT_F16, 1, (int64_t[]){ 4 });
    float four[4] = { 1, 2, 3, 4 };
    fault_alloc(1);
    dev_put_f32(d, half, four);
    fault_alloc(0);
    CHECK_FAILS(dev_check(d), SCA_ERR_MEMORY, "out of memory");
    CHECK(arena_tensor(&a, DT_F64, 3, (int64_t[]){ INT64_MAX, INT64_MAX, 8 }).data == NULL);
    CHECK_FAILS(dev_check(d), SCA_ERR_MEMORY, "arena full");
    arena_close(&a);
    CHECK_FAILS(arena_open(d, SIZE_MAX - 3, &a), SCA_ERR_MEMORY, "an arena");
    arena_close(&(arena){ 0 });
    dev_close(d);
}

static void arenas_measure_on_the_null_device(void)
{
    dev *d = NULL;
    arena a, b;
    CHECK_OK(dev_open("null", "", &d));
    CHECK_OK(arena_open(d, 0, &a));
    CHECK_OK(arena_open(d, 0, &b));
    size_t mark = arena_mark(&a);
    tensor t = arena_tensor(&a, DT_F32, 2, (int64_t[]){ 1 << 20, 1 << 12 }); /* 16 GiB */
    tensor u = arena_tensor(&b, DT_F32, 1, (int64_t[]){ 3 });
    CHECK(t.data && u.data && t.data != u.data && a.peak == (size_t)16 << 30 && b.peak == 256);
    arena_release(&a, mark);
    arena_tensor(&a, DT_U8, 1, (int64_t[]){ 1 });
    CHECK(a.used == 256 && a.peak == (size_t)16 << 30);
    float zero[3] = { 1, 1, 1 };
    CHECK_OK(dev_get_f32(d, zero, u));
    CHECK(zero[0] == 0 && zero[2] == 0);
    arena_close(&a);
    arena_close(&b);
    dev_close(d);
}

static void full_arenas_stop_the_stream(void)
{
    dev *d = NULL;
    arena a;
    CHECK_OK(dev_open("cpu", "threads=1", &d));
    CHECK_OK(arena_open(d, 1024, &a));
    size_t mark = arena_mark(&a);
    CHECK(arena_tensor(&a, DT_F32, 1, (int64_t[]){ 64 }).data != NULL);
    CHECK(arena_tensor(&a, DT_F32, 1, (int64_t[]){ 1000000 }).data == NULL);
    CHECK_FAILS(dev_check(d), SCA_ERR_MEMORY, "arena");
    arena_release(&a, mark);
    CHECK(arena_tensor(&a, DT_F32, 1, (int64_t[]){ 200 }).data != NULL && a.peak == 1024);
    arena_close(&a);
    dev_close(d);
}

static void guarded_arenas(void)
{
    dev *d = NULL;
    arena a;
    CHECK_OK(dev_open("cpu", "threads=1", &d));
    CHECK_OK(arena_open(d, 1 << 16, &a));
    a.debug = true;
    tensor t = arena_tensor(&a, DT_F32, 1, (int64_t[]){ 5 });
    CHECK(isnan(((float *)t.data)[0]) && arena_guards_intact(&a));
    ((float *)t.data)[5] = 1; /* one past the end */
    CHECK(!arena_guards_intact(&a));
    arena_close(&a);
    dev_close(d);
}

/* New memory shows reads that come too early, released memory reads that come too late. */
static void debug_arenas_fill_memory(void)
{
    dev *d = NULL;
    arena a;
    CHECK_OK(dev_open("ref", "", &d));
    CHECK_OK(arena_open(d, 1 << 16, &a));
    a.debug = true;
    size_t mark = arena_mark(&a);
    static const dtype types[] = { DT_F64, DT_F32, DT_F16, DT_BF16 };
    unsigned char *first = NULL;
    for (size_t i = 0; i < LENGTH(types); i++) {
        double seen;
        tensor t = arena_tensor(&a, types[i], 1, (int64_t[]){ 7 });
        if (!i) first = t.data;
        dtype_convert(DT_F64, &seen, types[i], t.data, 1);
        CHECKF(isnan(seen), "%s", dtype_name(types[i]));
        memset(t.data, 0, tensor_bytes(t));
    }
    CHECK(arena_guards_intact(&a));
    arena_release(&a, mark);
    CHECK(first[0] == 0xDD && first[55] == 0xDD && arena_guards_intact(&a));
    unsigned char *bytes = arena_bytes(&a, 3);
    bytes[-1] ^= 1;
    CHECK(!arena_guards_intact(&a));
    bytes[-1] ^= 1;
    CHECK(arena_guards_intact(&a));
    arena_close(&a);
    dev_close(d);
}

int main(int argc, char **argv)
{
    RUN(halves_round_to_nearest_even);
    RUN(every_half_survives_f32);
    RUN(conversions_go_between_all_floats);
    RUN(views_point_where_they_should);
    RUN(tensors_read_as_text);
    RUN(copies_convert_and_refuse);
    RUN(the_first_failure_wins);
    RUN(short_memory_is_reported);
    RUN(arenas_measure_on_the_null_device);
    RUN(full_arenas_stop_the_stream);
    RUN(guarded_arenas);
    RUN(debug_arenas_fill_memory);
    return check_done();
}
