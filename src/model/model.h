/* model.h - layer 4: every model's parameters and entry points. */
#ifndef MODEL_H
#define MODEL_H

#include "nn/nn.h"

typedef struct tokenizer tokenizer; /* below */

/* ---- weight files (weights.c, safetensors.c, torch.c, gguf.c, names.c) ------------------------------------ */

/* One tensor of a file or directory, under its official name. */
typedef struct weight {
    const char *name;
    const char *file; /* for messages */
    dtype type;       /* as stored: F32, F16, BF16, F64; DT_NONE: integers, or quantised (GGUF) */
    bool numeric;     /* can be read as numbers: false for integer and boolean buffers */
    int ndim;
    int64_t dim[8], count;
    const void *data; /* in the mapped file, contiguous, aligned to the element; NULL: only weight_read gives it */
    const void *hidden; /* of the reader */
} weight;

typedef struct weights weights;
/* path: a model directory (model.safetensors, model.safetensors.index.json, pytorch_model.bin or its index), or one
 * file: .safetensors, PyTorch .pth/.bin (zip or the format before 1.6), .gguf; told by content. Everything is
 * checked (bounds, overlaps, types, duplicate names, plain shard names, zip checksums as the data is read); tensor
 * data is mapped, not read. Names are as in the file; GGUF gives Hugging Face names and row order. */
sca_status weights_open(const char *path, weights **out);
size_t weights_count(const weights *w);
const weight *weights_at(const weights *w, size_t i);
const weight *weights_find(const weights *w, const char *name); /* NULL if absent */
/* Values in row-major order, converted to F32, F16, BF16 or F64. out: count * dtype_bytes(to), caller's. */
sca_status weight_read(const weight *t, dtype to, void *out);
/* The pages behind t->data will not be read again soon: they stop counting as memory of the process. */
void weight_drop(const weight *t);
/* Names of an original segment_anything checkpoint become official ones (model.md 10.4); others stay. */
sca_status weights_as_sam(weights *w);
/* "language_model." (and GPT-2's missing "transformer.") in front; mask buffers of old files are dropped. */
sca_status weights_as_lm(weights *w);
/* GGUF: config.json of the language model as Hugging Face has it (new reference), and its tokenizer; else STATE. */
sca_status weights_lm_config(const weights *w, json_t **out);
sca_status weights_tokenizer(const weights *w, tokenizer **out);
void weights_close(weights *w);

typedef struct weight_entry {
    const char *name;
    dtype type; /* F32, F16 or BF16 */
    int ndim;
    int64_t dim[4];
} weight_entry;
/* Writes a safetensors file with metadata {"format": "pt"}: the header at open, then the data of every entry in the
 * given order. Written under a temporary name until commit. */
typedef struct safetensors_out safetensors_out;
sca_status safetensors_create(const char *path, const weight_entry *entries, size_t n, safetensors_out **out);
sca_status safetensors_put(safetensors_out *f, const void *data, size_t bytes); /* pieces of any size */
sca_status safetensors_commit(safetensors_out *f); /* frees f, also when it fails; fails when data is missing */
void safetensors_abort(safetensors_out *f);        /* accepts NULL */

/* ---- sizes (model_config.c): config.json, preprocessor_config.json, generation_config.json --------------- */

typedef enum variant {
    VARIANT_BASE,
    VARIANT_MULTITASK,
    VARIANT_MULTITASK_V2,
    VARIANT_DIRECT,
    VARIANT_DIRECT_V2,
    VARIANT_SPLIT_MIXER,
    VARIANT_ROI_POOL
} variant;
typedef enum lm_family { LM_GPT2, LM_LLAMA } lm_family;

typedef struct sam_config {
    /* encoder */
    int image, patch, grid; /* side of the model's image, of a patch; grid = image / patch */
    int width, layers, heads, mlp, window;
    bool global[256]; /* per layer: attends to the whole map */
    bool qkv_bias, abs_pos, rel_pos;
    activation encoder_act;
    float encoder_eps;
    /* prompt encoder */
    int channels;      /* C: neck output, prompt encoder and decoder width */
    int mask_channels; /* mask_input_channels */
    activation prompt_act;
    float prompt_eps;
    int pos_feats; /* F: channels = 2 F */
    /* decoder */
    int decoder_layers, decoder_heads, decoder_mlp, downsample, masks; /* masks = num_multimask_outputs + 1 */
    int iou_depth, iou_hidden;
    activation decoder_act;
    float decoder_eps;
} sam_config;

typedef struct lm_config {
    lm_family family;
    int width, layers, heads, kv_heads, head, mlp, vocab, positions;
    activation act; /* GPT-2: GELU_TANH, GELU, RELU; LLaMA: silu gate, ACT_NONE here */
    float eps, rope_theta;
    float initializer_range;
    double dropout_embd, dropout_attn, dropout_resid; /* GPT-2 */
    bool tied;                                        /* head and embedding may be one (tie_word_embeddings) */
    int bos, eos, pad;                                /* -1: none */
} lm_config;

typedef struct model_config {
    variant variant;
    sam_config sam;
    lm_config lm;
    int mixer_layers, caption_tokens, caption_heads, task_tokens;
    bool projector_mlp;
    int projector_norm; /* roi_pool: 0 none, 1 before, 2 after */
    float initializer_range;
    double mean[3], std[3]; /* of the pixels after division by 255 */
    json_t *json;           /* config.json as it will be written (owned) */
    json_t *preprocessor,
        *generation; /* preprocessor_config.json, generation_config.json to write; generation may be NULL */
} model_config;

#define SIZE_MOST 65536 /* no width, count or side in a configuration may be larger (vocabulary: 4 million) */

/* Reads and checks the files of a model directory; messages name file and key. */
sca_status model_config_read(const char *dir, model_config *out);
/* A fresh model from settings: model.config, or model.sam and model.lm with model.variant, mixer_layers, ... `sam`
 * and `lm` are their opened weights (names already official), NULL for random:SIZE. */
sca_status model_config_fresh(const config *c, const weights *sam, const weights *lm, model_config *out);
void model_config_free(model_config *m); /* accepts a zeroed one */
const char *variant_name(variant v);     /* "ScaMultitaskV2Model", ... */

/* ---- tokenizers (tokenizer.c) ------------------------------------------------------------------------ */

/* Byte-level BPE (vocab.json + merges.txt, or tokenizer.json) and SentencePiece (tokenizer.model). Immutable after
 * opening; encode and decode may run in several threads. Sources: data.md 5, eval.md 2.4. */

typedef struct tokenizer_gguf { /* what a GGUF file says of its tokeniser; pointers are borrowed during the call
                                   only */
    const char *model;          /* "gpt2" or "llama" */
    const char *pre;            /* pre-tokeniser name, "" if none: "smollm", "gpt-2", ... */
    const char *const *tokens;  /* (n_tokens) UTF-8, byte-level alphabet for gpt2 */
    const size_t *token_bytes;
    const float *scores;  /* (n_tokens) or NULL */
    const int32_t *types; /* (n_tokens) or NULL: 1 normal, 2 unknown, 3 control, 4 user, 6 byte */
    size_t n_tokens;
    const char *const *merges; /* "left right" */
    size_t n_merges;
    int64_t bos, eos, unknown, pad; /* -1: none */
    int add_bos;                    /* -1: not said */
    const char *name;               /* file, for messages */
} tokenizer_gguf;

sca_status tokenizer_open(const char *dir, tokenizer **out);
sca_status tokenizer_from_gguf(const tokenizer_gguf *g, tokenizer **out);
/* Token ids as the official call tokenizer(text) gives them; train: cut to 18 ids, then EOS (data.md 5).
 * *ids: mem_free. */
sca_status tokenizer_encode(const tokenizer *t, const char *text, size_t bytes, bool train, int **ids, int *n);
/* with_special false: drops special tokens, then cleans up as eval.md 2.4. *text: mem_free, valid UTF-8. */
sca_status tokenizer_decode(const tokenizer *t, const int *ids, int n, bool with_special, char **text);
int tokenizer_size(const tokenizer *t); /* number of ids, added tokens included */
int tokenizer_bos(const tokenizer *t);  /* -1: none */
int tokenizer_eos(const tokenizer *t);
/* Files of the tokenizer that a model directory needs (names relative to dir), for export; NULL-terminated. */
const char *const *tokenizer_files(const tokenizer *t);
const char *tokenizer_dir(const tokenizer *t); /* where they are; NULL when it came from a GGUF file */
void tokenizer_close(tokenizer *t);

#endif
