"""Two methods together: compose, surface, and a scan's joint grids."""

import itertools
import json
import math

import pytest
import torch

import hemostat
from hemostat import _C
from hemostat._checked_scan import CheckedScan
from hemostat._identity import differences, digest
from hemostat._plan import plan_text
from hemostat._store import Store

PAIR = ("wanda", "rtn:group_size=64")
GRIDS = ([0.6, 0.3], [3, 5])


@pytest.fixture(scope="module")
def tokens(trained):
    return trained.tokens[8:16]


@pytest.fixture(scope="module")
def norms(trained):
    return hemostat.collect(trained.model, trained.tokens[:8], needs=["wanda"])


@pytest.fixture(scope="module")
def surface(trained, tokens, norms):
    return hemostat.surface(trained.model, PAIR, tokens, statistics=norms, severities=GRIDS, progress=False)


def zeros(model):
    return torch.cat([(weight == 0).flatten() for _, weight in model.linears()])


class TestCompose:
    def test_the_second_changes_what_the_first_gave(self, trained, norms):
        both = hemostat.compose(trained.model, PAIR, norms)
        assert [axis.name for axis in both.axes] == ["sparsity", "bits"]
        pruned = hemostat.prepare(trained.model, "wanda", norms).at(0.3)
        expected = hemostat.prepare(pruned, "rtn", group_size=64).at(4)
        for (name, found), (_, wanted) in zip(both.at(0.3, 4).linears(), expected.linears(), strict=True):
            assert torch.equal(found, wanted), name

    def test_neutral_does_nothing(self, trained, norms):
        both = hemostat.compose(trained.model, PAIR, norms)
        for (_, found), (_, weight) in zip(both.at(0, 16).linears(), trained.model.linears(), strict=True):
            assert found.data_ptr() == weight.data_ptr()
        pruned = hemostat.prepare(trained.model, "wanda", norms).at(0.5)
        for (_, found), (_, weight) in zip(both.at(0.5, 16).linears(), pruned.linears(), strict=True):
            assert torch.equal(found, weight)

    def test_order_matters(self, trained, norms):
        one = hemostat.compose(trained.model, PAIR, norms).at(0.5, 3)
        other = hemostat.compose(trained.model, PAIR[::-1], norms).at(3, 0.5)
        assert any(
            not torch.equal(first, second)
            for (_, first), (_, second) in zip(one.linears(), other.linears(), strict=True)
        )

    @pytest.mark.parametrize("quantizing", ["rtn", "rtn:symmetric=true", "rtn:group_size=64,search_clip=true"])
    @pytest.mark.parametrize("pruning", ["wanda", "magnitude"])
    def test_quantizing_revives_no_pruned_weight(self, trained, norms, pruning, quantizing):
        both = hemostat.compose(trained.model, [pruning, quantizing], norms)
        pruned = zeros(both.at(0.5, 16))
        assert pruned.double().mean() == pytest.approx(0.5, abs=0.01)
        for bits in (2, 3.5, 8):
            assert (zeros(both.at(0.5, bits)) | ~pruned).all()

    @pytest.mark.parametrize("reviving", ["gaussian", "svd"])
    def test_other_methods_revive_them(self, trained, norms, reviving):
        both = hemostat.compose(trained.model, ["wanda", reviving], norms)
        assert not (zeros(both.at(0.5, 0.2)) | ~zeros(both.at(0.5, 0))).all()

    def test_takes_a_method_of_ones_own(self, tiny_model):
        prepared_on = []

        @hemostat.method("joint_shrink", axis=hemostat.Axis(name="shrink", unit="fraction", default_grid=[0.5]))
        def shrink(model, statistics):
            prepared_on.append(model)
            return lambda severity: model.replace({n: w * (1 - severity) for n, w in model.linears()})

        both = hemostat.compose(tiny_model, ["magnitude", "joint_shrink"])
        for sparsity, amount in itertools.product((0, 0.2, 0.4), (0, 0.1, 0.5)):
            both.at(sparsity, amount)
        assert len(prepared_on) == 3  # once for each model that the first gives

    def test_bad_input_is_named(self, tiny_model):
        with pytest.raises(ValueError, match="methods is empty"):
            hemostat.compose(tiny_model, [])
        with pytest.raises(ValueError, match="no method 'wander'"):
            hemostat.compose(tiny_model, ["magnitude", "wander"])
        with pytest.raises(ValueError, match=r"compose: wanda needs statistics \(column_norm\)"):
            hemostat.compose(tiny_model, ["magnitude", "wanda"])
        both = hemostat.compose(tiny_model, ["magnitude", "rtn"])
        with pytest.raises(ValueError, match=r"Composition\.at: got 3 severities, but there are 2 methods"):
            both.at(0.1, 4, 4)
        with pytest.raises(ValueError, match="bits is 1, but takes"):
            both.at(0.1, 1)
        with pytest.raises(TypeError, match="Composition.at: severity 2 is a str, but takes a number"):
            both.at(0.1, "4")
        assert repr(both) == "Composition(sparsity, bits)"


class TestSurface:
    def test_is_the_damage_of_the_composition(self, surface, trained, tokens, norms):
        assert surface.methods == list(PAIR)
        assert surface.severities == [[0, 0.3, 0.6], [16, 5, 3]]
        both = hemostat.compose(trained.model, PAIR, norms)
        for i, j in itertools.product(range(3), range(3)):
            at = surface.severities[0][i], surface.severities[1][j]
            assert surface.damages[i][j].delta_nll == hemostat.compare(trained.model, both.at(*at), tokens).delta_nll

    def test_its_edges_are_the_curves_of_each_alone(self, surface, trained, tokens, norms):
        first = hemostat.sweep(trained.model, "wanda", tokens, statistics=norms, severities=[0.3, 0.6])
        second = hemostat.sweep(trained.model, "rtn:group_size=64", tokens, severities=[5, 3])
        assert [row[0].delta_nll for row in surface.damages[1:]] == [damage.delta_nll for damage in first.damages]
        assert [damage.delta_nll for damage in surface.damages[0][1:]] == [d.delta_nll for d in second.damages]
        for tolerance in (0.02, 0.1, 1):
            row, threshold = surface.zone_details(tolerance)[0], hemostat.find_threshold(second)
            assert row.severity == threshold.zone(tolerance) and row.edge == threshold.edge(tolerance)

    def test_zone_narrows_with_the_first(self, surface):
        for tolerance in (0.05, 0.1, 0.5):
            edges = surface.zone(tolerance)
            known = [edge for edge in edges if edge is not None]
            assert known == sorted(known)  # more bits are needed, the more is pruned
            assert edges[: len(known)] == known
            details = surface.zone_details(tolerance)
            assert [zone.severity for zone in details] == edges
            assert all(zone.tolerance == tolerance for zone in details)
        with pytest.raises(ValueError, match=r"Surface\.zone: tolerance is 0, but takes more"):
            surface.zone(0)

    def test_additivity_is_of_the_inner_points(self, surface):
        grid = surface.additivity
        assert grid[0] == [None] * 3 and [row[0] for row in grid] == [None] * 3
        damages = surface.damages
        alone = damages[2][0].delta_nll + damages[0][2].delta_nll
        assert grid[2][2] == pytest.approx(alone / damages[2][2].delta_nll)

    def test_its_forms_say_the_same(self, surface):
        told = surface.to_dict()
        assert json.loads(json.dumps(told, allow_nan=False))["severities"] == surface.severities
        assert told["damages"][1][2]["delta_nll"] == surface.damages[1][2].delta_nll
        assert told["distances"] == surface.distances
        assert told["distances"][0] == [0, 0.3, 0.6]
        frame = surface.to_dataframe()
        assert len(frame) == 9
        row = frame[(frame.first_severity == 0.3) & (frame.second_severity == 3)].iloc[0]
        assert row.delta_nll == surface.damages[1][2].delta_nll
        assert (row["first"], row.second) == ("wanda", "rtn")
        assert "group_size" in row.second_options
        text = str(surface)
        assert "wanda, then rtn:group_size=64" in text
        assert f"{surface.damages[2][1].delta_nll:+.4f}" in text
        assert repr(surface) == "Surface('wanda' then 'rtn:group_size=64', 3 × 3 severities)"

    def test_takes_its_fields_back(self, surface):
        fields = [surface.methods, surface.axes, surface.severities, surface.damages, surface.noise_floor]
        again = _C.Surface(*fields, surface.seconds_prepare, surface.seconds)
        assert again.to_dict(windows=True) == surface.to_dict(windows=True)
        with pytest.raises(ValueError, match=r"damages must be a grid of 3 × 3"):
            _C.Surface(*fields[:3], surface.damages[:2], surface.noise_floor)
        with pytest.raises(ValueError, match=r"severities of wanda begin with 0\.3, but must with the neutral 0"):
            _C.Surface(*fields[:2], [surface.severities[0][1:], surface.severities[1]], surface.damages[1:], fields[4])

    def test_default_grids_and_progress(self, tiny_model, tiny_tokens):
        seen, trials = [], []
        found = hemostat.surface(
            tiny_model,
            ["drop_layers", "rtn"],
            tiny_tokens[:2],
            severities=(None, [4]),
            on_trial=trials.append,
            progress=lambda done, total: seen.append((done, total)),
        )
        steps = found.axes[0].default_grid
        assert found.severities == [[0, *steps], [16, 4]]
        total = 2 * (len(steps) + 1) - 1
        assert seen == [(done, total) for done in range(1, total + 1)]
        assert [(trial.method, trial.severity) for trial in trials][-1] == (f"drop_layers@{steps[-1]:g} > rtn", 4)

    def test_is_measured_by_generation_where_such_a_method_takes_part(self, tiny_model, tiny_tokens):
        protocol = hemostat.GenerationProtocol(prompts=2, prompt_length=4, new_tokens=4)
        arguments = {"severities": ([0.5], [2]), "generation": False, "progress": False}
        found = hemostat.surface(tiny_model, ("magnitude", "temperature"), tiny_tokens[:2], **arguments)
        measured = [[damage.generation is not None for damage in row] for row in found.damages]
        assert measured == [[False, True], [False, True]]
        arguments["generation"] = protocol
        arguments["severities"] = ([0.5], [4])
        found = hemostat.surface(tiny_model, ("magnitude", "rtn"), tiny_tokens[:2], **arguments)
        assert all(d.generation is not None for row in found.damages for d in row[1:])

    def test_bad_input_is_named_before_any_work(self, tiny_model, tiny_tokens):
        def refused(methods, message, error=ValueError, **arguments):
            with pytest.raises(error, match=message):
                hemostat.surface(tiny_model, methods, tiny_tokens[:2], progress=False, **arguments)

        refused(("magnitude",), "methods has 1, but takes two")
        refused(("magnitude", "wanda", "rtn"), "methods has 3, but takes two")
        refused("magnitude,rtn", "methods is the text 'magnitude,rtn'", TypeError)
        refused(("magnitude", "rtm"), "no method 'rtm'")
        refused(("magnitude", "rtn:group=3"), "no option 'group'")
        refused(("magnitude", "wanda"), "wanda needs statistics")
        refused(("magnitude", "rtn"), "severities has 3 entries", severities=([0.1], [4], [4]))
        refused(("magnitude", "rtn"), "bits is 12, but takes", severities=(None, [12]))
        refused(("magnitude", "rtn"), "magnitude has no severities", severities=([], None))


@pytest.fixture(scope="module")
def report(tiny_model, tiny_tokens):
    return hemostat.scan(
        tiny_model,
        tiny_tokens[4:],
        tiny_tokens[:4],
        methods=["magnitude", "wanda"],
        joint=[("wanda", "rtn:group_size=16"), "magnitude,rtn:group_size=16"],
        severities={"wanda": [0.2, 0.5], "rtn:group_size=16": [4, 3], "magnitude": [0.3]},
        progress=False,
    )


@pytest.mark.integration
class TestScan:
    def test_has_a_grid_for_each_pair(self, report, tiny_model, tiny_tokens):
        document = report.to_dict()
        assert [[method["label"] for method in entry["methods"]] for entry in document["surfaces"]] == [
            ["wanda", "rtn:group_size=16"],
            ["magnitude", "rtn:group_size=16"],
        ]
        entry = report.surfaces[0]
        assert entry["severities"] == [[0, 0.2, 0.5], [16, 4, 3]]
        assert entry["methods"][1] == {
            "method": "rtn",
            "options": {"group_size": 16},
            "label": "rtn:group_size=16",
            "kind": "weights",
            "needs": [],
        }
        statistics = hemostat.collect(tiny_model, tiny_tokens[:4], needs=["wanda"])
        surface = hemostat.surface(
            tiny_model,
            ("wanda", "rtn:group_size=16"),
            tiny_tokens[4:],
            statistics=statistics,
            severities=([0.2, 0.5], [4, 3]),
            progress=False,
        )
        for i, j in itertools.product(range(3), range(3)):
            assert entry["damage"][i][j]["delta_nll"] == surface.damages[i][j].delta_nll
        assert entry["additivity"] == surface.additivity
        for tolerance in (0.02, 0.05, 0.1):
            assert entry["zone"][str(tolerance)] == surface.zone(tolerance)

    def test_leaves_what_a_report_had_as_it_was(self, report, tiny_model, tiny_tokens):
        plain = hemostat.scan(
            tiny_model,
            tiny_tokens[4:],
            tiny_tokens[:4],
            methods=["magnitude", "wanda"],
            severities={"wanda": [0.2, 0.5], "magnitude": [0.3]},
            progress=False,
        )
        assert "surfaces" not in plain.to_dict() and plain.surfaces == []
        assert plain.trials == report.trials
        assert plain.thresholds == report.thresholds
        assert len(plain.to_dataframe("surfaces")) == 0

    def test_its_edges_are_the_trials_of_the_methods(self, report):
        wanda = [trial["damage"] for trial in report.trials if trial["method"] == "wanda"]
        assert [row[0] for row in report.surfaces[0]["damage"][1:]] == wanda

    def test_forms_have_the_grids(self, report, tmp_path):
        frame = report.to_dataframe("surfaces")
        assert len(frame) == 9 + 6
        assert {"kl_mean", "delta_nll_low", "additivity"} <= set(frame.columns)
        assert "wanda, then rtn:group_size=16" in report.table()
        assert "Two methods together" in report.summary()
        report.to_json(tmp_path / "report.json")
        assert hemostat.Report.load(tmp_path).surfaces == report.surfaces

    def test_methods_default_to_those_of_the_pairs(self, tiny_model, tiny_tokens):
        checked = CheckedScan(tiny_model, tiny_tokens, None, joint=["wanda,rtn:group_size=16"], points=2)
        assert [entry.method for entry in checked.planned] == ["wanda", "rtn:group_size=16"]
        assert len(checked.trials) == 2 + 2 + 4
        assert ("wanda@0.1 > rtn:group_size=16", 8) in checked.trials

    def test_the_plan_counts_every_trial_once(self, tiny_model, tiny_tokens):
        checked = CheckedScan(tiny_model, tiny_tokens, None, methods="wanda", joint=["wanda,rtn"], points=2)
        text = plan_text(checked, (), resumes=False)
        assert "8 trials, each on 8 windows" in text
        (row,) = [line for line in text.splitlines() if line.startswith("wanda, then rtn")]
        assert row.split()[3] == "6"  # two are wanda's own
        assert "0  0.1  0.9 × 16  8  2" in row
        finished = checked.trials[:5]
        assert "5 of 8 trials are finished already" in plan_text(checked, finished, resumes=True)
        assert "no trial remains" in plan_text(checked, checked.trials, resumes=True)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"joint": ["wanda"]}, "joint has wanda, but takes two methods at a time"),
            ({"joint": [("wanda", "rtn", "svd")]}, "joint has wanda, rtn, svd, but takes two methods"),
            ({"joint": ["wanda,rtm"]}, "no method 'rtm'"),
            ({"joint": ["wanda,rtn", ("wanda", "rtn")]}, "joint has wanda, rtn twice"),
            ({}, "methods is empty"),
        ],
    )
    def test_bad_input_is_named(self, tiny_model, tiny_tokens, arguments, message):
        with pytest.raises(ValueError, match=message):
            hemostat.scan(tiny_model, tiny_tokens, progress=False, **arguments)


@pytest.mark.integration
class TestStore:
    ARGUMENTS = {"joint": [("magnitude", "rtn")], "points": 2, "progress": False}

    def test_a_scan_goes_on_where_it_ended(self, tiny_model, tiny_tokens, tmp_path):
        whole = hemostat.scan(tiny_model, tiny_tokens, **self.ARGUMENTS)
        path = tmp_path / "scan.db"

        def interrupt(stage, done, total):
            assert total == 8 or stage != "trials"
            if stage == "trials" and done == 6:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            hemostat.scan(tiny_model, tiny_tokens, store=path, **self.ARGUMENTS | {"progress": interrupt})
        again = []
        resumed = hemostat.scan(
            tiny_model,
            tiny_tokens,
            store=path,
            **self.ARGUMENTS | {"progress": lambda stage, done, total: again.append((stage, done))},
        )
        assert resumed.surfaces == whole.surfaces
        assert resumed.trials == whole.trials
        assert [done for stage, done in again if stage == "trials"][0] == 6
        assert resumed.provenance["resumed"] == 6

    def test_grids_are_settings(self, tiny_model, tiny_tokens):
        def settings(**arguments):
            return CheckedScan(tiny_model, tiny_tokens, None, methods="magnitude", **arguments).settings

        plain = settings()
        one = settings(joint=["magnitude,rtn"])
        other = settings(joint=["magnitude,rtn"], points=3)
        assert len({digest(settings) for settings in (plain, one, other)}) == 3
        assert differences(plain, one, ["magnitude"]) == []
        assert differences(one, other, ["magnitude", "rtn"]) == []
        assert differences(plain, one, ["magnitude", "rtn"]) == ["there is none of rtn"]

    def test_a_store_from_before_grids_opens(self, tiny_model, tiny_tokens, tmp_path):
        """Trials of one method are kept as they always were, so a scan with grids takes them too where it is added."""
        path = tmp_path / "scan.db"
        hemostat.scan(tiny_model, tiny_tokens, methods="magnitude", points=2, store=path, progress=False)
        hemostat.scan(tiny_model, tiny_tokens, store=path, **self.ARGUMENTS)
        with Store(path) as store:
            assert len(store.runs()) == 2


def test_a_collapse_has_no_number_and_is_beyond_every_tolerance(surface):
    broken = [[damage for damage in row] for row in surface.damages]
    fields = broken[1][2].to_dict(windows=True, finite=False) | {"delta_nll": math.nan}
    broken[1][2] = _C.Damage.from_dict(fields)
    found = _C.Surface(surface.methods, surface.axes, surface.severities, broken, surface.noise_floor)
    assert found.to_dict()["damages"][1][2]["delta_nll"] is None
    assert found.additivity[1][2] is None
    assert found.zone(1e6)[1:] == [5, 5]  # and of every row after it
    assert "–" in str(found)
