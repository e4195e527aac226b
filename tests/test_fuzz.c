/* test_fuzz.c - every tests/fuzz_NAME.c without libFuzzer: its corpus (tests/corpus/NAME) and thousands of
 * mutations.
 *
 * The mutations are the same on every run. A target that crashes leaves its input in the build folder.
 * Names on the command line choose the targets: `test_fuzz image`.
 */
#include "check.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdint.h>
#include <time.h>
#include <unistd.h>

enum {
    MUTATIONS = 10000,         /* of one target                                           */
    LARGEST = 1 << 16,         /* bytes of a mutated input                                */
    MOST_SECONDS_A_TARGET = 2, /* slow builds try fewer mutations, in the same order      */
    MOST_SECONDS_AN_INPUT = 10 /* beyond this an input is a denial of service             */
};

typedef int fuzz_fn(const uint8_t *data, size_t n);

#define FUZZ(name) fuzz_fn fuzz_##name;
#include "fuzz_targets.def"
#undef FUZZ

static const struct target {
    const char *name;
    fuzz_fn *run;
} targets[] = {
#define FUZZ(name) { #name, fuzz_##name },
#include "fuzz_targets.def"
#undef FUZZ
    { NULL, NULL }
};

/* ---- what is left of a crash ------------------------------------------------------------------------- */

static struct {
    const uint8_t *data;
    size_t n;
    char path[4096];
} current;

/* Only calls that are safe in a signal handler. */
static void save_input(void)
{
    static const char said[] = "test_fuzz: crashed; the input is kept in ";
    int file = open(current.path, O_WRONLY | O_CREAT | O_TRUNC, 0666);
    if (!current.data || file < 0) return;
    ssize_t done = write(file, current.data, current.n);
    close(file);
    if (done >= 0 && write(2, said, sizeof said - 1) > 0 && write(2, current.path, strlen(current.path)) > 0)
        done = write(2, "\n", 1);
}

static void on_signal(int number)
{
    save_input();
    signal(number, SIG_DFL);
    raise(number);
}

/* Sanitizers end the program without a signal, and call this first. */
void __sanitizer_set_death_callback(void (*fn)(void)) __attribute__((weak));

static void watch_for_crashes(void)
{
    static const int signals[] = { SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT };
    if (__sanitizer_set_death_callback) {
        __sanitizer_set_death_callback(save_input);
        signal(SIGABRT, on_signal);
        return;
    }
    for (size_t i = 0; i < sizeof signals / sizeof *signals; i++) signal(signals[i], on_signal);
}

/* ---- inputs ------------------------------------------------------------------------------------------ */

typedef struct input {
    uint8_t *data;
    size_t n;
} input;

typedef struct corpus {
    input *inputs;
    size_t count;
} corpus;

static input read_input(const char *path)
{
    input in = { .data = malloc(LARGEST) };
    FILE *f = fopen(path, "rb");
    if (CHECKF(f && in.data, "cannot read %s", path)) in.n = fread(in.data, 1, LARGEST, f);
    if (f) fclose(f);
    return in;
}

static int is_seed(const struct dirent *e) { return e->d_name[0] != '.'; }

/* The files of the folder in alphabetical order, after an empty input. */
static corpus corpus_read(const char *name)
{
    char path[4096];
    struct dirent **entries = NULL;
    snprintf(path, sizeof path, "%s/tests/corpus/%s", SCA_SOURCE, name);
    int n = scandir(path, &entries, is_seed, alphasort);
    CHECKF(n > 0, "%s: no corpus; add a few small files", path);
    corpus c = { .inputs = calloc((size_t)(n > 0 ? n : 0) + 1, sizeof(input)) };
    c.inputs[c.count++] = (input){ .data = malloc(LARGEST) };
    for (int i = 0; i < n; i++) {
        snprintf(path, sizeof path, "%s/tests/corpus/%s/%s", SCA_SOURCE, name, entries[i]->d_name);
        c.inputs[c.count++] = read_input(path);
        free(entries[i]);
    }
    free(entries);
    return c;
}

static void corpus_free(corpus *c)
{
    for (size_t i = 0; i < c->count; i++) free(c->inputs[i].data);
    free(c->inputs);
}

/* ---- mutations --------------------------------------------------------------------------------------- */

static uint64_t draw(uint64_t *state, uint64_t below)
{
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    return below ? (*state >> 11) % below : 0;
}

/* Numbers at the edges of types, in either byte order. */
static void put_number(input *in, uint64_t *state)
{
    static const uint64_t edges[] = { 0,      1,          0x7f,       0x80,       0xff,       0x7fff,
                                      0xffff, 0x7fffffff, 0x80000000, 0xffffffff, UINT64_MAX, INT64_MAX };
    size_t width = (size_t)1 << draw(state, 4), at = draw(state, in->n);
    uint64_t value = edges[draw(state, sizeof edges / sizeof *edges)];
    bool big_endian = draw(state, 2);
    for (size_t i = 0; i < width && at + i < in->n; i++)
        in->data[at + i] = (uint8_t)(value >> 8 * (big_endian ? width - 1 - i : i));
}

static void remove_range(input *in, uint64_t *state)
{
    size_t at = draw(state, in->n), n = 1 + draw(state, draw(state, 2) ? 8 : in->n - at);
    if (n > in->n - at) n = in->n - at;
    memmove(in->data + at, in->data + at + n, in->n - at - n);
    in->n -= n;
}

/* A piece of this or another input, put in between or over what is there. */
static void copy_piece(input *in, const input *from, uint64_t *state)
{
    uint8_t piece[256];
    size_t at = draw(state, in->n + 1), start = draw(state, from->n), n = 1 + draw(state, sizeof piece);
    if (n > from->n - start) n = from->n - start;
    memcpy(piece, from->data + start, n);
    bool over = draw(state, 2);
    if (over && n > in->n - at) n = in->n - at;
    if (!over && n > LARGEST - in->n) n = LARGEST - in->n;
    if (!over) {
        memmove(in->data + at + n, in->data + at, in->n - at);
        in->n += n;
    }
    memcpy(in->data + at, piece, n);
}

/* Texts: digits and brackets grow where random bytes would only break them. */
static void put_text(input *in, uint64_t *state)
{
    static const char letters[] = "0123456789-+.eE\"\\{}[]:,()'# \n\tu";
    if (in->n == LARGEST) return;
    size_t at = draw(state, in->n + 1);
    memmove(in->data + at + 1, in->data + at, in->n - at);
    in->data[at] = (uint8_t)letters[draw(state, sizeof letters - 1)];
    in->n++;
}

static void mutate(input *in, const corpus *c, uint64_t *state)
{
    const input *other = &c->inputs[draw(state, c->count)];
    switch (in->n ? draw(state, 8) : 6) {
    case 0:
    case 1: in->data[draw(state, in->n)] ^= (uint8_t)(1 << draw(state, 8)); break;
    case 2: in->data[draw(state, in->n)] = (uint8_t)draw(state, 256); break;
    case 3: put_number(in, state); break;
    case 4: remove_range(in, state); break;
    case 5: in->n = draw(state, in->n); break;
    case 6: put_text(in, state); break;
    default: copy_piece(in, other->n ? other : in, state);
    }
}

/* ---- running ----------------------------------------------------------------------------------------- */

static double seconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Runs a copy of exactly its size, so that a sanitizer sees the first byte read beyond it. */
static void run_input(const struct target *t, const input *in, const char *what, size_t number)
{
    uint8_t *copy = malloc(in->n ? in->n : 1);
    if (in->n) memcpy(copy, in->data, in->n);
    current.data = copy;
    current.n = in->n;
    double start = seconds();
    int result = t->run(copy, in->n);
    double took = seconds() - start;
    current.data = NULL;
    CHECKF(result == 0, "%s: returned %d for %s %zu", t->name, result, what, number);
    CHECKF(took < MOST_SECONDS_AN_INPUT, "%s: %s %zu took %.1f s", t->name, what, number, took);
    free(copy);
}

static uint64_t seed_of(const char *name)
{
    uint64_t h = 0xcbf29ce484222325u; /* FNV-1a */
    while (*name) h = (h ^ (uint8_t)*name++) * 0x100000001b3u;
    return h;
}

static void run_target(const struct target *t)
{
    corpus c = corpus_read(t->name);
    input work = { .data = malloc(LARGEST) };
    uint64_t state = seed_of(t->name);
    size_t done = 0;
    snprintf(current.path, sizeof current.path, "%s/fuzz-%s.crash", SCA_BUILD, t->name);
    for (size_t i = 0; i < c.count; i++) run_input(t, &c.inputs[i], "corpus file", i);
    double start = seconds();
    for (; done < MUTATIONS && seconds() - start < MOST_SECONDS_A_TARGET; done++) {
        const input *from = &c.inputs[done % c.count];
        memcpy(work.data, from->data, from->n);
        work.n = from->n;
        for (uint64_t rounds = 1 + draw(&state, 4); rounds > 0; rounds--) mutate(&work, &c, &state);
        run_input(t, &work, "mutation", done);
    }
    printf("%s: %zu corpus files, %zu mutations in %.1f s\n", t->name, c.count - 1, done, seconds() - start);
    free(work.data);
    corpus_free(&c);
}

int main(int argc, char **argv)
{
    watch_for_crashes();
    for (const struct target *t = targets; t->name; t++) {
        if (!check_only(argc, argv, t->name)) continue;
        check_case = t->name;
        run_target(t);
    }
    return check_done();
}
