#include "core/parallel.h"

#include <mutex>
#include <new>
#include <set>
#include <utility>
#include <vector>

#include "tests/catch.h"
#include "tests/support.h"

namespace regla::test {
namespace {

std::set<std::pair<int64_t, int64_t>> blocks(int64_t count, int64_t grain) {
  std::set<std::pair<int64_t, int64_t>> list;
  std::mutex mutex;
  parallel_for(count, grain, [&](int64_t begin, int64_t end) {
    const std::lock_guard lock(mutex);
    list.insert({begin, end});
  });
  return list;
}

}  // namespace

TEST_CASE("parallel_for covers every item once, in blocks that threads do not change") {
  for (int64_t count : {0, 1, 7, 63, 64, 65, 1000}) {
    for (int64_t grain : {1, 7, 64, 5000}) {
      std::vector<int> hits(static_cast<size_t>(count), 0);
      const Threads guard(3);
      parallel_for(count, grain, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) ++hits[static_cast<size_t>(i)];
      });
      INFO(count << " items, grain " << grain);
      CHECK(std::all_of(hits.begin(), hits.end(), [](int n) { return n == 1; }));
      const auto many = blocks(count, grain);
      set_threads(1);
      CHECK(blocks(count, grain) == many);
    }
  }
}

TEST_CASE("counts beyond 32 bits work") {
  const int64_t count = (int64_t{1} << 33) + 5, grain = int64_t{1} << 31;
  const auto list = blocks(count, grain);
  CHECK(list.size() == 5);
  CHECK(list.rbegin()->second == count);
}

TEST_CASE("scratch per thread is not shared") {
  const Threads guard(3);
  std::vector<int> in_use(static_cast<size_t>(threads()), 0);
  std::vector<int> clashes(200, 0);
  parallel_for(200, 1, [&](int64_t begin, int64_t) {
    int& mine = in_use.at(static_cast<size_t>(thread_index()));
    clashes[static_cast<size_t>(begin)] = mine++;
    --mine;
  });
  CHECK(std::accumulate(clashes.begin(), clashes.end(), 0) == 0);
}

TEST_CASE("what a block throws comes out of the loop, after all blocks") {
  for (const int count : {1, 200}) {
    const Threads guard(3);
    std::vector<int> done(static_cast<size_t>(count), 0);
    const auto loop = [&] {
      parallel_for(count, 1, [&](int64_t begin, int64_t) {
        done[static_cast<size_t>(begin)] = 1;
        if (begin % 50 == 0) throw std::bad_alloc();
      });
    };
    CHECK_THROWS_AS(loop(), std::bad_alloc);
    CHECK(std::accumulate(done.begin(), done.end(), 0) == count);
  }
}

}  // namespace regla::test
