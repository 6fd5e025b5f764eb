// Room `model`: Model and its parts, the cache and the observer.
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include <fmt/format.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <pybind11/stl/filesystem.h>
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
  return [member](const Owner& owner) -> std::optional<at::Tensor> {
    const at::Tensor& tensor = owner.*member;
    return tensor.defined() ? std::optional<at::Tensor>(tensor) : std::nullopt;
  };
}

// A getter of an enum as its word.
template <class Owner, class Enum>
auto as_word(Enum Owner::* member) {
  return [member](const Owner& owner) { return std::string(word(owner.*member)); };
}

std::string dtype_name(at::ScalarType dtype) { return py::str(py::cast(dtype)); }

std::string shape(const at::Tensor& tensor) { return fmt::format("[{}]", fmt::join(tensor.sizes(), ", ")); }

// 134515008 → "134.5M"
std::string count_text(int64_t count) {
  const auto value = static_cast<double>(count);
  if (value >= 1e9) {
    return fmt::format("{:.2f}B", value / 1e9);
  }
  if (value >= 1e6) {
    return fmt::format("{:.1f}M", value / 1e6);
  }
  if (value >= 1e3) {
    return fmt::format("{:.1f}K", value / 1e3);
  }
  return fmt::format("{}", count);
}

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

std::string text(const Model& model) {
  return fmt::format("Model({}, {} blocks, {} parameters, {} on {}{})", model.config.family, model.blocks.size(),
                     count_text(model.parameters()), dtype_name(model.dtype()), model.device().str(),
                     model.source.empty() ? "" : ", from '" + model.source + "'");
}

// --- linears: names and weights, each weight made when it is asked for ---

struct Linears {
  Linears(const Model& source, const LinearFilter& filter) : model(source), entries(linears(model, filter)) {}

  std::pair<std::string, at::Tensor> at(int64_t index) const {
    const auto size = static_cast<int64_t>(entries.size());
    if (index < -size || index >= size) {
      throw py::index_error(fmt::format("hemostat.Model.linears: index {} of {} linears", index, size));
    }
    const NamedLinear& entry = entries[static_cast<size_t>(index < 0 ? index + size : index)];
    return {entry.name, dense(*entry.linear)};
  }

  at::Tensor at(const std::string& name) const {
    for (const NamedLinear& entry : entries) {
      if (entry.name == name) {
        return dense(*entry.linear);
      }
    }
    throw py::key_error(name);
  }

  static at::Tensor dense(const Linear& linear) {
    py::gil_scoped_release release;
    return linear.dense();
  }

  std::vector<std::string> names() const {
    std::vector<std::string> result;
    for (const NamedLinear& entry : entries) {
      result.push_back(entry.name);
    }
    return result;
  }

  Model model;  // the entries point into it
  std::vector<NamedLinear> entries;
};

// --- Observer: calls arrive while the GIL is released ---

class PythonObserver : public Observer {
 public:
  void linear_input(size_t block, const std::vector<std::string>& names, const at::Tensor& x) override {
    PYBIND11_OVERRIDE(void, Observer, linear_input, block, names, x);
  }
  void hidden_state(size_t index, const at::Tensor& x) override {
    PYBIND11_OVERRIDE(void, Observer, hidden_state, index, x);
  }
  // A class attribute, a property or a method.
  bool wants_attention() const override {
    py::gil_scoped_acquire gil;
    py::object self = py::cast(this, py::return_value_policy::reference);
    py::object wants = self.attr("wants_attention");
    if (PyCallable_Check(wants.ptr()) != 0) {
      wants = wants();
    }
    return PyObject_IsTrue(wants.ptr()) == 1;
  }
  void attention(size_t block, const at::Tensor& probabilities) override {
    PYBIND11_OVERRIDE(void, Observer, attention, block, probabilities);
  }
  void routing(size_t block, const at::Tensor& experts, const at::Tensor& weights) override {
    PYBIND11_OVERRIDE(void, Observer, routing, block, experts, weights);
  }
};

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

  py::class_<Decoder>(module, "Decoder", "What decoding does to the logits. Read-only.")
      .def_readonly("temperature", &Decoder::temperature, "logits / temperature; 1 changes nothing.")
      .def("__repr__", [](const Decoder& self) { return fmt::format("Decoder(temperature={})", self.temperature); });

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

void register_running(py::module_& module) {
  py::class_<KvCache>(module, "KvCache", R"(Keys and values of the tokens that a model has read.

Pass it to :meth:`Model.forward` as ``cache``: the tokens given then continue after those it holds, and are added to it.

Args:
    model: The model that fills it; another model's shapes don't fit.
    batch: Sequences side by side.
    capacity: Tokens to reserve memory for; it grows beyond.
)")
      .def(py::init<const Model&, int64_t, int64_t>(), "model"_a, "batch"_a = 1, "capacity"_a = 0)
      .def_property_readonly("length", &KvCache::length, "Tokens held.")
      .def("__len__", &KvCache::length)
      .def("__repr__", [](const KvCache& self) { return fmt::format("KvCache({} tokens)", self.length()); });

  py::class_<Observer, PythonObserver> observer(
      module, "Observer", R"(Sees a forward pass from inside: subclass it and override what you want to see.

Tensors are live: clone what you keep and may change. An exception raised in a method ends the forward pass and reaches
its caller. Attention probabilities are computed only where ``wants_attention`` is true (a class attribute, a property
or a method).

Example:
    >>> class Norms(hemostat.Observer):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.norms = []
    ...     def hidden_state(self, index, x):
    ...         self.norms.append(x.norm().item())
    >>> logits = model.forward(tokens, observer=Norms())
)");
  observer.def(py::init<>())
      .def("linear_input", &Observer::linear_input, "block"_a, "names"_a, "x"_a,
           R"(Called before the linears ``names``, which share the input ``x`` [..., in_features].

Args:
    block: Index of the block in this model.
    names: The linears' names.
    x: The input as it is before the linears' own input treatment.
)")
      .def("hidden_state", &Observer::hidden_state, "index"_a, "x"_a,
           R"(Called with the residual stream [B, T, hidden_size] before each block and after the last.

Args:
    index: 0 … L; L is after the last block, before the final norm.
    x: The residual stream.
)")
      .def("attention", &Observer::attention, "block"_a, "probabilities"_a,
           R"(Called with attention probabilities [B, heads, T, S] where ``wants_attention`` is true.

Args:
    block: Index of the block in this model.
    probabilities: Rows sum to 1 over the S visible tokens.
)")
      .def("routing", &Observer::routing, "block"_a, "experts"_a, "weights"_a,
           R"(Called with a mixture's choice for each token.

Args:
    block: Index of the block in this model.
    experts: int64 [tokens, top_k], the chosen experts.
    weights: [tokens, top_k], their weights.
)");
  observer.attr("wants_attention") = false;

  py::class_<Linears>(module, "Linears", R"(The linears of a model, in order: names and weights.

A sequence of (name, weight) pairs that can be indexed by name too. A weight that is held as factors or codes is
multiplied out or dequantized each time it is asked for.
)")
      .def("__len__", [](const Linears& self) { return self.entries.size(); })
      .def(
          "__getitem__", [](const Linears& self, int64_t index) { return self.at(index); }, "index"_a,
          "The (name, weight) pair at an index.")
      .def(
          "__getitem__", [](const Linears& self, const std::string& name) { return self.at(name); }, "name"_a,
          "The weight of a name; the first of them where blocks are repeated.")
      .def("__iter__",
           [](const py::object& self) -> py::typing::Iterator<std::pair<std::string, at::Tensor>> {
             return py::reinterpret_steal<py::object>(PySeqIter_New(self.ptr()));
           })
      .def(
          "__contains__",
          [](const Linears& self, const std::string& name) {
            for (const NamedLinear& entry : self.entries) {
              if (entry.name == name) {
                return true;
              }
            }
            return false;
          },
          "name"_a)
      .def_property_readonly("names", &Linears::names, "Names in order; repeated blocks repeat theirs.")
      .def("__repr__", [](const Linears& self) { return fmt::format("Linears({})", self.entries.size()); });
}

Model load(const std::variant<std::string, std::filesystem::path>& checkpoint, std::optional<at::ScalarType> dtype,
           const DeviceArgument& device) {
  const auto directory =
      py::module_::import("hemostat.huggingface").attr("checkpoint_directory")(checkpoint).cast<std::string>();
  const LoadOptions options{.dtype = dtype, .device = device_from(device)};
  py::gil_scoped_release release;
  return Model::load(directory, options);
}

Model from_tensors(const std::variant<std::string, py::dict>& config,
                   const std::map<std::string, at::Tensor>& tensors) {
  std::string json;
  if (const auto* text = std::get_if<std::string>(&config)) {
    json = *text;
  } else {
    json = py::module_::import("json").attr("dumps")(std::get<py::dict>(config)).cast<std::string>();
  }
  py::gil_scoped_release release;
  return Model::from_tensors(json, tensors);
}

void save(const Model& self, const std::filesystem::path& directory) {
  std::string sentence;
  {
    py::gil_scoped_release release;
    sentence = self.save(directory.string());
  }
  if (!sentence.empty() && PyErr_WarnEx(PyExc_UserWarning, sentence.c_str(), 1) != 0) {
    throw py::error_already_set();
  }
}

at::Tensor forward(const Model& self, const at::Tensor& tokens, std::optional<KvCache*> cache,
                   std::optional<Observer*> observer) {
  return self.forward(tokens, {.cache = cache.value_or(nullptr), .observer = observer.value_or(nullptr)});
}

constexpr const char* kForwardDoc = R"(The logits of each token's successor.

Autograd works through it. Logits are raw: what decoding does to them is in :attr:`decoder`.

Args:
    tokens: Integers [B, T] (or [T], which is one sequence) on the model's device, ids in 0 … vocab_size − 1.
    cache: Continues after the tokens it holds and adds these to it.
    observer: Sees the pass from inside.

Returns:
    Logits [B, T, vocab_size] in the model's dtype.

Raises:
    ValueError: For an id out of range or tokens on another device.
    TypeError: For tokens that are not integers.
)";

void register_model_class(py::class_<Model>& model) {
  model

      .def_static("load", load, "checkpoint"_a, py::kw_only(), "dtype"_a = std::optional<at::ScalarType>(),
                  "device"_a = "cpu", R"(Loads a checkpoint.

Args:
    checkpoint: A Hugging Face directory (config.json and one or many \*.safetensors), or a model's id on the Hub, which
        is looked for in the local cache first and downloaded if it is not there.
    dtype: None keeps the stored one.
    device: Where the tensors go. On the CPU in the stored dtype they are views on the mapped files.

Returns:
    Model: The model.

Raises:
    ValueError: Where there is no such checkpoint, or it has a config field that cannot be honoured or a tensor that
        does not fit; the message names it.
)")
      .def_static("from_tensors", from_tensors, "config"_a, "tensors"_a,
                  R"(A model from a config and named tensors, which are shared, gradients included.

Args:
    config: What config.json holds, as its text or as a dict.
    tensors: By the names that the family's checkpoints give them.

Returns:
    Model: The model.

Raises:
    ValueError: For a config field that cannot be honoured, or a tensor that is missing, unknown or of a wrong shape.
)")
      .def_static(
          "from_transformers",
          [](const py::object& module) {
            return py::module_::import("hemostat.huggingface").attr("from_transformers")(module).cast<Model>();
          },
          "module"_a, R"(A model on the tensors of a transformers module.

The tensors are shared and not detached: gradients reach the module's ``.grad``, and an optimizer's step on the module
is seen here.

Args:
    module: A transformers causal language model.

Returns:
    Model: The model.

Raises:
    ValueError: For a module whose config cannot be honoured; the message names the field.
)")
      .def(
          "to_transformers",
          [](const Model& self) { return py::module_::import("hemostat.huggingface").attr("to_transformers")(self); },
          R"(A transformers causal language model with this model's tensors, which are shared.

Returns:
    transformers.PreTrainedModel: In evaluation mode.

Raises:
    ValueError: Where transformers cannot express the model (per-layer sizes, factors, input treatments).
)")
      .def("save", save, "directory"_a, R"(Writes a Hugging Face directory that :meth:`load` and transformers read.

Holds config.json, model.safetensors and the tokenizer's files of :attr:`source`. What transformers cannot express goes
to hemostat.json beside them, and a warning says so. The directory appears whole or not at all.

Args:
    directory: Where to.

Raises:
    ValueError: Where the directory cannot be written.
)")
      .def("tensors", &Model::tensors, R"(Named tensors as :meth:`save` writes them; a tied head is left out.

Returns:
    dict[str, torch.Tensor]: By the names that the family's checkpoints give them.
)")
      .def(
          "to",
          [](const Model& self, std::optional<at::ScalarType> dtype, const std::optional<DeviceArgument>& device) {
            std::optional<at::Device> where;
            if (device) {
              where = device_from(*device);
            }
            py::gil_scoped_release release;
            return self.to(dtype, where);
          },
          "dtype"_a = std::optional<at::ScalarType>(), "device"_a = std::optional<DeviceArgument>(),
          R"(The model in another dtype or on another device.

Args:
    dtype: None keeps it.
    device: None keeps it.

Returns:
    Model: Shares the tensors that are already so.
)")
      .def("forward", forward, "tokens"_a, py::kw_only(), "cache"_a = std::optional<KvCache*>(),
           "observer"_a = std::optional<Observer*>(), py::call_guard<py::gil_scoped_release>(), kForwardDoc)
      .def("__call__", forward, "tokens"_a, py::kw_only(), "cache"_a = std::optional<KvCache*>(),
           "observer"_a = std::optional<Observer*>(), py::call_guard<py::gil_scoped_release>(), kForwardDoc)
      .def(
          "linears",
          [](const Model& self, const Patterns& include, const Patterns& exclude) {
            return std::make_unique<Linears>(self, linear_filter(include, exclude));
          },
          "include"_a = Patterns(), "exclude"_a = Patterns(), R"(The linears, as (name, weight) pairs.

Names are the checkpoint's own without ``.weight``; repeated blocks repeat theirs.

Args:
    include: fnmatch pattern or patterns on names. None: the linears inside blocks, routers left out; with it, all that
        match, the head and routers too.
    exclude: Pattern or patterns of names to leave out.

Returns:
    Linears: A sequence of pairs.

Example:
    >>> shapes = {name: tuple(weight.shape) for name, weight in model.linears(include="*.mlp.*")}
)")
      .def("replace", &Model::replace, "weights"_a, py::call_guard<py::gil_scoped_release>(),
           R"(A model whose named linears have other weights; biases stay.

Args:
    weights: By the names of :meth:`linears`, each [out_features, in_features]. A linear becomes dense.

Returns:
    Model: Shares every other tensor.

Raises:
    ValueError: For an unknown name or a wrong shape.
    TypeError: For a dtype that is not floating.

Example:
    >>> half = model.replace({name: weight * 0.5 for name, weight in model.linears()})
)")
      .def_readonly("config", &Model::config, "What the checkpoint's config says.")
      .def_readonly("input", &Model::input, "What happens to the tokens that the model reads.")
      .def_readonly("embedding", &Model::embedding, "[vocab_size, hidden_size].")
      .def_readonly("blocks", &Model::blocks, "The blocks in order.")
      .def_readonly("final_norm", &Model::final_norm, "The norm before the head.")
      .def_readonly("head", &Model::head, "The output head.")
      .def_readonly("decoder", &Model::decoder, "What decoding does to the logits.")
      .def_readonly("source", &Model::source, "The directory it was loaded from; empty: none.")
      .def_property_readonly(
          "tokenizer",
          [](const Model& self) { return py::module_::import("hemostat.huggingface").attr("tokenizer")(self.source); },
          "The ``tokenizers.Tokenizer`` of :attr:`source`'s tokenizer.json. ValueError where there is none.")
      .def_property_readonly("dtype", &Model::dtype, "dtype of the weights.")
      .def_property_readonly("device", &Model::device, "Device of the weights.")
      .def_property_readonly("tied", &Model::tied, "Whether the head's weight is the embedding.")
      .def_property_readonly("parameters", &Model::parameters,
                             "Entries of all distinct weights; packed and factored ones as stored.")
      .def_property_readonly("bytes", &Model::bytes, "Bytes of those, as stored.")
      .def("__repr__", [](const Model& self) { return text(self); });
}

}  // namespace

void register_model(py::module_& module) {
  register_layers(module);
  register_blocks(module);
  register_ends(module);
  // Model, the cache and the observer name each other in their signatures, so the class comes before the functions.
  py::class_<Model> model(module, "Model", R"(A language model as data.

From Python a model is immutable: methods that change something return another model, which shares every tensor that
stayed as it was. Load one with :meth:`load`, or share a transformers module's with :meth:`from_transformers`.
)");
  register_running(module);
  register_model_class(model);
  module.def("family_config", &family_config, "model"_a,
             R"(config.json for a model as it is now, as :meth:`Model.save` writes it.

Args:
    model: The model.

Returns:
    str: JSON.

Raises:
    ValueError: Where the family's config cannot express the model.
)");
}

}  // namespace hemostat::bindings
