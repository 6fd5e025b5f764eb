// Sums over what reaches chosen linears in a pass.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include <hemostat/statistics.h>

#include "model/heap_trimmer.h"

namespace hemostat {

class InputCollector : public HeapTrimmer {
 public:
  void linear_input(size_t, const std::vector<std::string>& names, const at::Tensor& x) override {
    for (const std::string& name : names) {  // they share the statistics
      const auto found = inputs.find(name);
      if (found != inputs.end()) {
        found->second->add(x);
        return;
      }
    }
  }

  std::map<std::string, std::shared_ptr<InputStatistics>> inputs;  // by linears' names
};

}  // namespace hemostat
