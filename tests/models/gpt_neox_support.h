#pragma once

#include <cstring>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "models/gpt_neox.h"
#include "storage/files.h"
#include "storage/json_fields.h"
#include "storage/safetensors.h"
#include "tests/error_of.h"
#include "tests/matchers.h"
#include "tests/temporary_folder.h"

// What the tests of GPT-NeoX folders share: tests/fixtures/gpt_neox has small ones, which
// `transformers` wrote, with what it computes of them.
namespace regla::test {

namespace fs = std::filesystem;

inline const fs::path kFixtures = fs::path(REGLA_SOURCE_DIR) / "tests/fixtures/gpt_neox";

struct Read {
  GptNeoxSummary summary;
  std::unique_ptr<Decoder> decoder;
};

inline Read read(const fs::path& folder, const GptNeoxOverrides& overrides = {}) {
  Read result;
  result.decoder = read_gpt_neox(folder, overrides, result.summary);
  return result;
}

inline std::string message_of(const fs::path& folder, const GptNeoxOverrides& overrides = {}) {
  const std::string message = error_of([&] { read(folder, overrides); });
  CHECK(message.find('\n') == std::string::npos);
  return message;
}

/// A copy of a fixture, to be damaged.
class Copy {
 public:
  explicit Copy(const std::string& fixture) {
    fs::copy(kFixtures / fixture, path, fs::copy_options::recursive);
  }
  fs::path operator/(const std::string& name) const { return path / name; }
  /// Sets a key of config.json, or removes it where the value is not given.
  void set(const std::string& key, const std::optional<Json>& value) const {
    Json json = parse_json(read_file(*this / "config.json"), "test");
    json.erase(key);
    if (value) json[key] = *value;
    write_file(*this / "config.json", json.dump());
  }
  /// Has `edit` change the tensors of model.safetensors.
  template <class F>
  void edit(F&& edit) const {
    std::vector<NamedTensor> tensors = read_safetensors(*this / "model.safetensors").tensors;
    edit(tensors);
    write_safetensors(*this / "model.safetensors", tensors);
  }
  /// Has `edit` change the header of a file of tensors.
  template <class F>
  void edit_header(const std::string& file, F&& edit) const {
    const std::string bytes = read_file(*this / file);
    uint64_t length = 0;
    std::memcpy(&length, bytes.data(), 8);
    Json header = parse_json(bytes.substr(8, length), "test");
    edit(header);
    const std::string text = header.dump(), data = bytes.substr(8 + length);
    length = text.size();
    write_file(*this / file, std::string(reinterpret_cast<const char*>(&length), 8) + text + data);
  }

  TemporaryFolder folder;
  fs::path path = folder.path();
};

inline Tensor* find(std::vector<NamedTensor>& tensors, const std::string& name) {
  for (NamedTensor& entry : tensors) {
    if (entry.name == name) return &entry.tensor;
  }
  return nullptr;
}

}  // namespace regla::test
