/* example.c - captions of boxes in a photo, from a C program with the installed library:
 *
 *     cc example.c $(pkg-config --cflags --libs sca) -o example
 *     ./example MODEL_DIR PHOTO x1 y1 x2 y2 [x1 y1 x2 y2 ...]
 */
#include <sca.h>

#include <stdio.h>
#include <stdlib.h>

enum { MOST = 32, HEADS_MOST = 3 }; /* regions; captions per region: 1, older variants 3 */

static sca_status open_model(const char *dir, sca_model **model)
{
    char setting[1000];
    sca_config *config = NULL;
    snprintf(setting, sizeof setting, "model.path=%s", dir);
    sca_status status = sca_config_open(NULL, &config);
    if (!status) status = sca_config_set(config, setting);
    if (!status) status = sca_model_open(config, model);
    sca_config_close(config);
    return status;
}

static sca_status describe(sca_scene *scene, const sca_prompt *prompts, int n, int heads)
{
    sca_mask masks[MOST] = { 0 };
    sca_text texts[MOST * HEADS_MOST] = { 0 };
    sca_status status = sca_describe(scene, prompts, n, masks, texts);
    for (int i = 0; i < n && !status; i++)
        printf("%s\n  log-probability %.3f, mask in %.0f,%.0f - %.0f,%.0f\n", texts[i * heads].text,
               texts[i * heads].logprob, masks[i].box_px[0], masks[i].box_px[1], masks[i].box_px[2],
               masks[i].box_px[3]);
    sca_text_free(texts, n * heads);
    sca_mask_free(masks, n);
    return status;
}

int main(int argc, char **argv)
{
    float boxes[4 * MOST] = { 0 };
    sca_prompt prompts[MOST] = { 0 };
    sca_model *model = NULL;
    sca_scene *scene = NULL;
    sca_image photo = { 0 };
    int n = (argc - 3) / 4;
    if (n < 1 || n > MOST) return fprintf(stderr, "usage: example MODEL_DIR PHOTO x1 y1 x2 y2 ...\n"), 2;
    for (int i = 0; i < 4 * n; i++) boxes[i] = strtof(argv[3 + i], NULL);
    for (int i = 0; i < n; i++) prompts[i].box_px = boxes + 4 * i;
    sca_status status = open_model(argv[1], &model);
    if (!status) status = sca_image_read(argv[2], &photo);
    if (!status) status = sca_encode(model, &photo, &scene);
    if (!status) status = describe(scene, prompts, n, sca_model_heads(model));
    if (status) fprintf(stderr, "example: %s\n", sca_last_error());
    sca_scene_close(scene); /* before its model */
    sca_image_free(&photo);
    sca_model_close(model);
    return status != SCA_OK;
}
