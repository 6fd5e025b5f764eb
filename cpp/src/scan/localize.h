// What scan needs to know of localize beforehand.
#pragma once

#include <string>

#include <hemostat/scan.h>

namespace hemostat {

constexpr const char* kLocalize = "hemostat.localize";

// Why no part of what the method gives can be put into the baseline alone, as far as its kind and axis tell; empty: it
// can.
std::string not_localizable(const Method& method, const Axis& axis);

// The same of the damaged model itself, in words that go on from the baseline.
std::string not_localizable(const Model& baseline, const Model& damaged);

// What the sites' and the whole's damages say: each ΔNLL, and Σ over the sites against the whole.
void add_up(Localization& result);

// Of a foreign module, whose forward is one step: each linear alone, every time from the first layer to the last.
Localization localize_foreign(const Model& baseline, const Model& damaged, const at::Tensor& windows,
                              const LocalizeOptions& options);

}  // namespace hemostat
