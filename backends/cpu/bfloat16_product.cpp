#include <algorithm>
#include <type_traits>

#include "backends/cpu/elements.h"
#include "backends/cpu/few_rows.h"
#include "backends/cpu/product.h"
#include "core/parallel.h"

// Products of BF16 in pieces that one thread computes each. B is packed first, once for all pieces
// that share it: they read it in the order of the processor's instructions, pairs along K.
namespace regla::cpu {
namespace {

/// Pieces of work that keep the usual number of cores busy.
constexpr int64_t kPieces = 8;
/// Bytes of B that are packed at a time, so that what was packed is still in a cache.
constexpr int64_t kPackedBytes = int64_t{8} << 20;

int64_t pieces_of(int64_t count, int64_t size) { return (count + size - 1) / size; }

/// The sizes of a piece along M, N and K. With `apart`, what comes from each part of K is summed by
/// itself, all at the same time; else part after part.
struct Cut {
  int64_t rows, columns, depth;
  bool apart;
};

/// Rows that are as long as those of C are fastest, and at least 64 of them.
template <class Out>
Cut cut_of(const Product<BFloat16, BFloat16, Out>& p) {
  constexpr int64_t kFewestRows = 64, kMostRows = 512, kColumns = 1024, kLeastDepth = 512;
  const int64_t most = kPackedBytes / static_cast<int64_t>(sizeof(BFloat16));
  Cut cut = {.rows = 0, .columns = p.N, .depth = p.K, .apart = false};
  if (p.c_pitch != p.N || p.N > most / kLeastDepth) cut.columns = std::min(p.N, kColumns);
  cut.depth = std::clamp<int64_t>(p.K, 1, most / cut.columns / 64 * 64);
  const int64_t across = std::min(pieces_of(p.N, cut.columns), most / (cut.columns * cut.depth));
  const int64_t down = pieces_of(kPieces, std::max<int64_t>(across, 1));
  cut.rows = std::clamp(pieces_of(p.M, down * 32) * 32, kFewestRows, kMostRows);
  const int64_t pieces = across * pieces_of(p.M, cut.rows);
  if (pieces < kPieces && cut.columns == p.N && cut.depth == p.K && p.K >= 2 * kLeastDepth) {
    const int64_t parts = std::min(pieces_of(kPieces, pieces), p.K / kLeastDepth);
    cut.depth = pieces_of(p.K, parts * 64) * 64;
    cut.apart = true;
  }
  return cut;
}

template <class Out>
class Pieces {
 public:
  Pieces(const Product<BFloat16, BFloat16, Out>& product, BFloat16Way way)
      : p_(product), way_(way), cut_(cut_of(product)) {
    down_ = pieces_of(p_.M, cut_.rows);
    across_ = pieces_of(p_.N, cut_.columns);
    parts_ = pieces_of(p_.K, cut_.depth);
    if (parts_ == 0) sums_ = Tensor::zeros({1, p_.M, p_.N}, DType::F32);
    const bool is_narrow = std::is_same_v<Out, BFloat16>;
    if (cut_.apart) {
      sums_ = Tensor::empty({parts_, p_.M, p_.N}, DType::F32);
    } else if (is_narrow && (parts_ > 1 || p_.accumulate)) {
      sums_ = Tensor::empty({1, p_.M, p_.N}, DType::F32);
    }
  }

  void multiply() {
    if (parts_ > 0) multiply_tiles();
    if (sums_) add_parts();
  }

 private:
  /// Tile t of B lies at column t mod across, part t / across of K.
  void multiply_tiles() {
    const int64_t bytes = PackedB::bytes(way_, cut_.columns, cut_.depth), tiles = across_ * parts_;
    const int64_t room = cut_.apart ? tiles : std::clamp<int64_t>(kPackedBytes / bytes, 1, across_);
    Tensor packed = Tensor::empty({room, bytes / 8}, DType::F64);
    auto* memory = static_cast<char*>(packed.raw());
    for (int64_t first = 0, end = 0; first < tiles; first = end) {
      // Those that are summed part after part wait for the part before.
      end = cut_.apart ? tiles : std::min(first + room, (first / across_ + 1) * across_);
      const auto tile = [&](int64_t t) { return memory + (t - first) * bytes; };
      for (int64_t t = first; t < end; ++t) pack(t, tile(t));
      parallel_for((end - first) * down_, 1, [&](int64_t from, int64_t to) {
        for (int64_t i = from; i < to; ++i) {
          const int64_t t = first + i / down_;
          multiply_piece(i % down_ * cut_.rows, t, tile(t));
        }
      });
    }
  }

  int64_t column_of(int64_t tile) const { return tile % across_ * cut_.columns; }
  int64_t depth_at(int64_t tile) const { return tile / across_ * cut_.depth; }
  PackedB packed(int64_t tile, void* memory) const {
    return {way_, std::min(cut_.columns, p_.N - column_of(tile)),
            std::min(cut_.depth, p_.K - depth_at(tile)), memory};
  }

  void pack(int64_t tile, void* memory) const {
    const int64_t column = column_of(tile), k = depth_at(tile);
    const int64_t corner = p_.transpose_b ? column * p_.b_pitch + k : k * p_.b_pitch + column;
    packed(tile, memory).pack(p_.transpose_b, p_.b + corner, p_.b_pitch);
  }

  void multiply_piece(int64_t row, int64_t tile, void* memory) {
    const bool is_first = depth_at(tile) == 0;
    if (!sums_) {
      const bool accumulate = p_.accumulate || !is_first;
      return multiply_piece(row, tile, memory, is_first ? p_.bias : nullptr, p_.c, p_.c_pitch,
                            accumulate);
    }
    float* sums = sums_.data<float>();
    if (cut_.apart) sums += tile / across_ * p_.M * p_.N;
    multiply_piece(row, tile, memory, nullptr, sums, p_.N, !cut_.apart && !is_first);
  }

  template <class C>
  void multiply_piece(int64_t row, int64_t tile, void* memory, const float* bias, C* c,
                      int64_t pitch, bool accumulate) const {
    const int64_t k = depth_at(tile), column = column_of(tile);
    multiply_packed(
        PackedProduct<C>{.M = std::min(cut_.rows, p_.M - row),
                         .transpose_a = p_.transpose_a,
                         .a = p_.a + (p_.transpose_a ? k * p_.a_pitch + row : row * p_.a_pitch + k),
                         .a_pitch = p_.a_pitch,
                         .b = packed(tile, memory),
                         .bias = bias != nullptr ? bias + column : nullptr,
                         .c = c + row * pitch + column,
                         .c_pitch = pitch,
                         .accumulate = accumulate});
  }

  /// C (+)= the parts in order (+ bias)
  void add_parts() {
    float* sums = sums_.data<float>();
    const Output<float> c(p_.c, p_.accumulate);
    parallel_for(p_.M, row_grain(p_.N * sums_.dim(0)), [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        float* row = sums + r * p_.N;
        for (int64_t part = 1; part < sums_.dim(0); ++part) {
          const float* next = row + part * p_.M * p_.N;
          write_range(row, true, 0, p_.N, [=](int64_t j) { return next[j]; });
        }
        if (const float* bias = p_.bias; bias != nullptr) {
          write_range(row, true, 0, p_.N, [=](int64_t j) { return bias[j]; });
        }
        c.write(r * p_.c_pitch, p_.N, [=](int64_t j) { return row[j]; });
      }
    });
  }

  const Product<BFloat16, BFloat16, Out>& p_;
  BFloat16Way way_;
  Cut cut_;
  int64_t down_, across_, parts_;
  Tensor sums_;  // [parts or 1, M, N]; undefined: pieces are written where they belong
};

/// Few rows are as slow as reading B: one pass over it as it is stored.
template <class Out>
void multiply_few(const Product<BFloat16, BFloat16, Out>& p) {
  const Tensor a = Tensor::empty({p.M, p.K}, DType::F32);
  Tensor wide = a, c = Tensor::empty({p.M, p.N}, DType::F32);
  for (int64_t r = 0; r < p.M; ++r) widen(p.a + r * p.a_pitch, p.K, wide.data<float>() + r * p.K);
  multiply_few_rows(Product<float, BFloat16>{.M = p.M,
                                             .N = p.N,
                                             .K = p.K,
                                             .transpose_b = true,
                                             .a = wide.data<float>(),
                                             .a_pitch = p.K,
                                             .b = p.b,
                                             .b_pitch = p.b_pitch,
                                             .bias = p.bias,
                                             .c = c.data<float>(),
                                             .c_pitch = p.N});
  for (int64_t r = 0; r < p.M; ++r) {
    const float* row = c.data<float>() + r * p.N;
    Out* to = p.c + r * p.c_pitch;
    for (int64_t j = 0; j < p.N; ++j) {
      to[j] = static_cast<Out>(p.accumulate ? static_cast<float>(to[j]) + row[j] : row[j]);
    }
  }
}

template <class Out>
void multiply_any(const Product<BFloat16, BFloat16, Out>& p, BFloat16Way way) {
  if (p.M == 0 || p.N == 0) return;
  if (has_few_rows(p)) return multiply_few(p);
  Pieces<Out>(p, way).multiply();
}

}  // namespace

void multiply(const Product<BFloat16, BFloat16, float>& product, BFloat16Way way) {
  multiply_any(product, way);
}
void multiply(const Product<BFloat16, BFloat16, BFloat16>& product, BFloat16Way way) {
  multiply_any(product, way);
}

}  // namespace regla::cpu
