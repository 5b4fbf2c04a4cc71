#include "scoring/choices.h"

#include <algorithm>
#include <cmath>

#include "core/parallel.h"
#include "tests/matchers.h"
#include "tests/training/support.h"
#include "tests/walled_device.h"

namespace regla {
namespace {

using test::small_config;
using Groups = std::vector<std::vector<ScoredText>>;

/// Every type of mixer alone, and some that differ in what their state is.
std::vector<std::string> all_mixers() {
  std::vector<std::string> all = test::small_mixers();
  for (const std::string_view name : names_of(MixerType{})) {
    all.push_back("\"" + std::string(name) + "\"");
  }
  return all;
}

/// Ids that follow from `seed`.
std::vector<int32_t> some_ids(int64_t count, uint64_t seed) {
  const TokenStream text = test::small_text(count, seed);
  return {text.ids().begin(), text.ids().end()};
}

ScoredText joined(std::vector<int32_t> context, const std::vector<int32_t>& continuation) {
  context.insert(context.end(), continuation.begin(), continuation.end());
  return {std::move(context), static_cast<int64_t>(continuation.size())};
}

/// Groups of every kind: contexts that are the same, that differ at their end, that have nothing in
/// common; continuations of one token, of many, equal ones, a part of another; a text alone.
Groups some_groups() {
  Groups groups;
  for (const int64_t length : {1, 2, 17, 16, 15, 40}) {
    const auto context = some_ids(length, static_cast<uint64_t>(length));
    auto& group = groups.emplace_back();
    for (const int64_t more : {1, 5, 5, 12}) group.push_back(joined(context, some_ids(more, 3)));
    group.push_back(joined(context, {4}));
  }
  const auto beginning = some_ids(14, 9);
  groups.push_back({joined(joined(beginning, {3, 5}).ids, some_ids(3, 1)),
                    joined(joined(beginning, {6}).ids, some_ids(3, 1))});
  groups.push_back({joined({1, 2, 3}, {4}), joined({2, 2, 3}, {4, 5})});
  groups.push_back({joined(some_ids(9, 2), {1, 2})});
  return groups;
}

/// The score of a text, token by token: an independent statement of what it is.
TextScore naive(Decoder& decoder, const ScoredText& text) {
  TextScore score = {0, true};
  DecoderState state = decoder.initial_state(1);
  const auto count = static_cast<int64_t>(text.ids.size());
  for (int64_t t = 0; t + 1 < count; ++t) {
    const int32_t id = text.ids[static_cast<size_t>(t)],
                  next = text.ids[static_cast<size_t>(t + 1)];
    const auto scores = decoder.step(Tensor::of({1}, std::vector<int32_t>{id}), state).values();
    if (t + 1 < count - text.scored) continue;
    double sum = 0;
    for (const double one : scores) sum += std::exp(one);
    score.log_likelihood += scores[static_cast<size_t>(next)] - std::log(sum);
    const auto best = std::max_element(scores.begin(), scores.end()) - scores.begin();
    score.is_greedy = score.is_greedy && best == next;
  }
  return score;
}

}  // namespace

TEST_CASE("a choice scored from the shared context is scored as in the whole text") {
  const Groups groups = some_groups();
  for (const std::string& mixer : all_mixers()) {
    CAPTURE(mixer);
    Decoder decoder(small_config(mixer).model, 3, DType::F64);
    for (const int64_t batch_tokens : {1, 64, 4096}) {
      CAPTURE(batch_tokens);
      ChoiceCounts shared, whole;
      const auto from_state =
          score_choices(decoder, groups, {.greedy = true, .batch_tokens = batch_tokens}, &shared);
      const auto from_texts = score_choices(
          decoder, groups, {.shares = false, .greedy = true, .batch_tokens = batch_tokens}, &whole);
      CHECK(shared.shared == 7);
      CHECK(shared.apart == 1);
      CHECK(whole.shared == 0);
      CHECK(whole.apart == 8);
      CHECK(shared.tokens < whole.tokens);
      for (size_t g = 0; g < groups.size(); ++g) {
        for (size_t i = 0; i < groups[g].size(); ++i) {
          CAPTURE(g, i);
          const TextScore right = naive(decoder, groups[g][i]);
          for (const TextScore& score : {from_state[g][i], from_texts[g][i]}) {
            CHECK(score.log_likelihood == Approx(right.log_likelihood).epsilon(1e-10));
            CHECK(score.is_greedy == right.is_greedy);
          }
        }
      }
    }
  }
}

TEST_CASE("a greedy continuation is found") {
  Decoder decoder(small_config(R"("regla")").model, 3, DType::F64);
  std::vector<int32_t> ids = {1, 2, 3};
  DecoderState state = decoder.initial_state(1);
  for (size_t t = 0; t < 6; ++t) {
    const Tensor id = Tensor::of({1}, std::vector<int32_t>{ids[t]});
    const auto scores = decoder.step(id, state).values();
    const auto best = std::max_element(scores.begin(), scores.end()) - scores.begin();
    if (t >= 2) ids.push_back(static_cast<int32_t>(best));
  }
  const Groups groups = {{{ids, 4}}};
  CHECK(score_choices(decoder, groups, {.greedy = true})[0][0].is_greedy);
  CHECK_FALSE(score_choices(decoder, groups)[0][0].is_greedy);
}

TEST_CASE("scores have the same bits on the device of the tests and at any number of threads") {
  const Groups groups = some_groups();
  const ModelConfig config = small_config(R"(["regla", "softmax"])").model;
  Decoder here(config, 3, DType::F32), walled(config, 3, DType::F32, test::walled_device());
  const int before = threads();
  const auto scores = score_choices(here, groups, {.greedy = true});
  set_threads(1);
  const auto alone = score_choices(here, groups, {.greedy = true});
  set_threads(before);
  const auto behind = score_choices(walled, groups, {.greedy = true});
  for (size_t g = 0; g < groups.size(); ++g) {
    for (size_t i = 0; i < groups[g].size(); ++i) {
      CHECK(scores[g][i].log_likelihood == alone[g][i].log_likelihood);
      CHECK(scores[g][i].log_likelihood == behind[g][i].log_likelihood);
      CHECK(scores[g][i].is_greedy == behind[g][i].is_greedy);
    }
  }
}

TEST_CASE("progress ends with all texts, and texts without a context are refused") {
  Decoder decoder(small_config(R"("regla")").model, 3, DType::F64);
  const Groups groups = some_groups();
  int64_t last = 0, all = 0;
  score_choices(decoder, groups, {.batch_tokens = 64}, nullptr, [&](int64_t done, int64_t total) {
    CHECK(done >= last);
    last = done;
    all = total;
  });
  CHECK(last == all);
  CHECK(all == 6 * 5 + 2 + 2 + 1);
  CHECK(score_choices(decoder, {}).empty());
  CHECK_THROWS_AS(score_choices(decoder, Groups{{{{1, 2}, 2}}}), Error);
  CHECK_THROWS_AS(score_choices(decoder, Groups{{{{1, 2}, 0}}}), Error);
  Decoder sees_all(small_config(R"({"key_max": "sequence"})").model, 3, DType::F64);
  CHECK_THROWS_WITH(score_choices(sees_all, groups), Contains("key_max = sequence"));
}

}  // namespace regla
