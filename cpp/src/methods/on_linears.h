// What methods on linears share: their options, their checks, and how the registry runs them.
#pragma once

#include <exception>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include <hemostat/methods.h>

namespace hemostat {

// The options `include` and `exclude`, which the registry gives all of them, after the method's own.
std::vector<OptionSpec> with_filter(std::vector<OptionSpec> own);
LinearFilter filter_of(const Options& options);

template <typename T>
const T& option(const Options& options, const char* name) {
  return std::get<T>(options.at(name));
}

// A method's look at whether its options fit a model.
using FitCheck = decltype(Method::check);

// ValueError where the filter leaves none.
void check_chosen(const std::string& method, const Model& model, const LinearFilter& filter);

// ValueError naming the first chosen linear whose input features `size`, the option `option`, does not divide; sizes
// below 1 are no number of weights, and pass.
void check_divides(const std::string& method, const Model& model, const LinearFilter& filter, const std::string& option,
                   int64_t size);

// Throws the exception on. Where an operator found entries that it cannot take, or arithmetic failed, its message names
// the linear: of several, the first that has such entries, else the first.
[[noreturn]] void rethrow_naming(const std::string& method, const SharedInput& sites, const std::exception_ptr& thrown);

// ValueError naming the first site that lacks the statistic, has one of another size, or one that is not finite.
void check_statistics(const std::string& method, const SharedInput& sites, Need need);

// What `work` gives, which is about these sites.
template <typename Work>
auto about(const std::string& method, const SharedInput& sites, const Work& work) {
  try {
    return work();
  } catch (const std::exception&) {
    rethrow_naming(method, sites, std::current_exception());
  }
}

// A matrix of float32 in the features of the sites' input: what most solvers hold, and what they multiply weights by.
double matrix_of_input(const SharedInput& sites, const Options& options);
double products_with_input(const SharedInput& sites, const Options& options);

// A method on linears with its complete options, as one model meets it.
class LinearMethod {
 public:
  // ValueError where the options leave no linear. `statistics` are the unchanged model's, for what is allocated by
  // them.
  LinearMethod(const Method& method, const Options& options, const Model& model, const Statistics* statistics);

  const LinearFilter& filter() const { return filter_; }
  bool changes(const std::string& linear) const { return indices_.count(linear) > 0; }

  // ValueError where the statistics of some sites that it changes are not what it needs.
  void check(const SharedInput& sites) const;

  // What it holds of them, once they are checked. Sites to change have no statistics then, if it holds anything.
  std::vector<Held> hold(SharedInput sites, MemoryBudget& budget) const;
  bool holds() const { return linears_.hold_site || linears_.hold_input; }
  std::vector<Linear> change(SharedInput sites, const std::vector<Held>& held, double severity) const;

 private:
  double severity_of(const Site& site, double severity) const;  // the severity itself, unless the method allocates
  bool is_left(const SharedInput& sites) const;                 // nothing is known of what a foreign module never calls
  void number(SharedInput& sites) const;

  const Method& method_;
  Options options_;
  const OnLinears& linears_;
  std::set<Need> needs_;
  LinearFilter filter_;
  double neutral_;
  std::map<std::string, size_t> indices_;
  std::set<std::string> never_called_;
  std::function<std::vector<double>(double)> allocated_;  // empty: one for all
};

// Models whose linears the methods change, block by block, each at its severity.
struct LinearStep {
  const LinearMethod* method;
  double severity;
};
Model changed_blockwise(const Model& model, const std::vector<LinearStep>& steps, const std::set<Need>& needs,
                        const Statistics* gradients, const Propagation& propagation);

// These needs of the model as it is: collected of the linears that the filter chooses, where `given` lacks them.
Statistics unchanged_statistics(const Model& model, const std::set<Need>& needs, const LinearFilter& filter,
                                const Statistics* given, const Propagation& propagation);

// The linears that any of the filters chooses, by their names.
LinearFilter any_of(const Model& model, const std::vector<LinearFilter>& filters);

// ValueError naming `operation` for tokens or a correction that cannot be.
void check_propagation(const std::string& operation, const Model& model, const Propagation& propagation);

// The needs that such a pass serves, and the others.
std::set<Need> needs_of_inputs(const std::set<Need>& needs);
std::set<Need> needs_of_unchanged(const Method& method, const Options& options);

// What a method reads with these complete options.
std::set<Need> needs_with(const Method& method, const Options& options);

}  // namespace hemostat
