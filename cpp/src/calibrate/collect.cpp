#include <algorithm>
#include <optional>
#include <utility>

#include <ATen/core/grad_mode.h>
#include <c10/core/InferenceMode.h>
#include <fmt/format.h>

#include <hemostat/calibrate.h>
#include <hemostat/error.h>

#include "calibrate/collect_gradients.h"
#include "calibrate/input_collector.h"
#include "calibrate/shared_inputs.h"
#include "common/arguments.h"
#include "model/finite.h"

namespace hemostat {
namespace {

// Collects nothing yet of the chosen linears; those that share an input share its statistics.
InputCollector collector_of(const Model& model, const CollectOptions& options, const std::set<Need>& needs,
                            const std::map<std::string, std::string>& leaders, MemoryBudget& budget) {
  InputCollector collector;
  for (const SharedInput& sites : sites_of(model, options.filter)) {
    if (needs.empty() || (sites.front().role == Role::head && !model.foreign)) {  // whose input no observer sees
      continue;
    }
    const Site& first = sites.front();
    const auto leader = leaders.find(first.name);  // comes before it
    const auto known = collector.inputs.find(leader != leaders.end() ? leader->second : first.name);
    const auto input =
        known != collector.inputs.end()  // of a block that is repeated
            ? known->second
            : std::make_shared<InputStatistics>(first.linear->in_features(), model.device(), needs, budget);
    for (const Site& site : sites) {
      collector.inputs.emplace(site.name, input);
    }
  }
  return collector;
}

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

// None where linears of a foreign module do not share their inputs as `leaders` says.
std::optional<Statistics> collected(const Model& model, const at::Tensor& windows, const CollectOptions& options,
                                    const std::set<Need>& of_inputs, const std::set<Need>& of_gradients,
                                    const std::map<std::string, std::string>& leaders) {
  MemoryBudget budget(options.memory_budget);
  InputCollector collector = collector_of(model, options, of_inputs, leaders, budget);
  SharedInputs shared(leaders, collector);
  Observer& observer = leaders.empty() ? static_cast<Observer&>(collector) : shared;
  std::optional<GradientCollector> gradients;
  if (!of_gradients.empty()) {
    gradients.emplace(model, options, of_gradients, windows.size(0), windows.dim() > 1 ? windows.size(1) : 1, budget);
  }
  for (int64_t begin = 0; begin < windows.size(0); begin += options.batch) {
    const int64_t count = std::min(options.batch, windows.size(0) - begin);
    const at::Tensor batch = windows.narrow(0, begin, count);
    if (gradients) {
      gradients->add(batch, begin, of_inputs.empty() ? nullptr : &observer);
    } else {
      check_finite_values(model, batch, hidden_states(model, batch, {.observer = &observer}), kCollected, begin);
    }
    if (!shared.hold()) {
      return std::nullopt;
    }
    if (options.progress) {
      options.progress(begin + count, windows.size(0));
    }
  }
  Statistics statistics;
  statistics.inputs = std::move(collector.inputs);
  if (gradients) {
    statistics.gradients = std::move(gradients->gradients);
  }
  return statistics;
}

}  // namespace

Statistics collect(const Model& model, const at::Tensor& tokens, const CollectOptions& options) {
  const at::Tensor windows = checked_tokens(model, tokens, "hemostat.collect");
  if (options.batch < 1) {
    throw ValueError(fmt::format("hemostat.collect: batch must be at least 1, got {}", options.batch));
  }
  std::set<Need> of_inputs = options.needs.value_or(every_need()), of_gradients;
  const bool keeps_tokens = of_inputs.erase(Need::tokens) > 0 || !options.needs;
  if (keeps_tokens && of_inputs.empty()) {
    Statistics text;
    text.tokens = windows;
    return text;
  }
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
  std::map<std::string, std::string> leaders;
  if (model.foreign && !of_inputs.empty()) {
    leaders = shared_inputs(model, windows.narrow(0, 0, 1), chosen);
  }
  std::optional<Statistics> statistics = collected(model, windows, options, of_inputs, of_gradients, leaders);
  if (!statistics) {
    statistics = collected(model, windows, options, of_inputs, of_gradients, {});
  }
  if (keeps_tokens) {
    statistics->tokens = windows;
  }
  check_collected(statistics->inputs, model);
  check_collected(statistics->gradients, model);
  return *std::move(statistics);
}

}  // namespace hemostat
