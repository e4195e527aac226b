/* param.c - the registry: every parameter once, with name, shape, kind and initialisation. */
#include "nn/nn.h"

#include <stdio.h>
#include <string.h>

static bool set_grow(param_set *s)
{
    if (s->n < s->cap) return true;
    size_t cap = s->cap ? 2 * s->cap : 256;
    param_entry *p = mem_resize(s->entries, cap * sizeof *p);
    if (!p) return false;
    s->entries = p;
    s->cap = cap;
    return true;
}

void param_add(param_set *s, param *p, param_kind kind, init_rule init, int ndim, const int64_t *dim,
               const char *format, ...)
{
    char name[256];
    va_list args;
    va_start(args, format);
    int bytes = vsnprintf(name, sizeof name, format, args);
    va_end(args);
    ASSERT(bytes > 0 && (size_t)bytes < sizeof name);
    *p = (param){ tensor_none(), tensor_none() };
    char *copy = s->failed || !set_grow(s) ? NULL : text_copy(name, (size_t)bytes);
    if (!copy) {
        s->failed = true;
        return;
    }
    param_entry *e = &s->entries[s->n++];
    *e = (param_entry){ .name = copy, .p = p, .kind = kind, .init = init, .ndim = ndim };
    for (int i = 0; i < ndim; i++) e->dim[i] = dim[i];
}

void param_alias(param_set *s, const char *name)
{
    const param_entry *other = param_find(s, name);
    if (s->failed) return;
    ASSERT(other != NULL && other != &s->entries[s->n - 1]);
    s->entries[s->n - 1].alias = other->name;
}

const param_entry *param_find(const param_set *s, const char *name)
{
    for (size_t i = 0; i < s->n; i++)
        if (strcmp(s->entries[i].name, name) == 0) return &s->entries[i];
    return NULL;
}

int64_t param_count(const param_entry *e)
{
    int64_t count = 1;
    for (int i = 0; i < e->ndim; i++) count *= e->dim[i];
    return count;
}

void param_set_free(param_set *s)
{
    for (size_t i = 0; i < s->n; i++) mem_free(s->entries[i].name);
    mem_free(s->entries);
    *s = (param_set){ 0 };
}
