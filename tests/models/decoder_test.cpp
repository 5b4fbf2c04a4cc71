#include "models/decoder.h"

#include <cmath>
#include <set>
#include <tuple>

#include "backends/kernels.h"
#include "tests/matchers.h"
#include "tests/models/token_by_token.h"
#include "tests/support.h"

namespace regla::test {
namespace {

Tensor number(int32_t n) { return Tensor::of({1}, std::vector<int32_t>{n}); }

MixerConfig regla_mixer() { return {}; }
MixerConfig softmax_mixer() { return {.type = MixerType::Softmax}; }

ModelConfig small_model(std::vector<MixerConfig> mixers) {
  ModelConfig config;
  config.layers = static_cast<int64_t>(std::max<size_t>(2, mixers.size()));
  config.hidden = 24;
  config.heads = 2;
  config.mlp = 40;
  config.vocab = 37;
  config.mixer = std::move(mixers);
  config.sequence_length = 16;
  return config;
}

struct NamedModel {
  std::string name;
  ModelConfig config;
};

std::vector<NamedModel> models() {
  std::vector<NamedModel> list = {{"regla", small_model({regla_mixer()})},
                                  {"softmax", small_model({softmax_mixer()})},
                                  {"hybrid", small_model({regla_mixer(), softmax_mixer()})}};
  NamedModel other = {"parallel, tied, tanh, window",
                      small_model({regla_mixer(), softmax_mixer()})};
  other.config.parallel_residual = true;
  other.config.tie_embeddings = true;
  other.config.gelu = Gelu::Tanh;
  other.config.mixer[1].window = 5;
  list.push_back(other);
  return list;
}

/// Every parameter moved off its initial value, so that biases and gains count.
void shake(Decoder& decoder, double deviation = 0.1) {
  uint64_t seed = 400;
  for (Parameter* parameter : decoder.parameters()) {
    const Tensor noise =
        normal_tensor(parameter->value.shape(), decoder.dtype(), seed++, deviation);
    parameter->value = add(parameter->value, noise).value;
  }
}

void clear(const Decoder& decoder) {
  for (Parameter* parameter : decoder.parameters()) parameter->clear_gradient();
}

/// AdamW without decay, by the kernel.
class Optimizer {
 public:
  explicit Optimizer(const Decoder& decoder) : parameters_(decoder.parameters()) {
    for (const Parameter* parameter : parameters_) {
      moments_.emplace_back(Tensor::zeros_like(parameter->value),
                            Tensor::zeros_like(parameter->value));
    }
  }
  void step(double rate) {
    ++count_;
    const std::vector<double> rates = {rate, 1 - std::pow(0.9, count_), 1 - std::pow(0.99, count_)};
    for (size_t i = 0; i < parameters_.size(); ++i) {
      kernels({}).adamw({.weights = {{.value = parameters_[i]->value,
                                      .gradient = parameters_[i]->gradient,
                                      .m = moments_[i].first,
                                      .v = moments_[i].second,
                                      .copy = {},
                                      .decay = 0}},
                         .rates = Tensor::of({3}, rates),
                         .factor = Tensor::full({1}, 1, DType::F64),
                         .beta1 = 0.9,
                         .beta2 = 0.99,
                         .epsilon = 1e-8});
    }
  }

 private:
  ParameterList parameters_;
  std::vector<std::pair<Tensor, Tensor>> moments_;
  int count_ = 0;
};

/// Losses while one batch of random tokens is learnt.
std::vector<double> overfit(Decoder& decoder, int steps) {
  const Tensor ids = random_ids({3, 16}, 1, 37), targets = random_ids({3, 16}, 2, 37);
  Optimizer optimizer(decoder);
  std::vector<double> losses;
  for (int i = 0; i < steps; ++i) {
    Tape tape;
    clear(decoder);
    const Var loss = decoder.loss(decoder.hidden(ids), targets);
    tape.backward(loss);
    losses.push_back(loss.value.values()[0]);
    optimizer.step(4e-3);
  }
  return losses;
}

Tensors gradients(const Decoder& decoder) {
  Tensors list;
  for (const Parameter* parameter : decoder.parameters()) {
    REQUIRE_FALSE(parameter->gradient_empty);
    list.push_back(parameter->gradient.clone());
  }
  return list;
}

}  // namespace

TEST_CASE("one batch is learnt by heart") {
  for (const NamedModel& model : models()) {
    Decoder decoder(model.config, 1);
    const std::vector<double> losses = overfit(decoder, 150);
    INFO(model.name);
    CHECK(losses.front() == Approx(std::log(37.0)).margin(0.8));
    CHECK(losses.back() < 0.05);
  }
}

TEST_CASE("training gives the same bits on any number of threads") {
  for (const NamedModel& model : models()) {
    const auto weights = [&](int count) {
      const Threads guard(count);
      Decoder decoder(model.config, 1);
      overfit(decoder, 4);
      Tensors list;
      for (const Parameter* parameter : decoder.parameters()) list.push_back(parameter->value);
      return list;
    };
    const Tensors one = weights(1), two = weights(2), three = weights(3);
    INFO(model.name);
    for (size_t i = 0; i < one.size(); ++i) {
      CHECK(same_bits(one[i], two[i]));
      CHECK(same_bits(one[i], three[i]));
    }
  }
}

TEST_CASE("full chunks, chunks of one, carried tokens and steps give the same logits") {
  for (const NamedModel& model : models()) {
    for (DType dtype : {DType::F32, DType::F64}) {
      Decoder decoder(model.config, 1, dtype);
      shake(decoder);
      const Tensor ids = random_ids({2, 75}, 3, 37);
      const double bound = dtype == DType::F32 ? 1e-4 : 1e-10;
      const Tensor full = decoder.logits(decoder.hidden(ids, {{}, 75})).value;
      INFO(model.name << ", " << name_of(dtype));
      for (int64_t chunk : {0, 1, 16}) {
        const Tensor logits = decoder.logits(decoder.hidden(ids, {{}, chunk})).value;
        CHECK(relative_error(logits, full) < bound);
      }
      DecoderState carried = decoder.initial_state(2), stepped = decoder.initial_state(2);
      const Tensor by_token = token_by_token(decoder, ids, [&](const Tensor& token) {
        return decoder.logits(decoder.hidden(token.reshape({2, 1}), {}, &carried)).value;
      });
      const Tensor by_step = token_by_token(
          decoder, ids, [&](const Tensor& token) { return decoder.step(token, stepped); });
      CHECK(relative_error(by_token, full) < bound);
      CHECK(relative_error(by_step, full) < bound);
    }
  }
}

TEST_CASE("decoding moves the state in place, with room that is made once or doubled") {
  for (const NamedModel& model : models()) {
    Decoder decoder(model.config, 1);
    shake(decoder);
    INFO(model.name);
    const Tensor prompt = random_ids({2, 9}, 3, 37), ids = random_ids({2, 150}, 4, 37);
    const NoGrad guard;
    const auto decoded = [&](bool reserved) {
      DecoderState state = decoder.initial_state(2);
      decoder.hidden(prompt, {}, &state);
      if (reserved) decoder.reserve(state, 150);
      int moves = 0;
      const Tensor logits = token_by_token(decoder, ids, [&](const Tensor& token) {
        const DecoderState before = state;
        const bool in_place = decoder.steps_ahead(state) > 0;
        const Tensor scores = decoder.step(token, state);
        CHECK(state.position.shares_memory_with(before.position));
        for (size_t layer = 0; in_place && layer < state.layers.size(); ++layer) {
          const MixerState &a = before.layers[layer], &b = state.layers[layer];
          CHECK(a.S.value.shares_memory_with(b.S.value));
          CHECK(a.m.value.shares_memory_with(b.m.value));
          CHECK(a.keys.value.shares_memory_with(b.keys.value));
          CHECK(a.values.value.shares_memory_with(b.values.value));
          CHECK(a.used.shares_memory_with(b.used));
        }
        moves += in_place ? 0 : 1;
        return scores;
      });
      CHECK(state.position.values() == std::vector<double>{159, 159});
      int64_t capacity = 0;
      for (const MixerState& layer : state.layers) {
        if (!layer.used) continue;
        capacity = layer.keys.dim(1);
        CHECK(layer.used.values()[0] == static_cast<double>(layer.length));
      }
      return std::tuple(logits, moves, capacity);
    };
    const auto [once, moves, capacity] = decoded(true);
    const auto [doubled, more_moves, more_capacity] = decoded(false);
    CHECK(same_bits(once, doubled));
    const bool grows = model.name == "softmax" || model.name == "hybrid", slides = capacity == 64;
    CHECK(slides == (model.name == "parallel, tied, tanh, window"));
    CHECK(moves == (slides ? 2 : 0));  // a window of 5 leaves 4 of 64 entries
    CHECK(capacity == (grows ? 159 : slides ? 64 : 0));
    CHECK(more_moves == (grows || slides ? 3 : 0));  // to 64, 128, 256
    CHECK(more_capacity == (grows ? 256 : capacity));
  }
}

TEST_CASE("a decoder's state has the batch outermost: rows of it are the states of its sequences") {
  for (const NamedModel& model : models()) {
    Decoder decoder(model.config, 1, DType::F64);
    shake(decoder);
    INFO(model.name);
    const Tensor ids = random_ids({3, 20}, 3, 37), more = random_ids({3, 8}, 4, 37);
    const NoGrad guard;
    DecoderState whole = decoder.initial_state(3);
    decoder.hidden(ids, {}, &whole);
    DecoderState copy = whole.clone();
    copy.position.fill(0);
    copy.copy_from(whole);
    const Tensor expected = decoder.hidden(more, {}, &whole).value;
    for (int64_t row = 0; row < 3; ++row) {
      DecoderState part = copy.rows(row, row + 1);
      CHECK(part.position.shares_memory_with(copy.position));
      const Tensor got = decoder.hidden(more.slice(row, row + 1), {}, &part).value;
      CHECK(relative_error(got, expected.slice(row, row + 1)) < 1e-12);
      CHECK(part.position.values() == std::vector<double>{28});
    }
    CHECK(copy.position.values() == std::vector<double>{20, 20, 20});  // as it was
    CHECK_THROWS_AS(copy.copy_from(copy.rows(0, 2)), Error);
    CHECK_THROWS_AS(copy.copy_from({}), Error);
  }
}

TEST_CASE("micro-batches along B are one batch, dropout and uneven counts included") {
  for (const NamedModel& model : models()) {
    Decoder decoder(model.config, 1, DType::F64);
    shake(decoder);
    const Tensor ids = random_ids({4, 11}, 3, 37);
    Tensor targets = random_ids({4, 11}, 4, 37);
    for (int64_t i : {0, 1, 2, 3, 4, 5, 6, 30}) targets.data<int32_t>()[i] = -1;
    const auto run = [&](int64_t rows) {
      clear(decoder);
      double loss = 0;
      for (int64_t row = 0; row < 4; row += rows) {
        Tape tape;
        DropoutSource dropout(9, number(5), 0.25, row);
        const Var hidden = decoder.hidden(ids.slice(row, row + rows), {}, nullptr, &dropout);
        const Var part = decoder.loss(hidden, targets.slice(row, row + rows), 44 - 8);
        tape.backward(part);
        loss += part.value.values()[0];
      }
      return loss;
    };
    const double whole_loss = run(4);
    const Tensors whole = gradients(decoder);
    INFO(model.name);
    for (int64_t rows : {1, 2}) {
      CHECK(run(rows) == Approx(whole_loss).epsilon(1e-12));
      const Tensors parts = gradients(decoder);
      for (size_t i = 0; i < whole.size(); ++i) {
        INFO(decoder.parameters()[i]->name);
        // A key's bias moves all scores of a softmax alike.
        if (dot(whole[i], whole[i]) < 1e-24) continue;
        CHECK(relative_error(parts[i], whole[i]) < 1e-10);
      }
    }
  }
}

TEST_CASE("the whole decoder's gradient is exact") {
  for (const NamedModel& model : models()) {
    ModelConfig config = model.config;
    config.hidden = 8;
    config.mlp = 12;
    config.vocab = 11;
    Decoder decoder(config, 1, DType::F64);
    shake(decoder, 0.3);
    const Tensor ids = random_ids({2, 7}, 3, 11), targets = random_ids({2, 7}, 4, 11);
    const Segment segment = {Tensor::of({2, 7}, std::vector<int32_t>{0, 0, 0, 0, 1, 0, 0,  //
                                                                     0, 0, 1, 0, 0, 0, 0})};
    const auto loss = [&] {
      DropoutSource dropout(9, number(5), 0.1);
      return decoder.loss(decoder.hidden(ids, segment, nullptr, &dropout), targets);
    };
    {
      Tape tape;
      clear(decoder);
      tape.backward(loss());
    }
    // Softmax does not see a bias of its keys, which leaves nothing to compare.
    double largest = 0;
    for (const Tensor& gradient : gradients(decoder)) {
      largest = std::max(largest, dot(gradient, gradient));
    }
    for (Parameter* parameter : decoder.parameters()) {
      const std::vector<double> all = parameter->gradient.values();
      std::vector<double> analytic, numeric;
      const int64_t stride = std::max<int64_t>(1, parameter->value.numel() / 12);
      for (int64_t i = 0; i < parameter->value.numel(); i += stride) {
        analytic.push_back(all[static_cast<size_t>(i)]);
        numeric.push_back(slope(parameter->value, i, [&] { return loss().value.values()[0]; }));
      }
      INFO(model.name << ", " << parameter->name);
      if (dot(parameter->gradient, parameter->gradient) < 1e-24 * largest) {
        for (double value : numeric) CHECK(std::abs(value) < 1e-10);
        continue;
      }
      CHECK(relative_error(analytic, numeric) < 1e-7);
    }
  }
}

TEST_CASE("the loss is the mean of the losses, and softmax of the logits") {
  Decoder decoder(small_model({regla_mixer(), softmax_mixer()}), 1, DType::F64);
  shake(decoder);
  const Tensor ids = random_ids({2, 7}, 3, 37);
  Tensor targets = random_ids({2, 7}, 4, 37);
  targets.data<int32_t>()[3] = -1;
  const Var hidden = decoder.hidden(ids);
  const std::vector<double> losses = decoder.losses(hidden, targets).values();
  const std::vector<double> p = softmax(decoder.logits(hidden)).value.values();
  double sum = 0;
  for (size_t i = 0; i < 14; ++i) {
    sum += losses[i];
    if (i == 3) continue;
    const auto target = static_cast<size_t>(targets.data<int32_t>()[i]);
    CHECK(losses[i] == Approx(-std::log(p[i * 37 + target])).epsilon(1e-12));
  }
  CHECK(losses[3] == 0);
  CHECK(decoder.loss(hidden, targets).value.values()[0] == Approx(sum / 13).epsilon(1e-12));
  CHECK(decoder.loss(hidden, targets, 26).value.values()[0] == Approx(sum / 26).epsilon(1e-12));
}

TEST_CASE("a block is sequential or parallel") {
  for (bool parallel : {false, true}) {
    ModelConfig config = small_model({regla_mixer()}).resolved();
    config.parallel_residual = parallel;
    Block block(config, 0, ParameterFactory(1, DType::F64));
    const Tensor x = normal_tensor({2, 5, 24}, DType::F64, 1);
    const Var mixed = block.mixer->chunked(block.norm1(x), {}, nullptr);
    const Var middle = add(x, mixed);
    const Var expected = add(middle, block.mlp(block.norm2(parallel ? Var(x) : middle)));
    const Residual y = block.chunked({x, {}}, {}, nullptr, nullptr);
    CHECK(relative_error(add(y.sum, y.branch).value, expected.value) < 1e-14);
  }
}

TEST_CASE("names are unique, initial weights follow from the seed and the name alone") {
  ModelConfig config = small_model({regla_mixer(), softmax_mixer(), regla_mixer()});
  const Decoder decoder(config, 1), again(config, 1), other(config, 2);
  std::set<std::string> names;
  std::set<double> first_values;
  for (size_t i = 0; i < decoder.parameters().size(); ++i) {
    const Parameter& parameter = *decoder.parameters()[i];
    names.insert(parameter.name);
    CHECK(all_finite(parameter.value));
    CHECK(same_bits(parameter.value, again.parameters()[i]->value));
    const bool matrix =
        parameter.value.rank() == 2 && parameter.name.find("norm") == std::string::npos;
    if (!matrix) continue;
    first_values.insert(parameter.value.values()[0]);
    CHECK_FALSE(same_bits(parameter.value, other.parameters()[i]->value));
  }
  CHECK(names.size() == decoder.parameters().size());
  CHECK(first_values.size() == 3 * 4 + 2 * 2 + 3 * 2 + 2);
  CHECK(names.count("embed_in.weight") == 1);
  CHECK(names.count("layers.0.mixer.query.weight") == 1);
  CHECK(names.count("layers.2.mlp.out.bias") == 1);
  CHECK(names.count("embed_out.weight") == 1);
  config.tie_embeddings = true;
  const Decoder tied(config, 1);
  CHECK(tied.parameters().size() == decoder.parameters().size() - 1);
  CHECK(same_bits(tied.parameters()[0]->value, decoder.parameters()[0]->value));
}

TEST_CASE("initial weights have the deviations of the configuration") {
  ModelConfig config = small_model({regla_mixer()});
  config.hidden = 128;
  config.mlp = 256;
  config.vocab = 300;
  const Decoder decoder(config, 3, DType::F64);
  const double small = std::sqrt(2 / (5 * 128.0)), output = 2 / (2 * std::sqrt(128.0));
  for (const Parameter* parameter : decoder.parameters()) {
    const std::string& name = parameter->name;
    const double size = std::sqrt(dot(parameter->value, parameter->value) /
                                  static_cast<double>(parameter->value.numel()));
    const bool norm = name.find("norm") != std::string::npos;
    INFO(name);
    if (name.rfind(".bias") != std::string::npos) {
      CHECK(size == 0);
      CHECK(parameter->role == (norm ? Role::Vector : Role::Bias));
    } else if (norm) {
      CHECK(size == 1);
      CHECK(parameter->role == Role::Vector);
    } else {
      const bool out = name.find("mixer.output") != std::string::npos ||
                       name.find("mlp.out") != std::string::npos;
      CHECK(size == Approx(out ? output : small).epsilon(0.03));
      CHECK(parameter->role == (name == "embed_in.weight" ? Role::Table : Role::Matrix));
    }
  }
}

TEST_CASE("dropout changes with the step and the place, not with the part of the batch") {
  const Tensor x = Tensor::full({4, 3, 50}, 1, DType::F64);
  DropoutSource a(1, number(2), 0.5), b(1, number(2), 0.5, 2), next_step(1, number(3), 0.5);
  const Tensor first = a(x).value, second = a(x).value;
  CHECK(relative_error(b(x.slice(2, 4)).value, first.slice(2, 4)) == 0);
  CHECK_FALSE(same_bits(first, second));
  CHECK_FALSE(same_bits(first, next_step(x).value));
  double kept = 0;
  for (double value : first.values()) {
    CHECK((value == 0 || value == 2));
    kept += value / 2;
  }
  CHECK(kept == Approx(300).margin(50));
}

TEST_CASE("a decoder refuses what it cannot read") {
  Decoder decoder(small_model({regla_mixer()}), 1);
  CHECK_THROWS_WITH(decoder.hidden(random_ids({4}, 1, 37)), Contains("[decoder]"));
  CHECK_THROWS_WITH(decoder.hidden(Tensor::zeros({2, 0}, DType::I32)), Contains("[decoder]"));
  CHECK_THROWS_WITH(decoder.hidden(Tensor::full({1, 2}, 37, DType::I32)), Contains("[embedding]"));
  DecoderState state = decoder.initial_state(2);
  CHECK_THROWS_WITH(decoder.step(random_ids({2, 1}, 1, 37), state), Contains("[decoder]"));
  for (const ModelConfig& config : {models()[0].config, models()[1].config}) {
    Decoder any(config, 1);
    DecoderState two = any.initial_state(2);
    const auto expected = Contains("[decoder] expected a state of 3 sequences");
    CHECK_THROWS_WITH(any.step(random_ids({3}, 1, 37), two), expected);
    CHECK_THROWS_WITH(any.hidden(random_ids({3, 4}, 1, 37), {}, &two), expected);
    const Segment wrong = {Tensor::zeros({4, 2}, DType::I32)};
    CHECK_THROWS_WITH(any.hidden(random_ids({2, 4}, 1, 37), wrong), Contains("[mixer]"));
  }
  state.layers.pop_back();
  CHECK_THROWS_WITH(decoder.hidden(random_ids({2, 3}, 1, 37), {}, &state), Contains("[decoder]"));
  ModelConfig config = small_model({regla_mixer()});
  config.vocab = 0;
  CHECK_THROWS_WITH(Decoder(config, 1), Contains("[decoder]"));
  config.vocab = 10;
  config.heads = 5;
  CHECK_THROWS_WITH(Decoder(config, 1), Contains("[config]"));
}

}  // namespace regla::test
