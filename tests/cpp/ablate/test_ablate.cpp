#include <vector>

#include <gtest/gtest.h>

#include <hemostat/ablate.h>
#include <hemostat/error.h>

#include "../random_model.h"

namespace hemostat {
namespace {

using hemostat::testing::message_of;
using hemostat::testing::origins;
using hemostat::testing::random_model;
using hemostat::testing::random_tokens;

TEST(DropLayers, FallsFromTheSecondLastBackwards) {
  const Model model = random_model({.layers = 4});
  EXPECT_EQ(origins(ablate::drop_layers(model, {.count = 0})), (std::vector<int64_t>{0, 1, 2, 3}));
  EXPECT_EQ(origins(ablate::drop_layers(model, {.count = 1})), (std::vector<int64_t>{0, 1, 3}));
  EXPECT_EQ(origins(ablate::drop_layers(model, {.count = 3})), (std::vector<int64_t>{3}));
  EXPECT_EQ(model.blocks.size(), 4u);
}

TEST(DropLayers, FollowsAnOrder) {
  const Model model = random_model({.layers = 4});
  EXPECT_EQ(origins(ablate::drop_layers(model, {.count = 2, .order = std::vector<int64_t>{3, 0, 1}})),
            (std::vector<int64_t>{1, 2}));
}

TEST(DropLayers, IsTheModelOfTheBlocksThatStay) {
  const Model model = random_model({.layers = 3});
  Model expected = model;
  expected.blocks.erase(expected.blocks.begin() + 1);
  const at::Tensor tokens = random_tokens(2, 9);
  EXPECT_TRUE(ablate::drop_layers(model, {.count = 1}).forward(tokens).equal(expected.forward(tokens)));
}

TEST(DropLayers, RefusesWhatCannotFall) {
  const Model model = random_model({.layers = 4});
  EXPECT_EQ(message_of<ValueError>([&] { ablate::drop_layers(model, {.count = 4}); }),
            "hemostat.ablate.drop_layers: count is 4, but a model of 4 layers can lose 0 … 3");
  EXPECT_THROW(ablate::drop_layers(model, {.count = -1}), ValueError);
  for (const std::vector<int64_t>& order : {std::vector<int64_t>{4}, {-1}, {1, 1}, {}}) {
    EXPECT_THROW(ablate::drop_layers(model, {.count = 1, .order = order}), ValueError);
  }
}

}  // namespace
}  // namespace hemostat
