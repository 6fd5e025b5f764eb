"""GGUF files against the gguf package and transformers: what we write, they read to the same logits; what they write,
we read as transformers does."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import small_models
import torch
from small_models import LINEAR_ROPE, LLAMA3_ROPE

import hemostat
from hemostat import _C, data

gguf = pytest.importorskip("gguf")
transformers = pytest.importorskip("transformers")
pytest.importorskip("accelerate")  # transformers' GGUF reader imports it

SHARED = Path(__file__).parents[2].parent / "shared"

SIZES = small_models.SIZES | {"hidden_size": 64, "intermediate_size": 96}
FAMILIES = {
    "llama": ("Llama", {}),
    "llama-tied": ("Llama", {"tie_word_embeddings": True}),
    "llama-head-dim": ("Llama", {"head_dim": 24}),
    "llama-theta": ("Llama", {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0}}),
    "llama-many-heads": ("Llama", {"num_key_value_heads": 4}),
    "mistral": ("Mistral", {"sliding_window": None}),
    "mistral-wide-window": ("Mistral", {"sliding_window": 64}),
    "qwen2": ("Qwen2", {}),
    "qwen2-tied": ("Qwen2", {"tie_word_embeddings": True}),
}
OVERLOOKED = {  # by transformers' GGUF reader
    "llama-biases": ("Llama", {"attention_bias": True, "mlp_bias": True}),
    "llama-linear-rope": ("Llama", {"rope_parameters": LINEAR_ROPE}),
    "llama-llama3-rope": ("Llama", {"rope_parameters": LLAMA3_ROPE}),
}
INEXPRESSIBLE = {
    "llama-gelu": ("Llama", {"hidden_act": "gelu"}),
    "mistral-window": ("Mistral", {"sliding_window": 5}),
    "qwen2-window": ("Qwen2", {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1}),
}


def made(family: str, options: dict, **sizes: int):
    torch.manual_seed(0)
    config = getattr(transformers, f"{family}Config")(**{**SIZES, **sizes, **options})
    config._attn_implementation = "eager"
    module = getattr(transformers, f"{family}ForCausalLM")(config).eval()
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if parameter.dim() == 1:  # norms and biases that are not 1 and 0
                parameter.add_(torch.randn_like(parameter) * 0.3)
            elif "embed" not in name:
                parameter.mul_(6)
    return module


def random_tokens(vocabulary: int = SIZES["vocab_size"]) -> torch.Tensor:
    return torch.randint(0, vocabulary, (2, 24), generator=torch.Generator().manual_seed(1))


def read_by_transformers(path):
    return transformers.AutoModelForCausalLM.from_pretrained(
        path.parent, gguf_file=path.name, dtype=torch.float32, attn_implementation="eager", local_files_only=True
    ).eval()


def assert_same(ours: torch.Tensor, theirs: torch.Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-4)


class TestWhatWeWrite:
    @pytest.mark.parametrize("name", FAMILIES)
    def test_transformers_reads_the_same_logits(self, name, tmp_path):
        module, tokens = made(*FAMILIES[name]), random_tokens()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            hemostat.Model.from_transformers(module).save(tmp_path / "model.gguf")
        with torch.no_grad():
            expected = module(tokens).logits
            assert_same(read_by_transformers(tmp_path / "model.gguf")(tokens).logits, expected)
        assert_same(hemostat.Model.load(tmp_path / "model.gguf").forward(tokens), expected)

    @pytest.mark.parametrize("name", OVERLOOKED)
    def test_what_transformers_overlooks_we_read(self, name, tmp_path):
        module, tokens = made(*OVERLOOKED[name]), random_tokens()
        with pytest.warns(UserWarning, match="transformers overlooks its (scaled rotation|biases) in a GGUF file"):
            hemostat.Model.from_transformers(module).save(tmp_path / "model.gguf")
        with torch.no_grad():
            assert_same(hemostat.Model.load(tmp_path / "model.gguf").forward(tokens), module(tokens).logits)

    @pytest.mark.parametrize("name", INEXPRESSIBLE)
    def test_what_gguf_cannot_express(self, name, tmp_path):
        with pytest.raises(ValueError, match=r"cannot express blocks\.\d\.(mlp.activation|attention.window) = "):
            hemostat.Model.from_transformers(made(*INEXPRESSIBLE[name])).save(tmp_path / "model.gguf")
        assert not list(tmp_path.iterdir())

    @pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
    def test_the_package_reads_it(self, tmp_path, dtype):
        module = made(*FAMILIES["llama"]).to(dtype)
        hemostat.Model.from_transformers(module).save(tmp_path / "model.gguf")
        reader = gguf.GGUFReader(tmp_path / "model.gguf")
        fields = {key: field.contents() for key, field in reader.fields.items()}
        assert fields["general.architecture"] == "llama"
        assert fields["llama.block_count"] == 3
        assert fields["llama.attention.head_count_kv"] == 2
        assert fields["llama.rope.freq_base"] == 10000
        tensors = {tensor.name: tensor for tensor in reader.tensors}
        stored = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}[dtype]
        assert tensors["blk.1.ffn_down.weight"].tensor_type.name == stored
        assert tensors["blk.1.ffn_norm.weight"].tensor_type.name == "F32"
        assert list(tensors["blk.1.ffn_down.weight"].shape) == [96, 64]  # ggml's order
        state = module.state_dict()
        names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, 3)
        for name, tensor in state.items():
            found = tensors.pop(names.get_name(name, try_suffixes=(".weight",)))
            values = torch.from_numpy(gguf.quants.dequantize(found.data, found.tensor_type).copy())
            if "q_proj" in name or "k_proj" in name:
                values = values.unflatten(0, (-1, 8, 2)).transpose(1, 2).flatten(0, 2)
            assert torch.equal(values, tensor.float()), name
        assert not tensors

    @pytest.mark.parametrize(
        "checkpoint", [data.reference_directory(), SHARED / "weights" / "stories260K"], ids=lambda path: path.name
    )
    def test_transformers_reads_the_same_tokenizer(self, checkpoint, tmp_path):
        if not checkpoint.is_dir():
            pytest.skip(f"no {checkpoint.name} beside the clone")
        model = hemostat.Model.load(checkpoint)
        model.save(tmp_path / "model.gguf")
        theirs = transformers.AutoTokenizer.from_pretrained(tmp_path, gguf_file="model.gguf")
        for text in ("Once upon a time, there was a little girl.", "A naïve café\n\n12345 🙂 don't"):
            assert (
                theirs(text, add_special_tokens=False).input_ids
                == model.tokenizer.encode(text, add_special_tokens=False).ids
            )


# Where the float16 scales of a block lie, for formats that the package does not quantize to.
SCALES = {"Q2_K": [80, 82], "Q3_K": [108], "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208], "IQ4_NL": [0]}


def blocks(weight: np.ndarray, kind: str) -> np.ndarray:
    """The package's quantization, or random blocks of small scales."""
    quantization = gguf.GGMLQuantizationType[kind]
    if kind not in SCALES:
        return gguf.quants.quantize(weight, quantization)
    entries, size = gguf.GGML_QUANT_SIZES[quantization]
    random = np.random.default_rng(weight.size).integers(
        0, 256, (weight.shape[0], weight.shape[1] // entries, size), np.uint8
    )
    for at in SCALES[kind]:
        random[..., at : at + 2] = np.array([2e-4], np.float16).view(np.uint8)
    return random.reshape(weight.shape[0], -1)


def written(path, module, kind: str) -> None:
    """The module as llama.cpp's converter would write it, matrices in blocks of a kind."""
    config, architecture = module.config, "qwen2" if module.config.model_type == "qwen2" else "llama"
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(config.vocab_size)
    if architecture == "llama":
        writer.add_rope_dimension_count(config.hidden_size // config.num_attention_heads)
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH[architecture.upper()], config.num_hidden_layers)
    for name, tensor in module.state_dict().items():
        values = tensor.numpy()
        if architecture == "llama" and ("q_proj" in name or "k_proj" in name):
            heads = config.num_attention_heads if "q_proj" in name else config.num_key_value_heads
            values = values.reshape(heads, 2, -1, values.shape[1]).swapaxes(1, 2).reshape(values.shape)
        target = names.get_name(name, try_suffixes=(".weight", ".bias"))
        if values.ndim == 1 or kind == "F32":
            writer.add_tensor(target, values)
        elif kind == "F16":
            writer.add_tensor(target, values.astype(np.float16))
        else:
            writer.add_tensor(target, blocks(values, kind), raw_dtype=gguf.GGMLQuantizationType[kind])
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


KINDS = ["F32", "F16", "Q8_0", "Q4_0", "Q4_1", "Q5_0", "Q5_1", *SCALES]
WIDE = {"hidden_size": 256, "intermediate_size": 256, "num_hidden_layers": 2}  # blocks of 256 along every row


class TestWhatTheyWrite:
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("family", ["Llama", "Qwen2"])
    def test_logits_are_those_of_transformers(self, tmp_path, kind, family):
        path, tokens = tmp_path / "model.gguf", random_tokens()
        written(path, made(family, {}, **WIDE), kind)
        with torch.no_grad():
            expected = read_by_transformers(path)(tokens).logits
        packed, dense = hemostat.Model.load(path), hemostat.Model.load(path, dtype=torch.float32)
        assert packed.dtype == (torch.float16 if kind == "F16" else torch.float32)
        assert dense.bytes == 4 * dense.parameters
        if kind not in ("F32", "F16"):
            assert packed.bytes < dense.bytes
            assert_same(packed.forward(tokens), expected)
        assert_same(dense.forward(tokens), expected)

    @pytest.mark.parametrize("kind", ["Q8_0", "Q4_K"])
    def test_blocks_keep_their_bytes(self, tmp_path, kind):
        path, again = tmp_path / "model.gguf", tmp_path / "again.gguf"
        written(path, made("Llama", {}, **WIDE), kind)
        model = hemostat.Model.load(path)
        model.save(again)
        ours, theirs = ({t.name: t for t in gguf.GGUFReader(p).tensors} for p in (again, path))
        assert ours.keys() == theirs.keys()
        for name, tensor in theirs.items():
            if name.startswith("blk.") and tensor.tensor_type.name == kind:
                assert ours[name].tensor_type == tensor.tensor_type
                assert np.array_equal(ours[name].data, tensor.data), name
        tokens = random_tokens()
        assert torch.equal(hemostat.Model.load(again).forward(tokens), model.forward(tokens))
        with torch.no_grad():
            assert_same(read_by_transformers(again)(tokens).logits, model.forward(tokens))

    def test_methods_see_the_weights(self, tmp_path):
        path = tmp_path / "model.gguf"
        written(path, made("Llama", {}, **WIDE), "Q4_0")
        packed, dense = hemostat.Model.load(path), hemostat.Model.load(path, dtype=torch.float32)
        ours, theirs = (hemostat.prepare(model, "magnitude").at(0.5) for model in (packed, dense))
        assert torch.equal(ours.forward(random_tokens()), theirs.forward(random_tokens()))
        restored = packed.to_transformers()
        with torch.no_grad():
            assert_same(restored(random_tokens()).logits, packed.forward(random_tokens()))


class TestPreTokenizers:
    @pytest.mark.parametrize("name", ["llama-bpe", "qwen2", "tekken"])
    def test_text_is_split_as_transformers_splits_it(self, name, tmp_path):
        mapping = pytest.importorskip("transformers.integrations.gguf.gguf_tokenizer_mapping")
        path = tmp_path / "model.gguf"
        alphabet = sorted(mapping.bytes_to_unicode().values())
        writer = gguf.GGUFWriter(path, "llama")
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre(name)
        writer.add_token_list([*alphabet, "ab", "<s>"])
        writer.add_token_types([1] * (len(alphabet) + 1) + [3])
        writer.add_token_merges(["a b"])
        writer.add_bos_token_id(len(alphabet) + 1)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.close()
        ours = json.loads(_C.gguf_tokenizer(path))
        splits = ours["pre_tokenizer"]["pretokenizers"]
        assert splits[0]["pattern"]["Regex"] == mapping.GGUF_PRE_TOKENIZER_SPLITS[name]


@pytest.fixture(scope="module")
def smollm2_file():
    try:
        return data._smollm2_gguf()[0]
    except ImportError as error:
        pytest.skip(str(error))


class TestSmolLM2:
    def test_logits_are_those_of_its_conversion(self, smollm2_file):
        converted = hemostat.Model.load(data.smollm2_directory(), dtype=torch.bfloat16)
        loaded = hemostat.Model.load(smollm2_file, dtype=torch.bfloat16)
        for name, weight in converted.tensors().items():
            assert torch.equal(loaded.tensors()[name], weight), name
        tokens = random_tokens(1000)
        assert torch.equal(loaded.forward(tokens), converted.forward(tokens))

    def test_packed(self, smollm2_file):
        packed = hemostat.Model.load(smollm2_file)
        assert packed.dtype == torch.float32
        assert packed.config.context == 8192 and packed.config.bos_token_id == 1 and packed.config.eos_token_ids == [2]
        dense = hemostat.Model.load(smollm2_file, dtype=torch.float32)
        tokens = random_tokens(1000)
        assert torch.equal(packed.forward(tokens), dense.forward(tokens))
        assert packed.bytes < 0.5 * dense.bytes

    def test_tokenizer(self, smollm2_file):
        """SmolLM2 splits digits, which transformers' reading of the file does not; everything else is the same."""
        ours = hemostat.Model.load(smollm2_file).tokenizer
        theirs = hemostat.Model.load(data.smollm2_directory()).tokenizer
        text = "<|im_start|>user\nWhy is the sky blue, and don't naïve cafés know?<|im_end|>\n"
        assert ours.encode(text).ids == theirs.encode(text).ids
        assert ours.decode(ours.encode("12345").ids) == "12345" and len(ours.encode("12345").ids) == 5
