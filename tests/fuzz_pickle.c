/* fuzz_pickle.c - pickles from strangers: a document or a message, whatever the bytes. */
#include "base/base.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Values may be shared and may contain themselves: the walk is bounded by steps and depth. */
static void walk(const pickle_value *v, int depth, int *steps)
{
    if (depth == 0 || --*steps < 0) return;
    if (v->type == PICKLE_TEXT && (!utf8_valid(v->text, v->count) || v->text[v->count] != 0)) __builtin_trap();
    if (v->type == PICKLE_DICT && v->count % 2 != 0) __builtin_trap();
    if (v->type == PICKLE_CALL && (v->count < 2 || v->count > 3 || v->items[0]->type != PICKLE_GLOBAL))
        __builtin_trap();
    (void)pickle_get(v, "key");
    for (size_t i = 0; v->items && i < v->count; i++) walk(v->items[i], depth - 1, steps);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char *const allowed[] = { "collections OrderedDict", "torch FloatStorage",
                                           "torch._utils _rebuild_tensor_v2", NULL };
    for (size_t at = 0; at < size;) { /* several may follow each other */
        pickle *p;
        size_t used = 0;
        int steps = 10000;
        if (pickle_open(data + at, size - at, "fuzz", allowed, &p, &used) != SCA_OK) break;
        if (used == 0 || used > size - at) __builtin_trap();
        walk(pickle_root(p), 100, &steps);
        pickle_close(p);
        at += used;
    }
    return 0;
}
