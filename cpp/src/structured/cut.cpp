#include "structured/cut.h"

#include <algorithm>
#include <map>
#include <utility>

#include <ATen/ops/cholesky_solve.h>
#include <ATen/ops/linalg_cholesky_ex.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include <hemostat/error.h>
#include <hemostat/interrupt.h>

namespace hemostat::structured {
namespace {

constexpr const char* kCut = "hemostat.structured";

at::Tensor picked(const at::Tensor& tensor, int64_t dimension, const at::Tensor& indices) {
  return tensor.defined() ? tensor.index_select(dimension, indices.to(tensor.device())) : at::Tensor();
}

Linear with_rows(const Linear& linear, const at::Tensor& rows) {
  if (!linear.defined()) {
    return linear;
  }
  Linear result = linear.with_weight(picked(linear.dense(), 0, rows), linear.stored_bits);
  result.bias = picked(linear.bias, 0, rows);
  return result;
}

Linear with_columns(const Linear& linear, const at::Tensor& columns) {
  if (!linear.defined()) {
    return linear;
  }
  if (linear.input.rotation.defined()) {
    throw ValueError(
        fmt::format("{}: a linear's input is rotated, so that its features are no heads or channels; "
                    "remove them before the rotation",
                    kCut));
  }
  Linear result = linear.with_weight(picked(linear.dense(), 1, columns), linear.stored_bits);
  result.input.scale = picked(linear.input.scale, 0, columns);
  return result;
}

Norm with_features(const Norm& norm, const at::Tensor& features) {
  Norm result = norm;
  result.weight = picked(norm.weight, 0, features);
  result.bias = picked(norm.bias, 0, features);
  return result;
}

at::Tensor indices(const std::vector<int64_t>& values) { return at::tensor(values, at::kLong); }

// The features of these heads.
at::Tensor features_of(const std::vector<int64_t>& heads, int64_t head_dim) {
  std::vector<int64_t> result;
  result.reserve(heads.size() * head_dim);
  for (const int64_t head : heads) {
    for (int64_t i = 0; i < head_dim; ++i) {
      result.push_back(head * head_dim + i);
    }
  }
  return indices(result);
}

at::Tensor others(const at::Tensor& kept, int64_t count) {
  at::Tensor gone = at::zeros({count}, at::kBool).logical_not();
  gone.index_fill_(0, kept, false);
  return gone.nonzero().squeeze(1);
}

class Compensator {
 public:
  Compensator(const Statistics& statistics, Compensation compensation, double damp)
      : statistics_(statistics), compensation_(compensation), damp_(damp) {}

  // The linear with the kept columns alone, and with what makes up for the others.
  Linear operator()(const Linear& linear, const std::string& name, const at::Tensor& kept) const {
    Linear result = with_columns(linear, kept);
    if (compensation_ == Compensation::none) {
      return result;
    }
    const InputStatistics& own = statistics_.at(name);
    const InputStatistics input = own.count() > 0 ? own : own.alike();
    const at::Tensor weight = linear.dense().to(at::kDouble), gone = others(kept, weight.size(1)).to(weight.device());
    const at::Tensor scale = linear.input.scale.defined() ? linear.input.scale.to(at::kDouble) : at::Tensor();
    const auto scaled = [&](const at::Tensor& x) { return scale.defined() ? x * scale : x; };
    const at::Tensor removed = weight.index_select(1, gone);
    if (compensation_ == Compensation::bias) {
      const at::Tensor mean = scaled(input.mean().to(weight.device(), at::kDouble));
      at::Tensor bias = at::matmul(removed, mean.index_select(0, gone));
      if (linear.bias.defined()) {
        bias = bias + linear.bias;
      }
      result.bias = bias.to(result.weight.scalar_type());
      return result;
    }
    at::Tensor gram = input.gram().to(weight.device(), at::kDouble);
    if (scale.defined()) {
      gram = gram * scale * scale.unsqueeze(1);
    }
    const at::Tensor here = kept.to(weight.device());
    const at::Tensor columns = gram.index_select(1, here);
    at::Tensor among = columns.index_select(0, here).clone();
    among.diagonal().add_(among.diagonal().mean() * damp_ + 1e-30);
    const auto [factor, info] = at::linalg_cholesky_ex(among);
    if (info.item<int>() != 0) {
      throw NumericalError(
          fmt::format("{}: the Gram matrix of {} has no Cholesky factorization with damp = {}", kCut, name, damp_));
    }
    const at::Tensor shares = at::cholesky_solve(columns.index_select(0, gone).t(), factor);
    const at::Tensor taken = weight.index_select(1, here) + at::matmul(removed, shares.t());
    return result.with_weight(taken.to(result.weight.scalar_type()));
  }

 private:
  const Statistics& statistics_;
  Compensation compensation_;
  double damp_;
};

void cut_heads(Attention& attention, const std::vector<int64_t>& heads, const std::string& name,
               const Compensator& compensated) {
  const int64_t group = attention.heads / attention.kv_heads;
  std::map<int64_t, int64_t> counts;
  for (const int64_t head : heads) {
    ++counts[head / group];
  }
  std::vector<int64_t> groups;
  for (const auto& [index, count] : counts) {
    groups.push_back(index);
  }
  const at::Tensor queries = features_of(heads, attention.head_dim), keys = features_of(groups, attention.head_dim);
  attention.o = compensated(attention.o, name, queries);
  attention.q = with_rows(attention.q, queries);
  attention.k = with_rows(attention.k, keys);
  attention.v = with_rows(attention.v, keys);
  if (attention.qk_norm_scope == NormScope::all) {
    attention.q_norm = with_features(attention.q_norm, queries);
    attention.k_norm = with_features(attention.k_norm, keys);
  }
  attention.sink_logits = picked(attention.sink_logits, 0, indices(heads));
  attention.cache.key_min = picked(attention.cache.key_min, 0, indices(groups));
  attention.cache.key_max = picked(attention.cache.key_max, 0, indices(groups));
  attention.heads = static_cast<int64_t>(heads.size());
  attention.kv_heads = static_cast<int64_t>(groups.size());
}

}  // namespace

std::vector<const Mlp*> mlps_of(const Block& block) {
  std::vector<const Mlp*> result;
  for (const Mlp& mlp : block.experts.mlps) {
    result.push_back(&mlp);
  }
  return result.empty() ? std::vector<const Mlp*>{&block.mlp} : result;
}

std::vector<Mlp*> mlps_of(Block& block) {
  std::vector<Mlp*> result;
  for (const Mlp* mlp : mlps_of(std::as_const(block))) {
    result.push_back(const_cast<Mlp*>(mlp));  // of the block, which is not const
  }
  return result;
}

std::string name_in(const Model& model, const Block& block, std::string Naming::* linear) {
  return model.config.names.block + std::to_string(block.origin) + "." + model.config.names.*linear;
}

std::string name_of_o(const Model& model, const Block& block) { return name_in(model, block, &Naming::o); }

std::string name_of_down(const Model& model, const Block& block, size_t mlp) {
  const Naming& names = model.config.names;
  return block.experts.mlps.empty()
             ? name_in(model, block, &Naming::down)
             : name_in(model, block, &Naming::expert) + std::to_string(mlp) + "." + names.expert_down;
}

Model cut(const Model& model, const std::vector<Kept>& kept, const Statistics& statistics, Compensation compensation,
          double damp) {
  const Compensator compensated(statistics, compensation, damp);
  Model result = model;
  for (size_t i = 0; i < result.blocks.size(); ++i) {
    check_interrupt();
    Block& block = result.blocks[i];
    if (static_cast<int64_t>(kept[i].heads.size()) < block.attention.heads) {
      cut_heads(block.attention, kept[i].heads, name_of_o(model, block), compensated);
    }
    const std::vector<Mlp*> mlps = mlps_of(block);
    for (size_t j = 0; j < mlps.size(); ++j) {
      Mlp& mlp = *mlps[j];
      if (static_cast<int64_t>(kept[i].channels[j].size()) < mlp.up.out_features()) {
        const at::Tensor channels = indices(kept[i].channels[j]);
        mlp.down = compensated(mlp.down, name_of_down(model, block, j), channels);
        mlp.gate = with_rows(mlp.gate, channels);
        mlp.up = with_rows(mlp.up, channels);
      }
    }
  }
  return result;
}

Model cut_residual(const Model& model, const at::Tensor& kept) {
  Model result = model;
  result.config.hidden_size = kept.size(0);
  const bool tied = model.tied();
  result.embedding = picked(model.embedding, 1, kept);
  result.position_embedding = picked(model.position_embedding, 1, kept);
  for (Block& block : result.blocks) {
    check_interrupt();
    for (Norm* norm : {&block.attention_norm, &block.mlp_norm, &block.attention_output_norm, &block.mlp_output_norm}) {
      *norm = with_features(*norm, kept);
    }
    for (at::Tensor* shortcut : {&block.attention_shortcut, &block.mlp_shortcut}) {
      *shortcut = picked(picked(*shortcut, 0, kept), 1, kept);
    }
    for (Linear* linear : {&block.attention.q, &block.attention.k, &block.attention.v, &block.experts.router}) {
      *linear = with_columns(*linear, kept);
    }
    block.attention.o = with_rows(block.attention.o, kept);
    for (Mlp* mlp : mlps_of(block)) {
      mlp->gate = with_columns(mlp->gate, kept);
      mlp->up = with_columns(mlp->up, kept);
      mlp->down = with_rows(mlp->down, kept);
    }
  }
  result.final_norm = with_features(result.final_norm, kept);
  result.head.linear = with_columns(model.head.linear, kept);
  if (tied) {
    result.head.linear.weight = result.embedding;
  }
  return result;
}

}  // namespace hemostat::structured
