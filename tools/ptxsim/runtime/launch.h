#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>
#include <memory>

#include "tools/ptxsim/runtime/operation.h"

namespace ptxsim::runtime {

class Runtime;

/// What a launch asks for, however it was asked.
struct LaunchRequest {
  dim3 grid, block;
  size_t shared = 0;
  LaunchAttributes attributes;
  void** arguments = nullptr;  // a pointer to each parameter's value; or
  void** extra = nullptr;      // the driver's form: a buffer and its size
};

/// The checked launch with its parameters packed. Throws Failure with the code that the request deserves.
KernelOperation make_kernel(const std::shared_ptr<Function>& function, const LaunchRequest& request, Runtime& runtime);

/// Dynamic shared memory that the function may be launched with.
size_t max_dynamic_shared(Function& function, Runtime& runtime);
/// The cluster that a launch gets: by attribute, by the kernel's own declaration, or {1, 1, 1}.
Dim3 cluster_of(Function& function, const LaunchAttributes& attributes, Runtime& runtime);
/// Blocks of the function that a multiprocessor holds at once.
int resident_blocks(Function& function, int threads, size_t dynamic_shared, Runtime& runtime);
int max_threads(Function& function, Runtime& runtime);
int max_cluster(const Function& function, const Gpu& gpu);

/// The function that a pointer means: throws Failure(cudaErrorInvalidDeviceFunction).
std::shared_ptr<Function> find_function(const void* function, Runtime& runtime);

/// Throws where an attribute's id or value is wrong, or names what is not supported.
LaunchAttributes read_attributes(const cudaLaunchAttribute* attributes, unsigned count);

}  // namespace ptxsim::runtime
