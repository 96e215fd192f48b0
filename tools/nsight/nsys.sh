#!/usr/bin/env bash
# tools/nsight/nsys.sh MODEL [FLAGS OF cpvt bench]   a timeline of forward passes: what host and GPU do, and when.
#   tools/nsight/nsys.sh weights/demo/cpvt-gap --dtype fp16 --batch 64
# Leaves cpvt.nsys-rep in the current folder (OUT=NAME for another name), which nsys-ui opens, and prints the kernels
# and the NVTX ranges by the time that they take. The ranges: "forward BxHxW", and in it a node's name and rows. A
# size's first pass launches kernel by kernel, inside their ranges; later ones are launches of one CUDA graph: its nodes
# are shown but stand in no range, since none is passed through then.
set -euo pipefail
(($#)) || { sed -nE '2,7s/^# ?//p' "$0"; exit 2; }
cpvt=${CPVT:-$(dirname "$0")/../../build/release/bin/cpvt}
out=${OUT:-cpvt}
command -v nsys >/dev/null || { echo "nsys.sh: nsys is not there: it comes with Nsight Systems" >&2; exit 2; }
nsys profile --trace=cuda,nvtx,osrt --cuda-graph-trace=node --sample=none --cpuctxsw=none --force-overwrite=true \
  --output="$out" "$cpvt" bench "$1" --device cuda --repetitions 50 "${@:2}"
nsys stats --force-export=true --format=table \
  --report=cuda_gpu_kern_sum,cuda_gpu_mem_time_sum,cuda_api_sum,nvtx_pushpop_sum "$out.nsys-rep"
