#!/usr/bin/env bash
# Installs the Debian packages that the build needs; does nothing, and needs no root, where all are there.
set -euo pipefail
# oneDNN's CMake files ask for OpenCL's, though nothing here uses a GPU through it.
packages=(cmake ninja-build g++ pkg-config libdnnl-dev ocl-icd-opencl-dev libhwy-dev nlohmann-json3-dev libcli11-dev
          libfmt-dev libzstd-dev libjpeg-dev libspng-dev libwebp-dev libgtest-dev libgmock-dev libbenchmark-dev)
missing=()
for package in "${packages[@]}"; do
  [[ $(dpkg-query -W -f='${db:Status-Status}' "$package" 2>/dev/null) == installed ]] || missing+=("$package")
done
((${#missing[@]})) || exit 0
echo "installing: ${missing[*]}" >&2
as_root=()
if ((EUID != 0)); then
  command -v sudo >/dev/null || { echo "cpvt: not root and no sudo; as root: apt-get install ${missing[*]}" >&2; exit 2; }
  as_root=(sudo)
  [[ -t 0 ]] || as_root+=(-n) # nobody is there to be asked for a password
fi
"${as_root[@]}" apt-get update -qq
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${missing[@]}" >/dev/null
