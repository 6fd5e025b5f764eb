// What prepare and compose check before any work.
#pragma once

#include <hemostat/methods.h>

namespace hemostat {

// ValueError where the method needs statistics with these options, and there are none.
void check_given(const MethodSpec& method, const Statistics* statistics);

}  // namespace hemostat
