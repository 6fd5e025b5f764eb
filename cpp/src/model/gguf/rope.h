// Rotations in GGUF files: a base, one of llama.cpp's scalings, and tensors that divide the frequencies.
#pragma once

#include <cstdint>
#include <string>

#include <nlohmann/json_fwd.hpp>

#include <hemostat/model.h>

#include "model/config.h"
#include "model/gguf/gguf.h"
#include "model/gguf/hyperparameters.h"

namespace hemostat::gguf {

// The fields of config.json for what the file says of rotations.
void read_rope(Hyperparameters& parameters, const Family& family, int64_t head_dim, nlohmann::json& config);

// A rotation as config.json has it with the file's divisors, where it has them for all.
Rope divided(const File& file, const Family& family, const Rope& rope);

// Whether a tensor belongs to rotations, and not to a model's slots.
bool is_rope_tensor(const Family& family, const std::string& name);

// Writes the model's own rotations, as near as a file can come; `config` says the base. Whether any is scaled.
bool add_rope(Writer& writer, const Model& model, const CheckpointConfig& config);

}  // namespace hemostat::gguf
