/* eval.c - sca eval: a model over data sets; scores on standard output, files and a report in eval.output. */
#include "tool.h"

#include <string.h>

sca_status default_resources(sca_config *settings)
{
    char *value = NULL, *beside = NULL;
    str assignment = { 0 };
    sca_status status = sca_config_get(settings, "eval.resources", &value);
    if (status == SCA_OK && value[0] == 0 && (beside = resources_dir()) != NULL) {
        str_put(&assignment, "eval.resources=");
        str_put(&assignment, beside); /* a text setting is taken as it stands */
        status = assignment.failed ? mem_fail(assignment.bytes, "the settings")
                                   : sca_config_set(settings, str_text(&assignment));
    }
    str_free(&assignment);
    mem_free(beside);
    sca_free(value);
    return status;
}

static void put_scores(const json_t *root, str *s)
{
    size_t i;
    json_t *set;
    json_array_foreach(json_object_get(root, "sets"), i, set)
    {
        const json_t *scores = json_object_get(set, "scores");
        put_printable(s, json_string_value(json_object_get(set, "name")));
        str_put(s, ": ");
        put_printable(s, json_string_value(json_object_get(set, "protocol")));
        str_put(s, "; ");
        put_count(s, json_integer_value(json_object_get(set, "regions")));
        str_put(s, " regions\n");
        for (size_t k = 0; report_metrics[k].key; k++) {
            const json_t *value = json_object_get(scores, report_metrics[k].key);
            if (value)
                str_printf(s, "  %-20s %8.2f\n", report_metrics[k].key,
                           report_metrics[k].scale * json_number_value(value));
        }
    }
}

static sca_status results(const sca_config *settings, const char *text)
{
    char *dir = NULL;
    json_t *root = NULL;
    output out = { 0 };
    sca_status status;
    TRY_GOTO(done, sca_config_get(settings, "eval.output", &dir));
    TRY_GOTO(done, json_parse(text, strlen(text), "scores.json", &root));
    TRY_GOTO(done, report_write(dir, root));
    put_scores(root, &out.text);
    str_put(&out.text, "written to ");
    put_printable(&out.text, dir);
    str_put(&out.text, ": report.html, scores.json and the predictions\n");
    status = output_finish(&out);
done:
    output_free(&out);
    json_decref(root);
    sca_free(dir);
    return status;
}

static sca_status evaluate(sca_config *settings)
{
    sca_model *model = NULL;
    char *scores = NULL;
    int rank;
    sca_status status;
    sca_rank(&rank, NULL);
    if (rank > 0) sca_progress_to(NULL, NULL); /* the first speaks for all */
    TRY_GOTO(done, default_resources(settings));
    TRY_GOTO(done, sca_model_open(settings, &model));
    TRY_GOTO(done, sca_evaluate(model, settings, &scores));
    if (rank == 0) status = results(settings, scores);
done:
    sca_free(scores);
    sca_model_close(model);
    return status;
}

int run_eval(const arguments *a)
{
    sca_config *settings = NULL;
    if (a->n_operands == 0)
        return fail_usage("eval: expected a configuration file; `sca eval --help` shows the settings");
    int result = arguments_config_file(a, &settings);
    if (result == DONE) {
        message_progress_of("evaluate ");
        sca_status status = ranks_join();
        if (status == SCA_OK) status = evaluate(settings);
        if (status != SCA_OK) result = fail_now();
        sca_ranks_close(result != DONE);
    }
    sca_config_close(settings);
    return result;
}
