#include "model/gguf/tokenizer.h"

#include <algorithm>
#include <cctype>
#include <cmath>
#include <string_view>
#include <tuple>
#include <unordered_map>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <hemostat/error.h>

#include "model/gguf/pre_tokenizers.h"

namespace hemostat::gguf {
namespace {

using nlohmann::json;

constexpr const char* kSpace = "▁";      // SentencePiece's spelling of a space
constexpr size_t kLongestMerged = 1024;  // bytes of a token that merges can lead to

struct Vocabulary {
  std::vector<std::string_view> tokens;
  std::vector<int64_t> types;  // of TokenType, one a token
};

Vocabulary vocabulary(const File& file) {
  Vocabulary result;
  const auto tokens = file.array("tokenizer.ggml.tokens");
  const auto texts = tokens ? tokens->strings() : std::nullopt;
  if (!texts) {
    file.fail("has no list of strings in metadata 'tokenizer.ggml.tokens'");
  }
  result.tokens = *texts;
  result.types.assign(result.tokens.size(), kNormal);
  if (const auto types = file.array("tokenizer.ggml.token_type")) {
    const auto numbers = types->integers();
    if (!numbers || numbers->size() != result.tokens.size()) {
      file.fail(fmt::format("has in metadata 'tokenizer.ggml.token_type' not one integer for each of {} tokens",
                            result.tokens.size()));
    }
    result.types = *numbers;
  }
  return result;
}

// The text of the token that metadata names by its number.
std::optional<std::string> special_token(const File& file, const Vocabulary& vocabulary, const char* kind) {
  const auto id = file.token(kind);
  if (!id) {
    return std::nullopt;
  }
  if (*id < 0 || *id >= static_cast<int64_t>(vocabulary.tokens.size())) {
    file.fail(fmt::format("has tokenizer.ggml.{}_token_id {}, but {} tokens", kind, *id, vocabulary.tokens.size()));
  }
  return std::string(vocabulary.tokens[*id]);
}

json token_ids(const File& file, const Vocabulary& vocabulary) {
  json ids = json::object();
  for (size_t i = 0; i < vocabulary.tokens.size(); ++i) {
    if (vocabulary.types[i] == kUnused) {
      continue;
    }
    if (!ids.emplace(std::string(vocabulary.tokens[i]), i).second) {
      file.fail(
          fmt::format("has token {} twice; the second is number {}",
                      json(std::string(vocabulary.tokens[i])).dump(-1, ' ', false, json::error_handler_t::replace), i));
    }
  }
  return ids;
}

// Tokens that are found in a text before anything else is.
json added_tokens(const Vocabulary& vocabulary) {
  json added = json::array();
  for (size_t i = 0; i < vocabulary.tokens.size(); ++i) {
    const int64_t type = vocabulary.types[i];
    if (type == kControl || type == kUnknown || type == kUserDefined) {
      added.push_back({{"id", i},
                       {"content", std::string(vocabulary.tokens[i])},
                       {"single_word", false},
                       {"lstrip", false},
                       {"rstrip", false},
                       {"normalized", false},
                       {"special", type != kUserDefined}});
    }
  }
  return added;
}

json byte_level_merges(const File& file, const Vocabulary& vocabulary, const json& ids) {
  const auto array = file.array("tokenizer.ggml.merges");
  const auto merges = array ? array->strings() : std::nullopt;
  if (!merges) {
    file.fail("has no list of strings in metadata 'tokenizer.ggml.merges'");
  }
  json result = json::array();
  for (const std::string_view merge : *merges) {
    const size_t space = merge.find(' ', 1);
    const std::string left(merge.substr(0, space));
    const std::string right(space == std::string_view::npos ? "" : merge.substr(space + 1));
    if (!ids.contains(left) || !ids.contains(right) || !ids.contains(left + right)) {
      file.fail(
          fmt::format("has in metadata 'tokenizer.ggml.merges' an entry (number {}) of which the {} tokens know "
                      "a part or the whole not",
                      result.size(), vocabulary.tokens.size()));
    }
    result.push_back({left, right});
  }
  return result;
}

// Every way to join two tokens into one, the whole of highest score first: SentencePiece joins in this order.
json scored_merges(const File& file, const Vocabulary& vocabulary) {
  const auto array = file.array("tokenizer.ggml.scores");
  const auto scores = array ? array->numbers() : std::nullopt;
  if (!scores || scores->size() != vocabulary.tokens.size() ||
      !std::all_of(scores->begin(), scores->end(), [](double score) { return std::isfinite(score); })) {
    file.fail(fmt::format("has in metadata 'tokenizer.ggml.scores' not one finite number for each of {} tokens",
                          vocabulary.tokens.size()));
  }
  std::unordered_map<std::string_view, int64_t> ids;
  for (size_t i = 0; i < vocabulary.tokens.size(); ++i) {
    if (vocabulary.types[i] == kNormal || vocabulary.types[i] == kUserDefined) {
      ids.emplace(vocabulary.tokens[i], i);
    }
  }
  std::vector<std::tuple<double, int64_t, int64_t, int64_t>> merges;  // −score, whole, left, right
  for (const auto& [token, id] : ids) {
    for (size_t cut = 1; cut < token.size() && token.size() <= kLongestMerged; ++cut) {
      if ((static_cast<unsigned char>(token[cut]) & 0xC0) == 0x80) {
        continue;  // within a character
      }
      const auto left = ids.find(token.substr(0, cut)), right = ids.find(token.substr(cut));
      if (left != ids.end() && right != ids.end()) {
        merges.emplace_back(-(*scores)[id], id, left->second, right->second);
      }
    }
  }
  std::sort(merges.begin(), merges.end());
  json result = json::array();
  for (const auto& [score, whole, left, right] : merges) {
    result.push_back({std::string(vocabulary.tokens[left]), std::string(vocabulary.tokens[right])});
  }
  return result;
}

// The special tokens that lead and end a text; null where there are none.
json post_processor(const File& file, const Vocabulary& vocabulary, bool bos_by_default) {
  const auto bos = special_token(file, vocabulary, "bos"), eos = special_token(file, vocabulary, "eos");
  const bool add_bos = file.boolean("tokenizer.ggml.add_bos_token").value_or(bos_by_default) && bos;
  const bool add_eos = file.boolean("tokenizer.ggml.add_eos_token").value_or(false) && eos;
  if (!add_bos && !add_eos) {
    return nullptr;
  }
  json special = json::object();
  const auto template_of = [&](std::initializer_list<const char*> sequences) {
    json parts = json::array();
    const auto token = [&](const std::string& text, const char* kind) {
      parts.push_back({{"SpecialToken", {{"id", text}, {"type_id", 0}}}});
      special[text] = {{"id", text}, {"ids", {*file.token(kind)}}, {"tokens", {text}}};
    };
    for (const char* sequence : sequences) {
      if (add_bos) token(*bos, "bos");
      parts.push_back({{"Sequence", {{"id", sequence}, {"type_id", 0}}}});
      if (add_eos) token(*eos, "eos");
    }
    return parts;
  };
  const json single = template_of({"A"}), pair = template_of({"A", "B"});
  return {{"type", "TemplateProcessing"}, {"single", single}, {"pair", pair}, {"special_tokens", special}};
}

json byte_level_tokenizer(const File& file, const Vocabulary& vocabulary) {
  const PreTokenizer& rule = named_pre_tokenizer(file, file.text("tokenizer.ggml.pre").value_or("default"));
  const json ids = token_ids(file, vocabulary);
  return {{"normalizer", rule.compose ? json{{"type", "NFC"}} : json(nullptr)},
          {"pre_tokenizer", pre_tokenizer_json(rule)},
          {"post_processor", post_processor(file, vocabulary, rule.adds_bos)},
          {"decoder", {{"type", "ByteLevel"}, {"add_prefix_space", true}, {"trim_offsets", true}, {"use_regex", true}}},
          {"model",
           {{"unk_token", nullptr},
            {"fuse_unk", false},
            {"byte_fallback", false},
            {"ignore_merges", rule.whole_tokens_first},
            {"vocab", ids},
            {"merges", byte_level_merges(file, vocabulary, ids)}}}};
}

json sentencepiece_tokenizer(const File& file, const Vocabulary& vocabulary) {
  const bool prefix = file.boolean("tokenizer.ggml.add_space_prefix").value_or(true);
  const json spaces = {{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", kSpace}};
  json decoders = {{{"type", "Replace"}, {"pattern", {{"String", kSpace}}}, {"content", " "}},
                   {{"type", "ByteFallback"}},
                   {{"type", "Fuse"}}};
  json normalizers = json::array({spaces});
  if (prefix) {
    normalizers.insert(normalizers.begin(), json{{"type", "Prepend"}, {"prepend", kSpace}});
    decoders.push_back({{"type", "Strip"}, {"content", " "}, {"start", 1}, {"stop", 0}});
  }
  const auto unknown = special_token(file, vocabulary, "unknown");
  return {{"normalizer", {{"type", "Sequence"}, {"normalizers", normalizers}}},
          {"pre_tokenizer", nullptr},
          {"post_processor", post_processor(file, vocabulary, true)},
          {"decoder", {{"type", "Sequence"}, {"decoders", decoders}}},
          {"model",
           {{"unk_token", unknown ? json(*unknown) : json(nullptr)},
            {"fuse_unk", true},
            {"byte_fallback", true},
            {"ignore_merges", false},
            {"vocab", token_ids(file, vocabulary)},
            {"merges", scored_merges(file, vocabulary)}}}};
}

std::string dumped(const File& file, const json& object) {
  try {
    return object.dump();
  } catch (const json::type_error&) {
    file.fail("has a token that is not UTF-8");
  }
}

}  // namespace

std::optional<std::string> tokenizer_json(const File& file) {
  if (const auto whole = file.text(kWholeTokenizer)) {
    return std::string(*whole);
  }
  const auto kind = file.text("tokenizer.ggml.model");
  if (!kind || *kind == "none" || *kind == "no_vocab") {
    return std::nullopt;
  }
  if (*kind != "gpt2" && *kind != "llama") {
    file.fail(fmt::format("has a tokenizer of kind '{}'; gpt2 and llama are supported", *kind));
  }
  const Vocabulary known = vocabulary(file);
  json tokenizer = *kind == "gpt2" ? byte_level_tokenizer(file, known) : sentencepiece_tokenizer(file, known);
  tokenizer["version"] = "1.0";
  tokenizer["truncation"] = tokenizer["padding"] = nullptr;
  tokenizer["added_tokens"] = added_tokens(known);
  tokenizer["model"]["type"] = "BPE";
  for (const char* unused : {"dropout", "continuing_subword_prefix", "end_of_word_suffix"}) {
    tokenizer["model"][unused] = nullptr;
  }
  return dumped(file, tokenizer);
}

std::string tokenizer_config_json(const File& file) {
  json config = {{"tokenizer_class", "PreTrainedTokenizerFast"}, {"clean_up_tokenization_spaces", false}};
  if (file.metadata().count("tokenizer.ggml.tokens") != 0) {
    const Vocabulary known = vocabulary(file);
    for (const auto& [name, kind] :
         {std::pair("bos_token", "bos"), {"eos_token", "eos"}, {"unk_token", "unknown"}, {"pad_token", "padding"}}) {
      if (const auto token = special_token(file, known, kind)) {
        config[name] = *token;
      }
    }
  }
  if (const auto chat = file.text("tokenizer.chat_template")) {
    config["chat_template"] = std::string(*chat);
  }
  return dumped(file, config) + "\n";
}

std::map<std::string, std::string> chat_templates(const File& file) {
  constexpr std::string_view kPrefix = "tokenizer.chat_template.";
  std::map<std::string, std::string> templates;
  for (const auto& [key, entry] : file.metadata()) {
    if (key.starts_with(kPrefix)) {
      const std::string name = key.substr(kPrefix.size());
      const bool plain = !name.empty() && std::all_of(name.begin(), name.end(), [](unsigned char letter) {
        return std::isalnum(letter) != 0 || letter == '_' || letter == '-';
      });
      if (const auto text = file.text(key); text && plain) {
        templates.emplace(name, *text);
      }
    }
  }
  return templates;
}

}  // namespace hemostat::gguf

namespace hemostat {

std::optional<std::string> gguf_tokenizer(const std::string& path) { return gguf::tokenizer_json(gguf::File(path)); }

}  // namespace hemostat
