#pragma once

#include <array>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace regla::app {

/// A colour on a light and on a dark ground; `name` is that of a page's stylesheet.
struct Colour {
  std::string_view name, light, dark;
};

/// Colours that tell things apart.
inline constexpr std::array<Colour, 6> kSeriesColours = {{{"blue", "#0060ad", "#66b0f0"},
                                                          {"orange", "#c04000", "#ff8f5a"},
                                                          {"green", "#2e8b57", "#5cc48c"},
                                                          {"violet", "#8040a0", "#c898e8"},
                                                          {"gold", "#a07808", "#e0b848"},
                                                          {"grey", "#555555", "#b0b0b0"}}};

/// Colours of an order: what comes last stands out most.
inline constexpr std::array<Colour, 5> kOrderColours = {{{"order-1", "#b8cee0", "#33475a"},
                                                         {"order-2", "#86aed2", "#3f6485"},
                                                         {"order-3", "#548ec3", "#4b84b4"},
                                                         {"order-4", "#2a6fb0", "#6cabde"},
                                                         {"order-5", "#003f73", "#a8d8ff"}}};

struct Point {
  double x = 0, y = 0;
};

/// A line through points in the order of x. A y that is not finite breaks it.
struct Curve {
  std::vector<Point> points;
  Colour colour = kSeriesColours[0];
  int dashes = 1;           ///< 1: none
  bool is_stepped = false;  ///< a histogram: x is the middle of a bin
};

/// Curves over two axes.
struct Picture {
  std::string title, x, y;  ///< of the whole, and of the axes, with units
  bool log_y = false;       ///< a logarithmic axis, where the values span a decade
  bool from_zero = false;   ///< y begins at 0
  std::vector<Curve> curves = {};
  int width = 560, height = 340;
};

/// Whether there is something to draw: a finite point that the axes can show.
bool is_drawable(const Picture& picture);

/// A picture as a part of an HTML page, which shows the title and says which curve is which.
/// Colours are `var(--<name>)` and `currentColor`; it is as wide as there is room. Nothing where
/// gnuplot is not installed, an Error where it fails.
std::optional<std::string> svg_part(const Picture& picture);

}  // namespace regla::app
