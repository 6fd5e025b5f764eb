"""transformers' generate on the same checkpoints: equal greedy tokens, and an equal distribution where it samples."""

from __future__ import annotations

import pytest
import torch
from small_models import SIZES

import hemostat

transformers = pytest.importorskip("transformers")

GREEDY = hemostat.Decoder(do_sample=False)
PROMPTS = [[5, 17, 80], [3], [9, 9, 9], [1, 2, 3, 4, 5, 6, 7, 8, 9, 10], [96, 0]]

FAMILIES = {
    "llama": ("Llama", {}),
    "llama-tied": ("Llama", {"tie_word_embeddings": True}),
    "mistral-window": ("Mistral", {"sliding_window": 5}),
    "qwen2": ("Qwen2", {}),
}


@pytest.fixture(params=FAMILIES)
def module(request):
    family, options = FAMILIES[request.param]
    torch.manual_seed(0)
    sizes = SIZES | {"eos_token_id": 11, "pad_token_id": 0, "bos_token_id": 1}
    config = getattr(transformers, f"{family}Config")(**sizes, **options)
    made = getattr(transformers, f"{family}ForCausalLM")(config).eval()
    with torch.no_grad():
        for name, parameter in made.named_parameters():
            if parameter.dim() == 2 and "embed" not in name:
                parameter.mul_(6)
    return made


def theirs(module, prompts, **options):
    """The continuation of each prompt, one at a time."""
    written = []
    for prompt in prompts:
        tokens = torch.tensor([prompt])
        with torch.no_grad():
            text = module.generate(tokens, attention_mask=torch.ones_like(tokens), **options)
        written.append(text[0, len(prompt) :].tolist())
    return written


def test_greedy_tokens_are_equal(module):
    model = hemostat.Model.from_transformers(module)
    ours = hemostat.generate(model, PROMPTS, GREEDY, max_new_tokens=40, eos_token_id=None).tokens
    assert ours == theirs(module, PROMPTS, do_sample=False, max_new_tokens=40, eos_token_id=None)
    assert len({tuple(tokens) for tokens in ours}) == len(PROMPTS)  # the prompts matter


def test_they_end_at_the_same_token(module):
    model = hemostat.Model.from_transformers(module)
    assert model.config.eos_token_ids == [11]
    endless = hemostat.generate(model, PROMPTS, GREEDY, max_new_tokens=40, eos_token_id=None).tokens
    end = endless[0][5]
    ours = hemostat.generate(model, PROMPTS, GREEDY, max_new_tokens=40, eos_token_id=end).tokens
    assert len(ours[0]) <= 6 and ours[0][-1] == end
    assert ours == theirs(module, PROMPTS, do_sample=False, max_new_tokens=40, eos_token_id=end)
    own = hemostat.generate(model, PROMPTS, GREEDY, max_new_tokens=40).tokens
    assert own == theirs(module, PROMPTS, do_sample=False, max_new_tokens=40)


def test_greedy_text_of_a_trained_model_is_equal():
    subject = hemostat.data.reference()
    checkpoint = hemostat.data.reference_directory()
    module = transformers.AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()
    prompts = subject.evaluation[::20, :24].tolist()
    model = subject.model
    ours = hemostat.generate(model, prompts, GREEDY, max_new_tokens=100).tokens
    assert ours == theirs(module, prompts, do_sample=False, max_new_tokens=100, pad_token_id=0)


@pytest.mark.parametrize("temperature", [0.7, 1.0, 1.8])
def test_samples_are_distributed_alike(module, temperature):
    """The first two tokens of 4 000 texts each: total variation as small as between two samples of one distribution."""
    model, draws = hemostat.Model.from_transformers(module), 4000
    decoder = hemostat.Decoder(temperature=temperature)
    ours = hemostat.generate(
        model, [PROMPTS[0]] * draws, decoder, max_new_tokens=2, eos_token_id=None, batch=1000
    ).tokens
    torch.manual_seed(0)
    tokens = torch.tensor([PROMPTS[0]] * draws)
    with torch.no_grad():
        text = module.generate(
            tokens,
            attention_mask=torch.ones_like(tokens),
            do_sample=True,
            temperature=temperature,
            top_k=0,
            max_new_tokens=2,
            eos_token_id=None,
        )
    for position in range(2):
        first = torch.bincount(torch.tensor(ours)[:, position], minlength=97).double() / draws
        second = torch.bincount(text[:, len(PROMPTS[0]) + position], minlength=97).double() / draws
        # of two samples of p, each |difference| is about sqrt(2 · 2p(1 − p) / (π · draws))
        mean = (first + second) / 2
        expected = float((4 * mean * (1 - mean) / (torch.pi * draws)).sqrt().sum() / 2)
        assert float((first - second).abs().sum() / 2) < 1.5 * expected
