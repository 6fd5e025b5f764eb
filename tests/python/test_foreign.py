"""Model.from_module: modules that are no language model, language models of no library, and what is refused."""

from __future__ import annotations

import copy
import json
import pickle
import threading
import warnings
from typing import Any

import pytest
import torch
from foreign_modules import VOCABULARY, autoencoder, deepseek_v3, falcon, mamba
from torch import nn

import hemostat
from hemostat.cli import main

mse = torch.nn.functional.mse_loss


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.fixture
def module(generator) -> nn.Module:
    return autoencoder(generator)


@pytest.fixture
def model(module) -> hemostat.Model:
    return hemostat.Model.from_module(module, loss=mse)


@pytest.fixture
def samples(generator) -> torch.Tensor:
    return torch.randn(24, 16, generator=generator)


class Tiny(nn.Module):
    """A language model of no library: a tuple of logits and a loss that is not there."""

    def __init__(self, tied: bool = False) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, 16)
        self.up, self.down = nn.Linear(16, 32), nn.Linear(32, 16, bias=False)
        self.head = nn.Linear(16, VOCABULARY, bias=False)
        self.dropout = nn.Dropout(0.5)
        if tied:
            self.head.weight = self.embedding.weight

    def forward(self, tokens: torch.Tensor) -> tuple[torch.Tensor, None]:
        x = self.embedding(tokens)
        return self.head(x + self.down(self.dropout(self.up(x).relu()))), None


@pytest.fixture
def tokens(generator) -> torch.Tensor:
    return torch.randint(0, VOCABULARY, (6, 12), generator=generator)


# --- modules with a loss ---


def losses(module: nn.Module, samples: torch.Tensor) -> torch.Tensor:
    evaluated = copy.deepcopy(module).eval()
    return (evaluated(samples) - samples).square().mean(1)


def test_a_loss_is_measured_by_sample(model, module, samples):
    damaged = hemostat.prepare(model, "rtn").at(2)
    damage = hemostat.compare(model, damaged, samples, batch=5, progress=False)
    before, after = losses(module, samples), losses(damaged.to_module(), samples)
    assert damage.measure == "loss" and (damage.kl, damage.index) == (None, None)
    assert damage.windows == damage.tokens == 24
    assert damage.nll_baseline == pytest.approx(before.mean().item(), rel=1e-5)
    assert damage.delta_nll == pytest.approx((after - before).mean().item(), rel=1e-4)
    low, high = damage.delta_nll_interval
    assert low < damage.delta_nll < high
    assert hemostat.Damage.from_dict(damage.to_dict()).to_dict() == damage.to_dict()
    assert json.loads(json.dumps(damage.to_dict(finite=True)))["perplexity"] is None


def test_sweeping_a_loss(model, samples):
    curve = hemostat.sweep(model, "magnitude", samples, severities=[0.2, 0.5, 0.9], progress=False)
    assert [damage.measure for damage in curve.damages] == ["loss"] * 3
    assert curve.noise_floor.against == "bfloat16" and curve.noise_floor.delta_nll > 0
    assert hemostat.find_threshold(curve).edge(1e-9) <= 0.9
    with pytest.raises(ValueError, match="kl"):
        hemostat.find_threshold(curve).edge(0.05, by="kl")
    with pytest.raises(ValueError, match="no kl where a module's loss is measured"):
        hemostat.judge(curve.damages[0], 0.05, by="kl")


@pytest.mark.parametrize(
    ("method", "severity"), [("wanda", 0.5), ("sparsegpt", 0.5), ("gradient", 0.5), ("svd_llm", 0.3), ("gptq", 3)]
)
@pytest.mark.filterwarnings("ignore:hemostat.collect")  # of the batch norm
def test_methods_with_statistics_of_a_loss(method, severity, model, samples):
    options = {"group_size": 16} if method == "gptq" else {}
    statistics = hemostat.collect(model, samples, [method], progress=False)
    damaged = hemostat.prepare(model, method, statistics, **options).at(severity)
    assert hemostat.compare(model, damaged, samples, progress=False).delta_nll != 0
    assert not any(torch.equal(x, y) for (_, x), (_, y) in zip(model.linears(), damaged.linears(), strict=True))


def test_gradients_are_of_the_loss(model, module, samples):
    gradients = hemostat.collect(model, samples, ["gradient_mean"], progress=False).gradients
    evaluated = copy.deepcopy(module).eval()
    mse(evaluated(samples), samples).backward()
    torch.testing.assert_close(gradients["0"].mean, evaluated[0].weight.grad, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    "loss",
    [
        nn.MSELoss(),
        lambda output, batch: (output - batch).square(),
        lambda output: output.square().mean(),
        lambda output, batch, weight=2.0: weight * mse(output, batch),
    ],
    ids=["module", "unreduced", "output alone", "default"],
)
def test_forms_of_a_loss(loss, module, samples):
    model = hemostat.Model.from_module(module, loss=loss)
    damage = hemostat.compare(model, hemostat.prepare(model, "rtn").at(2), samples, progress=False)
    assert damage.nll_baseline > 0 and damage.delta_nll != 0


def test_a_forward_of_ones_own(module, samples):
    """Labels travel with the samples."""
    labelled = torch.cat([samples, torch.arange(len(samples))[:, None] % 16], 1)
    model = hemostat.Model.from_module(
        module,
        forward=lambda module, batch: module(batch[:, :-1]),
        loss=lambda output, batch: torch.nn.functional.cross_entropy(output, batch[:, -1].long()),
    )
    damage = hemostat.compare(model, model, labelled, progress=False)
    expected = torch.nn.functional.cross_entropy(copy.deepcopy(module).eval()(samples), labelled[:, -1].long())
    assert damage.nll_baseline == pytest.approx(expected.item(), rel=1e-5) and damage.delta_nll == 0


@pytest.mark.filterwarnings("ignore:hemostat.collect")
def test_the_module_of_a_loss_stays_as_it_is(model, module, samples):
    before = copy.deepcopy(module.state_dict())
    hemostat.collect(model, samples, progress=False)
    hemostat.localize(model, "rtn", samples, severity=3, progress=False)
    assert module.training and not any(part._forward_pre_hooks for part in module.modules())
    assert all(torch.equal(tensor, before[name]) for name, tensor in module.state_dict().items())


def test_a_step_on_the_module_is_seen(model, module, samples):
    before = hemostat.compare(model, model, samples, progress=False).nll
    with torch.no_grad():
        module[4].weight.mul_(0.5)
    assert hemostat.compare(model, model, samples, progress=False).nll != before


def test_localize_by_linear(model, samples):
    found = hemostat.localize(model, "magnitude", samples, severity=0.7, progress=False)
    assert [site.name for site in found.sites] == ["0", "4"] and found.whole.measure == "loss"
    alone = model.replace({"4": dict(hemostat.prepare(model, "magnitude").at(0.7).linears())["4"]})
    assert found.sites[1].damage.delta_nll == hemostat.compare(model, alone, samples, progress=False).delta_nll
    assert found.sites[1].control is not None and "4" in str(found)
    assert len(found.to_dataframe()) == 2


def test_a_loss_that_is_not_finite(module, samples):
    with torch.no_grad():
        module[0].weight[0, 0] = float("nan")
    model = hemostat.Model.from_module(module, loss=mse)
    with pytest.raises(hemostat.NumericalError, match="0.weight has 1 NaN entry"):
        hemostat.compare(model, model, samples, progress=False)


def test_a_half_type(model, samples):
    half = model.to(torch.bfloat16)
    assert half.dtype == torch.bfloat16 and model.dtype == torch.float32
    assert hemostat.compare(model, half, samples, progress=False).delta_nll != 0
    changed = hemostat.prepare(model, "magnitude").at(0.5).to(torch.bfloat16)
    assert [(w == 0).float().mean() >= 0.5 for _, w in changed.linears()] == [True, True]
    large = model.replace({"0": torch.full((32, 16), 1e5)})
    with pytest.raises(ValueError, match="float16"):
        large.to(torch.float16)


# --- language models of no library ---


@pytest.mark.parametrize("tied", [False, True])
def test_a_language_model_of_no_library(tied, tokens):
    torch.manual_seed(0)
    module = Tiny(tied)
    model = hemostat.Model.from_module(module)
    assert model.linears().names == ["up", "down"] and model.config.vocab_size == VOCABULARY
    evaluated = copy.deepcopy(module).eval()
    assert torch.equal(model(tokens), evaluated(tokens)[0])
    statistics = hemostat.collect(model, tokens, progress=False)
    damage = hemostat.compare(model, hemostat.prepare(model, "wanda", statistics).at(0.5), tokens, progress=False)
    assert damage.measure == "nll" and damage.kl.mean > 0
    head = model.replace({"head": torch.zeros(VOCABULARY, 16)})
    assert torch.equal(head(tokens), torch.zeros(6, 12, VOCABULARY))
    assert torch.equal(model.to_module().embedding.weight, module.embedding.weight)


def test_what_is_known_of_it(tokens):
    model = hemostat.Model.from_module(Tiny())
    assert repr(model).startswith("Model(Tiny, 3 linears of Tiny, ")
    assert model.parameters == sum(p.numel() for p in Tiny().parameters())
    assert model.bytes == 4 * model.parameters
    assert set(model.tensors()) == set(Tiny().state_dict())
    assert [role for role in model.linears(include="*").roles] == ["other", "other", "head"]


def test_observers_see_its_linears(tokens):
    class Names(hemostat.Observer):
        def __init__(self) -> None:
            super().__init__()
            self.seen: list[Any] = []

        def linear_input(self, block: int, names: list[str], x: torch.Tensor) -> None:
            self.seen.append((block, names, tuple(x.shape)))

    model, names = hemostat.Model.from_module(Tiny()), Names()
    model(tokens, observer=names)
    assert names.seen == [(0, ["up"], (6, 12, 16)), (0, ["down"], (6, 12, 32)), (0, ["head"], (6, 12, 16))]


def test_threads_take_turns(tokens):
    """Two damaged models of one module, each on a thread of its own, compute what they compute alone."""
    model = hemostat.Model.from_module(Tiny())
    damaged = [hemostat.prepare(model, "magnitude").at(severity) for severity in (0.3, 0.9)]
    expected = [each(tokens) for each in damaged]
    wrong: list[int] = []

    def run(index: int) -> None:
        for _ in range(20):
            if not torch.equal(damaged[index](tokens), expected[index]):
                wrong.append(index)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_what_a_module_raises_reaches_the_caller(tokens):
    class Broken(Tiny):
        def forward(self, tokens: torch.Tensor) -> Any:
            raise LookupError("no such thing")

    model = hemostat.Model.from_module(Broken())
    with pytest.raises(LookupError, match="no such thing"):
        hemostat.compare(model, model, tokens, progress=False)


class Turning(Tiny):
    """Both layers read one tensor, but for texts that begin with token 0."""

    def __init__(self) -> None:
        super().__init__()
        self.second = nn.Linear(16, 16)

    def forward(self, tokens: torch.Tensor) -> tuple[torch.Tensor, None]:
        x = self.embedding(tokens)
        y = self.up(x)
        z = self.second(x if tokens[0, 0] != 0 else 2 * x)
        return self.head(self.down(y) + z), None


@pytest.mark.parametrize("turns", [False, True])
def test_inputs_that_are_shared_for_a_while(turns, tokens):
    tokens[:, 0] = 1
    tokens[4, 0] = 1 - turns
    model = hemostat.Model.from_module(Turning())
    statistics = hemostat.collect(model, tokens, batch=1, progress=False)
    assert (statistics["up"] is statistics["second"]) != turns
    for name in ("up", "second"):
        alone = hemostat.collect(model, tokens, batch=1, include=name, progress=False)
        assert alone[name].count == statistics[name].count == tokens.numel()
        assert torch.equal(alone[name].gram, statistics[name].gram)


# --- what is refused ---


def test_what_takes_blocks_says_so(tokens):
    model = hemostat.Model.from_module(Tiny())
    says = "blocks, and hemostat sees none in Tiny"
    statistics = hemostat.collect(model, tokens, ["owl"], progress=False)
    for method in ("drop_layers", "duplicate_layers", "insert_identity", "drop_norms", "owl"):
        with pytest.raises(ValueError, match=f"hemostat.prepare\\({method}\\).*{says}"):
            hemostat.prepare(model, method, statistics)
    with pytest.raises(ValueError, match=f"propagate.*{says}"):
        hemostat.prepare(model, "wanda", calibration=tokens, propagate=True)
    with pytest.raises(ValueError, match=f"temperature is measured by generation.*{says}"):
        hemostat.sweep(model, "temperature", tokens)
    with pytest.raises(ValueError, match=says):
        hemostat.generate(model, [[1, 2]], max_new_tokens=1)
    with pytest.raises(ValueError, match=says):
        hemostat.KvCache(model)
    with pytest.raises(ValueError, match=says):
        model.to_transformers()
    with pytest.raises(ValueError, match=says):
        pickle.dumps(model)


def test_what_is_no_module():
    with pytest.raises(TypeError, match="module is a dict, but must be a torch.nn.Module"):
        hemostat.Model.from_module({})
    with pytest.raises(ValueError, match="has no nn.Linear, no Conv1D and no experts"):
        hemostat.Model.from_module(nn.ReLU(), loss=mse)
    with pytest.raises(ValueError, match="Linear has no embedding of tokens.*give a loss"):
        hemostat.Model.from_module(nn.Linear(3, 3))
    with pytest.raises(TypeError, match=r"forward is .* function of \(module, tokens\)"):
        hemostat.Model.from_module(Tiny(), forward=lambda tokens: tokens)
    with pytest.raises(TypeError, match=r"loss is 3"):
        hemostat.Model.from_module(Tiny(), loss=3)


def test_weights_that_are_nowhere_or_in_two_places():
    with pytest.raises(ValueError, match="the weights of Tiny are on meta"):
        hemostat.Model.from_module(Tiny().to("meta"))
    module = Tiny()
    module.up.to("meta")
    with pytest.raises(ValueError, match="the weights of Tiny are on cpu, meta"):
        hemostat.Model.from_module(module)


def test_output_that_is_no_logits(tokens):
    model = hemostat.Model.from_module(Tiny(), forward=lambda module, tokens: module.embedding(tokens))
    with pytest.raises(ValueError, match=r"Tiny gives \[6, 12, 16\], but logits .* \[6, 12, 97\]"):
        model(tokens)
    model = hemostat.Model.from_module(Tiny(), forward=lambda module, tokens: {"x": 1})
    with pytest.raises(TypeError, match="gives a dict without logits"):
        model(tokens)
    with pytest.raises(ValueError, match="the vocabulary takes 0 … 96"):
        model(tokens + 90)


def test_saving_what_has_no_form(tmp_path, model, samples):
    with pytest.raises(ValueError, match=r"Sequential has no save_pretrained; .*to_module"):
        model.save(tmp_path / "saved")
    assert not list(tmp_path.iterdir())
    noisy = hemostat.prepare(model, "activation").at(4)
    with pytest.raises(ValueError, match="the input of 0 is quantized or noisy"):
        noisy.to_module()
    with pytest.raises(ValueError, match="to_transformers"):
        hemostat.data.reference().model.to_module()


def test_one_model_of_two_kinds(model, samples, tokens):
    with pytest.raises(ValueError, match="has a loss in the place of a vocabulary"):
        hemostat.compare(model, hemostat.Model.from_module(Tiny()), samples, progress=False)
    with pytest.raises(ValueError, match="sweep and localize measure the loss"):
        hemostat.scan(model, samples, samples, methods=["rtn"])


# --- of transformers ---


@pytest.fixture(scope="module")
def transformers():
    return pytest.importorskip("transformers")


def test_what_is_never_called_is_named_and_left(transformers, tokens):
    torch.manual_seed(0)
    model = hemostat.Model.from_module(mamba(transformers))
    with pytest.warns(
        UserWarning, match=r"never calls backbone.layers.0.mixer.dt_proj, .*1.mixer.dt_proj: .* \d+ % of"
    ):
        statistics = hemostat.collect(model, tokens, progress=False)
    for method, severity in (("wanda", 0.5), ("sparsegpt", 0.5), ("svd_llm", 0.3)):
        changed = dict(hemostat.prepare(model, method, statistics).at(severity).linears())
        for name, weight in model.linears():
            assert torch.equal(changed[name], weight) == name.endswith("dt_proj"), (method, name)
    changed = dict(hemostat.prepare(model, "magnitude").at(0.5).linears())
    assert all((weight == 0).float().mean() >= 0.5 for weight in changed.values())


def test_experts_whose_inputs_cannot_be_seen(transformers, tokens):
    module = deepseek_v3(transformers)
    module.set_experts_implementation("batched_mm")
    model = hemostat.Model.from_module(module)
    with pytest.warns(UserWarning, match="never calls model.layers.1.mlp.experts.gate_up_proj.0, "):
        statistics = hemostat.collect(model, tokens, progress=False)
    assert statistics["model.layers.1.mlp.experts.gate_up_proj.0"].count == 0
    quantized = hemostat.prepare(model, "activation").at(4)
    with pytest.raises(ValueError, match=r"experts.gate_up_proj.0 and its like .*set_experts_implementation"):
        quantized(tokens)


def test_nothing_is_said_where_all_is_reached(transformers, tokens):
    model = hemostat.Model.from_module(falcon(transformers))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        hemostat.collect(model, tokens, progress=False)


def test_scan(transformers, tokens, tmp_path):
    torch.manual_seed(0)
    model = hemostat.Model.from_module(falcon(transformers))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", hemostat.BaselineWarning)
        report = hemostat.scan(
            model,
            tokens,
            tokens[:3],
            methods=["magnitude", "wanda", "rtn", "gradient", "activation", "svd"],
            points=2,
            localize_windows=2,
            progress=False,
        )
    assert len(report.to_dataframe()) == 12
    report.to_html(tmp_path / "report.html")
    assert "query_key_value" in (tmp_path / "report.html").read_text()


TEXT = "".join(chr(97 + i % 26) + " " for i in range(4000))


@pytest.fixture
def checkpoint(transformers, tmp_path):
    """Of an architecture that hemostat does not know, with a tokenizer of letters."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    torch.manual_seed(0)
    directory = tmp_path / "falcon"
    falcon(transformers).save_pretrained(directory)
    letters = {chr(97 + i): i for i in range(26)}
    tokenizer = Tokenizer(models.WordLevel(letters | {"?": 26}, unk_token="?"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(directory / "tokenizer.json"))
    (tmp_path / "text.txt").write_text(TEXT)
    return directory


def test_an_unknown_architecture_lists_what_is_known(checkpoint):
    with pytest.raises(ValueError, match=r"'model_type' is 'falcon'; supported are llama, .*foreign=True"):
        hemostat.Model.load(checkpoint)
    model = hemostat.Model.load(checkpoint, foreign=True, dtype=torch.bfloat16)
    assert (model.dtype, model.source, model.config.family) == (torch.bfloat16, str(checkpoint), "falcon")
    assert hemostat.data.tokens(model, text=TEXT, length=16).shape[1] == 16


def test_the_command_line_goes_on_with_it(checkpoint, tmp_path, capsys):
    text, out = str(tmp_path / "text.txt"), tmp_path / "out"
    common = [str(checkpoint), "--text", text, "--windows", "2", "--length", "16"]
    scan = ["scan", *common, "--methods", "magnitude,wanda", "--points", "2", "--localize", "1", "--out", str(out)]
    assert main([*scan, "--plan"]) == 0
    assert "supported are llama" in capsys.readouterr().err
    assert main(scan) == 0
    document = json.loads((out / "report.json").read_text())
    assert len(document["trials"]) == 4 and document["provenance"]["model"]["family"] == "falcon"
    saved = tmp_path / "saved"
    assert main(["apply", str(checkpoint), "--method", "magnitude", "--severity", "0.5", "--out", str(saved)]) == 0
    assert (saved / "tokenizer.json").is_file()
    assert main(["compare", str(checkpoint), str(saved), *common[1:]]) == 0


def test_a_checkpoint_that_transformers_cannot_load(tmp_path, checkpoint):
    with pytest.raises(ValueError, match="there is no config.json"):
        hemostat.Model.load(tmp_path, foreign=True)
    config = json.loads((checkpoint / "config.json").read_text())
    (checkpoint / "config.json").write_text(json.dumps(config | {"model_type": "nothing"}))
    with pytest.raises(ValueError, match="transformers cannot read its config"):
        hemostat.Model.load(checkpoint, foreign=True)
    (checkpoint / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 3}))
    with pytest.raises(ValueError, match="tensors are missing"):
        hemostat.Model.load(checkpoint, foreign=True)
