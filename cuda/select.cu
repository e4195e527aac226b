/* select.cu - the largest of each row of logits: arg-max, top-k, and sampling.  x (R,V)
 *
 * A block of 512 threads owns a row. Order is that of 64-bit keys, the value's bits made monotone above the
 * complement of the index: no two are equal, and a lower index wins among equal values.
 * arg-max: one pass, then a reduction of keys.
 * top-k: up to FEW: see few_bound, two passes. More: a radix search from the top digit down finds the K-th largest key
 *   (8 bits a pass; it ends as soon as a digit divides exactly, after 3 or 4 passes in general); those above it are
 *   gathered in shared memory and sorted. More than MOST_SORTED are found in several rounds.
 * sample: the same search, by weight instead of by count, finds where the probability reaches top_p. Weights are
 *   exp((x - max) / T) 2^40 as integers: sums of them are exact, hence the same in any order, and 1e-12 off at most.
 * Shared memory: 2 to 4 KB, top-k 16 KB for the sort. Bytes: x once from memory and a few times from L2.
 */
#include "cuda/kernel.cuh"

enum { THREADS = 512, DIGIT = 8, BINS = 1 << DIGIT, FEW = 128, MOST_SORTED = 2048 };

typedef unsigned long long u64;

/* ---- keys ----------------------------------------------------------------------------------------------------------- */

static __device__ __forceinline__ u64 key_of(float x, int64_t index)
{
    if (x == 0) x = 0; /* -0 is no smaller */
    uint32_t bits = __float_as_uint(x);
    bits = x != x ? 0 : bits >> 31 ? ~bits : bits | 0x80000000u; /* NaN: below all */
    return (u64)bits << 32 | (uint32_t) ~(uint32_t)index;
}
static __device__ __forceinline__ int32_t index_of(u64 key) { return (int32_t) ~(uint32_t)key; }
static __device__ __forceinline__ float value_of(u64 key)
{
    uint32_t bits = (uint32_t)(key >> 32);
    return __uint_as_float(bits >> 31 ? bits & 0x7fffffffu : ~bits);
}

static __device__ __forceinline__ u64 warp_largest(u64 key)
{
#pragma unroll
    for (int bits = 16; bits > 0; bits >>= 1) {
        u64 other = __shfl_xor_sync(FULL_WARP, key, bits);
        key = other > key ? other : key;
    }
    return key;
}
static __device__ __forceinline__ u64 warp_sum_64(u64 x)
{
#pragma unroll
    for (int bits = 16; bits > 0; bits >>= 1) x += __shfl_xor_sync(FULL_WARP, x, bits);
    return x;
}
/* Of lanes 0 to this one. */
static __device__ __forceinline__ u64 warp_running_sum(u64 x)
{
    int lane = (int)threadIdx.x % 32;
#pragma unroll
    for (int by = 1; by < 32; by <<= 1) {
        u64 before = __shfl_up_sync(FULL_WARP, x, by);
        if (lane >= by) x += before;
    }
    return x;
}
static __device__ __forceinline__ u64 block_largest(u64 key, u64 *shared)
{
    int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32;
    key = warp_largest(key);
    if (lane == 0) shared[warp] = key;
    __syncthreads();
    key = warp_largest(lane < THREADS / 32 ? shared[lane] : 0);
    __syncthreads();
    return key;
}
static __device__ __forceinline__ u64 block_sum_64(u64 x, u64 *shared)
{
    int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32;
    x = warp_sum_64(x);
    if (lane == 0) shared[warp] = x;
    __syncthreads();
    x = warp_sum_64(lane < THREADS / 32 ? shared[lane] : 0);
    __syncthreads();
    return x;
}

template <class T> static __device__ __forceinline__ u64 row_largest(const T *x, int64_t V, u64 *shared)
{
    u64 best = 0;
    for (int64_t v = threadIdx.x; v < V; v += THREADS) {
        u64 key = key_of(to_f32(x[v]), v);
        best = key > best ? key : best;
    }
    return block_largest(best, shared);
}

/* ---- arg-max ------------------------------------------------------------------------------------------------------------ */

template <class T> static __global__ void __launch_bounds__(THREADS) argmax(int32_t *index, float *value, tensor x)
{
    SHARED(u64, shared, [32]);
    const T *from = static_cast<const T *>(x.data) + (int64_t)blockIdx.x * x.stride[0];
    u64 best = row_largest(from, x.dim[1], shared);
    if (threadIdx.x != 0) return;
    index[blockIdx.x] = index_of(best);
    if (value) value[blockIdx.x] = to_f32(from[index_of(best)]);
}

extern "C" void CUDA_OP(argmax_fwd)(dev *d, tensor index, tensor value, tensor x)
{
    int32_t *to = static_cast<int32_t *>(index.data);
    float *values = tensor_given(value) ? static_cast<float *>(value.data) : NULL;
    WITH_TYPE(x.type, T, LAUNCH(d, argmax<T>, (unsigned)x.dim[0], THREADS, 0, to, values, x));
}

/* ---- the search ------------------------------------------------------------------------------------------------------------ */

struct found { /* shared by the block */
    u64 prefix, need;
    int exact;
};

/* One warp: the bin in which the sum from the top reaches `need`; `need` becomes what that bin must give. */
static __device__ __forceinline__ void choose_bin(const u64 *bins, found *f, int shift)
{
    int lane = (int)threadIdx.x % 32;
    const int each = BINS / 32;
    u64 own = 0; /* lane 0 has the top bins */
    for (int i = 0; i < each; i++) own += bins[BINS - 1 - lane * each - i];
    u64 through = warp_running_sum(own), need = f->need;
    __syncwarp();
    if (through >= need && through - own < need) {
        u64 above = through - own;
        int bin = BINS - 1 - lane * each;
        while (above + bins[bin] < need) above += bins[bin--];
        f->prefix |= (u64)bin << shift;
        f->exact = above + bins[bin] == need; /* the whole bin is wanted: lower digits do not matter */
        f->need = need - above;
    }
}

/* The largest key t <= limit so that the keys in [t, limit] weigh at least `need` (1 or more, and no more than all of them).
 * weight(v, key): of element v. `bins` and `f` are shared memory; every thread comes. */
template <class T, class W>
static __device__ __forceinline__ u64 search(const T *x, int64_t V, u64 limit, u64 need, const W &weight, u64 *bins,
                                             found *f)
{
    if (threadIdx.x == 0) {
        found start = { 0, need, 0 };
        *f = start;
    }
    for (int shift = 64 - DIGIT; shift >= 0; shift -= DIGIT) {
        for (int i = (int)threadIdx.x; i < BINS; i += THREADS) bins[i] = 0;
        __syncthreads();
        u64 prefix = f->prefix;
        if (f->exact) break;
        for (int64_t v = threadIdx.x; v < V; v += THREADS) {
            u64 key = key_of(to_f32(x[v]), v);
            bool here = shift == 64 - DIGIT || key >> (shift + DIGIT) == prefix >> (shift + DIGIT);
            if (here && key <= limit) atomicAdd(&bins[key >> shift & (BINS - 1)], weight(key));
        }
        __syncthreads();
        if (threadIdx.x < 32) choose_bin(bins, f, shift);
        __syncthreads();
    }
    u64 least = f->prefix;
    __syncthreads(); /* f is free again */
    return least;
}

/* ---- top-k -------------------------------------------------------------------------------------------------------------------- */

struct weight_one {
    __device__ u64 operator()(u64) const { return 1; }
};

/* Descending, n a power of two. */
static __device__ __forceinline__ void sort_keys(u64 *keys, int n)
{
    for (int size = 2; size <= n; size <<= 1)
        for (int step = size / 2; step > 0; step >>= 1) {
            __syncthreads();
            for (int i = (int)threadIdx.x; i < n / 2; i += THREADS) {
                int low = 2 * i - (i & (step - 1)), high = low + step;
                bool descending = (low & size) == 0;
                u64 a = keys[low], b = keys[high];
                if ((a < b) == descending) {
                    keys[low] = b;
                    keys[high] = a;
                }
            }
        }
    __syncthreads();
}

/* The first `want` of `n` gathered keys, in order, from place `at` of the row. */
template <class T>
static __device__ __forceinline__ void store_best(u64 *keys, int n, int want, int64_t at, const T *from,
                                                  const tensor &value, const tensor &index)
{
    int whole = 2;
    while (whole < n) whole *= 2;
    for (int i = n + (int)threadIdx.x; i < whole; i += THREADS) keys[i] = 0;
    sort_keys(keys, whole);
    float *values = static_cast<float *>(value.data) + (int64_t)blockIdx.x * value.stride[0] + at;
    int32_t *indices = static_cast<int32_t *>(index.data) + (int64_t)blockIdx.x * index.stride[0] + at;
    for (int i = (int)threadIdx.x; i < want; i += THREADS) {
        values[i] = to_f32(from[index_of(keys[i])]);
        indices[i] = index_of(keys[i]);
    }
}

/* Puts the keys in [least, limit] into `keys` as long as there is room; returns how many there are. */
template <class T>
static __device__ __forceinline__ int gather(const T *from, int64_t V, u64 least, u64 limit, u64 *keys, int *count)
{
    __syncthreads();
    if (threadIdx.x == 0) *count = 0;
    __syncthreads();
    for (int64_t v = threadIdx.x; v < V; v += THREADS) {
        u64 key = key_of(to_f32(from[v]), v);
        if (key < least || key > limit) continue;
        int at = atomicAdd(count, 1);
        if (at < MOST_SORTED) keys[at] = key;
    }
    __syncthreads();
    return *count;
}

/* K <= FEW: the K-th largest of the threads' own largest is no more than the K-th of all; as a rule little more than K
 * lie above it. */
template <class T> static __device__ __forceinline__ u64 few_bound(const T *from, int64_t V, int64_t K, u64 *keys)
{
    u64 best = 0;
    for (int64_t v = threadIdx.x; v < V; v += THREADS) {
        u64 key = key_of(to_f32(from[v]), v);
        best = key > best ? key : best;
    }
    keys[threadIdx.x] = best;
    sort_keys(keys, THREADS);
    return keys[K - 1];
}

template <class T> static __global__ void __launch_bounds__(THREADS) topk(tensor value, tensor index, tensor x)
{
    SHARED(u64, bins, [BINS]);
    SHARED(u64, keys, [MOST_SORTED]);
    SHARED(found, f, [1]);
    SHARED(int, count, [1]);
    int64_t V = x.dim[1], K = value.dim[1];
    const T *from = static_cast<const T *>(x.data) + (int64_t)blockIdx.x * x.stride[0];
    u64 limit = ~(u64)0;
    if (K <= FEW) {
        u64 least = few_bound(from, V, K, keys);
        int n = gather(from, V, least, limit, keys, count);
        if (n <= MOST_SORTED) return store_best(keys, n, (int)K, 0, from, value, index);
        __syncthreads();
    }
    for (int64_t done = 0; done < K; done += MOST_SORTED) {
        int want = K - done < MOST_SORTED ? (int)(K - done) : MOST_SORTED;
        u64 least = search(from, V, limit, (u64)want, weight_one(), bins, f);
        gather(from, V, least, limit, keys, count);
        store_best(keys, want, want, done, from, value, index);
        limit = keys[want - 1] - 1;
    }
}

extern "C" void CUDA_OP(topk_fwd)(dev *d, tensor value, tensor index, tensor x)
{
    WITH_TYPE(x.type, T, LAUNCH(d, topk<T>, (unsigned)x.dim[0], THREADS, 0, value, index, x));
}

/* ---- sample --------------------------------------------------------------------------------------------------------------------- */

/* exp((x - most) / T) 2^40 of what is at least `least`. */
struct weight_of {
    float most;
    u64 least;
    double steepness; /* 1 / T */
    __device__ u64 operator()(u64 key) const
    {
        if (key < least) return 0;
        return (u64)(exp(((double)value_of(key) - (double)most) * steepness) * 1099511627776.0);
    }
};

template <class T>
static __device__ __forceinline__ u64 row_weight(const T *x, int64_t from, int64_t to, u64 least,
                                                 const weight_of &w)
{
    u64 sum = 0;
    for (int64_t v = from; v < to; v += 32) {
        int64_t at = v + threadIdx.x % 32;
        u64 key = at < to ? key_of(to_f32(x[at]), at) : 0;
        if (key >= least && at < to) sum += w(key);
    }
    return warp_sum_64(sum);
}

/* One warp: the first element of [from, to) where the running sum, `before` at its begin, passes `target`; else the
 * last that weighs anything, -1 when none does. */
template <class T>
static __device__ __forceinline__ int64_t pass_target(const T *x, int64_t from, int64_t to, u64 least,
                                                      const weight_of &w, u64 before, double target)
{
    int64_t last = -1;
    for (int64_t v = from; v < to; v += 32) {
        int64_t at = v + threadIdx.x % 32;
        u64 key = at < to ? key_of(to_f32(x[at]), at) : 0;
        u64 own = at < to && key >= least ? w(key) : 0, through = before + warp_running_sum(own);
        unsigned passed = __ballot_sync(FULL_WARP, own > 0 && (double)through > target);
        unsigned any = __ballot_sync(FULL_WARP, own > 0);
        if (passed) return v + __ffs((int)passed) - 1;
        if (any) last = v + 31 - __clz((int)any);
        before = __shfl_sync(FULL_WARP, through, 31);
    }
    return last;
}

template <class T>
static __global__ void __launch_bounds__(THREADS) sample(int32_t *index, tensor x, const float *u, sample_options o)
{
    SHARED(u64, bins, [BINS]);
    SHARED(u64, sums, [32]);
    SHARED(found, f, [1]);
    int64_t row = blockIdx.x, V = x.dim[1];
    const T *from = static_cast<const T *>(x.data) + row * x.stride[0];
    u64 all = ~(u64)0, least = 0;
    weight_of w = { value_of(row_largest(from, V, sums)), 0, 1 / (double)o.temperature };
    if (o.top_k > 0 && o.top_k < V) /* values equal to the k-th stay */
        w.least = search(from, V, all, (u64)o.top_k, weight_one(), bins, f) & ~(u64)0xffffffffu;
    int64_t part = (V + THREADS / 32 - 1) / (THREADS / 32), warp = (int64_t)threadIdx.x / 32;
    int64_t begin = warp * part < V ? warp * part : V, end = begin + part < V ? begin + part : V;
    if (o.top_p < 1) {
        u64 own = row_weight(from, begin, end, 0, w), total = block_sum_64(threadIdx.x % 32 ? 0 : own, sums);
        u64 need = (u64)ceil((double)total * (double)o.top_p);
        least = search(from, V, all, need < 1 ? 1 : need < total ? need : total, w, bins, f);
    }
    u64 own = row_weight(from, begin, end, least, w);
    if (threadIdx.x % 32 == 0) sums[warp] = own;
    __syncthreads();
    if (threadIdx.x >= 32) return;
    u64 before = 0, total = 0;
    for (int i = 0; i < THREADS / 32; i++) total += sums[i];
    double target = (double)u[row] * (double)total;
    int64_t pick = 0;
    for (int i = 0; i < THREADS / 32; i++) {
        if (sums[i] == 0) continue;
        bool here = (double)(before + sums[i]) > target;
        begin = i * part;
        end = begin + part < V ? begin + part : V;
        pick = pass_target(from, begin, end, least, w, before, target);
        if (here) break;
        before += sums[i];
    }
    if (threadIdx.x == 0) index[row] = (int32_t)pick;
}

extern "C" void CUDA_OP(sample_fwd)(dev *d, tensor index, tensor x, tensor u, sample_options o)
{
    int32_t *to = static_cast<int32_t *>(index.data);
    const float *draws = static_cast<const float *>(u.data);
    WITH_TYPE(x.type, T, LAUNCH(d, sample<T>, (unsigned)x.dim[0], THREADS, 0, to, x, draws, o));
}
