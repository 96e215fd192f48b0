#pragma once

#include <cuda_runtime_api.h>

#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "tools/ptxsim/machine/machine.h"

namespace ptxsim::runtime {

struct Code;
class Runtime;

/// A kernel that the program knows by a host function, by a cudaKernel_t or by a cudaFunction_t; the latter two are
/// pointers to this. Found in its module when it is first needed.
struct Function {
  std::shared_ptr<Code> code;
  std::string name;            // mangled
  const void* host = nullptr;  // the host function that stands for it, if any
  // Set by cudaFuncSetAttribute:
  int max_dynamic_shared = -1;  // -1: what needs no opt-in
  int carveout = cudaSharedmemCarveoutDefault;
  bool cluster_required = false, non_portable_cluster = false;
  unsigned required_cluster[3] = {0, 0, 0};
  cudaClusterSchedulingPolicy cluster_policy = cudaClusterSchedulingPolicyDefault;

  /// Throws Failure when its binary has nothing for this GPU, or no such kernel.
  Kernel& kernel(Runtime& runtime);

 private:
  Kernel* kernel_ = nullptr;
  LoadedModule* from_ = nullptr;
};

struct Variable {
  std::shared_ptr<Code> code;
  std::string name;
  size_t bytes = 0;
  void** managed_pointer = nullptr;  // of a __managed__ variable: what the host code reads it through
};

/// Images of device code in a binary, a library or a text: loaded on first use, because programs register all that
/// they have before main().
struct Code : std::enable_shared_from_this<Code> {
  std::string origin;             // file, for messages
  const void* wrapper = nullptr;  // as read_fatbin takes it; null for a text
  std::string ptx;                // where there is no wrapper
  std::vector<Variable*> managed;

  /// Throws Failure, after it has said once on stderr what is wrong.
  LoadedModule& load(Runtime& runtime);
  bool loaded() const { return module_ != nullptr; }
  void unload();  // of a library, or when the device is reset

  std::shared_ptr<Function> function(const std::string& name);  // made when there is none

 private:
  std::mutex mutex_;
  std::unique_ptr<LoadedModule> module_;
  std::vector<std::unique_ptr<LoadedModule>> unloaded_;  // reports at the end still speak of their kernels
  cudaError_t failure_ = cudaSuccess;
  std::map<std::string, std::shared_ptr<Function>> functions_;
};

/// What the program's binaries have registered.
class Registry {
 public:
  /// `function`: a host function, a cudaKernel_t or a cudaFunction_t. Null for anything else.
  std::shared_ptr<Function> function(const void* function) const;
  Variable* variable(const void* symbol) const;
  std::vector<std::shared_ptr<Code>> binaries() const;

  std::shared_ptr<Code> add_binary(const void* wrapper);
  void add_function(Code* code, const void* host, const char* name);
  void add_variable(Code* code, const void* host, const char* name, size_t bytes, void** managed_pointer);
  void add_handle(const std::shared_ptr<Function>& function);  // a library's kernel, known by its handle only
  void remove_handles(const Code& code);

 private:
  mutable std::mutex mutex_;
  std::unordered_map<Code*, std::shared_ptr<Code>> binaries_;
  std::unordered_map<const void*, std::shared_ptr<Function>> functions_;  // by host function and by handle
  std::unordered_map<const void*, std::unique_ptr<Variable>> variables_;
};

}  // namespace ptxsim::runtime
