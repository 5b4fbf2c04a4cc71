#pragma once

#include "app/command.h"

namespace regla::app {

/// Does what a command says, the words behind the program's name, and returns the exit code. Words
/// that make no sense and whatever goes wrong are exceptions.
int run_command(const std::vector<std::string>& words);

/// From now on a thread of its own takes Ctrl-C, SIGTERM and hang-ups: a training that runs then
/// saves and ends. Before any other thread starts; once more has no effect.
void catch_interrupts();

/// Adds the sub-command that runs others (app/reproduce).
void add_reproduce(CLI::App& program, Action& action);

}  // namespace regla::app
