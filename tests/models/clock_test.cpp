// The decoder's clock and its state in place: what a step does can be done again without the host.
#include <functional>
#include <memory>
#include <utility>
#include <vector>

#include "backends/backend.h"
#include "backends/routine.h"
#include "core/heap_memory.h"
#include "core/segment_source.h"
#include "models/decoder.h"
#include "models/generation.h"
#include "tests/catch.h"
#include "tests/support.h"
#include "tests/walled_device.h"

namespace regla::test {
namespace {

int windings = 0;

void wind(const Tensor& start, const Tensor& reset, Tensor positions, Tensor next) {
  ++windings;
  cpu::kTable.positions(start, reset, std::move(positions), std::move(next));
}

/// The CPU under another name, counting how often positions are wound.
Device counting_device() {
  static const Device device = [] {
    const Device counting = {Device::Kind::Walled, 7};
    static auto& segments = *new HostSegments;  // both outlive every tensor
    static KernelTable& table = *new KernelTable(kernels(Device{}));
    table.positions = wind;
    install_backend(counting, {.memory = std::make_unique<HostMemory>(counting, segments),
                               .kernels = &table,
                               .make_replay = {}});
    return counting;
  }();
  return device;
}

ModelConfig three_layers() {
  ModelConfig config;
  config.layers = 3;
  config.hidden = 16;
  config.heads = 2;
  config.vocab = 24;
  config.mixer = {MixerConfig{.rope = Rope::Full}, preset(MixerType::Softmax),
                  preset(MixerType::DeltaNet)};
  return config;
}

}  // namespace

TEST_CASE("positions are wound once per segment, whatever the number of layers") {
  Decoder decoder(three_layers(), 1, DType::F32, counting_device());
  const Tensor ids = random_ids({2, 9}, 3, 24).on(counting_device());
  const Tensor reset = random_mask({2, 9}, 4, 0.2).on(counting_device());
  const auto counted = [&](const std::function<void()>& f) {
    windings = 0;
    f();
    return windings;
  };
  DecoderState state = decoder.initial_state(2);
  CHECK(counted([&] { decoder.hidden(ids); }) == 1);
  CHECK(counted([&] { decoder.hidden(ids, {.reset = reset}, &state); }) == 1);
  const Tensor token = Tensor::full({2}, 3, DType::I32, counting_device());
  CHECK(counted([&] { decoder.step(token, state); }) == 1);
  decoder.recompute_blocks(true);
  CHECK(counted([&] {  // and not again where blocks run again
          Tape tape;
          tape.backward(decoder.loss(decoder.hidden(ids, {}, &state), ids));
        }) == 1);
}

TEST_CASE("steps ahead are the same work on the same memory") {
  for (const int64_t window : {0, 5, 40}) {
    ModelConfig config = three_layers();
    config.mixer[1].window = window;
    INFO("window " << window);
    Decoder decoder(config, 1, DType::F32, walled_device());
    const NoGrad guard;
    const Tensor prompt = random_ids({2, 9}, 3, 24).on(walled_device());
    std::vector<Tensor> ids;
    for (uint64_t t = 0; t < 150; ++t) ids.push_back(random_ids({2}, 10 + t, 24));

    DecoderState called = decoder.initial_state(2), repeated = decoder.initial_state(2);
    decoder.hidden(prompt, {}, &called);
    decoder.hidden(prompt, {}, &repeated);

    Tensor token = Tensor::empty({2}, DType::I32, walled_device()), scores;
    int calls = 0;
    std::unique_ptr<Routine> routine;
    for (const Tensor& next : ids) {
      if (decoder.steps_ahead(repeated) == 0) {
        const Tensor keys = repeated.layers[1].keys.value;
        decoder.reserve(repeated, 60);
        REQUIRE(decoder.steps_ahead(repeated) > 0);
        if (!keys.shares_memory_with(repeated.layers[1].keys.value)) {
          routine = std::make_unique<Routine>(walled_device(), [&] {
            ++calls;
            scores = decoder.step(token, repeated);
          });
        }
      }
      token.copy_from(next);
      const int calls_before = calls;
      routine->run();
      if (calls == calls_before) repeated.advance(1);
      CHECK(same_bits(scores, decoder.step(next.on(walled_device()), called)));
    }
    // Room for 60 more each time; with a window once for what it needs, tidied up in place.
    CHECK(calls == (window == 0 ? 3 : window == 5 ? 1 : 2));
    CHECK(repeated.position.values() == called.position.values());
  }
}

TEST_CASE("a text that a device continues by itself is the CPU's") {
  for (const int64_t window : {0, 5, 40}) {
    for (const double temperature : {0.0, 1.0}) {
      ModelConfig config = three_layers();
      config.mixer[1].window = window;
      Decoder here(config, 1), there(config, 1, DType::F32, walled_device());
      const std::vector<int32_t> prompt = {3, 1, 4, 1, 5};
      const GenerationOptions options = {.sampling = {.temperature = temperature, .seed = 9},
                                         .max_new_tokens = 150};
      const std::vector<int32_t> ids = generate(here, prompt, options);
      CHECK(ids.size() == 150);
      INFO("window " << window << ", temperature " << temperature);
      CHECK(generate(there, prompt, options) == ids);
      // Token by token, without room made before and without a routine.
      const NoGrad guard;
      DecoderState state = here.initial_state(1);
      Tensor scores;
      for (const int32_t id : prompt) scores = here.step(here.ids({1}, {id}), state);
      std::vector<int32_t> stepped;
      for (uint64_t t = 0; t < 150; ++t) {
        stepped.push_back(sample(scores.values(), options.sampling, t));
        scores = here.step(here.ids({1}, {stepped.back()}), state);
      }
      CHECK(stepped == ids);
    }
  }
}

}  // namespace regla::test
