/* cli.h - runs the program `sca` as a stranger's shell would, and looks at what comes out. */
#ifndef CLI_H
#define CLI_H

#include "base/base.h"
#include "check.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define CLI_SCA SCA_BUILD "/sca"
#ifndef CLI_DIR
#define CLI_DIR                                                                                                    \
    SCA_BUILD "/cli-test" /* for files that the tests make; one for each program, as they run in parallel */
#endif
#define CLI_MODEL SCA_SOURCE "/docs/demo/model"
#define CLI_PHOTO SCA_SOURCE "/docs/demo/photo.jpg"

typedef struct cli_result {
    int code; /* exit status, or 1000 + the signal that ended it */
    char *out, *err;
} cli_result;

/* Where standard input and output go; NULL: nothing, and a file that is read back. */
static const char *cli_stdin, *cli_stdout;
static bool cli_close_stdout;

static inline void cli_child(const char *out, const char *err, char *const *argv)
{
    int in = open(cli_stdin ? cli_stdin : "/dev/null", O_RDONLY);
    int fd = open(out, O_WRONLY | O_CREAT, 0666), error = open(err, O_WRONLY | O_CREAT | O_TRUNC, 0666);
    if (in < 0 || fd < 0 || error < 0) _exit(126);
    dup2(in, 0);
    dup2(error, 2);
    if (cli_close_stdout)
        close(1);
    else
        dup2(fd, 1);
    for (int i = 3; i < 64; i++) close(i);
    execv(CLI_SCA, argv);
    _exit(127);
}

static inline char *cli_read(const char *path)
{
    char *data = NULL;
    size_t bytes;
    if (file_read(path, 1 << 30, &data, &bytes) != SCA_OK) return text_copy("", 0);
    return data;
}

static inline cli_result cli_run_list(char *const *argv)
{
    const char *out = cli_stdout ? cli_stdout : CLI_DIR "/stdout", *err = CLI_DIR "/stderr";
    if (!cli_stdout) unlink(out);
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) cli_child(out, err, argv);
    int status = 0;
    waitpid(child, &status, 0);
    cli_result r = { .code = WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status) };
    r.out = cli_stdout ? text_copy("", 0) : cli_read(out);
    r.err = cli_read(err);
    cli_stdin = cli_stdout = NULL;
    cli_close_stdout = false;
    return r;
}

/* The line is split at spaces: no argument of these tests holds one; "''" is an empty argument. */
static inline cli_result cli_run(const char *line)
{
    char copy[16384], *argv[512] = { (char *)(uintptr_t) "sca" };
    int n = 1;
    snprintf(copy, sizeof copy, "%s", line);
    for (char *word = strtok(copy, " "); word && n < 511; word = strtok(NULL, " "))
        argv[n++] = strcmp(word, "''") == 0 ? word + 2 : word;
    return cli_run_list(argv);
}

static inline void cli_free(cli_result *r)
{
    mem_free(r->out);
    mem_free(r->err);
    *r = (cli_result){ 0 };
}

/* Exit status, and a part of standard error ("": it must be empty) and of standard output. */
static inline bool cli_expect(const char *line, int code, const char *out, const char *err)
{
    cli_result r = cli_run(line);
    bool quiet = err[0] == 0 ? r.err[0] == 0 : strstr(r.err, err) != NULL;
    bool ok = CHECKF(r.code == code && quiet && strstr(r.out, out),
                     "sca %.400s\n  gave %d, expected %d\n  stdout '%.300s', "
                     "expected '%s'\n  stderr '%.600s', expected '%s'",
                     line, r.code, code, r.out, out, r.err, err);
    int lines = 0;
    for (const char *p = r.err; *p; p++) lines += *p == '\n';
    CHECKF(strlen(r.err) <= 4100 && lines < 12, "sca %.400s: a message of %zu bytes and %d lines", line,
           strlen(r.err), lines);
    cli_free(&r);
    return ok;
}

/* Runs a command that must succeed and returns its output as JSON; json_decref. */
static inline json_t *cli_json(const char *line)
{
    json_t *value = NULL;
    cli_result r = cli_run(line);
    CHECKF(r.code == 0, "sca %.400s\n  gave %d: %.600s", line, r.code, r.err);
    if (r.code == 0) CHECK_OK(json_parse(r.out, strlen(r.out), "output", &value));
    cli_free(&r);
    return value;
}

static inline void cli_start(void) { CHECK_OK(dir_make(CLI_DIR)); }

/* How many names a folder holds that do not begin with a dot, and how many do: nothing half-written may stay. */
static inline bool cli_leftovers(const char *dir)
{
    char command[1024];
    snprintf(command, sizeof command, "ls -A '%s' | grep -q '^\\.\\|\\.tmp$'", dir);
    return system(command) == 0;
}

#endif
