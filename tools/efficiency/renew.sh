#!/usr/bin/env bash
# tools/efficiency/renew.sh [PRESET]   builds, counts all CUDA kernels on the simulator, and writes what was found:
# tests/kernels/cuda/budgets.txt, docs/cuda-kernels.md and its picture. Look at the difference before you commit it.
set -euo pipefail
cd "$(dirname "$0")/../.."
preset=${1:-release}
tools/build.sh "$preset" cuda_efficiency cpvt_cuda ptxsim
"build/$preset/bin/cuda_efficiency" renew tests/kernels/cuda/budgets.txt docs
