// The table says a type for every tensor among a kernel's arguments.

#include <set>
#include <string>
#include <vector>

#include "backends/kernels.h"
#include "tests/matchers.h"
#include "tests/support.h"

namespace regla::test {
namespace {

struct Entry {
  std::string name, types;
  size_t tensors;
};

/// Initialises any member of the table, and notes what it is.
struct NotesEntry {
  std::vector<Entry>& entries;

  operator const char*() const { return ""; }  // NOLINT
  operator int64_t() const { return 0; }       // NOLINT
  template <class K>
  requires requires { K::kTypes; }
  operator K() const {  // NOLINT
    entries.push_back({K::kName, K::kTypes, K::kTensors});
    return {};
  }
};

/// Every entry of the table, in its order: a braced list is read from left to right.
template <size_t... I>
std::vector<Entry> entries_of(std::index_sequence<I...>) {
  std::vector<Entry> entries;
  static_cast<void>(KernelTable{(static_cast<void>(I), NotesEntry{entries})...});
  return entries;
}
std::vector<Entry> all_entries() {
  return entries_of(std::make_index_sequence<member_count<KernelTable, 128>()>());
}

}  // namespace

TEST_CASE("every tensor among a kernel's arguments has a letter") {
  const std::vector<Entry> entries = all_entries();
  CHECK(entries.size() > 55);
  std::set<std::string> names;
  for (const Entry& entry : entries) {
    INFO(entry.name << ": " << entry.types);
    CHECK(names.insert(entry.name).second);
    // One letter, a space, one letter ...
    CHECK(entry.types.size() == 2 * entry.tensors - 1);
    for (size_t i = 0; i < entry.types.size(); ++i) {
      const char letter = entry.types[i];
      CHECK((i % 2 == 0 ? std::string("AS*WDI-asi").find(letter) != std::string::npos
                        : letter == ' '));
    }
  }
}

TEST_CASE("a tensor of another type than the table says is an error that names the kernel") {
  const KernelTable& table = kernels({});
  const auto of = [](DType dtype) { return Tensor::zeros({4}, dtype); };
  table.gelu(of(DType::BF16), false, of(DType::BF16));
  CHECK_THROWS_WITH(table.gelu(of(DType::BF16), false, of(DType::F32)),
                    Contains("[gelu] expected tensors of the types A A, got F32 for A"));
  CHECK_THROWS_WITH(table.gelu(of(DType::F32), false, of(DType::F64)), Contains("got F64"));
  CHECK_THROWS_WITH(table.gelu(of(DType::I32), false, of(DType::I32)), Contains("got I32"));
  table.add(of(DType::BF16), of(DType::F32), of(DType::F32));
  CHECK_THROWS_WITH(table.add(of(DType::BF16), of(DType::BF16), of(DType::BF16)),
                    Contains("[add]"));
  CHECK_THROWS_WITH(table.accumulate(of(DType::F32), 1, Sink{of(DType::F64)}),
                    Contains("[accumulate]"));
  CHECK_THROWS_WITH(table.sums_of_squares({of(DType::F32), of(DType::F32)}, of(DType::F32)),
                    Contains("for D"));
  CHECK_THROWS_WITH(table.sums_of_squares({of(DType::F32), of(DType::F64)}, of(DType::F64)),
                    Contains("got F64 for S"));
}

TEST_CASE("what a BF16 kernel adds to is widened, added to and rounded once") {
  const Tensor x = Tensor::full({4}, 3, DType::BF16);
  Tensor sum = Tensor::full({4}, 256, DType::BF16);
  // 256 + 2.25 in steps of 2 is 258
  kernels({}).accumulate(x, 0.75, Sink{sum, true});
  CHECK(sum.values() == std::vector<double>(4, 258));
  kernels({}).accumulate(x, 1, Sink{sum, false});
  CHECK(sum.values() == std::vector<double>(4, 3));
}

}  // namespace regla::test
