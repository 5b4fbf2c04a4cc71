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

}  // namespace

DriverCalls DriverCalls::found() {
  DriverCalls calls;
  find("cuMemAddressReserve", calls.reserve);
  find("cuMemAddressFree", calls.free_address);
  find("cuMemCreate", calls.create);
  find("cuMemRelease", calls.release);
  find("cuMemMap", calls.map);
  find("cuMemUnmap", calls.unmap);
  find("cuMemSetAccess", calls.set_access);
  return calls;
}

DeviceSegments::DeviceSegments(int index, size_t bytes)
    : driver_(DriverCalls::found()), index_(index), reserved_((bytes + kPage - 1) / kPage * kPage) {
  CUdeviceptr place = 0;
  check(driver_.reserve(&place, 2 * reserved_, kPage, 0, 0) == CUDA_SUCCESS,
        "[cuda] cannot reserve addresses for ", bytes, " bytes");
  large_ = place;
  small_ = next_small_ = place + reserved_;
}

char* DeviceSegments::map(char* wish, size_t bytes) {
  const auto asked = reinterpret_cast<uintptr_t>(wish);
  const uintptr_t place = asked == 0 ? next_small_ : asked;
  const uintptr_t end = place >= small_ ? small_ + reserved_ : small_;
  if (bytes > end - place || !map_at(reinterpret_cast<char*>(place), bytes)) return nullptr;
  if (place >= small_) next_small_ = place + bytes;
  return reinterpret_cast<char*>(place);
}

bool DeviceSegments::map_at(char* place, size_t bytes) {
  CUmemAllocationProp what = {};
  what.type = CU_MEM_ALLOCATION_TYPE_PINNED;
  what.location = {CU_MEM_LOCATION_TYPE_DEVICE, index_};
  CUmemGenericAllocationHandle memory;
  if (driver_.create(&memory, bytes, &what, 0) != CUDA_SUCCESS) return false;
  const auto address = reinterpret_cast<CUdeviceptr>(place);
  const bool is_mapped = driver_.map(address, bytes, 0, memory, 0) == CUDA_SUCCESS;
  driver_.release(memory);  // the mapping keeps it
  if (!is_mapped) return false;
  const CUmemAccessDesc access = {what.location, CU_MEM_ACCESS_FLAGS_PROT_READWRITE};
  if (driver_.set_access(address, bytes, &access, 1) == CUDA_SUCCESS) return true;
  driver_.unmap(address, bytes);
  return false;
}

void DeviceSegments::unmap(char* segment, size_t bytes) noexcept {
  cudaDeviceSynchronize();  // kernels that were asked for before may still use it
  driver_.unmap(reinterpret_cast<CUdeviceptr>(segment), bytes);
}

}  // namespace regla::cuda
