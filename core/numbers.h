#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

// Numbers as people write them on a command line: decimal, `+1`, `007` and `.5` among them, all of
// the text and nothing else. No octal, no hexadecimal, no blanks, no infinities. Nothing where the
// text is no such number or the type cannot hold it.
namespace regla {

std::optional<int64_t> parse_integer(std::string_view text);
std::optional<uint64_t> parse_unsigned(std::string_view text);
std::optional<double> parse_real(std::string_view text);

}  // namespace regla
