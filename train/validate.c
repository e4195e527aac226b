/* validate.c - the loss of what is trained on sets that are not: for masks and texts, which no caption metric judges. */
#include "train/parts.h"

#include <math.h>
#include <stdio.h>

/* Sums over the ranks, each result weighted with its targets. */
enum { SUM_LOSS, SUM_FOCAL, SUM_DICE, SUM_IOU, SUM_RESTORE, SUM_TARGETS, SUM_IMAGES, SUM_REGIONS, SUMS };

static sca_status add_batch(trainer *t, loader *data, double sums[SUMS])
{
    const loader_batch *b;
    training_result r;
    TRY(loader_next(data, &b));
    training_input in = trainer_input(t, b, 0);
    TRY(training_loss(t->parameters, &in, &r));
    const double mean[] = { r.loss, r.focal, r.dice, r.iou, r.restore };
    for (size_t i = 0; i < LENGTH(mean); i++) sums[SUM_LOSS + i] += mean[i] * (double)r.targets;
    sums[SUM_TARGETS] += (double)r.targets;
    sums[SUM_IMAGES] += b->images;
    sums[SUM_REGIONS] += (double)b->images * b->regions;
    return SCA_OK;
}

/* Image by image, with all regions of each, in file order; dealt to the ranks in turn. */
static sca_status add_set(trainer *t, const config_dataset *set, double sums[SUMS])
{
    loader_options o;
    loader *data = NULL;
    trainer_loader(t, &o);
    o.sets = set;
    o.n_sets = 1;
    o.shuffle = o.jitter = o.embeddings = false;
    o.regions_per_image = VALIDATED_REGIONS;
    o.batch_images = o.accumulate = 1;
    o.start = 0;
    o.skipped = NULL;
    TRY(loader_open(&o, &data));
    int64_t n = loader_images(data) < t->c->train_eval_images ? loader_images(data) : t->c->train_eval_images;
    sca_status status = SCA_OK;
    for (int64_t i = o.rank; i < n && status == SCA_OK; i += o.size) status = add_batch(t, data, sums);
    loader_close(data);
    return status;
}

static bool put_mean(json_t *scores, const char *key, const double sums[SUMS], int which)
{
    double mean = sums[which] / sums[SUM_TARGETS];
    return !isfinite(mean) || json_object_set_new(scores, key, json_real(mean)) == 0;
}

static sca_status describe_set(const trainer *t, const config_dataset *set, const double sums[SUMS], json_t *list)
{
    char name[CONFIG_TEXT];
    bool masks = trainer_objective(t, "mask");
    snprintf(name, sizeof name, "%s%s%s", set->name[0] ? set->name : set->kind,
             !set->name[0] && set->split[0] ? "-" : "", set->name[0] ? "" : set->split);
    json_t *scores = json_object();
    json_t *entry =
        json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:I, s:I, s:o}", "name", name, "kind", set->kind, "source",
                  set->annotations, "split", set->split, "task", t->c->train_objective, "protocol",
                  masks ? "loss of masks" : "loss of texts", "images", (json_int_t)sums[SUM_IMAGES], "regions",
                  (json_int_t)sums[SUM_REGIONS], "scores", scores);
    if (!entry) return mem_fail(256, "losses");
    bool good = put_mean(scores, "loss", sums, SUM_LOSS);
    if (masks)
        good = good && put_mean(scores, "focal", sums, SUM_FOCAL) && put_mean(scores, "dice", sums, SUM_DICE);
    if (masks) good = good && put_mean(scores, "best-mask-iou", sums, SUM_IOU);
    if (masks && t->c->train_restore > 0) good = good && put_mean(scores, "restore", sums, SUM_RESTORE);
    return json_array_append_new(list, entry) == 0 && good ? SCA_OK : mem_fail(256, "losses");
}

sca_status trainer_validate(trainer *t, json_t **sets, double *loss)
{
    json_t *list = json_array();
    double sum = 0;
    sca_status status = list ? SCA_OK : mem_fail(64, "losses");
    *sets = NULL;
    *loss = NAN;
    for (size_t i = 0; i < t->c->n_data_eval; i++) {
        double sums[SUMS] = { 0 };
        if (status == SCA_OK) status = add_set(t, &t->c->data_eval[i], sums);
        status = comm_agree(t->ranks, status);
        if (status == SCA_OK) status = comm_reduce(t->ranks, COMM_F64, COMM_SUM, sums, SUMS);
        if (status == SCA_OK) status = describe_set(t, &t->c->data_eval[i], sums, list);
        if (status != SCA_OK) break;
        sum += sums[SUM_LOSS] / sums[SUM_TARGETS];
    }
    if (status != SCA_OK) {
        json_decref(list);
        return status;
    }
    *sets = list;
    *loss = sum / (double)t->c->n_data_eval;
    return SCA_OK;
}
