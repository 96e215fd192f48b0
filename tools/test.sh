#!/usr/bin/env bash
# tools/test.sh [PRESET]   installs what is missing, builds everything and runs every test.
set -euo pipefail
cd "$(dirname "$0")/.."
preset=${1:-release}
tools/build.sh "$preset" all
ctest --preset "$preset" -j "$(nproc)"
