/* inside.h - private to src/model: where parameters come from, what a model and a scene hold. */
#ifndef INSIDE_H
#define INSIDE_H

#include "model/model.h"

typedef struct source {   /* one per entry of the registry, same order */
    const weight *weight; /* NULL: initialised from the seed, or shared */
    int shares;           /* index of the entry whose value this one is, or -1 */
    dtype stored;         /* F32, F16 or BF16: the type an export "as stored" writes */
} source;

typedef struct sources {
    weights *files[2]; /* owned: the model directory, or SAM and language model; NULL where absent */
    bool directory;    /* files[0] is a whole model: nothing is initialised */
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

/* Bytes that the parameters take in the device's memory, frozen and trained, and in mapped files that are used in place.
 */
void place_bytes(const param_set *params, const sources *s, const backend *kind, dtype precision, size_t bytes[2],
                 size_t *mapped);
/* Puts the frozen parameters on the device into into[0], the trained ones into into[1]; that may be NULL: then they are
 * left out. sources NULL: shapes only, everything f32, for a plan. */
sca_status place(const param_set *params, const sources *s, arena *const into[2], dtype precision);
/* Gives second names what they share, once it is placed. */
void place_shared(const param_set *params, const sources *s);
/* Which parameters are to be trained, by train.trainable and train.objective. true: that changed something. */
bool mark_trained(const config *c, const param_set *params);

struct model {
    model_config sizes;
    generate_options generation;
    dtype precision;
    sources from;
    dev *d, *null;
    net net, plan;                              /* parameters on d, and their shapes on null */
    arena weights, trained, plan_weights, temp; /* trained: what may be trained, apart from the rest */
    bool live;            /* trained values are those in `trained`, no longer those of the files */
    tensor pe;            /* (S,C) position code of the image tokens, in weights */
    tokenizer *tokenizer; /* NULL: captions are ids */
    int64_t streams;      /* sequences sampled so far */
};

struct scene {
    model *m;
    arena memory;
    tensor embedding, base; /* (S,C); base: with the embedding of "no mask" added */
    int valid_width, valid_height, width, height;
};

typedef struct run { /* one call on one device: the real one, or null to measure */
    pass p;
    const net *n;
    const model_config *c;
} run;

/* The same code runs on the real device, and on null to learn what it takes. a: opened here, closed by the caller.
 */
sca_status null_run(model *m, arena *a, run *r);
run real_run(model *m);
/* arena_open on the model's device; when its memory is out the message says what for, and what to change. */
sca_status take_memory(model *m, size_t bytes, arena *out, const char *what, const char *advice);
/* Temporary memory that was measured on the null device (activations f32), on the real one. */
sca_status temp_reserve(model *m, size_t measured, const char *what, const char *advice);
/* What to change when a device has no room, by what the memory is for. */
#define HINT_ENCODE                                                                                                \
    "a smaller image encoder (vit_b) needs less, and so does --device cpu on a machine with more memory"
#define HINT_DESCRIBE "fewer regions in one call, a smaller generate.beams or generate.max_tokens need less"
/* Where a tensor is, for the key of dev_repeat. */
static inline int64_t place_of(tensor t) { return (int64_t)(uintptr_t)t.data; }
int64_t image_tokens(const model_config *c);
tensor image_map(arena *a, const model_config *c); /* (S,C) */

/* Opens the parts of a model that need no memory for weights: sizes, shapes, files, device. */
sca_status model_prepare(const config *c, model *m);
/* Puts the weights on the device, those that are trained only if wanted, and the position code beside them. */
sca_status model_place(model *m, bool trained);
/* The value of parameter i as it is now. out: caller's. */
sca_status model_value(const model *m, size_t i, dtype to, void *out);

/* Peaks of temporary memory, measured on the null device: encoding; captions and masks of regions with a box. */
sca_status encode_peak(model *m, size_t *peak);
sca_status boxes_peak(model *m, int regions, size_t *peak);
size_t scene_bytes(const model *m);

enum { REGIONS_AT_ONCE = 16 }; /* through decoder and mixer: each has image tokens of its own */
typedef struct group {         /* N regions with n sparse tokens each, all or none with a mask prompt */
    int N, n;
    bool masked;
    bool recognition;            /* the task of given captions */
    int member[REGIONS_AT_ONCE]; /* indices into the caller's prompts */
} group;

typedef struct decoded {
    mixer_input to_mixer; /* tokens, fused (N,T,C); sparse; x (N,S,C) */
    tensor iou;           /* (N,masks) */
} decoded;
/* Boxes (N,4) F of N regions whose n prompt tokens end with their corners. */
tensor region_boxes(const pass *to, const prompt_token *list, int64_t N, int64_t n);
/* The decoder's outputs for a group, in temp; prompts NULL: a plan. */
sca_status decode(const run *r, const scene *s, const group *g, const sca_prompt *prompts, tensor pe, decoded *out);

#endif
