// Which linears of a foreign module read one tensor: no structure says so, a run does.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>

#include <hemostat/model.h>

#include "model/heap_trimmer.h"

namespace hemostat {

// Of each of these linears that reads a tensor that another of them reads before it: that other one. From a run on
// `batch`.
std::map<std::string, std::string> shared_inputs(const Model& model, const at::Tensor& batch,
                                                 const std::vector<NamedLinear>& linears);

// Sees whether linears go on to share their inputs as `leaders` says, and passes on what leads alone.
class SharedInputs : public HeapTrimmer {
 public:
  SharedInputs(std::map<std::string, std::string> leaders, Observer& inner);

  void linear_input(size_t block, const std::vector<std::string>& names, const at::Tensor& x) override;

  // Whether all that was said to be shared was, in every call so far.
  bool hold() const;

 private:
  struct Lead {
    at::Tensor x;                    // until all that share it have read it
    size_t followers = 0, left = 0;  // of this call
    int64_t calls = 0;
  };

  std::map<std::string, std::string> leaders_;
  std::map<std::string, Lead> leads_;
  std::map<std::string, int64_t> calls_;  // of those that follow
  Observer& inner_;
  bool broken_ = false;
};

}  // namespace hemostat
