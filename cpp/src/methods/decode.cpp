#include <hemostat/methods.h>

#include "axes.h"
#include "catalogue.h"
#include "on_linears.h"

namespace hemostat {
namespace {

// Two sides of a neutral parameter are two axes.
Axis temperature_axis(bool down) {
  Axis axis{.name = "temperature", .unit = "", .neutral = 1, .measured_by = Measure::generation};
  if (down) {
    axis.minimum = 0.05;
    axis.maximum = 1;
    axis.farthest = 0;
    axis.default_grid = {.9, .8, .7, .6, .5, .4, .3, .2};
  } else {
    axis.minimum = 1;
    axis.maximum = axis.farthest = 5;
    axis.default_grid = {1.1, 1.25, 1.5, 1.75, 2, 2.5, 3, 4};
  }
  return axis;
}

Axis side_axis(const Options& options) { return temperature_axis(option<std::string>(options, "side") == "down"); }

Model temperature(const Model& model, const Held&, const Options&, double severity) {
  Model result = model;
  result.decoder.temperature = model.decoder.temperature * severity;
  return result;
}

}  // namespace

std::vector<Method> decode_methods() {
  return {
      {.name = "temperature",
       .kind = Kind::decoding,
       .description = "divides the logits by a temperature before a token is drawn",
       .axis = temperature_axis(false),
       .needs = {},
       .options = {{"side", std::string("up"), "of the neutral temperature 1", {"up", "down"}}},
       .change = OnModel{.change = temperature},
       .axis_for = [](const Model&, const Options& options) { return side_axis(options); }},
  };
}

}  // namespace hemostat
