#include "core/device.h"

#include <charconv>

#include "core/check.h"

namespace regla {

Device Device::named(const std::string& text) {
  if (text == "cpu") return {};
  Device asked{Kind::Cuda, 0};
  bool known = text == "cuda";
  if (text.starts_with("cuda:")) {
    const char *begin = text.data() + 5, *end = text.data() + text.size();
    const auto [stop, error] = std::from_chars(begin, end, asked.index);
    known = error == std::errc() && stop == end && asked.index >= 0;
  }
  check(known, "[device] expected cpu, cuda or cuda:<index>, got ", text);
  return asked;
}

std::string Device::text() const {
  switch (kind) {
    case Kind::Cpu:
      return "cpu";
    case Kind::Cuda:
      return "cuda:" + std::to_string(index);
    default:
      return "walled";
  }
}

}  // namespace regla
