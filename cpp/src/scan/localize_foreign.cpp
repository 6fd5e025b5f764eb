#include <chrono>
#include <limits>

#include <hemostat/metrics.h>

#include "model/structure.h"
#include "scan/localize.h"

namespace hemostat {

Localization localize_foreign(const Model& baseline, const Model& damaged, const at::Tensor& windows,
                              const LocalizeOptions& options) {
  const auto start = std::chrono::steady_clock::now();
  std::vector<size_t> changed, sites;
  for (size_t i = 0; i < baseline.foreign.linears.size(); ++i) {
    const ForeignLinear& ours = baseline.foreign.linears[i];
    const bool differs = !same(ours.linear, damaged.foreign.linears[i].linear);
    if (differs) {
      changed.push_back(i);
    }
    if (differs || !ours.output) {
      sites.push_back(i);
    }
  }

  const int64_t count = windows.size(0), total = count * (2 + static_cast<int64_t>(changed.size()));
  int64_t done = 0;
  CompareOptions compare = options.compare;
  compare.generate = false;
  compare.progress = [&](int64_t, int64_t) {
    if (options.compare.progress) {
      options.compare.progress(std::min(done, total), total);
    }
  };
  const BaselineEvaluation evaluation(baseline, windows, compare);
  done += count;
  const auto measured = [&](const Model& model) {
    Damage damage = evaluation.compare(model);
    done += count;
    return damage;
  };

  Localization result;
  result.severity = std::numeric_limits<double>::quiet_NaN();
  result.whole = measured(damaged);
  const std::optional<Damage> none =
      changed.size() < sites.size() ? std::optional(evaluation.unchanged()) : std::nullopt;
  auto next = changed.begin();
  for (const size_t i : sites) {
    const std::string& name = baseline.foreign.linears[i].name;
    LocalizedSite site{.name = name, .linear = name};
    if (next != changed.end() && *next == i) {
      ++next;
      Model alone = baseline;
      alone.foreign.linears[i].linear = damaged.foreign.linears[i].linear;
      site.damage = measured(alone);
      if (options.control) {
        if (const std::optional<Model> control = isotropic_control(baseline, alone, options.compare.seed)) {
          site.control = evaluation.compare(*control);
        }
      }
    } else {
      site.damage = *none;
    }
    result.sites.push_back(std::move(site));
  }
  add_up(result);
  result.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return result;
}

}  // namespace hemostat
