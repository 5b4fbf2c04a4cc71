#include <map>
#include <memory>
#include <mutex>
#include <string>

#include "backends/backend.h"
#include "backends/cuda/clock.h"
#include "backends/cuda/context.h"
#include "backends/cuda/kernels.h"
#include "backends/cuda/memory.h"
#include "backends/cuda/routine.h"
#include "core/check.h"

namespace regla::cuda {
namespace {

/// What cuBLASLt may use beside a product; more than this speeds up nothing on Hopper.
constexpr size_t kWorkspaceBytes = size_t{32} << 20;

std::map<Device, Context>& contexts() {
  static auto& opened = *new std::map<Device, Context>;
  return opened;
}

Context make_context(Device device) {
  require(cudaSetDevice(device.index), "select the GPU");
  Context on{.device = device,
             .stream = nullptr,
             .products = nullptr,
             .workspace = nullptr,
             .workspace_bytes = kWorkspaceBytes,
             .multiprocessors = 0,
             .allows_tf32 = false,
             .chains_launches = false};
  require(cudaStreamCreateWithFlags(&on.stream, cudaStreamNonBlocking), "make a stream");
  require(cublasLtCreate(&on.products), "start cuBLASLt");
  require(cudaMalloc(&on.workspace, kWorkspaceBytes), "allocate the workspace of products");
  require(cudaDeviceGetAttribute(&on.multiprocessors, cudaDevAttrMultiProcessorCount, device.index),
          "count multiprocessors");
  int major = 0;
  require(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device.index),
          "ask what the GPU can do");
  on.chains_launches = major >= 9;
  return on;
}

}  // namespace

const Context& context(Device device) { return contexts().at(device); }

void require(cudaError_t status, const char* doing) {
  check(status == cudaSuccess, "[cuda] cannot ", doing, ": ", cudaGetErrorString(status));
}

void require(cublasStatus_t status, const char* doing) {
  check(status == CUBLAS_STATUS_SUCCESS, "[cuda] cannot ", doing, ": ",
        cublasLtGetStatusString(status));
}

void require_launched(const char* kernel) {
  const cudaError_t status = cudaGetLastError();
  check(status == cudaSuccess, "[cuda] cannot launch ", kernel, ": ", cudaGetErrorString(status));
}

namespace {

std::string version_text(int version) {
  return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

/// Why nobody says how many GPUs there are.
std::string reason_of(cudaError_t status) {
  int driver = 0;
  const bool is_driver = status == cudaErrorInsufficientDriver || status == cudaErrorNoDevice;
  if (!is_driver || cudaDriverGetVersion(&driver) != cudaSuccess) return cudaGetErrorString(status);
  if (driver == 0) return "there is no NVIDIA driver";
  if (status == cudaErrorNoDevice) return "the driver sees no GPU";
  return "the driver knows CUDA " + version_text(driver) + " at most, and this build needs " +
         version_text(CUDART_VERSION / 1000 * 1000);
}

}  // namespace

void install(Device device);

void install(Device device) {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  check(status == cudaSuccess && count > 0, "[device] no ", device.text(),
        " here: ", reason_of(status == cudaSuccess ? cudaErrorNoDevice : status));
  check(device.index < count, "[device] no ", device.text(),
        " here: the last one is cuda:", count - 1);
  const auto [place, is_new] = contexts().try_emplace(device, make_context(device));
  Context& on = place->second;
  cudaDeviceProp properties;
  require(cudaGetDeviceProperties(&properties, device.index), "ask for the GPU's name");
  install_backend(device, {.memory = make_memory(on),
                           .kernels = &kTable,
                           .make_replay = [&on] { return make_replay(on); },
                           .allow_tf32 = [&on](bool allowed) { on.allows_tf32 = allowed; },
                           .model = properties.name,
                           .make_clock = [&on] { return make_clock(on); }});
}

}  // namespace regla::cuda
