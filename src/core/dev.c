/* dev.c - what every device does alike: the sticky stream, copies between host and device. */
#include "core/core.h"

#include <stdio.h>

void dev_fail(dev *d, sca_status s, const char *format, ...)
{
    if (d->status != SCA_OK || s == SCA_OK) return;
    d->status = s;
    va_list args;
    va_start(args, format);
    vsnprintf(d->error, sizeof d->error, format, args);
    va_end(args);
}

sca_status dev_check(dev *d)
{
    if (d->status == SCA_OK) d->kind->sync(d);
    if (d->status == SCA_OK) return SCA_OK;
    sca_status s = status_fail(d->status, "%s", d->error);
    d->status = SCA_OK;
    d->error[0] = 0;
    return s;
}

/* Copies are whole: a caller whose sizes disagree with the tensor is refused, not served in part. */
static bool can_copy(dev *d, const char *what, tensor t, size_t bytes)
{
    char text[96];
    if (d->status != SCA_OK) return false;
    if (t.data && tensor_contiguous(t) && bytes == tensor_bytes(t)) return true;
    dev_fail(d, SCA_ERR_ARGUMENT, "%s: %zu bytes for %s%s, expected a contiguous tensor of that size", what, bytes,
             tensor_text(t, text), t.data ? "" : " without data");
    return false;
}

void dev_put(dev *d, tensor dst, const void *src, size_t bytes)
{
    if (can_copy(d, "dev_put", dst, bytes)) d->kind->put(d, dst.data, src, bytes);
}

sca_status dev_get(dev *d, void *dst, tensor src, size_t bytes)
{
    if (can_copy(d, "dev_get", src, bytes)) d->kind->get(d, dst, src.data, bytes);
    return dev_check(d);
}

void dev_put_f32(dev *d, tensor dst, const float *src)
{
    if (d->status != SCA_OK || dst.type == DT_F32) {
        dev_put(d, dst, src, tensor_bytes(dst));
        return;
    }
    size_t bytes = tensor_bytes(dst);
    void *staging = mem_alloc(bytes);
    if (!staging) {
        dev_fail(d, SCA_ERR_MEMORY, "out of memory: %zu bytes to convert %s data", bytes, dtype_name(dst.type));
        return;
    }
    dtype_convert(dst.type, staging, DT_F32, src, (size_t)tensor_count(dst));
    dev_put(d, dst, staging, bytes);
    mem_free(staging);
}

sca_status dev_get_f32(dev *d, float *dst, tensor src)
{
    size_t bytes = tensor_bytes(src);
    if (d->status != SCA_OK || src.type == DT_F32) return dev_get(d, dst, src, bytes);
    void *staging = mem_alloc(bytes);
    if (!staging) return mem_fail(bytes, "converting data of the device");
    sca_status status = dev_get(d, staging, src, bytes);
    if (status == SCA_OK) dtype_convert(DT_F32, dst, src.type, staging, (size_t)tensor_count(src));
    mem_free(staging);
    return status;
}

/* ---- work that repeats ------------------------------------------------------------------------------------ */

bool dev_repeat(dev *d, const char *what, const void *key, size_t bytes)
{
    return d->status != SCA_OK || !d->kind->repeat || d->kind->repeat(d, what, key, bytes);
}

void dev_repeated(dev *d)
{
    if (d->kind->repeated) d->kind->repeated(d);
}
