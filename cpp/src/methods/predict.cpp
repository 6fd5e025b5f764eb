#include <map>
#include <optional>
#include <string>
#include <utility>

#include <ATen/core/grad_mode.h>
#include <ATen/ops/matmul.h>
#include <fmt/format.h>

#include <hemostat/error.h>
#include <hemostat/interrupt.h>
#include <hemostat/methods.h>

#include "model/structure.h"

namespace hemostat {
namespace {

constexpr const char* kPredict = "hemostat.predict";

const LinearFilter kEveryLinear{.include = {"*"}, .exclude = {}};

// The weight with what happens to the input first, where that is linear.
at::Tensor effective(const std::string& name, const Linear& linear) {
  const LinearInput& input = linear.input;
  if (input.bits < 16 || input.noise > 0) {
    throw ValueError(
        fmt::format("{}: the input of '{}' is quantized or noisy, whose cost no Gram matrix tells", kPredict, name));
  }
  at::Tensor weight = linear.dense().to(at::kFloat);
  if (input.rotation.defined()) {
    weight = at::matmul(weight, input.rotation.to(at::kFloat).t());
  }
  return input.scale.defined() ? weight * input.scale.to(at::kFloat) : weight;
}

double predicted(const std::string& name, const Linear& before, const Linear& after, const Statistics& statistics) {
  if (before.out_features() != after.out_features() || before.in_features() != after.in_features()) {
    throw ValueError(fmt::format("{}: '{}' has another size", kPredict, name));
  }
  const InputStatistics& input = statistics.at(name);
  const GradientStatistics& gradient = statistics.gradient(name);
  if (!input.has(Need::gram) || !gradient.has(Need::row_fisher)) {
    throw ValueError(
        fmt::format("{}: the statistics of '{}' have no gram or no row_fisher; collect \"predict\"", kPredict, name));
  }
  const at::Tensor change = effective(name, after) - effective(name, before);
  const at::Tensor moved = at::matmul(change, input.gram().to(change.device()));
  const at::Tensor rows = moved.mul_(change).sum(1, /*keepdim=*/false, at::kDouble);
  return 0.5 * rows.mul(gradient.row_fisher().to(change.device(), at::kDouble)).sum().item<double>();
}

}  // namespace

std::set<Need> predict_needs() { return {Need::gram, Need::row_fisher}; }

std::map<std::string, double> predicted_damage(const Model& model, const Model& changed, const Statistics& statistics) {
  const at::NoGradGuard no_grad;
  const std::vector<NamedLinear> before = linears(model, kEveryLinear), after = linears(changed, kEveryLinear);
  bool one_structure = before.size() == after.size();
  for (size_t i = 0; one_structure && i < before.size(); ++i) {
    one_structure = before[i].name == after[i].name;
  }
  if (!one_structure) {
    throw ValueError(fmt::format("{}: it is of changes of weights, but the changed model has other linears", kPredict));
  }
  std::map<std::string, double> damage;
  for (size_t i = 0; i < before.size(); ++i) {
    if (!same(*before[i].linear, *after[i].linear)) {
      check_interrupt();
      damage[before[i].name] = predicted(before[i].name, *before[i].linear, *after[i].linear, statistics);
    }
  }
  return damage;
}

Prediction predict(const Model& model, const MethodSpec& method, const Statistics& statistics,
                   const PredictOptions& options) {
  const Method& found = find_method(method.method);
  if (found.kind != Kind::weights && found.kind != Kind::factors && found.kind != Kind::user) {
    throw ValueError(
        fmt::format("{}: it is of changes of weights, but {} changes {}", kPredict, method.method, name(found.kind)));
  }
  Prediction prediction;
  prediction.method = method.text();
  prediction.axis = planned_axis(model, method);
  for (const double severity : options.severities.value_or(prediction.axis.default_grid)) {
    prediction.severities.push_back(prediction.axis.checked(severity, method.method));
  }
  const Statistics& judge = options.judge != nullptr ? *options.judge : statistics;
  const Prepared prepared = prepare(model, method.method, &statistics, method.options);
  for (const double severity : prediction.severities) {
    std::map<std::string, double> linears = predicted_damage(model, prepared.at(severity), judge);
    double sum = 0;
    for (const auto& [name, nats] : linears) {
      sum += nats;
    }
    prediction.delta_nll.push_back(sum);
    prediction.linears.push_back(std::move(linears));
  }
  return prediction;
}

}  // namespace hemostat
