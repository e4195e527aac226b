#!/bin/sh
# What ptxas says of each kernel: registers, shared memory, stack, spills; a table on standard output.
#
#   tools/kernel_report.sh [FILE.cu...] > docs/results/kernels.md      (default: all of cuda/)
#
# NVCC names another nvcc; ARCHS other GPUs (default "80 90a"). A spill makes the exit status 1: the build refuses
# spills too, this table shows how much room is left.
set -eu
cd "$(dirname "$0")/.."
nvcc=${NVCC:-nvcc}
command -v "$nvcc" >/dev/null || {
    echo "tools/kernel_report.sh: no $nvcc on the PATH; nothing was compiled" >&2
    exit 2
}
[ $# -gt 0 ] || set -- cuda/*.cu
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
echo "# Kernels, as ptxas sees them"
echo
echo "\`tools/kernel_report.sh\` with $("$nvcc" --version | grep -o 'release.*')."
echo
echo "| kernel | file | GPU | registers | shared memory, bytes | stack, bytes | spilled, bytes |"
echo "|---|---|---|---:|---:|---:|---:|"
for arch in ${ARCHS:-80 90a}; do
    for file in "$@"; do
        "$nvcc" -std=c++17 -O3 -arch="sm_$arch" -D_GNU_SOURCE -I. -Isrc -Iinclude -diag-suppress=177,550 -Xptxas=-v \
            -cubin -o "$scratch/out.cubin" "$file" 2>"$scratch/log" || {
            cat "$scratch/log" >&2
            exit 1
        }
        c++filt <"$scratch/log" | awk -v file="${file#cuda/}" -v arch="sm_$arch" '
            /Compiling entry function/ {
                name = $0
                sub(/.*entry function .(void )?/, "", name); sub(/. for .sm_.*/, "", name); sub(/\(.*\)$/, "", name)
                gsub(/\|/, "\\|", name)
            }
            /bytes stack frame/ { stack = $1; spills = $5 + $9 }
            /Used [0-9]+ registers/ {
                shared = 0
                for (i = 1; i <= NF; i++) {
                    if ($i == "registers,") registers = $(i - 1)
                    if ($i == "smem," || $i == "smem") shared = $(i - 2)
                }
                if ($0 ~ /Used [0-9]+ registers$/) registers = $(NF - 1)
                printf "| `%s` | %s | %s | %s | %s | %s | %s |\n", name, file, arch, registers, shared, stack, spills
            }'
    done
done | sort >"$scratch/rows"
cat "$scratch/rows"
if awk -F'|' '$8 + 0 > 0 { bad = 1; print "spills:" $2 > "/dev/stderr" } END { exit !bad }' "$scratch/rows"; then
    exit 1
fi
