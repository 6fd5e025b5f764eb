#include "consistency.h"

#include <cmath>

#include <ATen/ops/isfinite.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <hemostat/error.h>

namespace hemostat {
namespace {

constexpr int64_t kLargest = int64_t{1} << 31;  // sizes below it multiply without overflow

class Checker {
 public:
  Checker(const Model& model, const std::string& file)
      : model_(model), file_(file), hidden_(model.config.hidden_size), vocabulary_(model.config.vocab_size) {}

  void check() {
    shape("embedding", model_.embedding, {vocabulary_, hidden_});
    require("token_noise_rate", model_.input.rate >= 0 && model_.input.rate <= 1, "is not from 0 to 1");
    for (size_t i = 0; i < model_.blocks.size(); ++i) {
      where_ = fmt::format("block {}: ", i);
      check(model_.blocks[i]);
    }
    where_.clear();
    norm("final_norm", model_.final_norm, hidden_);
    linear("head", model_.head.linear, vocabulary_, hidden_);
    const LogitMap& map = model_.head.map;
    optional_shape("logit_bias", map.bias, {vocabulary_});
    factors("logit", map.a, map.b, vocabulary_, vocabulary_);
    require("temperature", std::isfinite(model_.decoder.temperature) && model_.decoder.temperature > 0,
            "is not positive");
  }

 private:
  void require(const std::string& part, bool fits, const std::string& problem) const {
    if (!fits) {
      throw ValueError(fmt::format("hemostat.Model.load: {}: {}{} {}", file_, where_, part, problem));
    }
  }

  void shape(const std::string& part, const at::Tensor& tensor, at::IntArrayRef sizes) const {
    require(part, tensor.defined(), "is missing");
    require(part, tensor.sizes() == sizes,
            fmt::format("has shape [{}], but must have [{}]", fmt::join(tensor.sizes(), ", "), fmt::join(sizes, ", ")));
  }

  void optional_shape(const std::string& part, const at::Tensor& tensor, at::IntArrayRef sizes) const {
    if (tensor.defined()) {
      shape(part, tensor, sizes);
    }
  }

  // Both or neither; their product is [rows, columns].
  void factors(const std::string& part, const at::Tensor& a, const at::Tensor& b, int64_t rows, int64_t columns) const {
    require(part, a.defined() == b.defined(), "has one factor of two");
    if (a.defined()) {
      require(part + " a", a.dim() == 2, "is not a matrix");
      shape(part + " a", a, {rows, a.size(1)});
      shape(part + " b", b, {a.size(1), columns});
    }
  }

  void linear(const std::string& part, const Linear& linear, int64_t out_features, int64_t in_features) const {
    require(part, linear.weight.defined() != linear.a.defined(), "has not exactly one of weight and factors");
    optional_shape(part, linear.weight, {out_features, in_features});
    factors(part, linear.a, linear.b, out_features, in_features);
    optional_shape(part + " bias", linear.bias, {out_features});
    const LinearInput& input = linear.input;
    optional_shape(part + " input_scale", input.scale, {in_features});
    optional_shape(part + " input_rotation", input.rotation, {in_features, in_features});
    bits(part + " input_bits", input.bits);
    require(part + " input_noise", std::isfinite(input.noise) && input.noise >= 0, "is not 0 or more");
  }

  void bits(const std::string& part, double bits) const {
    require(part, bits >= 16 || (bits >= 2 && bits <= 8), "is neither from 2 to 8 nor 16");
  }

  void norm(const std::string& part, const Norm& norm, int64_t features) const {
    optional_shape(part, norm.weight, {features});
    optional_shape(part + " bias", norm.bias, {features});
  }

  void mlp(const std::string& part, const Mlp& mlp) const {
    require(part + " up", mlp.up.defined(), "is missing");
    const int64_t width = (mlp.up.factored() ? mlp.up.a : mlp.up.weight).dim() == 2 ? mlp.up.out_features() : 0;
    linear(part + " up", mlp.up, width, hidden_);
    if (mlp.gate.defined()) {
      linear(part + " gate", mlp.gate, width, hidden_);
    }
    linear(part + " down", mlp.down, hidden_, width);
  }

  void check(const Block& block) const {
    norm("attention_norm", block.attention_norm, hidden_);
    norm("mlp_norm", block.mlp_norm, hidden_);
    norm("attention_output_norm", block.attention_output_norm, hidden_);
    norm("mlp_output_norm", block.mlp_output_norm, hidden_);
    check(block.attention);
    if (block.experts.mlps.empty()) {
      mlp("mlp", block.mlp);
      return;
    }
    const auto count = static_cast<int64_t>(block.experts.mlps.size());
    linear("router", block.experts.router, count, hidden_);
    require("top_k", block.experts.top_k >= 1 && block.experts.top_k <= count, "is not one to all of the experts");
    require("router temperature", std::isfinite(block.experts.temperature) && block.experts.temperature > 0,
            "is not positive");
    for (const Mlp& expert : block.experts.mlps) {
      mlp("expert", expert);
    }
  }

  void check(const Attention& attention) const {
    const auto counts = [](int64_t n) { return n >= 1 && n <= kLargest; };
    require("heads", counts(attention.heads), "is not a count");
    require("kv_heads", counts(attention.kv_heads) && attention.heads % attention.kv_heads == 0,
            "does not divide heads");
    require("head_dim", counts(attention.head_dim), "is not a count");
    const int64_t queries = attention.heads * attention.head_dim, keys = attention.kv_heads * attention.head_dim;
    linear("q", attention.q, queries, hidden_);
    linear("k", attention.k, keys, hidden_);
    linear("v", attention.v, keys, hidden_);
    linear("o", attention.o, hidden_, queries);
    norm("q_norm", attention.q_norm, attention.head_dim);
    norm("k_norm", attention.k_norm, attention.head_dim);
    const at::Tensor& frequencies = attention.rope.inverse_frequencies;
    if (frequencies.defined()) {
      require("inverse_frequencies", 2 * frequencies.numel() <= attention.head_dim, "are more than half of head_dim");
      require("inverse_frequencies", at::isfinite(frequencies).all().item<bool>(), "are not finite");
    }
    require("scale", std::isfinite(attention.scale), "is not finite");
    require("window", attention.window >= 0 && attention.sinks >= 0, "or sinks is negative");
    const CacheQuantization& cache = attention.cache;
    bits("cache_bits", cache.bits);
    require("cache_key_min", cache.key_min.defined() == cache.key_max.defined(), "is not given with cache_key_max");
    optional_shape("cache_key_min", cache.key_min, {attention.kv_heads, attention.head_dim});
    optional_shape("cache_key_max", cache.key_max, {attention.kv_heads, attention.head_dim});
  }

  const Model& model_;
  const std::string& file_;
  int64_t hidden_, vocabulary_;
  std::string where_;  // "block 3: ", or nothing
};

}  // namespace

void check_consistency(const Model& model, const std::string& file) { Checker(model, file).check(); }

}  // namespace hemostat
