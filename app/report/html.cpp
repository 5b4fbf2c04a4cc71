#include "app/report/html.h"

#include <algorithm>

#include "app/picture.h"
#include "text/unicode.h"

namespace regla::app {
namespace {

/// The sheet below comes after the colours (colours_of).
constexpr std::string_view kStyle = R"css(
* { box-sizing: border-box }
body { margin: 0 auto; max-width: 90rem; padding: 1rem; background: var(--ground); color: var(--ink);
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere }
h1 { font-size: 1.5rem; margin: 0 0 0.5rem }
h2 { font-size: 1.15rem; margin: 2rem 0 0.5rem; border-bottom: 1px solid var(--grid) }
h3 { font-size: 1rem; margin: 1rem 0 0.25rem }
p { margin: 0.5rem 0; max-width: 45rem }
.quiet { color: var(--quiet) }
.wide { overflow-x: auto; margin: 0.5rem 0 }
table { border-collapse: collapse; font-size: 0.9rem; font-variant-numeric: tabular-nums }
th, td { padding: 0.2rem 0.8rem 0.2rem 0; text-align: left; vertical-align: top; white-space: nowrap;
  border-bottom: 1px solid var(--grid) }
thead th { color: var(--quiet); font-weight: normal }
tbody th { font-weight: 600 }
tr.marked td, tr.marked th { background: var(--mark) }
.figures { display: grid; gap: 1rem 1.5rem;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 22rem), 1fr)) }
.columns { display: grid; gap: 0 2rem; align-items: start;
  grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)) }
.columns > * { min-width: 0 }
.whole { white-space: nowrap }
figure { margin: 0; min-width: 0 }
figcaption { font-size: 0.9rem }
figure svg { display: block; width: 100%; height: auto }
figure svg text, figure svg tspan { font-family: system-ui, sans-serif }
.swatch { display: inline-block; width: 1.4em; margin-right: 0.5em; vertical-align: middle;
  border-top: 0.2em solid }
.swatch.dashed { border-top-style: dashed }
pre { margin: 0.25rem 0; padding: 0.6rem 0.8rem; background: var(--panel); border-radius: 0.3rem;
  max-width: 60rem; white-space: pre-wrap; font: 0.9rem/1.5 ui-monospace, monospace }
summary { cursor: pointer; color: var(--quiet) }
)css";

std::string colour_rules(std::string_view Colour::*shade) {
  std::string rules;
  const auto add = [&](const Colour& colour) {
    rules.append("--").append(colour.name).append(": ").append(colour.*shade).append("; ");
  };
  std::ranges::for_each(kSeriesColours, add);
  std::ranges::for_each(kOrderColours, add);
  return rules;
}

std::string colours() {
  return "\n:root { color-scheme: light dark; --ground: #ffffff; --ink: #1a1a1a; --quiet: #5f6368; "
         "--grid: #dddddd; --panel: #f4f4f4; --mark: #fff4cc;\n  " +
         colour_rules(&Colour::light) +
         "}\n@media (prefers-color-scheme: dark) { :root { --ground: #16181b; --ink: #e6e6e6; "
         "--quiet: #a0a6ad; --grid: #3a3e44; --panel: #212429; --mark: #40381a;\n  " +
         colour_rules(&Colour::dark) + "} }";
}

std::string escaped(std::string_view text) {
  std::string safe;
  for (const char c : replace_invalid_utf8(text)) {
    switch (c) {
      case '&':
        safe += "&amp;";
        break;
      case '<':
        safe += "&lt;";
        break;
      case '>':
        safe += "&gt;";
        break;
      case '"':
        safe += "&quot;";
        break;
      case '\'':
        safe += "&#39;";
        break;
      default:
        // HTML knows no other control characters.
        const bool is_control = static_cast<unsigned char>(c) < ' ' && c != '\n' && c != '\t';
        safe += is_control || c == '\x7f' ? "\xef\xbf\xbd" : std::string(1, c);
    }
  }
  return safe;
}

}  // namespace

Html::Html(std::string_view text) : text_(escaped(text)) {}

Html Html::markup(std::string text) {
  Html html;
  html.text_ = std::move(text);
  return html;
}

Html& Html::operator+=(const Html& more) {
  text_ += more.text_;
  return *this;
}

Html element(const char* name, const Html& content, Attributes attributes) {
  std::string text = std::string("<") + name;
  for (const auto& [key, value] : attributes) {
    if (!value.empty()) text += std::string(" ") + key + "=\"" + escaped(value) + "\"";
  }
  return Html::markup(text + ">" + content.text() + "</" + name + ">");
}

Html table(const std::vector<Html>& head, const std::vector<TableRow>& rows) {
  Html heading, body;
  for (const Html& cell : head) heading += element("th", cell);
  for (const TableRow& row : rows) {
    Html cells;
    for (const Html& cell : row.cells) cells += element(cells.is_empty() ? "th" : "td", cell);
    body += element("tr", cells, {{"class", row.is_marked ? "marked" : ""}}) + "\n";
  }
  Html all;
  if (!head.empty()) all += element("thead", element("tr", heading)) + "\n";
  return element("div", element("table", all + element("tbody", body)), {{"class", "wide"}}) + "\n";
}

Html section(std::string_view title, const Html& content) {
  if (content.is_empty()) return {};
  return element("section", element("h2", title) + "\n" + content) + "\n";
}

Html folded(std::string_view title, const Html& content) {
  return element("details", element("summary", title) + content) + "\n";
}

std::string page(std::string_view title, const Html& content) {
  const Html head = Html::markup(R"(<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
)") + element("title", title) +
                    Html::markup("<style>" + colours() + std::string(kStyle) + "</style>");
  return "<!DOCTYPE html>\n" +
         element("html", element("head", head) + "\n" + element("body", content) + "\n",
                 {{"lang", "en"}})
             .text() +
         "\n";
}

}  // namespace regla::app
