/* test_cli_weights.c - a model directory whose weights do not fit its configuration: `sca` names the tensor and both
 * shapes, ends with 1, and writes nothing. */
#define CLI_DIR SCA_BUILD "/cli-weights-test"
#include "cli.h"
#include "model/model.h"

#include <math.h>

#define MODEL CLI_DIR "/model"
#define RESULT CLI_DIR "/result.json"
#define VICTIM "language_model.transformer.h.0.attn.c_attn.weight"

typedef struct damage {
    const char *victim;  /* NULL: none */
    bool drop, turn;     /* leave it out; its shape reversed */
    float value;         /* its third number, when not 0 */
    const char *further; /* a tensor (2,3) that no model knows, or NULL */
} damage;

static void link_rest(void)
{
    static const char *const names[] = { "config.json",
                                         "preprocessor_config.json",
                                         "generation_config.json",
                                         "tokenizer.json",
                                         "tokenizer_config.json",
                                         "special_tokens_map.json",
                                         "vocab.json",
                                         "merges.txt" };
    CHECK_OK(dir_make(MODEL));
    for (size_t i = 0; i < LENGTH(names); i++) {
        char from[1024], to[1024];
        snprintf(from, sizeof from, CLI_MODEL "/%s", names[i]);
        snprintf(to, sizeof to, MODEL "/%s", names[i]);
        unlink(to);
        CHECKF(symlink(from, to) == 0, "cannot link %s", to);
    }
}

static sca_status put_tensor(safetensors_out *f, const weight *t, const damage *d)
{
    float *v = mem_alloc((size_t)t->count * sizeof *v);
    if (!v) return mem_fail((size_t)t->count * sizeof *v, "a tensor");
    sca_status status = weight_read(t, DT_F32, v);
    if (d->victim && strcmp(t->name, d->victim) == 0 && d->value != 0) v[2] = d->value;
    if (status == SCA_OK) status = safetensors_put(f, v, (size_t)t->count * sizeof *v);
    mem_free(v);
    return status;
}

/* The demo's weights with one thing wrong. */
static sca_status write_weights(const damage *d)
{
    enum { MOST = 1000 };
    static weight_entry entries[MOST];
    static const weight *of[MOST];
    static const float six[6] = { 1, 2, 3, 4, 5, 6 };
    weights *w = NULL;
    safetensors_out *f = NULL;
    size_t n = 0;
    sca_status status;
    TRY_GOTO(done, weights_open(CLI_MODEL, &w));
    for (size_t i = 0; i < weights_count(w); i++) {
        const weight *t = weights_at(w, i);
        bool victim = d->victim && strcmp(t->name, d->victim) == 0;
        if (victim && d->drop) continue;
        of[n] = t;
        entries[n] = (weight_entry){ .name = t->name, .type = DT_F32, .ndim = t->ndim };
        for (int k = 0; k < t->ndim; k++) entries[n].dim[k] = t->dim[victim && d->turn ? t->ndim - 1 - k : k];
        n++;
    }
    if (d->further) entries[n] = (weight_entry){ d->further, DT_F32, 2, { 2, 3 } };
    TRY_GOTO(done, safetensors_create(MODEL "/model.safetensors", entries, n + (d->further != NULL), &f));
    for (size_t i = 0; i < n; i++) TRY_GOTO(done, put_tensor(f, of[i], d));
    if (d->further) TRY_GOTO(done, safetensors_put(f, six, sizeof six));
    status = safetensors_commit(f);
    f = NULL;
done:
    safetensors_abort(f);
    weights_close(w);
    return status;
}

static void expect(const damage *d, int code, const char *err)
{
    CHECK_OK(write_weights(d));
    unlink(RESULT);
    cli_expect("caption " CLI_PHOTO " --model " MODEL " --box 10,10,200,200 --format json --out " RESULT, code, "",
               err);
    CHECKF(file_exists(RESULT) == (code == 0), "exit %d, but the result file is%s there", code, code ? "" : " not");
    CHECK(!cli_leftovers(CLI_DIR));
}

static void damaged_weights(void)
{
    char text[3][256];
    weights *w = NULL;
    link_rest();
    CHECK_OK(weights_open(CLI_MODEL, &w));
    const weight *t = w ? weights_find(w, VICTIM) : NULL;
    if (!CHECKF(t && t->ndim == 2 && t->dim[0] != t->dim[1], "the demo's model has no fit " VICTIM)) return;
    long long rows = t->dim[0], columns = t->dim[1], n = (long long)weights_count(w);
    weights_close(w);
    snprintf(text[0], sizeof text[0], "model.safetensors: tensor '" VICTIM "' (%lld,%lld) is missing (1 of ", rows,
             columns);
    snprintf(text[1], sizeof text[1],
             "model.safetensors: tensor '" VICTIM "' is (%lld,%lld), expected (%lld,%lld) by the configuration",
             columns, rows, rows, columns);
    snprintf(
        text[2], sizeof text[2],
        "/model.safetensors: tensor 'another.head.weight' (2,3) is left out, for this model has none of that name "
        "(1 of %lld tensors)",
        n + 1);

    expect(&(damage){ 0 }, 0, "");
    expect(&(damage){ VICTIM, .drop = true }, 1, text[0]);
    expect(&(damage){ VICTIM, .turn = true }, 1, text[1]);
    expect(&(damage){ VICTIM, .value = NAN }, 1, "tensor '" VICTIM "' holds NaN or infinity at index 2");
    expect(&(damage){ VICTIM, .value = -INFINITY }, 1, "tensor '" VICTIM "' holds NaN or infinity at index 2");
    expect(&(damage){ .further = "another.head.weight" }, 0, text[2]);
    /* Old files keep the causal mask beside the parameters: nobody needs to be told. */
    expect(&(damage){ .further = "language_model.transformer.h.0.attn.bias" }, 0, "");
}

int main(int argc, char **argv)
{
    cli_start();
    RUN(damaged_weights);
    return check_done();
}
