#!/bin/sh
# spills.sh NVCC FLAG... - whether these options of the build refuse a kernel that spills, and take the same kernel when it has
# the registers it needs.
source=$(dirname "$0")/spills.cu
said=$("$@" -cubin -arch=sm_80 -maxrregcount=24 -o /dev/null "$source" 2>&1) && {
    echo "a kernel that spills was compiled"
    exit 1
}
case $said in
*spill*) ;;
*)
    echo "refused, but for another reason: $said"
    exit 1
    ;;
esac
"$@" -cubin -arch=sm_80 -o /dev/null "$source"
