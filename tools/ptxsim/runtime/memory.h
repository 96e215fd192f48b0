#pragma once

#include <cuda_runtime_api.h>

#include <cstddef>

#include "tools/ptxsim/runtime/operation.h"

namespace ptxsim::runtime {

class Runtime;

/// Addresses of the device are numbers to the simulator and pointers to the program.
inline uint64_t address_of(const void* pointer) { return reinterpret_cast<uint64_t>(pointer); }
// NOLINTNEXTLINE(performance-no-int-to-ptr)
inline void* pointer_to(uint64_t address) { return reinterpret_cast<void*>(address); }

/// Copies as streams and graphs take them; checked.
CopyOperation copy_1d(const char* call, void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                      Runtime& runtime);
CopyOperation copy_to_symbol(const char* call, const void* symbol, const void* from, size_t bytes, size_t offset,
                             cudaMemcpyKind kind, Runtime& runtime);
CopyOperation copy_from_symbol(const char* call, void* to, const void* symbol, size_t bytes, size_t offset,
                               cudaMemcpyKind kind, Runtime& runtime);
CopyOperation copy_3d(const char* call, const cudaMemcpy3DParms* parameters, Runtime& runtime);
cudaMemcpy3DParms parameters_of(const CopyOperation& copy);

FillOperation fill_2d(const cudaMemsetParams* parameters, Runtime& runtime);

/// Queues the copy. Synchronous ones go to the default stream and wait as far as the documentation says.
void copy_now(CopyOperation copy, Runtime& runtime);
void copy_async(CopyOperation copy, cudaStream_t stream, Runtime& runtime);

}  // namespace ptxsim::runtime
