#include "app/picture.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <limits>
#include <span>

#include "app/command.h"
#include "app/gnuplot.h"

namespace regla::app {
namespace {

constexpr size_t kMarked = 40;  // points of a curve that are marked, at most

struct Range {
  double least = std::numeric_limits<double>::infinity();
  double most = -std::numeric_limits<double>::infinity();
};

bool is_shown(const Picture& picture, const Point& point) {
  return std::isfinite(point.x) && std::isfinite(point.y) && (!picture.log_y || point.y > 0);
}

Range range_of_y(const Picture& picture) {
  Range range;
  for (const Curve& curve : picture.curves) {
    for (const Point& point : curve.points) {
      if (!is_shown(picture, point)) continue;
      range = {std::min(range.least, point.y), std::max(range.most, point.y)};
    }
  }
  return range;
}

std::string number(double value) { return std::isfinite(value) ? rounded(value, 9) : "NaN"; }

/// The points of every curve, as blocks of data `$c0`, `$c1`, ...
std::string data_of(const Picture& picture) {
  std::string text;
  for (size_t i = 0; i < picture.curves.size(); ++i) {
    text += "$c" + std::to_string(i) + " << END\n";
    for (const Point& point : picture.curves[i].points) {
      text += number(point.x) + " " + number(is_shown(picture, point) ? point.y : NAN) + "\n";
    }
    text += "END\n";
  }
  return text;
}

/// How curve i is drawn.
std::string plot_of(const Curve& curve, size_t i) {
  const bool is_marked = curve.points.size() <= kMarked && !curve.is_stepped;
  const std::string style = curve.is_stepped ? "histeps" : is_marked ? "linespoints" : "lines";
  return "$c" + std::to_string(i) + " with " + style + " lw 1.5 dt " +
         std::to_string(curve.dashes) + " lc rgb " + gnuplot_string(curve.colour.light) +
         (is_marked ? " pt 7 ps 0.4 notitle" : " notitle");
}

std::string axes_of(const Picture& picture) {
  std::string text = "set border 3\nset tics nomirror\nset grid ytics lc rgb '#dddddd' lw 0.7\n";
  text += "set xlabel " + gnuplot_string(picture.x) + " noenhanced\n";
  text += "set ylabel " + gnuplot_string(picture.y) + " noenhanced\n";
  text += "set format '%g'\n";
  const Range y = range_of_y(picture);
  if (picture.log_y && y.most > 10 * y.least) {
    text += "set logscale y\n";
  } else if (picture.from_zero) {
    text += "set yrange [0:*]\n";
  }
  return text;
}

/// The title as gnuplot takes it for the names of elements: letters, digits and _.
std::string identifier_of(std::string title) {
  for (char& c : title) {
    const bool is_plain =
        (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    if (!is_plain) c = '_';
  }
  return title;
}

std::string script_of(const Picture& picture) {
  const std::string terminal = "set terminal svg size " + std::to_string(picture.width) + "," +
                               std::to_string(picture.height) + " dynamic font 'sans,13' name " +
                               gnuplot_string(identifier_of(picture.title)) + "\n";
  std::string plots;
  for (size_t i = 0; i < picture.curves.size(); ++i) {
    plots += (plots.empty() ? "plot " : ", ") + plot_of(picture.curves[i], i);
  }
  return data_of(picture) + terminal + axes_of(picture) + plots + "\n";
}

/// What a page calls a colour of gnuplot's, as `rgb( 46, 139,  87)`; without a name it is itself.
std::string named_colour(const std::string& colour) {
  unsigned red = 0, green = 0, blue = 0;
  if (std::sscanf(colour.c_str(), "rgb(%u,%u,%u)", &red, &green, &blue) != 3) return colour;
  char hex[32];
  std::snprintf(hex, sizeof hex, "#%02x%02x%02x", red, green, blue);
  for (const std::span<const Colour> colours :
       {std::span<const Colour>(kSeriesColours), std::span<const Colour>(kOrderColours)}) {
    for (const Colour& known : colours) {
      if (known.light == hex) return "var(--" + std::string(known.name) + ")";
    }
  }
  return hex == std::string_view("#dddddd") ? "var(--grid)" : colour;
}

/// The element alone, with colours as the page has them, and without a title: it would be shown
/// wherever a pointer rests.
std::string part_of_page(std::string svg) {
  if (const size_t title = svg.find("<title>"), end = svg.find("</title>"); end != svg.npos) {
    svg.erase(title, end + 8 - title);
  }
  std::string part = "<svg role=\"img\"";
  const size_t start = std::min(svg.find("<svg"), svg.size() - 4) + 4;
  for (size_t at = start; at < svg.size();) {
    const size_t colour = std::min(svg.find("rgb(", at), svg.size());
    const size_t end = std::min(svg.find(')', colour), svg.size() - 1) + 1;
    part += svg.substr(at, colour - at) + named_colour(svg.substr(colour, end - colour));
    at = end;
  }
  for (const char* black : {"\"black\"", "'black'"}) {
    const size_t length = std::string_view(black).size();
    for (size_t at = 0; (at = part.find(black, at)) != part.npos;) {
      part.replace(at, length, "\"currentColor\"");
    }
  }
  return part;
}

}  // namespace

bool is_drawable(const Picture& picture) {
  return std::ranges::any_of(picture.curves, [&](const Curve& curve) {
    return std::ranges::any_of(curve.points,
                               [&](const Point& point) { return is_shown(picture, point); });
  });
}

std::optional<std::string> svg_part(const Picture& picture) {
  const auto svg = drawn(script_of(picture), picture.title);
  if (!svg) return std::nullopt;
  return part_of_page(*svg);
}

}  // namespace regla::app
