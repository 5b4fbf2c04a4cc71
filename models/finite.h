#pragma once

#include <string>

#include "models/decoder.h"

namespace regla {

/// The first parameter that holds an infinity or a NaN; null: none does.
const Parameter* first_not_finite(const ParameterList& parameters);

/// An Error that begins with `what`: numbers that the decoder computed are not finite. It names the
/// weight that is to blame. A weight that took no part in them may be what it likes.
[[noreturn]] void fail_not_finite(const Decoder& decoder, const std::string& what);

/// That Error unless all `numbers`, which the decoder computed, are finite.
void check_finite(const Decoder& decoder, const Tensor& numbers, const std::string& what);

}  // namespace regla
