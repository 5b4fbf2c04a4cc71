#include "tests/walled_device.h"

#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <string>
#include <vector>

#include "backends/copies.h"
#include "backends/kernels.h"
#include "core/kernel_scope.h"
#include "core/memory.h"
#include "tests/catch.h"
#include "tests/support.h"

namespace regla::test {
namespace {

Tensor walled(const Shape& shape, const std::vector<float>& values) {
  return Tensor::of(shape, values, walled_device());
}

/// Whether a child process that runs `f` comes to its end.
template <class F>
bool survives(F&& f) {
  const pid_t child = ::fork();
  if (child == 0) {
    std::signal(SIGSEGV, SIG_DFL);  // without a report
    f();
    ::_exit(0);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) && WEXITSTATUS(status) == 0;
}

}  // namespace

TEST_CASE("bytes go to a device, around on it and back") {
  const Tensor x = walled({2, 3}, {1, 2, 3, 4, 5, 6});
  CHECK(x.device() == walled_device());
  CHECK(x.values() == std::vector<double>{1, 2, 3, 4, 5, 6});
  CHECK(x.slice(1, 2).clone().values() == std::vector<double>{4, 5, 6});
  CHECK(x.on(Device{}).device().is_cpu());
  CHECK(same_bits(x.on(Device{}), Tensor::of({2, 3}, std::vector<float>{1, 2, 3, 4, 5, 6})));
  CHECK(x.on(walled_device()).shares_memory_with(x));
  Tensor y = Tensor::full({2, 3}, -2.5, DType::BF16, walled_device());
  CHECK(y.values() == std::vector<double>(6, -2.5));
  y.copy_from(converted(x, DType::BF16));
  CHECK(y.values() == x.values());
  CHECK_FALSE(Tensor().on(walled_device()).defined());
}

TEST_CASE("the host may not ask where a tensor of a device lies") {
  const Tensor x = walled({2}, {1, 2});
  const std::string message = error_of([&] { static_cast<void>(x.data<float>()); });
  CHECK(message.rfind("[tensor] walled F32 [2] is read on the host, at ", 0) == 0);
  CHECK(message.find("walled_device_test.cpp:") != std::string::npos);
  CHECK(error_of([&] { static_cast<void>(x.raw()); }) != "no error");
  Tensor y = Tensor::empty_like(x);
  kernels(walled_device()).add(x, x, y);
  CHECK(y.values() == std::vector<double>{2, 4});
  CHECK(error_of([&] { static_cast<void>(y.data<float>()); }) != "no error");
}

TEST_CASE("reads on the host can be listed instead of refused") {
  const Tensor x = walled({2}, {1, 2});
  std::vector<std::string> places;
  {
    const StrayReads list([&](const std::string& what, CodeLocation where) {
      places.push_back(what + " " + std::to_string(where.line));
    });
    const int line = __LINE__ + 1;
    static_cast<void>(x.data<float>());
    static_cast<void>(x.raw());
    CHECK(places == std::vector<std::string>{"walled F32 [2] " + std::to_string(line),
                                             "walled F32 [2] " + std::to_string(line + 1)});
  }
  CHECK(error_of([&] { static_cast<void>(x.raw()); }) != "no error");
}

TEST_CASE("an address that was kept faults") {
  const Tensor x = walled({2}, {1, 2});
  const volatile float* address = nullptr;
  {
    const StrayReads list([](const std::string&, CodeLocation) {});
    address = x.data<float>();
  }
  CHECK(survives([] {}));
  CHECK_FALSE(survives([&] { static_cast<void>(*address); }));
  CHECK(survives([&] {
    const KernelScope scope(walled_device());
    static_cast<void>(*address);
  }));
}

TEST_CASE("a kernel refuses tensors of two devices") {
  const Tensor x = walled({2}, {1, 2}), y = Tensor::zeros({2}, DType::F32);
  CHECK(error_of([&] { kernels(walled_device()).add(x, y, Tensor::empty_like(x)); }) ==
        "[add] expected all tensors on walled, got one on cpu");
  // Those in structs and sinks too.
  CHECK(error_of([&] {
          kernels(Device{}).matmul({.a = y.reshape({1, 2}), .b = x.reshape({2, 1}), .bias = {}},
                                   Sink{Tensor::empty({1, 1}, DType::F32)});
        }) == "[matmul] expected all tensors on cpu, got one on walled");
  CHECK(error_of([&] { kernels(Device{}).accumulate(y, 1, Sink{Tensor::empty_like(x)}); }) ==
        "[accumulate] expected all tensors on cpu, got one on walled");
}

TEST_CASE("a device counts what it copies to and from the host") {
  const MemoryStats before = memory(walled_device()).stats();
  const Tensor x = walled({2}, {1, 2});
  static_cast<void>(x.clone());
  CHECK(memory(walled_device()).stats().copies_from_host == before.copies_from_host + 1);
  CHECK(memory(walled_device()).stats().copies_to_host == before.copies_to_host);
  static_cast<void>(x.values());
  CHECK(memory(walled_device()).stats().copies_to_host == before.copies_to_host + 1);
  CHECK(memory(walled_device()).stats().bytes_in_use > before.bytes_in_use);
}

TEST_CASE("marks pass in their order, late, or when they are waited for") {
  Memory& wall = memory(walled_device());
  const Tensor x = walled({2}, {1, 2});
  const int64_t first = wall.set_mark(), second = wall.set_mark(), third = wall.set_mark();
  CHECK(second == first + 1);
  CHECK(wall.has_passed(first));
  CHECK_FALSE(wall.has_passed(second));
  wall.wait_for(second);
  CHECK(wall.has_passed(second));
  CHECK_FALSE(wall.has_passed(third));
  wall.wait();
  CHECK(wall.has_passed(third));
  Memory& cpu = memory(Device{});
  CHECK(cpu.has_passed(cpu.set_mark()));
  const WallCounts before = counts_outside_of_routines();
  const int64_t mark = wall.set_mark();
  CHECK(x.values_at(mark) == std::vector<double>{1, 2});
  CHECK(wall.has_passed(mark));
  CHECK((counts_outside_of_routines() - before).copies_beside == 1);
}

TEST_CASE("a device that is not there is one line") {
  const Device gpu = Device::named("cuda:63");
  CHECK(error_of([&] { Tensor::empty({1}, DType::F32, gpu); }) ==
        "[device] no cuda:63 here: this build or this machine has none");
  CHECK(Device::named("cuda").text() == "cuda:0");
  CHECK(Device::named("cpu").is_cpu());
  for (const char* name :
       {"", "gpu", "cuda:", "cuda:x", "cuda:-1", "cuda:1x", "cuda:99999999999"}) {
    CHECK(error_of([&] { Device::named(name); }) ==
          std::string("[device] expected cpu, cuda or cuda:<index>, got ") + name);
  }
}

}  // namespace regla::test
