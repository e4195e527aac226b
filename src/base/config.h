/* config.h - the table of settings, shared by config.c (reading) and config_text.c (assignments and output). */
#ifndef SCA_CONFIG_H
#define SCA_CONFIG_H

#include "base/yaml.h"

typedef enum kind {
    KIND_INT,
    KIND_REAL,
    KIND_BOOL,
    KIND_TEXT,
    KIND_ENUM,
    KIND_NAMES,
    KIND_RATES,
    KIND_REALS,
    KIND_DATASETS
} kind;

typedef struct setting {
    kind kind;
    const char *key, *section, *name, *value, *help; /* key: "train.lr"; value: the default as text */
    size_t offset;               /* of the value, or of the pointer to the items                        */
    size_t count;                /* NAMES, RATES, DATASETS: offset of the number; REALS: the number     */
    size_t keys;                 /* RATES: offset of the pointer to the names                           */
    double least, most;          /* REAL */
    int64_t least_int, most_int; /* INT */
    const char *choices;         /* ENUM: "a|b|c" */
} setting;

extern const setting config_settings[];
extern const size_t config_n_settings;

/* The text members of a data set; weight is the number beside them. */
typedef struct config_field {
    const char *name;
    size_t offset, bytes;
} config_field;
extern const config_field config_fields[];
extern const size_t config_n_fields;

/* Checks v and stores it; on failure the setting stays as it was. */
sca_status config_put(config *c, const setting *s, const yaml_value *v);
sca_status config_unknown_key(const char *key);

#endif
