#!/usr/bin/env bash
# tools/lint.sh   clang-format over every C++ file and kernel, clang-tidy over every C++ file; prints what is wrong and fails.
set -euo pipefail
cd "$(dirname "$0")/.."
for tool in clang-format clang-tidy; do
  command -v $tool >/dev/null || { echo "lint: $tool is missing; as root: apt-get install clang-format clang-tidy" >&2; exit 2; }
done
mapfile -t files < <(git ls-files '*.h' '*.cc' 'kernels/*.cu' 'kernels/*.cuh')
clang-format --dry-run --Werror "${files[@]}"
tools/packages.sh
cmake --preset release >/dev/null
mapfile -t units < <(git ls-files '*.cc')
printf '%s\0' "${units[@]}" | xargs -0 -n 1 -P "$(nproc)" clang-tidy --quiet -p build/release
