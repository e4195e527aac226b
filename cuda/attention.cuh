/* attention.cuh - what the attention kernels share: one description of sequences, maps and windows.
 *
 * Token j of a unit (a sequence, a map, a window of a map) lies at (j / width, j % width) of it: width is 1 for a
 * sequence, else the width of the map or of the window. Offsets of rows and columns are strides in elements.
 */
#ifndef CUDA_ATTENTION_CUH
#define CUDA_ATTENTION_CUH

#include "cuda/kernel.cuh"

#define LOG2_E 1.4426950408889634f
#define LN_2 0.6931471805599453f

struct attention_side { /* one of q, k, v, y: element strides */
    int64_t b, h, row, column;
    bool wide; /* every row of D elements begins at a multiple of 16 bytes */
};

struct attention_args {
    const void *q, *k, *v;
    void *y;
    float *lse;                 /* or NULL: (B,H,rows,columns), columns contiguous */
    const int32_t *index;       /* or NULL: (B,Tk), which b of k and v holds the key */
    const float *pad;           /* or NULL: (3,H,D): what stands outside the map, else zeros */
    const float *rel_h, *rel_w; /* or NULL: (2 side_h - 1, D), (2 side_w - 1, D) */
    attention_side at_q, at_k, at_v, at_y;
    int64_t lse_b, lse_h, lse_row, index_b, rel_h_ld, rel_w_ld;
    int Tq, Tk, H, group, D;         /* group: query heads per key head */
    int units, units_x, tiles;       /* windows per image (1 otherwise), of them side by side; tiles of queries */
    int width, map_h, map_w, window; /* window 0: everything lies inside the map */
    int side_h, side_w;              /* extents of a unit where there are positions */
    unsigned width_magic;            /* ceil(2^32 / width), 0 for width 1 */
    float scale;
    bool causal;
    uint32_t drop_limit; /* rng.h; 0: nothing is dropped */
    uint64_t drop_key;
    int64_t drop_first;
    float drop_scale; /* 1 / (1 - rate) */
    /* op_image_pool: keys are k + v (the image and its position code), values are k. On the tensor cores the keys are
     * divided: unit u has `chunk` of them and leaves (D sums, maximum, total) F32 per query in `partial`. */
    bool pool;
    int chunk;
    float *partial;
};

struct attention_place { /* which unit, head and tile a block works on */
    int b, h, tile, row0, column0, unit;
};

static __device__ __forceinline__ attention_place attention_place_of(const attention_args &g, unsigned id)
{
    attention_place p;
    p.tile = (int)(id % (unsigned)g.tiles);
    id /= (unsigned)g.tiles;
    p.h = (int)(id % (unsigned)g.H);
    id /= (unsigned)g.H;
    p.unit = (int)(id % (unsigned)g.units);
    p.b = (int)(id / (unsigned)g.units);
    p.row0 = p.unit / g.units_x * g.window;
    p.column0 = p.unit % g.units_x * g.window;
    return p;
}

static __device__ __forceinline__ int attention_row(const attention_args &g, int j)
{
    return g.width_magic ? (int)((uint64_t)(unsigned)j * g.width_magic >> 32) : j;
}
static __device__ __forceinline__ int attention_column(const attention_args &g, int j, int row)
{
    return g.width_magic ? j - row * g.width : 0;
}

static __device__ __forceinline__ bool attention_inside(const attention_args &g, const attention_place &p, int row,
                                                        int column)
{
    return !g.window || (p.row0 + row < g.map_h && p.column0 + column < g.map_w);
}

static __device__ __forceinline__ int64_t attention_offset(const attention_side &s, const attention_place &p,
                                                           int row, int column, int b, int h)
{
    return b * s.b + h * s.h + (p.row0 + row) * s.row + (p.column0 + column) * s.column;
}

/* One more than the last key that query i may see. */
static __device__ __forceinline__ int attention_keys(const attention_args &g, int i)
{
    return g.causal && i + g.Tk - g.Tq + 1 < g.Tk ? i + g.Tk - g.Tq + 1 : g.Tk;
}

/* Which of q, k, v the pad stands for. */
enum { PAD_Q, PAD_K, PAD_V };

/* Where a token's row of k or v is: NULL when it is the pad. */
template <class T>
static __device__ __forceinline__ const T *attention_key(const attention_args &g, const attention_place &p,
                                                         const T *base, const attention_side &s, int j)
{
    int row = attention_row(g, j), column = attention_column(g, j, row);
    if (!attention_inside(g, p, row, column)) return NULL;
    int b = g.index ? g.index[p.b * g.index_b + j] : p.b;
    return base + attention_offset(s, p, row, column, b, p.h / g.group);
}
static __device__ __forceinline__ float attention_pad(const attention_args &g, const attention_place &p, int which,
                                                      int d)
{
    return g.pad && d < g.D ? g.pad[((int64_t)which * g.H + p.h) * g.D + d] : 0;
}

/* ---- launchers, one per kernel file ------------------------------------------------------------------------------- */

#define cuda_attention_mma_launch CUDA_NAME(attention_mma_launch)
#define cuda_attention_f32_launch CUDA_NAME(attention_f32_launch)
void cuda_attention_mma_launch(dev *d, attention_args *g, dtype type, int64_t B); /* pool too */
void cuda_attention_f32_launch(dev *d, attention_args *g, int64_t B);

#endif
