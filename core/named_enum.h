#pragma once

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

}  // namespace regla
