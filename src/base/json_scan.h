/* json_scan.h - a JSON text and the place within it; private to json*.c. */
#ifndef BASE_JSON_SCAN_H
#define BASE_JSON_SCAN_H

#include "base/base.h"

enum { NUMBER_BYTES = 400 }; /* longest text of a number */

typedef struct scan {
    const char *text, *name; /* name: for messages */
    size_t bytes, at;
} scan;

static inline bool scan_is_space(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

void scan_space(scan *s);
char scan_peek(scan *s); /* the character at the next token, 0 at the end of the text */
sca_status scan_fail(const scan *s, size_t at, const char *what);
void scan_string(scan *s); /* steps over a text in quotes */
/* Steps over one value. Only its end is found and its depth bounded (`around`: levels that enclose it); whether it
 * is right is for jansson to say. */
sca_status scan_value(scan *s, size_t around);
/* By jansson: the value that is s->text[begin..s->at). */
sca_status scan_load(const scan *s, size_t begin, json_t **out);
void json_prepare(void); /* before a thread's calls of jansson */

/* json_value.c. Reads the value that follows into *value, which holds the last one (or NULL): what has the same shape
 * is changed in place. *done false: nothing is said of the text, s->at is where it was, and jansson shall read it. NaN
 * and infinite numbers, as Python writes them, are null. */
sca_status json_refill(scan *s, size_t around, json_t **value, bool *done);

#endif
