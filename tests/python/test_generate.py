"""hemostat.generate, and damage by generation."""

import collections
import json
import math
import pickle
import statistics

import numpy as np
import pytest
import torch

import hemostat
from hemostat.metrics import generation_divergence

GREEDY = hemostat.Decoder(do_sample=False)
PROMPTS = [[72, 101, 108], [72], [119, 111, 114, 108, 100], [33, 33, 33]]


# --- text ---


def test_gives_continuations_without_their_prompts(tiny_model):
    written = hemostat.generate(tiny_model, PROMPTS, GREEDY, max_new_tokens=6, eos_token_id=None)
    assert [len(tokens) for tokens in written.tokens] == [6] * 4
    for prompt, tokens in zip(PROMPTS, written.tokens, strict=True):
        text = list(prompt)
        for token in tokens:
            assert token == int(tiny_model.forward(torch.tensor(text, device=tiny_model.device))[0, -1].argmax())
            text.append(token)


@pytest.mark.parametrize("convert", [torch.tensor, np.array, tuple], ids=["torch", "numpy", "tuple"])
def test_takes_prompts_of_any_sequence(tiny_model, convert):
    expected = hemostat.generate(tiny_model, PROMPTS, max_new_tokens=4)
    assert hemostat.generate(tiny_model, [convert(prompt) for prompt in PROMPTS], max_new_tokens=4) == expected
    same_length = [PROMPTS[0], PROMPTS[3]]
    expected = hemostat.generate(tiny_model, same_length, max_new_tokens=4)
    assert hemostat.generate(tiny_model, convert(same_length), max_new_tokens=4) == expected


def test_samples_unless_told_otherwise(tiny_model):
    def text(decoder=None, **options):
        return hemostat.generate(tiny_model, PROMPTS, decoder, max_new_tokens=8, **options).tokens

    assert text() == text(hemostat.Decoder()) == text(seed=0) == text(batch=1)
    assert text() != text(seed=1)
    assert text(hemostat.Decoder(temperature=0.01)) == text(GREEDY) == text(GREEDY, seed=1)
    hotter = hemostat.prepare(tiny_model, "temperature").at(2)
    assert hemostat.generate(hotter, PROMPTS, max_new_tokens=8).tokens == text(hemostat.Decoder(temperature=2))


def test_stops_at_the_end_of_text(tiny_model):
    endless = hemostat.generate(tiny_model, PROMPTS, max_new_tokens=20, eos_token_id=None).tokens
    end = endless[0][2]
    expected = [tokens[: tokens.index(end) + 1] if end in tokens else tokens for tokens in endless]
    assert hemostat.generate(tiny_model, PROMPTS, max_new_tokens=20, eos_token_id=end).tokens == expected
    assert hemostat.generate(tiny_model, PROMPTS, max_new_tokens=20, eos_token_id=[end]).tokens == expected
    assert hemostat.generate(tiny_model, PROMPTS, max_new_tokens=20, eos_token_id=[]).tokens == endless
    own = hemostat.generate(tiny_model, PROMPTS, max_new_tokens=20, eos_token_id=tiny_model.config.eos_token_ids)
    assert hemostat.generate(tiny_model, PROMPTS, max_new_tokens=20) == own


def test_sampled_tokens_follow_the_distribution(tiny_model):
    draws, temperature = 20_000, 1.5
    logits = tiny_model.forward(torch.tensor(PROMPTS[0], device=tiny_model.device))[0, -1].double().cpu()
    expected = (logits / temperature).softmax(-1)
    written = hemostat.generate(
        tiny_model, [PROMPTS[0]] * draws, hemostat.Decoder(temperature=temperature), max_new_tokens=1, batch=2000
    )
    counts = torch.bincount(torch.tensor(written.tokens).flatten(), minlength=len(expected))
    # the rare tokens together, so that every class is expected five times: the statistic's own condition
    common = expected * draws > 5
    observed = torch.cat([counts[common], counts[~common].sum()[None]]).double()
    wanted = torch.cat([expected[common], expected[~common].sum()[None]]) * draws
    statistic = float(((observed - wanted) ** 2 / wanted).sum())
    degrees = len(wanted) - 1
    assert degrees > 50
    assert statistic < degrees + 3.3 * math.sqrt(2 * degrees)  # about one sample in a thousand lies beyond


def test_a_result_says_nothing_else(tiny_model):
    written = hemostat.generate(tiny_model, [[1]], max_new_tokens=1)
    assert isinstance(written, hemostat.Generation)
    assert hemostat.generate(tiny_model, [], max_new_tokens=1).tokens == []


@pytest.mark.parametrize(
    ("error", "message", "arguments"),
    [
        (ValueError, r"prompts\[1\] is empty", {"prompts": [[1], []]}),
        (ValueError, r"prompts\[0\] has the ID 259", {"prompts": [[259]]}),
        (ValueError, "the ID -1", {"prompts": [[-1]]}),
        (ValueError, "exceed the context of 64", {"prompts": [[1] * 60]}),
        (ValueError, "max_new_tokens is 0", {"max_new_tokens": 0}),
        (ValueError, "batch is 0", {"batch": 0}),
        (ValueError, "temperature is 0", {"decoder": hemostat.Decoder(temperature=0)}),
        (ValueError, "eos_token_id has the ID 1000", {"eos_token_id": 1000}),
        (TypeError, "takes a list of token IDs", {"prompts": ["Once upon a time"]}),
        (TypeError, "takes a list of token IDs", {"prompts": [1, 2, 3]}),
        (TypeError, "takes a list of token IDs", {"prompts": [[1.5]]}),
    ],
)
def test_refuses(tiny_model, error, message, arguments):
    with pytest.raises(error, match=message):
        hemostat.generate(tiny_model, **{"prompts": [[1]], "max_new_tokens": 5} | arguments)


def test_decoder_is_a_value():
    decoder = hemostat.Decoder(temperature=0.5, do_sample=False)
    assert (decoder.temperature, decoder.do_sample) == (0.5, False)
    assert (hemostat.Decoder().temperature, hemostat.Decoder().do_sample) == (1, True)
    assert decoder == hemostat.Decoder(temperature=0.5, do_sample=False) != hemostat.Decoder(temperature=0.5)
    assert len({decoder, hemostat.Decoder(temperature=0.5, do_sample=False), hemostat.Decoder()}) == 2
    assert repr(decoder) == "Decoder(temperature=0.5, do_sample=False)"
    with pytest.raises(AttributeError):
        decoder.temperature = 1
    with pytest.raises(TypeError):
        hemostat.Decoder(0.5)


def test_do_sample_is_saved(tiny_checkpoint, tmp_path):
    structure = tmp_path / "saved" / "hemostat.json"
    with pytest.warns(UserWarning, match=r"hemostat\.json"):
        hemostat.prepare(hemostat.Model.load(tiny_checkpoint), "temperature").at(2).save(tmp_path / "saved")
    fields = json.loads(structure.read_text())
    assert fields["do_sample"] is True
    structure.write_text(json.dumps(fields | {"do_sample": False}))
    assert hemostat.Model.load(tmp_path / "saved").decoder == hemostat.Decoder(temperature=2, do_sample=False)


# --- the metric, against plain Python ---


def ngrams(tokens, n):
    return [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]


def reference(baseline, damaged, new_tokens):
    def position(ours, theirs):
        if ours == theirs:
            return new_tokens
        return next(
            (i for i, (a, b) in enumerate(zip(ours, theirs, strict=False)) if a != b), min(map(len, (ours, theirs)))
        )

    def repetition(texts):
        rates = []
        for text in texts:
            before, repeated = set(), 0
            for ngram in ngrams(text, 4):
                repeated += ngram in before
                before.add(ngram)
            if len(text) >= 4:
                rates.append(repeated / len(ngrams(text, 4)))
        return statistics.mean(rates) if rates else math.nan

    def distinct(texts, n):
        every = [ngram for text in texts for ngram in ngrams(text, n)]
        return len(set(every)) / len(every) if every else math.nan

    positions = [position(ours, theirs) for ours, theirs in zip(baseline, damaged, strict=True)]
    return {
        "positions": positions,
        "first_divergence": statistics.mean(positions),
        "first_divergence_median": statistics.median(positions),
        "exact_match": sum(a == b for a, b in zip(baseline, damaged, strict=True)) / len(baseline),
        "repetition_baseline": repetition(baseline),
        "repetition": repetition(damaged),
        "distinct_1_baseline": distinct(baseline, 1),
        "distinct_1": distinct(damaged, 1),
        "distinct_2_baseline": distinct(baseline, 2),
        "distinct_2": distinct(damaged, 2),
    }


def assert_is_reference(found, baseline, damaged, new_tokens):
    expected = reference(baseline, damaged, new_tokens)
    for name, value in expected.items():
        assert getattr(found, name) == pytest.approx(value, nan_ok=True), name


@pytest.mark.parametrize("seed", range(20))
def test_divergence_is_the_plain_reference(seed):
    random = np.random.default_rng(seed)
    baseline = [random.integers(0, 4, random.integers(0, 12)).tolist() for _ in range(random.integers(1, 7))]
    damaged = [
        text[: random.integers(0, len(text) + 1)] + random.integers(0, 4, random.integers(0, 3)).tolist()
        for text in baseline
    ]
    longest = max(map(len, baseline + damaged))
    assert_is_reference(generation_divergence(baseline, damaged), baseline, damaged, longest)
    found = generation_divergence(baseline, damaged, new_tokens=longest + 3)
    assert_is_reference(found, baseline, damaged, longest + 3)
    if len(baseline) == 1:
        assert found.first_divergence_interval is None
    else:
        low, high = found.first_divergence_interval
        assert low <= found.first_divergence <= high


@pytest.mark.parametrize(
    ("baseline", "damaged", "options"),
    [
        ([], [], {}),
        ([[1]], [[1], [2]], {}),
        ([[1, 2]], [[1]], {"new_tokens": 1}),
        ([[1]], [[1]], {"bootstrap_samples": 0}),
    ],
)
def test_divergence_refuses(baseline, damaged, options):
    with pytest.raises(ValueError, match=r"hemostat\.metrics\.generation_divergence"):
        generation_divergence(baseline, damaged, **options)


# --- damage ---

FIELDS = [
    "prompts",
    "prompt_length",
    "new_tokens",
    "first_divergence",
    "first_divergence_interval",
    "first_divergence_median",
    "exact_match",
    "repetition_baseline",
    "repetition",
    "distinct_1",
    "distinct_2",
    "distinct_1_baseline",
    "distinct_2_baseline",
    "seed",
]


def test_temperature_is_measured_by_generation_and_by_teacher_forcing(tiny_model, tiny_tokens):
    curve = hemostat.sweep(tiny_model, "temperature", tiny_tokens, severities=[1, 1.25, 4], seed=3)
    assert curve.axis.measured_by == "generation"
    unchanged, mild, severe = (damage.generation for damage in curve.damages)
    prompts = tiny_tokens[:, :16].tolist()
    baseline = hemostat.generate(tiny_model, prompts, max_new_tokens=48, seed=3).tokens
    for found, damage, temperature in zip((unchanged, mild, severe), curve.damages, (1, 1.25, 4), strict=True):
        assert (found.prompts, found.prompt_length, found.new_tokens, found.seed) == (10, 16, 48, 3)
        hotter = hemostat.Decoder(temperature=temperature)
        text = hemostat.generate(tiny_model, prompts, hotter, max_new_tokens=48, seed=3).tokens
        assert_is_reference(found, baseline, text, 48)
        alone = hemostat.compare(tiny_model, hemostat.prepare(tiny_model, "temperature").at(temperature), tiny_tokens)
        assert alone.generation is None
        assert damage.kl.mean == pytest.approx(alone.kl.mean)
    assert (unchanged.first_divergence, unchanged.exact_match) == (48, 1)
    assert unchanged.first_divergence > mild.first_divergence > severe.first_divergence
    assert "first divergence" in repr(severe) and "\n" not in repr(severe)


def test_other_methods_are_measured_so_where_asked_for(tiny_model, damaged, tiny_tokens):
    assert hemostat.compare(tiny_model, damaged, tiny_tokens).generation is None
    sampled = hemostat.compare(tiny_model, damaged, tiny_tokens, generation=True)
    protocol = hemostat.GenerationProtocol(prompts=4, prompt_length=8, new_tokens=12, decoder=GREEDY)
    greedy = hemostat.compare(tiny_model, damaged, tiny_tokens, generation=protocol)
    assert (greedy.generation.prompts, greedy.generation.prompt_length, greedy.generation.new_tokens) == (4, 8, 12)
    assert sampled.delta_nll == greedy.delta_nll
    prompts = tiny_tokens[:4, :8].tolist()
    texts = [hemostat.generate(m, prompts, GREEDY, max_new_tokens=12).tokens for m in (tiny_model, damaged)]
    assert_is_reference(greedy.generation, *texts, 12)
    curve = hemostat.sweep(tiny_model, "magnitude", tiny_tokens, severities=[0.5], generation=protocol)
    assert curve.damages[0].generation.to_dict(positions=True) == greedy.generation.to_dict(positions=True)
    assert repr(protocol) == f"GenerationProtocol(prompts=4, prompt_length=8, new_tokens=12, decoder={GREEDY})"
    with pytest.raises(ValueError, match="new_tokens"):
        hemostat.compare(tiny_model, damaged, tiny_tokens, generation=hemostat.GenerationProtocol(new_tokens=0))


def test_baseline_evaluation_compares_texts_alone(tiny_model, damaged, tiny_tokens):
    evaluation = hemostat.BaselineEvaluation(tiny_model, tiny_tokens)
    assert evaluation.compare_generation(tiny_model).exact_match == 1
    assert evaluation.compare(damaged).generation is None
    asked = hemostat.compare(tiny_model, damaged, tiny_tokens, generation=True)
    assert asked.generation.positions == evaluation.compare_generation(damaged).positions
    short = hemostat.BaselineEvaluation(
        tiny_model, tiny_tokens, generation=hemostat.GenerationProtocol(prompts=2, new_tokens=5)
    ).compare_generation(damaged)
    assert (short.prompts, short.prompt_length, short.new_tokens) == (2, 16, 5)


def test_generation_survives_json_and_pickle(tiny_model, damaged, tiny_tokens):
    damage = hemostat.compare(tiny_model, damaged, tiny_tokens, generation=True)
    assert list(damage.to_dict()["generation"]) == FIELDS
    assert list(damage.to_dict(windows=True)["generation"]) == [*FIELDS, "positions"]
    text = json.dumps(damage.to_dict(windows=True), allow_nan=False)
    for again in (hemostat.Damage.from_dict(json.loads(text)), pickle.loads(pickle.dumps(damage))):
        assert again.to_dict(windows=True) == damage.to_dict(windows=True)
    without = damage.to_dict()
    del without["generation"]
    assert hemostat.Damage.from_dict(without).generation is None
    assert hemostat.Damage.from_dict(without | {"generation": None}).generation is None
    with pytest.raises(ValueError, match="there is no field prompt_length"):
        hemostat.Damage.from_dict(without | {"generation": {"prompts": 1}})


def test_undefined_numbers_are_null(tiny_model, tiny_tokens):
    protocol = hemostat.GenerationProtocol(new_tokens=3)
    generation = hemostat.compare(tiny_model, tiny_model, tiny_tokens, generation=protocol).generation
    assert math.isnan(generation.repetition)
    assert generation.to_dict()["repetition"] is None


@pytest.mark.integration
def test_scan_reports_the_curve(tiny_model, tiny_tokens):
    report = hemostat.scan(
        tiny_model, tiny_tokens[4:], tiny_tokens[:4], methods=["temperature", "magnitude"], points=2, progress=False
    )
    by_method = collections.defaultdict(list)
    for trial in report.trials:
        by_method[trial["method"]].append(trial["damage"])
    assert all(list(damage["generation"]) == FIELDS for damage in by_method["temperature"])
    assert all(damage["perplexity"] > 0 for damage in by_method["temperature"])
    assert not any("generation" in damage for damage in by_method["magnitude"])
    frame = report.to_dataframe().set_index("method")
    assert frame.loc["temperature", "generation_first_divergence"].notna().all()
    assert frame.loc["temperature", "generation_first_divergence_low"].notna().all()
    assert frame.loc["magnitude", "generation_first_divergence"].isna().all()


def test_a_users_method_can_be_measured_by_generation(tiny_model, tiny_tokens):
    axis = hemostat.Axis(
        name="scale", neutral=0, minimum=0, maximum=1, farthest=1, default_grid=[0.5], measured_by="generation"
    )

    @hemostat.method("quieter_head_of_test_generate", axis=axis)
    def quieter(model, statistics):
        return lambda severity: model.replace(
            {name: weight * (1 - severity) for name, weight in model.linears(include="*.down_proj")}
        )

    curve = hemostat.sweep(tiny_model, "quieter_head_of_test_generate", tiny_tokens)
    assert curve.damages[0].generation.first_divergence < 48


def test_damage_grows_with_temperature_on_a_trained_model(stories):
    up = hemostat.sweep(stories.model, "temperature", stories.tokens[:8], severities=[1.1, 1.5, 2.5])
    down = hemostat.sweep(stories.model, "temperature", stories.tokens[:8], severities=[0.9, 0.6, 0.2], side="down")
    for curve in (up, down):
        positions = [damage.generation.first_divergence for damage in curve.damages]
        assert positions == sorted(positions, reverse=True)
        assert positions[0] > 2 * positions[-1]
    # cold text repeats itself, hot text says ever new things
    assert down.damages[-1].generation.repetition > down.damages[-1].generation.repetition_baseline
    assert up.damages[-1].generation.distinct_1 > up.damages[-1].generation.distinct_1_baseline
