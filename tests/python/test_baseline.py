"""A baseline is judged before anything is measured against it: it is finite, and better than counting words."""

import json
import math
import re
import shutil
import warnings

import pytest
import torch
from safetensors.torch import load_file, save_file

import hemostat
from hemostat import _C
from hemostat.cli import main

UP = "model.layers.1.mlp.up_proj"
OVERFLOW = rf"{UP} gives Inf; float16 reaches 65504, and the largest value that goes in is \S+: try bfloat16 or float32"


def fail(*_):
    raise AssertionError("work was done")


def changed_checkpoint(source, target, change):
    """A copy of a checkpoint with other tensors."""
    shutil.copytree(source, target)
    tensors = load_file(target / "model.safetensors")
    change(tensors)
    save_file(tensors, target / "model.safetensors", metadata={"format": "pt"})
    return target


def with_entry(tensor, value):
    changed = tensor.clone()
    changed.view(-1)[1] = value
    return changed


@pytest.fixture(scope="module")
def tokens(trained):
    return trained.tokens[:3, :64].contiguous()


@pytest.fixture(scope="module")
def large(trained):
    """The trained model, which computes the same; but one of its layers gives numbers beyond float16."""
    linears = trained.model.linears()
    down = UP.replace("up", "down")
    return trained.model.replace({UP: linears[UP] * 2**15, down: linears[down] / 2**15})


@pytest.fixture(scope="module")
def loud(tiny_checkpoint, tmp_path_factory):
    def change(tensors):
        tensors[f"{UP}.weight"] = with_entry(tensors[f"{UP}.weight"], 1e5)

    return changed_checkpoint(tiny_checkpoint, tmp_path_factory.mktemp("loud") / "model", change)


@pytest.fixture(scope="module")
def narrow(tiny_checkpoint, tmp_path_factory):
    """A checkpoint whose weights bfloat16 cannot hold; the one that is too large is multiplied by 0."""

    def change(tensors):
        norm = "model.layers.1.post_attention_layernorm.weight"
        tensors[norm][0] = 0
        tensors[f"{UP}.weight"][0, 0] = 3.4e38

    return changed_checkpoint(tiny_checkpoint, tmp_path_factory.mktemp("narrow") / "model", change)


@pytest.fixture(scope="module")
def broken(tiny_checkpoint, tmp_path_factory):
    def change(tensors):
        tensors[f"{UP}.weight"] = with_entry(tensors[f"{UP}.weight"], math.nan)

    return changed_checkpoint(tiny_checkpoint, tmp_path_factory.mktemp("broken") / "model", change)


ENTRIES = {
    "compare": lambda model, tokens: hemostat.compare(model, model, tokens),
    "sweep": lambda model, tokens: hemostat.sweep(model, "rtn", tokens, on_trial=fail),
    "surface": lambda model, tokens: hemostat.surface(model, ("rtn", "magnitude"), tokens, on_trial=fail),
    "localize": lambda model, tokens: hemostat.localize(model, "rtn", tokens, severity=3),
    "scan": lambda model, tokens: hemostat.scan(model, tokens, methods="rtn"),
    "collect": lambda model, tokens: hemostat.collect(model, tokens, "wanda"),
    "collect gradients": lambda model, tokens: hemostat.collect(model, tokens, "gradient"),
    "BaselineEvaluation": lambda model, tokens: hemostat.BaselineEvaluation(model, tokens),
}


class TestNotFinite:
    @pytest.mark.parametrize("entry", ENTRIES)
    def test_names_the_layer_and_the_dtypes_part_in_it(self, large, tokens, entry):
        with pytest.raises(hemostat.NumericalError, match=rf"is not finite on window 1: {OVERFLOW}"):
            ENTRIES[entry](large.to(torch.float16), tokens)

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
    def test_is_fine_in_a_dtype_that_reaches_farther(self, large, tokens, dtype):
        assert math.isfinite(hemostat.compare(large.to(dtype), large.to(dtype), tokens).nll)

    @pytest.mark.parametrize("entry", ENTRIES)
    def test_names_the_tensor_that_holds_it(self, trained, tokens, entry):
        name = "model.layers.2.self_attn.k_proj"
        broken = trained.model.replace({name: with_entry(trained.model.linears()[name], math.nan)})
        with pytest.raises(hemostat.NumericalError, match=rf"on window 1: {name}\.weight has 1 NaN entry"):
            ENTRIES[entry](broken, tokens)

    def test_no_trial_is_kept(self, large, tokens, tmp_path):
        with pytest.raises(hemostat.NumericalError, match=OVERFLOW):
            hemostat.scan(large.to(torch.float16), tokens, methods="rtn", store=tmp_path / "scan.db")
        assert not (tmp_path / "scan.db").exists()

    def test_a_damaged_model_that_is_not_is_a_collapse(self, trained, tokens):
        damaged = trained.model.replace({UP: torch.full_like(trained.model.linears()[UP], math.nan)})
        assert math.isnan(hemostat.compare(trained.model, damaged, tokens).nll)
        assert math.isnan(hemostat.localize(trained.model, damaged, tokens).whole.nll)

    def test_python_can_ask(self, large, tokens):
        assert _C.first_nonfinite(large) is None
        assert _C.first_nonfinite(large, tokens) is None
        assert re.fullmatch(OVERFLOW, _C.first_nonfinite(large.to(torch.float16), tokens))

    def test_an_observer_sees_what_linears_give(self, trained, tokens):
        class Outputs(hemostat.Observer):
            def __init__(self):
                super().__init__()
                self.seen = {}

            def linear_input(self, block, names, x):
                self.x = x.clone()

            def linear_output(self, block, name, y):
                self.seen[name] = (self.x, y.clone())

        observer = Outputs()
        trained.model(tokens, observer=observer)
        weights = dict(trained.model.linears())
        assert observer.seen.keys() == weights.keys()
        for name, (x, y) in observer.seen.items():
            torch.testing.assert_close(y, x @ weights[name].T, rtol=1e-4, atol=1e-4)


class TestCasts:
    def test_loading_names_the_tensor_that_the_dtype_cannot_hold(self, loud):
        message = (
            rf"hemostat\.Model\.load: {UP}\.weight reaches 1e\+05, but float16 no further than 65504: 1 entry would be "
            "infinite; bfloat16 and float32"
        )
        with pytest.raises(ValueError, match=message):
            hemostat.Model.load(loud, dtype=torch.float16)
        assert hemostat.Model.load(loud, dtype=torch.bfloat16).linears()[UP].max() > 9e4

    def test_so_does_loading_a_gguf_file(self, loud, tmp_path):
        hemostat.Model.load(loud).save(tmp_path / "model.gguf")
        with pytest.raises(ValueError, match=rf"hemostat\.Model\.load: {UP}\.weight reaches 1e\+05, but float16"):
            hemostat.Model.load(tmp_path / "model.gguf", dtype=torch.float16)

    def test_all_that_would_be_0_is_named(self, tiny_model):
        quiet = tiny_model.replace({UP: tiny_model.linears()[UP] * 1e-9})
        with pytest.raises(ValueError, match=rf"hemostat\.Model\.to: {UP}\.weight reaches only .* would be 0"):
            quiet.to(torch.float16)
        assert quiet.to(torch.bfloat16).linears()[UP].abs().max() > 0

    def test_what_is_infinite_already_is_no_cast_s_doing(self, tiny_model):
        broken = tiny_model.replace({UP: with_entry(tiny_model.linears()[UP], math.inf)})
        assert _C.first_nonfinite(broken.to(torch.float16)) == f"{UP}.weight has 1 infinite entry"

    def test_gradients_pass(self, tiny_model):
        weight = tiny_model.linears()[UP].clone().requires_grad_()
        tiny_model.replace({UP: weight}).to(torch.float16).linears()[UP].sum().backward()
        assert torch.equal(weight.grad, torch.ones_like(weight))


# Methods that look at weights, and refuse what is not finite in them; at their farthest default severity.
LOOKING = ["magnitude", "wanda", "ria", "gradient", "sparsegpt", "admm", "dsnot", "owl"]
LOOKING += ["rtn", "rtn:search_clip=true", "gptq:group_size=row", "awq:group_size=row", "gguf:family=legacy", "ternary"]
LOOKING += ["nf4:block_size=16", "fp4:block_size=16", "fp8", "mxfp4", "nvfp4"]
LOOKING += ["svd", "asvd", "svd_llm", "gaussian", "bit_flip:bits=4", "stuck_at:bits=4"]


class TestMethods:
    @pytest.mark.parametrize("spec", LOOKING)
    def test_name_the_linear_whose_weight_has_nan(self, trained, tokens, spec):
        name = "model.layers.1.self_attn.v_proj"
        method = hemostat.MethodSpec.parse(spec)
        needs = _C.needs_of([method.text()])
        statistics = hemostat.collect(trained.model, tokens, needs) if needs else None
        broken = trained.model.replace({name: with_entry(trained.model.linears()[name], math.nan)})
        with pytest.raises(ValueError, match=rf"^hemostat\.prepare\({method.method}\): {name}: weight") as caught:
            prepared = hemostat.prepare(broken, method.method, statistics, **method.options)
            prepared.at(prepared.axis.default_grid[-1])
        assert "check_finite" not in str(caught.value)

    def test_an_operator_alone_still_names_its_option(self):
        with pytest.raises(ValueError, match="weight has 1 NaN or infinite entry; check_finite=False skips this look"):
            hemostat.quantize.rtn(with_entry(torch.ones(4, 4), math.nan), bits=4)

    @pytest.mark.parametrize(
        ("spec", "need"),
        [
            ("wanda", "column_norm"),
            ("ria", "column_norm"),
            ("owl", "column_norm"),
            ("dsnot", "mean"),
            ("asvd", "absmean"),
            ("gptq:group_size=row", "gram"),
            ("sparsegpt", "gram"),
            ("admm", "gram"),
            ("awq:group_size=row", "absmean"),
            ("svd_llm", "gram"),
            ("gguf:family=legacy,importance=true", "column_norm"),
        ],
    )
    def test_name_the_linear_whose_statistics_are_not_finite(self, trained, tokens, spec, need):
        name = "model.layers.1.mlp.down_proj"
        method = hemostat.MethodSpec.parse(spec)
        statistics = hemostat.collect(trained.model, tokens, method.text())
        features = trained.model.linears()[name].shape[1]
        statistics[name].add(torch.full((1, features), math.inf, device=tokens.device))
        with pytest.raises(ValueError, match=rf"hemostat\.prepare\({method.method}\): \w+ of '{name}' has NaN or inf"):
            hemostat.prepare(trained.model, method.method, statistics, **method.options)

    def test_collect_names_sums_that_overflow(self, trained, tokens):
        linears = trained.model.linears()
        down = UP.replace("up", "down")
        far = trained.model.replace({UP: linears[UP] * 2.0**80, down: linears[down] * 2.0**-80})
        hemostat.collect(far, tokens, "absmean")
        with pytest.raises(hemostat.NumericalError, match=rf"gram of '{down}' is not finite, though the model is"):
            hemostat.collect(far, tokens, "gram")


class TestNoBetterThanUnigram:
    MESSAGE = r"no better than counting its tokens does \(perplexity \S+ against \S+\)"

    @pytest.mark.parametrize("entry", ["compare", "sweep", "surface", "localize"])
    def test_is_warned_of(self, tiny_model, tiny_tokens, entry):
        entries = ENTRIES | {
            "sweep": lambda *of: hemostat.sweep(of[0], "rtn", of[1], severities=[8]),
            "surface": lambda *of: hemostat.surface(of[0], ("rtn", "magnitude"), of[1], severities=([8], [0.1])),
        }
        with pytest.warns(hemostat.BaselineWarning, match=self.MESSAGE) as caught:
            entries[entry](tiny_model, tiny_tokens)
        assert [warning.filename for warning in caught] == [__file__]

    def test_a_trained_model_is_better(self, trained, tokens):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            damage = hemostat.compare(trained.model, trained.model, tokens)
        assert damage.no_better_than_unigram is False
        assert damage.nll_baseline < damage.unigram_nll

    def test_the_damage_says_so(self, tiny_model, tiny_tokens):
        with pytest.warns(hemostat.BaselineWarning):
            damage = hemostat.compare(tiny_model, tiny_model, tiny_tokens)
        assert damage.no_better_than_unigram is True and damage.index is None
        counts = torch.bincount(tiny_tokens.flatten(), minlength=259)
        assert damage.unigram_nll == pytest.approx(hemostat.metrics.unigram_nll(counts, tiny_tokens[:, 1:]))
        fields = damage.to_dict()
        assert fields["unigram_nll"] == damage.unigram_nll and fields["no_better_than_unigram"] is True
        assert hemostat.Damage.from_dict(fields).no_better_than_unigram is True

    def test_a_collapse_does_not_say_it(self, trained, tokens):
        damaged = trained.model.replace({UP: torch.full_like(trained.model.linears()[UP], math.nan)})
        damage = hemostat.compare(trained.model, damaged, tokens)
        assert damage.no_better_than_unigram is False
        assert hemostat.Damage.from_dict(damage.to_dict()).no_better_than_unigram is False

    def test_damage_of_earlier_versions_says_it_too(self, trained, tokens):
        fields = hemostat.compare(trained.model, trained.model, tokens).to_dict()
        del fields["unigram_nll"], fields["no_better_than_unigram"]
        old = hemostat.Damage.from_dict(fields)
        assert old.unigram_nll is None and old.no_better_than_unigram is False
        assert hemostat.Damage.from_dict(fields | {"index": None}).no_better_than_unigram is True


class TestNoiseFloor:
    def test_is_unknown_where_the_other_type_is_not_finite(self, narrow, tiny_tokens):
        model = hemostat.Model.load(narrow)
        assert _C.measure_noise_floor(hemostat.BaselineEvaluation(model, tiny_tokens)) is None
        with pytest.warns(hemostat.BaselineWarning, match="in bfloat16 .* the noise floor is unknown"):
            curve = hemostat.sweep(model, "drop_layers", tiny_tokens, severities=[0, 0.25])
        assert curve.noise_floor is None and curve.to_dict()["noise_floor"] is None
        assert not any(damage.within_noise_floor for damage in curve.damages)

    def test_a_scan_keeps_that_it_is_unknown(self, narrow, tiny_tokens, tmp_path):
        model = hemostat.Model.load(narrow)
        for _ in range(2):  # the second reads what the first kept
            with pytest.warns(hemostat.BaselineWarning, match="the noise floor is unknown"):
                report = hemostat.scan(model, tiny_tokens, methods="drop_layers", points=1, store=tmp_path / "scan.db")
            assert report.baseline["noise_floor"] is None
            assert not any(trial["damage"]["within_noise_floor"] for trial in report.trials)
            report.to_html(tmp_path / "report.html")
            assert report.table()


class TestOneWindow:
    def test_has_no_interval(self, trained, tokens):
        found = hemostat.localize(trained.model, "rtn", tokens[:1], severity=3, control=False)
        assert found.whole.delta_nll_interval is None and found.sites[0].damage.delta_nll_interval is None
        lines = str(found).splitlines()
        assert re.match(r"rtn at 3, one window: ΔNLL \+\S+ \(no interval\), KL", lines[0])
        assert all(re.search(r"model\.layers\.\d +\S+ +– ", line) for line in lines[4:10])
        assert found.to_dataframe()["delta_nll_low"].isna().all()
        assert found.to_dict()["sites"][0]["delta_nll_interval"] is None


@pytest.mark.integration
class TestCommandLine:
    @pytest.fixture
    def run(self, capsys, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)

        def call(*arguments):
            code = main([str(argument) for argument in arguments])
            return code, *capsys.readouterr()

        return call

    @pytest.mark.parametrize(
        "command",
        [
            ["scan", "{}", "--text", "eval.txt", "--methods", "rtn", "--out", "out"],
            ["scan", "{}", "--text", "eval.txt", "--methods", "rtn", "--plan"],
            ["compare", "{}", "{}", "--text", "eval.txt"],
            ["localize", "{}", "--method", "rtn", "--severity", "3", "--text", "eval.txt"],
            ["localize", "{}", "--method", "wanda", "--severity", "0.5", "--text", "eval.txt"],
            ["apply", "{}", "--method", "rtn", "--severity", "3", "--out", "out"],
            ["apply", "{}", "--method", "drop_layers", "--severity", "0.25", "--out", "out"],
            ["apply", "{}", "--method", "wanda", "--severity", "0.5", "--text", "eval.txt", "--out", "out"],
        ],
        ids=lambda command: " ".join(command[:1] + command[2:5:2]),
    )
    def test_arithmetic_that_failed_exits_with_1(self, run, broken, text, tmp_path, command):
        code, out, err = run(*(broken if word == "{}" else word for word in command))
        assert (code, out) == (1, "")
        assert f"{UP}.weight has 1 NaN entry" in err and "check_finite" not in err
        assert len(err.splitlines()) == 1
        assert not (tmp_path / "out").exists()

    def test_a_cast_that_overflows_is_bad_input(self, run, tiny_checkpoint, text, tmp_path):
        def change(tensors):
            tensors[f"{UP}.weight"] = tensors[f"{UP}.weight"] * 1e6

        loud = changed_checkpoint(tiny_checkpoint, tmp_path / "loud", change)
        for command in (
            ["scan", loud, "--methods", "rtn"],
            ["compare", loud, loud],
            ["compare", tiny_checkpoint, loud],
        ):
            code, out, err = run(*command, "--text", text, "--dtype", "float16")
            assert (code, out) == (2, "")
            assert f"{UP}.weight reaches" in err

    def test_a_collapse_is_a_result(self, run, tiny_checkpoint, broken, text):
        code, out, err = run("compare", tiny_checkpoint, broken, "--text", text)
        assert code == 0 and "perplexity" in out
        code, out, _ = run("compare", tiny_checkpoint, broken, "--text", text, "--json")
        assert code == 0 and json.loads(out)["nll"] is None

    def test_one_window(self, run, tiny_checkpoint, text):
        _, out, _ = run("compare", tiny_checkpoint, tiny_checkpoint, "--text", text, "--windows", 1)
        assert re.search(r"^one window of 64 tokens$", out, re.M)
        assert re.search(r"^ΔNLL, nats per token +\S+$", out, re.M)

    def test_a_warning_takes_a_line(self, run, tiny_checkpoint, text):
        code, out, err = run("compare", tiny_checkpoint, tiny_checkpoint, "--text", text)
        assert code == 0
        assert re.fullmatch(r"hemostat: warning: the baseline predicts this text no better than counting .*\n", err)
