/* yaml.h - a YAML document as a tree, for config.c. */
#ifndef SCA_YAML_H
#define SCA_YAML_H

#include "base/base.h"

typedef enum yaml_type { YAML_SCALAR, YAML_LIST, YAML_MAP } yaml_type;

typedef struct yaml_value yaml_value;
typedef struct yaml_item {
    char *key; /* of a MAP, else NULL */
    size_t line;
    yaml_value *value;
} yaml_item;

struct yaml_value {
    yaml_type type;
    bool plain;       /* SCALAR without quotes: may be a number or null */
    char *text;       /* SCALAR */
    yaml_item *items; /* LIST, MAP (keys are unique) */
    size_t count, cap, line;
    yaml_value *next; /* of all the values that a tree owns */
};

/* Owns every value; an alias makes one value appear in several places, so nothing grows with the number of uses. */
typedef struct yaml_tree {
    yaml_value *root; /* NULL: an empty document */
    yaml_value *owned;
} yaml_tree;

/* One document. Refused: tags, keys that are no scalars, repeated keys, more than YAML_DEPTH levels, a 0 character.
 * Messages begin with "NAME: line N". The caller frees *out, also after an error. */
enum { YAML_DEPTH = 32 };
sca_status yaml_tree_read(const char *text, size_t bytes, const char *name, yaml_tree *out);
void yaml_tree_free(yaml_tree *t);

/* Appends text as a scalar that reads back as exactly this text: plain where it can be, else in double quotes. */
void yaml_put_text(str *s, const char *text);
void yaml_put_real(str *s, double value); /* with a point, as YAML 1.1 readers expect of reals */

#endif
