#include "training/trainer.h"

#include <cmath>
#include <limits>

#include "tests/matchers.h"
#include "tests/training/support.h"

namespace regla {
namespace {

using test::kEnd;
using test::one_step;
using test::small_config;
using test::small_mixers;
using test::small_text;

/// Largest difference between the weights of two models, relative to the largest weight.
double distance(const Decoder& a, const Decoder& b) {
  double difference = 0, largest = 0;
  for (size_t p = 0; p < a.parameters().size(); ++p) {
    const auto x = a.parameters()[p]->value.values(), y = b.parameters()[p]->value.values();
    for (size_t i = 0; i < x.size(); ++i) {
      difference = std::max(difference, std::abs(x[i] - y[i]));
      largest = std::max(largest, std::abs(y[i]));
    }
  }
  return difference / largest;
}

Parameter& parameter_of(Decoder& decoder, const std::string& name) {
  for (Parameter* parameter : decoder.parameters()) {
    if (parameter->name == name) return *parameter;
  }
  throw Error("no parameter " + name);
}

std::string divergence(Trainer& trainer) {
  try {
    one_step(trainer);
  } catch (const DivergedError& error) {
    return error.what();
  }
  return "no error";
}

}  // namespace

TEST_CASE("micro-batches equal one batch, with dropout and carried state") {
  for (const std::string& mixer : small_mixers()) {
    TrainingConfig config = small_config(mixer);
    config.model.dropout = 0.2;
    config.carry_state = config.reset_at_documents = true;
    const TokenStream text = small_text(200);  // 6 steps per epoch
    Decoder whole(config.model, 3, DType::F64);
    Trainer one(config, whole, text, kEnd);
    for (const int64_t parts : {2, 4}) {
      config.micro_batches = parts;
      Decoder split(config.model, 3, DType::F64);
      Decoder again(config.model, 3, DType::F64);
      Trainer many(config, split, text, kEnd);
      config.micro_batches = 1;
      Trainer reference(config, again, text, kEnd);
      for (int step = 0; step < 8; ++step) {
        const StepResult a = one_step(many), b = one_step(reference);
        CHECK(a.loss == Approx(b.loss).epsilon(1e-11));
        CHECK(a.gradient_norm == Approx(b.gradient_norm).epsilon(1e-9));
      }
      CHECK(distance(split, again) < 1e-8);
    }
  }
}

TEST_CASE("a carried state sees what came before, an epoch starts without it") {
  for (const std::string& mixer : small_mixers()) {
    TrainingConfig config = small_config(mixer);
    config.learning_rate = config.weight_decay = 0;
    config.batch_size = 1;
    config.carry_state = true;
    const TokenStream text = small_text(3 * 8 + 1);
    Decoder decoder(config.model, 3, DType::F64);
    Trainer trainer(config, decoder, text, kEnd);
    REQUIRE(trainer.steps_per_epoch() == 3);
    std::vector<int32_t> inputs(text.ids().begin(), text.ids().begin() + 24);
    std::vector<int32_t> targets(text.ids().begin() + 1, text.ids().end());
    const auto losses =
        decoder.losses(decoder.hidden(Tensor::of({1, 24}, inputs)), Tensor::of({1, 24}, targets))
            .values();
    for (size_t step = 0; step < 6; ++step) {
      double mean = 0;
      for (size_t t = 0; t < 8; ++t) mean += losses[step % 3 * 8 + t] / 8;
      CHECK(one_step(trainer).loss == Approx(mean).epsilon(1e-12));
    }
  }
}

TEST_CASE("a reset at documents hides what came before") {
  for (const std::string& mixer : small_mixers()) {
    TrainingConfig config = small_config(mixer);
    config.learning_rate = 0;
    config.batch_size = 1;
    config.carry_state = config.reset_at_documents = true;
    // The second segment begins with a document, so the first one does not matter.
    std::vector<int32_t> ids(17, 3);
    for (size_t i = 9; i < ids.size(); ++i) ids[i] = static_cast<int32_t>(i % 5);
    ids[8] = kEnd;
    std::vector<double> second;
    for (const int32_t first : {1, 2}) {
      std::fill(ids.begin(), ids.begin() + 8, first);
      const TokenStream text(ids, {});
      Decoder decoder(config.model, 3, DType::F64);
      Trainer trainer(config, decoder, text, kEnd);
      trainer.step();
      second.push_back(one_step(trainer).loss);
    }
    CHECK(second[0] == second[1]);
  }
}

TEST_CASE("a resumed trainer goes on with the same bits") {
  for (const std::string& mixer : small_mixers()) {
    TrainingConfig config = small_config(mixer);
    config.model.dropout = 0.1;
    config.carry_state = true;
    config.micro_batches = 2;
    const TokenStream text = small_text(500);
    Decoder straight(config.model, 3, DType::F64), first(config.model, 3, DType::F64);
    Trainer a(config, straight, text, kEnd), b(config, first, text, kEnd);
    for (int step = 0; step < 6; ++step) a.step();
    for (int step = 0; step < 3; ++step) b.step();
    Decoder second(config.model, 4, DType::F64);
    for (size_t i = 0; i < first.parameters().size(); ++i) {
      second.parameters()[i]->value.copy_from(first.parameters()[i]->value);
    }
    Trainer c(config, second, text, kEnd);
    std::vector<Tensor> moments;
    b.optimizer().for_each([&](const std::string&, Tensor& t) { moments.push_back(t); });
    size_t next = 0;
    c.optimizer().for_each([&](const std::string&, Tensor& t) { t.copy_from(moments[next++]); });
    c.resume(b.steps_done(), b.carried_state());
    for (int step = 3; step < 6; ++step) c.step();
    CHECK(distance(straight, second) == 0);
  }
}

TEST_CASE("random features that are drawn again follow the number of updates") {
  const TrainingConfig config = small_config(R"({"type": "performer", "redraw_every": 2})");
  const TokenStream text = small_text(500);
  Decoder straight(config.model, 3, DType::F64), second(config.model, 4, DType::F64);
  Trainer a(config, straight, text, kEnd);
  for (int step = 0; step < 5; ++step) a.step();
  for (size_t i = 0; i < straight.parameters().size(); ++i) {
    second.parameters()[i]->value.copy_from(straight.parameters()[i]->value);
  }
  const Tensor ids = Tensor::of({1, 4}, std::vector<int32_t>{3, 1, 4, 1});
  const Tensor y = straight.hidden(ids).value;
  CHECK(y.values() != second.hidden(ids).value.values());  // still at the first draw
  Trainer(config, second, text, kEnd).resume(5, {});
  CHECK(y.values() == second.hidden(ids).value.values());
}

TEST_CASE("a state of features that are drawn again cannot be carried") {
  const TrainingConfig config = small_config(R"({"type": "performer", "redraw_every": 2})");
  CHECK_NOTHROW(config.validate());
  TrainingConfig carrying = config;
  carrying.carry_state = true;
  CHECK_THROWS_AS(carrying.validate(), Error);
}

TEST_CASE("one batch is learnt by heart") {
  for (const char* mixer : {R"("regla")", R"("softmax")"}) {
    TrainingConfig config = small_config(mixer);
    config.model.hidden = 32;
    config.model.mlp = 64;
    config.model.sequence_length = 16;
    config.precision = Precision::Fp32;
    config.batch_size = 2;
    const TokenStream text = small_text(33);
    Decoder decoder(config.model, 0);
    Trainer trainer(config, decoder, text, kEnd);
    double loss = 100;
    for (int step = 0; step < 300 && loss >= 0.05; ++step) loss = one_step(trainer).loss;
    CHECK(loss < 0.05);
  }
}

TEST_CASE("what is not finite is named before the update") {
  const double infinity = std::numeric_limits<double>::infinity();
  TrainingConfig config = small_config(R"("regla")");
  const TokenStream text = small_text(200);
  Decoder decoder(config.model, 3, DType::F64);
  Trainer trainer(config, decoder, text, kEnd);
  trainer.step();
  parameter_of(decoder, "layers.1.mlp.in.bias").value.data<double>()[0] = infinity;
  const auto before = parameter_of(decoder, "embed_in.weight").value.values();
  const std::string message = divergence(trainer);
  CHECK_THAT(message, Contains("step 2"));
  CHECK_THAT(message, Contains("the loss is not finite"));
  CHECK_THAT(message, Contains("layers.1.mlp"));
  CHECK_THAT(message, Contains("output of `linear`"));
  CHECK(parameter_of(decoder, "embed_in.weight").value.values() == before);
  CHECK(trainer.steps_done() == 1);
  CHECK_THROWS_AS(trainer.require_finite_weights(), DivergedError);
}

TEST_CASE("a gradient alone that is not finite names its parameter") {
  // The final norm gives 0, so the loss is ln(vocab), but its gradient is above the largest float.
  TrainingConfig config = small_config(R"("regla")");
  config.precision = Precision::Fp32;
  config.batch_size = config.model.sequence_length = 1;
  const TokenStream text(std::vector<int32_t>{1, 2, 3}, {});
  Decoder decoder(config.model, 3);
  Trainer trainer(config, decoder, text, kEnd);
  parameter_of(decoder, "final_norm.weight").value.fill(0);
  Tensor head = parameter_of(decoder, "embed_out.weight").value;
  head.fill(3e38);
  for (int64_t i = 0; i < 16; ++i) head.data<float>()[2 * 16 + i] = -3e38f;
  const std::string message = divergence(trainer);
  CHECK_THAT(message, Contains("the gradient of "));
  CHECK_THAT(message, Contains(" is not finite; the first tensor"));
}

TEST_CASE("a cache without a bound cannot be carried") {
  TrainingConfig config = small_config(R"("softmax")");
  config.carry_state = true;
  CHECK_THROWS_WITH(config.validate(), Contains("mixer.window"));
}

}  // namespace regla
