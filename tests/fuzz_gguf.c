/* fuzz_gguf.c - GGUF files from strangers: tensors, configuration, tokenizer. */
#include "model/model_classes.h"
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
    json_t *json;
    tokenizer *t;
    lm_config c;
    if (weights_parse(data, size, "fuzz.gguf", &w) != SCA_OK) return 0;
    read_all(w);
    if (weights_lm_config(w, &json) == SCA_OK) lm_config_parse(json, "fuzz.gguf", &c);
    json_decref(json);
    if (weights_tokenizer(w, &t) == SCA_OK) tokenizer_close(t);
    if (weights_as_lm(w) == SCA_OK) read_all(w);
    weights_close(w);
    return 0;
}
