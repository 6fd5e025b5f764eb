#include <chrono>
#include <limits>
#include <utility>

#include <fmt/format.h>

#include <hemostat/error.h>

#include "methods/needs.h"
#include "methods/predict.h"
#include "model/tensor_slots.h"
#include "scan/localize.h"

namespace hemostat {
namespace {

using Changes = std::map<std::string, PredictedChange>;

void add_linear(LocalizedSite& site, const Changes& changes, const std::string& linear) {
  if (const auto found = changes.find(linear); found != changes.end()) {
    site.delta_nll += found->second.delta_nll;
    site.noise_delta_nll = site.noise_delta_nll.value_or(0) + found->second.noise_delta_nll;
  }
}

std::vector<LocalizedSite> predicted_sites(Model model, const Changes& changes, bool linears) {
  std::vector<LocalizedSite> sites;
  for (const ForeignLinear& foreign : model.foreign.linears) {
    if (!foreign.output || changes.count(foreign.name) > 0) {
      sites.push_back({.name = foreign.name, .linear = foreign.name});
      add_linear(sites.back(), changes, foreign.name);
    }
  }
  const Naming& names = model.config.names;
  for (size_t index = 0; index < model.blocks.size(); ++index) {
    const std::string block = names.block + std::to_string(model.blocks[index].origin);
    if (!linears) {
      sites.push_back({.name = block, .block = static_cast<int64_t>(index)});
    }
    for_each_linear(model.blocks[index], names, "", [&](const LinearPlace& place, Linear&) {
      const std::string name = block + "." + place.name;
      if (linears) {
        sites.push_back({.name = name, .block = static_cast<int64_t>(index), .linear = place.name});
      }
      add_linear(sites.back(), changes, name);
    });
  }
  if (changes.count(names.head) > 0) {
    sites.push_back({.name = names.head});
    add_linear(sites.back(), changes, names.head);
  }
  return sites;
}

}  // namespace

Localization localize_predicted(const Model& baseline, const Model& damaged, const Statistics& judge,
                                const LocalizePredictedOptions& options) {
  const auto start = std::chrono::steady_clock::now();
  if (const std::string why = not_localizable(baseline, damaged); !why.empty()) {
    throw ValueError(fmt::format("{}: {}; blocks are exchanged one for one", kLocalize, why));
  }
  Localization result;
  result.severity = std::numeric_limits<double>::quiet_NaN();
  result.sites = predicted_sites(baseline, predicted_changes(baseline, damaged, judge, kLocalize), options.linears);
  for (LocalizedSite& site : result.sites) {
    result.delta_nll += site.delta_nll;
    if (!options.control) {
      site.noise_delta_nll.reset();
    }
  }
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return result;
}

Localization localize_predicted(const Model& model, const MethodSpec& method, double severity,
                                const Statistics* statistics, const Statistics& judge,
                                const LocalizePredictedOptions& options) {
  const auto start = std::chrono::steady_clock::now();
  const double checked = planned_axis(model, method).checked(severity, method.method);
  check_predictable(find_method(method.method), kLocalize);
  check_needs(method, statistics, kLocalize);
  check_judge(judge, kLocalize);
  const Model damaged = prepare(model, method.method, statistics, method.options).at(checked);
  Localization result = localize_predicted(model, damaged, judge, options);
  result.method = method.text();
  result.severity = checked;
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return result;
}

}  // namespace hemostat
