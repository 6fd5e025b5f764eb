#include "config_fields.h"

#include <algorithm>
#include <cmath>

#include <fmt/format.h>

#include <hemostat/error.h>

namespace hemostat {
namespace {

using nlohmann::json;

// Fields beside a family's own, with the values at which they change no number of a causal language model's forward
// pass in evaluation: what other families, older releases and other programs write. No values: none changes one. null
// passes everywhere.
const std::vector<NeutralField>& neutral_fields() {
  static const std::vector<NeutralField> fields = {
      // Descriptions, and how it was or is to be run.
      {"_attn_implementation", {}},
      {"_attn_implementation_autoset", {}},
      {"_attn_implementation_internal", {}},
      {"_commit_hash", {}},
      {"_experts_implementation", {}},
      {"_flash_attn_2_enabled", {}},
      {"_model_name_or_path", {}},
      {"_name_or_path", {}},
      {"attn_implementation", {}},
      {"auto_map", {}},
      {"bf16", {}},
      {"finetuning_task", {}},
      {"fp16", {}},
      {"fp32", {}},
      {"gradient_checkpointing", {}},
      {"is_llama_config", {}},
      {"keys_to_ignore_at_inference", {}},
      {"max_seq_len", {}},
      {"max_seq_length", {}},
      {"max_sequence_length", {}},
      {"model_max_length", {}},
      {"model_type", {}},
      {"name_or_path", {}},
      {"output_attentions", {}},
      {"output_hidden_states", {}},
      {"output_router_logits", {}},
      {"problem_type", {}},
      {"return_dict", {}},
      {"seq_length", {}},
      {"task_specific_params", {}},
      {"tf_legacy_loss", {}},
      {"tie_last_hidden_states", {}},
      {"tokenizer_class", {}},
      {"torchscript", {}},
      {"transformers.js_config", {}},
      {"transformers_version", {}},
      {"unsloth_fixed", {}},
      {"unsloth_version", {}},
      {"use_bfloat16", {}},
      {"use_cache", {}},
      {"use_flash_attention", {}},
      {"use_flash_attn", {}},
      {"id2label", {}},
      {"label2id", {}},
      {"num_labels", {}},
      // Tokens that the forward pass gives no meaning.
      {"cls_token_id", {}},
      {"decoder_start_token_id", {}},
      {"eot_token_id", {}},
      {"mask_token_id", {}},
      {"pad_token_id", {}},
      {"sep_token_id", {}},
      {"unk_token_id", {}},
      // Training.
      {"activation_dropout", {}},
      {"attention_dropout", {}},
      {"attention_probs_dropout_prob", {}},
      {"attn_dropout_prob", {}},
      {"attn_pdrop", {}},
      {"aux_loss_alpha", {}},
      {"classifier_dropout", {}},
      {"dropout", {}},
      {"embd_pdrop", {}},
      {"emb_dropout_prob", {}},
      {"embedding_dropout", {}},
      {"hidden_dropout", {}},
      {"hidden_dropout_prob", {}},
      {"init_std", {}},
      {"initializer_factor", {}},
      {"initializer_range", {}},
      {"layerdrop", {}},
      {"resid_pdrop", {}},
      {"residual_dropout", {}},
      {"router_aux_loss_coef", {}},
      {"router_jitter_noise", {}},
      {"router_z_loss_coef", {}},
      // Generation: hemostat.Decoder says how a token is chosen.
      {"bad_words_ids", {}},
      {"begin_suppress_tokens", {}},
      {"diversity_penalty", {}},
      {"do_sample", {}},
      {"early_stopping", {}},
      {"encoder_no_repeat_ngram_size", {}},
      {"encoder_repetition_penalty", {}},
      {"epsilon_cutoff", {}},
      {"eta_cutoff", {}},
      {"exponential_decay_length_penalty", {}},
      {"forced_bos_token_id", {}},
      {"forced_eos_token_id", {}},
      {"generation_config", {}},
      {"length_penalty", {}},
      {"max_length", {}},
      {"max_new_tokens", {}},
      {"min_length", {}},
      {"min_new_tokens", {}},
      {"min_p", {}},
      {"no_repeat_ngram_size", {}},
      {"num_beam_groups", {}},
      {"num_beams", {}},
      {"num_return_sequences", {}},
      {"output_scores", {}},
      {"prefix", {}},
      {"remove_invalid_values", {}},
      {"repetition_penalty", {}},
      {"return_dict_in_generate", {}},
      {"suppress_tokens", {}},
      {"temperature", {}},
      {"top_k", {}},
      {"top_p", {}},
      {"typical_p", {}},
      // Where the family has no such thing. Windows are read elsewhere.
      {"add_cross_attention", {false}},
      {"alibi", {false}},
      {"apply_residual_connection_post_layernorm", {false}},
      {"attention_bias", {false}},
      {"attention_chunk_size", {0}},
      {"attn_logit_softcapping", {0}},
      {"attn_temperature_tuning", {false, 0}},
      {"bias", {false}},
      {"chunk_size_feed_forward", {0}},
      {"clip_qkv", {0}},
      {"cross_attention_hidden_size", {}},
      {"embedding_multiplier", {1}},
      {"final_logit_softcapping", {0}},
      {"first_k_dense_replace", {}},
      {"is_causal", {true}},
      {"is_decoder", {false, true}},
      {"is_encoder_decoder", {false}},
      {"lm_head_bias", {false}},
      {"logit_scale", {1}},
      {"logits_scaling", {1}},
      {"max_window_layers", {}},
      {"mlp_bias", {false}},
      {"mlp_only_layers", {json::array()}},
      {"moe_layers", {json::array()}},
      {"n_routed_experts", {0}},
      {"n_shared_experts", {0}},
      {"no_rope_layer_interval", {0}},
      {"num_experts", {0}},
      {"decoder_sparse_step", {}},
      {"moe_intermediate_size", {}},
      {"norm_topk_prob", {}},
      {"num_experts_per_tok", {}},
      {"shared_expert_intermediate_size", {0}},
      {"num_local_experts", {0}},
      {"num_nextn_predict_layers", {0}},
      {"parallel_attn", {false}},
      {"per_layer_config", {json::object()}},
      {"pretraining_tp", {1}},
      {"pruned_heads", {json::object(), json::array()}},
      {"qk_layernorm", {false}},
      {"qk_norm", {false}},
      {"quantization", {json::object()}},
      {"quantization_config", {json::object()}},
      {"residual_multiplier", {1}},
      {"rope_interleaved", {false}},
      {"rope_pct", {1}},
      {"rotary_pct", {1}},
      {"scale_emb", {1}},
      {"tie_encoder_decoder", {false}},
      {"use_alibi", {false}},
      {"use_bias", {false}},
      {"use_bidirectional_attention", {false}},
      {"use_cache_quantization", {false}},
      {"use_mrope", {false}},
      {"use_parallel_residual", {false}},
      {"use_qk_norm", {false}},
      {"use_qkv_bias", {false}},
  };
  return fields;
}

// "quant_method 'gptq', bits 4" of a quantization_config.
std::string quantization(const json& value) {
  std::string text;
  for (const char* name : {"quant_method", "bits", "load_in_8bit", "load_in_4bit", "group_size"}) {
    if (value.is_object() && value.contains(name) && !value[name].is_null() && value[name] != false) {
      text += fmt::format("{}{} {}", text.empty() ? "" : ", ", name, ConfigFields::abbreviated(value[name]));
    }
  }
  return text.empty() ? ConfigFields::abbreviated(value) : text;
}

}  // namespace

void ConfigFields::fail(const std::string& what) const {
  throw ValueError(fmt::format("hemostat.Model.load: {}: {}", file_, what));
}

const json& ConfigFields::take(const std::string& name) {
  static const json kNull;
  seen_.insert(name);
  const auto found = object_.find(name);
  return found == object_.end() ? kNull : *found;
}

int64_t ConfigFields::integer(const std::string& name, std::optional<int64_t> missing, int64_t minimum,
                              int64_t maximum) {
  const json& value = take(name);
  if (value.is_null()) {
    if (!missing) {
      fail(fmt::format("field '{}' is missing", name));
    }
    return *missing;
  }
  if (!is_integer(value, minimum, maximum)) {
    fail(
        fmt::format("field '{}' is {}; it takes an integer from {} to {}", name, abbreviated(value), minimum, maximum));
  }
  return value.get<int64_t>();
}

double ConfigFields::positive(const std::string& name, std::optional<double> missing) {
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

double ConfigFields::number(const std::string& name, double missing) {
  const json& value = take(name);
  if (value.is_null()) {
    return missing;
  }
  if (!value.is_number() || !std::isfinite(value.get<double>())) {
    fail(fmt::format("field '{}' is {}; it takes a number", name, abbreviated(value)));
  }
  return value.get<double>();
}

double ConfigFields::cap(const std::string& name, double missing) {
  if (!contains(name)) {
    return missing;
  }
  return take(name).is_null() ? 0 : positive(name);
}

std::vector<int64_t> ConfigFields::integers(const std::string& name, std::optional<size_t> count) {
  const json& value = take(name);
  std::vector<int64_t> result;
  if (value.is_null()) {
    return result;
  }
  const bool fits =
      value.is_array() && (!count || value.size() == *count) &&
      std::all_of(value.begin(), value.end(), [](const json& entry) { return is_integer(entry, 0, int64_t{1} << 31); });
  if (!fits) {
    fail(fmt::format("field '{}' is {}; it takes a list of {}integers of 0 or more", name, abbreviated(value),
                     count ? fmt::format("{} ", *count) : ""));
  }
  return value.get<std::vector<int64_t>>();
}

std::vector<double> ConfigFields::numbers(const std::string& name, size_t count) {
  const json& value = take(name);
  const bool fits =
      value.is_array() && value.size() == count && std::all_of(value.begin(), value.end(), [](const json& entry) {
        return entry.is_number() && entry.get<double>() > 0 && std::isfinite(entry.get<double>());
      });
  if (!fits) {
    fail(value.is_null() ? fmt::format("field '{}' is missing", name)
                         : fmt::format("field '{}' is {}; it takes a list of {} positive numbers", name,
                                       abbreviated(value), count));
  }
  return value.get<std::vector<double>>();
}

bool ConfigFields::boolean(const std::string& name, bool missing) {
  const json& value = take(name);
  if (value.is_null()) {
    return missing;
  }
  if (!value.is_boolean()) {
    fail(fmt::format("field '{}' is {}; it takes true or false", name, abbreviated(value)));
  }
  return value.get<bool>();
}

std::string ConfigFields::text(const std::string& name, const std::string& missing) {
  const json& value = take(name);
  if (value.is_null()) {
    return missing;
  }
  if (!value.is_string()) {
    fail(fmt::format("field '{}' is {}; it takes a string", name, abbreviated(value)));
  }
  return value.get<std::string>();
}

std::optional<std::vector<int64_t>> ConfigFields::tokens(const std::string& name) {
  if (!contains(name)) {
    return std::nullopt;
  }
  const json& value = take(name);
  std::vector<int64_t> ids;
  for (const json& id : value.is_array() ? value : json::array({value})) {
    if (id.is_null() || is_integer(id, -1, -1)) {
      continue;
    }
    if (!is_integer(id, 0, int64_t{1} << 31)) {
      fail(fmt::format("field '{}' is {}; it takes a token ID, a list of them, or null or -1 for none", name,
                       abbreviated(value)));
    }
    ids.push_back(id.get<int64_t>());
  }
  return ids;
}

void ConfigFields::refuse_the_rest(const std::vector<NeutralField>& own) const {
  for (const auto& field : object_.items()) {
    const std::string& name = field.key();
    const json& value = field.value();
    if (seen_.count(name) || value.is_null()) {
      continue;
    }
    const auto named = [&](const NeutralField& neutral) { return neutral.name == name; };
    auto found = std::find_if(own.begin(), own.end(), named);
    if (found == own.end()) {
      found = std::find_if(neutral_fields().begin(), neutral_fields().end(), named);
      if (found == neutral_fields().end()) {
        fail(fmt::format("field '{}' ({}) is not supported", name, abbreviated(value)));
      }
    }
    const std::vector<json>& values = found->values;
    if (values.empty() || std::find(values.begin(), values.end(), value) != values.end()) {
      continue;
    }
    if (name == "quantization_config" || name == "quantization") {
      fail(
          fmt::format("field '{}' says that the weights are quantized ({}); hemostat quantizes weights itself: load "
                      "the checkpoint in full precision, or dequantize this one first",
                      name, quantization(value)));
    }
    fail(fmt::format("field '{}' is {}; only {} is supported", name, abbreviated(value), values[0].dump()));
  }
}

bool ConfigFields::is_integer(const json& value, int64_t minimum, int64_t maximum) {
  if (value.is_number_unsigned()) {  // which may lie beyond int64_t
    const uint64_t number = value.get<uint64_t>();
    return maximum >= 0 && number <= static_cast<uint64_t>(maximum) &&
           (minimum <= 0 || number >= static_cast<uint64_t>(minimum));
  }
  return value.is_number_integer() && value.get<int64_t>() >= minimum && value.get<int64_t>() <= maximum;
}

std::string ConfigFields::abbreviated(const json& value) {
  std::string text = value.dump();
  if (text.size() > 60) text.replace(57, std::string::npos, "...");
  return text;
}

}  // namespace hemostat
