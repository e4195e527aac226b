/* lexer.c - patterns to NFA (Thompson), NFA to DFA on demand, longest match in linear time. */
#include "eval/lexer.h"

#include <string.h>

enum {
    UNITS = 65536,
    SET_WORDS = UNITS / 64,
    MAX_SETS = 512,
    MAX_CLASSES = 1024,
    MAX_NESTING = 40, /* of macros and parentheses in our own patterns */
    CHECKPOINT = 64   /* dead ends are remembered at every 64th position */
};

typedef struct unit_set {
    uint64_t bit[SET_WORDS];
} unit_set;

/* One NFA node: either reads a unit of `set` and goes to `next`, or accepts `rule`, or (both -1) goes silently to
 * next and other (-1: nowhere). */
typedef struct nfa_node {
    int set, next, other, rule;
} nfa_node;
typedef struct frag {
    int in, out;
} frag;

typedef struct dfa_state {
    int *node, n; /* the reading and accepting nodes, ascending */
    int rule;     /* the first rule accepted here, or -1 */
    uint64_t hash;
} dfa_state;

typedef struct rule_split {
    int pattern, context;
} rule_split; /* start nodes; -1 without context */

struct lexer {
    const lex_table *table;
    unit_set *sets;
    size_t n_sets, cap_sets;
    nfa_node *nodes;
    size_t n_nodes, cap_nodes;
    uint16_t *unit_class; /* UNITS entries */
    int n_classes;
    uint8_t *set_has; /* n_sets x n_classes */
    rule_split *split;
    dfa_state *states; /* state 0 is dead */
    size_t n_states, cap_states;
    int *step;   /* cap_states x n_classes; -1 not known yet */
    int *bucket; /* hash table of states */
    size_t n_buckets;
    int start;         /* of all rules together */
    int *split_start;  /* per rule: DFA start of the pattern and of the context alone, or -1 */
    int *work, *stack; /* n_nodes each, for the closure */
    uint32_t *mark, marked;
    uint64_t *failed; /* dead ends of this text: hash set of position / CHECKPOINT << 32 | state, plus 1 */
    size_t n_failed, cap_failed;
    uint64_t *trail; /* checkpoints since the last accepting state */
    size_t n_trail, cap_trail;
};

/* Room for one more element in a growing array. */
static sca_status grow(void *array, size_t size, size_t used, size_t *cap, const char *what)
{
    if (used < *cap) return SCA_OK;
    size_t wanted = *cap ? *cap * 2 : 64, bytes;
    if (!size_mul(wanted, size, &bytes)) return mem_fail(SIZE_MAX, what);
    void *old, *p;
    memcpy(&old, array, sizeof old);
    p = mem_resize(old, bytes);
    if (!p) return mem_fail(bytes, what);
    memcpy(array, &p, sizeof p);
    *cap = wanted;
    return SCA_OK;
}

/* ---- sets ---------------------------------------------------------------------------------- */

static void set_add(unit_set *s, unsigned first, unsigned last)
{
    for (unsigned u = first; u <= last && u < UNITS; u++) s->bit[u / 64] |= (uint64_t)1 << (u % 64);
}

static bool set_has(const unit_set *s, unsigned u) { return s->bit[u / 64] >> (u % 64) & 1; }

static void set_add_named(unit_set *s, const lex_set *named)
{
    for (size_t i = 0; i < named->n_ranges; i++) set_add(s, named->ranges[i].first, named->ranges[i].last);
    for (int32_t u = 0; named->test && u < UNITS; u++)
        if ((u < 0xD800 || u > 0xDFFF) && named->test(u)) set_add(s, (unsigned)u, (unsigned)u);
}

/* The index of an equal set, added if new. */
static sca_status set_intern(lexer *x, const unit_set *s, int *id)
{
    for (size_t i = 0; i < x->n_sets; i++)
        if (memcmp(&x->sets[i], s, sizeof *s) == 0) return *id = (int)i, SCA_OK;
    if (x->n_sets == MAX_SETS) return status_fail(SCA_ERR_ARGUMENT, "lexer table: more than %d sets", MAX_SETS);
    TRY(grow(&x->sets, sizeof *x->sets, x->n_sets, &x->cap_sets, "lexer sets"));
    x->sets[x->n_sets] = *s;
    *id = (int)x->n_sets++;
    return SCA_OK;
}

/* ---- patterns to NFA ----------------------------------------------------------------------- */

typedef struct parser {
    lexer *x;
    unit_set *named; /* one per set of the table */
    const char *whole, *p;
    int depth;
} parser;

static sca_status parse_alternatives(parser *ps, frag *out);

static sca_status bad_pattern(const parser *ps, const char *what)
{
    return status_fail(SCA_ERR_ARGUMENT, "lexer table: %s at '%.20s' of pattern '%.60s'", what, ps->p, ps->whole);
}

static sca_status node_add(lexer *x, int set, int rule, int next, int other, int *id)
{
    TRY(grow(&x->nodes, sizeof *x->nodes, x->n_nodes, &x->cap_nodes, "lexer nodes"));
    x->nodes[x->n_nodes] = (nfa_node){ set, next, other, rule };
    *id = (int)x->n_nodes++;
    return SCA_OK;
}

static sca_status empty_frag(lexer *x, frag *f)
{
    TRY(node_add(x, -1, -1, -1, -1, &f->out));
    f->in = f->out;
    return SCA_OK;
}

static sca_status set_frag(lexer *x, const unit_set *s, frag *f)
{
    int id = -1;
    TRY(set_intern(x, s, &id));
    TRY(node_add(x, -1, -1, -1, -1, &f->out));
    return node_add(x, id, -1, f->out, -1, &f->in);
}

/* Either nothing or f; with `again`, also f repeatedly. */
static sca_status loop_frag(lexer *x, frag *f, bool may_skip, bool again)
{
    frag g;
    TRY(node_add(x, -1, -1, -1, -1, &g.out));
    TRY(node_add(x, -1, -1, f->in, may_skip ? g.out : -1, &g.in));
    x->nodes[f->out].next = g.out;
    if (again) x->nodes[f->out].other = g.in;
    *f = g;
    return SCA_OK;
}

static void blanks(parser *ps)
{
    while (*ps->p == ' ') ps->p++;
}

static bool hex_unit(const char *p, unsigned *unit)
{
    *unit = 0;
    for (int i = 0; i < 4; i++) {
        const char *digits = "0123456789ABCDEF", *at = p[i] ? strchr(digits, p[i]) : NULL;
        if (!at) return false;
        *unit = *unit * 16 + (unsigned)(at - digits);
    }
    return true;
}

/* One unit, escaped or plain; *plain tells a letter that may match either case. */
static sca_status parse_unit(parser *ps, unsigned *unit, bool *plain)
{
    *plain = *ps->p != '\\';
    if (*plain) {
        *unit = (unsigned char)*ps->p;
        if (*unit == 0 || *unit > 126) return bad_pattern(ps, "a character is missing or not ASCII");
        ps->p++;
        return SCA_OK;
    }
    char c = ps->p[1];
    if (!c) return bad_pattern(ps, "a character is missing");
    if (c == 'u') {
        if (!hex_unit(ps->p + 2, unit)) return bad_pattern(ps, "four hex digits are missing");
        ps->p += 6;
        return SCA_OK;
    }
    *unit = c == 'n' ? '\n' : c == 'r' ? '\r' : c == 't' ? '\t' : (unsigned char)c;
    ps->p += 2;
    return SCA_OK;
}

static sca_status parse_named(parser *ps, unit_set *s)
{
    const char *name = ps->p + 1;
    size_t length = strcspn(name, ":");
    if (name[length] != ':') return bad_pattern(ps, "a ':' is missing");
    for (size_t i = 0; i < ps->x->table->n_sets; i++) {
        const char *known = ps->x->table->sets[i].name;
        if (strlen(known) != length || memcmp(known, name, length) != 0) continue;
        for (size_t w = 0; w < SET_WORDS; w++) s->bit[w] |= ps->named[i].bit[w];
        ps->p = name + length + 1;
        return SCA_OK;
    }
    return bad_pattern(ps, "unknown set");
}

static sca_status parse_brackets(parser *ps, frag *f)
{
    unit_set s = { { 0 } };
    ps->p++;
    bool negated = *ps->p == '^';
    if (negated) ps->p++;
    while (*ps->p && *ps->p != ']') {
        if (*ps->p == ':') {
            TRY(parse_named(ps, &s));
            continue;
        }
        unsigned first, last;
        bool plain;
        TRY(parse_unit(ps, &first, &plain));
        last = first;
        if (*ps->p == '-' && ps->p[1] && ps->p[1] != ']') {
            ps->p++;
            TRY(parse_unit(ps, &last, &plain));
        }
        set_add(&s, first, last);
    }
    if (!*ps->p) return bad_pattern(ps, "a ']' is missing");
    ps->p++;
    for (size_t w = 0; negated && w < SET_WORDS; w++) s.bit[w] = ~s.bit[w];
    return set_frag(ps->x, &s, f);
}

static sca_status parse_macro(parser *ps, frag *f)
{
    const char *name = ps->p + 1;
    size_t length = strcspn(name, "}");
    for (size_t i = 0; i < ps->x->table->n_macros; i++) {
        const lex_macro *m = &ps->x->table->macros[i];
        if (strlen(m->name) != length || memcmp(m->name, name, length) != 0) continue;
        if (ps->depth >= MAX_NESTING) return bad_pattern(ps, "macros too deep");
        parser inner = { ps->x, ps->named, m->pattern, m->pattern, ps->depth + 1 };
        TRY(parse_alternatives(&inner, f));
        if (*inner.p) return bad_pattern(&inner, "unexpected text");
        ps->p = name + length + 1;
        return SCA_OK;
    }
    return bad_pattern(ps, "unknown macro");
}

static sca_status parse_literal(parser *ps, frag *f)
{
    unit_set s = { { 0 } };
    unsigned unit;
    bool plain;
    TRY(parse_unit(ps, &unit, &plain));
    set_add(&s, unit, unit);
    bool letter = (unit | 32) >= 'a' && (unit | 32) <= 'z' && unit < 128;
    if (plain && letter) set_add(&s, unit ^ 32, unit ^ 32);
    return set_frag(ps->x, &s, f);
}

static sca_status parse_atom(parser *ps, frag *f)
{
    blanks(ps);
    if (*ps->p == '[') return parse_brackets(ps, f);
    if (*ps->p == '{') return parse_macro(ps, f);
    if (*ps->p != '(') return parse_literal(ps, f);
    if (ps->depth >= MAX_NESTING) return bad_pattern(ps, "parentheses too deep");
    ps->p++, ps->depth++;
    TRY(parse_alternatives(ps, f));
    if (*ps->p != ')') return bad_pattern(ps, "a ')' is missing");
    ps->p++, ps->depth--;
    return SCA_OK;
}

/* {m} {m,} {m,n} at ps->p; most is -1 for no limit. */
static sca_status parse_counts(parser *ps, int *least, int *most)
{
    const char *p = ps->p + 1;
    *least = 0, *most = 0;
    while (*p >= '0' && *p <= '9') *least = *least * 10 + (*p++ - '0');
    if (*p != ',')
        *most = *least;
    else if (*++p == '}')
        *most = -1;
    else
        while (*p >= '0' && *p <= '9') *most = *most * 10 + (*p++ - '0');
    if (*p != '}' || *least > 20 || *most > 20) return bad_pattern(ps, "bad counts");
    ps->p = p + 1;
    return SCA_OK;
}

static void chain(lexer *x, frag *f, frag tail)
{
    x->nodes[f->out].next = tail.in;
    f->out = tail.out;
}

/* atom{least,most}: the atom is parsed once per copy. */
static sca_status parse_repeat(parser *ps, const char *atom, int depth, frag *f)
{
    int least, most;
    TRY(parse_counts(ps, &least, &most));
    const char *after = ps->p;
    TRY(empty_frag(ps->x, f));
    for (int i = 0; i < (most < 0 ? least + 1 : most); i++) {
        frag copy;
        ps->p = atom, ps->depth = depth;
        TRY(parse_atom(ps, &copy));
        if (i >= least) TRY(loop_frag(ps->x, &copy, true, most < 0));
        chain(ps->x, f, copy);
    }
    ps->p = after;
    return SCA_OK;
}

static sca_status parse_piece(parser *ps, frag *f)
{
    const char *atom = ps->p;
    int depth = ps->depth;
    TRY(parse_atom(ps, f));
    blanks(ps);
    char c = *ps->p;
    if (c == '{' && ps->p[1] >= '0' && ps->p[1] <= '9') return parse_repeat(ps, atom, depth, f);
    if (c != '?' && c != '*' && c != '+') return SCA_OK;
    ps->p++;
    return loop_frag(ps->x, f, c != '+', c != '?');
}

static sca_status parse_sequence(parser *ps, frag *f)
{
    TRY(empty_frag(ps->x, f));
    for (blanks(ps); *ps->p && *ps->p != '|' && *ps->p != ')'; blanks(ps)) {
        frag piece;
        TRY(parse_piece(ps, &piece));
        chain(ps->x, f, piece);
    }
    return SCA_OK;
}

static sca_status parse_alternatives(parser *ps, frag *out)
{
    TRY(parse_sequence(ps, out));
    while (*ps->p == '|') {
        frag f, both;
        ps->p++;
        TRY(parse_sequence(ps, &f));
        TRY(node_add(ps->x, -1, -1, -1, -1, &both.out));
        TRY(node_add(ps->x, -1, -1, out->in, f.in, &both.in));
        ps->x->nodes[out->out].next = both.out;
        ps->x->nodes[f.out].next = both.out;
        *out = both;
    }
    return SCA_OK;
}

static sca_status parse_all(lexer *x, unit_set *named, const char *pattern, frag *f)
{
    parser ps = { x, named, pattern, pattern, 0 };
    TRY(parse_alternatives(&ps, f));
    return *ps.p ? bad_pattern(&ps, "unexpected text") : SCA_OK;
}

/* A copy of the pattern that accepts `rule`; *start is its first node. */
static sca_status accepting(lexer *x, unit_set *named, const char *pattern, int rule, int *start)
{
    frag f;
    TRY(parse_all(x, named, pattern, &f));
    *start = f.in;
    return node_add(x, -1, rule, -1, -1, &x->nodes[f.out].next);
}

/* Rule i as a whole (*start), and its two halves when it has a context. */
static sca_status compile_rule(lexer *x, unit_set *named, size_t i, int *start)
{
    const lex_rule *r = &x->table->rules[i];
    frag f, c;
    int end;
    x->split[i] = (rule_split){ -1, -1 };
    *start = -1;
    if (!r->pattern) return SCA_OK;
    TRY(parse_all(x, named, r->pattern, &f));
    if (r->context) {
        TRY(parse_all(x, named, r->context, &c));
        chain(x, &f, c);
        TRY(accepting(x, named, r->pattern, (int)i, &x->split[i].pattern));
        TRY(accepting(x, named, r->context, (int)i, &x->split[i].context));
    }
    TRY(node_add(x, -1, (int)i, -1, -1, &end));
    x->nodes[f.out].next = end;
    *start = f.in;
    return SCA_OK;
}

/* ---- classes of units that no set tells apart ---------------------------------------------- */

typedef struct class_count {
    int members, inside, moved;
} class_count;

/* Splits every class that has members inside and outside of the set; walks the smaller side. */
static sca_status classes_refine(lexer *x, const unit_set *s, class_count *count)
{
    size_t members = 0;
    for (size_t w = 0; w < SET_WORDS; w++) members += (size_t)__builtin_popcountll(s->bit[w]);
    uint64_t flip = members > UNITS / 2 ? ~(uint64_t)0 : 0;
    for (int c = 0; c < x->n_classes; c++) count[c].inside = 0, count[c].moved = -1;
    for (size_t w = 0; w < SET_WORDS; w++)
        for (uint64_t bits = s->bit[w] ^ flip; bits; bits &= bits - 1)
            count[x->unit_class[w * 64 + (size_t)__builtin_ctzll(bits)]].inside++;
    for (size_t w = 0; w < SET_WORDS; w++)
        for (uint64_t bits = s->bit[w] ^ flip; bits; bits &= bits - 1) {
            uint16_t *c = &x->unit_class[w * 64 + (size_t)__builtin_ctzll(bits)];
            class_count *from = &count[*c];
            if (from->moved < 0 && from->inside == from->members) continue; /* all of it: no split */
            if (from->moved < 0) {
                if (x->n_classes == MAX_CLASSES)
                    return status_fail(SCA_ERR_ARGUMENT, "lexer table: too many classes");
                from->moved = x->n_classes++;
                count[from->moved] = (class_count){ 0, 0, -1 };
            }
            count[from->moved].members++, from->members--, from->inside--;
            *c = (uint16_t)from->moved;
        }
    return SCA_OK;
}

static sca_status classes_build(lexer *x)
{
    class_count *count = mem_zero(MAX_CLASSES, sizeof *count);
    x->unit_class = mem_zero(UNITS, sizeof *x->unit_class);
    if (!count || !x->unit_class) {
        mem_free(count);
        return mem_fail(UNITS * sizeof *x->unit_class, "lexer classes");
    }
    x->n_classes = 1;
    count[0].members = UNITS;
    sca_status status = SCA_OK;
    for (size_t i = 0; i < x->n_sets && status == SCA_OK; i++) status = classes_refine(x, &x->sets[i], count);
    mem_free(count);
    TRY(status);
    x->set_has = mem_zero(x->n_sets * (size_t)x->n_classes, 1);
    if (!x->set_has) return mem_fail(x->n_sets * (size_t)x->n_classes, "lexer classes");
    for (size_t i = 0; i < x->n_sets; i++)
        for (unsigned u = 0; u < UNITS; u++)
            if (set_has(&x->sets[i], u)) x->set_has[i * (size_t)x->n_classes + x->unit_class[u]] = 1;
    return SCA_OK;
}

/* ---- NFA to DFA ---------------------------------------------------------------------------- */

static void closure_begin(lexer *x)
{
    if (++x->marked == 0) {
        memset(x->mark, 0, x->n_nodes * sizeof *x->mark);
        x->marked = 1;
    }
}

/* Adds what is silently reached from `node` to work[0..n); returns the new n. */
static int closure_add(lexer *x, int node, int n)
{
    int top = 0;
    if (node < 0 || x->mark[node] == x->marked) return n;
    x->mark[node] = x->marked;
    x->stack[top++] = node;
    while (top) {
        int id = x->stack[--top];
        const nfa_node *v = &x->nodes[id];
        if (v->set >= 0 || v->rule >= 0) {
            x->work[n++] = id;
            continue;
        }
        int to[2] = { v->next, v->other };
        for (int k = 0; k < 2; k++)
            if (to[k] >= 0 && x->mark[to[k]] != x->marked) {
                x->mark[to[k]] = x->marked;
                x->stack[top++] = to[k];
            }
    }
    return n;
}

static uint64_t nodes_hash(const int *node, int n)
{
    uint64_t h = 1469598103934665603u;
    for (int i = 0; i < n; i++) h = (h ^ (uint64_t)(uint32_t)node[i]) * 1099511628211u;
    return h ^ h >> 29;
}

static int compare_int(const void *a, const void *b)
{
    int p = *(const int *)a, q = *(const int *)b;
    return (p > q) - (p < q);
}

static sca_status states_rehash(lexer *x)
{
    size_t n = x->n_buckets ? x->n_buckets * 2 : 1024;
    int *bucket = mem_alloc(n * sizeof *bucket);
    if (!bucket) return mem_fail(n * sizeof *bucket, "lexer states");
    memset(bucket, -1, n * sizeof *bucket);
    for (size_t i = 0; i < x->n_states; i++) {
        size_t b = x->states[i].hash & (n - 1);
        while (bucket[b] >= 0) b = (b + 1) & (n - 1);
        bucket[b] = (int)i;
    }
    mem_free(x->bucket);
    x->bucket = bucket, x->n_buckets = n;
    return SCA_OK;
}

static sca_status states_room(lexer *x)
{
    if (x->n_states < x->cap_states) return SCA_OK;
    size_t cap = x->cap_states ? x->cap_states * 2 : 256, width = (size_t)x->n_classes, bytes;
    if (!size_mul(cap, width * sizeof(int), &bytes)) return mem_fail(SIZE_MAX, "lexer states");
    dfa_state *states = mem_resize(x->states, cap * sizeof *states);
    if (!states) return mem_fail(cap * sizeof *states, "lexer states");
    x->states = states;
    int *step = mem_resize(x->step, bytes);
    if (!step) return mem_fail(bytes, "lexer states");
    x->step = step;
    x->cap_states = cap;
    return SCA_OK;
}

/* The DFA state for the set of nodes work[0..n). */
static sca_status state_intern(lexer *x, int n, int *id)
{
    qsort(x->work, (size_t)n, sizeof *x->work, compare_int);
    uint64_t h = nodes_hash(x->work, n);
    if (x->n_states * 2 >= x->n_buckets) TRY(states_rehash(x));
    size_t b = h & (x->n_buckets - 1);
    for (; x->bucket[b] >= 0; b = (b + 1) & (x->n_buckets - 1)) {
        const dfa_state *s = &x->states[x->bucket[b]];
        if (s->hash == h && s->n == n && memcmp(s->node, x->work, (size_t)n * sizeof *s->node) == 0)
            return *id = x->bucket[b], SCA_OK;
    }
    TRY(states_room(x));
    dfa_state *s = &x->states[x->n_states];
    *s = (dfa_state){ .node = mem_alloc((size_t)n * sizeof(int)), .n = n, .rule = -1, .hash = h };
    if (!s->node) return mem_fail((size_t)n * sizeof(int), "lexer states");
    memcpy(s->node, x->work, (size_t)n * sizeof(int));
    for (int i = 0; i < n; i++) {
        int rule = x->nodes[x->work[i]].rule;
        if (rule >= 0 && (s->rule < 0 || rule < s->rule)) s->rule = rule;
    }
    memset(x->step + x->n_states * (size_t)x->n_classes, -1, (size_t)x->n_classes * sizeof(int));
    *id = x->bucket[b] = (int)x->n_states++;
    return SCA_OK;
}

/* Fills in step[state][class]. */
static sca_status state_step(lexer *x, int state, int class, int *to)
{
    int n = 0;
    closure_begin(x);
    for (int i = 0; i < x->states[state].n; i++) {
        const nfa_node *v = &x->nodes[x->states[state].node[i]];
        if (v->set >= 0 && x->set_has[(size_t)v->set * (size_t)x->n_classes + (size_t) class])
            n = closure_add(x, v->next, n);
    }
    TRY(state_intern(x, n, to));
    x->step[(size_t)state * (size_t)x->n_classes + (size_t) class] = *to;
    return SCA_OK;
}

static sca_status start_state(lexer *x, int node, int *id)
{
    closure_begin(x);
    return state_intern(x, closure_add(x, node, 0), id);
}

/* ---- open and close ------------------------------------------------------------------------ */

static sca_status lexer_compile(lexer *x, unit_set *named, int *starts)
{
    const lex_table *t = x->table;
    for (size_t i = 0; i < t->n_sets; i++) set_add_named(&named[i], &t->sets[i]);
    for (size_t i = 0; i < t->n_rules; i++) TRY(compile_rule(x, named, i, &starts[i]));
    TRY(classes_build(x));
    x->work = mem_alloc(x->n_nodes * sizeof *x->work);
    x->stack = mem_alloc(x->n_nodes * sizeof *x->stack);
    x->mark = mem_zero(x->n_nodes, sizeof *x->mark);
    if (!x->work || !x->stack || !x->mark) return mem_fail(x->n_nodes * sizeof *x->work, "lexer");
    int dead, n = 0;
    TRY(state_intern(x, 0, &dead)); /* the empty set is state 0 */
    closure_begin(x);
    for (size_t i = 0; i < t->n_rules; i++) n = closure_add(x, starts[i], n);
    TRY(state_intern(x, n, &x->start));
    for (size_t i = 0; i < t->n_rules; i++) {
        x->split_start[2 * i] = x->split_start[2 * i + 1] = -1;
        if (x->split[i].pattern < 0) continue;
        TRY(start_state(x, x->split[i].pattern, &x->split_start[2 * i]));
        TRY(start_state(x, x->split[i].context, &x->split_start[2 * i + 1]));
    }
    return SCA_OK;
}

sca_status lexer_open(const lex_table *table, lexer **out)
{
    *out = NULL;
    lexer *x = mem_zero(1, sizeof *x);
    unit_set *named = mem_zero(table->n_sets, sizeof *named);
    int *starts = mem_zero(table->n_rules, sizeof *starts);
    sca_status status = SCA_OK;
    if (x) {
        x->table = table;
        x->split = mem_zero(table->n_rules, sizeof *x->split);
        x->split_start = mem_zero(2 * table->n_rules, sizeof *x->split_start);
    }
    if (!x || !named || !starts || !x->split || !x->split_start)
        status = mem_fail(table->n_sets * sizeof *named, "lexer");
    else
        status = lexer_compile(x, named, starts);
    mem_free(named);
    mem_free(starts);
    if (status == SCA_OK)
        *out = x;
    else
        lexer_close(x);
    return status;
}

void lexer_close(lexer *x)
{
    if (!x) return;
    for (size_t i = 0; i < x->n_states; i++) mem_free(x->states[i].node);
    mem_free(x->states);
    mem_free(x->sets);
    mem_free(x->nodes);
    mem_free(x->unit_class);
    mem_free(x->set_has);
    mem_free(x->split);
    mem_free(x->split_start);
    mem_free(x->step);
    mem_free(x->bucket);
    mem_free(x->work);
    mem_free(x->stack);
    mem_free(x->mark);
    mem_free(x->failed);
    mem_free(x->trail);
    mem_free(x);
}

/* ---- matching ------------------------------------------------------------------------------ */

void lexer_begin(lexer *x)
{
    if (x->n_failed) memset(x->failed, 0, x->cap_failed * sizeof *x->failed);
    x->n_failed = 0;
}

static uint64_t checkpoint_key(size_t at, int state)
{
    return ((uint64_t)(at / CHECKPOINT) << 32 | (uint32_t)state) + 1;
}

static size_t failed_slot(const lexer *x, uint64_t key)
{
    uint64_t h = key * 0x9E3779B97F4A7C15u;
    size_t i = (size_t)(h >> 20) & (x->cap_failed - 1);
    while (x->failed[i] && x->failed[i] != key) i = (i + 1) & (x->cap_failed - 1);
    return i;
}

static bool failed_has(const lexer *x, uint64_t key)
{
    return x->n_failed && x->failed[failed_slot(x, key)] == key;
}

/* Moves the trail, all of it dead ends, into the set. */
static sca_status failed_keep(lexer *x)
{
    for (size_t i = 0; i < x->n_trail; i++) {
        if (x->n_failed * 2 >= x->cap_failed) {
            lexer old = *x;
            size_t cap = old.cap_failed ? old.cap_failed * 2 : 1024;
            uint64_t *larger = mem_zero(cap, sizeof *larger);
            if (!larger) return mem_fail(cap * sizeof *larger, "lexer");
            x->failed = larger, x->cap_failed = cap;
            for (size_t k = 0; k < old.cap_failed; k++)
                if (old.failed[k]) x->failed[failed_slot(x, old.failed[k])] = old.failed[k];
            mem_free(old.failed);
        }
        size_t slot = failed_slot(x, x->trail[i]);
        x->n_failed += x->failed[slot] == 0;
        x->failed[slot] = x->trail[i];
    }
    x->n_trail = 0;
    return SCA_OK;
}

static sca_status step_to(lexer *x, int *state, uint16_t unit)
{
    int class = x->unit_class[unit];
    int to = x->step[(size_t)*state * (size_t)x->n_classes + (size_t) class];
    if (to < 0) TRY(state_step(x, *state, class, &to));
    *state = to;
    return SCA_OK;
}

/* The longest match of all rules, contexts included. */
static sca_status longest(lexer *x, const uint16_t *text, size_t n, size_t at, size_t *end, int *rule)
{
    int state = x->start;
    *rule = -1, *end = at;
    x->n_trail = 0;
    for (size_t i = at; i < n;) {
        TRY(step_to(x, &state, text[i]));
        if (state == 0) break;
        i++;
        if (x->states[state].rule >= 0) {
            *rule = x->states[state].rule, *end = i;
            x->n_trail = 0;
        } else if (i % CHECKPOINT == 0) {
            uint64_t key = checkpoint_key(i, state);
            if (failed_has(x, key)) break;
            TRY(grow(&x->trail, sizeof *x->trail, x->n_trail, &x->cap_trail, "lexer"));
            x->trail[x->n_trail++] = key;
        }
    }
    return x->n_trail ? failed_keep(x) : SCA_OK;
}

/* True in *yes if the context (its start state) matches exactly text[at..end). */
static sca_status context_fits(lexer *x, int state, const uint16_t *text, size_t at, size_t end, bool *yes)
{
    *yes = false;
    for (; at < end; at++) {
        TRY(step_to(x, &state, text[at]));
        if (state == 0) return SCA_OK;
    }
    *yes = x->states[state].rule >= 0;
    return SCA_OK;
}

/* The longest beginning of text[at..end) that is the rule's pattern and leaves its context: the border. The trail
 * serves as the list of candidates. */
static sca_status border(lexer *x, int rule, const uint16_t *text, size_t at, size_t end, size_t *length)
{
    int state = x->split_start[2 * rule];
    x->n_trail = 0;
    for (size_t i = at; i < end; i++) {
        TRY(step_to(x, &state, text[i]));
        if (state == 0) break;
        if (x->states[state].rule < 0) continue;
        TRY(grow(&x->trail, sizeof *x->trail, x->n_trail, &x->cap_trail, "lexer"));
        x->trail[x->n_trail++] = i + 1;
    }
    bool fits = false;
    while (x->n_trail && !fits) {
        *length = (size_t)x->trail[--x->n_trail] - at;
        TRY(context_fits(x, x->split_start[2 * rule + 1], text, at + *length, end, &fits));
    }
    x->n_trail = 0;
    return fits ? SCA_OK : status_fail(SCA_ERR_STATE, "lexer: rule %d matched as a whole but not in parts", rule);
}

sca_status lexer_next(lexer *x, const uint16_t *text, size_t n, size_t at, size_t *length, int *rule)
{
    size_t end;
    TRY(longest(x, text, n, at, &end, rule));
    *length = end - at;
    if (*rule >= 0 && x->split_start[2 * *rule] >= 0) return border(x, *rule, text, at, end, length);
    return SCA_OK;
}
