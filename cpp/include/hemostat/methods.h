// Room `methods`: the registry. A method says what it holds of a model, whatever the severity, and what it changes at
// one; the registry checks options, statistics and severities, and makes of both a Prepared, whose at(severity) gives
// another Model.
#pragma once

#include <any>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <type_traits>
#include <variant>
#include <vector>

#include <hemostat/axis.h>
#include <hemostat/calibrate.h>
#include <hemostat/model.h>
#include <hemostat/options.h>
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
  Range range = {};                  // of a number
  bool divides = false;  // a number of weights, or "row", that divides every changed linear's input features
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

// What a method changes.
enum class Kind { weights, factors, activations, architecture, normalization, input, decoding, user };

std::string name(Kind kind);                   // "weights", …
Kind kind_from_name(const std::string& name);  // ValueError for another name

struct KindProperties {
  bool in_place;              // every block stays where it is
  bool localizable;           // parts of the changed model can be put into the unchanged one
  bool changes_weights;       // isotropic noise as large as the change can stand beside it
  bool takes_blocks = false;  // a foreign module has none
};
KindProperties properties(Kind kind);

using Held = std::any;

// A method on linears: a function of one Site, or of all that share an input. Statistics are handed in, never captured:
// so it runs on those of the unchanged model, and block by block on those of the changed one.
//
// Where something is held, it is all that change_… reads of statistics: its sites have none, so that what is held can
// outlive them.
struct OnLinears {
  // What no severity changes: scores, factors, ranges. At most one of the two; neither: nothing. Large tensors go into
  // the budget, and come back from there on the CPU where they lie in a file.
  std::function<Held(const Site&, const Options&, MemoryBudget&)> hold_site = nullptr;
  std::function<Held(const SharedInput&, const Options&, MemoryBudget&)> hold_input = nullptr;
  // The linear at a severity; exactly one of the two.
  std::function<Linear(const Site&, const Held&, const Options&, double severity)> change_site = nullptr;
  std::function<std::vector<Linear>(const SharedInput&, const Held&, const Options&, double severity)> change_input =
      nullptr;
  // Bytes held of these sites, and arithmetic that grows with their sizes as holding and changing them does. Empty: 0,
  // and the entries of their weights.
  std::function<double(const SharedInput&, const Options&)> holds = nullptr;
  std::function<double(const SharedInput&, const Options&)> costs = nullptr;
  bool packs = false;  // linears come back packed, in as many bits a weight as the severity says
};

// A method on models. Without `hold` nothing is held.
struct OnModel {
  std::function<Held(const Model&, const Statistics*, const Options&)> hold = nullptr;
  std::function<Model(const Model&, const Held&, const Options&, double severity)> change = nullptr;
};

// Another method on linears, at a severity of its own in each block.
struct Allocated {
  std::set<Need> needs;  // what `severities` reads
  std::function<MethodSpec(const Options&)> inner;
  // severity → one a block; statistics are the unchanged model's.
  std::function<std::function<std::vector<double>(double)>(const Model&, const Statistics*, const Options&)> severities;
};

// Of functions with a type of their own in place of Held:
//   on_sites(change)        change(site, options, severity) → Linear
//   on_sites(hold, change)  hold(site, options, budget) → T; change(site, const T&, options, severity) → Linear
//   on_inputs(hold, change) hold(sites, options, budget) → T, for all of them; change as before
template <typename Change>
OnLinears on_sites(Change change) {
  OnLinears result;
  result.change_site = [change](const Site& site, const Held&, const Options& options, double severity) {
    return change(site, options, severity);
  };
  return result;
}

template <typename Hold, typename Change>
OnLinears on_sites(Hold hold, Change change) {
  using Own = std::invoke_result_t<Hold, const Site&, const Options&, MemoryBudget&>;
  OnLinears result;
  result.hold_site = [hold](const Site& site, const Options& options, MemoryBudget& budget) {
    return Held(hold(site, options, budget));
  };
  result.change_site = [change](const Site& site, const Held& held, const Options& options, double severity) {
    return change(site, std::any_cast<const Own&>(held), options, severity);
  };
  return result;
}

template <typename Hold, typename Change>
OnLinears on_inputs(Hold hold, Change change) {
  using Own = std::invoke_result_t<Hold, const SharedInput&, const Options&, MemoryBudget&>;
  OnLinears result;
  result.hold_input = [hold](const SharedInput& sites, const Options& options, MemoryBudget& budget) {
    return Held(hold(sites, options, budget));
  };
  result.change_site = [change](const Site& site, const Held& held, const Options& options, double severity) {
    return change(site, std::any_cast<const Own&>(held), options, severity);
  };
  return result;
}

struct Method {
  std::string name;
  Kind kind = Kind::user;
  std::string description;  // one line
  Axis axis;                // for default options, before a model is known
  std::set<Need> needs;
  std::vector<OptionSpec> options;
  std::variant<OnLinears, OnModel, Allocated>
      change;  // given options that are complete (defaults filled in) and checked
  // The axis for this model and these (complete) options without preparing, so that severities can be planned and
  // checked before any work. Empty: `axis` itself.
  std::function<Axis(const Model&, const Options&)> axis_for = nullptr;
  // What it reads with these (complete) options, where that depends on them. Empty: `needs`, else those by default.
  std::function<std::set<Need>(const Options&)> needs_for = nullptr;
  // ValueError where these (complete) options do not fit this model (a group that does not divide its rows). Seen
  // before any work, by prepare, plan, sweep, surface, compose and localize. Empty: they fit every model.
  std::function<void(const Model&, const Options&)> check = nullptr;

  bool on_linears() const { return !std::holds_alternative<OnModel>(change); }
  bool packs() const { return std::holds_alternative<OnLinears>(change) && std::get<OnLinears>(change).packs; }
};

// All registered methods, ours first, in catalogue order. The registry outlives the program's end on purpose.
std::vector<Method> methods();
const Method& find_method(const std::string& name);  // ValueError listing the names there are
void register_method(Method method);                 // replaces one of that name only if it too was a user's

// Options with defaults filled in; ValueError or TypeError naming method and option.
Options complete_options(const Method& method, const Options& given);

// Calibration of methods on linears block by block (calibrate_blockwise), over tokens int64 [windows, length].
struct Propagation {
  at::Tensor tokens;
  double correct = 0;                           // α, 0 … 1: how far linears are aimed at the unchanged model's outputs
  double correct_damp = 0.1;                    // λ of that, more than 0
  double memory_budget = 1024.0 * 1024 * 1024;  // bytes, of activations and one block's statistics
  int64_t batch = 8;                            // windows at a time
  std::function<void(int64_t done, int64_t total)> progress = nullptr;  // blocks; may throw Interrupted
};

// Does what does not depend on severity. With a propagation each at(severity) is a pass over its tokens, and only
// statistics that a pass does not give are read from `statistics`: those of gradients, and what `owl` allocates by;
// where they are missing they are collected. ValueError where the method needs statistics that were not given, and for
// propagation of a method on models.
Prepared prepare(const Model& model, const std::string& method, const Statistics* statistics = nullptr,
                 const Options& options = {}, const Propagation* propagation = nullptr);

// What a prepared method holds, beside the statistics, in bytes; and arithmetic that grows with the model as preparing
// and applying it do, in entries of weights. 0 for methods on models.
double held_bytes(const Model& model, const MethodSpec& method);
double estimated_work(const Model& model, const MethodSpec& method);

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

struct MethodAtSeverity {
  MethodSpec method;
  double severity;
};

// Methods at severities, in order, each on what the one before gave. Block by block, methods on linears that follow one
// another take one pass together: a linear is changed by each before the next is calibrated. Else (propagate = false)
// every method reads statistics of the unchanged model, as in compose. ValueError, before any work, for no methods, an
// unknown one, or a severity out of range.
Model compress(const Model& model, const std::vector<MethodAtSeverity>& methods, const Propagation& calibration,
               bool propagate = true);

// Predicted damage: a change ΔW of a linear costs about e = ½ Σ_r f_r ΔW_r G ΔW_rᵀ nats per token, known before
// anything is evaluated, with G the Gram matrix of its input and f the row Fisher. The expansion is of second order
// about the unchanged model, linear by linear: it understates cascades from early blocks, and what is beyond about a
// nat.
std::set<Need> predict_needs();

// Of each linear that `changed` has changed, by name. `statistics` are the unchanged model's; of the text that a method
// was calibrated on they flatter it. ValueError where they lack something, or where the change is to other things than
// weights.
std::map<std::string, double> predicted_damage(const Model& model, const Model& changed, const Statistics& statistics);

struct PredictOptions {
  std::optional<std::vector<double>> severities = std::nullopt;  // none: the axis's default grid
  const Statistics* judge = nullptr;                             // to predict by; null: the method's own
};

struct Prediction {
  std::string method;
  Axis axis;
  std::vector<double> severities, delta_nll;           // nats per token, summed over the linears
  std::vector<std::map<std::string, double>> linears;  // of each severity
};

// ValueError for methods that change other things than weights.
Prediction predict(const Model& model, const MethodSpec& method, const Statistics& statistics,
                   const PredictOptions& options = {});

// What methods need together, by their specs: "wanda", "rtn:group_size=64"; "predict": predict_needs(). With propagate,
// what passes block by block do not give.
std::set<Need> needs_of(const std::vector<std::string>& specs, bool propagate = false);

}  // namespace hemostat
