/* sets.h - what tests of data sets share: settings of a set, and paths in the folder of a test. */
#ifndef SETS_H
#define SETS_H

#include "base/base.h"

#include <stdio.h>

static inline config_dataset set_of(const char *kind, const char *annotations, const char *images,
                                    const char *split)
{
    config_dataset set = { 0 };
    snprintf(set.kind, sizeof set.kind, "%s", kind);
    snprintf(set.annotations, sizeof set.annotations, "%s", annotations);
    snprintf(set.images, sizeof set.images, "%s", images);
    snprintf(set.split, sizeof set.split, "%s", split);
    return set;
}

/* folder/name, valid until the eighth call from here. */
static inline const char *made_path(const char *folder, const char *name)
{
    static char path[8][600];
    static unsigned next;
    char *p = path[next++ % 8];
    snprintf(p, sizeof path[0], "%s/%s", folder, name);
    return p;
}

#endif
