#include <array>
#include <string>
#include <utility>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <hemostat/error.h>
#include <hemostat/statistics.h>

namespace hemostat {
namespace {

constexpr std::array<std::pair<Need, const char*>, 5> kNames{{
    {Need::column_norm, "column_norm"},
    {Need::absmax, "absmax"},
    {Need::absmean, "absmean"},
    {Need::gram, "gram"},
    {Need::mean, "mean"},
}};

}  // namespace

std::string name(Need need) {
  for (const auto& [known, text] : kNames) {
    if (known == need) {
      return text;
    }
  }
  throw ValueError(fmt::format("hemostat.Need: {} is no statistic", static_cast<int>(need)));
}

Need need_from_name(const std::string& name) {
  for (const auto& [need, text] : kNames) {
    if (name == text) {
      return need;
    }
  }
  std::vector<std::string> known;
  for (const auto& entry : kNames) {
    known.emplace_back(entry.second);
  }
  throw ValueError(fmt::format("hemostat: no statistic is named \"{}\"; there are {}", name, fmt::join(known, ", ")));
}

std::set<Need> every_need() {
  std::set<Need> all;
  for (const auto& entry : kNames) {
    all.insert(entry.first);
  }
  return all;
}

const InputStatistics& Statistics::at(const std::string& linear) const {
  const auto found = inputs.find(linear);
  if (found == inputs.end()) {
    throw ValueError(fmt::format("hemostat.Statistics: nothing was collected for \"{}\"", linear));
  }
  return *found->second;
}

void Statistics::merge(const Statistics& other) {
  for (const auto& [linear, own] : inputs) {
    const auto found = other.inputs.find(linear);
    if (found == other.inputs.end()) {
      throw ValueError(fmt::format("hemostat.Statistics.merge: other has nothing for \"{}\"", linear));
    }
    const InputStatistics& theirs = *found->second;
    if (theirs.in_features() != own->in_features() || theirs.needs() != own->needs()) {
      throw ValueError(
          fmt::format("hemostat.Statistics.merge: other has another size or other statistics of \"{}\"", linear));
    }
  }
  for (const auto& entry : other.inputs) {
    if (!contains(entry.first)) {
      throw ValueError(fmt::format("hemostat.Statistics.merge: other has \"{}\" too", entry.first));
    }
  }
  std::set<const InputStatistics*> merged;  // linears that share an input share its statistics
  for (const auto& [linear, own] : inputs) {
    if (merged.insert(own.get()).second) {
      own->merge(other.at(linear));
    }
  }
}

std::set<Need> Statistics::needs() const {
  std::set<Need> common = inputs.empty() ? std::set<Need>() : every_need();
  for (const auto& entry : inputs) {
    std::erase_if(common, [&](Need need) { return !entry.second->has(need); });
  }
  return common;
}

}  // namespace hemostat
