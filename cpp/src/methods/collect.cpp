#include <algorithm>

#include <ATen/core/grad_mode.h>
#include <fmt/format.h>

#include <hemostat/error.h>
#include <hemostat/methods.h>

namespace hemostat {
namespace {

// Adds what reaches the chosen linears; linears that share an input share its statistics.
class Collector : public Observer {
 public:
  Collector(const Model& model, const CollectOptions& options)
      : needs_(options.needs.value_or(every_need())), budget_(options.memory_budget) {
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
  MemoryBudget budget_;
  std::set<std::string> chosen_;
};

}  // namespace

Statistics collect(const Model& model, const at::Tensor& tokens, const CollectOptions& options) {
  const at::Tensor windows = checked_tokens(model, tokens, "hemostat.collect");
  if (options.batch < 1) {
    throw ValueError(fmt::format("hemostat.collect: batch must be at least 1, got {}", options.batch));
  }
  at::NoGradGuard no_grad;
  Collector collector(model, options);
  for (int64_t begin = 0; begin < windows.size(0); begin += options.batch) {
    const int64_t count = std::min(options.batch, windows.size(0) - begin);
    hidden_states(model, windows.narrow(0, begin, count), {.observer = &collector});
    if (options.progress) {
      options.progress(begin + count, windows.size(0));
    }
  }
  return std::move(collector.statistics);
}

}  // namespace hemostat
