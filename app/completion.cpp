// Completion scripts for shells, written from the same definition that arguments are parsed with.

#include <cstdio>

#include "app/arguments.h"
#include "app/command.h"
#include "app/options.h"
#include "training/configuration.h"

namespace regla::app {
namespace {

struct Command {
  std::string path;  ///< `bench/train/`; empty for the program itself
  const CLI::App* app;
};

std::vector<Command> all_commands(const CLI::App& app, const std::string& path = "") {
  std::vector<Command> commands = {{path, &app}};
  for (const CLI::App* inner : commands_of(app)) {
    const auto below = all_commands(*inner, path + inner->get_name() + "/");
    commands.insert(commands.end(), below.begin(), below.end());
  }
  return commands;
}

std::string spaced(const std::string& list, char separator) {
  std::string words = list;
  for (char& c : words) c = c == separator ? ' ' : c;
  return words;
}

/// The words that an option's value may be, with blanks between them.
std::string words_of(const CLI::Option& option) {
  const std::string type = option.get_type_name();
  if (type.find('|') != type.npos) return spaced(type, '|');
  if (type != "KEY=VALUE") return "";
  std::string keys;
  const auto add = [&](const std::string& key) { keys += (keys.empty() ? "" : " ") + key + "="; };
  const TrainingConfig config;
  fields(config, [&](const char* name, const auto&, const char*) { add(name); });
  fields(config.model.mixer.front(),
         [&](const char* name, const auto&, const char*) { add(std::string("mixer.") + name); });
  return keys;
}

/// Text for a script's quotes: `also` are the characters that need a backslash there.
std::string escaped(const std::string& text, const std::string& also) {
  std::string result;
  for (const char c : text) {
    if (c == '\'') {
      result += "'\\''";
    } else if (also.find(c) != also.npos) {
      result += std::string("\\") + c;
    } else {
      result += c;
    }
  }
  return result;
}

std::string long_name(const CLI::Option& option) { return "--" + option.get_lnames().front(); }

std::string sub_commands(const CLI::App& app) {
  std::string names;
  for (const CLI::App* inner : commands_of(app)) {
    names += (names.empty() ? "" : " ") + inner->get_name();
  }
  return names;
}

/// What bash does for a value: `words`, files or folders.
std::string bash_values(const CLI::Option& option) {
  const std::string type = option.get_type_name(), words = words_of(option);
  if (type == "FILE") return "files -f";
  if (type == "FOLDER") return "files -d";
  if (type == "KEY=VALUE") return "compopt -o nospace; words '" + words + "'";
  return words.empty() ? ":" : "words '" + words + "'";
}

void print_bash(const std::vector<Command>& commands) {
  std::string paths, values, others;
  for (const auto& [path, app] : commands) {
    if (!path.empty()) paths += (paths.empty() ? "" : "|") + path;
    std::string options, operand = ":";
    for (const CLI::Option* option : options_of(*app)) {
      if (option->get_positional()) operand = bash_values(*option);
      if (!option->nonpositional()) continue;
      options += (options.empty() ? "" : " ") + long_name(*option);
      if (is_flag(*option)) continue;
      values += "    '" + path + " " + long_name(*option) + "') " + bash_values(*option) +
                "; return ;;\n";
    }
    const std::string inner = sub_commands(*app);
    if (!inner.empty()) operand = "words '" + inner + "'";
    others += "    '" + path + "') [[ $cur == -* ]] && words '" + options + "' || " +
              (operand.find(';') == operand.npos ? operand : "{ " + operand + "; }") + " ;;\n";
  }
  std::printf(R"(# bash completion for regla
_regla() {
  local cur=${COMP_WORDS[COMP_CWORD]} before=$((COMP_CWORD - 1)) path= i
  words() { mapfile -t COMPREPLY < <(compgen -W "$1" -- "$cur"); }
  files() { compopt -o filenames; mapfile -t COMPREPLY < <(compgen "$1" -- "$cur"); }
  COMPREPLY=()
  for ((i = 1; i < COMP_CWORD; i++)); do
    case $path${COMP_WORDS[i]}/ in
      %s) path+=${COMP_WORDS[i]}/ ;;
    esac
  done
  # --name=value is three words.
  if [[ $cur == = ]]; then cur=; elif [[ ${COMP_WORDS[before]} == = ]]; then ((before--)); fi
  case "$path ${COMP_WORDS[before]}" in
%s  esac
  case $path in
%s  esac
}
complete -F _regla regla
)",
              paths.c_str(), values.c_str(), others.c_str());
}

std::string zsh_values(const CLI::Option& option) {
  const std::string type = option.get_type_name(), words = words_of(option);
  if (type == "FILE") return ":file:_files";
  if (type == "FOLDER") return ":folder:_files -/";
  if (type == "KEY=VALUE") return ":key:{compadd -S \"\" -- " + words + "}";
  return words.empty() ? ":value: " : ":value:(" + words + ")";
}

void print_zsh(const std::vector<Command>& commands) {
  std::printf("#compdef regla\n");
  for (const auto& [path, app] : commands) {
    std::string name = "_regla_" + path;
    for (char& c : name) c = c == '/' ? '_' : c;
    std::printf(
        "%s() {\n  local context state state_descr line\n  typeset -A opt_args\n"
        "  _arguments -C",
        name.c_str());
    for (const CLI::Option* option : options_of(*app)) {
      const std::string help = "[" + escaped(option->get_description(), "[]:\\") + "]";
      const char* again = option->get_expected_max() > 1 ? "*" : "";
      if (option->nonpositional()) {
        std::printf(" \\\n    '%s%s%s%s%s'", again, long_name(*option).c_str(),
                    is_flag(*option) ? "" : "=", help.c_str(),
                    is_flag(*option) ? "" : zsh_values(*option).c_str());
      }
      if (option->get_positional()) {
        std::printf(" \\\n    '%s%s'", *again == 0 ? "1" : "*", zsh_values(*option).c_str());
      }
    }
    const auto inner = commands_of(*app);
    if (!inner.empty()) {
      std::printf(" \\\n    '1:command:((");
      for (const CLI::App* command : inner) {
        std::printf("%s\\:\"%s\" ", command->get_name().c_str(),
                    escaped(command->get_description(), "\"$`\\:").c_str());
      }
      std::printf("))' \\\n    '*::argument:->rest'");
    }
    std::printf("\n");
    if (!inner.empty()) {
      std::printf("  [[ $state == rest ]] || return\n  case $line[1] in\n");
      for (const CLI::App* command : inner) {
        std::printf("    %s) %s%s_ ;;\n", command->get_name().c_str(), name.c_str(),
                    command->get_name().c_str());
      }
      std::printf("  esac\n");
    }
    std::printf("}\n");
  }
  std::printf("_regla_ \"$@\"\n");
}

std::string fish_values(const CLI::Option& option) {
  const std::string type = option.get_type_name(), words = words_of(option);
  if (type == "FILE") return " -r -F";
  if (type == "FOLDER") return " -x -a '(__fish_complete_directories)'";
  return words.empty() ? " -x" : " -x -a '" + words + "'";
}

void print_fish(const std::vector<Command>& commands) {
  std::string paths;
  for (const Command& command : commands) paths += " " + command.path;
  std::printf(R"(# fish completion for regla
function __regla_at # whether the sub-commands so far are these
    set -l path ''
    for word in (commandline -opc)[2..-1]
        if contains -- "$path$word/"%s
            set path "$path$word/"
        end
    end
    test "$path" = "$argv[1]"
end
complete -c regla -f
)",
              paths.c_str());
  for (const auto& [path, app] : commands) {
    const std::string start = "complete -c regla -n '__regla_at \"" + path + "\"'";
    for (const CLI::App* inner : commands_of(*app)) {
      std::printf("%s -a %s -d '%s'\n", start.c_str(), inner->get_name().c_str(),
                  escaped(inner->get_description(), "\\").c_str());
    }
    for (const CLI::Option* option : options_of(*app)) {
      if (option->nonpositional()) {
        std::printf("%s -l %s%s -d '%s'\n", start.c_str(), option->get_lnames().front().c_str(),
                    is_flag(*option) ? "" : fish_values(*option).c_str(),
                    escaped(option->get_description(), "\\").c_str());
      }
      if (option->get_positional()) {
        std::printf("%s%s\n", start.c_str(), fish_values(*option).c_str());
      }
    }
  }
}

}  // namespace

void add_completion(CLI::App& program, Action& action) {
  auto shell = std::make_shared<std::string>();
  CLI::App* command =
      program.add_subcommand("completion", "Print a script that completes commands in a shell");
  add_choice(*command, "shell", *shell, {"bash", "zsh", "fish"}, "the shell")->required();
  command->callback([shell, &program, &action] {
    action = [shell, &program] {
      const auto commands = all_commands(program);
      if (*shell == "bash") print_bash(commands);
      if (*shell == "zsh") print_zsh(commands);
      if (*shell == "fish") print_fish(commands);
      return 0;
    };
  });
}

}  // namespace regla::app
