/* sca.c - the program: one row per command. */
#include "tool.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

typedef struct command {
    const char *name, *usage, *what;
    unsigned groups;
    int (*run)(const arguments *a);
    const char *more; /* paragraphs below the options */
} command;

static const command commands[] = {
    { "caption", "IMAGE... --model DIR [--box x1,y1,x2,y2 | --point x,y[,label] | --mask FILE | --next]...",
      "masks and captions of regions of photos", REGIONS | MODEL | GENERATE | RESULTS | PHOTO | RUN, run_caption,
      "--box opens a region; the points and the mask after it belong to it, up to the next --box or --next.\n"
      "Without a box the first point or mask opens it: --point A --point B is one region, --point A --next\n"
      "--point B are two. Without any prompt the region is the whole photo. Several photos: all regions for "
      "each.\n" },
    { "segment", "IMAGE... --model DIR [--box x1,y1,x2,y2 | --point x,y[,label] | --mask FILE | --next]...",
      "the same, masks only", REGIONS | MODEL | RESULTS | PHOTO | RUN, run_segment,
      "Regions are given as for `sca caption`.\n" },
    { "export", "--model DIR --to DIR|FILE.safetensors [--dtype f32|f16|bf16] [--trained-only]",
      "a model directory or file, in another type or the trained part only", MODEL | EXPORT | RUN, run_export,
      "The directory loads in the official implementation.\n" },
    { "info", "[--model DIR [--plan]]", "build, devices, model table, memory plan", MODEL | INFO | RUN, run_info,
      "" },
    { "tokenize", "--model DIR [--train] [--decode] < JSONL, or --learn N --to DIR < JSONL",
      "text to token ids and back, or a new vocabulary", TOKENS | RUN, run_tokenize,
      "Reads JSON Lines from standard input: {\"text\": ...} becomes {\"ids\": [...], \"decoded\": ...}.\n"
      "DIR needs only the tokenizer files.\n" },
    { "train", "CONFIG [section.key=value]...", "pretraining and fine-tuning", RUN | SETTINGS, run_train,
      "Everything goes to train.output: log.jsonl, checkpoint-N/ (a model directory; `last` leads to the newest), "
      "report.html.\n"
      "Started again after an interruption, the same command goes on from the newest checkpoint. SIGTERM and "
      "SIGINT "
      "end it\n"
      "after saving. Under `mpirun -n N` each process takes its share of the batches.\n" },
    { "plot", "RUN... [--to FILE.svg|FILE.png]", "loss, rate, gradient norm and evaluations of runs", PLOT,
      run_plot, "RUN is the folder of a training run; several are drawn over each other.\n" },
    { "eval", "CONFIG [section.key=value]...", "captions of whole data sets, with scores and a report",
      RUN | SETTINGS, run_eval,
      "Runs again after an interruption, the same command goes on where it stopped. Under `mpirun -n N` the images "
      "are\n"
      "shared out; the results are the same. A report is written to eval.output.\n" },
    { "prepare", "KIND --annotations FILE|DIR --images DIR [--split NAME] [--jpeg] [--embeddings f16] --to FILE.h5",
      "a file that is quick to open, from files of others", PREPARE | MODEL | PHOTO | RUN, run_prepare,
      "KIND is a kind of data set: coco, visual_genome, objects365, ... (see the guide). Every image is decoded "
      "once; "
      "the\n"
      "store is then read as kind `store`. An interrupted run goes on where it stopped; under `mpirun -n N` the "
      "images "
      "are\n"
      "shared out. KIND meteor: the folder of METEOR's word lists; tools/meteor_data.sh obtains them and calls "
      "this.\n" },
    { "score", "PREDICTIONS.json [--references CAPTIONS.json] [--format text|json|markdown] [--per-item]",
      "caption metrics of a file of predictions", SCORE, run_score,
      "Reads the official inference file (a JSON list, or one record per line) or COCO results with --references.\n"
      "METEOR needs the tables that tools/meteor_data.sh prepares; SPICE tuples or a command; recall tags. What "
      "is\n"
      "not there is left out of the scores and named on standard error.\n" },
};

/* ---- help ------------------------------------------------------------------------------------------------------
 */

static int print(str *text)
{
    output o = { .text = *text };
    int result = output_finish(&o) == SCA_OK ? DONE : fail_now();
    output_free(&o);
    return result;
}

static int print_overview(void)
{
    str text = { 0 };
    str_put(&text, "sca - segment and caption regions of an image\n\nusage: sca COMMAND ...\n\n");
    for (size_t i = 0; i < LENGTH(commands); i++)
        str_printf(&text, "  %-10s %s\n", commands[i].name, commands[i].what);
    str_put(&text, "  help       this list, or `sca help COMMAND`\n\n"
                   "`sca COMMAND --help` shows the options of a command, `sca --version` the version.\n"
                   "Exit status: 0 done, 1 failed, 2 wrong usage.\n");
    return print(&text);
}

static int print_command(const command *c)
{
    str text = { 0 };
    str_printf(&text, "usage: sca %s %s\n\n%s\n\n", c->name, c->usage, c->what);
    options_help(c->groups, &text);
    if (c->more[0]) str_printf(&text, "\n%s", c->more);
    if (c->groups & SETTINGS) {
        char *settings = NULL;
        if (sca_config_help(&settings)) {
            str_free(&text);
            return fail_now();
        }
        str_printf(&text, "\nsettings:\n%s", settings);
        sca_free(settings);
    }
    return print(&text);
}

/* ---- dispatch ---------------------------------------------------------------------------------------------------
 */

static const command *find(const char *name)
{
    for (size_t i = 0; i < LENGTH(commands); i++)
        if (strcmp(commands[i].name, name) == 0) return &commands[i];
    return NULL;
}

static int fail_unknown(const char *name)
{
    const char *names[LENGTH(commands) + 1];
    for (size_t i = 0; i < LENGTH(commands); i++) names[i] = commands[i].name;
    names[LENGTH(commands)] = "help";
    const char *near = text_nearest(name, names, LENGTH(names));
    return fail_usage("unknown command %s%s%s; `sca help` lists them", name, near ? ", did you mean " : "",
                      near ? near : "");
}

static int help(int argc, char **argv)
{
    if (argc == 0) return print_overview();
    if (argc > 1) return fail_usage("help: expected one command, found %s after it", argv[1]);
    const command *c = find(argv[0]);
    return c ? print_command(c) : strcmp(argv[0], "help") == 0 ? print_overview() : fail_unknown(argv[0]);
}

/* `sca COMMAND ... --help` wins over whatever else is wrong with the line. */
static bool wants_help(char **argv)
{
    for (; *argv && strcmp(*argv, "--") != 0; argv++)
        if (strcmp(*argv, "--help") == 0 || strcmp(*argv, "-h") == 0) return true;
    return false;
}

static int run(const command *c, int argc, char **argv)
{
    arguments args = { 0 };
    if (wants_help(argv)) return print_command(c);
    int result = arguments_read(argc, argv, c->name, c->groups, &args);
    if (result == DONE) result = c->run(&args);
    arguments_free(&args);
    return result;
}

static int dispatch(int argc, char **argv)
{
    if (argc == 0) return fail_usage("no command; `sca help` lists them");
    const char *name = argv[0];
    if (strcmp(name, "--help") == 0 || strcmp(name, "-h") == 0 || strcmp(name, "help") == 0)
        return help(argc - 1, argv + 1);
    if (strcmp(name, "--version") == 0) {
        str text = { 0 };
        if (argc > 1) return fail_usage("--version takes nothing after it, found %s", argv[1]);
        str_put(&text, "sca " SCA_VERSION "\n");
        return print(&text);
    }
    const command *c = find(name);
    if (c) return run(c, argc - 1, argv + 1);
    return name[0] == '-' ? fail_usage("unknown option %s; `sca help` lists the commands", name)
                          : fail_unknown(name);
}

/* ---- the process ------------------------------------------------------------------------------------------------
 */

/* A closed descriptor would be given to the next file that is opened, and results would end up in it. What stands
 * in can only be used the other way round, so that reading or writing still fails. */
static void occupy_standard_files(void)
{
    for (int fd = 0; fd < 3; fd++)
        if (fcntl(fd, F_GETFD) < 0 && errno == EBADF)
            (void)!open("/dev/null", fd == STDIN_FILENO ? O_WRONLY : O_RDONLY);
}

int main(int argc, char **argv)
{
    occupy_standard_files();
    (void)signal(SIGPIPE, SIG_IGN); /* a closed pipe is a failed write like any other: message, exit status 1 */
    (void)signal(SIGXFSZ, SIG_IGN); /* so is a file that may not grow */
    message_start();
    return dispatch(argc > 0 ? argc - 1 : 0, argc > 0 ? argv + 1 : argv);
}
