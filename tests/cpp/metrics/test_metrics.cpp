#include <cmath>
#include <limits>
#include <vector>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <hemostat/error.h>
#include <hemostat/metrics.h>

#include "../random_model.h"

namespace hemostat {
namespace {

using hemostat::testing::message_of;
using hemostat::testing::noised;
using hemostat::testing::random_model;
using hemostat::testing::random_tokens;

// Per-token log-probabilities from whole logits, in double.
at::Tensor log_probabilities(const Model& model, const at::Tensor& tokens) {
  const at::Tensor logits = model.forward(tokens).narrow(1, 0, tokens.size(1) - 1).to(at::kDouble);
  return at::log_softmax(logits.flatten(0, 1) / model.decoder.temperature, -1);
}

void expect_no_damage(const Damage& damage) {
  EXPECT_EQ(damage.delta_nll, 0);
  for (const std::optional<Interval>& interval : {damage.delta_nll_interval, damage.kl.mean_interval}) {
    ASSERT_TRUE(interval.has_value());
    EXPECT_EQ(interval->low, 0);
    EXPECT_EQ(interval->high, 0);
  }
  EXPECT_EQ(damage.silent(), true);
  EXPECT_EQ(damage.acceptance, 1);
  EXPECT_EQ(damage.acceptance_interval->low, 1);
  EXPECT_EQ(damage.volume(), 0);
  EXPECT_FALSE(damage.direction.has_value());
  EXPECT_FALSE(damage.direction_interval.has_value());
  EXPECT_EQ(damage.delta_nll_unchanged, 0);
  EXPECT_EQ(damage.kl.mean, 0);
  EXPECT_EQ(damage.kl.max, 0);
  EXPECT_EQ(damage.kl.reverse_mean, 0);
  EXPECT_EQ(damage.top1_agreement, 1);
  EXPECT_EQ(damage.top5_overlap, 1);
  EXPECT_EQ(damage.flips_right_to_wrong, 0);
  EXPECT_EQ(damage.flips_wrong_to_right, 0);
  EXPECT_EQ(damage.entropy_shift, 0);
  EXPECT_EQ(damage.perplexity, damage.perplexity_baseline);
  EXPECT_EQ(damage.calibration_error, damage.calibration_error_baseline);
}

TEST(Compare, MatchesFormulasOnWholeLogits) {
  const Model baseline = random_model();
  const Model damaged = noised(baseline, 0.3);
  const at::Tensor tokens = random_tokens(5, 20);
  const Damage damage = compare(baseline, damaged, tokens, {.batch = 2});

  const at::Tensor p = log_probabilities(baseline, tokens), q = log_probabilities(damaged, tokens);
  const at::Tensor targets = tokens.narrow(1, 1, 19).flatten().unsqueeze(1);
  const at::Tensor nll_p = -p.gather(1, targets), nll_q = -q.gather(1, targets);
  const at::Tensor kl = (p.exp() * (p - q)).sum(1);
  const auto [sorted_kl, order] = kl.sort();
  const double tolerance = 2e-5;
  EXPECT_EQ(damage.windows, 5);
  EXPECT_EQ(damage.tokens, 95);
  EXPECT_NEAR(damage.nll_baseline, nll_p.mean().item<double>(), tolerance);
  EXPECT_NEAR(damage.nll, nll_q.mean().item<double>(), tolerance);
  EXPECT_NEAR(damage.perplexity, std::exp(nll_q.mean().item<double>()), 1e-3);
  EXPECT_NEAR(damage.kl.mean, kl.mean().item<double>(), tolerance);
  EXPECT_NEAR(damage.kl.median, sorted_kl[47].item<double>(), tolerance);
  EXPECT_NEAR(damage.kl.max, sorted_kl[94].item<double>(), tolerance);
  EXPECT_NEAR(damage.kl.reverse_mean, (q.exp() * (q - p)).sum(1).mean().item<double>(), tolerance);
  EXPECT_EQ(damage.top1_agreement, p.argmax(1).eq(q.argmax(1)).to(at::kDouble).mean().item<double>());
  const at::Tensor right_p = p.argmax(1, true).eq(targets), right_q = q.argmax(1, true).eq(targets);
  EXPECT_EQ(damage.accuracy_baseline, right_p.to(at::kDouble).mean().item<double>());
  EXPECT_EQ(damage.accuracy, right_q.to(at::kDouble).mean().item<double>());
  EXPECT_NEAR(damage.accuracy - damage.accuracy_baseline, damage.flips_wrong_to_right - damage.flips_right_to_wrong,
              1e-12);
  const auto entropy = [](const at::Tensor& log_p) { return -(log_p.exp() * log_p).sum(1).mean().item<double>(); };
  EXPECT_NEAR(damage.entropy_baseline, entropy(p), tolerance);
  EXPECT_NEAR(damage.entropy_shift, entropy(q) - entropy(p), tolerance);
  for (int64_t window = 0; window < 5; ++window) {
    EXPECT_NEAR(damage.window_nll[window], nll_q.view({5, 19})[window].mean().item<double>(), tolerance);
  }
  const at::Tensor accepted = at::minimum(p.exp(), q.exp()).sum(1);
  EXPECT_NEAR(damage.acceptance, accepted.mean().item<double>(), tolerance);
  const at::Tensor agree = p.argmax(1).eq(q.argmax(1));
  for (int64_t window = 0; window < 5; ++window) {
    const auto mean = [&](const at::Tensor& values) {
      return values.to(at::kDouble).view({5, 19})[window].mean().item<double>();
    };
    EXPECT_NEAR(damage.window_kl[window], mean(kl), tolerance);
    EXPECT_NEAR(damage.window_acceptance[window], mean(accepted), tolerance);
    EXPECT_NEAR(damage.window_top1_agreement[window], mean(agree), 1e-12);
  }
  const at::Tensor delta = (nll_q - nll_p).squeeze(1);
  EXPECT_NEAR(damage.volume(), 1 - agree.to(at::kDouble).mean().item<double>(), 1e-12);
  EXPECT_NEAR(*damage.direction, delta.masked_select(agree.logical_not()).mean().item<double>(), tolerance);
  EXPECT_NEAR(*damage.delta_nll_unchanged, delta.masked_select(agree).mean().item<double>(), tolerance);
  EXPECT_NEAR(damage.delta_nll,
              damage.volume() * *damage.direction + (1 - damage.volume()) * *damage.delta_nll_unchanged, 1e-12);

  const auto expect_around = [](const std::optional<Interval>& interval, double value) {
    ASSERT_TRUE(interval.has_value());
    EXPECT_GT(interval->high, interval->low);
    EXPECT_TRUE(interval->contains(value));
  };
  expect_around(damage.delta_nll_interval, damage.delta_nll);
  expect_around(damage.kl.mean_interval, damage.kl.mean);
  expect_around(damage.acceptance_interval, damage.acceptance);
  expect_around(damage.top1_agreement_interval, damage.top1_agreement);
  expect_around(damage.direction_interval, *damage.direction);
  EXPECT_EQ(damage.silent(), damage.delta_nll_interval->low <= 0 && damage.delta_nll_interval->high >= 0);
}

TEST(Compare, FindsExactlyNoDamageInTheSameModel) {
  const at::Tensor tokens = random_tokens(5, 17);
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16, at::kHalf}) {
    for (const int64_t batch : {1, 2, 8}) {
      for (const double memory : {1e9, 1e4, 0.0}) {  // logits in memory, hidden states in memory, mapped
        const Model model = random_model({.dtype = dtype});
        const BaselineEvaluation baseline(model, tokens, {.batch = batch, .memory_budget = memory});
        EXPECT_EQ(baseline.keeps_logits(), memory == 1e9);
        EXPECT_LE(baseline.bytes(), memory);
        expect_no_damage(baseline.compare(model));
        expect_no_damage(baseline.unchanged());
      }
    }
  }
}

TEST(Compare, IsTheSameFromKeptAndRecomputedLogits) {
  const Model model = random_model();
  const Model damaged = noised(model, 0.2);
  const at::Tensor tokens = random_tokens(5, 17);
  const Damage kept = BaselineEvaluation(model, tokens).compare(damaged);
  for (const double memory : {1e4, 0.0}) {
    const Damage recomputed = BaselineEvaluation(model, tokens, {.memory_budget = memory}).compare(damaged);
    EXPECT_EQ(recomputed.window_nll_baseline, kept.window_nll_baseline);
    EXPECT_EQ(recomputed.window_nll, kept.window_nll);
    EXPECT_EQ(recomputed.kl.mean, kept.kl.mean);
  }
}

// A head of so many tokens that a batch of two windows is taken in two chunks of at most 64 MB.
TEST(Compare, TakesLargeVocabulariesInChunks) {
  const Model model = random_model({.layers = 1, .vocab = 200'000});
  const at::Tensor tokens = random_tokens(3, 48, 1, 200'000);
  const BaselineEvaluation baseline(model, tokens, {.batch = 2, .memory_budget = 1e5});
  expect_no_damage(baseline.compare(model));
  const Model damaged = noised(model, 0.3);
  const at::Tensor p = log_probabilities(model, tokens), q = log_probabilities(damaged, tokens);
  EXPECT_NEAR(baseline.compare(damaged).kl.mean, (p.exp() * (p - q)).sum(1).mean().item<double>(), 1e-5);
}

TEST(Compare, AppliesTemperaturesOfBothDecoders) {
  Model baseline = random_model();
  Model damaged = noised(baseline, 0.2);
  const at::Tensor tokens = random_tokens(3, 12);
  for (const double temperature : {1.0, 1.7}) {
    baseline.decoder.temperature = temperature;
    damaged.decoder.temperature = 2.5;
    const Damage damage = compare(baseline, damaged, tokens);
    const at::Tensor p = log_probabilities(baseline, tokens), q = log_probabilities(damaged, tokens);
    EXPECT_NEAR(damage.kl.mean, (p.exp() * (p - q)).sum(1).mean().item<double>(), 1e-5);
    expect_no_damage(compare(baseline, baseline, tokens));
    expect_no_damage(BaselineEvaluation(baseline, tokens).compare(baseline));
  }
}

TEST(Compare, AppliesTheHeadsLogitMap) {
  const Model baseline = random_model();
  Model damaged = baseline;
  damaged.head.map.scale = 0.5;
  Model cooler = baseline;
  cooler.decoder.temperature = 2;
  const at::Tensor tokens = random_tokens(3, 12);
  EXPECT_NEAR(compare(baseline, damaged, tokens).kl.mean, compare(baseline, cooler, tokens).kl.mean, 1e-6);
}

// Noise on the head's own input goes by positions, which no chunk may change.
TEST(Compare, ShowsANoisyHeadItsPositions) {
  const Model baseline = random_model();
  Model damaged = baseline;
  damaged.head.linear.input.noise = 0.5;
  const at::Tensor tokens = random_tokens(5, 12);
  const at::Tensor p = log_probabilities(baseline, tokens), q = log_probabilities(damaged, tokens);
  const Damage damage = compare(baseline, damaged, tokens, {.batch = 3});
  EXPECT_NEAR(damage.kl.mean, (p.exp() * (p - q)).sum(1).mean().item<double>(), 1e-5);
  EXPECT_GT(damage.kl.mean, 1e-3);
  expect_no_damage(compare(damaged, damaged, tokens, {.batch = 3}));
}

TEST(Compare, LeavesWeightsThatWantGradientsAlone) {
  Model model = random_model();
  model.blocks[0].mlp.up.weight.requires_grad_();
  model.head.linear.weight.requires_grad_();
  const at::Tensor tokens = random_tokens(2, 12);
  expect_no_damage(BaselineEvaluation(model, tokens).compare(model));
  model.forward(tokens).sum().backward();
  EXPECT_TRUE(model.head.linear.weight.grad().defined());
}

TEST(Compare, TakesModelsOfTwoDtypes) {
  const Model baseline = random_model();
  const at::Tensor tokens = random_tokens(4, 16);
  const Damage damage = compare(baseline, baseline.to(at::kBFloat16), tokens);
  EXPECT_GT(damage.kl.mean, 0);
  EXPECT_LT(damage.kl.mean, 1e-2);
  EXPECT_GT(damage.top1_agreement, 0.9);
}

TEST(Compare, ReportsACollapseAsNaN) {
  const Model baseline = random_model();
  Model damaged = baseline;
  damaged.blocks[1].mlp.down =
      damaged.blocks[1].mlp.down.with_weight(at::full({32, 64}, std::numeric_limits<float>::quiet_NaN()));
  const Damage damage = compare(baseline, damaged, random_tokens(3, 12), {.byte_count = 100});
  for (const double value :
       {damage.nll, damage.perplexity, damage.delta_nll, damage.delta_nll_interval->low, damage.kl.mean, damage.kl.p99,
        damage.kl.by_confidence.front(), damage.kl.mean_interval->high, damage.acceptance,
        damage.acceptance_interval->low, *damage.direction, damage.direction_interval->low, damage.window_kl[0],
        damage.calibration_error, damage.entropy_shift, *damage.bits_per_byte}) {
    EXPECT_TRUE(std::isnan(value));
  }
  EXPECT_TRUE(std::isfinite(damage.perplexity_baseline));
  EXPECT_EQ(damage.top1_agreement, 0);
  EXPECT_EQ(damage.volume(), 1);
  EXPECT_EQ(damage.silent(), false);
  EXPECT_FALSE(damage.delta_nll_unchanged.has_value());
  EXPECT_EQ(damage.top5_overlap, 0);
  EXPECT_EQ(damage.accuracy, 0);
}

TEST(Compare, SumsUpInTheHemorrhageIndex) {
  const Model model = random_model();
  Model hotter = model, cooler = model;
  hotter.decoder.temperature = 3;
  cooler.decoder.temperature = 0.5;
  const at::Tensor tokens = random_tokens(6, 24, 1, 96);
  // Counts of a token that never comes make a unigram model that is worse than any: −log(1/(10⁹ + 97)).
  const at::Tensor useless = at::zeros({97}, at::kLong).index_fill(0, at::tensor({96}, at::kLong), 1'000'000'000);
  const CompareOptions given{.unigram = useless};
  for (const Model& damaged : {hotter, cooler}) {
    const Damage damage = compare(model, damaged, tokens, given);
    ASSERT_TRUE(damage.index.has_value());
    EXPECT_NEAR(*damage.index, std::max(0.0, damage.delta_nll / (std::log(1e9 + 97) - damage.nll_baseline)), 1e-12);
    EXPECT_EQ(damage.index_source, "given");
  }
  EXPECT_EQ(*compare(model, model, tokens, given).index, 0);

  // A random model is no better than the counts of the evaluated tokens themselves.
  const Damage random = compare(model, hotter, tokens);
  EXPECT_FALSE(random.index.has_value());
  EXPECT_EQ(random.index_source, "evaluated tokens");
}

TEST(Compare, GivesOneWindowNoInterval) {
  const Model model = random_model();
  const Damage damage = compare(model, noised(model, 0.3), random_tokens(1, 30), {.generate = true});
  EXPECT_FALSE(damage.delta_nll_interval.has_value());
  EXPECT_FALSE(damage.kl.mean_interval.has_value());
  EXPECT_FALSE(damage.acceptance_interval.has_value());
  EXPECT_FALSE(damage.top1_agreement_interval.has_value());
  EXPECT_FALSE(damage.direction_interval.has_value());
  EXPECT_FALSE(damage.silent().has_value());
  EXPECT_TRUE(damage.direction.has_value());
  EXPECT_FALSE(damage.generation->divergence.first_divergence_interval.has_value());
  EXPECT_TRUE(compare(model, noised(model, 0.3), random_tokens(2, 30)).silent().has_value());
}

TEST(Compare, RepeatsForASeed) {
  const Model model = random_model();
  const Model damaged = noised(model, 0.3);
  const BaselineEvaluation baseline(model, random_tokens(8, 12));
  EXPECT_EQ(baseline.compare(damaged).delta_nll_interval->low, baseline.compare(damaged).delta_nll_interval->low);
  const BaselineEvaluation other(model, random_tokens(8, 12), {.seed = 3});
  EXPECT_NE(other.compare(damaged).delta_nll_interval->low, baseline.compare(damaged).delta_nll_interval->low);
}

TEST(Compare, ChecksBeforeAnyWork) {
  const Model model = random_model();
  const at::Tensor tokens = random_tokens(2, 8);
  bool worked = false;
  CompareOptions watched;
  watched.progress = [&](int64_t, int64_t) { worked = true; };
  EXPECT_EQ(message_of<ValueError>([&] { compare(model, random_model({.vocab = 98}), tokens, watched); }),
            "hemostat.compare: the damaged model has 98 tokens in its vocabulary, but the baseline has 97");
  EXPECT_THROW(compare(model, model, random_tokens(2, 1), watched), ValueError);
  EXPECT_THROW(compare(model, model, at::zeros({0, 8}, at::kLong), watched), ValueError);
  EXPECT_THROW(compare(model, model, at::full({2, 8}, 97, at::kLong), watched), ValueError);
  EXPECT_THROW(compare(model, model, tokens.to(at::kFloat), watched), TypeError);
  watched.batch = 0;
  EXPECT_EQ(message_of<ValueError>([&] { compare(model, model, tokens, watched); }),
            "hemostat.compare: batch is 0, but takes at least 1");
  watched.batch = 1;
  watched.unigram = at::zeros({5}, at::kLong);
  EXPECT_THROW(compare(model, model, tokens, watched), ValueError);
  watched.unigram = at::zeros({97});
  EXPECT_THROW(compare(model, model, tokens, watched), TypeError);
  watched.unigram.reset();
  watched.byte_count = 0;
  EXPECT_THROW(compare(model, model, tokens, watched), ValueError);
  EXPECT_FALSE(worked);
}

TEST(Compare, StopsWhereProgressThrows) {
  const Model model = random_model();
  std::vector<int64_t> counts;
  CompareOptions options{.batch = 2};
  options.progress = [&](int64_t done, int64_t total) {
    EXPECT_EQ(total, 5);
    counts.push_back(done);
    if (counts.size() == 4) {
      throw Interrupted("stop");
    }
  };
  EXPECT_THROW(compare(model, model, random_tokens(5, 8), options), Interrupted);
  EXPECT_EQ(counts, (std::vector<int64_t>{2, 4, 5, 2}));
}

TEST(Divergence, TakesAnyLeadingShape) {
  const at::Tensor a = at::randn({2, 3, 11}), b = at::randn({2, 3, 11});
  const at::Tensor targets = at::randint(0, 11, {2, 3}, at::kLong);
  const metrics::TokenDivergence shaped = metrics::divergence(a, b, targets);
  const metrics::TokenDivergence flat = metrics::divergence(a.view({6, 11}), b.view({6, 11}), targets.flatten());
  EXPECT_EQ(shaped.kl.sizes(), targets.sizes());
  EXPECT_TRUE(shaped.kl.flatten().equal(flat.kl));
  EXPECT_TRUE(shaped.agree.equal(a.argmax(-1).eq(b.argmax(-1))));
  EXPECT_TRUE(shaped.right_damaged.equal(b.argmax(-1).eq(targets)));
}

TEST(Divergence, RefusesWhatDoesNotBelongTogether) {
  const at::Tensor logits = at::randn({4, 11});
  const at::Tensor targets = at::zeros({4}, at::kLong);
  EXPECT_EQ(message_of<ValueError>([&] { metrics::divergence(logits, at::randn({4, 12}), targets); }),
            "hemostat.metrics.divergence: damaged_logits is [4, 12], but baseline_logits is [4, 11]");
  EXPECT_THROW(metrics::divergence(logits, logits, at::zeros({5}, at::kLong)), ValueError);
  EXPECT_THROW(metrics::divergence(logits, logits, targets.to(at::kFloat)), TypeError);
  EXPECT_THROW(metrics::divergence(logits.to(at::kLong), logits, targets), TypeError);
}

TEST(CalibrationError, MatchesTheFormula) {
  const at::Tensor confidence = at::tensor({0.05, 0.05, 0.55, 0.6, 1.0}, at::kDouble);
  const at::Tensor right = at::tensor({0, 1, 1, 0, 1}).to(at::kBool);
  // Of ten bins: (0, .1] holds .05 twice, (.5, .6] .55 and .6, (.9, 1] 1.0.
  const double expected = std::abs(1 - 0.1) / 5 + std::abs(1 - 1.15) / 5 + 0;
  EXPECT_NEAR(metrics::expected_calibration_error(confidence, right, 10), expected, 1e-12);
  EXPECT_TRUE(std::isnan(metrics::expected_calibration_error(at::full({2}, NAN), right.narrow(0, 0, 2))));
  EXPECT_TRUE(std::isnan(metrics::expected_calibration_error(at::empty({0}), right.narrow(0, 0, 0))));
  EXPECT_THROW(metrics::expected_calibration_error(confidence, right, 0), ValueError);
  EXPECT_THROW(metrics::expected_calibration_error(confidence + 1, right), ValueError);
  EXPECT_THROW(metrics::expected_calibration_error(confidence, confidence), TypeError);
}

TEST(Unigram, SmoothsByOne) {
  const at::Tensor counts = at::tensor({3, 0, 1}, at::kLong);
  const double expected = -(std::log(4.0 / 7) + std::log(1.0 / 7)) / 2;
  EXPECT_NEAR(metrics::unigram_nll(counts, at::tensor({0, 1}, at::kLong)), expected, 1e-12);
  EXPECT_THROW(metrics::unigram_nll(counts, at::tensor({3}, at::kLong)), ValueError);
  EXPECT_THROW(metrics::unigram_nll(counts, at::empty({0}, at::kLong)), ValueError);
  EXPECT_THROW(metrics::unigram_nll(counts - 2, at::tensor({0}, at::kLong)), ValueError);
}

}  // namespace
}  // namespace hemostat
