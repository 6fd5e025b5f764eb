"""hemostat.scan: the whole run, and what it records."""

import json
import math

import pytest
import torch

import hemostat

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def report(trained):
    return hemostat.scan(
        trained.model,
        trained.tokens[8:],
        trained.tokens[:8],
        methods=["magnitude", "wanda", "rtn:group_size=64", "rtn", "drop_layers"],
        severities={"magnitude": [0.1, 0.4, 0.7], "rtn:group_size=64": [8, 4, 2]},
        points=4,
    )


def curve_of(report, method, **options):
    return [trial for trial in report.trials if trial["method"] == method and trial["options"] == options]


class TestReport:
    def test_has_a_trial_for_each_severity_in_order(self, report):
        assert [trial["severity"] for trial in curve_of(report, "magnitude")] == [0.1, 0.4, 0.7]
        assert [trial["severity"] for trial in curve_of(report, "rtn", group_size=64)] == [8, 4, 2]
        for method in ("wanda", "rtn"):
            assert len(curve_of(report, method)) == 4
        assert 1 <= len(curve_of(report, "drop_layers")) <= 4
        assert [entry["method"] for entry in report.thresholds] == ["magnitude", "wanda", "rtn", "rtn", "drop_layers"]

    def test_gives_the_curves_as_sweeps_do(self, report, trained):
        curve = hemostat.sweep(trained.model, "magnitude", trained.tokens[8:], severities=[0.1, 0.4, 0.7])
        found = report.curves[0]
        assert found.severities == curve.severities
        assert [damage.delta_nll for damage in found.damages] == [damage.delta_nll for damage in curve.damages]
        assert [trial["damage"]["kl"]["mean"] for trial in curve_of(report, "magnitude")] == [
            damage.kl.mean for damage in curve.damages
        ]

    def test_damage_grows_with_severity(self, report):
        for method, options in (("magnitude", {}), ("wanda", {}), ("rtn", {"group_size": 64}), ("rtn", {})):
            kls = [trial["damage"]["kl"]["mean"] for trial in curve_of(report, method, **options)]
            assert kls == sorted(kls)
            assert kls[-1] > 10 * kls[0]

    def test_the_baseline_is_the_unchanged_model(self, report, trained):
        same = hemostat.compare(trained.model, trained.model, trained.tokens[8:])
        assert report.baseline["perplexity"] == same.perplexity
        assert report.baseline["tokens"] == 16 * 255
        assert report.baseline["noise_floor"]["against"] == "bfloat16"
        # Bits per byte and perplexity say the same, in other units.
        text_bytes = hemostat.data.byte_count(trained.model, trained.tokens[8:])
        nats = report.baseline["bits_per_byte"] * math.log(2) * text_bytes
        assert nats == pytest.approx(16 * 255 * math.log(same.perplexity))

    def test_zones_are_those_of_find_threshold(self, report):
        for curve, entry in zip(report.curves, report.thresholds, strict=True):
            threshold = hemostat.find_threshold(curve)
            assert entry["point"] == threshold.point
            for tolerance in (0.02, 0.05, 0.1):
                assert entry["zone"][str(tolerance)] == threshold.zone(tolerance)

    def test_unigram_counts_come_from_the_calibration_text(self, report):
        assert {trial["damage"]["index_source"] for trial in report.trials} == {"calibration tokens"}

    def test_records_what_was_done(self, report, trained):
        provenance = report.provenance
        assert provenance["model"]["name"] == "reference"
        assert provenance["model"]["parameters"] == trained.model.parameters
        assert provenance["evaluation"] | {"sha256": ""} == {"windows": 16, "length": 256, "sha256": ""}
        assert provenance["calibration"]["source"] == "given"
        assert [method["label"] for method in provenance["methods"]][2] == "rtn:group_size=64"
        assert provenance["versions"]["torch"] == torch.__version__
        assert provenance["seed"] == 0

    def test_knows_what_its_methods_change_and_need(self, report):
        facts = {method["label"]: (method["kind"], method["needs"]) for method in report.provenance["methods"]}
        assert facts["wanda"] == ("weights", ["column_norm"])
        assert facts["drop_layers"] == ("architecture", [])

    def test_says_what_to_do(self, report):
        said = report.summary()
        assert "hemostat apply" in said and "hemostat localize" in said and "Find out where it bleeds" in said

    def test_is_plain_json(self, report):
        assert json.loads(json.dumps(report.to_dict(), allow_nan=False)) == report.to_dict()

    def test_makes_every_form(self, report, tmp_path):
        report.to_html(tmp_path / "report.html")
        report.to_json(tmp_path / "report.json")
        assert len(report.to_dataframe()) == len(report.trials)
        assert hemostat.Report.load(tmp_path / "report.json").table() == report.table() == str(report)

    def test_the_same_again(self, report, trained):
        again = hemostat.scan(
            trained.model, trained.tokens[8:], trained.tokens[:8], methods="magnitude", severities=[0.1, 0.4, 0.7]
        )
        assert again.trials == report.trials[:3]


class TestCalibration:
    def test_without_it_the_first_fifth_calibrates_and_is_not_evaluated(self, tiny_model, tiny_tokens):
        alone = hemostat.scan(tiny_model, tiny_tokens, methods="wanda", severities=[0.5])
        apart = hemostat.scan(tiny_model, tiny_tokens[2:], tiny_tokens[:2], methods="wanda", severities=[0.5])
        assert alone.trials == apart.trials
        assert alone.provenance["evaluation"] == apart.provenance["evaluation"]
        assert alone.provenance["calibration"]["windows"] == 2
        assert "first fifth" in alone.provenance["calibration"]["source"]

    def test_one_window_is_too_few(self, tiny_model, tiny_tokens):
        with pytest.raises(ValueError, match="evaluation has 1 windows, but takes at least 2"):
            hemostat.scan(tiny_model, tiny_tokens[:1], methods="wanda")


class TestHash:
    def test_is_of_the_weights(self, tiny_model, tiny_tokens):
        def of(model):
            return hemostat.scan(model, tiny_tokens, methods="magnitude", points=1).provenance["model"]["sha256"]

        name, weight = tiny_model.linears()[0]
        changed = weight.clone()
        changed[0, 0] += 1e-3
        assert of(tiny_model) == of(tiny_model.replace({name: weight.clone()}))
        assert of(tiny_model) != of(tiny_model.replace({name: changed}))
        assert of(tiny_model) != of(tiny_model.to(torch.bfloat16))


class TestProgress:
    def test_a_function_is_called(self, tiny_model, tiny_tokens):
        calls = []
        hemostat.scan(
            tiny_model,
            tiny_tokens,
            methods=["wanda", "magnitude"],
            points=2,
            progress=lambda stage, done, total: calls.append((stage, done, total)),
        )
        assert {stage for stage, _, _ in calls} >= {"baseline", "statistics", "trials"}
        assert calls[-1] == ("trials", 4, 4)

    def test_what_it_raises_ends_the_scan(self, tiny_model, tiny_tokens):
        def interrupt(stage, done, total):
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            hemostat.scan(tiny_model, tiny_tokens, methods="magnitude", progress=interrupt)

    def test_silent_where_there_is_no_terminal(self, tiny_model, tiny_tokens, capfd):
        hemostat.scan(tiny_model, tiny_tokens, methods="magnitude", points=1)
        assert capfd.readouterr() == ("", "")
        hemostat.scan(tiny_model, tiny_tokens, methods="magnitude", points=1, progress=True)
        assert "1/1" in capfd.readouterr().err


class TestBadInput:
    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"methods": []}, "methods is empty"),
            ({"methods": ["wandaa"]}, "wanda"),
            ({"methods": ["rtn:group=64"]}, "group"),
            ({"methods": ["wanda", "wanda"]}, "twice"),
            ({"methods": "wanda", "severities": {"rtn": [4]}}, "rtn"),
            ({"methods": "wanda", "severities": [1.5]}, "1.5"),
            ({"methods": "wanda", "points": 0}, "points is 0"),
        ],
    )
    def test_is_named_before_any_work(self, tiny_model, tiny_tokens, options, message):
        def work(*_):
            raise AssertionError("work began")

        with pytest.raises(ValueError, match=message):
            hemostat.scan(tiny_model, tiny_tokens, progress=work, **options)

    def test_a_method_is_a_string(self, tiny_model, tiny_tokens):
        with pytest.raises(TypeError, match="methods has 3"):
            hemostat.scan(tiny_model, tiny_tokens, methods=[3])

    def test_tokens_out_of_range(self, tiny_model, tiny_tokens):
        with pytest.raises(ValueError, match="259"):
            hemostat.scan(tiny_model, torch.full_like(tiny_tokens, 259), methods="magnitude")
