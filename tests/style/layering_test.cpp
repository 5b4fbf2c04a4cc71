// The rules of the house that a machine can read: includes point one way, other people's headers
// stay where they belong, files stay short.

#include <algorithm>
#include <filesystem>
#include <map>
#include <set>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include "storage/files.h"
#include "tests/catch.h"

namespace {

namespace fs = std::filesystem;
using Strings = std::vector<std::string>;

constexpr int64_t kLongest = 500;  // lines of a file

/// The folders below models, and those.
std::set<std::string> below(std::set<std::string> folders) {
  folders.insert({"core", "storage", "backends", "autograd", "layers"});
  return folders;
}

/// What a folder may include, itself among it. Folders that are not listed may include all.
const std::map<std::string, std::set<std::string>>& allowed() {
  static const std::map<std::string, std::set<std::string>> table = {
      {"core", {"core"}},
      {"storage", {"core", "storage"}},
      {"backends", {"core", "backends"}},
      {"autograd", {"core", "backends", "autograd"}},
      {"layers", {"core", "backends", "autograd", "layers"}},
      {"models", {"core", "storage", "backends", "autograd", "layers", "models"}},
      {"text", {"core", "storage", "text"}},
      {"scoring", below({"models", "text", "scoring"})},
      {"training", below({"models", "text", "scoring", "training"})},
      {"analyses", below({"models", "text", "scoring", "training", "analyses"})},
      {"app", below({"models", "text", "scoring", "training", "analyses", "app"})},
      {"examples", below({"models", "text", "scoring", "training"})}};
  return table;
}

/// Headers of other packages: where they begin so, only files that begin so may include them.
struct Foreign {
  const char* header;
  Strings places;
};
const std::vector<Foreign>& foreign() {
  static const std::vector<Foreign> table = {
      {"Eigen/", {"backends/cpu/"}},
      {"dnnl", {"backends/cpu/bfloat16_gemm.cpp", "backends/cpu/gemm.cpp"}},
      {"oneapi/", {"backends/cpu/gemm.cpp"}},
      {"cuda", {"backends/cuda/"}},
      {"cublas", {"backends/cuda/"}},
      {"nccl", {"backends/cuda/"}},
      {"omp.h", {"core/parallel.h", "backends/cpu/"}},
      {"immintrin.h", {"backends/cpu/streaming.h"}},
      {"CLI/", {"app/"}},
      {"unicode/", {"text/"}},
      {"lzma.h", {"text/"}},
      {"zlib.h", {"text/"}}};
  return table;
}

std::string folder_of(std::string_view path) { return std::string(path.substr(0, path.find('/'))); }

bool begins_with_any(std::string_view text, const Strings& beginnings) {
  return std::any_of(beginnings.begin(), beginnings.end(),
                     [&](const std::string& start) { return text.starts_with(start); });
}

/// What is wrong with one `#include`, or nothing. `quoted`: "own" rather than <foreign>.
std::string complaint(const std::string& path, const std::string& header, bool quoted) {
  const std::string folder = folder_of(path), target = folder_of(header);
  if (path.starts_with("core/recurrences/") && header.find('/') != std::string::npos &&
      header != "core/recurrences/cell.h") {
    return "a recurrence includes nothing but the standard library and cell.h";
  }
  if (quoted) {
    if (header.find('/') == std::string::npos) return "the path does not start at the root";
    const auto rule = allowed().find(folder);
    if (rule != allowed().end() && !rule->second.contains(target)) {
      return folder + " may not include " + target;
    }
    for (const char* backend : {"backends/cpu/", "backends/cuda/"}) {
      const bool is_inside = path.starts_with(backend) || path.starts_with("tests/") ||
                             header == "backends/cpu/info.h";  // what the machine is
      if (header.starts_with(backend) && !is_inside) return "only its own files include a backend";
    }
    return "";
  }
  for (const Foreign& package : foreign()) {
    const bool is_test = path.starts_with("tests/") || path.starts_with("benchmarks/");
    if (header.starts_with(package.header) && !is_test && !begins_with_any(path, package.places)) {
      return "this package belongs elsewhere";
    }
  }
  const bool is_public =
      path.ends_with(".h") && path != "storage/json_fields.h" && path != "models/mixer_json.h";
  if (is_public && header.starts_with("nlohmann/")) return "no public header includes JSON";
  return "";
}

/// Everything that is wrong with a file, each as `path:line: ...`.
Strings complaints(const std::string& path, const std::string& text) {
  Strings found;
  std::istringstream lines(text);
  std::string line;
  int64_t number = 0;
  const auto complain = [&](const std::string& what) {
    found.push_back(path + ":" + std::to_string(number) + ": " + what);
  };
  while (std::getline(lines, line)) {
    ++number;
    if (!line.starts_with("#include ")) continue;
    const size_t open = line.find_first_of("<\""), close = line.find_last_of(">\"");
    if (open == std::string::npos || close <= open) continue;
    const std::string header = line.substr(open + 1, close - open - 1);
    const std::string what = complaint(path, header, line[open] == '"');
    if (!what.empty()) complain(header + ": " + what);
  }
  if (number > kLongest) complain("more than " + std::to_string(kLongest) + " lines");
  if (path.ends_with(".h") && !text.starts_with("#pragma once\n")) {
    complain("a header begins with #pragma once");
  }
  return found;
}

/// The sources below the root, as paths from there.
Strings sources() {
  const fs::path root = REGLA_SOURCE_DIR;
  Strings paths;
  for (const char* folder :
       {"core", "storage", "backends", "autograd", "layers", "models", "text", "scoring",
        "training", "analyses", "app", "examples", "benchmarks", "tests"}) {
    if (!fs::exists(root / folder)) continue;
    for (const auto& entry : fs::recursive_directory_iterator(root / folder)) {
      const std::string extension = entry.path().extension().string();
      if (std::set<std::string>{".h", ".cpp", ".cu", ".cuh"}.contains(extension)) {
        paths.push_back(entry.path().lexically_relative(root).generic_string());
      }
    }
  }
  return paths;
}

}  // namespace

TEST_CASE("includes point one way and files stay short") {
  const Strings paths = sources();
  REQUIRE(paths.size() > 50);
  for (const std::string& path : paths) {
    const std::string text = regla::read_file(fs::path(REGLA_SOURCE_DIR) / path);
    for (const std::string& what : complaints(path, text)) FAIL_CHECK(what);
  }
}

TEST_CASE("the layering test sees what it is for") {
  const auto wrong = [](const std::string& path, const std::string& text) {
    return complaints(path, path.ends_with(".h") ? "#pragma once\n" + text : text).size();
  };
  CHECK(wrong("layers/gates.cpp", "#include \"autograd/ops.h\"\n#include <vector>\n") == 0);
  CHECK(wrong("core/tensor.cpp", "#include \"backends/kernels.h\"\n") == 1);
  CHECK(wrong("autograd/tape.cpp", "#include \"layers/parameters.h\"\n") == 1);
  CHECK(wrong("text/bpe.cpp", "#include \"models/decoder.h\"\n") == 1);
  CHECK(wrong("models/decoder.cpp", "#include \"text/bpe.h\"\n") == 1);
  CHECK(wrong("training/trainer.cpp", "#include \"text/batches.h\"\n") == 0);
  CHECK(wrong("training/trainer.cpp", "#include \"app/commands.h\"\n") == 1);
  CHECK(wrong("app/train.cpp", "#include \"tests/support.h\"\n") == 1);
  CHECK(wrong("autograd/tape.cpp", "#include \"tape.h\"\n") == 1);
  CHECK(wrong("autograd/ops/add.cpp", "#include \"backends/cpu/loops.h\"\n") == 1);
  CHECK(wrong("backends/cuda/norm.cu", "#include \"backends/cpu/loops.h\"\n") == 1);
  CHECK(wrong("core/recurrences/linear_attention.h", "#include \"core/check.h\"\n") == 1);
  CHECK(wrong("core/recurrences/bar.h", "#include \"core/recurrences/cell.h\"\n") == 0);
  CHECK(wrong("backends/cpu/gemm.cpp", "#include <Eigen/Core>\n#include <dnnl.h>\n") == 0);
  CHECK(wrong("backends/cpu/norm.cpp", "#include <dnnl.h>\n") == 1);
  CHECK(wrong("layers/linear.cpp", "#include <Eigen/Core>\n") == 1);
  CHECK(wrong("core/tensor.cpp", "#include <cuda_runtime.h>\n") == 1);
  CHECK(wrong("models/configuration.h", "#include <nlohmann/json.hpp>\n") == 1);
  CHECK(wrong("core/long.cpp", std::string(501, '\n')) == 1);
  CHECK(complaints("core/new.h", "#include <vector>\n").size() == 1);
}
