#include "backends/cpu/streaming.h"

#include <vector>

#include "tests/catch.h"

namespace regla::test {

/// Every length at every distance from a vector's boundary; what lies around stays as it was.
template <class T>
void check_streams() {
  constexpr size_t kLongest = 70, kRoom = kLongest + 40;
  std::vector<T> from(kLongest), to(kRoom);
  for (size_t i = 0; i < kLongest; ++i) from[i] = static_cast<T>(i + 1);
  for (size_t begin = 0; begin < 17; ++begin) {
    for (size_t count = 0; count <= kLongest; ++count) {
      std::fill(to.begin(), to.end(), T(-1));
      cpu::stream(from.data(), static_cast<int64_t>(count), to.data() + begin);
      cpu::streamed();
      bool right = true;
      for (size_t i = 0; i < kRoom; ++i) {
        const bool inside = i >= begin && i < begin + count;
        right = right && to[i] == (inside ? from[i - begin] : T(-1));
      }
      INFO(count << " elements at " << begin);
      CHECK(right);
    }
  }
}

TEST_CASE("streaming copies what it is given and nothing else") {
  check_streams<float>();
  check_streams<double>();
}

}  // namespace regla::test
