#include "scan/localize.h"
#include "scan/additivity.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <optional>
#include <utility>
#include <vector>

#include <ATen/ops/linalg_vector_norm.h>
#include <c10/core/InferenceMode.h>
#include <fmt/format.h>

#include <hemostat/error.h>
#include <hemostat/interrupt.h>
#include <hemostat/noise.h>

#include "metrics/comparison.h"
#include "metrics/damage.h"
#include "model/finite.h"
#include "model/heap_trimmer.h"
#include "model/structure.h"
#include "model/tensor_slots.h"
#include "scan/trials.h"

namespace hemostat {
namespace {

struct NamedSlot {
  std::string name;  // within its block
  Linear* linear;
};

std::vector<NamedSlot> linears_of(Block& block, const Naming& names) {
  std::vector<NamedSlot> result;
  for_each_linear(block, names, "",
                  [&](const LinearPlace& place, Linear& linear) { result.push_back({place.name, &linear}); });
  return result;
}

// A site, the model that has this part of the damaged one and is the baseline elsewhere, and what is summed over
// batches.
struct Part {
  LocalizedSite site = {};
  Model model = {};
  std::optional<size_t> first = std::nullopt;  // residual stream that changes first: l + 1 of block l
  bool changed = false;
  double squared_error = 0, squared_error_last = 0;
  std::vector<metrics::TokenDivergence> tokens = {}, control_tokens = {};
};

std::vector<Part> parts_of(Model baseline, Model damaged, bool linears) {
  std::vector<Part> parts;
  const auto add = [&](LocalizedSite site, std::optional<size_t> first, bool changed, const auto& take) {
    parts.push_back({.site = std::move(site), .model = baseline, .first = first, .changed = changed});
    if (changed) {
      take(parts.back().model);
    }
  };

  const Naming& names = baseline.config.names;
  if (!same(baseline.embedding, damaged.embedding)) {
    add({.name = names.embedding}, 0, true, [&](Model& model) { model.embedding = damaged.embedding; });
  }
  for (size_t index = 0; index < baseline.blocks.size(); ++index) {
    Block &ours = baseline.blocks[index], &theirs = damaged.blocks[index];
    const std::string name = names.block + std::to_string(ours.origin);
    const auto block = static_cast<int64_t>(index);
    if (!linears) {
      add({.name = name, .block = block}, index + 1, !same(ours, theirs),
          [&](Model& model) { model.blocks[index] = theirs; });
      continue;
    }
    const std::vector<NamedSlot> of_ours = linears_of(ours, names), of_theirs = linears_of(theirs, names);
    if (of_theirs.size() != of_ours.size()) {
      throw ValueError(fmt::format("{}: block {} has {} linears, but the baseline's has {}: localize whole blocks",
                                   kLocalize, index, of_theirs.size(), of_ours.size()));
    }
    bool changed = false;
    for (size_t i = 0; i < of_ours.size(); ++i) {
      const Linear& linear = *of_theirs[i].linear;
      add({.name = name + "." + of_ours[i].name, .block = block, .linear = of_ours[i].name}, index + 1,
          !same(*of_ours[i].linear, linear),
          [&](Model& model) { *linears_of(model.blocks[index], names)[i].linear = linear; });
      changed |= parts.back().changed;
    }
    if (!changed && !same(ours, theirs)) {
      throw ValueError(
          fmt::format("{}: block {} changed, but none of its linears did: localize whole blocks", kLocalize, index));
    }
  }
  if (!same(baseline.final_norm, damaged.final_norm)) {
    add({.name = names.final_norm}, std::nullopt, true, [&](Model& model) { model.final_norm = damaged.final_norm; });
  }
  if (!same(baseline.head, damaged.head)) {
    add({.name = names.head}, std::nullopt, true, [&](Model& model) { model.head = damaged.head; });
  }
  return parts;
}

double frobenius(const at::Tensor& x) {
  return at::linalg_vector_norm(x, 2, at::OptionalIntArrayRef(), /*keepdim=*/false, at::kDouble).item<double>();
}

double squared_norm(const at::Tensor& x) {
  const double length = frobenius(x);
  return length * length;
}

double squared_error(const at::Tensor& damaged, const at::Tensor& baseline) {
  return squared_norm(damaged.to(at::kFloat) - baseline.to(at::kFloat));
}

// NaN where there is nothing to divide by.
double ratio(double numerator, double denominator) {
  return denominator == 0 ? std::numeric_limits<double>::quiet_NaN() : numerator / denominator;
}

std::optional<double> if_finite(double value) { return std::isfinite(value) ? std::optional(value) : std::nullopt; }

// One batch of windows: the baseline's residual stream, computed once, and what is compared with it.
class Batch {
 public:
  Batch(const Model& baseline, at::Tensor tokens, PairedHeads& heads, double memory_budget)
      : baseline_(baseline), tokens_(std::move(tokens)), heads_(heads) {
    states_.push_back(embed(baseline_, tokens_));
    for (size_t block = 0; block < baseline_.blocks.size(); ++block) {
      states_.push_back(run_blocks(baseline_, states_.back(), block, block + 1, {.observer = &trimmer_}));
    }
    predictions_.targets = targets_of(tokens_);
    predictions_.hidden = predicting_states(apply_norm(baseline_.final_norm, states_.back()));
    const auto entries = static_cast<double>(predictions_.targets.numel()) * static_cast<double>(vocabulary(baseline_));
    if (entries * static_cast<double>(c10::elementSize(baseline_.dtype())) <= memory_budget) {
      predictions_.logits = heads_.baseline_logits(predictions_.hidden);
    }
  }

  const at::Tensor& tokens() const { return tokens_; }

  // The baseline's residual stream before block 0 … L − 1 and after the last.
  const std::vector<at::Tensor>& states() const { return states_; }

  // Of a model that is the baseline before the stream `first`: that stream, and the last. None: no stream changes.
  std::pair<at::Tensor, at::Tensor> states_of(const Model& model, std::optional<size_t> first) const {
    if (!first) {
      return {states_.back(), states_.back()};
    }
    const size_t index = *first;
    const at::Tensor changed =
        index == 0 ? embed(model, tokens_) : run_blocks(model, states_[index - 1], index - 1, index);
    return {changed, run_blocks(model, changed, index, model.blocks.size(), {.observer = &trimmer_})};
  }

  // A model whose last residual stream is `last`; undefined: the baseline with itself.
  metrics::TokenDivergence compare(const Model& model, const at::Tensor& last) {
    if (!last.defined()) {
      return heads_.compare(predictions_, last);
    }
    const at::Tensor hidden = predicting_states(apply_norm(model.final_norm, last));
    if (same(baseline_.head, model.head)) {
      return heads_.compare(predictions_, hidden);
    }
    return PairedHeads(baseline_, model, tokens_.size(1) - 1).compare(predictions_, hidden);
  }

 private:
  const Model& baseline_;
  at::Tensor tokens_;
  PairedHeads& heads_;
  std::vector<at::Tensor> states_;
  mutable HeapTrimmer trimmer_;
  BatchPredictions predictions_;
};

// NumericalError where the baseline is not finite.
void check_baseline(const Model& baseline, const at::Tensor& windows, int64_t batch) {
  const c10::InferenceMode inference;
  HeapTrimmer trimmer;
  for (int64_t first = 0; first < windows.size(0); first += batch) {
    const at::Tensor tokens = windows.narrow(0, first, std::min(batch, windows.size(0) - first));
    const at::Tensor states = hidden_states(baseline, tokens, {.observer = &trimmer});
    check_finite_values(baseline, tokens, baseline.foreign.has_loss() ? states : predicting_states(states), kBaseline,
                        first);
  }
}

}  // namespace

void add_up(Localization& result) {
  double sum = 0, sum_kl = 0;
  for (LocalizedSite& site : result.sites) {
    site.delta_nll = site.damage->delta_nll;
    if (site.control) {
      site.noise_delta_nll = site.control->delta_nll;
    }
    sum += site.delta_nll;
    sum_kl += site.damage->kl.mean;
  }
  result.delta_nll = result.whole->delta_nll;
  result.additivity = additivity(sum, *result.whole);
  result.additivity_kl = if_finite(ratio(sum_kl, result.whole->kl.mean));
}

std::string not_localizable(const Method& method, const Axis& axis) {
  if (properties(method.kind).localizable && axis.measured_by == Measure::teacher_forcing) {
    return "";
  }
  return method.kind == Kind::input
             ? fmt::format("{} changes the tokens that the model reads, not its blocks", method.name)
             : fmt::format("{} changes how tokens are chosen, not the model's blocks", method.name);
}

std::string not_localizable(const Model& baseline, const Model& damaged) {
  if (baseline.foreign && damaged.foreign.linears.size() != baseline.foreign.linears.size()) {
    return "the damaged model is of another module than the baseline";
  }
  const size_t blocks = baseline.blocks.size();
  if (damaged.blocks.size() != blocks) {
    return fmt::format("the damaged model has {} blocks, but the baseline has {}", damaged.blocks.size(), blocks);
  }
  for (size_t block = 0; block < blocks; ++block) {
    if (damaged.blocks[block].origin != baseline.blocks[block].origin) {
      return fmt::format("block {} of the damaged model is the checkpoint's {}, but the baseline's is {}", block,
                         damaged.blocks[block].origin, baseline.blocks[block].origin);
    }
  }
  if (!baseline.foreign &&
      (damaged.embedding.sizes() != baseline.embedding.sizes() || damaged.dtype() != baseline.dtype())) {
    return fmt::format("the damaged model's embedding is [{}, {}] of {}, but the baseline's is [{}, {}] of {}",
                       damaged.embedding.size(0), damaged.embedding.size(1), c10::toString(damaged.dtype()),
                       baseline.embedding.size(0), baseline.embedding.size(1), c10::toString(baseline.dtype()));
  }
  if (damaged.input != baseline.input) {
    return "the damaged model reads other tokens than the baseline";
  }
  if (damaged.decoder != baseline.decoder) {
    return "the damaged model chooses tokens otherwise than the baseline";
  }
  return "";
}

std::optional<Model> isotropic_control(const Model& baseline, const Model& damaged, int64_t seed) {
  const LinearFilter everything{.include = {"*"}, .exclude = {}};
  const std::vector<NamedLinear> changed = linears(damaged, everything);
  if (changed.size() != linears(baseline, everything).size()) {
    return std::nullopt;
  }
  bool noisy = false;
  size_t index = 0;
  Model control = map_linears(baseline, everything, [&](const std::string&, const Linear& linear) {
    const uint64_t direction = (static_cast<uint64_t>(seed) * 0x9e3779b97f4a7c15ULL) + index;
    const Linear& other = *changed[index++].linear;
    if (linear.out_features() != other.out_features() || linear.in_features() != other.in_features() ||
        same(linear, other)) {
      return linear;
    }
    check_interrupt();
    const at::Tensor weight = linear.dense();
    const double norm = frobenius(other.dense().to(at::kFloat) - weight.to(at::kFloat));
    if (!(norm > 0) || !std::isfinite(norm)) {
      return linear;
    }
    noisy = true;
    return linear.with_weight(noise::isotropic(weight, {.norm = norm, .seed = direction, .check_finite = false}));
  });
  return noisy ? std::optional(std::move(control)) : std::nullopt;
}

Localization localize(const Model& baseline, const Model& damaged, const at::Tensor& tokens,
                      const LocalizeOptions& options) {
  const auto start = std::chrono::steady_clock::now();
  const c10::InferenceMode inference;
  const CompareOptions& compare = options.compare;
  check_options(compare, vocabulary(baseline), kLocalize);
  const at::Tensor windows = checked_windows(baseline, tokens, kLocalize);
  check_comparable(baseline, damaged, kLocalize);
  if (const std::string why = not_localizable(baseline, damaged); !why.empty()) {
    throw ValueError(fmt::format("{}: {}; blocks are exchanged one for one", kLocalize, why));
  }
  if (baseline.foreign) {
    return localize_foreign(baseline, damaged, windows, options);
  }
  std::vector<Part> parts = parts_of(baseline, damaged, options.linears);

  const int64_t count = windows.size(0), length = windows.size(1);
  const size_t blocks = baseline.blocks.size();
  const auto changed = std::count_if(parts.begin(), parts.end(), [](const Part& part) { return part.changed; });
  const int64_t total = count * (1 + static_cast<int64_t>(changed));
  int64_t done = 0;
  const auto advance = [&](int64_t by) {
    done += by;
    if (compare.progress) {
      compare.progress(done, total);
    }
  };

  PairedHeads heads(baseline, baseline, length - 1);
  std::vector<metrics::TokenDivergence> whole, unchanged;
  std::vector<double> squares(blocks + 1), squared_errors(blocks + 1);
  for (int64_t first = 0; first < count; first += compare.batch) {
    const int64_t size = std::min(compare.batch, count - first);
    Batch batch(baseline, windows.narrow(0, first, size), heads, compare.memory_budget);
    check_finite_values(baseline, batch.tokens(), predicting_states(batch.states().back()), kBaseline, first);

    at::Tensor state = embed(damaged, batch.tokens());
    for (size_t index = 0; index <= blocks; ++index) {
      if (index > 0) {
        state = run_blocks(damaged, state, index - 1, index);
      }
      squares[index] += squared_norm(batch.states()[index]);
      squared_errors[index] += squared_error(state, batch.states()[index]);
    }
    whole.push_back(batch.compare(damaged, state));
    check_finite_values(baseline, batch.tokens(), whole.back().nll_baseline, kBaseline, first);
    advance(size);
    if (static_cast<size_t>(changed) < parts.size()) {
      unchanged.push_back(batch.compare(baseline, at::Tensor()));
    }

    for (Part& part : parts) {
      if (!part.changed) {
        continue;
      }
      const auto [next, last] = batch.states_of(part.model, part.first);
      if (part.first) {
        part.squared_error += squared_error(next, batch.states()[*part.first]);
        part.squared_error_last += squared_error(last, batch.states().back());
      }
      part.tokens.push_back(batch.compare(part.model, last));
      if (options.control) {
        // Made anew for each batch, at a fraction of its cost: all of them together would take a second model's memory.
        if (const std::optional<Model> control = isotropic_control(baseline, part.model, compare.seed)) {
          part.control_tokens.push_back(batch.compare(*control, batch.states_of(*control, part.first).second));
        }
      }
      advance(size);
    }
  }

  const double unigram = unigram_nll(compare, windows, vocabulary(baseline));
  const auto summary = [&](const std::vector<metrics::TokenDivergence>& batches) {
    return summarize(concatenated(batches), count, unigram, compare);
  };
  Localization result;
  result.severity = std::numeric_limits<double>::quiet_NaN();
  result.whole = summary(whole);
  const std::optional<Damage> none = unchanged.empty() ? std::nullopt : std::optional(summary(unchanged));
  for (Part& part : parts) {
    LocalizedSite& site = part.site;
    site.damage = part.changed ? summary(part.tokens) : *none;
    if (part.first) {
      const double error = std::sqrt(ratio(part.squared_error, squares[*part.first]));
      const double error_last = std::sqrt(ratio(part.squared_error_last, squares.back()));
      site.error = error;
      site.cascade_gain = if_finite(ratio(error_last, error));
    }
    if (!part.control_tokens.empty()) {
      site.control = summary(part.control_tokens);
    }
    result.sites.push_back(std::move(site));
  }
  add_up(result);
  for (size_t index = 0; index <= blocks; ++index) {
    result.layer_error.push_back(std::sqrt(ratio(squared_errors[index], squares[index])));
    if (index > 0) {
      result.cascade_gain.push_back(ratio(result.layer_error[index], result.layer_error[index - 1]));
    }
  }
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return result;
}

Localization localize(const Model& model, const MethodSpec& method, const at::Tensor& tokens, double severity,
                      const Statistics* statistics, const LocalizeOptions& options) {
  const auto start = std::chrono::steady_clock::now();
  const Axis axis = planned_axis(model, method);
  const double checked = axis.checked(severity, method.method);
  if (const std::string why = not_localizable(find_method(method.method), axis); !why.empty()) {
    throw ValueError(fmt::format("{}: {}", kLocalize, why));
  }
  check_needs(method, statistics, kLocalize);
  check_options(options.compare, vocabulary(model), kLocalize);
  const at::Tensor windows = checked_windows(model, tokens, kLocalize);
  const Model damaged = [&] {
    const auto judge = [&] { check_baseline(model, windows, options.compare.batch); };  // it may be to blame
    try {
      return prepare(model, method.method, statistics, method.options).at(checked);
    } catch (const ValueError&) {
      judge();
      throw;
    } catch (const NumericalError&) {
      judge();
      throw;
    }
  }();
  Localization result = localize(model, damaged, tokens, options);
  result.method = method.text();
  result.severity = checked;
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return result;
}

}  // namespace hemostat
