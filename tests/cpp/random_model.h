// A small LLaMA-like model with random weights, for tests: vocabulary 97, hidden size 32, 4 heads over 2 key heads.
#pragma once

#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

#include <hemostat/model.h>

namespace hemostat::testing {

struct RandomModelOptions {
  int64_t layers = 3;
  int64_t vocab = 97;
  at::ScalarType dtype = at::kFloat;
  uint64_t seed = 0;
};

inline Model random_model(const RandomModelOptions& options = {}) {
  constexpr int64_t kHidden = 32, kHeads = 4, kKeyHeads = 2, kHeadDim = 8, kInner = 64;
  at::Generator generator = at::detail::createCPUGenerator(options.seed);
  const auto random = [&](at::IntArrayRef sizes, double scale) {
    return (at::randn(sizes, generator, at::kFloat) * scale).to(options.dtype);
  };
  const auto linear = [&](int64_t out, int64_t in) {
    Linear result;
    result.weight = random({out, in}, 1 / std::sqrt(static_cast<double>(in)));
    return result;
  };
  const auto norm = [&] {
    Norm result;
    result.kind = NormKind::rms;
    result.weight = (1 + random({kHidden}, 0.1)).to(options.dtype);
    return result;
  };

  Model model;
  model.config.family = "llama";
  model.config.vocab_size = options.vocab;
  model.config.hidden_size = kHidden;
  model.config.context = 128;
  model.embedding = random({options.vocab, kHidden}, 1);
  for (int64_t layer = 0; layer < options.layers; ++layer) {
    Block block;
    block.attention_norm = norm();
    block.mlp_norm = norm();
    block.attention.q = linear(kHeads * kHeadDim, kHidden);
    block.attention.k = linear(kKeyHeads * kHeadDim, kHidden);
    block.attention.v = linear(kKeyHeads * kHeadDim, kHidden);
    block.attention.o = linear(kHidden, kHeads * kHeadDim);
    block.attention.heads = kHeads;
    block.attention.kv_heads = kKeyHeads;
    block.attention.head_dim = kHeadDim;
    block.attention.rope.inverse_frequencies =
        at::pow(10000.0, -at::arange(0, kHeadDim, 2, at::kFloat) / static_cast<double>(kHeadDim));
    block.mlp.gate = linear(kInner, kHidden);
    block.mlp.up = linear(kInner, kHidden);
    block.mlp.down = linear(kHidden, kInner);
    block.origin = layer;
    model.blocks.push_back(block);
  }
  model.final_norm = norm();
  model.head.linear = linear(options.vocab, kHidden);
  return model;
}

// int64 [windows, length]
inline at::Tensor random_tokens(int64_t windows, int64_t length, uint64_t seed = 1, int64_t vocab = 97) {
  at::Generator generator = at::detail::createCPUGenerator(seed);
  return at::randint(0, vocab, {windows, length}, generator, at::kLong);
}

// Every linear's weight with Gaussian noise of this many standard deviations.
inline Model noised(const Model& model, double sigma, uint64_t seed = 7) {
  at::Generator generator = at::detail::createCPUGenerator(seed);
  return map_linears(model, {}, [&](const std::string&, const Linear& linear) {
    const at::Tensor weight = linear.dense().to(at::kFloat);
    const at::Tensor noise = at::randn(weight.sizes(), generator, at::kFloat);
    return linear.with_weight((weight + sigma * weight.std() * noise).to(model.dtype()));
  });
}

inline std::vector<int64_t> origins(const Model& model) {
  std::vector<int64_t> result;
  for (const Block& block : model.blocks) {
    result.push_back(block.origin);
  }
  return result;
}

// The message of what `call` throws, empty where it throws nothing.
template <typename Exception, typename Call>
std::string message_of(const Call& call) {
  try {
    call();
  } catch (const Exception& error) {
    return error.what();
  }
  return "";
}

}  // namespace hemostat::testing
