#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>

#include <ATen/ops/equal.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include <hemostat/error.h>

#include "config.h"
#include "consistency.h"
#include "family_fit.h"
#include "gguf_model.h"
#include "gguf_tokenizer.h"
#include "json.h"
#include "safetensors.h"
#include "skeleton.h"
#include "structure.h"
#include "tensor_slots.h"

namespace hemostat {
namespace {

namespace fs = std::filesystem;
using Tensors = std::map<std::string, at::Tensor>;

constexpr const char* kConfig = "config.json";
constexpr const char* kStructure = "hemostat.json";
constexpr const char* kTensors = "model.safetensors";
constexpr const char* kIndex = "model.safetensors.index.json";

std::string read_text(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  if (!file || !(text << file.rdbuf())) {
    throw ValueError(fmt::format("hemostat.Model.load: cannot read {}", path.string()));
  }
  return text.str();
}

void write_text(const fs::path& path, const std::string& text) {
  std::ofstream file(path, std::ios::binary);
  file << text;
  file.close();
  if (!file) {
    throw ValueError(fmt::format("hemostat.Model.save: cannot write {}", path.string()));
  }
}

// One file, or the shards that an index names.
Tensors load_tensors(const fs::path& directory) {
  if (fs::exists(directory / kTensors)) {
    return safetensors::load((directory / kTensors).string());
  }
  const fs::path index_path = directory / kIndex;
  if (!fs::exists(index_path)) {
    throw ValueError(
        fmt::format("hemostat.Model.load: {} has neither {} nor {}", directory.string(), kTensors, kIndex));
  }
  std::map<std::string, std::string> shard_of;
  const nlohmann::json index = parse_object(read_text(index_path), index_path.string());
  try {
    shard_of = index.at("weight_map").get<std::map<std::string, std::string>>();
  } catch (const nlohmann::json::exception&) {
    throw ValueError(fmt::format("hemostat.Model.load: {} has no valid weight_map", index_path.string()));
  }
  std::map<std::string, Tensors> shards;
  Tensors tensors;
  for (const auto& [name, shard] : shard_of) {
    if (shard.empty() || fs::path(shard).filename() != shard) {
      throw ValueError(fmt::format("hemostat.Model.load: {} places '{}' in '{}', which is not a file name",
                                   index_path.string(), name, shard));
    }
    if (!shards.count(shard)) {
      shards[shard] = safetensors::load((directory / shard).string());
    }
    const auto found = shards[shard].find(name);
    if (found == shards[shard].end()) {
      throw ValueError(fmt::format("hemostat.Model.load: {} places '{}' in {}, which does not hold it",
                                   index_path.string(), name, shard));
    }
    tensors.emplace(*found);
  }
  return tensors;
}

bool changes_nothing(const std::string& name) { return name.ends_with(".rotary_emb.inv_freq"); }

// Puts the tensors into the slots of `model`. Each slot is filled with its shape, and each tensor has a slot.
void fill(Model& model, const Tensors& tensors, const std::string& where) {
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
    if (tensor.sizes() != slot.sizes()) {
      throw ValueError(fmt::format("hemostat.Model.load: {}: tensor '{}' has shape [{}], but the config asks for [{}]",
                                   where, name, fmt::join(tensor.sizes(), ", "), fmt::join(slot.sizes(), ", ")));
    }
    if (!c10::isFloatingType(tensor.scalar_type())) {
      throw ValueError(fmt::format("hemostat.Model.load: {}: tensor '{}' has dtype {}; weights are floating", where,
                                   name, c10::toString(tensor.scalar_type())));
    }
    used.insert(name);
    slot = tensor;
  });
  if (!missing.empty()) {
    throw ValueError(fmt::format("hemostat.Model.load: {}: tensor '{}' is missing{}", where, missing.front(),
                                 missing.size() > 1 ? fmt::format(", and {} more", missing.size() - 1) : ""));
  }
  if (tied) {
    model.head.linear.weight = model.embedding;
  }
  for (const auto& [name, tensor] : tensors) {
    if (used.count(name) || changes_nothing(name)) {
      continue;
    }
    if (tied && name == head_name) {
      if (tensor.sizes() == model.embedding.sizes() && tensor.scalar_type() == model.embedding.scalar_type() &&
          at::equal(tensor, model.embedding)) {
        continue;
      }
      throw ValueError(
          fmt::format("hemostat.Model.load: {}: tensor '{}' differs from '{}.weight', but tie_word_embeddings "
                      "is true",
                      where, name, model.config.names.embedding));
    }
    throw ValueError(fmt::format("hemostat.Model.load: {}: tensor '{}' has no place in a {} model with this config",
                                 where, name, model.config.family));
  }
}

// One dtype throughout, as forward() takes: the asked one, else the stored one, else (where several are) the config's.
Model with_one_dtype(Model model, std::optional<at::ScalarType> asked, at::ScalarType configured) {
  std::set<at::ScalarType> stored;
  for_each_tensor(model, [&](const std::string&, at::Tensor& tensor) { stored.insert(tensor.scalar_type()); });
  const auto supported = [](at::ScalarType type) {
    return type == at::kFloat || type == at::kBFloat16 || type == at::kHalf;
  };
  const at::ScalarType target = asked ? *asked : stored.size() == 1 ? *stored.begin() : configured;
  if (!supported(target)) {
    throw ValueError(fmt::format("hemostat.Model.load: weights are {}; give dtype float32, bfloat16 or float16",
                                 c10::toString(target)));
  }
  return model.to(target);
}

// Packed weights dequantized, as a checkpoint holds them.
Model unpacked(Model model) {
  for (Block& block : model.blocks) {
    for_each_linear(block, model.config.names, "", [](const std::string&, Linear& linear, bool) {
      if (linear.packed) {
        linear = linear.with_weight(linear.dense());
      }
    });
  }
  return model;
}

// Files that a tokenizer or a generator reads, copied from where the model came from.
constexpr const char* kCompanions[] = {
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "tokenizer.model",     "vocab.json",
    "merges.txt",     "added_tokens.json",     "generation_config.json",  "chat_template.jinja",
};

void copy_companions(const fs::path& source, const fs::path& target) {
  std::error_code error;
  if (gguf::is_path(source.string()) && fs::is_regular_file(source, error)) {
    const gguf::File file(source.string());
    if (const std::optional<std::string> tokenizer = gguf::tokenizer_json(file)) {
      write_text(target / "tokenizer.json", *tokenizer);
      write_text(target / "tokenizer_config.json", gguf::tokenizer_config_json(file));
    }
    return;
  }
  for (const char* name : kCompanions) {
    if (!source.empty() && fs::exists(source / name, error)) {
      fs::copy_file(source / name, target / name, error);
    }
  }
}

// Holds a checkpoint's files until finish() gives them their directory's name; else removes them.
class PartialDirectory {
 public:
  explicit PartialDirectory(const fs::path& target) : target_(target) {
    if (fs::exists(target) && !fs::is_directory(target)) {
      throw ValueError(fmt::format("hemostat.Model.save: {} exists and is not a directory", target.string()));
    }
    if (fs::exists(target) && !fs::is_empty(target) && !fs::exists(target / kConfig)) {
      throw ValueError(fmt::format("hemostat.Model.save: {} holds files that are not a checkpoint", target.string()));
    }
    std::error_code error;
    const fs::path parent = target.has_parent_path() ? target.parent_path() : fs::path(".");
    fs::create_directories(parent, error);
    path_ = target.string() + ".part-" + std::to_string(::getpid());
    fs::remove_all(path_, error);
    if (!fs::create_directory(path_, error)) {
      throw ValueError(fmt::format("hemostat.Model.save: cannot create {}: {}", path_.string(), error.message()));
    }
  }
  PartialDirectory(const PartialDirectory&) = delete;
  PartialDirectory& operator=(const PartialDirectory&) = delete;
  ~PartialDirectory() {
    std::error_code error;
    if (!path_.empty()) {
      fs::remove_all(path_, error);
    }
  }

  const fs::path& path() const { return path_; }

  void finish() {
    const fs::path replaced = path_.string() + "-replaced";
    std::error_code error;
    const bool existed = fs::exists(target_);
    if (existed) {
      fs::rename(target_, replaced, error);
    }
    if (!error) {
      fs::rename(path_, target_, error);
    }
    if (error) {
      if (existed && !fs::exists(target_)) {
        std::error_code ignored;
        fs::rename(replaced, target_, ignored);
      }
      throw ValueError(fmt::format("hemostat.Model.save: cannot write {}: {}", target_.string(), error.message()));
    }
    path_.clear();
    fs::remove_all(replaced, error);
  }

 private:
  fs::path target_, path_;
};

}  // namespace

Model Model::load(const std::string& checkpoint, const LoadOptions& options) {
  const fs::path directory(checkpoint);
  if (gguf::is_path(checkpoint) && !fs::is_directory(directory)) {
    return gguf::load_model(checkpoint, options);
  }
  if (!fs::is_directory(directory)) {
    throw ValueError(fmt::format("hemostat.Model.load: {} is neither a directory nor a .gguf file", checkpoint));
  }
  const fs::path config_path = directory / kConfig;
  if (!fs::is_regular_file(config_path)) {
    throw ValueError(fmt::format("hemostat.Model.load: {} has no {}", checkpoint, kConfig));
  }
  const fs::path structure_path = directory / kStructure;
  const bool structured = fs::exists(structure_path);
  const std::string config_text = read_text(config_path);
  const CheckpointConfig config = parse_config(
      structured ? without_structure_mark(config_text, config_path.string()) : config_text, config_path.string());
  Model model =
      structured ? from_structure(read_text(structure_path), config.model, structure_path.string()) : skeleton(config);
  if (structured) {
    check_consistency(model, structure_path.string());
  }
  fill(model, load_tensors(directory), checkpoint);
  model = with_one_dtype(std::move(model), options.dtype, config.dtype);
  model.source = fs::absolute(directory).lexically_normal().string();
  return options.device == model.device() ? model : model.to(std::nullopt, options.device);
}

Model Model::from_tensors(const std::string& config_json, const std::map<std::string, at::Tensor>& tensors) {
  const CheckpointConfig config = parse_config(config_json, kConfig);
  Model model = skeleton(config);
  fill(model, tensors, "from_tensors");
  for (Block& block : model.blocks) {
    block.attention.rope.inverse_frequencies = block.attention.rope.inverse_frequencies.to(model.device());
  }
  return model;
}

std::map<std::string, at::Tensor> Model::tensors() const {
  Tensors result;
  Model dense = unpacked(*this);
  if (dense.tied()) {
    dense.head.linear.weight = at::Tensor();
  }
  for_each_tensor(dense, [&](const std::string& name, at::Tensor& tensor) { result.emplace(name, tensor); });
  return result;
}

std::string family_config(const Model& model) {
  const FittedConfig saved = fitted_config(model);
  if (!saved.expressible) {
    throw ValueError(fmt::format("hemostat.Model: a {} config cannot express the model", model.config.family));
  }
  return saved.config;
}

std::string Model::save(const std::string& directory) const {
  if (gguf::is_path(directory)) {
    return gguf::save_model(*this, directory);
  }
  const fs::path target = fs::path(directory).lexically_normal();
  const FittedConfig saved = fitted_config(*this);

  PartialDirectory partial(target.has_filename() ? target : target.parent_path());
  write_text(partial.path() / kConfig, saved.expressible ? saved.config : with_structure_mark(saved.config));
  if (!saved.expressible) {
    write_text(partial.path() / kStructure, saved.structure);
  }
  safetensors::save((partial.path() / kTensors).string(), tensors());
  copy_companions(source, partial.path());
  partial.finish();
  return saved.expressible ? ""
                           : fmt::format(
                                 "{} holds a model that a {} config cannot express; hemostat loads it by its {}, "
                                 "transformers does not",
                                 directory, config.family, kStructure);
}

}  // namespace hemostat
