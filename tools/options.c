/* options.c - the command line: options in any order, in any command that has them. */
#include "tool.h"

#include <stdlib.h>
#include <string.h>

typedef struct option {
    const char *name, *value, *settings, *help;
    unsigned groups;
} option;

static const option options[] = {
#define OPTION(id, name, value, settings, groups, help) { name, value, settings, help, groups },
#include "options.def"
#undef OPTION
};

/* ---- reading ----------------------------------------------------------------------------------------------- */

/* Finds "--name" or "--name=value"; *value is set for the latter. */
static const option *find(const char *text, unsigned groups, const char **value)
{
    size_t length = strcspn(text, "=");
    for (size_t i = 0; i < LENGTH(options); i++) {
        if (!(options[i].groups & groups)) continue;
        if (strlen(options[i].name) != length || memcmp(options[i].name, text, length) != 0) continue;
        *value = text[length] ? text + length + 1 : NULL;
        return &options[i];
    }
    return NULL;
}

static int fail_unknown(const char *command, const char *text, unsigned groups)
{
    const char *names[LENGTH(options)];
    size_t n = 0;
    for (size_t i = 0; i < LENGTH(options); i++)
        if (options[i].groups & groups) names[n++] = options[i].name;
    const char *near = text_nearest(text, names, n);
    return fail_usage("%s: unknown option %s%s%s; `sca %s --help` lists them", command, text,
                      near ? ", did you mean " : "", near ? near : "", command);
}

static int read_option(const char *command, unsigned groups, char ***next, arguments *out)
{
    const char *text = **next, *value;
    const option *o = find(text, groups, &value);
    if (!o) return fail_unknown(command, text, groups);
    enum option_id id = (enum option_id)(o - options);
    if (!o->value && value) return fail_usage("%s: %s takes no value, found %s", command, o->name, text);
    if (!o->value) value = "";
    if (!value) { /* the next argument, unless that is plainly an option itself */
        const char *unused;
        (*next)++;
        value = **next;
        if (!value || strcmp(value, "--") == 0 || (text_starts(value, "--") && find(value, groups, &unused)))
            return fail_usage("%s: %s needs a value: %s %s", command, o->name, o->name, o->value);
    }
    out->value[id] = value;
    if (o->groups & REGIONS) out->regions[out->n_regions++] = (argument){ id, value };
    (*next)++;
    return DONE;
}

int arguments_read(int argc, char **argv, const char *command, unsigned groups, arguments *out)
{
    *out = (arguments){ .command = command };
    size_t count = (size_t)argc + 1;
    out->operands = mem_zero(count, sizeof *out->operands);
    out->regions = mem_zero(count, sizeof *out->regions);
    if (!out->operands || !out->regions) {
        (void)mem_fail(count * sizeof *out->regions, "the command line");
        return fail_now();
    }
    bool options_end = false;
    for (char **next = argv; *next;) {
        if (options_end || (*next)[0] != '-' || (*next)[1] == 0) {
            out->operands[out->n_operands++] = *next++;
        } else if (strcmp(*next, "--") == 0) {
            options_end = true;
            next++;
        } else {
            int result = read_option(command, groups, &next, out);
            if (result != DONE) return result;
        }
    }
    return DONE;
}

void arguments_free(arguments *a)
{
    mem_free(a->operands);
    mem_free(a->regions);
    *a = (arguments){ 0 };
}

/* ---- settings ----------------------------------------------------------------------------------------------- */

static int set(const arguments *a, const option *o, const char *setting, size_t length, sca_config *settings)
{
    const char *value = o->value ? a->value[o - options] : "true";
    str assignment = { 0 };
    str_put_bytes(&assignment, setting, length);
    str_printf(&assignment, "=%s", value);
    if (assignment.failed) {
        (void)mem_fail(strlen(value), "the command line");
        return fail_now();
    }
    sca_status status = sca_config_set(settings, str_text(&assignment));
    str_free(&assignment);
    if (status == SCA_OK) return DONE;
    if (status == SCA_ERR_MEMORY) return fail_now();
    return fail_usage("%s: %s %s: %s", a->command, o->name, value, sca_last_error());
}

/* Applies what the options say to `config`. */
static int set_all(const arguments *a, sca_config *settings)
{
    for (size_t i = 0; i < LENGTH(options); i++) {
        const char *setting = options[i].settings;
        while (setting && a->value[i] && *setting) {
            size_t length = strcspn(setting, " ");
            int result = set(a, &options[i], setting, length, settings);
            if (result != DONE) return result;
            setting += length;
            setting += *setting == ' ';
        }
    }
    return DONE;
}

/* The one setting that the environment may give: it changes no result. */
static int set_trace(sca_config *settings)
{
    const char *wanted = getenv("SCA_TRACE");
    str assignment = { 0 };
    if (!wanted) return DONE;
    str_printf(&assignment, "run.trace=%s", wanted);
    sca_status status =
        assignment.failed ? mem_fail(strlen(wanted), "SCA_TRACE") : sca_config_set(settings, str_text(&assignment));
    str_free(&assignment);
    return status == SCA_OK ? DONE : fail_now();
}

int arguments_config(const arguments *a, sca_config **out)
{
    *out = NULL;
    if (sca_config_open(NULL, out)) return fail_now();
    int result = sca_config_set(*out, "generate.beams=1") == SCA_OK ? DONE : fail_now();
    if (result == DONE) result = set_trace(*out);
    if (result == DONE) result = set_all(a, *out);
    if (result == DONE) return DONE;
    sca_config_close(*out);
    *out = NULL;
    return result;
}

int arguments_config_file(const arguments *a, sca_config **out)
{
    *out = NULL;
    if (sca_config_open(a->operands[0], out)) return fail_now();
    int result = set_trace(*out);
    if (result == DONE) result = set_all(a, *out);
    for (int i = 1; i < a->n_operands && result == DONE; i++)
        if (sca_config_set(*out, a->operands[i])) result = fail_now();
    if (result == DONE) return DONE;
    sca_config_close(*out);
    *out = NULL;
    return result;
}

int arguments_need_model(const arguments *a)
{
    bool model = a->value[OPTION_MODEL], sam = a->value[OPTION_SAM], lm = a->value[OPTION_LM];
    if (model && (sam || lm)) return fail_usage("%s: --model excludes --sam and --lm", a->command);
    if (model || (sam && lm)) return DONE;
    if (sam || lm)
        return fail_usage("%s: %s needs %s beside it", a->command, sam ? "--sam" : "--lm", sam ? "--lm" : "--sam");
    return fail_usage("%s: needs --model DIR, or --sam and --lm", a->command);
}

/* ---- help --------------------------------------------------------------------------------------------------- */

void options_help(unsigned groups, str *text)
{
    for (size_t i = 0; i < LENGTH(options); i++) {
        if (!(options[i].groups & groups)) continue;
        size_t start = text->bytes;
        str_printf(text, "  %s%s%s", options[i].name, options[i].value ? " " : "",
                   options[i].value ? options[i].value : "");
        while (!text->failed && text->bytes - start < 29) str_putc(text, ' ');
        str_printf(text, " %s\n", options[i].help);
    }
}
