/* test_gpu_faults.c - what the program says and leaves behind when the GPU is missing, unfit, out of memory or fails: on simt,
 * which can pretend all of these, and on this machine's own cuda device where there is none. */
#define CLI_DIR SCA_BUILD "/gpu-faults"
#include "cli.h"

#include "ops/ops.h"

#include <float.h>
#include <stdlib.h>
#include <string.h>

#define CAPTION "caption " CLI_PHOTO " --box 10,10,60,60 --out " CLI_DIR "/out.json "

static bool built_in(const char *kind)
{
    for (const char *const *name = dev_kinds(); *name; name++)
        if (strcmp(*name, kind) == 0) return true;
    char why[64];
    snprintf(why, sizeof why, "%s: not built in", kind);
    check_skip(why);
    return false;
}

/* Exit status 1, both parts in one line of standard error, and no result, whole or half. */
static void expect_fault(const char *model, const char *options, const char *part, const char *other)
{
    str line = { 0 };
    str_printf(&line, CAPTION "--model %s %s", model, options);
    cli_result r = cli_run(str_text(&line));
    CHECKF(r.code == 1 && strstr(r.err, part) && strstr(r.err, other),
           "%s: exit status %d, '%s' says '%s' and '%s'", options, r.code, r.err, part, other);
    CHECKF(*r.out == 0 && !file_exists(CLI_DIR "/out.json") && !cli_leftovers(CLI_DIR), "%s: something is left",
           options);
    cli_free(&r);
    str_free(&line);
}

static void a_machine_without_a_gpu(void)
{
    if (!built_in("simt")) return;
    static const char *const row[][3] = { { "no-driver", "no NVIDIA driver is installed", "--device cpu" },
                                          { "old-driver", "the driver knows CUDA 11.4", "this build needs 13.0" },
                                          { "no-gpu", "no GPU is visible", "--device cpu" },
                                          { "sm_75", "has compute capability 7.5", "needs 8.0 or later" },
                                          { "broken", "unknown error", "cudaErrorUnknown" } };
    for (size_t i = 0; i < LENGTH(row); i++) {
        char options[100];
        snprintf(options, sizeof options, "--device simt --variants pretend=%s", row[i][0]);
        expect_fault(CLI_MODEL, options, row[i][1], row[i][2]);
    }
    expect_fault(CLI_MODEL, "--device simt --variants index=1", "index=1", "expected 0 to 0");
    expect_fault(CLI_MODEL, "--device simt --variants gemm=cublaslt,cublaslt=/nowhere/library.so", "gemm=cublaslt",
                 "");
}

/* Here, mostly: the runtime's own answer on a machine without a driver. */
static void this_machine(void)
{
    dev *d = NULL;
    if (!built_in("cuda")) return;
    if (dev_open("cuda", "", &d) == SCA_OK) {
        dev_close(d);
        check_skip("there is a GPU");
        return;
    }
    expect_fault(CLI_MODEL, "--device cuda", "device cuda: ", "--device cpu");
}

/* A launch that is refused names op and kernel; one that crashes shows at a later wait, and with `sync` at its op. */
static void failing_kernels_are_named(void)
{
    if (!built_in("simt")) return;
    const char *simt = "--device simt --variants ";
    char options[200];
    snprintf(options, sizeof options, "%sfail=norm_held", simt);
    expect_fault(CLI_MODEL, options, "kernel (norm_held<", "a block of 1 to 1024 threads was expected");
    snprintf(options, sizeof options, "%scrash=norm_held", simt);
    expect_fault(CLI_MODEL, options, "unspecified launch failure", "waiting for the stream");
    setenv("SCA_TRACE", "sync", 1);
    expect_fault(CLI_MODEL, options, "unspecified launch failure", "op_layernorm_fwd");
    snprintf(options, sizeof options, "%sfail=gemm_f32", simt);
    expect_fault(CLI_MODEL, options, "op_conv_fwd: ", "kernel (gemm_f32<");
    unsetenv("SCA_TRACE");
}

/* From the failure on nothing works any more: no second photo is half described. */
static void a_crash_stays(void)
{
    if (!built_in("simt")) return;
    cli_result r = cli_run(CAPTION CLI_PHOTO " --model " CLI_MODEL " --device simt --variants crash=norm_held");
    const char *first = strstr(r.err, "unspecified launch failure");
    CHECKF(r.code == 1 && first && strstr(first + 1, "unspecified launch failure"), "exit status %d, '%s'", r.code,
           r.err);
    CHECK(!file_exists(CLI_DIR "/out.json") && !cli_leftovers(CLI_DIR));
    cli_free(&r);
}

/* How much, for what, of how much, and which setting lowers it: weights, activations, scratch, what is kept of a photo. */
static void memory_that_is_out(void)
{
    if (!built_in("simt")) return;
    static const char *const row[][3] = {
        { "4096", "it was for the weights, ", "--precision bf16" },
        { "3300000", "it was for the activations of the image encoder, ", "vit_b" },
        { "4000000", "it was for what is kept of a photo, ", "fewer photos" },
        { "4200000", "it was for the pieces of the image that a convolution sees",
          "lower it with --precision bf16" },
        { "5500000", "it was for the activations of 1 regions", "generate.beams" }
    };
    for (size_t i = 0; i < LENGTH(row); i++) {
        char options[100];
        snprintf(options, sizeof options, "--device simt --variants memory=%s", row[i][0]);
        expect_fault(CLI_MODEL, options, row[i][1], row[i][2]);
        expect_fault(CLI_MODEL, options, " MiB wanted, ", " MiB are free");
    }
}

/* ---- numbers that are none -------------------------------------------------------------------------------------- */

/* A copy of the demo's model in which one weight, of that name, is so large that sums overflow. */
static bool spoil_model(const char *name, float value)
{
    char *data = NULL, *at;
    size_t bytes = 0;
    uint64_t header = 0;
    long long begin = 0;
    CHECK_OK(dir_make(CLI_DIR "/bad"));
    static const char *const files[] = { "config.json",       "generation_config.json",   "merges.txt",
                                         "vocab.json",        "preprocessor_config.json", "tokenizer.json",
                                         "model.safetensors", "special_tokens_map.json",  "tokenizer_config.json" };
    for (size_t i = 0; i < LENGTH(files); i++) {
        char from[1000], to[1000];
        snprintf(from, sizeof from, CLI_MODEL "/%s", files[i]);
        snprintf(to, sizeof to, CLI_DIR "/bad/%s", files[i]);
        if (!CHECK(file_read(from, 1 << 30, &data, &bytes) == SCA_OK)) return false;
        if (strcmp(files[i], "model.safetensors") == 0) {
            memcpy(&header, data, sizeof header);
            at = strstr(data + 8, name);
            at = at ? strstr(at, "data_offsets") : NULL;
            if (!CHECK(at && sscanf(at, "data_offsets\":[%lld", &begin) == 1)) return false;
            memcpy(data + 8 + header + begin, &value, sizeof value);
        }
        CHECK_OK(file_write(to, data, bytes));
        mem_free(data);
    }
    return true;
}

/* The first op whose result is not finite is named, with its arguments. (A file whose weights are not finite is refused when it is read.) */
static void numbers_that_are_none_are_traced(void)
{
    static const struct {
        const char *name, *op;
    } row[] = { { "vision_encoder.layers.2.mlp.lin1.weight", "op_linear_fwd gave " },
                { "vision_encoder.neck.layer_norm2.weight", "op_layernorm_fwd gave " },
                { "vision_encoder.patch_embed.projection.weight", "op_conv_fwd gave " } };
    static const char *const devices[] = { "cpu", "simt" };
    for (size_t i = 0; i < LENGTH(row); i++) {
        if (!spoil_model(row[i].name, FLT_MAX)) return;
        for (size_t k = 0; k < LENGTH(devices); k++) {
            char options[100];
            if (!built_in(devices[k])) continue;
            snprintf(options, sizeof options, "--device %s --trace nan", devices[k]);
            expect_fault(CLI_DIR "/bad", options, row[i].op, "at index ");
        }
    }
}

int main(int argc, char **argv)
{
    CHECK_OK(dir_make(CLI_DIR));
    RUN(a_machine_without_a_gpu);
    RUN(this_machine);
    RUN(failing_kernels_are_named);
    RUN(a_crash_stays);
    RUN(memory_that_is_out);
    RUN(numbers_that_are_none_are_traced);
    return check_done();
}
