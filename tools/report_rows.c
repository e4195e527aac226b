/* report_rows.c - published results that a report shows beside ours, times 100, by what was evaluated.
 *
 * Sources: "Segment and Caption Anything" (arXiv 2312.00869), table 1 and the table of referring expressions on the
 * project page. Numbers of different protocols are never shown together. */
#include "report.h"

#include <string.h>

#define NO (-1)

const report_metric report_metrics[] = { { "CIDEr-D", "CIDEr-D", 100 },
                                         { "METEOR", "METEOR", 100 },
                                         { "METEOR-no-paraphrase", "METEOR without paraphrases", 100 },
                                         { "SPICE", "SPICE", 100 },
                                         { "BLEU-1", "BLEU-1", 100 },
                                         { "BLEU-2", "BLEU-2", 100 },
                                         { "BLEU-3", "BLEU-3", 100 },
                                         { "BLEU-4", "BLEU-4", 100 },
                                         { "ROUGE-L", "ROUGE-L", 100 },
                                         { "noun-recall", "Noun", 100 },
                                         { "verb-recall", "Verb", 100 },
                                         { "noun-recall-fuzzy", "Noun (fuzzy)", 100 },
                                         { "verb-recall-fuzzy", "Verb (fuzzy)", 100 },
                                         { "exact-match", "Exact", 100 },
                                         { "mask-iou", "Mask IoU", 100 },
                                         { "loss", "Loss", 1 },
                                         { NULL, NULL, 0 } };

/* source: the folder and file of the regions, where the kind holds several data sets. */
typedef struct row {
    const char *kind, *source, *split;
    published_row row;
} row;

#define SCA_GPT2 "SCA (GPT2-large, VG)"
#define SCA_LLAMA "SCA (LLAMA-3B, VG)"
#define SCA_PRETRAINED "SCA (GPT2-large, Pretrain+VG)"
/* As the columns above. */
#define ALL(c, m, s, b1, b2, b3, b4, r, n, v, nf, vf)                                                              \
    {                                                                                                              \
        c, m, NO, s, b1, b2, b3, b4, r, n, v, nf, vf, NO, NO, NO                                                   \
    }
#define TWO(m, c)                                                                                                  \
    {                                                                                                              \
        c, m, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO, NO                                               \
    }

static const row rows[] = {
    { "visual_genome",
      "",
      "test",
      { "GRiT", ALL(142.2, 17.2, 30.5, 36.0, 22.1, 15.2, 11.2, 34.5, 39.5, 4.3, 63.3, 7.2) } },
    { "visual_genome",
      "",
      "test",
      { SCA_GPT2, ALL(148.8, 17.4, 31.2, 38.0, 23.9, 16.6, 12.1, 35.5, 41.5, 4.8, 65.0, 7.6) } },
    { "visual_genome",
      "",
      "test",
      { SCA_LLAMA, ALL(149.8, 17.4, 31.3, 38.0, 23.9, 16.7, 12.2, 35.5, 41.2, 4.5, 64.6, 7.1) } },
    { "visual_genome",
      "",
      "test",
      { SCA_PRETRAINED, ALL(149.8, 17.5, 31.4, 38.2, 24.1, 16.8, 12.2, 35.7, 41.7, 4.8, 65.1, 7.5) } },
    { "refcoco", "refcocog/refs(google).p", "val", { SCA_GPT2, TWO(15.3, 70.5) } },
    { "refcoco", "refcocog/refs(google).p", "val", { SCA_LLAMA, TWO(15.6, 74.0) } },
    { "refcoco", "refcocog/refs(google).p", "val", { SCA_PRETRAINED, TWO(15.4, 71.9) } },
    { "refcoco", "refcoco+/refs(unc).p", "testA", { SCA_GPT2, TWO(21.7, 30.2) } },
    { "refcoco", "refcoco+/refs(unc).p", "testA", { SCA_LLAMA, TWO(22.0, 30.0) } },
    { "refcoco", "refcoco+/refs(unc).p", "testA", { SCA_PRETRAINED, TWO(21.7, 29.2) } },
    { "refcoco", "refcoco+/refs(unc).p", "testB", { SCA_GPT2, TWO(20.1, 56.6) } },
    { "refcoco", "refcoco+/refs(unc).p", "testB", { SCA_LLAMA, TWO(20.2, 56.1) } },
    { "refcoco", "refcoco+/refs(unc).p", "testB", { SCA_PRETRAINED, TWO(20.4, 57.2) } },
    { "refcoco", "refcoco/refs(unc).p", "testA", { SCA_GPT2, TWO(20.5, 27.7) } },
    { "refcoco", "refcoco/refs(unc).p", "testA", { SCA_LLAMA, TWO(20.7, 27.3) } },
    { "refcoco", "refcoco/refs(unc).p", "testA", { SCA_PRETRAINED, TWO(20.4, 27.0) } },
    { "refcoco", "refcoco/refs(unc).p", "testB", { SCA_GPT2, TWO(20.1, 66.7) } },
    { "refcoco", "refcoco/refs(unc).p", "testB", { SCA_LLAMA, TWO(20.3, 65.3) } },
    { "refcoco", "refcoco/refs(unc).p", "testB", { SCA_PRETRAINED, TWO(20.2, 66.4) } },
};

const published_row *published_next(const char *kind, const char *source, const char *split, size_t *at)
{
    while (*at < LENGTH(rows)) {
        const row *r = &rows[(*at)++];
        if (strcmp(r->kind, kind) == 0 && strcmp(source, r->source) == 0 && strcmp(r->split, split) == 0)
            return &r->row;
    }
    return NULL;
}
