/* report.h - private to report*.c. */
#ifndef REPORT_H
#define REPORT_H

#include "tool.h"

enum { REPORT_COLUMNS = 15 }; /* of report_metrics */

typedef struct published_row {
    const char *method;
    double value[REPORT_COLUMNS]; /* below 0: not published */
} published_row;
/* The next row for such a set from *at on, which begins with 0; NULL: no more. */
const published_row *published_next(const char *kind, const char *source, const char *split, size_t *at);

#endif
