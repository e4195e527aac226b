/* fuzz_torch.c - what torch.save writes, from strangers: both formats, and any pickle in a sound archive. */
#include "made.h"
#include "model/weights.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Reads everything that is small enough; what is mapped must be readable. */
static void read_all(const weights *w)
{
    static double values[1 << 14];
    for (size_t i = 0; i < weights_count(w); i++) {
        const weight *t = weights_at(w, i);
        if (weights_find(w, t->name) != t) __builtin_trap();
        if (t->count > (int64_t)LENGTH(values) || !t->numeric || weight_map(t) != SCA_OK) continue;
        if (weight_read(t, i % 2 ? DT_F64 : DT_F16, values) == SCA_OK && t->data)
            memcpy(values, t->data, dtype_bytes(t->type) * (size_t)t->count);
    }
}

static void try(const void *data, size_t size)
{
    weights *w;
    if (weights_parse(data, size, "fuzz.pth", &w) != SCA_OK) return;
    read_all(w);
    if (weights_as_sam(w) == SCA_OK) read_all(w);
    weights_close(w);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const float values[] = { 0, 1, 2, 3, 4, 5 };
    const member members[] = { { "m/data.pkl", data, size }, { "m/data/0", values, sizeof values } };
    try(data, size);
    if (size == 0 || data[0] == 'P') return 0;
    /* The checksum of an archive keeps mutations away from the pickle: here it is always right. */
    str s = zip_of(members, LENGTH(members));
    if (!s.failed) try(s.data, s.bytes);
    str_free(&s);
    return 0;
}
