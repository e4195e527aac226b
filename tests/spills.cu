/* spills.cu - a kernel that needs more registers than it is given: the build's own options must refuse it (ctest). */
__global__ void spills(float *x, int n)
{
    float a[48];
#pragma unroll
    for (int i = 0; i < 48; i++) a[i] = x[i * n + threadIdx.x];
#pragma unroll
    for (int k = 0; k < 4; k++)
#pragma unroll
        for (int i = 0; i < 48; i++) a[i] = a[i] * a[(i + 7) % 48] + x[i + k];
#pragma unroll
    for (int i = 0; i < 48; i++) x[i * n + threadIdx.x] = a[i];
}
