#include <algorithm>
#include <fstream>
#include <iterator>
#include <map>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <hemostat/error.h>

#include "model/checkpoint_files.h"
#include "model/gguf/pre_tokenizers.h"
#include "model/gguf/tokenizer.h"
#include "model/json.h"
#include "model/partial_file.h"

namespace hemostat::gguf {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

// std::nullopt where there is no such file; one that cannot be read is an error.
std::optional<std::string> text_of(const fs::path& path) {
  if (!fs::exists(fs::symlink_status(path))) {
    return std::nullopt;
  }
  std::ifstream file;
  if (fs::is_regular_file(path)) {
    file.open(path, std::ios::binary);
  }
  std::string text{std::istreambuf_iterator<char>(file), {}};
  if (!file.is_open() || file.bad()) {
    throw ValueError(fmt::format("hemostat.Model.save: cannot read {}", path.string()));
  }
  return text;
}

// Whether a part of that type is anywhere in a normalizer, pre-tokenizer or decoder.
bool contains_type(const json& part, const std::string& type) {
  if (part.is_object() && part.contains("type") && part["type"] == type) {
    return true;
  }
  return part.is_structured() &&
         std::any_of(part.begin(), part.end(), [&](const json& inner) { return contains_type(inner, type); });
}

// Whether a special token leads or ends what the post-processor makes of a text.
struct Ends {
  bool first = false, last = false;
};

Ends special_ends(const json& processor) {
  Ends ends;
  if (!processor.is_object()) {
    return ends;
  }
  if (processor.contains("single") && processor["single"].is_array() && !processor["single"].empty()) {
    ends.first = processor["single"].front().contains("SpecialToken");
    ends.last = processor["single"].back().contains("SpecialToken");
  }
  if (processor.contains("processors")) {
    for (const json& part : processor["processors"]) {
      const Ends inner = special_ends(part);
      ends.first |= inner.first;
      ends.last |= inner.last;
    }
  }
  return ends;
}

struct Tokens {
  std::vector<std::string> texts;
  std::vector<int32_t> types;
};

bool is_byte(const std::string& token) { return token.size() == 6 && token.starts_with("<0x") && token.back() == '>'; }

// Every token by its number; numbers that none has are of tokens that don't occur. std::nullopt: there are more than
// the model has.
std::optional<Tokens> tokens_of(const json& tokenizer, int64_t vocabulary, bool sentencepiece) {
  Tokens tokens;
  for (int64_t i = 0; i < vocabulary; ++i) {
    tokens.texts.push_back(fmt::format("[PAD{}]", i));
  }
  tokens.types.assign(vocabulary, kUnused);
  const auto set = [&](int64_t id, const std::string& text, int32_t type) {
    if (id < 0 || id >= vocabulary) {
      return false;
    }
    tokens.texts[id] = text;
    tokens.types[id] = type;
    return true;
  };
  const json unknown = tokenizer.at("model").value("unk_token", json(nullptr));
  for (const auto& [text, id] : tokenizer.at("model").at("vocab").items()) {
    if (!set(id.get<int64_t>(), text, sentencepiece && is_byte(text) ? kByte : kNormal)) {
      return std::nullopt;
    }
  }
  for (const json& added : tokenizer.value("added_tokens", json::array())) {
    const bool special = added.value("special", false);
    const auto text = added.at("content").get<std::string>();
    const int32_t type = sentencepiece && unknown == text ? kUnknown : special ? kControl : kUserDefined;
    if (!set(added.at("id").get<int64_t>(), text, type)) {
      return std::nullopt;
    }
  }
  return tokens;
}

std::vector<std::string> merges_of(const json& model) {
  std::vector<std::string> merges;
  for (const json& merge : model.at("merges")) {
    merges.push_back(merge.is_string() ? merge.get<std::string>()
                                       : merge.at(0).get<std::string>() + " " + merge.at(1).get<std::string>());
  }
  return merges;
}

// SentencePiece joins what gives the token of the highest score: the earlier a merge, the higher its whole.
std::vector<float> scores_of(const Tokens& tokens, const std::vector<std::string>& merges) {
  std::map<std::string, float> ranks;
  for (const std::string& merge : merges) {
    const size_t space = merge.find(' ', 1);
    ranks.emplace(merge.substr(0, space) + (space == std::string::npos ? "" : merge.substr(space + 1)),
                  -static_cast<float>(ranks.size()));
  }
  const auto none = -static_cast<float>(ranks.size());
  std::vector<float> scores;
  for (size_t i = 0; i < tokens.texts.size(); ++i) {
    const auto found = ranks.find(tokens.texts[i]);
    const bool joined = tokens.types[i] == kNormal || tokens.types[i] == kUserDefined;
    scores.push_back(!joined ? 0 : found == ranks.end() ? none : found->second);
  }
  return scores;
}

// Chat templates by name; the usual one is "default". A file of its own comes before what tokenizer_config.json has.
std::map<std::string, std::string> chat_templates(const fs::path& directory) {
  std::map<std::string, std::string> found;
  const auto add = [&](const std::string& name, const json& text) {
    if (text.is_string()) {
      found.emplace(name, text.get<std::string>());
    }
  };
  if (fs::is_directory(directory / kChatTemplates)) {
    for (const std::string& name : names_in(directory / kChatTemplates)) {
      if (name.ends_with(".jinja")) {
        add(fs::path(name).stem().string(), *text_of(directory / kChatTemplates / name));
      }
    }
  }
  if (const std::optional<std::string> own = text_of(directory / "chat_template.jinja")) {
    add("default", *own);
  }
  for (const char* file : {"chat_template.json", "tokenizer_config.json"}) {
    if (const std::optional<std::string> text = text_of(directory / file)) {
      const json chat = parse_object(*text, file).value("chat_template", json(nullptr));
      add("default", chat);
      for (const json& named : chat.is_array() ? chat : json::array()) {
        add(named.at("name").get<std::string>(), named.at("template"));
      }
    }
  }
  return found;
}

void add_chat_templates(Writer& writer, const std::map<std::string, std::string>& templates) {
  std::vector<std::string> names;
  for (const auto& [name, text] : templates) {
    if (name == "default") {
      writer.add("tokenizer.chat_template", text);
    } else {
      writer.add("tokenizer.chat_template." + name, text);
      names.push_back(name);
    }
  }
  if (!names.empty()) {
    writer.add("tokenizer.chat_templates", names);
  }
}

std::string add_parts(Writer& writer, const json& tokenizer, const Model& model) {
  const json& parts = tokenizer.at("model");
  const bool byte_level = contains_type(tokenizer.value("pre_tokenizer", json()), "ByteLevel") ||
                          contains_type(tokenizer.value("decoder", json()), "ByteLevel");
  const bool sentencepiece = !byte_level && parts.value("byte_fallback", false);
  if (parts.value("type", "BPE") != "BPE" || byte_level == sentencepiece) {
    return "only hemostat reads its tokenizer, which is of another kind than gpt2 and llama";
  }
  const std::optional<Tokens> tokens = tokens_of(tokenizer, model.config.vocab_size, sentencepiece);
  if (!tokens) {
    return fmt::format("only hemostat reads its tokenizer, which has more tokens than the model's {}",
                       model.config.vocab_size);
  }
  const std::vector<std::string> merges = merges_of(parts);
  const json pre_tokenizer = tokenizer.value("pre_tokenizer", json());
  const PreTokenizer* rule = find_pre_tokenizer(pre_tokenizer);
  const bool prefix =
      contains_type(tokenizer.value("normalizer", json()), "Prepend") ||
      (contains_type(pre_tokenizer, "Metaspace") && pre_tokenizer.value("prepend_scheme", "") != "never");
  const Ends ends = special_ends(tokenizer.value("post_processor", json()));
  const auto unknown = std::find(tokens->types.begin(), tokens->types.end(), kUnknown);
  const json pad = parse_object(model.config.json, "config.json").value("pad_token_id", json(nullptr));
  const bool has_pad = pad.is_number_unsigned() && pad.get<uint64_t>() < static_cast<uint64_t>(model.config.vocab_size);

  writer.add("tokenizer.ggml.model", byte_level ? "gpt2" : "llama");
  writer.add("tokenizer.ggml.tokens", tokens->texts);
  writer.add("tokenizer.ggml.token_type", tokens->types);
  if (byte_level) {
    writer.add("tokenizer.ggml.merges", merges);
  } else {
    writer.add("tokenizer.ggml.scores", scores_of(*tokens, merges));
    writer.add("tokenizer.ggml.add_space_prefix", prefix);
  }
  if (sentencepiece || rule != nullptr) {
    writer.add("tokenizer.ggml.pre", sentencepiece ? "default" : rule->name);
  }
  if (unknown != tokens->types.end()) {
    writer.add("tokenizer.ggml.unknown_token_id", static_cast<uint32_t>(unknown - tokens->types.begin()));
  }
  if (has_pad) {
    writer.add("tokenizer.ggml.padding_token_id", pad.get<uint32_t>());
  }
  writer.add("tokenizer.ggml.add_bos_token", ends.first);
  writer.add("tokenizer.ggml.add_eos_token", ends.last);
  return byte_level && rule == nullptr
             ? "GGUF has no name for how its tokenizer splits text first: readers other than hemostat split otherwise"
             : "";
}

}  // namespace

std::string add_tokenizer(Writer& writer, const fs::path& directory, const Model& model) {
  const std::optional<std::string> text = text_of(directory / "tokenizer.json");
  if (!text) {
    return "";
  }
  const std::map<std::string, std::string> templates = chat_templates(directory);
  try {
    const json tokenizer = parse_object(*text, "tokenizer.json");
    std::string note = add_parts(writer, tokenizer, model);  // throws before it adds, or not at all
    writer.add(kWholeTokenizer, *text);
    add_chat_templates(writer, templates);
    return note;
  } catch (const ValueError&) {  // it is no JSON
  } catch (const json::exception&) {
  }
  return "its tokenizer.json is malformed and was left out";
}

}  // namespace hemostat::gguf
