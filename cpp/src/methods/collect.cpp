#include <algorithm>
#include <optional>
#include <utility>

#include <ATen/core/grad_mode.h>
#include <c10/core/InferenceMode.h>
#include <fmt/format.h>

#include <hemostat/error.h>
#include <hemostat/methods.h>

#include "arguments.h"
#include "methods/collect_gradients.h"
#include "model/finite.h"

namespace hemostat {
namespace {

// Adds what reaches the chosen linears; linears that share an input share its statistics.
class Collector : public Observer {
 public:
  Collector(const Model& model, const CollectOptions& options, std::set<Need> needs, MemoryBudget& budget)
      : needs_(std::move(needs)), budget_(budget) {
    for (const NamedLinear& named : linears(model, options.filter)) {
      chosen_.insert(named.name);
    }
  }

  void linear_input(size_t, const std::vector<std::string>& names, const at::Tensor& x) override {
    std::shared_ptr<InputStatistics> input;
    for (const std::string& name : names) {
      if (!chosen_.count(name)) {
        continue;
      }
      std::shared_ptr<InputStatistics>& slot = statistics.inputs[name];
      if (!slot) {
        slot = input ? input : std::make_shared<InputStatistics>(x.size(-1), x.device(), needs_, budget_);
      }
      if (!input) {
        input = slot;
        slot->add(x);
      }
    }
  }

  Statistics statistics;

 private:
  std::set<Need> needs_;
  MemoryBudget& budget_;
  std::set<std::string> chosen_;
};

// NumericalError naming the linear, where sums overflowed though no token's values did.
template <typename Collected>
void check_collected(const std::map<std::string, std::shared_ptr<Collected>>& all, const Model& model) {
  std::set<const Collected*> seen;
  for (const auto& [linear, collected] : all) {
    for (const Need need : seen.insert(collected.get()).second ? collected->needs() : std::set<Need>()) {
      if (!collected->finite(need)) {
        throw NumericalError(
            fmt::format("hemostat.collect: {} of '{}' is not finite, though the model is; {} reaches {:.6g}, and sums "
                        "{:.3g}{}",
                        name(need), linear, arguments::dtype_name(model.dtype()), largest_of(model.dtype()),
                        largest_of(at::kFloat), model.dtype() == at::kHalf ? ": try bfloat16 or float32" : ""));
      }
    }
  }
}

}  // namespace

Statistics collect(const Model& model, const at::Tensor& tokens, const CollectOptions& options) {
  const at::Tensor windows = checked_tokens(model, tokens, "hemostat.collect");
  if (options.batch < 1) {
    throw ValueError(fmt::format("hemostat.collect: batch must be at least 1, got {}", options.batch));
  }
  std::set<Need> of_inputs = options.needs.value_or(every_need()), of_gradients;
  for (const Need need : gradient_needs()) {
    if (of_inputs.erase(need) > 0) {
      of_gradients.insert(need);
    }
  }
  const std::vector<NamedLinear> chosen = linears(model, options.filter);
  if (chosen.empty()) {
    throw ValueError("hemostat.collect: include and exclude leave no linear layer");
  }
  const bool head_alone = chosen.size() == 1 && chosen.front().linear == &model.head.linear;
  if (head_alone && of_gradients.empty()) {
    throw ValueError("hemostat.collect: include and exclude leave the head alone, whose input is not collected");
  }
  const c10::InferenceMode off(false);
  at::NoGradGuard no_grad;
  MemoryBudget budget(options.memory_budget);
  Collector collector(model, options, of_inputs, budget);
  std::optional<GradientCollector> gradients;
  if (!of_gradients.empty()) {
    gradients.emplace(model, options, of_gradients, windows.size(0), windows.size(1), budget);
  }
  for (int64_t begin = 0; begin < windows.size(0); begin += options.batch) {
    const int64_t count = std::min(options.batch, windows.size(0) - begin);
    const at::Tensor batch = windows.narrow(0, begin, count);
    if (gradients) {
      gradients->add(batch, begin, of_inputs.empty() ? nullptr : &collector);
    } else {
      check_finite_values(model, batch, hidden_states(model, batch, {.observer = &collector}), kCollected, begin);
    }
    if (options.progress) {
      options.progress(begin + count, windows.size(0));
    }
  }
  if (gradients) {
    collector.statistics.gradients = std::move(gradients->gradients);
  }
  check_collected(collector.statistics.inputs, model);
  check_collected(collector.statistics.gradients, model);
  return std::move(collector.statistics);
}

}  // namespace hemostat
