#include <hemostat/normalize.h>

#include <vector>

#include <fmt/format.h>

#include <hemostat/error.h>

namespace hemostat::normalize {
namespace {

// Deepest first.
std::vector<Norm*> residual_norms(Model& model) {
  std::vector<Norm*> norms;
  const auto visit = [&](Norm& norm) {
    if (norm.kind != NormKind::none) {
      norms.push_back(&norm);
    }
  };
  visit(model.final_norm);
  for (auto block = model.blocks.rbegin(); block != model.blocks.rend(); ++block) {
    visit(block->mlp_norm);
    visit(block->attention_norm);
  }
  return norms;
}

}  // namespace

int64_t norm_count(const Model& model) {
  Model copy = model;
  return static_cast<int64_t>(residual_norms(copy).size());
}

Model drop_norms(const Model& model, const DropNormsOptions& options) {
  Model result = model;
  const std::vector<Norm*> norms = residual_norms(result);
  if (options.count < 0 || options.count > static_cast<int64_t>(norms.size())) {
    throw ValueError(
        fmt::format("hemostat.normalize.drop_norms: count is {}, but the model has {} norms on its residual "
                    "stream",
                    options.count, norms.size()));
  }
  for (int64_t i = 0; i < options.count; ++i) {
    *norms[i] = Norm{};
  }
  return result;
}

}  // namespace hemostat::normalize
