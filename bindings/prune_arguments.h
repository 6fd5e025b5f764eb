// What the files that bind room prune share.
#pragma once

#include <string>

#include <fmt/format.h>
#include <pybind11/pybind11.h>

#include <hemostat/error.h>
#include <hemostat/prune.h>

namespace hemostat::bindings {

// Called by register_prune, for the operators of prune_scores.cpp.
void register_prune_scores(pybind11::module_& room);

inline prune::Scope scope_of(const char* operation, const std::string& name) {
  if (name == "row") {
    return prune::Scope::row;
  }
  if (name == "tensor") {
    return prune::Scope::tensor;
  }
  throw ValueError(
      fmt::format("hemostat.prune.{}: scope is \"{}\", but must be \"tensor\" or \"row\"", operation, name));
}

}  // namespace hemostat::bindings
