// Room `methods`: the registry. A method turns a model, its statistics and options into a Prepared, whose
// at(severity) is cheap and gives another Model.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <variant>
#include <vector>

#include <hemostat/axis.h>
#include <hemostat/model.h>
#include <hemostat/statistics.h>

namespace hemostat {

using OptionValue = std::variant<bool, int64_t, double, std::string, std::vector<int64_t>, std::vector<std::string>>;
using Options = std::map<std::string, OptionValue>;

std::string to_string(const OptionValue& value);

// An option a method takes. The default's type is the option's type; an integer is accepted for a number or a string,
// one value for a list.
struct OptionSpec {
  std::string name;
  OptionValue default_value;
  std::string description;           // with unit and range
  std::vector<std::string> choices;  // of a string option; empty: any
};

// What prepare() gives: the method's axis for this model and these options, and at().
class Prepared {
 public:
  Prepared(std::string method, Axis axis, std::function<Model(double)> apply, Model neutral);

  const Axis axis;
  Model at(double severity) const;  // the model itself at neutral; ValueError out of range

 private:
  std::string method_;
  std::function<Model(double)> apply_;
  Model neutral_;
};

struct Method {
  std::string name;
  std::string kind;         // weights, activations, architecture, normalization, input, decoding …
  std::string description;  // one line
  Axis axis;                // for default options, before a model is known
  std::set<Need> needs;
  std::vector<OptionSpec> options;
  // statistics is null where none were given; options are complete (defaults filled in) and checked.
  std::function<Prepared(const Model&, const Statistics*, const Options&)> prepare;
  // The axis for this model and these (complete) options without preparing, so that severities can be planned and
  // checked before any work. Empty: `axis` itself.
  std::function<Axis(const Model&, const Options&)> axis_for = nullptr;
  // What it reads with these (complete) options, where that depends on them. Empty: `needs`, else those by default.
  std::function<std::set<Need>(const Options&)> needs_for = nullptr;
  // ValueError where these (complete) options do not fit this model (a group that does not divide its rows). Seen
  // before any work, by prepare, plan, sweep, surface, compose and localize. Empty: they fit every model.
  std::function<void(const Model&, const Options&)> check = nullptr;
};

// "rtn:group_size=64,symmetric=true" → name and the options given; lists are joined by '+':
// "wanda:include=*.q_proj+*.k_proj".
struct MethodSpec {
  std::string method;
  Options options;

  static MethodSpec parse(const std::string& text);  // ValueError for an unknown method or option, or a bad value
  std::string text() const;                          // canonical: options sorted, defaults left out
  std::set<Need> needs() const;                      // what the method reads with these options
};

// All registered methods, ours first, in catalogue order. The registry outlives the program's end on purpose.
std::vector<Method> methods();
const Method& find_method(const std::string& name);  // ValueError listing the names there are
void register_method(Method method);                 // replaces one of that name only if it too was a user's

// Options with defaults filled in; ValueError or TypeError naming method and option.
Options complete_options(const Method& method, const Options& given);

// Does what does not depend on severity. ValueError where the method needs statistics that were not given.
Prepared prepare(const Model& model, const std::string& method, const Statistics* statistics = nullptr,
                 const Options& options = {});

// The method's axis for this model and these options, without preparing. ValueError where they do not fit the model.
Axis planned_axis(const Model& model, const MethodSpec& method);

// Methods in order as one with as many axes: each changes what the one before it gave (prune, then quantize). Copies
// share what is prepared; at() may be called from several threads, which then wait for each other.
class Composition {
 public:
  Composition(const Model& model, const std::vector<MethodSpec>& methods, const Statistics* statistics);

  // Each method's, for the unchanged model. A method that counts parts (layers) of a model whose number of parts an
  // earlier one changed takes the nearest step there.
  const std::vector<Axis> axes;

  // One severity a method; where one is neutral, that method does nothing, and where all are, this is the model itself.
  // A method's preparation depends on the model that it gets, so it is kept until a severity before it changes: to walk
  // a grid with the last severity innermost costs the fewest. ValueError out of range, or for another number of
  // severities.
  Model at(const std::vector<double>& severities) const;

 private:
  struct Stages;
  std::shared_ptr<Stages> stages_;
};

// Prepares the first method. `statistics` are the unchanged model's, for every method, also for one whose model an
// earlier one changed. ValueError, before any work, for no methods, an unknown one, or statistics that are missing.
Composition compose(const Model& model, const std::vector<MethodSpec>& methods, const Statistics* statistics = nullptr);

struct CollectOptions {
  std::optional<std::set<Need>> needs;          // none: every one that takes no gradient
  double memory_budget = 1024.0 * 1024 * 1024;  // bytes
  int64_t batch = 8;                            // windows at a time
  LinearFilter filter;
  std::function<void(int64_t done, int64_t total)> progress;  // windows; may throw Interrupted
};

// One forward pass over tokens int64 [windows, length] on the model. Needs of gradients take a second one and a
// backward pass of each window's mean negative log-likelihood, block by block: no more than one block's graph and one
// window's gradients of its weights are held at a time, beside what enters the blocks in a batch and the sums
// themselves, both within the memory budget. Gradients of factored and packed linears are those of the weight
// multiplied out. ValueError for gradients of windows of one token, or of a model that repeats blocks.
Statistics collect(const Model& model, const at::Tensor& tokens, const CollectOptions& options = {});

// What methods need together, by their specs: "wanda", "rtn:group_size=64".
std::set<Need> needs_of(const std::vector<std::string>& specs);

}  // namespace hemostat
