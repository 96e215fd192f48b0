// Streams run beside each other and in their own order; who waits for whom is what the documentation says.
#include <atomic>
#include <chrono>
#include <thread>

#include "tests/ptxsim/programs/expect.h"

__global__ void wait_for(volatile int* flag, int* after) {
  while (*flag == 0) {
  }
  *after = 1;
}
__global__ void set(volatile int* flag, int value) { *flag = value; }
__global__ void append(int* x, int value) { *x = *x * 10 + value; }

struct Flag {
  Flag() {
    EXPECT_OK(cudaHostAlloc(&value, sizeof(int), cudaHostAllocMapped));
    *value = 0;
  }
  ~Flag() { EXPECT_OK(cudaFreeHost(value)); }
  int read() const { return *static_cast<volatile int*>(value); }
  void write(int to) { *static_cast<volatile int*>(value) = to; }
  int* value;
};

struct Stream {
  explicit Stream(unsigned flags = cudaStreamDefault) { EXPECT_OK(cudaStreamCreateWithFlags(&handle, flags)); }
  ~Stream() { EXPECT_OK(cudaStreamDestroy(handle)); }
  operator cudaStream_t() const { return handle; }
  cudaStream_t handle;
};

void order_within_a_stream() {
  const Stream stream;
  const Buffer<int> x(std::vector<int>{0});
  for (int i = 1; i <= 9; ++i) append<<<1, 1, 0, stream>>>(x.get(), i);
  EXPECT_OK(cudaStreamSynchronize(stream));
  EXPECT(x.download()[0] == 123456789);
}

void a_kernel_waits_for_another_streams() {
  const Stream a(cudaStreamNonBlocking), b(cudaStreamNonBlocking);
  Flag flag, after;
  wait_for<<<1, 1, 0, a>>>(flag.value, after.value);
  EXPECT_ERROR(cudaStreamQuery(a), cudaErrorNotReady);
  EXPECT_ERROR(cudaGetLastError(), cudaErrorNotReady);
  set<<<1, 1, 0, b>>>(flag.value, 1);
  EXPECT_OK(cudaStreamSynchronize(a));
  EXPECT(after.read() == 1);
  EXPECT_OK(cudaStreamQuery(a));
  EXPECT_OK(cudaStreamSynchronize(b));
}

void a_kernel_waits_for_the_host() {
  const Stream stream;
  Flag flag, after;
  wait_for<<<1, 1, 0, stream>>>(flag.value, after.value);
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT(after.read() == 0);
  flag.write(1);
  EXPECT_OK(cudaStreamSynchronize(stream));
  EXPECT(after.read() == 1);
}

/// The legacy default stream waits for blocking streams and they for it; non-blocking streams do neither.
void the_default_stream() {
  const Stream blocking, free_running(cudaStreamNonBlocking);
  Flag flag, after, first, second;
  wait_for<<<1, 1, 0, blocking>>>(flag.value, after.value);
  set<<<1, 1>>>(first.value, 1);
  const Stream other;
  set<<<1, 1, 0, other>>>(second.value, 1);  // behind the default stream, which is behind `blocking`
  Flag third;
  set<<<1, 1, 0, free_running>>>(third.value, 1);
  EXPECT_OK(cudaStreamSynchronize(free_running));
  EXPECT(third.read() == 1);
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  EXPECT(first.read() == 0 && second.read() == 0);
  EXPECT_ERROR(cudaStreamQuery(nullptr), cudaErrorNotReady);
  EXPECT_ERROR(cudaStreamQuery(cudaStreamLegacy), cudaErrorNotReady);
  cudaGetLastError();
  flag.write(1);
  EXPECT_OK(cudaStreamSynchronize(other));
  EXPECT(after.read() == 1 && first.read() == 1 && second.read() == 1);

  // A non-blocking stream that waits holds the default stream up in nothing.
  Flag gate, passed;
  wait_for<<<1, 1, 0, free_running>>>(gate.value, passed.value);
  set<<<1, 1>>>(first.value, 2);
  EXPECT_OK(cudaStreamSynchronize(nullptr));
  EXPECT(first.read() == 2 && passed.read() == 0);
  gate.write(1);
  EXPECT_OK(cudaDeviceSynchronize());
  EXPECT(passed.read() == 1);
}

/// Every thread has a default stream of its own besides.
void per_thread_streams() {
  Flag gate, passed, other;
  wait_for<<<1, 1, 0, cudaStreamPerThread>>>(gate.value, passed.value);
  std::thread([&] {
    set<<<1, 1, 0, cudaStreamPerThread>>>(other.value, 1);
    EXPECT_OK(cudaStreamSynchronize(cudaStreamPerThread));
  }).join();
  EXPECT(other.read() == 1 && passed.read() == 0);
  gate.write(1);
  EXPECT_OK(cudaStreamSynchronize(cudaStreamPerThread));
  EXPECT(passed.read() == 1);
}

struct Gate {
  std::atomic<bool> open{false};
  std::atomic<int> passed{0};
};

/// Host functions come in the stream's order and may wait for the program; other streams go on meanwhile.
void host_functions() {
  const Stream a, b(cudaStreamNonBlocking);
  const Buffer<int> x(std::vector<int>{0});
  Gate gate;
  append<<<1, 1, 0, a>>>(x.get(), 1);
  EXPECT_OK(cudaLaunchHostFunc(
      a,
      [](void* data) {
        auto* g = static_cast<Gate*>(data);
        while (!g->open) std::this_thread::yield();
        ++g->passed;
      },
      &gate));
  append<<<1, 1, 0, a>>>(x.get(), 2);
  Flag flag;
  set<<<1, 1, 0, b>>>(flag.value, 1);
  EXPECT_OK(cudaStreamSynchronize(b));
  EXPECT(flag.read() == 1 && gate.passed == 0);
  EXPECT_ERROR(cudaStreamQuery(a), cudaErrorNotReady);
  cudaGetLastError();
  gate.open = true;
  EXPECT_OK(cudaStreamSynchronize(a));
  EXPECT(gate.passed == 1 && x.download()[0] == 12);

  struct Call {
    cudaStream_t stream = nullptr;
    cudaError_t status = cudaErrorUnknown;
  } seen;
  EXPECT_OK(cudaStreamAddCallback(
      a,
      [](cudaStream_t stream, cudaError_t status, void* data) {
        *static_cast<Call*>(data) = {stream, status};
      },
      &seen, 0));
  EXPECT_OK(cudaStreamSynchronize(a));
  EXPECT(seen.stream == a.handle && seen.status == cudaSuccess);
  EXPECT_ERROR(cudaStreamAddCallback(a, nullptr, nullptr, 0), cudaErrorInvalidValue);
  EXPECT_ERROR(cudaLaunchHostFunc(a, nullptr, nullptr), cudaErrorInvalidValue);
  cudaGetLastError();
}

/// More waiting host functions than the machine has processors.
void many_streams() {
  constexpr int kCount = 40;
  std::vector<cudaStream_t> streams(kCount);
  Gate gate;
  for (cudaStream_t& stream : streams) {
    EXPECT_OK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    EXPECT_OK(cudaLaunchHostFunc(
        stream,
        [](void* data) {
          auto* g = static_cast<Gate*>(data);
          ++g->passed;
          while (!g->open) std::this_thread::yield();
        },
        &gate));
  }
  while (gate.passed < kCount) std::this_thread::yield();  // all of them at once
  gate.open = true;
  for (const cudaStream_t stream : streams) EXPECT_OK(cudaStreamDestroy(stream));
  EXPECT_OK(cudaDeviceSynchronize());
}

void properties() {
  int least, greatest, priority;
  EXPECT_OK(cudaDeviceGetStreamPriorityRange(&least, &greatest));
  EXPECT(least == 0 && greatest == -5);
  cudaStream_t stream;
  EXPECT_OK(cudaStreamCreateWithPriority(&stream, cudaStreamNonBlocking, -3));
  EXPECT_OK(cudaStreamGetPriority(stream, &priority));
  EXPECT(priority == -3);
  unsigned flags;
  EXPECT_OK(cudaStreamGetFlags(stream, &flags));
  EXPECT(flags == cudaStreamNonBlocking);
  unsigned long long id, default_id;
  EXPECT_OK(cudaStreamGetId(stream, &id));
  EXPECT_OK(cudaStreamGetId(nullptr, &default_id));
  EXPECT(id != default_id);
  int device = -1;
  EXPECT_OK(cudaStreamGetDevice(stream, &device));
  EXPECT(device == 0);
  cudaStreamAttrValue value{};
  value.syncPolicy = cudaSyncPolicyYield;
  EXPECT_OK(cudaStreamSetAttribute(stream, cudaStreamAttributeSynchronizationPolicy, &value));
  value = {};
  EXPECT_OK(cudaStreamGetAttribute(stream, cudaStreamAttributeSynchronizationPolicy, &value));
  EXPECT(value.syncPolicy == cudaSyncPolicyYield);
  EXPECT_ERROR(cudaStreamSetAttribute(stream, cudaLaunchAttributeCooperative, &value), cudaErrorInvalidValue);
  cudaGetLastError();
  EXPECT_OK(cudaStreamDestroy(stream));
}

/// A destroyed stream finishes its work.
void destruction() {
  Flag flag, after;
  cudaStream_t stream;
  EXPECT_OK(cudaStreamCreate(&stream));
  wait_for<<<1, 1, 0, stream>>>(flag.value, after.value);
  EXPECT_OK(cudaStreamDestroy(stream));
  EXPECT(after.read() == 0);
  flag.write(1);
  EXPECT_OK(cudaDeviceSynchronize());
  EXPECT(after.read() == 1);
}

int main() {
  order_within_a_stream();
  a_kernel_waits_for_another_streams();
  a_kernel_waits_for_the_host();
  the_default_stream();
  per_thread_streams();
  host_functions();
  many_streams();
  properties();
  destruction();
  return 0;
}
