// What a step needs so that the host need not read inside of it.

#include <cmath>
#include <limits>
#include <vector>

#include "backends/copies.h"
#include "backends/kernels.h"
#include "core/random.h"
#include "tests/catch.h"
#include "tests/support.h"

namespace regla::test {
namespace {

using Numbers = std::vector<double>;

constexpr double kInfinity = std::numeric_limits<double>::infinity();

const KernelTable& cpu() { return kernels(Device{}); }

Tensor doubles(const Numbers& values) {
  return Tensor::of({static_cast<int64_t>(values.size())}, values);
}

Tensor integer(int32_t value) { return Tensor::of({1}, std::vector<int32_t>{value}); }

Numbers clipped(const Numbers& squares, const Numbers& losses, double largest, Tensor latch) {
  const Tensor report = Tensor::full({3}, NAN, DType::F64);
  cpu().clip_factor(doubles(squares), doubles(losses), largest, latch, report);
  return report.values();
}

/// One draw written out: an id's place is the number of ids before it.
int32_t naive_draw(const Numbers& scores, double temperature, int64_t top_k, double top_p,
                   double min_p, double uniform) {
  const size_t count = scores.size();
  std::vector<size_t> in_order(count);
  for (size_t i = 0; i < count; ++i) {
    size_t place = 0;
    for (size_t j = 0; j < count; ++j) {
      place += scores[j] > scores[i] || (scores[j] == scores[i] && j < i);
    }
    in_order[place] = i;
  }
  const size_t first = in_order[0];
  if (temperature == 0) return static_cast<int32_t>(first);
  if (top_k > 0 && static_cast<size_t>(top_k) < count) in_order.resize(static_cast<size_t>(top_k));
  const auto weight = [&](size_t id) {
    return std::exp((scores[id] - scores[first]) / temperature);
  };
  const auto all = [&] {
    double sum = 0;
    for (size_t id : in_order) sum += weight(id);
    return sum;
  };
  double reached = 0;
  const double enough = top_p * all();
  for (size_t i = 0; top_p < 1 && i < in_order.size(); ++i) {
    reached += weight(in_order[i]);
    if (reached > enough) in_order.resize(i + 1);
  }
  const auto is_unlikely = [&](size_t id) {
    return min_p > 0 && (scores[id] - scores[first]) / temperature < std::log(min_p);
  };
  std::erase_if(in_order, is_unlikely);
  const double target = uniform * all();
  reached = 0;
  for (size_t id : in_order) {
    reached += weight(id);
    if (reached > target) return static_cast<int32_t>(id);
  }
  return static_cast<int32_t>(in_order.back());
}

}  // namespace

TEST_CASE("the clip factor is min(1, largest / norm), with the loss and the norm beside it") {
  const Tensor latch = integer(0);
  CHECK(clipped({9, 16}, {1.5, 0.25}, 1, latch) == Numbers{1.75, 5, 0.2});
  CHECK(clipped({0.09, 0.16}, {-2}, 1, latch) == Numbers{-2, 0.5, 1});
  CHECK(clipped({9, 16}, {1}, 0, latch) == Numbers{1, 5, 1});
  CHECK(clipped({0}, {1}, 1, latch) == Numbers{1, 0, 1});
  CHECK(latch.values() == Numbers{0});
}

TEST_CASE("a loss or norm that is not finite closes the latch, which gives a factor of 0") {
  for (const double bad : {kInfinity, -kInfinity, static_cast<double>(NAN)}) {
    for (const bool in_loss : {false, true}) {
      const Tensor latch = integer(0);
      const Numbers report = in_loss ? clipped({9, 16}, {1, bad}, 1, latch)
                                     : clipped({9, std::abs(bad)}, {1}, 1, latch);
      INFO(bad << (in_loss ? " as the loss" : " in the norm"));
      CHECK_FALSE(std::isfinite(report[in_loss ? 0 : 1]));
      CHECK(report[2] == 0);
      CHECK(latch.values() == Numbers{1});
      // Whatever comes is told, and changes nothing.
      CHECK(clipped({9, 16}, {2}, 1, latch) == Numbers{2, 5, 0});
      CHECK(latch.values() == Numbers{1});
    }
  }
}

TEST_CASE("a row is put where a tensor says") {
  const Tensor rows = doubles({1, 2, 3, 4, 5, 6}).reshape({3, 2});
  cpu().put_row(integer(2), doubles({7, 8}), rows);
  cpu().put_row(integer(0), doubles({-1, -2}), rows);
  CHECK(rows.values() == std::vector<double>{-1, -2, 3, 4, 7, 8});
}

TEST_CASE("a state is committed where the factor is not 0, and restarted where the flag is set") {
  for (const DType dtype : {DType::F32, DType::F64, DType::BF16, DType::I32}) {
    const Tensor from = converted(random_ids({7, 40'001}, 1, 100), dtype);
    const Tensor before = converted(random_ids({7, 40'001}, 2, 100), dtype);
    INFO(name_of(dtype));
    for (const double factor : {0.0, 0.25, 1.0}) {
      const Tensor to = before.clone();
      cpu().commit(doubles({factor}), from, to);
      CHECK(same_bits(to, factor == 0 ? before : from));
    }
    for (const int32_t flag : {0, 1}) {
      const Tensor x = before.clone();
      cpu().restart(integer(flag), -3, x);
      CHECK(same_bits(x, flag == 0 ? before : Tensor::full(before.shape(), -3, dtype)));
    }
  }
  const Tensor maximum = Tensor::zeros({3}, DType::F32);
  cpu().restart(integer(1), -kInfinity, maximum);
  CHECK(maximum.values() == Numbers(3, -kInfinity));
}

TEST_CASE("AdamW leaves everything as it is where the factor is 0, and rounds what is read") {
  for (const double factor : {0.0, 0.5}) {
    const Tensor w = normal_tensor({30'011}, DType::F32, 1),
                 m = normal_tensor({30'011}, DType::F32, 2);
    const Tensor v = Tensor::full({30'011}, 0.5, DType::F32), was = w.clone(), m_was = m.clone(),
                 v_was = v.clone();
    const Tensor copy = Tensor::full({30'011}, 7, DType::BF16), copy_was = copy.clone();
    const Tensor gradient = factor == 0 ? Tensor::full({30'011}, NAN, DType::F32)
                                        : normal_tensor({30'011}, DType::F32, 3);
    cpu().adamw({.weights = {{w, gradient, m, v, copy, 0.1}},
                 .rates = doubles({0.1, 0.5, 0.5}),
                 .factor = doubles({factor}),
                 .beta1 = 0.9,
                 .beta2 = 0.99,
                 .epsilon = 1e-8});
    const bool stays = factor == 0;
    CHECK(same_bits(w, was) == stays);
    CHECK(same_bits(m, m_was) == stays);
    CHECK(same_bits(v, v_was) == stays);
    CHECK(same_bits(copy, stays ? copy_was : converted(w, DType::BF16)));
  }
}

TEST_CASE("dropout's stream is step * 65536 + place") {
  const Tensor x = Tensor::full({5000}, 1, DType::F64);
  const auto mask = [&](const Tensor& step, uint64_t place) {
    const Tensor y = Tensor::empty({5000}, DType::F64);
    cpu().dropout({x, {}, step, 0.25, 1, place, 0}, {y, false});
    return y;
  };
  CHECK(same_bits(mask(integer(3), 5), mask({}, 3 * 65536 + 5)));
  CHECK(same_bits(mask(integer(0), 5), mask({}, 5)));
  CHECK_FALSE(same_bits(mask(integer(3), 5), mask(integer(4), 5)));
  const Random random(1, 3 * 65536 + 5);
  const Numbers drawn = mask(integer(3), 5).values();
  for (uint64_t i = 0; i < 5000; ++i) {
    const bool keeps = random.words(i / 4)[i % 4] >= 0x40000000u;
    CHECK(drawn[i] == (keeps ? 1 / 0.75 : 0));
  }
}

TEST_CASE("a sum of losses is taken in order and in double") {
  const Tensor x = normal_tensor({1001}, DType::F32, 1), total = Tensor::empty({1}, DType::F64);
  double sum = 0;
  for (const double value : x.values()) sum += value;
  cpu().sum(x, 0.3, total);
  CHECK(total.values()[0] == sum * 0.3);
}

TEST_CASE("ids are drawn as a walk along the sorted probabilities finds them") {
  const int64_t B = 3, V = 23;
  // The stream of the program's texts: its numbers decide what a seed says.
  const auto stream = [](int64_t b) { return (static_cast<uint64_t>(b) << 48) + 0x73616d706c65; };
  for (const DType dtype : {DType::F32, DType::F64}) {
    const Tensor scores = converted(random_ids({B, V}, 4, 9), dtype);  // with ties
    for (const double temperature : {0.0, 0.7, 2.0}) {
      for (const int64_t top_k : {0, 1, 5, 40}) {
        for (const double top_p : {1.0, 0.8, 0.05}) {
          for (const int64_t vocab : {0, 20, 99}) {
            for (const int32_t draw : {0, 1, 17, 1000}) {
              const Tensor ids = Tensor::full({B}, -7, DType::I32);
              const double min_p = draw == 17 ? 0.2 : draw == 1000 ? 1 : 0;
              const int64_t first = draw == 1 ? 5 : 0;
              cpu().sample(
                  {scores, integer(draw), temperature, top_k, top_p, min_p, 11, vocab, first}, ids);
              for (int64_t b = 0; b < B; ++b) {
                Numbers row = scores.slice(b, b + 1).values();
                if (vocab == 20) row.resize(20);
                const double uniform =
                    Random(11, stream(first + b)).uniform(static_cast<uint64_t>(draw));
                CHECK(ids.values()[static_cast<size_t>(b)] ==
                      naive_draw(row, temperature, top_k, top_p, min_p, uniform));
              }
            }
          }
        }
      }
    }
  }
}

TEST_CASE("scores of ids that were seen are penalised, those of the latest too") {
  for (const DType dtype : {DType::F32, DType::F64}) {
    const Tensor scores =
        converted(Tensor::of({2, 4}, Numbers{3, -3, 0.5, 8, -1, 2, -4, 0}), dtype);
    const Tensor seen = Tensor::of({2, 4}, std::vector<int32_t>{0, 1, 0, 0, 0, 0, 0, 1});
    const Tensor y = Tensor::empty_like(scores);
    cpu().penalise({scores, {}, seen, 2}, y);
    CHECK(y.values() == Numbers{3, -6, 0.5, 8, -1, 2, -4, 0});
    const auto latest = [](int32_t a, int32_t b) {
      return Tensor::of({2}, std::vector<int32_t>{a, b});
    };
    cpu().penalise({scores, latest(3, -1), seen, 2}, y);
    CHECK(y.values() == Numbers{3, -6, 0.5, 4, -1, 2, -4, 0});
    cpu().penalise({scores, latest(-1, 2), seen, 0.5}, y);
    CHECK(y.values() == Numbers{3, -1.5, 0.5, 16, -1, 2, -2, 0});
    CHECK(seen.values() == Numbers{0, 1, 0, 1, 0, 0, 1, 1});
    cpu().penalise({scores, {}, seen, 1}, y);
    CHECK(same_bits(y, scores));
  }
}

TEST_CASE("no id is drawn where a score is not finite, be it of padding") {
  for (const double bad : {kInfinity, -kInfinity, static_cast<double>(NAN)}) {
    const Tensor scores = Tensor::of({2, 3}, Numbers{1, 2, bad, 1, 2, 3});
    const Tensor ids = Tensor::empty({2}, DType::I32);
    for (const double temperature : {0.0, 1.0}) {
      cpu().sample({scores, integer(0), temperature, 1, 1, 0, 0, 0}, ids);
      CHECK(ids.values() == Numbers{-1, 2});
      cpu().sample({scores, integer(0), temperature, 1, 1, 0, 0, 2}, ids);
      CHECK(ids.values() == Numbers{-1, 1});
    }
  }
}

}  // namespace regla::test
