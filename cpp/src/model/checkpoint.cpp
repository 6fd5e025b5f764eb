#include <algorithm>
#include <filesystem>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <system_error>
#include <vector>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include <hemostat/error.h>

#include "checkpoint_files.h"
#include "checkpoint_tensors.h"
#include "config.h"
#include "consistency.h"
#include "family_fit.h"
#include "foreign.h"
#include "gguf/model.h"
#include "json.h"
#include "mxfp4_experts.h"
#include "partial_checkpoint.h"
#include "skeleton.h"
#include "structure.h"
#include "tensor_slots.h"

namespace hemostat {
namespace {

namespace fs = std::filesystem;

// transformers would load the base model and the adapter on it; we load the weights that are there, or none.
void refuse_adapter(const fs::path& directory) {
  const fs::path path = directory / kAdapter;
  if (!fs::exists(path)) {
    return;
  }
  const nlohmann::json adapter = parse_object(read_text(path), path.string());
  const auto base = adapter.find("base_model_name_or_path");
  const std::string name = base != adapter.end() && base->is_string() ? base->get<std::string>() : "";
  const std::string of = name.empty() ? "" : fmt::format(" of '{}'", name);
  const std::string merge = fmt::format(
      "merge it first: python -c \"from peft import AutoPeftModelForCausalLM as m; "
      "m.from_pretrained('{0}').merge_and_unload().save_pretrained('{0}-merged')\"",
      directory.string());
  if (fs::exists(directory / kTensors) || fs::exists(directory / kIndex)) {
    throw ValueError(
        fmt::format("hemostat.Model.load: {} holds an adapter{} ({}) beside a model, and transformers would apply it; "
                    "{}, or move {} away to load the model without it",
                    directory.string(), of, kAdapter, merge, kAdapter));
  }
  throw ValueError(fmt::format("hemostat.Model.load: {} holds an adapter{} ({}) and no model; {}", directory.string(),
                               of, kAdapter, merge));
}

// The tensors of a multimodal checkpoint's language model, as it alone would have them; `left_out` says what else there
// is.
std::map<std::string, at::Tensor> of_language_model(const std::map<std::string, at::Tensor>& tensors,
                                                    std::string& left_out) {
  const std::pair<std::string, std::string> kPrefixes[] = {
      {"language_model.", ""}, {"model.language_model.", "model."}, {"lm_head.", "lm_head."}};
  std::map<std::string, at::Tensor> result;
  std::set<std::string> others;
  size_t count = 0;
  for (const auto& [name, tensor] : tensors) {
    const auto prefix = std::find_if(std::begin(kPrefixes), std::end(kPrefixes),
                                     [&name = name](const auto& p) { return name.starts_with(p.first); });
    if (prefix != std::end(kPrefixes)) {
      result.emplace(prefix->second + name.substr(prefix->first.size()), tensor);
    } else {
      const std::string inner = name.starts_with("model.") ? name.substr(6) : name;
      others.insert(inner.substr(0, inner.find('.')));
      ++count;
    }
  }
  if (count > 0) {
    left_out = fmt::format("{} tensors of {}", count, fmt::join(others, " and "));
  }
  return result;
}

// --- state ---

// Beside hemostat.json's own fields: Linear::stored_bits of every linear, in order.
constexpr const char* kStoredBits = "stored_bits";

const LinearFilter kEveryLinear{.include = {"*"}, .exclude = {}};

// To where the model's tensors are.
void move_constants(Model& model) {
  for_each_constant(model, [&](const std::string&, at::Tensor& tensor) { tensor = tensor.to(model.device()); });
}

}  // namespace

Model Model::load(const std::string& checkpoint, const LoadOptions& options) {
  const fs::path directory(checkpoint);
  if (gguf::is_path(checkpoint) && !fs::is_directory(directory)) {
    return gguf::load_model(checkpoint, options);
  }
  if (!fs::is_directory(directory)) {
    throw ValueError(fmt::format("hemostat.Model.load: {} is neither a directory nor a .gguf file", checkpoint));
  }
  complete_interrupted_save(directory);
  refuse_adapter(directory);
  const fs::path config_path = directory / kConfig;
  if (!fs::is_regular_file(config_path)) {
    throw ValueError(fmt::format("hemostat.Model.load: {} has no {}{}", checkpoint, kConfig, found_instead(directory)));
  }
  const fs::path structure_path = directory / kStructure;
  const bool structured = fs::exists(structure_path);
  const std::string config_text = read_text(config_path);
  const std::optional<std::string> language_model = language_model_config(config_text, config_path.string());
  CheckpointConfig config = parse_config(language_model ? *language_model
                                         : structured   ? without_structure_mark(config_text, config_path.string())
                                                        : config_text,
                                         config_path.string());
  const fs::path generation_path = directory / kGeneration;
  if (std::error_code error; fs::is_regular_file(generation_path, error)) {
    if (auto eos = generation_eos(read_text(generation_path), generation_path.string())) {
      config.model.eos_token_ids = std::move(*eos);
    }
  }
  Model model =
      structured ? from_structure(read_text(structure_path), config.model, structure_path.string()) : skeleton(config);
  if (structured) {
    check_consistency(model, structure_path.string());
  }
  std::map<std::string, at::Tensor> tensors = with_mxfp4_dequantized(load_tensors(directory));
  if (language_model) {
    tensors = of_language_model(tensors, model.config.left_out);
  }
  fill(model, std::move(tensors), checkpoint, structured ? StoredAs::model : StoredAs::checkpoint);
  model = with_one_dtype(std::move(model), options.dtype, config.dtype);
  model.source = settled(directory).string();
  return options.device == model.device() ? model : model.to(std::nullopt, options.device);
}

ModelState Model::state() const {
  check_has_blocks(*this, "hemostat.Model: it cannot be pickled");
  ModelState state{.config = config, .structure = {}, .tensors = {}, .packed = {}, .origins = {}, .source = source};
  nlohmann::json structure = nlohmann::json::parse(hemostat::structure(shapes_only(*this)));
  for (const NamedLinear& named : linears(*this, kEveryLinear)) {
    structure[kStoredBits].push_back(named.linear->stored_bits);
  }
  state.structure = structure.dump();
  Model copy = *this;
  for_each_linear(copy, [&](const LinearPlace& place, Linear& linear) {
    if (linear.packed) {
      state.packed[place.name] = linear.packed;
    }
  });
  for_each_stored(*this,
                  [&](const std::string& name, const at::Tensor& tensor) { state.tensors.emplace(name, tensor); });
  for (const Block& block : blocks) {
    state.origins.push_back(block.origin);
  }
  return state;
}

Model Model::from_state(const ModelState& state) {
  ModelConfig config = parse_config(state.config.json, kConfig).model;
  config.context = state.config.context;
  config.bos_token_id = state.config.bos_token_id;
  config.eos_token_ids = state.config.eos_token_ids;
  nlohmann::json structure = parse_object(state.structure, kStructure);
  const auto stored_bits = structure.value(kStoredBits, std::vector<double>());
  structure.erase(kStoredBits);
  Model model = from_structure(structure.dump(), config, kStructure);
  check_consistency(model, kStructure);
  for_each_linear(model, [&](const LinearPlace& place, Linear& linear) {
    if (const auto found = state.packed.find(place.name); found != state.packed.end()) {
      linear = linear.with_packed(found->second);
    }
  });
  fill(model, state.tensors, "a pickled model", StoredAs::model);
  size_t index = 0;
  if (stored_bits.size() != linears(model, kEveryLinear).size()) {
    throw ValueError(fmt::format("hemostat.Model.load: {} has {} sizes of {} linears", kStructure, stored_bits.size(),
                                 linears(model, kEveryLinear).size()));
  }
  model = map_linears(model, kEveryLinear, [&](const std::string&, Linear linear) {
    linear.stored_bits = stored_bits.at(index++);
    return linear;
  });
  for (size_t i = 0; i < model.blocks.size(); ++i) {
    model.blocks[i].origin = state.origins.at(i);
  }
  move_constants(model);
  model.source = state.source;
  return model;
}

Model Model::from_tensors(const std::string& config_json, const std::map<std::string, at::Tensor>& tensors) {
  const CheckpointConfig config = parse_config(config_json, kConfig);
  Model model = skeleton(config);
  fill(model, tensors, "from_tensors");
  move_constants(model);
  return model;
}

}  // namespace hemostat
