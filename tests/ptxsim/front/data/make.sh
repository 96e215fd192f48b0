#!/usr/bin/env bash
# Makes the fat binaries and resources.txt beside it, with nvcc 13.0; the tests then need none.
set -euo pipefail
cd "$(dirname "$0")"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

both=(-gencode 'arch=compute_80,code=[sm_80,compute_80]' -gencode 'arch=compute_90a,code=[sm_90a,compute_90a]')
nvcc "${both[@]}" -fatbin --compress-mode=size kernels.cu -o zstd.fatbin
nvcc -gencode arch=compute_80,code=compute_80 -fatbin --compress-mode=speed kernels.cu -o lz4.fatbin
nvcc -gencode arch=compute_90,code=compute_90 -lineinfo -fatbin --compress-mode=none kernels.cu -o plain.fatbin
nvcc -gencode arch=compute_80,code=lto_80 -gencode arch=compute_100f,code=compute_100f -fatbin kernels.cu -o family.fatbin

# What nvlink makes of two units, and the units' own containers.
nvcc -arch=sm_90a -rdc=true -fatbin --compress-mode=size caller.cu -o unit_caller.fatbin
nvcc -arch=sm_90a -rdc=true -fatbin --compress-mode=size unit.cu -o unit_called.fatbin
nvcc -arch=sm_90a -rdc=true -dlink -cubin -Xnvlink -v caller.cu unit.cu -o "$scratch/linked.cubin" 2>"$scratch/linked.log"
fatbinary -64 --compress-all --compress-mode=size --image3=kind=elf,sm=90a,file="$scratch/linked.cubin" \
  --create=linked.fatbin

# architecture kernel registers barriers shared stack, as ptxas and nvlink say.
figure() { grep -o "[0-9]* bytes $1\|[0-9]* $1" | grep -o '^[0-9]*' || echo 0; }
{
  for architecture in 80 90a; do
    nvcc -arch=sm_$architecture -cubin -Xptxas -v kernels.cu -o "$scratch/kernels.cubin" 2>&1 |
      sed -n "s/.*entry function '\(.*\)' for.*/\1/p; /Used/p" | paste - - | while read -r kernel line; do
      echo "$architecture $kernel $(figure registers <<<"${line/Used /}") $(sed 's/.*used \([0-9]*\) barriers.*/\1/' <<<"$line")" \
        "$(figure smem <<<"$line") $(figure 'cumulative stack' <<<"$line")"
    done
  done
  line=$(grep -A1 caller "$scratch/linked.log" | grep used)
  echo "linked _Z6callerPi $(figure registers <<<"$line") $(figure barriers <<<"$line") $(figure smem <<<"$line") $(figure stack <<<"$line")"
} >resources.txt
