#pragma once

#include <cstddef>
#include <tuple>
#include <type_traits>
#include <utility>
#include <vector>

#include "backends/sink.h"
#include "core/tensor.h"

// Finds the tensors among a kernel's arguments, inside of argument structs too, so that what holds
// for every one of them is said once (kernel.h).
namespace regla {

/// Converts to the type of any member.
struct AnyMember {
  template <class T>
  operator T() const;  // NOLINT
};

template <class T, size_t... I>
constexpr bool takes_members(std::index_sequence<I...>) {
  return requires { T{(static_cast<void>(I), AnyMember{})...}; };
}

/// The number of members of an aggregate: the most values that it can be made from.
template <class T, size_t N = 16>
constexpr size_t member_count() {
  if constexpr (N == 0 || takes_members<T>(std::make_index_sequence<N>{})) {
    return N;
  } else {
    return member_count<T, N - 1>();
  }
}

/// References to the members of an argument struct.
template <class T>
auto members_of(T& s) {
  constexpr size_t N = member_count<std::remove_const_t<T>>();
  static_assert(N >= 2 && N <= 13, "write a line for this number of members");
  if constexpr (N == 2) {
    auto& [a, b] = s;
    return std::tie(a, b);
  } else if constexpr (N == 3) {
    auto& [a, b, c] = s;
    return std::tie(a, b, c);
  } else if constexpr (N == 4) {
    auto& [a, b, c, d] = s;
    return std::tie(a, b, c, d);
  } else if constexpr (N == 5) {
    auto& [a, b, c, d, e] = s;
    return std::tie(a, b, c, d, e);
  } else if constexpr (N == 6) {
    auto& [a, b, c, d, e, f] = s;
    return std::tie(a, b, c, d, e, f);
  } else if constexpr (N == 7) {
    auto& [a, b, c, d, e, f, g] = s;
    return std::tie(a, b, c, d, e, f, g);
  } else if constexpr (N == 8) {
    auto& [a, b, c, d, e, f, g, h] = s;
    return std::tie(a, b, c, d, e, f, g, h);
  } else if constexpr (N == 9) {
    auto& [a, b, c, d, e, f, g, h, i] = s;
    return std::tie(a, b, c, d, e, f, g, h, i);
  } else if constexpr (N == 10) {
    auto& [a, b, c, d, e, f, g, h, i, j] = s;
    return std::tie(a, b, c, d, e, f, g, h, i, j);
  } else if constexpr (N == 11) {
    auto& [a, b, c, d, e, f, g, h, i, j, k] = s;
    return std::tie(a, b, c, d, e, f, g, h, i, j, k);
  } else if constexpr (N == 12) {
    auto& [a, b, c, d, e, f, g, h, i, j, k, l] = s;
    return std::tie(a, b, c, d, e, f, g, h, i, j, k, l);
  } else {
    auto& [a, b, c, d, e, f, g, h, i, j, k, l, m] = s;
    return std::tie(a, b, c, d, e, f, g, h, i, j, k, l, m);
  }
}

template <class T>
struct ElementOf {};
template <class E>
struct ElementOf<std::vector<E>> {
  using Type = E;
};
/// A list, of tensors or of structs with tensors.
template <class T>
concept List = requires {
  typename ElementOf<T>::Type;
};

/// The tensors of an argument of type T; of each element where it is a list.
template <class T>
constexpr size_t tensor_count();

template <class... Member>
constexpr size_t tensors_in(const std::tuple<Member...>*) {
  return (size_t{0} + ... + tensor_count<Member>());
}

template <class T>
constexpr size_t tensor_count() {
  using Plain = std::remove_cvref_t<T>;
  if constexpr (std::is_same_v<Plain, Tensor> || std::is_same_v<Plain, Sink>) {
    return 1;
  } else if constexpr (List<Plain>) {
    return tensor_count<typename ElementOf<Plain>::Type>();
  } else if constexpr (std::is_class_v<Plain>) {
    return tensors_in(static_cast<decltype(members_of(std::declval<Plain&>()))*>(nullptr));
  } else {
    return 0;
  }
}

/// Calls `visit(letter, tensor)` with every tensor of an argument, in the order of the members and
/// of lists, and the number of its letter (kernels.h). Its first letter is number `letter`, which
/// becomes that of the next argument.
template <class T, class F>
void visit_tensors(T& argument, size_t& letter, F& visit) {
  using Plain = std::remove_const_t<T>;
  if constexpr (std::is_same_v<Plain, Tensor>) {
    visit(letter++, argument);
  } else if constexpr (std::is_same_v<Plain, Sink>) {
    visit(letter++, argument.tensor);
  } else if constexpr (List<Plain>) {
    const size_t first = letter;
    for (auto& element : argument) {
      letter = first;
      visit_tensors(element, letter, visit);
    }
    letter = first + tensor_count<Plain>();
  } else if constexpr (std::is_class_v<Plain>) {
    std::apply([&](auto&... member) { (visit_tensors(member, letter, visit), ...); },
               members_of(argument));
  }
}

/// Calls `visit` with every tensor of an argument, in the order of the members and of lists.
template <class T, class F>
void for_each_tensor(T& argument, F&& visit) {
  size_t letter = 0;
  const auto next = [&](size_t, auto& tensor) { visit(tensor); };
  visit_tensors(argument, letter, next);
}

/// Calls `visit(letter, tensor)` for every tensor among the arguments, with its letter in `types`,
/// which a space divides (kernels.h).
template <class F, class... Arguments>
void for_each_typed(const char* types, F&& visit, Arguments&... arguments) {
  size_t letter = 0;
  const auto next = [&](size_t number, auto& tensor) { visit(types[2 * number], tensor); };
  (visit_tensors(arguments, letter, next), ...);
}

}  // namespace regla
