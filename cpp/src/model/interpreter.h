// The interpreter of blocks, whole or in the steps between which their weights may change.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>

#include <ATen/core/Tensor.h>

#include <hemostat/model.h>

namespace hemostat {

// One pass over blocks, of the same tokens' positions throughout. The model outlives it, and may change between calls.
class Interpreter {
 public:
  Interpreter(const Model& model, int64_t length, const ForwardOptions& options = {});

  // The residual stream x [B, T, H] as it is before block `first` → as it is after block last − 1.
  at::Tensor run(at::Tensor x, size_t first, size_t last);

  // A block in steps: what its linears read, each computed from what came before, and the residual stream after each
  // sublayer. A sublayer that is skipped leaves the stream as it is: see Block::skip_attention and skip_mlp.
  //   attention_input  of q, k and v    [B, T, H]
  //   attended         of o             [B, T, heads · head_dim], from attention_input
  //   mlp_input        of gate, up, router [B, T, H]
  //   activated        of down          [B, T, intermediate], from mlp_input; of a block without experts
  // In a parallel block mlp_input reads the stream as it is before the attention.
  at::Tensor attention_input(size_t block, const at::Tensor& x);
  at::Tensor attended(size_t block, const at::Tensor& attention_input);
  at::Tensor after_attention(size_t block, const at::Tensor& x, const at::Tensor& attended);
  at::Tensor mlp_input(size_t block, const at::Tensor& x);
  at::Tensor activated(size_t block, const at::Tensor& mlp_input);
  at::Tensor after_mlp(size_t block, const at::Tensor& x, const at::Tensor& activated);
  // Of a block with experts: what they add, from mlp_input.
  at::Tensor routed(size_t block, const at::Tensor& mlp_input);
  at::Tensor after_experts(size_t block, const at::Tensor& x, const at::Tensor& routed);

 private:
  struct Sublayer;
  const Block& enter(size_t block);
  at::Tensor run_block(size_t block, at::Tensor x);
  at::Tensor add(const Sublayer& sublayer, const at::Tensor& x, const at::Tensor& y);

  template <size_t n>
  std::array<at::Tensor, n> inputs(const std::array<std::pair<const Linear*, const std::string*>, n>& linears,
                                   const at::Tensor& x, const at::Tensor& positions);
  at::Tensor output(const Linear& linear, const std::string& name, const at::Tensor& x);
  at::Tensor heads(const Linear& linear, const std::string& name, const at::Tensor& x, int64_t count,
                   const Attention& attention, const Norm& norm);
  at::Tensor explicit_attention(const Attention& attention, const at::Tensor& q, const at::Tensor& k,
                                const at::Tensor& v, const std::optional<at::Tensor>& visible, double scale);
  std::optional<at::Tensor> mask(int64_t window, int64_t sinks);
  at::Tensor rotated(const Rope& rope, const at::Tensor& x);
  const std::pair<at::Tensor, at::Tensor>& rotation(const Rope& rope, at::ScalarType dtype);

  at::Tensor frequencies(const Rope& rope) const;

  struct MlpNames {
    std::string gate, up, down;
  };
  MlpNames dense_names() const;
  MlpNames expert_names(int64_t expert) const;
  at::Tensor gated(const Mlp& mlp, const MlpNames& names, const at::Tensor& x, const at::Tensor& positions);
  at::Tensor projected(const Linear& linear, const std::string& name, const at::Tensor& x, const at::Tensor& positions);

  const Model& model_;
  KvCache* cache_;
  Observer* observer_;
  int64_t length_, past_;
  size_t block_ = 0;
  std::string prefix_;
  at::Tensor positions_;
  std::map<std::pair<int64_t, int64_t>, at::Tensor> masks_;
  std::map<std::pair<const void*, double>, std::pair<at::Tensor, at::Tensor>> rotations_;  // by frequencies and scale
};

}  // namespace hemostat
