#!/bin/sh
# Obtains METEOR's word lists, synonyms and paraphrases and makes the data file that scores need.
#
#   tools/meteor_data.sh [--from WHEEL] [DIR]
#
# DIR (default: build/resources, beside the program) receives meteor-en.data (48 MB). The files come from the Python
# package pycocoevalcap 1.2 (104 MB, fetched with pip; --from names a wheel that is already here). Every file is
# checked against its known SHA-256 sum. They are not part of this project: METEOR and its paraphrases are LGPL 2.1,
# the synonyms WordNet 3.0. Needs unzip; Python only for the download. SCA names another program than build/sca.
set -eu
. "$(dirname "$0")/wheel.sh"
sca=${SCA:-$root/build/sca}
[ -x "$sca" ] || fail "$sca is absent; run tools/build.sh first"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM

get_wheel pycocoevalcap 1.2

unzip -q -j "$wheel" pycocoevalcap/meteor/data/paraphrase-en.gz pycocoevalcap/meteor/meteor-1.5.jar -d "$work" ||
    fail "$wheel does not hold METEOR 1.5"
unzip -q -j "$work/meteor-1.5.jar" function/english.words synonym/english.synsets synonym/english.exceptions \
    nonbreaking/english.prefixes -d "$work" || fail "$wheel: its METEOR archive is damaged"
(cd "$work" && sha256sum --check --quiet -) <<'SUMS' || fail "$wheel: not the files that scores are defined on"
1e57b4c72c0830ebe68558f1c799a624e96cbc1b6045c9f6330e26dcff6eafc2  meteor-1.5.jar
c147ac7d2c91f2fbb3ad31e4b352235061eb83145e0434daf217ee9ca5975f48  paraphrase-en.gz
2ae0d5b8c29e2993a0f442b065b946d1a17fbfe8538e66bf5931c4a248cf4c3a  english.words
20b7cf6ae1cba2395d714d8c2ec2992e88c6d1c75c7c30aa480c6a2a9bb8fef9  english.synsets
5feb8fcb5b349d035df1a448149c2ccc860bf32e4b9eea8c8e4f113e90a5a962  english.exceptions
bd909f364224748976f9b8b7cdeb4f9be3bf7c8e66a10f1ed268b12d904ab876  english.prefixes
SUMS

mkdir -p "$out"
"$sca" prepare meteor --annotations "$work" --to "$out/meteor-en.data"
echo "$out/meteor-en.data is ready"
