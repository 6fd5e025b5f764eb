// A method's options as Python keywords give them.
#pragma once

#include <string>

#include <pybind11/pybind11.h>

#include <hemostat/methods.h>

namespace hemostat::bindings {

// bool, a number (NumPy's and one-element tensors too), str, or a sequence of str or of int. TypeError naming the
// option.
OptionValue option_value(const std::string& name, pybind11::handle value);

// "rtn:bits=4" and keywords together. None is an option not given, but group_size=None, which is "per row". TypeError
// for an option given in both.
MethodSpec spec_from(const std::string& text, const pybind11::dict& keywords);

// The options for JSON: numbers are numbers, also where an option that takes a word too (group_size) holds them as
// text.
pybind11::dict options_to_dict(const MethodSpec& spec);

}  // namespace hemostat::bindings
