#include "engine/backends/cuda_plugin.h"

#include <dlfcn.h>

#include <filesystem>
#include <mutex>
#include <optional>

#include "base/error.h"

namespace cpvt {

namespace {

std::filesystem::path libraries() {
  return std::filesystem::read_symlink("/proc/self/exe").parent_path().parent_path() / "lib";
}

void* open(const std::filesystem::path& path, int flags) {
  void* library = dlopen(path.c_str(), RTLD_NOW | flags);
  if (library == nullptr) throw Error("cannot open {}: {}", path.string(), dlerror());
  return library;
}

/// Before the plugin, which then finds its libcudart.so.13 already there.
void open_simulator() {
  const std::filesystem::path folder = libraries() / "ptxsim";
  // The loader would choose by itself in its own search, but not for a file that is named.
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512vl");  // x86-64-v4
  const std::filesystem::path fast = folder / "glibc-hwcaps" / "x86-64-v4" / "libcudart.so.13";
  open(avx512 && std::filesystem::exists(fast) ? fast : folder / "libcudart.so.13", RTLD_GLOBAL);
}

}  // namespace

void check_cuda(const cuda::Plugin& plugin, int error, const char* what) {
  if (error != 0) throw Error("cuda: {}: {}", what, plugin.error_text(error));
}

const cuda::Plugin& open_cuda_plugin(CudaRuntime runtime) {
  static std::mutex mutex;
  static const cuda::Plugin* plugin = nullptr;
  static std::optional<CudaRuntime> opened;
  const std::lock_guard lock(mutex);
  if (opened && *opened != runtime) {
    throw Error("this process already uses {}", *opened == CudaRuntime::kReal ? "a CUDA device" : "the simulator");
  }
  if (plugin == nullptr) {
    if (runtime == CudaRuntime::kSimulator) open_simulator();
    const std::filesystem::path path = libraries() / "libcpvt_cuda.so";
    void* library = open(path, RTLD_LOCAL);
    const auto entry = reinterpret_cast<CpvtCudaPluginEntry>(dlsym(library, cuda::kPluginEntry));
    if (entry == nullptr) throw Error("{}: has no {}", path.string(), cuda::kPluginEntry);
    const cuda::Plugin* found = entry();
    if (found->version != cuda::kPluginVersion) {
      throw Error("{}: is of version {}, expected {}", path.string(), found->version, cuda::kPluginVersion);
    }
    opened = runtime;
    plugin = found;
  }
  int devices = 0;
  check_cuda(*plugin, plugin->device_count(&devices), "looking for devices");
  if (devices == 0) throw Error("cuda: no device");
  return *plugin;
}

}  // namespace cpvt
