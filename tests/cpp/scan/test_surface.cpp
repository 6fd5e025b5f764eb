#include <cmath>
#include <limits>
#include <map>
#include <optional>
#include <set>
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
using hemostat::testing::random_model;
using hemostat::testing::random_tokens;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

MethodPair pair(const std::string& first, const std::string& second) {
  return {MethodSpec::parse(first), MethodSpec::parse(second)};
}

TEST(Surface, ComparesEachPointOfTheGrid) {
  const Model model = random_model();
  const at::Tensor tokens = random_tokens(4, 20);
  const Statistics statistics = collect(model, random_tokens(4, 20, 2));
  std::vector<TrialName> seen;
  SurfaceOptions options{.severities = {std::vector<double>{.6, .3, .3}, std::vector<double>{3, 5, 16}}};
  options.on_trial = [&](const Trial& trial) { seen.push_back({trial.method, trial.severity}); };
  const Surface found = surface(model, pair("wanda", "rtn:group_size=16"), tokens, &statistics, options);
  EXPECT_EQ(found.methods, (std::array<std::string, 2>{"wanda", "rtn:group_size=16"}));
  EXPECT_EQ(found.severities[0], (std::vector<double>{0, .3, .6}));
  EXPECT_EQ(found.severities[1], (std::vector<double>{16, 5, 3}));
  const std::vector<TrialName> expected{{"wanda", .3},
                                        {"wanda", .6},
                                        {"rtn:group_size=16", 5},
                                        {"rtn:group_size=16", 3},
                                        {"wanda@0.3 > rtn:group_size=16", 5},
                                        {"wanda@0.3 > rtn:group_size=16", 3},
                                        {"wanda@0.6 > rtn:group_size=16", 5},
                                        {"wanda@0.6 > rtn:group_size=16", 3}};
  EXPECT_EQ(seen, expected);
  const Composition both =
      compose(model, {MethodSpec::parse("wanda"), MethodSpec::parse("rtn:group_size=16")}, &statistics);
  ASSERT_EQ(found.damages.size(), 3u);
  for (size_t i = 0; i < 3; ++i) {
    ASSERT_EQ(found.damages[i].size(), 3u);
    for (size_t j = 0; j < 3; ++j) {
      const Model damaged = both.at({found.severities[0][i], found.severities[1][j]});
      EXPECT_EQ(found.damages[i][j].delta_nll, compare(model, damaged, tokens).delta_nll);
      EXPECT_EQ(found.seconds[i][j] > 0, i + j > 0);
    }
  }
  EXPECT_EQ(found.damages[0][0].kl.mean, 0);
  EXPECT_TRUE(found.damages[0][0].within_noise_floor);
  EXPECT_GT(found.seconds_prepare, 0);
}

TEST(Surface, TakesDefaultGridsAndTheSameMethodTwice) {
  const Model model = random_model();
  const BaselineEvaluation baseline(model, random_tokens(2, 12));
  int trials = 0;
  SurfaceOptions options{.severities = {std::nullopt, std::vector<double>{.1, .5}}};
  options.on_trial = [&](const Trial&) { ++trials; };
  const Surface found = surface(baseline, pair("gaussian", "gaussian"), nullptr, options);
  EXPECT_EQ(found.severities[0].size(), found.axes[0].default_grid.size() + 1);
  EXPECT_EQ(found.severities[1], (std::vector<double>{0, .1, .5}));
  EXPECT_EQ(found.damages[0][2].delta_nll, found.damages[6][0].delta_nll);  // .5 alone, by either name
  EXPECT_EQ(trials, 6 + 6 * 2);                                             // the second's curve is among the first's
}

TEST(Surface, MeasuresByGenerationWhereSuchAMethodTakesPart) {
  const Model model = random_model();
  const at::Tensor tokens = random_tokens(3, 24);
  SurfaceOptions options{.severities = {std::vector<double>{.5}, std::vector<double>{2}}};
  options.compare.generation = {.prompts = 2, .prompt_length = 4, .new_tokens = 4};
  for (const bool first : {true, false}) {
    const MethodPair methods = first ? pair("temperature", "magnitude") : pair("magnitude", "temperature");
    if (first) {
      std::swap(options.severities[0], options.severities[1]);
    }
    const Surface found = surface(model, methods, tokens, nullptr, options);
    EXPECT_FALSE(found.damages[0][0].generation);
    EXPECT_EQ(found.damages[1][0].generation.has_value(), first);
    EXPECT_EQ(found.damages[0][1].generation.has_value(), !first);
    EXPECT_TRUE(found.damages[1][1].generation);
    if (first) {
      std::swap(options.severities[0], options.severities[1]);
    }
  }
}

// A grid of invented damages: rows of the first method's severities, on axes 0 … 1 and 16, 8, 4, 2 bits.
Surface grid(const std::vector<std::vector<double>>& delta_nll) {
  Surface result;
  result.methods = {"magnitude", "rtn"};
  result.axes[0] = {.name = "sparsity"};
  result.axes[1] = {.name = "bits", .neutral = 16, .minimum = 2, .maximum = 8, .farthest = 0};
  result.severities = {std::vector<double>{}, std::vector<double>{16, 8, 4, 2}};
  for (const std::vector<double>& row : delta_nll) {
    result.severities[0].push_back(.25 * static_cast<double>(result.severities[0].size()));
    result.damages.emplace_back();
    for (const double delta : row) {
      Damage damage;
      damage.index = 0;
      damage.delta_nll = delta;
      damage.delta_nll_interval = Interval{.9 * delta, 1.1 * delta};
      result.damages.back().push_back(damage);
    }
  }
  return result;
}

TEST(Surface, ItsZoneIsALevelSet) {
  const Surface found = grid({{0, 0, .1, .5}, {.04, .04, .24, .3}, {.02, .06, .06, kNan}, {.2, .2, .2, .2}});
  const std::vector<Zone> zones = found.zone(.1);
  ASSERT_EQ(zones.size(), 4u);
  EXPECT_DOUBLE_EQ(*zones[0].edge, 4);  // exactly the tolerance is within it
  EXPECT_DOUBLE_EQ(*zones[1].edge, 8 - 4 * (.1 - .04) / (.24 - .04));
  EXPECT_DOUBLE_EQ(*zones[2].edge, 8 - 4 * (.1 - .06) / (.24 - .06));  // the row before had .24 at 4 bits
  EXPECT_FALSE(zones[3].edge);                                         // the first alone costs more
  EXPECT_FALSE(zones[0].edge_censored);
  EXPECT_TRUE(found.zone(.6)[0].edge_censored);
  EXPECT_DOUBLE_EQ(*found.zone(.6)[1].edge, 2);
  EXPECT_DOUBLE_EQ(*found.zone(.6)[2].edge, 4);  // the last before it collapses
  EXPECT_DOUBLE_EQ(*found.zone(.04)[1].edge, 8);
}

TEST(Surface, ItsZoneReachesAsFarAsSafetyIsShown) {
  Surface found = grid({{0, 0, .1, .5}, {.04, .04, .24, .3}, {.02, .06, .06, kNan}, {.2, .2, .2, .2}});
  for (const auto& [edge, zone] : {std::pair(.1, .11), {.05, .055}, {.6, .66}}) {  // intervals reach a tenth farther
    for (size_t row = 0; row < 3; ++row) {
      EXPECT_DOUBLE_EQ(*found.zone(zone)[row].severity, *found.zone(edge)[row].edge);
      EXPECT_EQ(found.zone(zone)[row].censored, found.zone(edge)[row].edge_censored);
    }
  }
  EXPECT_FALSE(found.zone(.11)[3].severity.has_value());
  found.damages[1][2].delta_nll_interval.reset();  // as with one window
  for (const Zone& zone : found.zone(.11)) {
    EXPECT_FALSE(zone.severity.has_value() || zone.censored);
  }
}

TEST(Surface, TheFirstRowsZoneIsTheThreshold) {
  const std::vector<double> delta_nll{.01, .03, .4};
  const Surface found = grid({{0, .01, .03, .4}});
  const Threshold threshold(found.axes[1], {8, 4, 2}, delta_nll);
  for (const double tolerance : {.005, .02, .1, 1.}) {
    const Zone zone = threshold.zone(tolerance), row = found.zone(tolerance)[0];
    EXPECT_EQ(zone.edge, row.edge);
    EXPECT_EQ(zone.edge_censored, row.edge_censored);
  }
}

TEST(Surface, AnAxisThatJumpsAtNeutralIsNotInterpolatedFromIt) {
  Surface found = grid({{0, .3, .4, .5}, {.01, .05, .15, .5}});
  found.axes[1].continuous_at_neutral = false;
  EXPECT_EQ(*found.zone(.1)[0].edge, 16);  // the second is not used
  EXPECT_DOUBLE_EQ(*found.zone(.35)[1].edge, 6);
}

TEST(Surface, AdditivityIsTheSumOfBothAloneOverBoth) {
  Surface found = grid({{0, .01, .1, .2}, {.02, .06, .06, kNan}});
  found.damages[1][2].delta_nll_interval = Interval{-.01, .1};
  const auto additivity = found.additivity();
  EXPECT_EQ(additivity[0], std::vector<std::optional<double>>(4));
  EXPECT_FALSE(additivity[1][0]);
  EXPECT_DOUBLE_EQ(*additivity[1][1], .5);
  EXPECT_FALSE(additivity[1][2]);  // no damage for certain
  EXPECT_FALSE(additivity[1][3]);  // collapsed
}

TEST(Surface, RefusesBadInputBeforeAnyWork) {
  const Model model = random_model();
  const at::Tensor tokens = random_tokens(2, 12);
  const auto message = [&](const MethodPair& methods, const SurfaceOptions& options = {}) {
    return message_of<ValueError>([&] { surface(model, methods, tokens, nullptr, options); });
  };
  EXPECT_EQ(message(pair("magnitude", "wanda")),
            "hemostat.surface: wanda needs statistics (column_norm): collect them and pass them");
  EXPECT_EQ(message(pair("magnitude", "rtn"), {.severities = {std::nullopt, std::vector<double>{9}}}),
            "hemostat.rtn: bits is 9, but takes 2 … 8, or 16, which changes nothing");
  EXPECT_EQ(message(pair("magnitude", "rtn"), {.severities = {std::vector<double>{}, std::nullopt}}),
            "hemostat.surface: magnitude has no severities");
  const std::string message_of_zone = message_of<ValueError>([] { grid({{0, 0, 0, 0}}).zone(0); });
  EXPECT_EQ(message_of_zone, "hemostat.Surface.zone: tolerance is 0, but takes more than 0 and less than inf");
}

TEST(Scan, MeasuresPairsOnTheirMethodsGrids) {
  const Model model = random_model();
  const at::Tensor evaluation = random_tokens(3, 16), calibration = random_tokens(2, 16, 2);
  ScanOptions options{.joint = {pair("magnitude", "rtn"), pair("wanda", "rtn")}};
  options.severities = {{"magnitude", {.5, .2}}, {"rtn", {4}}, {"wanda", {.3}}};
  std::vector<TrialName> seen;
  options.on_trial = [&](const Trial& trial) { seen.push_back({trial.method, trial.severity}); };
  int64_t last_done = 0, last_total = 0;
  options.progress = [&](const std::string& stage, int64_t done, int64_t total) {
    if (stage == "trials") {
      last_done = done;
      last_total = total;
    }
  };
  const ScanResult result = scan(model, evaluation, calibration, {MethodSpec::parse("magnitude")}, options);
  const std::vector<TrialName> expected{{"magnitude", .2},          {"magnitude", .5},          {"rtn", 4},
                                        {"magnitude@0.2 > rtn", 4}, {"magnitude@0.5 > rtn", 4}, {"wanda", .3},
                                        {"wanda@0.3 > rtn", 4}};
  EXPECT_EQ(seen, expected);  // what is known by one name is run once
  EXPECT_EQ(last_done, 7);
  EXPECT_EQ(last_total, 7);
  ASSERT_EQ(result.surfaces.size(), 2u);
  EXPECT_EQ(result.surfaces[0].damages[2][0].delta_nll, result.curves[0].damages[1].delta_nll);
  const Statistics statistics = collect(model, calibration);
  const SurfaceOptions alone{.severities = {std::vector<double>{.3}, std::vector<double>{4}}};
  const Surface again = surface(model, pair("wanda", "rtn"), evaluation, &statistics, alone);
  EXPECT_EQ(result.surfaces[1].damages[1][1].delta_nll, again.damages[1][1].delta_nll);
}

TEST(Scan, TakesTrialsOfPairsThatAreKnown) {
  const Model model = random_model();
  const at::Tensor evaluation = random_tokens(3, 16);
  ScanOptions options{.joint = {pair("magnitude", "rtn")}, .points = 2};
  std::map<TrialName, Trial> kept;
  options.on_trial = [&](const Trial& trial) {
    kept.emplace(TrialName{trial.method, trial.severity}, trial);
    if (kept.size() == 5) {
      throw Interrupted("five are enough");
    }
  };
  std::optional<ScanBaseline> baseline;
  options.on_baseline = [&](const ScanBaseline& measured) { baseline = measured; };
  const std::vector<MethodSpec> methods{MethodSpec::parse("magnitude")};
  EXPECT_THROW(scan(model, evaluation, {}, methods, options), Interrupted);
  EXPECT_EQ(kept.size(), 5u);

  int again = 0;
  options.baseline = baseline;
  options.known = [&](const std::string& method, double severity) -> std::optional<Trial> {
    const auto found = kept.find({method, severity});
    return found == kept.end() ? std::nullopt : std::optional(found->second);
  };
  options.on_trial = [&](const Trial& trial) {
    ++again;
    kept.emplace(TrialName{trial.method, trial.severity}, trial);
  };
  const ScanResult resumed = scan(model, evaluation, {}, methods, options);
  EXPECT_EQ(again, 3);
  options.on_trial = [](const Trial&) { FAIL() << "all trials are known"; };
  const ScanResult finished = scan(model, evaluation, {}, methods, options);
  ScanOptions anew{.joint = options.joint, .points = 2};
  const ScanResult undisturbed = scan(model, evaluation, {}, methods, anew);
  for (size_t i = 0; i < 3; ++i) {
    for (size_t j = 0; j < 3; ++j) {
      EXPECT_EQ(resumed.surfaces[0].damages[i][j].delta_nll, undisturbed.surfaces[0].damages[i][j].delta_nll);
      EXPECT_EQ(finished.surfaces[0].damages[i][j].delta_nll, undisturbed.surfaces[0].damages[i][j].delta_nll);
    }
  }
}

TEST(Scan, RefusesAPairTwiceAndOneWithoutCalibration) {
  const Model model = random_model();
  const at::Tensor evaluation = random_tokens(3, 16);
  const std::vector<MethodSpec> methods{MethodSpec::parse("magnitude")};
  const auto message = [&](const ScanOptions& options) {
    return message_of<ValueError>([&] { scan(model, evaluation, {}, methods, options); });
  };
  EXPECT_EQ(message({.joint = {pair("rtn", "magnitude"), pair("rtn:symmetric=false", "magnitude")}}),
            "hemostat.scan: joint has rtn, magnitude twice");
  EXPECT_EQ(message({.joint = {pair("wanda", "rtn")}}),
            "hemostat.scan: wanda needs calibration tokens, and there are none");
  EXPECT_EQ(message({.severities = {{"rtn", {4}}}}),
            "hemostat.scan: severities are given for rtn, which is not among the methods");
}

}  // namespace
}  // namespace hemostat
