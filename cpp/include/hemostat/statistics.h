// Room `statistics`: what a calibration pass collects about the inputs of linear layers, and about the gradients of
// their weights, once, for every method that needs it. Streaming, mergeable, in a bounded memory. Accumulation is in
// float32 per batch and float64 across batches for the vectors; what has the size of a matrix is summed in float32.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

namespace hemostat {

enum class Need {
  column_norm,
  absmax,
  absmean,
  gram,
  mean,
  gradient_mean,
  gradient_absmean,
  gradient_square,
  row_fisher,
  token_fisher,
  tokens
};

std::string name(Need need);                   // "column_norm", …
Need need_from_name(const std::string& name);  // ValueError for another name
std::set<Need> every_need();                   // of inputs
std::set<Need> gradient_needs();               // of gradients

// Tensors of at most `bytes` in memory; beyond that, tensors mapped from unlinked temporary files (in TMPDIR, else
// /tmp), which the system pages out.
class MemoryBudget {
 public:
  explicit MemoryBudget(double bytes = 1024.0 * 1024 * 1024) : remaining_(bytes) {}
  at::Tensor zeros(at::IntArrayRef sizes, at::ScalarType dtype, c10::Device device);
  at::Tensor hold(const at::Tensor& tensor);  // the tensor where it fits, else its copy in a file, on the CPU
  bool take(double bytes);                    // whether they fit, and then they are taken
  double remaining() const { return remaining_; }

 private:
  double remaining_;
};

// Sums over the tokens that reached one input; linears that share an input (q, k, v) share one of these. Of no token
// at all (count 0: an expert that was never chosen) all of it is 0.
class InputStatistics {
 public:
  InputStatistics(int64_t in_features, c10::Device device, const std::set<Need>& needs, MemoryBudget& budget);

  // x [..., in_features], any floating dtype. NaN and Inf are summed as they are.
  void add(const at::Tensor& x);
  void merge(const InputStatistics& other);            // sums and maxima of both; ValueError unless mergeable
  bool mergeable(const InputStatistics& other) const;  // of the same size and needs

  // What stands for these, of the same needs, where no token came: features are alike and independent. norm, absmax and
  // absmean are 1, mean is 0, gram the identity.
  InputStatistics alike() const;

  int64_t count() const { return count_; }  // tokens
  int64_t in_features() const { return in_features_; }
  c10::Device device() const { return device_; }
  const std::set<Need>& needs() const { return needs_; }
  bool has(Need need) const { return needs_.count(need) > 0; }
  bool finite(Need need) const;  // whether what was collected for it is, throughout; ValueError where that is nothing
  at::Tensor norm() const;       // float32 [in_features]: root mean square of each feature
  at::Tensor absmax() const;     // float32 [in_features]
  at::Tensor absmean() const;    // float32 [in_features]
  at::Tensor mean() const;       // float32 [in_features]: with its sign
  at::Tensor gram() const;       // float32 [in_features, in_features]: XᵀX / count

 private:
  void require(Need need) const;
  at::Tensor all_equal(double value) const;
  double tokens() const;  // to divide by
  int64_t in_features_, count_ = 0;
  c10::Device device_;
  bool alike_ = false;
  std::set<Need> needs_;
  at::Tensor sum_squares_, abs_sum_, absmax_, gram_, sum_;
};

// Sums over the gradients of a weight, each of one sequence's loss; and over the squared gradients of what the linear
// gives for each token.
class GradientStatistics {
 public:
  // Of the needs, those that take a gradient.
  GradientStatistics(int64_t out_features, int64_t in_features, c10::Device device, const std::set<Need>& needs,
                     MemoryBudget& budget);

  // gradient [out_features, in_features], any floating dtype; undefined: the loss doesn't depend on the weight.
  void add(const at::Tensor& gradient);
  // gradient [..., out_features] of a sequence's summed negative log-likelihood with respect to what the linear gives,
  // of the tokens that it is given; then the end of that sequence of so many tokens, given or not.
  void add_rows(const at::Tensor& gradient);
  void end_rows(int64_t tokens);
  void merge(const GradientStatistics& other);            // the sums of both; ValueError unless mergeable
  bool mergeable(const GradientStatistics& other) const;  // of the same size and needs

  int64_t count() const { return count_; }  // sequences
  int64_t out_features() const { return out_features_; }
  int64_t in_features() const { return in_features_; }
  const std::set<Need>& needs() const { return needs_; }
  bool has(Need need) const { return needs_.count(need) > 0; }
  bool finite(Need need) const;  // whether what was collected for it is, throughout; ValueError where that is nothing
  at::Tensor mean() const;       // float32 [out_features, in_features]: mean gradient
  at::Tensor absmean() const;    // float32 [out_features, in_features]: mean |gradient|
  at::Tensor square() const;  // float32 [out_features, in_features]: mean gradient², the empirical Fisher information
  // float32 [out_features]: f_r = E_t[(∂ΣNLL/∂y_{t,r})²] over all tokens, so that a change ΔW of the weight costs about
  // ½ Σ_r f_r ΔW_r E[x xᵀ] ΔW_rᵀ nats per token.
  at::Tensor row_fisher() const;
  // float32 [windows, length]: Σ_r (∂ΣNLL/∂y_{t,r})² / out_features of each token, which says how much the loss depends
  // on what the linear gives there. ValueError of an expert, which is not given every token.
  at::Tensor token_fisher() const;

 private:
  at::Tensor mean_of(const at::Tensor& sum, Need need) const;
  int64_t out_features_, in_features_, count_ = 0, tokens_ = 0;
  std::set<Need> needs_;
  at::Tensor sum_, abs_sum_, sum_squares_;
  at::Tensor row_squares_;                 // float64 [out_features]
  std::vector<at::Tensor> token_squares_;  // float32 [length] of each sequence
};

// By the linears' names.
class Statistics {
 public:
  std::map<std::string, std::shared_ptr<InputStatistics>> inputs;
  std::map<std::string, std::shared_ptr<GradientStatistics>> gradients;
  at::Tensor tokens;  // int64 [windows, length]: the calibration text itself, for what runs the model; undefined: none

  bool contains(const std::string& linear) const { return inputs.count(linear) > 0; }
  const InputStatistics& at(const std::string& linear) const;           // ValueError naming it where there is none
  const GradientStatistics& gradient(const std::string& linear) const;  // the same
  void merge(const Statistics& other);                                  // ValueError where the names differ
  std::set<Need> needs() const;  // what every input, and every weight, has, and the tokens
};

}  // namespace hemostat
