// A method's options as Python keywords give them.
#pragma once

#include <string>

#include <pybind11/pybind11.h>

#include <hemostat/methods.h>

namespace hemostat::bindings {

// bool, int, float, str or a sequence of str (numbers of NumPy and one-element tensors too). TypeError naming the
// option.
OptionValue option_value(const std::string& name, pybind11::handle value);

// None is an option not given, but group_size=None, which is "per row".
Options options_from(const pybind11::dict& given);

// "rtn:bits=4" and keywords together. TypeError for an option given in both.
MethodSpec spec_from(const std::string& text, const pybind11::dict& options);

}  // namespace hemostat::bindings
