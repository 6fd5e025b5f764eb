// Room `model`: the parts of a Model, all read-only.
#include <memory>
#include <optional>
#include <string>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <torch/csrc/utils/pybind.h>

#include <hemostat/model.h>

#include "arguments.h"
#include "module.h"

namespace py = pybind11;

namespace hemostat::bindings {
namespace {

using py::literals::operator""_a;

// --- enums, as the words that users read ---

const char* word(NormKind kind) {
  switch (kind) {
    case NormKind::rms:
      return "rms";
    case NormKind::layer:
      return "layer";
    case NormKind::dynamic_tanh:
      return "dynamic_tanh";
    case NormKind::none:
      break;
  }
  return "none";
}

const char* word(Activation activation) {
  switch (activation) {
    case Activation::silu:
      return "silu";
    case Activation::gelu:
      return "gelu";
    case Activation::gelu_tanh:
      return "gelu_tanh";
    case Activation::relu:
      break;
  }
  return "relu";
}

const char* word(TokenNoise kind) {
  switch (kind) {
    case TokenNoise::replace:
      return "replace";
    case TokenNoise::drop:
      return "drop";
    case TokenNoise::swap:
      return "swap";
    case TokenNoise::none:
      break;
  }
  return "none";
}

const char* word(NormPlacement placement) { return placement == NormPlacement::pre ? "pre" : "post"; }

// A getter of a tensor that may be undefined, which is None.
template <class Owner>
auto tensor_or_none(at::Tensor Owner::* member) {
  return [member](const Owner& owner) { return if_defined(owner.*member); };
}

// A getter of an enum as its word.
template <class Owner, class Enum>
auto as_word(Enum Owner::* member) {
  return [member](const Owner& owner) { return std::string(word(owner.*member)); };
}

std::string shape(const at::Tensor& tensor) { return fmt::format("[{}]", fmt::join(tensor.sizes(), ", ")); }

std::string text(const Linear& linear) {
  if (!linear.defined()) {
    return "Linear(none)";
  }
  const char* form = linear.factored() ? ", factored" : linear.packed ? ", packed" : "";
  return fmt::format("Linear({} → {}{}{})", linear.in_features(), linear.out_features(),
                     linear.bias.defined() ? ", bias" : "", form);
}

std::string text(const Block& block) {
  const Attention& attention = block.attention;
  return fmt::format("Block(origin={}, {} heads on {} key-value heads of {}, {})", block.origin, attention.heads,
                     attention.kv_heads, attention.head_dim,
                     block.experts.mlps.empty()
                         ? "mlp of " + std::to_string(block.mlp.down.defined() ? block.mlp.down.in_features() : 0)
                         : fmt::format("{} experts", block.experts.mlps.size()));
}

// --- the parts of a Model, all read-only ---

void register_layers(py::module_& module) {
  py::class_<LinearInput>(module, "LinearInput", "What happens to a linear layer's input first. Read-only.")
      .def_property_readonly("scale", tensor_or_none(&LinearInput::scale),
                             "[in_features]: x · scale; None: no scaling.")
      .def_property_readonly("rotation", tensor_or_none(&LinearInput::rotation),
                             "[in_features, in_features]: x @ rotation; None: no rotation.")
      .def_readonly("bits", &LinearInput::bits, "Below 16: each token is fake-quantized to round(2^bits) levels.")
      .def_readonly("symmetric", &LinearInput::symmetric, "Whether that quantization is symmetric.")
      .def_readonly("noise", &LinearInput::noise, "σ of the noise, relative to the token's standard deviation.")
      .def_readonly("noise_seed", &LinearInput::noise_seed, "Seed of the noise.")
      .def_property_readonly("neutral", &LinearInput::neutral, "Whether the input is left as it is.")
      .def("__repr__", [](const LinearInput& self) {
        return self.neutral()
                   ? std::string("LinearInput(neutral)")
                   : fmt::format("LinearInput(scale={}, rotation={}, bits={}, symmetric={}, noise={})",
                                 self.scale.defined() ? "given" : "None", self.rotation.defined() ? "given" : "None",
                                 self.bits, self.symmetric ? "True" : "False", self.noise);
      });

  py::class_<Linear>(module, "Linear",
                     "y = weight · x + bias, held as a weight, as two factors, or as packed codes. Read-only.")
      .def_property_readonly("weight", tensor_or_none(&Linear::weight),
                             "[out_features, in_features]; None where the layer is factored or packed.")
      .def_property_readonly("a", tensor_or_none(&Linear::a), "[out_features, r], the first factor, or None.")
      .def_property_readonly("b", tensor_or_none(&Linear::b), "[r, in_features], the second factor, or None.")
      .def_property_readonly("bias", tensor_or_none(&Linear::bias), "[out_features], or None.")
      .def_readonly(
          "stored_bits", &Linear::stored_bits,
          "Bits per weight of the format that a dense weight was rounded to, scales and zero points included; "
          "0: none, so those of its dtype.")
      .def_property_readonly(
          "packed",
          [](const Linear& self) -> std::optional<std::shared_ptr<quantize::PackedWeight>> {
            if (!self.packed) {
              return std::nullopt;
            }
            return std::const_pointer_cast<quantize::PackedWeight>(self.packed);
          },
          "The codes as stored, or None.")
      .def_readonly("input", &Linear::input, "What happens to the input first.")
      .def_property_readonly("defined", &Linear::defined, "False: the model has no such layer.")
      .def_property_readonly("factored", &Linear::factored, "Whether the layer is held as two factors.")
      .def_property_readonly("out_features", &Linear::out_features, "Features of the output.")
      .def_property_readonly("in_features", &Linear::in_features, "Features of the input.")
      .def("dense", &Linear::dense, py::call_guard<py::gil_scoped_release>(),
           "The weight [out_features, in_features], factors multiplied out and codes dequantized.")
      .def("__repr__", [](const Linear& self) { return text(self); });

  py::class_<Norm>(module, "Norm", "A normalization layer. Read-only.")
      .def_property_readonly("kind", as_word(&Norm::kind), "'rms', 'layer', 'dynamic_tanh' or 'none'.")
      .def_property_readonly("weight", tensor_or_none(&Norm::weight), "[features], or None.")
      .def_property_readonly("bias", tensor_or_none(&Norm::bias), "[features], or None.")
      .def_readonly("epsilon", &Norm::epsilon, "Added to the mean square (rms) or the variance (layer).")
      .def_readonly("alpha", &Norm::alpha, "dynamic_tanh: weight · tanh(alpha · x) + bias.")
      .def("__repr__", [](const Norm& self) {
        return fmt::format("Norm({}{})", word(self.kind), self.weight.defined() ? ", " + shape(self.weight) : "");
      });

  py::class_<Rope>(module, "Rope", "Rotary position embedding. Read-only.")
      .def_property_readonly("inverse_frequencies", tensor_or_none(&Rope::inverse_frequencies),
                             "float32 [rotary_dim / 2], radians per position; None: no rotation.")
      .def_readonly("attention_scale", &Rope::attention_scale, "Multiplies cosine and sine (YaRN).")
      .def("__repr__", [](const Rope& self) {
        return self.inverse_frequencies.defined() ? fmt::format("Rope({} frequencies, attention_scale={})",
                                                                self.inverse_frequencies.numel(), self.attention_scale)
                                                  : std::string("Rope(none)");
      });

  py::class_<CacheQuantization>(module, "CacheQuantization", "Fake quantization of the key-value cache. Read-only.")
      .def_readonly("bits", &CacheQuantization::bits, "Below 16: round(2^bits) levels.")
      .def_property_readonly("key_min", tensor_or_none(&CacheQuantization::key_min),
                             "float32 [kv_heads, head_dim]; None: keys are quantized per token.")
      .def_property_readonly("key_max", tensor_or_none(&CacheQuantization::key_max),
                             "float32 [kv_heads, head_dim]; None: keys are quantized per token.")
      .def("__repr__",
           [](const CacheQuantization& self) { return fmt::format("CacheQuantization(bits={})", self.bits); });
}

void register_blocks(py::module_& module) {
  py::class_<Attention>(module, "Attention", "A block's attention. Read-only.")
      .def_readonly("q", &Attention::q, "Query projection.")
      .def_readonly("k", &Attention::k, "Key projection.")
      .def_readonly("v", &Attention::v, "Value projection.")
      .def_readonly("o", &Attention::o, "Output projection.")
      .def_readonly("heads", &Attention::heads, "Query heads.")
      .def_readonly("kv_heads", &Attention::kv_heads, "Key-value heads.")
      .def_readonly("head_dim", &Attention::head_dim, "Features of a head.")
      .def_readonly("q_norm", &Attention::q_norm, "Norm of each query head, before the rotation.")
      .def_readonly("k_norm", &Attention::k_norm, "Norm of each key head, before the rotation.")
      .def_readonly("rope", &Attention::rope, "Rotary position embedding.")
      .def_readonly("scale", &Attention::scale, "Of q·k; 0: 1/sqrt(head_dim).")
      .def_readonly("window", &Attention::window, "Tokens that one sees, itself included; 0: all before it.")
      .def_readonly("sinks", &Attention::sinks, "With a window: first positions that stay visible.")
      .def_readonly("cache", &Attention::cache, "Quantization of the key-value cache.")
      .def("__repr__", [](const Attention& self) {
        return fmt::format("Attention({} heads on {} key-value heads of {})", self.heads, self.kv_heads, self.head_dim);
      });

  py::class_<Mlp>(module, "Mlp", "down(activation(gate(x)) · up(x)), or down(activation(up(x))). Read-only.")
      .def_readonly("gate", &Mlp::gate, "Gate projection; not defined where there is none.")
      .def_readonly("up", &Mlp::up, "Up projection.")
      .def_readonly("down", &Mlp::down, "Down projection.")
      .def_property_readonly("activation", as_word(&Mlp::activation), "'silu', 'gelu', 'gelu_tanh' or 'relu'.")
      .def("__repr__", [](const Mlp& self) {
        return fmt::format("Mlp(up={}, down={}, {})", text(self.up), text(self.down), word(self.activation));
      });

  py::class_<Experts>(module, "Experts", "A mixture of MLPs and how it chooses. Read-only.")
      .def_readonly("router", &Experts::router, "[experts, hidden_size].")
      .def_readonly("top_k", &Experts::top_k, "Experts that each token uses.")
      .def_readonly("normalize", &Experts::normalize, "Whether the chosen weights sum to 1.")
      .def_readonly("temperature", &Experts::temperature, "softmax(router(x)/temperature) chooses.")
      .def_readonly("mlps", &Experts::mlps, "The experts; empty where the block has a dense MLP.")
      .def("__len__", [](const Experts& self) { return self.mlps.size(); })
      .def("__repr__",
           [](const Experts& self) { return fmt::format("Experts({} of {})", self.top_k, self.mlps.size()); });

  py::class_<Block>(module, "Block", "One transformer block. Read-only.")
      .def_property_readonly("placement", as_word(&Block::placement), "'pre': x + f(norm(x)); 'post': norm(x + f(x)).")
      .def_readonly("attention_norm", &Block::attention_norm, "Norm of the attention sublayer.")
      .def_readonly("mlp_norm", &Block::mlp_norm, "Norm of the MLP sublayer.")
      .def_readonly("attention_output_norm", &Block::attention_output_norm,
                    "Norm of the attention's output before it is added.")
      .def_readonly("mlp_output_norm", &Block::mlp_output_norm, "Norm of the MLP's output before it is added.")
      .def_readonly("attention", &Block::attention, "The attention sublayer.")
      .def_readonly("mlp", &Block::mlp, "The dense MLP; its layers are not defined where there are experts.")
      .def_readonly("experts", &Block::experts, "The mixture of experts; empty where the MLP is dense.")
      .def_readonly("skip_attention", &Block::skip_attention, "The attention is not computed and adds nothing.")
      .def_readonly("skip_mlp", &Block::skip_mlp, "The MLP is not computed and adds nothing.")
      .def_readonly("attention_residual", &Block::attention_residual,
                    "False: the attention's input is not added to its output.")
      .def_readonly("mlp_residual", &Block::mlp_residual, "False: the MLP's input is not added to its output.")
      .def_readonly("origin", &Block::origin, "Index of the checkpoint's block that this one came from.")
      .def("__repr__", [](const Block& self) { return text(self); });
}

void register_ends(py::module_& module) {
  py::class_<InputPerturbation>(module, "InputPerturbation",
                                "What happens to the tokens that a model reads. Read-only.")
      .def_property_readonly("kind", as_word(&InputPerturbation::kind), "'none', 'replace', 'drop' or 'swap'.")
      .def_readonly("rate", &InputPerturbation::rate, "Fraction of the tokens, 0 … 1.")
      .def_readonly("seed", &InputPerturbation::seed, "Decides, with position and token, which fall.")
      .def("__repr__", [](const InputPerturbation& self) {
        return fmt::format("InputPerturbation({}, rate={}, seed={})", word(self.kind), self.rate, self.seed);
      });

  py::class_<LogitMap>(module, "LogitMap", "logits ← scale · logits + bias + a·(b·logits). Read-only.")
      .def_readonly("scale", &LogitMap::scale, "Multiplies the logits.")
      .def_property_readonly("bias", tensor_or_none(&LogitMap::bias), "[vocab_size], or None.")
      .def_property_readonly("a", tensor_or_none(&LogitMap::a), "[vocab_size, r], or None.")
      .def_property_readonly("b", tensor_or_none(&LogitMap::b), "[r, vocab_size], or None.")
      .def("__repr__", [](const LogitMap& self) {
        return fmt::format("LogitMap(scale={}, bias={}, rank={})", self.scale, self.bias.defined() ? "given" : "None",
                           self.b.defined() ? self.b.size(0) : 0);
      });

  py::class_<Head>(module, "Head", "The output head and the map of its logits. Read-only.")
      .def_readonly("linear", &Head::linear, "[vocab_size, hidden_size]; the embedding's storage where they are tied.")
      .def_readonly("map", &Head::map, "What happens to the logits.")
      .def("__repr__", [](const Head& self) { return fmt::format("Head({})", text(self.linear)); });

  py::class_<Decoder>(module, "Decoder", R"(How a token is chosen from the logits. Read-only.

The default draws from the model's own distribution.

Args:
    temperature: Positive; the logits are divided by it. 1 changes nothing.
    do_sample: True: a token is drawn from softmax(logits / temperature). False: the most likely is taken, the lowest of
        equal ones, as transformers' ``generate`` does by default.
)")
      .def(py::init([](double temperature, bool do_sample) {
             return Decoder{.temperature = temperature, .do_sample = do_sample};
           }),
           py::kw_only(), "temperature"_a = 1.0, "do_sample"_a = true)
      .def_readonly("temperature", &Decoder::temperature, "logits / temperature; 1 changes nothing.")
      .def_readonly("do_sample", &Decoder::do_sample, "Whether a token is drawn, or the most likely taken.")
      .def("__eq__", [](const Decoder& self, const Decoder& other) { return self == other; })
      .def("__hash__", [](const Decoder& self) { return py::hash(py::make_tuple(self.temperature, self.do_sample)); })
      .def("__repr__", [](const Decoder& self) {
        return fmt::format("Decoder(temperature={}, do_sample={})", self.temperature,
                           self.do_sample ? "True" : "False");
      });

  py::class_<ModelConfig>(module, "ModelConfig", "What a checkpoint's config.json says. Read-only.")
      .def_readonly("family", &ModelConfig::family, "model_type in config.json: 'llama', 'mistral', 'qwen2'.")
      .def_readonly("vocab_size", &ModelConfig::vocab_size, "Entries of the vocabulary.")
      .def_readonly("hidden_size", &ModelConfig::hidden_size, "Features of the residual stream.")
      .def_readonly("context", &ModelConfig::context, "Longest sequence in tokens (max_position_embeddings).")
      .def_readonly("eos_token_ids", &ModelConfig::eos_token_ids, "Tokens that end a text; often one, may be none.")
      .def_readonly("bos_token_id", &ModelConfig::bos_token_id, "The token that begins a text, or None.")
      .def_readonly("json", &ModelConfig::json, "The text of config.json as loaded.")
      .def("__repr__", [](const ModelConfig& self) {
        return fmt::format("ModelConfig({}, vocab_size={}, hidden_size={}, context={})", self.family, self.vocab_size,
                           self.hidden_size, self.context);
      });
}

}  // namespace

void register_model_parts(py::module_& module) {
  register_layers(module);
  register_blocks(module);
  register_ends(module);
}

}  // namespace hemostat::bindings
