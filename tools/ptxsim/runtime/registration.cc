#include "tools/ptxsim/runtime/registration.h"

#include <dlfcn.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "tools/ptxsim/binary/fatbin.h"
#include "tools/ptxsim/runtime/call.h"
#include "tools/ptxsim/runtime/launch.h"
#include "tools/ptxsim/runtime/memory.h"
#include "tools/ptxsim/runtime/runtime.h"

namespace ptxsim::runtime {
namespace {

std::string file_of(const void* address) {
  Dl_info info{};
  return dladdr(address, &info) != 0 && info.dli_fname != nullptr ? info.dli_fname : "the program";
}

/// Runs a step of loading; an Error in it is what the binary has wrong.
template <class F>
auto step(cudaError_t code, F&& body) {
  try {
    return body();
  } catch (const Error& error) {
    throw std::pair<cudaError_t, std::string>(code, error.what());
  }
}

std::unique_ptr<LoadedModule> load_module(const Code& code, Machine& machine) {
  const auto make = [&](std::string ptx, std::span<const std::byte> cubin) {
    return step(cudaErrorInvalidPtx, [&] { return std::make_unique<LoadedModule>(machine, std::move(ptx), cubin); });
  };
  if (code.wrapper == nullptr) return make(code.ptx, {});
  const Gpu& gpu = machine.gpu();
  const auto architecture = static_cast<uint32_t>(gpu.major * 10 + gpu.minor);
  const std::vector<Image> images = step(cudaErrorInvalidKernelImage, [&] { return read_fatbin(code.wrapper); });
  const Image& ptx = step(cudaErrorNoKernelImageForDevice,
                          [&]() -> const Image& { return choose_ptx(images, architecture, gpu.feature); });
  const Image* cubin = choose_cubin(images, architecture);
  return make(std::string(reinterpret_cast<const char*>(ptx.data.data()), ptx.data.size()),
              cubin != nullptr ? std::span<const std::byte>(cubin->data) : std::span<const std::byte>());
}

}  // namespace

LoadedModule& Code::load(Runtime& runtime) {
  Machine& machine = runtime.machine();
  const std::lock_guard lock(mutex_);
  require(failure_ == cudaSuccess, failure_);
  if (module_ == nullptr) {
    try {
      module_ = load_module(*this, machine);
    } catch (const std::pair<cudaError_t, std::string>& failure) {
      say(fmt::format("{}: {}", origin, failure.second));
      failure_ = failure.first;
      fail(failure_);
    }
    for (const Variable* variable : managed) {
      const Allocation* allocation = module_->variable(variable->name);
      if (allocation != nullptr) *variable->managed_pointer = pointer_to(allocation->base);
    }
  }
  return *module_;
}

void Code::unload() {
  const std::lock_guard lock(mutex_);
  if (module_ != nullptr) unloaded_.push_back(std::move(module_));
}

std::shared_ptr<Function> Code::function(const std::string& name) {
  const std::lock_guard lock(mutex_);
  std::shared_ptr<Function>& function = functions_[name];
  if (function == nullptr) {
    function = std::make_shared<Function>();
    function->code = shared_from_this();
    function->name = name;
  }
  return function;
}

Kernel& Function::kernel(Runtime& runtime) {
  LoadedModule& module = code->load(runtime);
  const std::lock_guard lock(runtime.order_mutex);
  if (from_ != &module) {  // the first use, or the first after the device was reset
    kernel_ = module.kernel(name);
    from_ = &module;
  }
  require(kernel_ != nullptr, cudaErrorInvalidDeviceFunction);
  return *kernel_;
}

std::shared_ptr<Function> Registry::function(const void* function) const {
  const std::lock_guard lock(mutex_);
  const auto found = functions_.find(function);
  return found == functions_.end() ? nullptr : found->second;
}

Variable* Registry::variable(const void* symbol) const {
  const std::lock_guard lock(mutex_);
  const auto found = variables_.find(symbol);
  return found == variables_.end() ? nullptr : found->second.get();
}

std::vector<std::shared_ptr<Code>> Registry::binaries() const {
  const std::lock_guard lock(mutex_);
  std::vector<std::shared_ptr<Code>> result;
  for (const auto& [key, code] : binaries_) result.push_back(code);
  return result;
}

std::shared_ptr<Code> Registry::add_binary(const void* wrapper) {
  auto code = std::make_shared<Code>();
  code->origin = file_of(wrapper);
  code->wrapper = wrapper;
  const std::lock_guard lock(mutex_);
  binaries_[code.get()] = code;
  return code;
}

void Registry::add_function(Code* code, const void* host, const char* name) {
  const std::shared_ptr<Function> function = code->function(name);
  function->host = host;
  const std::lock_guard lock(mutex_);
  functions_[host] = function;
  functions_[function.get()] = function;
}

void Registry::add_handle(const std::shared_ptr<Function>& function) {
  const std::lock_guard lock(mutex_);
  functions_[function.get()] = function;
}

void Registry::remove_handles(const Code& code) {
  const std::lock_guard lock(mutex_);
  std::erase_if(functions_, [&code](const auto& entry) { return entry.second->code.get() == &code; });
}

void Registry::add_variable(Code* code, const void* host, const char* name, size_t bytes, void** managed_pointer) {
  auto variable = std::make_unique<Variable>();
  variable->code = code->shared_from_this();
  variable->name = name;
  variable->bytes = bytes;
  variable->managed_pointer = managed_pointer;
  if (managed_pointer != nullptr) code->managed.push_back(variable.get());
  const std::lock_guard lock(mutex_);
  variables_[host] = std::move(variable);
}

namespace {

Code* code_of(void** handle) { return reinterpret_cast<Code*>(handle); }

}  // namespace

// What nvcc generates calls of, before main() and around each launch. The handle of a fat binary is a pointer to Code.
// NOLINTBEGIN(bugprone-reserved-identifier)
#pragma GCC visibility push(default)
extern "C" {

void** __cudaRegisterFatBinary(void* wrapper) {
  return reinterpret_cast<void**>(Runtime::get().registry.add_binary(wrapper).get());
}

void __cudaRegisterFatBinaryEnd(void**) {}

void __cudaUnregisterFatBinary(void**) {
  // At the end of the program, and kernels may still be running then; a library that is closed in between leaves its
  // code behind.
}

void __cudaRegisterFunction(void** handle, const char* host, char*, const char* name, int, uint3*, uint3*, dim3*, dim3*,
                            int*) {
  Runtime::get().registry.add_function(code_of(handle), host, name);
}

void __cudaRegisterVar(void** handle, char* host, char*, const char* name, int, size_t bytes, int, int) {
  Runtime::get().registry.add_variable(code_of(handle), host, name, bytes, nullptr);
}

void __cudaRegisterManagedVar(void** handle, void** host_pointer, char*, const char* name, int, size_t bytes, int,
                              int) {
  Runtime::get().registry.add_variable(code_of(handle), host_pointer, name, bytes, host_pointer);
}

void __cudaRegisterHostVar(void**, const char* name, char*, size_t) {
  say(fmt::format("the variable '{}', which is the host's and the device's at once, is not supported", name));
}

void __cudaRegisterUnifiedTable(void**, void*) {}

/// The host code is about to read a managed variable: its address must be known.
char __cudaInitModule(void** handle) {
  return call("__cudaInitModule", [&](Runtime& runtime) { code_of(handle)->load(runtime); }) == cudaSuccess ? 1 : 0;
}

unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, cudaStream_t stream) {
  this_thread().configurations.push_back({grid, block, shared, stream});
  return 0;
}

cudaError_t __cudaPopCallConfiguration(dim3* grid, dim3* block, size_t* shared, void* stream) {
  return call(
      "__cudaPopCallConfiguration",
      [&](Runtime&) {
        auto& configurations = this_thread().configurations;
        require(!configurations.empty(), cudaErrorMissingConfiguration);
        const ThreadState::Configuration& top = configurations.back();
        *grid = top.grid;
        *block = top.block;
        *shared = top.shared;
        *static_cast<cudaStream_t*>(stream) = top.stream;
        configurations.pop_back();
        this_thread().in_stub = true;
      },
      CallKind::kOnLostContext);
}

cudaError_t __cudaGetKernel(cudaKernel_t* kernel, const void* host) { return cudaGetKernel(kernel, host); }

cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid, dim3 block, void** arguments, size_t shared,
                               cudaStream_t stream) {
  return cudaLaunchKernel(kernel, grid, block, arguments, shared, stream);
}

cudaError_t __cudaLaunchKernel_ptsz(cudaKernel_t kernel, dim3 grid, dim3 block, void** arguments, size_t shared,
                                    cudaStream_t stream) {
  const PerThreadDefaultStream own;
  return cudaLaunchKernel(kernel, grid, block, arguments, shared, stream);
}

// NOLINTEND(bugprone-reserved-identifier)

cudaError_t cudaGetKernel(cudaKernel_t* kernel, const void* entry) {
  return call("cudaGetKernel", [&](Runtime& runtime) {
    require(kernel != nullptr);
    const auto function = runtime.registry.function(entry);
    require(function != nullptr, cudaErrorInvalidDeviceFunction);
    *kernel = reinterpret_cast<cudaKernel_t>(function.get());
  });
}

cudaError_t cudaGetFuncBySymbol(cudaFunction_t* result, const void* symbol) {
  return call("cudaGetFuncBySymbol", [&](Runtime& runtime) {
    require(result != nullptr);
    const auto function = runtime.registry.function(symbol);
    require(function != nullptr, cudaErrorInvalidDeviceFunction);
    function->kernel(runtime);
    *result = reinterpret_cast<cudaFunction_t>(function.get());
  });
}

}  // extern "C"
#pragma GCC visibility pop
}  // namespace ptxsim::runtime
