/* training_restore.c - what an image looks like, as a target of its embedding.
 *
 * Masks alone give an encoder no reason to keep colours and textures, which captions speak of. SAM's encoder was trained
 * to restore pictures before (He et al., "Masked Autoencoders", 2022); this is the small stand-in for it: the first
 * channels of the embedding are drawn towards the colours of a patch and the directions of its edges (Wei et al., "Masked
 * Feature Prediction", 2022: histograms of oriented gradients). Without a head of its own, so that no parameter is added. */
#include "model/training.h"

#include <math.h>
#include <string.h>

enum { QUARTERS = 4, COLOURS = 3, DIRECTIONS = 9, LOOKS = QUARTERS * COLOURS + DIRECTIONS };

static const double half_turn = 3.14159265358979323846;
static const double grain = 0.1;  /* mean strength of edges, in normalised brightness, that counts for half */
static const double contrast = 3; /* brings shares of a histogram near unit size */

int restore_channels(void) { return LOOKS; }

static double brightness(const float *pixels, int64_t side, int64_t x, int64_t y)
{
    x = x < 0 ? 0 : x >= side ? side - 1 : x;
    y = y < 0 ? 0 : y >= side ? side - 1 : y;
    const float *at = pixels + (y * side + x) * COLOURS;
    return ((double)at[0] + (double)at[1] + (double)at[2]) / COLOURS;
}

/* Means of the quarters of the patch at (x0,y0), patch pixels wide. */
static void put_colours(float *to, const float *pixels, int64_t side, int64_t patch, int64_t x0, int64_t y0)
{
    double sum[QUARTERS][COLOURS] = { { 0 } }, count[QUARTERS] = { 0 };
    for (int64_t y = 0; y < patch; y++)
        for (int64_t x = 0; x < patch; x++) {
            int quarter = (2 * y >= patch) * 2 + (2 * x >= patch);
            count[quarter]++;
            for (int c = 0; c < COLOURS; c++)
                sum[quarter][c] += (double)pixels[((y0 + y) * side + x0 + x) * COLOURS + c];
        }
    for (int q = 0; q < QUARTERS; q++)
        for (int c = 0; c < COLOURS; c++) to[q * COLOURS + c] = count[q] > 0 ? (float)(sum[q][c] / count[q]) : 0;
}

/* Directions of edges, without sign, in the patch and half a patch around it, weighted with their strength: of length 1
 * where edges are strong, near 0 where there is only grain. A direction between two bins counts for both. */
static void put_directions(float *to, const float *pixels, int64_t side, int64_t patch, int64_t x0, int64_t y0)
{
    double bin[DIRECTIONS] = { 0 }, count = 0, square = 0;
    for (int64_t y = y0 - patch / 2; y < y0 + patch + patch / 2; y++)
        for (int64_t x = x0 - patch / 2; x < x0 + patch + patch / 2; x++) {
            if (x < 0 || y < 0 || x >= side || y >= side) continue;
            count++;
            double dx = brightness(pixels, side, x + 1, y) - brightness(pixels, side, x - 1, y);
            double dy = brightness(pixels, side, x, y + 1) - brightness(pixels, side, x, y - 1);
            double turn = atan2(dy, dx) / half_turn + 1; /* 0 to 2; opposite directions are one apart */
            double place = (turn - floor(turn)) * DIRECTIONS, share = place - floor(place);
            int first = (int)place % DIRECTIONS;
            bin[first] += (1 - share) * hypot(dx, dy);
            bin[(first + 1) % DIRECTIONS] += share * hypot(dx, dy);
        }
    for (int i = 0; i < DIRECTIONS; i++) square += bin[i] * bin[i];
    for (int i = 0; i < DIRECTIONS; i++) to[i] = (float)(contrast * bin[i] / hypot(sqrt(square), grain * count));
}

void restore_targets(float *to, const float *pixels, int64_t side, int64_t grid)
{
    int64_t patch = side / grid;
    for (int64_t i = 0; i < grid * grid; i++) {
        int64_t x0 = i % grid * patch, y0 = i / grid * patch;
        put_colours(to + i * LOOKS, pixels, side, patch, x0, y0);
        put_directions(to + i * LOOKS + QUARTERS * COLOURS, pixels, side, patch, x0, y0);
    }
}

/* looks (S,LOOKS): the embedding's, on the device. */
static sca_status compare(const pass *p, tensor looks, const float *target, double scale, float *gradient,
                          double *loss)
{
    int64_t n = tensor_count(looks);
    double *value = mem_zero((size_t)n, sizeof *value);
    if (!value) return mem_fail((size_t)n * sizeof *value, "colours and edges");
    sca_status status = training_read(p->d, looks, value);
    *loss = 0;
    for (int64_t i = 0; i < n; i++) {
        double error = value[i] - (double)target[i];
        *loss += error * error / (double)n;
        gradient[i] = (float)(scale * 2 * error / (double)n);
    }
    mem_free(value);
    return status;
}

sca_status restore_loss(const pass *p, tensor embedding, const float *pixels, int64_t side, int64_t grid,
                        double scale, tensor gradient, double *loss)
{
    size_t n = (size_t)(grid * grid * LOOKS), mark = arena_mark(p->temp);
    float *target = mem_zero(2 * n, sizeof *target);
    if (!target) return mem_fail(2 * n * sizeof *target, "colours and edges");
    tensor looks = pass_2d(p, grid * grid, LOOKS);
    if (!p->d->kind->measures) restore_targets(target, pixels, side, grid);
    op_copy(p->d, looks, tensor_slice(embedding, 1, 0, LOOKS));
    sca_status status = compare(p, looks, target, scale, target + n, loss);
    if (tensor_given(gradient)) dev_put_f32(p->d, gradient, target + n);
    mem_free(target);
    arena_release(p->temp, mark);
    return status;
}
