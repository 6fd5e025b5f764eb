#include <utility>

#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/embedding.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/scalar_tensor.h>
#include <ATen/ops/where.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <hemostat/error.h>
#include <hemostat/model.h>

#include "common/token_hash.h"
#include "foreign.h"
#include "interpreter.h"
#include "softcap.h"

namespace hemostat {
namespace {

// The tokens as the model reads them, and which of their embeddings are zero (undefined: none).
std::pair<at::Tensor, at::Tensor> perturbed_tokens(const Model& model, const at::Tensor& tokens, KvCache* cache) {
  const InputPerturbation& input = model.input;
  if (input.kind == TokenNoise::none || input.rate <= 0) {
    return {tokens, {}};
  }
  const int64_t past = cache != nullptr ? cache->length() : 0;
  const at::Tensor positions = at::arange(past, past + tokens.size(1), tokens.options());
  const at::Tensor before = past > 0 ? cache->last_token() : tokens.narrow(1, 0, 1);  // the first token precedes itself
  const at::Tensor previous = at::cat({before, tokens.narrow(1, 0, tokens.size(1) - 1)}, 1);
  const at::Tensor hashed = hash(input.seed, {positions, tokens, previous});
  const at::Tensor falls = unit_interval(hashed).lt(input.rate);
  switch (input.kind) {
    case TokenNoise::replace:
      return {at::where(falls, below(hash(input.seed + 1, {hashed}), model.config.vocab_size), tokens), {}};
    case TokenNoise::swap:
      return {at::where(falls, previous, tokens), {}};
    default:
      return {tokens, falls};
  }
}

// The rows of the learned positions [T, H].
at::Tensor positions_of(const Model& model, int64_t length, const KvCache* cache) {
  const int64_t past = cache != nullptr ? cache->length() : 0;
  const int64_t known = model.position_embedding.size(0) - model.position_offset;
  if (past + length > known) {
    throw ValueError(
        fmt::format("hemostat.Model.forward: the model has positions for {} tokens, got {}", known, past + length));
  }
  return model.position_embedding.narrow(0, model.position_offset + past, length);
}

// Samples for a module with a loss, whatever they are.
at::Tensor checked_batch(const Model& model, const at::Tensor& batch, const char* operation) {
  if (!batch.defined() || batch.dim() < 1 || batch.numel() == 0) {
    throw ValueError(fmt::format("{}: tokens must be a tensor of samples, its first dimension theirs", operation));
  }
  if (batch.device() != model.device()) {
    throw ValueError(fmt::format("{}: tokens are on {}, but the model is on {}", operation, batch.device().str(),
                                 model.device().str()));
  }
  return batch;
}

at::Tensor foreign_states(const Model& model, const at::Tensor& batch, const ForwardOptions& options) {
  if (options.cache != nullptr) {
    throw ValueError(fmt::format("hemostat.Model.forward: {} has a cache of its own, so it takes none",
                                 model.foreign.module->name()));
  }
  if (model.foreign.has_loss()) {
    return run_foreign(model, batch, options.observer);
  }
  const auto [read, dropped] = perturbed_tokens(model, batch, nullptr);
  if (dropped.defined()) {
    throw ValueError("hemostat.Model.forward: a foreign module's embeddings cannot be dropped; replace or swap tokens");
  }
  return run_foreign(model, read, options.observer);
}

}  // namespace

at::Tensor checked_tokens(const Model& model, const at::Tensor& tokens, const char* operation) {
  if (model.foreign.has_loss()) {
    return checked_batch(model, tokens, operation);
  }
  if (!tokens.defined() || !c10::isIntegralType(tokens.scalar_type(), /*includeBool=*/false)) {
    throw TypeError(fmt::format("{}: tokens must be an integer tensor, got {}", operation,
                                tokens.defined() ? c10::toString(tokens.scalar_type()) : "none"));
  }
  if (tokens.dim() < 1 || tokens.dim() > 2 || tokens.numel() == 0) {
    throw ValueError(fmt::format("{}: tokens must be [windows, length] with at least one token, got shape [{}]",
                                 operation, fmt::join(tokens.sizes(), ", ")));
  }
  if (tokens.device() != model.device()) {
    throw ValueError(fmt::format("{}: tokens are on {}, but the model is on {}", operation, tokens.device().str(),
                                 model.device().str()));
  }
  const int64_t low = tokens.min().item<int64_t>(), high = tokens.max().item<int64_t>();
  if (low < 0 || high >= model.config.vocab_size) {
    throw ValueError(fmt::format("{}: tokens have the ID {}, but the vocabulary takes 0 … {}", operation,
                                 low < 0 ? low : high, model.config.vocab_size - 1));
  }
  const at::Tensor result = tokens.to(at::kLong);
  return result.dim() == 1 ? result.unsqueeze(0) : result;
}

at::Tensor embed(const Model& model, const at::Tensor& tokens, KvCache* cache) {
  check_has_blocks(model, "hemostat.embed");
  const auto [read, dropped] = perturbed_tokens(model, tokens, cache);
  const int64_t padding = model.config.padding_row.value_or(-1);
  at::Tensor x = at::embedding(model.embedding, read, padding < model.embedding.size(0) ? padding : -1);
  if (model.embedding_scale != 1) {
    x = x * at::scalar_tensor(model.embedding_scale, x.options());
  }
  if (dropped.defined()) {
    x = x.masked_fill(dropped.unsqueeze(-1), 0);
  }
  return model.position_embedding.defined() ? x + positions_of(model, tokens.size(1), cache) : x;
}

at::Tensor run_blocks(const Model& model, const at::Tensor& x, size_t first, size_t last,
                      const ForwardOptions& options) {
  check_has_blocks(model, "hemostat.run_blocks");
  if (first > last || last > model.blocks.size()) {
    throw ValueError(
        fmt::format("hemostat.run_blocks: blocks are {} … {}, but the model has {}", first, last, model.blocks.size()));
  }
  return Interpreter(model, x.size(1), options).run(x, first, last);
}

at::Tensor hidden_states(const Model& model, const at::Tensor& tokens, const ForwardOptions& options) {
  const at::Tensor checked = checked_tokens(model, tokens, "hemostat.Model.forward");
  if (model.foreign) {
    return foreign_states(model, checked, options);
  }
  const at::Tensor x = run_blocks(model, embed(model, checked, options.cache), 0, model.blocks.size(), options);
  if (options.cache != nullptr) {
    options.cache->advance(checked);
  }
  return apply_norm(model.final_norm, x);
}

at::Tensor logits(const Model& model, const at::Tensor& hidden) {
  at::Tensor y = hidden;
  if (!model.foreign) {
    const at::Tensor positions =
        at::arange(hidden.size(-2), at::TensorOptions().dtype(at::kLong).device(hidden.device()));
    y = apply_linear(model.head.linear, hidden, positions);
  }
  if (model.head.scale != 1) {
    y = y * model.head.scale;
  }
  if (model.head.softcap > 0) {
    y = softcapped(y, model.head.softcap);
  }
  const LogitMap& map = model.head.map;
  if (map.a.defined()) {
    const at::Tensor low_rank = at::matmul(at::matmul(y, map.b.t()), map.a.t());
    y = (map.scale == 1 ? y : y * map.scale) + low_rank;
  } else if (map.scale != 1) {
    y = y * map.scale;
  }
  return map.bias.defined() ? y + map.bias : y;
}

at::Tensor Model::forward(const at::Tensor& tokens, const ForwardOptions& options) const {
  return logits(*this, hidden_states(*this, tokens, options));
}

}  // namespace hemostat
