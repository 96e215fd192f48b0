#include <cuda.h>
#include <fmt/format.h>

#include <bit>
#include <cstring>
#include <string_view>

#include "tools/ptxsim/machine/tensor_map.h"
#include "tools/ptxsim/runtime/runtime.h"

/// The driver's functions that programs fetch by name through the runtime.
namespace ptxsim::runtime {
namespace {

constexpr uint64_t kMaxExtent = uint64_t{1} << 32, kMaxStride = uint64_t{1} << 40;
constexpr uint32_t kMaxBox = 256, kMaxElementStride = 8;

bool multiple(uint64_t value, uint64_t unit) { return value % unit == 0; }

/// Runs a driver function's body, whose failures become the driver's codes: those have the runtime's numbers where
/// both have them.
template <class F>
CUresult driver_call(F&& body) {
  try {
    body(Runtime::get());
    return CUDA_SUCCESS;
  } catch (const Failure& failure) {
    return static_cast<CUresult>(failure.code);
  }
}

void check_extents(const TensorMap& map, const cuuint64_t* extents, const cuuint64_t* strides, uint64_t stride_unit) {
  for (size_t i = 0; i < map.rank; ++i) require(extents[i] > 0 && extents[i] <= kMaxExtent);
  for (size_t i = 0; i + 1 < map.rank; ++i) require(multiple(strides[i], stride_unit) && strides[i] < kMaxStride);
}

uint32_t swizzle_span(TensorMap::Swizzle swizzle) { return uint32_t{16} << static_cast<uint32_t>(swizzle); }

/// Everything that the driver's documentation requires of a tiled map on compute capability 9.0.
TensorMap tiled_map(CUtensorMapDataType type, cuuint32_t rank, void* address, const cuuint64_t* extents,
                    const cuuint64_t* strides, const cuuint32_t* box, const cuuint32_t* element_strides,
                    CUtensorMapInterleave interleave, CUtensorMapSwizzle swizzle, CUtensorMapL2promotion l2,
                    CUtensorMapFloatOOBfill fill) {
  if (type > CU_TENSOR_MAP_DATA_TYPE_TFLOAT32_FTZ && type <= CU_TENSOR_MAP_DATA_TYPE_16U6_ALIGN16B) {
    refuse("cuTensorMapEncodeTiled with a packed 4- or 6-bit type");
  }
  if (swizzle > CU_TENSOR_MAP_SWIZZLE_128B && swizzle <= CU_TENSOR_MAP_SWIZZLE_128B_ATOM_64B) {
    refuse("cuTensorMapEncodeTiled with a swizzle by atoms of more than 16 bytes");
  }
  require(type >= CU_TENSOR_MAP_DATA_TYPE_UINT8 && type <= CU_TENSOR_MAP_DATA_TYPE_TFLOAT32_FTZ);
  require(interleave >= CU_TENSOR_MAP_INTERLEAVE_NONE && interleave <= CU_TENSOR_MAP_INTERLEAVE_32B);
  require(swizzle >= CU_TENSOR_MAP_SWIZZLE_NONE && swizzle <= CU_TENSOR_MAP_SWIZZLE_128B);
  require(l2 >= CU_TENSOR_MAP_L2_PROMOTION_NONE && l2 <= CU_TENSOR_MAP_L2_PROMOTION_L2_256B);
  require(fill >= CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE && fill <= CU_TENSOR_MAP_FLOAT_OOB_FILL_NAN_REQUEST_ZERO_FMA);
  const bool plain = interleave == CU_TENSOR_MAP_INTERLEAVE_NONE;
  require(rank >= (plain ? 1U : 3U) && rank <= TensorMap::kMaxRank);
  require(extents != nullptr && box != nullptr && element_strides != nullptr && (strides != nullptr || rank == 1));

  TensorMap map;
  map.type = static_cast<TensorMap::Type>(type);
  map.rank = static_cast<uint8_t>(rank);
  map.interleave = static_cast<TensorMap::Interleave>(interleave);
  map.swizzle = static_cast<TensorMap::Swizzle>(swizzle);
  map.l2_promotion = static_cast<uint8_t>(l2);
  map.fill = static_cast<TensorMap::Fill>(fill);
  map.address = reinterpret_cast<uint64_t>(address);

  const uint64_t unit = interleave == CU_TENSOR_MAP_INTERLEAVE_32B ? 32 : 16;
  require(map.address != 0 && multiple(map.address, unit));
  check_extents(map, extents, strides, unit);
  if (interleave == CU_TENSOR_MAP_INTERLEAVE_32B) require(swizzle == CU_TENSOR_MAP_SWIZZLE_32B);
  // Not-a-number is a constant of floating-point types only.
  const bool floating = type == CU_TENSOR_MAP_DATA_TYPE_FLOAT16 || type >= CU_TENSOR_MAP_DATA_TYPE_FLOAT32;
  if (fill != CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE) require(floating);
  for (size_t i = 0; i < rank; ++i) {
    require(box[i] > 0 && box[i] <= kMaxBox);
    // Without interleaving there are no strides along the innermost dimension: what is given is ignored.
    const bool ignored = plain && i == 0;
    require(ignored || (element_strides[i] > 0 && element_strides[i] <= kMaxElementStride));
    map.last[i] = static_cast<uint32_t>(extents[i] - 1);
    map.box[i] = static_cast<uint16_t>(box[i]);
    map.element_strides[i] = static_cast<uint8_t>(ignored ? 1 : element_strides[i]);
    if (i > 0) map.strides[i - 1] = strides[i - 1];
  }
  const uint32_t inner_bytes = box[0] * map.element_bytes();
  if (plain) require(multiple(inner_bytes, 16));
  if (plain && map.swizzle != TensorMap::Swizzle::kNone) require(inner_bytes <= swizzle_span(map.swizzle));
  return map;
}

CUresult tensor_map_encode_tiled(CUtensorMap* result, CUtensorMapDataType type, cuuint32_t rank, void* address,
                                 const cuuint64_t* extents, const cuuint64_t* strides, const cuuint32_t* box,
                                 const cuuint32_t* element_strides, CUtensorMapInterleave interleave,
                                 CUtensorMapSwizzle swizzle, CUtensorMapL2promotion l2, CUtensorMapFloatOOBfill fill) {
  return driver_call([&](Runtime& runtime) {
    require(runtime.gpu().major >= 9, cudaErrorNotSupported);
    require(result != nullptr && multiple(reinterpret_cast<uint64_t>(result), 64));
    const TensorMap map =
        tiled_map(type, rank, address, extents, strides, box, element_strides, interleave, swizzle, l2, fill);
    static_assert(sizeof *result == sizeof map);
    std::memcpy(result, &map, sizeof map);
  });
}

CUresult tensor_map_encode_im2col() {
  return driver_call([](Runtime&) { refuse("cuTensorMapEncodeIm2col"); });
}

CUresult tensor_map_replace_address(CUtensorMap* map, void* address) {
  return driver_call([&](Runtime&) {
    require(map != nullptr);
    TensorMap content = TensorMap::read(map);
    const uint64_t unit = content.interleave == TensorMap::Interleave::k32Bytes ? 32 : 16;
    require(content.valid() && address != nullptr && multiple(reinterpret_cast<uint64_t>(address), unit));
    content.address = reinterpret_cast<uint64_t>(address);
    std::memcpy(map, &content, sizeof content);
  });
}

CUresult get_error_string(CUresult error, const char** text) {
  if (text == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *text = cudaGetErrorString(static_cast<cudaError_t>(error));
  return CUDA_SUCCESS;
}

CUresult get_error_name(CUresult error, const char** name) {
  if (name == nullptr) return CUDA_ERROR_INVALID_VALUE;
  *name = cudaGetErrorName(static_cast<cudaError_t>(error));
  return CUDA_SUCCESS;
}

CUresult driver_get_version(int* version) { return static_cast<CUresult>(cudaDriverGetVersion(version)); }

CUresult init(unsigned flags) {
  return driver_call([&](Runtime& runtime) {
    require(flags == 0);
    runtime.machine();
  });
}

CUresult device_get(CUdevice* device, int ordinal) {
  return driver_call([&](Runtime&) {
    require(device != nullptr);
    require(ordinal == 0, cudaErrorInvalidDevice);
    *device = 0;
  });
}

CUresult device_get_count(int* count) { return static_cast<CUresult>(cudaGetDeviceCount(count)); }

CUresult device_get_attribute(int* value, CUdevice_attribute attribute, CUdevice device) {
  // The numbers are the same.
  return static_cast<CUresult>(cudaDeviceGetAttribute(value, static_cast<cudaDeviceAttr>(attribute), device));
}

struct Entry {
  std::string_view name;
  void* function;
  int since;  // version of CUDA
};

template <class F>
void* pointer(F* function) {
  return std::bit_cast<void*>(function);
}

void* driver_function(std::string_view name, int version, cudaDriverEntryPointQueryResult& status) {
  const Entry entries[] = {
      {"cuTensorMapEncodeTiled", pointer(tensor_map_encode_tiled), 12000},
      {"cuTensorMapEncodeIm2col", pointer(tensor_map_encode_im2col), 12000},
      {"cuTensorMapReplaceAddress", pointer(tensor_map_replace_address), 12000},
      {"cuGetErrorString", pointer(get_error_string), 6000},
      {"cuGetErrorName", pointer(get_error_name), 6000},
      {"cuDriverGetVersion", pointer(driver_get_version), 2020},
      {"cuInit", pointer(init), 2000},
      {"cuDeviceGet", pointer(device_get), 2000},
      {"cuDeviceGetCount", pointer(device_get_count), 2000},
      {"cuDeviceGetAttribute", pointer(device_get_attribute), 2000},
  };
  for (const Entry& entry : entries) {
    if (entry.name != name) continue;
    const bool known = version >= entry.since;
    status = known ? cudaDriverEntryPointSuccess : cudaDriverEntryPointVersionNotSufficent;
    return known ? entry.function : nullptr;
  }
  say(fmt::format("the driver function {} is not supported", name));
  status = cudaDriverEntryPointSymbolNotFound;
  return nullptr;
}

cudaError_t give_entry(const char* call_name, const char* symbol, void** function, unsigned version,
                       unsigned long long flags, cudaDriverEntryPointQueryResult* status) {
  return call(call_name, [&](Runtime&) {
    require(symbol != nullptr && *symbol != 0 && function != nullptr && version <= CUDART_VERSION);
    require(flags == cudaEnableDefault || flags == cudaEnableLegacyStream || flags == cudaEnablePerThreadDefaultStream);
    cudaDriverEntryPointQueryResult result{};
    *function = driver_function(symbol, static_cast<int>(version), result);
    if (status != nullptr) *status = result;
  });
}

}  // namespace

#pragma GCC visibility push(default)
extern "C" {

cudaError_t cudaGetDriverEntryPoint(const char* symbol, void** function, unsigned long long flags,
                                    cudaDriverEntryPointQueryResult* status) {
  return give_entry("cudaGetDriverEntryPoint", symbol, function, CUDART_VERSION, flags, status);
}

cudaError_t cudaGetDriverEntryPointByVersion(const char* symbol, void** function, unsigned version,
                                             unsigned long long flags, cudaDriverEntryPointQueryResult* status) {
  return give_entry("cudaGetDriverEntryPointByVersion", symbol, function, version, flags, status);
}

}  // extern "C"
#pragma GCC visibility pop
}  // namespace ptxsim::runtime
