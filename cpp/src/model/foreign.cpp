#include "foreign.h"

#include <set>
#include <utility>

#include <ATen/core/grad_mode.h>
#include <c10/core/InferenceMode.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <hemostat/error.h>

#include "cast.h"
#include "treated_input.h"

namespace hemostat {

bool ForeignLinear::changed() const {
  return !linear.weight.is_same(own.weight) || !linear.bias.is_same(own.bias) ||
         !same_treatment(linear.input, own.input);
}

void check_has_blocks(const Model& model, const std::string& operation) {
  if (model.foreign) {
    throw ValueError(
        fmt::format("{}: it takes a model's blocks, and hemostat sees none in {}, whose forward is its own", operation,
                    model.foreign.module->name()));
  }
}

at::Tensor run_foreign(const Model& model, const at::Tensor& batch, Observer* observer) {
  const Foreign& foreign = model.foreign;
  // A module may keep what it computes (rotations, caches) and need it for gradients the next time.
  const bool graph = at::GradMode::is_enabled() && !c10::InferenceMode::is_enabled();
  const c10::InferenceMode off(false);
  const at::AutoGradMode grad_mode(graph);
  at::Tensor result = foreign.module->run(foreign, batch, observer);
  const std::string& name = foreign.module->name();
  if (!result.defined() || !result.is_floating_point()) {
    throw TypeError(fmt::format("hemostat.Model.forward: {} gives no floating tensor", name));
  }
  if (foreign.has_loss()) {
    if (result.dim() != 1 || result.size(0) != batch.size(0)) {
      throw ValueError(
          fmt::format("hemostat.Model.forward: the loss of {} has shape [{}], but the batch has {} samples", name,
                      fmt::join(result.sizes(), ", "), batch.size(0)));
    }
    return result;
  }
  if (result.dim() != 3 || result.size(0) != batch.size(0) || result.size(1) != batch.size(1) ||
      result.size(2) != model.config.vocab_size) {
    throw ValueError(fmt::format(
        "hemostat.Model.forward: {} gives [{}], but logits of tokens [{}, {}] and a vocabulary of {} are [{}, {}, {}]",
        name, fmt::join(result.sizes(), ", "), batch.size(0), batch.size(1), model.config.vocab_size, batch.size(0),
        batch.size(1), model.config.vocab_size));
  }
  return result;
}

Foreign converted(const Foreign& foreign, std::optional<at::ScalarType> dtype, std::optional<c10::Device> device,
                  std::string_view operation) {
  Foreign result = foreign.module->converted(dtype, device);
  for (size_t i = 0; i < foreign.linears.size(); ++i) {
    const ForeignLinear& given = foreign.linears[i];
    if (!given.changed()) {
      continue;
    }
    ForeignLinear& target = result.linears.at(i);
    const auto moved = [&](at::Tensor tensor) {
      if (tensor.defined() && dtype) {
        tensor = cast(tensor, *dtype, fmt::format("{}: {}", operation, given.name));
      }
      return tensor.defined() && device ? tensor.to(*device) : tensor;
    };
    target.linear = given.linear;
    for (at::Tensor Linear::* part : {&Linear::weight, &Linear::a, &Linear::b, &Linear::bias}) {
      target.linear.*part = moved(given.linear.*part);
    }
    for (at::Tensor LinearInput::* part : {&LinearInput::scale, &LinearInput::rotation}) {
      target.linear.input.*part = moved(given.linear.input.*part);
    }
    if (target.linear.packed && device) {
      target.linear.packed = target.linear.packed->to(*device);
    }
  }
  return result;
}

void for_each_stored(const Foreign& foreign,
                     const std::function<void(const std::string& name, const at::Tensor& tensor)>& function) {
  std::set<std::pair<const void*, int64_t>> seen;
  const auto visit = [&](const std::string& name, const at::Tensor& tensor) {
    if (tensor.defined() && (tensor.numel() == 0 || seen.insert({tensor.const_data_ptr(), tensor.numel()}).second)) {
      function(name, tensor);
    }
  };
  for (const auto& [name, tensor] : foreign.others) {
    visit(name, tensor);
  }
  for (const ForeignLinear& entry : foreign.linears) {
    visit(entry.name + ".weight", entry.linear.weight);
    visit(entry.name + ".a", entry.linear.a);
    visit(entry.name + ".b", entry.linear.b);
    visit(entry.name + ".bias", entry.linear.bias);
  }
}

}  // namespace hemostat
