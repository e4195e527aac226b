/* test_cli_eval.c - sca eval and its report, on the small model and photo of docs/demo as a data set. */
#define CLI_DIR SCA_BUILD "/cli-test-eval"
#include "cli.h"

#include "data/data.h"

#include <math.h>

#define SETS CLI_DIR "/captions.json"
#define CONFIG CLI_DIR "/eval.yaml"
#define RESULTS CLI_DIR "/results"
#define BROWSER                                                                                                    \
    "timeout 100 chromium --headless --no-sandbox --disable-gpu --allow-file-access-from-files "                   \
    "--enable-logging=stderr"

static void write_set(void)
{
    static const char captions[] =
        "{\"images\": [{\"id\": 3, \"file_name\": \"photo.jpg\", \"width\": 64, \"height\": 48}],\n"
        "\"annotations\": [{\"id\": 11, \"image_id\": 3, \"bbox\": [1, 2, 20, 30], \"caption\": \"a <b>bold</b> & "
        "\\\"quoted\\\" dog\", \"segmentation\": [[0, 0, 512, 0, 512, 640, 0, 640]]},\n"
        "{\"id\": 12, \"image_id\": 3, \"bbox\": [5.5, 2, 9999, 30], \"caption\": \"two cats\", \"segmentation\": "
        "{\"size\": [640, 512], \"counts\": [0, 327680]}}],\n"
        "\"categories\": [{\"id\": 1, \"name\": \"object\"}]}\n";
    static const char yaml[] =
        "model: {path: " CLI_MODEL "}\n"
        "data:\n"
        "  eval:\n"
        "    - {kind: grit, annotations: " SETS ", images: " SCA_SOURCE "/docs/demo, name: demo}\n"
        "eval: {output: " RESULTS "}\n"
        "generate: {beams: 2, max_tokens: 8}\n";
    CHECK(system("rm -rf " RESULTS) == 0);
    CHECK_OK(file_write(SETS, captions, sizeof captions - 1));
    CHECK_OK(file_write(CONFIG, yaml, sizeof yaml - 1));
}

/* The annotated masks are the whole photo, so the IoU is the share of the photo that the mask covers. */
static void mask_iou_of_annotations(void)
{
    json_t *scores = NULL, *details = NULL, *item;
    double sum = 0;
    size_t i;
    CHECK_OK(json_open(RESULTS "/scores.json", &scores));
    CHECK_OK(json_open(RESULTS "/demo/details.json", &details));
    json_array_foreach(json_object_get(details, "gallery"), i, item)
    {
        mask_runs runs;
        CHECK_OK(mask_runs_parse(json_string_value(json_object_get(item, "mask")), 512, 640, &runs));
        sum += (double)mask_area(&runs) / (512 * 640);
        mask_runs_free(&runs);
    }
    const json_t *set = json_array_get(json_object_get(scores, "sets"), 0);
    double found = json_number_value(json_object_get(json_object_get(set, "scores"), "mask-iou"));
    CHECKF(sum > 0 && fabs(found - sum / 2) < 1e-12, "mask IoU %.9f, expected %.9f", found, sum / 2);
    json_decref(scores);
    json_decref(details);
}

static void results_and_report(void)
{
    write_set();
    cli_expect("eval " CONFIG " eval.loss=true", 0,
               "demo: grit captions.json, all regions of each image; 2 regions", "left out");
    json_t *scores = NULL, *predictions = NULL, *scored = NULL;
    CHECK_OK(json_open(RESULTS "/scores.json", &scores));
    CHECK_OK(json_open(RESULTS "/demo/predictions.json", &predictions));
    CHECK_OK(json_open(RESULTS "/demo/scored.json", &scored));
    CHECK(json_array_size(json_object_get(scores, "sets")) == 1);
    CHECK(json_array_size(predictions) == 2 && json_array_size(scored) == 2);
    const json_t *reference = json_array_get(json_object_get(json_array_get(scored, 0), "references"), 0);
    CHECK(strcmp(json_string_value(reference), "a <b>bold</b> & \"quoted\" dog") == 0);
    json_decref(scores);
    json_decref(predictions);
    json_decref(scored);
    mask_iou_of_annotations();
    char *page = cli_read(RESULTS "/report.html");
    CHECK(strlen(page) > 5000 && strlen(page) < 5000000);
    CHECK(strstr(page, "a &lt;b&gt;bold&lt;/b&gt; &amp; &quot;quoted&quot; dog"));
    CHECK(strstr(page, "data:image/jpeg;base64,/9j/") && strstr(page, "viewport") && strstr(page, "<svg"));
    CHECK(strstr(page, "grit captions.json, all regions of each image; 1 image, 2 regions"));
    CHECK(!strstr(page, "<script") && !strstr(page, "http") && !strstr(page, "<b>bold") && !strstr(page, "url("));
    mem_free(page);
    cli_expect("score " RESULTS "/demo/scored.json", 0, "CIDEr-D", "left out");
}

/* METEOR's tables are found beside the program, for both commands; without paraphrases the number has another name. */
static void meteor_beside_the_program(void)
{
    static const char *const lines[] = {
        "rm -rf " CLI_DIR "/bin && mkdir -p " CLI_DIR "/bin/resources && cp " CLI_SCA " " CLI_DIR "/bin/sca",
        CLI_DIR "/bin/sca prepare meteor --annotations " SCA_SOURCE "/tests/golden/metrics/meteor --to " CLI_DIR
                "/bin/resources/meteor-en.data >/dev/null",
        CLI_DIR "/bin/sca eval " CONFIG " >" CLI_DIR "/bin/eval 2>&1",
        CLI_DIR "/bin/sca score " RESULTS "/demo/scored.json >" CLI_DIR "/bin/score 2>&1"
    };
    json_t *root = NULL;
    write_set();
    for (size_t i = 0; i < LENGTH(lines); i++) CHECKF(system(lines[i]) == 0, "%s", lines[i]);
    CHECK_OK(json_open(RESULTS "/scores.json", &root));
    const json_t *scores = json_object_get(json_array_get(json_object_get(root, "sets"), 0), "scores");
    CHECK(json_is_number(json_object_get(scores, "METEOR-no-paraphrase")) && !json_object_get(scores, "METEOR"));
    json_decref(root);
    char *eval = cli_read(CLI_DIR "/bin/eval"), *score = cli_read(CLI_DIR "/bin/score"),
         *page = cli_read(RESULTS "/report.html");
    CHECKF(strstr(eval, "METEOR-no-paraphrase takes its place"), "%s", eval);
    CHECKF(strstr(score, "METEOR-no-paraphrase takes its place"), "%s", score);
    CHECK(strstr(page, "<th>METEOR without paraphrases</th>") && !strstr(page, "<th>METEOR</th>"));
    mem_free(eval);
    mem_free(score);
    mem_free(page);
    CHECK(system("rm -rf " CLI_DIR "/bin") == 0);
}

/* SPICE of a command that stands in for the jar; a command that fails ends the run, without one there is no SPICE. */
static void spice_of_a_command(void)
{
    static const char script[] = "echo '[{\"image_id\": 0, \"scores\": {\"All\": {\"f\": 0.5}}}, {\"image_id\": 1, "
                                 "\"scores\": {\"All\": {\"f\": 0.25}}}]' > \"$3\"\n";
    static const char *const commands[] = { "sh " CLI_DIR "/spice.sh", "exit 4;" };
    CHECK_OK(file_write(CLI_DIR "/spice.sh", script, sizeof script - 1));
    for (size_t i = 0; i < LENGTH(commands); i++) {
        write_set();
        char *yaml = cli_read(CONFIG);
        str with = { 0 };
        str_put_bytes(&with, yaml, (size_t)(strstr(yaml, "eval: {") - yaml));
        str_printf(&with, "eval: {output: " RESULTS ", spice_command: '%s'}\ngenerate: {max_tokens: 4}\n",
                   commands[i]);
        CHECK_OK(file_write(CONFIG, with.data, with.bytes));
        cli_expect("eval " CONFIG, i ? 1 : 0, i ? "" : "SPICE                   37.50",
                   i ? "exit status 4" : "recall are left out");
        str_free(&with);
        mem_free(yaml);
        if (i) continue;
        char *page = cli_read(RESULTS "/report.html"), *scores = cli_read(RESULTS "/scores.json");
        CHECK(strstr(page, "<th>SPICE</th>") && strstr(page, "<td>37.50</td>") &&
              strstr(scores, "\"SPICE\": 0.375"));
        CHECK(!strstr(scores, "SPICE is left out"));
        mem_free(page);
        mem_free(scores);
    }
}

/* The same again, shared out: every file is the same. */
static void same_under_a_launcher(void)
{
    static const char *const names[] = { "scores.json", "report.html", "demo/predictions.json",
                                         "demo/details.json" };
    if (system("command -v mpirun >/dev/null 2>&1") != 0) {
        check_skip("mpi: no mpirun");
        return;
    }
    char *before[LENGTH(names)], path[512];
    write_set();
    cli_expect("eval " CONFIG, 0, "2 regions", "left out");
    for (size_t i = 0; i < LENGTH(names); i++) {
        snprintf(path, sizeof path, RESULTS "/%s", names[i]);
        before[i] = cli_read(path);
    }
    CHECK(system("rm -rf " RESULTS) == 0);
    CHECK(system("ASAN_OPTIONS=detect_leaks=0 OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 "
                 "OMPI_MCA_rmaps_base_oversubscribe=1 mpirun -n 2 " CLI_SCA " eval " CONFIG
                 " >/dev/null 2>&1") == 0);
    for (size_t i = 0; i < LENGTH(names); i++) {
        snprintf(path, sizeof path, RESULTS "/%s", names[i]);
        char *after = cli_read(path);
        CHECKF(after[0] && strcmp(before[i], after) == 0, "%s differs", names[i]);
        mem_free(after);
        mem_free(before[i]);
    }
}

/* The page as a phone, a desk and a watch show it: all pictures, nothing wider than the screen (the narrowest stands
 * for long paths and wide fonts, which differ between machines), no message on the console. */
static void page_in_a_browser(void)
{
    static const char probe[] =
        "<!doctype html><body onload=\"document.title = [...document.querySelectorAll('iframe')].map(f => {"
        "let d = f.contentDocument, p = [...d.images];"
        "return p.length + ' pictures, ' + p.filter(i => i.complete &amp;&amp; i.naturalWidth > 9 &amp;&amp; "
        "i.getBoundingClientRect().width > 99).length + ' seen, ' + (d.documentElement.scrollWidth > f.width ? "
        "'too wide' : 'fits')}).join('; ')\"><iframe width=390 height=9000 src=report.html></iframe>"
        "<iframe width=1000 height=6000 src=report.html></iframe><iframe width=240 height=9900 "
        "src=report.html></iframe>";
    if (system("command -v chromium >/dev/null 2>&1") != 0) {
        check_skip("chromium: no browser");
        return;
    }
    write_set();
    cli_expect("eval " CONFIG, 0, "2 regions", "left out");
    CHECK_OK(file_write(RESULTS "/probe.html", probe, sizeof probe - 1));
    CHECK(system(BROWSER " --virtual-time-budget=5000 --window-size=1800,10000 --dump-dom file://" RESULTS
                         "/probe.html >" RESULTS "/dom 2>" RESULTS "/console") == 0);
    char *dom = cli_read(RESULTS "/dom"), *console = cli_read(RESULTS "/console");
    CHECKF(
        strstr(dom, "<title>2 pictures, 2 seen, fits; 2 pictures, 2 seen, fits; 2 pictures, 2 seen, fits</title>"),
        "%.300s", dom);
    CHECKF(!strstr(console, "CONSOLE"), "%.1000s", strstr(console, "CONSOLE"));
    mem_free(dom);
    mem_free(console);
}

/* Pixels of a picture with the colour of boxes, and others that are neither black nor white. */
static void count_colours(const sca_image *in, size_t *yellow, size_t *coloured)
{
    size_t n = (size_t)in->width * (size_t)in->height;
    *yellow = *coloured = 0;
    for (size_t i = 0; i < n; i++) {
        const uint8_t *p = in->rgb + 3 * i;
        *yellow += p[0] > 220 && p[1] > 200 && p[2] < 90;
        *coloured += p[0] > p[1] + 40 || p[2] > p[0] + 40;
    }
}

static void screenshot_of_the_page(void)
{
    sca_image shot = { 0 };
    size_t yellow, coloured;
    if (system("command -v chromium >/dev/null 2>&1") != 0) {
        check_skip("chromium: no browser");
        return;
    }
    write_set();
    cli_expect("eval " CONFIG, 0, "2 regions", "left out");
    CHECK(system(BROWSER " --hide-scrollbars --window-size=390,2600 --screenshot=" RESULTS
                         "/shot.png file://" RESULTS "/report.html >" RESULTS "/console 2>&1") == 0);
    CHECK_OK(image_read(RESULTS "/shot.png", NULL, &shot));
    CHECKF(shot.height == 2600, "%d x %d", shot.width, shot.height);
    count_colours(&shot, &yellow, &coloured);
    CHECKF(yellow > 200 && coloured > 20000, "%zu yellow and %zu coloured pixels", yellow, coloured);
    sca_image_free(&shot);
}

/* Three sets with 40 regions each have 108 pictures to show, more than fit. */
static void page_stays_small(void)
{
    str set = { 0 }, yaml = { 0 };
    str_put(&set, "{\"images\": [{\"id\": 3, \"file_name\": \"photo.jpg\"}], \"annotations\": [");
    for (int i = 0; i < 40; i++)
        str_printf(&set, "%s{\"id\": %d, \"image_id\": 3, \"bbox\": [%d, %d, 200, 300], \"caption\": \"a thing\"}",
                   i ? ", " : "", i, 7 * i, 8 * i);
    str_put(&set, "]}");
    str_put(&yaml, "model: {path: " CLI_MODEL "}\ndata:\n  eval:\n");
    for (int i = 0; i < 3; i++)
        str_printf(&yaml,
                   "    - {kind: grit, annotations: " SETS ", images: " SCA_SOURCE "/docs/demo, name: s%d}\n", i);
    str_put(&yaml, "eval: {output: " RESULTS "}\ngenerate: {beams: 1, max_tokens: 3}\n");
    write_set();
    CHECK_OK(file_write(SETS, set.data, set.bytes));
    CHECK_OK(file_write(CONFIG, yaml.data, yaml.bytes));
    cli_expect("eval " CONFIG, 0, "s2: grit captions.json, all regions of each image; 40 regions", "left out");
    char *page = cli_read(RESULTS "/report.html");
    CHECKF(strlen(page) > 3500000 && strlen(page) < 5000000, "%zu bytes", strlen(page));
    CHECK(strstr(page, "no room for this photo"));
    const char *last = strstr(page, "<h2>s2</h2>"); /* every set shows some */
    CHECK(last && strstr(last, "data:image/jpeg"));
    mem_free(page);
    str_free(&set);
    str_free(&yaml);
}

static void wrong_masks(void)
{
    static const char *const shapes[] = { "[[1, 2, 3]]",
                                          "[[1, 2, 3, 4, 5, \"x\"]]",
                                          "{\"size\": [2, 2], \"counts\": [4]}",
                                          "{\"size\": [640, 512], \"counts\": [1, -1]}",
                                          "{\"size\": [640, 512], \"counts\": 7}",
                                          "[7]",
                                          "{\"size\": [640, 512], \"counts\": \"01\"}" };
    for (size_t i = 0; i < LENGTH(shapes); i++) {
        str text = { 0 };
        str_printf(
            &text,
            "{\"images\": [{\"id\": 3, \"file_name\": \"photo.jpg\", \"width\": 512, \"height\": 640}], "
            "\"annotations\": [{\"id\": 11, \"image_id\": 3, \"bbox\": [1, 2, 20, 30], \"caption\": \"a dog\", "
            "\"segmentation\": %s}], \"categories\": []}",
            shapes[i]);
        write_set();
        CHECK_OK(file_write(SETS, text.data, text.bytes));
        cli_expect("eval " CONFIG, 1, "", "annotation 11");
        str_free(&text);
    }
}

static void wrong_use(void)
{
    write_set();
    cli_expect("eval", 2, "", "configuration file");
    cli_expect("eval --help", 0, "eval.prompt", "");
    cli_expect("eval " CLI_DIR "/none.yaml", 1, "", "none.yaml");
    cli_expect("eval " CONFIG " eval.prmpt=box", 1, "", "eval.prompt");
    cli_expect("eval " CONFIG " --beams 3", 2, "", "--beams");
    cli_expect("eval " CONFIG " data.eval.0.kind=pictures", 1, "", "pictures");
    cli_expect("eval " CONFIG " data.eval.0.annotations=" CLI_DIR "/none.json", 1, "", "none.json");
    cli_expect("eval " CONFIG " data.eval.0.images=" CLI_DIR, 1, "", "1 of 1 images");
    cli_expect("eval " CONFIG " eval.output=" SETS, 1, "", "captions.json");
    cli_expect("eval " CONFIG " eval.output=/proc/nothing", 1, "", "/proc/nothing");
    cli_expect("eval " CONFIG " model.path=" CLI_DIR, 1, "", "config.json");
}

int main(int argc, char **argv)
{
    cli_start();
    RUN(results_and_report);
    RUN(meteor_beside_the_program);
    RUN(spice_of_a_command);
    RUN(same_under_a_launcher);
    RUN(page_in_a_browser);
    RUN(screenshot_of_the_page);
    RUN(page_stays_small);
    RUN(wrong_masks);
    RUN(wrong_use);
    return check_done();
}
