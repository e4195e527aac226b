/* export.c - sca export: a model directory or file for others. */
#include "tool.h"

#include <string.h>

static bool known_dtype(const char *name)
{
    return !name || strcmp(name, "f32") == 0 || strcmp(name, "f16") == 0 || strcmp(name, "bf16") == 0;
}

static int export_model(const arguments *a, const sca_config *settings)
{
    const char *to = a->value[OPTION_TO];
    bool trained_only = a->value[OPTION_TRAINED_ONLY] != NULL;
    sca_model *model = NULL;
    output out = { 0 };
    sca_status status;
    TRY_GOTO(done, sca_model_open(settings, &model));
    TRY_GOTO(done, sca_model_export(model, to, a->value[OPTION_DTYPE], trained_only));
    put_printable(&out.text, to);
    str_printf(&out.text, ": written%s\n", trained_only ? ", trained part only" : "");
    status = output_finish(&out);
done:
    output_free(&out);
    sca_model_close(model);
    return status == SCA_OK ? DONE : fail_now();
}

int run_export(const arguments *a)
{
    sca_config *settings = NULL;
    int result = arguments_need_model(a);
    if (result == DONE && a->n_operands) result = fail_usage("export: takes no operand, found %s", a->operands[0]);
    if (result == DONE && !a->value[OPTION_TO])
        result = fail_usage("export: needs --to DIR or --to FILE.safetensors");
    if (result == DONE && !known_dtype(a->value[OPTION_DTYPE]))
        result = fail_usage("export: --dtype %s: expected f32, f16 or bf16", a->value[OPTION_DTYPE]);
    if (result == DONE) result = arguments_config(a, &settings);
    if (result == DONE) result = export_model(a, settings);
    sca_config_close(settings);
    return result;
}
