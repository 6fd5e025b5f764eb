#include <algorithm>
#include <cmath>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <hemostat/error.h>

#include "model/family_fit.h"
#include "model/gguf/config.h"
#include "model/gguf/rope.h"
#include "model/skeleton.h"
#include "model/structure.h"

namespace hemostat::gguf {
namespace {

using nlohmann::json;

[[noreturn]] void fail(const std::string& what) {
  throw ValueError(fmt::format("hemostat.Model.save: a GGUF file cannot express {}", what));
}

// The window that layers have, and the period at which one has none; 0: there is no window, or no period.
struct Windows {
  int64_t width = 0, period = 0;
};

Windows windows_of(const Model& model) {
  Windows result;
  for (size_t i = 0; i < model.blocks.size(); ++i) {
    const int64_t window = model.blocks[i].attention.window;
    result.width = std::max(result.width, window);
    if (window == 0 && result.period == 0) {
      result.period = static_cast<int64_t>(i) + 1;
    }
  }
  return result;
}

void add_tokens(Writer& writer, const ModelConfig& config) {
  const auto token = [&](const char* kind, int64_t id) {
    writer.add(fmt::format("tokenizer.ggml.{}_token_id", kind), static_cast<uint32_t>(id));
  };
  if (config.bos_token_id) {
    token("bos", *config.bos_token_id);
  }
  const char* const kinds[] = {"eos", "eot", "eom"};
  if (config.eos_token_ids.size() > std::size(kinds)) {
    fail(fmt::format("more than {} tokens that end a text", std::size(kinds)));
  }
  for (size_t i = 0; i < config.eos_token_ids.size(); ++i) {
    token(kinds[i], config.eos_token_ids[i]);
  }
}

bool near(const json& x, const json& y) {
  return x.is_number() && y.is_number() &&
         std::abs(x.get<double>() - y.get<double>()) <= 1e-6 * std::abs(x.get<double>());  // float32's rounding
}

// "/blocks/0/attention/window", the first place at which two structures differ; empty: there is none.
std::string first_difference(const json& x, const json& y) {
  if (x == y || near(x, y)) {
    return "";
  }
  if (x.is_structured() && x.type() == y.type()) {
    const json flat_x = x.flatten(), flat_y = y.flatten();
    for (const auto* flat : {&flat_x, &flat_y}) {
      for (const auto& [place, value] : flat->items()) {
        const bool both = flat_x.contains(place) && flat_y.contains(place);
        if (!both || !first_difference(flat_x[place], flat_y[place]).empty()) {
          return place;
        }
      }
    }
    return "";
  }
  return "/";
}

json structure_of(Model model) {
  for (Block& block : model.blocks) {
    if (block.attention.window >= model.config.context) {
      block.attention.window = 0;
    }
  }
  return json::parse(saved_structure(model));
}

}  // namespace

std::string add_config(Writer& writer, const Model& model, const CheckpointConfig& config) {
  const Family& family = family_of(model.config);
  const GgufArchitecture& architecture = family.gguf;
  if (architecture.name.empty()) {
    fail(fmt::format("a model of the family {} yet", model.config.family));
  }
  const auto set = [&](const std::string& key, const auto& value) {
    writer.add(fmt::format("{}.{}", architecture.name, key), value);
  };
  const auto count = [&](const std::string& key, int64_t value) { set(key, static_cast<uint32_t>(value)); };
  writer.add("general.architecture", architecture.name);
  writer.add("general.type", "model");
  count("vocab_size", model.config.vocab_size);
  count("context_length", model.config.context);
  count("embedding_length", model.config.hidden_size);
  count("block_count", static_cast<int64_t>(model.blocks.size()));
  count("feed_forward_length", config.intermediate_size);
  count("attention.head_count", config.heads);
  count("attention.head_count_kv", config.kv_heads);
  set(config.shape.norm == NormKind::rms ? "attention.layer_norm_rms_epsilon" : "attention.layer_norm_epsilon",
      static_cast<float>(config.norm_epsilon));
  const bool usual_heads = config.head_dim * config.heads == model.config.hidden_size;
  if (!usual_heads && !architecture.own_head_dim) {
    fail(fmt::format("heads of {} features, which are not hidden_size / {}, in the architecture {}", config.head_dim,
                     config.heads, architecture.name));
  }
  if (config.kv_heads != config.heads && !architecture.grouped_heads) {
    fail(fmt::format("{} key-value heads for {} heads in the architecture {}", config.kv_heads, config.heads,
                     architecture.name));
  }
  if (!usual_heads || family.defaults.head_dim > 0) {
    count("attention.key_length", config.head_dim);
    count("attention.value_length", config.head_dim);
  }
  const bool tied = model.tied();
  if (architecture.head != GgufArchitecture::Head::either &&
      tied != (architecture.head == GgufArchitecture::Head::tied)) {
    fail(fmt::format("{} in the architecture {}", tied ? "a head that is the embedding" : "a head of its own",
                     architecture.name));
  }
  for (const GgufKey& key : architecture.keys) {
    const double value = key.value(config);
    if (key.kind == GgufKey::Kind::boolean) {
      set(key.key, value != 0);
    } else if (value == 0 && key.missing) {
      continue;
    } else if (key.kind == GgufKey::Kind::integer) {
      count(key.key, static_cast<int64_t>(value));
    } else {
      set(key.key, static_cast<float>(value));
    }
  }
  const Windows windows = windows_of(model);
  if (architecture.windows && windows.width > 0) {
    count("attention.sliding_window", windows.width);
    if (family.window_period > 0) {
      count("attention.sliding_window_pattern", windows.period);
    }
  }
  const bool scaled = add_rope(writer, model, config);
  add_tokens(writer, model.config);
  const bool biases = architecture.optional_bias && (config.shape.qkv_bias || config.shape.mlp_bias);
  return fmt::format("{}{}{}", scaled ? "its scaled rotation" : "", scaled && biases ? " and " : "",
                     biases ? "its biases" : "");
}

void check_says(Writer& writer, const Model& model, const std::string& path) {
  const std::string architecture = family_of(model.config).gguf.name;
  json said;
  try {
    said = structure_of(skeleton(read_config(writer.read_back(path))));
  } catch (const ValueError& error) {
    fail(fmt::format("this model in the architecture {}: a reader says {}", architecture, error.what()));
  }
  const json wanted = structure_of(shapes_only(model));
  const std::string place = first_difference(wanted, said);
  if (!place.empty()) {
    const json::json_pointer pointer(place);
    std::string name = place.substr(1);
    std::replace(name.begin(), name.end(), '/', '.');
    const auto at = [&](const json& structure) {
      return structure.contains(pointer) ? ConfigFields::abbreviated(structure[pointer]) : std::string("nothing");
    };
    fail(fmt::format("{} = {} in the architecture {}: it would be read as {}", name, at(wanted), architecture,
                     at(said)));
  }
}

}  // namespace hemostat::gguf
