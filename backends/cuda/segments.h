#pragma once

#include <cuda.h>

#include <cstdint>
#include <map>

#include "core/segment_source.h"

namespace regla::cuda {

/// The driver's calls for memory at an address of one's choice. They are looked up when the first
/// GPU is opened, so that a program that links this starts where there is no driver.
struct DriverCalls {
  decltype(&cuMemAddressReserve) reserve;
  decltype(&cuMemCreate) create;
  decltype(&cuMemRelease) release;
  decltype(&cuMemMap) map;
  decltype(&cuMemUnmap) unmap;
  decltype(&cuMemSetAccess) set_access;

  static DriverCalls found();
};

/// Segments of a GPU's memory. Each heap's begin where the one before ends, so that free blocks
/// join: whoever has no wish gets the beginning of a stretch of addresses as large as the GPU's
/// memory, which costs nothing until memory is mapped there.
class DeviceSegments : public SegmentSource {
 public:
  /// Of GPU `index`, which has `bytes` of memory.
  DeviceSegments(int index, size_t bytes);

  char* map(char* wish, size_t bytes) override;
  void unmap(char* segment, size_t bytes) noexcept override;
  std::optional<size_t> available() const override;

 private:
  using Stretches = std::map<uintptr_t, size_t>;  // begin, bytes mapped
  /// The stretch that an address lies in or ends; the end where there is none.
  Stretches::iterator stretch_of(uintptr_t address);
  Stretches::iterator unused_stretch();
  bool map_at(uintptr_t place, size_t bytes);

  DriverCalls driver_;
  int index_;
  size_t size_;  // of a stretch
  Stretches stretches_;
};

/// Every tensor an allocation of its own, whose bounds and contents compute-sanitizer watches.
class WatchedSegments : public SegmentSource {
 public:
  explicit WatchedSegments(int index) : index_(index) {}

  char* map(char* wish, size_t bytes) override;
  void unmap(char* segment, size_t bytes) noexcept override;
  std::optional<size_t> available() const override;
  bool maps_each_block() const override { return true; }

 private:
  int index_;
};

}  // namespace regla::cuda
