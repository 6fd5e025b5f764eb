#include "tensor_slots.h"

#include <optional>
#include <vector>

#include <fmt/format.h>

#include "foreign.h"
#include "parts.h"

namespace hemostat {
namespace {

using TensorFunction = std::function<void(const std::string&, at::Tensor&)>;
using LinearFunction = std::function<void(const LinearPlace&, Linear&)>;

std::string prefix_of(const Naming& names, size_t block) { return names.block + std::to_string(block) + "."; }

// The linears of a block, or of one of its experts.
struct Linears {
  const Naming& names;
  const std::string& prefix;
  const LinearFunction& function;
  std::optional<size_t> expert = std::nullopt;

  void operator()(const parts::IsLinear auto& field, Linear& linear) const {
    if (field.optional && !linear.defined()) {
      return;
    }
    if (expert) {
      const int64_t first = parts::kExperts + 2 * static_cast<int64_t>(*expert);
      const std::string& name = names.*field.in_expert;
      function({fmt::format("{}{}{}.{}", prefix, names.expert, *expert, name), field.role,
                first + field.input - parts::kMlp},
               linear);
    } else {
      function({field.place.after(prefix, names), field.role, field.input}, linear);
    }
  }
  void operator()(const parts::IsPart auto&, std::vector<Mlp>& experts) const {
    for (size_t i = 0; i < experts.size(); ++i) {
      parts::visit_used(experts[i], Linears{names, prefix, function, i});
    }
  }
  void operator()(const parts::IsPart auto&, auto& part) const { parts::visit_used(part, *this); }
  void operator()(const auto&, auto&) const {}
};

// The tensors of a part.
struct Tensors {
  const Naming& names;
  const std::string& prefix;
  const TensorFunction& function;
  bool in_block = false;  // whose linears are visited before

  void operator()(const parts::IsTensor auto& field, at::Tensor& slot) const {
    if (slot.defined()) {
      function(field.name_after(prefix, names), slot);
    }
  }
  void operator()(const parts::IsLinear auto& field, Linear& linear) const {
    if (!in_block) {
      under(field.place, linear);
    }
  }
  void operator()(const parts::IsNorm auto& field, Norm& norm) const { under(field.place, norm); }
  void operator()(const parts::IsPart auto&, std::vector<Block>& blocks) const {
    for (size_t i = 0; i < blocks.size(); ++i) {
      const std::string block = prefix_of(names, i);
      for_each_linear(blocks[i], names, block, [&](const LinearPlace& place, Linear& linear) {
        parts::visit_fields(linear, Tensors{names, place.name, function});
      });
      parts::visit_used(blocks[i], Tensors{names, block, function, /*in_block=*/true});
    }
  }
  void operator()(const parts::IsPart auto&, std::vector<Mlp>&) const {}  // linears alone
  void operator()(const parts::IsPart auto&, auto& part) const { parts::visit_used(part, *this); }
  void operator()(const auto&, auto&) const {}

  void under(const parts::Place& place, auto& part) const {
    const std::string name = place.after(prefix, names);
    parts::visit_fields(part, Tensors{names, name, function});
  }
};

struct Constants {
  const TensorFunction& function;

  void operator()(const parts::IsNumbers auto& field, at::Tensor& slot) const {
    if (slot.defined()) {
      function(field.names.name, slot);
    }
  }
  void operator()(const parts::IsPart auto&, auto& part) const {
    parts::for_each_element(part, [&](auto& element) { parts::visit_fields(element, *this); });
  }
  void operator()(const auto&, auto&) const {}
};

}  // namespace

void for_each_linear(Block& block, const Naming& names, const std::string& prefix, const LinearFunction& function) {
  parts::visit_used(block, Linears{names, prefix, function});
}

void for_each_linear(Model& model, const LinearFunction& function) {
  const Naming& names = model.config.names;
  for (size_t i = 0; i < model.blocks.size(); ++i) {
    for_each_linear(model.blocks[i], names, prefix_of(names, i), function);
  }
  parts::visit_fields(model.head, Linears{names, "", function});
  for (ForeignLinear& entry : model.foreign.linears) {
    function({entry.name, entry.output ? Role::head : Role::other, 0}, entry.linear);
  }
}

int64_t inputs_of(const Block& block) { return parts::kExperts + 2 * static_cast<int64_t>(block.experts.mlps.size()); }

void for_each_tensor(Model& model, const TensorFunction& function) {
  parts::visit_used(model, Tensors{model.config.names, "", function});
}

void for_each_stored(const Model& model, const std::function<void(const std::string&, const at::Tensor&)>& function) {
  if (model.foreign) {
    return for_each_stored(model.foreign, function);
  }
  Model copy = model;
  if (copy.tied()) {
    copy.head.linear.weight = at::Tensor();
  }
  for_each_tensor(copy, function);
}

void for_each_constant(Model& model, const TensorFunction& function) {
  parts::visit_fields(model, Constants{function});
}

}  // namespace hemostat
