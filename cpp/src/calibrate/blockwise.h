// What is checked of a calibration block by block before any work.
#pragma once

#include <string>

#include <hemostat/calibrate.h>

namespace hemostat {

// ValueError naming `operation` for numbers out of range.
void check_blockwise(const std::string& operation, int64_t batch, double correct, double correct_damp);

}  // namespace hemostat
