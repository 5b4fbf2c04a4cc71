#pragma once

#include <cublasLt.h>
#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

#include "core/device.h"
#include "core/tensor.h"

namespace regla::cuda {

/// What the kernels of one GPU share. All work of a device is in the order of its one stream: that
/// is why memory may be handed out again as soon as the host lets go of it.
struct Context {
  Device device;
  cudaStream_t stream;
  cublasLtHandle_t products;
  void* workspace;  // of the products
  size_t workspace_bytes;
  int multiprocessors;
  bool allows_tf32;      // backends/backend.h
  bool chains_launches;  // chained.cuh: sm_90 and later
};

/// The context of a GPU that was opened.
const Context& context(Device device);
inline const Context& context(const Tensor& output) { return context(output.device()); }

/// An Error that says what was being done, unless the call succeeded.
void require(cudaError_t status, const char* doing);
void require(cublasStatus_t status, const char* doing);
/// The same for a kernel that was just launched.
void require_launched(const char* kernel);

}  // namespace regla::cuda
