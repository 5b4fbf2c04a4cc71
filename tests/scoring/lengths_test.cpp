#include "scoring/lengths.h"

#include <cmath>

#include "tests/matchers.h"
#include "tests/training/support.h"
#include "tests/walled_device.h"

namespace regla {
namespace {

using test::kEnd;
using test::small_config;
using test::small_text;

/// Every token of every sequence on its own, by steps from an empty state.
std::vector<LengthBucket> naive(Decoder& decoder, const TokenStream& text,
                                const LengthOptions& options) {
  std::vector<LengthBucket> buckets;
  for (const int64_t end : options.lengths) {
    buckets.push_back({buckets.empty() ? 0 : buckets.back().end, end});
  }
  const int64_t length = options.lengths.back();
  const int64_t stride = options.stride > 0 ? options.stride : length;
  for (int64_t begin = 0; begin + length <= static_cast<int64_t>(text.ids().size());
       begin += stride) {
    DecoderState state = decoder.initial_state(1);
    for (int64_t t = 0; t < length; ++t) {
      const auto at = static_cast<size_t>(begin + t);
      const int32_t id = at == 0 ? kEnd : text.ids()[at - 1];
      if (options.reset_at_documents && id == kEnd) state = decoder.initial_state(1);
      const std::vector<double> scores =
          decoder.step(Tensor::of({1}, std::vector<int32_t>{id}), state).values();
      double sum = 0;
      for (const double score : scores) sum += std::exp(score);
      for (LengthBucket& bucket : buckets) {
        if (t < bucket.begin || t >= bucket.end) continue;
        bucket.nats += std::log(sum) - scores[static_cast<size_t>(text.ids()[at])];
        ++bucket.tokens;
      }
    }
  }
  return buckets;
}

}  // namespace

TEST_CASE("tokens are scored by their position, the state carried from the sequence's beginning") {
  const std::vector<LengthOptions> cases = {
      {.lengths = {3, 8, 19}, .segment = 8, .batch = 2},
      {.lengths = {1, 20}, .segment = 7, .batch = 3, .stride = 6},
      {.lengths = {20}, .segment = 64, .batch = 1, .stride = 31},
      {.lengths = {5, 41}, .segment = 1, .batch = 4, .reset_at_documents = true}};
  for (const std::string mixer :
       {R"("regla")", R"("softmax")", R"({"type": "softmax", "window": 6})", R"("gla")",
        R"([{"rope": "partial"}, {"type": "gla", "rope": "none"}])"}) {
    Decoder decoder(small_config(mixer).model, 3, DType::F64);
    for (const LengthOptions& options : cases) {
      const TokenStream text = small_text(41);
      const LengthEvaluation result = evaluate_lengths(decoder, text, kEnd, options);
      const std::vector<LengthBucket> expected = naive(decoder, text, options);
      REQUIRE(result.buckets.size() == expected.size());
      for (size_t i = 0; i < expected.size(); ++i) {
        CAPTURE(mixer, options.segment, i);
        CHECK(result.buckets[i].begin == expected[i].begin);
        CHECK(result.buckets[i].end == expected[i].end);
        CHECK(result.buckets[i].tokens == expected[i].tokens);
        CHECK(result.buckets[i].nats == Approx(expected[i].nats).epsilon(1e-10));
      }
    }
  }
}

TEST_CASE("sequences begin every stride, as far as they fit") {
  Decoder decoder(small_config(R"("regla")").model, 3, DType::F64);
  const auto score = [&](int64_t count, int64_t stride) {
    return evaluate_lengths(decoder, small_text(count), kEnd,
                            {.lengths = {4, 10}, .segment = 8, .stride = stride});
  };
  CHECK(score(10, 0).sequences == 1);
  CHECK(score(19, 0).sequences == 1);
  CHECK(score(20, 0).sequences == 2);
  CHECK(score(20, 0).buckets[0].tokens == 8);
  CHECK(score(20, 0).buckets[1].tokens == 12);
  CHECK(score(20, 3).sequences == 4);
  CHECK(score(20, 40).sequences == 1);
  int64_t last = 0, total = 0;
  evaluate_lengths(decoder, small_text(33), kEnd, {.lengths = {10}, .segment = 4, .batch = 2},
                   [&](int64_t done, int64_t all) { last = done, total = all; });
  CHECK(last == 30);
  CHECK(total == 30);
}

TEST_CASE("positions are scored with the same bits behind the wall") {
  const LengthOptions options = {
      .lengths = {8, 21}, .segment = 8, .batch = 3, .stride = 9, .reset_at_documents = true};
  for (const std::string mixer : {R"("regla")", R"("softmax")"}) {
    Decoder here(small_config(mixer).model, 3, DType::F32);
    Decoder there(small_config(mixer).model, 3, DType::F32, test::walled_device());
    const LengthEvaluation a = evaluate_lengths(here, small_text(60), kEnd, options);
    const LengthEvaluation b = evaluate_lengths(there, small_text(60), kEnd, options);
    for (size_t i = 0; i < a.buckets.size(); ++i) CHECK(a.buckets[i].nats == b.buckets[i].nats);
  }
}

TEST_CASE("lengths that do not rise or do not fit are refused") {
  Decoder decoder(small_config(R"("regla")").model, 3, DType::F64);
  const auto score = [&](LengthOptions options) {
    return evaluate_lengths(decoder, small_text(20), kEnd, options);
  };
  CHECK_THROWS_WITH(score({.lengths = {}}), Contains("expected lengths, got none"));
  CHECK_THROWS_WITH(score({.lengths = {8, 8}}), Contains("rise, got 8 behind 8"));
  CHECK_THROWS_WITH(score({.lengths = {0, 8}}), Contains("rise, got 0 behind 0"));
  CHECK_THROWS_WITH(score({.lengths = {8, 21}}), Contains("at least 21") && Contains("got 20"));
  CHECK_THROWS_WITH(score({.lengths = {8}, .segment = 0}), Contains("at least 1"));
  CHECK_THROWS_WITH(score({.lengths = {8}, .stride = -1}), Contains("got 256, 8 and -1"));
}

}  // namespace regla
