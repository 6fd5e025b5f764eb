// What a GGUF file's metadata says of a model: as the config.json of its family, and back.
#pragma once

#include <string>

#include <hemostat/model.h>

#include "model/config.h"
#include "model/gguf/gguf.h"

namespace hemostat::gguf {

// Key by key: honoured, known to change no number, or refused by name. The dtype is bfloat16 or float16 where a matrix
// is stored so, else float32.
CheckpointConfig read_config(const File& file);

// Hyperparameters and tokens; of `model`, which a family's config `config` expresses but for its rotation. The result
// says what transformers' reader would overlook, empty: nothing. ValueError where no metadata can say it.
std::string add_config(Writer& writer, const Model& model, const CheckpointConfig& config);

// ValueError, naming the field, unless what has been written so far says all of the model's structure.
void check_says(Writer& writer, const Model& model, const std::string& path);

}  // namespace hemostat::gguf
