// What documents and comments point at is there: files, headings behind a `#`, and the headings of
// documents that comments cite as docs/math.md, "The recurrence". What they count is so many.

#include <algorithm>
#include <cctype>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <regex>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "storage/files.h"
#include "tests/catch.h"

namespace {

namespace fs = std::filesystem;
using Strings = std::vector<std::string>;

const fs::path kRoot = REGLA_SOURCE_DIR;

/// The headings of a document.
Strings headings(const std::string& text) {
  Strings found;
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with("#")) found.push_back(line.substr(line.find_first_not_of("# ")));
  }
  return found;
}

/// What a link to a heading is called.
std::string anchor_of(const std::string& heading) {
  std::string anchor;
  for (const char c : heading) {
    const auto byte = static_cast<unsigned char>(c);
    if (std::isalnum(byte) != 0 || c == '-' || c == '_') {
      anchor += static_cast<char>(std::tolower(byte));
    } else if (c == ' ') {
      anchor += '-';
    }
  }
  return anchor;
}

bool has_anchor(const fs::path& document, const std::string& anchor) {
  const Strings all = headings(regla::read_file(document));
  return std::any_of(all.begin(), all.end(),
                     [&](const std::string& heading) { return anchor_of(heading) == anchor; });
}

/// Links of a document of this folder that lead nowhere.
Strings broken_links(const fs::path& document, const std::string& text) {
  static const std::regex link(R"(\]\(([^)#\s]*)#?([^)\s]*)\))");
  Strings broken;
  for (std::sregex_iterator at(text.begin(), text.end(), link), end; at != end; ++at) {
    const std::string path = (*at)[1], anchor = (*at)[2];
    if (path.find("://") != std::string::npos) continue;
    const fs::path target = path.empty() ? document : document.parent_path() / path;
    if (!fs::exists(target) || (!anchor.empty() && !has_anchor(target, anchor))) {
      broken.push_back(at->str());
    }
  }
  return broken;
}

/// Documents and headings that the comments of a source cite and that are not there.
Strings broken_citations(const std::string& source) {
  static const std::regex line_break(R"(\n\s*///?\s*)");
  static const std::regex citation(R"((\b\w[\w/]*\.md)((, "[A-Z][^"]*")*))");
  static const std::regex quoted("\"([^\"]*)\"");
  const std::string text = std::regex_replace(source, line_break, " ");
  Strings broken;
  for (std::sregex_iterator at(text.begin(), text.end(), citation), end; at != end; ++at) {
    const fs::path document = kRoot / (*at)[1].str();
    if (!fs::exists(document)) {
      broken.push_back(at->str());
      continue;
    }
    const std::string names = (*at)[2];
    const Strings all = headings(regla::read_file(document));
    for (std::sregex_iterator name(names.begin(), names.end(), quoted); name != end; ++name) {
      const std::string wanted = (*name)[1];
      const bool known = std::any_of(all.begin(), all.end(), [&](const std::string& heading) {
        return heading.starts_with(wanted);
      });
      if (!known) broken.push_back(at->str());
    }
  }
  return broken;
}

/// The files of the source tree with one of these endings.
std::vector<fs::path> files(const std::set<std::string>& endings) {
  std::vector<fs::path> found;
  for (const auto& top : fs::directory_iterator(kRoot)) {
    const std::string name = top.path().filename().string();
    if (name.starts_with(".") || name == "build") continue;
    if (!top.is_directory()) {
      if (endings.contains(top.path().extension().string())) found.push_back(top.path());
      continue;
    }
    for (const auto& entry : fs::recursive_directory_iterator(top.path())) {
      if (endings.contains(entry.path().extension().string())) found.push_back(entry.path());
    }
  }
  return found;
}

/// What the numbered list under a heading links to.
std::set<fs::path> listed_files(const fs::path& document, const std::string& heading) {
  static const std::regex link(R"(\]\(([^)#\s]+)\))");
  std::set<fs::path> found;
  std::istringstream lines(regla::read_file(document));
  bool is_there = false;
  for (std::string line; std::getline(lines, line);) {
    if (line.starts_with("#")) is_there = line.ends_with(heading);
    if (!is_there || line.empty() || std::isdigit(static_cast<unsigned char>(line[0])) == 0)
      continue;
    for (std::sregex_iterator at(line.begin(), line.end(), link), end; at != end; ++at) {
      found.insert(document.parent_path() / (*at)[1].str());
    }
  }
  return found;
}

}  // namespace

TEST_CASE("links in documents lead somewhere") {
  const std::vector<fs::path> documents = files({".md"});
  REQUIRE(documents.size() > 10);
  for (const fs::path& document : documents) {
    for (const std::string& link : broken_links(document, regla::read_file(document))) {
      FAIL_CHECK(document.string() << ": " << link);
    }
  }
  const fs::path here = kRoot / "docs/math.md";
  CHECK(broken_links(here, "[a](../README.md#limits), [b](#three-forms), [c](data.md)").empty());
  CHECK(broken_links(here, "[a](README.md), [b](#four-forms), [c](data.md#math)").size() == 3);
}

TEST_CASE("the reading order is as long as the documents say") {
  const std::set<fs::path> spine = listed_files(kRoot / "docs/structure.md", "Reading order");
  int64_t lines = 0;
  for (const fs::path& file : spine) {
    const std::string text = regla::read_file(file);
    lines += std::count(text.begin(), text.end(), '\n');
  }
  static const std::regex claim(R"((\d+) files(?:,| of) about (\d+),(\d{3}) lines)");
  for (const char* document : {"docs/structure.md", "README.md"}) {
    const std::string text = regla::read_file(kRoot / document);
    std::sregex_iterator at(text.begin(), text.end(), claim);
    REQUIRE(at != std::sregex_iterator());
    for (; at != std::sregex_iterator(); ++at) {
      INFO(document << ": " << at->str() << "; there are " << spine.size() << " and " << lines);
      CHECK(std::stoul((*at)[1]) == spine.size());
      CHECK(std::abs(std::stol((*at)[2].str() + (*at)[3].str()) - lines) <= 100);
    }
  }
}

TEST_CASE("comments cite documents and headings that exist") {
  for (const fs::path& source : files({".h", ".cpp", ".cuh", ".cu", ".py", ".sh", ".cmake"})) {
    if (source.filename() == "documents_test.cpp") continue;
    for (const std::string& citation : broken_citations(regla::read_file(source))) {
      FAIL_CHECK(source.string() << ": " << citation);
    }
  }
  CHECK(broken_citations("/// docs/math.md, \"Three forms\", \"The\n  /// gate\"; README.md")
            .empty());
  CHECK(broken_citations("// NOTES.md, docs/math.md, \"Four forms\"").size() == 2);
}
