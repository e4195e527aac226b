/* sources.h - private to src/model: where the value of every parameter comes from. */
#ifndef SOURCES_H
#define SOURCES_H

#include "model/model.h"

typedef struct source {   /* one per entry of the registry, same order */
    const weight *weight; /* NULL: initialised from the seed, or shared */
    int shares;           /* index of the entry whose value this one is, or -1 */
    dtype stored;         /* F32, F16 or BF16: the type an export "as stored" writes */
} source;

typedef struct sources {
    weights *files[2]; /* owned: the model directory, or SAM and language model; NULL where absent */
    uint64_t seed;
    float range; /* initializer_range */
    source *of;  /* (params.n) owned */
} sources;

/* Opens what model.path, or model.sam and model.lm, name; sizes from their configuration. */
sca_status sources_open(const config *c, sources *s, model_config *sizes);
/* Finds the value of every entry; a missing or misshapen tensor is an error that names it. */
sca_status sources_match(sources *s, const param_set *params);
void sources_close(sources *s); /* accepts a zeroed one */
/* The value of entry i, in `to` (F32, F16, BF16, F64); NaN and infinity are refused. out: caller's. */
sca_status sources_read(const sources *s, const param_set *params, size_t i, dtype to, void *out);
/* Refuses NaN and infinity in mapped data. */
sca_status sources_check(const weight *w);

/* Puts every parameter on the device: `bytes` counts first (sources may be NULL then: everything is f32, as for a
 * plan of a model without files), place fills. */
sca_status place_bytes(const param_set *params, const sources *s, const backend *kind, dtype precision,
                       size_t *bytes);
sca_status place(const param_set *params, const sources *s, arena *into, dtype precision);

#endif
