// Every op behind the wall: the samples run on a walled device, called and recorded, whose bits
// must be the CPU's.
#include <algorithm>
#include <cstring>
#include <set>
#include <string>

#include "backends/routine.h"
#include "tests/all_ops.h"
#include "tests/catch.h"
#include "tests/walled_device.h"

namespace regla::test {
namespace {

bool same(const Tensors& a, const Tensors& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), same_bits);
}

/// Whether what is defined lies there.
bool all_on(Device device, const Tensors& tensors) {
  return std::all_of(tensors.begin(), tensors.end(),
                     [=](const Tensor& x) { return !x || x.device() == device; });
}

}  // namespace

TEST_CASE("every op computes the CPU's bits behind the wall") {
  const Device device = walled_device();
  for (const auto& list : {all_ops(), large_ops()}) {
    for (const OpSample& sample : list) {
      for (const DType dtype : {DType::F32, DType::F64}) {
        INFO(sample.name() << ", " << name_of(dtype));
        const Result expected = run(sample, sample.make(dtype), 800),
                     got = run(sample, sample.make(dtype, device), 800);
        CHECK(all_on(device, got.outputs));
        CHECK(all_on(device, got.gradients));
        CHECK(same(got.outputs, expected.outputs));
        CHECK(same(got.gradients, expected.gradients));
      }
    }
  }
}

TEST_CASE("every op has the CPU's bits when what was recorded of it is repeated on new numbers") {
  const Device device = walled_device();
  std::set<std::string> recorded;
  for (const auto& list : {all_ops(), large_ops()}) {
    for (const OpSample& sample : list) {
      for (const DType dtype : {DType::F32, DType::F64}) {
        INFO(sample.name() << ", " << name_of(dtype));
        const Tensors values = sample.make(dtype);
        const Result expected = run(sample, values, 800);
        Tensors seeds = cotangents({expected.outputs.begin(), expected.outputs.end()}, 800);
        for (Tensor& seed : seeds) seed = seed.on(device);
        Tensors in = sample.make(dtype, device);
        Result got;
        Routine routine(device, [&] { got = run(sample, in, [&](const Vars&) { return seeds; }); });
        for (size_t i = 0; i < in.size(); ++i) {
          if (sample.inputs[i].is_float()) in[i].fill(-0.25);
        }
        try {
          routine.run();
        } catch (const Error& error) {  // it counts on the host what training tells it
          CHECK(sample.op == "cross_entropy");
          CHECK(std::string(error.what()).find("[routine] bytes are copied to the host") == 0);
          continue;
        }
        recorded.insert(sample.op);
        for (size_t i = 0; i < in.size(); ++i) in[i].copy_from(values[i]);
        const WallCounts before = counts_outside_of_routines();
        routine.run();
        CHECK(counts_outside_of_routines() == before);
        CHECK(same(got.outputs, expected.outputs));
        CHECK(same(got.gradients, expected.gradients));
      }
    }
  }
  CHECK(recorded.count("cross_entropy") == 1);
}

TEST_CASE("an op refuses inputs of two devices") {
  const Tensor x = Tensor::zeros({2, 3}, DType::F32), y = x.on(walled_device());
  CHECK(error_of([&] { add(x, y); }) == "[add] expected all tensors on cpu, got one on walled");
  CHECK(error_of([&] { linear(y, y, Tensor::zeros({2}, DType::F32)); }) ==
        "[linear] expected all tensors on walled, got one on cpu");
  // Those that are no inputs of the tape, too.
  CHECK(error_of([&] { embedding(i32({2}), y); }) ==
        "[embedding] expected all tensors on cpu, got one on walled");
}

}  // namespace regla::test
