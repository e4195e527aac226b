/* prepare.c - sca prepare: files of others made quick to open. */
#include "tool.h"

int run_prepare(const arguments *a)
{
    if (a->n_operands != 1) return fail_usage("prepare: expected one kind, found %d", a->n_operands);
    if (!a->value[OPTION_ANNOTATIONS]) return fail_usage("prepare: needs --annotations FILE|DIR");
    if (!a->value[OPTION_PREPARED]) return fail_usage("prepare: needs --to FILE");
    sca_prepare_options o = { a->operands[0], a->value[OPTION_ANNOTATIONS], a->value[OPTION_PREPARED] };
    output out = { 0 };
    sca_status status = sca_prepare(&o);
    if (status == SCA_OK) {
        put_printable(&out.text, o.to);
        str_put(&out.text, ": written\n");
        status = output_finish(&out);
    }
    output_free(&out);
    return status == SCA_OK ? DONE : fail_now();
}
