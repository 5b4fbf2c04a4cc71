#include "storage/safetensors.h"

#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "core/check.h"
#include "storage/files.h"
#include "tests/matchers.h"
#include "tests/temporary_folder.h"

namespace regla {
namespace {

/// A file made of a header as given and so many bytes of data.
std::string file_of(const std::string& header, size_t data_bytes) {
  const uint64_t length = header.size();
  std::string bytes(8, '\0');
  std::memcpy(bytes.data(), &length, 8);
  return bytes + header + std::string(data_bytes, '\1');
}

/// How many names a folder holds.
int64_t entries(const TemporaryFolder& folder) {
  const auto names = std::filesystem::directory_iterator(folder.path());
  return std::distance(std::filesystem::begin(names), std::filesystem::end(names));
}

TensorFile parse(const std::string& bytes) {
  return parse_safetensors(std::as_bytes(std::span(bytes)), "x.safetensors");
}

std::string error_of(const std::string& bytes) {
  try {
    parse(bytes);
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

std::string entry(const std::string& name, const std::string& dtype, const std::string& shape,
                  const std::string& offsets) {
  return "\"" + name + "\":{\"dtype\":\"" + dtype + "\",\"shape\":" + shape +
         ",\"data_offsets\":" + offsets + "}";
}

std::vector<NamedTensor> sample() {
  Tensor bf16 = Tensor::empty({3}, DType::BF16);
  std::memset(bf16.raw(), 0x3f, 6);
  return {{"w", Tensor::of({2, 3}, std::vector<float>{1, 2, 3, 4, 5, 6})},
          {"layers.0.x", Tensor::of({2}, std::vector<double>{0.1, -1e300})},
          {"ids", Tensor::of({1, 1, 1, 1, 3}, std::vector<int32_t>{-1, 0, 7})},
          {"half", bf16},
          {"scalar", Tensor::of({}, std::vector<float>{3})},
          {"empty", Tensor::zeros({0, 4}, DType::F32)}};
}

}  // namespace

TEST_CASE("safetensors come back as they were written") {
  const TemporaryFolder folder;
  const auto written = sample();
  write_safetensors(folder / "a.safetensors", written, {{"format", "regla"}, {"quote", "\"\n"}});
  const TensorFile file = read_safetensors(folder / "a.safetensors");
  CHECK(file.metadata == Metadata{{"format", "regla"}, {"quote", "\"\n"}});
  REQUIRE(file.tensors.size() == written.size());
  for (const auto& [name, tensor] : written) {
    CAPTURE(name);
    const Tensor read = file.find(name);
    REQUIRE(read.defined());
    CHECK(read.dtype() == tensor.dtype());
    CHECK(read.shape() == tensor.shape());
    if (tensor.bytes() > 0) {
      CHECK(std::memcmp(read.raw(), tensor.raw(), static_cast<size_t>(tensor.bytes())) == 0);
    }
  }
  CHECK_FALSE(file.find("absent").defined());
  // The file is gone, what was found in it is not.
  CHECK(read_safetensors(folder / "a.safetensors").find(written[0].name).values() ==
        written[0].tensor.values());
  CHECK(entries(folder) == 1);  // nothing temporary stays
}

TEST_CASE("safetensors without tensors or metadata") {
  const TemporaryFolder folder;
  write_safetensors(folder / "a", {});
  const TensorFile file = read_safetensors(folder / "a");
  CHECK(file.tensors.empty());
  CHECK(file.metadata.empty());
}

TEST_CASE("safetensors of another order of names are read in the order of bytes") {
  const TensorFile file = parse(file_of(
      "{" + entry("b", "F32", "[1]", "[8,12]") + "," + entry("a", "F32", "[2]", "[0,8]") + "}   ",
      12));
  REQUIRE(file.tensors.size() == 2);
  CHECK(file.tensors[0].name == "a");
  CHECK(file.tensors[1].name == "b");
}

TEST_CASE("files of other programs have numbers of 16 bits and tensors that nobody reads") {
  const TemporaryFolder folder;
  std::string bytes = file_of(
      "{" + entry("h", "F16", "[2,2]", "[0,8]") + "," + entry("b", "BOOL", "[3]", "[8,11]") + "," +
          entry("q", "F8_E4M3", "[1]", "[11,12]") + "," + entry("f", "F32", "[1]", "[12,16]") + "}",
      0);
  const uint16_t halves[] = {0x3c00, 0xc000, 0x0001, 0x7bff};  // 1, -2, 2^-24, 65504
  bytes.append(reinterpret_cast<const char*>(halves), sizeof halves);
  bytes += std::string(4, '\1') + std::string("\0\0\x80\x3f", 4);
  write_file(folder / "x", bytes);
  CHECK_THROWS_WITH(TensorSource(folder / "x"), Contains("F32, F64, BF16, I32, got \"F16\""));
  const TensorSource source(folder / "x", StoredTypes::All);
  REQUIRE(source.entries().size() == 4);
  const TensorSource::Entry &h = source.entries()[0], &b = source.entries()[1],
                            &f = source.entries()[3];
  CHECK(h.dtype == DType::F32);
  CHECK(h.type == "F16");
  Tensor read = Tensor::empty({2, 2}, DType::F32);
  source.read(h, read);
  CHECK(read.values() == std::vector<double>{1, -2, 0x1p-24, 65504});
  CHECK_FALSE(b.dtype.has_value());
  CHECK_THROWS_WITH(source.read(b, read), Contains("expected a place"));
  Tensor one = Tensor::empty({1}, DType::F32);
  source.read(f, one);
  CHECK(one.values() == std::vector<double>{1});
}

TEST_CASE("damaged safetensors are one clear error") {
  const auto one = [](const std::string& dtype, const std::string& shape,
                      const std::string& offsets, size_t bytes) {
    return error_of(file_of("{" + entry("w", dtype, shape, offsets) + "}", bytes));
  };
  CHECK_THAT(error_of(""), Contains("cut off after 0 bytes"));
  CHECK_THAT(error_of("1234567"), Contains("cut off after 7 bytes"));
  CHECK_THAT(error_of(std::string(8, '\xff')), Contains("above the limit"));
  CHECK_THAT(error_of(file_of("{}", 0).substr(0, 9)), Contains("cut off within the header"));
  CHECK_THAT(error_of(file_of("", 0)), Contains("not a JSON object"));
  CHECK_THAT(error_of(file_of("[]", 0)), Contains("not a JSON object"));
  CHECK_THAT(error_of(file_of("{\"a\":", 0)), Contains("malformed JSON at line 1, column 6"));
  CHECK_THAT(error_of(file_of("{\"\xff\":1}", 0)), Contains("malformed JSON"));
  CHECK_THAT(error_of(file_of("{\"a\":1e999}", 0)), Contains("out of range"));
  CHECK_THAT(error_of(file_of("{\"a\":" + std::string(99999, '['), 0)), Contains("nesting"));
  CHECK_THAT(error_of(file_of("{}", 4)), Contains("4 bytes after the last tensor"));
  CHECK_THAT(error_of(file_of("{\"w\":3}", 0)), Contains("tensor \"w\": expected dtype, shape"));
  CHECK_THAT(error_of(file_of("{\"__metadata__\":{\"a\":1}}", 0)), Contains("strings"));
  CHECK_THAT(one("F16", "[1]", "[0,2]", 2), Contains("got \"F16\""));
  CHECK_THAT(one("F32", "[-1]", "[0,4]", 4), Contains("at least 0"));
  CHECK_THAT(one("F32", "[1.5]", "[0,4]", 4), Contains("at least 0"));
  CHECK_THAT(one("F32", "[4294967296,4294967296]", "[0,4]", 4), Contains("too large"));
  CHECK_THAT(one("F32", "[18446744073709551615]", "[0,4]", 4), Contains("at least 0"));
  CHECK_THAT(one("F64", "[2000000000000000000]", "[0,4]", 4), Contains("too large"));
  CHECK_THAT(one("F32", "[1,1,1,1,1,1]", "[0,4]", 4), Contains("at most 5 axes"));
  CHECK_THAT(one("F32", "3", "[0,4]", 4), Contains("a list as shape"));
  CHECK_THAT(one("F32", "[1]", "[0,8]", 4), Contains("within the 4 bytes"));
  CHECK_THAT(one("F32", "[1]", "[4,0]", 4), Contains("within the 4 bytes"));
  CHECK_THAT(one("F32", "[1]", "[0]", 4), Contains("two data_offsets"));
  CHECK_THAT(one("F32", "[2]", "[0,4]", 4), Contains("expected 8 bytes for F32 [2], got 4"));
  CHECK_THAT(one("F32", "[1]", "[4,8]", 8), Contains("leaves a gap"));
  const std::string a = entry("a", "F32", "[2]", "[0,8]");
  CHECK_THAT(error_of(file_of("{" + a + "," + entry("b", "F32", "[2]", "[4,12]") + "}", 12)),
             Contains("tensor \"b\": overlaps"));
  CHECK_THAT(error_of(file_of("{" + a + "," + a + "}", 8)), Contains("given twice"));
  const std::string line_end = entry("a\\nb", "F99", "[2]", "[0,8]");
  CHECK_THAT(error_of(file_of("{" + line_end + "}", 8)), !Contains("\n"));
}

TEST_CASE("every cut of a safetensors file is an error") {
  const TemporaryFolder folder;
  write_safetensors(folder / "a", sample());
  const std::string whole = read_file(folder / "a");
  for (size_t length = 0; length < whole.size(); ++length) {
    CHECK_THROWS_AS(parse(whole.substr(0, length)), Error);
  }
  CHECK_NOTHROW(parse(whole));
}

TEST_CASE("safetensors that cannot be read or written name the file") {
  const TemporaryFolder folder;
  CHECK_THROWS_WITH(read_safetensors(folder / "absent"), Contains("absent"));
  CHECK_THROWS_WITH(read_safetensors(folder.path()), Contains("expected a regular file"));
  CHECK_THROWS_WITH(write_safetensors(folder / "no/a", {}), Contains("no/a"));
  const Tensor x = Tensor::of({1}, std::vector<float>{1});
  const std::vector<NamedTensor> twice = {{"x", x}, {"x", x}}, undefined = {{"x", Tensor()}};
  CHECK_THROWS_AS(write_safetensors(folder / "a", twice), Error);
  CHECK_THROWS_AS(write_safetensors(folder / "a", undefined), Error);
  CHECK(std::filesystem::is_empty(folder.path()));
}

TEST_CASE("a full disk leaves the old safetensors file and nothing else") {
  const TemporaryFolder folder;
  write_safetensors(folder / "a", sample());
  const std::string before = read_file(folder / "a");
  const std::vector<NamedTensor> large = {{"w", Tensor::zeros({100000}, DType::F32)}};
  {
    const FullDisk full(50000);
    CHECK_THROWS_AS(write_safetensors(folder / "a", large), Error);
  }
  CHECK(read_file(folder / "a") == before);
  CHECK(entries(folder) == 1);
  CHECK_NOTHROW(write_safetensors(folder / "a", large));
}

}  // namespace regla
