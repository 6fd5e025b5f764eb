#include <map>
#include <string>

#include <hemostat/calibrate.h>

namespace hemostat {
namespace {

template <typename Collected>
const Collected* collected(const std::map<std::string, std::shared_ptr<Collected>>& all, const std::string& name) {
  const auto found = all.find(name);
  return found == all.end() ? nullptr : found->second.get();
}

}  // namespace

std::vector<SharedInput> sites_of(const Model& model, const LinearFilter& filter, const Statistics* statistics) {
  std::vector<SharedInput> inputs;
  std::map<std::string, size_t> indices;
  for (const NamedLinear& named : linears(model, filter)) {
    Site site{.name = named.name,
              .role = named.role,
              .input_id = named.input_id,
              .block = named.block,
              .index = indices.emplace(named.name, indices.size()).first->second,
              .linear = named.linear};
    if (statistics != nullptr) {
      site.input = collected(statistics->inputs, named.name);
      site.gradient = collected(statistics->gradients, named.name);
    }
    if (inputs.empty() || inputs.back().front().input_id != named.input_id) {
      inputs.emplace_back();
    }
    inputs.back().push_back(std::move(site));
  }
  return inputs;
}

}  // namespace hemostat
