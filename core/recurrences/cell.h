#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <utility>

// A cell is a recurrence over one token of one head, written once for every device: a struct with
//
//     kName                         for messages
//     kKeys, kValues, kScalars      how many tensors [B, T, H, K], [B, T, H, V] and [B, T, H] it
//                                   reads, in this order
//     kRoom                         how many numbers of scratch it needs for a column
//     Token<Key, Value, Scalar>     their names, in the same order
//     step                          the output o and, in place, the state S [K, V]
//     step_backward                 the same in reverse, from the state before the token
//
// Columns of S never meet: column j of S and o[j] depend on column j of the state before, on entry
// j of the values, and on the keys and scalars, which all columns share. So a CPU hands a cell all
// columns of a head, whose inner loops over j vectorise, and a GPU one column to each thread
// (backends/cpu/cells.h, backends/cuda/cells.cuh). All is constexpr, which a GPU calls,
// too; `exp`, `log` and the like are those of <cmath>.
namespace regla::recurrence {

/// How many tensors of a kind a cell reads: first those that it gets as they are, then decays,
/// given as logs. Of these it gets e^x, 1 where the tensor is absent, and returns gradients of x.
struct Count {
  int plain = 0, decays = 0;

  constexpr size_t all() const { return static_cast<size_t>(plain + decays); }
};

/// The part of a state that a cell is called for: S[i, j] lies at S[i * pitch + j].
struct Sizes {
  int64_t K, V, pitch;
};

/// Numbers that are `pitch` apart.
template <class T>
struct Spaced {
  T* first;
  int64_t pitch;

  constexpr T& operator[](int64_t i) const { return first[i * pitch]; }
};

/// What a cell reads of a token, and where gradients of that are added to.
template <class Cell, class T>
using Inputs = typename Cell::template Token<const T*, const T*, T>;
template <class Cell, class T>
using Gradients = typename Cell::template Token<Spaced<T>, T*, T&>;

/// Where the tensors of each kind lie, for one token.
template <class Cell, class T>
struct Places {
  std::array<const T*, Cell::kKeys.all()> keys;
  std::array<const T*, Cell::kValues.all()> values;
  const T* scalars;

  constexpr Inputs<Cell, T> inputs() const {
    return named(std::make_index_sequence<Cell::kKeys.all()>{},
                 std::make_index_sequence<Cell::kValues.all()>{},
                 std::make_index_sequence<Cell::kScalars.all()>{});
  }

 private:
  template <size_t... k, size_t... v, size_t... s>
  constexpr Inputs<Cell, T> named(std::index_sequence<k...>, std::index_sequence<v...>,
                                  std::index_sequence<s...>) const {
    return {keys[k]..., values[v]..., scalars[s]...};
  }
};

/// The same for gradients: keys [kKeys, K] whose entries are `pitch` apart, values [kValues, V] and
/// scalars [kScalars] side by side.
template <class Cell, class T>
struct GradientPlaces {
  T *keys, *values, *scalars;
  int64_t pitch;

  constexpr Gradients<Cell, T> gradients(const Sizes& n) const {
    return named(n, std::make_index_sequence<Cell::kKeys.all()>{},
                 std::make_index_sequence<Cell::kValues.all()>{},
                 std::make_index_sequence<Cell::kScalars.all()>{});
  }

 private:
  template <size_t... k, size_t... v, size_t... s>
  constexpr Gradients<Cell, T> named(const Sizes& n, std::index_sequence<k...>,
                                     std::index_sequence<v...>, std::index_sequence<s...>) const {
    const auto index = [](size_t i) { return static_cast<int64_t>(i); };
    return {Spaced<T>{keys + index(k) * n.K * pitch, pitch}..., values + index(v) * n.V...,
            scalars[s]...};
  }
};

}  // namespace regla::recurrence
