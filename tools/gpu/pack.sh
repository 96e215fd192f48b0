#!/usr/bin/env bash
# tools/gpu/pack.sh [OUT.tar.xz] [BUILD]   a built tree as one file, for a machine that has a GPU but neither network
#                                          nor the packages of the build; tools/gpu/prove.sh finds it there by itself.
# tools/gpu/pack.sh --stamp                what the sources in it are told by
# Defaults: build/gpu.tar.xz, build/release. The other machine needs x86-64, a C library as new as this one's, and
# PyTorch for the comparison.
set -euo pipefail
cd "$(dirname "$0")/../.."

stamp() {
  find base engine kernels weights tools/cpvt tools/bench tests/kernels tests/engine \
    \( -name '*.cc' -o -name '*.cu' -o -name '*.h' -o -name '*.cuh' \) -print0 | LC_ALL=C sort -z | xargs -0 cat |
    sha256sum | cut -c1-16
}
if [[ ${1:-} == --stamp ]]; then
  stamp
  exit
fi
out=${1:-build/gpu.tar.xz}
build=${2:-build/release}

tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
mkdir -p "$tree/bin" "$tree/lib/host"
for program in cpvt ptxsim bench_gpu_kernels test_kernels_cuda test_engine_cuda; do
  if [[ -x $build/bin/$program ]]; then
    cp "$build/bin/$program" "$tree/bin/"
  else
    echo "pack.sh: $build/bin/$program is not built and will be missing" >&2
  fi
done
cp "$build/lib/libcpvt_cuda.so" "$tree/lib/"
cp -R "$build/lib/ptxsim" "$tree/lib/"
# What they are linked with, but for the C and C++ libraries, which every machine has.
for file in "$tree"/bin/* "$tree/lib/libcpvt_cuda.so"; do
  ldd "$file" | awk '$3 ~ "^/" {print $3}'
done | sort -u | grep -vE '/(libc|libm|libdl|librt|libpthread|libstdc\+\+|libgcc_s|ld-linux[^/]*)\.so' |
  xargs -I{} cp -L {} "$tree/lib/host/"
strip --strip-unneeded "$tree"/bin/* "$tree"/lib/host/* "$tree/lib/libcpvt_cuda.so" 2>/dev/null || true
stamp >"$tree/stamp"
pwd >"$tree/source"  # tests have the path of their data built in

# Two of the files hold the same kernels: a window that is larger than both finds that.
mkdir -p "$(dirname "$out")"
tar -C "$tree" -c . | xz -T1 --lzma2=preset=1,dict=96MiB >"$out.part"
mv "$out.part" "$out"
ls -l "$out"
