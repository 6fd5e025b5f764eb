#include <limits>

#include <gtest/gtest.h>

#include <hemostat/context.h>
#include <hemostat/error.h>

#include "../random_model.h"

namespace hemostat {
namespace {

using hemostat::testing::random_model;
using hemostat::testing::random_tokens;

// Which tokens read otherwise, from the embeddings that the first block sees.
at::Tensor changed(const Model& model, const context::TokenNoiseOptions& options, const at::Tensor& tokens) {
  return embed(context::token_noise(model, options), tokens).ne(embed(model, tokens)).any(-1);
}

TEST(TokenNoise, ChangesTheStatedFraction) {
  const Model model = random_model();
  const at::Tensor tokens = random_tokens(40, 100);
  for (const TokenNoise kind : {TokenNoise::replace, TokenNoise::drop, TokenNoise::swap}) {
    EXPECT_EQ(changed(model, {.rate = 0, .kind = kind}, tokens).sum().item<int64_t>(), 0);
    const double share = changed(model, {.rate = 0.3, .kind = kind}, tokens).to(at::kDouble).mean().item<double>();
    EXPECT_NEAR(share, 0.3, 0.04);  // five standard deviations, and one token in 97 replaced or swapped by itself
    EXPECT_GT(changed(model, {.rate = 1, .kind = kind}, tokens).to(at::kDouble).mean().item<double>(), 0.97);
  }
}

TEST(TokenNoise, NestsRatesAndRepeatsForASeed) {
  const Model model = random_model();
  const at::Tensor tokens = random_tokens(10, 50);
  for (const TokenNoise kind : {TokenNoise::replace, TokenNoise::drop}) {
    const at::Tensor few = changed(model, {.rate = 0.1, .kind = kind, .seed = 3}, tokens);
    const at::Tensor many = changed(model, {.rate = 0.4, .kind = kind, .seed = 3}, tokens);
    EXPECT_FALSE(few.logical_and(many.logical_not()).any().item<bool>());
    EXPECT_TRUE(few.equal(changed(model, {.rate = 0.1, .kind = kind, .seed = 3}, tokens)));
    EXPECT_FALSE(few.equal(changed(model, {.rate = 0.1, .kind = kind, .seed = 4}, tokens)));
  }
}

TEST(TokenNoise, RefusesRatesOutOfRange) {
  for (const double rate : {-0.1, 1.1, std::numeric_limits<double>::quiet_NaN()}) {
    EXPECT_THROW(context::token_noise(random_model(), {.rate = rate}), ValueError);
  }
}

}  // namespace
}  // namespace hemostat
