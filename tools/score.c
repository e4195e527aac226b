/* score.c - sca score: caption metrics of a file of predictions. */
#include "tool.h"

#include <limits.h>
#include <string.h>
#include <unistd.h>

char *resources_dir(void)
{
    char program[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", program, sizeof program - 1);
    if (n <= 0) return NULL;
    program[n] = 0;
    size_t dir = (size_t)(path_name(program) - program);
    str path = { 0 };
    char *result = NULL;
    str_put_bytes(&path, program, dir);
    str_put(&path, "resources");
    (void)str_take(&path, &result);
    str_free(&path);
    return result;
}

/* Messages, one per line, where the results are not. */
static void print_notes(const char *notes)
{
    while (*notes) {
        size_t n = strcspn(notes, "\n");
        char *line = text_copy(notes, n);
        if (line && n) message_note(line);
        mem_free(line);
        notes += n + (notes[n] == '\n');
    }
}

static sca_status score(const sca_score_options *o)
{
    char *scores = NULL, *notes = NULL;
    output out = { 0 };
    sca_status status = sca_score(o, &scores, &notes);
    if (status == SCA_OK) {
        print_notes(notes);
        str_put(&out.text, scores);
        status = output_finish(&out);
    }
    output_free(&out);
    sca_free(scores);
    sca_free(notes);
    return status;
}

int run_score(const arguments *a)
{
    if (a->n_operands != 1) return fail_usage("score: expected one file of predictions, found %d", a->n_operands);
    if (a->value[OPTION_SPICE_TUPLES] && a->value[OPTION_SPICE_COMMAND])
        return fail_usage("score: --spice-tuples excludes --spice-command");
    char *beside = resources_dir();
    sca_score_options o = { .results = a->operands[0],
                            .references = a->value[OPTION_REFERENCES],
                            .split = a->value[OPTION_SPLIT],
                            .tokenizer = a->value[OPTION_PTB],
                            .resources = a->value[OPTION_RESOURCES] ? a->value[OPTION_RESOURCES] : beside,
                            .tags = a->value[OPTION_TAGS],
                            .spice_tuples = a->value[OPTION_SPICE_TUPLES],
                            .spice_command = a->value[OPTION_SPICE_COMMAND],
                            .format = a->value[OPTION_SCORE_FORMAT],
                            .per_item = a->value[OPTION_PER_ITEM] != NULL,
                            .partial = a->value[OPTION_PARTIAL] != NULL,
                            .threads = (int)sysconf(_SC_NPROCESSORS_ONLN) };
    sca_status status = score(&o);
    mem_free(beside);
    return status == SCA_OK ? DONE : fail_now();
}
