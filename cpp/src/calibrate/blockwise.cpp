#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <map>
#include <memory>
#include <optional>
#include <utility>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/cholesky_solve.h>
#include <ATen/ops/linalg_cholesky_ex.h>
#include <ATen/ops/matmul.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/InferenceMode.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <hemostat/calibrate.h>
#include <hemostat/error.h>
#include <hemostat/interrupt.h>

#include "calibrate/autocast.h"
#include "calibrate/blockwise.h"
#include "calibrate/input_collector.h"
#include "model/finite.h"
#include "model/heap_trimmer.h"
#include "model/interpreter.h"
#include "model/linears.h"
#include "statistics/products.h"

namespace hemostat {
namespace {

constexpr const char* kOperation = "hemostat.calibrate_blockwise";

enum class Stage { attention, attended, router, mlp, activated, head };

Stage stage_of(Role role) {
  switch (role) {
    case Role::q:
    case Role::k:
    case Role::v:
      return Stage::attention;
    case Role::o:
      return Stage::attended;
    case Role::gate:
    case Role::up:
      return Stage::mlp;
    case Role::down:
      return Stage::activated;
    case Role::router:
      return Stage::router;
    default:
      return Stage::head;
  }
}

int64_t widest_input(const Model& model) {
  int64_t widest = 1;
  for (const Block& block : model.blocks) {
    widest = std::max(widest, block.attention.heads * block.attention.head_dim);
    if (block.experts.mlps.empty()) {
      widest = std::max(widest, block.mlp.down.in_features());
    }
  }
  return widest;
}

// All windows on their way through a model: the residual stream, and what enters o or down.
class Stream {
 public:
  Stream(const Model& model, const at::Tensor& tokens, const BlockwiseOptions& options, MemoryBudget& budget)
      : interpreter(model, tokens.size(1)), model_(model), tokens_(tokens), batch_(options.batch) {
    const int64_t windows = tokens.size(0), length = tokens.size(1);
    states_ = budget.zeros({windows, length, model.config.hidden_size}, model.dtype(), model.device());
    inside_ = budget.zeros({windows * length * widest_input(model)},
                           options.bfloat16_products ? at::kBFloat16 : model.dtype(), model.device());
    for (int64_t i = 0; i < batches(); ++i) {
      check_interrupt();
      set_state(i, embed(model, rows(tokens, i)));
    }
  }

  int64_t batches() const { return (tokens_.size(0) + batch_ - 1) / batch_; }
  at::Tensor tokens(int64_t i) const { return rows(tokens_, i); }
  at::Tensor state(int64_t i) const { return rows(states_, i).to(model_.device()); }
  void set_state(int64_t i, const at::Tensor& x) {
    rows(states_, i).copy_(x);
    trim_heap(x);
  }
  at::Tensor inside(int64_t i) const { return rows(of_width(width_), i).to(model_.device()); }
  at::Tensor set_inside(int64_t i, const at::Tensor& x) {
    width_ = x.size(-1);
    rows(of_width(width_), i).copy_(x);
    return x;
  }

  // Of anything with a row for each window, those of a batch.
  at::Tensor rows(const at::Tensor& all, int64_t i) const {
    const int64_t first = i * batch_;
    return all.narrow(0, first, std::min(batch_, tokens_.size(0) - first));
  }

  Interpreter interpreter;

 private:
  at::Tensor of_width(int64_t width) const {
    return inside_.narrow(0, 0, tokens_.numel() * width).view({tokens_.size(0), tokens_.size(1), width});
  }

  const Model& model_;
  at::Tensor tokens_;
  int64_t batch_, width_ = 1;
  at::Tensor states_, inside_;
};

// What is collected of an input of the changed model, beside the unchanged one's.
struct Collected {
  std::shared_ptr<InputStatistics> input;
  at::Tensor cross;  // Σ (x − x̂)x̂ᵀ, undefined: none

  void add(const at::Tensor& changed, const at::Tensor& unchanged, bool in_bfloat16) {
    const at::Tensor x = changed.flatten(0, -2), added = in_bfloat16 ? x.to(at::kBFloat16) : x;
    input->add(added);
    if (cross.defined() && in_bfloat16) {
      add_products(cross, (unchanged.flatten(0, -2) - x).to(at::kBFloat16), added);
    } else if (cross.defined()) {
      const at::Tensor wide = x.to(at::kFloat);
      add_products(cross, unchanged.flatten(0, -2).to(at::kFloat) - wide, wide);
    }
  }
};

// α · C · (H + λ·mean(diag H)·I)⁻¹
at::Tensor correction(const Collected& collected, const BlockwiseOptions& options, const std::string& name) {
  const c10::Device device = collected.input->device();
  at::Tensor gram = collected.input->gram().to(device);
  const at::Tensor cross = collected.cross.to(device) / static_cast<double>(collected.input->count());
  at::Tensor diagonal = gram.diagonal();
  if (diagonal.max().item<float>() == 0) {  // nothing reaches it
    return at::zeros_like(gram);
  }
  diagonal.add_(options.correct_damp * diagonal.mean());
  const auto [factor, failed] = at::linalg_cholesky_ex(gram);
  if (failed.item<int>() != 0) {
    throw NumericalError(fmt::format("{}: the Gram matrix of '{}' is not positive definite with correct_damp = {}",
                                     kOperation, name, options.correct_damp));
  }
  return at::cholesky_solve(cross.t(), factor).t().mul_(options.correct);
}

class Calibration {
 public:
  Calibration(const Model& model, const at::Tensor& tokens, const BlockwiseOptions& options,
              const std::function<std::vector<Linear>(const SharedInput&)>& change)
      : changed(model), options_(options), change_(change), budget_(options.memory_budget) {
    for_each_chosen(changed, options.filter, [&](const NamedLinear&, Linear& linear) { slots_[&linear] = &linear; });
    sites_ = sites_of(changed, options.filter, options.gradients);
    stream_.emplace(changed, tokens, options, budget_);
    if (options.correct != 0) {
      unchanged_.emplace(model, tokens, options, budget_);
    }
  }

  void run() {
    size_t last = 0;
    bool head = false;
    for (const SharedInput& sites : sites_) {
      head = head || !sites.front().block;
      last = std::max(last, sites.front().block.value_or(changed.blocks.size() - 1) + 1);
    }
    for (size_t block = 0; block < last; ++block) {
      if (changed.blocks[block].parallel) {
        parallel(block);
      } else {
        attention(block);
        mlp(block);
      }
      check_states();
      if (options_.progress) {
        options_.progress(static_cast<int64_t>(block) + 1, static_cast<int64_t>(last));
      }
    }
    if (head) {
      stage(std::nullopt, Stage::head,
            [&](Stream& stream, int64_t i) { return apply_norm(changed.final_norm, stream.state(i)); });
    }
  }

  Model changed;

 private:
  void attention(size_t block) {
    if (changed.blocks[block].skip_attention) {
      replace_unread(block, {Stage::attention, Stage::attended});
    } else {
      sublayer(block, Stage::attention, &Interpreter::attention_input, Stage::attended, &Interpreter::attended,
               &Interpreter::after_attention);
    }
  }

  void mlp(size_t block) {
    const Block& here = changed.blocks[block];
    if (here.skip_mlp) {
      replace_unread(block, {Stage::router, Stage::mlp, Stage::activated});
    } else if (here.experts.mlps.empty()) {
      sublayer(block, Stage::mlp, &Interpreter::mlp_input, Stage::activated, &Interpreter::activated,
               &Interpreter::after_mlp);
    } else {
      experts(block);
    }
  }

  using Step = at::Tensor (Interpreter::*)(size_t block, const at::Tensor& x);
  using LastStep = at::Tensor (Interpreter::*)(size_t block, const at::Tensor& x, const at::Tensor& inside);

  // What the first stage's linears read is `input` of the residual stream, and what the second's do is `inner` of that.
  void stages(size_t block, Stage first, Step input, Stage second, Step inner) {
    const auto read = [=](Stream& stream, int64_t i) { return (stream.interpreter.*input)(block, stream.state(i)); };
    stage(block, first, read);
    stage(block, second, [&](Stream& stream, int64_t i) {
      return stream.set_inside(i, (stream.interpreter.*inner)(block, read(stream, i)));
    });
  }

  void sublayer(size_t block, Stage first, Step input, Stage second, Step inner, LastStep after) {
    stages(block, first, input, second, inner);
    advance([=](Stream& stream, int64_t i) {
      return (stream.interpreter.*after)(block, stream.state(i), stream.inside(i));
    });
  }

  // Both sublayers read the block's input, and the stream moves on once.
  void parallel(size_t block) {
    const Block& here = changed.blocks[block];
    if (!here.experts.mlps.empty()) {
      throw ValueError(
          fmt::format("{}: block {} has a mixture beside its attention, which is not supported", kOperation, block));
    }
    if (here.skip_attention) {
      replace_unread(block, {Stage::attention, Stage::attended});
    } else {
      stages(block, Stage::attention, &Interpreter::attention_input, Stage::attended, &Interpreter::attended);
    }
    if (here.skip_mlp) {
      replace_unread(block, {Stage::router, Stage::mlp, Stage::activated});
    } else {
      stages(block, Stage::mlp, &Interpreter::mlp_input, Stage::activated, &Interpreter::activated);
    }
    advance([block](Stream& stream, int64_t i) { return stream.interpreter.run(stream.state(i), block, block + 1); });
  }

  void experts(size_t block) {
    stage(block, Stage::router,
          [block](Stream& stream, int64_t i) { return stream.interpreter.mlp_input(block, stream.state(i)); });
    experts_stage(block, Stage::mlp);
    experts_stage(block, Stage::activated);
    advance([block](Stream& stream, int64_t i) {
      const at::Tensor x = stream.state(i);
      return stream.interpreter.after_experts(block, x,
                                              stream.interpreter.routed(block, stream.interpreter.mlp_input(block, x)));
    });
  }

  // `read` gives what this stage's linears read, and keeps it where the stream needs it later.
  template <typename Read>
  void stage(std::optional<size_t> block, Stage stage, const Read& read) {
    const std::vector<const SharedInput*> sites = chosen(block, stage);
    const bool kept = stage == Stage::attended || stage == Stage::activated;
    if (sites.empty() && !kept) {
      return;
    }
    MemoryBudget budget(budget_.remaining());
    std::optional<Collected> collected;
    if (!sites.empty()) {
      collected = collected_of(*sites.front(), unchanged_.has_value(), budget);
    }
    const at::Tensor weights = sites.empty() ? at::Tensor() : token_weights(sites.front()->front().name);
    for (int64_t i = 0; i < stream_->batches(); ++i) {
      check_interrupt();
      const auto [x, unchanged] = read_both(read, i);
      if (collected && weights.defined()) {
        const at::Tensor factor = stream_->rows(weights, i).sqrt().unsqueeze(-1);
        collected->add(x * factor, unchanged.defined() ? unchanged * factor : unchanged, options_.bfloat16_products);
      } else if (collected) {
        collected->add(x, unchanged, options_.bfloat16_products);
      }
    }
    for (const SharedInput* shared : sites) {
      replace(*shared, *collected);
    }
  }

  template <typename Read>
  std::pair<at::Tensor, at::Tensor> read_both(const Read& read, int64_t i) {
    const Bfloat16Products products(changed.device().type(), options_.bfloat16_products);
    return {read(*stream_, i), unchanged_ ? read(*unchanged_, i) : at::Tensor()};
  }

  at::Tensor token_weights(const std::string& linear) const {
    const auto found = options_.token_weights.find(linear);
    return found == options_.token_weights.end() ? at::Tensor() : found->second.to(changed.device(), changed.dtype());
  }

  // The experts' linears of a stage together: a pass finds which tokens reach which.
  void experts_stage(size_t block, Stage stage) {
    const std::vector<const SharedInput*> sites = chosen(block, stage);
    if (sites.empty()) {
      return;
    }
    MemoryBudget budget(budget_.remaining());
    std::vector<Collected> collected;
    InputCollector observer;
    for (const SharedInput* shared : sites) {
      collected.push_back(collected_of(*shared, /*cross=*/false, budget));
      observer.inputs[shared->front().name] = collected.back().input;
    }
    Interpreter observed(changed, stream_->tokens(0).size(1), {.observer = &observer});
    for (int64_t i = 0; i < stream_->batches(); ++i) {
      check_interrupt();
      observed.routed(block, observed.mlp_input(block, stream_->state(i)));
    }
    for (size_t i = 0; i < sites.size(); ++i) {
      replace(*sites[i], collected[i]);
    }
  }

  template <typename Next>
  void advance(const Next& next) {
    const Bfloat16Products products(changed.device().type(), options_.bfloat16_products);
    for (int64_t i = 0; i < stream_->batches(); ++i) {
      check_interrupt();
      stream_->set_state(i, next(*stream_, i));
      if (unchanged_) {
        unchanged_->set_state(i, next(*unchanged_, i));
      }
    }
  }

  std::vector<const SharedInput*> chosen(std::optional<size_t> block, Stage stage) const {
    std::vector<const SharedInput*> result;
    for (const SharedInput& sites : sites_) {
      if (sites.front().block == block && stage_of(sites.front().role) == stage) {
        result.push_back(&sites);
      }
    }
    return result;
  }

  Collected collected_of(const SharedInput& sites, bool cross, MemoryBudget& budget) const {
    const int64_t features = sites.front().linear->in_features();
    std::set<Need> needs = options_.needs;
    if (cross) {
      needs.insert(Need::gram);
    }
    Collected result{std::make_shared<InputStatistics>(features, changed.device(), needs, budget), {}};
    if (cross) {
      result.cross = budget.zeros({features, features}, at::kFloat, changed.device());
    }
    return result;
  }

  // What is computed between two residual streams may overflow though these do not.
  void check_finite(const SharedInput& sites, const InputStatistics& input) const {
    for (const Need need : input.needs()) {
      if (!input.finite(need)) {
        throw NumericalError(fmt::format("{}: what reaches '{}' in the changed model is not finite: its {} is not",
                                         kOperation, sites.front().name, name(need)));
      }
    }
  }

  // Linears of a sublayer that is skipped read nothing.
  void replace_unread(size_t block, std::initializer_list<Stage> stages) {
    MemoryBudget budget(budget_.remaining());
    for (const Stage stage : stages) {
      for (const SharedInput* shared : chosen(block, stage)) {
        replace(*shared, collected_of(*shared, /*cross=*/false, budget));
      }
    }
  }

  void replace(SharedInput sites, const Collected& collected) {
    check_finite(sites, *collected.input);
    std::vector<Linear> targets;
    if (collected.cross.defined()) {
      const at::Tensor step = correction(collected, options_, sites.front().name);
      for (const Site& site : sites) {
        const at::Tensor weight = site.linear->dense(), wide = weight.to(at::kFloat);
        targets.push_back(
            site.linear->with_weight((wide + at::matmul(wide, step.to(weight.device()))).to(weight.scalar_type())));
      }
    }
    const SharedInput places = sites;
    for (size_t i = 0; i < sites.size(); ++i) {
      sites[i].input = collected.input.get();
      if (!targets.empty()) {
        sites[i].linear = &targets[i];
      }
    }
    std::vector<Linear> linears = change_(sites);
    for (size_t i = 0; i < places.size(); ++i) {
      *slots_.at(places[i].linear) = std::move(linears.at(i));
    }
  }

  void check_states() {
    for (int64_t i = 0; i < stream_->batches(); ++i) {
      check_finite_values(changed, stream_->tokens(i), stream_->state(i), "hemostat.prepare: the changed model",
                          i * options_.batch);
    }
  }

  const BlockwiseOptions& options_;
  const std::function<std::vector<Linear>(const SharedInput&)>& change_;
  MemoryBudget budget_;
  std::map<const Linear*, Linear*> slots_;
  std::vector<SharedInput> sites_;
  std::optional<Stream> stream_, unchanged_;
};

}  // namespace

void check_blockwise(const std::string& operation, int64_t batch, double correct, double correct_damp) {
  if (batch < 1) {
    throw ValueError(fmt::format("{}: batch must be at least 1, got {}", operation, batch));
  }
  if (!(correct >= 0 && correct <= 1)) {
    throw ValueError(fmt::format("{}: correct is {}, but takes 0 to 1", operation, correct));
  }
  if (!(correct_damp > 0) || !std::isfinite(correct_damp)) {
    throw ValueError(fmt::format("{}: correct_damp is {}, but must be positive and finite", operation, correct_damp));
  }
}

Model calibrate_blockwise(const Model& model, const at::Tensor& tokens, const BlockwiseOptions& options,
                          const std::function<std::vector<Linear>(const SharedInput& sites)>& change) {
  const at::Tensor windows = checked_tokens(model, tokens, kOperation);
  check_blockwise(kOperation, options.batch, options.correct, options.correct_damp);
  const c10::InferenceMode off(false);
  for (const auto& [linear, weights] : options.token_weights) {
    if (weights.sizes() != windows.sizes()) {
      throw ValueError(fmt::format("{}: token_weights of '{}' are [{}], but tokens are [{}]", kOperation, linear,
                                   fmt::join(weights.sizes(), ", "), fmt::join(windows.sizes(), ", ")));
    }
  }
  const at::NoGradGuard no_grad;
  Calibration calibration(model, windows, options, change);
  calibration.run();
  return std::move(calibration.changed);
}

}  // namespace hemostat
