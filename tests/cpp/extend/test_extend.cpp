#include <vector>

#include <gtest/gtest.h>

#include <hemostat/error.h>
#include <hemostat/extend.h>

#include "../random_model.h"

namespace hemostat {
namespace {

using hemostat::testing::origins;
using hemostat::testing::random_model;
using hemostat::testing::random_tokens;

TEST(DuplicateLayers, RepeatsTheMiddleInPlace) {
  const Model model = random_model({.layers = 4});
  EXPECT_EQ(origins(extend::duplicate_layers(model, {.count = 0})), (std::vector<int64_t>{0, 1, 2, 3}));
  EXPECT_EQ(origins(extend::duplicate_layers(model, {.count = 2})), (std::vector<int64_t>{0, 1, 1, 2, 2, 3}));
  EXPECT_EQ(origins(extend::duplicate_layers(model, {.count = 4})), (std::vector<int64_t>{0, 0, 1, 1, 2, 2, 3, 3}));
  const Model twice = extend::duplicate_layers(model, {.count = 1});
  EXPECT_EQ(origins(twice), (std::vector<int64_t>{0, 1, 1, 2, 3}));
  EXPECT_TRUE(twice.blocks[2].mlp.up.weight.is_same(model.blocks[1].mlp.up.weight));
  const at::Tensor tokens = random_tokens(2, 9);
  EXPECT_FALSE(twice.forward(tokens).equal(model.forward(tokens)));
}

TEST(InsertIdentity, PreservesTheFunctionExactly) {
  const Model model = random_model({.layers = 4});
  const at::Tensor tokens = random_tokens(2, 9);
  for (const int64_t count : {0, 1, 2, 3, 4}) {
    const Model deeper = extend::insert_identity(model, {.count = count});
    EXPECT_EQ(static_cast<int64_t>(deeper.blocks.size()), 4 + count);
    EXPECT_TRUE(deeper.forward(tokens).equal(model.forward(tokens)));
  }
}

TEST(InsertIdentity, SpacesEvenly) {
  const Model model = random_model({.layers = 4});
  EXPECT_EQ(origins(extend::insert_identity(model, {.count = 1})), (std::vector<int64_t>{0, 1, 2, 3, 3}));
  EXPECT_EQ(origins(extend::insert_identity(model, {.count = 2})), (std::vector<int64_t>{0, 1, 1, 2, 3, 3}));
  const Model model5 = random_model({.layers = 5});
  EXPECT_EQ(origins(extend::insert_identity(model5, {.count = 2})), (std::vector<int64_t>{0, 1, 2, 2, 3, 4, 4}));
}

TEST(InsertIdentity, ZeroesBiasesToo) {
  Model model = random_model({.layers = 2});
  model.blocks[1].mlp.down.bias = at::ones({32});
  model.blocks[1].attention.o.bias = at::ones({32});
  const at::Tensor tokens = random_tokens(1, 5);
  EXPECT_TRUE(extend::insert_identity(model, {.count = 2}).forward(tokens).equal(model.forward(tokens)));
}

TEST(Extend, RefusesCountsAndBlocksItCannotTake) {
  Model model = random_model({.layers = 2});
  for (const int64_t count : {-1, 3}) {
    EXPECT_THROW(extend::duplicate_layers(model, {.count = count}), ValueError);
    EXPECT_THROW(extend::insert_identity(model, {.count = count}), ValueError);
  }
  model.blocks[1].placement = NormPlacement::post;
  EXPECT_THROW(extend::insert_identity(model, {.count = 1}), ValueError);
  EXPECT_NO_THROW(extend::duplicate_layers(model, {.count = 1}));
  model.blocks[1].placement = NormPlacement::pre;
  model.blocks[1].mlp_output_norm = model.blocks[1].mlp_norm;
  const at::Tensor tokens = random_tokens(1, 5);
  EXPECT_TRUE(extend::insert_identity(model, {.count = 1}).forward(tokens).equal(model.forward(tokens)));
  model.blocks[1].mlp_output_norm.bias = at::ones({32});
  EXPECT_THROW(extend::insert_identity(model, {.count = 1}), ValueError);
}

}  // namespace
}  // namespace hemostat
