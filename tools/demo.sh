#!/bin/sh
# Segments and captions regions of a real photo: installs what is missing, builds, runs, and says where the picture is.
#
#   tools/demo.sh                  the small model and the photo kept in docs/demo
#   tools/demo.sh MODEL [PHOTO]    another model directory, another photo
set -eu
cd "$(dirname "$0")/.."

model=${1:-docs/demo/model}
photo=${2:-docs/demo/photo.jpg}
picture=${SCA_BUILD_DIR:-build}/demo.png

# The CUDA kernels, for nvcc and for the CPU, take minutes and the demo runs none: a first build goes without them
# (tools/test.sh adds them).
[ -e "${SCA_BUILD_DIR:-build}/CMakeCache.txt" ] || export SCA_CMAKE_ARGS="-DSCA_CUDA=OFF -DSCA_SIMT=OFF ${SCA_CMAKE_ARGS:-}"
tools/build.sh

# The rider and the motorcycle; of another photo the whole.
set --
if [ "$photo" = docs/demo/photo.jpg ]; then
    set -- --box 148,145,300,552 --box 132,296,426,632
fi
echo
"${SCA_BUILD_DIR:-build}/sca" caption "$photo" --model "$model" --beams 3 "$@" --overlay "$picture"
echo
echo "The picture with masks, boxes and captions: $picture"
[ "$model" != docs/demo/model ] || cat <<'END'
This model is tiny and hardly trained: it shows the path, not the quality. README.md says how to use official weights.
END
