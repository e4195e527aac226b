/* record.cpp - launches that are kept instead of run, and run later as often as wanted: what CUDA graphs are on a GPU. */
#include "cuda/simt/inside.h"

#include <stdio.h>
#include <stdlib.h>

struct recorded {
    const char *name; /* a literal of the launch */
    dim3 grid, block;
    size_t dynamic_bytes, context_bytes;
    simt_body *body;
    char *context; /* the arguments, as they were at the launch */
};

struct simt_recording {
    recorded *launches;
    size_t n, cap;
    bool failed; /* memory was out */
};

static thread_local char failing[64]; /* simt_fail_kernel */
static thread_local bool late, crashed;
static thread_local simt_recording *recording; /* of this thread; NULL: launches run */

static bool keep(simt_recording *r, const recorded *l, const void *context)
{
    if (r->n == r->cap) {
        size_t cap = r->cap ? 2 * r->cap : 64;
        recorded *more = static_cast<recorded *>(realloc(r->launches, cap * sizeof *more));
        if (!more) return false;
        r->launches = more;
        r->cap = cap;
    }
    recorded *to = &r->launches[r->n];
    *to = *l;
    to->context = static_cast<char *>(malloc(l->context_bytes));
    if (!to->context) return false;
    memcpy(to->context, context, l->context_bytes);
    r->n++;
    return true;
}

cudaError_t simt_submit(const char *name, dim3 grid, dim3 block, size_t dynamic_bytes, simt_body *body,
                        const void *context, size_t context_bytes)
{
    if (*failing && late && strstr(name, failing)) crashed = true;
    if (crashed) return cudaSuccess; /* nothing runs any more, which nobody knows yet */
    if (*failing && !late && strstr(name, failing)) block = dim3(0, 0, 0); /* which is refused */
    if (!recording) return simt_launch(name, grid, block, dynamic_bytes, body, context, context_bytes);
    recorded l = { name, grid, block, dynamic_bytes, context_bytes, body, NULL };
    if (!keep(recording, &l, context)) recording->failed = true;
    return cudaSuccess;
}

void simt_fail_kernel(const char *part, bool is_late)
{
    snprintf(failing, sizeof failing, "%s", part);
    late = is_late;
    crashed = false;
}

cudaError_t simt_wait(void)
{
    if (crashed) simt_set_message("unspecified launch failure");
    return crashed ? cudaErrorLaunchFailure : simt_last_error();
}

cudaError_t simt_record_begin(void)
{
    recording = static_cast<simt_recording *>(calloc(1, sizeof *recording));
    return recording ? cudaSuccess : cudaErrorMemoryAllocation;
}

cudaError_t simt_record_end(simt_recording **out)
{
    *out = recording;
    recording = NULL;
    if (!(*out)->failed) return cudaSuccess;
    simt_record_free(*out);
    *out = NULL;
    return cudaErrorMemoryAllocation;
}

cudaError_t simt_record_run(const simt_recording *r)
{
    for (size_t i = 0; i < r->n; i++) {
        const recorded *l = &r->launches[i];
        cudaError_t e =
            simt_launch(l->name, l->grid, l->block, l->dynamic_bytes, l->body, l->context, l->context_bytes);
        if (e != cudaSuccess) return e;
    }
    return cudaSuccess;
}

static bool same(dim3 a, dim3 b) { return a.x == b.x && a.y == b.y && a.z == b.z; }

const char *simt_record_differs(const simt_recording *a, const simt_recording *b)
{
    for (size_t i = 0; i < a->n && i < b->n; i++) {
        const recorded *x = &a->launches[i], *y = &b->launches[i];
        if (x->body != y->body || !same(x->grid, y->grid) || !same(x->block, y->block) ||
            x->dynamic_bytes != y->dynamic_bytes || x->context_bytes != y->context_bytes ||
            memcmp(x->context, y->context, x->context_bytes) != 0)
            return y->name;
    }
    return a->n == b->n ? NULL : "the number of launches";
}

size_t simt_record_launches(const simt_recording *r) { return r->n; }

simt_launch_shape simt_record_shape(const simt_recording *r, size_t launch)
{
    const recorded *l = &r->launches[launch];
    simt_launch_shape s = { l->name, l->grid.x * l->grid.y * l->grid.z, l->block.x * l->block.y * l->block.z,
                            l->dynamic_bytes };
    return s;
}

void simt_record_free(simt_recording *r)
{
    if (!r) return;
    for (size_t i = 0; i < r->n; i++) free(r->launches[i].context);
    free(r->launches);
    free(r);
}
