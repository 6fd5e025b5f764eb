// Between the tensors of a family's checkpoints and the model's own: what is stored together, transposed or under
// another name is taken apart on the way in, and put together on the way out, as the family's table says.
#pragma once

#include <map>
#include <string>

#include <hemostat/model.h>

namespace hemostat {

using NamedTensors = std::map<std::string, at::Tensor>;

// `model` gives the shapes. Views where they can be. Of what the table does not name nothing changes. ValueError,
// `where` naming the origin, for a tensor that cannot be taken apart so.
NamedTensors taken_apart(NamedTensors stored, const Model& model, const std::string& where);

// The reverse, for a model whose parts have all that a stored tensor holds.
NamedTensors put_together(NamedTensors tensors, const Model& model);

}  // namespace hemostat
