// The same work again on the same memory: on the CPU, where it is called, and on the walled device,
// where it is recorded and repeated.

#include "backends/routine.h"

#include <string>
#include <vector>

#include "autograd/ops.h"
#include "backends/kernels.h"
#include "core/memory.h"
#include "tests/catch.h"
#include "tests/support.h"
#include "tests/walled_device.h"

namespace regla::test {
namespace {

constexpr int64_t B = 2, T = 37, H = 2, K = 8, D = H * K, kVocab = 50;

Tensor on_wall(const Tensor& x) { return x.on(walled_device()); }

/// A small language model's loss and gradients, through recurrences, a running maximum, norms and
/// dropout.
struct ToyUpdate {
  DType dtype;
  Device device;
  Tensor ids = Tensor::zeros({B, T}, DType::I32, device);
  Tensor targets = Tensor::zeros({B, T}, DType::I32, device);
  Tensor reset = Tensor::zeros({B, T}, DType::I32, device);
  std::vector<Parameter> parameters = {parameter({kVocab, D}, 1), parameter({D, D}, 2),
                                       parameter({D, D}, 3),      parameter({D, D}, 4),
                                       parameter({D}, 5),         parameter({D}, 6)};
  Tensor state = Tensor::zeros({B, H, K, K}, dtype, device);
  Tensor loss = Tensor::zeros({1}, DType::F64, device);
  int calls = 0;

  Parameter parameter(const Shape& shape, uint64_t seed) const {
    Parameter made;
    made.value = normal_tensor(shape, dtype, seed, 0.5).on(device);
    return made;
  }

  void read(uint64_t seed) {
    ids.copy_from(random_ids({B, T}, seed, kVocab));
    targets.copy_from(random_ids({B, T}, seed + 1, kVocab));
    reset.copy_from(random_mask({B, T}, seed + 2, 0.1));
  }

  void operator()() {
    ++calls;
    for (Parameter& parameter : parameters) parameter.clear_gradient();
    Tape tape;
    const auto weight = [&](size_t i) { return use(parameters[i]); };
    const auto heads = [](const Var& x) { return reshape(x, {B, T, H, K}); };
    const Var x = embedding(ids, weight(0));
    const Var h = layer_norm(x, weight(4), weight(5), 1e-5);
    const Var q = linear(h, weight(1), {}), k = linear(h, weight(2), {}),
              v = linear(h, weight(3), {});
    const SafeExp keys = safe_exp(heads(k), {}, reset, Maximum::Running, 0.5);
    const SafeExp queries = safe_exp(heads(q), {}, {}, Maximum::Token, 0.5);
    const Recurrence attended =
        linear_attention(queries.features, keys.features, heads(v),
                         {.key = {}, .value = {}, .scalar = keys.log_rho}, reset, Var(state), 8);
    const Var g = sigmoid(reshape(last(reshape(k, {B * T, D}), 1), {B, T, 1}));
    const Var strength = reshape(concatenate(g, g), {B, T, H});
    const Recurrence ruled =
        delta_rule(softmax(heads(q)), softmax(heads(k)), attended.o, strength, reset, {}, 16);
    const Var y = add_dropout(x, gelu(reshape(ruled.o, {B, T, D}), Gelu::Tanh), 0.2, {7, 3, 0});
    const Var result = cross_entropy(y, weight(0), targets, B * T);
    tape.backward(result);
    state.copy_from(attended.state.value);
    loss.copy_from(result.value);
  }
};

}  // namespace

TEST_CASE("a routine on the CPU is a call") {
  int calls = 0;
  Routine routine(Device{}, [&] { ++calls; });
  routine.run();
  routine.run();
  CHECK(calls == 2);
}

TEST_CASE("a recorded step with its gradients has the bits of one that is called") {
  for (const DType dtype : {DType::F32, DType::F64}) {
    ToyUpdate called{.dtype = dtype, .device = Device{}};
    ToyUpdate recorded{.dtype = dtype, .device = walled_device()};
    Routine routine(walled_device(), [&] { recorded(); });
    for (uint64_t update = 0; update < 4; ++update) {
      INFO(name_of(dtype) << ", update " << update);
      called.read(10 * update);
      recorded.read(10 * update);
      called();
      const WallCounts outside = counts_outside_of_routines(), inside = counts_inside_routines();
      routine.run();
      CHECK(counts_outside_of_routines() == outside);
      CHECK((counts_inside_routines() - inside).kernels > 30);
      CHECK(same_bits(recorded.loss.on(Device{}), called.loss));
      CHECK(same_bits(recorded.state.on(Device{}), called.state));
      for (size_t i = 0; i < called.parameters.size(); ++i) {
        INFO("parameter " << i);
        CHECK(
            same_bits(recorded.parameters[i].gradient.on(Device{}), called.parameters[i].gradient));
      }
    }
    CHECK(recorded.calls == 1);
    CHECK(called.calls == 4);
  }
}

TEST_CASE("what a routine repeats is its kernels, copies and fills") {
  const Tensor x = on_wall(Tensor::full({3}, 1, DType::F32)), y = Tensor::zeros_like(x);
  Tensor kept;
  Routine routine(walled_device(), [&] {
    Tensor copy = Tensor::full({3}, -1, DType::F32, walled_device());
    kernels(walled_device()).add(x, copy, copy);
    kept = copy.clone();
    copy.fill(9);  // after it was read
    kernels(walled_device()).accumulate(kept, 1, {y, true});
  });
  const WallCounts before = counts_inside_routines();
  routine.run();
  const WallCounts first = counts_inside_routines() - before;
  CHECK(first.kernels == 2);
  CHECK(first.copies == 1);
  CHECK(first.fills >= 2);
  CHECK(y.values() == std::vector<double>(3, 0));
  for (double value : {2.0, 5.0}) {
    const WallCounts again = counts_inside_routines();
    on_wall(x).fill(value);
    const std::vector<double> sum = y.values();
    routine.run();
    CHECK(counts_inside_routines() - again == first);
    CHECK(kept.values() == std::vector<double>(3, value - 1));
    CHECK(y.values() == std::vector<double>(3, sum[0] + value - 1));
  }
}

TEST_CASE("what a routine's memory holds is its own while it lives") {
  const int64_t size = 40'000;  // floats: a large block
  const Tensor x = Tensor::full({size}, 3, DType::F32, walled_device());
  Tensor result;
  auto routine = std::make_unique<Routine>(walled_device(), [&] {
    Tensor twice = Tensor::empty_like(x);
    kernels(walled_device()).add(x, x, twice);
    Tensor other = Tensor::empty_like(x);
    kernels(walled_device()).add(twice, x, other);
    twice = {};
    result = Tensor::empty_like(x);  // where `twice` was
    kernels(walled_device()).add(other, x, result);
  });
  const int64_t before = memory(walled_device()).stats().bytes_in_use;
  routine->run();
  CHECK(memory(walled_device()).stats().bytes_in_use - before == size * 4);
  // All that is free elsewhere is taken and written to, and a repetition leaves it alone.
  std::vector<Tensor> others;
  for (int i = 0; i < 300; ++i) {
    others.push_back(Tensor::full({size}, i, DType::F32, walled_device()));
  }
  Tensor(x).fill(5);
  routine->run();
  CHECK(result.values() == std::vector<double>(static_cast<size_t>(size), 20));
  for (size_t i = 0; i < others.size(); ++i) {
    CHECK(others[i].values() ==
          std::vector<double>(static_cast<size_t>(size), static_cast<double>(i)));
  }
  // Nor does it write to what it gave away and nobody got.
  result = {};
  routine->run();
  others.push_back(Tensor::full({size}, 7, DType::F32, walled_device()));
  routine->run();
  CHECK(others.back().values() == std::vector<double>(static_cast<size_t>(size), 7));
}

TEST_CASE("a routine's memory is everybody's when it is gone") {
  Memory& wall = memory(walled_device());
  const auto work = [](std::vector<Tensor>& kept) {
    std::vector<Tensor> all;
    for (int i = 0; i < 20; ++i) {
      all.push_back(Tensor::zeros({100'000 + i}, DType::F32, walled_device()));
    }
    kept = {all[3], all[11]};
  };
  std::vector<Tensor> kept;
  for (int i = 0; i < 3; ++i) {
    Routine routine(walled_device(), [&] { work(kept); });
    routine.run();
  }
  CHECK(kept[1].values() == std::vector<double>(100'011, 0));
  // The blocks that outlived their routine serve others once they are given back.
  kept.clear();
  const int64_t taken = wall.stats().system_bytes;
  for (int i = 0; i < 3; ++i) work(kept);
  kept.clear();
  CHECK(wall.stats().system_bytes - taken <= int64_t{16} << 20);
  const int64_t in_use = wall.stats().bytes_in_use;
  {
    Routine unused(walled_device(), [] {});
  }
  CHECK(wall.stats().bytes_in_use == in_use);
}

TEST_CASE("a block from before that a routine gives back returns to all") {
  Tensor old = Tensor::zeros({1'000'000}, DType::F32, walled_device());
  Tensor fresh;
  Routine routine(walled_device(), [&] {
    old = {};
    fresh = Tensor::full({1'000'000}, 1, DType::F32, walled_device());
  });
  routine.run();
  const int64_t taken = memory(walled_device()).stats().system_bytes;
  const Tensor other = Tensor::full({1'000'000}, 2, DType::F32, walled_device());
  CHECK(memory(walled_device()).stats().system_bytes == taken);
  routine.run();
  CHECK(other.values() == std::vector<double>(1'000'000, 2));
  CHECK(fresh.values() == std::vector<double>(1'000'000, 1));
}

TEST_CASE("copies to and from the host are refused inside of a routine") {
  const Tensor x = Tensor::zeros({2}, DType::F32, walled_device());
  const auto message = [](const std::function<void()>& work) {
    Routine routine(walled_device(), work);
    return error_of([&] { routine.run(); });
  };
  const std::string end = " inside of a routine of walled, which cannot be repeated";
  CHECK(message([&] { static_cast<void>(x.values()); }) ==
        "[routine] bytes are copied to the host" + end);
  CHECK(message([&] { on_wall(Tensor::zeros({2}, DType::F32)); }) ==
        "[routine] bytes are copied from the host" + end);
  CHECK(message([] { memory(walled_device()).wait(); }) == "[routine] the host waits" + end);
  CHECK(message([] { memory(walled_device()).set_mark(); }) == "[routine] a mark is set" + end);
  CHECK(x.values() == std::vector<double>{0, 0});
}

TEST_CASE("a routine inside of another is refused") {
  for (const Device device : {Device{}, walled_device()}) {
    Routine inner(device, [] {});
    Routine outer(device, [&] { inner.run(); });
    CHECK(error_of([&] { outer.run(); }) == "[routine] a routine cannot run inside of another");
    inner.run();
  }
}

TEST_CASE("after an error in its first run a routine begins anew") {
  const Tensor x = Tensor::full({4}, 1, DType::F32, walled_device());
  const Tensor y = Tensor::zeros_like(x);
  bool fails = true;
  Tensor left;
  Routine routine(walled_device(), [&] {
    left = Tensor::zeros_like(x);
    kernels(walled_device()).accumulate(x, 1, {y, true});
    check(!fails, "not this time");
    kernels(walled_device()).accumulate(x, 10, {y, true});
  });
  const int64_t in_use = memory(walled_device()).stats().bytes_in_use;
  CHECK(error_of([&] { routine.run(); }) == "not this time");
  left = {};
  CHECK(memory(walled_device()).stats().bytes_in_use == in_use);
  CHECK(x.clone().values() == std::vector<double>(4, 1));  // outside again
  fails = false;
  routine.run();
  routine.run();
  CHECK(y.values() == std::vector<double>(4, 1 + 11 + 11));
}

TEST_CASE("a kernel that puts a result elsewhere when it is repeated is named") {
  const Kernel<"wandering", "A S S I", void(SafeExpResult&)> wandering =
      +[](SafeExpResult& result) { result.m = Tensor::zeros({1}, DType::F32, walled_device()); };
  const Tensor features = Tensor::zeros({1}, DType::F32, walled_device());
  std::vector<Tensor> held;
  Routine routine(walled_device(), [&] {
    SafeExpResult result{.features = features, .log_rho = {}, .m = {}, .argmax = {}};
    wandering(result);
    held.push_back(result.m);
  });
  routine.run();
  CHECK(error_of([&] { routine.run(); }) ==
        "[wandering] put a result elsewhere when it was repeated");
}

}  // namespace regla::test
