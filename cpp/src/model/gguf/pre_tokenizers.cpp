#include "model/gguf/pre_tokenizers.h"

#include <algorithm>
#include <vector>

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

namespace hemostat::gguf {
namespace {

using nlohmann::json;

// The expressions are those of the models' own tokenizer.json.
constexpr PreTokenizer kRules[] = {
    {"gpt-2", "", false, false, false, false},
    {"smollm", "", true, false, false, false},
    {"llama-bpe",
     R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
     false, false, true, true},
    {"qwen2",
     R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
     false, true, false, false},
    {"tekken",
     R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|)"
     R"([^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|)"
     R"(\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+)",
     false, false, true, true},
};

// Other names for the same rules.
constexpr std::pair<std::string_view, std::string_view> kAliases[] = {
    {"default", "gpt-2"},     {"starcoder", "smollm"},    {"llama3", "llama-bpe"},       {"llama-v3", "llama-bpe"},
    {"falcon3", "llama-bpe"}, {"smaug-bpe", "llama-bpe"}, {"deepseek-r1-qwen", "qwen2"},
};

json byte_level(bool own_expression) {
  return {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", true}, {"use_regex", own_expression}};
}

}  // namespace

const PreTokenizer& named_pre_tokenizer(const File& file, std::string_view name) {
  const auto* alias =
      std::find_if(std::begin(kAliases), std::end(kAliases), [&](const auto& pair) { return pair.first == name; });
  const std::string_view own = alias == std::end(kAliases) ? name : alias->second;
  const auto* found =
      std::find_if(std::begin(kRules), std::end(kRules), [&](const PreTokenizer& rule) { return rule.name == own; });
  if (found == std::end(kRules)) {
    std::vector<std::string_view> names;
    for (const PreTokenizer& rule : kRules) {
      names.emplace_back(rule.name);
    }
    file.fail(fmt::format("has tokenizer.ggml.pre '{}'; supported are {}", name, fmt::join(names, ", ")));
  }
  return *found;
}

json pre_tokenizer_json(const PreTokenizer& rule) {
  const std::string expression = rule.expression;
  json first = nullptr;
  if (rule.digits) {
    first = {{"type", "Digits"}, {"individual_digits", true}};
  } else if (!expression.empty()) {
    first = {{"type", "Split"}, {"pattern", {{"Regex", expression}}}, {"behavior", "Isolated"}, {"invert", false}};
  }
  const json last = byte_level(expression.empty());
  return first.is_null() ? last : json{{"type", "Sequence"}, {"pretokenizers", json::array({first, last})}};
}

const PreTokenizer* find_pre_tokenizer(const json& pre_tokenizer) {
  // trim_offsets moves no token's border.
  const auto comparable = [](json rule) {
    const auto strip = [](json& part) { part.erase("trim_offsets"); };
    if (rule.is_object() && rule.contains("pretokenizers") && rule["pretokenizers"].is_array()) {
      for (json& part : rule["pretokenizers"]) {
        if (part.is_object()) strip(part);
      }
    } else if (rule.is_object()) {
      strip(rule);
    }
    return rule;
  };
  const json wanted = comparable(pre_tokenizer);
  const auto* found = std::find_if(std::begin(kRules), std::end(kRules), [&](const PreTokenizer& rule) {
    return comparable(pre_tokenizer_json(rule)) == wanted;
  });
  return found == std::end(kRules) ? nullptr : found;
}

}  // namespace hemostat::gguf
