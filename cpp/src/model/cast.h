// Models and tensors in another dtype, where it holds them.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include <ATen/core/Tensor.h>

#include <hemostat/model.h>

namespace hemostat {

// ValueError that begins with `subject`, "hemostat.Model.to: model.norm.weight", where the dtype makes finite entries
// infinite, or all of those that are not 0 into 0. Entries that are NaN or infinite already stay so.
at::Tensor cast(const at::Tensor& tensor, at::ScalarType dtype, const std::string& subject);

// Model::to for `operation`.
Model converted(const Model& model, std::optional<at::ScalarType> dtype, std::optional<c10::Device> device,
                std::string_view operation);

}  // namespace hemostat
