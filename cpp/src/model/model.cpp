#include <set>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <hemostat/error.h>
#include <hemostat/model.h>

#include "cast.h"
#include "tensor_slots.h"

namespace hemostat {

at::ScalarType Model::dtype() const { return foreign ? foreign.dtype : embedding.scalar_type(); }

c10::Device Model::device() const { return foreign ? foreign.device : embedding.device(); }

bool Model::tied() const {
  return head.linear.weight.defined() && head.linear.weight.is_alias_of(embedding) &&
         head.linear.weight.sizes() == embedding.sizes();
}

namespace {

// Σ count(entries, bits an entry) over what a checkpoint of the model would hold.
template <typename Count>
double total(const Model& model, const Count& count) {
  double sum = 0;
  for_each_stored(model, [&](const std::string&, const at::Tensor& tensor) {
    sum += count(static_cast<double>(tensor.numel()), 8.0 * static_cast<double>(tensor.element_size()));
  });
  for (const NamedLinear& named : linears(model, {.include = {"*"}, .exclude = {}})) {
    const Linear* linear = named.linear;
    if (named.role == Role::head && model.tied()) {
      continue;
    }
    const auto entries = static_cast<double>(linear->out_features() * linear->in_features());
    if (linear->packed) {
      sum += count(entries, linear->packed->bits_per_weight());
    } else if (linear->stored_bits > 0) {
      const double bits = 8.0 * static_cast<double>(linear->weight.element_size());
      sum += count(entries, linear->stored_bits) - count(entries, bits);
    }
  }
  return sum;
}

}  // namespace

int64_t Model::parameters() const {
  return static_cast<int64_t>(total(*this, [](double entries, double) { return entries; }));
}

double Model::bytes() const {
  return total(*this, [](double entries, double bits) { return entries * bits / 8; });
}

Model Model::replace(const std::map<std::string, at::Tensor>& weights) const {
  std::set<std::string> used;
  std::vector<std::string> everything{"*"};
  Model result =
      map_linears(*this, {.include = everything, .exclude = {}}, [&](const std::string& name, const Linear& linear) {
        const auto found = weights.find(name);
        if (found == weights.end()) {
          return linear;
        }
        const at::Tensor& weight = found->second;
        if (!weight.defined() || !c10::isFloatingType(weight.scalar_type())) {
          throw TypeError(fmt::format("hemostat.Model.replace: {} must be a floating tensor, got {}", name,
                                      weight.defined() ? c10::toString(weight.scalar_type()) : "none"));
        }
        if (weight.dim() != 2 || weight.size(0) != linear.out_features() || weight.size(1) != linear.in_features()) {
          throw ValueError(fmt::format("hemostat.Model.replace: {} has shape [{}], but the layer takes [{}, {}]", name,
                                       fmt::join(weight.sizes(), ", "), linear.out_features(), linear.in_features()));
        }
        if (weight.device() != device()) {
          throw ValueError(fmt::format("hemostat.Model.replace: {} is on {}, but the model is on {}", name,
                                       weight.device().str(), device().str()));
        }
        used.insert(name);
        return linear.with_weight(cast(weight, dtype(), "hemostat.Model.replace: " + name));
      });
  for (const auto& [name, weight] : weights) {
    if (!used.count(name)) {
      throw ValueError(fmt::format("hemostat.Model.replace: the model has no linear named '{}'", name));
    }
  }
  return result;
}

}  // namespace hemostat
