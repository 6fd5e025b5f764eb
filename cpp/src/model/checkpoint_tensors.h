// The tensors of a Hugging Face directory, and their way into a model's slots.
#pragma once

#include <filesystem>
#include <map>
#include <optional>
#include <string>

#include <hemostat/model.h>

namespace hemostat {

// Of model.safetensors, or of the shards that its index names. Where there is neither, the ValueError says what there
// is and what to do with it.
std::map<std::string, at::Tensor> load_tensors(const std::filesystem::path& directory);

// checkpoint: as the family's checkpoints store them. model: as the model itself has them, under its linears' names.
enum class StoredAs { checkpoint, model };

// Puts tensors into the slots of `model`: each slot is filled with its shape, and each tensor has a slot. Names that a
// wrapper (torch.compile, DistributedDataParallel, …) or a model without its head gave them are read as the family's
// own. `where` names their origin in messages. ValueError.
void fill(Model& model, std::map<std::string, at::Tensor> tensors, const std::string& where,
          StoredAs form = StoredAs::checkpoint);

// One dtype throughout, as forward() takes: the asked one, else the stored one, else (where several are) the config's.
Model with_one_dtype(Model model, std::optional<at::ScalarType> asked, std::optional<at::ScalarType> configured);

// What a directory that should hold a checkpoint and does not holds instead: a clause that begins with "; ", or
// nothing.
std::string found_instead(const std::filesystem::path& directory);

}  // namespace hemostat
