#pragma once

#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

#include "tools/ptxsim/machine/machine.h"

namespace ptxsim::testing {

/// A device of its own that runs PTX texts, without nvcc and without the CUDA runtime.
class Device {
 public:
  explicit Device(Options options = {}) : machine_(std::move(options)) {}

  Machine& machine() { return machine_; }

  /// Device memory with these values; its address is what kernels take.
  template <class T>
  Allocation* upload(const std::vector<T>& values) {
    Allocation* a = machine_.memory().allocate(MemoryKind::kDevice, values.size() * sizeof(T));
    std::memcpy(a->host, values.data(), values.size() * sizeof(T));
    machine_.host_wrote(a->base, a->bytes);
    return a;
  }

  template <class T>
  std::vector<T> download(const Allocation* a) {
    std::vector<T> values(a->bytes / sizeof(T));
    std::memcpy(values.data(), a->host, values.size() * sizeof(T));
    return values;
  }

  /// Runs the module's kernel `k`. Arguments: Allocation* (its address) or plain values, in order.
  template <class... Args>
  Outcome run(const std::string& ptx, Dim3 grid, Dim3 block, Args... args) {
    LoadedModule module(machine_, ptx, {});
    return launch(module, grid, block, 0, args...);
  }

  template <class... Args>
  Outcome launch(LoadedModule& module, Dim3 grid, Dim3 block, uint64_t dynamic_shared, Args... args) {
    Launch l;
    l.kernel = module.kernel("k");
    l.grid = grid;
    l.block = block;
    l.dynamic_shared = dynamic_shared;
    l.parameters.resize(l.kernel->parameter_bytes());
    size_t i = 0;
    (set(l, i++, args), ...);
    return machine_.run(l);
  }

 private:
  template <class T>
  static void set(Launch& l, size_t i, T value) {
    const auto parameter = l.kernel->parameters()[i];
    if constexpr (std::is_convertible_v<T, const Allocation*>) {
      const uint64_t address = value->base;
      std::memcpy(l.parameters.data() + parameter.offset, &address, 8);
    } else {
      static_assert(std::is_trivially_copyable_v<T>);
      std::memcpy(l.parameters.data() + parameter.offset, &value, std::min<size_t>(sizeof(T), parameter.bytes));
    }
  }

  Machine machine_;
};

/// A module with one kernel k(.u64 p0, .u64 p1, …) of this body; registers %r, %rd, %f, %h, %fd, %p ready to use, and
/// %rd0… not loaded: `ld.param.u64 %rd1, [p0];` is the body's business.
inline std::string kernel(int parameters, const std::string& body, const std::string& target = "sm_90a") {
  std::string text = ".version 9.0\n.target " + target + "\n.address_size 64\n.visible .entry k(";
  for (int i = 0; i < parameters; ++i) text += (i != 0 ? ", " : "") + std::string(".param .u64 p") + std::to_string(i);
  return text +
         ")\n{\n.reg .pred %p<16>;\n.reg .b16 %h<64>;\n.reg .b32 %r<128>;\n.reg .f32 %f<128>;\n.reg .b64 %rd<64>;\n"
         ".reg .f64 %fd<64>;\n" +
         body + "\nret;\n}\n";
}

}  // namespace ptxsim::testing
