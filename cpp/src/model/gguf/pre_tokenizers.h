// How text is split before byte-level BPE, by the names that GGUF files give these rules.
#pragma once

#include <array>
#include <string>
#include <string_view>

#include <nlohmann/json_fwd.hpp>

#include "model/gguf/gguf.h"

namespace hemostat::gguf {

// What a token is, as tokenizer.ggml.token_type numbers it.
enum TokenType : int64_t { kNormal = 1, kUnknown, kControl, kUserDefined, kUnused, kByte };

struct PreTokenizer {
  const char* name;         // the one that is written
  const char* expression;   // empty: GPT-2's, which the tokenizers library has built in
  bool digits;              // each digit alone, first
  bool compose;             // text is normalized to NFC first
  bool whole_tokens_first;  // a piece that is a token is not merged
  bool adds_bos;            // unless the file says otherwise
};

// ValueError for a name that is none of them.
const PreTokenizer& named_pre_tokenizer(const File& file, std::string_view name);

// tokenizer.json's "pre_tokenizer" for a rule, and the rule for one; null: none of them.
nlohmann::json pre_tokenizer_json(const PreTokenizer& rule);
const PreTokenizer* find_pre_tokenizer(const nlohmann::json& pre_tokenizer);

}  // namespace hemostat::gguf
