/* test_cli_score.c - sca score and sca prepare as a user calls them; the numbers themselves are test_score's. */
#define CLI_DIR SCA_BUILD "/cli-test-score"
#include "cli.h"

#include "data/data.h"

#define RECORDS CLI_DIR "/records.json"
#define COCO CLI_DIR "/coco.json"
#define CAPTIONS CLI_DIR "/captions.json"

static void write_inputs(void)
{
    static const char records[] =
        "[{\"_id\": 0, \"split\": \"inference\", \"references\": [\"a red ball on the grass\"], "
        "\"candidates\": [\"a red ball on the grass\"]}, {\"_id\": 1, \"split\": "
        "\"inference\", \"references\": [\"two dogs\"], \"candidates\": [\"two cats\"]}]";
    static const char coco[] = "[{\"image_id\": 7, \"caption\": \"a dog runs\"}]";
    static const char captions[] = "{\"images\": [{\"id\": 7}], \"annotations\": [{\"id\": 1, \"image_id\": 7, "
                                   "\"caption\": \"the dog runs fast\"}]}";
    CHECK_OK(file_write(RECORDS, records, sizeof records - 1));
    CHECK_OK(file_write(COCO, coco, sizeof coco - 1));
    CHECK_OK(file_write(CAPTIONS, captions, sizeof captions - 1));
}

static void scores_of_a_file(void)
{
    write_inputs();
    json_t *r = cli_json("score " RECORDS " --format json --resources " CLI_DIR);
    CHECK(json_integer_value(json_object_get(r, "regions")) == 2);
    CHECK(json_real_value(json_object_get(r, "BLEU-1")) > 0.8 && !json_object_get(r, "METEOR"));
    CHECK(!json_object_get(r, "items"));
    json_decref(r);
    r = cli_json("score --per-item --format json " RECORDS);
    CHECK(json_array_size(json_object_get(r, "items")) == 2);
    json_decref(r);
    cli_expect("score " RECORDS " --resources " CLI_DIR, 0, "CIDEr-D", "METEOR");
    cli_expect("score --per-item " RECORDS, 0, "CIDEr-D", "left out");
    cli_expect("score " RECORDS " --split ''", 0, "CIDEr-D", "left out");
    cli_expect("score " COCO " --references " CAPTIONS " --format markdown", 0, "|", "left out");
}

static void wrong_use(void)
{
    write_inputs();
    cli_expect("score", 2, "", "one file");
    cli_expect("score " RECORDS " " COCO, 2, "", "one file");
    cli_expect("score " RECORDS " --format yaml", 1, "", "yaml");
    cli_expect("score " RECORDS " --spice-tuples a --spice-command b", 2, "", "excludes");
    cli_expect("score " CLI_DIR "/nothing.json", 1, "", "nothing.json");
    cli_expect("score " COCO, 1, "", "references");
    cli_expect("score " RECORDS " --split other", 1, "", "other");
    cli_expect("score --help", 0, "--spice-command", "");
    cli_expect("prepare", 2, "", "one kind");
    cli_expect("prepare meteor", 2, "", "--annotations");
    cli_expect("prepare meteor --annotations " CLI_DIR, 2, "", "--to");
    cli_expect("prepare pictures --annotations " CLI_DIR " --to " CLI_DIR "/x", 1, "", "pictures");
    cli_expect("prepare meteor --annotations " CLI_DIR " --to " CLI_DIR "/x", 1, "", "english.words");
}

/* ---- data sets made into stores ------------------------------------------------------------------------------ */

static void prepare_sets(void)
{
    config_dataset set = { .kind = "store", .annotations = CLI_DIR "/e.h5" };
    dataset *d = NULL;
    cli_expect("prepare synthetic --annotations count=3,size=32 --split val --task recognition --jpeg --to " CLI_DIR
               "/s.h5",
               0, "bytes of image files", "");
    cli_expect("prepare synthetic --annotations count=2,size=32 --embeddings f16 --model " CLI_MODEL
               " --to " CLI_DIR "/e.h5",
               0, "bytes of image embeddings", "");
    cli_expect("prepare synthetic --embeddings f16 --to " CLI_DIR "/x.h5", 2, "", "--model");
    cli_expect("prepare synthetic --embeddings f64 --model " CLI_MODEL " --to " CLI_DIR "/x.h5", 1, "",
               "expected f16 or f32");
    cli_expect("prepare synthetic --annotations count=2,shapes=2,phrases=labels --phrases --to " CLI_DIR "/p.jsonl",
               0, "2 images, 4 phrases", "");
    cli_expect("prepare synthetic --phrases --jpeg --to " CLI_DIR "/x.h5", 1, "", "neither image files");
    cli_stdin = CLI_DIR "/p.jsonl";
    cli_expect("tokenize --learn 300 --to " CLI_DIR "/learnt", 0, "", "258 tokens");
    cli_expect("prepare coco --annotations none.json --to " CLI_DIR "/x.h5", 1, "", "give 'images'");
    cli_expect("prepare synthetic --split dev --to " CLI_DIR "/x.h5", 1, "", "expected train, val or test");
    CHECK(!file_exists(CLI_DIR "/x.h5") && !file_exists(CLI_DIR "/e.h5.part-0"));
    CHECK_OK(dataset_open(&set, &d));
    const embeddings_info *e = d ? dataset_embeddings(d) : NULL;
    CHECK(e && e->f16 && e->grid > 0 && strlen(e->encoder) == 16);
    dataset_close(d);
    strcpy(set.annotations, CLI_DIR "/s.h5");
    CHECK_OK(dataset_open(&set, &d));
    CHECK(d && dataset_count(d) == 3 && dataset_recognition(d) && strcmp(dataset_split(d), "val") == 0);
    dataset_close(d);
}

int main(int argc, char **argv)
{
    cli_start();
    RUN(scores_of_a_file);
    RUN(wrong_use);
    RUN(prepare_sets);
    return check_done();
}
