"""transformers' modules become models and come back: tensors, gradients, logits."""

from __future__ import annotations

import pytest
import torch

import hemostat


@pytest.fixture(scope="module", params=[True, False], ids=["tied", "untied"])
def module(request):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=64,
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=3,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        tie_word_embeddings=request.param,
    )
    return transformers.LlamaForCausalLM(config).eval()


@pytest.fixture
def few_tokens() -> torch.Tensor:
    return torch.randint(0, 64, (2, 16), generator=torch.Generator().manual_seed(0))


def test_from_transformers_shares_tensors_and_gradients(module, few_tokens):
    model = hemostat.Model.from_transformers(module)
    assert model.embedding.data_ptr() == module.model.embed_tokens.weight.data_ptr()
    logits = model.forward(few_tokens)
    torch.testing.assert_close(logits, module(few_tokens).logits, rtol=0, atol=1e-4)

    logits.logsumexp(-1).sum().backward()
    ours = {name: parameter.grad.clone() for name, parameter in module.named_parameters()}
    module.zero_grad()
    module(few_tokens).logits.logsumexp(-1).sum().backward()
    theirs = {name: parameter.grad.clone() for name, parameter in module.named_parameters()}
    module.zero_grad()
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


def test_to_transformers_and_back(module, few_tokens):
    model = hemostat.Model.from_transformers(module)
    again = model.to_transformers()
    assert type(again) is type(module) and not again.training
    assert again.model.embed_tokens.weight.data_ptr() == module.model.embed_tokens.weight.data_ptr()
    assert (again.lm_head.weight is again.model.embed_tokens.weight) == module.config.tie_word_embeddings
    assert torch.equal(again(few_tokens).logits, module(few_tokens).logits)


def test_to_transformers_of_a_changed_model(module, few_tokens):
    changed = hemostat.ablate.drop_layers(hemostat.Model.from_transformers(module), count=1)
    head = torch.randn(64, 32, generator=torch.Generator().manual_seed(1))
    for model in (changed, changed.replace({"lm_head": head}), changed.to(torch.bfloat16)):
        again = model.to_transformers()
        assert again.config.num_hidden_layers == 2
        assert again.dtype == model.dtype
        tolerance = 1e-4 if model.dtype == torch.float32 else 5e-2
        torch.testing.assert_close(again(few_tokens).logits, model.forward(few_tokens), rtol=0, atol=tolerance)


def test_to_transformers_refuses_what_it_cannot_express(module):
    model = hemostat.Model.from_transformers(module)
    with pytest.raises(ValueError, match="cannot express"):
        hemostat.prepare(model, "svd").at(0.5).to_transformers()


def test_from_transformers_refuses_other_modules():
    with pytest.raises(TypeError, match="Linear"):
        hemostat.Model.from_transformers(torch.nn.Linear(2, 2))
