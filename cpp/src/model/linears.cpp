#include <fnmatch.h>

#include <algorithm>

#include <hemostat/interrupt.h>
#include <hemostat/model.h>

#include "linears.h"
#include "parts.h"
#include "tensor_slots.h"

namespace hemostat {
namespace {

bool matches(const std::vector<std::string>& patterns, const std::string& name) {
  return std::any_of(patterns.begin(), patterns.end(),
                     [&](const std::string& pattern) { return ::fnmatch(pattern.c_str(), name.c_str(), 0) == 0; });
}

bool chosen(const LinearFilter& filter, const std::string& name, Role role) {
  const bool usual = role != Role::router && role != Role::head;
  return (filter.include.empty() ? usual : matches(filter.include, name)) && !matches(filter.exclude, name);
}

}  // namespace

void for_each_chosen(Model& model, const LinearFilter& filter,
                     const std::function<void(const NamedLinear&, Linear&)>& function) {
  int64_t inputs = 0;  // of the blocks before
  const auto visit = [&](const LinearPlace& place, Linear& linear, std::optional<size_t> block) {
    if (linear.defined() && chosen(filter, place.name, place.role)) {
      function(
          {.name = place.name, .linear = &linear, .role = place.role, .input_id = inputs + place.input, .block = block},
          linear);
    }
  };
  for (ForeignLinear& entry : model.foreign.linears) {
    visit({entry.name, entry.output ? Role::head : Role::other, 0}, entry.linear, std::nullopt);
    ++inputs;
  }
  const Naming& names = model.config.names;
  for (size_t i = 0; i < model.blocks.size(); ++i) {
    Block& block = model.blocks[i];
    for_each_linear(block, names, names.block + std::to_string(block.origin) + ".",
                    [&](const LinearPlace& place, Linear& linear) { visit(place, linear, i); });
    inputs += inputs_of(block);
  }
  visit({names.head, Role::head, 0}, model.head.linear, std::nullopt);
}

Model block_alone(const Model& model, size_t block) {
  Model single = model;
  single.blocks = {model.blocks[block]};
  single.head = Head{};
  return single;
}

std::string name(Role role) { return parts::word(role); }

std::vector<NamedLinear> linears(const Model& model, const LinearFilter& filter) {
  std::vector<NamedLinear> result;
  // Only read through the reference; for_each_chosen serves map_linears too.
  for_each_chosen(const_cast<Model&>(model), filter,
                  [&](const NamedLinear& named, Linear&) { result.push_back(named); });
  return result;
}

Model map_linears(const Model& model, const LinearFilter& filter,
                  const std::function<Linear(const std::string&, const Linear&)>& function) {
  Model result = model;
  for_each_chosen(result, filter, [&](const NamedLinear& named, Linear& linear) {
    check_interrupt();
    linear = function(named.name, linear);
  });
  return result;
}

}  // namespace hemostat
