#include "finite.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>
#include <utility>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/isfinite.h>
#include <ATen/ops/isinf.h>
#include <ATen/ops/isnan.h>
#include <ATen/ops/nan_to_num.h>
#include <c10/core/InferenceMode.h>
#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>
#include <fmt/format.h>

#include <hemostat/error.h>

#include "common/arguments.h"
#include "foreign.h"
#include "tensor_slots.h"

namespace hemostat {
namespace {

std::string entries_text(int64_t nan, int64_t infinite) {
  const auto counted = [](int64_t count, const char* kind) {
    return count == 0 ? std::string() : fmt::format("{} {} {}", count, kind, count == 1 ? "entry" : "entries");
  };
  const std::string first = counted(nan, "NaN"), second = counted(infinite, "infinite");
  return fmt::format("{}{}{}", first, first.empty() || second.empty() ? "" : " and ", second);
}

std::optional<NonFinite> of_tensor(const std::string& name, const at::Tensor& tensor) {
  if (arguments::all_finite(tensor)) {
    return std::nullopt;
  }
  const Extent extent = extent_of(tensor);
  return NonFinite{.place = NonFinite::Place::tensor,
                   .name = name,
                   .nan = extent.nan,
                   .infinite = extent.infinite,
                   .dtype = tensor.scalar_type()};
}

// The first stored tensor whose name, within the part that `part` begins, `chosen` takes.
template <typename Chosen>
std::optional<NonFinite> among_tensors(const Model& model, const std::string& part, const Chosen& chosen) {
  std::optional<NonFinite> found;
  const auto takes = [&](const std::string& name) {
    return !found && name.starts_with(part) && chosen(name.substr(part.size()));
  };
  for_each_stored(model, [&](const std::string& name, const at::Tensor& tensor) {
    if (takes(name)) {
      found = of_tensor(name, tensor);
    }
  });
  Model copy = model;
  for_each_linear(copy, [&](const LinearPlace& place, Linear& linear) {
    if (linear.packed && takes(place.name + ".weight")) {
      found = of_tensor(place.name + ".weight", linear.dense());
    }
  });
  return found;
}

// Looks at what passes through one block after the other, until it finds the first that is not finite.
class Watch : public Observer {
 public:
  explicit Watch(at::ScalarType dtype) : dtype_(dtype) {}

  void linear_input(size_t, const std::vector<std::string>& names, const at::Tensor& x) override {
    if (look(NonFinite::Place::state, "the input of " + names.front(), x, made_ > 0 ? made_ : state_)) {
      given_ = std::exchange(last_, 0);
      made_ = 0;
    }
  }

  void linear_output(size_t, const std::string& name, const at::Tensor& y) override {
    if (look(NonFinite::Place::layer, name, y, given_)) {
      made_ = std::max(made_, std::exchange(last_, 0));
    }
  }

  void hidden_state(size_t index, const at::Tensor& x) override {
    const double before = std::max(made_, state_);
    if (look(NonFinite::Place::state, fmt::format("the residual stream before block {}", index), x, before)) {
      state_ = std::exchange(last_, 0);
      made_ = 0;
    }
  }

  std::optional<NonFinite> found;

 private:
  // Whether all is finite up to here.
  bool look(NonFinite::Place place, const std::string& name, const at::Tensor& x, double largest_input) {
    if (found) {
      return false;
    }
    const Extent extent = extent_of(x);
    last_ = extent.largest;
    if (!extent.finite()) {
      found = NonFinite{.place = place,
                        .name = name,
                        .nan = extent.nan,
                        .infinite = extent.infinite,
                        .dtype = dtype_,
                        .largest_input = largest_input};
    }
    return !found;
  }

  at::ScalarType dtype_;
  // Magnitudes of what the last linears read and have given since, of the last residual stream, and of the last look.
  double given_ = 0, made_ = 0, state_ = 0, last_ = 0;
};

std::optional<NonFinite> in_block(const Model& model, size_t index, const at::Tensor& x, at::Tensor& y) {
  Watch watch(model.dtype());
  y = run_blocks(model, x, index, index + 1, {.observer = &watch});
  if (!watch.found) {
    return std::nullopt;
  }
  // Of the tensors that take part, one may hold it: the layer's own, or what norms and caches are made of.
  const Naming& names = model.config.names;
  Block block = model.blocks[index];
  const std::string named = names.block + std::to_string(block.origin) + ".";
  std::set<std::string> layers;
  for_each_linear(block, names, "", [&](const LinearPlace& place, Linear&) { layers.insert(place.name); });
  const bool layer = watch.found->place == NonFinite::Place::layer;
  std::optional<NonFinite> stored =
      among_tensors(model, names.block + std::to_string(index) + ".", [&](const std::string& name) {
        const std::string owner = name.substr(0, name.rfind('.'));
        return layer ? named + owner == watch.found->name : layers.count(owner) == 0;
      });
  return stored ? stored : watch.found;
}

std::optional<NonFinite> in_foreign(const Model& model, const at::Tensor& batch) {
  if (std::optional<NonFinite> stored = first_nonfinite(model)) {
    return stored;
  }
  Watch watch(model.dtype());
  const Extent extent = extent_of(hidden_states(model, batch, {.observer = &watch}));
  if (watch.found || extent.finite()) {
    return watch.found;
  }
  return NonFinite{.place = NonFinite::Place::state,
                   .name = model.foreign.has_loss() ? "the loss" : "a logit",
                   .nan = extent.nan,
                   .infinite = extent.infinite,
                   .dtype = model.dtype()};
}

std::optional<NonFinite> in_window(const Model& model, const at::Tensor& tokens) {
  if (model.foreign) {
    return in_foreign(model, tokens);
  }
  const Naming& names = model.config.names;
  const auto anything = [](const std::string&) { return true; };
  const auto given = [&](NonFinite::Place place, const std::string& name, const at::Tensor& y,
                         double largest_input) -> std::optional<NonFinite> {
    const Extent extent = extent_of(y);
    if (extent.finite()) {
      return std::nullopt;
    }
    return NonFinite{.place = place,
                     .name = name,
                     .nan = extent.nan,
                     .infinite = extent.infinite,
                     .dtype = model.dtype(),
                     .largest_input = largest_input};
  };

  at::Tensor x = embed(model, tokens);
  if (!extent_of(x).finite()) {
    return of_tensor(names.embedding + ".weight", model.embedding);
  }
  for (size_t index = 0; index < model.blocks.size(); ++index) {
    at::Tensor y;
    if (std::optional<NonFinite> found = in_block(model, index, x, y)) {
      return found;
    }
    x = y;
  }
  const double last = extent_of(x).largest;
  const at::Tensor hidden = apply_norm(model.final_norm, x);
  if (std::optional<NonFinite> found = given(NonFinite::Place::layer, names.final_norm, hidden, last)) {
    std::optional<NonFinite> stored = among_tensors(model, names.final_norm + ".", anything);
    return stored ? stored : found;
  }
  constexpr int64_t kStep = 64;  // tokens, of as many logits each as the vocabulary has
  for (int64_t start = 0; start < hidden.size(1); start += kStep) {
    const at::Tensor part = hidden.narrow(1, start, std::min(kStep, hidden.size(1) - start));
    if (std::optional<NonFinite> found =
            given(NonFinite::Place::layer, names.head, logits(model, part), extent_of(part).largest)) {
      std::optional<NonFinite> stored = among_tensors(model, names.head + ".", anything);
      if (!stored && model.tied()) {
        stored = of_tensor(names.embedding + ".weight", model.embedding);
      }
      return stored ? stored : found;
    }
  }
  return std::nullopt;
}

}  // namespace

Extent extent_of(const at::Tensor& values) {
  if (values.numel() == 0) {
    return {};
  }
  return {.nan = values.isnan().sum().item<int64_t>(),
          .infinite = values.isinf().sum().item<int64_t>(),
          .largest = values.nan_to_num(0.0, 0.0, 0.0).abs().max().item<double>()};
}

double largest_of(at::ScalarType dtype) {
  switch (dtype) {
    case at::kHalf:
      return std::numeric_limits<c10::Half>::max();
    case at::kBFloat16:
      return std::numeric_limits<c10::BFloat16>::max();
    case at::kFloat:
      return std::numeric_limits<float>::max();
    default:
      return std::numeric_limits<double>::max();
  }
}

std::string NonFinite::text() const {
  if (place == Place::tensor) {
    return fmt::format("{} has {}", name, entries_text(nan, infinite));
  }
  std::string text = fmt::format("{} {} {}; {} reaches {:.6g}", name, place == Place::layer ? "gives" : "is",
                                 infinite > 0 ? "Inf" : "NaN", arguments::dtype_name(dtype), largest_of(dtype));
  if (largest_input) {
    text += fmt::format(", and the largest value that goes in is {:.4g}", *largest_input);
  }
  return dtype == at::kHalf ? text + ": try bfloat16 or float32" : text;
}

std::optional<NonFinite> first_nonfinite(const Model& model, const at::Tensor& tokens) {
  const c10::InferenceMode inference;
  const at::Tensor windows = checked_tokens(model, tokens, "hemostat.first_nonfinite");
  for (int64_t window = 0; window < windows.size(0); ++window) {
    if (std::optional<NonFinite> found = in_window(model, windows.narrow(0, window, 1))) {
      return found;
    }
  }
  return std::nullopt;
}

std::optional<NonFinite> first_nonfinite(const Model& model) {
  const at::NoGradGuard no_grad;
  return among_tensors(model, "", [](const std::string&) { return true; });
}

void check_finite_values(const Model& model, const at::Tensor& tokens, const at::Tensor& values,
                         std::string_view subject, int64_t first) {
  if (arguments::all_finite(values)) {
    return;
  }
  const at::Tensor bad = at::isfinite(values).logical_not_().reshape({tokens.size(0), -1}).any(1);
  const auto window = bad.to(at::kInt).argmax().item<int64_t>();
  const std::optional<NonFinite> found = first_nonfinite(model, tokens.narrow(0, window, 1));
  throw NumericalError(
      fmt::format("{} is not finite on window {}{}", subject, first + window + 1, found ? ": " + found->text() : ""));
}

}  // namespace hemostat
