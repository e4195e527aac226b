#!/bin/sh
# Measures `sca score` on real captions - one of each of COCO's 40,504 validation images of 2014 against its others -
# beside the reference programs, in one run with the two taking turns: time, memory, METEOR's data. Fails when a goal is
# missed (20 times as fast, less than 1 GB, data in less than 0.5 s) or a score is not equal, those of 150 odd captions
# (empty, a thousand words, all scripts) included.
#
#   tools/bench_score.sh [--rounds N]    default 2; a round takes the reference one to two minutes
#
# Needs the Python package pycocoevalcap (tests/requirements.txt), which holds the captions and the reference programs;
# these need Java, too: without it there are our times alone. SCA_PYTHON: the Python that has it; default python3.
set -eu
cd "$(dirname "$0")/.."

build=${SCA_BUILD_DIR:-build}
python=${SCA_PYTHON:-python3}
case ${1:-} in -h | --help)
    sed -n '2,/^set /s/^# \{0,1\}//p' "$0"
    exit 0
    ;;
esac
"$python" -c 'import pycocoevalcap' 2>/dev/null || {
    echo "bench_score.sh: $python has no pycocoevalcap; tests/requirements.txt says what to install" >&2
    exit 1
}
tools/build.sh sca
[ -f "$build/resources/meteor-en.data" ] || SCA="$build/sca" tools/meteor_data.sh "$build/resources"
exec "$python" tests/peer_score.py --sca "$build/sca" --work "$build/bench-score" "$@"
