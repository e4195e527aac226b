/* ptb.c - the Penn Treebank tokeniser of Stanford CoreNLP 3.4.1 and 3.6.0 as a table of rules (metrics.md 2). */
#include "eval/eval.h"
#include "eval/lexer.h"

#include <string.h>
#include <utf8proc.h>

/* ---- sets of units ------------------------------------------------------------------------- */

static bool is_letter(int32_t unit)
{
    utf8proc_category_t c = utf8proc_category(unit);
    return c == UTF8PROC_CATEGORY_LU || c == UTF8PROC_CATEGORY_LL || c == UTF8PROC_CATEGORY_LT ||
           c == UTF8PROC_CATEGORY_LM || c == UTF8PROC_CATEGORY_LO;
}

static bool is_digit(int32_t unit) { return utf8proc_category(unit) == UTF8PROC_CATEGORY_ND; }
static bool is_upper(int32_t unit) { return utf8proc_category(unit) == UTF8PROC_CATEGORY_LU; }

/* What continues a word beside letters: soft hyphen, combining marks, vowel signs and points. */
static const lex_range mark_ranges[] = {
    { 0x00AD, 0x00AD }, { 0x02C2, 0x02C5 }, { 0x02D2, 0x02DF }, { 0x02E5, 0x02EB }, { 0x02ED, 0x02ED },
    { 0x02EF, 0x036F }, { 0x0375, 0x0375 }, { 0x0378, 0x0379 }, { 0x0384, 0x0385 }, { 0x03F6, 0x03F6 },
    { 0x0483, 0x0487 }, { 0x055A, 0x055F }, { 0x0591, 0x05BD }, { 0x05BF, 0x05BF }, { 0x05C1, 0x05C2 },
    { 0x05C4, 0x05C5 }, { 0x05C7, 0x05C7 }, { 0x0615, 0x061A }, { 0x064B, 0x065E }, { 0x0670, 0x0670 },
    { 0x06D6, 0x06E4 }, { 0x06E7, 0x06ED }, { 0x06FD, 0x06FE }, { 0x070F, 0x070F }, { 0x0711, 0x0711 },
    { 0x0730, 0x074C }, { 0x07A6, 0x07B0 }, { 0x07EB, 0x07F3 }, { 0x0900, 0x0903 }, { 0x093C, 0x093C },
    { 0x093E, 0x094E }, { 0x0951, 0x0955 }, { 0x0962, 0x0963 }, { 0x0981, 0x0983 }, { 0x09BC, 0x09BC },
    { 0x09BE, 0x09C4 }, { 0x09C7, 0x09C8 }, { 0x09CB, 0x09CD }, { 0x09D7, 0x09D7 }, { 0x09E2, 0x09E3 },
    { 0x0A01, 0x0A03 }, { 0x0A3C, 0x0A3C }, { 0x0A3E, 0x0A4F }, { 0x0A81, 0x0A83 }, { 0x0ABC, 0x0ABC },
    { 0x0ABE, 0x0ACF }, { 0x0B82, 0x0B82 }, { 0x0BBE, 0x0BC2 }, { 0x0BC6, 0x0BC8 }, { 0x0BCA, 0x0BCD },
    { 0x0C01, 0x0C03 }, { 0x0C3E, 0x0C56 }, { 0x0D3E, 0x0D44 }, { 0x0D46, 0x0D48 }, { 0x0E31, 0x0E31 },
    { 0x0E34, 0x0E3A }, { 0x0E47, 0x0E4E }, { 0x0EB1, 0x0EB1 }, { 0x0EB4, 0x0EBC }, { 0x0EC8, 0x0ECD },
    { 0x1885, 0x1886 },
};
static const lex_range space_ranges[] = {
    { ' ', ' ' }, { '\t', '\t' }, { 0x00A0, 0x00A0 }, { 0x2000, 0x200A }, { 0x3000, 0x3000 }
};
/* The single symbols of rule 66. */
static const lex_range symbol_ranges[] = {
    { '+', '+' },       { '%', '&' },       { '~', '~' },       { '^', '^' },       { '|', '|' },
    { '\\', '\\' },     { 0x00A6, 0x00A9 }, { 0x00AC, 0x00AC }, { 0x00AE, 0x00B4 }, { 0x00B6, 0x00B9 },
    { 0x00D7, 0x00D7 }, { 0x00F7, 0x00F7 }, { 0x0387, 0x0387 }, { 0x05BE, 0x05BE }, { 0x05C0, 0x05C0 },
    { 0x05C3, 0x05C3 }, { 0x05C6, 0x05C6 }, { 0x05F3, 0x05F4 }, { 0x0600, 0x0603 }, { 0x0606, 0x060A },
    { 0x060C, 0x060C }, { 0x0614, 0x0614 }, { 0x061B, 0x061B }, { 0x061E, 0x061E }, { 0x066A, 0x066A },
    { 0x066D, 0x066D }, { 0x0703, 0x070D }, { 0x07F6, 0x07F8 }, { 0x0964, 0x0965 }, { 0x0E4F, 0x0E4F },
    { 0x1FBD, 0x1FBD }, { 0x2016, 0x2017 }, { 0x2020, 0x2023 }, { 0x2030, 0x2038 }, { 0x203B, 0x203B },
    { 0x203E, 0x2042 }, { 0x2044, 0x2044 }, { 0x207A, 0x207E }, { 0x208A, 0x208E }, { 0x2100, 0x214F },
    { 0x2190, 0x2BFF }, { 0x3012, 0x3012 }, { 0x30FB, 0x30FB }, { 0xFF01, 0xFF0F }, { 0xFF1A, 0xFF20 },
    { 0xFF3B, 0xFF40 }, { 0xFF5B, 0xFF65 },
};

#define RANGES(ranges) ranges, LENGTH(ranges)
static const lex_set sets[] = {
    { "let", NULL, 0, is_letter },
    { "word", RANGES(mark_ranges), is_letter },
    { "hard", mark_ranges + 1, LENGTH(mark_ranges) - 1, is_letter }, /* without the soft hyphen */
    { "digit", NULL, 0, is_digit },
    { "upper", NULL, 0, is_upper },
    { "space", RANGES(space_ranges), NULL },
    { "symbol", RANGES(symbol_ranges), NULL },
};

/* ---- macros -------------------------------------------------------------------------------- */

#define X_SET " \\t\\n\\u000C\\r\"<>|" /* never inside an address */
#define ADDRESS_END "[^" X_SET ".!?(){},-]"

static const lex_macro macros[] = {
    { "L", "[:word:] | &[aeiouAEIOU](acute|grave|uml);" },
    { "D", "[:digit:]" },
    { "LD", "{L} | {D}" },
    { "A", "[A-Za-z]" },
    { "N", "[0-9]" },
    { "AN", "[A-Za-z0-9]" },
    { "sp", "[:space:]" },
    { "nl", "\\r | \\r?\\n | [\\u2028\\u2029\\u000B\\u000C\\u0085]" },
    { "w", "{sp} | {nl}" },
    { "ap", "['\\u0092\\u2019] | &apos;" },
    { "apx", "{ap} | [`\\u0091\\u2018\\u201B]" },
    { "hy", "[-_\\u058A\\u2010\\u2011]" },
    { "stop", "[,;\\:\\u3001]" },
    { "word", "{L}{LD}*([.!?]{L}{LD}*)*" },
    { "clitic", "{ap}(m|s|d|re|ve|ll)" },
    { "nt", "n{apx}t" },
    { "ntstem", "[A-Za-z\\u00AD]*[A-MO-Za-mo-z]\\u00AD*" },
    { "num", "{D}+ | {D}*([.\\:,\\u00AD\\u066B\\u066C]{D}+)+" },
    { "state", "(Canada|Sino|Korean|EU|Japan|non)-U.S | U.S.-U.K | U.S.-U.S.S.R" },
    { "acro", "{A}(.{A})* | {state}" },
    { "acro2", "{A}(.{A})+ | {state}" },
    { "name", "[A-Za-z][A-Za-z0-9_\\:.-]*" },
    { "value", "'[^']*' | \"[^\"]*\"" },
    { "markup", "<([!?][A-Za-z-][^>\\r\\n]* | {name}(\\ +({name} | {name}\\ *=\\ *({value})))*\\ */? | /{name})"
                "\\ *>" },
    { "markup6", "<([!?][A-Za-z-][^>\\r\\n]* |"
                 "{name}(\\ +({name} | {name}\\ *=\\ *({value}|{name})))*\\ */? | /{name})\\ *>" },
    { "url", "https?\\:// [^" X_SET "(){}]+ " ADDRESS_END },
    { "host", "(www.([^" X_SET ".!?(){},]+.)+ {A}{2,4} |"
              "([^" X_SET "`'.!?(){}$,-_]+.)+ (com|net|org|edu)) (/[^" X_SET "()]+ " ADDRESS_END ")?" },
    { "mail", "(<|&lt;)?{AN}[^" X_SET "\\u00A0(){}]*@([^" X_SET "\\u00A0(){}.]+.)*[^" X_SET "\\u00A0(){}.]+"
              "(>|&gt;)?" },
    { "apword", "{ap}n{ap}? | [lLdDjJ]{ap} | (dunkin|somethin|ol){ap} | {ap}em | [A-HJ-XZn]{apx}[:let:][:let:]+ |"
                "{ap}[2-9]0s | {ap}till? | [:let:]+[aeiouyAEIOUY]{apx}[aeiouA-Z][:let:]* | {ap}cause | cont'd.? |"
                "'twas | nor'easter | c'mon | e'er | s'mores | ev'ry | li'l | nat'l | o{apx}o" },
    { "listed", "[A]bout|[A]ccording|[A]dditionally|[A]fter|[A]n|[A]|[A]s|[A]t|[B]ut|[E]arlier|[H]e|[H]er|[H]ere|"
                "[H]owever|[I]f|[I]n|[I]t|[L]ast|[M]any|[M]ore|[M]r.|[M]s.|[N]ow|[O]nce|[O]ne|[O]ther|[O]ur|[S]he|"
                "[S]ince|[S]o|[S]ome|[S]uch|[T]hat|[T]he|[T]heir|[T]hen|[T]here|[T]hese|[T]hey|[T]his|[W]e|[W]hen|"
                "[W]hile|[W]hat|[Y]et|[Y]ou" },
    { "listed6", "{listed}|[D]id|[D]uring|[H]ow|[W]ho|[W]hy" },
    { "abbrevA",
      "jan|feb|mar|apr|jun|jul|aug|sep|sept|oct|nov|dec|mon|tue|tues|wed|thu|thurs|fri|"
      "ala|ariz|calif|colo|conn|ct|dak|fla|ga|ind|kan|kans|ky|md|mich|minn|mo|mont|neb|nev|okla|penn|tenn|va|vt|"
      "wis|wisc|wyo|[A]z|[A]rk|[D]el|[I]ll|[L]a|[M]ass|[M]iss|[O]re|[P]a|[T]ex|[W]ash|"
      "inc|co|cos|corp|pp?t[ye]s?|ltd|plc|rt|bancorp|bhd|assn|univ|intl|sys|tel|est|ext|sq|"
      "jr|sr|bros|ed.d|ph.d|blvd|rd|esq|etc|al|seq|bldg" },
    { "abbrevB",
      "mr|mrs|ms|[M]iss|drs?|profs?|sens?|reps?|attys?|lt|col|gen|messrs|govs?|adm|rev|maj|sgt|cpl|pvt|capt|ste?|"
      "ave|pres|lieut|hon|brig|co?mdr|pfc|spc|supts?|det|mt|ft|adj|adv|asst|assoc|ens|insp|mlle|mme|msgr|sfc|"
      "vs|alex|wm|jos|cie|a.k.a|cf|treas|ph|invt|elec|natl|m[ft]g|dept|{acro}" },
    { "extension", "bat|bmp|c|class|cgi|cpp|dll|docx?|exe|gif|gz|h|html?|jar|java|jpe?g|mov|mp3|pdf|php|pl|png|ppt|"
                   "ps|py|sql|tar|txt|wav|x|xml|zip" },
    { "extension6", "{extension}|3gp|bz2|wma|wmv|avi|flv|mp4|mpg" },
    { "gap", "[-\\ \\u00A0]" },
    { "phone", "(\\({N}{2,3}\\)[\\ \\u00A0]? | (\\+\\+?)?({N}{2,4}{gap})?{N}{2,4}{gap}){N}{3,4}{gap}?{N}{3,5} |"
               "((\\+\\+?)?{N}{2,4}.)?{N}{2,4}.{N}{3,4}.{N}{3,5}" },
    { "smiley", "[<>]?[\\:;=][-o*']?[()DPdpO\\\\{@|\\[\\]]" },
    { "eye", "[-^x=~<>']" },
    { "face", "{eye}_{eye} | \\({eye}[_.]?{eye}\\) | \\([x^=~<>']-[x^=~<>'`]\\)" },
    { "hyphened", "{AN}[A-Za-z0-9.,\\u00AD]*(-([A-Za-z0-9\\u00AD]+ | {acro2}.))+" },
    { "hard", "[:hard:] | &[aeiouAEIOU](acute|grave|uml); | {D}" },
    { "elided", "([dDoOlL]{apx}([:let:]|{D}))?({hard})+" },
    { "compound", "{elided}({hy}{elided})*" },
    { "joined", "[A-Z]+(([+&]|&amp;)[A-Z]+)+" },
};

/* ---- rules: order is priority -------------------------------------------------------------- */

typedef enum action {
    KEEP,
    DROP,      /* no token                                                       */
    LINE,      /* ends the line                                                  */
    TEXT,      /* `text` instead                                                 */
    SPLIT,     /* two tokens, `tail` units in the second                         */
    BLANKS,    /* spaces become no-break spaces                                  */
    PHONE,     /* the same, parentheses become names                             */
    NAMES,     /* brackets become names                                          */
    AMPERSAND, /* &amp; becomes &                                                */
    NO_HYPHEN, /* soft hyphens removed                                           */
    LEFT,      /* quote rewriting, opening                                       */
    RIGHT,     /* quote rewriting, closing                                       */
    ACRONYM,   /* one letter and a dot: without the dot, which is read again; else as REREAD */
    REREAD,    /* kept, and its dot is read again                                */
    DASHES,    /* three or four hyphens become --                                */
    VULGAR,    /* 1/4 1/2 3/4 1/3 2/3 spelled out                                */
    CURRENCY,  /* cents # $                                                      */
    DOTS       /* ... and a separate dot                                         */
} action;

enum { OLD = 1, NEW = 2, BOTH = 3 }; /* 3.4.1, 3.6.0 */

typedef struct ptb_rule {
    int versions;
    const char *pattern, *context;
    action act;
    const char *text;
    size_t tail;
} ptb_rule;

static const ptb_rule rules[] = {
    { BOTH, "c\\+\\+ | (c|f)#", NULL, KEEP, NULL, 0 },
    { NEW, "E! | Yahoo! | Jeopardy!", NULL, KEEP, NULL, 0 },
    { NEW, "OK!", "{sp}+magazine", KEEP, NULL, 0 },
    { BOTH, "cannot", NULL, SPLIT, NULL, 3 },
    { BOTH, "'twas", NULL, SPLIT, NULL, 3 },
    { BOTH, "'tis", NULL, SPLIT, NULL, 2 },
    { BOTH, "gonna|gotta|lemme|gimme|wanna", NULL, SPLIT, NULL, 2 },
    { OLD, "{markup}", NULL, BLANKS, NULL, 0 },
    { NEW, "{markup6}", NULL, BLANKS, NULL, 0 },
    { BOTH, "[\\u0096\\u0097\\u2013-\\u2015] | &(md|mdash|ndash);", NULL, TEXT, "--", 0 },
    { BOTH, "&amp;", NULL, TEXT, "&", 0 },
    { BOTH, "&(HT|TL|UR|LR|QC|QL|QR|odq|cdq|#{N}+);", NULL, KEEP, NULL, 0 },
    { BOTH, "{word}", "{clitic}", NO_HYPHEN, NULL, 0 },
    { BOTH, "{ntstem}", "{nt}", NO_HYPHEN, NULL, 0 },
    { NEW, "f[*-][c*-]k | sh[*-]t", NULL, KEEP, NULL, 0 },
    { BOTH, "{word}", NULL, NO_HYPHEN, NULL, 0 },
    { OLD, "{apword}", NULL, KEEP, NULL, 0 },
    { NEW, "{apword}", NULL, RIGHT, NULL, 0 },
    { BOTH, "y{ap}", "[:let:]", KEEP, NULL, 0 },
    { BOTH, "{url}", NULL, KEEP, NULL, 0 },
    { BOTH, "{host}", NULL, KEEP, NULL, 0 },
    { BOTH, "{mail}", NULL, KEEP, NULL, 0 },
    { BOTH, "@[A-Za-z_][A-Za-z_0-9]* | #{L}+", NULL, KEEP, NULL, 0 },
    { BOTH, "{clitic}", "[^A-Za-z]", RIGHT, NULL, 0 },
    { BOTH, "{nt}", "[^A-Za-z]", RIGHT, NULL, 0 },
    { BOTH, "{D}{1,2}[-/]{D}{1,2}[-/]{D}{2,4}", NULL, KEEP, NULL, 0 },
    { BOTH, "[+-]?{num}", NULL, NO_HYPHEN, NULL, 0 },
    { BOTH, "[\\u207A\\u207B\\u208A\\u208B]?([\\u2070\\u00B9\\u00B2\\u00B3\\u2074-\\u2079]+ | [\\u2080-\\u2089]+)",
      NULL, KEEP, NULL, 0 },
    { BOTH, "({D}{1,4}{gap})?{D}{1,4}(\\\\?/|\\u2044){D}{1,4}", NULL, BLANKS, NULL, 0 },
    { BOTH, "[\\u00BC-\\u00BE\\u2153-\\u215E]", NULL, VULGAR, NULL, 0 },
    { BOTH,
      "-(lrb|rrb|lcb|rcb|lsb|rsb)- | C.D.s | pro- | anti- | S&(amp;)?P-500 | S&(amp;)?Ls | cap{ap}n | c{ap}est",
      NULL, AMPERSAND, NULL, 0 },
    { BOTH, "{AN}+(-{A}+){0,2}(\\\\?/{AN}+(-{A}+){0,2}){1,2}", NULL, KEEP, NULL, 0 },
    { BOTH, "[A-Z]*$ | #", NULL, KEEP, NULL, 0 },
    { BOTH,
      "[\\u00A2\\u00A3\\u00A4\\u00A5\\u0080\\u20A0\\u20A4\\u20AC\\u060B\\u0E3F\\uFF04\\uFFE0\\uFFE1\\uFFE5\\uFFE6]",
      NULL, CURRENCY, NULL, 0 },
    { OLD, "({acro}).", "{w}+({listed}|{markup}){w}", ACRONYM, NULL, 0 },
    { NEW, "({acro}).", "{w}+({listed6}|{markup6}){w}", ACRONYM, NULL, 0 },
    { BOTH, "(ca|figs?|prop|nos?|art|bldg|pp|op).", "{w}?{D}", KEEP, NULL, 0 },
    { BOTH, "(pt[eyEY]|co).", "{sp}(ltd|lim)", KEEP, NULL, 0 },
    { OLD, "({abbrevA}).", "{w}({w}|[:upper:]|{markup})", REREAD, NULL, 0 },
    { NEW, "({abbrevA}).", "{w}({w}|[:upper:]|{markup6})", REREAD, NULL, 0 },
    { BOTH, "({abbrevA}).", "[^][^]", KEEP, NULL, 0 },
    { BOTH, "({abbrevA}).", NULL, REREAD, NULL, 0 },
    { BOTH, "({abbrevB}).", NULL, KEEP, NULL, 0 },
    { BOTH, "{abbrevB}", "{sp}", KEEP, NULL, 0 },
    { BOTH, "{acro}", "{w}", KEEP, NULL, 0 },
    { BOTH, "{ap}{N}{N}", "{w}", KEEP, NULL, 0 },
    { OLD, "{LD}+(.{LD}+)*.({extension})", "{w}|[.?!,]", KEEP, NULL, 0 },
    { NEW, "{LD}+([._-]{LD}+)*.({extension6})", "{w}|[.?!,]", KEEP, NULL, 0 },
    { BOTH, "{word}.", "{stop}", NO_HYPHEN, NULL, 0 },
    { BOTH, "{phone}", NULL, PHONE, NULL, 0 },
    { BOTH, "\"|&quot;", "[A-Za-z0-9$]", LEFT, NULL, 0 },
    { BOTH, "\"|&quot;", NULL, RIGHT, NULL, 0 },
    { BOTH, "\\u007F", NULL, DROP, NULL, 0 },
    { BOTH, "<|&lt;", NULL, TEXT, "<", 0 },
    { BOTH, ">|&gt;", NULL, TEXT, ">", 0 },
    { BOTH, "{smiley}", "[^A-Za-z0-9]", NAMES, NULL, 0 },
    { BOTH, "{face}", NULL, NAMES, NULL, 0 },
    { BOTH, "[{}[\\]()]", NULL, NAMES, NULL, 0 },
    { BOTH, "-+", NULL, DASHES, NULL, 0 },
    { NEW, ".{4,}", "{w}+[:let:]", DOTS, NULL, 0 },
    { OLD, ".{3,5} | (.[\\ \\u00A0]){2,4}. | [\\u0085\\u2026]", NULL, TEXT, "...", 0 },
    { NEW, ".{3,} | (.[\\ \\u00A0]){2,}. | [\\u0085\\u2026]", NULL, TEXT, "...", 0 },
    { BOTH, "@+|#+|_+", NULL, KEEP, NULL, 0 },
    { BOTH, "\\*+ | (\\\\\\*){1,3}", NULL, KEEP, NULL, 0 },
    { BOTH, "{stop}", NULL, KEEP, NULL, 0 },
    { BOTH, "[?!]+", NULL, KEEP, NULL, 0 },
    { BOTH, "[.\\u00A1\\u00BF\\u037E\\u0589\\u061F\\u06D4\\u0700-\\u0702\\u07FA\\u3002]", NULL, KEEP, NULL, 0 },
    { OLD, "=|/", NULL, KEEP, NULL, 0 },
    { NEW, "=+|/", NULL, KEEP, NULL, 0 },
    { BOTH, "{hyphened}.", "{stop}", NO_HYPHEN, NULL, 0 },
    { BOTH, "{hyphened}", NULL, NO_HYPHEN, NULL, 0 },
    { OLD, "{compound}.", "{stop}", KEEP, NULL, 0 },
    { NEW, "{compound}.", "{stop}", RIGHT, NULL, 0 },
    { OLD, "{compound}", NULL, KEEP, NULL, 0 },
    { NEW, "{compound}", NULL, RIGHT, NULL, 0 },
    { BOTH, "{joined}.", "{stop}", AMPERSAND, NULL, 0 },
    { BOTH, "{joined}", NULL, AMPERSAND, NULL, 0 },
    { BOTH, "'", "[A-Za-z][^\\ \\t\\r\\n\\u00A0]", LEFT, NULL, 0 },
    { BOTH, "{clitic}|{nt}", NULL, RIGHT, NULL, 0 },
    { BOTH, "{ap} | '' | [\\u2018-\\u201F`\\u0091-\\u0094\\u2039\\u203A\\u00AB\\u00BB]{1,2}", NULL, RIGHT, NULL,
      0 },
    { BOTH, "<<|>>", NULL, KEEP, NULL, 0 },
    { NEW, "\\u0095", NULL, TEXT, "\xE2\x80\xA2", 0 },
    { NEW, "\\u0099", NULL, TEXT, "\xE2\x84\xA2", 0 },
    { NEW, "\\u2043", NULL, KEEP, NULL, 0 },
    { BOTH, "[:symbol:]", NULL, KEEP, NULL, 0 },
    { BOTH, "{sp}+ | [\\u0000\\u200B\\u200E\\u200F\\uFEFF] | &nbsp;", NULL, DROP, NULL, 0 },
    { BOTH, "{nl}", NULL, LINE, NULL, 0 },
    { BOTH, "[^]", NULL, DROP, NULL, 0 },
};
enum { N_RULES = LENGTH(rules) };

/* ---- tokens -------------------------------------------------------------------------------- */

struct ptb {
    lex_rule rules[N_RULES];
    lex_table table;
    lexer *lexer;
    uint16_t *units; /* the text being lexed */
    size_t n_units, cap_units;
    int32_t *token; /* the token being written, as code points */
    size_t n_token, cap_token;
};

sca_status ptb_open(ptb_version version, ptb **out)
{
    *out = NULL;
    ptb *p = mem_zero(1, sizeof *p);
    if (!p) return mem_fail(sizeof *p, "tokeniser");
    int wanted = version == PTB_3_4_1 ? OLD : NEW;
    for (size_t i = 0; i < N_RULES; i++)
        if (rules[i].versions & wanted) p->rules[i] = (lex_rule){ rules[i].pattern, rules[i].context };
    p->table = (lex_table){ sets, macros, p->rules, LENGTH(sets), LENGTH(macros), N_RULES };
    sca_status status = lexer_open(&p->table, &p->lexer);
    if (status == SCA_OK)
        *out = p;
    else
        ptb_close(p);
    return status;
}

void ptb_close(ptb *p)
{
    if (!p) return;
    lexer_close(p->lexer);
    mem_free(p->units);
    mem_free(p->token);
    mem_free(p);
}

static sca_status units_put(ptb *p, int32_t code)
{
    if (p->n_units + 2 > p->cap_units) {
        size_t cap = p->cap_units ? p->cap_units * 2 : 4096;
        uint16_t *units = mem_resize(p->units, cap * sizeof *units);
        if (!units) return mem_fail(cap * sizeof *units, "text to tokenise");
        p->units = units, p->cap_units = cap;
    }
    if (code > 0xFFFF) {
        p->units[p->n_units++] = (uint16_t)(0xD800 + ((code - 0x10000) >> 10));
        code = 0xDC00 + ((code - 0x10000) & 0x3FF);
    }
    p->units[p->n_units++] = (uint16_t)code;
    return SCA_OK;
}

/* Malformed bytes become U+FFFD, which the lexer drops. break_to_space: no character ends a line. */
static sca_status units_text(ptb *p, const char *text, size_t bytes, bool break_to_space)
{
    for (size_t i = 0; i < bytes;) {
        int32_t code = utf8_next(text, bytes, &i);
        bool breaks = (code >= '\n' && code <= '\r') || code == 0x85 || code == 0x2028 || code == 0x2029;
        if (code < 0) code = 0xFFFD;
        TRY(units_put(p, breaks && break_to_space ? ' ' : code));
    }
    return SCA_OK;
}

static sca_status token_put(ptb *p, int32_t code)
{
    if (p->n_token == p->cap_token) {
        size_t cap = p->cap_token ? p->cap_token * 2 : 256;
        int32_t *token = mem_resize(p->token, cap * sizeof *token);
        if (!token) return mem_fail(cap * sizeof *token, "token");
        p->token = token, p->cap_token = cap;
    }
    p->token[p->n_token++] = code;
    return SCA_OK;
}

static sca_status token_text(ptb *p, const char *ascii)
{
    for (; *ascii; ascii++) TRY(token_put(p, *ascii));
    return SCA_OK;
}

static sca_status token_units(ptb *p, size_t at, size_t end)
{
    p->n_token = 0;
    for (size_t i = at; i < end; i++) {
        int32_t u = p->units[i];
        if (u >= 0xD800 && u < 0xDC00 && i + 1 < end && (p->units[i + 1] & 0xFC00) == 0xDC00)
            u = 0x10000 + ((u - 0xD800) << 10) + (p->units[++i] - 0xDC00);
        TRY(token_put(p, u));
    }
    return SCA_OK;
}

/* ---- actions ------------------------------------------------------------------------------- */

typedef struct rewrite {
    int32_t code;
    const char *text;
} rewrite;

static const char *rewritten(const rewrite *table, size_t n, int32_t code)
{
    for (size_t i = 0; i < n; i++)
        if (table[i].code == code) return table[i].text;
    return NULL;
}

/* Replaces every code that has an entry. */
static sca_status token_rewrite(ptb *p, const rewrite *table, size_t n)
{
    size_t count = p->n_token, first = count;
    for (size_t i = 0; i < count; i++) {
        const char *text = rewritten(table, n, p->token[i]);
        if (text)
            TRY(token_text(p, text));
        else
            TRY(token_put(p, p->token[i]));
    }
    p->n_token -= first;
    memmove(p->token, p->token + first, p->n_token * sizeof *p->token);
    return SCA_OK;
}

/* Replaces every occurrence of an entity by one character. */
static void token_entity(ptb *p, const char *entity, int32_t code)
{
    size_t length = strlen(entity), n = 0;
    for (size_t i = 0; i < p->n_token;) {
        size_t k = 0;
        while (k < length && i + k < p->n_token && p->token[i + k] == entity[k]) k++;
        p->token[n++] = k == length ? code : p->token[i];
        i += k == length ? length : 1;
    }
    p->n_token = n;
}

static void token_remove(ptb *p, int32_t code)
{
    size_t n = 0;
    for (size_t i = 0; i < p->n_token; i++)
        if (p->token[i] != code) p->token[n++] = p->token[i];
    p->n_token = n;
}

static void token_blanks(ptb *p)
{
    for (size_t i = 0; i < p->n_token; i++)
        if (p->token[i] == ' ') p->token[i] = 0xA0;
}

static const rewrite names[] = { { '(', "-LRB-" }, { ')', "-RRB-" }, { '[', "-LSB-" },
                                 { ']', "-RSB-" }, { '{', "-LCB-" }, { '}', "-RCB-" } };
static const rewrite quotes[] = {
    { 0x91, "`" },   { 0x2018, "`" },  { 0x201B, "`" }, { 0x2039, "`" },  { 0x92, "'" },
    { 0x2019, "'" }, { 0x203A, "'" },  { 0x93, "``" },  { 0x201C, "``" }, { 0xAB, "``" },
    { 0x94, "''" },  { 0x201D, "''" }, { 0xBB, "''" },
};
static const rewrite left[] = { { '\'', "`" }, { '"', "``" } };
static const rewrite right[] = { { '"', "''" } };
static const rewrite vulgar[] = {
    { 0xBC, "1/4" }, { 0xBD, "1/2" }, { 0xBE, "3/4" }, { 0x2153, "1/3" }, { 0x2154, "2/3" }
};
static const rewrite currency[] = { { 0xA2, "cents" }, { 0xA3, "#" },   { 0x80, "$" },
                                    { 0xA4, "$" },     { 0x20A0, "$" }, { 0x20AC, "$" } };

static sca_status token_quotes(ptb *p, bool opening)
{
    token_entity(p, "&apos;", '\'');
    token_entity(p, "&quot;", '"');
    TRY(opening ? token_rewrite(p, left, LENGTH(left)) : token_rewrite(p, right, LENGTH(right)));
    return token_rewrite(p, quotes, LENGTH(quotes));
}

/* p->token becomes what the rule makes of it. */
static sca_status token_act(ptb *p, const ptb_rule *rule)
{
    switch (rule->act) {
    case BLANKS: return token_blanks(p), SCA_OK;
    case PHONE: token_blanks(p); return token_rewrite(p, names, LENGTH(names));
    case NAMES: return token_rewrite(p, names, 2 + (p->n_token == 1 ? 4 : 0));
    case AMPERSAND: return token_entity(p, "&amp;", '&'), SCA_OK;
    case LEFT: return token_quotes(p, true);
    case RIGHT: return token_quotes(p, false);
    case VULGAR: return token_rewrite(p, vulgar, LENGTH(vulgar));
    case CURRENCY: return token_rewrite(p, currency, LENGTH(currency));
    case NO_HYPHEN: token_remove(p, 0xAD); return p->n_token ? SCA_OK : token_text(p, "-");
    case DASHES:
        if (p->n_token == 3 || p->n_token == 4) p->n_token = 2;
        return SCA_OK;
    case TEXT:
        p->n_token = 0;
        for (size_t i = 0, n = strlen(rule->text); i < n;) TRY(token_put(p, utf8_next(rule->text, n, &i)));
        return SCA_OK;
    default: return SCA_OK;
    }
}

/* ---- lines --------------------------------------------------------------------------------- */

static bool is_cased(int32_t code) { return utf8proc_tolower(code) != code || utf8proc_toupper(code) != code; }

/* Capital sigma becomes another letter at the end of a word than inside. */
static int32_t lower(const ptb *p, size_t i)
{
    int32_t code = p->token[i];
    if (code != 0x3A3) return utf8proc_tolower(code);
    size_t next = i + 1;
    while (next < p->n_token && !is_letter(p->token[next])) next++;
    bool before = i > 0 && is_cased(p->token[i - 1]), after = next < p->n_token && is_cased(p->token[next]);
    return before && !after ? 0x3C2 : 0x3C3;
}

static bool is_filtered(const char *token)
{
    static const char *const filtered[] = { "''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";" };
    for (size_t i = 0; i < LENGTH(filtered); i++)
        if (strcmp(token, filtered[i]) == 0) return true;
    return false;
}

typedef struct line_out {
    texts *lines;
    size_t start; /* where the open line begins in the pool */
    bool filter;
} line_out;

/* Puts p->token[from..to) at the end of the open line. */
static void line_part(const ptb *p, line_out *o, size_t from, size_t to)
{
    str *pool = &o->lines->pool;
    size_t before = pool->bytes;
    if (from == to) return;
    if (before > o->start) str_putc(pool, ' ');
    size_t at = pool->bytes;
    for (size_t i = from; i < to; i++) {
        char utf8[4];
        bool dotted = p->token[i] == 0x130; /* i and a combining dot */
        str_put_bytes(pool, utf8, utf8_put(dotted ? 'i' : lower(p, i), utf8));
        if (dotted) str_put_bytes(pool, "\xCC\x87", 2);
    }
    if (o->filter && !pool->failed && is_filtered(pool->data + at)) pool->bytes = before;
}

static sca_status line_end(line_out *o)
{
    TRY(texts_end(o->lines));
    o->start = o->lines->pool.bytes;
    return SCA_OK;
}

/* Puts p->token out. A line break inside (of a quoted value in markup) ends the line there: the reference prints the
 * token as it is, and what reads its output splits it; blanks at the end of a line are dropped then. */
static sca_status line_token(const ptb *p, line_out *o)
{
    size_t from = 0;
    for (size_t i = 0; i < p->n_token; i++) {
        if (p->token[i] != '\n') continue;
        size_t to = i;
        while (to > from && (p->token[to - 1] == 0xA0 || p->token[to - 1] == '\t')) to--;
        line_part(p, o, from, to);
        TRY(line_end(o));
        from = i + 1;
    }
    line_part(p, o, from, p->n_token);
    return SCA_OK;
}

/* One lexer match: its token or tokens go out; *next is where lexing goes on. */
static sca_status token_write(ptb *p, const ptb_rule *rule, size_t at, size_t length, line_out *o, size_t *next)
{
    size_t end = at + length;
    *next = end;
    if (rule->act == DROP) return SCA_OK;
    if (rule->act == LINE) return line_end(o);
    if (rule->act == DOTS) {
        *next = end;
        p->n_token = 0;
        TRY(token_text(p, "..."));
        TRY(line_token(p, o));
        p->n_token = 1;
        return line_token(p, o);
    }
    if (rule->act == SPLIT) end -= rule->tail;
    if (rule->act == ACRONYM && length == 2) end--;
    TRY(token_units(p, at, end));
    TRY(token_act(p, rule));
    TRY(line_token(p, o));
    if (rule->act == SPLIT) *next = end;
    if (rule->act == ACRONYM || rule->act == REREAD) *next = at + length - 1;
    return SCA_OK;
}

/* p->units to lines. The last line is closed when it holds something or `close` is set. */
static sca_status units_lines(ptb *p, bool filter, bool close, texts *lines)
{
    line_out o = { lines, lines->pool.bytes, filter };
    bool open = close;
    lexer_begin(p->lexer);
    for (size_t at = 0; at < p->n_units;) {
        size_t length;
        int rule;
        TRY(lexer_next(p->lexer, p->units, p->n_units, at, &length, &rule));
        if (rule < 0 || length == 0) return status_fail(SCA_ERR_STATE, "tokeniser: no rule at unit %zu", at);
        TRY(token_write(p, &rules[rule], at, length, &o, &at));
        open = close || rules[rule].act != LINE;
    }
    return open ? line_end(&o) : SCA_OK;
}

sca_status ptb_lines(ptb *p, const char *text, size_t bytes, bool filter, texts *lines)
{
    p->n_units = 0;
    TRY(units_text(p, text, bytes, false));
    return units_lines(p, filter, false, lines);
}

sca_status ptb_captions(ptb *p, const char *const *captions, size_t n, texts *lines)
{
    size_t before = lines->count;
    p->n_units = 0;
    for (size_t i = 0; i < n; i++) {
        if (i) TRY(units_put(p, '\n'));
        if (captions[i]) TRY(units_text(p, captions[i], strlen(captions[i]), true));
    }
    if (n) TRY(units_lines(p, true, true, lines));
    if (lines->count - before != n)
        return status_fail(SCA_ERR_STATE, "tokeniser: %zu captions gave %zu lines", n, lines->count - before);
    return SCA_OK;
}
