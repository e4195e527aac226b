/* test_vocabulary.c - vocabularies learnt from texts (tokenizer_learn.c). */
#include "base/fault.h"
#include "tokenizer_common.h"

#define OUT SCA_BUILD "/vocabulary"

static const char *const texts[] = { "low low low low low", "lower lower newest newest newest",
                                     "newest newest newest", "widest widest widest",
                                     "the caf\xc3\xa9 \xf0\x9f\x98\x80 isn't low" };

static sca_status learn_into(int size, const char *dir, int *n)
{
    bpe_learner *l = NULL;
    sca_status status;
    TRY_GOTO(out, bpe_learner_open(size, &l));
    for (size_t i = 0; i < LENGTH(texts); i++) TRY_GOTO(out, bpe_learner_add(l, texts[i], strlen(texts[i])));
    TRY_GOTO(out, bpe_learner_save(l, dir, n));
out:
    bpe_learner_close(l);
    return status;
}

/* The merges that Hugging Face's tokenizers 0.15 (ByteLevelBPETokenizer, min_frequency 2) learns from these texts. */
static void merges_as_the_reference(void)
{
    static const char expected[] = "#version: 0.2\n"
                                   "e s\n"
                                   "es t\n"
                                   "l o\n"
                                   "lo w\n"
                                   "e w\n"
                                   "n ew\n"
                                   "\xc4\xa0 low\n"
                                   "new est\n"
                                   "\xc4\xa0 newest\n"
                                   "d est\n"
                                   "i dest\n"
                                   "w idest\n"
                                   "e r\n"
                                   "\xc4\xa0 widest\n";
    int n = 0;
    char *text = NULL;
    size_t bytes;
    CHECK_OK(learn_into(400, OUT, &n));
    CHECK_OK(file_read(OUT "/merges.txt", 1 << 20, &text, &bytes));
    CHECKF(strcmp(text, expected) == 0, "merges are %s", text);
    mem_free(text);
}

static void texts_come_back(void)
{
    int n = 0;
    tokenizer *t = NULL;
    CHECK_OK(learn_into(271, OUT, &n));
    CHECK(n == 271);
    CHECK_OK(tokenizer_open(OUT, &t));
    CHECK(tokenizer_size(t) == 271);
    CHECK(tokenizer_bos(t) == 270);
    for (size_t i = 0; i < LENGTH(texts); i++) {
        int *ids = NULL, count = 0;
        char *back = NULL;
        CHECK_OK(tokenizer_encode(t, texts[i], strlen(texts[i]), false, &ids, &count));
        CHECK(count > 0 && (size_t)count < strlen(texts[i]));
        CHECK_OK(tokenizer_decode(t, ids, count, true, &back));
        CHECKF(strcmp(back, texts[i]) == 0, "'%s' came back as '%s'", texts[i], back);
        mem_free(ids);
        mem_free(back);
    }
    tokenizer_close(t);
}

static void refusals(void)
{
    bpe_learner *l = NULL;
    int n = 0;
    CHECK_FAILS(bpe_learner_open(256, &l), SCA_ERR_ARGUMENT, "256");
    CHECK_OK(bpe_learner_open(300, &l));
    CHECK_FAILS(bpe_learner_save(l, OUT, &n), SCA_ERR_STATE, "no text");
    CHECK_OK(bpe_learner_add(l, "a\xff b", 4)); /* malformed bytes are U+FFFD */
    CHECK_OK(bpe_learner_save(l, OUT, &n));
    CHECK(n == 257);
    CHECK_FAILS(bpe_learner_save(l, OUT, &n), SCA_ERR_STATE, "before");
    bpe_learner_close(l);
}

/* A regular expression does without its compiled form, and an existing folder without being made. */
static void failures_are_told(void)
{
    for (int io = 0; io < 2; io++) {
        bool fired = true;
        int failed = 0, n = 0;
        for (int64_t nth = 1; fired; nth++) {
            (io ? fault_io : fault_alloc)(nth);
            sca_status status = learn_into(262, OUT, &n);
            fired = fault_fired();
            (io ? fault_io : fault_alloc)(0);
            failed += status != SCA_OK;
            CHECKF(status == SCA_OK || (fired && status == (io ? SCA_ERR_IO : SCA_ERR_MEMORY)), "fault %d: %s",
                   (int)nth, sca_last_error());
        }
        CHECKF(failed >= 3, "%d failures", failed);
    }
}

int main(int argc, char **argv)
{
    RUN(merges_as_the_reference);
    RUN(texts_come_back);
    RUN(refusals);
    RUN(failures_are_told);
    return check_done();
}
