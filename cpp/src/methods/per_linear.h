// Methods that change each linear layer on its own.
#pragma once

#include <exception>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include <hemostat/methods.h>
#include <hemostat/solve.h>

namespace hemostat {

// The options `include` and `exclude`, which all of them take, after the method's own.
std::vector<OptionSpec> with_filter(std::vector<OptionSpec> own = {});
LinearFilter filter_of(const Options& options);

template <typename T>
const T& option(const Options& options, const char* name) {
  return std::get<T>(options.at(name));
}

// A method's look at whether its options fit a model.
using FitCheck = decltype(Method::check);

// ValueError where the filter leaves none.
void check_chosen(const std::string& method, const Model& model, const LinearFilter& filter);

// Throws the exception on. Where an operator found entries that it cannot take, or arithmetic failed, its message names
// the linear: of several, the first that has such entries, else the first.
[[noreturn]] void rethrow_naming(const std::string& method, const std::vector<NamedLinear>& linears,
                                 const std::exception_ptr& thrown);

// What `work` gives, which is about these linears.
template <typename Work>
auto about(const std::string& method, const std::vector<NamedLinear>& linears, const Work& work) {
  try {
    return work();
  } catch (const std::exception&) {
    rethrow_naming(method, linears, std::current_exception());
  }
}

// at(severity) gives the model whose chosen linears are change(name, linear, severity).
using LinearChange = std::function<Linear(const std::string&, const Linear&, double)>;
Prepared per_linear(const std::string& method, Axis axis, const Model& model, const Options& options,
                    LinearChange change);

// The statistics of every chosen linear: ValueError naming the first that has none, others than its size asks for, or
// some that are not finite.
void check_statistics(const std::string& method, const Model& model, const LinearFilter& filter,
                      const Statistics& statistics, Need need);

// ValueError naming the first chosen linear whose input features `size`, the option `option`, does not divide; sizes
// below 1 are no number of weights, and pass.
void check_divides(const std::string& method, const Model& model, const LinearFilter& filter, const std::string& option,
                   int64_t size);

// The factor of each chosen linear's Gram matrix; linears that share an input share theirs. Beyond 1 GiB they lie in
// mapped files: take them to the weight's device.
using GramFactors = std::map<std::string, solve::GramFactor>;
GramFactors gram_factors(const std::string& method, const Model& model, const LinearFilter& filter,
                         const Statistics& statistics, const solve::GramFactorOptions& options);

// Chosen linears that share an input, by what was collected of it.
struct InputGroup {
  const InputStatistics* input;
  std::vector<NamedLinear> linears;
};

// All chosen linears, in the model's order of their inputs.
std::vector<InputGroup> by_input(const Model& model, const LinearFilter& filter, const Statistics& statistics);

}  // namespace hemostat
