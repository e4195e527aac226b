/* evaluate.h - a model over the data sets of `data.eval`: predictions, scores (eval.md 1 to 5). */
#ifndef SCA_EVALUATE_H
#define SCA_EVALUATE_H

#include "base/base.h"
#include "model/model.h"
#include "train/train.h"

/* Generates over every set and scores it, with the settings of `data`, `eval`, `generate`, `run` and
 * train.label_smoothing; c also says which model m is. Called by all ranks. Writes to eval.output: scores.json and, in
 * one folder per set, predictions.json, scored.json and details.json (histograms, some regions with their masks: for a
 * report; a region whose image is no file has it written there); in these folders files .part-RANK.jsonl grow meanwhile, from
 * which a later call with the same settings goes on. All files, and *scores at rank 0 (the text of scores.json;
 * elsewhere empty), depend neither on the number of ranks nor on interruptions. What is missing from the scores is
 * warned of, unless it is among the notes of `told`, the sets of an earlier scores.json; or NULL. */
sca_status evaluate_run(model *m, const config *c, comm *ranks, const json_t *told, str *scores);

#endif
