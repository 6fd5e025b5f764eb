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

#include "model_fields.h"
#include "module.h"

namespace py = pybind11;

namespace hemostat::bindings {
namespace {

using py::literals::operator""_a;

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
  with_fields(
      py::class_<LinearInput>(module, "LinearInput", "What happens to a linear layer's input first. Read-only."))
      .def_property_readonly("neutral", &LinearInput::neutral, "Whether the input is left as it is.")
      .def("__repr__", [](const LinearInput& self) {
        return self.neutral()
                   ? std::string("LinearInput(neutral)")
                   : fmt::format("LinearInput(scale={}, rotation={}, bits={}, symmetric={}, noise={})",
                                 self.scale.defined() ? "given" : "None", self.rotation.defined() ? "given" : "None",
                                 self.bits, self.symmetric ? "True" : "False", self.noise);
      });

  with_fields(
      py::class_<Linear>(module, "Linear",
                         "y = weight · x + bias, held as a weight, as two factors, or as packed codes. Read-only."))
      .def_property_readonly(
          "packed",
          [](const Linear& self) -> std::optional<std::shared_ptr<quantize::PackedWeight>> {
            if (!self.packed) {
              return std::nullopt;
            }
            return std::const_pointer_cast<quantize::PackedWeight>(self.packed);
          },
          "The codes as stored, or None.")
      .def_property_readonly("defined", &Linear::defined, "False: the model has no such layer.")
      .def_property_readonly("factored", &Linear::factored, "Whether the layer is held as two factors.")
      .def_property_readonly("out_features", &Linear::out_features, "Features of the output.")
      .def_property_readonly("in_features", &Linear::in_features, "Features of the input.")
      .def("dense", &Linear::dense, py::call_guard<py::gil_scoped_release>(),
           "The weight [out_features, in_features], factors multiplied out and codes dequantized.")
      .def("__repr__", [](const Linear& self) { return text(self); });

  with_fields(py::class_<Norm>(module, "Norm", "A normalization layer. Read-only."))
      .def("__repr__", [](const Norm& self) {
        return fmt::format("Norm({}{})", parts::word(self.kind),
                           self.weight.defined() ? ", " + shape(self.weight) : "");
      });

  with_fields(py::class_<Rope>(module, "Rope", "Rotary position embedding. Read-only."))
      .def("__repr__", [](const Rope& self) {
        return self.inverse_frequencies.defined() ? fmt::format("Rope({} frequencies, attention_scale={})",
                                                                self.inverse_frequencies.numel(), self.attention_scale)
                                                  : std::string("Rope(none)");
      });

  with_fields(py::class_<CacheQuantization>(module, "CacheQuantization",
                                            "Fake quantization of the key-value cache. Read-only."))
      .def("__repr__",
           [](const CacheQuantization& self) { return fmt::format("CacheQuantization(bits={})", self.bits); });
}

void register_blocks(py::module_& module) {
  with_fields(py::class_<Attention>(module, "Attention", "A block's attention. Read-only."))
      .def("__repr__", [](const Attention& self) {
        return fmt::format("Attention({} heads on {} key-value heads of {})", self.heads, self.kv_heads, self.head_dim);
      });

  with_fields(
      py::class_<Mlp>(module, "Mlp", "down(activation(gate(x)) · up(x)), or down(activation(up(x))). Read-only."))
      .def("__repr__", [](const Mlp& self) {
        return fmt::format("Mlp(up={}, down={}, {})", text(self.up), text(self.down), parts::word(self.activation));
      });

  with_fields(py::class_<Experts>(module, "Experts", "A mixture of MLPs and how it chooses. Read-only."))
      .def("__len__", [](const Experts& self) { return self.mlps.size(); })
      .def("__repr__",
           [](const Experts& self) { return fmt::format("Experts({} of {})", self.top_k, self.mlps.size()); });

  with_fields(py::class_<Block>(module, "Block", "One transformer block. Read-only."))
      .def("__repr__", [](const Block& self) { return text(self); });
}

void register_ends(py::module_& module) {
  with_fields(py::class_<InputPerturbation>(module, "InputPerturbation",
                                            "What happens to the tokens that a model reads. Read-only."))
      .def("__repr__", [](const InputPerturbation& self) {
        return fmt::format("InputPerturbation({}, rate={}, seed={})", parts::word(self.kind), self.rate, self.seed);
      });

  with_fields(py::class_<LogitMap>(module, "LogitMap", "logits ← scale · logits + bias + a·(b·logits). Read-only."))
      .def("__repr__", [](const LogitMap& self) {
        return fmt::format("LogitMap(scale={}, bias={}, rank={})", self.scale, self.bias.defined() ? "given" : "None",
                           self.b.defined() ? self.b.size(0) : 0);
      });

  with_fields(py::class_<Head>(module, "Head", "The output head and the map of its logits. Read-only."))
      .def("__repr__", [](const Head& self) { return fmt::format("Head({})", text(self.linear)); });

  with_fields(py::class_<Decoder>(module, "Decoder", R"(How a token is chosen from the logits. Read-only.

The default draws from the model's own distribution.

Args:
    temperature: Positive; the logits are divided by it. 1 changes nothing.
    do_sample: True: a token is drawn from softmax(logits / temperature). False: the most likely is taken, the lowest of
        equal ones, as transformers' ``generate`` does by default.
)"))
      .def(py::init([](double temperature, bool do_sample) {
             return Decoder{.temperature = temperature, .do_sample = do_sample};
           }),
           py::kw_only(), "temperature"_a = 1.0, "do_sample"_a = true)
      .def("__eq__", [](const Decoder& self, const Decoder& other) { return self == other; })
      .def("__hash__", [](const Decoder& self) { return py::hash(py::make_tuple(self.temperature, self.do_sample)); })
      .def("__repr__", [](const Decoder& self) {
        return fmt::format("Decoder(temperature={}, do_sample={})", self.temperature,
                           self.do_sample ? "True" : "False");
      });

  py::class_<ModelConfig>(module, "ModelConfig", "What a checkpoint's config.json says. Read-only.")
      .def_readonly("family", &ModelConfig::family, "model_type in config.json, one of families().")
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
