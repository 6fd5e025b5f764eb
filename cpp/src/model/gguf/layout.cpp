#include "model/gguf/layout.h"

#include <algorithm>
#include <map>
#include <optional>
#include <utility>

#include <ATen/ops/arange.h>
#include <fmt/format.h>

#include <hemostat/error.h>

#include "model/config.h"
#include "model/family_fit.h"
#include "model/tensor_slots.h"

namespace hemostat::gguf {
namespace {

enum class Kind { linear, rotated, norm, precise };

struct Name {
  std::string Naming::* ours;
  std::string GgufNames::* theirs;
  Kind kind = Kind::linear;
};

constexpr Name kOfModel[] = {
    {&Naming::embedding, &GgufNames::embedding},
    {&Naming::positions, &GgufNames::positions, Kind::precise},
    {&Naming::final_norm, &GgufNames::final_norm, Kind::norm},
    {&Naming::head, &GgufNames::head},
};
constexpr Name kOfBlock[] = {
    {&Naming::q, &GgufNames::q, Kind::rotated},
    {&Naming::k, &GgufNames::k, Kind::rotated},
    {&Naming::v, &GgufNames::v},
    {&Naming::o, &GgufNames::o},
    {&Naming::q_norm, &GgufNames::q_norm, Kind::norm},
    {&Naming::k_norm, &GgufNames::k_norm, Kind::norm},
    {&Naming::sink_logits, &GgufNames::sink_logits, Kind::precise},
    {&Naming::gate, &GgufNames::gate},
    {&Naming::up, &GgufNames::up},
    {&Naming::down, &GgufNames::down},
    {&Naming::router, &GgufNames::router, Kind::precise},
    // Before the others: a family that has no mlp_norm may call one of these what LLaMA calls that.
    {&Naming::attention_output_norm, &GgufNames::attention_output_norm, Kind::norm},
    {&Naming::mlp_output_norm, &GgufNames::mlp_output_norm, Kind::norm},
    {&Naming::attention_norm, &GgufNames::attention_norm, Kind::norm},
    {&Naming::mlp_norm, &GgufNames::mlp_norm, Kind::norm},
};
constexpr Name kOfExpert[] = {
    {&Naming::expert_gate, &GgufNames::expert_gate},
    {&Naming::expert_up, &GgufNames::expert_up},
    {&Naming::expert_down, &GgufNames::expert_down},
};

struct Found {
  std::string name;
  Kind kind;
  bool expert = false;
};

// A tensor of the model under the name that files give it; `name` within `prefix`.
template <size_t N>
std::optional<Found> find(const Name (&list)[N], const std::string& name, const Family& family, const std::string& in) {
  for (const Name& entry : list) {
    const std::string& ours = family.names.*entry.ours;
    const std::string theirs = in + family.gguf.names.*entry.theirs;
    if (name == ours) {
      return Found{theirs + ".weight", entry.kind};
    }
    for (const char* kind : {".weight", ".bias"}) {
      if (name == ours + kind) {
        return Found{theirs + kind, entry.kind};
      }
    }
  }
  return std::nullopt;
}

std::optional<Found> find(const std::string& name, const Family& family) {
  const Naming& names = family.names;
  if (!name.starts_with(names.block)) {
    return find(kOfModel, name, family, "");
  }
  const size_t begin = names.block.size(), end = std::min(name.find('.', begin), name.size() - 1);
  const std::string within = name.substr(end + 1), prefix = fmt::format("blk.{}.", name.substr(begin, end - begin));
  if (within.starts_with(names.expert)) {
    const size_t dot = within.find('.', names.expert.size());
    if (auto found = find(kOfExpert, within.substr(std::min(dot, within.size() - 1) + 1), family, prefix)) {
      found->expert = true;
      return found;
    }
  }
  return find(kOfBlock, within, family, prefix);
}

}  // namespace

std::vector<int64_t> FileTensor::shape() const {
  std::vector<int64_t> result = parts.front().sizes;
  if (experts) {
    result.insert(result.begin(), static_cast<int64_t>(parts.size()));
    return result;
  }
  result.front() = 0;
  for (const Part& part : parts) {
    result.front() += part.sizes.front();
  }
  return result;
}

std::vector<FileTensor> layout(const Model& model) {
  const Family& family = family_of(model.config);
  std::vector<FileTensor> tensors;
  std::map<std::string, size_t> numbers;
  for_each_stored(shapes_only(model), [&](const std::string& name, const at::Tensor& slot) {
    const std::optional<Found> found = find(name, family);
    if (!found) {
      throw ValueError(fmt::format("hemostat.Model: a GGUF file has no place for the tensor '{}'", name));
    }
    const auto [number, first] = numbers.emplace(found->name, tensors.size());
    if (first) {
      const bool weight = found->name.ends_with(".weight");
      const bool precise = slot.dim() == 1 || !weight || found->kind == Kind::precise;
      tensors.push_back({.name = found->name, .parts = {}, .experts = found->expert, .precise = precise});
    }
    const bool norm_weight = found->kind == Kind::norm && found->name.ends_with(".weight");
    tensors[number->second].parts.push_back({.name = name,
                                             .sizes = slot.sizes().vec(),
                                             .adjacent = found->kind == Kind::rotated && family.gguf.adjacent_pairs,
                                             .offset = norm_weight ? family.shape.norm_offset : 0});
  });
  return tensors;
}

at::Tensor row_order(int64_t rows, int64_t head_dim, bool to_file) {
  const int64_t half = head_dim / 2;
  const at::Tensor numbers = at::arange(rows);
  return (to_file ? numbers.view({-1, 2, half}) : numbers.view({-1, half, 2})).transpose(1, 2).reshape(-1);
}

}  // namespace hemostat::gguf
