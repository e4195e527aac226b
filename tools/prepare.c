/* prepare.c - sca prepare: files of others made quick to open. */
#include "tool.h"

#include <string.h>

static sca_status report(const char *to, const char *table)
{
    output out = { 0 };
    str_put(&out.text, table);
    put_printable(&out.text, to);
    str_put(&out.text, ": written\n");
    sca_status status = output_finish(&out);
    output_free(&out);
    return status;
}

/* The model whose embeddings are asked for, or none. */
static int open_model(const arguments *a, const sca_config *settings, sca_model **model)
{
    *model = NULL;
    if (!a->value[OPTION_EMBEDDINGS]) return DONE;
    int result = arguments_need_model(a);
    if (result != DONE) return result;
    return sca_model_open(settings, model) == SCA_OK ? DONE : fail_now();
}

static int prepare(const arguments *a, const sca_config *settings)
{
    sca_model *model;
    char *table = NULL;
    int rank, result = open_model(a, settings, &model);
    if (result != DONE) return result;
    sca_prepare_options o = { .kind = a->operands[0],
                              .annotations = a->value[OPTION_ANNOTATIONS],
                              .to = a->value[OPTION_PREPARED],
                              .images = a->value[OPTION_IMAGES],
                              .split = a->value[OPTION_SET_SPLIT],
                              .task = a->value[OPTION_TASK],
                              .pack = a->value[OPTION_JPEG] != NULL,
                              .embeddings = a->value[OPTION_EMBEDDINGS],
                              .phrases = a->value[OPTION_PHRASES] != NULL,
                              .model = model,
                              .config = settings,
                              .table = &table };
    sca_rank(&rank, NULL);
    if (rank > 0) sca_progress_to(NULL, NULL); /* the first speaks for all */
    sca_status status = sca_prepare(&o);
    if (status == SCA_OK && rank == 0) status = report(o.to, table ? table : "");
    sca_free(table);
    sca_model_close(model);
    return status == SCA_OK ? DONE : fail_now();
}

int run_prepare(const arguments *a)
{
    sca_config *settings;
    if (a->n_operands != 1) return fail_usage("prepare: expected one kind, found %d", a->n_operands);
    bool needs = strcmp(a->operands[0], "synthetic") != 0;
    if (needs && !a->value[OPTION_ANNOTATIONS]) return fail_usage("prepare: needs --annotations FILE|DIR");
    if (!a->value[OPTION_PREPARED]) return fail_usage("prepare: needs --to FILE");
    int result = arguments_config(a, &settings);
    if (result == DONE) {
        message_progress_of("prepare");
        result = ranks_join() == SCA_OK ? prepare(a, settings) : fail_now();
        sca_ranks_close(result != DONE);
    }
    sca_config_close(settings);
    return result;
}
