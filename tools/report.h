/* report.h - private to report*.c. */
#ifndef REPORT_H
#define REPORT_H

#include "tool.h"

enum { REPORT_COLUMNS = 16 }; /* of report_metrics */

typedef struct published_row {
    const char *method;
    double value[REPORT_COLUMNS]; /* below 0: not published */
} published_row;
/* The next row for such a set from *at on, which begins with 0; NULL: no more. */
const published_row *published_next(const char *kind, const char *source, const char *split, size_t *at);

/* ---- parts of pages (report.c) ----------------------------------------------------------------------------------- */

enum { REPORT_BYTES = 4500000 }; /* a page stays about below that */

void report_begin(str *s, const char *title); /* up to the body */
void report_end(str *s);
/* Text as HTML: nothing in it acts, and it is what a terminal would show, too. */
void report_put_html(str *s, const char *text);
/* Scores beside the published ones; root: what holds "sets", as scores.json. */
void report_put_table(str *s, const json_t *root);
/* One data set: notes, histograms, regions with their captions, from its folder in dir. limit: bytes of the page up to
 * which photos are put in. */
sca_status report_put_set(str *s, const char *dir, const json_t *set, size_t limit);

#endif
