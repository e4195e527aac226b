/* tool.h - what the files of the program `sca` share. The program stands on sca.h and base.h, as any other could.
 */
#ifndef TOOL_H
#define TOOL_H

#include "base/base.h"

/* ---- exit status and messages (message.c) ------------------------------------------------------------- */

enum { DONE = 0, FAILED = 1, USAGE = 2 };

/* Where messages, warnings and progress of the library go: standard error. SCA_LOG=debug|info|warn|error. */
void message_start(void);
void message_note(const char *text); /* a line, as a message of the library */
/* Shows only the progress of work whose name begins so, not that of its parts. Borrowed. */
void message_progress_of(const char *beginning);
int fail_now(void);                                        /* prints sca_last_error(); returns FAILED */
int fail_usage(const char *format, ...) PRINTF_LIKE(1, 2); /* prints; returns USAGE                    */

/* A line that is kept up to date: on a terminal in its place, shown at most five times a second; else a line of its own
 * each time `always` is set. The last one has `end`: what is shown stays. */
void message_line(const char *text, bool always, bool end);
void put_seconds(char *out, size_t bytes, double s); /* "12 s", "5 min", "3.1 h" */

/* ---- ranks (ranks.c) ------------------------------------------------------------------------------------- */

sca_status ranks_join(void); /* sca_ranks_open where a launcher started several processes */

/* ---- arguments (options.c) ------------------------------------------------------------------------------- */

enum option_group { /* what a command takes, as a set */
                    REGIONS = 1,
                    MODEL = 2,
                    GENERATE = 4,
                    RESULTS = 8,
                    PHOTO = 16,
                    EXPORT = 32,
                    INFO = 64,
                    TOKENS = 128,
                    RUN = 256,
                    SCORE = 512,
                    PREPARE = 1024,
                    SETTINGS = 2048, /* a configuration file and assignments */
                    PLOT = 4096
};

enum option_id {
#define OPTION(id, name, value, settings, groups, help) OPTION_##id,
#include "options.def"
#undef OPTION
    OPTION_COUNT
};

typedef struct argument { /* one use of an option of group REGIONS */
    enum option_id id;
    const char *value;
} argument;

typedef struct arguments { /* borrows from argv */
    const char *command;
    const char **operands;
    int n_operands;
    const char *value[OPTION_COUNT]; /* of its last use; "" for a flag; NULL: not given */
    argument *regions;               /* in order */
    int n_regions;
} arguments;

/* argv[0 .. argc): what follows the command's name. Returns DONE, FAILED or USAGE (message printed). */
int arguments_read(int argc, char **argv, const char *command, unsigned groups, arguments *out);
void arguments_free(arguments *a);
/* The library's settings as the options say; greedy search where nothing is said. Caller: sca_config_close. */
int arguments_config(const arguments *a, sca_config **out);
/* The settings of the file that is the first operand, with the options and the other operands, section.key=value. */
int arguments_config_file(const arguments *a, sca_config **out);
/* METEOR's tables are found beside the program unless the settings say otherwise. */
sca_status default_resources(sca_config *settings);
/* USAGE and a message unless --model, or --sam and --lm, are given. */
int arguments_need_model(const arguments *a);
/* The options of these groups, one line each. */
void options_help(unsigned groups, str *text);

/* ---- output (output.c) ------------------------------------------------------------------------------------ */

/* Standard output, or a file that appears complete when all is written. */
typedef struct output {
    const char *path; /* NULL: standard output */
    str text;         /* not written yet */
} output;
/* Finds out now, not after the work, that `path` cannot be written. Borrowed: path. */
sca_status output_open(const char *path, output *out);
sca_status output_flush(output *o);  /* standard output only: hands on what is there */
sca_status output_finish(output *o); /* writes; to be called once, also when nothing was put */
void output_free(output *o);
/* The parts of a path that can be found wanting before the file is written. */
sca_status output_probe(const char *path);
/* Text for a terminal: malformed UTF-8 and control characters are replaced. */
void put_printable(str *s, const char *text);
void put_count(str *s, int64_t n); /* 1,234,567 */

/* The folder `resources` beside the program, where tools/meteor_data.sh puts METEOR's tables; also when it is not
 * there. NULL when out of memory or the program's place is unknown; mem_free. */
char *resources_dir(void);

/* ---- regions (regions.c) ------------------------------------------------------------------------------------ */

typedef struct region { /* one prompt, in pixels of the photo, as given */
    bool has_box;
    double box[4];
    const sca_point *points;
    int n_points;
    const char *mask; /* file, borrowed; NULL: none */
} region;

typedef struct region_list {
    region *items;
    int n; /* 0: no prompt on the command line */
    sca_point *points;
} region_list;

int regions_read(const arguments *a, region_list *out); /* DONE, FAILED or USAGE (message printed) */
void regions_free(region_list *r);
/* Warnings for boxes that are inverted and prompts outside the photo, which are used as they are. */
void regions_warn(const region_list *r, const char *image, int width, int height);

/* ---- records (record.c) ------------------------------------------------------------------------------------- */

typedef struct record { /* what is said about one region of one photo; borrows everything */
    const char *image;
    int number; /* from 1 */
    const region *region;
    const sca_mask *mask;
    const sca_text *texts; /* one per caption head; NULL: masks only */
    int heads;
} record;

/* Which head speaks for the region: that of the best mask, or the first when heads and scores do not pair up. */
const sca_text *record_text(const record *r);
sca_status record_put_json(const record *r, str *out); /* one object, one line, no newline */
void record_put_text(const record *r, str *out);       /* for people */

/* ---- overlay (overlay.c) --------------------------------------------------------------------------------------
 */

/* A picture under construction: photos below each other, each with its regions. */
typedef struct overlay overlay;
sca_status overlay_open(overlay **out);
sca_status overlay_photo(overlay *o, const sca_image *photo); /* begins the next photo; copies it, or nothing */
sca_status overlay_region(overlay *o, const record *r);       /* r->region lives until overlay_labels          */
sca_status overlay_labels(overlay *o);                        /* prompts and captions; ends the photo          */
void overlay_drop(overlay *o);                                /* takes the photo back that was begun last */
sca_status overlay_save(const overlay *o, const char *path);
void overlay_close(overlay *o); /* accepts NULL */

/* ---- report (report.c, report_page.c) --------------------------------------------------------------------- */

typedef struct report_metric {
    const char *key, *head; /* in scores.json, and above its column */
    double scale;           /* what tables multiply it with         */
} report_metric;
extern const report_metric report_metrics[]; /* in the order of the published tables; a key of NULL ends them */

/* Writes dir/report.html from scores.json (root) and details.json in the folders of the sets. The page holds
 * everything it shows and stays below 5 MB. */
sca_status report_write(const char *dir, const json_t *root);

/* ---- curves (curves.c): of runs, from their log.jsonl and eval.jsonl ------------------------------------------------- */

typedef struct curves curves;
/* The runs' loss, learning rate, gradient norm and evaluations. A run without log.jsonl is an error. */
sca_status curves_open(const char *const *runs, int n, curves **out);
/* A picture by the ending of path, .svg or .png. */
sca_status curves_save(const curves *c, const char *path);
/* The same as SVG text. */
sca_status curves_svg(const curves *c, str *svg);
void curves_close(curves *c); /* accepts NULL */

/* ---- a run's report (run_report.c) ------------------------------------------------------------------------- */

/* Writes dir/report.html from the run's logs and the predictions of its latest evaluation. Everything is inside, below 5
 * MB. */
sca_status run_report_write(const char *dir);

/* ---- thumbnails (thumb.c) ----------------------------------------------------------------------------------- */

/* Appends a small JPEG of the photo as base64, with a mask in COCO's compressed run lengths (NULL: none) and a box. */
sca_status thumb_put(const char *photo, const char *mask, const double box[4], int side, str *base64);

/* ---- commands ---------------------------------------------------------------------------------------------------
 */

int run_caption(const arguments *a);
int run_segment(const arguments *a);
int run_export(const arguments *a);
int run_info(const arguments *a);
int run_tokenize(const arguments *a);
int run_score(const arguments *a);
int run_prepare(const arguments *a);
int run_eval(const arguments *a);
int run_train(const arguments *a);
int run_plot(const arguments *a);

#endif
