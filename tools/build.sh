#!/usr/bin/env bash
# tools/build.sh [PRESET [TARGET...]]   installs what is missing and builds; default: release, the cpvt program.
set -euo pipefail
cd "$(dirname "$0")/.."
tools/packages.sh
preset=${1:-release}
shift || true
targets=("$@")
((${#targets[@]})) || targets=(cpvt)
cmake --preset "$preset" >/dev/null
cmake --build --preset "$preset" --target "${targets[@]}"
