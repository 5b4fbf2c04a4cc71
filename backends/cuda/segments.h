#pragma once

#include <cuda.h>

#include <cstdint>

#include "core/segment_source.h"

namespace regla::cuda {

/// The driver's calls for memory at an address of one's choice. They are looked up when the first
/// GPU is opened, so that a program that links this starts where there is no driver.
struct DriverCalls {
  decltype(&cuMemAddressReserve) reserve;
  decltype(&cuMemAddressFree) free_address;
  decltype(&cuMemCreate) create;
  decltype(&cuMemRelease) release;
  decltype(&cuMemMap) map;
  decltype(&cuMemUnmap) unmap;
  decltype(&cuMemSetAccess) set_access;

  static DriverCalls found();
};

/// Segments of a GPU's memory. Each begins where the one before ends, so that a heap's free blocks
/// join: a stretch of addresses as large as the GPU's memory is reserved for each heap in advance.
class DeviceSegments : public SegmentSource {
 public:
  /// Of GPU `index`, which has `bytes` of memory.
  DeviceSegments(int index, size_t bytes);

  char* map(char* wish, size_t bytes) override;
  void unmap(char* segment, size_t bytes) noexcept override;

  /// Where the large blocks' segments begin; those of small ones begin behind.
  uintptr_t large_place() const { return large_; }

 private:
  bool map_at(char* place, size_t bytes);

  DriverCalls driver_;
  int index_;
  size_t reserved_;
  uintptr_t large_, small_, next_small_;
};

}  // namespace regla::cuda
