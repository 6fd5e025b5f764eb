#include "config.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <optional>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include <hemostat/error.h>

#include "config_fields.h"
#include "json.h"
#include "rope_config.h"

namespace hemostat {
namespace {

using nlohmann::json;

const std::string kStructureMark = "hemostat-";

// Beyond any model, so that a config that lies neither fills the memory nor takes for ever.
constexpr int64_t kMostLayers = 10'000, kLargestHead = 65'536;

void parse_activation(ConfigFields& fields, const std::string& key, const std::string& missing, Mlp& mlp) {
  const std::string name = fields.text(key, missing);
  if (name == "silu" || name == "swish") {
    mlp.activation = Activation::silu;
  } else if (name == "quick_gelu") {
    mlp.activation = Activation::silu;
    mlp.slope = 1.702;
  } else if (name == "gelu") {
    mlp.activation = Activation::gelu;
  } else if (name == "gelu_new" || name == "gelu_pytorch_tanh" || name == "gelu_fast") {
    mlp.activation = Activation::gelu_tanh;
  } else if (name == "relu") {
    mlp.activation = Activation::relu;
  } else {
    fields.fail(fmt::format(
        "field '{}' is '{}'; silu, gelu, gelu_new, gelu_pytorch_tanh, quick_gelu and relu are supported", key, name));
  }
}

// The dtype that weights stored in several are given. Any other says nothing: what is stored decides.
std::optional<at::ScalarType> parse_dtype(ConfigFields& fields) {
  const json older = fields.take("torch_dtype");
  const json& newer = fields.take("dtype");
  const json& value = newer.is_null() ? older : newer;
  std::string name = value.is_string() ? value.get<std::string>() : "";
  if (name.starts_with("torch.")) name.erase(0, 6);
  if (name == "float32" || name == "float") return at::kFloat;
  if (name == "bfloat16") return at::kBFloat16;
  if (name == "float16" || name == "half") return at::kHalf;
  return std::nullopt;
}

// Whether each layer has a window, by layer_types; none where the field is missing.
std::optional<std::vector<bool>> parse_layer_types(ConfigFields& fields, int64_t layers) {
  const json& types = fields.take("layer_types");
  if (types.is_null()) {
    return std::nullopt;
  }
  if (!types.is_array() || static_cast<int64_t>(types.size()) != layers) {
    fields.fail(fmt::format("field 'layer_types' is not a list of {} entries", layers));
  }
  std::vector<bool> sliding;
  for (const json& type : types) {
    sliding.push_back(type == "sliding_attention");
    if (!sliding.back() && type != "full_attention" && type != "attention") {
      fields.fail(fmt::format("field 'layer_types' names {}; full_attention and sliding_attention are supported",
                              ConfigFields::abbreviated(type)));
    }
  }
  return sliding;
}

std::vector<int64_t> parse_windows(ConfigFields& fields, const Family& family, int64_t layers, int64_t context) {
  const WindowRule rule = family.windows;
  std::vector<int64_t> windows(layers, 0);
  const std::optional<std::vector<bool>> types = parse_layer_types(fields, layers);
  const json& width = fields.take("sliding_window");
  const bool switched_off = fields.take("use_sliding_window") == false;
  const bool used = fields.boolean("use_sliding_window", rule != WindowRule::past_layer);
  int64_t window = 0, first = 0;
  if (rule == WindowRule::none) {
    const bool matters = used && !width.is_null() && !(width.is_number() && width.get<double>() <= 0) &&
                         !(width.is_number() && width.get<double>() >= static_cast<double>(context));
    if (matters) {
      fields.fail(fmt::format("field 'sliding_window' is {}, but models of this family have none; remove the field",
                              ConfigFields::abbreviated(width)));
    }
  } else if (rule != WindowRule::past_layer || used) {
    const bool none = fields.contains("sliding_window") ? width.is_null() : family.default_window == 0;
    window = none ? 0 : fields.integer("sliding_window", family.default_window);
    if (rule == WindowRule::past_layer && !family.windows_everywhere) {
      first = fields.integer("max_window_layers", 28, 0);
    } else if (rule == WindowRule::every_layer && switched_off && window > 0 && window < context) {
      fields.fail(
          fmt::format("field 'use_sliding_window' is false, but this family has its window of {} whatever it "
                      "says; remove one of the two",
                      window));
    }
  }
  const int64_t period = family.window_period;
  if (rule == WindowRule::by_type && period > 0) {
    // The older spelling of a period, beside which newer files have the types.
    const int64_t older = fields.integer("_sliding_window_pattern", period);
    const int64_t given = fields.integer("sliding_window_pattern", older);
    for (int64_t layer = 0; layer < layers; ++layer) {
      windows[layer] = (layer + 1) % given != 0 ? window : 0;
    }
  } else {
    std::fill(windows.begin() + std::min(first, layers), windows.end(), window);
  }
  for (int64_t layer = 0; types && layer < layers; ++layer) {
    const bool sliding = (*types)[layer];
    if (rule == WindowRule::by_type || (rule == WindowRule::past_layer && !family.windows_everywhere)) {
      windows[layer] = sliding ? window : 0;
    } else if (sliding != (windows[layer] > 0)) {
      fields.fail(fmt::format("field 'layer_types' gives layer {} {}, which this family ignores; remove the field",
                              layer, sliding ? "\"sliding_attention\"" : "\"full_attention\""));
    }
  }
  return windows;
}

// Whether a class is a causal language model of the family, or one that was saved without its head.
bool is_language_model(const std::string& architecture, const std::string& family) {
  const auto bare = [](std::string name) {
    std::erase(name, '_');
    std::transform(name.begin(), name.end(), name.begin(), [](unsigned char c) { return std::tolower(c); });
    return name;
  };
  return architecture.ends_with("ForCausalLM") || architecture.ends_with("LMHeadModel") ||
         bare(architecture) == bare(family) + "model";  // LlamaModel, GPTNeoXModel
}

// What other families compute as this one does at these values.
std::vector<NeutralField> computed_neutrals(const CheckpointConfig& config, const Family& family,
                                            const json& activation) {
  const auto head_dim = static_cast<double>(config.head_dim);
  std::vector<NeutralField> neutral = family.neutral;
  const std::vector<NeutralField> computed = {
      {"attention_bias", {config.shape.qkv_bias, false}},
      {"attention_multiplier", {1 / std::sqrt(head_dim), std::pow(head_dim, -0.5)}},
      {"dim_model_base", {config.model.hidden_size}},
      {"hidden_activation", {activation}},
      {"kv_channels", {config.head_dim}},
      {"layer_norm_epsilon", {config.norm_epsilon}},
      {"layer_norm_eps", {config.norm_epsilon}},
      {"norm_eps", {config.norm_epsilon}},
      {"qk_head_dim", {config.head_dim}},
      {"qkv_bias", {config.shape.qkv_bias}},
      {"query_pre_attn_scalar", {config.head_dim}},
      {"rotary_dim", {config.head_dim}},
      {"use_qkv_bias", {config.shape.qkv_bias}},
      {"v_head_dim", {config.head_dim}},
  };
  neutral.insert(neutral.end(), computed.begin(), computed.end());
  return neutral;
}

}  // namespace

bool is_model_type(const std::string& type) {
  const bool marked = type.starts_with(kStructureMark);
  return family_tables::find(marked ? type.substr(kStructureMark.size()) : type) != nullptr;
}

const Family& family_of(const ModelConfig& config) {
  const Family* family = family_tables::find(config.family);
  if (family == nullptr) {
    throw ValueError(fmt::format("hemostat.Model: '{}' is no family of models that hemostat knows", config.family));
  }
  return *family;
}

std::optional<std::string> language_model_config(const std::string& text, const std::string& file) {
  const json object = parse_object(text, file);
  const json type = object.value("model_type", json());
  const auto family = std::find_if(family_tables::all().begin(), family_tables::all().end(),
                                   [&](const Family& f) { return !f.multimodal.empty() && type == f.multimodal; });
  if (family == family_tables::all().end()) {
    return std::nullopt;
  }
  json own = object.value("text_config", json());
  if (!own.is_object()) {
    throw ValueError(fmt::format("hemostat.Model.load: {}: field 'text_config' is missing, or no object", file));
  }
  own["model_type"] = family->model_type;
  own["architectures"] = {family->architecture};
  for (const char* of_both :
       {"dtype", "torch_dtype", "bos_token_id", "eos_token_id", "pad_token_id", "tie_word_embeddings"}) {
    if (!own.contains(of_both) && object.contains(of_both)) {
      own[of_both] = object[of_both];
    }
  }
  return own.dump(2) + "\n";
}

CheckpointConfig parse_config(const std::string& text, const std::string& file) {
  const json object = parse_object(text, file);
  ConfigFields fields(object, file);
  const std::string type = fields.text("model_type", "");
  const Family* found = family_tables::find(type);
  if (found == nullptr) {
    std::vector<std::string> known;
    for (const Family& family : family_tables::all()) {
      known.push_back(family.model_type);
    }
    throw UnknownFamily(
        fmt::format("hemostat.Model.load: {}: field 'model_type' is '{}'; supported are {}; a model of another "
                    "architecture runs by its own code, through transformers, where it is loaded with foreign=True",
                    file, type, fmt::join(known, ", ")));
  }
  const Family& family = *found;
  const ConfigKeys& keys = family.keys;
  const ConfigDefaults& defaults = family.defaults;
  const json& architectures = fields.take("architectures");
  if (architectures.is_array() && !architectures.empty() && architectures[0].is_string() &&
      !is_language_model(architectures[0], type)) {
    fields.fail(fmt::format("field 'architectures' is {}; only causal language models are supported",
                            ConfigFields::abbreviated(architectures)));
  }

  CheckpointConfig config;
  config.shape = family.shape;
  config.block = family.block;
  config.model.family = type;
  config.model.names = family.names;
  config.model.json = text;
  const auto positive = [](int64_t value) { return value > 0 ? std::optional(value) : std::nullopt; };
  config.model.vocab_size = fields.integer("vocab_size", positive(defaults.vocab_size));
  config.model.hidden_size = fields.integer(keys.hidden_size, positive(defaults.hidden_size));
  config.model.context = fields.integer(keys.context, defaults.context);
  config.intermediate_size = fields.integer(
      keys.intermediate_size,
      positive(std::max(defaults.intermediate_size, defaults.intermediate_multiple * config.model.hidden_size)));
  const int64_t layers = fields.integer(keys.layers, positive(defaults.layers), 0, kMostLayers);
  config.layers.resize(layers);
  config.heads = fields.integer(keys.heads, positive(defaults.heads));
  config.kv_heads = keys.kv_heads.empty()
                        ? config.heads
                        : fields.integer(keys.kv_heads, defaults.kv_heads > 0 ? defaults.kv_heads : config.heads);
  if (config.heads % config.kv_heads != 0) {
    fields.fail(fmt::format("field '{}' is {}, which {} = {} does not divide", keys.heads, config.heads, keys.kv_heads,
                            config.kv_heads));
  }
  const bool given_head_dim = !keys.head_dim.empty() && !fields.take(keys.head_dim).is_null();
  const bool own_head_dim = given_head_dim || (defaults.head_dim > 0 && !fields.contains(keys.head_dim));
  if (!own_head_dim && config.model.hidden_size % config.heads != 0) {
    fields.fail(fmt::format("field '{}' is {}, which {} = {} does not divide", keys.hidden_size,
                            config.model.hidden_size, keys.heads, config.heads));
  }
  config.head_dim = given_head_dim ? fields.integer(keys.head_dim, std::nullopt, 1, kLargestHead)
                    : own_head_dim ? defaults.head_dim
                                   : config.model.hidden_size / config.heads;
  if ((config.shape.rotary && config.head_dim % 2 != 0) || config.head_dim > kLargestHead) {
    fields.fail(
        fmt::format("field 'head_dim' is {}; rotation takes an even one of at most {}", config.head_dim, kLargestHead));
  }
  config.norm_epsilon = keys.epsilon.empty() ? defaults.epsilon : fields.positive(keys.epsilon, defaults.epsilon);
  if (family.attention_bias) {
    config.shape.qkv_bias = config.shape.o_bias = fields.boolean("attention_bias", false);
  }
  if (family.mlp_bias) {
    config.shape.mlp_bias = fields.boolean("mlp_bias", false);
  }
  config.tied = fields.boolean("tie_word_embeddings", defaults.tied);
  config.embedding_scale = config.shape.scaled_embedding ? std::sqrt(static_cast<double>(config.model.hidden_size)) : 1;
  parse_activation(fields, keys.activation, defaults.activation, config.block.mlp);
  config.dtype = parse_dtype(fields);
  const std::vector<int64_t> windows = parse_windows(fields, family, layers, config.model.context);
  RopeConfig rope;
  if (config.shape.rotary) {
    rope = parse_rope(fields, family, config.head_dim, config.model.context);
    config.rope_theta = rope.theta;
    config.local_rope_theta = rope.local_theta;
    config.rope_scaling = rope.scaling;
  }
  for (int64_t i = 0; i < layers; ++i) {
    config.layers[i].window = windows[i];
    config.layers[i].rope = windows[i] > 0 ? rope.local : rope.rope;
  }
  if (family.read != nullptr) {
    family.read(fields, config);
  }

  const auto bos = fields.tokens("bos_token_id");
  if (bos && bos->size() > 1) {
    fields.fail(fmt::format("field 'bos_token_id' is {}; it takes one token ID",
                            ConfigFields::abbreviated(object["bos_token_id"])));
  }
  config.model.bos_token_id = !bos ? defaults.bos : bos->empty() ? std::nullopt : std::optional(bos->front());
  const auto pad = fields.tokens("pad_token_id");
  if (family.padded_embedding) {
    config.model.padding_row = !pad ? defaults.pad : pad->empty() ? std::nullopt : std::optional(pad->front());
  }
  if (const auto eos = fields.tokens("eos_token_id")) {
    config.model.eos_token_ids = *eos;
  } else if (defaults.eos) {
    config.model.eos_token_ids = {*defaults.eos};
  }
  fields.refuse_the_rest(computed_neutrals(config, family, object.value(keys.activation, json(defaults.activation))));
  return config;
}

std::optional<std::vector<int64_t>> generation_eos(const std::string& text, const std::string& file) {
  const json object = parse_object(text, file);
  const auto eos = ConfigFields(object, file).tokens("eos_token_id");
  return eos && !eos->empty() ? eos : std::nullopt;
}

std::string updated_config(const ModelConfig& config, const std::vector<Block>& blocks, bool tied,
                           at::ScalarType dtype) {
  const Family& family = family_of(config);
  json object = parse_object(config.json, "config.json");
  const bool other_layers = object.value(family.keys.layers, json()) != blocks.size();
  object[family.keys.layers] = blocks.size();
  object["tie_word_embeddings"] = tied;
  object.erase("torch_dtype");
  object["dtype"] = dtype == at::kFloat ? "float32" : dtype == at::kHalf ? "float16" : "bfloat16";
  object.erase("quantization_config");
  const ConfigKeys& keys = family.keys;
  if (!keys.rotated_layers.empty() && other_layers) {
    object[keys.rotated_layers] = json::array();
    for (const Block& block : blocks) {
      object[keys.rotated_layers].push_back(block.attention.rope.inverse_frequencies.defined() ? 1 : 0);
    }
  }
  if (!keys.dense_layers.empty() && other_layers) {
    object[keys.sparse_step] = 1;
    object[keys.dense_layers] = json::array();
    for (size_t i = 0; i < blocks.size(); ++i) {
      if (blocks[i].experts.mlps.empty()) {
        object[keys.dense_layers].push_back(i);
      }
    }
  }
  if (object.contains("layer_types") ||
      (object.contains("use_sliding_window") && object["use_sliding_window"] == true) ||
      (family.windows == WindowRule::by_type && other_layers)) {
    object["layer_types"] = json::array();
    for (const Block& block : blocks) {
      object["layer_types"].push_back(block.attention.window > 0 ? "sliding_attention" : "full_attention");
    }
  }
  return object.dump(2) + "\n";
}

std::string with_sizes(const std::string& config_json, const Model& model) {
  const CheckpointConfig given = parse_config(config_json, "config.json");
  if (model.blocks.empty()) {
    return config_json;
  }
  const ConfigKeys& keys = family_of(model.config).keys;
  const Block& block = model.blocks.front();
  json object = parse_object(config_json, "config.json");
  bool changed = false;
  const auto set = [&](const std::string& key, int64_t before, int64_t now) {
    changed = changed || now != before;
    if (!key.empty() && now != before) {
      object[key] = now;
    }
  };
  set(keys.hidden_size, given.model.hidden_size, model.config.hidden_size);
  set(keys.heads, given.heads, block.attention.heads);
  set(keys.kv_heads, given.kv_heads, block.attention.kv_heads);
  if (block.mlp.up.defined()) {
    set(keys.intermediate_size, given.intermediate_size, block.mlp.up.out_features());
  }
  if (!changed) {
    return config_json;
  }
  if (!keys.head_dim.empty()) {
    object[keys.head_dim] = block.attention.head_dim;
  }
  const std::string result = object.dump(2) + "\n";
  try {
    parse_config(result, "config.json");
  } catch (const ValueError&) {
    return config_json;
  }
  return result;
}

std::string with_structure_mark(const std::string& config_json) {
  json object = parse_object(config_json, "config.json");
  object["model_type"] = kStructureMark + object.value("model_type", "");
  return object.dump(2) + "\n";
}

std::string without_structure_mark(const std::string& config_json, const std::string& file) {
  json object = parse_object(config_json, file);
  const auto type = object.find("model_type");
  if (type != object.end() && type->is_string() && type->get_ref<const std::string&>().starts_with(kStructureMark)) {
    *type = type->get<std::string>().substr(kStructureMark.size());
  }
  return object.dump(2) + "\n";
}

}  // namespace hemostat
