// The names of a Hugging Face directory's files.
#pragma once

#include <string>

namespace hemostat {

inline constexpr const char* kConfig = "config.json";
inline constexpr const char* kStructure = "hemostat.json";
inline constexpr const char* kTensors = "model.safetensors";
inline constexpr const char* kGeneration = "generation_config.json";
inline constexpr const char* kIndex = "model.safetensors.index.json";
inline constexpr const char* kAdapter = "adapter_config.json";  // transformers loads its base in place of the weights
inline constexpr const char* kChatTemplates = "additional_chat_templates";

// Whether a loader that finds this file in a directory may take it for the model's weights, or for a part or an index
// of them, or for what describes them: what a new model.safetensors beside it contradicts.
bool holds_weights(const std::string& name);

// Whether it is of a kind that holds tensors, whoever wrote it: weights of any form, optimizers' and loaders' state.
bool holds_tensors(const std::string& name);

}  // namespace hemostat
