#include "config.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <optional>
#include <set>
#include <string_view>

#include <ATen/ops/tensor.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include <hemostat/error.h>

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

// Fields that change no number of a causal language model's forward pass in evaluation.
const std::set<std::string_view> kHarmless = {
    "_attn_implementation",
    "_name_or_path",
    "architectures",
    "attention_dropout",
    "auto_map",
    "initializer_range",
    "is_llama_config",
    "model_type",
    "pad_token_id",
    "tokenizer_class",
    "transformers.js_config",
    "transformers_version",
    "use_cache",
    "output_attentions",
    "output_hidden_states",
    "return_dict",
    "id2label",
    "label2id",
    "problem_type",
    "torchscript",
    "unsloth_version",
    "unsloth_fixed",
    "hidden_dropout",
    "resid_pdrop",
    "max_length",
    "do_sample",
    "num_return_sequences",
    "keys_to_ignore_at_inference",
};

// Fields that change numbers, but not at the value they are given here.
const std::vector<std::pair<std::string_view, json>> kNeutral = {
    {"chunk_size_feed_forward", 0},
    {"is_decoder", false},
    {"is_encoder_decoder", false},
    {"pretraining_tp", 1},
    {"rope_interleaved", false},
    {"add_cross_attention", false},
    {"cross_attention_hidden_size", nullptr},
    {"tie_encoder_decoder", false},
    {"pruned_heads", json::object()},
};

class Fields {
 public:
  Fields(const json& object, std::string file) : object_(object), file_(std::move(file)) {}

  [[noreturn]] void fail(const std::string& what) const {
    throw ValueError(fmt::format("hemostat.Model.load: {}: {}", file_, what));
  }

  // The field's value, or null where it is missing; it counts as honoured.
  const json& take(const std::string& name) {
    static const json kNull;
    seen_.insert(name);
    const auto found = object_.find(name);
    return found == object_.end() ? kNull : *found;
  }

  bool explicitly_null(const std::string& name) { return object_.contains(name) && take(name).is_null(); }

  int64_t integer(const std::string& name, std::optional<int64_t> missing = std::nullopt, int64_t minimum = 1,
                  int64_t maximum = int64_t{1} << 31) {
    const json& value = take(name);
    if (value.is_null()) {
      if (!missing) {
        fail(fmt::format("field '{}' is missing", name));
      }
      return *missing;
    }
    if (!is_integer(value, minimum, maximum)) {
      fail(fmt::format("field '{}' is {}; it takes an integer from {} to {}", name, abbreviated(value), minimum,
                       maximum));
    }
    return value.get<int64_t>();
  }

  double positive(const std::string& name, std::optional<double> missing = std::nullopt) {
    const json& value = take(name);
    if (value.is_null()) {
      if (!missing) {
        fail(fmt::format("field '{}' is missing", name));
      }
      return *missing;
    }
    if (!value.is_number() || !(value.get<double>() > 0) || !std::isfinite(value.get<double>())) {
      fail(fmt::format("field '{}' is {}; it takes a positive number", name, abbreviated(value)));
    }
    return value.get<double>();
  }

  bool boolean(const std::string& name, bool missing) {
    const json& value = take(name);
    if (value.is_null()) {
      return missing;
    }
    if (!value.is_boolean()) {
      fail(fmt::format("field '{}' is {}; it takes true or false", name, abbreviated(value)));
    }
    return value.get<bool>();
  }

  std::string text(const std::string& name, const std::string& missing) {
    const json& value = take(name);
    if (value.is_null()) {
      return missing;
    }
    if (!value.is_string()) {
      fail(fmt::format("field '{}' is {}; it takes a string", name, abbreviated(value)));
    }
    return value.get<std::string>();
  }

  // Everything not taken must be known to change nothing.
  void refuse_the_rest() const {
    for (const auto& field : object_.items()) {
      const std::string& name = field.key();
      const json& value = field.value();
      if (seen_.count(name) || value.is_null() || kHarmless.count(name)) {
        continue;
      }
      const auto neutral =
          std::find_if(kNeutral.begin(), kNeutral.end(), [&](const auto& n) { return n.first == name; });
      if (neutral == kNeutral.end()) {
        fail(fmt::format("field '{}' ({}) is not supported", name, abbreviated(value)));
      }
      if (value != neutral->second) {
        fail(fmt::format("field '{}' is {}; only {} is supported", name, abbreviated(value), neutral->second.dump()));
      }
    }
  }

  static bool is_integer(const json& value, int64_t minimum, int64_t maximum) {
    const bool fits = value.is_number_unsigned() ? value.get<uint64_t>() <= static_cast<uint64_t>(maximum)
                                                 : value.is_number_integer() && value.get<int64_t>() <= maximum;
    return fits && value.get<int64_t>() >= minimum;
  }

  static std::string abbreviated(const json& value) {
    std::string text = value.dump();
    if (text.size() > 60) text.replace(57, std::string::npos, "...");
    return text;
  }

 private:
  const json& object_;
  std::string file_;
  std::set<std::string> seen_;
};

Activation parse_activation(Fields& fields) {
  const std::string name = fields.text("hidden_act", "silu");
  if (name == "silu" || name == "swish") return Activation::silu;
  if (name == "gelu") return Activation::gelu;
  if (name == "gelu_new" || name == "gelu_pytorch_tanh") return Activation::gelu_tanh;
  if (name == "relu") return Activation::relu;
  fields.fail(
      fmt::format("field 'hidden_act' is '{}'; silu, gelu, gelu_new, gelu_pytorch_tanh and relu are supported", name));
}

at::ScalarType parse_dtype(Fields& fields) {
  const std::string older = fields.text("torch_dtype", "float32");
  const std::string name = fields.text("dtype", older);
  if (name == "float32") return at::kFloat;
  if (name == "bfloat16") return at::kBFloat16;
  if (name == "float16") return at::kHalf;
  fields.fail(fmt::format("field 'dtype' is '{}'; float32, bfloat16 and float16 are supported", name));
}

// Both spellings: rope_theta with rope_scaling (transformers 4), rope_parameters (5).
Rope parse_rope(Fields& fields, const std::string& file, int64_t head_dim, double& theta) {
  const json& parameters = fields.take("rope_parameters");
  const json& scaling = fields.take("rope_scaling");
  if (!parameters.is_null() && !scaling.is_null() && parameters != scaling) {
    fields.fail("fields 'rope_parameters' and 'rope_scaling' differ; give one");
  }
  const bool newer = !parameters.is_null();
  const std::string where = newer ? "rope_parameters" : "rope_scaling";
  const json& given = newer ? parameters : scaling;
  if (!given.is_null() && !given.is_object()) {
    fields.fail(fmt::format("field '{}' is {}; it takes an object", where, Fields::abbreviated(given)));
  }
  const json object = given.is_null() ? json::object() : given;
  Fields rope_fields(object, fmt::format("{}: {}", file, where));
  theta = fields.positive("rope_theta", 10000.0);
  theta = rope_fields.positive("rope_theta", theta);
  const std::string older_type = rope_fields.text("type", "default");
  const std::string type = rope_fields.text("rope_type", older_type);
  if (rope_fields.positive("partial_rotary_factor", 1.0) != 1.0 ||
      fields.positive("partial_rotary_factor", 1.0) != 1.0) {
    fields.fail("field 'partial_rotary_factor' is not 1; partial rotation is not supported");
  }
  std::vector<float> frequencies = inverse_frequencies(theta, head_dim);
  if (type == "linear") {
    const auto factor = static_cast<float>(rope_fields.positive("factor"));
    for (float& frequency : frequencies) {
      frequency /= factor;
    }
  } else if (type == "llama3") {
    const double factor = rope_fields.positive("factor");
    const double low = rope_fields.positive("low_freq_factor");
    const double high = rope_fields.positive("high_freq_factor");
    const double original = rope_fields.positive("original_max_position_embeddings");
    for (float& frequency : frequencies) {
      const double wavelength = 2 * M_PI / frequency;
      if (wavelength > original / low) {
        frequency = static_cast<float>(frequency / factor);
      } else if (wavelength >= original / high) {
        const double smooth = (original / wavelength - low) / (high - low);
        frequency = static_cast<float>((1 - smooth) * frequency / factor + smooth * frequency);
      }
    }
  } else if (type != "default") {
    fields.fail(fmt::format("field '{}' has rope_type '{}'; default, linear and llama3 are supported", where, type));
  }
  rope_fields.refuse_the_rest();
  if (!std::all_of(frequencies.begin(), frequencies.end(), [](float f) { return std::isfinite(f); })) {
    fields.fail(fmt::format("fields 'rope_theta' and '{}' give rotations that are not finite", where));
  }
  return Rope{at::tensor(frequencies), 1.0};
}

std::vector<int64_t> parse_windows(Fields& fields, WindowRule rule, int64_t layers) {
  std::vector<int64_t> windows(layers, 0);
  const json& types = fields.take("layer_types");
  int64_t window = 0, first = 0;
  if (rule == WindowRule::every_layer) {
    window = fields.explicitly_null("sliding_window") ? 0 : fields.integer("sliding_window", 4096);
  } else if (rule == WindowRule::by_layer) {
    const bool used = fields.boolean("use_sliding_window", false);
    const int64_t width = fields.explicitly_null("sliding_window") ? 0 : fields.integer("sliding_window", 4096);
    first = fields.integer("max_window_layers", 28, 0);
    window = used ? width : 0;
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
    if (!sliding && types[layer] != "full_attention") {
      fields.fail(fmt::format("field 'layer_types' names {}; full_attention and sliding_attention are supported",
                              Fields::abbreviated(types[layer])));
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

}  // namespace

std::vector<float> inverse_frequencies(double theta, int64_t head_dim) {
  std::vector<float> frequencies;
  for (int64_t i = 0; i < head_dim; i += 2) {
    frequencies.push_back(1.0f /
                          std::pow(static_cast<float>(theta), static_cast<float>(i) / static_cast<float>(head_dim)));
  }
  return frequencies;
}

CheckpointConfig parse_config(const std::string& text, const std::string& file) {
  const json object = parse_object(text, file);
  Fields fields(object, file);
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
  if (architectures.is_array() && !architectures.empty() && architectures[0].is_string()) {
    const std::string architecture = architectures[0];
    const std::string suffix = "ForCausalLM";
    if (architecture.size() < suffix.size() ||
        architecture.compare(architecture.size() - suffix.size(), suffix.size(), suffix) != 0) {
      fields.fail(fmt::format("field 'architectures' is {}; only causal language models are supported",
                              Fields::abbreviated(architectures)));
    }
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
  config.rope = parse_rope(fields, file, config.head_dim, config.rope_theta);
  config.windows = parse_windows(fields, family->window, config.layers);

  const auto token = [&](const json& value, const char* name) {
    if (!Fields::is_integer(value, 0, int64_t{1} << 31)) {
      fields.fail(fmt::format("field '{}' is {}; it takes a token ID", name, Fields::abbreviated(value)));
    }
    return value.get<int64_t>();
  };
  const json& bos = fields.take("bos_token_id");
  config.model.bos_token_id = object.contains("bos_token_id") ? std::nullopt : family->default_bos;
  if (!bos.is_null()) {
    config.model.bos_token_id = token(bos, "bos_token_id");
  }
  const json& eos = fields.take("eos_token_id");
  if (eos.is_array()) {
    for (const json& id : eos) {
      config.model.eos_token_ids.push_back(token(id, "eos_token_id"));
    }
  } else if (!eos.is_null()) {
    config.model.eos_token_ids.push_back(token(eos, "eos_token_id"));
  } else if (!object.contains("eos_token_id") && family->default_eos) {
    config.model.eos_token_ids.push_back(*family->default_eos);
  }
  fields.refuse_the_rest();
  return config;
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
