#include "stored_form.h"

#include <algorithm>
#include <functional>
#include <utility>
#include <vector>

#include <ATen/ops/cat.h>
#include <ATen/ops/stack.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <hemostat/error.h>

#include "config.h"
#include "families/family.h"
#include "tensor_slots.h"

namespace hemostat {
namespace {

using Order = Stored::Order;
using Scope = Stored::Scope;

// One stored tensor, and the model's: of each expert, or of none, those of its parts.
struct Place {
  const Stored* stored;
  std::string name;
  std::vector<std::vector<std::string>> parts;
  bool matrix;  // a weight, not a bias
  int64_t heads;
};

void for_each_place(const Model& model, bool writing, const std::function<void(const Place&)>& function) {
  const Naming& names = model.config.names;
  const auto visit = [&](const Stored& stored, const std::string& prefix, int64_t experts, int64_t heads) {
    for (const bool matrix : {true, false}) {
      Place place{.stored = &stored,
                  .name = prefix + stored.name + (matrix ? stored.weight : stored.bias),
                  .parts = {},
                  .matrix = matrix,
                  .heads = heads};
      const char* kind = matrix ? ".weight" : ".bias";
      for (int64_t expert = 0; expert < std::max<int64_t>(experts, 1); ++expert) {
        const std::string inside =
            stored.scope == Scope::experts ? fmt::format("{}{}{}.", prefix, names.expert, expert) : prefix;
        std::vector<std::string>& parts = place.parts.emplace_back();
        for (const std::string& part : stored.parts) {
          parts.push_back(inside + part + kind);
        }
      }
      function(place);
    }
  };
  for (const Stored& stored : family_of(model.config).stored) {
    if (writing && stored.read_only) {
      continue;
    }
    if (stored.scope == Scope::model) {
      visit(stored, "", 0, 1);
      continue;
    }
    for (size_t i = 0; i < model.blocks.size(); ++i) {
      const Block& block = model.blocks[i];
      const auto experts = static_cast<int64_t>(block.experts.mlps.size());
      if (stored.scope == Scope::block || experts > 0) {
        visit(stored, fmt::format("{}{}.", names.block, i), experts, block.attention.heads);
      }
    }
  }
}

std::vector<at::Tensor> split(const at::Tensor& whole, const Place& place, const std::vector<int64_t>& rows) {
  std::vector<at::Tensor> parts;
  const auto count = static_cast<int64_t>(rows.size());
  for (int64_t i = 0, first = 0; i < count; first += rows[i++]) {
    switch (place.stored->order) {
      case Order::sequence:
        parts.push_back(whole.narrow(0, first, rows[i]));
        break;
      case Order::per_head:
        parts.push_back(whole.unflatten(0, {place.heads, count, -1}).select(1, i).flatten(0, 1));
        break;
      case Order::alternating:
        parts.push_back(whole.unflatten(0, {-1, count}).select(1, i));
        break;
    }
  }
  return parts;
}

at::Tensor joined(const std::vector<at::Tensor>& parts, const Place& place) {
  switch (place.stored->order) {
    case Order::sequence:
      return parts.size() == 1 ? parts.front() : at::cat(parts);
    case Order::per_head: {
      std::vector<at::Tensor> heads;
      for (const at::Tensor& part : parts) {
        heads.push_back(part.unflatten(0, {place.heads, -1}));
      }
      return at::stack(heads, 1).flatten(0, 2);
    }
    case Order::alternating:
      return at::stack(parts, 1).flatten(0, 1);
  }
  return {};
}

at::Tensor turned(const at::Tensor& tensor, const Place& place) {
  return place.stored->transposed && place.matrix ? tensor.transpose(-1, -2) : tensor;
}

// As products read it: rows or columns lie together.
at::Tensor readable(const at::Tensor& tensor) {
  const bool reads = tensor.dim() != 2 || tensor.stride(0) == 1 || tensor.stride(1) == 1;
  return reads ? tensor : tensor.contiguous();
}

}  // namespace

NamedTensors taken_apart(NamedTensors stored, const Model& model, const std::string& where) {
  std::map<std::string, std::vector<int64_t>> shapes;
  for_each_stored(model, [&](const std::string& name, const at::Tensor& slot) { shapes[name] = slot.sizes().vec(); });
  NamedTensors result;
  for_each_place(model, /*writing=*/false, [&](const Place& place) {
    const auto found = stored.find(place.name);
    const bool known = shapes.count(place.parts.front().front()) != 0;
    if (found == stored.end() || !known) {
      return;
    }
    const at::Tensor whole = turned(found->second, place);
    std::vector<int64_t> rows, expected = shapes.at(place.parts.front().front());
    for (const std::string& part : place.parts.front()) {
      rows.push_back(shapes.at(part).front());
    }
    expected.front() = 0;
    for (const int64_t count : rows) {
      expected.front() += count;
    }
    const bool many = place.stored->scope == Scope::experts;
    if (many) {
      expected.insert(expected.begin(), static_cast<int64_t>(place.parts.size()));
    }
    if (whole.sizes() != at::IntArrayRef(expected)) {
      if (place.stored->transposed && place.matrix) {
        std::swap(expected[expected.size() - 2], expected.back());
      }
      throw ValueError(fmt::format("hemostat.Model.load: {}: tensor '{}' has shape [{}], but the config asks for [{}]",
                                   where, place.name, fmt::join(found->second.sizes(), ", "),
                                   fmt::join(expected, ", ")));
    }
    stored.erase(found);
    for (size_t expert = 0; expert < place.parts.size(); ++expert) {
      const at::Tensor own = many ? whole.select(0, static_cast<int64_t>(expert)) : whole;
      const std::vector<at::Tensor> parts = split(own, place, rows);
      for (size_t i = 0; i < parts.size(); ++i) {
        result[place.parts[expert][i]] = readable(parts[i]);
      }
    }
  });
  result.merge(stored);
  if (!stored.empty()) {
    throw ValueError(fmt::format("hemostat.Model.load: {}: tensor '{}' is there twice, once with others in one tensor",
                                 where, stored.begin()->first));
  }
  return result;
}

NamedTensors put_together(NamedTensors tensors, const Model& model) {
  NamedTensors result;
  for_each_place(model, /*writing=*/true, [&](const Place& place) {
    std::vector<at::Tensor> of_experts;
    for (const std::vector<std::string>& names : place.parts) {
      std::vector<at::Tensor> parts;
      for (const std::string& name : names) {
        const auto found = tensors.find(name);
        if (found == tensors.end()) {
          return;  // no such bias, or no such part of a block
        }
        parts.push_back(found->second);
      }
      of_experts.push_back(joined(parts, place));
    }
    for (const std::vector<std::string>& names : place.parts) {
      for (const std::string& name : names) {
        tensors.erase(name);
      }
    }
    const bool many = place.stored->scope == Scope::experts;
    result[place.name] = turned(many ? at::stack(of_experts) : of_experts.front(), place).contiguous();
  });
  result.merge(tensors);
  return result;
}

}  // namespace hemostat
