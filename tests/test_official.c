/* test_official.c - directories that `sca export` wrote, loaded by the official implementation, which must give the
 * same masks, scores and token ids: tests/official.py does the work and says what it needs. */
#define CLI_DIR SCA_BUILD "/cli-official"
#include "cli.h"

/* Exported as `type`; `name` is a folder for this run. */
static void compare(const char *model, const char *type, const char *name)
{
    char command[2000], why[600] = "official: ";
    snprintf(command, sizeof command,
             "mkdir -p " CLI_DIR "/%s && \"${SCA_PYTHON:-python3}\" " SCA_SOURCE "/tests/official.py " CLI_SCA
             " %s " CLI_DIR "/%s %s >" CLI_DIR "/%s.log 2>&1",
             name, model, name, type, name);
    int status = system(command), code = WIFEXITED(status) ? WEXITSTATUS(status) : 1000;
    char log[1000];
    snprintf(log, sizeof log, CLI_DIR "/%s.log", name);
    char *said = cli_read(log);
    if (code == 77 || code == 127) {
        snprintf(why + strlen(why), sizeof why - strlen(why), "%.*s", (int)strcspn(said, "\n"), said);
        check_skip(why);
    } else {
        CHECKF(code == 0, "%s in %s: official.py gave %d\n%s", model, type, code, said);
        printf("%s", said);
    }
    mem_free(said);
}

static void gpt2_f32(void) { compare(CLI_MODEL, "f32", "gpt2-f32"); }
static void gpt2_f16(void) { compare(CLI_MODEL, "f16", "gpt2-f16"); }

static void llama_bf16(void)
{
    const char *model = SCA_SHARED "/golden/models/llama-tiny";
    if (dir_exists(model))
        compare(model, "bf16", "llama-bf16");
    else
        check_skip("shared: the folder with golden models is absent");
}

int main(int argc, char **argv)
{
    cli_start();
    RUN(gpt2_f32);
    RUN(gpt2_f16);
    RUN(llama_bf16);
    return check_done();
}
