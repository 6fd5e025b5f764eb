// A foreign module's part in a model: what stands where blocks would.
#pragma once

#include <string>

#include <ATen/core/Tensor.h>

#include <hemostat/model.h>

namespace hemostat {

// ValueError where the model has none: "hemostat.prepare(drop_layers): it takes blocks, and hemostat sees none in …".
void check_has_blocks(const Model& model, const std::string& operation);

// Logits, or losses where the module has a loss. Tensors that are made on the way may serve autograd later.
at::Tensor run_foreign(const Model& model, const at::Tensor& batch, Observer* observer);

Foreign converted(const Foreign& foreign, std::optional<at::ScalarType> dtype, std::optional<c10::Device> device,
                  std::string_view operation);

// What of a linear's tensors no other linear before it had: tied ones are stored once.
void for_each_stored(const Foreign& foreign,
                     const std::function<void(const std::string& name, const at::Tensor& tensor)>& function);

}  // namespace hemostat
