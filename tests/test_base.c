/* test_base.c - messages, memory, files and text: what they promise, and how they fail. */
#include "check.h"
#include "faults.h"
#include "folder.h"

#include <errno.h>
#include <fcntl.h>
#include <locale.h>
#include <math.h>
#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- status ------------------------------------------------------------------------------------------ */

static void status_names(void)
{
    CHECK(strcmp(sca_status_name(SCA_OK), "SCA_OK") == 0);
    CHECK(strcmp(sca_status_name(SCA_ERR_COMM), "SCA_ERR_COMM") == 0);
    CHECK(strcmp(sca_status_name(SCA_ERR_FORMAT), "SCA_ERR_FORMAT") == 0);
    CHECK(sca_status_name((sca_status)99)[0] != 0);
}

static void messages_are_one_safe_line(void)
{
    CHECK(status_fail(SCA_ERR_IO, "%s: %d", "a\nb\t\x1b[31m\x7f", 7) == SCA_ERR_IO);
    CHECK(strcmp(sca_last_error(), "a\\nb\\t\\x1b[31m\\x7f: 7") == 0);
    status_fail(SCA_ERR_IO, "%s", "\xc3\xa9 \xff \xe2\x80\xae \xc2\x9b \xed\xa0\x80");
    CHECKF(strcmp(sca_last_error(), "\xc3\xa9 \\xff \\u202e \\x9b \\xed\\xa0\\x80") == 0, "%s", sca_last_error());
    status_fail(SCA_ERR_IO, "inner");
    CHECK(status_context(SCA_ERR_IO, "file %d", 3) == SCA_ERR_IO);
    CHECK(strcmp(status_message(), "file 3: inner") == 0);
    status_fail(SCA_ERR_ARGUMENT, "%s again", status_message()); /* an argument may be the message itself */
    CHECK(strcmp(sca_last_error(), "file 3: inner again") == 0);
    CHECK(status_set(SCA_ERR_COMM, "from %d a worker") == SCA_ERR_COMM);
    CHECK(strcmp(sca_last_error(), "from %d a worker") == 0);
    CHECK(mem_fail(123, "x") == SCA_ERR_MEMORY && strstr(sca_last_error(), "123 bytes"));
}

static void long_messages_lose_their_middle(void)
{
    const char *units[] = { "x", "\xc3\xa9", "\xf0\x9f\x98\x80", "\x01", "\xff", "\xe2\x80\xae" };
    for (size_t u = 0; u < LENGTH(units); u++)
        for (size_t n = 1; n < 100000; n = n * 5 / 4 + 1) {
            str text = { 0 };
            for (size_t i = 0; i < n; i++) str_put(&text, units[u]);
            status_fail(SCA_ERR_FORMAT, "FILE: '%s' is no WORD", str_text(&text));
            const char *m = sca_last_error();
            CHECKF(strlen(m) <= STATUS_MESSAGE_BYTES && text_starts(m, "FILE: '") && text_ends(m, "' is no WORD") &&
                       utf8_valid(m, strlen(m)),
                   "unit %zu times %zu: %zu bytes", u, n, strlen(m));
            CHECK((strstr(m, "[...]") != NULL) == (strlen(m) > STATUS_MESSAGE_BYTES - 20) || strlen(m) < 3700);
            str_free(&text);
        }
    fault_alloc(1); /* a long message without memory is cut */
    status_fail(SCA_ERR_FORMAT, "FILE: %09000d", 1);
    fault_alloc(0);
    CHECK(text_starts(sca_last_error(), "FILE: 000"));
    for (int i = 0; i < 200; i++) status_context(SCA_ERR_FORMAT, "include-%03d", i);
    CHECK(strlen(sca_last_error()) <= STATUS_MESSAGE_BYTES && text_starts(sca_last_error(), "include-199: "));
}

static void *fail_in_thread(void *user)
{
    *(bool *)user = sca_last_error()[0] == 0;
    status_fail(SCA_ERR_IO, "of the thread");
    return NULL;
}

static void messages_are_per_thread(void)
{
    pthread_t thread;
    bool fresh = false;
    status_fail(SCA_ERR_IO, "of main");
    CHECK(pthread_create(&thread, NULL, fail_in_thread, &fresh) == 0 && pthread_join(thread, NULL) == 0);
    CHECK(fresh && strcmp(sca_last_error(), "of main") == 0);
}

typedef struct heard {
    char text[256];
    sca_level level;
    int count;
    int64_t done, total;
} heard;

static void hear_log(void *user, sca_level level, const char *message)
{
    heard *h = user;
    snprintf(h->text, sizeof h->text, "%s", message);
    h->level = level;
    h->count++;
}

static void hear_progress(void *user, const char *what, int64_t done, int64_t total)
{
    heard *h = user;
    snprintf(h->text, sizeof h->text, "%s", what);
    h->done = done;
    h->total = total;
    h->count++;
}

static void sinks(void)
{
    heard h = { 0 };
    log_warn("nobody hears %d", 1);
    sca_log_to(hear_log, &h, SCA_LOG_INFO);
    log_debug("too quiet");
    CHECK(h.count == 0);
    log_info("line %d\n", 1);
    CHECK(h.count == 1 && h.level == SCA_LOG_INFO && strcmp(h.text, "line 1\\n") == 0);
    log_warn("w");
    CHECK(h.count == 2 && h.level == SCA_LOG_WARN);
    sca_log_to(hear_log, &h, SCA_LOG_DEBUG);
    log_debug("d");
    CHECK(h.count == 3 && h.level == SCA_LOG_DEBUG);
    sca_log_to(NULL, NULL, SCA_LOG_DEBUG);
    log_warn("w");
    CHECK(h.count == 3);
    progress("nobody", 1, 2);
    sca_progress_to(hear_progress, &h);
    progress("encode", 3, 4);
    CHECK(h.count == 4 && h.done == 3 && h.total == 4 && strcmp(h.text, "encode") == 0);
    sca_progress_to(NULL, NULL);
    progress("encode", 4, 4);
    CHECK(h.count == 4);
}

/* ---- memory ------------------------------------------------------------------------------------------ */

static void memory(void)
{
    size_t n;
    CHECK(size_mul(3, 5, &n) && n == 15 && !size_mul(SIZE_MAX, 2, &n) && size_mul(0, SIZE_MAX, &n) && n == 0);
    void *p = mem_alloc(0), *q = mem_zero(0, 7), *r = mem_aligned(64, 0), *s = mem_aligned(4096, 100);
    CHECK(p && q && r && s && (uintptr_t)r % 64 == 0 && (uintptr_t)s % 4096 == 0);
    p = mem_resize(p, 0);
    CHECK(p != NULL);
    mem_free(p), mem_free(q), mem_free(r), mem_free(s), mem_free(NULL);
    sca_free(mem_alloc(3));
    volatile size_t huge = SIZE_MAX / 2; /* volatile: else the compiler warns */
    CHECK(mem_zero(huge, 4) == NULL);
}

static void *alloc_many(void *user)
{
    int *failed = user;
    for (int i = 0; i < 1000; i++) {
        void *p = mem_alloc(1);
        *failed += p == NULL;
        mem_free(p);
    }
    return NULL;
}

static void faults_hit_once(void)
{
    fault_alloc(2);
    void *p = mem_alloc(1);
    CHECK(p && !fault_fired());
    CHECK(mem_resize(p, 2) == NULL && fault_fired());
    void *q = mem_alloc(1);
    CHECK(q != NULL);
    fault_alloc(0);
    CHECK(fault_fired()); /* until the next fault is set */
    fault_alloc(1);
    CHECK(!fault_fired() && mem_zero(1, 1) == NULL);
    fault_alloc(1);
    CHECK(mem_aligned(64, 1) == NULL);
    mem_free(p), mem_free(q);
    pthread_t threads[4];
    int failed[4] = { 0 };
    fault_alloc(2000);
    for (int i = 0; i < 4; i++) CHECK(pthread_create(&threads[i], NULL, alloc_many, &failed[i]) == 0);
    for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
    CHECK(failed[0] + failed[1] + failed[2] + failed[3] == 1);
    fault_alloc(0);
}

/* ---- files ------------------------------------------------------------------------------------------- */

static void files_are_read(void)
{
    file_view v;
    char *text;
    size_t bytes;
    CHECK(write_text(in_dir("a"), "hello"));
    CHECK_OK(file_map(in_dir("a"), &v));
    CHECK(v.bytes == 5 && memcmp(v.data, "hello", 5) == 0 && text_ends(v.path, "/a"));
    file_unmap(&v);
    file_unmap(&v); /* empty now */
    CHECK_OK(file_read(in_dir("a"), 5, &text, &bytes));
    CHECK(bytes == 5 && strcmp(text, "hello") == 0);
    mem_free(text);
    CHECK_FAILS(file_read(in_dir("a"), 4, &text, &bytes), SCA_ERR_FORMAT, "has 5 bytes, expected at most 4");
    CHECK(text == NULL);
    CHECK(write_text(in_dir("empty"), ""));
    CHECK_OK(file_map(in_dir("empty"), &v));
    CHECK(v.bytes == 0 && v.data != NULL);
    file_unmap(&v);
    CHECK_OK(file_read(in_dir("empty"), 0, &text, &bytes));
    CHECK(bytes == 0 && text[0] == 0);
    mem_free(text);
}

static void odd_inputs_are_refused(void)
{
    file_view v;
    CHECK_FAILS(file_map(in_dir("absent"), &v), SCA_ERR_IO, "No such file");
    CHECK_FAILS(file_map("", &v), SCA_ERR_IO, "No such file");
    CHECK_FAILS(file_map(dir, &v), SCA_ERR_IO, "a folder");
    CHECK_FAILS(file_map("/dev/zero", &v), SCA_ERR_IO, "a device");
    CHECK(mkfifo(in_dir("fifo"), 0600) == 0);
    CHECK_FAILS(file_map(in_dir("fifo"), &v), SCA_ERR_IO, "a pipe"); /* and does not wait for a writer */
    CHECK(symlink("loop", in_dir("loop")) == 0);
    CHECK_FAILS(file_map(in_dir("loop"), &v), SCA_ERR_IO, "cannot open");
    CHECK(write_text(in_dir("real"), "x") && symlink("real", in_dir("link")) == 0);
    CHECK_OK(file_map(in_dir("link"), &v));
    file_unmap(&v);
    CHECK(file_exists(in_dir("link")) && !file_exists(dir) && !file_exists(in_dir("absent")) &&
          !file_exists(in_dir("fifo")));
    CHECK(dir_exists(dir) && !dir_exists(in_dir("real")) && !dir_exists(in_dir("absent")));
}

static void folders(void)
{
    CHECK_OK(dir_make(in_dir("x/y//z/")));
    CHECK(dir_exists(in_dir("x/y/z")));
    CHECK_OK(dir_make(in_dir("x/y/z")));
    CHECK_OK(dir_make("/"));
    CHECK(write_text(in_dir("plain"), ""));
    CHECK_FAILS(dir_make(in_dir("plain")), SCA_ERR_IO, "File exists");
    CHECK_FAILS(dir_make(in_dir("plain/sub")), SCA_ERR_IO, "cannot make the folder");
    CHECK_FAILS(dir_make(""), SCA_ERR_IO, "cannot make the folder");
}

static void files_are_replaced_whole(void)
{
    file_out *f;
    struct stat info;
    const char *path = in_dir("out");
    CHECK(write_text(path, "old") && chmod(path, 0640) == 0);
    CHECK_OK(file_out_open(path, &f));
    CHECK_OK(file_out_put(f, "new", 3));
    CHECK(file_is(path, "old") && count_files(".out.") == 1);
    file_out_abort(f);
    CHECK(file_is(path, "old") && count_files(".out.") == 0);
    CHECK_OK(file_out_open(path, &f));
    CHECK_OK(file_out_put(f, "0123456789", 10));
    CHECK_OK(file_out_seek(f, 3));
    CHECK_OK(file_out_put(f, "abc", 3));
    CHECK_OK(file_out_seek(f, 10));
    CHECK_OK(file_out_put(f, "!", 1));
    CHECK_OK(file_out_put(f, NULL, 0));
    CHECK_FAILS(file_out_seek(f, -1), SCA_ERR_ARGUMENT, "byte -1");
    CHECK_OK(file_out_commit(f));
    CHECK(file_is(path, "012abc6789!") && stat(path, &info) == 0 && (info.st_mode & 0777) == 0640);
    CHECK(count_files(".out.") == 0);
    file_out_abort(NULL);
}

static void large_writes_keep_their_order(void)
{
    str expected = { 0 };
    file_out *f;
    char *text;
    size_t bytes;
    CHECK_OK(file_out_open(in_dir("large"), &f));
    for (size_t i = 0; i < 60; i++) {
        size_t start = expected.bytes;
        for (size_t k = 0; k < i * i * 40; k++) str_putc(&expected, (char)('a' + (i + k) % 26));
        CHECK_OK(file_out_put(f, expected.data ? expected.data + start : "", expected.bytes - start));
    }
    CHECK_OK(file_out_commit(f));
    CHECK_OK(file_read(in_dir("large"), expected.bytes, &text, &bytes));
    CHECK(bytes == expected.bytes && memcmp(text, expected.data, bytes) == 0);
    mem_free(text);
    str_free(&expected);
}

static void links_stay_links(void)
{
    struct stat info;
    CHECK(write_text(in_dir("target"), "old") && symlink("target", in_dir("to-target")) == 0);
    CHECK(write_text(in_dir("to-target"), "new") && file_is(in_dir("target"), "new"));
    CHECK(lstat(in_dir("to-target"), &info) == 0 && S_ISLNK(info.st_mode));
    CHECK(symlink("made-by-link", in_dir("dangling")) == 0 && write_text(in_dir("dangling"), "made"));
    CHECK(file_is(in_dir("made-by-link"), "made"));
    CHECK(symlink("loop2", in_dir("loop2")) == 0);
    CHECK_FAILS(file_write(in_dir("loop2"), "", 0), SCA_ERR_IO, "symbolic links");
}

static void odd_outputs(void)
{
    char name[300], text[16] = { 0 };
    CHECK_FAILS(file_write(dir, "x", 1), SCA_ERR_IO, "is a folder");
    CHECK_FAILS(file_write(in_dir("no/folder"), "x", 1), SCA_ERR_IO, "No such file");
    CHECK_FAILS(file_write("", "x", 1), SCA_ERR_IO, "names no file");
    CHECK_FAILS(file_write(in_dir("slash/"), "x", 1), SCA_ERR_IO, "names no file");
    CHECK_FAILS(file_write("/dev/full", "x", 1), SCA_ERR_IO, "No space left");
    CHECK_FAILS(file_write("/dev/fd/999", "x", 1), SCA_ERR_IO, "cannot write");
    memset(name, 'n', 250), name[250] = 0; /* the longest names leave no room for a longer temporary one */
    CHECK(write_text(in_dir(name), "x") && file_is(in_dir(name), "x"));
    CHECK(mkfifo(in_dir("out-fifo"), 0600) == 0);
    int fd = open(in_dir("out-fifo"), O_RDWR | O_NONBLOCK);
    file_out *f;
    CHECK_OK(file_out_open(in_dir("out-fifo"), &f));
    CHECK_OK(file_out_put(f, "pipe", 4));
    CHECK_OK(file_out_seek(f, 4));
    CHECK_FAILS(file_out_seek(f, 0), SCA_ERR_UNSUPPORTED, "from beginning to end");
    CHECK_OK(file_out_commit(f));
    CHECK(read(fd, text, sizeof text) == 4 && strcmp(text, "pipe") == 0);
    close(fd);
    struct stat info;
    CHECK(stat(in_dir("out-fifo"), &info) == 0 && S_ISFIFO(info.st_mode));
}

/* What is open already is written from where it stands: "sca ... >> FILE" with --out /dev/stdout. */
static void descriptors_are_continued(void)
{
    char name[32];
    int fd = open(in_dir("appended"), O_WRONLY | O_CREAT, 0600);
    CHECK(fd >= 0 && write(fd, "one ", 4) == 4);
    snprintf(name, sizeof name, "/dev/fd/%d", fd);
    CHECK(write_text(name, "two "));
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    CHECK(write_text(name, "three"));
    close(fd);
    CHECK(file_is(in_dir("appended"), "one two three"));
}

/* A full file system, as the limit on file sizes shows it: the old file stays, nothing else does. */
static void full_disks(void)
{
    struct rlimit old, small = { .rlim_cur = 1000, .rlim_max = RLIM_INFINITY };
    char block[5000] = { 0 };
    CHECK(write_text(in_dir("kept"), "old"));
    CHECK(getrlimit(RLIMIT_FSIZE, &old) == 0);
    small.rlim_max = old.rlim_max;
    signal(SIGXFSZ, SIG_IGN);
    CHECK(setrlimit(RLIMIT_FSIZE, &small) == 0);
    sca_status status = file_write(in_dir("kept"), block, sizeof block);
    CHECK(setrlimit(RLIMIT_FSIZE, &old) == 0);
    CHECK(status == SCA_ERR_IO && strstr(sca_last_error(), "File too large"));
    CHECK(file_is(in_dir("kept"), "old") && count_files(".kept.") == 0);
    file_out *f;
    CHECK_OK(file_out_open("/dev/full", &f)); /* a put that failed is not forgotten by commit */
    for (int i = 0; i < 13; i++) CHECK_OK(file_out_put(f, block, sizeof block));
    CHECK(file_out_put(f, block, sizeof block) == SCA_ERR_IO);
    CHECK(file_out_put(f, "x", 1) == SCA_OK || true);
    CHECK_FAILS(file_out_commit(f), SCA_ERR_IO, "earlier write failed");
}

static sca_status map_work(void *path)
{
    file_view v;
    TRY(file_map(path, &v));
    file_unmap(&v);
    return SCA_OK;
}

static sca_status read_work(void *path)
{
    char *text;
    size_t bytes;
    TRY(file_read(path, 100, &text, &bytes));
    mem_free(text);
    return SCA_OK;
}

static sca_status write_work(void *path)
{
    file_out *f;
    TRY(file_out_open(path, &f));
    sca_status status = file_out_put(f, "new", 3);
    if (status == SCA_OK) status = file_out_seek(f, 1);
    if (status == SCA_OK) return file_out_commit(f);
    file_out_abort(f);
    return status;
}

static sca_status dir_work(void *path) { return dir_make(path); }

static void file_faults(void)
{
    char path[512], sub[512];
    snprintf(path, sizeof path, "%s", in_dir("fault"));
    snprintf(sub, sizeof sub, "%s", in_dir("fault-dir/a/b"));
    CHECK(write_text(path, "old"));
    check_faults(fault_alloc, map_work, path, "file_map");
    CHECK(check_faults(fault_io, map_work, path, "file_map") == 2);
    check_faults(fault_alloc, read_work, path, "file_read");
    CHECK(check_faults(fault_io, read_work, path, "file_read") == 2);
    check_faults(fault_alloc, dir_work, sub, "dir_make");
    check_faults(fault_alloc, write_work, path, "file_out");
    for (int64_t n = 1; n < 100; n++) { /* the old file or the new one, and no temporary file */
        CHECK(write_text(path, "old"));
        fault_io(n);
        sca_status status = write_work(path);
        bool fired = fault_fired();
        fault_io(0);
        CHECK((status == SCA_OK) == !fired);
        CHECK((file_is(path, "old") || file_is(path, "new")) && count_files(".fault.") == 0);
        if (!fired) break;
    }
    CHECK(file_is(path, "new"));
    snprintf(sub, sizeof sub, "%s", in_dir("fault-io/a/b"));
    fault_io(1);
    CHECK_OK(dir_make(sub)); /* the first folder is there: that it cannot be made does not matter */
    CHECK(fault_fired());
    fault_io(0);
    CHECK(rmdir(sub) == 0);
    for (int64_t n = 1;; n++) { /* a folder that is there is not made again, so only the last one can fail */
        fault_io(n);
        sca_status status = dir_make(sub);
        bool fired = fault_fired();
        fault_io(0);
        if (!fired) break;
        CHECK((status == SCA_OK) == dir_exists(sub));
    }
}

/* ---- text -------------------------------------------------------------------------------------------- */

static void text_grows(void)
{
    str s = { 0 };
    char *taken;
    CHECK(strcmp(str_text(&s), "") == 0);
    str_put(&s, "ab");
    str_putc(&s, 'c');
    str_put_bytes(&s, "d\0e", 3);
    str_put_bytes(&s, NULL, 0);
    CHECK(s.bytes == 6 && memcmp(s.data, "abcd\0e", 7) == 0);
    str_clear(&s);
    for (int i = 0; i < 1000; i++) str_printf(&s, "%d %s ", i, "x");
    str_printf(&s, "%0500d", 7);
    CHECK(s.bytes == 3890 + 2000 + 500 && strlen(s.data) == s.bytes && text_ends(s.data, "0007"));
    CHECK_OK(str_take(&s, &taken));
    CHECK(s.data == NULL && text_starts(taken, "0 x 1 x "));
    sca_free(taken);
    CHECK_OK(str_take(&s, &taken)); /* an empty one is some memory too */
    CHECK(taken && taken[0] == 0);
    sca_free(taken);
    fault_alloc(1);
    str_put(&s, "x");
    fault_alloc(0);
    str_put(&s, "later");
    CHECK(s.failed && s.bytes == 0);
    CHECK_FAILS(str_take(&s, &taken), SCA_ERR_MEMORY, "out of memory");
    CHECK(taken == NULL && !s.failed);
}

static void texts_and_paths(void)
{
    CHECK(text_starts("abc", "ab") && !text_starts("a", "ab") && text_ends("abc", "bc") && !text_ends("c", "bc"));
    char *copy = text_copy("a\0b", 3);
    CHECK(copy && memcmp(copy, "a\0b", 4) == 0);
    mem_free(copy);
    const char *joins[][3] = { { "a", "b", "a/b" }, { "a/", "b", "a/b" }, { "", "b", "b" }, { "/", "b", "/b" } };
    for (size_t i = 0; i < LENGTH(joins); i++) {
        char *path = path_join(joins[i][0], joins[i][1]);
        CHECKF(path && strcmp(path, joins[i][2]) == 0, "%s", path ? path : "NULL");
        mem_free(path);
    }
    CHECK(strcmp(path_name("a/b"), "b") == 0 && strcmp(path_name("b"), "b") == 0 && path_name("a/")[0] == 0);
    CHECK(path_is_plain("a.b") && path_is_plain("...") && !path_is_plain("") && !path_is_plain(".") &&
          !path_is_plain("..") && !path_is_plain("a/b") && !path_is_plain("/"));
}

static void numbers(void)
{
    static const char *const wrong[] = { "",    " 1",    "1 ",    "+",   "-",        ".",    "e5",
                                         "1e",  "1e+",   "0x10",  "inf", "nan",      "-inf", "1e999",
                                         "1,5", "1.5.2", "1_000", "--1", "Infinity", "1d" };
    static const struct {
        const char *text;
        double value;
    } right[] = { { "0", 0 },       { "-1.5", -1.5 },
                  { "+2", 2 },      { ".5", 0.5 },
                  { "5.", 5 },      { "1e3", 1000 },
                  { "1E-2", 0.01 }, { "1e-999", 0 },
                  { "0.1", 0.1 },   { "179769313486231570000e288", 1.7976931348623157e308 } };
    double d = 77;
    int64_t i = 77;
    for (size_t k = 0; k < LENGTH(wrong); k++) {
        CHECKF(!text_to_double(wrong[k], &d) && d == 77, "'%s'", wrong[k]);
        CHECKF(!text_to_int(wrong[k], INT64_MIN, INT64_MAX, &i) && i == 77, "'%s'", wrong[k]);
    }
    for (size_t k = 0; k < LENGTH(right); k++)
        CHECKF(text_to_double(right[k].text, &d) && d == right[k].value, "'%s' is %g", right[k].text, d);
    CHECK(text_to_int("-9223372036854775808", INT64_MIN, INT64_MAX, &i) && i == INT64_MIN);
    CHECK(text_to_int("9223372036854775807", INT64_MIN, INT64_MAX, &i) && i == INT64_MAX);
    CHECK(!text_to_int("9223372036854775808", INT64_MIN, INT64_MAX, &i));
    CHECK(!text_to_int("-9223372036854775809", INT64_MIN, INT64_MAX, &i));
    CHECK(text_to_int("+007", 7, 7, &i) && i == 7 && !text_to_int("8", 0, 7, &i) && !text_to_int("1.0", 0, 7, &i));
}

/* A program may have set a locale with commas in its numbers. */
static void locale_does_not_matter(void)
{
    static const char *const names[] = { "de_DE.UTF-8", "de_DE.utf8", "fr_FR.UTF-8", "de_DE" };
    const char *set = NULL;
    for (size_t i = 0; i < LENGTH(names) && !set; i++) set = setlocale(LC_NUMERIC, names[i]);
    double d;
    str s = { 0 };
    str_printf(&s, "%g %.300f", 1.5, 0.5);
    CHECK(text_starts(str_text(&s), "1.5 0.5000"));
    str_clear(&s);
    json_put_real(&s, 2.25);
    CHECK(strcmp(str_text(&s), "2.25") == 0 && text_to_double("2.25", &d) && d == 2.25 &&
          !text_to_double("2,25", &d));
    str_free(&s);
    setlocale(LC_NUMERIC, "C");
    if (!set) check_skip("locale: no locale with a decimal comma is installed");
}

static void nearest_names(void)
{
    static const char *const names[] = { "train.steps", "train.lr", "generate.beams", "run.threads" };
    CHECK(text_nearest("train.stesp", names, 4) == names[0] && text_nearest("run.thread", names, 4) == names[3]);
    CHECK(text_nearest("generat.beam", names, 4) == names[2] && text_nearest("train.lr", names, 4) == names[1]);
    CHECK(!text_nearest("completely different", names, 4) && !text_nearest("", names, 4) &&
          !text_nearest("x", names, 4));
    CHECK(!text_nearest("x", names, 0));
    str huge = { 0 };
    for (int i = 0; i < 100000; i++) str_putc(&huge, 'x');
    CHECK(!text_nearest(str_text(&huge), names, 4));
    str_free(&huge);
}

static void utf8(void)
{
    static const struct {
        const char *text;
        int32_t code;
    } cases[] = { { "A", 'A' },
                  { "\xc3\xa9", 0xe9 },
                  { "\xe2\x82\xac", 0x20ac },
                  { "\xf0\x9f\x98\x80", 0x1f600 },
                  { "\xf4\x8f\xbf\xbf", 0x10ffff },
                  { "\xef\xbf\xbf", 0xffff },
                  { "\x80", -1 },
                  { "\xc0\x80", -1 },
                  { "\xc1\xbf", -1 },
                  { "\xe0\x9f\xbf", -1 },
                  { "\xed\xa0\x80", -1 },
                  { "\xf0\x8f\xbf\xbf", -1 },
                  { "\xf4\x90\x80\x80", -1 },
                  { "\xf5\x80\x80\x80", -1 },
                  { "\xff", -1 },
                  { "\xe2\x82", -1 },
                  { "\xc3", -1 },
                  { "\xc3(", -1 } };
    for (size_t k = 0; k < LENGTH(cases); k++) {
        size_t i = 0, n = strlen(cases[k].text);
        int32_t code = utf8_next(cases[k].text, n, &i);
        CHECKF(code == cases[k].code && i == (code < 0 ? 1 : n), "case %zu: %d, %zu", k, (int)code, i);
        CHECK(utf8_valid(cases[k].text, n) == (code >= 0));
    }
    for (int32_t code = 0; code <= 0x10ffff; code++) {
        char text[4];
        size_t i = 0, n = utf8_put(code, text);
        int32_t back = utf8_next(text, n, &i);
        if ((code >= 0xd800 && code < 0xe000) ? back >= 0 : back != code || i != n)
            CHECKF(false, "U+%04X", (unsigned)code);
    }
    str s = { 0 };
    str_put_utf8(&s, "a\xff\xc3\xa9\xe2\x82z", 7);
    CHECK(strcmp(str_text(&s), "a\xef\xbf\xbd\xc3\xa9\xef\xbf\xbd\xef\xbf\xbdz") == 0);
    str_free(&s);
}

/* ---- growing files ---------------------------------------------------------------------------------------- */

static sca_status count_name(void *user, const char *name)
{
    int *n = user;
    *n += strcmp(name, "grows") == 0;
    return SCA_OK;
}

static sca_status grow(void *user)
{
    (void)user;
    file_log *f;
    int n = 0;
    TRY(file_log_open(SCA_BUILD "/base-log/grows", 2, &f));
    sca_status status = file_log_put(f, "cd", 2);
    if (status == SCA_OK) status = file_log_sync(f);
    file_log_close(f);
    if (status == SCA_OK) status = dir_each(SCA_BUILD "/base-log", count_name, &n);
    CHECK(status != SCA_OK || n == 1);
    return status;
}

static void growing_files(void)
{
    char *data;
    size_t bytes;
    file_log *f;
    CHECK_OK(dir_make(SCA_BUILD "/base-log"));
    CHECK_OK(file_write(SCA_BUILD "/base-log/grows", "abxyz", 5));
    CHECK_OK(grow(NULL));
    CHECK_OK(file_read(SCA_BUILD "/base-log/grows", 99, &data, &bytes));
    CHECK(bytes == 4 && strcmp(data, "abcd") == 0);
    mem_free(data);
    CHECK(check_faults(fault_alloc, grow, NULL, "a growing file") > 1);
    CHECK(check_faults(fault_io, grow, NULL, "a growing file") > 3);
    CHECK_OK(file_remove(SCA_BUILD "/base-log/grows"));
    CHECK_OK(file_remove(SCA_BUILD "/base-log/grows"));
    CHECK_FAILS(file_log_open(SCA_BUILD "/base-log", 0, &f), SCA_ERR_IO, "base-log");
    CHECK_FAILS(file_log_open("/dev/null", 0, &f), SCA_ERR_IO, "device");
    file_log *second;
    CHECK_OK(file_log_open(SCA_BUILD "/base-log/grows", 0, &f));
    CHECK_FAILS(file_log_open(SCA_BUILD "/base-log/grows", 0, &second), SCA_ERR_STATE, "another process");
    file_log_close(f);
    CHECK_FAILS(dir_each(SCA_BUILD "/nowhere", count_name, NULL), SCA_ERR_IO, "nowhere");
}

static bool link_is(const char *path, const char *expected)
{
    char where[256] = "";
    ssize_t n = readlink(path, where, sizeof where - 1);
    return n > 0 && strcmp(where, expected) == 0;
}

#define WHOLE SCA_BUILD "/base-whole"

static sca_status appear(void *user)
{
    (void)user;
    sca_status status = SCA_OK;
    CHECK(mkdir(WHOLE "/.new.tmp", 0777) == 0 && mkdir(WHOLE "/.new.tmp/inner", 0777) == 0);
    TRY_GOTO(done, file_write(WHOLE "/.new.tmp/inner/file", "abc", 3));
    TRY_GOTO(done, dir_rename(WHOLE "/.new.tmp", WHOLE "/new"));
    TRY_GOTO(done, link_write(WHOLE "/last", "new"));
    CHECK(file_exists(WHOLE "/last/inner/file"));
    TRY_GOTO(done, dir_remove(WHOLE "/new"));
    CHECK(!dir_exists(WHOLE "/new"));
done:
    if (status != SCA_OK && system("rm -rf '" WHOLE "/new' '" WHOLE "/.new.tmp'") != 0) CHECK(false);
    return status;
}

static void folders_appear_whole(void)
{
    CHECK_OK(dir_make(WHOLE "/kept"));
    CHECK_OK(file_write(WHOLE "/kept/file", "abc", 3));
    CHECK(check_faults(fault_io, appear, NULL, "a folder") > 8);
    CHECK(check_faults(fault_alloc, appear, NULL, "a folder") > 3);
    CHECK_FAILS(dir_rename(WHOLE "/nothing", WHOLE "/new"), SCA_ERR_IO, "nothing");
    CHECK_OK(link_write(WHOLE "/last", "kept"));
    CHECK(link_is(WHOLE "/last", "kept"));
    CHECK_OK(dir_make(WHOLE "/other"));
    CHECK_FAILS(dir_rename(WHOLE "/other", WHOLE "/kept"), SCA_ERR_IO, "other"); /* nothing is replaced */
    CHECK_OK(dir_remove(WHOLE "/last"));
    CHECK_OK(dir_remove(WHOLE "/last"));
    CHECK(file_exists(WHOLE "/kept/file")); /* the link went, not what it led to */
    CHECK_OK(link_write(WHOLE "/other/link", "../kept"));
    CHECK_OK(dir_remove(WHOLE "/other"));
    CHECK(file_exists(WHOLE "/kept/file"));
    CHECK_OK(dir_remove(WHOLE));
    CHECK(!dir_exists(WHOLE));
}

int main(int argc, char **argv)
{
    if (!folder_make("test_base")) return 1;
    RUN(status_names);
    RUN(messages_are_one_safe_line);
    RUN(long_messages_lose_their_middle);
    RUN(messages_are_per_thread);
    RUN(sinks);
    RUN(memory);
    RUN(faults_hit_once);
    RUN(files_are_read);
    RUN(odd_inputs_are_refused);
    RUN(folders);
    RUN(files_are_replaced_whole);
    RUN(large_writes_keep_their_order);
    RUN(links_stay_links);
    RUN(odd_outputs);
    RUN(descriptors_are_continued);
    RUN(full_disks);
    RUN(file_faults);
    RUN(text_grows);
    RUN(texts_and_paths);
    RUN(numbers);
    RUN(locale_does_not_matter);
    RUN(nearest_names);
    RUN(utf8);
    if (!folder_remove()) return 1;
    RUN(growing_files);
    RUN(folders_appear_whole);
    return check_done();
}
