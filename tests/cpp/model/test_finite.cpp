// NaN and Inf: where they arise, and casts that would make them.
#include <limits>
#include <string>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <hemostat/error.h>
#include <hemostat/model.h>

#include "../random_model.h"

namespace hemostat {
namespace {

using hemostat::testing::message_of;
using hemostat::testing::random_model;
using hemostat::testing::random_tokens;

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();
constexpr double kInf = std::numeric_limits<double>::infinity();

std::string first(const Model& model, const at::Tensor& tokens = random_tokens(2, 12)) {
  const std::optional<NonFinite> found = first_nonfinite(model, tokens);
  return found ? found->text() : "";
}

at::Tensor with_entry(const at::Tensor& tensor, double value) {
  at::Tensor changed = tensor.clone();
  changed.view({-1})[1] = value;
  return changed;
}

TEST(FirstNonfinite, IsNoneWhereAllIsFinite) {
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kHalf}) {
    EXPECT_EQ(first(random_model({.dtype = dtype})), "");
    EXPECT_FALSE(first_nonfinite(random_model({.dtype = dtype})).has_value());
  }
}

TEST(FirstNonfinite, IsTheLayerThatOverflows) {
  Model model = random_model({.dtype = at::kHalf});
  model.blocks[1].mlp.down.weight.mul_(60000);
  const std::optional<NonFinite> found = first_nonfinite(model, random_tokens(1, 12));
  ASSERT_TRUE(found.has_value());
  EXPECT_EQ(found->place, NonFinite::Place::layer);
  EXPECT_EQ(found->name, "model.layers.1.mlp.down_proj");
  EXPECT_EQ(found->dtype, at::kHalf);
  EXPECT_GT(found->infinite, 0);
  ASSERT_TRUE(found->largest_input.has_value());
  EXPECT_GT(*found->largest_input, 0);
  EXPECT_LT(*found->largest_input, 65504);
  EXPECT_TRUE(found->text().starts_with(
      "model.layers.1.mlp.down_proj gives Inf; float16 reaches 65504, and the largest value that goes in is "))
      << found->text();
  EXPECT_TRUE(found->text().ends_with(": try bfloat16 or float32")) << found->text();

  Model wide = random_model();
  wide.blocks[2].attention.o.weight.mul_(1e38).mul_(1e3);
  EXPECT_EQ(first(wide), "model.layers.2.self_attn.o_proj.weight has " +
                             std::to_string(first_nonfinite(wide)->infinite) + " infinite entries");
  wide = random_model();
  wide.blocks[2].attention.o.weight.fill_(3e38);
  EXPECT_TRUE(first(wide).starts_with("model.layers.2.self_attn.o_proj gives Inf; float32 reaches 3.40282e+38, and"));
  EXPECT_EQ(first(wide).find("try"), std::string::npos);
}

TEST(FirstNonfinite, IsWhatLiesBetweenLayers) {
  Model model = random_model({.dtype = at::kHalf});
  model.blocks[0].mlp.gate.weight.mul_(500);
  model.blocks[0].mlp.up.weight.mul_(500);
  EXPECT_TRUE(first(model).starts_with("the input of model.layers.0.mlp.down_proj is Inf; float16")) << first(model);

  model = random_model({.dtype = at::kHalf});
  model.embedding.mul_(15000);  // up to some 50000, and what the blocks add
  model.blocks[1].attention_norm.weight.fill_(30000);
  EXPECT_NE(first(model), "");
}

TEST(FirstNonfinite, IsTheStoredTensor) {
  Model model = random_model();
  model.blocks[1].mlp.up.weight = with_entry(model.blocks[1].mlp.up.weight, kNaN);
  EXPECT_EQ(first(model), "model.layers.1.mlp.up_proj.weight has 1 NaN entry");
  EXPECT_EQ(first_nonfinite(model)->text(), first(model));

  model = random_model();
  model.blocks[2].attention.k.bias = with_entry(at::zeros({16}), -kInf);
  EXPECT_EQ(first(model), "model.layers.2.self_attn.k_proj.bias has 1 infinite entry");

  model = random_model();
  model.blocks[0].mlp_norm.weight = with_entry(model.blocks[0].mlp_norm.weight, kNaN);
  EXPECT_EQ(first(model), "model.layers.0.post_attention_layernorm.weight has 1 NaN entry");

  model = random_model();
  model.final_norm.weight = at::full({32}, kNaN);
  EXPECT_EQ(first(model), "model.norm.weight has 32 NaN entries");

  model = random_model();
  model.head.linear.weight = with_entry(with_entry(model.head.linear.weight, kNaN).flip(0), kInf);
  EXPECT_EQ(first(model), "lm_head.weight has 1 NaN entry and 1 infinite entry");

  model = random_model();
  model.head.map.bias = with_entry(at::zeros({97}), kInf);
  EXPECT_EQ(first(model), "lm_head.map_bias has 1 infinite entry");

  model.blocks.erase(model.blocks.begin());
  model.blocks[0].mlp.down.weight = at::full({32, 64}, kNaN);
  EXPECT_EQ(first(model), "model.layers.0.mlp.down_proj.weight has 2048 NaN entries");  // as it would be saved
}

TEST(FirstNonfinite, LooksAtTheTokensThatAreGiven) {
  Model model = random_model();
  model.embedding = model.embedding.clone();
  model.embedding[5].fill_(kNaN);
  EXPECT_EQ(first(model, at::full({1, 8}, 4, at::kLong)), "");
  EXPECT_EQ(first(model, at::full({1, 8}, 5, at::kLong)), "model.embed_tokens.weight has 32 NaN entries");

  model.head.linear.weight = model.embedding;  // tied: every prediction has this token's logit
  EXPECT_EQ(first(model, at::full({1, 8}, 4, at::kLong)), "model.embed_tokens.weight has 32 NaN entries");
}

TEST(FirstNonfinite, FindsAnExpert) {
  Model model = random_model();
  Block& block = model.blocks[1];
  block.experts.router.weight = at::ones({2, 32});
  block.experts.top_k = 2;
  block.experts.mlps = {block.mlp, block.mlp};
  block.mlp = Mlp{};
  EXPECT_EQ(first(model), "");
  block.experts.mlps[1].down.weight = with_entry(block.experts.mlps[1].down.weight, kNaN);
  EXPECT_EQ(first(model), "model.layers.1.mlp.experts.1.down_proj.weight has 1 NaN entry");
  block.experts.mlps[1].down.weight = at::full({32, 64}, 3e38);
  EXPECT_TRUE(first(model).starts_with("model.layers.1.mlp.experts.1.down_proj gives Inf")) << first(model);
}

TEST(To, RefusesADtypeThatCannotHoldATensor) {
  Model model = random_model();
  model.blocks[1].mlp.up.weight = with_entry(model.blocks[1].mlp.up.weight, -7e4);
  EXPECT_EQ(message_of<ValueError>([&] { model.to(at::kHalf); }),
            "hemostat.Model.to: model.layers.1.mlp.up_proj.weight reaches 7e+04, but float16 no further than 65504: 1 "
            "entry would be infinite; bfloat16 and float32 reach 3.4e+38");
  EXPECT_EQ(first_nonfinite(model.to(at::kBFloat16)).has_value(), false);

  model = random_model();
  model.blocks[0].attention.q.bias = at::full({32}, 3.4e38);
  EXPECT_EQ(message_of<ValueError>([&] { model.to(at::kBFloat16); }),
            "hemostat.Model.to: model.layers.0.self_attn.q_proj.bias reaches 3.4e+38, but bfloat16 no further than "
            "3.38953e+38: 32 entries would be infinite");

  model = random_model();
  model.blocks[0].attention.q.bias = at::full({32}, 1e-9);
  EXPECT_EQ(message_of<ValueError>([&] { model.to(at::kHalf); }),
            "hemostat.Model.to: model.layers.0.self_attn.q_proj.bias reaches only 1e-09, and float16's smallest number "
            "is 5.96e-08: all of it would be 0; bfloat16 and float32 reach down to 1e-38");
  model.blocks[0].attention.q.bias[3] = 1e-3;  // what is small beside it does not matter
  EXPECT_EQ(model.to(at::kHalf).blocks[0].attention.q.bias[3].item<float>(), static_cast<float>(at::Half(1e-3F)));
}

TEST(To, LeavesWhatIsInfiniteOrZeroAlready) {
  Model model = random_model();
  model.blocks[1].mlp.up.weight = with_entry(with_entry(model.blocks[1].mlp.up.weight, kInf).flip(0), kNaN);
  model.blocks[0].attention.q.bias = at::zeros({32});
  model.blocks[0].attention.k.bias = at::arange(16, at::kFloat) - 7.5;  // sums to 0
  const Model half = model.to(at::kHalf);
  EXPECT_TRUE(at::equal(half.blocks[0].attention.k.bias.to(at::kFloat), model.blocks[0].attention.k.bias));
  EXPECT_EQ(first_nonfinite(half)->text(), first_nonfinite(model)->text());
  EXPECT_TRUE(model.to(at::kHalf).to(at::kFloat).blocks[1].mlp.up.weight.isinf().any().item<bool>());
}

TEST(Replace, RefusesWhatTheDtypeCannotHold) {
  const Model model = random_model({.dtype = at::kHalf});
  EXPECT_EQ(message_of<ValueError>([&] { model.replace({{"model.layers.0.mlp.up_proj", at::full({64, 32}, 1e6)}}); }),
            "hemostat.Model.replace: model.layers.0.mlp.up_proj reaches 1e+06, but float16 no further than 65504: 2048 "
            "entries would be infinite; bfloat16 and float32 reach 3.4e+38");
}

}  // namespace
}  // namespace hemostat
