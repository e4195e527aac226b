/* test_cli_score.c - sca score and sca prepare as a user calls them; the numbers themselves are test_score's. */
#define CLI_DIR SCA_BUILD "/cli-test-score"
#include "cli.h"

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

int main(int argc, char **argv)
{
    cli_start();
    RUN(scores_of_a_file);
    RUN(wrong_use);
    return check_done();
}
