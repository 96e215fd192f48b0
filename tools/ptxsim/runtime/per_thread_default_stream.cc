// Here deprecated calls are called, too.
#define CUDA_ENABLE_DEPRECATED
#include "tools/ptxsim/runtime/call.h"

/// The entry points of programs compiled with --default-stream per-thread: the same calls, while the null stream means
/// the calling thread's own.
#define PER_THREAD(name, suffix, parameters, arguments) \
  cudaError_t name##suffix parameters {                 \
    const PerThreadDefaultStream own;                   \
    return name arguments;                              \
  }

namespace ptxsim::runtime {

#pragma GCC visibility push(default)
extern "C" {

PER_THREAD(cudaEventRecordWithFlags, _ptsz, (cudaEvent_t event, cudaStream_t stream, unsigned flags),
           (event, stream, flags))
PER_THREAD(cudaEventRecord, _ptsz, (cudaEvent_t event, cudaStream_t stream), (event, stream))
PER_THREAD(cudaFreeAsync, _ptsz, (void* devPtr, cudaStream_t hStream), (devPtr, hStream))
PER_THREAD(cudaGetDriverEntryPointByVersion, _ptsz,
           (const char* symbol, void** funcPtr, unsigned cudaVersion, unsigned long long flags,
            cudaDriverEntryPointQueryResult* driverStatus),
           (symbol, funcPtr, cudaVersion, flags, driverStatus))
PER_THREAD(cudaGetDriverEntryPoint, _ptsz,
           (const char* symbol, void** funcPtr, unsigned long long flags,
            cudaDriverEntryPointQueryResult* driverStatus),
           (symbol, funcPtr, flags, driverStatus))
PER_THREAD(cudaGraphInstantiateWithParams, _ptsz,
           (cudaGraphExec_t * pGraphExec, cudaGraph_t graph, cudaGraphInstantiateParams* instantiateParams),
           (pGraphExec, graph, instantiateParams))
PER_THREAD(cudaGraphLaunch, _ptsz, (cudaGraphExec_t graphExec, cudaStream_t stream), (graphExec, stream))
PER_THREAD(cudaGraphUpload, _ptsz, (cudaGraphExec_t graphExec, cudaStream_t stream), (graphExec, stream))
PER_THREAD(cudaLaunchCooperativeKernel, _ptsz,
           (const void* func, dim3 gridDim, dim3 blockDim, void** args, size_t sharedMem, cudaStream_t stream),
           (func, gridDim, blockDim, args, sharedMem, stream))
PER_THREAD(cudaLaunchHostFunc, _ptsz, (cudaStream_t stream, cudaHostFn_t fn, void* userData), (stream, fn, userData))
PER_THREAD(cudaLaunchKernelExC, _ptsz, (const cudaLaunchConfig_t* config, const void* func, void** args),
           (config, func, args))
PER_THREAD(cudaLaunchKernel, _ptsz,
           (const void* func, dim3 gridDim, dim3 blockDim, void** args, size_t sharedMem, cudaStream_t stream),
           (func, gridDim, blockDim, args, sharedMem, stream))
PER_THREAD(cudaMallocAsync, _ptsz, (void** devPtr, size_t size, cudaStream_t hStream), (devPtr, size, hStream))
PER_THREAD(cudaMallocFromPoolAsync, _ptsz, (void** ptr, size_t size, cudaMemPool_t memPool, cudaStream_t stream),
           (ptr, size, memPool, stream))
PER_THREAD(cudaMemDiscardAndPrefetchBatchAsync, _ptsz,
           (void** dptrs, size_t* sizes, size_t count, cudaMemLocation* prefetchLocs, size_t* prefetchLocIdxs,
            size_t numPrefetchLocs, unsigned long long flags, cudaStream_t stream),
           (dptrs, sizes, count, prefetchLocs, prefetchLocIdxs, numPrefetchLocs, flags, stream))
PER_THREAD(cudaMemDiscardBatchAsync, _ptsz,
           (void** dptrs, size_t* sizes, size_t count, unsigned long long flags, cudaStream_t stream),
           (dptrs, sizes, count, flags, stream))
PER_THREAD(cudaMemPrefetchAsync, _ptsz,
           (const void* devPtr, size_t count, cudaMemLocation location, unsigned flags, cudaStream_t stream),
           (devPtr, count, location, flags, stream))
PER_THREAD(cudaMemPrefetchBatchAsync, _ptsz,
           (void** dptrs, size_t* sizes, size_t count, cudaMemLocation* prefetchLocs, size_t* prefetchLocIdxs,
            size_t numPrefetchLocs, unsigned long long flags, cudaStream_t stream),
           (dptrs, sizes, count, prefetchLocs, prefetchLocIdxs, numPrefetchLocs, flags, stream))
PER_THREAD(cudaMemcpy2DAsync, _ptsz,
           (void* dst, size_t dpitch, const void* src, size_t spitch, size_t width, size_t height, cudaMemcpyKind kind,
            cudaStream_t stream),
           (dst, dpitch, src, spitch, width, height, kind, stream))
PER_THREAD(cudaMemcpy2D, _ptds,
           (void* dst, size_t dpitch, const void* src, size_t spitch, size_t width, size_t height, cudaMemcpyKind kind),
           (dst, dpitch, src, spitch, width, height, kind))
PER_THREAD(cudaMemcpy3DAsync, _ptsz, (const cudaMemcpy3DParms* p, cudaStream_t stream), (p, stream))
PER_THREAD(cudaMemcpy3DBatchAsync, _ptsz,
           (size_t numOps, cudaMemcpy3DBatchOp* opList, unsigned long long flags, cudaStream_t stream),
           (numOps, opList, flags, stream))
PER_THREAD(cudaMemcpy3DPeerAsync, _ptsz, (const cudaMemcpy3DPeerParms* p, cudaStream_t stream), (p, stream))
PER_THREAD(cudaMemcpy3DPeer, _ptds, (const cudaMemcpy3DPeerParms* p), (p))
PER_THREAD(cudaMemcpy3D, _ptds, (const cudaMemcpy3DParms* p), (p))
PER_THREAD(cudaMemcpyAsync, _ptsz, (void* dst, const void* src, size_t count, cudaMemcpyKind kind, cudaStream_t stream),
           (dst, src, count, kind, stream))
PER_THREAD(cudaMemcpyBatchAsync, _ptsz,
           (void* const* dsts, const void* const* srcs, const size_t* sizes, size_t count, cudaMemcpyAttributes* attrs,
            size_t* attrsIdxs, size_t numAttrs, cudaStream_t stream),
           (dsts, srcs, sizes, count, attrs, attrsIdxs, numAttrs, stream))
PER_THREAD(cudaMemcpyFromSymbolAsync, _ptsz,
           (void* dst, const void* symbol, size_t count, size_t offset, cudaMemcpyKind kind, cudaStream_t stream),
           (dst, symbol, count, offset, kind, stream))
PER_THREAD(cudaMemcpyFromSymbol, _ptds,
           (void* dst, const void* symbol, size_t count, size_t offset, cudaMemcpyKind kind),
           (dst, symbol, count, offset, kind))
PER_THREAD(cudaMemcpyToSymbolAsync, _ptsz,
           (const void* symbol, const void* src, size_t count, size_t offset, cudaMemcpyKind kind, cudaStream_t stream),
           (symbol, src, count, offset, kind, stream))
PER_THREAD(cudaMemcpyToSymbol, _ptds,
           (const void* symbol, const void* src, size_t count, size_t offset, cudaMemcpyKind kind),
           (symbol, src, count, offset, kind))
PER_THREAD(cudaMemcpy, _ptds, (void* dst, const void* src, size_t count, cudaMemcpyKind kind), (dst, src, count, kind))
PER_THREAD(cudaMemset2DAsync, _ptsz,
           (void* devPtr, size_t pitch, int value, size_t width, size_t height, cudaStream_t stream),
           (devPtr, pitch, value, width, height, stream))
PER_THREAD(cudaMemset2D, _ptds, (void* devPtr, size_t pitch, int value, size_t width, size_t height),
           (devPtr, pitch, value, width, height))
PER_THREAD(cudaMemset3DAsync, _ptsz, (cudaPitchedPtr pitchedDevPtr, int value, cudaExtent extent, cudaStream_t stream),
           (pitchedDevPtr, value, extent, stream))
PER_THREAD(cudaMemset3D, _ptds, (cudaPitchedPtr pitchedDevPtr, int value, cudaExtent extent),
           (pitchedDevPtr, value, extent))
PER_THREAD(cudaMemsetAsync, _ptsz, (void* devPtr, int value, size_t count, cudaStream_t stream),
           (devPtr, value, count, stream))
PER_THREAD(cudaMemset, _ptds, (void* devPtr, int value, size_t count), (devPtr, value, count))
PER_THREAD(cudaStreamAddCallback, _ptsz,
           (cudaStream_t stream, cudaStreamCallback_t callback, void* userData, unsigned flags),
           (stream, callback, userData, flags))
PER_THREAD(cudaStreamAttachMemAsync, _ptsz, (cudaStream_t stream, void* devPtr, size_t length, unsigned flags),
           (stream, devPtr, length, flags))
PER_THREAD(cudaStreamBeginCaptureToGraph, _ptsz,
           (cudaStream_t stream, cudaGraph_t graph, const cudaGraphNode_t* dependencies,
            const cudaGraphEdgeData* dependencyData, size_t numDependencies, cudaStreamCaptureMode mode),
           (stream, graph, dependencies, dependencyData, numDependencies, mode))
PER_THREAD(cudaStreamBeginCapture, _ptsz, (cudaStream_t stream, cudaStreamCaptureMode mode), (stream, mode))
PER_THREAD(cudaStreamCopyAttributes, _ptsz, (cudaStream_t dst, cudaStream_t src), (dst, src))
PER_THREAD(cudaStreamEndCapture, _ptsz, (cudaStream_t stream, cudaGraph_t* pGraph), (stream, pGraph))
PER_THREAD(cudaStreamGetAttribute, _ptsz, (cudaStream_t hStream, cudaStreamAttrID attr, cudaStreamAttrValue* value_out),
           (hStream, attr, value_out))
PER_THREAD(cudaStreamGetCaptureInfo, _ptsz,
           (cudaStream_t stream, cudaStreamCaptureStatus* captureStatus_out, unsigned long long* id_out,
            cudaGraph_t* graph_out, const cudaGraphNode_t** dependencies_out, const cudaGraphEdgeData** edgeData_out,
            size_t* numDependencies_out),
           (stream, captureStatus_out, id_out, graph_out, dependencies_out, edgeData_out, numDependencies_out))
PER_THREAD(cudaStreamGetDevice, _ptsz, (cudaStream_t hStream, int* device), (hStream, device))
PER_THREAD(cudaStreamGetFlags, _ptsz, (cudaStream_t hStream, unsigned* flags), (hStream, flags))
PER_THREAD(cudaStreamGetId, _ptsz, (cudaStream_t hStream, unsigned long long* streamId), (hStream, streamId))
PER_THREAD(cudaStreamGetPriority, _ptsz, (cudaStream_t hStream, int* priority), (hStream, priority))
PER_THREAD(cudaStreamIsCapturing, _ptsz, (cudaStream_t stream, cudaStreamCaptureStatus* pCaptureStatus),
           (stream, pCaptureStatus))
PER_THREAD(cudaStreamQuery, _ptsz, (cudaStream_t stream), (stream))
PER_THREAD(cudaStreamSetAttribute, _ptsz,
           (cudaStream_t hStream, cudaStreamAttrID attr, const cudaStreamAttrValue* value), (hStream, attr, value))
PER_THREAD(cudaStreamSynchronize, _ptsz, (cudaStream_t stream), (stream))
PER_THREAD(cudaStreamUpdateCaptureDependencies, _ptsz,
           (cudaStream_t stream, cudaGraphNode_t* dependencies, const cudaGraphEdgeData* dependencyData,
            size_t numDependencies, unsigned flags),
           (stream, dependencies, dependencyData, numDependencies, flags))
PER_THREAD(cudaStreamWaitEvent, _ptsz, (cudaStream_t stream, cudaEvent_t event, unsigned flags), (stream, event, flags))

}  // extern "C"
#pragma GCC visibility pop
}  // namespace ptxsim::runtime
