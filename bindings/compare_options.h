// What compare, sweep, localize and scan take alike, from Python's arguments.
#pragma once

#include <cstdint>
#include <optional>
#include <variant>

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <hemostat/metrics.h>

#include "callbacks.h"

namespace hemostat::bindings {

// False: where the method's axis is measured by generation; True: always; a protocol: always, in this way.
using GenerationArgument = std::variant<bool, GenerationProtocol>;

inline CompareOptions compare_options(const std::optional<at::Tensor>& unigram, std::optional<int64_t> byte_count,
                                      int64_t batch, double memory_budget, int64_t bootstrap_samples, int64_t seed,
                                      const GenerationArgument& generation, const ProgressFunction& progress = {}) {
  CompareOptions options;
  options.unigram = unigram;
  options.byte_count = byte_count;
  options.batch = batch;
  options.memory_budget = memory_budget;
  options.bootstrap_samples = bootstrap_samples;
  options.seed = seed;
  options.progress = progress_callback(progress);
  if (const auto* asked = std::get_if<bool>(&generation)) {
    options.generate = *asked;
  } else {
    options.generate = true;
    options.generation = std::get<GenerationProtocol>(generation);
  }
  return options;
}

}  // namespace hemostat::bindings
