#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <hemostat/calibrate.h>
#include <hemostat/error.h>
#include <hemostat/interrupt.h>
#include <hemostat/noise.h>
#include <hemostat/scan.h>

#include "../random_model.h"

namespace hemostat {
namespace {

using hemostat::testing::message_of;
using hemostat::testing::noised;
using hemostat::testing::random_model;
using hemostat::testing::random_tokens;

MethodSpec spec(const std::string& text) { return MethodSpec::parse(text); }

void expect_same(const Damage& found, const Damage& expected) {
  EXPECT_EQ(found.delta_nll, expected.delta_nll);
  EXPECT_EQ(found.delta_nll_interval->low, expected.delta_nll_interval->low);
  EXPECT_EQ(found.delta_nll_interval->high, expected.delta_nll_interval->high);
  EXPECT_EQ(found.window_nll, expected.window_nll);
  EXPECT_EQ(found.kl.mean, expected.kl.mean);
  EXPECT_EQ(found.kl.max, expected.kl.max);
  EXPECT_EQ(found.top1_agreement, expected.top1_agreement);
  EXPECT_EQ(found.calibration_error, expected.calibration_error);
  EXPECT_EQ(found.index, expected.index);
}

// The residual stream [windows, length, H] before each block and after the last.
class Stream : public Observer {
 public:
  void hidden_state(size_t index, const at::Tensor& x) override {
    EXPECT_EQ(index, states.size());
    states.push_back(x.clone());
  }
  std::vector<at::Tensor> states;
};

std::vector<at::Tensor> stream(const Model& model, const at::Tensor& tokens) {
  Stream observer;
  model.forward(tokens, {.observer = &observer});
  return observer.states;
}

double relative_error(const at::Tensor& damaged, const at::Tensor& baseline) {
  const at::Tensor exact = baseline.to(at::kDouble);
  return ((damaged.to(at::kDouble) - exact).norm() / exact.norm()).item<double>();
}

TEST(RunBlocks, RunsARangeAsForwardDoes) {
  const Model model = random_model({.layers = 4});
  const at::Tensor tokens = random_tokens(2, 11);
  const std::vector<at::Tensor> states = stream(model, tokens);
  const at::Tensor before = states[1].clone();
  Stream seen;
  seen.states.resize(1);
  EXPECT_TRUE(at::equal(run_blocks(model, states[1], 1, 3, {.observer = &seen}), states[3]));
  EXPECT_EQ(seen.states.size(), 4u);  // before blocks 1 and 2, and after the last
  EXPECT_TRUE(at::equal(seen.states[3], states[3]));
  EXPECT_TRUE(at::equal(states[1], before));
  EXPECT_TRUE(at::equal(run_blocks(model, states[2], 2, 2), states[2]));
  EXPECT_THROW(run_blocks(model, states[2], 2, 5), ValueError);
  EXPECT_THROW(run_blocks(model, states[2], 3, 2), ValueError);
}

TEST(RunBlocks, ContinuesACache) {
  const Model model = random_model();
  const at::Tensor tokens = random_tokens(1, 9);
  const at::Tensor whole = hidden_states(model, tokens);
  KvCache cache(model);
  for (const auto& [from, count] : std::vector<std::pair<int64_t, int64_t>>{{0, 5}, {5, 4}}) {
    const at::Tensor part = tokens.narrow(1, from, count);
    at::Tensor x = embed(model, part, &cache);
    x = run_blocks(model, x, 0, 2, {.cache = &cache});
    x = run_blocks(model, x, 2, 3, {.cache = &cache});
    cache.advance(part);
    EXPECT_TRUE(at::allclose(apply_norm(model.final_norm, x), whole.narrow(1, from, count), 1e-5, 1e-5));
  }
}

TEST(Localize, PutsEachBlockIntoTheBaselineAlone) {
  const Model model = random_model({.layers = 4});
  const at::Tensor tokens = random_tokens(5, 20);
  const Model damaged = prepare(model, "rtn").at(3);
  const Localization found = localize(model, spec("rtn"), tokens, 3);
  EXPECT_EQ(found.method, "rtn");
  EXPECT_EQ(found.severity, 3);
  expect_same(*found.whole, compare(model, damaged, tokens));
  ASSERT_EQ(found.sites.size(), 4u);
  double sum = 0, sum_kl = 0;
  const std::vector<at::Tensor> baseline = stream(model, tokens);
  for (size_t block = 0; block < 4; ++block) {
    const LocalizedSite& site = found.sites[block];
    EXPECT_EQ(site.name, "model.layers." + std::to_string(block));
    EXPECT_EQ(site.block, static_cast<int64_t>(block));
    EXPECT_FALSE(site.linear.has_value());
    Model alone = model;
    alone.blocks[block] = damaged.blocks[block];
    const Damage expected = compare(model, alone, tokens);
    EXPECT_GT(expected.kl.mean, 0);
    expect_same(*site.damage, expected);
    sum += expected.delta_nll;
    sum_kl += expected.kl.mean;

    const std::vector<at::Tensor> states = stream(alone, tokens);
    const double error = relative_error(states[block + 1], baseline[block + 1]);
    EXPECT_NEAR(*site.error, error, 1e-6 * error);
    EXPECT_NEAR(*site.cascade_gain, relative_error(states.back(), baseline.back()) / error, 1e-5);
  }
  EXPECT_DOUBLE_EQ(*found.additivity_kl, sum_kl / found.whole->kl.mean);
  const Interval interval = found.whole->delta_nll_interval.value();
  ASSERT_EQ(found.additivity.has_value(), interval.low > 0 || interval.high < 0);
  if (found.additivity) {
    EXPECT_DOUBLE_EQ(*found.additivity, sum / found.whole->delta_nll);
  }

  const std::vector<at::Tensor> states = stream(damaged, tokens);
  ASSERT_EQ(found.layer_error.size(), 5u);
  ASSERT_EQ(found.cascade_gain.size(), 4u);
  EXPECT_EQ(found.layer_error[0], 0);
  EXPECT_TRUE(std::isnan(found.cascade_gain[0]));
  for (size_t i = 1; i <= 4; ++i) {
    EXPECT_NEAR(found.layer_error[i], relative_error(states[i], baseline[i]), 1e-6);
    if (i > 1) {
      EXPECT_DOUBLE_EQ(found.cascade_gain[i - 1], found.layer_error[i] / found.layer_error[i - 1]);
    }
  }
}

TEST(Localize, PutsEachLinearIntoTheBaselineAlone) {
  const Model model = random_model({.layers = 2});
  const at::Tensor tokens = random_tokens(3, 16);
  const Model damaged = prepare(model, "magnitude").at(0.6);
  const Localization found =
      localize(model, spec("magnitude"), tokens, 0.6, nullptr, {.linears = true, .control = false});
  const std::vector<NamedLinear> changed = linears(damaged);
  ASSERT_EQ(found.sites.size(), changed.size());
  for (size_t i = 0; i < changed.size(); ++i) {
    const LocalizedSite& site = found.sites[i];
    EXPECT_EQ(site.name, changed[i].name);
    EXPECT_EQ(site.name, "model.layers." + std::to_string(*site.block) + "." + *site.linear);
    expect_same(*site.damage, compare(model, model.replace({{site.name, changed[i].linear->weight}}), tokens));
    EXPECT_FALSE(site.control.has_value());
  }
}

TEST(Localize, BatchesAndBudgetsGiveTheSame) {
  const Model model = random_model();
  const at::Tensor tokens = random_tokens(5, 20);
  const Localization found = localize(model, spec("rtn"), tokens, 3);
  for (const CompareOptions& compare : {CompareOptions{.batch = 1}, CompareOptions{.memory_budget = 0},
                                        CompareOptions{.batch = 2, .memory_budget = 0}}) {
    const Localization other = localize(model, spec("rtn"), tokens, 3, nullptr, {.compare = compare});
    for (size_t i = 0; i < found.sites.size(); ++i) {
      EXPECT_NEAR(other.sites[i].damage->delta_nll, found.sites[i].damage->delta_nll, 1e-6);
      EXPECT_NEAR(other.sites[i].damage->kl.mean, found.sites[i].damage->kl.mean, 1e-6);
      EXPECT_NEAR(*other.sites[i].error, *found.sites[i].error, 1e-6);
      EXPECT_NEAR(other.sites[i].control->kl.mean, found.sites[i].control->kl.mean, 1e-6);
    }
    EXPECT_NEAR(other.layer_error.back(), found.layer_error.back(), 1e-6);
  }
}

TEST(Localize, ControlsWithNoiseOfEqualNorm) {
  const Model model = random_model();
  const Model damaged = prepare(model, "magnitude").at(0.5);
  const Model control = isotropic_control(model, damaged, 3).value();
  const std::vector<NamedLinear> ours = linears(model), theirs = linears(damaged), noisy = linears(control);
  ASSERT_EQ(noisy.size(), ours.size());
  at::Tensor first;
  for (size_t i = 0; i < ours.size(); ++i) {
    const at::Tensor change = theirs[i].linear->weight - ours[i].linear->weight;
    const at::Tensor noise = noisy[i].linear->weight - ours[i].linear->weight;
    const double norm = change.norm().item<double>();
    ASSERT_GT(norm, 0);
    EXPECT_NEAR(noise.norm().item<double>(), norm, 1e-5 * norm) << ours[i].name;
    const double cosine = ((noise * change).sum() / (noise.norm() * change.norm())).item<double>();
    EXPECT_LT(std::abs(cosine), 0.15) << ours[i].name;
    if (i % 7 == 0) {  // q_proj of each block, of one shape
      EXPECT_FALSE(first.defined() && at::allclose(first, noise));
      first = noise;
    }
  }
  EXPECT_TRUE(at::equal(control.head.linear.weight, model.head.linear.weight));
  const Model again = *isotropic_control(model, damaged, 3), other = *isotropic_control(model, damaged, 4);
  EXPECT_TRUE(at::equal(linears(again)[0].linear->weight, noisy[0].linear->weight));
  EXPECT_FALSE(at::equal(linears(other)[0].linear->weight, noisy[0].linear->weight));

  const at::Tensor tokens = random_tokens(3, 16);
  const Localization found =
      localize(model, spec("magnitude"), tokens, 0.5, nullptr, {.compare = {.bootstrap_samples = 100, .seed = 3}});
  for (size_t block = 0; block < model.blocks.size(); ++block) {
    Model alone = model;
    alone.blocks[block] = control.blocks[block];
    const Damage expected = compare(model, alone, tokens, {.bootstrap_samples = 100, .seed = 3});
    expect_same(*found.sites[block].control, expected);
  }
}

TEST(Localize, HasNoControlWhereNoWeightChanged) {
  const Model model = random_model();
  EXPECT_FALSE(isotropic_control(model, prepare(model, "activation").at(4)).has_value());
  EXPECT_FALSE(isotropic_control(model, model).has_value());
  const Localization found = localize(model, spec("activation"), random_tokens(2, 12), 4);
  for (const LocalizedSite& site : found.sites) {
    EXPECT_GT(site.damage->kl.mean, 0);
    EXPECT_FALSE(site.control.has_value());
  }
}

TEST(Localize, FindsNothingAtNeutral) {
  const Model model = random_model();
  const Localization found = localize(model, spec("rtn"), random_tokens(3, 12), 16);
  EXPECT_EQ(found.whole->delta_nll, 0);
  EXPECT_EQ(found.whole->kl.max, 0);
  ASSERT_EQ(found.sites.size(), 3u);
  for (const LocalizedSite& site : found.sites) {
    EXPECT_EQ(site.damage->delta_nll, 0);
    EXPECT_EQ(site.damage->kl.max, 0);
    EXPECT_EQ(site.damage->top1_agreement, 1);
    EXPECT_EQ(site.error, 0);
    EXPECT_FALSE(site.cascade_gain.has_value());
    EXPECT_FALSE(site.control.has_value());
  }
  EXPECT_EQ(found.layer_error, (std::vector<double>(4, 0)));
  EXPECT_FALSE(found.additivity.has_value());
  EXPECT_FALSE(found.additivity_kl.has_value());
}

TEST(Localize, NamesBlocksThatStayAsTheyWere) {
  const Model model = random_model();
  const at::Tensor tokens = random_tokens(3, 12);
  const Localization found = localize(model, spec("rtn:include=*layers.1.*"), tokens, 2);
  ASSERT_EQ(found.sites.size(), 3u);
  EXPECT_EQ(found.sites[0].damage->kl.max, 0);
  EXPECT_EQ(found.sites[2].damage->kl.max, 0);
  EXPECT_EQ(found.sites[2].error, 0);
  EXPECT_FALSE(found.sites[0].control.has_value());
  expect_same(*found.sites[1].damage, *found.whole);
  EXPECT_DOUBLE_EQ(*found.additivity_kl, 1);
  EXPECT_EQ(found.layer_error[1], 0);
  EXPECT_DOUBLE_EQ(found.layer_error[2], *found.sites[1].error);
}

TEST(Localize, TakesEmbeddingFinalNormAndHeadAsSites) {
  const Model model = random_model();
  const at::Tensor tokens = random_tokens(3, 12);
  Model damaged = model;
  damaged.embedding = model.embedding * 1.1 + 0.05;
  damaged.final_norm.weight = at::rand_like(model.final_norm.weight);
  damaged.head.linear.weight = model.head.linear.weight.round();
  damaged.head.map.bias = at::randn({97});
  const Localization found = localize(model, damaged, tokens);
  EXPECT_TRUE(found.method.empty());
  ASSERT_EQ(found.sites.size(), 6u);
  expect_same(*found.whole, compare(model, damaged, tokens));
  EXPECT_GT(found.layer_error[0], 0);

  const LocalizedSite &embedding = found.sites[0], &norm = found.sites[4], &head = found.sites[5];
  Model alone = model;
  alone.embedding = damaged.embedding;
  EXPECT_EQ(embedding.name, "model.embed_tokens");
  EXPECT_FALSE(embedding.block.has_value());
  expect_same(*embedding.damage, compare(model, alone, tokens));
  EXPECT_DOUBLE_EQ(*embedding.error, found.layer_error[0]);
  EXPECT_FALSE(embedding.control.has_value());

  alone = model;
  alone.final_norm = damaged.final_norm;
  EXPECT_EQ(norm.name, "model.norm");
  expect_same(*norm.damage, compare(model, alone, tokens));
  EXPECT_FALSE(norm.error.has_value());
  EXPECT_FALSE(norm.control.has_value());

  alone = model;
  alone.head = damaged.head;
  EXPECT_EQ(head.name, "lm_head");
  expect_same(*head.damage, compare(model, alone, tokens));
  EXPECT_FALSE(head.error.has_value());
  ASSERT_TRUE(head.control.has_value());
  EXPECT_GT(head.control->kl.mean, 0);
}

TEST(Localize, ComputesTheBaselinesStatesOnce) {
  const Model model = random_model({.layers = 3});
  const at::Tensor tokens = random_tokens(4, 12);
  const Model damaged = prepare(model, "rtn").at(3);
  int64_t steps = 0;  // blocks that run, and pieces of logits, of which a small model has one for each evaluation
  set_interrupt_check([&] { ++steps; });
  localize(model, damaged, tokens, {.control = false, .compare = {.batch = 2}});
  set_interrupt_check({});
  const int64_t baseline = 3 + 1, whole = 3 + 1, sites = (3 + 1) + (2 + 1) + (1 + 1);
  EXPECT_EQ(steps, 2 * (baseline + whole + sites));  // of two batches
}

TEST(Localize, CountsWindowsAndStopsWhereACallbackThrows) {
  const Model model = random_model();
  std::vector<int64_t> done;
  LocalizeOptions options{.compare = {.batch = 2}};
  options.compare.progress = [&](int64_t now, int64_t total) {
    EXPECT_EQ(total, 5 * (1 + 3));
    done.push_back(now);
  };
  localize(model, spec("rtn"), random_tokens(5, 12), 3, nullptr, options);
  EXPECT_TRUE(std::is_sorted(done.begin(), done.end()));
  EXPECT_EQ(done.back(), 20);
  options.compare.progress = [&](int64_t now, int64_t) {
    if (now >= 4) {
      throw Interrupted("stop");
    }
  };
  EXPECT_THROW(localize(model, spec("rtn"), random_tokens(5, 12), 3, nullptr, options), Interrupted);
}

TEST(Localize, RefusesWhatIsNotChangedInPlace) {
  const Model model = random_model();
  const at::Tensor tokens = random_tokens(2, 12);
  bool worked = false;
  LocalizeOptions options;
  options.compare.progress = [&](int64_t, int64_t) { worked = true; };
  const auto message = [&](const std::string& method, double severity) {
    return message_of<ValueError>([&] { localize(model, spec(method), tokens, severity, nullptr, options); });
  };
  EXPECT_EQ(message("drop_layers", 1.0 / 3),
            "hemostat.localize: the damaged model has 2 blocks, but the baseline has 3; blocks are exchanged one for "
            "one");
  EXPECT_NE(message("duplicate_layers", 1.0 / 3).find("4 blocks"), std::string::npos);
  EXPECT_NE(message("token_noise", 0.1).find("token_noise changes the tokens"), std::string::npos);
  EXPECT_NE(message("temperature", 2).find("temperature changes how tokens are chosen"), std::string::npos);
  EXPECT_NE(message("wanda", 0.5).find("wanda needs statistics"), std::string::npos);
  EXPECT_NE(message("rtn", 17).find("bits is 17"), std::string::npos);
  options.compare.batch = 0;
  EXPECT_NE(message("rtn", 3).find("hemostat.localize: batch is 0"), std::string::npos);
  options.compare.batch = 4;
  EXPECT_THROW(localize(model, spec("rtn"), at::full({2, 8}, 97, at::kLong), 3, nullptr, options), ValueError);

  Model other = model;
  std::swap(other.blocks[0], other.blocks[1]);
  EXPECT_THROW(localize(model, other, tokens, options), ValueError);
  EXPECT_THROW(localize(model, model.to(at::kBFloat16), tokens, options), ValueError);
  other = model;
  other.input = {.kind = TokenNoise::swap, .rate = 0.5};
  EXPECT_THROW(localize(model, other, tokens, options), ValueError);
  options.linears = true;
  other = model;
  other.blocks[1].mlp_norm = Norm{};
  EXPECT_NE(message_of<ValueError>([&] { localize(model, other, tokens, options); }).find("block 1 changed"),
            std::string::npos);
  EXPECT_FALSE(worked);
}

const Linear& linear_of(const Model& model, const std::string& name) {
  const std::vector<NamedLinear> all = linears(model);
  return *std::find_if(all.begin(), all.end(), [&](const NamedLinear& named) { return named.name == name; })->linear;
}

TEST(LocalizePredicted, IsThePredictedDamageOfTheLinears) {
  const Model model = random_model({.layers = 2});
  const Statistics statistics = collect(model, random_tokens(3, 16), {.needs = predict_needs()});
  const Model damaged = prepare(model, "magnitude").at(0.6);
  const std::map<std::string, double> nats = predicted_damage(model, damaged, statistics);
  const Localization found = localize_predicted(model, damaged, statistics, {.linears = true});
  ASSERT_EQ(found.sites.size(), nats.size());
  for (const LocalizedSite& site : found.sites) {
    EXPECT_EQ(site.delta_nll, nats.at(site.name));
    const Linear& before = linear_of(model, site.name);
    const at::Tensor change = linear_of(damaged, site.name).dense() - before.dense();
    const double per_weight = change.square().sum().item<double>() / static_cast<double>(change.numel());
    const double fisher = statistics.gradient(site.name).row_fisher().sum().item<double>();
    const double trace = statistics.at(site.name).gram().diagonal().sum().item<double>();
    EXPECT_NEAR(*site.noise_delta_nll, 0.5 * per_weight * fisher * trace, 1e-4 * *site.noise_delta_nll);
    EXPECT_FALSE(site.damage || site.error || site.control);
  }
  EXPECT_FALSE(found.whole || found.additivity);
  const Localization blocks = localize_predicted(model, spec("magnitude"), 0.6, nullptr, statistics);
  ASSERT_EQ(blocks.sites.size(), 2u);
  EXPECT_NEAR(blocks.delta_nll, found.delta_nll, 1e-12);
  EXPECT_EQ(blocks.severity, 0.6);
  const auto refuses = [&](const char* method, double severity, const Statistics& judge) {
    EXPECT_THROW(localize_predicted(model, spec(method), severity, nullptr, judge), ValueError) << method;
  };
  refuses("wanda", 0.5, statistics);  // it needs its own
  refuses("activation", 4, statistics);
  refuses("magnitude", 0.5, Statistics());
  EXPECT_THROW(localize_predicted(model, prepare(model, "drop_norms").at(0.2), statistics), ValueError);
}

TEST(Scan, LocalizesMethodsThatChangeBlocksInPlace) {
  Method surer;
  surer.name = "surer";
  surer.axis = {.name = "s", .default_grid = {1}};
  surer.change = OnModel{.change = [](const Model& model, const Held&, const Options&, double severity) {
    Model result = model;
    result.head.linear.weight = model.head.linear.weight * (1 + 10 * severity);
    return result;
  }};
  register_method(surer);
  const Model model = random_model();
  const at::Tensor evaluation = random_tokens(4, 20), calibration = random_tokens(3, 20, 2);
  ScanOptions options;
  options.severities = {
      {"wanda", {0.3, 0.6}}, {"drop_layers", {1.0 / 3}}, {"temperature", {2}}, {"surer", {0.001, 0.5, 1}}};
  options.localize_windows = 2;
  std::vector<std::string> finished, stages;
  options.on_localization = [&](const Localization& found) {
    EXPECT_EQ(found.sites.empty(), found.method == "drop_layers");  // which says that it cannot be
    finished.push_back(found.method);
  };
  options.progress = [&](const std::string& stage, int64_t done, int64_t total) {
    EXPECT_LE(done, total);
    if (stages.empty() || stages.back() != stage) {
      stages.push_back(stage);
    }
  };
  const ScanResult result = scan(model, evaluation, calibration,
                                 {spec("wanda"), spec("drop_layers"), spec("temperature"), spec("surer")}, options);
  EXPECT_EQ(finished, (std::vector<std::string>{"wanda", "drop_layers", "surer"}));
  EXPECT_EQ(stages, (std::vector<std::string>{"baseline", "noise floor", "statistics", "trials", "localize", "trials",
                                              "localize"}));
  ASSERT_EQ(result.localizations.size(), 2u);
  const Localization &wanda = result.localizations[0], &sure = result.localizations[1];
  ASSERT_LT(result.curves[0].damages[1].delta_nll, 0.1);  // a random model has little to lose: the farthest then
  EXPECT_EQ(wanda.severity, 0.6);
  EXPECT_EQ(wanda.whole->windows, 2);
  ASSERT_LT(result.curves[3].damages[0].delta_nll, 0.1);
  ASSERT_GT(result.curves[3].damages[1].delta_nll, 0.1);
  EXPECT_EQ(sure.severity, 0.5);

  const Statistics statistics = collect(model, calibration);
  const at::Tensor counts = at::bincount(calibration.flatten(), {}, 97);
  const Localization alone =
      localize(model, spec("wanda"), evaluation.narrow(0, 0, 2), 0.6, &statistics, {.compare = {.unigram = counts}});
  for (size_t i = 0; i < alone.sites.size(); ++i) {
    expect_same(*wanda.sites[i].damage, *alone.sites[i].damage);
    expect_same(*wanda.sites[i].control, *alone.sites[i].control);
  }
}

TEST(Scan, LocalizesOnlyWhatIsNotKnown) {
  const Model model = random_model();
  const at::Tensor evaluation = random_tokens(3, 12), calibration = random_tokens(2, 12, 2);
  ScanOptions options;
  options.severities = {{"wanda", {0.5}}, {"gaussian", {0.2}}};
  options.localize_windows = 100;  // as many as there are
  const std::vector<MethodSpec> methods{spec("wanda"), spec("gaussian")};
  const ScanResult first = scan(model, evaluation, calibration, methods, options);
  ASSERT_EQ(first.localizations.size(), 2u);
  EXPECT_EQ(first.localizations[0].whole->windows, 3);
  options.known = [&](const std::string& method, double) {
    const SweepCurve& curve = first.curves[method == "wanda" ? 0 : 1];
    return std::optional(Trial{.method = method, .severity = curve.severities[0], .damage = curve.damages[0]});
  };
  options.known_localization = [&](const std::string& method, double) {
    return method == "gaussian" ? std::optional(first.localizations[1]) : std::nullopt;
  };
  std::vector<std::string> run;
  options.on_localization = [&](const Localization& found) { run.push_back(found.method); };
  // Its trials are known, but wanda's localization still needs the statistics.
  EXPECT_THROW(scan(model, evaluation, at::Tensor(), methods, options), ValueError);
  const ScanResult again = scan(model, evaluation, calibration, methods, options);
  EXPECT_EQ(run, (std::vector<std::string>{"wanda"}));
  ASSERT_EQ(again.localizations.size(), 2u);
  EXPECT_EQ(again.localizations[1].seconds, first.localizations[1].seconds);
  for (size_t i = 0; i < 3; ++i) {
    expect_same(*again.localizations[0].sites[i].damage, *first.localizations[0].sites[i].damage);
  }
  options.known_localization = [&](const std::string& method, double) {
    return std::optional(first.localizations[method == "wanda" ? 0 : 1]);
  };
  EXPECT_EQ(scan(model, evaluation, at::Tensor(), methods, options).localizations.size(), 2u);
  options.localize_windows = -1;
  EXPECT_THROW(scan(model, evaluation, calibration, methods, options), ValueError);
}

}  // namespace
}  // namespace hemostat
