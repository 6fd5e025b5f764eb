"""hemostat.find_threshold: zones on curves by hand, on published ones, and on swept ones."""

import csv
import math

import numpy as np
import pytest

import hemostat


def zone_by_numpy(severities, perplexities, baseline, tolerance):
    """The first crossing of the running maximum, by numpy.interp on the segment where it happens."""
    points = [(0.0, 0.0), *sorted(zip(severities, np.log(np.array(perplexities) / baseline), strict=True))]
    reached = np.maximum.accumulate([y for _, y in points])
    beyond = np.nonzero(reached > tolerance)[0]
    if len(beyond) == 0:
        return points[-1][0]
    last, first = beyond[0] - 1, beyond[0]
    return np.interp(tolerance, reached[[last, first]], [points[last][0], points[first][0]])


class TestPlainArrays:
    def test_interpolates_linearly(self):
        threshold = hemostat.find_threshold([0.2, 0.4], [10 * math.exp(0.02), 10 * math.exp(0.1)], baseline=10)
        assert threshold.zone(0.06) == pytest.approx(0.3)
        assert threshold.zone(0.01) == pytest.approx(0.1)
        assert threshold.point is None

    def test_falls_with_bits(self):
        threshold = hemostat.find_threshold([8, 4, 2], [10, 10.5, 40], baseline=10, neutral=16)
        assert threshold.zone(math.log(1.05)) == pytest.approx(4)
        assert 2 < threshold.zone(0.5) < 4

    def test_takes_the_baseline_among_the_severities(self):
        with_neutral = hemostat.find_threshold([0.4, 0, 0.2], [14, 10, 11])
        assert with_neutral.zone(0.1) == hemostat.find_threshold([0.2, 0.4], [11, 14], baseline=10).zone(0.1)

    def test_says_where_nothing_exceeds_it(self):
        zone = hemostat.find_threshold([0.2, 0.4], [10, 10.1], baseline=10).zone_details(0.5)
        assert zone.severity == zone.edge == 0.4
        assert zone.censored and zone.edge_censored
        assert zone.interval is None

    def test_take_their_numbers_as_known(self):
        threshold = hemostat.find_threshold([0.2, 0.4], [10, 11], baseline=10)
        assert threshold.zone(0.05) == threshold.edge(0.05) and threshold.edge_interval(0.05) is None
        with pytest.raises(ValueError, match=r"Threshold\.zone: by is kl, but this threshold is of delta_nll"):
            threshold.zone(0.05, by="kl")
        with pytest.raises(ValueError, match="by is 'ppl', but takes delta_nll, kl or top1_agreement"):
            threshold.edge(0.05, by="ppl")

    @pytest.mark.parametrize("collapsed", [math.nan, math.inf, None])
    def test_ends_before_a_collapse(self, collapsed):
        assert hemostat.find_threshold([0.2, 0.4], [10.1, collapsed], baseline=10).zone(0.5) == 0.2

    @pytest.mark.parametrize(
        ("severities", "perplexities", "options", "message"),
        [
            ([], [], {}, "empty"),
            ([0.1], [10, 11], {}, "2 entries"),
            ([-0.1, 0.1], [10, 11], {}, "both sides"),
            ([0.1], [0], {}, "more than 0"),
            ([0.1], [10], {"baseline": -1}, "baseline"),
            ([0.1], [math.nan], {}, "baseline"),
            ([0.0], [10], {}, "neutral"),
        ],
    )
    def test_refuses_what_is_no_curve(self, severities, perplexities, options, message):
        with pytest.raises(ValueError, match=message):
            hemostat.find_threshold(severities, perplexities, **options)

    @pytest.mark.parametrize("tolerance", [0, -0.1, math.nan, math.inf])
    def test_refuses_a_tolerance_that_is_none(self, tolerance):
        with pytest.raises(ValueError, match="tolerance"):
            hemostat.find_threshold([0.1], [10], baseline=9).zone(tolerance)


def published_curves(shared):
    curves = {}
    with open(shared / "tables" / "curves.csv", newline="") as file:
        for row in csv.DictReader(file):
            points = curves.setdefault(row["method"], [])
            points.append((float(row["severity"]), float(row["ppl"])))
    return curves


def test_published_curves(shared):
    """LLaMA-2-7B, whose dense perplexity by the tables' protocol is about 5.12."""
    curves = published_curves(shared)
    assert len(curves) >= 10
    crossed = 0
    for points in curves.values():
        severities, perplexities = (list(column) for column in zip(*points, strict=True))
        threshold = hemostat.find_threshold(severities, perplexities, baseline=5.12)
        zones = []
        for tolerance in (0.02, 0.05, 0.1, 0.5, 1, 2):
            zone = threshold.zone_details(tolerance)
            assert zone.severity == pytest.approx(zone_by_numpy(severities, perplexities, 5.12, tolerance), abs=1e-12)
            assert zone.censored == (math.log(max(perplexities) / 5.12) <= tolerance)
            crossed += not zone.censored
            zones.append(zone.severity)
        assert zones == sorted(zones)
    assert crossed > 10


@pytest.fixture(scope="module")
def curve(trained):
    return hemostat.sweep(trained.model, "magnitude", trained.tokens[:12], severities=[0, 0.1, 0.3, 0.5, 0.7])


class TestSweptCurve:
    def test_agrees_with_plain_arrays(self, curve):
        severities = curve.severities[1:]
        perplexities = [damage.perplexity for damage in curve.damages[1:]]
        plain = hemostat.find_threshold(severities, perplexities, baseline=curve.damages[0].perplexity_baseline)
        for tolerance in (0.05, 0.3, 1):
            assert hemostat.find_threshold(curve).edge(tolerance) == pytest.approx(plain.zone(tolerance))

    def test_has_an_interval_as_an_independent_bootstrap(self, curve):
        windows = np.array([np.array(d.window_nll) - np.array(d.window_nll_baseline) for d in curve.damages[1:]])
        generator = np.random.default_rng(0)
        edges = []
        for _ in range(4000):
            delta = windows[:, generator.integers(0, windows.shape[1], windows.shape[1])].mean(1)
            edges.append(zone_by_numpy(curve.severities[1:], np.exp(delta), 1, 0.3))
        low, high = np.quantile(edges, [0.025, 0.975])
        zone = hemostat.find_threshold(curve).zone_details(0.3)
        assert zone.interval[0] == pytest.approx(low, abs=0.15 * (high - low))
        assert zone.interval[1] == pytest.approx(high, abs=0.15 * (high - low))
        assert zone.interval[0] < zone.edge < zone.interval[1]
        assert hemostat.find_threshold(curve).edge_interval(0.3) == zone.interval

    @pytest.mark.parametrize("by", ["delta_nll", "kl", "top1_agreement"])
    def test_zones_reach_as_far_as_safety_is_shown(self, curve, by):
        def most(damage):
            interval = {
                "delta_nll": damage.delta_nll_interval,
                "kl": damage.kl.mean_interval,
                "top1_agreement": damage.top1_agreement_interval,
            }[by]
            return 1 - interval[0] if by == "top1_agreement" else interval[1]

        threshold = hemostat.find_threshold(curve)
        ends = [most(damage) for damage in curve.damages[1:]]
        for tolerance in (0.02, 0.1, 0.3):
            zone = threshold.zone_details(tolerance, by=by)
            assert zone.by == by and zone.tolerance == tolerance
            assert zone.severity == pytest.approx(zone_by_numpy(curve.severities[1:], np.exp(ends), 1, tolerance))
            assert zone.severity <= zone.edge and zone.interval[0] <= zone.edge <= zone.interval[1]
            assert zone.severity == threshold.zone(tolerance, by=by) and zone.edge == threshold.edge(tolerance, by=by)
            for damage in curve.damages[1:]:
                assert (hemostat.judge(damage, tolerance, by=by) == "safe") == (most(damage) <= tolerance)

    def test_one_window_shows_none(self, trained):
        curve = hemostat.sweep(trained.model, "magnitude", trained.tokens[:1], severities=[0.1, 0.7])
        threshold = hemostat.find_threshold(curve)
        for by in ("delta_nll", "kl", "top1_agreement"):
            assert threshold.zone(0.05, by=by) is None and threshold.edge_interval(0.05, by=by) is None
            assert 0 < threshold.edge(0.05, by=by) < 0.7
            assert hemostat.judge(curve.damages[0], 0.05, by=by) == "undecided"

    def test_repeats(self, curve):
        once, again = (hemostat.find_threshold(curve).zone_details(0.3).interval for _ in range(2))
        assert once == again


def test_layers_fall_in_whole_steps(tiny_model, tiny_tokens):
    curve = hemostat.sweep(tiny_model, "drop_layers", tiny_tokens, severities=[0.25, 0.75])
    threshold = hemostat.find_threshold(curve)
    for tolerance in np.linspace(0.001, 2 * max(abs(d.delta_nll) for d in curve.damages), 20):
        assert (threshold.edge(tolerance) * 4) % 1 == 0


def test_a_baseline_no_better_than_counting_words_shows_none(tiny_model, tiny_tokens):
    curve = hemostat.sweep(tiny_model, "magnitude", tiny_tokens, severities=[0.1, 0.9])
    threshold = hemostat.find_threshold(curve)
    assert {damage.index for damage in curve.damages} == {None}
    assert threshold.zone(0.5) is None and threshold.edge(0.5) is not None
    assert "safe" not in {hemostat.judge(damage, 10) for damage in curve.damages}


@pytest.mark.parametrize("tolerance", [0, -1, math.nan, math.inf])
def test_judge_refuses_what_is_no_tolerance(trained, tolerance):
    damage = hemostat.compare(trained.model, trained.model, trained.tokens[:2, :16])
    with pytest.raises(ValueError, match=r"hemostat\.judge: tolerance is"):
        hemostat.judge(damage, tolerance)
