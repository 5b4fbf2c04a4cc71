#include "core/kernel_scope.h"

#include <atomic>
#include <utility>

#include "core/check.h"
#include "core/memory.h"

namespace regla {
namespace {

// Of all threads together: a kernel's own threads ask for addresses too.
std::atomic<int> open_scopes = 0;

StrayRead& stray_read_listener() {
  static StrayRead listener;
  return listener;
}

}  // namespace

KernelScope::KernelScope(Device device) : device_(device) {
  if (device_.is_cpu()) return;
  memory(device_).enter_kernel();
  ++open_scopes;
}

KernelScope::~KernelScope() {
  if (device_.is_cpu()) return;
  --open_scopes;
  memory(device_).leave_kernel();
}

bool KernelScope::is_open() { return open_scopes > 0; }

StrayReads::StrayReads(StrayRead listener)
    : outer_(std::exchange(stray_read_listener(), std::move(listener))) {}
StrayReads::~StrayReads() { stray_read_listener() = std::move(outer_); }

void report_stray_read(const std::string& what, CodeLocation where) {
  if (const StrayRead& listener = stray_read_listener()) return listener(what, where);
  fail("[tensor] ", what, " is read on the host, at ", where.file, ":", where.line);
}

}  // namespace regla
