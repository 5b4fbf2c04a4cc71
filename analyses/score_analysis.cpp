#include "analyses/score_analysis.h"

#include <algorithm>
#include <cmath>

#include "backends/copies.h"
#include "layers/parameters.h"

namespace regla {
namespace {

/// Sums that a standard deviation is made of. Samples are few enough, and their means close enough
/// to their spread, for doubles.
struct Moments {
  double count = 0, sum = 0, squares = 0;

  void add(double x) {
    count += 1;
    sum += x;
    squares += x * x;
  }
  double deviation() const {
    const double mean = sum / count;
    return std::sqrt(std::max(squares / count - mean * mean, 0.0));  // this order keeps a NaN
  }
};

/// Everything that a ScoreSpread is computed from.
struct Sums {
  Moments query, key, identity, exp, safe_exp;

  /// A pair's <x, y>, <exp(x - m), exp(y - n)> and m + n.
  void add(double product, double safe, double maxima) {
    identity.add(product);
    safe_exp.add(safe);
    exp.add(safe * std::exp(maxima));
  }
  ScoreSpread result(int64_t d) const {
    const ScoreSpread spread = {.dimension = d,
                                .pairs = static_cast<int64_t>(identity.count),
                                .query = query.deviation(),
                                .key = key.deviation(),
                                .identity = identity.deviation(),
                                .exp = exp.deviation(),
                                .safe_exp = safe_exp.deviation()};
    check(std::isfinite(spread.identity) && std::isfinite(spread.exp),
          "[analyse] inner products of queries and keys are not finite");
    return spread;
  }
};

void add_all(Moments& moments, const Tensor& x) {
  for (const double value : x.values()) moments.add(value);
}

/// exp(x - max) of vectors x [N, d], each with its own maximum, which comes back as m [N, 1].
SafeExp safe_exp_of_each(const Tensor& x) {
  return safe_exp(x.reshape({x.dim(0), 1, 1, x.dim(1)}), {}, {}, Maximum::Running, 1);
}

/// <x, y> of pairs [N, 1, 1, d], as the recurrence computes it when 1 is written: [N].
std::vector<double> products(const Var& x, const Var& y) {
  const Tensor one = Tensor::full({x.dim(0), 1, 1, 1}, 1, x.value.dtype());
  return linear_attention(x, y, one, {}, {}, {}, 1).o.value.values();
}

Tensor normal_vectors(const Random& random, int64_t first, int64_t count, int64_t d) {
  std::vector<double> values(static_cast<size_t>(count * d));
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] = random.normal(static_cast<uint64_t>(first * d) + i);
  }
  return Tensor::of({count, d}, values);
}

/// x [T, H, d] -> the rows of head h, [T, d], in double.
Tensor rows_of_head(const Tensor& x, int64_t h) {
  const int64_t T = x.dim(0), H = x.dim(1), d = x.dim(2);
  const Tensor all = converted(x, DType::F64).reshape({T * H, d});
  Tensor rows = Tensor::empty({T, d}, DType::F64);
  for (int64_t t = 0; t < T; ++t) {
    rows.slice(t, t + 1).copy_from(all.slice(t * H + h, t * H + h + 1));
  }
  return rows;
}

/// Adds the scores of one head on one sequence; queries and keys [T, d].
void add_head(Sums& sums, const Tensor& queries, const Tensor& keys) {
  const int64_t T = queries.dim(0), d = queries.dim(1);
  const SafeExp q = safe_exp_of_each(queries);                                           // Eq. 11
  const SafeExp k = safe_exp(keys.reshape({1, T, 1, d}), {}, {}, Maximum::Sequence, 1);  // Eq. 12
  const Tensor plain = linear(queries, keys, {}).value;                                  // [T, T]
  const Tensor safe = linear(reshape(q.features, {T, d}), reshape(k.features, {T, d}), {}).value;
  const double key_maximum = k.m.value.values()[0];
  for (int64_t t = 0; t < T; ++t) {
    const double maxima = q.m.value.data<double>()[t] + key_maximum;
    for (int64_t s = 0; s <= t; ++s) {
      sums.add(plain.data<double>()[t * T + s], safe.data<double>()[t * T + s], maxima);
    }
  }
  add_all(sums.query, queries);
  add_all(sums.key, keys);
}

/// Gathers the scores of each layer from what an observer is shown.
class ScoreCollector {
 public:
  explicit ScoreCollector(int64_t layers)
      : sums_(static_cast<size_t>(layers)), dimensions_(static_cast<size_t>(layers)) {}

  void operator()(int64_t layer, std::string_view name, const Tensor& value) {
    if (name == "query") queries_ = value.on(Device{});
    if (name != "key") return;
    const Tensor keys = value.on(Device{});
    const auto at = static_cast<size_t>(layer);
    dimensions_[at] = value.dim(3);
    for (int64_t b = 0; b < value.dim(0); ++b) {
      const Shape one = {value.dim(1), value.dim(2), value.dim(3)};
      const Tensor q = queries_.slice(b, b + 1).reshape(one), k = keys.slice(b, b + 1).reshape(one);
      for (int64_t h = 0; h < one[1]; ++h) {
        add_head(sums_[at], rows_of_head(q, h), rows_of_head(k, h));
      }
    }
  }

  std::vector<ScoreSpread> result() const {
    std::vector<ScoreSpread> spreads;
    for (size_t i = 0; i < sums_.size(); ++i) {
      spreads.push_back(dimensions_[i] > 0 ? sums_[i].result(dimensions_[i]) : ScoreSpread{});
    }
    return spreads;
  }

 private:
  std::vector<Sums> sums_;
  std::vector<int64_t> dimensions_;  // 0: the layer showed nothing
  Tensor queries_;
};

}  // namespace

ScoreSpread score_theorem(int64_t d, double query, double key) {
  const double size = static_cast<double>(d), v = query * query + key * key;
  const double exp = std::sqrt(size * (std::exp(2 * v) - std::exp(v)));
  const double maxima = std::sqrt(2 * std::log(size)) * (query + key);
  return {.dimension = d,
          .pairs = 0,
          .query = query,
          .key = key,
          .identity = query * key * std::sqrt(size),
          .exp = exp,
          .safe_exp = exp * std::exp(-maxima)};
}

ScoreSpread gaussian_scores(int64_t d, int64_t pairs, uint64_t seed) {
  check(d > 0 && pairs > 1,
        "[analyse] expected a dimension of at least 1 and at least 2 pairs, got ", d, " and ",
        pairs);
  const NoGrad guard;
  const Random queries = random_numbers(seed, "query"), keys = random_numbers(seed, "key");
  constexpr int64_t kBlock = 1000;
  Sums sums;
  for (int64_t begin = 0; begin < pairs; begin += kBlock) {
    const int64_t count = std::min(kBlock, pairs - begin);
    const Tensor x = normal_vectors(queries, begin, count, d);
    const Tensor y = normal_vectors(keys, begin, count, d);
    const SafeExp q = safe_exp_of_each(x), k = safe_exp_of_each(y);
    const Shape heads = {count, 1, 1, d};
    const std::vector<double> plain = products(x.reshape(heads), y.reshape(heads)),
                              safe = products(q.features, k.features);
    for (size_t i = 0; i < plain.size(); ++i) {
      sums.add(plain[i], safe[i], q.m.value.data<double>()[i] + k.m.value.data<double>()[i]);
    }
    add_all(sums.query, x);
    add_all(sums.key, y);
  }
  return sums.result(d);
}

std::vector<ScoreSpread> text_scores(Decoder& decoder, const Tensor& ids) {
  const NoGrad guard;
  ScoreCollector collector(decoder.config().layers);
  const Observer observer = std::ref(collector);
  for (int64_t b = 0; b < ids.dim(0); ++b) {
    decoder.hidden(ids.slice(b, b + 1).on(decoder.device()), {.reset = {}, .observer = &observer});
  }
  return collector.result();
}

}  // namespace regla
