// Room `model`: Model, its linears and its cache.
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
#include "model_arguments.h"
#include "model_fields.h"
#include "module.h"

namespace py = pybind11;

namespace hemostat::bindings {
namespace {

using py::literals::operator""_a;

std::string dtype_name(at::ScalarType dtype) { return py::str(py::cast(dtype)); }

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

std::string text(const Model& model) {
  const std::string parts =
      model.foreign ? fmt::format("{} linears of {}", model.foreign.linears.size(), model.foreign.module->name())
                    : fmt::format("{} blocks", model.blocks.size());
  return fmt::format("Model({}, {}, {} parameters, {} on {}{})", model.config.family, parts,
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

  template <typename Function>
  auto each(const Function& function) const {
    std::vector<std::decay_t<decltype(function(entries.front()))>> result;
    for (const NamedLinear& entry : entries) {
      result.push_back(function(entry));
    }
    return result;
  }

  std::vector<std::string> names() const {
    return each([](const NamedLinear& linear) { return linear.name; });
  }

  Model model;  // the entries point into it
  std::vector<NamedLinear> entries;
};

void register_cache(py::module_& module) {
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
}

void register_linears(py::module_& module) {
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
      .def_property_readonly(
          "roles", [](const Linears& self) { return self.each([](const NamedLinear& l) { return name(l.role); }); },
          "What each is: 'q', 'k', 'v', 'o', 'gate', 'up', 'down', 'router' or 'head'.")
      .def_property_readonly(
          "input_ids", [](const Linears& self) { return self.each([](const NamedLinear& l) { return l.input_id; }); },
          "Of each the input that it reads: those with one number share it, as q, k and v of a block do.")
      .def("__repr__", [](const Linears& self) { return fmt::format("Linears({})", self.entries.size()); });
}

PyObject* checkpoint_directory = nullptr;  // what the package gave for it; outlives the interpreter
PyObject* foreign_checkpoint = nullptr;    // and for the model of a directory by its own code

Model load(const CheckpointArgument& checkpoint, std::optional<at::ScalarType> dtype, const DeviceArgument& device,
           bool foreign) {
  if (foreign) {
    const py::object directory = py::handle(checkpoint_directory)(checkpoint);
    return py::handle(foreign_checkpoint)(directory, dtype, device_from(device)).cast<Model>();
  }
  const std::string directory = file_name_from(py::handle(checkpoint_directory)(checkpoint));
  const LoadOptions options{.dtype = dtype, .device = device_from(device)};
  Model model;
  {
    const py::gil_scoped_release release;
    model = Model::load(directory, options);
  }
  if (!model.config.left_out.empty()) {
    const std::string text =
        fmt::format("hemostat.Model.load: {} is multimodal, and only its language model is loaded: {} are left out",
                    directory, model.config.left_out);
    if (PyErr_WarnEx(PyExc_UserWarning, text.c_str(), 1) != 0) {
      throw py::error_already_set();
    }
  }
  return model;
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

void save(const Model& self, const std::filesystem::path& path) {
  std::string sentence;
  {
    py::gil_scoped_release release;
    sentence = self.save(path.string());
  }
  if (!sentence.empty()) {
    const auto text = py::reinterpret_steal<py::str>(PyUnicode_DecodeFSDefault(sentence.c_str()));  // it names files
    if (!text || PyErr_WarnFormat(PyExc_UserWarning, 1, "%U", text.ptr()) != 0) {
      throw py::error_already_set();
    }
  }
}

at::Tensor forward(const Model& self, const TokensArgument& given, std::optional<KvCache*> cache,
                   std::optional<Observer*> observer) {
  const at::Tensor tokens = tokens_from(given, self.device(), "hemostat.Model.forward");
  py::gil_scoped_release release;
  return self.forward(tokens, {.cache = cache.value_or(nullptr), .observer = observer.value_or(nullptr)});
}

constexpr const char* kForwardDoc = R"(The logits of each token's successor.

Autograd works through it. Logits are raw: what decoding does to them is in :attr:`decoder`.

Args:
    tokens: Integers [B, T] (or [T], which is one sequence), ids in 0 … vocab_size − 1: a tensor on the model's device,
        an array, or a list.
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
                  "device"_a = "cpu", "foreign"_a = false, R"(Loads a checkpoint.

Args:
    checkpoint: A Hugging Face directory (config.json and one or many \*.safetensors) of one of families(), or of a
        multimodal model around one, whose language model alone is loaded with a warning; a GGUF file (a path that ends in
        .gguf, of an architecture that docs/checkpoints.md lists), or a model's id on the Hub, which is looked for in the
        local cache first and downloaded if it is not there.
    dtype: None keeps the stored one. Of a GGUF file None keeps block formats packed in the linear layers, which
        dequantize them on use (an embedding or a head in one is dense), and the model has bfloat16 or float16 where the
        file has a matrix of it, else float32; with a dtype every weight is dense.
    device: Where the tensors go. On the CPU in the stored dtype they are views on the mapped files.
    foreign: True: a directory of any architecture that transformers has, which then computes it, as
        :meth:`from_module` says. Code in the checkpoint is never run.

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
      .def("save", save, "path"_a, R"(Writes what :meth:`load` and transformers read, whole or not at all.

A directory gets config.json, model.safetensors, and what lies beside the weights in :attr:`source`: tokenizer, chat
templates, generation config, licence, model card, custom code (not hidden files, folders and what holds other tensors).
What transformers cannot express goes to hemostat.json, and a warning says so, as of what was left behind.

In a directory that holds a checkpoint already, only files that are written are replaced (a link by a file), and weights,
indexes and hemostat.json that the new model contradicts are removed; everything else stays. A process that is killed
leaves the old model or the new one; where it was killed between the renames at the end, the next load or save does
those that are left.

A GGUF file holds all in one, the tokenizer included. Weights that are packed in one of its block formats keep their
bytes; the others have the model's dtype, norms and biases float32. A warning says what transformers would overlook in
it, and what llama.cpp would compute otherwise.

Args:
    path: Where to: a directory, or a GGUF file where it ends in .gguf. Links are followed, missing parents made. It may
        be where the model came from.

Raises:
    ValueError: Where it cannot be written, what is there is no checkpoint of a model that hemostat reads (or no GGUF
        file), or has an adapter_config.json; where a file beside the weights cannot be copied; or a GGUF file would be
        read as another model (per-layer sizes, factors, treatments, and fields that its architecture has no metadata
        for). The message names the file or the field, and nothing is changed.
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
           "observer"_a = std::optional<Observer*>(), kForwardDoc)
      .def("__call__", forward, "tokens"_a, py::kw_only(), "cache"_a = std::optional<KvCache*>(),
           "observer"_a = std::optional<Observer*>(), kForwardDoc)
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
      .def_property_readonly(
          "source", [](const Model& self) { return file_name_to(self.source); },
          "The directory or GGUF file it was loaded from; empty: none.")
      .def_property_readonly(
          "foreign", [](const Model& self) { return static_cast<bool>(self.foreign); },
          "Whether it is a module's own forward that computes; see :meth:`from_module`. It then has no blocks.")
      .def_property_readonly("dtype", &Model::dtype, "dtype of the weights.")
      .def_property_readonly("device", &Model::device, "Device of the weights.")
      .def_property_readonly("tied", &Model::tied, "Whether the head's weight is the embedding.")
      .def_property_readonly("parameters", &Model::parameters,
                             "Entries of all distinct weights; packed and factored ones as stored.")
      .def_property_readonly(
          "bytes", &Model::bytes,
          "Bytes of those, as stored: weights that a method rounded to a format as that format stores "
          "them, others in their dtype.")
      .def("__repr__", [](const Model& self) {
        const std::string shown = text(self);  // which may hold a file name of any bytes
        return py::reinterpret_steal<py::str>(
            PyUnicode_DecodeUTF8(shown.data(), static_cast<Py_ssize_t>(shown.size()), "replace"));
      });
}

}  // namespace

void register_model(py::module_& module) {
  register_model_parts(module);
  // Model, the cache and the observer name each other in their signatures, so the class comes before the functions.
  py::class_<Model> model(module, "Model", R"(A language model as data.

From Python a model is immutable: methods that change something return another model, which shares every tensor that
stayed as it was. Load one with :meth:`load`, or share a transformers module's with :meth:`from_transformers`.
)");
  module.def(
      "_find_checkpoints",
      [](py::function directory, py::function foreign) {
        checkpoint_directory = directory.release().ptr();
        foreign_checkpoint = foreign.release().ptr();
      },
      "directory"_a, "foreign"_a,
      "Takes the functions that say where a checkpoint lies, which may have to fetch it, and that load one through "
      "transformers.");
  register_cache(module);
  register_observer(module);
  register_linears(module);
  register_model_class(model);
  register_foreign(module);
  with_fields(model);
  module.def("structure", &structure, "model"_a, R"(Everything of a model but its tensors' data and its source, as JSON.

Models of equal structure and equal tensors compute the same.
)");
  module.def(
      "gguf_tokenizer",
      [](const std::filesystem::path& path) {
        py::gil_scoped_release release;
        return gguf_tokenizer(path.string());
      },
      "path"_a, R"(tokenizer.json of the tokenizer in a GGUF file.

Args:
    path: The file.

Returns:
    str | None: JSON; None where the file has no tokenizer.

Raises:
    ValueError: Where the file is malformed, or its tokenizer is of another kind than gpt2 and llama.
)");
  module.def(
      "first_nonfinite",
      [](const Model& self, const std::optional<at::Tensor>& tokens) -> std::optional<std::string> {
        py::gil_scoped_release release;
        const std::optional<NonFinite> found = tokens ? first_nonfinite(self, *tokens) : first_nonfinite(self);
        return found ? std::optional(found->text()) : std::nullopt;
      },
      "model"_a, "tokens"_a = std::optional<at::Tensor>(), R"(Where a model's numbers stop being finite.

Args:
    model: The model.
    tokens: int64 [windows, length], whose forward pass is followed. None: only the stored tensors are looked at.

Returns:
    str | None: The first tensor that has NaN or infinite entries, or the first layer that gives some, and the dtype's
    part in it. None: all is finite.
)");
  module.def(
      "families",
      [] {
        py::dict result;
        for (const FamilyName& name : families()) {
          result[py::str(name.model_type)] = name.architecture;
        }
        return result;
      },
      R"(The families of models that load.

Returns:
    dict[str, str]: By the ``model_type`` of their config.json, the class of transformers that computes the same.

Example:
    >>> hemostat.families()["qwen3"]
    'Qwen3ForCausalLM'
)");
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
