/* plot.c - sca plot: the curves of runs as one picture. */
#include "tool.h"

int run_plot(const arguments *a)
{
    curves *c = NULL;
    const char *to = a->value[OPTION_PICTURE];
    if (a->n_operands == 0) return fail_usage("plot: expected the folder of a training run");
    char *beside = to ? NULL : path_join(a->operands[0], "plot.svg");
    sca_status status = to || beside ? curves_open(a->operands, a->n_operands, &c) : mem_fail(64, "a file name");
    if (status == SCA_OK) status = curves_save(c, to ? to : beside);
    curves_close(c);
    mem_free(beside);
    return status == SCA_OK ? DONE : fail_now();
}
