#!/bin/sh
# Installs what is missing with apt-get (when allowed to) and makes the release build in build/.
#
#   tools/build.sh              the program build/sca and the library
#   tools/build.sh TARGET...    these targets, for example: tools/build.sh all
#
# SCA_BUILD_DIR, SCA_BUILD_TYPE: another folder, another build type (Debug, Asan). SCA_BUILD_TESTS=1: the packages
# that only the tests and checks need, too; SCA_BUILD_BROWSER=1: and Chromium, which the tests of reports look through.
# SCA_CMAKE_ARGS: more arguments for cmake.
set -eu
cd "$(dirname "$0")/.."

build_dir=${SCA_BUILD_DIR:-build}
build_type=${SCA_BUILD_TYPE:-Release}

packages="gcc g++ cmake ninja-build pkg-config libyaml-dev libjansson-dev zlib1g-dev libpcre2-dev
libturbojpeg0-dev libjpeg62-turbo-dev libpng-dev libexif-dev libsentencepiece-dev libutf8proc-dev libzstd-dev
libstemmer-dev libcairo2-dev fonts-dejavu-core"
[ -z "${SCA_BUILD_TESTS:-}" ] || packages="$packages clang libclang-rt-14-dev clang-format clang-tidy git libopenmpi-dev openmpi-bin libhdf5-dev"
[ -z "${SCA_BUILD_BROWSER:-}" ] || packages="$packages chromium"

missing=
if command -v dpkg-query >/dev/null; then
    for package in $packages; do
        case $(dpkg-query -W -f '${Status}' "$package" 2>/dev/null) in
        *" installed") ;;
        *) missing="$missing $package" ;;
        esac
    done
fi
if [ -n "$missing" ]; then
    root=
    if [ "$(id -u)" -ne 0 ]; then
        if command -v sudo >/dev/null && sudo -n true 2>/dev/null; then
            root=sudo
        else
            echo "tools/build.sh: these packages are missing; install them and try again:" >&2
            echo "  sudo apt-get install$missing" >&2
            exit 1
        fi
    fi
    echo "installing$missing"
    $root apt-get update -qq
    # shellcheck disable=SC2086 # a list of words
    $root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing
fi

echo "building ($build_type) in $build_dir"
mkdir -p "$build_dir"
# shellcheck disable=SC2086 # SCA_CMAKE_ARGS is a list of words
cmake -S . -B "$build_dir" -G Ninja -DCMAKE_BUILD_TYPE="$build_type" ${SCA_CMAKE_ARGS:-} >"$build_dir/cmake.log" 2>&1 || {
    cat "$build_dir/cmake.log" >&2
    exit 1
}
if [ $# -eq 0 ]; then
    set -- sca sca_shared
fi
ninja -C "$build_dir" "$@"
