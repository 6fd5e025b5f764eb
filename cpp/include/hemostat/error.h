// What hemostat throws. Every message names the operator, the argument, what it got and what it takes:
//   hemostat.prune.wanda: activation_norm has 512 entries, but weight has 768 input features
#pragma once

#include <stdexcept>
#include <string>

namespace hemostat {

// An argument's value, shape or device is not what the operator takes. Python: ValueError.
class __attribute__((visibility("default"))) ValueError : public std::invalid_argument {
 public:
  using std::invalid_argument::invalid_argument;
};

// A checkpoint's architecture is none of families(). Python: a ValueError.
class __attribute__((visibility("default"))) UnknownFamily : public ValueError {
 public:
  using ValueError::ValueError;
};

// An argument's type or dtype is not what the operator takes. Python: TypeError.
class __attribute__((visibility("default"))) TypeError : public std::invalid_argument {
 public:
  using std::invalid_argument::invalid_argument;
};

// The arithmetic cannot give a result, e.g. a Gram matrix that no damping makes positive definite.
// Python: hemostat.NumericalError, an ArithmeticError.
class __attribute__((visibility("default"))) NumericalError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// A long computation was asked to stop. Python: KeyboardInterrupt.
class __attribute__((visibility("default"))) Interrupted : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

}  // namespace hemostat
