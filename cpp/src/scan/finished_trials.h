// A scan's trials: which there are, and those that are finished.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <set>

#include <hemostat/scan.h>

namespace hemostat {

class FinishedTrials {
 public:
  // `known`: ScanOptions::known
  explicit FinishedTrials(std::function<std::optional<Trial>(const std::string&, double)> known)
      : known_(std::move(known)) {}

  void plan(const TrialName& name);  // counts it once, and asks whether it is known
  void add(const Trial& trial);
  std::optional<Trial> find(const TrialName& name) const;  // without asking
  std::optional<Trial> ask(const TrialName& name);         // once more, where it is not finished yet

  int64_t done() const { return static_cast<int64_t>(finished_.size()); }
  int64_t total() const { return static_cast<int64_t>(planned_.size()); }

 private:
  std::function<std::optional<Trial>(const std::string&, double)> known_;
  std::set<TrialName> planned_;
  std::map<TrialName, Trial> finished_;
};

}  // namespace hemostat
