#pragma once

#include <cstdint>

#include "core/device.h"

namespace regla::test {

/// A device whose kernels are the CPU's and whose memory may be touched by kernels and by Memory
/// alone. Whoever asks for the address of one of its tensors elsewhere gets an Error that names the
/// place; an address that was kept from before lies in closed pages and faults. Installed by the
/// first call.
///
/// Its routines take down every call of a kernel, fill and copy of their first run, and repeat
/// these without running any of the work's code. Marks pass late, two marks later or when they are
/// waited for, as on a device that works beside the host.
Device walled_device();

/// What the walled device was asked for. The kernels that a kernel calls are part of it.
struct WallCounts {
  int64_t kernels = 0, copies = 0, fills = 0, copies_from_host = 0, copies_to_host = 0;
  int64_t copies_beside = 0;  // to the host, which wait for nothing that is still to be done

  bool operator==(const WallCounts&) const = default;
  WallCounts operator-(const WallCounts& before) const;
};

/// The counts since the program began, of what routines did and of everything else.
WallCounts counts_inside_routines();
WallCounts counts_outside_of_routines();

}  // namespace regla::test
