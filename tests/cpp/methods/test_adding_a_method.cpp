// A whole method on linears, as docs/adding-an-operator.md shows it.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <hemostat/methods.h>

#include "../random_model.h"

namespace hemostat {
namespace {

// weight · (1 − severity · (1 − activity)), where activity is a feature's norm over the largest.
Linear faded(const Site& site, const Options&, double severity) {
  const at::Tensor weight = site.linear->dense(), norm = site.input->norm().to(weight.device());
  const at::Tensor kept = 1 - severity * (1 - norm / norm.max());
  return site.linear->with_weight((weight * kept).to(weight.scalar_type()));
}

Method fade() {
  return {.name = "fade",
          .kind = Kind::weights,
          .description = "scales weights down by how rarely their input is active",
          .axis = {.name = "fade", .unit = "fraction", .default_grid = {.1, .2, .5}},
          .needs = {Need::column_norm},
          .options = {},
          .change = on_sites(faded)};
}

TEST(AddingAMethod, RunsOnDenseStatisticsAndBlockByBlock) {
  register_method(fade());
  const Model model = testing::random_model();
  const at::Tensor tokens = testing::random_tokens(4, 20);
  const Statistics statistics = collect(model, tokens);
  const Model dense = prepare(model, "fade", &statistics).at(.5);
  const at::Tensor norm = statistics.at("model.layers.0.self_attn.o_proj").norm();
  const at::Tensor expected = model.blocks[0].attention.o.weight * (1 - .5 * (1 - norm / norm.max()));
  EXPECT_TRUE(at::allclose(dense.blocks[0].attention.o.weight, expected));

  const Propagation propagation{.tokens = tokens};
  const Model blockwise = prepare(model, "fade", nullptr, {}, &propagation).at(.5);
  EXPECT_TRUE(at::allclose(blockwise.blocks[0].attention.q.weight, dense.blocks[0].attention.q.weight, 1e-4, 1e-5));
  EXPECT_FALSE(at::allclose(blockwise.blocks[2].mlp.down.weight, dense.blocks[2].mlp.down.weight, 1e-3, 1e-4));
}

}  // namespace
}  // namespace hemostat
