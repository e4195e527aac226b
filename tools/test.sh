#!/bin/sh
# Builds everything and runs all tests.
#
#   tools/test.sh            the release build, in build/
#   tools/test.sh --asan     the same tests under AddressSanitizer and UBSan, in build-asan/
#   tools/test.sh --debug    the same tests with assertions, in build-debug/
#   tools/test.sh --long     also the long mode: every fuzz target for SECONDS (default 60), models of real size
#   tools/test.sh -R NAME    further arguments go to ctest
#
# Golden vectors and photos are looked for in ../shared; where that folder exists, tests that need it must run.
set -eu
cd "$(dirname "$0")/.."

export SCA_BUILD_TESTS=1
long=
while [ $# -gt 0 ]; do
    case $1 in
    # nvcc takes minutes, and its kernels are the same in every build: the release build has them.
    --asan) export SCA_BUILD_TYPE=Asan SCA_BUILD_DIR=build-asan SCA_CMAKE_ARGS="-DSCA_CUDA=OFF ${SCA_CMAKE_ARGS:-}" ;;
    --debug) export SCA_BUILD_TYPE=Debug SCA_BUILD_DIR=build-debug SCA_CMAKE_ARGS="-DSCA_CUDA=OFF ${SCA_CMAKE_ARGS:-}" ;;
    --long) long=1 ;;
    --help | -h)
        sed -n '2,/^$/s/^# \{0,1\}//p' "$0"
        exit 0
        ;;
    *) break ;;
    esac
    shift
done
# The demo may have left the kernels out of the release build: they are in where they can be, unless SCA_CMAKE_ARGS says no.
[ -n "${SCA_BUILD_TYPE:-}" ] || export SCA_CMAKE_ARGS="-USCA_CUDA -USCA_SIMT ${SCA_CMAKE_ARGS:-}"
dir=${SCA_BUILD_DIR:-build}

if [ -d ../shared/golden ]; then
    export SCA_TEST_REQUIRE="${SCA_TEST_REQUIRE:+$SCA_TEST_REQUIRE,}shared"
else
    echo "../shared is absent: tests that need it are skipped"
fi
tools/build.sh all
if grep -q '^SCA_CUDA:BOOL=OFF' "$dir/CMakeCache.txt"; then
    command -v nvcc >/dev/null && why="turned off for this build" || why="no nvcc was found"
    echo "CUDA SOURCES NOT COMPILED by nvcc ($why): device cuda is absent, its kernels run on device simt alone"
fi
# A leak or undefined behaviour must end the test that has it. One test per two cores: most tests use threads.
export ASAN_OPTIONS="detect_leaks=1:abort_on_error=0:allocator_may_return_null=1"
export UBSAN_OPTIONS="print_stacktrace=1:halt_on_error=1"
ctest --test-dir "$dir" --output-on-failure --no-tests=error -j "$(nproc)" "$@"

[ -n "$long" ] || exit 0

# ---- long mode ---------------------------------------------------------------------------------------------
seconds=${SECONDS_PER_TARGET:-60}
echo "fuzzing every target for $seconds s"
SCA_BUILD_TYPE=Asan SCA_BUILD_DIR=build-fuzz \
    SCA_CMAKE_ARGS="-DSCA_CUDA=OFF -DSCA_SIMT=OFF -DSCA_FUZZ=ON -DCMAKE_C_COMPILER=clang -DCMAKE_CXX_COMPILER=clang++" tools/build.sh all
found=build-fuzz/found
mkdir -p $found
for source in tests/fuzz_*.c; do
    [ -e "$source" ] || continue
    name=$(basename "$source" .c)
    seeds=tests/corpus/${name#fuzz_}
    mkdir -p "$found/$name"
    [ -d "$seeds" ] || seeds=
    # shellcheck disable=SC2086 # $seeds is one folder or nothing
    "build-fuzz/$name" -max_total_time="$seconds" -timeout=20 -rss_limit_mb=3000 -artifact_prefix="$found/$name-" \
        "$found/$name" $seeds >"$found/$name.log" 2>&1 || {
        tail -n 40 "$found/$name.log" >&2
        echo "$name found a failing input; it is in $found" >&2
        exit 1
    }
    echo "$name: no failure; $(tail -n 1 "$found/$name.log")"
done

echo "models of real size"
tools/bench.sh --real-size
