#include "scan/finished_trials.h"

#include <utility>

namespace hemostat {

void FinishedTrials::plan(const TrialName& name) {
  if (planned_.insert(name).second) {
    ask(name);
  }
}

void FinishedTrials::add(const Trial& trial) { finished_.insert_or_assign({trial.method, trial.severity}, trial); }

std::optional<Trial> FinishedTrials::find(const TrialName& name) const {
  const auto found = finished_.find(name);
  return found == finished_.end() ? std::nullopt : std::optional(found->second);
}

std::optional<Trial> FinishedTrials::ask(const TrialName& name) {
  if (std::optional<Trial> found = find(name)) {
    return found;
  }
  std::optional<Trial> trial = known_ ? known_(name.method, name.severity) : std::nullopt;
  if (trial) {
    finished_.emplace(name, *trial);
  }
  return trial;
}

}  // namespace hemostat
