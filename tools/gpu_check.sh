#!/bin/sh
# One call that says whether the GPU's kernels are right on this GPU, and how fast they are. At most ten minutes, no
# network; the build is carried along or made before (tools/build.sh all).
#
#   tools/gpu_check.sh                 device cuda, the build in build/, results in build/gpu_check/
#   tools/gpu_check.sh --device simt   the same steps without a GPU: a rehearsal
#   tools/gpu_check.sh --build DIR --out DIR --quick
#
# Steps: what the machine is; op cases against the reference, by our kernels and by cuBLASLt and cuDNN; each tile of the
# product; golden models; compute-sanitizer
# on small cases; times of the real sizes, in two rounds each followed by PyTorch's (SCA_PYTHON names a Python that has it,
# default python3), with the ceilings of this machine. Each step writes a log; summary.txt has a line per step and
# summary.json the same for programs, gpu.txt and gpu.json the times, power.csv clocks and power meanwhile. A step that
# fails does not stop the later ones; the exit status is 1 when any failed.
set -u
cd "$(dirname "$0")/.." || exit 2

device=cuda build=build out= quick=
while [ $# -gt 0 ]; do
    case $1 in
    --device) device=${2:-} && shift ;;
    --build) build=$2 && shift ;;
    --out) out=$2 && shift ;;
    --quick) quick=1 ;;
    --help | -h)
        sed -n '2,/^set -u/s/^# \{0,1\}//p' "$0" | sed '$d'
        exit 0
        ;;
    *)
        echo "tools/gpu_check.sh: unknown argument '$1'; see --help" >&2
        exit 2
        ;;
    esac
    shift
done
case $device in
cuda | simt) ;;
*)
    echo "tools/gpu_check.sh: --device $device, expected cuda or simt" >&2
    exit 2
    ;;
esac
for program in test_ops test_cli_golden sca; do
    if [ ! -x "$build/$program" ]; then
        echo "tools/gpu_check.sh: $build/$program is missing; run tools/build.sh all first" >&2
        exit 2
    fi
done
out=${out:-$build/gpu_check}
mkdir -p "$out"
rm -f "$out"/*.log "$out"/*.csv "$out"/*.json "$out"/summary.* "$out"/gpu.txt
begin=$(date +%s)
whole=570 # seconds for all steps; a rehearsal may run on a busy machine
[ "$device" = cuda ] || whole=2900
failed=0
rows=

# limit SECONDS: that, or what is left of the whole.
limit() {
    left=$((whole - $(date +%s) + begin))
    [ $left -gt 1 ] || left=1
    if [ "$1" -lt $left ]; then echo "$1"; else echo $left; fi
}

# step NAME SECONDS COMMAND...: runs it with a limit, keeps what it says, notes how it ended.
step() {
    name=$1 limit=$(limit "$2")
    shift 2
    start=$(date +%s)
    timeout "$limit" "$@" >"$out/$name.log" 2>&1
    status=$?
    took=$(($(date +%s) - start))
    case $status in
    0) result=passed ;;
    77) result=skipped ;;
    124) result="ran past $limit s" ;;
    *) result="failed with status $status" ;;
    esac
    [ $status -eq 0 ] || [ $status -eq 77 ] || failed=1
    note "$name" "$result" "$took" "$(tail -n 1 "$out/$name.log" | tr -d '\\"' | cut -c1-110)"
}

# note NAME RESULT SECONDS TEXT
note() {
    printf '%-22s %-22s %4s s  %s\n' "$1" "$2" "$3" "$4" | tee -a "$out/summary.txt"
    rows="$rows${rows:+, }{\"step\": \"$1\", \"result\": \"$2\", \"seconds\": $3, \"last\": \"$(printf %s "$4" | tr -d '[:cntrl:]')\"}"
}

# ---- the machine ------------------------------------------------------------------------------------------------
machine() {
    uname -sm
    "$build/sca" info
    [ "$device" = cuda ] || return 0
    command -v nvidia-smi || return 0
    nvidia-smi --query-gpu=name,driver_version,memory.total,clocks.sm,clocks.max.sm,power.draw,temperature.gpu \
        --format=csv
}
step_machine() { machine >"$out/machine.log" 2>&1 || true; }
step_machine
note machine passed 0 "$(tail -n 1 "$out/machine.log" | tr -d '\\"')"

# ---- right? --------------------------------------------------------------------------------------------------------
export SCA_TEST_REQUIRE="$device"
words=
[ -z "$quick" ] || words="layernorm_fwd add_fwd"
if [ -n "$quick" ]; then
    # shellcheck disable=SC2086 # words
    step ops 600 "$build/test_ops" $words
else
    step ops 140 "$build/test_ops" "$device" "$device-bf16" "$device-f16"
    step vendors 60 "$build/test_ops" "$device-vendor" "$device-vendor-bf16" "$device-vendor-f16"
    tiles=test_gemm_cuda
    [ "$device" = cuda ] || tiles=test_gemm
    [ ! -x "$build/$tiles" ] || step tiles 60 "$build/$tiles"
fi
SCA_TEST_DEVICE=$device
export SCA_TEST_DEVICE
if [ -d ../shared/golden ]; then
    photos=photos # a word: every case with photos
    [ "$device" = cuda ] || photos=photos_on_simt
    [ -z "$quick" ] || photos=gpu_failures_say_why # what the script does with the program's answer is what counts
    golden_limit=100
    [ "$device" = cuda ] || golden_limit=1200
    step golden $golden_limit "$build/test_cli_golden" $photos
else
    note golden skipped 0 "shared: ../shared/golden is absent"
fi

# ---- clean? ---------------------------------------------------------------------------------------------------------
if [ "$device" = cuda ] && command -v compute-sanitizer >/dev/null; then
    for tool in memcheck racecheck synccheck initcheck; do
        step "$tool" 30 compute-sanitizer --tool "$tool" --error-exitcode 9 "$build/test_ops" 17x129
    done
else
    note sanitizer skipped 0 "compute-sanitizer: not for device $device, or not installed"
fi

# ---- fast? -----------------------------------------------------------------------------------------------------------
python=${SCA_PYTHON:-python3} peer_device=cuda quick_flag= peers=
[ "$device" = cuda ] || peer_device=cpu
[ -z "$quick" ] || quick_flag=--quick
perf() { # perf FILE: machines that are not here give no rows; a rehearsal has none
    if [ -n "$quick" ] || [ "$device" != cuda ]; then
        "$build/test_ops" perf none
    else
        "$build/test_ops" perf cuda-bf16 cuda-f16 cuda-vendor-bf16
    fi | grep -E '^(device|cpu|cuda|simt)[a-z0-9-]*,' >"$1"
}
sampler=
if [ "$device" = cuda ] && command -v nvidia-smi >/dev/null; then
    nvidia-smi --query-gpu=timestamp,clocks.sm,clocks.mem,power.draw,temperature.gpu,clocks_event_reasons.active \
        --format=csv -lms 500 >"$out/power.csv" 2>&1 &
    sampler=$!
fi
for round in 1 2; do
    start=$(date +%s)
    if perf "$out/perf$round.csv" 2>"$out/perf$round.log"; then
        note "perf$round" passed $(($(date +%s) - start)) "$(($(wc -l <"$out/perf$round.csv") - 1)) rows in perf$round.csv"
    else
        failed=1
        note "perf$round" failed $(($(date +%s) - start)) "$(tail -n 1 "$out/perf$round.log" | tr -d '\\"')"
    fi
    command -v "$python" >/dev/null || {
        note "peers$round" skipped 0 "no $python; SCA_PYTHON names a Python that has torch"
        continue
    }
    # shellcheck disable=SC2086 # a flag or nothing
    step "peers$round" 90 "$python" tools/gpu_peers.py measure --device $peer_device --seconds 70 \
        --out "$out/peers$round.json" $quick_flag
    [ ! -s "$out/peers$round.json" ] || peers="$peers${peers:+,}$out/peers$round.json"
done
[ -z "$sampler" ] || kill "$sampler"
if command -v "$python" >/dev/null; then
    step table 20 "$python" tools/gpu_peers.py table --ours "$out/perf1.csv,$out/perf2.csv" --peers "$peers" \
        --json "$out/gpu.json"
    cp "$out/table.log" "$out/gpu.txt"
    [ -n "$quick" ] || cat "$out/gpu.txt"
fi

took=$(($(date +%s) - begin))
printf '{"device": "%s", "seconds": %d, "failed": %s, "steps": [%s]}\n' "$device" "$took" \
    "$([ $failed -eq 0 ] && echo false || echo true)" "$rows" >"$out/summary.json"
echo "all steps: $took s; results in $out"
exit $failed
