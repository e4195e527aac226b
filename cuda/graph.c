/* graph.c - work that repeats (dev_repeat): a CUDA graph on the GPU, recorded launches on simt.
 *
 * The first time a piece of work is seen its ops run as they come, which also loads kernels and makes scratch large
 * enough; the second time its launches are kept, not run, and then started as a whole; from the third time on that is
 * all that happens. A piece is told by its name and key. Kept launches hold addresses: those of the caller are in the
 * key, those of scratch are not, so everything kept is dropped when scratch moves.
 */
#include "cuda/cuda.h"

#include <string.h>

enum { MOST_PIECES = 32 };

#ifdef SIMT
typedef simt_recording *kept;
#else
typedef cudaGraphExec_t kept;
#endif

typedef struct piece {
    char *key; /* name, 0, the caller's bytes */
    size_t bytes;
    int64_t last; /* when it was asked for */
    bool seen;    /* has run once since scratch moved last */
    kept launches;
} piece;

typedef struct cuda_graphs {
    piece pieces[MOST_PIECES];
    piece *open;    /* between repeat and repeated */
    bool recording; /* its launches are kept, not run */
    int64_t clock, started;
} cuda_graphs;

/* ---- keeping, twice ---------------------------------------------------------------------------------------- */

#ifdef SIMT
static cudaError_t keep_begin(cuda *c)
{
    (void)c;
    return simt_record_begin();
}
static cudaError_t keep_end(cuda *c, kept *out)
{
    (void)c;
    return simt_record_end(out);
}
static cudaError_t start(cuda *c, kept k)
{
    (void)c;
    return simt_record_run(k);
}
static void give(kept k) { simt_record_free(k); }
#else
static cudaError_t keep_begin(cuda *c)
{
    return cudaStreamBeginCapture(c->stream, cudaStreamCaptureModeThreadLocal);
}
static cudaError_t keep_end(cuda *c, kept *out)
{
    cudaGraph_t graph = NULL;
    cudaError_t e = cudaStreamEndCapture(c->stream, &graph);
    *out = NULL;
    if (e == cudaSuccess) e = cudaGraphInstantiateWithFlags(out, graph, 0);
    if (graph) cudaGraphDestroy(graph);
    return e;
}
static cudaError_t start(cuda *c, kept k) { return cudaGraphLaunch(k, c->stream); }
static void give(kept k)
{
    if (k) cudaGraphExecDestroy(k);
}
#endif

/* ---- pieces ------------------------------------------------------------------------------------------------- */

static void forget(piece *p)
{
    give(p->launches);
    mem_free(p->key);
    *p = (piece){ 0 };
}

static bool is_piece(const piece *p, const char *what, const void *key, size_t bytes)
{
    size_t n = strlen(what) + 1;
    return p->key && p->bytes == n + bytes && memcmp(p->key, what, n) == 0 && memcmp(p->key + n, key, bytes) == 0;
}

/* The piece of that name and key: known, or in the place of the one that was asked for longest ago. NULL: no memory. */
static piece *find(cuda_graphs *g, const char *what, const void *key, size_t bytes)
{
    piece *oldest = g->pieces;
    for (piece *p = g->pieces; p < g->pieces + MOST_PIECES; p++) {
        if (is_piece(p, what, key, bytes)) return p;
        if (p->last < oldest->last) oldest = p;
    }
    size_t n = strlen(what) + 1;
    char *copy = mem_alloc(n + bytes);
    if (!copy) return NULL;
    memcpy(copy, what, n);
    memcpy(copy + n, key, bytes);
    forget(oldest);
    oldest->key = copy;
    oldest->bytes = n + bytes;
    return oldest;
}

static void start_kept(dev *d, cuda_graphs *g, const piece *p)
{
    cudaError_t e = start(cuda_of(d), p->launches);
    g->started++;
    if (e != cudaSuccess) cuda_failed(d, e, p->key);
}

bool cuda_repeat(dev *d, const char *what, const void *key, size_t bytes)
{
    cuda *c = cuda_of(d);
    if (c->graph_mode == GRAPHS_OFF) return true;
    if (!c->graphs) c->graphs = mem_zero(1, sizeof *c->graphs);
    cuda_graphs *g = c->graphs;
    piece *p = g ? find(g, what, key, bytes) : NULL;
    if (!p) return true; /* memory is short: it goes without */
    p->last = ++g->clock;
    if (p->launches && c->graph_mode != GRAPHS_CHECK) {
        start_kept(d, g, p);
        return false;
    }
    g->open = p;
    if (!p->seen) return true;
    cudaError_t e = keep_begin(c);
    g->recording = e == cudaSuccess;
    if (e != cudaSuccess) cuda_failed(d, e, what);
    return true;
}

/* What was kept now against what was kept before. */
static void compare(dev *d, const piece *p, kept now)
{
#ifdef SIMT
    const char *name = p->launches ? simt_record_differs(p->launches, now) : NULL;
    if (name)
        dev_fail(d, SCA_ERR_STATE, "device simt: '%s' is not the same work under the same key: %s differs", p->key,
                 name);
#else
    (void)d;
    (void)p;
    (void)now;
#endif
}

void cuda_repeated(dev *d)
{
    cuda *c = cuda_of(d);
    cuda_graphs *g = c->graphs;
    if (!g || !g->open) return;
    piece *p = g->open;
    bool recording = g->recording;
    g->open = NULL;
    g->recording = false;
    p->seen = d->status == SCA_OK;
    if (!recording) return;
    kept now = NULL;
    cudaError_t e = keep_end(c, &now); /* also after a failure: the stream must leave that state */
    if (d->status == SCA_OK && e != cudaSuccess) cuda_failed(d, e, p->key);
    if (d->status == SCA_OK) compare(d, p, now);
    give(p->launches);
    p->launches = now;
    if (d->status == SCA_OK)
        start_kept(d, g, p);
    else
        forget(p);
}

bool cuda_may_wait(dev *d, const char *what)
{
    const cuda_graphs *g = cuda_of(d)->graphs;
    if (g && g->open)
        dev_fail(d, SCA_ERR_STATE, "device %s: %s inside '%s', which is work of the device alone", d->kind->name,
                 what, g->open->key);
    return d->status == SCA_OK;
}

bool cuda_may_grow(dev *d)
{
    const cuda_graphs *g = cuda_of(d)->graphs;
    if (g && g->recording)
        dev_fail(d, SCA_ERR_STATE, "device %s: '%s' needs more scratch than the first time", d->kind->name,
                 g->open->key);
    return d->status == SCA_OK;
}

void cuda_graphs_drop(dev *d)
{
    cuda_graphs *g = cuda_of(d)->graphs;
    for (int i = 0; g && i < MOST_PIECES; i++) {
        give(g->pieces[i].launches);
        g->pieces[i].launches = NULL;
        g->pieces[i].seen = false;
    }
}

void cuda_graphs_free(cuda *c)
{
    if (!c->graphs) return;
    log_debug("repeated work: kept launches were started %lld times", (long long)c->graphs->started);
    for (int i = 0; i < MOST_PIECES; i++) forget(&c->graphs->pieces[i]);
    mem_free(c->graphs);
    c->graphs = NULL;
}
