#!/usr/bin/env bash
# exported_symbols.sh OURS CUDAS   compares the symbols, with their versions, that the simulator's libcudart.so.13 and CUDA's
# export: a program that links with the one must start with the other.
set -uo pipefail
symbols() { nm -D --defined-only --with-symbol-versions "$1" | awk '{print $NF}' | sort; }
soname() { readelf -d "$1" | sed -n 's/.*SONAME.*\[\(.*\)\]/\1/p'; }
[[ $(symbols "$2" | wc -l) -gt 400 ]] || { echo "no CUDA runtime: $2" >&2; exit 1; }
diff <(symbols "$1") <(symbols "$2") || { echo "the exported symbols differ (< ours, > CUDA's)" >&2; exit 1; }
[[ $(soname "$1") == $(soname "$2") ]] || { echo "the sonames differ: $(soname "$1"), $(soname "$2")" >&2; exit 1; }
