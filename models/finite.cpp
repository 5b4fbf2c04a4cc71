#include "models/finite.h"

#include <algorithm>

#include "backends/kernels.h"

namespace regla {
namespace {

bool all_finite(const Tensor& x) { return kernels(x.device()).all_finite(x); }

}  // namespace

const Parameter* first_not_finite(const ParameterList& parameters) {
  const auto found = std::find_if(parameters.begin(), parameters.end(),
                                  [](const Parameter* p) { return !all_finite(p->value); });
  return found == parameters.end() ? nullptr : *found;
}

void fail_not_finite(const Decoder& decoder, const std::string& what) {
  const Parameter* bad = first_not_finite(decoder.parameters());
  fail(what, " not finite, ",
       bad ? "nor is the weight " + bad->name : "though every weight is: sums became too large");
}

void check_finite(const Decoder& decoder, const Tensor& numbers, const std::string& what) {
  if (!all_finite(numbers)) fail_not_finite(decoder, what);
}

}  // namespace regla
