#include <algorithm>
#include <memory>
#include <mutex>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <hemostat/error.h>
#include <hemostat/methods.h>

#include "catalogue.h"
#include "group_size.h"
#include "model/foreign.h"
#include "needs.h"
#include "on_linears.h"

namespace hemostat {
namespace {

struct NamedKind {
  Kind kind;
  const char* name;
  KindProperties properties;
};

constexpr NamedKind kKinds[] = {
    {Kind::weights, "weights", {.in_place = true, .localizable = true, .changes_weights = true}},
    {Kind::factors, "factors", {.in_place = true, .localizable = true, .changes_weights = true}},
    {Kind::activations, "activations", {.in_place = true, .localizable = true, .changes_weights = false}},
    {Kind::architecture,
     "architecture",
     {.in_place = false, .localizable = true, .changes_weights = false, .takes_blocks = true}},
    {Kind::normalization,
     "normalization",
     {.in_place = true, .localizable = true, .changes_weights = false, .takes_blocks = true}},
    {Kind::input, "input", {.in_place = true, .localizable = false, .changes_weights = false}},
    {Kind::decoding, "decoding", {.in_place = true, .localizable = false, .changes_weights = false}},
    {Kind::user, "user", {.in_place = true, .localizable = true, .changes_weights = false}},
};

struct Registry {
  std::mutex mutex;
  std::vector<std::unique_ptr<const Method>> methods;  // replaced ones stay, since find_method hands out references
  std::map<std::string, size_t> index;
  size_t ours = 0;

  Registry() {
    for (Method& method : catalogue()) {
      add(std::move(method));
    }
    ours = methods.size();
  }

  void add(Method method) {
    if (method.on_linears()) {
      method.options = with_filter(std::move(method.options));
    }
    index[method.name] = methods.size();
    methods.push_back(std::make_unique<const Method>(std::move(method)));
  }
};

// Leaked: users' methods may hold Python callables, which must not be destroyed after the interpreter.
Registry& registry() {
  static auto* instance = new Registry();
  return *instance;
}

std::vector<std::string> names_of(const std::set<Need>& needs) {
  std::vector<std::string> names;
  for (const Need need : needs) {
    names.push_back(name(need));
  }
  return names;
}

// ValueError where a number of weights does not divide the rows that it splits.
void check_divisions(const Method& method, const Model& model, const Options& complete) {
  for (const OptionSpec& option : method.options) {
    if (option.divides) {
      check_divides(method.name, model, filter_of(complete), option.name, weights_of(method.name, option, complete));
    }
  }
}

void check_fit(const Method& method, const Model& model, const Options& complete) {
  if (properties(method.kind).takes_blocks || std::holds_alternative<Allocated>(method.change)) {
    check_has_blocks(model, fmt::format("hemostat.prepare({})", method.name));
  }
  check_divisions(method, model, complete);
  if (method.check) {
    method.check(model, complete);
  }
}

}  // namespace

std::string name(Kind kind) { return kKinds[static_cast<size_t>(kind)].name; }

Kind kind_from_name(const std::string& name) {
  std::vector<std::string> known;
  for (const NamedKind& named : kKinds) {
    if (name == named.name) {
      return named.kind;
    }
    known.push_back(named.name);
  }
  throw ValueError(fmt::format("hemostat.method: kind is '{}', but takes {}", name, fmt::join(known, ", ")));
}

KindProperties properties(Kind kind) { return kKinds[static_cast<size_t>(kind)].properties; }

std::vector<Method> methods() {
  Registry& all = registry();
  std::lock_guard lock(all.mutex);
  std::vector<Method> result;
  for (size_t i = 0; i < all.methods.size(); ++i) {
    if (all.index.at(all.methods[i]->name) == i) {
      result.push_back(*all.methods[i]);
    }
  }
  return result;
}

const Method& find_method(const std::string& name) {
  Registry& all = registry();
  std::lock_guard lock(all.mutex);
  const auto found = all.index.find(name);
  if (found == all.index.end()) {
    std::vector<std::string> known;
    for (const auto& [other, position] : all.index) {
      known.push_back(other);
    }
    throw ValueError(fmt::format("hemostat: there is no method '{}'; methods are {}", name, fmt::join(known, ", ")));
  }
  return *all.methods[found->second];
}

void register_method(Method method) {
  Registry& all = registry();
  std::lock_guard lock(all.mutex);
  if (method.name.empty() || method.name.find_first_of(":,=+ ") != std::string::npos) {
    throw ValueError(
        fmt::format("hemostat.method: a name takes no ':', ',', '=', '+' or space, got '{}'", method.name));
  }
  const auto found = all.index.find(method.name);
  if (found != all.index.end() && found->second < all.ours) {
    throw ValueError(fmt::format("hemostat.method: '{}' is one of hemostat's own methods", method.name));
  }
  all.add(std::move(method));
}

std::set<Need> MethodSpec::needs() const {
  const Method& found = find_method(method);
  return needs_with(found, complete_options(found, options));
}

void check_needs(const MethodSpec& method, const Statistics* statistics, const char* operation) {
  const std::set<Need> needs = method.needs();
  if (!needs.empty() && statistics == nullptr) {
    throw ValueError(fmt::format("{}: {} needs statistics ({}): collect them and pass them", operation, method.method,
                                 fmt::join(names_of(needs), ", ")));
  }
  for (const Need need : needs) {
    if (statistics->needs().count(need) == 0) {
      throw ValueError(fmt::format("{}: {} needs {}, which the statistics lack", operation, method.method, name(need)));
    }
  }
}

Axis planned_axis(const Model& model, const MethodSpec& spec) {
  const Method& method = find_method(spec.method);
  const Options options = complete_options(method, spec.options);
  check_fit(method, model, options);
  return method.axis_for ? method.axis_for(model, options) : method.axis;
}

std::set<Need> needs_of(const std::vector<std::string>& specs, bool propagate) {
  std::set<Need> result;
  for (const std::string& text : specs) {
    if (text == "predict") {
      result.merge(predict_needs());
      continue;
    }
    const MethodSpec spec = MethodSpec::parse(text);
    const Method& method = find_method(spec.method);
    result.merge(propagate ? needs_of_unchanged(method, complete_options(method, spec.options)) : spec.needs());
  }
  return result;
}

}  // namespace hemostat
