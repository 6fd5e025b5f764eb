// The severity axis of a method (room `threshold`): what its points are measured along.
#pragma once

#include <string>
#include <vector>

namespace hemostat {

enum class AxisKind { continuous, integer, listed };
enum class Measure { teacher_forcing, generation };

// The one severity axis of a method.
struct Axis {
  std::string name = {}, unit = {};  // "sparsity", "fraction"
  double neutral = 0;                // severity at which the model comes back unchanged
  double minimum = 0, maximum = 1;   // what at() takes, beside neutral
  double farthest = 1;               // the severity at distance 1
  AxisKind kind = AxisKind::continuous;
  double step = 0;  // of a continuous axis: severities are rounded to neutral + k · step (1/L); 0: none
  std::vector<double> default_grid = {};  // from mild to severe, without neutral; of a listed axis: what at() takes
  bool continuous_at_neutral = true;      // false: damage jumps there, and fits leave the neutral point out
  Measure measured_by = Measure::teacher_forcing;

  // −1: damage grows as the severity falls (bits); +1: as it rises.
  int direction() const { return farthest < neutral ? -1 : 1; }

  // |severity − neutral| / |farthest − neutral|: 0 at neutral, 1 at farthest. ValueError for NaN and infinities, also
  // of the inverse.
  double distance(double severity) const;
  double severity_at(double distance) const;

  // What at() takes, in words: "0 … 1", "8, 4 or 16".
  std::string range() const;

  // The severity itself, rounded to the axis's step; ValueError naming `method`, the axis and its range where it is not
  // finite, out of range, or between two integers or two listed values.
  double checked(double severity, const std::string& method) const;
};

}  // namespace hemostat
