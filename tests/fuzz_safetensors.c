/* fuzz_safetensors.c - safetensors files from strangers. */
#include "model/weights.h"

#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Reads everything that is small enough; what is mapped must be readable. */
static void read_all(const weights *w)
{
    static double values[1 << 14];
    for (size_t i = 0; i < weights_count(w); i++) {
        const weight *t = weights_at(w, i);
        if (weights_find(w, t->name) != t) __builtin_trap();
        if (t->count > (int64_t)LENGTH(values) || !t->numeric) continue;
        if (weight_read(t, i % 2 ? DT_F64 : DT_F16, values) == SCA_OK && t->data)
            memcpy(values, t->data, dtype_bytes(t->type) * (size_t)t->count);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    weights *w;
    if (weights_parse(data, size, "fuzz.safetensors", &w) != SCA_OK) return 0;
    read_all(w);
    if (weights_as_sam(w) == SCA_OK) read_all(w);
    if (weights_as_lm(w) == SCA_OK) read_all(w);
    weights_close(w);
    return 0;
}
