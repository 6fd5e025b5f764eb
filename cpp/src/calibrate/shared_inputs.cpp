#include "calibrate/shared_inputs.h"

#include <algorithm>
#include <utility>

namespace hemostat {
namespace {

bool one_tensor(const at::Tensor& x, const at::Tensor& y) {
  return x.is_same(y) || (x.defined() && y.defined() && x.is_alias_of(y) && x.sizes() == y.sizes() &&
                          x.strides() == y.strides() && x.storage_offset() == y.storage_offset());
}

class Recorder : public HeapTrimmer {
 public:
  explicit Recorder(const std::vector<NamedLinear>& linears) {
    for (const NamedLinear& named : linears) {
      calls_.emplace(named.name, 0);
    }
  }

  void linear_input(size_t, const std::vector<std::string>& names, const at::Tensor& x) override {
    const std::string& name = names.front();
    const auto calls = calls_.find(name);
    if (calls == calls_.end() || ++calls->second > 1) {
      return;
    }
    const auto found =
        std::find_if(recent_.begin(), recent_.end(), [&](const auto& each) { return one_tensor(each.second, x); });
    if (found != recent_.end()) {
      leaders_.emplace(name, found->first);
      return;
    }
    recent_.emplace_back(name, x);  // held, so that no other tensor takes its place in memory
    if (recent_.size() > kRecent) {
      recent_.erase(recent_.begin());
    }
  }

  // Without linears that are called more than once: whether one call is shared says nothing of the others.
  std::map<std::string, std::string> leaders() const {
    std::map<std::string, std::string> once = leaders_;
    std::erase_if(once, [&](const auto& entry) { return calls_.at(entry.first) > 1 || calls_.at(entry.second) > 1; });
    return once;
  }

 private:
  static constexpr size_t kRecent = 4;

  std::map<std::string, int64_t> calls_;
  std::map<std::string, std::string> leaders_;
  std::vector<std::pair<std::string, at::Tensor>> recent_;
};

}  // namespace

std::map<std::string, std::string> shared_inputs(const Model& model, const at::Tensor& batch,
                                                 const std::vector<NamedLinear>& linears) {
  Recorder recorder(linears);
  hidden_states(model, batch, {.observer = &recorder});
  return recorder.leaders();
}

SharedInputs::SharedInputs(std::map<std::string, std::string> leaders, Observer& inner)
    : leaders_(std::move(leaders)), inner_(inner) {
  for (const auto& [follower, leader] : leaders_) {
    ++leads_[leader].followers;
  }
}

void SharedInputs::linear_input(size_t block, const std::vector<std::string>& names, const at::Tensor& x) {
  const std::string& name = names.front();
  if (const auto found = leaders_.find(name); found != leaders_.end()) {
    Lead& lead = leads_.at(found->second);
    broken_ |= !one_tensor(lead.x, x) || ++calls_[name] != lead.calls;
    if (--lead.left == 0) {
      lead.x = at::Tensor();
    }
    return;
  }
  if (const auto found = leads_.find(name); found != leads_.end()) {
    Lead& lead = found->second;
    broken_ |= lead.left > 0;
    lead = {.x = x, .followers = lead.followers, .left = lead.followers, .calls = lead.calls + 1};
  }
  inner_.linear_input(block, names, x);
}

bool SharedInputs::hold() const {
  return !broken_ && std::all_of(leads_.begin(), leads_.end(), [](const auto& lead) { return lead.second.left == 0; });
}

}  // namespace hemostat
