"""What a report says of its numbers: nothing that was not measured, and how sure it is."""

from __future__ import annotations

import json
import shlex

import pytest
from report_documents import BITS, LAYERS, SPARSITY, TEMPERATURE, document, generated, localization, method

from hemostat.report import Report, _verdict
from hemostat.report._document import Document


def verdict(given, tolerance, by="delta_nll"):
    return _verdict.verdict(Document.from_json(given), tolerance, by)


def said(findings):
    return "\n".join(f"{found.claim}. {found.evidence} {found.command}" for found in findings)


MILD, HARSH = (0.1, 0.01, 0.005), (0.5, 0.5, 0.05)


class TestSafe:
    def test_is_the_harshest_severity_before_the_first_that_is_not(self):
        # 0.3 lies within the tolerance by itself, but beyond 0.2, which is undecided.
        points = [MILD, (0.2, 0.045, 0.02), (0.3, 0.02, 0.005), HARSH]
        v = verdict(document(method("wanda", SPARSITY, points)), 0.05)
        assert v.safe[0].claim == "up to sparsity 0.17"  # where the upper end, 0.015 and then 0.065, meets it
        assert "Measured to be safe up to sparsity 0.1, beyond by interpolation." in v.safe[0].evidence
        assert "It costs" not in v.headline and v.headline.startswith("The method has a severity that is safe")
        assert "+0.010 nats (+0.0050 … +0.015), perplexity +1.0 %" in v.safe[0].evidence
        assert "By estimate the loss reaches the tolerance near sparsity 0.302." in v.safe[0].evidence
        assert v.unsafe[0].claim == "from sparsity 0.5 on"
        assert "Undecided at sparsity 0.2: +0.045 nats" in v.unsafe[0].evidence

    def test_falls_on_an_axis_that_does(self):
        found = document(method("rtn", BITS, [(8, 0.001, 0.001), (4, 0.03, 0.01), (3, 0.4, 0.1)]))
        assert verdict(found, 0.05).safe[0].claim == "down to 3.98 bits"
        assert "Measured to be safe up to 4 bits" in verdict(found, 0.05).safe[0].evidence
        assert verdict(found, 0.02).safe[0].claim == "down to 6.11 bits"
        assert verdict(found, 0.05).unsafe[0].claim == "from 3 bits on"

    def test_beyond_the_last_severity_is_not_promised(self):
        v = verdict(document(method("wanda", SPARSITY, [MILD])), 0.05)
        assert "Safe as far as measured: nothing harsher was tried" in v.safe[0].evidence
        assert v.unsafe == []
        assert "Measure wanda at harsher severities. The limit was not reached." in said(v.actions)

    def test_to_the_end_of_the_axis(self):
        v = verdict(document(method("rtn", BITS, [(2, 0.01, 0.001)])), 0.05)
        assert "That is as far as the method goes." in v.safe[0].evidence
        assert "harsher" not in said(v.actions)

    def test_says_where_the_loss_hides_what_predictions_do(self):
        points = [(1.1, -0.2, 0.01, {"kl": {"mean": 0.5}, "top1_agreement": 1.0})]
        v = verdict(document(method("temperature", TEMPERATURE, points, kind="decoding")), 0.05)
        assert v.safe[0].claim == "up to 1.1"
        assert "Predictions move more than the loss shows: KL 0.5 nats, top-1 agreement 100.0 %" in v.safe[0].evidence

    def test_says_how_soon_continuations_part(self):
        generation = generated(prompts=16, new_tokens=64, first_divergence=12.34, exact_match=0.0625)
        points = [(1.1, 0.01, 0.001, {"generation": generation})]
        v = verdict(document(method("temperature", TEMPERATURE, points, kind="decoding")), 0.05)
        assert "after 12 of 64 tokens on average; 1 of 16 stays the same to the end." in v.safe[0].evidence

    def test_within_rounding_is_named(self):
        v = verdict(document(method("wanda", SPARSITY, [(*MILD, {"within_noise_floor": True}), HARSH])), 0.05)
        assert "within the noise floor" in v.safe[0].evidence
        assert "noise floor" not in v.meaning
        v = verdict(document(method("wanda", SPARSITY, [MILD]), floor=0.07), 0.05)
        assert "The noise floor, what bfloat16 alone does, is 0.07 nats" in v.meaning

    def test_silent_is_not_safe_by_proof(self):
        v = verdict(document(method("wanda", SPARSITY, [(0.1, 0.001, 0.005), HARSH])), 0.05)
        assert "silent" in v.safe[0].evidence
        assert "silent" not in verdict(document(method("wanda", SPARSITY, [MILD, HARSH])), 0.05).safe[0].evidence


class TestNotSafe:
    def test_no_severity_at_all(self):
        v = verdict(document(method("wanda", SPARSITY, [HARSH])), 0.05)
        assert v.headline == "No measured severity is shown to be safe at 0.05 nats per token."
        assert v.unsafe[0].claim == "at no measured severity"
        assert "By interpolation it is safe up to sparsity 0.0455, where nothing was measured." in v.unsafe[0].evidence
        assert "Measure wanda at milder severities" in said(v.actions)
        assert v.actions[0].claim == "Do not use wanda as it stands" and not v.actions[0].command

    def test_nothing_milder_exists(self):
        v = verdict(document(method("drop_layers", LAYERS, [(0.2, 0.5, 0.1)], "architecture")), 0.05)
        assert "The mildest measured, 1 of 5 layers, costs +0.50 nats" in v.unsafe[0].evidence
        assert "interpolation" not in v.unsafe[0].evidence
        assert "There is nothing milder than 1 of 5 layers." in said(v.actions) and "Measure drop" not in said(
            v.actions
        )

    def test_undecided(self):
        v = verdict(document(method("wanda", SPARSITY, [(0.1, 0.04, 0.02)])), 0.05)
        assert v.safe == [] and v.unsafe[0].claim == "not even the mildest is decided"
        assert v.actions[0].claim == "Do not use wanda yet"
        assert "Undecided: wanda at sparsity 0.1. Four times the text (160 windows)" in said(v.actions)
        v = verdict(document(method("wanda", SPARSITY, [MILD, (0.2, 0.04, 0.02)])), 0.05)
        assert v.unsafe[0].claim == "undecided from sparsity 0.2 on"

    @pytest.mark.parametrize(
        ("points", "sentence"),
        [
            ([MILD, (0.5, 9.0, 0.1, {"index": 1.2})], "At sparsity 0.5 the model is no better"),
            ([MILD, (0.5, 9.0, 0.1, {"index": 1.2}), (0.9, None, 0)], "From sparsity 0.5 on the model is no better"),
        ],
    )
    def test_collapse(self, points, sentence):
        evidence = verdict(document(method("wanda", SPARSITY, points)), 0.05).unsafe[0].evidence
        assert sentence in evidence and "perplexity × 8103" in evidence

    def test_a_loss_that_is_not_finite(self):
        v = verdict(document(method("wanda", SPARSITY, [(0.5, None, 0)])), 0.05)
        assert "costs a loss that is not finite any more." in v.unsafe[0].evidence


class TestWindows:
    def test_few_are_named_before_all_that_rests_on_them(self):
        v = verdict(document(method("wanda", SPARSITY, [MILD, HARSH]), windows=4), 0.05)
        assert "on 4 windows of 512 tokens of text.txt." in v.meaning
        assert "Evaluate more text first. Only 4 windows of text were evaluated" in said(v.actions)

    def test_one_settles_nothing(self):
        v = verdict(document(method("wanda", SPARSITY, [(0.1, 0.0, 0.0)]), windows=1), 0.05)
        assert v.safe == [] and "that gives no interval" in said(v.actions)

    def test_one_shows_no_zone_anywhere(self):
        found = document(method("wanda", SPARSITY, [(0.1, 0.001, 0.0), HARSH]), windows=1)
        report = Report(found)
        table = report.table()
        zone, edge = table.split("largest safe severity")[1].split("estimated to reach")
        assert zone.splitlines()[-2].split() == ["wanda", "–", "–", "–"]
        assert "–" not in edge.splitlines()[-1] and "(" not in edge.splitlines()[-1]
        assert report.to_dataframe("zones").severity.isna().all()
        assert "on one window of 512 tokens" in report.summary() and "1 windows" not in table + report.summary()
        assert "…" not in table

    def test_a_wide_edge_asks_for_more(self):
        def actions(interval):
            kept = {"method": "wanda", "options": {}, "point": None, "interval": None}
            for name in ("zone", "edge"):
                kept |= {name: {"0.05": 0.2}, f"{name}_censored": {"0.05": False}}
            found = document(method("wanda", SPARSITY, [MILD, HARSH]))
            found["thresholds"] = [kept | {"edge_interval": {"0.05": interval}}]
            return said(verdict(found, 0.05).actions)

        assert "reaches the tolerance is known only roughly for wanda (0.15 … 0.25)" in actions([0.15, 0.25])
        assert "Evaluate more text" not in actions([0.19, 0.21])


class TestBaseline:
    def test_one_no_better_than_counting_words_makes_nothing_safe(self, tmp_path):
        nothing = {"index": None, "unigram_nll": None}
        found = document(method("wanda", SPARSITY, [(*MILD, nothing), (*HARSH, nothing)]))
        del found["provenance"]["warnings"]  # as in a report of an earlier version
        found["baseline"]["index"] = None
        v = verdict(found, 0.05)
        assert v.headline.startswith("No severity is called safe: the unchanged model is itself no better")
        assert v.safe == [] and not any(action.claim.startswith("Use ") for action in v.actions)
        report = Report(found)
        assert report.table().startswith(
            "Warning: The unchanged model is no better on this text than one that only counts"
        )
        assert report.provenance["warnings"][0].startswith("The unchanged model is no better")
        assert report.to_dataframe("zones").severity.isna().all()
        report.to_html(tmp_path / "page.html")
        page = (tmp_path / "page.html").read_text(encoding="utf-8")
        assert page.index("no better on this text") < page.index('class="headline"')


class TestAdvice:
    def test_prefers_what_hurts_least_at_equal_severity(self):
        better = method("wanda", SPARSITY, [MILD, (0.2, 0.03, 0.005), (0.5, 0.2, 0.02)], needs=["column_norm"])
        worse = method("magnitude", SPARSITY, [(0.1, 0.012, 0.005), (0.2, 0.09, 0.01), (0.5, 2.0, 0.1)])
        v = verdict(document(worse, better), 0.05)
        assert v.actions[0].claim == "Use wanda up to sparsity 0.2, the harshest measured that is safe"
        assert (
            "At equal sparsity it costs less than magnitude: +0.030 against +0.090 nats at sparsity 0.2; that is "
            "certain at 2 of 3 severities."
        ) in v.actions[0].evidence
        assert shlex.split(v.actions[0].command) == [
            *("hemostat", "apply", "a checkpoint", "--method", "wanda", "--severity", "0.2"),
            *("--text", "CALIBRATION", "--out", "a-checkpoint-wanda-0.2"),
        ]
        assert "Use magnitude" not in said(v.actions)

    def test_does_not_rank_what_intervals_do_not_tell_apart(self):
        one = method("rtn", BITS, [(8, 0.001, 0.01), (4, 0.03, 0.015)], group_size=64)
        two = method("rtn", BITS, [(8, 0.002, 0.01), (4, 0.031, 0.015)], group_size=32)
        actions = said(verdict(document(one, two), 0.05).actions)
        assert "At equal bits no difference from rtn:group_size=32 is established" in actions

    def test_does_not_compare_sizes_that_cannot_be_compared(self):
        weights, inputs = method("rtn", BITS, [(8, 0.001, 0.001)]), method("activation", BITS, [(8, 0.01, 0.001)])
        inputs[0]["kind"] = "activations"
        actions = verdict(document(weights, inputs), 0.05).actions
        assert [found.claim for found in actions[:2]] == [
            "Use rtn down to 8 bits, the harshest measured that is safe",
            "Use activation down to 8 bits, the harshest measured that is safe",
        ]
        assert "At equal" not in said(actions)

    def test_keeps_to_what_was_measured_where_safety_is_shown_beyond(self):
        curve = method("rtn", BITS, [(4, 0.01, 0.001), (3, 0.1, 0.02)])
        use = verdict(document(curve), 0.05).actions[0]
        assert (
            "Between that and 3.64 bits, as far as safety is shown by interpolation, nothing was measured"
            in use.evidence
        )
        assert "--severity 4 " in use.command

    def test_gives_no_command_for_what_no_checkpoint_holds(self):
        points = [(1.1, 0.01, 0.001), (2, 0.5, 0.1)]
        use = verdict(document(method("temperature", TEMPERATURE, points, kind="decoding")), 0.05).actions[0]
        assert use.claim == "Rely on temperature up to 1.1, the harshest measured that is safe" and not use.command

    def test_combinations_are_not_promised(self):
        one, two = method("wanda", SPARSITY, [MILD]), method("rtn", BITS, [(8, 0.0, 0.001)])
        assert "safe ranges do not add up" in said(verdict(document(one, two), 0.05).actions)
        assert "add up" not in said(verdict(document(one), 0.05).actions)


class TestBleeding:
    def where(self, found):
        curve = method("wanda", SPARSITY, [MILD, HARSH])
        return verdict(document(curve, localizations=[found] if found else []), 0.05)

    def test_concentrated(self):
        v = self.where(localization([0.01] * 5 + [0.3] + [0.01] * 4, noise=0.5))
        assert v.bleeding[0].claim == "at sparsity 0.5: mostly in block 5"
        assert "it makes 77 % of the sum over all 10, where an even share would be 10 %" in v.bleeding[0].evidence
        assert "costs 0.5 times as much: the method hits what matters more than chance would" in v.bleeding[0].evidence
        assert "relative error of the hidden state goes from 0.1 to 0.4" in v.bleeding[0].evidence
        assert "On 8 windows." in v.bleeding[0].evidence
        leave = next(found for found in v.actions if found.claim == "Try wanda without block 5")
        assert "not measured yet" in leave.evidence
        assert "wanda:exclude=model.layers.5.*" in shlex.split(leave.command)

    def test_spread(self):
        v = self.where(localization([0.1] * 6, noise=2.0))
        assert v.bleeding[0].claim == "at sparsity 0.5: spread over the blocks"
        assert "It takes 3 of 6" in v.bleeding[0].evidence and "makes 17 %" in v.bleeding[0].evidence
        assert "the method spares what matters" in v.bleeding[0].evidence
        assert "Try" not in said(v.actions)

    @pytest.mark.parametrize(
        ("each", "meaning"),
        [(0.01, "Together they do more than apart"), (0.1, "The parts nearly add up"), (0.3, "Together they do less")],
    )
    def test_additivity(self, each, meaning):
        assert meaning in self.where(localization([each] * 5)).bleeding[0].evidence

    def test_uncertain_blocks_are_not_left_out(self):
        found = localization([0.01] * 5 + [0.3] + [0.01] * 4)
        found["sites"][5]["delta_nll_interval"] = [-0.1, 0.7]
        v = self.where(found)
        assert "spread" in v.bleeding[0].claim and "Try" not in said(v.actions)

    def test_two_blocks_are_left_out_by_two_patterns(self):
        v = self.where(localization([0.3, 0.3] + [0.01] * 10))
        command = next(found.command for found in v.actions if found.claim == "Try wanda without blocks 0 and 1")
        assert "wanda:exclude=model.layers.0.*+model.layers.1.*" in shlex.split(command)

    def test_linears_and_a_head(self):
        found = localization([0.3, 0.01, 0.01, 0.01, 0.01])
        for site in found["sites"]:
            site |= {"linear": "mlp.down_proj", "name": f"{site['name']}.mlp.down_proj"}
        v = self.where(found)
        assert v.bleeding[0].claim.endswith("mostly in block 0 down_proj")
        assert "wanda:exclude=model.layers.0.mlp.down_proj" in said(v.actions)
        found["sites"][0] |= {"name": "lm_head", "block": None, "linear": None}
        v = self.where(found)
        assert v.bleeding[0].claim.endswith("mostly in lm_head") and "Try" not in said(v.actions)

    def test_not_measured(self):
        v = self.where(None)
        assert v.bleeding[0].claim == "Not localized in this run"
        command = next(found.command for found in v.actions if found.claim == "Find out where it bleeds")
        assert shlex.split(command)[:7] == [
            *("hemostat", "localize", "a checkpoint", "--method", "wanda", "--severity", "0.5")
        ]

    def test_tokens_that_the_model_was_unsure_of(self):
        harm = (0.5, 0.5, 0.05, {"kl": {"mean": 1.0, "by_confidence": [4.0, 3.0, 2.0, 1.0]}})
        v = verdict(document(method("wanda", SPARSITY, [MILD, harm])), 0.05)
        assert v.bleeding[-1].claim == "Mostly on tokens that the model was unsure of"
        assert "takes 40 % of the KL divergence, the most confident quarter 10 %." in v.bleeding[-1].evidence
        assert "tokens" not in said(self.where(None).bleeding)


class TestSummary:
    def test_has_the_four_parts_in_order(self):
        found = document(method("wanda", SPARSITY, [MILD, HARSH]))
        text = Report(found).summary()
        places = [text.index(part) for part in ("What is safe", "What is not", "Where it bleeds", "What to do")]
        assert places == sorted(places)
        assert text == _verdict.summary(verdict(found, 0.05)) and "- wanda up to sparsity 0.126." in text

    @pytest.mark.parametrize("tolerance", [0, -0.1, float("nan"), float("inf")])
    def test_refuses_what_is_no_tolerance(self, tolerance):
        with pytest.raises(ValueError, match="tolerance is"):
            Report(document(method("wanda", SPARSITY, [MILD]))).summary(tolerance)

    def test_refuses_another_criterion(self):
        with pytest.raises(ValueError, match="by is 'ppl', but takes delta_nll, kl or top1_agreement"):
            Report(document(method("wanda", SPARSITY, [MILD]))).summary(by="ppl")

    def test_of_nothing(self):
        assert Report(document()).summary().startswith("Nothing has been measured yet.")

    def test_changes_nothing(self):
        found = document(method("wanda", SPARSITY, [MILD, HARSH]), localizations=[localization([0.1] * 5)])
        before = json.dumps(found)
        Report(found).summary()
        assert json.dumps(found) == before
