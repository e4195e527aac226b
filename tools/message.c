/* message.c - what a person sees on standard error: messages, warnings, progress with the time left. */
#include "tool.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static const double QUIET_S = 2, FRESH_S = 0.2, LOG_EVERY_S = 30;

static struct {
    pthread_mutex_t lock;
    bool terminal, shown; /* shown: a progress line is on the screen */
    char what[80];
    int64_t done;
    double start, last; /* of this work; when it was last shown */
    const char *only;
} progress_line = { .lock = PTHREAD_MUTEX_INITIALIZER, .only = "" };

static double now_s(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* With the lock held. */
static void clear_line(void)
{
    if (progress_line.shown) fputs("\r\033[K", stderr);
    progress_line.shown = false;
}

static void print_line(const char *kind, const char *text)
{
    pthread_mutex_lock(&progress_line.lock);
    clear_line();
    fprintf(stderr, "sca: %s%s\n", kind, text);
    pthread_mutex_unlock(&progress_line.lock);
}

static void on_log(void *user, sca_level level, const char *text)
{
    (void)user;
    static const char *const kinds[] = { "debug: ", "", "warning: ", "error: " };
    print_line(kinds[level], text);
}

void put_seconds(char *out, size_t bytes, double s)
{
    if (s < 90)
        snprintf(out, bytes, "%.0f s", s);
    else if (s < 90 * 60)
        snprintf(out, bytes, "%.0f min", s / 60);
    else
        snprintf(out, bytes, "%.1f h", s / 3600);
}

static void show_progress(int64_t done, int64_t total, double now)
{
    double elapsed = now - progress_line.start, share = (double)done / (double)total;
    char left[32] = "?";
    if (done > 0) put_seconds(left, sizeof left, elapsed / share - elapsed);
    fprintf(stderr, "%s%s: %.0f %%, %s left%s", progress_line.terminal ? "\r" : "sca: ", progress_line.what,
            100 * share, left, progress_line.terminal ? "\033[K" : "\n");
    fflush(stderr);
    progress_line.shown = progress_line.terminal;
    progress_line.last = now;
}

static void on_progress(void *user, const char *what, int64_t done, int64_t total)
{
    (void)user;
    if (!text_starts(what, progress_line.only)) return;
    pthread_mutex_lock(&progress_line.lock);
    double now = now_s();
    char name[sizeof progress_line.what];
    snprintf(name, sizeof name, "%s", what);
    for (char *p = name; *p; p++)
        if ((unsigned char)*p < 0x20 || *p == 0x7f) *p = '?'; /* file names must not steer the terminal */
    if (strcmp(progress_line.what, name) != 0 || done < progress_line.done) { /* another piece of work */
        memcpy(progress_line.what, name, sizeof name);
        progress_line.start = progress_line.last = now;
    }
    progress_line.done = done;
    /* On a terminal the line appears after a while and is then kept fresh; a log gets a line now and then. */
    double since = progress_line.shown ? now - progress_line.last : now - progress_line.start;
    double wait = !progress_line.terminal ? LOG_EVERY_S : progress_line.shown ? FRESH_S : QUIET_S;
    if (!progress_line.terminal) since = now - progress_line.last;
    if (total <= 0 || done >= total)
        clear_line();
    else if (since >= wait)
        show_progress(done, total, now);
    pthread_mutex_unlock(&progress_line.lock);
}

void message_start(void)
{
    static const char *const levels[] = { "debug", "info", "warn", "error" };
    const char *wanted = getenv("SCA_LOG");
    sca_level least = SCA_LOG_WARN;
    for (size_t i = 0; wanted && i < LENGTH(levels); i++)
        if (strcmp(wanted, levels[i]) == 0) least = (sca_level)i;
    progress_line.terminal = isatty(STDERR_FILENO);
    sca_log_to(on_log, NULL, least);
    sca_progress_to(on_progress, NULL);
}

void message_line(const char *text, bool always, bool end)
{
    pthread_mutex_lock(&progress_line.lock);
    double now = now_s();
    if (!progress_line.terminal) {
        if (always) fprintf(stderr, "sca: %s\n", text);
    } else if (end || !progress_line.shown || now - progress_line.last >= FRESH_S) {
        fprintf(stderr, "\r%s\033[K%s", text, end ? "\n" : "");
        fflush(stderr);
        progress_line.shown = !end;
        progress_line.last = now;
    }
    pthread_mutex_unlock(&progress_line.lock);
}

void message_progress_of(const char *beginning) { progress_line.only = beginning; }

void message_note(const char *text) { print_line("", text); }

int fail_now(void)
{
    print_line("", sca_last_error());
    return FAILED;
}

/* The library's own formatter escapes and shortens what comes from the command line. */
int fail_usage(const char *format, ...)
{
    str text = { 0 };
    va_list args;
    va_start(args, format);
    str_vprintf(&text, format, args);
    va_end(args);
    (void)status_fail(SCA_ERR_ARGUMENT, "%s", str_text(&text));
    print_line("", sca_last_error());
    str_free(&text);
    return USAGE;
}
