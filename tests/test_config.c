/* test_config.c - settings: defaults, files, includes, assignments, and the dump that reads back. */
#include "check.h"
#include "faults.h"

#include <sys/stat.h>
#include <unistd.h>

static char dir[256];

static const char *in_dir(const char *name)
{
    static char paths[8][512];
    static int next;
    char *path = paths[next = (next + 1) % 8];
    snprintf(path, sizeof paths[0], "%s/%s", dir, name);
    return path;
}

static const char *write_file(const char *name, const char *text)
{
    const char *path = in_dir(name);
    CHECK_OK(file_write(path, text, strlen(text)));
    return path;
}

/* The settings of a file that holds text; NULL when it is refused. */
static config *open_text(const char *text)
{
    config *c;
    return config_open(write_file("c.yaml", text), &c) == SCA_OK ? c : NULL;
}

/* A file with this text is refused with a message that contains part and the file's name. */
static void refused(const char *text, const char *part)
{
    config *c;
    sca_status status = config_open(write_file("bad.yaml", text), &c);
    CHECKF(status == SCA_ERR_FORMAT && c == NULL && strstr(sca_last_error(), part) &&
               strstr(sca_last_error(), "bad.yaml"),
           "%s: %s '%s', expected '%s'", text, sca_status_name(status), sca_last_error(), part);
    config_close(c);
}

static void check_get(const config *c, const char *key, const char *expected)
{
    str value = { 0 };
    sca_status status = config_get(c, key, &value);
    CHECKF(status == SCA_OK && strcmp(str_text(&value), expected) == 0, "%s is '%s' (%s), expected '%s'", key,
           str_text(&value), status ? sca_last_error() : "", expected);
    str_free(&value);
}

/* What is dumped reads back to the same dump, and so does a copy. */
static void check_dump(const config *c)
{
    str first = { 0 }, second = { 0 };
    config *back, *copy;
    CHECK_OK(config_dump(c, &first));
    CHECK_OK(file_write(in_dir("dump.yaml"), first.data, first.bytes));
    CHECK_OK(config_open(in_dir("dump.yaml"), &back));
    if (!back) return;
    CHECK_OK(config_copy(back, &copy));
    CHECK_OK(config_dump(copy, &second));
    CHECKF(strcmp(first.data, second.data) == 0, "dumped\n%s\nbut read\n%s", first.data, second.data);
    config_close(back);
    config_close(copy);
    str_free(&first);
    str_free(&second);
}

/* ---- defaults ---------------------------------------------------------------------------------------- */

static void defaults(void)
{
    config *c;
    CHECK_OK(config_open(NULL, &c));
    CHECK(strcmp(c->run_device, "cpu") == 0 && c->run_threads == 0 && !c->run_exif &&
          c->run_max_pixels == 200000000);
    CHECK(strcmp(c->model_variant, "multitask_v2") == 0 && c->model_mixer_layers == 12 && c->model_path[0] == 0);
    CHECK(c->data_shuffle && c->data_lsj_scale[0] == 0.1 && c->data_lsj_scale[1] == 2.0 && c->n_data_train == 0);
    CHECK(c->train_lr == 1e-4 && c->train_eps == 1e-8 && c->train_seed == 42 &&
          strcmp(c->train_resume, "auto") == 0);
    CHECK(c->n_train_trainable == 0 && c->n_train_lr_overrides == 0 && c->train_lm_dropout);
    CHECK(c->generate_beams == 3 && c->generate_max_tokens == 19 && c->generate_top_p == 1);
    check_dump(c);
    config_close(c);
    config_close(NULL);
    c = open_text("");
    CHECK(c != NULL);
    config_close(c);
    c = open_text("# nothing\n---\n...\n");
    CHECK(c != NULL);
    config_close(c);
    c = open_text("\xef\xbb\xbftrain:\r\n  steps: 7 # as Windows writes it\r\n");
    CHECK(c && c->train_steps == 7);
    config_close(c);
    c = open_text("train:\ndata: {}\ninclude: []\n");
    CHECK(c != NULL);
    config_close(c);
}

/* ---- files ------------------------------------------------------------------------------------------- */

static void files(void)
{
    config *c = open_text("run: {device: ref, threads: 8, exif: True}\n"
                          "model:\n  path: 'a: \"b\" # c'\n  lm: \"tab\\there \\u00e9\"\n"
                          "data:\n"
                          "  train:\n"
                          "    - &vg {kind: visual_genome, annotations: vg dir, images: photos, split: train, "
                          "task: caption, weight: 3}\n"
                          "    - {kind: coco, annotations: a.json}\n"
                          "    - *vg\n"
                          "  eval: [{kind: refcoco, name: testA, split: testA}]\n"
                          "  shuffle: false\n  lsj_scale: [0.5, 1]\n"
                          "train:\n  lr: 3.0e-5\n  clip_norm: 0\n  trainable: [mask_decoder.caption, 'odd, name']\n"
                          "  lr_overrides: {language_model: 1.0e-6, a.b: 2}\n  seed: 9007199254740991\n");
    CHECKF(c != NULL, "%s", sca_last_error());
    if (!c) return;
    CHECK(strcmp(c->run_device, "ref") == 0 && c->run_threads == 8 && c->run_exif);
    CHECK(strcmp(c->model_path, "a: \"b\" # c") == 0 && strcmp(c->model_lm, "tab\there \xc3\xa9") == 0);
    CHECK(c->n_data_train == 3 && strcmp(c->data_train[0].annotations, "vg dir") == 0 &&
          c->data_train[0].weight == 3);
    CHECK(strcmp(c->data_train[2].kind, "visual_genome") == 0 && c->data_train[1].weight == 0);
    CHECK(c->n_data_eval == 1 && strcmp(c->data_eval[0].name, "testA") == 0 && !c->data_shuffle);
    CHECK(c->data_lsj_scale[0] == 0.5 && c->data_lsj_scale[1] == 1 && c->train_lr == 3e-5 &&
          c->train_clip_norm == 0);
    CHECK(c->n_train_trainable == 2 && strcmp(c->train_trainable[1], "odd, name") == 0);
    CHECK(c->n_train_lr_overrides == 2 && strcmp(c->train_lr_overrides_key[1], "a.b") == 0 &&
          c->train_lr_overrides[0] == 1e-6);
    CHECK(c->train_seed == 9007199254740991);
    check_dump(c);
    config_close(c);
}

static void wrong_files(void)
{
    refused("train:\n  stesp: 3\n", "line 2: unknown setting 'train.stesp'; did you mean 'train.steps'?");
    refused("tarin: {steps: 3}\n", "line 1: unknown section 'tarin'; did you mean 'train'?");
    refused("zzz: 1\n", "unknown section 'zzz', expected one of include, run, model, data, train, eval, generate");
    refused("train: {beams: 3}\n", "did you mean 'generate.beams'?");
    refused("train: {steps: many}\n", "train.steps is 'many', expected an integer from 1 to 1000000000");
    refused("train: {steps: 0}\n", "train.steps is '0', expected an integer from 1");
    refused("train: {steps: 1.5}\n", "train.steps is '1.5'");
    refused("train: {steps: '5'}\n", "train.steps is '5', expected an integer");
    refused("train: {steps: [1]}\n", "train.steps is a list, expected an integer");
    refused("train: {steps: {a: 1}}\n", "train.steps is a map");
    refused("train: {steps: }\n", "train.steps is ''");
    refused("train: {steps: 99999999999999999999}\n", "train.steps");
    refused("train: {lr: .nan}\n", "train.lr is '.nan', expected a number from 0 to 1000");
    refused("train: {lr: nan}\n", "train.lr is 'nan'");
    refused("train: {lr: .inf}\n", "train.lr is '.inf'");
    refused("train: {lr: -1}\n", "train.lr is '-1'");
    refused("train: {lr: 1e999}\n", "train.lr");
    refused("train: {lr: true}\n", "train.lr is 'true'");
    refused("data: {shuffle: 1}\n", "data.shuffle is '1', expected true or false");
    refused("data: {shuffle: 'true'}\n", "expected true or false");
    refused("run: {device: gpu}\n", "run.device is 'gpu', expected cpu|cuda|simt|ref");
    refused("run: {device: [cpu]}\n", "run.device is a list");
    refused("model: {path: [a]}\n", "model.path is a list, expected a text");
    refused("model: {path: \"a\\0b\"}\n", "0 character");
    refused("data: {lsj_scale: [1]}\n", "data.lsj_scale has 1 items, expected a list of 2 numbers");
    refused("data: {lsj_scale: 1}\n", "data.lsj_scale is '1', expected a list of 2 numbers");
    refused("data: {lsj_scale: [1, x]}\n", "data.lsj_scale is 'x', expected a finite number");
    refused("data: {train: {kind: coco}}\n", "data.train is a map, expected a list of data sets");
    refused("data: {train: [coco]}\n", "data.train.0 is 'coco', expected a map");
    refused("data: {train: [{kind: coco}, {knid: x}]}\n", "data.train.1: unknown key 'knid'; did you mean 'kind'?");
    refused("data: {train: [{kind: coco, weight: -1}]}\n", "data.train.0.weight is '-1'");
    refused("data: {train: [{kind: coco, weight: 0}]}\n", "data.train.0.weight is '0', expected a number above 0");
    refused("data: {train: [{kind: [coco]}]}\n", "data.train.0.kind is a list");
    refused(
        "data: {eval: [{split: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa}]}\n",
        "data.eval.0.split is 'aaaa");
    refused("train: {trainable: a}\n", "train.trainable is 'a', expected a list of names");
    refused("train: {trainable: [[a]]}\n", "train.trainable is a list, expected a list of names");
    refused("train: {trainable: ['']}\n", "expected a name of 1 to 255");
    refused("train: {trainable: [\"a\\nb\"]}\n", "control character");
    refused("train: {lr_overrides: [a]}\n", "train.lr_overrides is a list, expected a map of names to numbers");
    refused("train: {lr_overrides: {a: x}}\n", "train.lr_overrides.a is 'x', expected a number from 0 to 1000");
    refused("train: 3\n", "train is '3', expected a map of settings");
    refused("- a\n", "expected sections like 'train:'");
    refused("just text\n", "expected sections");
}

static void broken_yaml(void)
{
    refused("train: {steps: 1\n", "bad.yaml: line");
    refused("train:\n\tsteps: 1\n", "line 2");
    refused("train: {steps: 1, steps: 2}\n", "line 1: key 'steps' is there twice");
    refused("train: {steps: 1}\ntrain: {lr: 1}\n", "line 2: key 'train' is there twice");
    refused("a: 1\n---\nb: 2\n", "one document only");
    refused("train: !!python/object:os.system {a: b}\n", "tags");
    refused("train: {steps: !!int 3}\n", "tags");
    refused("train: *nothing\n", "'&nothing'");
    refused("train: &t {a: *t}\n", "'&t'");
    refused("? [a]\n: b\n", "plain key");
    refused("\xff\xfe\n", "bad.yaml");
    refused("train: {output: \"\\x\"}\n", "bad.yaml");
    refused("train: {output: \xc3}\n", "bad.yaml");
    str deep = { 0 };
    for (int i = 0; i < 100000; i++) str_putc(&deep, '[');
    refused(str_text(&deep), "nested too deeply");
    str_clear(&deep);
    str_put(&deep, "a: &a0 [x, x, x, x, x, x, x, x, x, x]\n"); /* a billion laughs: ten to the power of 30 */
    for (int i = 0; i < 30; i++)
        str_printf(&deep, "b%d: &a%d [*a%d,*a%d,*a%d,*a%d,*a%d,*a%d,*a%d,*a%d,*a%d,*a%d]\n", i, i + 1, i, i, i, i,
                   i, i, i, i, i, i);
    refused(str_text(&deep), "unknown section 'a'");
    str_clear(&deep);
    str_put(&deep, "train: {trainable: [");
    for (int i = 0; i < 10001; i++) str_put(&deep, "a,");
    str_put(&deep, "]}");
    refused(str_text(&deep), "train.trainable has 10001 items, expected at most 10000");
    str_clear(&deep);
    str_put(&deep, "model: {path: \"");
    for (int i = 0; i < 1024; i++) str_putc(&deep, 'x');
    str_put(&deep, "\"}");
    refused(str_text(&deep), "1024 bytes long, expected at most 1023");
    str_clear(&deep);
    for (int i = 0; i < 1 << 20; i++) str_put(&deep, "# ");
    refused(str_text(&deep), "expected at most 1048576");
    str_free(&deep);
}

/* ---- includes ---------------------------------------------------------------------------------------- */

static void includes(void)
{
    config *c;
    CHECK(mkdir(in_dir("sub"), 0700) == 0);
    write_file("base.yaml", "train: {steps: 1, lr: 1, keep: 9}\ndata: {train: [{kind: a}, {kind: b}]}\n");
    write_file("sub/more.yaml", "include: ../base.yaml\ntrain: {steps: 2, warmup_steps: 2}\n");
    write_file("main.yaml", "train: {steps: 3}\ndata: {train: [{kind: c}]}\ninclude: [sub/more.yaml]\n");
    CHECK_OK(config_open(in_dir("main.yaml"), &c));
    if (c) CHECK(c->train_steps == 3 && c->train_warmup_steps == 2 && c->train_keep == 9 && c->train_lr == 1);
    if (c) CHECK(c->n_data_train == 1 && strcmp(c->data_train[0].kind, "c") == 0);
    config_close(c);
    str text = { 0 };
    str_printf(&text, "include: %s\n", in_dir("base.yaml"));
    CHECK_OK(config_open(write_file("absolute.yaml", str_text(&text)), &c));
    config_close(c);
    CHECK_FAILS(config_open(in_dir("absent.yaml"), &c), SCA_ERR_IO, "absent.yaml: cannot open");
    CHECK_FAILS(config_open(write_file("a.yaml", "\ninclude: absent.yaml\n"), &c), SCA_ERR_IO, "a.yaml: line 2: ");
    CHECK_FAILS(config_open(write_file("a.yaml", "include: sub\n"), &c), SCA_ERR_IO, "is a folder");
    CHECK_FAILS(config_open("/dev/null", &c), SCA_ERR_IO, "a device");
    CHECK_FAILS(config_open(write_file("a.yaml", "include: {a: b}\n"), &c), SCA_ERR_FORMAT,
                "include expects a file name");
    CHECK_FAILS(config_open(write_file("a.yaml", "include: [[a]]\n"), &c), SCA_ERR_FORMAT,
                "include expects a file name");
    CHECK_FAILS(config_open(write_file("a.yaml", "include: a.yaml\n"), &c), SCA_ERR_FORMAT, "includes itself");
    write_file("b.yaml", "include: sub/../a.yaml\n");
    CHECK_FAILS(config_open(write_file("a.yaml", "include: b.yaml\n"), &c), SCA_ERR_FORMAT, "includes itself");
    str_clear(&text);
    str_put(&text, "include: [");
    for (int i = 0; i < 64; i++) str_put(&text, "leaf.yaml, ");
    write_file("leaf.yaml", "train: {steps: 7}\n");
    str_put(&text, "]\n");
    CHECK_OK(config_open(write_file("many.yaml", str_text(&text)), &c));
    config_close(c);
    str_put(&text, "\ntrain: {}\n");
    write_file("leaf.yaml", "include: leaf2.yaml\n");
    write_file("leaf2.yaml", "");
    CHECK_FAILS(config_open(in_dir("many.yaml"), &c), SCA_ERR_FORMAT, "more than 64 files are included");
    for (int i = 0; i < 70; i++) {
        char name[32];
        str_clear(&text);
        str_printf(&text, "include: chain%d.yaml\n", i + 1);
        snprintf(name, sizeof name, "chain%d.yaml", i);
        write_file(name, str_text(&text));
    }
    CHECK_FAILS(config_open(in_dir("chain0.yaml"), &c), SCA_ERR_FORMAT, "more than 64 files are included");
    write_file("chain64.yaml", "train: {steps: 5}\n");
    CHECK_OK(config_open(in_dir("chain0.yaml"), &c));
    if (c) CHECK(c->train_steps == 5);
    config_close(c);
    str_free(&text);
}

/* ---- assignments ------------------------------------------------------------------------------------- */

static void assignments(void)
{
    config *c;
    static const char *const right[] = { "train.lr=1e-3",
                                         "run.device=ref",
                                         "data.shuffle=false",
                                         "model.path=dir/a=b: \"c\" # 'd'",
                                         "train.steps=+5",
                                         "data.train.0.kind=coco",
                                         "data.train.0.weight=3",
                                         "data.train.1={kind: sbu, images: 'x y'}",
                                         "data.train.1.name=second",
                                         "train.trainable=[a, 'b c']",
                                         "train.trainable.2=third",
                                         "train.trainable.0=first",
                                         "train.lr_overrides={x: 1}",
                                         "train.lr_overrides.language_model.lm_head=1e-6",
                                         "train.lr_overrides.x=2",
                                         "data.lsj_scale.1=1.5",
                                         "data.eval=[{kind: coco, name: e}]",
                                         "model.sam=" };
    CHECK_OK(config_open(NULL, &c));
    for (size_t i = 0; i < LENGTH(right); i++)
        CHECKF(config_set(c, right[i]) == SCA_OK, "%s: %s", right[i], sca_last_error());
    CHECK(c->train_lr == 1e-3 && c->n_data_train == 2 && c->data_train[0].weight == 3 && c->train_steps == 5);
    check_get(c, "model.path", "dir/a=b: \"c\" # 'd'");
    check_get(c, "data.shuffle", "false");
    check_get(c, "train.lr", "0.001");
    check_get(c, "train.steps", "5");
    check_get(c, "data.train", "[{kind: coco, weight: 3.0}, {kind: sbu, images: \"x y\", name: second}]");
    check_get(c, "data.train.1", "{kind: sbu, images: \"x y\", name: second}");
    check_get(c, "data.train.1.images", "x y");
    check_get(c, "data.train.1.split", "");
    check_get(c, "data.train.0.weight", "3.0");
    check_get(c, "train.trainable", "[first, \"b c\", third]");
    check_get(c, "train.trainable.1", "b c");
    check_get(c, "train.lr_overrides", "{x: 2.0, language_model.lm_head: 1.0e-06}");
    check_get(c, "train.lr_overrides.language_model.lm_head", "1.0e-06");
    check_get(c, "data.lsj_scale", "[0.1, 1.5]");
    check_get(c, "data.lsj_scale.0", "0.1");
    check_dump(c);
    CHECK_OK(config_set(c, "train.trainable=[]"));
    CHECK_OK(config_set(c, "data.train="));
    CHECK(c->n_train_trainable == 0 && c->n_data_train == 0);
    config_close(c);
}

static void wrong_assignments(void)
{
    config *c;
    str before = { 0 }, after = { 0 };
    static const char *const wrong[][2] = { { "", "expected section.key=value" },
                                            { "train.lr", "expected section.key=value" },
                                            { "=3", "expected section.key=value" },
                                            { "train.lr=", "train.lr is ''" },
                                            { "train.lr=1e-4x", "train.lr is '1e-4x'" },
                                            { "train.lr= 1", "train.lr" },
                                            { "train.lr=inf", "train.lr" },
                                            { "train.lr=0x1", "train.lr" },
                                            { "train.lr=[1]", "train.lr is '[1]'" },
                                            { "learning_rate=1", "unknown setting 'learning_rate'" },
                                            { "lr=1", "did you mean 'train.lr'?" },
                                            { "train.batch_image=1", "did you mean 'train.batch_images'?" },
                                            { "train=1", "unknown setting 'train'" },
                                            { "train.lr.0=1", "has no parts" },
                                            { "run.device=CPU", "run.device is 'CPU'" },
                                            { "data.train.3.kind=x", "no item '3'; the list has 1" },
                                            { "data.train.-1.kind=x", "no item '-1'" },
                                            { "data.train.x=1", "no item 'x'" },
                                            { "data.train.99999999999999999999999999.kind=x", "no item" },
                                            { "data.train.0.kidn=x",
                                              "data.train.0: unknown key 'kidn'; did you mean 'kind'?" },
                                            { "data.train.0.weight=nan", "data.train.0.weight is 'nan'" },
                                            { "data.train.0=coco", "data.train.0 is 'coco', expected a map" },
                                            { "data.train.0.kind.x=1", "data.train.0" },
                                            { "data.train={", "data.train: line" },
                                            { "data.lsj_scale.2=1", "data.lsj_scale has 3 items" },
                                            { "data.lsj_scale.x=1", "no item 'x'" },
                                            { "train.trainable.5=x", "no item '5'" },
                                            { "train.trainable.0=", "a name of 1 to 255" },
                                            { "train.lr_overrides.=1", "a name of 1 to 255" },
                                            { "train.lr_overrides.a=b", "train.lr_overrides.a is 'b'" },
                                            { "train.lr_overrides=3", "a map of names" },
                                            { "model.path=\xff", "not valid UTF-8" },
                                            { "include=x", "unknown setting 'include'" },
                                            { "train.lr\n=1", "unknown setting 'train.lr\\n'" } };
    CHECK_OK(config_open(NULL, &c));
    CHECK_OK(config_set(c, "data.train.0.kind=coco"));
    CHECK_OK(config_set(c, "train.lr_overrides.a=1"));
    CHECK_OK(config_dump(c, &before));
    for (size_t i = 0; i < LENGTH(wrong); i++) {
        CHECK_FAILS(config_set(c, wrong[i][0]), SCA_ERR_ARGUMENT, wrong[i][1]);
        str_clear(&after);
        CHECK_OK(config_dump(c, &after));
        CHECKF(strcmp(before.data, after.data) == 0, "%s changed something", wrong[i][0]);
    }
    str_clear(&after);
    CHECK_FAILS(config_get(c, "train.lrr", &after), SCA_ERR_ARGUMENT, "did you mean 'train.lr'?");
    CHECK_FAILS(config_get(c, "data.train.1", &after), SCA_ERR_ARGUMENT, "no item '1'");
    CHECK_FAILS(config_get(c, "data.train.0.x", &after), SCA_ERR_ARGUMENT, "'x' is not set");
    CHECK_FAILS(config_get(c, "train.lr_overrides.b", &after), SCA_ERR_ARGUMENT, "'b' is not set");
    CHECK_FAILS(config_get(c, "train.trainable.0", &after), SCA_ERR_ARGUMENT, "the list has 0");
    str huge = { 0 };
    str_put(&huge, "model.path=");
    for (int i = 0; i < 2000000; i++) str_putc(&huge, 'x');
    CHECK_FAILS(config_set(c, str_text(&huge)), SCA_ERR_ARGUMENT, "2000000 bytes long");
    huge.data[10] = 'x'; /* no '=' any more: all of it is the key */
    CHECK_FAILS(config_set(c, str_text(&huge)), SCA_ERR_ARGUMENT, "expected section.key=value");
    str_put(&huge, "=1");
    CHECK_FAILS(config_set(c, str_text(&huge)), SCA_ERR_ARGUMENT, "unknown setting 'model.pathxxx");
    str_free(&huge);
    str_free(&before);
    str_free(&after);
    config_close(c);
}

/* Every text survives: quotes, escapes, what looks like numbers or null, the limits of length. */
static void texts_survive(void)
{
    config *c;
    char longest[CONFIG_TEXT];
    memset(longest, '\x01', sizeof longest - 1);
    longest[sizeof longest - 1] = 0;
    const char *texts[] = { "plain",
                            "with space",
                            "null",
                            "~",
                            "true",
                            "no",
                            "12",
                            "1e5",
                            "",
                            "a: b",
                            "# x",
                            "'",
                            "\"",
                            "\\",
                            "[",
                            "{a}",
                            "- x",
                            "*a",
                            "&a",
                            "!t",
                            "|",
                            ">",
                            "%x",
                            "@x",
                            "`x",
                            "a\nb",
                            "a\tb",
                            " lead",
                            "trail ",
                            "\xc3\xa9",
                            "\xf0\x9f\x98\x80",
                            "\xc2\x85",
                            "\xe2\x80\xa8",
                            "\xef\xbb\xbf",
                            "\xef\xbf\xbe",
                            "\x7f",
                            "/dev/x",
                            "?",
                            "a#b",
                            "a:b",
                            longest };
    CHECK_OK(config_open(NULL, &c));
    for (size_t i = 0; i < LENGTH(texts); i++) {
        str assignment = { 0 }, yaml = { 0 };
        config *back = NULL;
        bool null = strcmp(texts[i], "null") == 0 || strcmp(texts[i], "~") == 0; /* these clear a text */
        str_printf(&assignment, "model.path=%s", texts[i]);
        CHECK_OK(config_set(c, str_text(&assignment)));
        CHECK(strcmp(c->model_path, null ? "" : texts[i]) == 0);
        if (null) memcpy(c->model_path, texts[i], strlen(texts[i]) + 1);
        CHECK_OK(config_dump(c, &yaml));
        CHECK_OK(file_write(in_dir("t.yaml"), yaml.data, yaml.bytes));
        CHECK_OK(config_open(in_dir("t.yaml"), &back));
        CHECKF(back && strcmp(back->model_path, texts[i]) == 0, "'%s' came back as '%s'", texts[i],
               back ? back->model_path : "");
        config_close(back);
        str_free(&yaml);
        str_free(&assignment);
    }
    config_close(c);
}

/* ---- public side, faults ----------------------------------------------------------------------------- */

static void public_calls(void)
{
    sca_config *c;
    char *text;
    CHECK_OK(sca_config_open(NULL, &c));
    CHECK_OK(sca_config_set(c, "train.lr=0.5"));
    CHECK_OK(sca_config_get(c, "train.lr", &text));
    CHECK(strcmp(text, "0.5") == 0);
    sca_free(text);
    CHECK_FAILS(sca_config_get(c, "x", &text), SCA_ERR_ARGUMENT, "unknown setting");
    CHECK(text == NULL);
    CHECK_OK(sca_config_write(c, in_dir("written.yaml")));
    sca_config_close(c);
    CHECK_OK(sca_config_open(in_dir("written.yaml"), &c));
    CHECK(c->train_lr == 0.5);
    CHECK_FAILS(sca_config_write(c, "/dev/full"), SCA_ERR_IO, "No space left");
    CHECK_OK(sca_config_help(&text));
    CHECK(strstr(text, "train.lr=1.0e-4\n    peak learning rate\n    number from 0 to 1000\n") &&
          strstr(text, "generate.seed"));
    sca_free(text);
    CHECK(sca_config_open(NULL, NULL) == SCA_ERR_ARGUMENT && sca_config_set(NULL, "a") == SCA_ERR_ARGUMENT);
    CHECK(sca_config_set(c, NULL) == SCA_ERR_ARGUMENT && sca_config_get(c, NULL, &text) == SCA_ERR_ARGUMENT);
    CHECK(sca_config_write(c, NULL) == SCA_ERR_ARGUMENT && sca_config_help(NULL) == SCA_ERR_ARGUMENT);
    sca_config_close(c);
    sca_config_close(NULL);
}

static sca_status set_several(config *c)
{
    static const char *const assignments_[] = { "train.trainable.0=x", "data.train.1.kind=y",
                                                "train.lr_overrides.z=1", "data.eval=[{kind: a}]", "model.lm=b" };
    for (size_t i = 0; i < LENGTH(assignments_); i++) TRY(config_set(c, assignments_[i]));
    return SCA_OK;
}

static sca_status config_work(void *path)
{
    config *c, *copy = NULL;
    str yaml = { 0 }, value = { 0 };
    sca_status status;
    TRY(config_open(path, &c));
    TRY_GOTO(done, set_several(c));
    TRY_GOTO(done, config_copy(c, &copy));
    TRY_GOTO(done, config_dump(copy, &yaml));
    TRY_GOTO(done, config_get(copy, "data.train.1.kind", &value));
    TRY_GOTO(done, sca_config_write(copy, in_dir("fault.yaml")));
done:
    str_free(&yaml);
    str_free(&value);
    config_close(copy);
    config_close(c);
    return status;
}

static void faults(void)
{
    char path[512];
    write_file("inner.yaml", "train: {lr_overrides: {a: 1, b: 2}, trainable: [x, y, z, t, u]}\n");
    snprintf(path, sizeof path, "%s",
             write_file("outer.yaml", "include: [inner.yaml]\nrun: &r {threads: 3}\ndata: {train: [{kind: x}]}\n"));
    CHECK(check_faults(fault_alloc, config_work, path, "config") > 100);
    CHECK(check_faults(fault_io, config_work, path, "config") >= 8);
}

int main(int argc, char **argv)
{
    char remove_all[300];
    snprintf(dir, sizeof dir, "%s/test_config.XXXXXX", SCA_BUILD);
    if (!mkdtemp(dir)) return 1;
    RUN(defaults);
    RUN(files);
    RUN(wrong_files);
    RUN(broken_yaml);
    RUN(includes);
    RUN(assignments);
    RUN(wrong_assignments);
    RUN(texts_survive);
    RUN(public_calls);
    RUN(faults);
    snprintf(remove_all, sizeof remove_all, "rm -rf '%s'", dir);
    if (system(remove_all) != 0) return 1;
    return check_done();
}
