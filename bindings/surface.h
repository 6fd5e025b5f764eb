// What register_scan calls between the classes that a surface names and those that name it.
#pragma once

#include <pybind11/pybind11.h>

namespace hemostat::bindings {

void register_surface(pybind11::module_& module);

}  // namespace hemostat::bindings
