#pragma once

namespace regla::app {

/// Gives back what the program's start, which runs before the constructors of libraries, changed in
/// the environment for them. Call it first in main.
void end_start();

}  // namespace regla::app
