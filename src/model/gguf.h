/* gguf.h - metadata of a GGUF file; private to gguf.c, gguf_lm.c and the weights readers. */
#ifndef GGUF_H
#define GGUF_H

#include "model/weights.h"

typedef enum gguf_type {
    GGUF_U8,
    GGUF_I8,
    GGUF_U16,
    GGUF_I16,
    GGUF_U32,
    GGUF_I32,
    GGUF_F32,
    GGUF_BOOL,
    GGUF_STRING,
    GGUF_ARRAY,
    GGUF_U64,
    GGUF_I64,
    GGUF_F64,
    GGUF_TYPES
} gguf_type;

typedef struct gguf_value {
    const char *key; /* key_bytes of it, in the file */
    size_t key_bytes;
    gguf_type type; /* of an array: of its elements */
    bool array;
    uint64_t count;      /* elements of the array; else 1 */
    const uint8_t *data; /* in the file, unaligned; strings are a 64-bit length and the bytes */
} gguf_value;

typedef struct gguf {
    gguf_value *values; /* sorted by key */
    size_t n;
    const char *arch; /* "llama" or "gpt2"; static text */
} gguf;

const gguf_value *gguf_find(const gguf *g, const char *key); /* NULL if absent */
/* The same with "ARCH." in front. */
const gguf_value *gguf_find_own(const gguf *g, const char *key);
/* An integer of any width, a number, a truth value or a text; false if the value is absent or something else. */
bool gguf_int(const gguf_value *v, int64_t *out);
bool gguf_real(const gguf_value *v, double *out);
bool gguf_bool(const gguf_value *v, bool *out);
bool gguf_text(const gguf_value *v, const char **text, size_t *bytes);
uint64_t gguf_le64(const uint8_t *p);

#endif
