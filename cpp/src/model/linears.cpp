#include <fnmatch.h>

#include <algorithm>

#include <hemostat/interrupt.h>
#include <hemostat/model.h>

#include "tensor_slots.h"

namespace hemostat {
namespace {

bool matches(const std::vector<std::string>& patterns, const std::string& name) {
  return std::any_of(patterns.begin(), patterns.end(),
                     [&](const std::string& pattern) { return ::fnmatch(pattern.c_str(), name.c_str(), 0) == 0; });
}

bool chosen(const LinearFilter& filter, const std::string& name, bool usual) {
  return (filter.include.empty() ? usual : matches(filter.include, name)) && !matches(filter.exclude, name);
}

void for_each_chosen(Model& model, const LinearFilter& filter,
                     const std::function<void(const std::string&, Linear&)>& function) {
  const auto visit = [&](const std::string& name, Linear& linear, bool usual) {
    if (linear.defined() && chosen(filter, name, usual)) {
      function(name, linear);
    }
  };
  const Naming& names = model.config.names;
  for (Block& block : model.blocks) {
    for_each_linear(block, names, names.block + std::to_string(block.origin) + ".", visit);
  }
  visit(names.head, model.head.linear, false);
}

}  // namespace

std::vector<NamedLinear> linears(const Model& model, const LinearFilter& filter) {
  std::vector<NamedLinear> result;
  // Only read through the reference; for_each_chosen serves map_linears too.
  for_each_chosen(const_cast<Model&>(model), filter,
                  [&](const std::string& name, Linear& linear) { result.push_back({name, &linear}); });
  return result;
}

Model map_linears(const Model& model, const LinearFilter& filter,
                  const std::function<Linear(const std::string&, const Linear&)>& function) {
  Model result = model;
  for_each_chosen(result, filter, [&](const std::string& name, Linear& linear) {
    check_interrupt();
    linear = function(name, linear);
  });
  return result;
}

}  // namespace hemostat
