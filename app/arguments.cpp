#include "app/arguments.h"

#include <algorithm>

#include "app/options.h"
#include "core/numbers.h"
#include "storage/json_fields.h"

namespace regla::app {
namespace {

bool is_option(const std::string& word) { return word.size() > 2 && word.starts_with("--"); }

/// `--set` takes what looks like key=value; `runs/lr=0.1` is a path.
bool is_assignment(const std::string& word) {
  const size_t equals = word.find('=');
  return equals != word.npos && equals > 0 &&
         std::all_of(word.begin(), word.begin() + static_cast<std::ptrdiff_t>(equals), [](char c) {
           return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                  c == '_' || c == '.';
         });
}

/// Whether a word goes on a list of that option's values.
bool goes_on(const CLI::Option& option, const std::string& word) {
  if (option.get_expected_max() <= 1) return false;
  const std::string type = option.get_type_name();
  if (type == "KEY=VALUE") return is_assignment(word);
  if (type == "N" || type == "X") return parse_real(word).has_value();
  return !word.starts_with('-');
}

std::vector<std::string> names_of(const CLI::App& command) {
  std::vector<std::string> names;
  for (const CLI::App* inner : commands_of(command)) names.push_back(inner->get_name());
  return names;
}

std::string listed(const std::vector<std::string>& names) {
  std::string list;
  for (const std::string& name : names) list += (list.empty() ? "" : ", ") + name;
  return list;
}

class Arguments {
 public:
  Arguments(const CLI::App& program, const std::vector<std::string>& given)
      : command_(&program), path_(program.get_name()), given_(given) {}

  /// The same arguments with every option and value as words of their own.
  std::vector<std::string> plain() {
    while (next_ < given_.size()) {
      const std::string& word = given_[next_++];
      if (is_option(word)) {
        take_option(word);
      } else if (word == "--") {
        while (next_ < given_.size()) take_operand(given_[next_++]);
      } else if (word.starts_with('-') && word.size() > 1 && !parse_real(word)) {
        take_short(word);
      } else if (!commands_of(*command_).empty()) {
        enter(word);
      } else {
        take_operand(word);
      }
    }
    const bool asks = std::any_of(plain_.begin(), plain_.end(), [](const std::string& word) {
      return word == "-h" || word == "--help" || word == "--version";
    });
    if (!asks && !commands_of(*command_).empty()) {
      fail("expected a command; ", path_, " has ", listed(names_of(*command_)));
    }
    // Behind a mark: none of these is an option, whatever it begins with.
    if (!operands_.empty()) plain_.push_back("--");
    plain_.insert(plain_.end(), operands_.begin(), operands_.end());
    return plain_;
  }

 private:
  const CLI::Option* find(const std::string& name) const {
    const auto found = command_->get_options(
        [&](const CLI::Option* option) { return option->check_lname(name.substr(2)); });
    return found.empty() ? nullptr : found.front();
  }

  void take_option(const std::string& word) {
    const size_t equals = word.find('=');
    const std::string name = word.substr(0, equals);
    const CLI::Option* option = find(name);
    if (option == nullptr) fail_unknown_option(name);
    if (is_flag(*option)) {
      check(equals == word.npos, name, " takes no value, got ", quoted(word.substr(equals + 1)));
      plain_.push_back(name);
      return;
    }
    check(equals != word.npos || next_ < given_.size(), name, " expects a value");
    add(name, equals != word.npos ? word.substr(equals + 1) : given_[next_++]);
    while (next_ < given_.size() && goes_on(*option, given_[next_])) add(name, given_[next_++]);
  }

  void add(const std::string& name, const std::string& value) {
    plain_.push_back(name);
    plain_.push_back(value);
  }

  void take_short(const std::string& word) {
    if (word != "-h") fail_unknown_option(word);
    plain_.push_back(word);
  }

  void enter(const std::string& word) {
    for (const CLI::App* command : commands_of(*command_)) {
      if (command->get_name() != word) continue;
      command_ = command;
      path_ += " " + word;
      plain_.push_back(word);
      return;
    }
    const std::vector<std::string> names = names_of(*command_);
    fail("unknown command ", quoted(word), "; the nearest is ", nearest(word, names), "; ", path_,
         " has ", listed(names));
  }

  void take_operand(const std::string& word) {
    int room = 0;
    for (const CLI::Option* option : command_->get_options({})) {
      if (option->get_positional()) room += option->get_expected_max();
    }
    const auto taken = static_cast<int>(operands_.size());
    check(taken < room, "unexpected argument ", quoted(word), "; ", path_, " --help says what ",
          path_, " takes");
    operands_.push_back(word);
  }

  [[noreturn]] void fail_unknown_option(const std::string& name) const {
    std::vector<std::string> names;
    for (const CLI::Option* option : options_of(*command_)) {
      if (option->nonpositional()) names.push_back("--" + option->get_lnames().front());
    }
    fail("unknown option ", quoted(name), " of ", path_, "; the nearest is ", nearest(name, names));
  }

  const CLI::App* command_;
  std::string path_;
  const std::vector<std::string>& given_;
  size_t next_ = 0;
  std::vector<std::string> plain_, operands_;
};

}  // namespace

void parse_arguments(CLI::App& program, const std::vector<std::string>& arguments) {
  std::vector<std::string> plain = Arguments(program, arguments).plain();
  std::reverse(plain.begin(), plain.end());  // as the parser takes them
  program.parse(std::move(plain));
}

std::vector<const CLI::App*> commands_of(const CLI::App& command) {
  return command.get_subcommands([](const CLI::App*) { return true; });
}

std::vector<const CLI::Option*> options_of(const CLI::App& command) {
  return command.get_options(
      [](const CLI::Option* option) { return !option->get_group().empty(); });
}

}  // namespace regla::app
