// Needs as their names.
#pragma once

#include <set>
#include <string>

#include <hemostat/statistics.h>

namespace hemostat::bindings {

inline std::set<std::string> names(const std::set<Need>& needs) {
  std::set<std::string> result;
  for (Need need : needs) {
    result.insert(name(need));
  }
  return result;
}

}  // namespace hemostat::bindings
