#include "core/block_heap.h"

#include <cstring>
#include <vector>

#include "core/memory.h"
#include "tests/catch.h"
#include "tests/support.h"

namespace regla::test {
namespace {

constexpr size_t kSegment = size_t{2} << 20;

HostSegments segments;

struct Block {
  char* start;
  size_t size;
};

}  // namespace

TEST_CASE("a heap joins free neighbours and cuts what it has to the size asked for") {
  BlockHeap heap(segments, kSegment);
  auto* a = static_cast<char*>(heap.take(640));
  auto* b = static_cast<char*>(heap.take(1280));
  auto* c = static_cast<char*>(heap.take(640));
  CHECK(b == a + 640);
  CHECK(c == b + 1280);
  heap.give(a, 640);
  heap.give(c, 640);
  CHECK(heap.take(64) == a);  // the smallest that holds it, not what c rejoined
  heap.give(a, 64);
  heap.give(b, 1280);
  CHECK(heap.take(2560) == a);
  heap.give(a, 2560);
  CHECK(heap.take(kSegment) == a);  // all one piece again
  CHECK(heap.segments_taken() == 1);
  CHECK(heap.bytes_taken() == static_cast<int64_t>(kSegment));
  heap.give(a, kSegment);
}

TEST_CASE("a heap goes to the system when nothing fits, and trims whole segments") {
  BlockHeap heap(segments, kSegment);
  void* small = heap.take(64);
  void* large = heap.take(3 * kSegment);
  CHECK(heap.segments_taken() == 2);
  heap.give(large, 3 * kSegment);
  heap.trim();
  void* again = heap.take(3 * kSegment);
  CHECK(heap.segments_taken() == 3);
  heap.give(small, 64);
  heap.give(again, 3 * kSegment);
  CHECK(heap.take(size_t{1} << 62) == nullptr);
}

TEST_CASE("a heap takes only what is missing behind its last free block") {
  BlockHeap heap(segments, kSegment, uintptr_t{3} << 44);
  auto* a = static_cast<char*>(heap.take(kSegment / 2));
  auto* b = static_cast<char*>(heap.take(kSegment));
  CHECK(b == a + kSegment / 2);
  CHECK(heap.bytes_taken() == static_cast<int64_t>(2 * kSegment));
  heap.give(b, kSegment);
  auto* c = static_cast<char*>(heap.take(7 * kSegment / 2));
  CHECK(c == b);
  CHECK(heap.bytes_taken() == static_cast<int64_t>(4 * kSegment));
  std::memset(c, 1, 7 * kSegment / 2);
  heap.give(a, kSegment / 2);
  heap.give(c, 7 * kSegment / 2);
  heap.trim();
}

TEST_CASE("blocks of a heap never overlap and end up in one piece") {
  BlockHeap heap(segments, kSegment);
  const Random random(3, 9);
  std::vector<Block> blocks;
  for (uint64_t i = 0; i < 4000; ++i) {
    const auto draw = random.words(i);
    if (draw[0] % 5 < 3 || blocks.empty()) {
      const size_t size = (1 + draw[1] % 200) * BlockHeap::kAlignment;
      auto* start = static_cast<char*>(heap.take(size));
      std::memset(start, static_cast<int>(size / 64 % 251), size);
      blocks.push_back({start, size});
      continue;
    }
    std::swap(blocks[draw[1] % blocks.size()], blocks.back());
    const Block block = blocks.back();
    for (size_t j = 0; j < block.size; j += 64) {
      REQUIRE(static_cast<unsigned char>(block.start[j]) == block.size / 64 % 251);
    }
    blocks.pop_back();
    heap.give(block.start, block.size);
  }
  for (const Block& block : blocks) heap.give(block.start, block.size);
  const int64_t taken = heap.segments_taken();
  std::vector<void*> whole;
  for (int64_t i = 0; i < taken; ++i) whole.push_back(heap.take(kSegment));
  CHECK(heap.segments_taken() == taken);
  for (void* block : whole) heap.give(block, kSegment);
}

TEST_CASE("a heap takes over another with what is in use there") {
  BlockHeap heap(segments, kSegment);
  auto* mine = static_cast<char*>(heap.take(640));
  void* theirs = nullptr;
  {
    BlockHeap other(segments, kSegment);
    theirs = other.take(kSegment / 2);
    CHECK(other.contains(theirs));
    CHECK_FALSE(heap.contains(theirs));
    CHECK_FALSE(other.contains(mine));
    heap.absorb(other);
    CHECK(other.segments_taken() == 0);
    CHECK_FALSE(other.contains(theirs));
  }
  std::memset(theirs, 1, kSegment / 2);
  CHECK(heap.contains(theirs));
  CHECK(heap.segments_taken() == 2);
  heap.give(theirs, kSegment / 2);
  CHECK(heap.take(kSegment) == theirs);  // in one piece again
  heap.give(theirs, kSegment);
  CHECK_FALSE(heap.contains(nullptr));
  heap.give(mine, 640);
}

TEST_CASE("what large blocks of one size leave serves those of another") {
  Memory& cpu = memory(Device{});
  { const Tensor whole = Tensor::empty({48 << 20}, DType::F32); }
  const int64_t before = cpu.stats().system_bytes;
  for (int64_t count : {3, 5, 7, 16}) {
    std::vector<Tensor> parts;
    for (int64_t i = 0; i < count; ++i) {
      parts.push_back(Tensor::empty({(48 << 20) / count - 64}, DType::F32));
    }
  }
  CHECK(cpu.stats().system_bytes == before);
  cpu.trim();
}

}  // namespace regla::test
