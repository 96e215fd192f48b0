// Device code that a program loads while it runs, and the driver's functions that it fetches by name.
#include <cuda.h>

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>

#include "tests/ptxsim/programs/expect.h"

__global__ void unused() {}

constexpr char kText[] = R"(
.version 8.0
.target sm_80
.address_size 64
.visible .global .align 4 .u32 added = 5;
.visible .entry add_to(.param .u64 pointer, .param .u32 value) {
  .reg .b32 %r<4>;
  .reg .b64 %rd<3>;
  ld.param.u64 %rd1, [pointer];
  ld.param.u32 %r1, [value];
  cvta.to.global.u64 %rd2, %rd1;
  ld.global.u32 %r2, [added];
  add.u32 %r3, %r1, %r2;
  st.global.u32 [%rd2], %r3;
  ret;
}
)";

void use(cudaLibrary_t library) {
  cudaKernel_t kernel;
  EXPECT_OK(cudaLibraryGetKernel(&kernel, library, "add_to"));
  unsigned count = 0;
  EXPECT_OK(cudaLibraryGetKernelCount(&count, library));
  EXPECT(count == 1);
  cudaKernel_t listed;
  EXPECT_OK(cudaLibraryEnumerateKernels(&listed, 1, library));
  EXPECT(listed == kernel);
  void* variable;
  size_t bytes;
  EXPECT_OK(cudaLibraryGetGlobal(&variable, &bytes, library, "added"));
  EXPECT(bytes == 4);
  const int added = 70;
  EXPECT_OK(cudaMemcpy(variable, &added, 4, cudaMemcpyHostToDevice));
  const Buffer<int> x(1);
  int* pointer = x.get();
  int value = 8;
  void* arguments[] = {&pointer, &value};
  EXPECT_OK(cudaLaunchKernel(reinterpret_cast<const void*>(kernel), dim3(1), dim3(1), arguments, 0, nullptr));
  EXPECT(x.download()[0] == 78);
  EXPECT_ERROR(cudaLibraryGetKernel(&kernel, library, "other"), cudaErrorSymbolNotFound);
  EXPECT_ERROR(cudaLibraryGetGlobal(&variable, &bytes, library, "other"), cudaErrorSymbolNotFound);
  EXPECT_ERROR(cudaLibraryGetManaged(&variable, &bytes, library, "added"), cudaErrorSymbolNotFound);
  EXPECT_OK(cudaLibraryUnload(library));
  EXPECT_ERROR(cudaLibraryUnload(library), cudaErrorInvalidResourceHandle);
  EXPECT_ERROR(cudaLaunchKernel(reinterpret_cast<const void*>(listed), dim3(1), dim3(1), arguments, 0, nullptr),
               cudaErrorInvalidDeviceFunction);
  cudaGetLastError();
}

void libraries() {
  cudaLibrary_t library;
  {
    const std::string passing = kText;  // the library has what it needs of it
    EXPECT_OK(cudaLibraryLoadData(&library, passing.c_str(), nullptr, nullptr, 0, nullptr, nullptr, 0));
  }
  use(library);
  const std::string path = "runtime_library_" + std::to_string(reinterpret_cast<uintptr_t>(&library)) + ".ptx";
  std::FILE* file = std::fopen(path.c_str(), "w");
  EXPECT(file != nullptr);
  std::fputs(kText, file);
  std::fclose(file);
  EXPECT_OK(cudaLibraryLoadFromFile(&library, path.c_str(), nullptr, nullptr, 0, nullptr, nullptr, 0));
  std::remove(path.c_str());
  use(library);
  EXPECT_ERROR(cudaLibraryLoadFromFile(&library, path.c_str(), nullptr, nullptr, 0, nullptr, nullptr, 0),
               cudaErrorFileNotFound);
  EXPECT_ERROR(cudaLibraryLoadData(&library,
                                   "\x7f"
                                   "ELF\2\1\1",
                                   nullptr, nullptr, 0, nullptr, nullptr, 0),
               cudaErrorNoKernelImageForDevice);
  EXPECT_ERROR(cudaLibraryLoadData(&library, "this is no module", nullptr, nullptr, 0, nullptr, nullptr, 0),
               cudaErrorInvalidPtx);
  cudaGetLastError();
}

using EncodeTiled = CUresult (*)(CUtensorMap*, CUtensorMapDataType, cuuint32_t, void*, const cuuint64_t*,
                                 const cuuint64_t*, const cuuint32_t*, const cuuint32_t*, CUtensorMapInterleave,
                                 CUtensorMapSwizzle, CUtensorMapL2promotion, CUtensorMapFloatOOBfill);

template <class F>
F driver_function(const char* name) {
  void* pointer = nullptr;
  cudaDriverEntryPointQueryResult status;
  EXPECT_OK(cudaGetDriverEntryPointByVersion(name, &pointer, 12000, cudaEnableDefault, &status));
  EXPECT(status == cudaDriverEntryPointSuccess && pointer != nullptr);
  return reinterpret_cast<F>(pointer);
}

/// A request for a map that is right, and what may be wrong with it.
struct Request {
  CUtensorMapDataType type = CU_TENSOR_MAP_DATA_TYPE_FLOAT16;
  cuuint32_t rank = 3;
  void* address = nullptr;
  cuuint64_t extents[5] = {256, 100, 7, 3, 2}, strides[4] = {512, 51200, 358400, 1075200};
  cuuint32_t box[5] = {64, 8, 1, 1, 1}, steps[5] = {1, 1, 1, 1, 1};
  CUtensorMapInterleave interleave = CU_TENSOR_MAP_INTERLEAVE_NONE;
  CUtensorMapSwizzle swizzle = CU_TENSOR_MAP_SWIZZLE_128B;
  CUtensorMapL2promotion l2 = CU_TENSOR_MAP_L2_PROMOTION_L2_128B;
  CUtensorMapFloatOOBfill fill = CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE;
};

void tensor_maps() {
  const auto encode = driver_function<EncodeTiled>("cuTensorMapEncodeTiled");
  const Buffer<char> memory(4096);
  const auto with = [&](auto change, size_t misplaced = 0) {
    Request r;
    r.address = memory.get();
    change(r);
    alignas(64) char place[2 * sizeof(CUtensorMap)];
    return encode(reinterpret_cast<CUtensorMap*>(place + misplaced), r.type, r.rank, r.address, r.extents, r.strides,
                  r.box, r.steps, r.interleave, r.swizzle, r.l2, r.fill);
  };
  const auto right = [&](auto change) { return with(change) == CUDA_SUCCESS; };
  const auto wrong = [&](auto change) { return with(change) == CUDA_ERROR_INVALID_VALUE; };
  EXPECT(right([](Request&) {}));
  EXPECT(with([](Request&) {}, 32) == CUDA_ERROR_INVALID_VALUE);
  EXPECT(right([](Request& r) { r.rank = 5; }));
  EXPECT(wrong([](Request& r) { r.rank = 0; }));
  EXPECT(wrong([](Request& r) { r.rank = 6; }));
  EXPECT(wrong([](Request& r) { r.address = static_cast<char*>(r.address) + 8; }));
  EXPECT(right([](Request& r) { r.address = static_cast<char*>(r.address) + 16; }));
  EXPECT(wrong([](Request& r) { r.address = nullptr; }));
  EXPECT(wrong([](Request& r) { r.extents[1] = 0; }));
  EXPECT(right([](Request& r) { r.extents[1] = cuuint64_t{1} << 32; }));
  EXPECT(wrong([](Request& r) { r.extents[1] = (cuuint64_t{1} << 32) + 1; }));
  EXPECT(wrong([](Request& r) { r.strides[0] = 520; }));
  EXPECT(wrong([](Request& r) { r.strides[1] = cuuint64_t{1} << 40; }));
  EXPECT(wrong([](Request& r) { r.box[1] = 0; }));
  EXPECT(right([](Request& r) { r.box[1] = 256; }));
  EXPECT(wrong([](Request& r) { r.box[1] = 257; }));
  EXPECT(wrong([](Request& r) { r.box[0] = 4; }));   // 8 bytes
  EXPECT(wrong([](Request& r) { r.box[0] = 72; }));  // wider than the swizzle
  EXPECT(right([](Request& r) {
    r.box[0] = 72;
    r.swizzle = CU_TENSOR_MAP_SWIZZLE_NONE;
  }));
  EXPECT(wrong([](Request& r) { r.swizzle = CU_TENSOR_MAP_SWIZZLE_64B; }));
  EXPECT(right([](Request& r) {
    r.box[0] = 32;
    r.swizzle = CU_TENSOR_MAP_SWIZZLE_64B;
  }));
  EXPECT(wrong([](Request& r) { r.steps[1] = 9; }));
  EXPECT(wrong([](Request& r) { r.steps[1] = 0; }));
  EXPECT(right([](Request& r) { r.steps[0] = 9; }));  // ignored without interleaving
  EXPECT(right([](Request& r) {
    r.interleave = CU_TENSOR_MAP_INTERLEAVE_32B;
    r.swizzle = CU_TENSOR_MAP_SWIZZLE_32B;
  }));
  EXPECT(wrong([](Request& r) { r.interleave = CU_TENSOR_MAP_INTERLEAVE_32B; }));  // with the 128-byte swizzle
  EXPECT(wrong([](Request& r) {
    r.interleave = CU_TENSOR_MAP_INTERLEAVE_16B;
    r.rank = 2;
  }));
  EXPECT(right([](Request& r) { r.fill = CU_TENSOR_MAP_FLOAT_OOB_FILL_NAN_REQUEST_ZERO_FMA; }));
  EXPECT(wrong([](Request& r) {
    r.fill = CU_TENSOR_MAP_FLOAT_OOB_FILL_NAN_REQUEST_ZERO_FMA;
    r.type = CU_TENSOR_MAP_DATA_TYPE_UINT16;
  }));
  EXPECT(wrong([](Request& r) { r.l2 = static_cast<CUtensorMapL2promotion>(9); }));
}

void driver_functions() {
  const auto text = driver_function<CUresult (*)(CUresult, const char**)>("cuGetErrorString");
  const char* message = nullptr;
  EXPECT(text(CUDA_ERROR_INVALID_VALUE, &message) == CUDA_SUCCESS);
  EXPECT(std::strcmp(message, "invalid argument") == 0);
  int version = 0;
  EXPECT(driver_function<CUresult (*)(int*)>("cuDriverGetVersion")(&version) == CUDA_SUCCESS);
  EXPECT(version >= 13000);
  void* pointer = &version;
  cudaDriverEntryPointQueryResult status;
  EXPECT_OK(cudaGetDriverEntryPointByVersion("cuNoSuchThing", &pointer, 12000, cudaEnableDefault, &status));
  EXPECT(status == cudaDriverEntryPointSymbolNotFound && pointer == nullptr);
  EXPECT_OK(cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &pointer, 11000, cudaEnableDefault, &status));
  EXPECT(status == cudaDriverEntryPointVersionNotSufficent && pointer == nullptr);
  EXPECT_ERROR(cudaGetDriverEntryPointByVersion("cuInit", &pointer, 99000, cudaEnableDefault, &status),
               cudaErrorInvalidValue);
  cudaGetLastError();
}

int main() {
  unused<<<1, 1>>>();
  EXPECT_RAN();
  libraries();
  tensor_maps();
  driver_functions();
  return 0;
}
