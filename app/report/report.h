#pragma once

#include <string>
#include <vector>

#include "app/report/run_record.h"

namespace regla::app {

/// Writes a report on runs as one HTML file. Errors: a folder that holds no run, a file that cannot
/// be written, gnuplot not installed.
void write_report_page(const std::vector<std::string>& runs, const SampleRequest& request,
                       Device device, const std::string& file, NamedBy named_by);

}  // namespace regla::app
