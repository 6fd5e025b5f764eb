// The bindings' own precompiled header: the library's, and torch's conversions between Python and C++ tensors.
#pragma once

#include "../cpp/src/precompiled.h"

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <torch/csrc/utils/pybind.h>
