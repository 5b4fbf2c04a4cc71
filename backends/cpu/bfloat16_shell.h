#pragma once

#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "backends/cpu/kernels.h"

// BF16 on the CPU, slowly: around a kernel in F32 that stands in the table, what it reads is
// widened before and what it writes is rounded after. This is how every other backend's BF16 is
// to compute: from rounded operands, in F32, rounded once.
namespace regla::cpu {

/// Whether a kernel's argument of this type is written: what it returns through a reference, or a
/// tensor that was handed over. Sinks are always written and other tensors never.
template <class Argument>
constexpr bool kIsWritten =
    std::is_lvalue_reference_v<Argument> ? !std::is_const_v<std::remove_reference_t<Argument>>
                                         : std::is_same_v<Argument, Tensor>;

inline bool is_bfloat16(const Tensor& x) { return x.defined() && x.dtype() == DType::BF16; }

/// F32 memory in place of a tensor in BF16, with its values where they are wanted.
inline void widen(Tensor& x, bool with_values) {
  if (!is_bfloat16(x)) return;
  const Tensor wide = Tensor::empty(x.shape(), DType::F32, x.device());
  if (with_values) convert(x, wide);
  x = wide;
}

template <bool is_written, class T>
void widen_argument(T& argument) {
  if constexpr (std::is_same_v<T, Tensor>) {
    widen(argument, !is_written);
  } else if constexpr (std::is_same_v<T, Sink>) {
    widen(argument.tensor, argument.accumulate);
  } else if constexpr (std::is_class_v<T>) {
    std::apply([](auto&... member) { (widen_argument<is_written>(member), ...); },
               members_of(argument));
  }
}

/// Rounds what the kernel wrote; what it made itself stays as it is.
template <bool is_written, class T, class Original>
void round_argument(const T& wide, Original& original) {
  if constexpr (std::is_same_v<T, Sink>) {
    round_argument<true>(wide.tensor, original.tensor);
  } else if constexpr (std::is_same_v<T, Tensor>) {
    if (!is_written) return;
    if (is_bfloat16(original)) convert(wide, original);
    if constexpr (!std::is_const_v<Original>) {
      if (!original.defined()) original = wide;
    }
  } else if constexpr (std::is_class_v<T>) {
    const auto from = members_of(wide);
    const auto to = members_of(original);
    [&]<size_t... I>(std::index_sequence<I...>) {
      (round_argument<is_written>(std::get<I>(from), std::get<I>(to)), ...);
    }
    (std::make_index_sequence<std::tuple_size_v<decltype(from)>>());
  }
}

/// Rounds what the kernel updated among what it otherwise reads.
template <class Entry, class... Wide, class... Originals>
void round_updated(const std::tuple<Wide...>& wide, const Originals&... originals) {
  std::vector<Tensor> updated;
  const auto note = [&](char letter, const Tensor& x) {
    if (letter == 'a') updated.push_back(x);
  };
  std::apply([&](const auto&... x) { for_each_typed(Entry::kTypes, note, x...); }, wide);
  size_t next = 0;
  const auto round = [&](char letter, const Tensor& x) {
    if (letter != 'a') return;
    const Tensor& from = updated[next++];
    if (is_bfloat16(x)) convert(from, x);
  };
  for_each_typed(Entry::kTypes, round, originals...);
}

/// Whether an activation is in BF16. Beside those in F32 weights may be, which kernels read so.
template <class Entry, class... Arguments>
bool has_bfloat16(const Arguments&... arguments) {
  bool found = false;
  const auto look = [&](char letter, const Tensor& x) {
    found = found || ((letter == 'A' || letter == '*') && is_bfloat16(x));
  };
  for_each_typed(Entry::kTypes, look, arguments...);
  return found;
}

/// The kernel of an entry of the table in any precision, with the signature of the kernel.
template <class Entry, auto* kernel, class... Arguments>
void in_any_precision(Arguments... arguments) {
  if (!has_bfloat16<Entry>(arguments...)) return kernel(std::forward<Arguments>(arguments)...);
  std::tuple<std::remove_cvref_t<Arguments>...> wide(arguments...);
  std::apply(
      [&](auto&... argument) {
        (widen_argument<kIsWritten<Arguments>>(argument), ...);
        kernel(argument...);
        (round_argument<kIsWritten<Arguments>>(argument, arguments), ...);
      },
      wide);
  round_updated<Entry>(wide, arguments...);
}

/// Becomes whichever entry of the table it initialises.
template <auto* kernel>
struct AnyPrecision {
  template <class Entry>
  requires requires { Entry::kTypes; }
  constexpr operator Entry() const {  // NOLINT
    typename Entry::Function* shell = &in_any_precision<Entry, kernel>;
    return shell;
  }
};
template <auto* kernel>
constexpr AnyPrecision<kernel> any_precision;

}  // namespace regla::cpu
