#!/bin/sh
# The claim of weak supervision in small, from nothing, on rendered scenes: does a mixer that was first trained on many
# labels ("circle") describe regions better after the same few descriptions? Everything else - encoder, mask decoder,
# language model, its vocabulary - is trained here, too, and stays frozen then.
#
#   tools/repro_small.sh [--to DIR] [--seeds "1 2 3"]    files below DIR (default runs/small); the table is DIR/small.md
#   tools/repro_small.sh --rehearse --to DIR             a few steps of every stage with one seed: shows that it runs
#
# Can be ended at any time: the same command goes on with what is missing. SCA: the program, else build/sca is built.
set -eu
cd "$(dirname "$0")/.."

to=runs/small seeds="1 2 3" rehearse=
while [ $# -gt 0 ]; do
    case $1 in
    --to) to=$2 && shift ;;
    --seeds) seeds=$2 && shift ;;
    --rehearse) rehearse=1 ;;
    *)
        sed -n '2,/^set /s/^# \{0,1\}//p' "$0"
        [ "$1" = --help ] && exit 0 || exit 2
        ;;
    esac
    shift
done
if [ -z "${SCA:-}" ]; then
    tools/build.sh sca
    SCA=${SCA_BUILD_DIR:-build}/sca
fi

# Sizes: phrases for the language model, scenes with labels, with few descriptions, with many for the demo.
n_text=4000 n_labels=1000 n_few=300 n_many=3000 small=
if [ -n "$rehearse" ]; then
    n_text=40 n_labels=12 n_few=6 n_many=6 seeds=1
    small="train.steps=2 train.warmup_steps=1 train.eval_every=2 train.eval_images=2 train.log_every=1"
fi
size="size=128 shapes=4"
[ -z "$rehearse" ] || rm -rf "$to"
mkdir -p "$to"

# A file appears whole or not at all: a stage whose file is there is done.
phrases() { # NAME SETTINGS
    [ -f "$to/$1.jsonl" ] || "$SCA" prepare synthetic --annotations "$2 $size" --split "$3" --phrases --to "$to/$1.jsonl"
}
# ": small red circle left blue square:the small red circle left of the blue square": as a large language model does,
# this one shall say what stands before.
lines() { # FILE...
    sed 's/^{"text": "\(.*\)"}$/\1/' "$@" | awk '{
        list = $0
        gsub(/(^the | of the | the | of | in )/, " ", list)
        sub(/^ /, "", list)
        print ": " list ":" $0
    }'
}
# A run that has ended has a report.
learn() { # RUN CONFIG SETTING...
    run=$to/$1 config=$2
    shift 2
    # shellcheck disable=SC2086  # settings hold no spaces
    [ -f "$run/report.html" ] || "$SCA" train "configs/small/$config.yaml" "train.output=$run" $small "$@"
}
store() { # NAME SETTINGS
    [ -f "$to/$1.h5" ] ||
        "$SCA" prepare synthetic --annotations "$2 $size" --embeddings f16 --model "$to/masks/last" --to "$to/$1.h5"
}
judge() { # RUN
    [ -f "$to/$1/eval/report.html" ] ||
        "$SCA" eval configs/small/eval.yaml "model.path=$to/$1/last" "eval.output=$to/$1/eval" \
            ${rehearse:+eval.max_images=2}
}

echo "0. texts and vocabulary"
phrases descriptions "count=$n_text seed=1" train
phrases labels "count=$((n_text / 10)) seed=1 phrases=labels" train
phrases val "count=32 seed=1" val
lines "$to/descriptions.jsonl" "$to/labels.jsonl" >"$to/text.txt"
lines "$to/val.jsonl" >"$to/text-val.txt"
if [ ! -f "$to/vocabulary/vocab.json" ]; then
    sed 's/.*/{"text": "&"}/' "$to/text.txt" | "$SCA" tokenize --learn 368 --to "$to/vocabulary"
fi

echo "1. language model"
learn text text "model.tokenizer=$to/vocabulary" "data.train.0.annotations=$to/text.txt" \
    "data.eval.0.annotations=$to/text-val.txt"
echo "2. encoder and mask decoder"
learn masks masks "model.path=$to/text/last"

echo "3. mixer: few descriptions, with and without labels before"
for seed in $seeds; do
    mkdir -p "$to/seed-$seed"
    store "seed-$seed/labels" "count=$n_labels seed=1$seed phrases=labels"
    store "seed-$seed/few" "count=$n_few seed=2$seed"
    few="data.train.0.annotations=$to/seed-$seed/few.h5"
    learn "seed-$seed/direct" few "model.path=$to/masks/last" "$few" "train.seed=$seed"
    learn "seed-$seed/labels" labels "model.path=$to/masks/last" "train.seed=$seed" \
        "data.train.0.annotations=$to/seed-$seed/labels.h5"
    learn "seed-$seed/pretrained" few "model.path=$to/seed-$seed/labels/last" "$few" "train.seed=$seed"
done

echo "4. scenes that were not seen"
for seed in $seeds; do
    judge "seed-$seed/direct"
    judge "seed-$seed/pretrained"
done

echo "5. the model of the demo: many descriptions"
first=${seeds%% *}
store many "count=$n_many seed=41"
learn demo many "model.path=$to/seed-$first/labels/last" "data.train.0.annotations=$to/many.h5"
judge demo

# What is right of the descriptions: the share of regions whose word for it is that of the reference, in percent.
parts() { # RUN
    awk '
        function first(text, list, i, n, w) {
            n = split(text, w, " ")
            for (i = 1; i <= n; i++) if (index(list, " " w[i] " ")) return w[i]
            return ""
        }
        function parse(text, to, i) {
            sub(/^ *"/, "", text)
            sub(/",?$/, "", text)
            to["relation"] = to["other"] = ""
            if (match(text, / (left of|right of|above|below|in front of|behind) the /)) {
                to["relation"] = substr(text, RSTART, RLENGTH)
                to["other"] = substr(text, RSTART + RLENGTH)
                text = substr(text, 1, RSTART - 1)
            }
            for (i = 1; i <= 4; i++) to[kind[i]] = first(text, words[kind[i]])
        }
        BEGIN {
            split("size colour pattern shape relation other", kind, " ")
            words["size"] = " small large "
            words["colour"] = " red green blue yellow purple orange white black "
            words["pattern"] = " striped dotted checkered "
            words["shape"] = " circle square triangle star cross ring "
        }
        /"references": \[/ { getline; parse($0, a) }
        /"candidates": \[/ {
            getline
            parse($0, b)
            n++
            for (i = 1; i <= 6; i++) right[i] += a[kind[i]] == b[kind[i]]
            own = 1
            for (i = 1; i <= 4; i++) own = own && a[kind[i]] == b[kind[i]]
            right[7] += own
        }
        END { for (i = 1; i <= 7; i++) print 100 * right[i] / n }' "$to/$1/eval/scenes/predictions.json"
}
parts_row() { # NAME RUN...
    name=$1
    shift
    for run in "$@"; do parts "$run"; done |
        awk -v name="$name" -v runs=$# '
            { sum[(NR - 1) % 7] += $1 }
            END { for (i = 0; i < 7; i++) name = name sprintf(" | %.1f", sum[i] / runs); print "| " name " |" }'
}
parts_table() {
    echo "| mixer | size | colour | pattern | shape | relation | colour and shape of the other | all four of its own |"
    echo "|---|---|---|---|---|---|---|---|"
    # shellcheck disable=SC2046  # names hold no spaces
    parts_row "(a) few descriptions" $(for seed in $seeds; do echo "seed-$seed/direct"; done)
    # shellcheck disable=SC2046
    parts_row "(b) labels, then the same" $(for seed in $seeds; do echo "seed-$seed/pretrained"; done)
    parts_row "the demo's: labels, then many" demo
    echo "| chance | 33.3 | 12.5 | 25.0 | 16.7 | - | 2.1 | 0.2 |"
}

# Scores times 100, then mean and, with several seeds, the standard deviation.
table() {
    echo "| mixer | seed | CIDEr-D | METEOR | exact match | mask IoU |"
    echo "|---|---|---|---|---|---|"
    for way in direct pretrained; do
        for seed in $seeds; do
            awk -v way=$way -v seed="$seed" '
                $1 ~ /^"(CIDEr-D|METEOR|METEOR-no-paraphrase|exact-match|mask-iou)":$/ {
                    gsub(/[":,]/, "", $1)
                    sub(/,$/, "", $2)
                    value[$1] = $2
                }
                END {
                    meteor = "METEOR" in value ? value["METEOR"] : "METEOR-no-paraphrase" in value ? value["METEOR-no-paraphrase"] : ""
                    print way, seed, value["CIDEr-D"], value["exact-match"], value["mask-iou"], meteor
                }' "$to/seed-$seed/$way/eval/scores.json"
        done
    done | awk '
        function cell(x) { return x == "" ? "-" : sprintf("%.1f", 100 * x) }
        function row(seed, c, m, e, i) { print "| " name[way] " | " seed " | " c " | " m " | " e " | " i " |" }
        function spread(s, q, n) {
            m = s / n
            d = q / n - m * m
            return n > 1 ? sprintf("%.1f ± %.1f", m, sqrt(d > 0 ? d * n / (n - 1) : 0)) : sprintf("%.1f", m)
        }
        function close_way(k) {
            if (n) row("mean", spread(s[1], q[1], n), has_meteor ? spread(s[4], q[4], n) : "-", spread(s[2], q[2], n), spread(s[3], q[3], n))
            for (k = 1; k <= 4; k++) s[k] = q[k] = 0
            n = 0
        }
        BEGIN { name["direct"] = "(a) few descriptions"; name["pretrained"] = "(b) labels, then the same" }
        $1 != way { close_way(); way = $1 }
        {
            for (k = 1; k <= 4; k++) {
                x = 100 * $(k + 2)
                s[k] += x
                q[k] += x * x
            }
            n++
            has_meteor = NF > 5
            row($2, cell($3), cell($6), cell($4), cell($5))
        }
        END { close_way() }'
}
{ table && echo && parts_table; } >"$to/small.md.new" && mv "$to/small.md.new" "$to/small.md"
echo
cat "$to/small.md"
