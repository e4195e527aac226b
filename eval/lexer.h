/* lexer.h - longest-match lexing over UTF-16 units, from a table of patterns; private to eval/.
 *
 * Of all rules, the one whose pattern plus right context covers most units wins; on a tie the first of the table.
 * The table is compiled to an NFA at open; a DFA over character classes grows while it is used. Lexing is linear in
 * the text for any input: dead ends found far beyond a token are remembered (after Reps, "Maximal-munch
 * tokenization in linear time", 1998).
 *
 * Patterns: a letter matches either case; [..] matches as written, [^..] the complement, [:name:] inside brackets a
 * named set; (a|b) x? x* x+ x{2} x{2,4} x{3,}; {name} a macro; \x escapes, \uXXXX a unit; blanks outside brackets
 * are ignored. The table is ours: a malformed pattern is SCA_ERR_ARGUMENT, never a crash.
 */
#ifndef SCA_LEXER_H
#define SCA_LEXER_H

#include "base/base.h"

typedef struct lex_range {
    uint16_t first, last;
} lex_range;
/* A set is a list of ranges, or a test (of a unit that is no surrogate) united with that list. */
typedef struct lex_set {
    const char *name;
    const lex_range *ranges;
    size_t n_ranges;
    bool (*test)(int32_t unit);
} lex_set;
typedef struct lex_macro {
    const char *name, *pattern;
} lex_macro;
typedef struct lex_rule {
    const char *pattern, *context; /* context: NULL when none; NULL pattern: the rule is left out */
} lex_rule;
typedef struct lex_table {
    const lex_set *sets;
    const lex_macro *macros;
    const lex_rule *rules;
    size_t n_sets, n_macros, n_rules;
} lex_table;

typedef struct lexer lexer; /* used by one thread at a time */
/* The table must outlive the lexer. */
sca_status lexer_open(const lex_table *table, lexer **out);
void lexer_close(lexer *x); /* accepts NULL */
/* Forgets what was learned about the previous text; to be called before the first lexer_next of a text. */
void lexer_begin(lexer *x);
/* The token at text[at]: *length units (without context), *rule an index into the rules, or -1 with length 0 when
 * no rule matches. at < n. */
sca_status lexer_next(lexer *x, const uint16_t *text, size_t n, size_t at, size_t *length, int *rule);

#endif
