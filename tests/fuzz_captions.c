/* fuzz_captions.c - captions from strangers through both tokenisers and the metrics on their tokens. */
#include "eval/eval.h"

#include <math.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* One line per caption, tokens in lower case without their punctuation, scores finite. */
static void score_captions(ptb *p, const char *const *captions, size_t n)
{
    texts lines = { 0 };
    if (ptb_captions(p, captions, n, &lines) != SCA_OK || lines.count != n) __builtin_trap();
    const char *hyp = texts_get(&lines, 0), *refs[8];
    for (size_t i = 0; i + 1 < n && i < 8; i++) refs[i] = texts_get(&lines, i + 1);
    const eval_item items[] = { { hyp, refs, n - 1 }, { refs[0], &hyp, 1 } };
    grams *g;
    double bleu[4], rouge, cider;
    if (grams_open(items, 2, &g) != SCA_OK || rouge_score(items, 2, &rouge, NULL) != SCA_OK ||
        cider_score(g, false, &cider, NULL) != SCA_OK)
        __builtin_trap();
    bleu_score(g, bleu, NULL);
    if (!(bleu[3] <= 1.000001) || !(rouge <= 1.000001) || !(cider <= 10.000001)) __builtin_trap();
    grams_close(g);
    texts_free(&lines);
}

/* The text as one stream, and its lines (at most 5) as captions. */
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static ptb *tokenisers[2];
    const char *captions[5];
    char *copy[5];
    size_t n = 0;
    for (size_t start = 0, end; n < 5 && start <= size; start = end + 1) {
        for (end = start; end < size && data[end] != '\n' && data[end] != 0; end++) continue;
        copy[n] = text_copy((const char *)data + start, end - start);
        if (!copy[n]) __builtin_trap();
        captions[n] = copy[n], n++;
    }
    for (int i = 0; i < 2; i++) {
        texts lines = { 0 };
        if (!tokenisers[i] && ptb_open(i ? PTB_3_4_1 : PTB_3_6_0, &tokenisers[i]) != SCA_OK) __builtin_trap();
        if (ptb_lines(tokenisers[i], (const char *)data, size, true, &lines) != SCA_OK) __builtin_trap();
        texts_free(&lines);
        if (n > 1) score_captions(tokenisers[i], captions, n);
    }
    for (size_t i = 0; i < n; i++) mem_free(copy[i]);
    return 0;
}
