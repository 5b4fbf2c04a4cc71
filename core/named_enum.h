#pragma once

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <string_view>
#include <type_traits>

namespace regla {

// An enumeration that appears in configurations has a `names_of` beside it: the name of each value,
// in order. Reading, writing, error messages and the documentation use nothing else.

/// An enumeration with a table of names.
template <class E>
concept NamedEnum = std::is_enum_v<E> && requires {
  names_of(E{}).size();
};

/// The name of a value as configurations spell it.
template <NamedEnum E>
constexpr std::string_view name_of(E value) {
  return names_of(E{})[static_cast<size_t>(value)];
}

/// The value of that name, one of the table's.
template <NamedEnum E>
constexpr E named_value(std::string_view name) {
  const auto names = names_of(E{});
  return static_cast<E>(std::find(names.begin(), names.end(), name) - names.begin());
}

}  // namespace regla
