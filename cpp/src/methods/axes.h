// The axes that methods share.
#pragma once

#include <hemostat/methods.h>

namespace hemostat::axes {

Axis sparsity();                         // fraction of weights removed, 0 … 1
Axis kept_of(int64_t m);                 // n of every m kept, neutral m
Axis bits();                             // 2 … 8, fractions are levels between; neutral 16
Axis bits_of_format(double bits);        // the same with this one value, that of a format
Axis sigma();                            // of the weight's own standard deviation, 0 … 1
Axis fraction(const std::string& name);  // 0 … 1

// 0 … most/parts in steps of 1/parts; the default grid goes up to half, in at most 8 points.
Axis fraction_of(const std::string& name, int64_t parts, int64_t most);

// How many of the parts a severity on that axis is.
int64_t parts_at(double severity, int64_t parts);

}  // namespace hemostat::axes
