#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>
#include <utility>
#include <vector>

#include "backends/cpu/loops.h"
#include "backends/cpu/narrow.h"
#include "backends/cpu/streaming.h"
#include "core/dtype.h"

// What kernels read and write as numbers of T: in place where a tensor holds such, and beside float
// also BF16, which passes through a piece of memory that stays in the first-level cache, so that no
// pass over a tensor only converts it.
namespace regla::cpu {

/// Calls `f` with a tag for what a kernel computes in: double for F64, float for F32 and BF16.
template <class F>
void for_sums_of(const Tensor& x, const char* who, F&& f) {
  for_float_type(sum_type(x.dtype()), who, f);
}

/// Elements that are converted at a time.
constexpr int64_t kPiece = 1024;

template <class T>
class Input {
 public:
  Input() = default;
  /// Undefined: reads nothing.
  explicit Input(const Tensor& x) {
    if (!x) return;
    if (std::is_same_v<T, float> && x.dtype() == DType::BF16) {
      narrow_ = x.data<BFloat16>();
    } else {
      wide_ = x.data<T>();
    }
  }
  explicit operator bool() const { return wide_ != nullptr || narrow_ != nullptr; }

  /// Room for so many elements at a time, none where they are read in place.
  std::vector<T> room(int64_t count) const {
    return std::vector<T>(narrow_ != nullptr ? static_cast<size_t>(count) : 0);
  }
  /// Elements [begin, begin + count): where they lie, or widened into `room`.
  const T* read(int64_t begin, int64_t count, T* room) const {
    if constexpr (std::is_same_v<T, float>) {
      if (narrow_ != nullptr) {
        widen(narrow_ + begin, count, room);
        return room;
      }
    }
    return wide_ + begin;
  }
  const T* read(int64_t begin, int64_t count, std::vector<T>& room) const {
    return read(begin, count, room.data());
  }
  /// Asks for elements that will be read soon, maybe beyond the last; by level, 3 is the first
  /// cache.
  template <int level = 3>
  void fetch(int64_t begin, int64_t count) const {
    const int64_t size = narrow_ != nullptr ? sizeof(BFloat16) : sizeof(T);
    const auto* bytes = narrow_ != nullptr ? reinterpret_cast<const char*>(narrow_)
                                           : reinterpret_cast<const char*>(wide_);
    for (int64_t i = 0; i < count * size; i += 64)
      __builtin_prefetch(bytes + begin * size + i, 0, level);
  }

 private:
  const T* wide_ = nullptr;
  const BFloat16* narrow_ = nullptr;
};

template <class T>
class Output {
 public:
  Output() = default;
  /// Undefined: nobody wants it.
  explicit Output(const Sink& out) : accumulate_(out.accumulate) {
    if (!out) return;
    Tensor tensor = out.tensor;
    if (std::is_same_v<T, float> && tensor.dtype() == DType::BF16) {
      narrow_ = tensor.data<BFloat16>();
    } else {
      wide_ = tensor.data<T>();
    }
  }
  explicit Output(const Tensor& out) : Output(Sink{out}) {}
  Output(T* out, bool accumulate) : wide_(out), accumulate_(accumulate) {}
  Output(BFloat16* out, bool accumulate) : narrow_(out), accumulate_(accumulate) {}
  explicit operator bool() const { return wide_ != nullptr || narrow_ != nullptr; }

  /// The elements from `begin` on become a row, past the caches (streaming.h), or grow by it.
  void stream_or_add(int64_t begin, const T* row, int64_t count) const {
    if (accumulate_) return write(begin, count, [=](int64_t i) { return row[i]; });
    if (wide_ != nullptr) return stream(row, count, wide_ + begin);
    if constexpr (std::is_same_v<T, float>) {
      alignas(64) BFloat16 room[kPiece];
      for (int64_t first = 0; first < count; first += kPiece) {
        const int64_t size = std::min(kPiece, count - first);
        narrow(row + first, size, room);
        stream(room, size, narrow_ + begin + first);
      }
    }
  }
  /// One element more.
  void add(int64_t at, T amount) const {
    if (narrow_ != nullptr) {
      narrow_[at] = BFloat16(static_cast<T>(narrow_[at]) + amount);
    } else {
      wide_[at] += amount;
    }
  }
  /// Element begin + i = f(i), or += where the sink accumulates, for i in [0, count).
  template <class F>
  void write(int64_t begin, int64_t count, F&& f) const {
    if (wide_ != nullptr) return write_range(wide_ + begin, accumulate_, 0, count, f);
    if constexpr (std::is_same_v<T, float>) write_narrow(begin, count, f);
  }

 private:
  template <class F>
  void write_narrow(int64_t begin, int64_t count, F&& f) const {
    float room[kPiece];
    for (int64_t first = 0; first < count; first += kPiece) {
      const int64_t size = std::min(kPiece, count - first);
      BFloat16* out = narrow_ + begin + first;
      write_range(room, false, 0, size, [&](int64_t i) { return f(first + i); });
      if (accumulate_) {
        write_range(room, true, 0, size, [&](int64_t i) { return static_cast<float>(out[i]); });
      }
      narrow(room, size, out);
    }
  }

  T* wide_ = nullptr;
  BFloat16* narrow_ = nullptr;
  bool accumulate_ = false;
};

template <class T, class F, class... Numbers>
void write_mapped(const Output<T>& out, int64_t first, int64_t count, F f, const Numbers*... x) {
  out.write(first, count, [=](int64_t i) { return f(x[i]...); });
}

/// out (+)= f(x...), element by element, in parallel; nothing happens when nobody wants it.
template <class T, class F, class... Inputs>
void map(const Sink& sink, F f, const Inputs&... inputs) {
  if (!sink) return;
  const Output<T> out(sink);
  const Input<T> in[] = {Input<T>(inputs)...};
  parallel_for(sink.tensor.numel(), kGrain, [&](int64_t begin, int64_t end) {
    alignas(64) T rooms[sizeof...(Inputs)][kPiece];
    for (int64_t first = begin; first < end; first += kPiece) {
      const int64_t count = std::min(kPiece, end - first);
      [&]<size_t... n>(std::index_sequence<n...>) {
        write_mapped(out, first, count, f, in[n].read(first, count, rooms[n])...);
      }
      (std::index_sequence_for<Inputs...>());
    }
  });
}

}  // namespace regla::cpu
