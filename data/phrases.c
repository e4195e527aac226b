/* phrases.c - the texts of a data set alone, for learning a vocabulary from them. */
#include "data/data.h"

#include <string.h>

/* Every phrase of an image's regions, a line {"text": ...} each. */
static sca_status put_phrases(const dataset *d, int64_t index, file_out *to, str *line, int64_t *n)
{
    data_sample s;
    sca_status status = dataset_read(d, index, &s);
    for (size_t i = 0; i < s.n_regions && status == SCA_OK; i++)
        for (size_t k = 0; k < s.regions[i].n_phrases; k++, ++*n) {
            const char *text = s.regions[i].phrases[k];
            str_put(line, "{\"text\": ");
            json_put_text(line, text, strlen(text));
            str_put(line, "}\n");
        }
    sample_free(&s);
    if (status == SCA_OK && line->failed) status = mem_fail(line->bytes, "phrases");
    if (status == SCA_OK) status = file_out_put(to, str_text(line), line->bytes);
    str_clear(line);
    return status;
}

sca_status prepare_phrases(const config_dataset *set, const char *to, str *table)
{
    dataset *d = NULL;
    file_out *out = NULL, *whole;
    str line = { 0 };
    int64_t n = 0;
    sca_status status;
    TRY_GOTO(done, dataset_open(set, &d));
    TRY_GOTO(done, file_out_open(to, &out));
    for (int64_t i = 0; i < dataset_count(d); i++) {
        TRY_GOTO(done, put_phrases(d, i, out, &line, &n));
        progress("prepare", i + 1, dataset_count(d));
    }
    whole = out;
    out = NULL;
    TRY_GOTO(done, file_out_commit(whole));
    str_printf(table, "%lld images, %lld phrases\n", (long long)dataset_count(d), (long long)n);
done:
    file_out_abort(out);
    str_free(&line);
    dataset_close(d);
    return status;
}
