// What compare, sweep and scan take as `generation`.
#pragma once

#include <variant>

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <hemostat/metrics.h>

namespace hemostat::bindings {

// False: where the method's axis is measured by generation; True: always; a protocol: always, in this way.
using GenerationArgument = std::variant<bool, GenerationProtocol>;

inline void set_generation(CompareOptions& options, const GenerationArgument& generation) {
  if (const auto* asked = std::get_if<bool>(&generation)) {
    options.generate = *asked;
    return;
  }
  options.generate = true;
  options.generation = std::get<GenerationProtocol>(generation);
}

// The classes that Damage names, and metrics.generation_divergence in the submodule `room`.
void register_generation_damage(pybind11::module_& module, pybind11::module_& room);

}  // namespace hemostat::bindings
