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
  fitted.expressible = saved_structure(skeleton(parse_config(fitted.config, "config.json"))) == fitted.structure;
  return fitted;
}

}  // namespace hemostat
