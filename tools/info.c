/* info.c - sca info: the build, a model's parameters, the memory it needs. The library answers in JSON; this lays
 * the tables out for people. */
#include "tool.h"

#include <string.h>

/* ---- tables ----------------------------------------------------------------------------------------------------
 */

enum { NAME_COLUMN = 34, NUMBER_COLUMN = 18 };

static void put_spaces(str *s, size_t n)
{
    while (n-- > 0) str_putc(s, ' ');
}

static void put_name(str *s, const char *name)
{
    size_t start = s->bytes;
    put_printable(s, name);
    if (s->bytes - start < NAME_COLUMN) put_spaces(s, NAME_COLUMN - (s->bytes - start));
}

static void put_right(str *s, const str *cell)
{
    if (cell->bytes < NUMBER_COLUMN) put_spaces(s, NUMBER_COLUMN - cell->bytes);
    str_put(s, str_text(cell));
}

static void put_number(str *s, int64_t n)
{
    str cell = { 0 };
    put_count(&cell, n);
    put_right(s, &cell);
    str_free(&cell);
}

static void put_mib(str *s, int64_t bytes)
{
    str cell = { 0 };
    str_printf(&cell, "%.1f MiB", (double)bytes / (1 << 20));
    put_right(s, &cell);
    str_free(&cell);
}

static void put_row(str *s, const char *name, int64_t all, int64_t trained)
{
    put_name(s, name);
    put_number(s, all);
    put_number(s, trained);
    str_putc(s, '\n');
}

/* Text as it is, numbers with their groups of digits, lists with commas. */
static void put_value(str *s, const json_t *value)
{
    size_t i;
    json_t *item;
    if (json_is_string(value)) {
        put_printable(s, json_string_value(value));
    } else if (json_is_integer(value)) {
        put_count(s, json_integer_value(value));
    } else if (json_is_real(value)) {
        str_printf(s, "%g", json_real_value(value));
    } else if (json_is_array(value)) {
        json_array_foreach((json_t *)(uintptr_t)value, i, item)
        {
            if (i) str_put(s, ", ");
            put_value(s, item);
        }
    } else {
        str_put(s, json_is_true(value) ? "yes" : "no");
    }
}

static void put_facts(str *s, const json_t *facts)
{
    const char *name;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)facts, name, value)
    {
        str_put(s, "  ");
        put_name(s, name);
        put_value(s, value);
        str_putc(s, '\n');
    }
}

/* ---- build ------------------------------------------------------------------------------------------------------
 */

static void put_build(str *s, const json_t *build)
{
    str_put(s, "sca ");
    put_value(s, json_object_get(build, "version"));
    str_put(s, "\ndevices: ");
    put_value(s, json_object_get(build, "devices"));
    str_put(s, "\nrepeated work: devices cuda (CUDA graphs) and simt start it as a whole; --variants graphs=off: "
               "op by op");
    str_put(s, "\nvariants (--variants SLOT=NAME,...; our own unless one is named):\n");
    put_facts(s, json_object_get(build, "variants"));
    str_put(s, "built with:\n");
    put_facts(s, json_object_get(build, "libraries"));
}

/* ---- model
 * ------------------------------------------------------------------------------------------------------- */

static int64_t trained_of(const json_t *part)
{
    const json_t *trained = json_object_get(part, "trained");
    if (json_is_integer(trained)) return json_integer_value(trained);
    return json_is_true(trained) ? json_integer_value(json_object_get(part, "parameters")) : 0;
}

static void put_model(str *s, const json_t *model)
{
    size_t i;
    json_t *part;
    str_put(s, "\nmodel: ");
    put_value(s, json_object_get(model, "model"));
    str_putc(s, '\n');
    put_facts(s, json_object_get(model, "sizes"));
    str cell = { 0 };
    str_putc(s, '\n');
    put_name(s, "part");
    str_put(&cell, "parameters");
    put_right(s, &cell);
    str_clear(&cell);
    str_put(&cell, "trained");
    put_right(s, &cell);
    str_free(&cell);
    str_putc(s, '\n');
    json_array_foreach(json_object_get(model, "parts"), i, part)
    {
        put_row(s, json_string_value(json_object_get(part, "name")),
                json_integer_value(json_object_get(part, "parameters")), trained_of(part));
    }
    int64_t total = json_integer_value(json_object_get(model, "total"));
    int64_t trained = json_integer_value(json_object_get(model, "trained"));
    put_row(s, "total", total, trained);
    if (total > 0) str_printf(s, "trained share: %.3f %%\n", 100.0 * (double)trained / (double)total);
}

/* ---- plan
 * --------------------------------------------------------------------------------------------------------- */

static void put_plan(str *s, const json_t *plan, int regions)
{
    size_t i;
    json_t *arena;
    str_printf(s, "\nmemory of one photo with %d regions:\n", regions);
    json_array_foreach(json_object_get(plan, "arenas"), i, arena)
    {
        str_put(s, "  ");
        put_name(s, json_string_value(json_object_get(arena, "name")));
        put_mib(s, json_integer_value(json_object_get(arena, "bytes")));
        str_putc(s, '\n');
    }
    str_put(s, "  ");
    put_name(s, "total");
    put_mib(s, json_integer_value(json_object_get(plan, "total_bytes")));
    str_putc(s, '\n');
}

/* ---- command
 * ------------------------------------------------------------------------------------------------------ */

/* Takes over `text`, which the library handed out. */
static sca_status parse(char *text, json_t **out)
{
    sca_status status = json_parse(text, strlen(text), "the library's answer", out);
    sca_free(text);
    return status;
}

static sca_status put_all(const arguments *a, const sca_config *settings, int regions, str *s)
{
    char *text = NULL;
    json_t *build = NULL, *model = NULL, *plan = NULL;
    sca_status status;
    TRY_GOTO(done, sca_build_info(&text));
    TRY_GOTO(done, parse(text, &build));
    put_build(s, build);
    if (!a->value[OPTION_MODEL] && !a->value[OPTION_SAM]) goto done;
    TRY_GOTO(done, sca_model_info(settings, &text));
    TRY_GOTO(done, parse(text, &model));
    put_model(s, model);
    if (!a->value[OPTION_PLAN]) goto done;
    TRY_GOTO(done, sca_plan(settings, regions, &text));
    TRY_GOTO(done, parse(text, &plan));
    put_plan(s, plan, regions);
done:
    json_decref(plan);
    json_decref(model);
    json_decref(build);
    return status;
}

static int print_info(const arguments *a, const sca_config *settings, int regions)
{
    output out = { 0 };
    sca_status status = put_all(a, settings, regions, &out.text);
    if (status == SCA_OK) status = output_finish(&out);
    output_free(&out);
    return status == SCA_OK ? DONE : fail_now();
}

int run_info(const arguments *a)
{
    const char *count = a->value[OPTION_PLAN_REGIONS];
    int64_t regions = 16;
    sca_config *settings = NULL;
    int result = DONE;
    if (a->n_operands) return fail_usage("info: takes no operand, found %s", a->operands[0]);
    if (a->value[OPTION_PLAN] || a->value[OPTION_MODEL] || a->value[OPTION_SAM] || a->value[OPTION_LM])
        result = arguments_need_model(a);
    if (result == DONE && count && !text_to_int(count, 1, 1000000, &regions))
        result = fail_usage("info: --regions %s: expected an integer from 1 to 1000000", count);
    if (result == DONE) result = arguments_config(a, &settings);
    if (result == DONE) result = print_info(a, settings, (int)regions);
    sca_config_close(settings);
    return result;
}
