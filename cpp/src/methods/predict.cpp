#include "methods/predict.h"

#include <optional>
#include <utility>
#include <vector>

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
constexpr const char* kOfWeights = "it is of changes of weights";

const LinearFilter kEveryLinear{.include = {"*"}, .exclude = {}};

// The weight with what happens to the input first, where that is linear.
at::Tensor effective(const std::string& name, const Linear& linear, const char* operation) {
  const LinearInput& input = linear.input;
  if (input.bits < 16 || input.noise > 0) {
    throw ValueError(
        fmt::format("{}: the input of '{}' is quantized or noisy, whose cost no Gram matrix tells", operation, name));
  }
  at::Tensor weight = linear.dense().to(at::kFloat);
  if (input.rotation.defined()) {
    weight = at::matmul(weight, input.rotation.to(at::kFloat).t());
  }
  return input.scale.defined() ? weight * input.scale.to(at::kFloat) : weight;
}

PredictedChange predicted(const std::string& name, const Linear& before, const Linear& after,
                          const Statistics& statistics, const char* operation) {
  if (before.out_features() != after.out_features() || before.in_features() != after.in_features()) {
    throw ValueError(fmt::format("{}: '{}' has another size", operation, name));
  }
  const InputStatistics& input = statistics.at(name);
  const GradientStatistics& gradient = statistics.gradient(name);
  if (!input.has(Need::gram) || !gradient.has(Need::row_fisher)) {
    throw ValueError(
        fmt::format("{}: the statistics of '{}' have no gram or no row_fisher; collect \"predict\"", operation, name));
  }
  const at::Tensor change = effective(name, after, operation) - effective(name, before, operation);
  const at::Tensor gram = input.gram().to(change.device());
  const at::Tensor fisher = gradient.row_fisher().to(change.device(), at::kDouble);
  const double variance = change.square().mean(at::kDouble).item<double>();
  return {.delta_nll = quadratic_damage(change, gram, fisher),
          .noise_delta_nll = 0.5 * variance * fisher.sum().item<double>() * gram.trace().item<double>()};
}

// Whether the two differ in nothing but linears inside blocks and in the head.
bool same_but_linears(const Model& model, const Model& changed, const std::vector<NamedLinear>& linears) {
  size_t index = 0;
  const Model rest =
      map_linears(changed, kEveryLinear, [&](const std::string&, const Linear&) { return *linears[index++].linear; });
  bool alike = rest.blocks.size() == model.blocks.size() && rest.input == model.input;
  for (size_t i = 0; alike && i < rest.blocks.size(); ++i) {
    alike = same(rest.blocks[i], model.blocks[i]);
  }
  return alike && (model.foreign || (same(rest.embedding, model.embedding) && same(rest.head, model.head) &&
                                     same(rest.final_norm, model.final_norm)));
}

}  // namespace

double quadratic_damage(const at::Tensor& change, const at::Tensor& gram, const at::Tensor& row_fisher) {
  const at::Tensor rows = at::matmul(change, gram).mul_(change).sum(1, /*keepdim=*/false, at::kDouble);
  return 0.5 * rows.mul(row_fisher).sum().item<double>();
}

std::set<Need> predict_needs() { return {Need::gram, Need::row_fisher}; }

void check_predictable(const Method& method, const char* operation) {
  if (method.kind != Kind::weights && method.kind != Kind::factors && method.kind != Kind::user) {
    throw ValueError(fmt::format("{}: {}, but {} changes {}", operation, kOfWeights, method.name, name(method.kind)));
  }
}

void check_judge(const Statistics& statistics, const char* operation) {
  const std::set<Need> given = statistics.needs();
  for (const Need need : predict_needs()) {
    if (given.count(need) == 0) {
      throw ValueError(fmt::format("{}: the statistics have no {}; collect \"predict\"", operation, name(need)));
    }
  }
}

std::map<std::string, PredictedChange> predicted_changes(const Model& model, const Model& changed,
                                                         const Statistics& statistics, const char* operation) {
  const at::NoGradGuard no_grad;
  const std::vector<NamedLinear> before = linears(model, kEveryLinear), after = linears(changed, kEveryLinear);
  bool one_structure = before.size() == after.size();
  for (size_t i = 0; one_structure && i < before.size(); ++i) {
    one_structure = before[i].name == after[i].name;
  }
  if (!one_structure) {
    throw ValueError(fmt::format("{}: {}, but the changed model has other linears", operation, kOfWeights));
  }
  if (!same_but_linears(model, changed, before)) {
    throw ValueError(
        fmt::format("{}: {}, but the changed model has other things changed too (norms, the embedding, "
                    "or what blocks do)",
                    operation, kOfWeights));
  }
  std::map<std::string, PredictedChange> changes;
  for (size_t i = 0; i < before.size(); ++i) {
    if (same(*before[i].linear, *after[i].linear)) {
      continue;
    }
    check_interrupt();
    const PredictedChange change =
        predicted(before[i].name, *before[i].linear, *after[i].linear, statistics, operation);
    if (!changes.emplace(before[i].name, change).second) {
      throw ValueError(fmt::format("{}: the model repeats the block of '{}', whose statistics are those of one layer",
                                   operation, before[i].name));
    }
  }
  return changes;
}

std::map<std::string, double> predicted_damage(const Model& model, const Model& changed, const Statistics& statistics) {
  std::map<std::string, double> damage;
  for (const auto& [name, change] : predicted_changes(model, changed, statistics, kPredict)) {
    damage[name] = change.delta_nll;
  }
  return damage;
}

Prediction predict(const Model& model, const MethodSpec& method, const Statistics& statistics,
                   const PredictOptions& options) {
  check_predictable(find_method(method.method), kPredict);
  Prediction prediction;
  prediction.method = method.text();
  prediction.axis = planned_axis(model, method);
  for (const double severity : options.severities.value_or(prediction.axis.default_grid)) {
    prediction.severities.push_back(prediction.axis.checked(severity, method.method));
  }
  const Statistics& judge = options.judge != nullptr ? *options.judge : statistics;
  check_judge(judge, kPredict);
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
