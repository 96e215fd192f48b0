#include <cstdint>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>
#include <string>
#include <utility>

#include "tools/ptxsim/runtime/memory.h"
#include "tools/ptxsim/runtime/runtime.h"

namespace ptxsim::runtime {
namespace {

constexpr uint32_t kWrapperMagic = 0x466243b1, kContainerMagic = 0xba55ed50;
constexpr char kElfMagic[] = {0x7f, 'E', 'L', 'F'};

std::shared_ptr<Code> find_library(cudaLibrary_t handle, Runtime& runtime) {
  std::shared_ptr<Code> code = runtime.libraries.find(handle);
  require(code != nullptr, cudaErrorInvalidResourceHandle);
  return code;
}

/// Code as the program hands it over: a fat binary, or the text of a PTX module. It is read at once, for the program
/// may take its memory back.
cudaLibrary_t load(const void* data, const std::string& origin, Runtime& runtime) {
  require(data != nullptr);
  uint32_t magic = 0;
  std::memcpy(&magic, data, sizeof magic);
  auto code = std::make_shared<Code>();
  code->origin = origin;
  if (magic == kWrapperMagic || magic == kContainerMagic) {
    code->wrapper = data;
  } else if (std::memcmp(data, kElfMagic, sizeof kElfMagic) == 0) {
    say(origin + ": machine code cannot be executed; load the PTX text or a fat binary that has it");
    fail(cudaErrorNoKernelImageForDevice);
  } else {
    code->ptx = static_cast<const char*>(data);
  }
  code->load(runtime);
  return runtime.libraries.add(std::move(code));
}

cudaKernel_t give_kernel(Code& code, const std::string& name, Runtime& runtime) {
  const std::shared_ptr<Function> function = code.function(name);
  runtime.registry.add_handle(function);
  return reinterpret_cast<cudaKernel_t>(function.get());
}

cudaError_t give_variable(const char* name, void** pointer, size_t* bytes, cudaLibrary_t library, const char* variable,
                          bool managed) {
  return call(name, [&](Runtime& runtime) {
    require(variable != nullptr && (pointer != nullptr || bytes != nullptr));
    const Allocation* allocation = find_library(library, runtime)->load(runtime).variable(variable);
    require(allocation != nullptr && (!managed || allocation->kind == MemoryKind::kManaged), cudaErrorSymbolNotFound);
    if (pointer != nullptr) *pointer = pointer_to(allocation->base);
    if (bytes != nullptr) *bytes = allocation->bytes;
  });
}

}  // namespace

#pragma GCC visibility push(default)
extern "C" {

// Options are about how machine code is made, of which there is none here.
cudaError_t cudaLibraryLoadData(cudaLibrary_t* library, const void* code, cudaJitOption*, void**, unsigned,
                                cudaLibraryOption*, void**, unsigned) {
  return call("cudaLibraryLoadData", [&](Runtime& runtime) {
    require(library != nullptr);
    *library = load(code, "cudaLibraryLoadData", runtime);
  });
}

cudaError_t cudaLibraryLoadFromFile(cudaLibrary_t* library, const char* path, cudaJitOption*, void**, unsigned,
                                    cudaLibraryOption*, void**, unsigned) {
  return call("cudaLibraryLoadFromFile", [&](Runtime& runtime) {
    require(library != nullptr && path != nullptr);
    std::ifstream file(path, std::ios::binary);
    require(file.good(), cudaErrorFileNotFound);
    // A text ends with a zero for who reads it.
    std::string content{std::istreambuf_iterator<char>(file), {}};
    require(!content.empty(), cudaErrorInvalidKernelImage);
    content.append(sizeof(uint32_t), '\0');
    *library = load(content.data(), path, runtime);
  });
}

cudaError_t cudaLibraryUnload(cudaLibrary_t library) {
  return call("cudaLibraryUnload", [&](Runtime& runtime) {
    const auto code = runtime.libraries.remove(library);
    require(code != nullptr, cudaErrorInvalidResourceHandle);
    runtime.synchronise_device();
    runtime.registry.remove_handles(*code);
    code->unload();
  });
}

cudaError_t cudaLibraryGetKernel(cudaKernel_t* kernel, cudaLibrary_t library, const char* name) {
  return call("cudaLibraryGetKernel", [&](Runtime& runtime) {
    require(kernel != nullptr && name != nullptr);
    const auto code = find_library(library, runtime);
    require(code->load(runtime).kernel(name) != nullptr, cudaErrorSymbolNotFound);
    *kernel = give_kernel(*code, name, runtime);
  });
}

cudaError_t cudaLibraryGetKernelCount(unsigned* count, cudaLibrary_t library) {
  return call("cudaLibraryGetKernelCount", [&](Runtime& runtime) {
    require(count != nullptr);
    *count = static_cast<unsigned>(find_library(library, runtime)->load(runtime).kernels().size());
  });
}

cudaError_t cudaLibraryEnumerateKernels(cudaKernel_t* kernels, unsigned count, cudaLibrary_t library) {
  return call("cudaLibraryEnumerateKernels", [&](Runtime& runtime) {
    require(kernels != nullptr);
    const auto code = find_library(library, runtime);
    unsigned given = 0;
    for (const Kernel* kernel : code->load(runtime).kernels()) {
      if (given == count) break;
      kernels[given++] = give_kernel(*code, kernel->name(), runtime);
    }
  });
}

cudaError_t cudaLibraryGetGlobal(void** pointer, size_t* bytes, cudaLibrary_t library, const char* name) {
  return give_variable("cudaLibraryGetGlobal", pointer, bytes, library, name, false);
}

cudaError_t cudaLibraryGetManaged(void** pointer, size_t* bytes, cudaLibrary_t library, const char* name) {
  return give_variable("cudaLibraryGetManaged", pointer, bytes, library, name, true);
}

}  // extern "C"
#pragma GCC visibility pop
}  // namespace ptxsim::runtime
