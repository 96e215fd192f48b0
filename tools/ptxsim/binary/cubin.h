#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>

namespace ptxsim {

/// What ptxas gave a kernel; read from the ELF sections of a cubin (.nv.info*, .text.*, .nv.shared.*, .nv.constant0.*).
struct KernelResources {
  uint32_t registers = 0;     // per thread
  uint32_t shared_bytes = 0;  // static, per block
  uint32_t local_bytes = 0;   // per thread: stack and spills
  uint32_t max_threads = 0;   // per block; 0 where the cubin does not say
  uint32_t barriers = 0;
};

/// Resources of every kernel of a cubin by mangled name. Throws Error for what is no cubin.
std::map<std::string, KernelResources> read_cubin(std::span<const std::byte> cubin);

}  // namespace ptxsim
