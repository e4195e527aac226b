/* test_json.c - JSON: strict, bounded, read as a stream, written; and how it fails. */
#include "check.h"
#include "base/rng.h"
#include "faults.h"
#include "folder.h"

#include <math.h>

static sca_status parse(const char *text, json_t **out) { return json_parse(text, strlen(text), "FILE", out); }

static void json_is_strict(void)
{
    json_t *v;
    CHECK_FAILS(parse("", &v), SCA_ERR_FORMAT, "FILE: line 1, column 1 (byte 0): is empty");
    CHECK_FAILS(parse(" \n ", &v), SCA_ERR_FORMAT, "line 2");
    CHECK_FAILS(parse("{\"a\": 1,\n  \"a\": 2}", &v), SCA_ERR_FORMAT, "line 2");
    CHECK_FAILS(parse("[1, 2", &v), SCA_ERR_FORMAT, "FILE: line 1");
    CHECK_FAILS(parse("[1] 2", &v), SCA_ERR_FORMAT, "end of file expected");
    CHECK_FAILS(parse("[NaN]", &v), SCA_ERR_FORMAT, "invalid token");
    CHECK_FAILS(parse("[1e999]", &v), SCA_ERR_FORMAT, "overflow");
    CHECK_FAILS(parse("[123456789012345678901]", &v), SCA_ERR_FORMAT, "too big");
    CHECK_FAILS(parse("[\"\xff\"]", &v), SCA_ERR_FORMAT, "unable to decode byte 0xff");
    CHECK_FAILS(parse("[\"\\ud800\"]", &v), SCA_ERR_FORMAT, "FILE");
    CHECK_FAILS(parse("[1,]", &v), SCA_ERR_FORMAT, "FILE");
    CHECK_FAILS(parse("{'a': 1}", &v), SCA_ERR_FORMAT, "FILE");
    CHECK(v == NULL);
    CHECK_OK(parse(" 3 ", &v));
    CHECK(json_integer_value(v) == 3);
    json_decref(v);
    CHECK_OK(parse("{\"b\": 1, \"a\": \"x\\u0000\\ud83d\\ude00\"}", &v));
    CHECK(json_string_length(json_object_get(v, "a")) == 6);
    json_decref(v);
}

static void json_depth_is_bounded(void)
{
    json_t *v;
    for (int depth = JSON_DEPTH - 1; depth < 2000000; depth = depth <= JSON_DEPTH ? depth + 1 : depth * 7) {
        str s = { 0 };
        for (int i = 0; i < depth; i++) str_put(&s, i % 2 ? "{\"a\":" : "[");
        str_put(&s, "1");
        for (int i = depth; i-- > 0;) str_putc(&s, i % 2 ? '}' : ']');
        sca_status status = parse(str_text(&s), &v);
        CHECKF((status == SCA_OK) == (depth <= JSON_DEPTH), "depth %d: %s", depth, sca_status_name(status));
        json_decref(v);
        CHECK(file_write(in_dir("deep.json"), s.data, s.bytes) == SCA_OK);
        int64_t count = 0;
        extern sca_status count_items(void *, const char *, int64_t, json_t *);
        status = json_stream(in_dir("deep.json"), count_items, &count);
        CHECKF((status == SCA_OK) == (depth <= JSON_DEPTH), "stream, depth %d: %s", depth, sca_status_name(status));
        str_free(&s);
    }
}

static void json_members(void)
{
    json_t *v;
    int64_t i = 5;
    double d = 5;
    bool b = false;
    const char *t = NULL;
    CHECK_OK(parse("{\"i\": 3, \"r\": 2.5, \"one\": 1.0, \"b\": true, \"t\": \"x\", \"n\": null, \"z\": "
                   "\"a\\u0000b\", \"l\": [], "
                   "\"o\": {}, \"big\": 1e300}",
                   &v));
    CHECK_OK(json_need_int(v, "i", "F", 1, 3, &i));
    CHECK(i == 3);
    CHECK_OK(json_need_int(v, "one", "F", 1, 3, &i));
    CHECK(i == 1);
    CHECK_FAILS(json_need_int(v, "i", "F", 4, 64, &i), SCA_ERR_FORMAT,
                "F: 'i' is 3, expected an integer from 4 to 64");
    CHECK_FAILS(json_need_int(v, "r", "F", 0, 9, &i), SCA_ERR_FORMAT, "'r' is 2.5, expected an integer");
    CHECK_FAILS(json_need_int(v, "big", "F", 0, INT64_MAX, &i), SCA_ERR_FORMAT, "expected an integer from 0 on");
    CHECK_FAILS(json_need_int(v, "absent", "F", INT64_MIN, INT64_MAX, &i), SCA_ERR_FORMAT,
                "'absent' is absent, expected an integer");
    CHECK_FAILS(json_need_int(v, "n", "F", 0, 9, &i), SCA_ERR_FORMAT, "'n' is null");
    CHECK_FAILS(json_need_int(v, "t", "F", 0, 9, &i), SCA_ERR_FORMAT, "'t' is 'x'");
    CHECK_FAILS(json_need_int(v, "l", "F", 0, 9, &i), SCA_ERR_FORMAT, "'l' is a list");
    CHECK_FAILS(json_need_int(v, "o", "F", 0, 9, &i), SCA_ERR_FORMAT, "'o' is an object");
    CHECK_FAILS(json_need_int(v, "b", "F", 0, 9, &i), SCA_ERR_FORMAT, "'b' is true");
    CHECK_FAILS(json_need_int(json_object_get(v, "l"), "i", "F", 0, 9, &i), SCA_ERR_FORMAT,
                "F: expected an object with 'i'");
    CHECK(i == 1);
    CHECK_OK(json_need_real(v, "i", "F", &d));
    CHECK(d == 3);
    CHECK_FAILS(json_need_real(v, "t", "F", &d), SCA_ERR_FORMAT, "a finite number");
    CHECK_OK(json_need_text(v, "t", "F", &t));
    CHECK(strcmp(t, "x") == 0);
    CHECK_FAILS(json_need_text(v, "z", "F", &t), SCA_ERR_FORMAT, "0 character");
    CHECK_FAILS(json_need_text(v, "i", "F", &t), SCA_ERR_FORMAT, "expected a text");
    i = 8, d = 8;
    CHECK_OK(json_may_int(v, "absent", "F", 0, 1, &i));
    CHECK_OK(json_may_int(v, "n", "F", 0, 1, &i));
    CHECK_OK(json_may_real(v, "absent", "F", &d));
    CHECK_OK(json_may_bool(v, "absent", "F", &b));
    CHECK_OK(json_may_text(v, "n", "F", &t));
    CHECK(i == 8 && d == 8 && !b && strcmp(t, "x") == 0);
    CHECK_OK(json_may_int(v, "i", "F", 0, 3, &i));
    CHECK_OK(json_may_real(v, "r", "F", &d));
    CHECK_OK(json_may_bool(v, "b", "F", &b));
    CHECK_OK(json_may_text(v, "t", "F", &t));
    CHECK(i == 3 && d == 2.5 && b);
    CHECK_FAILS(json_may_int(v, "i", "F", 0, 2, &i), SCA_ERR_FORMAT, "from 0 to 2");
    CHECK_FAILS(json_may_bool(v, "i", "F", &b), SCA_ERR_FORMAT, "true or false");
    CHECK_FAILS(json_may_real(v, "b", "F", &d), SCA_ERR_FORMAT, "finite number");
    CHECK_FAILS(json_may_text(v, "b", "F", &t), SCA_ERR_FORMAT, "expected a text");
    json_decref(v);
}

static void json_files(void)
{
    json_t *v, *back;
    CHECK_OK(parse("{\"z\": [1, 0.1, 1e-7], \"a\": \"\xc3\xa9\", \"n\": null}", &v));
    CHECK_OK(json_save(in_dir("v.json"), v));
    CHECK(file_is(in_dir("v.json"), "{\n  \"z\": [\n    1,\n    0.10000000000000001,\n    9.9999999999999995e-8\n  "
                                    "],\n  \"a\": \"\xc3\xa9\",\n  \"n\": null\n}\n"));
    CHECK_OK(json_open(in_dir("v.json"), &back));
    CHECK(json_equal(v, back));
    json_decref(back);
    CHECK_FAILS(json_save("/dev/full", v), SCA_ERR_IO, "No space left");
    json_decref(v);
    CHECK_FAILS(json_save(in_dir("v.json"), NULL), SCA_ERR_ARGUMENT, "no value");
    CHECK_FAILS(json_open(in_dir("absent.json"), &v), SCA_ERR_IO, "absent.json");
    CHECK_FAILS(json_open("/dev/null", &v), SCA_ERR_IO, "a device");
}

static void json_writers(void)
{
    str s = { 0 };
    json_put_text(&s, "a\"\\\n\t\x01\xff\xc3\xa9\0z", 11);
    CHECKF(strcmp(str_text(&s), "\"a\\\"\\\\\\n\\u0009\\u0001\xef\xbf\xbd\xc3\xa9\\u0000z\"") == 0, "%s",
           str_text(&s));
    static const struct {
        double value;
        const char *text;
    } reals[] = { { 0.1, "0.1" },
                  { 1, "1" },
                  { -2.5e-10, "-2.5e-10" },
                  { 1.0 / 3, "0.33333333333333331" },
                  { 5e-324, "4.94065645841247e-324" },
                  { 1.7976931348623157e308, "1.7976931348623157e+308" } };
    for (size_t i = 0; i < LENGTH(reals); i++) {
        str_clear(&s);
        json_put_real(&s, reals[i].value);
        double back = 0;
        CHECKF(text_to_double(str_text(&s), &back) && back == reals[i].value, "%s", str_text(&s));
        CHECKF(strlen(str_text(&s)) <= strlen(reals[i].text), "%s, expected %s", str_text(&s), reals[i].text);
    }
    str_clear(&s);
    json_put_real(&s, (double)NAN), json_put_real(&s, (double)INFINITY);
    CHECK(strcmp(str_text(&s), "nullnull") == 0);
    str_free(&s);
}

sca_status count_items(void *user, const char *key, int64_t index, json_t *item);
sca_status count_items(void *user, const char *key, int64_t index, json_t *item)
{
    (void)key, (void)index, (void)item;
    ++*(int64_t *)user;
    return SCA_OK;
}

static sca_status list_item(void *user, const char *key, int64_t index, json_t *item)
{
    char *text = json_dumps(item, JSON_ENCODE_ANY | JSON_COMPACT);
    if (!text) return mem_fail(0, "item");
    str_printf(user, "%s.%d=%s;", key ? key : "", (int)index, text);
    free(text);
    return json_is_false(item) ? status_fail(SCA_ERR_FORMAT, "false is refused") : SCA_OK;
}

/* What json_stream hands over, or its message after "!". */
static void check_stream(const char *text, const char *expected)
{
    str got = { 0 };
    CHECK(write_text(in_dir("s.json"), text));
    if (json_stream(in_dir("s.json"), list_item, &got) != SCA_OK) str_printf(&got, "!%s", sca_last_error());
    const char *message = strchr(expected, '!');
    size_t plain = message ? (size_t)(message - expected) : strlen(expected);
    bool right = strncmp(str_text(&got), expected, plain) == 0 &&
                 (message ? strstr(str_text(&got) + plain, message + 1) != NULL : got.bytes == plain);
    CHECKF(right, "%s gives %s, expected %s", text, str_text(&got), expected);
    str_free(&got);
}

static void json_streams(void)
{
    check_stream("[]", "");
    check_stream(" { } ", "");
    check_stream("[1, \"a]\\\"\", [2, {\"x\": 3}], {}, null, -1.5]",
                 ".0=1;.1=\"a]\\\"\";.2=[2,{\"x\":3}];.3={};.4=null;.5=-1.5;");
    check_stream("{\"info\": {\"v\": [1]}, \"images\": [{\"id\": 1}, {\"id\": 2}], \"n\": 5, \"e\": []}",
                 "info.-1={\"v\":[1]};images.0={\"id\":1};images.1={\"id\":2};n.-1=5;");
    check_stream("{\"\\u0061\": 1}", "a.-1=1;");
    check_stream("", "!expected a list or an object");
    check_stream("3", "!expected a list or an object");
    check_stream("[1, 2", ".0=1;.1=2;!expected ',' or ']'");
    check_stream("[1, ]", ".0=1;!expected a value");
    check_stream("[1 2]", ".0=1;!expected ',' or ']'");
    check_stream("[1] x", ".0=1;!expected the end of the file");
    check_stream("[{]", "!line 1");
    check_stream("[\"abc", "!line 1");
    check_stream("[1,\n{\"a\": 1, \"a\": 2}]", ".0=1;!line 2");
    check_stream("{\"a\": [1], \"a\": [2]}", "a.0=1;!this key is there twice");
    check_stream("{\"a\\u0000\": 1}", "!0 character");
    check_stream("{\"a\" 1}", "!expected ':'");
    check_stream("{a: 1}", "!a key in quotes");
    check_stream("{\"a\": 1,}", "a.-1=1;!a key in quotes");
    check_stream("{\"a\": [1}", "a.0=1;!expected ',' or ']'");
    check_stream("{\"a\": }", "!expected a value");
    check_stream("[nul]", "!invalid token");
    check_stream("[\"\xff\"]", "!unable to decode byte 0xff");
    check_stream("[{\"a\": NaN, \"b\": [-Infinity, 1]}, {\"a\": 2, \"b\": []}]",
                 ".0={\"a\":null,\"b\":[null,1]};.1={\"a\":2,\"b\":[]};");
    check_stream("[NaN1]", "!invalid token");
    check_stream("[{\"id\": 1}, {\"id\": 2x}]", ".0={\"id\":1};!line 1, column 21 (byte 20)");
    check_stream("[1, false, 2]", ".0=1;.1=false;!s.json: false is refused");
}

/* Values in turn whose shapes are alike, change, grow and shrink: each is what jansson makes of it. */
static void json_streams_reuse(void)
{
    static const char *const values[] = {
        "{\"id\":1,\"bbox\":[1.5,-2,3,4e2],\"t\":\"a\"}",
        "{\"id\":2,\"bbox\":[117.46999999999997,0.1,-0.0,12345678901234567890.5],\"t\":\"longer\"}",
        "{\"id\":-9223372036854775808,\"bbox\":[],\"t\":\"\"}",
        "{\"id\":999999999999999999,\"bbox\":[1,2,3,4,5,6,7],\"t\":\"tab\\t\\u00e9\\ud83d\\ude00 \\\"q\\\"\"}",
        "{\"id\":0,\"t\":\"caf\xc3\xa9 of eight\",\"bbox\":[{\"x\":1},{\"x\":null},{\"x\":[true]}]}",
        "{\"id\":0,\"t\":\"an\\u0000other\",\"bbox\":[{\"x\":1},{\"x\":{}},{\"y\":[false]}]}",
        "{\"id\":0.30000000000000004,\"t\":\"\",\"bbox\":[{\"x\":1e-320}]}",
        "{\"id\":9007199254740993.0,\"t\":\"\",\"bbox\":[0.000000000000000000000000001]}",
        "{}",
        "[]",
        "7",
        "\"text\"",
        "{\"id\":1}",
    };
    for (size_t from = 0; from < LENGTH(values); from++) {
        str text = { 0 }, expected = { 0 };
        str_put(&text, "[");
        for (size_t i = 0; i < 2 * LENGTH(values); i++) {
            const char *value = values[(from + i * (1 + from)) % LENGTH(values)];
            json_t *v;
            CHECK_OK(json_parse(value, strlen(value), "VALUE", &v));
            CHECK_OK(list_item(&expected, NULL, (int64_t)i, v));
            json_decref(v);
            str_printf(&text, i ? " , %s" : "%s", value);
        }
        str_put(&text, "]");
        check_stream(str_text(&text), str_text(&expected));
        str_free(&expected);
        str_free(&text);
    }
}

/* Decimal numbers of all lengths: each is the double that strtod makes of it. */
static sca_status check_real(void *user, const char *key, int64_t index, json_t *item)
{
    (void)key, (void)index;
    char **at = user;
    double expected = strtod(*at, at);
    CHECKF(json_number_value(item) == expected, "%.17g, expected %.17g", json_number_value(item), expected);
    ++*at;
    return SCA_OK;
}

static void json_stream_reals(void)
{
    str s = { 0 };
    str_put(&s, "[");
    for (uint64_t i = 0; i < 20000; i++) {
        rng_block b = rng_philox(3, i, 0);
        double x = (double)b.word[0] / 4294967296.0 * pow(10, (int)(b.word[1] % 9) - 3);
        str_printf(&s, "%s%.*f", i ? "," : "", 1 + (int)(b.word[2] % 24), b.word[3] % 2 ? x : -x);
    }
    /* next to the middle of two doubles, and on it */
    str_put(&s, ",9007199254740993.0,9007199254740993.1,9007199254740992.9,0.50000000000000005,1.0000000000000002,"
                "4503599627370497.5,4503599627370496.5,4503599627370497.49,0.0,-0.0,0.1,1e3]");
    CHECK_OK(file_write(in_dir("reals.json"), s.data, s.bytes));
    char *at = s.data + 1;
    CHECK_OK(json_stream(in_dir("reals.json"), check_real, &at));
    CHECK(at == s.data + s.bytes);
    str_free(&s);
}

static sca_status json_work(void *user)
{
    json_t *v;
    const char *text = "{\"list\": [1, 2.5, \"text\", {\"a\": null}], \"b\": true}";
    TRY(json_parse(text, strlen(text), "FILE", &v));
    json_decref(v);
    TRY(json_open(user, &v));
    sca_status status = json_save(user, v);
    json_decref(v);
    return status;
}

static sca_status stream_work(void *user)
{
    int64_t count = 0;
    return json_stream(user, count_items, &count);
}

static void json_faults(void)
{
    char path[512];
    snprintf(path, sizeof path, "%s", in_dir("f.json"));
    CHECK(write_text(path, "{\"k\": [1, {\"long enough to grow a buffer or two\": \"text\"}], \"l\": [[]]}"));
    CHECK(check_faults(fault_alloc, json_work, path, "json") > 30);
    check_faults(fault_io, json_work, path, "json");
    check_faults(fault_alloc, stream_work, path, "json_stream");
    check_faults(fault_io, stream_work, path, "json_stream");
    CHECK(count_files(".f.json.") == 0);
}

int main(int argc, char **argv)
{
    if (!folder_make("test_json")) return 1;
    RUN(json_is_strict);
    RUN(json_depth_is_bounded);
    RUN(json_members);
    RUN(json_files);
    RUN(json_writers);
    RUN(json_streams);
    RUN(json_streams_reuse);
    RUN(json_stream_reals);
    RUN(json_faults);
    if (!folder_remove()) return 1;
    return check_done();
}
