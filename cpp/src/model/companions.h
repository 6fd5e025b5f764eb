// What lies beside a checkpoint's weights and goes with them: tokenizer, chat templates, generation config, licence,
// model card, custom code.
#pragma once

#include <string>
#include <vector>

#include "partial_checkpoint.h"

namespace hemostat {

// Copies them from a model's source, a directory or a GGUF file, into a checkpoint: every file but what holds tensors
// or describes them, hidden ones and what is too large to be one. ValueError naming the file where one cannot be read.
// Returns what there is to say of it: what was left behind, and what stays in an existing directory beside what came.
std::vector<std::string> copy_companions(const std::string& source, PartialCheckpoint& checkpoint);

}  // namespace hemostat
