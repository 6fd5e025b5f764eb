#include <gtest/gtest.h>

#include <hemostat/error.h>
#include <hemostat/normalize.h>

#include "../random_model.h"

namespace hemostat {
namespace {

using hemostat::testing::message_of;
using hemostat::testing::random_model;
using hemostat::testing::random_tokens;

TEST(DropNorms, FallsFromTheDeepest) {
  const Model model = random_model({.layers = 2});
  EXPECT_EQ(normalize::norm_count(model), 5);
  const Model three = normalize::drop_norms(model, {.count = 3});
  EXPECT_EQ(three.final_norm.kind, NormKind::none);
  EXPECT_FALSE(three.final_norm.weight.defined());
  EXPECT_EQ(three.blocks[1].mlp_norm.kind, NormKind::none);
  EXPECT_EQ(three.blocks[1].attention_norm.kind, NormKind::none);
  EXPECT_EQ(three.blocks[0].mlp_norm.kind, NormKind::rms);
  EXPECT_EQ(normalize::norm_count(three), 2);
  EXPECT_EQ(normalize::norm_count(normalize::drop_norms(three, {.count = 2})), 0);
  EXPECT_EQ(model.final_norm.kind, NormKind::rms);
}

TEST(DropNorms, ShowsTheResidualStreamToWhatFollows) {
  const Model model = random_model({.layers = 2});
  const at::Tensor tokens = random_tokens(2, 9);
  Model bare = model;
  bare.final_norm = Norm{};
  const Model dropped = normalize::drop_norms(model, {.count = 1});
  EXPECT_TRUE(dropped.forward(tokens).equal(bare.forward(tokens)));
  EXPECT_TRUE(normalize::drop_norms(model, {.count = 0}).forward(tokens).equal(model.forward(tokens)));
}

TEST(DropNorms, RefusesMoreThanThereAre) {
  EXPECT_EQ(message_of<ValueError>([] { normalize::drop_norms(random_model({.layers = 2}), {.count = 6}); }),
            "hemostat.normalize.drop_norms: count is 6, but the model has 5 norms on its residual stream");
  EXPECT_THROW(normalize::drop_norms(random_model(), {.count = -1}), ValueError);
}

}  // namespace
}  // namespace hemostat
