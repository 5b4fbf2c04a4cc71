// What has to happen before the constructors of shared libraries run. Compiled for the base
// architecture, see core/instructions.h.
#include "app/start.h"

#include <unistd.h>

#include "core/instructions.h"

namespace regla::app {
namespace {

/// A build for another processor would die of an illegal instruction as soon as it initialises its
/// globals.
void require_instructions() {
  const uint64_t missing =
      instructions_named(kBuiltFor) & ~available_instructions(processor_flags());
  if (missing == 0) return;
  const auto print = [](const char* text) {
    size_t length = 0;
    while (text[length] != 0) ++length;
    return ::write(STDERR_FILENO, text, length) >= 0;
  };
  char names[600];
  name_instructions(missing, names, sizeof names);
  print("regla: error: this build uses instructions that this processor does not have (");
  print(names);
  print("); build it on this machine, or with the preset portable\n");
  ::_exit(1);
}

#ifdef __ELF__

bool is_named(const char* variable, const char* name) {
  while (*name != 0 && *variable == *name) ++variable, ++name;
  return *name == 0 && *variable == '=';
}

char** borrowed = nullptr;
char* value_there = nullptr;

/// Threads of libgomp spin for a long time while they wait, and on a machine with other work they
/// starve each other: training ran at a tenth of its speed. A short spin costs nothing when the
/// machine is idle. libgomp reads the setting in its constructor, from the array that the system
/// passes, which has no room for one more: so the setting takes the place of a variable that no
/// constructor reads. Where there is none of these the program is only slower.
void limit_spinning(char** environment) {
  static char setting[] = "GOMP_SPINCOUNT=10000";
  constexpr const char* kUnread[] = {"_",    "SHLVL", "OLDPWD", "PWD",  "LOGNAME",
                                     "USER", "SHELL", "TERM",   "HOME", "PATH"};
  for (char** variable = environment; *variable != nullptr; ++variable) {
    if (is_named(*variable, "OMP_WAIT_POLICY") || is_named(*variable, "GOMP_SPINCOUNT")) return;
  }
  for (const char* name : kUnread) {
    for (char** variable = environment; *variable != nullptr; ++variable) {
      if (!is_named(*variable, name)) continue;
      borrowed = variable;
      value_there = *variable;
      *variable = setting;
      return;
    }
  }
}

void start(int, char**, char** environment) {
  require_instructions();
  limit_spinning(environment);
}

__attribute__((section(".preinit_array"), used)) void (*const entry)(int, char**, char**) = start;

#endif

}  // namespace

void end_start() {
#ifdef __ELF__
  if (borrowed != nullptr) *borrowed = value_there;
  borrowed = nullptr;
#endif
}

}  // namespace regla::app
