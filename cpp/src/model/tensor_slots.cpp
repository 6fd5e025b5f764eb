#include "tensor_slots.h"

namespace hemostat {
namespace {

using Function = std::function<void(const std::string&, at::Tensor&)>;

void visit(const std::string& name, at::Tensor& slot, const Function& function) {
  if (slot.defined()) {
    function(name, slot);
  }
}

void visit(const std::string& name, Linear& linear, const Function& function) {
  visit(name + ".weight", linear.weight, function);
  visit(name + ".a", linear.a, function);
  visit(name + ".b", linear.b, function);
  visit(name + ".bias", linear.bias, function);
  visit(name + ".input_scale", linear.input.scale, function);
  visit(name + ".input_rotation", linear.input.rotation, function);
}

void visit(const std::string& name, Norm& norm, const Function& function) {
  visit(name + ".weight", norm.weight, function);
  visit(name + ".bias", norm.bias, function);
}

}  // namespace

// What enters attention, its o, the MLP, its down, and the router; then what enters each expert and its down.
enum Input : int64_t { kAttention, kAttended, kMlp, kActivated, kRouter, kExperts };

void for_each_linear(Block& block, const Naming& names, const std::string& prefix,
                     const std::function<void(const LinearPlace&, Linear&)>& function) {
  const auto mlp = [&](Mlp& m, int64_t input, const std::string& gate, const std::string& up, const std::string& down) {
    if (m.gate.defined()) {
      function({gate, Role::gate, input}, m.gate);
    }
    function({up, Role::up, input}, m.up);
    function({down, Role::down, input + 1}, m.down);
  };
  function({prefix + names.q, Role::q, kAttention}, block.attention.q);
  function({prefix + names.k, Role::k, kAttention}, block.attention.k);
  function({prefix + names.v, Role::v, kAttention}, block.attention.v);
  function({prefix + names.o, Role::o, kAttended}, block.attention.o);
  if (block.experts.mlps.empty()) {
    mlp(block.mlp, kMlp, prefix + names.gate, prefix + names.up, prefix + names.down);
    return;
  }
  function({prefix + names.router, Role::router, kRouter}, block.experts.router);
  for (size_t i = 0; i < block.experts.mlps.size(); ++i) {
    const std::string expert = prefix + names.expert + std::to_string(i);
    mlp(block.experts.mlps[i], kExperts + 2 * static_cast<int64_t>(i), expert + ".gate_proj", expert + ".up_proj",
        expert + ".down_proj");
  }
}

int64_t inputs_of(const Block& block) { return kExperts + 2 * static_cast<int64_t>(block.experts.mlps.size()); }

void for_each_tensor(Model& model, const Function& function) {
  const Naming& names = model.config.names;
  visit(names.embedding + ".weight", model.embedding, function);
  for (size_t i = 0; i < model.blocks.size(); ++i) {
    Block& block = model.blocks[i];
    const std::string prefix = names.block + std::to_string(i) + ".";
    for_each_linear(block, names, prefix,
                    [&](const LinearPlace& place, Linear& linear) { visit(place.name, linear, function); });
    visit(prefix + names.attention_norm, block.attention_norm, function);
    visit(prefix + names.mlp_norm, block.mlp_norm, function);
    visit(prefix + "attention_output_norm", block.attention_output_norm, function);
    visit(prefix + "mlp_output_norm", block.mlp_output_norm, function);
    visit(prefix + names.q_norm, block.attention.q_norm, function);
    visit(prefix + names.k_norm, block.attention.k_norm, function);
    visit(prefix + "self_attn.key_min", block.attention.cache.key_min, function);
    visit(prefix + "self_attn.key_max", block.attention.cache.key_max, function);
  }
  visit(names.final_norm, model.final_norm, function);
  visit(names.head, model.head.linear, function);
  visit(names.head + ".map_bias", model.head.map.bias, function);
  visit(names.head + ".map_a", model.head.map.a, function);
  visit(names.head + ".map_b", model.head.map.b, function);
}

}  // namespace hemostat
