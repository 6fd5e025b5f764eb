#include <array>
#include <string>
#include <utility>

#include <ATen/ops/cat.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <hemostat/error.h>
#include <hemostat/statistics.h>

namespace hemostat {
namespace {

constexpr std::array<std::pair<Need, const char*>, 11> kNames{{
    {Need::column_norm, "column_norm"},
    {Need::absmax, "absmax"},
    {Need::absmean, "absmean"},
    {Need::gram, "gram"},
    {Need::mean, "mean"},
    {Need::gradient_mean, "gradient_mean"},
    {Need::gradient_absmean, "gradient_absmean"},
    {Need::gradient_square, "gradient_square"},
    {Need::row_fisher, "row_fisher"},
    {Need::token_fisher, "token_fisher"},
    {Need::tokens, "tokens"},
}};

std::set<Need> needs_where(bool of_gradient) {
  std::set<Need> chosen;
  for (const auto& [need, text] : kNames) {
    if (need != Need::tokens && of_gradient == (need >= Need::gradient_mean)) {
      chosen.insert(need);
    }
  }
  return chosen;
}

// What every one of these has.
template <typename Collected>
std::set<Need> common_needs(const std::map<std::string, std::shared_ptr<Collected>>& all) {
  std::set<Need> common = all.empty() ? std::set<Need>() : all.begin()->second->needs();
  for (const auto& entry : all) {
    std::erase_if(common, [&](Need need) { return !entry.second->has(need); });
  }
  return common;
}

// ValueError unless they can be merged, one by one.
template <typename Collected>
void check_alike(const std::map<std::string, std::shared_ptr<Collected>>& ours,
                 const std::map<std::string, std::shared_ptr<Collected>>& others, const char* what) {
  for (const auto& [linear, own] : ours) {
    const auto found = others.find(linear);
    if (found == others.end()) {
      throw ValueError(fmt::format("hemostat.Statistics.merge: other has no {} of \"{}\"", what, linear));
    }
    if (!own->mergeable(*found->second)) {
      throw ValueError(
          fmt::format("hemostat.Statistics.merge: other has another size or other {} of \"{}\"", what, linear));
    }
  }
  for (const auto& entry : others) {
    if (ours.count(entry.first) == 0) {
      throw ValueError(fmt::format("hemostat.Statistics.merge: other has {} of \"{}\" too", what, entry.first));
    }
  }
}

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

std::set<Need> every_need() { return needs_where(false); }

std::set<Need> gradient_needs() { return needs_where(true); }

const InputStatistics& Statistics::at(const std::string& linear) const {
  const auto found = inputs.find(linear);
  if (found == inputs.end()) {
    throw ValueError(fmt::format("hemostat.Statistics: nothing was collected for \"{}\"", linear));
  }
  return *found->second;
}

const GradientStatistics& Statistics::gradient(const std::string& linear) const {
  const auto found = gradients.find(linear);
  if (found == gradients.end()) {
    throw ValueError(fmt::format("hemostat.Statistics: no gradients were collected for \"{}\"", linear));
  }
  return *found->second;
}

void Statistics::merge(const Statistics& other) {
  check_alike(inputs, other.inputs, "statistics");
  check_alike(gradients, other.gradients, "gradients");
  if (tokens.defined() != other.tokens.defined() ||
      (tokens.defined() && tokens.sizes().slice(1) != other.tokens.sizes().slice(1))) {
    throw ValueError("hemostat.Statistics.merge: other has no tokens, or windows of another length");
  }
  if (tokens.defined()) {
    tokens = at::cat({tokens, other.tokens.to(tokens.device())});
  }
  std::set<const InputStatistics*> merged;  // linears that share an input share its statistics
  for (const auto& [linear, own] : inputs) {
    if (merged.insert(own.get()).second) {
      own->merge(other.at(linear));
    }
  }
  for (const auto& [linear, own] : gradients) {
    own->merge(other.gradient(linear));
  }
}

std::set<Need> Statistics::needs() const {
  std::set<Need> common = common_needs(inputs);
  common.merge(common_needs(gradients));
  if (tokens.defined()) {
    common.insert(Need::tokens);
  }
  return common;
}

}  // namespace hemostat
