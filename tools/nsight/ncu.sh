#!/usr/bin/env bash
# tools/nsight/ncu.sh KERNEL MODEL [FLAGS OF cpvt bench]   one kernel's launches of the first forward pass, with all
#                                                          that Nsight Compute measures, down to source lines
#   tools/nsight/ncu.sh attention weights/demo/cpvt-gap --dtype fp16 --batch 64
#   tools/nsight/ncu.sh '.*' weights/demo/cpvt-gap --dtype fp16            every kernel
# KERNEL is a regular expression of the function's name. LAUNCHES (default 8) limits how many are taken; each is run
# again for every group of counters. Leaves cpvt.ncu-rep (OUT=NAME for another name), which ncu-ui opens, and prints the
# details. Clocks are left as they are. tools/gpu/compare_counters.py puts such counters beside ptxsim's.
set -euo pipefail
(($# >= 2)) || { sed -nE '2,8s/^# ?//p' "$0"; exit 2; }
root=$(cd "$(dirname "$0")/../.." && pwd)
cpvt=${CPVT:-$root/build/release/bin/cpvt}
out=${OUT:-cpvt}
command -v ncu >/dev/null || { echo "ncu.sh: ncu is not there: it comes with Nsight Compute" >&2; exit 2; }
# The first pass, which launches kernel by kernel: later ones would be nodes of a CUDA graph.
ncu --set full --import-source yes --source-folders "$root" --nvtx --clock-control none --force-overwrite \
  --export "$out" --kernel-name "regex:$1" --launch-count "${LAUNCHES:-8}" \
  "$cpvt" bench "$2" --device cuda --repetitions 1 "${@:3}"
ncu --import "$out.ncu-rep" --page details
