// The paper's Figure 5: time and memory of texts by their length.

#include <algorithm>

#include "app/analyse/analyse.h"
#include "app/bench/cases.h"
#include "app/gnuplot.h"

namespace regla::app {
namespace {

const std::string_view kDecodePlot = R"gp(
set terminal svg size 900,420 font 'sans,13' background 'white'
set multiplot layout 1,2
array colours[3] = ['#0060ad', '#2e8b57', '#c04000']
array points[3] = [7, 4, 2]
set logscale x 2
set format x '2^{%L}'
set xlabel 'tokens written' offset 0,0.5
set grid ytics lc rgb '#dddddd'
set border 3
set tics nomirror
set bmargin 6
set key below center horizontal samplen 2 noenhanced
length_of(i) = strcol('mixer') eq mixers[i] ? column('tokens') : NaN

set title 'prompt and text'
set ylabel 'seconds'
set logscale y
if (crossing > 0) {
  set arrow 1 from crossing, graph 0 to crossing, graph 1 nohead dt 3 lc rgb '#888888'
  set title sprintf('prompt and text; ReGLA is faster from %.0f on', crossing)
}
plot for [i = 1:|mixers|] csv using (length_of(i)):'seconds' with linespoints pt points[i] ps 0.9 lw 1.5 lc rgb colours[i] title mixers[i]

unset arrow
unset logscale y
set title 'most memory of tensors'
set ylabel 'MB'
set yrange [0:*]
plot for [i = 1:|mixers|] csv using (length_of(i)):(column('peak_memory_bytes') / 1e6) with linespoints pt points[i] ps 0.9 lw 1.5 lc rgb colours[i] title mixers[i]
unset multiplot
)gp";

}  // namespace

void draw_texts(const std::string& folder, const Json& report, bool says) {
  const std::string kLength = " T=";
  Json rows = Json::array();
  std::vector<std::string> mixers;
  for (const Json& row : report["results"]) {
    const auto name = row["name"].get<std::string>();
    const size_t at = name.find(kLength);
    if (at == name.npos) continue;
    const int64_t tokens = std::stoll(name.substr(at + kLength.size()));
    const auto seconds = row["median_s"].get<double>();
    rows.push_back({{"mixer", name.substr(0, at)},
                    {"tokens", tokens},
                    {"seconds", seconds},
                    {"seconds_per_token", seconds / static_cast<double>(tokens)},
                    {"peak_memory_bytes", row["peak_memory_bytes"]},
                    {"state_bytes", row["state_bytes"]},
                    {"repeats", row["repeats"]}});
    if (std::find(mixers.begin(), mixers.end(), rows.back()["mixer"]) == mixers.end()) {
      mixers.push_back(rows.back()["mixer"]);
    }
  }
  // A mixer's rows stand together: a line of the picture is drawn through rows in a row.
  std::stable_sort(rows.begin(), rows.end(), [](const Json& a, const Json& b) {
    return a["mixer"].get<std::string>() < b["mixer"].get<std::string>();
  });
  // There is none where softmax attention, or all else, was left out.
  const Json slower = report.value("softmax_slower_from", Json::object());
  const Json crossing = slower.value("regla", Json());
  Json settings = report;
  settings.erase("results");
  settings.erase("softmax_slower_from");
  write_report(folder,
               {.name = "decode",
                .settings = settings,
                .summary = {{"softmax_slower_from", slower}},
                .rows = rows,
                .variables = gnuplot_array("mixers", mixers) +
                             "crossing = " + (crossing.is_number() ? crossing.dump() : "0") + "\n",
                .script = kDecodePlot},
               says);
}

}  // namespace regla::app
