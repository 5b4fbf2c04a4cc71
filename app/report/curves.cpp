#include <algorithm>
#include <cmath>
#include <functional>
#include <iterator>

#include "app/gnuplot.h"
#include "app/report/sections.h"

namespace regla::app {
namespace {

constexpr size_t kBuckets = 400;  // along an axis

/// The points that a line of many looks the same with: of each bucket the lowest and the highest,
/// in their order. Whatever is not finite stays, since it breaks the line.
std::vector<Point> thinned(const std::vector<Point>& points) {
  if (points.size() <= 2 * kBuckets) return points;
  std::vector<Point> kept;
  for (size_t bucket = 0; bucket < kBuckets; ++bucket) {
    const auto begin = points.begin() + static_cast<ptrdiff_t>(bucket * points.size() / kBuckets);
    const auto end =
        points.begin() + static_cast<ptrdiff_t>((bucket + 1) * points.size() / kBuckets);
    const auto broken =
        std::find_if(begin, end, [](const Point& point) { return !std::isfinite(point.y); });
    if (broken != end) {
      kept.insert(kept.end(), begin, end);
      continue;
    }
    const auto [low, high] = std::minmax_element(
        begin, end, [](const Point& left, const Point& right) { return left.y < right.y; });
    kept.push_back(*std::min(low, high));
    if (low != high) kept.push_back(*std::max(low, high));
  }
  return kept;
}

/// What the curves of all runs stand over: steps, or tokens where runs have steps of their own
/// size.
struct Axis {
  bool is_tokens = false;

  explicit Axis(const Runs& runs) {
    const auto tokens_per_step = [](const RunRecord& run) {
      return run.config.batch_size * run.config.model.sequence_length;
    };
    is_tokens = std::ranges::any_of(runs, [&](const RunRecord& run) {
      return tokens_per_step(run) != tokens_per_step(runs[0]);
    });
  }
  std::string name() const { return is_tokens ? "million tokens" : "step"; }
  template <class M>
  double of(const M& metrics) const {
    return is_tokens ? static_cast<double>(metrics.tokens) / 1e6
                     : static_cast<double>(metrics.step);
  }
};

template <class M>
std::vector<Point> points_of(const std::vector<M>& metrics, const Axis& axis, double M::*value,
                             double unit = 1) {
  std::vector<Point> points;
  for (const M& line : metrics) points.push_back({axis.of(line), line.*value / unit});
  return thinned(points);
}

/// A picture with its caption; nothing for one that has nothing to show.
Html figure(Picture picture, const Html& caption) {
  if (!is_drawable(picture)) return {};
  picture.width = 440;  // so that letters can be read on a phone
  picture.height = 280;
  const std::optional<std::string> svg = svg_part(picture);
  check(svg.has_value(), "[report] ", kNoGnuplot);
  return element("figure", element("figcaption", caption) + "\n" + Html::markup(*svg)) + "\n";
}

/// A curve for each run.
template <class Points>
Html figure_of_runs(const Runs& runs, Picture picture, const Points& points) {
  for (size_t i = 0; i < runs.size(); ++i) {
    const RunStyle style = style_of(i);
    picture.curves.push_back(
        {.points = points(runs[i].metrics), .colour = style.colour, .dashes = style.dashes});
  }
  return figure(picture, picture.title);
}

/// Some of the records, evenly spaced, the first and the last among them.
std::vector<GateRecord> chosen(const std::vector<GateRecord>& records) {
  const size_t most = kOrderColours.size();
  if (records.size() <= most) return records;
  std::vector<GateRecord> some;
  for (size_t i = 0; i < most; ++i) some.push_back(records[i * (records.size() - 1) / (most - 1)]);
  return some;
}

Html swatch(const Colour& colour, bool is_dashed = false) {
  return element("span", "",
                 {{"class", is_dashed ? "swatch dashed" : "swatch"},
                  {"style", "color: var(--" + std::string(colour.name) + ")"}});
}

Html histogram(const RunRecord& run) {
  const std::vector<GateRecord> records = chosen(run.gates);
  Picture picture = {.title = "Gates of " + run.name,
                     .x = "gate F",
                     .y = "fraction of gates",
                     .log_y = true,
                     .curves = {}};
  Html caption = run.name + " at step";
  for (size_t i = 0; i < records.size(); ++i) {
    // The last in the strongest colour.
    const Colour& colour = kOrderColours[kOrderColours.size() - records.size() + i];
    Curve curve = {.points = {}, .colour = colour, .is_stepped = true};
    for (size_t bin = 0; bin < records[i].bins.size(); ++bin) {
      curve.points.push_back(
          {(static_cast<double>(bin) + 0.5) / GateStatistics::kBins, records[i].bins[bin]});
    }
    picture.curves.push_back(curve);
    caption += " " + element("span", swatch(colour) + std::to_string(records[i].step),
                             {{"class", "whole"}});
  }
  return figure(picture, caption);
}

Html saturation(const Runs& runs) {
  Picture picture = {.title = "Saturated gates",
                     .x = "step",
                     .y = "fraction of gates",
                     .from_zero = true,
                     .curves = {}};
  for (size_t i = 0; i < runs.size(); ++i) {
    Curve low = {.points = {}, .colour = style_of(i).colour, .dashes = 2};
    Curve high = {.points = {}, .colour = style_of(i).colour};
    for (const GateRecord& record : runs[i].gates) {
      low.points.push_back({static_cast<double>(record.step), record.low});
      high.points.push_back({static_cast<double>(record.step), record.high});
    }
    picture.curves.insert(picture.curves.end(), {low, high});
  }
  return figure(picture, "Saturated gates: F > 0.95, dashed F < 0.05");
}

}  // namespace

RunStyle style_of(size_t i) {
  return {kSeriesColours[i % kSeriesColours.size()],
          static_cast<int>(i / kSeriesColours.size()) + 1};
}

Html label_of(const Runs& runs, size_t i) {
  return swatch(style_of(i).colour, style_of(i).dashes > 1) + runs[i].name;
}

Html curves(const Runs& runs) {
  const Axis axis(runs);
  const auto draw = [&](Picture picture, const auto& points) {
    picture.x = axis.name();
    return figure_of_runs(runs, std::move(picture), points);
  };
  const auto of_steps = [&](double StepMetrics::*value, double unit = 1) {
    return [&axis, value, unit](const Metrics& metrics) {
      return points_of(metrics.steps, axis, value, unit);
    };
  };
  const Html figures =
      draw({.title = "Training loss", .x = "", .y = "nats per token"},
           [&](const Metrics& metrics) {  // not that of stages that learn from a teacher
             std::vector<StepMetrics> plain;
             std::copy_if(metrics.steps.begin(), metrics.steps.end(), std::back_inserter(plain),
                          [](const StepMetrics& line) { return line.objective.empty(); });
             return points_of(plain, axis, &StepMetrics::loss);
           }) +
      draw({.title = "Validation loss", .x = "", .y = "nats per token"},
           [&](const Metrics& metrics) {
             return points_of(metrics.validations, axis, &EvalMetrics::loss);
           }) +
      draw({.title = "Gradient norm before clipping", .x = "", .y = "norm", .log_y = true},
           of_steps(&StepMetrics::grad_norm)) +
      draw({.title = "Learning rate", .x = "", .y = "rate", .from_zero = true},
           of_steps(&StepMetrics::lr)) +
      draw({.title = "Speed", .x = "", .y = "thousand tokens/s", .from_zero = true},
           of_steps(&StepMetrics::tokens_per_s, 1e3));
  if (figures.is_empty()) return {};
  return element("div", figures, {{"class", "figures"}}) + "\n";
}

Html gates(const Runs& runs) {
  Html figures;
  for (const RunRecord& run : runs) figures += histogram(run);
  if (figures.is_empty()) return {};
  return element("div", figures + saturation(runs), {{"class", "figures"}}) + "\n";
}

}  // namespace regla::app
