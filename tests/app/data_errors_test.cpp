#include <sys/stat.h>

#include <nlohmann/json.hpp>

#include "tests/app/support.h"

// What people give as text and tokenizers: read rightly, or refused in one line that helps.
namespace regla::test {
namespace {

namespace fs = std::filesystem;

std::string utf16(const std::string& ascii) {
  std::string out = "\xFF\xFE";
  for (const char c : ascii) out += {c, '\0'};
  return out;
}

std::string crlf(const std::string& text) {
  std::string out;
  for (const char c : text) out += c == '\n' ? std::string("\r\n") : std::string(1, c);
  return out;
}

std::vector<std::string> training_on(const Workshop& shop, const std::string& data) {
  return {"train",   "--config", shop / "config.json", "--data", data, "--out", shop / "run",
          "--steps", "0"};
}

}  // namespace

TEST_CASE("text that is not UTF-8, and files packed otherwise, are refused with a command") {
  const Workshop shop;
  const std::string train = shop / "data/t.train.txt", plain = shop / "data/t.train.plain.txt";
  for (const auto& [bytes, command] : std::vector<std::pair<std::string, std::string>>{
           {utf16("some text\n"), "iconv -f UTF-16 -t UTF-8 < " + train + " > " + plain},
           {"BZh91AY&SY\x27", "bunzip2 < " + train + " > " + plain},
           {"\x28\xB5\x2F\xFD\x24", "unzstd < " + train + " > " + plain},
           {"PK\x03\x04", "unzip " + train}}) {
    write_file(train, bytes);
    CHECK_THAT(refused(training_on(shop, shop / "data")), Contains(command));
    CHECK_THAT(refused(training_on(shop, train)), Contains(command));
    CHECK_THAT(
        refused({"tokenizer", "train", "--data", shop / "data", "--out", shop / "tokenizer.json"}),
        Contains(command));
  }
  CHECK_FALSE(fs::exists(shop / "run"));
}

TEST_CASE("the command in a message makes text that can be used") {
  const Workshop shop;
  const std::string wide = shop / "wide book.txt";
  std::string text;
  for (int line = 0; line < 300; ++line)
    text += "a line of words, number " + std::to_string(line) + "\n";
  write_file(wide, utf16(text));
  const std::string error = refused(training_on(shop, wide));
  const size_t command = error.find("iconv");
  REQUIRE(command != std::string::npos);
  REQUIRE(Process({"/bin/sh", "-c", error.substr(command)}).wait().code == 0);
  CHECK(read_file(shop / "wide book.plain.txt") == text);
  CHECK(regla(training_on(shop, shop / "wide book.plain.txt")).code == 0);
}

TEST_CASE("pipes, devices and links to nothing are refused at once") {
  const Workshop shop;
  const std::string pipe = shop / "pipe", link = shop / "data/t.valid.txt";
  REQUIRE(::mkfifo(pipe.c_str(), 0600) == 0);
  CHECK_THAT(refused(training_on(shop, pipe)), Contains("pipe, a pipe; write its text to a file"));
  CHECK_THAT(refused(training_on(shop, "/dev/zero")), Contains("/dev/zero, a device"));
  fs::remove(link);
  fs::create_symlink("nowhere", link);
  CHECK_THAT(refused(training_on(shop, shop / "data")), Contains(link + ", a link to nothing"));
  fs::remove(link);
  fs::rename(pipe, link);
  CHECK_THAT(refused(training_on(shop, shop / "data")), Contains(link + ", a pipe"));
  CHECK_FALSE(fs::exists(shop / "run"));
}

TEST_CASE("line ends of DOS change neither documents nor words") {
  const Workshop shop;
  const std::string test = shop / "data/t.test.txt", text = read_file(test);
  REQUIRE(regla(shop.train("run", {"--steps", "0"})).code == 0);
  const auto result = [&] {
    const Outcome outcome = regla({"eval", shop / "run", "--data", shop / "data", "--json"});
    REQUIRE(outcome.code == 0);
    return nlohmann::json::parse(outcome.out);
  };
  const auto before = result();
  write_file(test, crlf(text));
  const auto after = result();
  const auto lines = before["line_ends"].get<int64_t>();
  CHECK(after["line_ends"] == lines);
  CHECK(after["words"] == before["words"]);
  CHECK(after["bytes"] == before["bytes"].get<int64_t>() + lines);
  // One token a byte and one a document, so there are as many documents.
  CHECK(after["tokens"] == before["tokens"].get<int64_t>() + lines);
  CHECK(before["tokens"].get<int64_t>() - before["bytes"].get<int64_t>() == 3);
}

TEST_CASE("a tokenizer that would be followed by halves is refused by name") {
  const Workshop shop;
  REQUIRE(regla(shop.train("run", {"--steps", "0"})).code == 0);
  const auto good = nlohmann::json::parse(read_file(shop / "run/tokenizer.json"));
  const auto with = [&](const char* key, const nlohmann::json& value) {
    auto changed = good;
    changed[key] = value;
    write_file(shop / "other.json", changed.dump());
    return refused(
        {"tokenizer", "encode", "--tokenizer", shop / "other.json", "--text", "some text"});
  };
  const nlohmann::json ends = {"<|endoftext|>", 256};
  CHECK_THAT(with("post_processor", {{"type", "RobertaProcessing"}, {"sep", ends}, {"cls", ends}}),
             Contains("post_processor that adds no tokens, got \"RobertaProcessing\""));
  CHECK_THAT(with("truncation", {{"max_length", 2}}), Contains("truncation"));
  CHECK_THAT(with("padding", {{"strategy", "BatchLongest"}}), Contains("padding"));
}

}  // namespace regla::test
