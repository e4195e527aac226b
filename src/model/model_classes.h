/* model_classes.h - the official configuration classes; private to model_config.c, model_classes.c, model_fresh.c,
 * gguf.c. */
#ifndef MODEL_CLASSES_H
#define MODEL_CLASSES_H

#include "model/model.h"

typedef enum config_class {
    CLASS_SCA,
    CLASS_VISION,
    CLASS_PROMPT,
    CLASS_DECODER,
    CLASS_GPT2,
    CLASS_LLAMA,
    CLASS_MISTRAL
} config_class;

/* Every key of the class with its default, the members of `given` (an object, or NULL) on top, keys in alphabetical
 * order as the official writer puts them. A new reference. */
sca_status class_complete(config_class c, const json_t *given, json_t **out);
/* A copy of an object (one level) with its keys in alphabetical order. */
sca_status json_sorted(const json_t *object, json_t **out);
/* The class of a language model's configuration, by its model_type (absent: GPT-2, as the official class). */
sca_status class_of_text(const json_t *text, const char *file, config_class *out);

/* Fills everything but json, preprocessor and generation from a complete or partial ScaConfig; `file` for messages.
 */
sca_status model_config_parse(const json_t *root, const char *file, model_config *out);
/* The language model alone. */
sca_status lm_config_parse(const json_t *text, const char *file, lm_config *out);
/* Special ids from generation_config.json: its members count before those of the text config. */
sca_status lm_config_ids(const json_t *generation, const char *file, lm_config *c);
/* preprocessor_config.json of an image side; new reference. */
sca_status preprocessor_make(int image, json_t **out);
/* Mean and deviation of m from its preprocessor_config.json, whose sizes must be those of the model. */
sca_status preprocessor_parse(const json_t *p, const char *file, model_config *m);

#endif
