// Events: places in streams, edges between them, and times.
#include <chrono>
#include <thread>

#include "tests/ptxsim/programs/expect.h"

__global__ void append(int* x, int value) { *x = *x * 10 + value; }

void sleep_a_while(void*) { std::this_thread::sleep_for(std::chrono::milliseconds(30)); }

int main() {
  cudaStream_t a, b;
  EXPECT_OK(cudaStreamCreateWithFlags(&a, cudaStreamNonBlocking));
  EXPECT_OK(cudaStreamCreateWithFlags(&b, cudaStreamNonBlocking));
  cudaEvent_t start, end, untimed;
  EXPECT_OK(cudaEventCreate(&start));
  EXPECT_OK(cudaEventCreateWithFlags(&end, cudaEventBlockingSync));
  EXPECT_OK(cudaEventCreateWithFlags(&untimed, cudaEventDisableTiming));

  // Never recorded: complete, and without a time.
  float milliseconds = -1;
  EXPECT_OK(cudaEventQuery(start));
  EXPECT_OK(cudaEventSynchronize(start));
  EXPECT_OK(cudaStreamWaitEvent(a, start));
  EXPECT_ERROR(cudaEventElapsedTime(&milliseconds, start, end), cudaErrorInvalidResourceHandle);

  EXPECT_OK(cudaEventRecord(start, a));
  EXPECT_OK(cudaLaunchHostFunc(a, sleep_a_while, nullptr));
  EXPECT_OK(cudaEventRecord(end, a));
  EXPECT_ERROR(cudaEventQuery(end), cudaErrorNotReady);
  EXPECT_ERROR(cudaEventElapsedTime(&milliseconds, start, end), cudaErrorNotReady);
  EXPECT_OK(cudaEventSynchronize(end));
  EXPECT_OK(cudaEventQuery(end));
  EXPECT_OK(cudaEventElapsedTime(&milliseconds, start, end));
  EXPECT(milliseconds >= 30 && milliseconds < 30000);
  float back = 0;
  EXPECT_OK(cudaEventElapsedTime(&back, end, start));
  EXPECT(back == -milliseconds);

  EXPECT_OK(cudaEventRecord(untimed, a));
  EXPECT_OK(cudaStreamSynchronize(a));
  EXPECT_ERROR(cudaEventElapsedTime(&milliseconds, start, untimed), cudaErrorInvalidResourceHandle);

  // An edge from one stream to another. What the event meant when the wait was asked for counts.
  const Buffer<int> x(std::vector<int>{0});
  EXPECT_OK(cudaLaunchHostFunc(a, sleep_a_while, nullptr));
  append<<<1, 1, 0, a>>>(x.get(), 1);
  EXPECT_OK(cudaEventRecord(untimed, a));
  EXPECT_OK(cudaStreamWaitEvent(b, untimed));
  append<<<1, 1, 0, b>>>(x.get(), 2);
  EXPECT_OK(cudaEventRecord(untimed, b));
  EXPECT_OK(cudaStreamWaitEvent(a, untimed, cudaEventWaitDefault));
  EXPECT_OK(cudaEventRecord(untimed, a));
  append<<<1, 1, 0, a>>>(x.get(), 3);
  EXPECT_OK(cudaStreamSynchronize(a));
  EXPECT(x.download()[0] == 123);

  // A destroyed event still orders.
  cudaEvent_t brief;
  EXPECT_OK(cudaEventCreate(&brief));
  EXPECT_OK(cudaLaunchHostFunc(a, sleep_a_while, nullptr));
  append<<<1, 1, 0, a>>>(x.get(), 4);
  EXPECT_OK(cudaEventRecord(brief, a));
  EXPECT_OK(cudaStreamWaitEvent(b, brief));
  EXPECT_OK(cudaEventDestroy(brief));
  append<<<1, 1, 0, b>>>(x.get(), 5);
  EXPECT_OK(cudaStreamSynchronize(b));
  EXPECT(x.download()[0] == 12345);

  EXPECT_ERROR(cudaStreamWaitEvent(a, untimed, 0x80), cudaErrorInvalidValue);
  EXPECT_ERROR(cudaStreamWaitEvent(a, nullptr), cudaErrorInvalidResourceHandle);
  EXPECT_ERROR(cudaEventRecordWithFlags(untimed, a, cudaEventRecordExternal), cudaErrorIllegalState);
  cudaGetLastError();
  EXPECT_OK(cudaEventDestroy(start));
  EXPECT_OK(cudaEventDestroy(end));
  EXPECT_OK(cudaEventDestroy(untimed));
  EXPECT_OK(cudaStreamDestroy(a));
  EXPECT_OK(cudaStreamDestroy(b));
  return 0;
}
