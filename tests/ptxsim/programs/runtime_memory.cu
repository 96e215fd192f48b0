// Memory of every kind: copies and fills in one, two and three dimensions, symbols, attributes, accounting.
#include <cstdint>
#include <cstring>
#include <thread>

#include "tests/ptxsim/programs/expect.h"

__device__ int variable = 5;
__device__ int array_variable[100];
__constant__ int constant[4] = {1, 2, 3, 4};
__managed__ int managed_variable = 7;

__global__ void add_all(int* x, int count, int value) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < count) x[i] += value;
}
__global__ void read_variables(int* x) {
  x[0] = variable;
  x[1] = array_variable[99];
  x[2] = constant[3];
  x[3] = managed_variable;
  managed_variable = 70;
}

std::vector<int> counting(size_t count) {
  std::vector<int> values(count);
  for (size_t i = 0; i < count; ++i) values[i] = static_cast<int>(i);
  return values;
}

void flat() {
  const std::vector<int> source = counting(1000);
  const Buffer<int> a(source), b(1000);
  add_all<<<8, 128>>>(a.get(), 1000, 10);
  EXPECT_OK(cudaMemcpy(b.get(), a.get(), a.bytes(), cudaMemcpyDeviceToDevice));
  const std::vector<int> got = b.download();
  for (int i = 0; i < 1000; ++i) EXPECT(got[static_cast<size_t>(i)] == i + 10);
  // Within an allocation, by default direction.
  EXPECT_OK(cudaMemcpy(b.get() + 500, b.get(), 400 * sizeof(int), cudaMemcpyDefault));
  EXPECT(b.download()[899] == 409);
  EXPECT_OK(cudaMemset(b.get() + 1, 0xff, 2 * sizeof(int)));
  EXPECT(b.download()[0] == 10 && b.download()[1] == -1 && b.download()[2] == -1 && b.download()[3] == 13);
  EXPECT_OK(cudaMemcpyPeer(b.get(), 0, a.get(), 0, 40));
  EXPECT(b.download()[1] == 11);
  std::vector<int> copy(1000);
  EXPECT_OK(cudaMemcpy(copy.data(), source.data(), 4000, cudaMemcpyHostToHost));
  EXPECT(copy == source);
}

void pitched() {
  constexpr size_t kWidth = 100, kHeight = 7;
  char* device;
  size_t pitch;
  EXPECT_OK(cudaMallocPitch(&device, &pitch, kWidth, kHeight));
  EXPECT(pitch >= kWidth && pitch % 256 == 0);
  std::vector<char> host(kWidth * kHeight), back(120 * kHeight, 'x');
  for (size_t i = 0; i < host.size(); ++i) host[i] = static_cast<char>(i % 97);
  EXPECT_OK(cudaMemset2D(device, pitch, 'p', kWidth, kHeight));
  EXPECT_OK(cudaMemcpy2D(device, pitch, host.data(), kWidth, kWidth, kHeight, cudaMemcpyHostToDevice));
  EXPECT_OK(cudaMemset2D(device + 10, pitch, 'm', 5, 3));
  EXPECT_OK(cudaMemcpy2D(back.data(), 120, device, pitch, kWidth, kHeight, cudaMemcpyDeviceToHost));
  for (size_t y = 0; y < kHeight; ++y) {
    for (size_t x = 0; x < 120; ++x) {
      const bool marked = y < 3 && x >= 10 && x < 15;
      const char want = x >= kWidth ? 'x' : marked ? 'm' : host[y * kWidth + x];
      EXPECT(back[y * 120 + x] == want);
    }
  }
  EXPECT_ERROR(cudaMemcpy2D(back.data(), 120, device, pitch, kWidth, kHeight + 100, cudaMemcpyDeviceToHost),
               cudaErrorInvalidValue);
  cudaGetLastError();
  EXPECT_OK(cudaFree(device));
}

void boxes() {
  constexpr size_t kX = 5, kY = 4, kZ = 3;
  const cudaExtent extent = make_cudaExtent(kX * sizeof(int), kY, kZ);
  cudaPitchedPtr device;
  EXPECT_OK(cudaMalloc3D(&device, extent));
  std::vector<int> host = counting(kX * kY * kZ), back(host.size());
  cudaMemcpy3DParms up{};
  up.srcPtr = make_cudaPitchedPtr(host.data(), kX * sizeof(int), kX, kY);
  up.dstPtr = device;
  up.extent = extent;
  up.kind = cudaMemcpyHostToDevice;
  EXPECT_OK(cudaMemcpy3D(&up));
  // One box out of the middle, to another place.
  cudaMemcpy3DParms down{};
  down.srcPtr = device;
  down.srcPos = make_cudaPos(2 * sizeof(int), 1, 1);
  down.dstPtr = make_cudaPitchedPtr(back.data(), kX * sizeof(int), kX, kY);
  down.dstPos = make_cudaPos(1 * sizeof(int), 2, 0);
  down.extent = make_cudaExtent(3 * sizeof(int), 2, 2);
  down.kind = cudaMemcpyDeviceToHost;
  EXPECT_OK(cudaMemcpy3DAsync(&down, nullptr));
  EXPECT_OK(cudaDeviceSynchronize());
  for (size_t z = 0; z < kZ; ++z) {
    for (size_t y = 0; y < kY; ++y) {
      for (size_t x = 0; x < kX; ++x) {
        const bool inside = x >= 1 && x < 4 && y >= 2 && z < 2;
        const int want = inside ? host[((z + 1) * kY + y - 1) * kX + x + 1] : 0;
        EXPECT(back[(z * kY + y) * kX + x] == want);
      }
    }
  }
  EXPECT_OK(cudaMemset3D(device, 1, extent));
  down.srcPos = make_cudaPos(0, 0, 0);
  down.dstPos = make_cudaPos(0, 0, 0);
  down.extent = extent;
  EXPECT_OK(cudaMemcpy3D(&down));
  for (const int value : back) EXPECT(value == 0x01010101);
  down.srcPtr.ptr = nullptr;
  EXPECT_ERROR(cudaMemcpy3D(&down), cudaErrorInvalidValue);
  cudaGetLastError();
  EXPECT_OK(cudaFree(device.ptr));
}

void symbols() {
  const Buffer<int> out(4);
  int value = 50;
  EXPECT_OK(cudaMemcpyToSymbol(variable, &value, sizeof value));
  value = 60;
  EXPECT_OK(cudaMemcpyToSymbol(array_variable, &value, sizeof value, 99 * sizeof(int)));
  const int constants[2] = {33, 44};
  EXPECT_OK(cudaMemcpyToSymbol(constant, constants, sizeof constants, 2 * sizeof(int)));
  managed_variable = 8;
  read_variables<<<1, 1>>>(out.get());
  EXPECT_RAN();
  EXPECT(out.download() == (std::vector<int>{50, 60, 44, 8}));
  EXPECT(managed_variable == 70);
  int back = 0;
  EXPECT_OK(cudaMemcpyFromSymbol(&back, variable, sizeof back));
  EXPECT(back == 50);
  EXPECT_OK(cudaMemcpyFromSymbolAsync(&back, constant, sizeof back, 8, cudaMemcpyDeviceToHost, nullptr));
  EXPECT_OK(cudaDeviceSynchronize());
  EXPECT(back == 33);
  void* address;
  size_t bytes;
  EXPECT_OK(cudaGetSymbolAddress(&address, array_variable));
  EXPECT_OK(cudaGetSymbolSize(&bytes, array_variable));
  EXPECT(bytes == sizeof array_variable);
  EXPECT_OK(cudaMemcpy(&back, static_cast<int*>(address) + 99, sizeof back, cudaMemcpyDeviceToHost));
  EXPECT(back == 60);
  EXPECT_OK(cudaGetSymbolAddress(&address, managed_variable));
  EXPECT(address == &managed_variable);
  EXPECT_ERROR(cudaMemcpyToSymbol(variable, &value, 8), cudaErrorInvalidValue);
  EXPECT_ERROR(cudaMemcpyToSymbol(variable, &value, 4, 0, cudaMemcpyDeviceToHost), cudaErrorInvalidMemcpyDirection);
  cudaGetLastError();
}

void host_memory() {
  int* pinned;
  EXPECT_OK(cudaHostAlloc(&pinned, 400, cudaHostAllocMapped | cudaHostAllocWriteCombined));
  int* device_view;
  EXPECT_OK(cudaHostGetDevicePointer(&device_view, pinned, 0));
  for (int i = 0; i < 100; ++i) pinned[i] = i;
  add_all<<<1, 128>>>(device_view, 100, 1000);
  EXPECT_RAN();
  EXPECT(pinned[99] == 1099);
  unsigned flags;
  EXPECT_OK(cudaHostGetFlags(&flags, pinned));
  EXPECT(flags == (cudaHostAllocMapped | cudaHostAllocWriteCombined));
  cudaPointerAttributes attributes;
  EXPECT_OK(cudaPointerGetAttributes(&attributes, pinned + 3));
  EXPECT(attributes.type == cudaMemoryTypeHost && attributes.devicePointer == pinned + 3 &&
         attributes.hostPointer == pinned + 3);
  EXPECT_ERROR(cudaFree(pinned), cudaErrorInvalidValue);
  EXPECT_OK(cudaFreeHost(pinned));

  std::vector<int> own = counting(1000);
  EXPECT_OK(cudaPointerGetAttributes(&attributes, own.data()));
  EXPECT(attributes.type == cudaMemoryTypeUnregistered && attributes.devicePointer == nullptr);
  EXPECT_OK(cudaHostRegister(own.data() + 10, 900 * sizeof(int), cudaHostRegisterMapped));
  EXPECT_ERROR(cudaHostRegister(own.data(), 100, 0), cudaErrorHostMemoryAlreadyRegistered);
  cudaGetLastError();
  EXPECT_OK(cudaHostGetDevicePointer(&device_view, own.data() + 10, 0));
  add_all<<<8, 128>>>(device_view, 900, 5);
  EXPECT_RAN();
  EXPECT(own[9] == 9 && own[10] == 15 && own[909] == 914 && own[910] == 910);
  EXPECT_OK(cudaPointerGetAttributes(&attributes, own.data() + 10));
  EXPECT(attributes.type == cudaMemoryTypeHost);
  EXPECT_OK(cudaHostUnregister(own.data() + 10));
  EXPECT_ERROR(cudaHostUnregister(own.data() + 10), cudaErrorHostMemoryNotRegistered);
  cudaGetLastError();
}

void managed() {
  int* x;
  EXPECT_OK(cudaMallocManaged(&x, 1000 * sizeof(int)));
  for (int i = 0; i < 1000; ++i) x[i] = i;
  const cudaMemLocation device{cudaMemLocationTypeDevice, 0}, host{cudaMemLocationTypeHost, 0};
  EXPECT_OK(cudaMemAdvise(x, 4000, cudaMemAdviseSetReadMostly, device));
  EXPECT_OK(cudaMemAdvise(x, 4000, cudaMemAdviseSetPreferredLocation, host));
  EXPECT_OK(cudaMemPrefetchAsync(x, 4000, device, 0));
  add_all<<<8, 128>>>(x, 1000, 1);
  EXPECT_RAN();
  for (int i = 0; i < 1000; ++i) EXPECT(x[i] == i + 1);
  int answer;
  EXPECT_OK(cudaMemRangeGetAttribute(&answer, sizeof answer, cudaMemRangeAttributeReadMostly, x, 4000));
  EXPECT(answer == 1);
  EXPECT_OK(cudaMemRangeGetAttribute(&answer, sizeof answer, cudaMemRangeAttributePreferredLocation, x, 4000));
  EXPECT(answer == cudaCpuDeviceId);
  EXPECT_OK(cudaMemRangeGetAttribute(&answer, sizeof answer, cudaMemRangeAttributeLastPrefetchLocation, x, 4000));
  EXPECT(answer == 0);
  cudaPointerAttributes attributes;
  EXPECT_OK(cudaPointerGetAttributes(&attributes, x));
  EXPECT(attributes.type == cudaMemoryTypeManaged && attributes.hostPointer == x);
  EXPECT_OK(cudaStreamAttachMemAsync(nullptr, x, 0, cudaMemAttachGlobal));
  EXPECT_ERROR(cudaMemPrefetchAsync(x, 4001, device, 0), cudaErrorInvalidValue);
  cudaGetLastError();
  EXPECT_OK(cudaFree(x));
}

void accounting() {
  size_t before, after, total;
  EXPECT_OK(cudaMemGetInfo(&before, &total));
  EXPECT(total == size_t{81559} << 20);
  void* big;
  EXPECT_OK(cudaMalloc(&big, size_t{40} << 30));  // no page of it exists before it is used
  EXPECT_OK(cudaMemGetInfo(&after, &total));
  EXPECT(before - after == size_t{40} << 30);
  void* more;
  EXPECT_ERROR(cudaMalloc(&more, size_t{40} << 30), cudaErrorMemoryAllocation);
  cudaGetLastError();
  EXPECT_OK(cudaFree(big));
  EXPECT_OK(cudaMemGetInfo(&after, &total));
  EXPECT(before == after);
  cudaPointerAttributes attributes;
  EXPECT_OK(cudaMalloc(&big, 100));
  EXPECT_OK(cudaPointerGetAttributes(&attributes, static_cast<char*>(big) + 99));
  EXPECT(attributes.type == cudaMemoryTypeDevice && attributes.hostPointer == nullptr && attributes.device == 0);
  EXPECT_OK(cudaFree(big));
}

void batches() {
  const Buffer<int> a(counting(64)), b(64);
  cudaStream_t stream;
  EXPECT_OK(cudaStreamCreate(&stream));
  void* to[2] = {b.get(), b.get() + 32};
  const void* from[2] = {a.get() + 32, a.get()};
  size_t sizes[2] = {128, 128};
  cudaMemcpyAttributes attributes{};
  attributes.srcAccessOrder = cudaMemcpySrcAccessOrderStream;
  size_t index = 0;
  EXPECT_OK(cudaMemcpyBatchAsync(to, from, sizes, 2, &attributes, &index, 1, stream));
  EXPECT_OK(cudaStreamSynchronize(stream));
  EXPECT(b.download()[0] == 32 && b.download()[32] == 0 && b.download()[63] == 31);
  EXPECT_OK(cudaStreamDestroy(stream));
}

/// Pageable memory may be changed as soon as an asynchronous copy has returned.
void staging() {
  const Buffer<int> a(counting(1000));
  std::vector<int> host(1000, 1);
  volatile int* gate;
  EXPECT_OK(cudaHostAlloc(const_cast<int**>(&gate), sizeof(int), 0));
  *gate = 0;
  cudaStream_t stream;
  EXPECT_OK(cudaStreamCreate(&stream));
  EXPECT_OK(cudaLaunchHostFunc(
      stream,
      [](void* flag) {
        while (*static_cast<volatile int*>(flag) == 0) std::this_thread::yield();
      },
      const_cast<int*>(gate)));
  EXPECT_OK(cudaMemcpyAsync(a.get(), host.data(), 4000, cudaMemcpyHostToDevice, stream));
  std::fill(host.begin(), host.end(), 2);
  *gate = 1;
  EXPECT_OK(cudaStreamSynchronize(stream));
  EXPECT(a.download() == std::vector<int>(1000, 1));
  // Into pageable memory the copy is complete when the call returns.
  add_all<<<8, 128, 0, stream>>>(a.get(), 1000, 5);
  EXPECT_OK(cudaMemcpyAsync(host.data(), a.get(), 4000, cudaMemcpyDeviceToHost, stream));
  EXPECT(host == std::vector<int>(1000, 6));
  EXPECT_OK(cudaStreamDestroy(stream));
  EXPECT_OK(cudaFreeHost(const_cast<int*>(gate)));
}

int main() {
  flat();
  pitched();
  boxes();
  symbols();
  host_memory();
  managed();
  accounting();
  batches();
  staging();
  return 0;
}
