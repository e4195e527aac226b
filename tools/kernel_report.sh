#!/bin/sh
# What ptxas says of the kernels: registers, shared memory, stack, spills. On standard output a table of all, a line for each
# template, and one of the instances that matter in bf16; --all: each instance of each, in every type.
#
#   tools/kernel_report.sh [--sass] [--all] [FILE.cu...] > docs/results/kernels.md      (default: all of cuda/)
#
# --sass adds what the machine code of the kernels that matter holds; it needs cuobjdump and nvdisasm on the
# PATH (the CUDA toolkit's, or those that the Python package triton carries in triton/backends/nvidia/bin).
# NVCC names another nvcc; ARCHS other GPUs (default "80 90a"). The exit status is 1 when a kernel spills, when ptxas runs
# the products of wgmma one after the other or ignores setmaxnreg (messages C75xx), and, with --sass, when a kernel that
# matters touches local memory or a kernel of the tensor cores has no such instruction.
set -eu
cd "$(dirname "$0")/.."
nvcc=${NVCC:-nvcc} sass= all=
command -v "$nvcc" >/dev/null || {
    echo "tools/kernel_report.sh: no $nvcc on the PATH; nothing was compiled" >&2
    exit 2
}
[ "${1:-}" != --sass ] || { sass=1 && shift; }
[ "${1:-}" != --all ] || { all=1 && shift; }
if [ -n "$sass" ] && ! { command -v cuobjdump && command -v nvdisasm; } >/dev/null; then
    echo "tools/kernel_report.sh: --sass needs cuobjdump and nvdisasm on the PATH" >&2
    exit 2
fi
[ $# -gt 0 ] || set -- cuda/*.cu
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
echo "# Kernels, as ptxas sees them"
echo
echo "\`tools/kernel_report.sh${sass:+ --sass}${all:+ --all}\` with $("$nvcc" --version | grep -o 'release.*')."
echo

# Names without return type and parameters; | stands between cells.
names='function tidy(s) {
    sub(/^void /, "", s); sub(/ for .sm_.*/, "", s); gsub(/\(bool\)1/, "true", s); gsub(/\(bool\)0/, "false", s)
    gsub(/\(int\)/, "", s); gsub(/\(attention_mode\)0/, "plain", s)
    gsub(/\(attention_mode\)1/, "row_block", s); gsub(/\(attention_mode\)2/, "pool", s); sub(/\([^()]*\)$/, "", s); gsub(/\|/, "\\|", s)
    return s
}'

# Of each kernel: all instructions, local memory, products of the tensor cores, those in the innermost loop that has most of
# them, loads of 16 bytes (to registers, or to shared memory), boxes of the copy engine, stores of 16 bytes.
count_sass() {
    cuobjdump --dump-sass "$1" | c++filt | awk -v file="$2" -v arch="sm_$3" "$names"'
        function flush_kernel(   i, k, most, width, best, n) {
            if (name == "") return
            best = -1
            for (i = 0; i < jumps; i++) { # the smallest loop that has products
                n = 0
                for (k = 0; k < mmas; k++) if (mma_at[k] >= to[i] && mma_at[k] <= from[i]) n++
                width = from[i] - to[i]
                if (n > 0 && (best < 0 || width < best)) { best = width; most = n }
            }
            printf "| `%s` | %s | %s | %d | %d | %d | %d | %d | %d | %d |\n", tidy(name), file, arch, count, spilled,
                   mmas, best < 0 ? 0 : most, wide, boxes, stores
        }
        function hex(s,   i, v) {
            v = 0; s = tolower(s)
            for (i = 3; i <= length(s); i++) v = 16 * v + index("0123456789abcdef", substr(s, i, 1)) - 1
            return v
        }
        /Function :/ {
            flush_kernel()
            name = $0; sub(/.*Function : /, "", name)
            count = spilled = mmas = wide = boxes = stores = jumps = 0
        }
        /^ +\/\*[0-9a-f]+\*\/ / {
            at = hex("0x" substr($1, 3, length($1) - 4)); count++
            if ($0 ~ / (LDL|STL)/) spilled++
            if ($0 ~ / (HMMA|HGMMA)\./) mma_at[mmas++] = at
            if ($0 ~ / LDG[^ ]*\.128/ || $0 ~ / LDGSTS[^ ]*\.128/) wide++
            if ($0 ~ / UTMALDG/) boxes++
            if ($0 ~ / STG[^ ]*\.128/) stores++
            if (match($0, / BRA[^;]* 0x[0-9a-f]+/)) {
                target = substr($0, RSTART, RLENGTH); sub(/.* /, "", target); target = hex(target)
                if (target < at) { from[jumps] = at; to[jumps++] = target }
            }
        }
        END { flush_kernel() }'
}

: >"$scratch/messages"
: >"$scratch/sass"
for arch in ${ARCHS:-80 90a}; do
    for file in "$@"; do
        "$nvcc" -std=c++17 -O3 -gencode="arch=compute_$arch,code=sm_$arch" -D_GNU_SOURCE -I. -Isrc -Iinclude \
            -diag-suppress=177,550 -Xptxas=-v -cubin -o "$scratch/out.cubin" "$file" 2>"$scratch/log" || {
            cat "$scratch/log" >&2
            exit 1
        }
        grep -E 'C75[0-9][0-9]' "$scratch/log" >>"$scratch/messages" || true
        c++filt <"$scratch/log" | awk -v file="${file#cuda/}" -v arch="sm_$arch" "$names"'
            /Compiling entry function/ {
                name = $0
                sub(/.*entry function ./, "", name); sub(/. for .sm_.*/, "", name)
                name = tidy(name)
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
            }' >>"$scratch/rows"
        [ -z "$sass" ] || count_sass "$scratch/out.cubin" "${file#cuda/}" "$arch" >>"$scratch/sass"
    done
done
sort -o "$scratch/rows" "$scratch/rows"
bad=0
if [ -n "$all" ]; then
    echo "| kernel | file | GPU | registers | shared memory, bytes | stack, bytes | spilled, bytes |"
    echo "|---|---|---|---:|---:|---:|---:|"
    cat "$scratch/rows"
else # a line for each template: its instances from the least to the most
    echo "| kernel | file | GPU | instances | registers | shared memory, bytes | stack, bytes | spilled, bytes |"
    echo "|---|---|---|---:|---:|---:|---:|---:|"
    awk -F'|' 'function range(low, high) { return low == high ? low : low " to " high }
        {
            name = $2; sub(/<.*/, "` ", name); key = name "|" $3 "|" $4
            if (!(key in n)) { order[++keys] = key; for (i = 5; i <= 8; i++) low[key, i] = high[key, i] = $i + 0 }
            n[key]++
            for (i = 5; i <= 8; i++) {
                if ($i + 0 < low[key, i]) low[key, i] = $i + 0
                if ($i + 0 > high[key, i]) high[key, i] = $i + 0
            }
        }
        END {
            for (k = 1; k <= keys; k++) {
                key = order[k]
                gsub(/ +[|]/, " |", key)
                printf "|%s| %d", key, n[order[k]]
                for (i = 5; i <= 8; i++) printf " | %s", range(low[order[k], i], high[order[k], i])
                print " |"
            }
        }' "$scratch/rows"
fi
matter='^\| `(gemm_(mma|wgmma|small|join)|attention_(mma|rows|join)|update_mma|norm_held)<'
[ -n "$all" ] || matter="${matter}bf16"
echo
echo "## Kernels that matter"
echo
if [ -n "$sass" ]; then
    echo "Products: instructions of the tensor cores (HMMA: 16x8x16 each; HGMMA: 64 rows by the tile's columns by 16), and"
    echo "those of them in the innermost loop. Boxes: UTMALDG, loads of the tensor copy engine."
    echo
    echo "| kernel | file | GPU | registers | shared memory, bytes | instructions | local memory | products | in the loop | 16-byte loads | boxes | 16-byte stores |"
    echo "|---|---|---|---:|---:|---:|---:|---:|---:|---:|---:|---:|"
else
    echo "| kernel | file | GPU | registers | shared memory, bytes |"
    echo "|---|---|---|---:|---:|"
fi
grep -E "$matter" "$scratch/rows" | grep -v 'gemm_wgmma.*| sm_80 |' | # it is empty there
    awk -F'|' -v sass="$scratch/sass" 'BEGIN { while ((getline line < sass) > 0) { split(line, f, "|"); code[f[2] f[3] f[4]] = line } }
        {
            printf "|%s|%s|%s|%s|%s|", $2, $3, $4, $5, $6
            if (($2 $3 $4) in code) { split(code[$2 $3 $4], f, "|"); printf "%s|%s|%s|%s|%s|%s|%s|", f[5], f[6], f[7], f[8], f[9], f[10], f[11] }
            print ""
        }'
if [ -n "$sass" ]; then
    grep -E '^\| `(gemm_(mma|wgmma|small)|attention_mma|pool|update|image_|norm|layernorm|rmsnorm)' "$scratch/sass" |
        grep -v 'gemm_wgmma.*| sm_80 |' >"$scratch/hot"
    awk -F'|' '$6 + 0 > 0 { bad = 1; print "local memory:" $2 > "/dev/stderr" }
               $2 ~ /_(mma|wgmma)</ && ($7 + 0 == 0 || $8 + 0 == 0) { bad = 1; print "no products:" $2 > "/dev/stderr" }
               END { exit bad }' "$scratch/hot" || bad=1
fi
awk -F'|' '$8 + 0 > 0 { bad = 1; print "spills:" $2 > "/dev/stderr" } END { exit bad }' "$scratch/rows" || bad=1
if [ -s "$scratch/messages" ]; then
    cat "$scratch/messages" >&2
    bad=1
fi
exit $bad
