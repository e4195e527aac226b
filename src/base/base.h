/* base.h - layer 0: status and messages, log, memory and file doors, threads, strings, JSON, settings, pickle, zip.
 *
 * Rules of the whole project (architecture.md 3.9):
 *  - a fallible function returns sca_status; results go through the last parameters;
 *  - the place that detects a failure writes the message once, with status_fail: name the file, what was found,
 *    what was expected, and the next step; callers propagate with TRY or TRY_GOTO;
 *  - library code never prints, exits or reads the environment.
 */
#ifndef SCA_BASE_H
#define SCA_BASE_H

#include "sca.h"

#include <jansson.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define PRINTF_LIKE(fmt, args) __attribute__((format(printf, fmt, args)))
#else
#define PRINTF_LIKE(fmt, args)
#endif

#define LENGTH(array) (sizeof(array) / sizeof((array)[0]))

/* ---- status (status.c) ------------------------------------------------------------------------- */

/* Longest message kept: with what a program puts around it, it stays below the 4,000 bytes of 3.18. Of a longer one the
 * middle is left out, so that the file at its beginning and the expectation at its end remain. */
#define STATUS_MESSAGE_BYTES 3800

/* Records the message of this thread (one line: control characters and malformed UTF-8 escaped) and returns s. */
sca_status status_fail(sca_status s, const char *format, ...) PRINTF_LIKE(2, 3);
/* Shows the compiler that the result is s, no SCA_OK: else it takes what a failed call leaves unset for a mistake. */
static inline sca_status status_same(sca_status s) { return s; }
#define status_fail(s, ...) (status_fail((s), __VA_ARGS__), status_same(s))
/* Puts "context: " in front of the current message; for callers that know the file when the callee did not. */
sca_status status_context(sca_status s, const char *format, ...) PRINTF_LIKE(2, 3);
const char *status_message(void); /* this thread's message; "" if none */
/* Carries a failure from a worker to the thread that reports it. */
sca_status status_set(sca_status s, const char *message);

#define TRY(call)                                                                                                  \
    do {                                                                                                           \
        sca_status try_status_ = (call);                                                                           \
        if (try_status_ != SCA_OK) return try_status_;                                                             \
    } while (0)
/* Needs a local `sca_status status`, which the label's code returns. */
#define TRY_GOTO(label, call)                                                                                      \
    do {                                                                                                           \
        status = (call);                                                                                           \
        if (status != SCA_OK) goto label;                                                                          \
    } while (0)

#ifdef NDEBUG
#define ASSERT(condition) ((void)0)
#else
void assert_failed(const char *condition, const char *file, int line);
#define ASSERT(condition)                                                                                          \
    ((condition) ? (void)0 : assert_failed(#condition, __FILE__, __LINE__)) /* our own mistakes only */
#endif

/* ---- log and progress ---------------------------------------------------------------------------- */

void log_debug(const char *format, ...) PRINTF_LIKE(1, 2);
void log_info(const char *format, ...) PRINTF_LIKE(1, 2);
void log_warn(const char *format, ...) PRINTF_LIKE(1, 2);
void progress(const char *what, int64_t done, int64_t total); /* cheap to call often */

/* ---- memory: the one door, so that a test can make the n-th allocation fail ------------------------ */

void *mem_alloc(size_t bytes);             /* NULL and no message on failure; bytes may be 0            */
void *mem_zero(size_t count, size_t size); /* calloc, overflow-checked                                   */
void *mem_resize(void *p, size_t bytes);   /* realloc; on failure p stays valid                          */
void *mem_aligned(size_t alignment, size_t bytes);
void mem_free(void *p);
/* status_fail(SCA_ERR_MEMORY, "out of memory: <bytes> for <what>") */
sca_status mem_fail(size_t bytes, const char *what);
#define mem_fail(bytes, what) (mem_fail((bytes), (what)), status_same(SCA_ERR_MEMORY))
bool size_mul(size_t a, size_t b, size_t *out); /* false on overflow */

/* Tests only: the n-th allocation (1-based, counted over all threads) from now on fails, once; 0 turns it off. */
void fault_alloc(int64_t nth);
void fault_io(int64_t nth); /* the n-th read, write, open, fsync or rename               */
bool fault_fired(void);     /* true once the injected failure has happened               */

/* ---- threads (threads.c) ------------------------------------------------------------------------------ */

/* Does task 0 .. tasks-1, each once and in any order, on every core that this process may use, and returns when all are
 * done; threads that cannot be started are done without. Tasks write different results. */
void threads_each(int64_t tasks, void (*fn)(void *context, int64_t task), void *context);

/* ---- files ---------------------------------------------------------------------------------------- */

/* A regular file mapped read-only (symbolic links are followed; pipes, devices, folders are refused). bytes may be 0. */
typedef struct file_view {
    const uint8_t *data;
    size_t bytes;
    char *path; /* for messages */
} file_view;
sca_status file_map(const char *path, file_view *out);
void file_unmap(file_view *v); /* accepts an empty view */
/* These bytes are not needed for now: they no longer count as memory, and are read again when they are looked at. */
void file_forget(const file_view *v, size_t from, size_t bytes);
/* Whole file in memory with a closing 0 byte not counted in *bytes; refused above `limit`. Caller: mem_free. */
sca_status file_read(const char *path, size_t limit, char **data, size_t *bytes);
bool file_exists(const char *path); /* a regular file (links followed) */
bool dir_exists(const char *path);
/* Makes the folder and its parents. */
sca_status dir_make(const char *path);

/* Writing: into a temporary file in the same folder (".NAME.XXXXXX.tmp"), fsync, rename on commit; a failed write
 * leaves the old file or none. An existing target that is no regular file (/dev/stdout, a pipe) is written in place. */
typedef struct file_out file_out;
sca_status file_out_open(const char *path, file_out **out);
sca_status file_out_put(file_out *f, const void *data, size_t bytes);
sca_status file_out_seek(file_out *f,
                         int64_t offset); /* from the start; written in place: only where it is already */
sca_status file_out_commit(file_out *f);  /* frees f, also when it fails */
void file_out_abort(file_out *f);         /* removes the temporary file; accepts NULL */
sca_status file_write(const char *path, const void *data, size_t bytes); /* open, put, commit */

/* A file that grows while work goes on and survives its end at any instant: made if it is absent, cut to its first
 * `keep` bytes if it is longer, then appended to. What was put before a sync lasts. One writer at a time: SCA_ERR_STATE
 * while another has it open. */
typedef struct file_log file_log;
sca_status file_log_open(const char *path, size_t keep, file_log **out);
sca_status file_log_put(file_log *f, const void *data, size_t bytes);
sca_status file_log_sync(file_log *f);
void file_log_close(file_log *f); /* accepts NULL; no sync */
/* Removes a file; one that is not there is fine. */
sca_status file_remove(const char *path);
/* Every name in the folder, "." and ".." left out, in no order. */
sca_status dir_each(const char *path, sca_status (*fn)(void *user, const char *name), void *user);

/* Folders that appear whole: filled under another name in the same folder, then renamed. Its files must be on the
 * disk already, as file_out_commit leaves them; the rename lasts when this returns. `to` must not be there. */
sca_status dir_rename(const char *from, const char *to);
/* A folder with all that it holds, or a file or link; what is not there is fine. Links are removed, not followed. */
sca_status dir_remove(const char *path);
/* A symbolic link at `path` to `target`, in place of an earlier link, at no instant absent. */
sca_status link_write(const char *path, const char *target);

/* ---- strings (str.c) -------------------------------------------------------------------------------- */

/* Growable, always 0-terminated once it holds something. Out of memory is sticky: later calls do nothing, `failed`
 * is looked at once, at the end. Zero-initialise; str_free when done. */
typedef struct str {
    char *data; /* NULL when empty and never grown: read it with str_text */
    size_t bytes, cap;
    bool failed;
} str;
void str_put(str *s, const char *text);
void str_put_bytes(str *s, const void *data, size_t bytes);
void str_putc(str *s, char c);
void str_printf(str *s, const char *format, ...) PRINTF_LIKE(2, 3);
void str_vprintf(str *s, const char *format, va_list args);
const char *str_text(const str *s);      /* "" when empty */
void str_clear(str *s);                  /* keeps the memory */
sca_status str_take(str *s, char **out); /* hands the text over (mem_free / sca_free); SCA_ERR_MEMORY if failed */
void str_free(str *s);

char *text_copy(const char *text, size_t bytes); /* 0-terminated copy, NULL when out of memory */
bool text_ends(const char *text, const char *suffix);
bool text_starts(const char *text, const char *prefix);
/* Strict numbers: the whole text, no spaces, finite; false if malformed or out of range. Independent of the locale. */
bool text_to_double(const char *text, double *out);
bool text_to_int(const char *text, int64_t least, int64_t most, int64_t *out);
/* The nearest of `names` by edit distance, or NULL when none is near; for "did you mean". */
const char *text_nearest(const char *name, const char *const *names, size_t count);
/* dir + "/" + name, NULL when out of memory; mem_free. */
char *path_join(const char *dir, const char *name);
const char *path_name(const char *path); /* last component, points into path */
/* True for a plain file name: not empty, no '/', not "." or "..", no 0. */
bool path_is_plain(const char *name);

/* UTF-8: decodes one code point at text[*i] and advances; returns -1 on malformed input (advances one byte). */
int32_t utf8_next(const char *text, size_t bytes, size_t *i);
size_t utf8_put(int32_t code, char out[4]); /* bytes written */
bool utf8_valid(const char *text, size_t bytes);
/* Appends text with every malformed byte replaced by U+FFFD, as JSON output needs. */
void str_put_utf8(str *s, const char *text, size_t bytes);

/* ---- JSON (json.c), on top of jansson ------------------------------------------------------------------- */

#define JSON_DEPTH 128 /* deepest nesting accepted: what walks a value recursively needs little stack */

/* Small documents: the whole value in memory. Messages name file, line and column. Duplicate keys are refused.
 * *out is released with json_decref. */
sca_status json_open(const char *path, json_t **out);
sca_status json_parse(const char *text, size_t bytes, const char *name, json_t **out);
/* Written through file_out, indented by 2, keys in insertion order, reals with 17 digits, closing newline. */
sca_status json_save(const char *path, const json_t *value);

/* Members with a contract; `file` is for the message: "FILE: 'KEY' is 0, expected an integer from 1 to 64". */
sca_status json_need_int(const json_t *object, const char *key, const char *file, int64_t least, int64_t most,
                         int64_t *out);
sca_status json_need_real(const json_t *object, const char *key, const char *file, double *out);      /* finite */
sca_status json_need_text(const json_t *object, const char *key, const char *file, const char **out); /* borrowed */
/* Absent or null leaves *out as it is; a wrong type or range is an error. */
sca_status json_may_int(const json_t *object, const char *key, const char *file, int64_t least, int64_t most,
                        int64_t *out);
sca_status json_may_real(const json_t *object, const char *key, const char *file, double *out);
sca_status json_may_bool(const json_t *object, const char *key, const char *file, bool *out);
sca_status json_may_text(const json_t *object, const char *key, const char *file, const char **out);

/* Writers into a str. */
void json_put_text(str *s, const char *text, size_t bytes); /* quoted, escaped, valid UTF-8 (U+FFFD), one line */
void json_put_real(str *s,
                   double value); /* the fewest digits, up to 17, that read back equal; null when not finite */

/* Files of any size: every element of a top-level array, or of an array that is a member of the top-level object, is
 * handed over as one value, in file order. Other members of a top-level object come with index -1. The value and what
 * is in it is borrowed: to be kept, it needs a json_incref. Memory: one element at a time; the pages of the file that
 * lie behind are given back. NaN and infinite numbers, which Python writes and JSON has not, are null. A message of the
 * callback gets the file name put in front. */
typedef sca_status json_item_fn(void *user, const char *key_or_null, int64_t index, json_t *item);
sca_status json_stream(const char *path, json_item_fn *fn, void *user);

/* ---- settings (config.c): expanded from config.def ------------------------------------------------------ */

#define CONFIG_TEXT 1024 /* longest text setting, closing 0 included: longer is an error */

typedef struct config_dataset { /* one entry of data.train or data.eval */
    char kind[64], annotations[CONFIG_TEXT], images[CONFIG_TEXT], split[64], task[64], name[256];
    double weight; /* 0: not given */
} config_dataset;

typedef struct sca_config config;
#define CFG_INT(section, name, value, least, most, help) int64_t section##_##name;
#define CFG_REAL(section, name, value, least, most, help) double section##_##name;
#define CFG_BOOL(section, name, value, help) bool section##_##name;
#define CFG_TEXT(section, name, value, help) char section##_##name[CONFIG_TEXT];
#define CFG_ENUM(section, name, value, choices, help) char section##_##name[32];
#define CFG_NAMES(section, name, help)                                                                             \
    char **section##_##name;                                                                                       \
    size_t n_##section##_##name;
#define CFG_RATES(section, name, help)                                                                             \
    char **section##_##name##_key;                                                                                 \
    double *section##_##name;                                                                                      \
    size_t n_##section##_##name;
#define CFG_REALS(section, name, value, count, help) double section##_##name[count];
#define CFG_DATASETS(section, name, help)                                                                          \
    config_dataset *section##_##name;                                                                              \
    size_t n_##section##_##name;
struct sca_config {
#include "config.def"
};
#undef CFG_INT
#undef CFG_REAL
#undef CFG_BOOL
#undef CFG_TEXT
#undef CFG_ENUM
#undef CFG_NAMES
#undef CFG_RATES
#undef CFG_REALS
#undef CFG_DATASETS

sca_status config_open(const char *yaml_or_null, config **out);
sca_status config_set(config *c, const char *assignment);
sca_status config_copy(const config *c, config **out);
sca_status config_get(const config *c, const char *key, str *out);
sca_status config_dump(const config *c, str *yaml);
void config_help(str *text);
void config_close(config *c);

/* ---- pickle (pickle.c): builds plain values, executes nothing ------------------------------------------- */

typedef enum pickle_type {
    PICKLE_NONE,
    PICKLE_BOOL,
    PICKLE_INT,
    PICKLE_REAL,
    PICKLE_TEXT,
    PICKLE_BYTES,
    PICKLE_LIST,
    PICKLE_TUPLE,
    PICKLE_DICT,
    PICKLE_SET,
    PICKLE_GLOBAL, /* text: "module name"                                                     */
    PICKLE_CALL,   /* items[0]: the global, items[1]: the argument tuple, items[2]: state if BUILD gave one */
    PICKLE_PERSID  /* items[0]: the persistent id                                             */
} pickle_type;

typedef struct pickle_value pickle_value;
struct pickle_value {
    pickle_type type;
    int64_t integer; /* BOOL, INT (beyond 64 bits, as the magic number of torch's old format: an error) */
    double real;
    const char *text;     /* TEXT (UTF-8), BYTES, GLOBAL; 0-terminated, `count` bytes   */
    pickle_value **items; /* LIST, TUPLE, SET, CALL, PERSID; DICT: key, value, key, ... */
    size_t count;         /* items, or bytes of text                                    */
};

typedef struct pickle pickle; /* owns all values of one document */
/* Reads one pickle (protocols 0 to 5) from data[0..bytes); *used is where it ended, so that several may follow each
 * other. A global not in `allowed` ("collections OrderedDict", ..., NULL) is refused by name. A call of
 * "collections OrderedDict" becomes a DICT. Depth, memo and size are bounded by the input's own length. */
sca_status pickle_open(const void *data, size_t bytes, const char *name, const char *const *allowed, pickle **out,
                       size_t *used);
const pickle_value *pickle_root(const pickle *p);
const pickle_value *pickle_get(const pickle_value *dict, const char *key); /* NULL if absent or no dict */
void pickle_close(pickle *p);

/* ---- zip (zip.c): .pth files, wheels, jars --------------------------------------------------------------- */

typedef struct zip_entry {
    const char *name;                     /* 0-terminated */
    uint64_t offset, bytes_packed, bytes; /* offset of the data in the file */
    uint32_t crc;
    int method; /* 0 stored, 8 deflated */
} zip_entry;
typedef struct zip zip;
/* Checks the directory (zip64 too), names, overlaps and bounds. `data` must outlive the zip. */
sca_status zip_open(const void *data, size_t bytes, const char *name, zip **out);
size_t zip_count(const zip *z);
const zip_entry *zip_at(const zip *z, size_t i);
const zip_entry *zip_find(const zip *z, const char *name); /* NULL if absent */
/* Stored entry: a pointer into the file, its checksum verified. */
sca_status zip_view(const zip *z, const zip_entry *e, const uint8_t **data);
/* Any entry, inflated and verified, refused above `limit`; mem_free. */
sca_status zip_read(const zip *z, const zip_entry *e, size_t limit, uint8_t **data);
void zip_close(zip *z);

#endif
