// The tokenizer in a GGUF file's metadata, as the tokenizer.json that the tokenizers library reads, and back.
//
// "gpt2" is byte-level BPE: tokens, merges, and the name of the rule that splits text before them; "llama" is
// SentencePiece's BPE: tokens and scores, from which the merges follow. tokenizer.huggingface.json, where a file has
// it, is tokenizer.json itself.
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>

#include <hemostat/model.h>

#include "model/gguf/gguf.h"

namespace hemostat::gguf {

inline constexpr const char* kWholeTokenizer = "tokenizer.huggingface.json";

// tokenizer.json; std::nullopt where the file has no tokenizer, ValueError where it is of another kind or malformed.
std::optional<std::string> tokenizer_json(const File& file);

// tokenizer_config.json: the names of the special tokens, and the chat template.
std::string tokenizer_config_json(const File& file);

// Chat templates beside the usual one, by names that can be a file's.
std::map<std::string, std::string> chat_templates(const File& file);

// The tokenizer of a checkpoint's directory, if it has one, for a model of it. The result says what other readers would
// not find, empty: nothing.
std::string add_tokenizer(Writer& writer, const std::filesystem::path& directory, const Model& model);

}  // namespace hemostat::gguf
