#!/bin/sh
# Segments and captions regions of a picture: installs what is missing, builds, runs, and says where the result is.
#
#   tools/demo.sh                  the small model and the two pictures kept in docs/demo: a rendered scene, a real photo
#   tools/demo.sh MODEL [PHOTO]    another model directory, another photo
set -eu
cd "$(dirname "$0")/.."

model=${1:-docs/demo/small}
photo=${2:-docs/demo/photo.jpg}
build=${SCA_BUILD_DIR:-build}

# The CUDA kernels, for nvcc and for the CPU, take minutes and the demo runs none: a first build goes without them
# (tools/test.sh adds them).
[ -e "${SCA_BUILD_DIR:-build}/CMakeCache.txt" ] || export SCA_CMAKE_ARGS="-DSCA_CUDA=OFF -DSCA_SIMT=OFF ${SCA_CMAKE_ARGS:-}"
tools/build.sh

show() { # PICTURE PHOTO OPTION...
    picture=$1
    shift
    echo
    "$build/sca" caption "$@" --model "$model" --beams 3 --overlay "$picture"
    echo "The picture with masks, boxes and captions: $picture"
}

if [ "$model" = docs/demo/small ] && [ "$photo" = docs/demo/photo.jpg ]; then
    show "$build/demo-scene.png" docs/demo/scene.png --box 171,117,280,230 --box 209,219,287,296 \
        --box 78,43,148,107 --box 77,176,149,239
fi
# The rider and the motorcycle; of another photo the whole.
set -- "$photo"
if [ "$photo" = docs/demo/photo.jpg ]; then
    set -- "$photo" --box 148,145,300,552 --box 132,296,426,632
fi
show "$build/demo.png" "$@"
[ "$model" != docs/demo/small ] || cat <<'END'

This model of three megabytes was trained here, on rendered scenes of six shapes. It says their size, colour and shape well,
their pattern and where they lie less well, and guesses what they lie beside (docs/results/small.md). Of a photo it sees no more
than shapes. The official weights know photos: the same command says there what is to be seen. README.md says how to get them.
END
