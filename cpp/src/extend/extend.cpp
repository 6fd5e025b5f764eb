#include <hemostat/extend.h>

#include <map>
#include <utility>

#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include <hemostat/error.h>

namespace hemostat::extend {
namespace {

void check_count(const char* operation, const Model& model, int64_t count) {
  const auto layers = static_cast<int64_t>(model.blocks.size());
  if (count < 0 || count > layers) {
    throw ValueError(fmt::format("{}: count is {}, but a model of {} layers can take 0 … {} more", operation, count,
                                 layers, layers));
  }
}

// Zero tensors by shape: the inserted blocks share them.
class Zeros {
 public:
  explicit Zeros(const Model& model) : options_(at::TensorOptions().dtype(model.dtype()).device(model.device())) {}

  Linear like(const Linear& linear) {
    Linear zero = linear.with_weight(of({linear.out_features(), linear.in_features()}));
    if (zero.bias.defined()) {
      zero.bias = of(zero.bias.sizes().vec());
    }
    return zero;
  }

 private:
  const at::Tensor& of(const std::vector<int64_t>& sizes) {
    at::Tensor& zeros = tensors_[sizes];
    if (!zeros.defined()) {
      zeros = at::zeros(sizes, options_);
    }
    return zeros;
  }

  at::TensorOptions options_;
  std::map<std::vector<int64_t>, at::Tensor> tensors_;
};

// Whether the block gives what it is given, once its sublayers' last projections are zero.
bool passes_on(const Block& block) {
  const auto keeps_zero = [](const Norm& norm) { return norm.kind == NormKind::none || !norm.bias.defined(); };
  return block.placement == NormPlacement::pre && keeps_zero(block.attention_output_norm) &&
         keeps_zero(block.mlp_output_norm) && block.attention_residual && block.mlp_residual;
}

}  // namespace

Model duplicate_layers(const Model& model, const ExtendOptions& options) {
  check_count("hemostat.extend.duplicate_layers", model, options.count);
  const auto layers = static_cast<int64_t>(model.blocks.size());
  const int64_t first = (layers - options.count) / 2;
  Model result = model;
  result.blocks.clear();
  for (int64_t layer = 0; layer < layers; ++layer) {
    result.blocks.push_back(model.blocks[layer]);
    if (layer >= first && layer < first + options.count) {
      result.blocks.push_back(model.blocks[layer]);
    }
  }
  return result;
}

Model insert_identity(const Model& model, const ExtendOptions& options) {
  constexpr const char* kOperation = "hemostat.extend.insert_identity";
  check_count(kOperation, model, options.count);
  const auto layers = static_cast<int64_t>(model.blocks.size());
  Zeros zeros(model);
  Model result = model;
  result.blocks.clear();
  int64_t inserted = 0;
  for (int64_t layer = 0; layer < layers; ++layer) {
    result.blocks.push_back(model.blocks[layer]);
    // The layers fall into `count` groups of nearly equal size; each is followed by a copy of its last.
    if ((layer + 1) * options.count < (inserted + 1) * layers) {
      continue;
    }
    ++inserted;
    Block block = model.blocks[layer];
    if (!passes_on(block)) {
      throw ValueError(
          fmt::format("{}: layer {} has a norm on its residual stream, one with a bias on what it adds, or no residual "
                      "connection, so that zero "
                      "projections would not preserve the function",
                      kOperation, layer));
    }
    block.attention.o = zeros.like(block.attention.o);
    if (block.mlp.down.defined()) {
      block.mlp.down = zeros.like(block.mlp.down);
    }
    for (Mlp& expert : block.experts.mlps) {
      expert.down = zeros.like(expert.down);
    }
    result.blocks.push_back(std::move(block));
  }
  return result;
}

}  // namespace hemostat::extend
