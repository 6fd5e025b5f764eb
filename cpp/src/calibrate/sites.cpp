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

// What a foreign module's linears share, only their statistics say.
bool share(const Site& first, const Site& other) {
  return other.input_id == first.input_id || (other.role == Role::other && first.role == Role::other &&
                                              other.input != nullptr && other.input == first.input);
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
    if (inputs.empty() || !share(inputs.back().front(), site)) {
      inputs.emplace_back();
    }
    site.input_id = inputs.back().empty() ? site.input_id : inputs.back().front().input_id;
    inputs.back().push_back(std::move(site));
  }
  return inputs;
}

}  // namespace hemostat
