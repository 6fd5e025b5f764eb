// What is checked of statistics before any work.
#pragma once

#include <hemostat/methods.h>

namespace hemostat {

// ValueError naming `operation` where the method needs, with these options, what the statistics lack; null: no
// statistics.
void check_needs(const MethodSpec& method, const Statistics* statistics, const char* operation);

}  // namespace hemostat
