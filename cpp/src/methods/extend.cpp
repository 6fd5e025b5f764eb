#include <hemostat/extend.h>

#include "axes.h"
#include "catalogue.h"

namespace hemostat {
namespace {

Axis added_layers(const Model& model, const Options&) {
  const auto layers = static_cast<int64_t>(model.blocks.size());
  return axes::fraction_of("layers added", layers, layers);
}

using Extension = Model (*)(const Model&, const extend::ExtendOptions&);

// A method whose severity is the number of blocks added, as a fraction of those there were.
Method extension(const std::string& name, const std::string& description, Extension extend) {
  const auto check = [extend](const Model& model, const Options&) {
    extend(model, {.count = model.blocks.empty() ? 0 : 1});  // of which blocks there are, one tells
  };
  const auto change = [extend](const Model& model, const Held&, const Options&, double severity) {
    return extend(model, {.count = axes::parts_at(severity, static_cast<int64_t>(model.blocks.size()))});
  };
  return {.name = name,
          .kind = Kind::architecture,
          .description = description,
          .axis = axes::fraction("layers added"),
          .needs = {},
          .options = {},
          .change = OnModel{.change = change},
          .axis_for = added_layers,
          .check = check};
}

}  // namespace

std::vector<Method> extend_methods() {
  return {
      extension("duplicate_layers", "repeats the middle blocks in place", extend::duplicate_layers),
      extension("insert_identity", "inserts blocks that add nothing, evenly spaced", extend::insert_identity),
  };
}

}  // namespace hemostat
