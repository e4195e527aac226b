/* model.h - layer 4: every model's parameters and entry points. */
#ifndef MODEL_H
#define MODEL_H

#include "nn/nn.h"

typedef struct tokenizer tokenizer; /* below */

/* ---- weight files (weights.c, safetensors.c, torch.c, gguf.c, names.c) ------------------------------- */

/* One tensor of a file or directory, under its official name. */
typedef struct weight {
    const char *name;
    const char *file; /* for messages */
    dtype type;       /* as stored: F32, F16, BF16, F64; DT_NONE: integers, or quantised (GGUF) */
    bool numeric;     /* can be read as numbers: false for integer and boolean buffers */
    int ndim;
    int64_t dim[8], count;
    const void *data; /* in the mapped file, contiguous, aligned to the element; NULL: only weight_read gives it, or
                       * weight_map has not been asked */
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
/* A tensor in a zip archive gets its data, if it can, only here, after its checksum has been found right (once per
 * entry); all others have it from the start. Not while other threads use t. */
sca_status weight_map(const weight *t);
/* The pages behind t->data will not be read again soon: they stop counting as memory of the process. */
void weight_drop(const weight *t);
/* Names of an original segment_anything checkpoint become official ones (model.md 10.4); others stay. */
sca_status weights_as_sam(weights *w);
/* "language_model." (and GPT-2's missing "transformer.") in front; mask buffers of old files are dropped. */
sca_status weights_as_lm(weights *w);
/* A causal mask or rotary table that old files keep beside a language model's parameters. */
bool weight_is_buffer(const char *name);
/* GGUF: config.json of the language model as Hugging Face has it (new reference), and its tokenizer; else STATE. */
sca_status weights_lm_config(const weights *w, json_t **out);
sca_status weights_tokenizer(const weights *w, tokenizer **out);
void weights_close(weights *w);

typedef struct weight_entry {
    const char *name;
    dtype type; /* F32, F16, BF16 or F64 */
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

/* ---- sizes (model_config.c): config.json, preprocessor_config.json, generation_config.json ----------- */

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

/* No width, count or side in a configuration may be larger (a language model's vocabulary: 4 million, positions: 1
 * million, inner width: 4 times that). */
#define SIZE_MOST 65536

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
/* Token ids as the official call tokenizer(text) gives them; train: cut to 18 ids, then EOS (data.md 5;
 * SCA_ERR_STATE when there is none). Broken UTF-8 counts as U+FFFD. *ids: mem_free. */
sca_status tokenizer_encode(const tokenizer *t, const char *text, size_t bytes, bool train, int **ids, int *n);
/* with_special false: drops special tokens, then cleans up as eval.md 2.4. *text: mem_free, valid UTF-8; what the
 * ids leave broken and 0 bytes become U+FFFD. An id out of range: SCA_ERR_ARGUMENT. */
sca_status tokenizer_decode(const tokenizer *t, const int *ids, int n, bool with_special, char **text);
/* The same without its end marked: 0 bytes stay, where tokenizer_decode has U+FFFD. */
sca_status tokenizer_decode_bytes(const tokenizer *t, const int *ids, int n, bool with_special, char **text,
                                  size_t *bytes);
int tokenizer_size(const tokenizer *t); /* number of ids, added tokens included */
int tokenizer_bos(const tokenizer *t);  /* -1: none */
int tokenizer_eos(const tokenizer *t);
/* Files of the tokenizer that a model directory needs (names relative to dir), for export; NULL-terminated. */
const char *const *tokenizer_files(const tokenizer *t);
const char *tokenizer_dir(const tokenizer *t); /* where they are; NULL when it came from a GGUF file */
/* Writes the files into the folder `dir`, which exists, each atomically: those it was opened from byte for byte; of one
 * from a GGUF file, such that tokenizer_open gives the same ids and texts. A folder that holds files of another
 * tokenizer: SCA_ERR_ARGUMENT, nothing is written. */
sca_status tokenizer_save(const tokenizer *t, const char *dir);
void tokenizer_close(tokenizer *t);

/* A byte-level BPE vocabulary learnt from texts (tokenizer_learn.c): `size` ids at most, fewer when no pair of
 * neighbours is left that is there twice. */
typedef struct bpe_learner bpe_learner;
sca_status bpe_learner_open(int size, bpe_learner **out);
sca_status bpe_learner_add(bpe_learner *l, const char *text, size_t bytes); /* malformed UTF-8 becomes U+FFFD */
/* Learns, once, and writes vocab.json, merges.txt and tokenizer_config.json into the folder dir, which is made. *size:
 * ids that there are. */
sca_status bpe_learner_save(bpe_learner *l, const char *dir, int *size);
void bpe_learner_close(bpe_learner *l); /* accepts NULL */

/* ---- SAM's image encoder (sam_encoder.c); model.md 2 ------------------------------------------------- */

typedef struct encoder_block {
    norm norm1, norm2;
    linear qkv, proj;
    param rel_h, rel_w; /* (2s-1, D), s = window or grid */
    mlp mlp;
    int window; /* 0: the whole map */
} encoder_block;

typedef struct sam_encoder {
    const sam_config *config;
    param patch_w, patch_b, pos; /* (D,3,p,p) (D) (1,g,g,D) */
    encoder_block *blocks;       /* owned: sam_encoder_free */
    param neck1, neck2;          /* (C,D,1,1) (C,C,3,3) */
    norm neck_norm1, neck_norm2;
} sam_encoder;

sca_status sam_encoder_bind(param_set *s, sam_encoder *m, const sam_config *c);
void sam_encoder_free(sam_encoder *m);
typedef struct encoder_block_kept { /* S = g*g */
    norm_kept norm1, norm2;         /* (S,D) */
    tensor qkv, mixed, lse, h;      /* (S,3D) (S,D) (1,H,g,g) (S,mlp) */
} encoder_block_kept;
typedef struct encoder_kept {
    encoder_block_kept *blocks; /* (layers) owned: sam_encoder_kept_open, _free */
    tensor *inputs;             /* (layers) owned; (S,D) */
    tensor pixels, out, mid;    /* (1,S,S,3); into the neck (S,D); into its second convolution (S,C) */
    norm_kept neck_norm1, neck_norm2;
    bool recompute; /* keep the blocks' inputs alone */
} encoder_kept;
sca_status sam_encoder_kept_open(encoder_kept *k, const sam_encoder *m, bool recompute);
void sam_encoder_kept_free(encoder_kept *k); /* accepts a zeroed one */
/* embedding (g*g,C) from pixels (1,S,S,3), g = S / patch. The parts, for tests and tools: patches give x (g*g,D)
 * without the position table when `positions` is false; a block works in place where y is x and k NULL. */
void sam_encoder_fwd(const pass *p, const sam_encoder *m, tensor embedding, tensor pixels, encoder_kept *k);
void sam_encoder_bwd(const pass *p, const sam_encoder *m, tensor dembedding, encoder_kept *k);
void sam_encoder_patches(const pass *p, const sam_encoder *m, tensor x, tensor pixels, bool positions);
void sam_encoder_layer(const pass *p, const sam_encoder *m, int layer, tensor y, tensor x, encoder_block_kept *k);

/* ---- prompt encoder and mask decoder (sam_decoder.c); model.md 3, 5 ---------------------------------- */

typedef struct prompt_encoder {
    const sam_config *config;
    param gaussian, gaussian_alias;       /* (2,F): shared_image_embedding; its second name */
    param point[4], not_a_point, no_mask; /* (1,C) */
    param conv1_w, conv1_b, conv2_w, conv2_b, conv3_w, conv3_b;
    norm norm1, norm2;
} prompt_encoder;

sca_status prompt_encoder_bind(param_set *s, prompt_encoder *m, const sam_config *c);

enum { TOKEN_NEGATIVE, TOKEN_POSITIVE, TOKEN_CORNER1, TOKEN_CORNER2, TOKEN_PAD, TOKEN_ZERO };
/* One sparse token: a position in the model's image (pixels, without the half pixel) and what it stands for. */
typedef struct prompt_token {
    double x, y;
    int kind;
} prompt_token;

/* pe (g*g,C): position code of the image tokens. */
void prompt_dense_pe(const pass *p, const prompt_encoder *m, tensor pe);
/* sparse (N,n,C) of tokens[N][n]. */
void prompt_sparse_fwd(const pass *p, const prompt_encoder *m, tensor sparse, const prompt_token *tokens);
/* Adds to the embeddings of the kinds. */
void prompt_sparse_bwd(const pass *p, const prompt_encoder *m, tensor dsparse, const prompt_token *tokens);
/* dense (N,g*g,C) from mask logits (N,4g,4g,1). */
void prompt_mask_fwd(const pass *p, const prompt_encoder *m, tensor dense, tensor mask);

enum { HEAD_LAYERS_MOST = 16 };
typedef struct ffn {
    linear layer[HEAD_LAYERS_MOST];
    int layers;
} ffn; /* ReLU between, nothing at the end */

typedef struct mask_decoder {
    const sam_config *config;
    param iou_token, mask_tokens; /* (1,C) (masks,C) */
    twoway transformer;
    param up1_w, up1_b, up2_w, up2_b;
    norm up_norm;
    ffn *hyper; /* (masks), owned: mask_decoder_free */
    ffn iou;
} mask_decoder;

sca_status mask_decoder_bind(param_set *s, mask_decoder *m, const sam_config *c);
void mask_decoder_free(mask_decoder *m);
/* tokens (N,1+masks+n,C): output tokens, then sparse (N,n,C), absent when there is no prompt (quirk Q3). */
void mask_decoder_tokens(const pass *p, const mask_decoder *m, tensor tokens, tensor sparse);
void mask_decoder_tokens_bwd(const pass *p, const mask_decoder *m, tensor dtokens); /* of the output tokens */

typedef struct ffn_kept {
    tensor x[HEAD_LAYERS_MOST]; /* what went into each layer */
} ffn_kept;
typedef struct masks_kept {
    tensor hyper, x; /* (N,masks,C/8) (N,g*g,C) */
    ffn_kept *heads; /* (masks) owned: masks_kept_open, _free */
} masks_kept;
sca_status masks_kept_open(masks_kept *k, const mask_decoder *m);
void masks_kept_free(masks_kept *k); /* accepts a zeroed one */
/* iou (N,masks) and logits (N,masks,4g,4g) of all mask tokens, from the transformer's outputs q (N,T,C), x
 * (N,g*g,C). */
void mask_decoder_iou(const pass *p, const mask_decoder *m, tensor iou, tensor q, ffn_kept *k);
void mask_decoder_masks(const pass *p, const mask_decoder *m, tensor logits, tensor q, tensor x, masks_kept *k);
/* Add to dq; dx is overwritten. */
void mask_decoder_iou_bwd(const pass *p, const mask_decoder *m, tensor dq, tensor diou, const ffn_kept *k);
void mask_decoder_masks_bwd(const pass *p, const mask_decoder *m, tensor dq, tensor dx, tensor dlogits,
                            const masks_kept *k);

/* ---- feature mixer and projection (mixer.c); model.md 6, 7 ------------------------------------------- */

/* What the variants of model.md 12 do differently; V2 is { task, fused }. */
typedef struct mixer_rule {
    bool task;      /* task tokens stand in front */
    bool fused;     /* the region's tokens are SAM's outputs, not its inputs */
    bool per_mask;  /* a group of caption tokens, and a caption, for each of the masks of multimask_output */
    bool masks_ask; /* SAM's mask tokens ask, there are no caption tokens */
    bool raw;       /* only the prompt's tokens, and the image before SAM's transformer */
    bool roi;       /* no mixer: the encoder's output under the box */
} mixer_rule;

enum { PROJECTOR_LAYERS_MOST = 3, PROJECTOR_PRE_NORM = 1, PROJECTOR_POST_NORM = 2 };
typedef struct projector { /* C -> d: one layer, or three with exact GELU between; each with its norm, or none */
    linear layer[PROJECTOR_LAYERS_MOST];
    norm norm[PROJECTOR_LAYERS_MOST];
    int layers, norm_place; /* 0: no norm */
} projector;
typedef struct projector_kept {
    tensor x[PROJECTOR_LAYERS_MOST], h[PROJECTOR_LAYERS_MOST]; /* into each layer; into the GELU behind it */
    norm_kept norm[PROJECTOR_LAYERS_MOST];
} projector_kept;

typedef struct mixer {
    const mixer_rule *rule;
    int heads, tokens, task_tokens; /* captions of a region, tokens of each; task_tokens 0: none */
    int masks, grid;
    param caption_tokens; /* (groups*tokens, C) */
    twoway transformer;
    projector project;
    param task; /* (2*task_tokens, d): recognition, caption */
} mixer;

typedef struct mixer_input {
    tensor tokens, fused; /* (N,T,C): SAM's tokens before and after its transformer */
    tensor sparse;        /* (N,n,C), absent without a prompt */
    tensor x;             /* (N,S,C): image tokens, may repeat over N */
    tensor embedding;     /* (S,C), rule roi: the encoder's output */
    tensor boxes;         /* (N,4) F, rule roi: x1, y1, x2, y2 in pixels of the model's image */
} mixer_input;

/* y (R,d) of x (R,C) */
void projector_fwd(const pass *p, const projector *m, tensor y, tensor x, projector_kept *k);
void projector_bwd(const pass *p, const projector *m, tensor dx, tensor dy, const projector_kept *k);

sca_status mixer_bind(param_set *s, mixer *m, const model_config *c);
void mixer_free(mixer *m);
/* out (N, heads*tokens, C); y (N,S,C): the image tokens afterwards, may be in->x when that does not repeat and there is
 * no k. */
void mixer_fwd(const pass *p, const mixer *m, tensor out, tensor y, const mixer_input *in, tensor pe,
               twoway_kept *k);
/* din: the gradients of in, whole; an absent one is not computed. x: (N,S,C), also where in->x repeats. */
void mixer_bwd(const pass *p, const mixer *m, const mixer_input *din, tensor dout, const mixer_input *in,
               const twoway_kept *k);
/* The same with all token outputs (N, mixer_token_count, C). */
void mixer_tokens_fwd(const pass *p, const mixer *m, tensor all, tensor y, const mixer_input *in, tensor pe,
                      twoway_kept *k);
int64_t mixer_token_count(const mixer *m, const mixer_input *in);

/* ---- language model (lm.c); model.md 8 --------------------------------------------------------------- */

typedef struct lm_block {
    norm norm1, norm2;
    linear qkv, out, up, down; /* GPT-2 */
    linear q, k, v, gate;      /* LLaMA, with out, up, down */
} lm_block;

typedef struct lm {
    const lm_config *config;
    param embedding, positions, head; /* (V,d) (n_positions,d) (V,d) */
    lm_block *blocks;                 /* owned: lm_free */
    norm norm_final;
} lm;

sca_status lm_bind(param_set *s, lm *m, const lm_config *c);
void lm_free(lm *m);

/* Keys and values of all layers: row r, position t. A sequence may read positions from the rows of others. */
typedef struct lm_cache {
    tensor k, v; /* (layers, rows, T, G*D) */
} lm_cache;
lm_cache lm_cache_new(const pass *p, const lm *m, int64_t rows, int64_t T);

/* Hidden states after the last norm, h (B,T,d), in place of input embeddings h (before GPT-2's positions are
 * added). The tokens stand at positions first .. first+T-1. Sequence b writes its keys to cache row b*row_step and
 * reads position s from row index[b,s], index (B, first+T) I32. */
void lm_fwd(const pass *p, const lm *m, tensor h, int64_t first, const lm_cache *cache, int64_t row_step,
            tensor index);
/* The same for one token of each sequence, h (B,1,d), at the positions at (B) I32; the keys end where index (B,keys) I32
 * says -1. Nothing that changes from step to step is an argument: all of it is in the device's memory. */
void lm_step(const pass *p, const lm *m, tensor h, tensor at, const lm_cache *cache, tensor index);
void lm_embed(const pass *p, const lm *m, tensor y, tensor ids);     /* (R,d) of ids (R) */
void lm_logits(const pass *p, const lm *m, tensor logits, tensor h); /* (R,V) of h (R,d) */

/* The places of whole sequences that matter. The others stand behind all of their sequence that do: nobody sees them. */
typedef struct lm_rows {
    tensor pack;           /* (R) I32: the place in B*T of each row */
    tensor spread;         /* (B*T) I32: the row of each place, 0 of those left out */
    tensor spread_or_zero; /* the same, R of those left out: a row of zeros behind the others */
} lm_rows;
typedef struct lm_block_kept { /* R rows: B*T, or those of lm_rows */
    norm_kept norm1, norm2;    /* (R,d) */
    tensor part[3];            /* query, key, value: (R,H*D) (R,G*D) (R,G*D), rotated where all rows are there */
    tensor mixed, lse;         /* (R,H*D) (B,H,T) */
    tensor h, up;              /* (R,mlp): before the activation or the gate; up: LLaMA */
} lm_block_kept;
typedef struct lm_kept {
    lm_block_kept *blocks; /* (layers) owned: lm_kept_open, _free */
    tensor *inputs;        /* (layers) owned; (R,d) */
    norm_kept norm_final;
    bool recompute; /* keep the blocks' inputs alone: their insides are computed again in backward */
    bool drop;      /* GPT-2's dropout, from the numbers of key */
    uint64_t key;
} lm_kept;
sca_status lm_kept_open(lm_kept *k, const lm *m, bool recompute);
void lm_kept_free(lm_kept *k); /* accepts a zeroed one */
/* Whole sequences from their input embeddings h (B,T,d), which get the positions added: y (R,d) after the last norm, the
 * rows that are asked for. rows NULL: all, R = B*T. */
void lm_whole_fwd(const pass *p, const lm *m, tensor y, tensor h, const lm_rows *rows, lm_kept *k);
/* dh (B,T,d) from dy (R,d), which differs from it. */
void lm_whole_bwd(const pass *p, const lm *m, tensor dh, tensor dy, const lm_rows *rows, lm_kept *k);
void lm_embed_bwd(const pass *p, const lm *m, tensor dy, tensor ids);
void lm_logits_bwd(const pass *p, const lm *m, tensor dh, tensor dlogits, tensor h);

/* ---- generation (generate.c); eval.md 2 -------------------------------------------------------------- */

typedef struct generate_options {
    int beams, max_tokens, top_k;
    double length_penalty, temperature, top_p;
    uint64_t seed;
} generate_options;

typedef struct generated {
    int *tokens; /* owned: mem_free; EOS included, without the borrowed BOS */
    int n;
    double logprob; /* sum over tokens */
    double score;   /* beam search: logprob / length^penalty */
} generated;

/* out[0..N): one text for each prefix. task (t,d) stands before all of them, soft (N,q,d) is each one's own.
 * first_stream: number of the first sequence, for the random numbers of sampling. */
sca_status generate(const pass *p, const lm *m, tensor task, tensor soft, const generate_options *o,
                    int64_t first_stream, generated *out);

/* ---- the whole model (model.c, load.c) --------------------------------------------------------------- */

typedef struct net { /* parameters of one model on one device */
    sam_encoder encoder;
    prompt_encoder prompt;
    mask_decoder decoder;
    mixer mixer;
    lm lm;
    param_set params;
} net;

sca_status net_bind(net *n, const model_config *c);
void net_free(net *n);
/* Room for what goes through the decoder of N regions with n sparse tokens each. */
mixer_input decoded_new(const pass *to, const sam_config *c, int64_t N, int64_t n);
/* Fills it from the prompt tokens list[N][n] and the image tokens x (N,S,C), which may be out->x without k. */
void decode_tokens(const pass *p, const net *m, const mixer_input *out, const prompt_token *list, tensor x,
                   tensor pe, twoway_kept *k);

typedef struct model model;
/* Opens the device and the weights of the settings. Only model, run, generate and train.seed are read. */
sca_status model_open(const config *c, model **out);
void model_close(model *m);
const model_config *model_sizes(const model *m);
const tokenizer *model_tokenizer(const model *m); /* NULL: none, captions are ids */
/* Label smoothing as asked, but none in the classes without task tokens (model.md 12). */
double model_smoothing(const model *m, double asked);
int model_heads(const model *m); /* captions of a region */
generate_options *model_generation(model *m);
const net *model_net(const model *m); /* on model_device: for who times or looks at a part alone */
dev *model_device(const model *m);
/* Sampled texts follow from generate.seed and their number; the next one gets this number (else they are counted). */
void model_streams(model *m, int64_t next);
void model_generation_from(const config *c, generate_options *o); /* section `generate` of the settings */
/* As architecture.md 3.12: {"model", "parts": [{"name", "parameters", "trained"}], "total", "trained", "sizes"}. */
sca_status model_info(const config *c, str *json);
/* {"arenas": [{"name", "bytes"}], "total_bytes"}: weights, scene, temp for `regions` regions, from the null device.
 */
sca_status model_plan(const config *c, int regions, str *json);
/* directory (config.json, model.safetensors, tokenizer files) or one .safetensors file; type DT_NONE: as stored. */
sca_status model_export(const model *m, const char *path, dtype type, bool trained_only);
/* What tells one image encoder from another: a number of its weights' values, as text. */
sca_status model_encoder_key(const model *m, char key[17]);

typedef struct scene scene;
/* pixels (S,S,3) float32 normalised and padded, valid (height, width) of them. */
sca_status scene_open(model *m, const float *pixels, int valid_width, int valid_height, int original_width,
                      int original_height, scene **out);
void scene_close(scene *s); /* accepts NULL */

typedef struct region_result { /* what scene_describe gives for one region; members not asked for stay empty */
    float *iou;                /* (n_iou), owned: region_result_free */
    int n_iou, best;
    uint8_t *mask;        /* (original_height, original_width), 0 or 1; owned */
    char **text;          /* (heads) owned, with their strings */
    generated *generated; /* (heads) owned */
    int heads;
    /* for tests: filled when asked */
    float *logits;         /* (n_iou, 4g, 4g) owned */
    float *mixed, *prefix; /* (heads*tokens, C), (heads, task+tokens, d) owned */
} region_result;

typedef struct describe_options {
    bool masks, captions, single; /* single: multimask_output false */
    bool keep;                    /* fill logits, mixed, prefix */
    bool recognition;             /* the task tokens of recognition */
} describe_options;

/* results: n, zeroed by the caller; released by region_result_free also after a failure. */
sca_status scene_describe(scene *s, const sca_prompt *regions, int n, const describe_options *o,
                          region_result *results);
void region_result_free(region_result *r, int n);
int scene_mask_side(const scene *s);

/* Teacher forcing: logits (n*heads, L+1, V) float32 of the last L+1 positions for labels ids (n,L), right-padded by any
 * id; for the caption task or recognition. Caller's memory. */
sca_status scene_logits(scene *s, const sca_prompt *regions, int n, bool recognition, const int *ids, int L,
                        float *logits);

/* The encoder's output (g*g, C) of this scene, float32. Caller's memory. */
sca_status scene_embedding(const scene *s, float *out);

/* ---- training (training.c); model.md 9, training.md ---------------------------------------------------- */

typedef struct training training;

/* One batch of one rank, plain arrays of the host, the caller's. Every image has the same number of regions. */
typedef struct training_input {
    int images, regions;    /* B, m: both at least 1 */
    const float *pixels;    /* (B,S,S,3) normalised and padded; or NULL, then: */
    const void *embeddings; /* (B,g*g,C) what the frozen encoder makes of them (scene_embedding) ... */
    dtype stored;           /* ... as F32, F16 or BF16 */
    /* Prompts in pixels of the model's image, box first or points first does not matter (model.md 3). */
    const double *boxes;        /* (B,m,4) x1, y1, x2, y2; NULL: points alone */
    const double *points;       /* (B,m,n_points,2) x, y; NULL when n_points is 0 */
    const int32_t *point_kinds; /* (B,m,n_points) labels 1, 0, -1 or -10 */
    int n_points;
    /* Captions as the collator gives them (model.md 9). Objective text: boxes are not read; what stands at position
     * k of ids predicts labels[k+2]. */
    const int32_t *ids;      /* (B,m,L) right-padded with any id of the vocabulary */
    const int32_t *labels;   /* (B,m,L+1): -100 (not a target), then the ids, -100 where padded */
    int length;              /* L */
    const bool *recognition; /* (B) task tokens of recognition instead of caption; NULL: none */
    const uint8_t *masks;    /* objective mask: (B,m,4g,4g) 0 or 1, over the whole model image */
    /* Where the numbers of dropout come from; batch: number of this batch in its step, over all ranks. */
    uint64_t seed;
    int64_t step, batch;
} training_input;

typedef struct training_result {
    double loss;             /* mean over the targets, not weighted */
    int64_t targets;         /* tokens that are predicted (times heads); objective mask: regions. 0: loss is 0 */
    double focal, dice, iou; /* objective mask: means of the chosen masks, iou that of the chosen mask */
    double restore;          /* with train.restore: mean squared error of colours and edges in the embedding */
} training_result;

/* One trained parameter. Entries are sorted by (rate, decay), so that each kind is one run of the ranges. */
typedef struct training_entry {
    const char *name;      /* official; the model's */
    int64_t offset, count; /* where it lies in the ranges, in elements */
    bool decay;            /* weight decay applies: neither a bias nor an nn.LayerNorm or RMSNorm (training.md 1) */
    int rate;              /* index into train.lr_overrides, whose key is a part of the name; -1: train.lr */
} training_entry;

/* Makes the parameters of train.trainable (prefixes of official names; empty: the published set, of objective mask
 * SAM's parts, of text the language model) trainable: their values become float32 (float64 on ref) in one range of
 * the model, their gradients another. Reads the section train; the rest of the model stays as it is. A prefix that
 * fits nothing, a name that two lr_overrides fit: SCA_ERR_ARGUMENT with the name. One training per model at a time.
 */
sca_status training_open(model *m, const config *c, training **out);
void training_close(training *t); /* before the model, which keeps the trained values; accepts NULL */

const training_entry *training_entries(const training *t, size_t *n);
dev *training_device(const training *t);
/* (n) float32, float64 on ref; what lies between entries (up to 64 bytes) is always 0. Gradients begin as 0. */
tensor training_values(const training *t);
tensor training_gradients(const training *t);

/* Forward and backward: adds scale * d(loss)/d(value) to the gradients. The mean over a batch's own targets has
 * that weight, however many they are: give 1 / (ranks * accumulate) (times the loss scale). train.lm_dropout is
 * active. Input that does not fit the model: SCA_ERR_ARGUMENT, nothing is added. A loss that is not finite is no
 * error. */
sca_status training_batch(training *t, const training_input *in, double scale, training_result *out);
/* The loss alone, without dropout. */
sca_status training_loss(training *t, const training_input *in, training_result *out);

/* Trained values from a model directory or file (a checkpoint that model_export wrote); a missing or misshapen one is
 * an error. model_export writes trained values as they are now, as F32 when its type is DT_NONE. */
sca_status training_load(training *t, const char *path);

/* {"arenas": [{"name", "bytes"}], "total_bytes"}: memory of training_batch on inputs of this shape (only counts and
 * which pointers are given matter), without opening the weights' values: from the null device. */
sca_status training_plan(const config *c, const training_input *shape, str *json);

#endif
