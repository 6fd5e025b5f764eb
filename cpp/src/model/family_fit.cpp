#include "family_fit.h"

#include "config.h"
#include "skeleton.h"
#include "structure.h"
#include "tensor_slots.h"

namespace hemostat {

Model shapes_only(Model model) {
  for_each_linear(model, [](const LinearPlace&, Linear& linear) {
    if (linear.packed) {
      linear = linear.with_weight(shape_only(linear.packed->sizes()));
    }
  });
  return model;
}

FittedConfig fitted_config(const Model& model) {
  FittedConfig fitted;
  fitted.config = updated_config(model.config, model.blocks, model.tied(), model.dtype());
  fitted.structure = saved_structure(shapes_only(model));
  const auto says_it = [&](const std::string& config) {
    return saved_structure(skeleton(parse_config(config, "config.json"))) == fitted.structure;
  };
  const std::string sized = with_sizes(fitted.config, model);
  fitted.expressible = says_it(sized);
  if (fitted.expressible) {
    fitted.config = sized;
  } else if (sized != fitted.config) {
    fitted.expressible = says_it(fitted.config);
  }
  return fitted;
}

}  // namespace hemostat
