// Damage as a dict and back: one list of its fields.
#pragma once

#include <optional>
#include <utility>

#include <pybind11/pybind11.h>

#include <hemostat/metrics.h>

namespace hemostat::bindings {

struct DamageDictOptions {
  bool windows = false;  // each window's means and each prompt's first divergence too
  bool finite = true;    // None for NaN and infinity
};

// (low, high), or None where there is no interval.
inline std::optional<std::pair<double, double>> ends(const std::optional<Interval>& interval) {
  return interval ? std::optional(std::pair(interval->low, interval->high)) : std::nullopt;
}

pybind11::dict damage_to_dict(const Damage& damage, const DamageDictOptions& options = {});

pybind11::dict generation_to_dict(const GenerationDamage& damage, const DamageDictOptions& options = {});

// None is NaN. ValueError for a missing field, other than the windows' means, generation, and what earlier versions did
// not store.
Damage damage_from_dict(const pybind11::dict& fields);

}  // namespace hemostat::bindings
