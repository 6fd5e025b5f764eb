#include <cmath>
#include <limits>
#include <vector>

#include <gtest/gtest.h>

#include <hemostat/error.h>
#include <hemostat/threshold.h>

#include "../random_model.h"

namespace hemostat {
namespace {

using hemostat::testing::message_of;

constexpr double kNaN = std::numeric_limits<double>::quiet_NaN();

Axis fraction() { return {.name = "sparsity", .unit = "fraction", .default_grid = {.1, .5, .9}}; }

Axis bits() {
  return {.name = "bits",
          .unit = "bits",
          .neutral = 16,
          .minimum = 2,
          .maximum = 8,
          .farthest = 0,
          .default_grid = {8, 4, 2}};
}

Axis kept_of_four() {
  Axis axis{.name = "n", .unit = "of 4", .neutral = 4, .minimum = 0, .maximum = 4, .farthest = 0};
  axis.kind = AxisKind::integer;
  return axis;
}

TEST(Axis, MapsSeverityToDistance) {
  EXPECT_DOUBLE_EQ(fraction().distance(0.3), 0.3);
  EXPECT_DOUBLE_EQ(bits().distance(4), 0.75);  // 1 − bits/16
  EXPECT_DOUBLE_EQ(bits().distance(16), 0);
  EXPECT_EQ(bits().direction(), -1);
  EXPECT_EQ(fraction().direction(), 1);
  for (const double severity : {2.0, 3.5, 8.0, 16.0}) {
    EXPECT_DOUBLE_EQ(bits().severity_at(bits().distance(severity)), severity);
  }
}

TEST(Axis, ChecksSeverities) {
  EXPECT_EQ(fraction().checked(0.1 + 0.2, "wanda"), 0.1 + 0.2);
  EXPECT_EQ(fraction().checked(1 + 1e-12, "wanda"), 1);  // but for rounding
  EXPECT_EQ(bits().checked(16, "rtn"), 16);              // neutral lies outside of 2 … 8
  EXPECT_EQ(kept_of_four().checked(2.0000000001, "wanda"), 2);
  EXPECT_THROW(fraction().checked(1.01, "wanda"), ValueError);
  EXPECT_THROW(fraction().checked(-0.1, "wanda"), ValueError);
  EXPECT_THROW(fraction().checked(kNaN, "wanda"), ValueError);
  EXPECT_THROW(bits().checked(12, "rtn"), ValueError);
  EXPECT_THROW(kept_of_four().checked(2.5, "wanda"), ValueError);
  const std::string message = message_of<ValueError>([] { fraction().checked(1.5, "wanda"); });
  for (const char* part : {"wanda", "sparsity", "1.5"}) {
    EXPECT_NE(message.find(part), std::string::npos) << message;
  }
}

TEST(Axis, TakesNothingThatIsNotFinite) {
  for (const double severity :
       {kNaN, std::numeric_limits<double>::infinity(), -std::numeric_limits<double>::infinity()}) {
    for (const Axis& axis : {fraction(), bits(), kept_of_four()}) {
      EXPECT_THROW(axis.checked(severity, "method"), ValueError);
      EXPECT_THROW(axis.distance(severity), ValueError);
    }
  }
  EXPECT_EQ(message_of<ValueError>([] { fraction().checked(std::numeric_limits<double>::infinity(), "wanda"); }),
            "hemostat.wanda: sparsity is inf, but takes 0 … 1");
  EXPECT_EQ(message_of<ValueError>([] { kept_of_four().checked(2.5, "wanda"); }),
            "hemostat.wanda: n is 2.5, but takes whole numbers 0 … 4");
}

TEST(Axis, MovesToTheNearestStep) {
  Axis layers = fraction();
  layers.step = 1.0 / 30;
  EXPECT_EQ(layers.checked(0.1, "drop_layers"), 3.0 / 30);
  EXPECT_EQ(layers.checked(0.11, "drop_layers"), 3.0 / 30);
  EXPECT_EQ(layers.checked(0.49, "drop_layers"), 15.0 / 30);
}

TEST(Axis, TakesOnlyWhatIsListed) {
  Axis listed{.name = "bits per weight", .neutral = 16, .minimum = 4, .maximum = 8, .farthest = 0};
  listed.kind = AxisKind::listed;
  listed.default_grid = {4.25};
  EXPECT_EQ(listed.checked(4.25, "mxfp4"), 4.25);
  EXPECT_EQ(listed.checked(16, "mxfp4"), 16);
  EXPECT_THROW(listed.checked(5, "mxfp4"), ValueError);
}

TEST(Zone, InterpolatesBetweenMeasuredPoints) {
  const Threshold curve(fraction(), {0.2, 0.4, 0.6}, {0.01, 0.05, 0.25});
  EXPECT_DOUBLE_EQ(*curve.zone(0.05).severity, 0.4);
  EXPECT_DOUBLE_EQ(*curve.zone(0.15).severity, 0.5);
  EXPECT_DOUBLE_EQ(*curve.zone(0.005).severity, 0.1);  // from 0 at neutral
  EXPECT_FALSE(curve.zone(0.15).censored);
  EXPECT_FALSE(curve.zone(0.15).interval.has_value());
  EXPECT_FALSE(curve.point.has_value());
}

TEST(Zone, FallsWithBits) {
  const Threshold curve(bits(), {2, 8, 4}, {3, 0, 0.1});  // in any order
  EXPECT_DOUBLE_EQ(*curve.zone(0.05).severity, 6);
  EXPECT_DOUBLE_EQ(*curve.zone(1.55).severity, 3);
}

TEST(Zone, IsCensoredWhereNothingExceedsIt) {
  const Zone zone = Threshold(fraction(), {0.2, 0.4}, {0.01, 0.02}).zone(0.05);
  EXPECT_EQ(*zone.severity, 0.4);
  EXPECT_TRUE(zone.censored);
}

TEST(Zone, MakesDamageMonotone) {
  // The dip at .4 does not extend the zone of what was exceeded at .2, and a negative damage counts as none.
  const Threshold curve(fraction(), {0.1, 0.2, 0.4, 0.6}, {-0.02, 0.06, 0.01, 0.3});
  EXPECT_DOUBLE_EQ(*curve.zone(0.03).severity, 0.15);
  EXPECT_DOUBLE_EQ(*curve.zone(0.18).severity, 0.5);  // .06 up to .4, then to .3
}

TEST(Zone, EndsBeforeACollapse) {
  for (const double collapsed : {kNaN, std::numeric_limits<double>::infinity()}) {
    const Threshold curve(fraction(), {0.2, 0.4, 0.6}, {0.01, 0.02, collapsed});
    EXPECT_EQ(*curve.zone(0.05).severity, 0.4);
    EXPECT_FALSE(curve.zone(0.05).censored);
    EXPECT_EQ(*Threshold(fraction(), {0.2}, {collapsed}).zone(0.05).severity, 0);
  }
}

TEST(Zone, KeepsToWholeSteps) {
  const Threshold pattern(kept_of_four(), {3, 2, 1}, {0.01, 0.5, 2});
  EXPECT_EQ(*pattern.zone(0.4).severity, 3);
  EXPECT_EQ(*pattern.zone(0.5).severity, 2);
  EXPECT_EQ(*pattern.zone(0.005).severity, 4);
  Axis layers = fraction();
  layers.step = 0.1;
  EXPECT_DOUBLE_EQ(*Threshold(layers, {0.2, 0.5}, {0, 0.3}).zone(0.25).severity, 0.4);
  Axis listed = bits();
  listed.kind = AxisKind::listed;
  EXPECT_EQ(*Threshold(listed, {8, 4, 2}, {0.1, 0.2, 0.4}).zone(0.3).severity, 4);
}

TEST(Zone, IsNoneWhereDamageJumpsBeyondIt) {
  Axis jumping = fraction();
  jumping.continuous_at_neutral = false;
  const Threshold curve(jumping, {0, 0.1, 0.3}, {0, 0.2, 0.6});  // neutral is left out
  EXPECT_FALSE(curve.zone(0.1).severity.has_value());
  EXPECT_FALSE(curve.zone(0.1).censored);
  EXPECT_DOUBLE_EQ(*curve.zone(0.4).severity, 0.2);
}

TEST(Zone, HasAnIntervalFromWindows) {
  const std::vector<std::vector<double>> windows{{0.00, 0.01, 0.02, 0.01}, {0.05, 0.15, 0.10, 0.10}};
  const Threshold curve(fraction(), {0.2, 0.4}, {0.01, 0.1}, windows);
  const Zone zone = curve.zone(0.05);
  ASSERT_TRUE(zone.interval.has_value());
  EXPECT_LT(zone.interval->low, *zone.edge);
  EXPECT_GT(zone.interval->high, *zone.edge);
  // The extremes are resamples of a single window: {0, .05} and {.01, .15}, the latter crossing at .2 + .2 · 4/14.
  EXPECT_GE(zone.interval->low, 0.2 + 0.2 * 4 / 14 - 1e-12);
  EXPECT_LE(zone.interval->high, 0.4);
  const Zone again = Threshold(fraction(), {0.2, 0.4}, {0.01, 0.1}, windows).zone(0.05);
  EXPECT_EQ(again.interval->low, zone.interval->low);
}

TEST(Zone, ReachesAsFarAsSafetyIsShown) {
  const std::vector<std::vector<double>> windows{{0.00, 0.01, 0.02, 0.01}, {0.05, 0.15, 0.10, 0.10}};
  const Zone zone = Threshold(fraction(), {0.2, 0.4}, {0.01, 0.1}, windows).zone(0.05);
  // The upper ends lie above the means, so that safety ends before the estimate, but not before .2, where it is shown.
  EXPECT_LT(*zone.severity, *zone.edge);
  EXPECT_GT(*zone.severity, 0.2);
  EXPECT_FALSE(zone.censored);
  const Zone wide = Threshold(fraction(), {0.2, 0.4}, {0.01, 0.1}, windows).zone(0.2);
  EXPECT_EQ(*wide.severity, 0.4);
  EXPECT_TRUE(wide.censored && wide.edge_censored);

  // Given ends count, whatever windows say.
  const Threshold given =
      Threshold::of(fraction(), {0.2, 0.4}, {{Criterion::delta_nll, {{0.01, 0.1}, {0.02, 0.12}, windows}}});
  EXPECT_DOUBLE_EQ(*given.zone(0.07).severity, 0.3);
  EXPECT_DOUBLE_EQ(*given.zone(0.055).edge, 0.3);

  // One window has no interval: nothing is shown, and the estimate has none.
  const Zone one = Threshold(fraction(), {0.2, 0.4}, {0.01, 0.1}, {{0.01}, {0.1}}).zone(0.05);
  EXPECT_FALSE(one.severity.has_value() || one.interval.has_value() || one.censored);
  EXPECT_DOUBLE_EQ(*one.edge, 0.2 + 0.2 * 4 / 9);

  // Of numbers that are known, as of plain arrays, the two are one.
  const Zone plain = Threshold(fraction(), {0.2, 0.4}, {0.01, 0.1}).zone(0.05);
  EXPECT_EQ(*plain.severity, *plain.edge);
}

TEST(Zone, IsByACriterion) {
  const Threshold curve = Threshold::of(
      fraction(), {0.2, 0.4},
      {{Criterion::delta_nll, {{0, 0}, {0.01, 0.01}, {}}}, {Criterion::kl, {{0.1, 0.3}, {0.2, 0.4}, {}}}});
  EXPECT_DOUBLE_EQ(*curve.zone(0.3, Criterion::kl).severity, 0.3);
  EXPECT_DOUBLE_EQ(*curve.zone(0.2, Criterion::kl).edge, 0.3);
  EXPECT_EQ(curve.zone(0.3, Criterion::kl).by, Criterion::kl);
  EXPECT_TRUE(curve.zone(0.05).censored);
  EXPECT_NE(message_of<ValueError>([&] { curve.zone(0.1, Criterion::top1_agreement); }).find("top1_agreement"),
            std::string::npos);
}

Damage measured(double delta_nll, double low, double high) {
  Damage damage;
  damage.delta_nll = delta_nll;
  damage.delta_nll_interval = Interval{low, high};
  damage.index = 0.1;
  return damage;
}

TEST(Judge, CallsSafeWhatTheWholeIntervalSays) {
  EXPECT_EQ(judge(measured(0.02, 0.01, 0.03), 0.05), Verdict::safe);
  EXPECT_EQ(judge(measured(0.02, 0.01, 0.05), 0.05), Verdict::safe);  // the tolerance itself is within it
  EXPECT_EQ(judge(measured(0.04, 0.03, 0.06), 0.05), Verdict::undecided);
  EXPECT_EQ(judge(measured(0.06, 0.05, 0.07), 0.05), Verdict::undecided);
  EXPECT_EQ(judge(measured(0.07, 0.06, 0.08), 0.05), Verdict::unsafe);
  EXPECT_EQ(judge(measured(-0.1, -0.2, 0), 0.05), Verdict::safe);
}

TEST(Judge, KnowsNothingFromOneWindow) {
  Damage one = measured(0.01, 0.01, 0.01);
  one.delta_nll_interval.reset();
  EXPECT_EQ(judge(one, 0.05), Verdict::undecided);
  EXPECT_FALSE(damage_at_most(one, Criterion::delta_nll).has_value());
  one.delta_nll = kNaN;
  EXPECT_EQ(judge(one, 0.05), Verdict::unsafe);
}

TEST(Judge, CallsACollapseUnsafe) {
  for (const double collapsed : {kNaN, std::numeric_limits<double>::infinity()}) {
    EXPECT_EQ(judge(measured(collapsed, kNaN, kNaN), 0.05), Verdict::unsafe);
    EXPECT_TRUE(std::isinf(*damage_at_most(measured(collapsed, kNaN, kNaN), Criterion::kl)));
  }
}

TEST(Judge, CallsNothingSafeBesideABaselineNoBetterThanTheUnigram) {
  Damage damage = measured(0.01, 0.005, 0.02);
  damage.index.reset();
  EXPECT_EQ(judge(damage, 0.05), Verdict::undecided);
  EXPECT_EQ(judge(damage, 0.001), Verdict::unsafe);
  EXPECT_FALSE(damage_at_most(damage, Criterion::delta_nll).has_value());
}

TEST(Judge, RefusesWhatIsNoTolerance) {
  for (const double tolerance : {0.0, -0.1, kNaN, std::numeric_limits<double>::infinity()}) {
    EXPECT_THROW(judge(measured(0, 0, 0), tolerance), ValueError);
  }
}

TEST(DifferenceInterval, IsPaired) {
  Damage first = measured(0, 0, 0), second = first;
  first.window_nll_baseline = second.window_nll_baseline = {3, 4, 5};
  first.window_nll = {3.5, 4.1, 9};
  second.window_nll = {3.4, 4.0, 8.9};
  const std::optional<Interval> apart = difference_interval(first, second);
  EXPECT_NEAR(apart->low, 0.1, 1e-12);  // however far windows are from each other
  EXPECT_NEAR(apart->high, 0.1, 1e-12);
  EXPECT_EQ(difference_interval(first, first)->low, 0);
  EXPECT_EQ(difference_interval(first, first)->high, 0);
  second.window_nll.clear();
  EXPECT_FALSE(difference_interval(first, second).has_value());
  second.window_nll = {3.4, 4.0};
  second.window_nll_baseline = {3, 4};
  EXPECT_THROW(difference_interval(first, second), ValueError);
}

TEST(Threshold, RefusesWhatIsNoCurve) {
  EXPECT_THROW(Threshold(fraction(), {0.1, 0.2}, {0.1}), ValueError);
  EXPECT_THROW(Threshold(fraction(), {}, {}), ValueError);
  EXPECT_THROW(Threshold(fraction(), {0.0}, {0.0}), ValueError);
  EXPECT_THROW(Threshold(fraction(), {kNaN}, {0.0}), ValueError);
  EXPECT_THROW(Threshold(fraction(), {0.1}, {0.1}, {{1}, {2}}), ValueError);
  EXPECT_THROW(Threshold(fraction(), {0.1, 0.2}, {0.1, 0.1}, {{1}, {1, 2}}), ValueError);
  const Threshold curve(fraction(), {0.1}, {0.1});
  for (const double tolerance : {0.0, -1.0, kNaN, std::numeric_limits<double>::infinity()}) {
    EXPECT_THROW(curve.zone(tolerance), ValueError);
  }
}

TEST(FindThreshold, TakesPlainArrays) {
  const std::vector<double> perplexities{10 * std::exp(0.02), 10 * std::exp(0.10)};
  EXPECT_NEAR(*find_threshold({0.2, 0.4}, perplexities, 10).zone(0.06).severity, 0.3, 1e-12);
  EXPECT_NEAR(*find_threshold({0, 0.2, 0.4}, {10, perplexities[0], perplexities[1]}).zone(0.06).severity, 0.3, 1e-12);
  EXPECT_NEAR(*find_threshold({8, 4}, perplexities, 10, 16).zone(0.06).severity, 6, 1e-12);
  // Without a baseline the smallest stands in: .08 nats between the points.
  EXPECT_NEAR(*find_threshold({0.2, 0.4}, perplexities).zone(0.06).severity, 0.35, 1e-12);
  EXPECT_EQ(*find_threshold({0.2, 0.4}, {10, kNaN}, 10).zone(0.06).severity, 0.2);
}

TEST(FindThreshold, RefusesWhatIsNoCurve) {
  EXPECT_THROW(find_threshold({}, {}), ValueError);
  EXPECT_THROW(find_threshold({0.1}, {10, 11}), ValueError);
  EXPECT_THROW(find_threshold({0.1}, {0}), ValueError);
  EXPECT_THROW(find_threshold({0.1}, {-3}), ValueError);
  EXPECT_THROW(find_threshold({0.1}, {10}, -1), ValueError);
  EXPECT_THROW(find_threshold({0.1}, {10}, kNaN), ValueError);
  EXPECT_THROW(find_threshold({0.1}, {kNaN}), ValueError);
  EXPECT_EQ(message_of<ValueError>([] { find_threshold({-0.1, 0.1}, {10, 11}); }),
            "hemostat.find_threshold: severities -0.1 and 0.1 lie on both sides of the neutral 0");
}

}  // namespace
}  // namespace hemostat
