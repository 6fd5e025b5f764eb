// Room prune as a C++ program calls it: designated options, exact counts, messages.
#include <cmath>
#include <string>

#include <gtest/gtest.h>

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

#include <hemostat/error.h>
#include <hemostat/prune.h>

namespace hemostat {
namespace {

at::Tensor random_weight(int64_t rows, int64_t columns, uint64_t seed = 0) {
  return at::randn({rows, columns}, at::detail::createCPUGenerator(seed), at::kFloat);
}

std::string message_of(auto&& call) {
  try {
    call();
  } catch (const std::exception& error) {
    return error.what();
  }
  return "nothing was thrown";
}

TEST(RemovedCount, AProductWithinRoundingOfAnIntegerIsThatInteger) {
  EXPECT_EQ(prune::removed_count(0.29, 100), 29);
  EXPECT_EQ(prune::removed_count(1.0 - 0.93, 100), 7);
  EXPECT_EQ(prune::removed_count(0.1 + 0.2, 10), 3);
  EXPECT_EQ(prune::removed_count(0.5, 7), 3);
  EXPECT_EQ(prune::removed_count(0.999, 10), 9);
  EXPECT_EQ(prune::removed_count(0.0, 10), 0);
  EXPECT_EQ(prune::removed_count(1.0, 10), 10);
  EXPECT_EQ(prune::removed_count(1.0, 0), 0);
  EXPECT_EQ(prune::removed_count(0.3, int64_t{1} << 24), 5033164);
}

TEST(ParsePattern, ReadsNOfM) {
  EXPECT_EQ(prune::parse_pattern("2:4").n, 2);
  EXPECT_EQ(prune::parse_pattern("2:4").m, 4);
  for (const char* text : {"", ":", "2", "2:", ":4", "2:4:8", "a:4", "2 :4", "5:4", "2:2048", "-1:4"}) {
    EXPECT_THROW(prune::parse_pattern(text), ValueError) << text;
  }
}

TEST(Magnitude, RanksTheTensorOrEachRow) {
  const at::Tensor weight = at::tensor({3.0F, -1.0F, 2.0F, 0.5F, 9.0F, 8.0F, 7.0F, 6.0F}).view({2, 4});
  EXPECT_TRUE(at::equal(prune::magnitude(weight, {.sparsity = 0.5}),
                        at::tensor({0, 0, 0, 0, 1, 1, 1, 1}).view({2, 4}).to(at::kBool)));
  EXPECT_TRUE(at::equal(prune::magnitude(weight, {.sparsity = 0.5, .scope = prune::Scope::row}),
                        at::tensor({1, 0, 1, 0, 1, 1, 0, 0}).view({2, 4}).to(at::kBool)));
}

TEST(Wanda, KeepsTwoOfEveryFour) {
  const at::Tensor mask = prune::wanda(random_weight(16, 64), at::ones({64}), {.pattern = "2:4"});
  EXPECT_TRUE(mask.view({-1, 4}).sum(1).eq(2).all().item<bool>());
}

TEST(Wanda, IsTheMaskOfItsScore) {
  const at::Tensor weight = random_weight(20, 50);
  const at::Tensor norm = at::rand({50}, at::detail::createCPUGenerator(1), at::kFloat);
  const at::Tensor score = prune::score_wanda(weight, norm);
  EXPECT_TRUE(at::equal(prune::wanda(weight, norm, {.sparsity = 0.37}), prune::mask(score, {.sparsity = 0.37})));
}

TEST(KeptUntil, GivesTheMaskOfEverySparsity) {
  const at::Tensor score = random_weight(12, 70).abs();
  for (const auto scope : {prune::Scope::row, prune::Scope::tensor}) {
    const at::Tensor until = prune::kept_until(score, {.scope = scope});
    for (const double sparsity : {0.0, 0.1, 1.0 / 3.0, 0.5, 0.7000000001, 0.99, 1.0}) {
      EXPECT_TRUE(
          at::equal(prune::mask_at(until, sparsity, scope), prune::mask(score, {.sparsity = sparsity, .scope = scope})))
          << sparsity;
    }
  }
}

TEST(Apply, LeavesExactZeros) {
  at::Tensor weight = random_weight(8, 8);
  weight[0][0] = std::nan("");
  at::Tensor mask = at::ones({8, 8}, at::kBool);
  mask[0].fill_(false);
  const at::Tensor pruned = prune::apply(weight, mask);
  EXPECT_TRUE(pruned[0].eq(0).all().item<bool>());
  EXPECT_TRUE(at::equal(pruned.slice(0, 1), weight.slice(0, 1)));
}

TEST(Errors, NameOperatorAndArgument) {
  const at::Tensor weight = random_weight(4, 8);
  EXPECT_EQ(message_of([&] { prune::wanda(weight, at::ones({5}), {.sparsity = 0.5}); }),
            "hemostat.prune.wanda: activation_norm has 5 entries, but weight has 8 input features");
  EXPECT_EQ(message_of([&] { prune::magnitude(weight, {}); }),
            "hemostat.prune.magnitude: give sparsity or pattern, neither was given");
  EXPECT_THROW(prune::magnitude(weight.to(at::kInt), {.sparsity = 0.5}), TypeError);
  EXPECT_THROW(prune::magnitude(weight[0], {.sparsity = 0.5}), ValueError);
  EXPECT_THROW(prune::magnitude(weight / 0 * 0, {.sparsity = 0.5}), ValueError);
  EXPECT_NO_THROW(prune::magnitude(weight / 0 * 0, {.sparsity = 0.5, .check_finite = false}));
}

}  // namespace
}  // namespace hemostat
