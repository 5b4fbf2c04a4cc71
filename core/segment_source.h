#pragma once

#include <cstddef>
#include <optional>

namespace regla {

/// Where a heap gets its memory from: all that differs between the heaps of two devices.
class SegmentSource {
 public:
  virtual ~SegmentSource() = default;

  /// Fresh memory of a device, at `wish` or, where something else is, elsewhere; null when there is
  /// no more.
  virtual char* map(char* wish, size_t bytes) = 0;
  virtual void unmap(char* segment, size_t bytes) noexcept = 0;
  /// Bytes that the device has left, where it says so.
  virtual std::optional<size_t> available() const { return std::nullopt; }
  /// Whether each block is to be a segment of its own, of exactly its bytes: for tools that watch
  /// what was mapped and cannot be told of blocks inside.
  virtual bool maps_each_block() const { return false; }
  /// What tools that watch memory are told, where they watch this one (memory_checks.h).
  virtual void mark_out_of_bounds(void*, size_t) noexcept {}
  virtual void mark_unwritten(void*, size_t) noexcept {}
};

/// Memory of the host, in pages of the larger kind where the system has them.
class HostSegments : public SegmentSource {
 public:
  char* map(char* wish, size_t bytes) override;
  void unmap(char* segment, size_t bytes) noexcept override;
  void mark_out_of_bounds(void* memory, size_t bytes) noexcept override;
  void mark_unwritten(void* memory, size_t bytes) noexcept override;
};

/// The same memory, of which the tools that watch it are told nothing: for a heap whose free blocks
/// are written to.
class UnwatchedSegments : public SegmentSource {
 public:
  /// `source` must outlive it.
  explicit UnwatchedSegments(SegmentSource& source) : source_(source) {}

  char* map(char* wish, size_t bytes) override { return source_.map(wish, bytes); }
  void unmap(char* segment, size_t bytes) noexcept override { source_.unmap(segment, bytes); }
  std::optional<size_t> available() const override { return source_.available(); }

 private:
  SegmentSource& source_;
};

}  // namespace regla
