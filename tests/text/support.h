#pragma once

#include <cstdlib>
#include <fstream>
#include <string>
#include <string_view>

#include "core/random.h"
#include "tests/error_of.h"
#include "tests/temporary_folder.h"

namespace regla::test {

/// A temporary folder to put small files into.
class TextFolder : public TemporaryFolder {
 public:
  std::string path() const { return TemporaryFolder::path().string(); }
  std::string path(const std::string& name) const { return (*this / name).string(); }
  /// Writes a file and returns its path.
  std::string add(const std::string& name, std::string_view bytes) const {
    std::ofstream(path(name), std::ios::binary) << bytes;
    return path(name);
  }
};

/// Bytes 0..255, each as likely as the others.
inline std::string random_bytes(size_t count, uint64_t seed) {
  const Random random(seed, 0);
  std::string out;
  for (size_t i = 0; i < count; ++i) {
    out.push_back(static_cast<char>(random.words(i)[0] & 0xFF));
  }
  return out;
}

/// The folder of test data, or an empty string where REGLA_DATA is unset.
inline std::string data_folder() {
  const char* folder = std::getenv("REGLA_DATA");
  return folder == nullptr ? "" : folder;
}

}  // namespace regla::test
