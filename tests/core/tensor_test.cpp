#include "core/tensor.h"

#include <cmath>
#include <limits>

#include "backends/copies.h"
#include "core/memory.h"
#include "tests/matchers.h"
#include "tests/support.h"

namespace regla::test {

TEST_CASE("a part of a block is a tensor of another type on the same memory") {
  const Tensor block = Tensor::zeros({3}, DType::F64);
  Tensor numbers = block.part(8, {2, 2}, DType::I32);
  numbers.fill(-1);
  CHECK(numbers.shares_memory_with(block));
  CHECK(block.values()[0] == 0);
  CHECK(std::isnan(block.values()[1]));  // all bits
  CHECK(block.part(20, {1}, DType::F32).bytes() == 4);
  CHECK(error_of([&] { block.part(20, {2}, DType::F32); }) ==
        "[part] expected 8 bytes inside of 24, got byte 20");
  CHECK(error_of([&] { block.part(4, {1}, DType::F64); }) ==
        "[part] expected 8 bytes inside of 24, got byte 4");
}

TEST_CASE("a shape knows its axes and its size") {
  const Shape shape = {2, 3, 5};
  CHECK(shape.rank() == 3);
  CHECK(shape[0] == 2);
  CHECK(shape[-1] == 5);
  CHECK(shape.numel() == 30);
  CHECK(shape.text() == "[2, 3, 5]");
  CHECK(shape.append(7) == Shape{2, 3, 5, 7});
  CHECK(shape.drop_last() == Shape{2, 3});
  CHECK(shape.with(-1, 7) == Shape{2, 3, 7});
  CHECK(shape.with(0, 0) == Shape{0, 3, shape[2]});
  CHECK(shape.append(7).drop_last() == shape);
  CHECK(Shape{}.numel() == 1);
  CHECK(Shape{3, 0}.numel() == 0);
  CHECK_FALSE(Shape{2, 3} == Shape{3, 2});
  CHECK_FALSE(Shape{2, 1} == Shape{2});
}

TEST_CASE("sizes are 64 bits wide") {
  const int64_t large = int64_t{1} << 31;
  CHECK(Shape{large, 4}.numel() == int64_t{1} << 33);
  CHECK(Shape{large, large}.numel() == int64_t{1} << 62);
  CHECK(error_of([&] {
          Shape({large, large, 2}).numel();
        }) == "[shape] too many elements in [2147483648, 2147483648, 2]");
  CHECK(error_of([&] { Tensor::empty({large, large}, DType::F64); }).rfind("[tensor]", 0) == 0);
}

TEST_CASE("a wrong shape is an error") {
  CHECK(error_of([] { Shape({1, 2, 3, 4, 5, 6}); }).rfind("[shape]", 0) == 0);
  CHECK(error_of([] { Shape({2, -1}); }).rfind("[shape]", 0) == 0);
  CHECK(error_of([] { return Shape({2, 3})[2]; }).rfind("[shape]", 0) == 0);
  CHECK(error_of([] { return Shape({2, 3})[-3]; }).rfind("[shape]", 0) == 0);
  CHECK(error_of([] { Shape({1, 2, 3, 4, 5}).append(1); }).rfind("[shape]", 0) == 0);
  CHECK(error_of([] { Shape{}.drop_last(); }).rfind("[shape]", 0) == 0);
  CHECK(error_of([] { Shape{2}.with(1, 3); }).rfind("[shape]", 0) == 0);
  CHECK(error_of([] { Shape{2}.with(0, -1); }).rfind("[shape]", 0) == 0);
}

TEST_CASE("reshape and slice share memory, clone does not") {
  Tensor x = Tensor::of({4, 2}, std::vector<float>{0, 1, 2, 3, 4, 5, 6, 7});
  const Tensor flat = x.reshape({8}), rows = x.slice(1, 3), copy = x.clone();
  CHECK(rows.shape() == Shape{2, 2});
  CHECK(rows.values() == std::vector<double>{2, 3, 4, 5});
  CHECK(rows.slice(1, 2).values() == std::vector<double>{4, 5});
  CHECK(rows.slice(1, 1).numel() == 0);
  x.data<float>()[3] = -1;
  CHECK(flat.values()[3] == -1);
  CHECK(rows.values()[1] == -1);
  CHECK(copy.values()[3] == 3);
  CHECK_FALSE(x.unique());
  CHECK(copy.unique());
}

TEST_CASE("a tensor refuses what does not fit") {
  const Tensor x = Tensor::zeros({4, 2}, DType::F32);
  CHECK(error_of([&] { x.reshape({7}); }).rfind("[reshape]", 0) == 0);
  CHECK(error_of([&] { x.slice(3, 5); }).rfind("[slice]", 0) == 0);
  CHECK(error_of([&] { x.slice(2, 1); }).rfind("[slice]", 0) == 0);
  CHECK(error_of([&] { x.data<double>(); }).rfind("[tensor] expected F64, got F32", 0) == 0);
  CHECK(error_of([&] { Tensor().data<float>(); }).rfind("[tensor]", 0) == 0);
  CHECK(error_of([&] { Tensor::of({3}, std::vector<float>{1}); }).rfind("[tensor]", 0) == 0);
  CHECK(error_of([&] { x.clone().copy_from(converted(x, DType::F64)); }).rfind("[copy]", 0) == 0);
  CHECK(error_of([&] { x.clone().copy_from(x.reshape({8})); }).rfind("[copy]", 0) == 0);
  CHECK(error_of([] { Tensor::empty({1}, DType::F32, {Device::Kind::Cuda, 0}); }) != "no error");
}

TEST_CASE("conversion keeps values") {
  const Tensor x = Tensor::of({3}, std::vector<double>{-1.5, 2, 1e30});
  CHECK(converted(x, DType::F32).values()[0] == -1.5);
  CHECK(converted(x, DType::F64).raw() == x.raw());
  CHECK(converted(x.slice(0, 2), DType::I32).values() == std::vector<double>{-1, 2});
  CHECK_FALSE(converted(Tensor(), DType::F32).defined());
  CHECK(Tensor::full({2}, 7, DType::I32).values() == std::vector<double>{7, 7});
}

#ifdef REGLA_DEBUG_FILL
TEST_CASE("fresh memory is NaN, also when it was used before") {
  for (DType dtype : {DType::F32, DType::F64}) {
    for (int round = 0; round < 2; ++round) {
      Tensor x = Tensor::empty({100}, dtype);
      for (double value : x.values()) REQUIRE(std::isnan(value));
      x.fill(1);
    }
  }
}
#endif

TEST_CASE("memory hands out aligned blocks and uses them again") {
  Memory& cpu = memory(Device{});
  { const Tensor warm = Tensor::empty({1000}, DType::F32); }
  const MemoryStats before = cpu.stats();
  {
    const Tensor x = Tensor::empty({1000}, DType::F32);
    CHECK(reinterpret_cast<uintptr_t>(x.raw()) % 64 == 0);
    CHECK(cpu.stats().bytes_in_use >= before.bytes_in_use + 4000);
    CHECK(cpu.stats().peak_bytes_in_use >= cpu.stats().bytes_in_use);
    const Tensor neighbour = Tensor::empty({999}, DType::F32);
    CHECK(neighbour.raw() != x.raw());
  }
  CHECK(cpu.stats().bytes_in_use == before.bytes_in_use);
  const int64_t calls = cpu.stats().system_calls;
  for (int i = 0; i < 100; ++i) Tensor::empty({1000 - i % 7}, DType::F32);
  CHECK(cpu.stats().system_calls == calls);
  CHECK(cpu.stats().bytes_requested > before.bytes_requested);
}

TEST_CASE("memory that cannot be had is an error, and nothing is lost") {
  Memory& cpu = memory(Device{});
  const int64_t before = cpu.stats().bytes_in_use;
#if !defined(__SANITIZE_ADDRESS__)
  CHECK(error_of([] { Tensor::empty({int64_t{1} << 58}, DType::F64); }).rfind("[memory]", 0) == 0);
#endif
  CHECK(cpu.stats().bytes_in_use == before);
}

TEST_CASE("memory serves threads at the same time") {
  const Threads guard(3);
  const int64_t before = memory(Device{}).stats().bytes_in_use;
  std::vector<int> wrong(64, 0);
  parallel_for(64, 1, [&](int64_t begin, int64_t) {
    for (int i = 1; i < 50; ++i) {
      Tensor x = Tensor::full({i * 10}, static_cast<double>(begin), DType::F32);
      for (double value : x.values()) wrong[static_cast<size_t>(begin)] += value != double(begin);
    }
  });
  CHECK(std::accumulate(wrong.begin(), wrong.end(), 0) == 0);
  CHECK(memory(Device{}).stats().bytes_in_use == before);
}

TEST_CASE("check puts its parts together") {
  CHECK(error_of([] {
          check(false, "[x] expected ", 2, ", got ", Shape{3, 4});
        }) == "[x] expected 2, got [3, 4]");
  CHECK(error_of([] { check(true, "never"); }) == "no error");
}

TEST_CASE("fresh memory holds nothing that passes for a value") {
#ifdef REGLA_DEBUG_FILL
  for (const DType dtype : {DType::F32, DType::F64, DType::BF16}) {
    for (const double value : Tensor::empty({5}, dtype).values()) CHECK(std::isnan(value));
  }
  // Neither an index, nor a class, nor the -1 of a target that is not counted.
  for (const double value : Tensor::empty({5}, DType::I32).values()) CHECK(value < -1e9);
#else
  CHECK(Tensor::empty({5}, DType::I32).numel() == 5);
#endif
}

TEST_CASE("no memory is an error of its own") {
  CHECK_THROWS_AS(Tensor::empty({int64_t{1} << 25, int64_t{1} << 25}, DType::F32), MemoryError);
  CHECK_THROWS_AS(Tensor::empty({int64_t{1} << 30, int64_t{1} << 30, 2}, DType::F32), MemoryError);
  CHECK_THROWS_AS(memory({}).allocate(~size_t{0}), MemoryError);
}

}  // namespace regla::test
