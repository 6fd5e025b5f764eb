#include "checkpoint_tensors.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <set>
#include <string_view>
#include <vector>

#include <ATen/ops/equal.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include <hemostat/error.h>

#include "cast.h"
#include "checkpoint_files.h"
#include "config.h"
#include "json.h"
#include "safetensors.h"
#include "stored_form.h"
#include "tensor_slots.h"

namespace hemostat {
namespace {

namespace fs = std::filesystem;
using Tensors = std::map<std::string, at::Tensor>;

[[noreturn]] void fail(const std::string& what) { throw ValueError("hemostat.Model.load: " + what); }

std::string lower(std::string text) {
  std::transform(text.begin(), text.end(), text.begin(), [](unsigned char c) { return std::tolower(c); });
  return text;
}

std::vector<std::string> file_names(const fs::path& directory) {
  std::vector<std::string> names;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(directory, error)) {
    names.push_back(entry.path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

// Weights that other programs wrote: how their files' names begin and end, and what to do. {0}: the directory.
struct OtherForm {
  std::string_view begin, end;
  const char* advice;
};

constexpr const char* kConvert =
    "convert it: python -c \"from transformers import AutoModelForCausalLM as m; "
    "m.from_pretrained('{0}').save_pretrained('{0}-safetensors')\"";

constexpr std::array kOtherForms = {
    OtherForm{"model-", ".safetensors",
              "these are shards, and model.safetensors.index.json says which tensor is where: "
              "it is missing, so fetch it too"},
    OtherForm{"adapter_model", "", "it is an adapter, without the model that it changes"},
    OtherForm{"consolidated", ".safetensors", "it has Mistral's own names: fetch the model's model*.safetensors"},
    OtherForm{"model.", ".safetensors", "rename it to model.safetensors if these are the weights to load"},
    OtherForm{"", ".safetensors", "rename it to model.safetensors if it holds the whole model"},
    OtherForm{"pytorch_model", ".bin", kConvert},
    OtherForm{"consolidated", ".pth",
              "it is Meta's own format, convert it: python -m transformers.models.llama.convert_llama_weights_to_hf"},
    OtherForm{"", ".bin", kConvert},
    OtherForm{"", ".pth", kConvert},
    OtherForm{"", ".pt", kConvert},
    OtherForm{"", ".ckpt", kConvert},
    OtherForm{"", ".h5", "it is TensorFlow's; transformers 4 converts it: from_pretrained('{0}', from_tf=True)"},
    OtherForm{"", ".msgpack", "it is Flax's; transformers 4 converts it: from_pretrained('{0}', from_flax=True)"},
    OtherForm{"", ".gguf", "give the path of that file to load it"},
    OtherForm{"", ".incomplete", "a download did not end: start it again"},
};

Tensors load_shards(const fs::path& directory) {
  const fs::path index_path = directory / kIndex;
  std::map<std::string, std::string> shard_of;
  const nlohmann::json index = parse_object(read_text(index_path), index_path.string());
  try {
    shard_of = index.at("weight_map").get<std::map<std::string, std::string>>();
  } catch (const nlohmann::json::exception&) {
    fail(fmt::format("{} has no valid weight_map", index_path.string()));
  }
  std::set<std::string> shards, missing;
  for (const auto& [name, shard] : shard_of) {
    if (shard.empty() || fs::path(shard).filename() != shard) {
      fail(fmt::format("{} places '{}' in '{}', which is not a file name", index_path.string(), name, shard));
    }
    shards.insert(shard);
    if (!fs::exists(directory / shard)) {
      missing.insert(shard);
    }
  }
  if (!missing.empty()) {
    const auto partial = [&](const std::string& name) { return name.ends_with(".incomplete"); };
    const std::vector<std::string> names = file_names(directory);
    fail(fmt::format("{} names {} shards, of which {} is missing{}; fetch what is missing{}", index_path.string(),
                     shards.size(), *missing.begin(),
                     missing.size() > 1 ? fmt::format(", and {} more are", missing.size() - 1) : "",
                     std::any_of(names.begin(), names.end(), partial) ? " (there are unfinished downloads)" : ""));
  }
  std::map<std::string, Tensors> loaded;
  Tensors tensors;
  for (const auto& [name, shard] : shard_of) {
    if (!loaded.count(shard)) {
      loaded[shard] = safetensors::load((directory / shard).string());
    }
    const auto found = loaded[shard].find(name);
    if (found == loaded[shard].end()) {
      fail(fmt::format("{} places '{}' in {}, which does not hold it", index_path.string(), name, shard));
    }
    tensors.emplace(*found);
  }
  return tensors;
}

// Buffers that older releases stored.
bool changes_nothing(const Family& family, const std::string& name) {
  return std::any_of(family.ignored.begin(), family.ignored.end(),
                     [&](const std::string& end) { return name.ends_with(end); });
}

// --- names ---

// What wraps modules inside a model: torch.compile, FSDP, activation checkpointing, DeepSpeed.
constexpr std::array<std::string_view, 4> kInnerWrappers = {"_orig_mod.", "_fsdp_wrapped_module.",
                                                            "_checkpoint_wrapped_module.", "_forward_module."};

// And around it: DistributedDataParallel, a class of one's own, peft, the text part of a multimodal model.
constexpr std::array<std::string_view, 5> kOuterWrappers = {"module.", "model.", "base_model.", "llm.",
                                                            "language_model."};

std::string without_inner_wrappers(std::string name) {
  for (const std::string_view wrapper : kInnerWrappers) {
    for (size_t at = name.find(wrapper); at != std::string::npos; at = name.find(wrapper, at)) {
      if (at == 0 || name[at - 1] == '.') {
        name.erase(at, wrapper.size());
      } else {
        at += wrapper.size();
      }
    }
  }
  return name;
}

bool is_outer(std::string_view prefix) {
  while (!prefix.empty()) {
    const auto* wrapper = std::find_if(kOuterWrappers.begin(), kOuterWrappers.end(),
                                       [&](std::string_view w) { return prefix.starts_with(w); });
    if (wrapper == kOuterWrappers.end()) {
      return false;
    }
    prefix.remove_prefix(wrapper->size());
  }
  return true;
}

// What every name begins with, where that is wrappers and then `first` of the model's own names; none otherwise.
std::optional<std::string> outer_prefix(const Tensors& tensors, const std::string& first) {
  std::optional<std::string> prefix;
  for (const auto& [name, tensor] : tensors) {
    if (name.ends_with(first) && is_outer(std::string_view(name).substr(0, name.size() - first.size()))) {
      if (prefix) {
        return std::nullopt;  // two models
      }
      prefix = name.substr(0, name.size() - first.size());
    }
  }
  const bool shared = prefix && std::all_of(tensors.begin(), tensors.end(),
                                            [&](const auto& entry) { return entry.first.starts_with(*prefix); });
  return shared ? prefix : std::nullopt;
}

// The tensors under the names that the family's checkpoints give them, where what was added or left out is plain.
Tensors with_own_names(Tensors tensors, const Naming& names, const std::string& where) {
  const std::string embedding = names.embedding + ".weight";  // model.embed_tokens.weight
  const size_t root = embedding.find('.') + 1;                // model.
  Tensors result;
  const auto add = [&](std::string name, const at::Tensor& tensor) {
    if (!result.emplace(name, tensor).second) {
      fail(fmt::format("{}: tensor '{}' is there twice, once within a wrapper", where, name));
    }
  };
  for (const auto& [name, tensor] : tensors) {
    add(without_inner_wrappers(name), tensor);
  }
  if (result.count(embedding)) {
    return result;
  }
  tensors.swap(result);
  result.clear();
  if (const auto prefix = outer_prefix(tensors, embedding)) {
    for (const auto& [name, tensor] : tensors) {
      add(name.substr(prefix->size()), tensor);
    }
    return result;
  }
  if (const auto prefix = outer_prefix(tensors, embedding.substr(root))) {  // LlamaModel.save_pretrained
    for (const auto& [name, tensor] : tensors) {
      const std::string own = name.substr(prefix->size());
      add(own.starts_with(names.head + ".") ? own : embedding.substr(0, root) + own, tensor);
    }
    return result;
  }
  return tensors;
}

// What the names say of tensors that are no such model's: a clause that begins with "; ".
std::string explained(const Tensors& tensors) {
  const auto any = [&](auto... parts) {
    return std::any_of(tensors.begin(), tensors.end(),
                       [&](const auto& entry) { return ((entry.first.find(parts) != std::string::npos) || ...); });
  };
  std::vector<std::string> some;
  for (const auto& [name, tensor] : tensors) {
    some.push_back(fmt::format("'{}'", name));
    if (some.size() == 3) break;
  }
  std::string text = some.empty() ? "; there are no tensors"
                                  : fmt::format("; there are {} tensors: {}{}", tensors.size(), fmt::join(some, ", "),
                                                tensors.size() > some.size() ? ", …" : "");
  if (any("tok_embeddings.weight")) {
    text +=
        " (Meta's own names; convert it: python -m transformers.models.llama.convert_llama_weights_to_hf, or fetch "
        "the checkpoint in Hugging Face's format)";
  } else if (any("lora_A", "lora_B")) {
    text += " (an adapter's; merge it into its model first: peft's merge_and_unload())";
  } else if (any(".qweight", ".qzeros", ".weight_scale", ".absmax", ".weight_packed", ".SCB")) {
    text += " (quantized weights; load the checkpoint in full precision)";
  }
  return text;
}

const char* torch_name(at::ScalarType type) {
  return type == at::kDouble     ? "float64"
         : type == at::kFloat    ? "float32"
         : type == at::kHalf     ? "float16"
         : type == at::kBFloat16 ? "bfloat16"
                                 : c10::toString(type);
}

bool computes(at::ScalarType type) { return type == at::kFloat || type == at::kBFloat16 || type == at::kHalf; }

void check_stored(const std::string& name, const at::Tensor& tensor, const std::string& where) {
  if (!computes(tensor.scalar_type()) && tensor.scalar_type() != at::kDouble) {
    fail(fmt::format(
        "{}: tensor '{}' is stored as {}, as quantized weights are; hemostat quantizes weights itself: load "
        "the checkpoint in full precision, or dequantize this one first",
        where, name, c10::toString(tensor.scalar_type())));
  }
}

}  // namespace

std::string found_instead(const fs::path& directory) {
  const std::vector<std::string> names = file_names(directory);
  for (const char* wanted : {kConfig, kTensors, kIndex}) {
    for (const std::string& name : names) {
      if (name != wanted && lower(name) == wanted) {
        return fmt::format("; it has {}: rename that to {}", name, wanted);
      }
    }
  }
  for (const OtherForm& other : kOtherForms) {
    for (const std::string& name : names) {
      if (name.starts_with(other.begin) && name.ends_with(other.end)) {
        return fmt::format("; it has {}: {}", name, fmt::format(fmt::runtime(other.advice), directory.string()));
      }
    }
  }
  return names.empty() ? "; it is empty" : "";
}

Tensors load_tensors(const fs::path& directory) {
  if (fs::exists(directory / kTensors)) {
    return safetensors::load((directory / kTensors).string());
  }
  if (fs::exists(directory / kIndex)) {
    return load_shards(directory);
  }
  fail(fmt::format("{} has neither {} nor {}{}", directory.string(), kTensors, kIndex, found_instead(directory)));
}

void fill(Model& model, Tensors tensors, const std::string& where, StoredAs form) {
  tensors = with_own_names(std::move(tensors), model.config.names, where);
  if (form == StoredAs::checkpoint) {
    tensors = taken_apart(std::move(tensors), model, where);
  }
  const bool tied = model.tied();
  const std::string head_name = model.config.names.head + ".weight";
  if (tied) {
    model.head.linear.weight = at::Tensor();
  }
  std::set<std::string> used;
  std::vector<std::string> missing;
  for_each_tensor(model, [&](const std::string& name, at::Tensor& slot) {
    const auto found = tensors.find(name);
    if (found == tensors.end()) {
      missing.push_back(name);
      return;
    }
    const at::Tensor& tensor = found->second;
    check_stored(name, tensor, where);
    if (tensor.sizes() != slot.sizes()) {
      fail(fmt::format("{}: tensor '{}' has shape [{}], but the config asks for [{}]", where, name,
                       fmt::join(tensor.sizes(), ", "), fmt::join(slot.sizes(), ", ")));
    }
    used.insert(name);
    slot = tensor;
  });
  if (missing.size() == 1 && missing.front() == head_name) {
    fail(
        fmt::format("{}: tensor '{}' is missing, and tie_word_embeddings is not true: the model was saved without its "
                    "head, as transformers' AutoModel does; save it as AutoModelForCausalLM",
                    where, head_name));
  }
  if (!missing.empty()) {
    fail(fmt::format("{}: tensor '{}' is missing{}{}", where, missing.front(),
                     missing.size() > 1 ? fmt::format(", and {} more", missing.size() - 1) : "",
                     used.empty() ? explained(tensors) : ""));
  }
  if (tied) {
    model.head.linear.weight = model.embedding;
  }
  for (const auto& [name, tensor] : tensors) {
    if (used.count(name) || changes_nothing(family_of(model.config), name)) {
      continue;
    }
    if (tied && name == head_name) {
      if (tensor.sizes() == model.embedding.sizes() && tensor.scalar_type() == model.embedding.scalar_type() &&
          at::equal(tensor, model.embedding)) {
        continue;
      }
      fail(fmt::format("{}: tensor '{}' differs from '{}.weight', but tie_word_embeddings is true", where, name,
                       model.config.names.embedding));
    }
    fail(fmt::format("{}: tensor '{}' has no place in a {} model with this config", where, name, model.config.family));
  }
}

Model with_one_dtype(Model model, std::optional<at::ScalarType> asked, std::optional<at::ScalarType> configured) {
  std::set<at::ScalarType> stored;
  for_each_tensor(model, [&](const std::string&, at::Tensor& tensor) { stored.insert(tensor.scalar_type()); });
  const auto target = asked ? asked : stored.size() == 1 ? std::optional(*stored.begin()) : configured;
  if (target && computes(*target)) {
    return converted(model, *target, std::nullopt, "hemostat.Model.load");
  }
  if (asked) {
    fail(fmt::format("dtype is {}; give float32, bfloat16 or float16", torch_name(*asked)));
  }
  std::vector<const char*> names;
  for (const at::ScalarType type : stored) {
    names.push_back(torch_name(type));
  }
  fail(fmt::format("weights are stored as {}; give dtype float32, bfloat16 or float16", fmt::join(names, " and ")));
}

}  // namespace hemostat
