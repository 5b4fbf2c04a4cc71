#include <algorithm>
#include <iterator>

#include "backends/cuda/context.h"
#include "backends/cuda/segments.h"
#include "core/check.h"

namespace regla::cuda {
namespace {

/// A heap asks for segments in steps of 2 MB, which is what the driver maps.
constexpr size_t kPage = size_t{2} << 20;

template <class Call>
void find(const char* name, Call& call) {
  void* address = nullptr;
  cudaDriverEntryPointQueryResult result;
  constexpr int kVersion = 12000;
#if CUDART_VERSION >= 12050
  const cudaError_t status =
      cudaGetDriverEntryPointByVersion(name, &address, kVersion, cudaEnableDefault, &result);
#else
  const cudaError_t status = cudaGetDriverEntryPoint(name, &address, cudaEnableDefault, &result);
  static_cast<void>(kVersion);
#endif
  require(status, name);
  check(result == cudaDriverEntryPointSuccess && address != nullptr, "[cuda] the driver has no ",
        name, ": it is too old for this program");
  call = reinterpret_cast<Call>(address);
}

std::optional<size_t> free_bytes(int index) {
  size_t free = 0, total = 0;
  cudaSetDevice(index);
  if (cudaMemGetInfo(&free, &total) != cudaSuccess) return std::nullopt;
  return free;
}

}  // namespace

DriverCalls DriverCalls::found() {
  DriverCalls calls;
  find("cuMemAddressReserve", calls.reserve);
  find("cuMemCreate", calls.create);
  find("cuMemRelease", calls.release);
  find("cuMemMap", calls.map);
  find("cuMemUnmap", calls.unmap);
  find("cuMemSetAccess", calls.set_access);
  return calls;
}

DeviceSegments::DeviceSegments(int index, size_t bytes)
    : driver_(DriverCalls::found()), index_(index), size_((bytes + kPage - 1) / kPage * kPage) {}

char* DeviceSegments::map(char* wish, size_t bytes) {
  auto place = reinterpret_cast<uintptr_t>(wish);
  auto stretch = stretch_of(place);
  if (wish == nullptr || stretch == stretches_.end() || stretch->first + size_ < place + bytes) {
    stretch = unused_stretch();
    if (stretch == stretches_.end() || bytes > size_) return nullptr;
    place = stretch->first;
  }
  if (!map_at(place, bytes)) return nullptr;
  stretch->second += bytes;
  return reinterpret_cast<char*>(place);
}

void DeviceSegments::unmap(char* segment, size_t bytes) noexcept {
  cudaDeviceSynchronize();  // kernels that were asked for before may still use it
  const auto place = reinterpret_cast<uintptr_t>(segment);
  driver_.unmap(place, bytes);
  stretch_of(place)->second -= bytes;
}

std::optional<size_t> DeviceSegments::available() const { return free_bytes(index_); }

DeviceSegments::Stretches::iterator DeviceSegments::stretch_of(uintptr_t address) {
  const auto after = stretches_.upper_bound(address);
  if (after == stretches_.begin()) return stretches_.end();
  const auto found = std::prev(after);
  return address <= found->first + size_ ? found : stretches_.end();
}

DeviceSegments::Stretches::iterator DeviceSegments::unused_stretch() {
  const auto is_unused = [](const auto& stretch) { return stretch.second == 0; };
  const auto found = std::find_if(stretches_.begin(), stretches_.end(), is_unused);
  if (found != stretches_.end()) return found;
  CUdeviceptr place = 0;
  if (driver_.reserve(&place, size_, kPage, 0, 0) != CUDA_SUCCESS) return stretches_.end();
  return stretches_.emplace(place, 0).first;
}

bool DeviceSegments::map_at(uintptr_t place, size_t bytes) {
  CUmemAllocationProp what = {};
  what.type = CU_MEM_ALLOCATION_TYPE_PINNED;
  what.location = {CU_MEM_LOCATION_TYPE_DEVICE, index_};
  CUmemGenericAllocationHandle memory;
  if (driver_.create(&memory, bytes, &what, 0) != CUDA_SUCCESS) return false;
  const bool is_mapped = driver_.map(place, bytes, 0, memory, 0) == CUDA_SUCCESS;
  driver_.release(memory);  // the mapping keeps it
  if (!is_mapped) return false;
  const CUmemAccessDesc access = {what.location, CU_MEM_ACCESS_FLAGS_PROT_READWRITE};
  if (driver_.set_access(place, bytes, &access, 1) == CUDA_SUCCESS) return true;
  driver_.unmap(place, bytes);
  return false;
}

char* WatchedSegments::map(char*, size_t bytes) {
  void* memory = nullptr;
  cudaSetDevice(index_);
  if (cudaMalloc(&memory, bytes) == cudaSuccess) return static_cast<char*>(memory);
  static_cast<void>(cudaGetLastError());  // or the next launch would report it
  return nullptr;
}

void WatchedSegments::unmap(char* segment, size_t) noexcept { cudaFree(segment); }

std::optional<size_t> WatchedSegments::available() const { return free_bytes(index_); }

}  // namespace regla::cuda
