#include "config.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <cmath>
#include <optional>

#include <ATen/ops/tensor.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include <hemostat/error.h>

#include "config_fields.h"
#include "json.h"

namespace hemostat {
namespace {

using nlohmann::json;

const std::string kStructureMark = "hemostat-";

// Beyond any model, so that a config that lies neither fills the memory nor takes for ever.
constexpr int64_t kMostLayers = 10'000, kLargestHead = 65'536;

enum class WindowRule { none, every_layer, by_layer };

// A family is data: names, and the defaults that transformers gives fields a config leaves out.
struct Family {
  const char* model_type;
  Naming names;
  int64_t default_kv_heads;  // 0: as many as heads
  int64_t default_context;
  std::optional<int64_t> default_bos, default_eos;
  bool configurable_bias;  // attention_bias, mlp_bias
  bool qkv_bias;           // always
  WindowRule window;
};

const Naming kLlamaNames = {
    .embedding = "model.embed_tokens",
    .block = "model.layers.",
    .final_norm = "model.norm",
    .head = "lm_head",
    .q = "self_attn.q_proj",
    .k = "self_attn.k_proj",
    .v = "self_attn.v_proj",
    .o = "self_attn.o_proj",
    .q_norm = "self_attn.q_norm",
    .k_norm = "self_attn.k_norm",
    .gate = "mlp.gate_proj",
    .up = "mlp.up_proj",
    .down = "mlp.down_proj",
    .router = "mlp.gate",
    .expert = "mlp.experts.",
    .attention_norm = "input_layernorm",
    .mlp_norm = "post_attention_layernorm",
};

const std::array<Family, 3> kFamilies = {{
    {"llama", kLlamaNames, 0, 2048, 1, 2, true, false, WindowRule::none},
    {"mistral", kLlamaNames, 8, 131072, 1, 2, false, false, WindowRule::every_layer},
    {"qwen2", kLlamaNames, 32, 32768, std::nullopt, std::nullopt, false, true, WindowRule::by_layer},
}};

Activation parse_activation(ConfigFields& fields) {
  const std::string name = fields.text("hidden_act", "silu");
  if (name == "silu" || name == "swish") return Activation::silu;
  if (name == "gelu") return Activation::gelu;
  if (name == "gelu_new" || name == "gelu_pytorch_tanh") return Activation::gelu_tanh;
  if (name == "relu") return Activation::relu;
  fields.fail(
      fmt::format("field 'hidden_act' is '{}'; silu, gelu, gelu_new, gelu_pytorch_tanh and relu are supported", name));
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

// The rotations that one spelling of them gives: rope_parameters or rope_scaling.
std::vector<float> parse_frequencies(ConfigFields& fields, const json& given, const std::string& where,
                                     int64_t head_dim, double& theta) {
  if (!given.is_null() && !given.is_object()) {
    fields.fail(fmt::format("field '{}' is {}; it takes an object", where, ConfigFields::abbreviated(given)));
  }
  const json object = given.is_null() ? json::object() : given;
  ConfigFields rope(object, fmt::format("{}: {}", fields.file(), where));
  theta = rope.positive("rope_theta", theta);
  const std::string type = rope.text("rope_type", rope.text("type", "default"));
  if (rope.positive("partial_rotary_factor", 1.0) != 1.0) {
    fields.fail("field 'partial_rotary_factor' is not 1; partial rotation is not supported");
  }
  std::vector<float> frequencies = inverse_frequencies(theta, head_dim);
  std::vector<NeutralField> unused = {{"attention_factor", {1}}};
  if (type == "llama3") {
    const double factor = rope.positive("factor");
    const double low = rope.positive("low_freq_factor");
    const double high = rope.positive("high_freq_factor");
    const bool outside = rope.take("original_max_position_embeddings").is_null();
    const double original = (outside ? fields : rope).positive("original_max_position_embeddings");
    for (float& frequency : frequencies) {
      const double wavelength = 2 * M_PI / frequency;
      if (wavelength > original / low) {
        frequency = static_cast<float>(frequency / factor);
      } else if (wavelength >= original / high) {
        const double smooth = (original / wavelength - low) / (high - low);
        frequency = static_cast<float>((1 - smooth) * frequency / factor + smooth * frequency);
      }
    }
  } else {
    for (const char* of_others : {"original_max_position_embeddings", "low_freq_factor", "high_freq_factor",
                                  "beta_fast", "beta_slow", "finetuned"}) {
      unused.push_back({of_others, {}});
    }
    if (type == "linear") {
      const auto factor = static_cast<float>(rope.positive("factor"));
      for (float& frequency : frequencies) {
        frequency /= factor;
      }
    } else if (type == "default") {
      unused.push_back({"factor", {1}});
    } else {
      fields.fail(fmt::format("field '{}' has rope_type '{}'; default, linear and llama3 are supported", where, type));
    }
  }
  rope.refuse_the_rest(unused);
  return frequencies;
}

// Both spellings: rope_theta with rope_scaling (transformers 4), rope_parameters (5).
Rope parse_rope(ConfigFields& fields, int64_t head_dim, double& theta) {
  const json& parameters = fields.take("rope_parameters");
  const json& scaling = fields.take("rope_scaling");
  theta = fields.positive("rope_theta", 10000.0);
  if (fields.positive("partial_rotary_factor", 1.0) != 1.0) {
    fields.fail("field 'partial_rotary_factor' is not 1; partial rotation is not supported");
  }
  const bool newer = !parameters.is_null();
  const std::string where = newer ? "rope_parameters" : "rope_scaling";
  const auto frequencies = parse_frequencies(fields, newer ? parameters : scaling, where, head_dim, theta);
  double older_theta = theta;
  if (newer && !scaling.is_null() &&
      parse_frequencies(fields, scaling, "rope_scaling", head_dim, older_theta) != frequencies) {
    fields.fail("fields 'rope_parameters' and 'rope_scaling' differ; give one");
  }
  fields.take("original_max_position_embeddings");
  if (!std::all_of(frequencies.begin(), frequencies.end(), [](float f) { return std::isfinite(f); })) {
    fields.fail(fmt::format("fields 'rope_theta' and '{}' give rotations that are not finite", where));
  }
  return Rope{at::tensor(frequencies), 1.0};
}

std::vector<int64_t> parse_windows(ConfigFields& fields, WindowRule rule, int64_t layers, int64_t context) {
  std::vector<int64_t> windows(layers, 0);
  const json& types = fields.take("layer_types");
  const json& width = fields.take("sliding_window");
  const bool switched_off = fields.take("use_sliding_window") == false;
  const bool used = fields.boolean("use_sliding_window", rule != WindowRule::by_layer);
  int64_t window = 0, first = 0;
  if (rule == WindowRule::none) {
    const bool matters = used && !width.is_null() && !(width.is_number() && width.get<double>() <= 0) &&
                         !(width.is_number() && width.get<double>() >= static_cast<double>(context));
    if (matters) {
      fields.fail(fmt::format("field 'sliding_window' is {}, but models of this family have none; remove the field",
                              ConfigFields::abbreviated(width)));
    }
  } else if (rule == WindowRule::every_layer || used) {
    window = fields.contains("sliding_window") && width.is_null() ? 0 : fields.integer("sliding_window", 4096);
    if (rule == WindowRule::by_layer) {
      first = fields.integer("max_window_layers", 28, 0);
    } else if (switched_off && window > 0 && window < context) {
      fields.fail(
          fmt::format("field 'use_sliding_window' is false, but this family has its window of {} whatever it "
                      "says; remove one of the two",
                      window));
    }
  }
  for (int64_t layer = 0; layer < layers; ++layer) {
    windows[layer] = layer >= first ? window : 0;
  }
  if (types.is_null()) {
    return windows;
  }
  if (!types.is_array() || static_cast<int64_t>(types.size()) != layers) {
    fields.fail(fmt::format("field 'layer_types' is not a list of {} entries", layers));
  }
  for (int64_t layer = 0; layer < layers; ++layer) {
    const bool sliding = types[layer] == "sliding_attention";
    if (!sliding && types[layer] != "full_attention" && types[layer] != "attention") {
      fields.fail(fmt::format("field 'layer_types' names {}; full_attention and sliding_attention are supported",
                              ConfigFields::abbreviated(types[layer])));
    }
    if (rule == WindowRule::by_layer) {
      windows[layer] = sliding ? window : 0;
    } else if (sliding != (windows[layer] > 0)) {
      fields.fail(fmt::format("field 'layer_types' gives layer {} {}, which this family ignores; remove the field",
                              layer, types[layer].dump()));
    }
  }
  return windows;
}

// Whether a class is a causal language model of the family, or one that was saved without its head.
bool is_language_model(const std::string& architecture, const std::string& family) {
  const std::string bare = family + "Model";  // LlamaModel
  return architecture.ends_with("ForCausalLM") ||
         std::equal(architecture.begin(), architecture.end(), bare.begin(), bare.end(),
                    [](unsigned char x, unsigned char y) { return std::tolower(x) == std::tolower(y); });
}

// What other families compute as this one does at these values.
std::vector<NeutralField> computed_neutrals(const CheckpointConfig& config, const json& activation) {
  const auto head_dim = static_cast<double>(config.head_dim);
  return {
      {"attention_bias", {config.qkv_bias, false}},
      {"attention_multiplier", {1 / std::sqrt(head_dim), std::pow(head_dim, -0.5)}},
      {"dim_model_base", {config.model.hidden_size}},
      {"hidden_activation", {activation}},
      {"kv_channels", {config.head_dim}},
      {"layer_norm_epsilon", {config.norm_epsilon}},
      {"layer_norm_eps", {config.norm_epsilon}},
      {"norm_eps", {config.norm_epsilon}},
      {"qk_head_dim", {config.head_dim}},
      {"qkv_bias", {config.qkv_bias}},
      {"query_pre_attn_scalar", {config.head_dim}},
      {"rotary_dim", {config.head_dim}},
      {"use_qkv_bias", {config.qkv_bias}},
      {"v_head_dim", {config.head_dim}},
  };
}

}  // namespace

std::vector<float> inverse_frequencies(double theta, int64_t head_dim) {
  std::vector<float> frequencies;
  for (int64_t i = 0; i < head_dim; i += 2) {
    frequencies.push_back(1.0f /
                          std::pow(static_cast<float>(theta), static_cast<float>(i) / static_cast<float>(head_dim)));
  }
  return frequencies;
}

bool is_model_type(const std::string& type) {
  return std::any_of(kFamilies.begin(), kFamilies.end(), [&](const Family& family) {
    return type == family.model_type || type == kStructureMark + family.model_type;
  });
}

CheckpointConfig parse_config(const std::string& text, const std::string& file) {
  const json object = parse_object(text, file);
  ConfigFields fields(object, file);
  const std::string type = fields.text("model_type", "");
  const auto family =
      std::find_if(kFamilies.begin(), kFamilies.end(), [&](const Family& f) { return type == f.model_type; });
  if (family == kFamilies.end()) {
    std::vector<std::string> known;
    for (const Family& f : kFamilies) {
      known.emplace_back(f.model_type);
    }
    fields.fail(fmt::format("field 'model_type' is '{}'; supported are {}", type, fmt::join(known, ", ")));
  }
  const json& architectures = fields.take("architectures");
  if (architectures.is_array() && !architectures.empty() && architectures[0].is_string() &&
      !is_language_model(architectures[0], type)) {
    fields.fail(fmt::format("field 'architectures' is {}; only causal language models are supported",
                            ConfigFields::abbreviated(architectures)));
  }

  CheckpointConfig config;
  config.model.family = type;
  config.model.names = family->names;
  config.model.json = text;
  config.model.vocab_size = fields.integer("vocab_size");
  config.model.hidden_size = fields.integer("hidden_size");
  config.model.context = fields.integer("max_position_embeddings", family->default_context);
  config.intermediate_size = fields.integer("intermediate_size");
  config.layers = fields.integer("num_hidden_layers", std::nullopt, 0, kMostLayers);
  config.heads = fields.integer("num_attention_heads");
  config.kv_heads =
      fields.integer("num_key_value_heads", family->default_kv_heads > 0 ? family->default_kv_heads : config.heads);
  if (config.heads % config.kv_heads != 0) {
    fields.fail(fmt::format("field 'num_attention_heads' is {}, which num_key_value_heads = {} does not divide",
                            config.heads, config.kv_heads));
  }
  const bool has_head_dim = !fields.take("head_dim").is_null();
  if (!has_head_dim && config.model.hidden_size % config.heads != 0) {
    fields.fail(fmt::format("field 'hidden_size' is {}, which num_attention_heads = {} does not divide",
                            config.model.hidden_size, config.heads));
  }
  config.head_dim = fields.integer("head_dim", config.model.hidden_size / config.heads, 1, kLargestHead);
  if (config.head_dim % 2 != 0 || config.head_dim > kLargestHead) {
    fields.fail(
        fmt::format("field 'head_dim' is {}; rotation takes an even one of at most {}", config.head_dim, kLargestHead));
  }
  config.norm_epsilon = fields.positive("rms_norm_eps", 1e-6);
  if (family->configurable_bias) {
    config.qkv_bias = config.o_bias = fields.boolean("attention_bias", false);
    config.mlp_bias = fields.boolean("mlp_bias", false);
  } else {
    config.qkv_bias = family->qkv_bias;
    config.o_bias = config.mlp_bias = false;
  }
  config.tied = fields.boolean("tie_word_embeddings", false);
  config.activation = parse_activation(fields);
  config.dtype = parse_dtype(fields);
  config.rope = parse_rope(fields, config.head_dim, config.rope_theta);
  config.windows = parse_windows(fields, family->window, config.layers, config.model.context);

  const auto bos = fields.tokens("bos_token_id");
  if (bos && bos->size() > 1) {
    fields.fail(fmt::format("field 'bos_token_id' is {}; it takes one token ID",
                            ConfigFields::abbreviated(object["bos_token_id"])));
  }
  config.model.bos_token_id = !bos ? family->default_bos : bos->empty() ? std::nullopt : std::optional(bos->front());
  if (const auto eos = fields.tokens("eos_token_id")) {
    config.model.eos_token_ids = *eos;
  } else if (family->default_eos) {
    config.model.eos_token_ids = {*family->default_eos};
  }
  fields.refuse_the_rest(computed_neutrals(config, object.value("hidden_act", json("silu"))));
  return config;
}

std::optional<std::vector<int64_t>> generation_eos(const std::string& text, const std::string& file) {
  const json object = parse_object(text, file);
  const auto eos = ConfigFields(object, file).tokens("eos_token_id");
  return eos && !eos->empty() ? eos : std::nullopt;
}

std::string updated_config(const ModelConfig& config, const std::vector<int64_t>& windows, bool tied,
                           at::ScalarType dtype) {
  json object = parse_object(config.json, "config.json");
  object["num_hidden_layers"] = windows.size();
  object["tie_word_embeddings"] = tied;
  object.erase("torch_dtype");
  object["dtype"] = dtype == at::kFloat ? "float32" : dtype == at::kHalf ? "float16" : "bfloat16";
  if (object.contains("layer_types") ||
      (object.contains("use_sliding_window") && object["use_sliding_window"] == true)) {
    object["layer_types"] = json::array();
    for (const int64_t window : windows) {
      object["layer_types"].push_back(window > 0 ? "sliding_attention" : "full_attention");
    }
  }
  return object.dump(2) + "\n";
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
