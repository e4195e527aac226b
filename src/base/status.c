/* status.c - the message of each thread, and where log lines and progress go. */
#include "base/base.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

/* ---- one line of text from whatever a message holds -------------------------------------------------- */

enum {
    RAW_BYTES = 8192, /* formatted on the stack up to here, so that messages work without memory */
    ESCAPED = 12,     /* longest escape of one code point, and room to spare                     */
    TAIL = STATUS_MESSAGE_BYTES / 3
};

static const char *const CUT = " [...] ";

/* Terminals act on control characters and on the marks that reverse text; neither may come from a file. */
static bool must_escape(int32_t code)
{
    return code < 0x20 || (code >= 0x7f && code < 0xa0) || code == 0x2028 || code == 0x2029 ||
           (code >= 0x202a && code <= 0x202e) || (code >= 0x2066 && code <= 0x2069);
}

/* Writes the code point at text[*i], escaped where needed, and advances; returns the bytes written. */
static size_t escape_next(const char *text, size_t bytes, size_t *i, char out[ESCAPED])
{
    size_t start = *i;
    int32_t code = utf8_next(text, bytes, i);
    if (code == '\n') return memcpy(out, "\\n", 2), 2;
    if (code == '\t') return memcpy(out, "\\t", 2), 2;
    if (code == '\r') return memcpy(out, "\\r", 2), 2;
    if (code < 0) return (size_t)snprintf(out, ESCAPED, "\\x%02x", (unsigned char)text[start]);
    if (must_escape(code))
        return (size_t)snprintf(out, ESCAPED, code < 0x100 ? "\\x%02x" : "\\u%04x", (unsigned)code);
    memcpy(out, text + start, *i - start);
    return *i - start;
}

/* Where the last code points begin that need at most `room` bytes when escaped. */
static size_t tail_start(const char *text, size_t bytes, size_t room)
{
    size_t start = bytes, used = 0;
    while (start > 0) {
        size_t begin = start - 1;
        while (begin > 0 && start - begin < 4 && ((unsigned char)text[begin] & 0xc0) == 0x80) begin--;
        size_t end = begin;
        if (utf8_next(text, bytes, &end) < 0 || end != start) begin = start - 1;
        char escaped[ESCAPED];
        size_t next = begin;
        used += escape_next(text, bytes, &next, escaped);
        if (used > room) break;
        start = begin;
    }
    return start;
}

/* Escapes text into out[STATUS_MESSAGE_BYTES + 1]. What is too long loses its middle: the beginning names the file,
 * the end says what was expected. */
static void put_line(const char *text, size_t bytes, char *out)
{
    size_t cut = strlen(CUT), at = 0, mark = 0, mark_i = 0, i = 0;
    while (i < bytes) {
        char escaped[ESCAPED];
        size_t begin = i, n = escape_next(text, bytes, &i, escaped);
        if (at + n > STATUS_MESSAGE_BYTES) {
            size_t tail = tail_start(text, bytes, TAIL - cut);
            at = mark;
            memcpy(out + at, CUT, cut);
            at += cut;
            for (i = tail > mark_i ? tail : mark_i; i < bytes;) at += escape_next(text, bytes, &i, out + at);
            break;
        }
        if (at <= STATUS_MESSAGE_BYTES - TAIL - ESCAPED) mark = at, mark_i = begin;
        memcpy(out + at, escaped, n);
        at += n;
    }
    out[at] = 0;
}

static void format_line(const char *format, va_list args, char *out)
{
    char raw[RAW_BYTES], *text = raw;
    va_list again;
    va_copy(again, args);
    int length = vsnprintf(raw, sizeof raw, format, args);
    size_t bytes = length < 0 ? 0 : (size_t)length;
    if (bytes >= sizeof raw) {
        char *heap = mem_alloc(bytes + 1);
        if (heap && vsnprintf(heap, bytes + 1, format, again) == length)
            text = heap;
        else
            bytes = sizeof raw - 1;
        if (heap && text != heap) mem_free(heap);
    }
    va_end(again);
    put_line(text, bytes, out);
    if (text != raw) mem_free(text);
}

/* ---- status ------------------------------------------------------------------------------------------ */

static _Thread_local char message[STATUS_MESSAGE_BYTES + ESCAPED];

const char *sca_status_name(sca_status s)
{
    static const char *const names[] = {
        "SCA_OK",         "SCA_ERR_ARGUMENT",    "SCA_ERR_MEMORY", "SCA_ERR_IO",  "SCA_ERR_FORMAT",
        "SCA_ERR_DEVICE", "SCA_ERR_UNSUPPORTED", "SCA_ERR_STATE",  "SCA_ERR_COMM"
    };
    size_t i = (size_t)s;
    return i < LENGTH(names) ? names[i] : "SCA_ERR_(unknown)";
}

const char *sca_last_error(void) { return message; }

const char *status_message(void) { return message; }

#undef status_fail
sca_status status_fail(sca_status s, const char *format, ...)
{
    char line[sizeof message]; /* the arguments may point into the message they replace */
    va_list args;
    va_start(args, format);
    format_line(format, args, line);
    va_end(args);
    memcpy(message, line, strlen(line) + 1);
    return s;
}

sca_status status_context(sca_status s, const char *format, ...)
{
    char line[sizeof message], both[2 * sizeof message + 2];
    va_list args;
    va_start(args, format);
    format_line(format, args, line);
    va_end(args);
    int length = snprintf(both, sizeof both, "%s: %s", line, message);
    put_line(both, length < 0 ? 0 : (size_t)length, message);
    return s;
}

sca_status status_set(sca_status s, const char *text) { return status_fail(s, "%s", text); }

#ifndef NDEBUG
void assert_failed(const char *condition, const char *file, int line)
{
    char text[1024];
    int length = snprintf(text, sizeof text, "%s:%d: internal error: %s\n", file, line, condition);
    if (length > 0)
        (void)!write(STDERR_FILENO, text, (size_t)length < sizeof text ? (size_t)length : sizeof text - 1);
    __builtin_trap();
}
#endif

/* ---- sinks ------------------------------------------------------------------------------------------- */

/* Readers hold the lock while they call the sink: once sca_log_to has returned, the old sink is never called again.
 */
static pthread_rwlock_t sink_lock = PTHREAD_RWLOCK_INITIALIZER;
static sca_log_fn *log_fn;
static void *log_user;
static sca_progress_fn *progress_fn;
static void *progress_user;
/* Looked at without the lock, so that silence costs nothing. */
static atomic_int log_least = SCA_LOG_ERROR + 1;
static atomic_bool progress_on;

void sca_log_to(sca_log_fn *fn, void *user, sca_level least)
{
    pthread_rwlock_wrlock(&sink_lock);
    log_fn = fn;
    log_user = user;
    atomic_store(&log_least, fn ? (int)least : SCA_LOG_ERROR + 1);
    pthread_rwlock_unlock(&sink_lock);
}

void sca_progress_to(sca_progress_fn *fn, void *user)
{
    pthread_rwlock_wrlock(&sink_lock);
    progress_fn = fn;
    progress_user = user;
    atomic_store(&progress_on, fn != NULL);
    pthread_rwlock_unlock(&sink_lock);
}

static void log_line(sca_level level, const char *format, va_list args)
{
    if ((int)level < atomic_load_explicit(&log_least, memory_order_relaxed)) return;
    char line[sizeof message];
    format_line(format, args, line);
    pthread_rwlock_rdlock(&sink_lock);
    if (log_fn && (int)level >= atomic_load(&log_least)) log_fn(log_user, level, line);
    pthread_rwlock_unlock(&sink_lock);
}

void log_debug(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    log_line(SCA_LOG_DEBUG, format, args);
    va_end(args);
}

void log_info(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    log_line(SCA_LOG_INFO, format, args);
    va_end(args);
}

void log_warn(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    log_line(SCA_LOG_WARN, format, args);
    va_end(args);
}

void progress(const char *what, int64_t done, int64_t total)
{
    if (!atomic_load_explicit(&progress_on, memory_order_relaxed)) return;
    pthread_rwlock_rdlock(&sink_lock);
    if (progress_fn) progress_fn(progress_user, what, done, total);
    pthread_rwlock_unlock(&sink_lock);
}
