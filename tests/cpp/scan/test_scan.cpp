#include <algorithm>
#include <cmath>
#include <optional>
#include <string>
#include <vector>

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <hemostat/error.h>
#include <hemostat/scan.h>

#include "../random_model.h"

namespace hemostat {
namespace {

using hemostat::testing::message_of;
using hemostat::testing::noised;
using hemostat::testing::random_model;
using hemostat::testing::random_tokens;

MethodSpec spec(const std::string& text) { return MethodSpec::parse(text); }

std::vector<MethodSpec> specs(const std::vector<std::string>& texts) {
  std::vector<MethodSpec> result;
  for (const std::string& text : texts) {
    result.push_back(spec(text));
  }
  return result;
}

TEST(NoiseFloor, IsTheDamageOfTheOtherComputeType) {
  const at::Tensor tokens = random_tokens(4, 20);
  const Model model = random_model();
  const BaselineEvaluation baseline(model, tokens);
  const NoiseFloor floor = measure_noise_floor(baseline).value();
  const Damage damage = compare(model, model.to(at::kBFloat16), tokens);
  EXPECT_EQ(floor.against, "bfloat16");
  EXPECT_EQ(floor.kl, damage.kl.mean);
  EXPECT_GE(floor.delta_nll, std::abs(damage.delta_nll));
  EXPECT_EQ(floor.top1_agreement, damage.top1_agreement);
  EXPECT_TRUE(floor.covers(damage));
  EXPECT_TRUE(floor.covers(baseline.compare(model)));
  EXPECT_FALSE(floor.covers(baseline.compare(noised(model, 0.3))));
  Damage collapsed;
  collapsed.delta_nll = collapsed.kl.mean = std::nan("");
  EXPECT_FALSE(floor.covers(collapsed));

  const Model half = random_model({.dtype = at::kBFloat16});
  EXPECT_EQ(measure_noise_floor(BaselineEvaluation(half, tokens))->against, "float32");
}

TEST(NoiseFloor, IsUnknownWhereTheOtherTypeOverflows) {
  Model model = random_model();
  model.blocks[1].mlp_norm.weight[0] = 0;
  model.blocks[1].mlp.up.weight[0][0] = 3.4e38;  // beyond bfloat16, and multiplied by 0
  const BaselineEvaluation baseline(model, random_tokens(4, 20));
  EXPECT_FALSE(measure_noise_floor(baseline).has_value());
  const SweepCurve curve = sweep(baseline, spec("drop_norms"), nullptr, {.severities = std::vector<double>{0}});
  EXPECT_FALSE(curve.noise_floor.has_value());
  EXPECT_EQ(curve.damages[0].kl.mean, 0);
  EXPECT_FALSE(curve.damages[0].within_noise_floor);
}

TEST(Baseline, IsJudgedBeforeAnyTrial) {
  Model model = random_model();
  model.embedding = model.embedding.clone();
  model.embedding[96].fill_(std::nan(""));
  const at::Tensor tokens = random_tokens(9, 20, 1, 96);
  EXPECT_EQ(message_of<NumericalError>([&] { BaselineEvaluation(model, tokens); }), "");
  tokens[6][3] = 96;
  const std::string expected =
      "hemostat: the baseline is not finite on window 7: model.embed_tokens.weight has 32 NaN entries";
  const auto fail = [](const auto&) { ADD_FAILURE() << "worked"; };
  EXPECT_EQ(message_of<NumericalError>([&] { BaselineEvaluation(model, tokens); }), expected);
  EXPECT_EQ(message_of<NumericalError>([&] { compare(model, model, tokens); }), expected);
  EXPECT_EQ(message_of<NumericalError>([&] { sweep(model, spec("drop_layers"), tokens, nullptr, {.on_trial = fail}); }),
            expected);
  EXPECT_EQ(message_of<NumericalError>(
                [&] { surface(model, {spec("drop_layers"), spec("rtn")}, tokens, nullptr, {.on_trial = fail}); }),
            expected);
  EXPECT_EQ(message_of<NumericalError>([&] { localize(model, spec("rtn"), tokens, 3); }), expected);
  ScanOptions options;
  options.on_trial = fail;
  options.on_baseline = fail;
  EXPECT_EQ(message_of<NumericalError>([&] { scan(model, tokens, at::Tensor(), specs({"rtn"}), options); }), expected);
  EXPECT_EQ(message_of<NumericalError>([&] { collect(model, tokens); }),
            "hemostat.collect: the model is not finite on window 7: model.embed_tokens.weight has 32 NaN entries");

  // What an earlier version kept is not believed.
  Damage kept;
  kept.nll = std::nan("");
  options.on_baseline = nullptr;
  options.baseline = ScanBaseline{.damage = kept, .noise_floor = NoiseFloor{}};
  options.known = [](const std::string& method, double severity) {
    return Trial{.method = method, .severity = severity, .damage = {}};
  };
  EXPECT_EQ(message_of<NumericalError>([&] { scan(model, tokens, at::Tensor(), specs({"rtn"}), options); }), expected);
}

TEST(Baseline, IsJudgedByItsLogitsToo) {
  Model model = random_model({.dtype = at::kHalf});
  model.head.linear.weight.mul_(50000);
  const at::Tensor tokens = random_tokens(3, 20);
  const auto named = [](const std::string& message) {
    return message.find("on window 1: lm_head gives Inf; float16 reaches 65504") != std::string::npos;
  };
  EXPECT_TRUE(named(message_of<NumericalError>([&] { compare(model, model, tokens); })));
  EXPECT_TRUE(named(message_of<NumericalError>([&] { sweep(model, spec("rtn"), tokens); })));
  EXPECT_TRUE(named(message_of<NumericalError>([&] { localize(model, spec("rtn"), tokens, 3); })));
}

TEST(Statistics, ThatAreNotFiniteAreNamed) {
  const Model model = random_model();
  const at::Tensor tokens = random_tokens(3, 20);
  CollectOptions collecting;
  collecting.needs = std::set<Need>{Need::gradient_square, Need::gram};
  Statistics statistics = collect(model, tokens, collecting);
  const std::string up = "model.layers.1.mlp.up_proj", down = "model.layers.1.mlp.down_proj";
  EXPECT_TRUE(statistics.gradient(up).finite(Need::gradient_square));
  statistics.gradients.at(up)->add(at::full({64, 32}, std::nan("")));
  EXPECT_FALSE(statistics.gradient(up).finite(Need::gradient_square));
  const Options fisher{{"score", std::string("fisher")}};
  EXPECT_EQ(message_of<ValueError>([&] { prepare(model, "gradient", &statistics, fisher); }),
            "hemostat.prepare(gradient): gradient_square of 'model.layers.1.mlp.up_proj' has NaN or infinite entries; "
            "collect the statistics again");
  const Options row{{"group_size", std::string("row")}};
  prepare(model, "gptq", &statistics, row);
  statistics.inputs.at(down)->add(at::full({1, 64}, 1e30));  // its square is beyond float32
  EXPECT_EQ(message_of<ValueError>([&] { prepare(model, "gptq", &statistics, row); }),
            "hemostat.prepare(gptq): gram of 'model.layers.1.mlp.down_proj' has NaN or infinite entries; collect the "
            "statistics again");
}

TEST(Baseline, MayMeetADamagedModelThatIsNotFinite) {
  const Model model = random_model();
  Model damaged = model;
  damaged.blocks[1].mlp.down.weight = at::full({32, 64}, std::nan(""));
  const at::Tensor tokens = random_tokens(3, 20);
  EXPECT_TRUE(std::isnan(compare(model, damaged, tokens).nll));
  const Localization found = localize(model, damaged, tokens);
  EXPECT_TRUE(std::isnan(found.whole->delta_nll));
  EXPECT_EQ(found.sites[0].damage->delta_nll, 0);
}

TEST(Sweep, ComparesEachSeverityFromMildToSevere) {
  const Model model = random_model();
  const at::Tensor tokens = random_tokens(4, 20);
  std::vector<double> seen;
  SweepOptions options{.severities = std::vector<double>{0.5, 0, 0.9, 0.1, 0.5}};
  options.on_trial = [&](const Trial& trial) {
    EXPECT_EQ(trial.method, "gaussian");
    seen.push_back(trial.severity);
  };
  const SweepCurve curve = sweep(model, spec("gaussian"), tokens, nullptr, options);
  EXPECT_EQ(curve.severities, (std::vector<double>{0, 0.1, 0.5, 0.9}));
  EXPECT_EQ(seen, curve.severities);
  ASSERT_EQ(curve.damages.size(), 4u);
  EXPECT_EQ(curve.damages[0].kl.mean, 0);
  EXPECT_TRUE(curve.damages[0].within_noise_floor);
  for (size_t i = 1; i < 4; ++i) {
    EXPECT_GT(curve.damages[i].kl.mean, curve.damages[i - 1].kl.mean);
    EXPECT_FALSE(curve.damages[i].within_noise_floor);
    const Damage alone = compare(model, prepare(model, "gaussian").at(curve.severities[i]), tokens);
    EXPECT_EQ(curve.damages[i].delta_nll, alone.delta_nll);
  }
}

TEST(Sweep, TakesTheDefaultGridAndAKnownFloor) {
  const Model model = random_model();
  const BaselineEvaluation baseline(model, random_tokens(2, 12));
  const NoiseFloor everything{.against = "bfloat16", .delta_nll = 1e9, .kl = 1e9};
  const SweepCurve curve = sweep(baseline, spec("temperature:side=down"), nullptr, {.noise_floor = everything});
  EXPECT_EQ(curve.method, spec("temperature:side=down").text());
  EXPECT_EQ(curve.severities, curve.axis.default_grid);
  for (const Damage& damage : curve.damages) {
    EXPECT_TRUE(damage.within_noise_floor);
  }
}

TEST(Sweep, MeasuresDecodingByGenerationToo) {
  const Model model = random_model();
  const at::Tensor tokens = random_tokens(6, 20);
  const SweepOptions at_three{.severities = std::vector<double>{1, 1.2, 4}};
  const SweepCurve curve = sweep(model, spec("temperature"), tokens, nullptr, at_three);
  EXPECT_EQ(curve.axis.measured_by, Measure::generation);
  ASSERT_EQ(curve.damages.size(), 3u);
  double before = 65;
  for (const Damage& damage : curve.damages) {
    ASSERT_TRUE(damage.generation.has_value());
    EXPECT_LT(damage.generation->divergence.first_divergence, before);
    before = damage.generation->divergence.first_divergence;
    EXPECT_EQ(damage.generation->prompt_length, 10);
  }
  EXPECT_EQ(curve.damages[0].generation->divergence.exact_match, 1);
  EXPECT_EQ(curve.damages[0].kl.mean, 0);
  EXPECT_GT(curve.damages[2].kl.mean, curve.damages[1].kl.mean);

  SweepOptions options{.severities = std::vector<double>{0.5}};
  EXPECT_FALSE(sweep(model, spec("magnitude"), tokens, nullptr, options).damages[0].generation.has_value());
  options.compare.generate = true;
  EXPECT_TRUE(sweep(model, spec("magnitude"), tokens, nullptr, options).damages[0].generation.has_value());
}

TEST(Sweep, ChecksBeforeAnyWork) {
  const Model model = random_model();
  const at::Tensor tokens = random_tokens(2, 12);
  bool worked = false;
  SweepOptions options;
  options.compare.progress = [&](int64_t, int64_t) { worked = true; };
  const auto sweep_at = [&](const std::string& method, const std::vector<double>& severities) {
    options.severities = severities;
    sweep(model, MethodSpec{.method = method, .options = {}}, tokens, nullptr, options);
  };
  EXPECT_THROW(sweep_at("magnitude", {0.1, 1.5}), ValueError);
  EXPECT_THROW(sweep_at("magnitude", {}), ValueError);
  EXPECT_THROW(sweep_at("no_such_method", {0.1}), ValueError);
  EXPECT_NE(message_of<ValueError>([&] { sweep_at("wanda", {0.1}); }).find("wanda needs statistics"),
            std::string::npos);
  options.severities.reset();
  CollectOptions collecting;
  collecting.needs = {Need::absmax};
  const Statistics maxima = collect(model, tokens, collecting);
  EXPECT_NE(message_of<ValueError>([&] { sweep(model, spec("wanda"), tokens, &maxima, options); }).find("column_norm"),
            std::string::npos);
  EXPECT_FALSE(worked);
}

TEST(Sweep, GivesItsThreshold) {
  const Model model = random_model();
  // A random model guesses, so it loses by being surer.
  const SweepCurve curve = sweep(model, spec("temperature:side=down"), random_tokens(6, 20), nullptr,
                                 {.severities = std::vector<double>{1, 0.8, 0.4}});
  ASSERT_GT(curve.damages[1].delta_nll, 0);
  ASSERT_GT(curve.damages[2].delta_nll, curve.damages[1].delta_nll);
  const Zone zone = find_threshold(curve).zone((curve.damages[1].delta_nll + curve.damages[2].delta_nll) / 2);
  EXPECT_NEAR(*zone.edge, 0.6, 1e-12);
  ASSERT_TRUE(zone.interval.has_value());
  EXPECT_LT(zone.interval->low, 0.6);
  EXPECT_GT(zone.interval->high, 0.6);
}

TEST(Plan, ListsSeveritiesWithoutPreparing) {
  const Model model = random_model({.layers = 4});
  ScanOptions options;
  options.severities = {{"magnitude", {0.5, 0.2}}};
  options.points = 3;
  const std::vector<PlannedMethod> planned =
      plan(model, specs({"magnitude", "gaussian", "wanda:m=4", "drop_layers"}), options);
  ASSERT_EQ(planned.size(), 4u);
  EXPECT_EQ(planned[0].severities, (std::vector<double>{0.2, 0.5}));
  EXPECT_EQ(planned[1].severities.size(), 3u);
  EXPECT_EQ(planned[2].severities, (std::vector<double>{3, 2, 1}));
  EXPECT_EQ(planned[3].severities, (std::vector<double>{0.25, 0.5}));
  const std::vector<double> grid = find_method("gaussian").axis.default_grid;
  EXPECT_EQ(planned[1].severities.front(), grid.front());
  EXPECT_EQ(planned[1].severities.back(), grid.back());
}

TEST(Plan, RefusesWhatCannotBeScanned) {
  const Model model = random_model();
  EXPECT_EQ(message_of<ValueError>([&] { plan(model, {}); }), "hemostat.scan: methods is empty");
  EXPECT_THROW(plan(model, specs({"magnitude", "magnitude"})), ValueError);
  EXPECT_THROW(plan(model, specs({"magnitude"}), {.severities = {{"gaussian", {0.1}}}}), ValueError);
  EXPECT_THROW(plan(model, specs({"magnitude"}), {.severities = {{"magnitude", {1.5}}}}), ValueError);
  EXPECT_THROW(plan(model, specs({"magnitude"}), {.points = 0}), ValueError);
}

TEST(Scan, RunsMethodsOverTheirSeverities) {
  const Model model = random_model();
  const at::Tensor evaluation = random_tokens(4, 20), calibration = random_tokens(3, 20, 2);
  ScanOptions options;
  options.severities = {{"wanda", {0.3, 0.6}}, {"temperature", {2}}};
  std::vector<std::string> trials, stages;
  options.on_trial = [&](const Trial& trial) { trials.push_back(trial.method + std::to_string(trial.severity)); };
  options.progress = [&](const std::string& stage, int64_t done, int64_t total) {
    EXPECT_LE(done, total);
    if (stages.empty() || stages.back() != stage) {
      stages.push_back(stage);
    }
  };
  const ScanResult result = scan(model, evaluation, calibration, specs({"wanda", "temperature"}), options);
  EXPECT_EQ(trials, (std::vector<std::string>{"wanda0.300000", "wanda0.600000", "temperature2.000000"}));
  EXPECT_EQ(stages, (std::vector<std::string>{"baseline", "noise floor", "statistics", "trials"}));
  EXPECT_EQ(result.baseline.delta_nll, 0);
  EXPECT_EQ(result.baseline.perplexity, result.baseline.perplexity_baseline);
  EXPECT_EQ(result.baseline.index_source, "calibration tokens");
  ASSERT_EQ(result.curves.size(), 2u);

  const Statistics statistics = collect(model, calibration);
  const at::Tensor counts = at::bincount(calibration.flatten(), {}, 97);
  const Damage alone = compare(model, prepare(model, "wanda", &statistics).at(0.6), evaluation, {.unigram = counts});
  EXPECT_EQ(result.curves[0].damages[1].delta_nll, alone.delta_nll);
  EXPECT_EQ(result.curves[0].damages[1].index, alone.index);
}

TEST(Scan, TakesKnownTrialsAsTheyAre) {
  const Model model = random_model();
  const at::Tensor evaluation = random_tokens(3, 12);
  ScanOptions options;
  options.severities = {{"gaussian", {0.1, 0.2}}, {"wanda", {0.5}}};
  Trial gaussian{.method = "gaussian", .severity = 0.1, .damage = {}, .seconds = 42, .seconds_prepare = 7};
  gaussian.damage.perplexity = 1234;
  Trial wanda{.method = "wanda", .severity = 0.5, .damage = {}, .seconds = 1};
  options.known = [&](const std::string& method, double severity) {
    return method == "wanda" ? std::optional(wanda) : severity == 0.1 ? std::optional(gaussian) : std::nullopt;
  };
  std::vector<int64_t> trials_done;
  std::vector<std::string> stages;
  options.progress = [&](const std::string& stage, int64_t done, int64_t) {
    stages.push_back(stage);
    if (stage == "trials") {
      trials_done.push_back(done);
    }
  };
  std::vector<double> run;
  options.on_trial = [&](const Trial& trial) { run.push_back(trial.severity); };
  // Nothing is left of wanda, so no calibration is needed.
  const ScanResult result = scan(model, evaluation, at::Tensor(), specs({"wanda", "gaussian"}), options);
  EXPECT_EQ(run, (std::vector<double>{0.2}));
  EXPECT_EQ(result.curves[1].damages[0].perplexity, 1234);
  EXPECT_EQ(result.curves[1].seconds[0], 42);
  EXPECT_GE(result.curves[1].seconds_prepare, 7);
  EXPECT_EQ(result.curves[0].severities, (std::vector<double>{0.5}));
  EXPECT_EQ(trials_done.front(), 2);
  EXPECT_EQ(trials_done.back(), 3);
  EXPECT_FALSE(find_threshold(result.curves[1]).zone(100).interval.has_value());  // the known trial has no windows
  EXPECT_EQ(std::count(stages.begin(), stages.end(), "statistics"), 0);
}

TEST(Scan, TakesATrialThatAnotherFinishedMeanwhile) {
  ScanOptions options;
  options.severities = {{"gaussian", {0.1, 0.2, 0.3}}};
  int64_t questions = 0;
  options.known = [&](const std::string& method, double severity) {
    const Trial trial{.method = method, .severity = severity, .damage = {}, .seconds = 42};
    return ++questions > 3 && severity == 0.2 ? std::optional(trial) : std::nullopt;  // three are asked at the start
  };
  std::vector<double> run;
  options.on_trial = [&](const Trial& trial) { run.push_back(trial.severity); };
  int64_t last_done = 0;
  options.progress = [&](const std::string&, int64_t done, int64_t) { last_done = done; };
  const ScanResult result = scan(random_model(), random_tokens(3, 12), at::Tensor(), specs({"gaussian"}), options);
  EXPECT_EQ(run, (std::vector<double>{0.1, 0.3}));
  EXPECT_EQ(result.curves[0].seconds[1], 42);
  EXPECT_EQ(last_done, 3);
}

TEST(Scan, EvaluatesNothingWhereAllIsKnown) {
  const Model model = random_model();
  const at::Tensor evaluation = random_tokens(3, 12);
  std::vector<Trial> trials;
  std::vector<Localization> localizations;
  std::optional<ScanBaseline> baseline;
  ScanOptions options;
  options.severities = {{"gaussian", {0.1, 0.2}}, {"drop_layers", {1.0 / 3}}};
  options.localize_windows = 2;
  options.on_trial = [&](const Trial& trial) { trials.push_back(trial); };
  options.on_localization = [&](const Localization& localization) { localizations.push_back(localization); };
  options.on_baseline = [&](const ScanBaseline& measured) {
    EXPECT_TRUE(trials.empty());
    baseline = measured;
  };
  const std::vector<MethodSpec> methods = specs({"gaussian", "drop_layers"});
  const ScanResult first = scan(model, evaluation, at::Tensor(), methods, options);
  ASSERT_TRUE(baseline.has_value());
  ASSERT_EQ(first.localizations.size(), 1u);

  const auto find = [](const auto& entries, const auto& matches) {
    const auto found = std::find_if(entries.begin(), entries.end(), matches);
    return found == entries.end() ? std::nullopt : std::optional(*found);
  };
  int64_t evaluations = 0;
  options.baseline = baseline;
  options.known = [&](const std::string& method, double severity) {
    return find(trials, [&](const Trial& trial) { return trial.method == method && trial.severity == severity; });
  };
  options.known_localization = [&](const std::string& method, double) {
    return find(localizations, [&](const Localization& entry) { return entry.method == method; });
  };
  options.on_trial = [&](const Trial&) { ++evaluations; };
  options.on_localization = [&](const Localization&) { ++evaluations; };
  options.on_baseline = [&](const ScanBaseline&) { ++evaluations; };
  options.progress = [&](const std::string& stage, int64_t, int64_t) { evaluations += stage != "trials"; };
  const ScanResult again = scan(model, evaluation, at::Tensor(), methods, options);
  EXPECT_EQ(evaluations, 0);
  EXPECT_EQ(again.baseline.perplexity, first.baseline.perplexity);
  EXPECT_EQ(again.noise_floor->delta_nll, first.noise_floor->delta_nll);
  EXPECT_EQ(again.localizations.size(), 1u);
  for (size_t curve = 0; curve < 2; ++curve) {
    ASSERT_EQ(again.curves[curve].damages.size(), first.curves[curve].damages.size());
    for (size_t i = 0; i < first.curves[curve].damages.size(); ++i) {
      EXPECT_EQ(again.curves[curve].damages[i].window_nll, first.curves[curve].damages[i].window_nll);
    }
  }
}

TEST(Scan, ChecksBeforeAnyWorkAndStopsWhereACallbackThrows) {
  const Model model = random_model();
  const at::Tensor evaluation = random_tokens(3, 12);
  ScanOptions options;
  int64_t calls = 0;
  options.progress = [&](const std::string&, int64_t, int64_t) { ++calls; };
  EXPECT_NE(message_of<ValueError>([&] {
              scan(model, evaluation, at::Tensor(), specs({"wanda"}), options);
            }).find("wanda needs calibration tokens"),
            std::string::npos);
  EXPECT_THROW(scan(model, evaluation, at::full({2, 8}, 97, at::kLong), specs({"wanda"}), options), ValueError);
  EXPECT_EQ(calls, 0);
  int64_t trials = 0;
  options.on_trial = [&](const Trial&) {
    if (++trials == 2) {
      throw Interrupted("stop");
    }
  };
  EXPECT_THROW(scan(model, evaluation, at::Tensor(), specs({"gaussian"}), options), Interrupted);
  EXPECT_EQ(trials, 2);
}

}  // namespace
}  // namespace hemostat
