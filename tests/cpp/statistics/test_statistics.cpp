#include <limits>

#include <ATen/ATen.h>
#include <c10/core/InferenceMode.h>
#include <gtest/gtest.h>

#include <hemostat/error.h>
#include <hemostat/statistics.h>

#include "../random_model.h"

namespace hemostat {
namespace {

using hemostat::testing::message_of;

at::Tensor random(at::IntArrayRef sizes, uint64_t seed = 0) {
  at::Generator generator = at::detail::createCPUGenerator(seed);
  return at::randn(sizes, generator, at::kFloat);
}

InputStatistics of(const at::Tensor& x, double budget_bytes = 1e9) {
  MemoryBudget budget(budget_bytes);
  InputStatistics statistics(x.size(-1), x.device(), every_need(), budget);
  statistics.add(x);
  return statistics;
}

void expect_close(const at::Tensor& got, const at::Tensor& expected, double relative) {
  EXPECT_LE((got.to(at::kDouble) - expected).abs().max().item<double>(),
            relative * expected.abs().max().item<double>());
}

TEST(InputStatistics, MatchesFormulasInDouble) {
  for (const int64_t features : {1, 7, 256, 300, 513}) {  // around the Gram matrix's blocks of 256
    const at::Tensor x = random({3, 50, features});
    const at::Tensor rows = x.to(at::kDouble).reshape({-1, features});
    const InputStatistics statistics = of(x);
    EXPECT_EQ(statistics.count(), 150);
    expect_close(statistics.gram(), rows.t().mm(rows) / 150, 1e-6);
    expect_close(statistics.norm(), rows.square().mean(0).sqrt(), 1e-6);
    expect_close(statistics.absmean(), rows.abs().mean(0), 1e-6);
    expect_close(statistics.mean(), rows.mean(0), 1e-5);
    EXPECT_TRUE(statistics.absmax().equal(x.abs().reshape({-1, features}).amax(0)));
    EXPECT_TRUE(statistics.gram().equal(statistics.gram().t()));
  }
}

TEST(InputStatistics, TakesHalfTypesAndStrides) {
  const at::Tensor wide = random({40, 20});
  const at::Tensor strided = wide.narrow(1, 3, 10);
  EXPECT_TRUE(of(strided).gram().equal(of(strided.contiguous()).gram()));
  const at::Tensor transposed = random({10, 40}).t();
  EXPECT_TRUE(of(transposed).absmax().equal(transposed.abs().amax(0)));
  for (const at::ScalarType dtype : {at::kBFloat16, at::kHalf}) {
    const at::Tensor half = random({40, 10}).to(dtype);
    const at::Tensor gram = of(half).gram(), expected = of(half.to(at::kFloat)).gram();
    if (dtype == at::kHalf) {
      EXPECT_TRUE(gram.equal(expected));
    } else {  // whose products may be summed in another order
      expect_close(gram, expected.to(at::kDouble), 1e-6);
    }
  }
}

TEST(InputStatistics, SumsProductsOfBfloat16InFloat) {
  for (const int64_t features : {1, 64, 100, 193}) {                  // around tiles of 64
    const at::Tensor x = random({1501, features}).to(at::kBFloat16);  // an odd number, of more than one piece
    const at::Tensor rows = x.to(at::kDouble);
    const at::Tensor gram = of(x).gram();
    expect_close(gram, rows.t().mm(rows) / 1501, 5e-6);  // as many float32 sums as tokens, one after another
    EXPECT_TRUE(gram.equal(gram.t()));
    expect_close(of(x, /*budget_bytes=*/1).gram(), rows.t().mm(rows) / 1501, 5e-6);  // in a mapped file
  }
}

TEST(InputStatistics, StreamsAndMergesToTheWhole) {
  const at::Tensor x = random({90, 33});
  const InputStatistics whole = of(x);
  InputStatistics streamed = of(x.narrow(0, 0, 10));
  streamed.add(x.narrow(0, 10, 30).view({2, 15, 33}));
  streamed.add(x.narrow(0, 0, 0));
  const InputStatistics rest = of(x.narrow(0, 40, 50));
  streamed.merge(rest);
  EXPECT_EQ(streamed.count(), 90);
  expect_close(streamed.gram(), whole.gram().to(at::kDouble), 1e-6);
  expect_close(streamed.norm(), whole.norm().to(at::kDouble), 1e-6);
  expect_close(streamed.absmean(), whole.absmean().to(at::kDouble), 1e-6);
  expect_close(streamed.mean(), whole.mean().to(at::kDouble), 1e-5);
  EXPECT_TRUE(streamed.absmax().equal(whole.absmax()));
}

TEST(InputStatistics, IsTheSameInAMappedFile) {
  const at::Tensor x = random({70, 300});
  EXPECT_TRUE(of(x, 0).gram().equal(of(x).gram()));
}

TEST(InputStatistics, WorksAcrossInferenceMode) {
  const at::Tensor x = random({10, 5});
  MemoryBudget budget;
  std::optional<InputStatistics> statistics;
  {
    const c10::InferenceMode inference;
    statistics.emplace(5, x.device(), every_need(), budget);
    statistics->add(x + 0);
  }
  statistics->add(x);
  EXPECT_EQ(statistics->count(), 20);
  EXPECT_TRUE(statistics->absmax().equal(x.abs().amax(0)));
}

TEST(InputStatistics, SumsNaNAndInfinityAsTheyAre) {
  at::Tensor x = random({4, 3});
  x[1][0] = std::numeric_limits<float>::quiet_NaN();
  x[2][1] = std::numeric_limits<float>::infinity();
  const InputStatistics statistics = of(x);
  for (const at::Tensor& values : {statistics.norm(), statistics.absmax(), statistics.absmean(), statistics.mean()}) {
    EXPECT_TRUE(std::isnan(values[0].item<float>()));
    EXPECT_TRUE(std::isinf(values[1].item<float>()));
    EXPECT_TRUE(std::isfinite(values[2].item<float>()));
  }
}

TEST(InputStatistics, IsZeroWithoutTokens) {
  const InputStatistics statistics = of(at::zeros({0, 4}));
  EXPECT_EQ(statistics.count(), 0);
  EXPECT_TRUE(statistics.norm().equal(at::zeros({4})));
  EXPECT_TRUE(statistics.gram().equal(at::zeros({4, 4})));
}

TEST(InputStatistics, CollectsOnlyWhatIsNeeded) {
  MemoryBudget budget(1e6);
  InputStatistics statistics(4, at::kCPU, {Need::column_norm}, budget);
  EXPECT_EQ(budget.remaining(), 1e6);  // only Gram matrices count
  statistics.add(random({6, 4}));
  EXPECT_EQ(message_of<ValueError>([&] { statistics.gram(); }), "hemostat.InputStatistics: gram was not collected");
  EXPECT_THROW(statistics.absmax(), ValueError);
  EXPECT_NO_THROW(statistics.norm());
  EXPECT_THROW(statistics.merge(of(random({6, 4}))), ValueError);
}

TEST(InputStatistics, RefusesOtherShapesAndDtypes) {
  InputStatistics statistics = of(random({6, 4}));
  EXPECT_EQ(message_of<ValueError>([&] { statistics.add(random({6, 5})); }),
            "hemostat.InputStatistics.add: x has 5 features, but takes 4");
  EXPECT_THROW(statistics.add(at::ones({6, 4}, at::kLong)), TypeError);
  EXPECT_THROW(statistics.merge(of(random({6, 5}))), ValueError);
  EXPECT_EQ(statistics.count(), 6);
}

TEST(MemoryBudget, MapsWhatDoesNotFit) {
  MemoryBudget budget(100);
  EXPECT_TRUE(budget.take(60));
  EXPECT_FALSE(budget.take(60));
  EXPECT_EQ(budget.remaining(), 40);
  const at::Tensor mapped = budget.zeros({5, 5}, at::kFloat, at::kCPU);
  EXPECT_EQ(budget.remaining(), 40);
  EXPECT_TRUE(mapped.equal(at::zeros({5, 5})));
  EXPECT_TRUE(mapped.add_(1).equal(at::ones({5, 5})));
  budget.zeros({5, 2}, at::kFloat, at::kCPU);
  EXPECT_EQ(budget.remaining(), 0);
}

TEST(MemoryBudget, HoldsWhatFitsAndCopiesTheRest) {
  const at::Tensor x = random({4, 8});
  MemoryBudget budget(static_cast<double>(x.nbytes()));
  EXPECT_TRUE(budget.hold(x).is_same(x));
  const at::Tensor copy = budget.hold(x);
  EXPECT_FALSE(copy.is_alias_of(x));
  EXPECT_TRUE(copy.equal(x));
}

TEST(Statistics, NamesNeeds) {
  std::set<Need> all = every_need();
  all.merge(gradient_needs());
  all.insert(Need::tokens);
  EXPECT_EQ(all.size(), 11u);
  for (const Need need : all) {
    EXPECT_EQ(need_from_name(name(need)), need);
  }
  EXPECT_EQ(message_of<ValueError>([] { need_from_name("hessian"); }),
            "hemostat: no statistic is named \"hessian\"; there are column_norm, absmax, absmean, gram, mean, "
            "gradient_mean, gradient_absmean, gradient_square, row_fisher, token_fisher, tokens");
}

TEST(Statistics, MergesASharedInputOnce) {
  const at::Tensor x = random({12, 4});
  const auto build = [&] {
    Statistics statistics;
    statistics.inputs["q"] = statistics.inputs["k"] = std::make_shared<InputStatistics>(of(x));
    statistics.inputs["o"] = std::make_shared<InputStatistics>(of(x));
    return statistics;
  };
  Statistics statistics = build();
  statistics.merge(build());
  for (const char* linear : {"q", "k", "o"}) {
    EXPECT_EQ(statistics.at(linear).count(), 24);
  }
  EXPECT_EQ(statistics.needs(), every_need());
}

TEST(GradientStatistics, MatchesFormulasAndMerges) {
  for (const double bytes : {1e9, 0.0}) {  // in memory, and mapped to files
    MemoryBudget budget(bytes);
    const std::vector<at::Tensor> gradients{random({3, 5}, 1), random({3, 5}, 2).to(at::kHalf), at::Tensor(),
                                            random({5, 3}, 3).t()};
    GradientStatistics whole(3, 5, at::kCPU, gradient_needs(), budget), rest(3, 5, at::kCPU, gradient_needs(), budget);
    at::Tensor stacked = at::zeros({4, 3, 5}, at::kDouble);  // what a loss doesn't depend on has a gradient of 0
    for (size_t i = 0; i < gradients.size(); ++i) {
      (i < 2 ? whole : rest).add(gradients[i]);
      if (gradients[i].defined()) {
        stacked[static_cast<int64_t>(i)].copy_(gradients[i]);
      }
    }
    whole.merge(rest);
    EXPECT_EQ(whole.count(), 4);
    expect_close(whole.mean(), stacked.mean(0), 1e-6);
    expect_close(whole.absmean(), stacked.abs().mean(0), 1e-6);
    expect_close(whole.square(), stacked.square().mean(0), 1e-6);
  }
}

TEST(GradientStatistics, RefusesWhatDoesNotFit) {
  MemoryBudget budget;
  GradientStatistics one(3, 5, at::kCPU, {Need::gradient_mean, Need::gram}, budget);
  EXPECT_EQ(one.needs(), std::set<Need>{Need::gradient_mean});
  EXPECT_THROW(one.square(), ValueError);
  EXPECT_THROW(one.add(random({5, 3})), ValueError);
  EXPECT_THROW(one.add(at::zeros({3, 5}, at::kLong)), TypeError);
  EXPECT_THROW(one.merge(GradientStatistics(3, 5, at::kCPU, gradient_needs(), budget)), ValueError);
  EXPECT_THROW(GradientStatistics(0, 5, at::kCPU, gradient_needs(), budget), ValueError);
  EXPECT_EQ(one.count(), 0);
}

TEST(Statistics, RefusesToMergeOtherNames) {
  Statistics one, other;
  one.inputs["q"] = std::make_shared<InputStatistics>(of(random({5, 4})));
  other.inputs["k"] = one.inputs["q"];
  EXPECT_THROW(one.merge(other), ValueError);
  other.inputs["q"] = one.inputs["q"];
  EXPECT_THROW(one.merge(other), ValueError);
  EXPECT_EQ(one.at("q").count(), 5);
  EXPECT_EQ(message_of<ValueError>([&] { one.at("v"); }), "hemostat.Statistics: nothing was collected for \"v\"");
  EXPECT_TRUE(Statistics().needs().empty());
}

}  // namespace
}  // namespace hemostat
