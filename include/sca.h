/* sca.h - segment and caption regions of an image ("Segment and Caption Anything", arXiv 2312.00869).
 *
 * Plain C, safe to include from C++. Global are one message per thread, the sinks and the ranks. A model is used by one
 * thread at a time; different models are independent. Close scenes and trainers before their model.
 *
 *     sca_config *config = NULL;  sca_model *model = NULL;  sca_scene *scene = NULL;
 *     sca_image photo = {0};      sca_text text = {0};
 *     float box[4] = { 10, 20, 200, 180 };
 *     sca_prompt prompt = { .box_px = box };
 *     if (sca_config_open(NULL, &config) || sca_config_set(config, "model.path=models/sca") ||
 *         sca_model_open(config, &model) || sca_image_read("photo.jpg", &photo) ||
 *         sca_encode(model, &photo, &scene) || sca_caption(scene, &prompt, 1, &text))
 *         fprintf(stderr, "%s\n", sca_last_error());
 */
#ifndef SCA_H
#define SCA_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define SCA_VERSION "0.1.0"

#if defined(__GNUC__)
#define SCA_API __attribute__((visibility("default")))
#else
#define SCA_API
#endif

/* ---- status ---------------------------------------------------------------------------------- */

typedef enum sca_status {
    SCA_OK,
    SCA_ERR_ARGUMENT,    /* a value the caller chose is wrong                      */
    SCA_ERR_MEMORY,      /* an allocation failed                                   */
    SCA_ERR_IO,          /* a file cannot be opened, read or written               */
    SCA_ERR_FORMAT,      /* a file breaks its format                               */
    SCA_ERR_DEVICE,      /* the device is absent or failed                         */
    SCA_ERR_UNSUPPORTED, /* right in itself, but not built in or not implemented   */
    SCA_ERR_STATE,       /* calls in the wrong order                               */
    SCA_ERR_COMM         /* another rank failed                                    */
} sca_status;

SCA_API const char *sca_status_name(sca_status s); /* "SCA_ERR_FORMAT"; never NULL                */
SCA_API const char *sca_last_error(void);          /* this thread's latest failure, in words      */
SCA_API void sca_free(void *text);                 /* releases any char * result of this header   */

/* ---- sinks: the library itself never prints ----------------------------------------------------- */

typedef enum sca_level { SCA_LOG_DEBUG, SCA_LOG_INFO, SCA_LOG_WARN, SCA_LOG_ERROR } sca_level;
typedef void sca_log_fn(void *user, sca_level level, const char *message); /* message: one line, no newline */
/* Sends messages of at least `least` to fn (NULL: nowhere, the default). Process-wide; fn may be called from any thread. */
SCA_API void sca_log_to(sca_log_fn *fn, void *user, sca_level least);

/* Work that takes time reports `done` of `total` units of `what` ("encode photo.jpg"); done == total ends it. */
typedef void sca_progress_fn(void *user, const char *what, int64_t done, int64_t total);
SCA_API void sca_progress_to(sca_progress_fn *fn, void *user);

/* ---- settings ----------------------------------------------------------------------------------- */

typedef struct sca_config sca_config;

/* Defaults, then the YAML file (NULL: none). The caller closes *out. */
SCA_API sca_status sca_config_open(const char *yaml_or_null, sca_config **out);
SCA_API sca_status sca_config_set(sca_config *c, const char *assignment);              /* "train.lr=1e-4" */
SCA_API sca_status sca_config_get(const sca_config *c, const char *key, char **value); /* as text; sca_free */
SCA_API sca_status sca_config_write(const sca_config *c, const char *path); /* the resolved settings as YAML */
SCA_API sca_status sca_config_help(char **text); /* every key, type, default and help line */
SCA_API void sca_config_close(sca_config *c);

/* ---- models ------------------------------------------------------------------------------------- */

typedef struct sca_model sca_model;

/* Loads model.path, or assembles a fresh model from model.sam and model.lm, on run.device. */
SCA_API sca_status sca_model_open(const sca_config *c, sca_model **out);
/* Changes a setting of section `generate` for later calls, e.g. "generate.beams=3". */
SCA_API sca_status sca_model_set(sca_model *m, const char *assignment);
/* A complete model directory at `path` (config.json, model.safetensors, tokenizer files). */
SCA_API sca_status sca_model_save(const sca_model *m, const char *path);
/* `path` ending in .safetensors: one file; otherwise a directory. dtype "f32", "f16", "bf16"; NULL: as stored. */
SCA_API sca_status sca_model_export(const sca_model *m, const char *path, const char *dtype, int trained_only);
SCA_API int sca_model_heads(const sca_model *m); /* captions per region: 1, older variants 3 */
SCA_API void sca_model_close(sca_model *m);

SCA_API sca_status sca_build_info(char **json); /* version, devices, libraries found at build time */
/* Sizes and parameter table of model.path; nothing but headers is read. */
SCA_API sca_status sca_model_info(const sca_config *c, char **json);
/* Memory of encoding one image and captioning `regions` regions, from the null device: nothing is allocated. */
SCA_API sca_status sca_plan(const sca_config *c, int regions, char **json);

/* ---- images -------------------------------------------------------------------------------------- */

typedef struct sca_image {
    int width, height;
    uint8_t *rgb; /* (height, width, 3), rows packed; owned, released by sca_image_free */
} sca_image;

typedef struct sca_image_options {
    int honour_exif;    /* 1: rotate as EXIF says; 0: ignore it, as the official loader does */
    int64_t max_pixels; /* refuse larger images; 0: 200 million                              */
} sca_image_options;

/* JPEG, PNG or PPM by content. Options may be NULL. Damaged but readable data is an error. */
SCA_API sca_status sca_image_read(const char *path, sca_image *out);
SCA_API sca_status sca_image_read_with(const char *path, const sca_image_options *o, sca_image *out);
SCA_API sca_status sca_image_decode(const void *bytes, size_t n, sca_image *out);
SCA_API void sca_image_free(sca_image *image);

/* ---- regions ------------------------------------------------------------------------------------- */

typedef struct sca_scene sca_scene; /* one encoded image */

SCA_API sca_status sca_encode(sca_model *m, const sca_image *image, sca_scene **out);
SCA_API void sca_scene_close(sca_scene *s);
/* Side of the mask input of this scene's model: masks are (side, side) logits, side = 4 * image grid. */
SCA_API int sca_scene_mask_side(const sca_scene *s);

typedef struct sca_point {
    double x_px, y_px; /* in pixels of the original image, used as given                       */
    int label;         /* 1 inside, 0 outside; -1 padding point, -10 zero token (model.md 3)   */
} sca_point;

typedef struct sca_prompt {
    const sca_point *points;
    int n_points;
    const float *box_px; /* x1, y1, x2, y2 or NULL                              */
    const float *mask;   /* (side, side) logits or NULL; all absent: SAM's "no prompt" */
} sca_prompt;

typedef struct sca_mask { /* the best of n_iou masks, at original size */
    int width, height;
    uint8_t *on;     /* (height, width), 1 inside                          */
    float box_px[4]; /* x1, y1, x2, y2 of the mask, x2, y2 exclusive; 0 when empty */
    float *iou;      /* (n_iou) predicted IoU, in mask order               */
    int n_iou, best;
} sca_mask;

typedef struct sca_text {
    char *text;  /* UTF-8                                        */
    int *tokens; /* generated ids, EOS included                  */
    int n_tokens;
    float logprob; /* natural log, summed over tokens              */
} sca_text;

SCA_API sca_status sca_segment(sca_scene *s, const sca_prompt *p, int n, sca_mask *out); /* n results */
SCA_API sca_status sca_caption(sca_scene *s, const sca_prompt *p, int n,
                               sca_text *out); /* n * sca_model_heads(m) results, region-major */
/* Both at once, at the cost of one pass through the decoder. */
SCA_API sca_status sca_describe(sca_scene *s, const sca_prompt *p, int n, sca_mask *masks, sca_text *texts);
SCA_API void sca_mask_free(sca_mask *m, int n); /* frees what the n elements own, not the array */
SCA_API void sca_text_free(sca_text *t, int n);
/* COCO run-length encoding as pycocotools compresses it; *counts is released with sca_free. */
SCA_API sca_status sca_mask_rle(const sca_mask *m, char **counts);
/* Fits a mask picture (values from 128 on inside) to the scene's mask input: nearest pixel, scaled and padded like
 * the image, logits +10 inside and -10 elsewhere. `gray` is (height, width). out: (side, side), caller's. */
SCA_API sca_status sca_mask_prompt(const sca_scene *s, const uint8_t *gray, int width, int height, float *out);
/* The same from a file: a PNG of the image's size, or a safetensors file whose tensor `mask_input` is taken as it is. */
SCA_API sca_status sca_mask_prompt_read(const sca_scene *s, const char *path, float *out);

/* ---- evaluation ---------------------------------------------------------------------------------- */

/* Joins the processes that a launcher such as mpirun started, this one among them; before anything that is shared out.
 * Without it a process works alone. Once per process. */
SCA_API sca_status sca_ranks_open(void);
/* The number of this process, from 0, and how many there are. Pointers may be NULL. */
SCA_API void sca_rank(int *rank, int *size);
/* failed: this process gives up; the launcher then ends the others. */
SCA_API void sca_ranks_close(int failed);

/* Generates captions for the regions of every set of data.eval and scores them; writes scores.json and, in a folder per
 * set, predictions.json, scored.json and details.json (what a report shows) to eval.output. Goes on where an
 * interrupted call with the same settings stopped. Called by every rank; *scores is the text of scores.json at rank 0
 * (sca_free), NULL elsewhere. */
SCA_API sca_status sca_evaluate(sca_model *m, const sca_config *c, char **scores);

/* ---- training ------------------------------------------------------------------------------------ */

typedef struct sca_trainer sca_trainer;

typedef struct sca_step {         /* an optimizer step, over all ranks */
    int64_t step, steps;          /* which one, from 1, of how many */
    double loss;                  /* before the update */
    double lr, grad_norm;         /* rate of the update; global norm of the gradient before clipping */
    double seconds, data_seconds; /* the second: waiting for data */
    int64_t images, regions, tokens;
    int skipped; /* 1: the loss or the gradient was not finite, nothing was updated */
} sca_step;

typedef struct sca_train_hooks { /* members may be NULL */
    void *user;
    void (*stepped)(void *user, const sca_step *s);
    int (*stop)(void *user); /* not 0: save, and come back; asked between steps and between evaluated images */
} sca_train_hooks;

/* Trains m, in place, as the settings say; with a run directory (train.output) goes on from its newest checkpoint
 * (train.resume). Called by every rank, as what follows. m and its settings must outlive the trainer. */
SCA_API sca_status sca_trainer_open(sca_model *m, const sca_config *c, sca_trainer **out);
/* The next step, with the next batches of the data. */
SCA_API sca_status sca_train_step(sca_trainer *t, sca_step *out);
/* The rest of the steps, with the checkpoints and evaluations of the settings. *complete: 0 when stopped. NULL: none. */
SCA_API sca_status sca_train(sca_trainer *t, const sca_train_hooks *hooks, int *complete);
/* A checkpoint: a model directory with the state of the trainer, for train.resume. dir must not be there. */
SCA_API sca_status sca_trainer_save(sca_trainer *t, const char *dir);
SCA_API int64_t sca_trainer_done(const sca_trainer *t);    /* steps */
SCA_API int64_t sca_trainer_skipped(const sca_trainer *t); /* of these, without a finite loss or gradient */
SCA_API void sca_trainer_close(sca_trainer *t);            /* accepts NULL */

/* ---- scores -------------------------------------------------------------------------------------- */

typedef struct sca_score_options {
    const char *results;       /* official inference file (JSON list or JSON Lines), or COCO results           */
    const char *references;    /* COCO captions file, for COCO results; else NULL                              */
    const char *split;         /* of inference records; NULL: "inference"; "": all                             */
    const char *tokenizer;     /* "ptb-3.6.0", "ptb-3.4.1"; NULL: that of the reference program for the file   */
    const char *resources;     /* folder of METEOR's tables; NULL: no METEOR                                   */
    const char *tags;          /* file of tagged tokens; NULL: no recall                                       */
    const char *spice_tuples;  /* file of tuples, or                                                           */
    const char *spice_command; /* the command that computes SPICE; both NULL: no SPICE                         */
    const char *format;        /* "text", "json", "markdown"; NULL: text                                       */
    int per_item;              /* json: with the scores of every item                                          */
    int partial;               /* leave out what cannot be scored, and say so                                  */
    int threads;               /* 0 or 1: the calling one                                                      */
} sca_score_options;

/* Caption metrics of a file of predictions. *notes: lines that say what is absent from the scores, and why; "" if
 * nothing is. Both are released with sca_free; NULL on failure. */
SCA_API sca_status sca_score(const sca_score_options *o, char **scores, char **notes);

typedef struct sca_prepare_options {
    const char *kind;        /* "meteor": METEOR's word lists, synonyms and paraphrases; else a kind of data set */
    const char *annotations; /* folder or file that it is made from                                              */
    const char *to;          /* the file to write                                                                */
    /* A data set becomes a store (HDF5) that training and evaluation read as kind `store`: */
    const char *images;       /* folder                                                                 */
    const char *split, *task; /* NULL: train, caption                                                   */
    int pack;                 /* the image files, too                                                   */
    const char *embeddings;   /* "f16", "f32": image embeddings of `model`, too; NULL: none             */
    sca_model *model;
    const sca_config *config; /* run.exif, run.max_pixels, run.threads; NULL: the defaults              */
    int phrases;              /* nothing but the phrases, to a text of JSON Lines {"text": ...}         */
    char **table;             /* counts of what is there and what was left out, for people; sca_free    */
} sca_prepare_options;

/* Makes one file that is quick to open from files in formats of others. Called by every rank; an interrupted data set
 * goes on from the part files beside `to`. */
SCA_API sca_status sca_prepare(const sca_prepare_options *o);

/* ---- tokenizers ---------------------------------------------------------------------------------- */

typedef struct sca_tokenizer sca_tokenizer;

SCA_API sca_status sca_tokenizer_open(const char *dir, sca_tokenizer **out); /* needs only the tokenizer files */
/* train: cut and end as in training (data.md 5). *ids is released with sca_free. */
SCA_API sca_status sca_tokenizer_encode(const sca_tokenizer *t, const char *text, size_t bytes, int train,
                                        int **ids, int *n);
SCA_API sca_status sca_tokenizer_decode(const sca_tokenizer *t, const int *ids, int n, int with_special,
                                        char **text);
/* The same with its length: 0 bytes stay in the text, where sca_tokenizer_decode has U+FFFD. */
SCA_API sca_status sca_tokenizer_decode_bytes(const sca_tokenizer *t, const int *ids, int n, int with_special,
                                              char **text, size_t *bytes);
SCA_API void sca_tokenizer_close(sca_tokenizer *t);

/* A byte-level BPE vocabulary (GPT-2's alphabet and splits) learnt from texts: at most `size` tokens, the 256 bytes and
 * <|endoftext|> included. save learns and writes vocab.json, merges.txt and tokenizer_config.json into the folder dir,
 * which is made if absent; *tokens: how many there are. */
typedef struct sca_vocabulary sca_vocabulary;
SCA_API sca_status sca_vocabulary_open(int size, sca_vocabulary **out);
SCA_API sca_status sca_vocabulary_add(sca_vocabulary *v, const char *text, size_t bytes);
SCA_API sca_status sca_vocabulary_save(sca_vocabulary *v, const char *dir, int *tokens);
SCA_API void sca_vocabulary_close(sca_vocabulary *v); /* accepts NULL */

#ifdef __cplusplus
}
#endif
#endif
