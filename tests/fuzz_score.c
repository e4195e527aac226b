/* fuzz_score.c - files of `sca score` from strangers. The first byte chooses which file the rest is: inference
 * records, COCO results, COCO captions, or tags and tuples of SPICE. */
#include "eval/eval.h"
#include "eval/score_parts.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int put_file(const void *data, size_t size, char path[64])
{
    int fd = memfd_create("score", MFD_CLOEXEC);
    if (fd < 0 || write(fd, data, size) != (ssize_t)size) __builtin_trap();
    snprintf(path, 64, "/proc/self/fd/%d", fd);
    return fd;
}

/* Refused with a message and no output, or scored with output that is JSON. */
static void run(const score_options *o)
{
    str out = { 0 }, notes = { 0 };
    json_t *value = NULL;
    if (score_run(o, &out, &notes) != SCA_OK) {
        if (out.bytes || !*status_message()) __builtin_trap();
    } else if (json_parse(out.data, out.bytes, "scores", &value) != SCA_OK)
        __builtin_trap();
    json_decref(value);
    str_free(&out);
    str_free(&notes);
}

/* METEOR data of a few words, for the synonyms of SPICE; made once. */
static meteor *small_meteor(void)
{
    static const char *const files[][2] = { { "english.words", "the\n" },
                                            { "english.prefixes", "" },
                                            { "english.synsets", "cat\n1 2\ndog\n2 3\nbe_on\n4\n" },
                                            { "english.exceptions", "cat\nkitten\n" },
                                            { METEOR_FILE, NULL } };
    static meteor *m;
    char dir[] = P_tmpdir "/sca-fuzz-XXXXXX", path[100];
    if (m) return m;
    if (!mkdtemp(dir)) __builtin_trap();
    for (size_t i = 0; i + 1 < LENGTH(files); i++) {
        snprintf(path, sizeof path, "%s/%s", dir, files[i][0]);
        if (file_write(path, files[i][1], strlen(files[i][1])) != SCA_OK) __builtin_trap();
    }
    snprintf(path, sizeof path, "%s/%s", dir, METEOR_FILE);
    if (meteor_make(dir, path) != SCA_OK || meteor_open(path, &m) != SCA_OK) __builtin_trap();
    for (size_t i = 0; i < LENGTH(files); i++) {
        snprintf(path, sizeof path, "%s/%s", dir, files[i][0]);
        unlink(path);
    }
    rmdir(dir);
    return m;
}

/* The same bytes as tags and as tuples. */
static void tags_and_tuples(const char *path)
{
    const char *refs[] = { "a dog" };
    const eval_item item = { "a cat", refs, 1 };
    const spice_texts t = { &item, &item, 1 };
    double mean;
    tags *tagged = NULL;
    recall_scores x;
    if (tags_open(path, &tagged) == SCA_OK) (void)recall_score(tagged, &item, 1, &x);
    tags_close(tagged);
    if (spice_from_file(small_meteor(), path, &t, &mean, NULL) == SCA_OK && !(mean >= 0 && mean <= 1))
        __builtin_trap();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char results[] =
        "[{\"image_id\": 1, \"caption\": \"a dog\"}, {\"image_id\": 2, \"caption\": \"b\"}]";
    static const char captions[] =
        "{\"images\": [{\"id\": 1}, {\"id\": \"x\"}], \"annotations\": [{\"image_id\": 1, "
        "\"caption\": \"a dog\"}, {\"image_id\": \"x\", \"caption\": \"b\"}]}";
    char path[64], other[64];
    if (size == 0) return 0;
    int kind = data[0] % 8, fd = put_file(data + 1, size - 1, path), second;
    score_options o = { .results = path, .format = SCORE_JSON, .per_item = true, .partial = kind >= 4 };
    second = kind % 4 == 2 ? put_file(results, sizeof results - 1, other)
                           : put_file(captions, sizeof captions - 1, other);
    if (kind % 4 == 1) o.references = other;
    if (kind % 4 == 2) o.results = other, o.references = path;
    if (kind % 4 == 3)
        tags_and_tuples(path);
    else
        run(&o);
    close(fd);
    close(second);
    return 0;
}
