#!/bin/sh
# Measures the parts on random weights of real size, in a release build: one table, and JSON in build/bench.json.
#
#   tools/bench.sh [--only WORD] [--threads N] [--trace time]   a table; PyTorch's times beside ours where it is installed
#   tools/bench.sh --train [--only WORD] [--photos FOLDER]
#                                                training: a step, the mixer, photos, the sum over ranks, the store; with
#                                                PyTorch, Pillow and torchvision beside ours. The whole takes many
#                                                minutes; WORD, part of a row's name, ranks or store, picks a piece
#   tools/bench.sh --real-size                   ViT-B, L and H with GPT-2 large and a 3B model: that they run, and how
#                                                much memory they take (fails above weights + 1.5 GiB)
#
# SCA_PYTHON: the Python that has torch and transformers (tests/requirements.txt); default python3.
set -eu
cd "$(dirname "$0")/.."

build=${SCA_BUILD_DIR:-build}
tools/build.sh sca_bench sca_bench_train

if [ "${1:-}" = --real-size ]; then
    "$build/sca_bench" --real vit_b gpt2-large f32
    "$build/sca_bench" --real vit_l gpt2-large f32
    "$build/sca_bench" --real vit_h gpt2-large f32
    "$build/sca_bench" --real vit_h open_llama_3b bf16
    exit 0
fi

python=${SCA_PYTHON:-python3}
if [ "${1:-}" = --train ]; then
    shift
    only= photos= was=
    for word in "$@"; do
        [ "$was" = --only ] && only=$word
        [ "$was" = --photos ] && photos=$word
        was=$word
    done
    piece() { case "$1" in *"$only"*) true ;; *) false ;; esac }
    if "$python" -c 'import PIL' 2>/dev/null || "$python" -c 'import torch' 2>/dev/null; then
        set -- --peer "$python tests/peer_train.py $photos" "$@"
    fi
    "$build/sca_bench_train" --json "$build/bench_train.json" "$@"
    if piece ranks && command -v mpirun >/dev/null; then
        mpirun --allow-run-as-root -n 2 "$build/sca_bench_train" --reduce
    fi
    if piece store; then
        folder=$(mktemp -d "$build/store.XXXXXX")
        trap 'rm -rf "$folder"' EXIT
        "$build/sca_bench_train" --store "$folder"
    fi
    exit 0
fi
if "$python" -c 'import torch, transformers' 2>/dev/null; then
    "$python" -c 'import torch; print("PyTorch", torch.__version__)'
    exec "$build/sca_bench" --json "$build/bench.json" --peer "$python tests/peer_bench.py" "$@"
fi
echo "PyTorch is not installed for $python: our times alone (tests/requirements.txt says what to install)"
exec "$build/sca_bench" --json "$build/bench.json" "$@"
