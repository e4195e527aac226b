/* check.h - the test harness: CHECK, CASE, skip.
 *
 * A test program is a list of CASE functions called from main through RUN; it ends with `return check_done();`.
 * Every failed check prints file, line and what was found; the exit status is 1 if any failed, 77 if everything
 * was skipped. SCA_TEST_REQUIRE=word,word turns the skips that carry such a word into failures.
 */
#ifndef CHECK_H
#define CHECK_H

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int check_failed, check_passed, check_skipped;
static const char *check_case = "";

#define CHECK(condition) check_that((condition), __FILE__, __LINE__, "%s", #condition)
/* CHECKF(x == 3, "x is %d", x): with the values in the message. */
#define CHECKF(condition, ...) check_that((condition), __FILE__, __LINE__, __VA_ARGS__)
/* A call that must succeed: prints the library's message when it does not. */
#define CHECK_OK(call)                                                                                             \
    do {                                                                                                           \
        sca_status check_status_ = (call);                                                                         \
        check_that(check_status_ == SCA_OK, __FILE__, __LINE__, "%s: %s", #call, sca_last_error());                \
    } while (0)
/* A call that must fail with that status and a message that contains `part`. */
#define CHECK_FAILS(call, expected, part)                                                                          \
    do {                                                                                                           \
        sca_status check_status_ = (call);                                                                         \
        check_that(check_status_ == (expected) && strstr(sca_last_error(), part), __FILE__, __LINE__,              \
                   "%s: status %s, message '%s', expected %s and '%s'", #call, sca_status_name(check_status_),     \
                   sca_last_error(), #expected, part);                                                             \
    } while (0)
#define RUN(function)                                                                                              \
    do {                                                                                                           \
        if (!check_only(argc, argv, #function)) break;                                                             \
        check_case = #function;                                                                                    \
        function();                                                                                                \
    } while (0)

#if defined(__GNUC__)
__attribute__((format(printf, 4, 5), unused))
#endif
static bool
check_that(bool ok, const char *file, int line, const char *format, ...)
{
    if (ok) {
        check_passed++;
        return true;
    }
    va_list args;
    va_start(args, format);
    fprintf(stderr, "FAILED %s:%d in %s: ", file, line, check_case);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    check_failed++;
    return false;
}

/* Names on the command line choose the cases to run. */
static inline bool check_only(int argc, char **argv, const char *name)
{
    for (int i = 1; i < argc; i++)
        if (strstr(name, argv[i])) return true;
    return argc < 2;
}

/* why: "shared: ../shared is absent"; the word before the colon is what SCA_TEST_REQUIRE names. */
static inline void check_skip(const char *why)
{
    const char *required = getenv("SCA_TEST_REQUIRE");
    size_t word = strcspn(why, ":");
    for (const char *p = required; p && *p; p += strcspn(p, ","), p += *p == ',')
        if (strcspn(p, ",") == word && memcmp(p, why, word) == 0) {
            check_that(false, __FILE__, __LINE__, "must run, but skipped: %s", why);
            return;
        }
    printf("skipped %s: %s\n", check_case, why);
    check_skipped++;
}

static inline int check_done(void)
{
    printf("%d checks passed, %d failed, %d cases skipped\n", check_passed, check_failed, check_skipped);
    if (check_failed) return 1;
    return check_passed == 0 && check_skipped > 0 ? 77 : 0;
}

#endif
