#include <filesystem>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <hemostat/error.h>

#include "checkpoint_files.h"
#include "companions.h"
#include "config.h"
#include "family_fit.h"
#include "foreign.h"
#include "gguf/model.h"
#include "partial_checkpoint.h"
#include "safetensors.h"
#include "stored_form.h"
#include "tensor_slots.h"

namespace hemostat {
namespace {

// Packed weights dequantized, as a checkpoint holds them.
Model unpacked(Model model) {
  for_each_linear(model, [](const LinearPlace&, Linear& linear) {
    if (linear.packed) {
      linear = linear.with_weight(linear.dense());
    }
  });
  return model;
}

NamedTensors stored(const Model& model, bool expressible) {
  NamedTensors result;
  for_each_stored(unpacked(model),
                  [&](const std::string& name, const at::Tensor& tensor) { result.emplace(name, tensor); });
  return expressible ? put_together(std::move(result), model) : result;
}

std::string save_directory(const Model& model, const std::string& path) {
  const FittedConfig saved = fitted_config(model);
  PartialCheckpoint checkpoint(path);
  checkpoint.write(kConfig, saved.expressible ? saved.config : with_structure_mark(saved.config));
  if (!saved.expressible) {
    checkpoint.write(kStructure, saved.structure);
  }
  std::vector<std::string> notes = copy_companions(model.source, checkpoint);
  NewFile file = checkpoint.file(kTensors);
  safetensors::write(stored(model, saved.expressible),
                     [&](const void* data, size_t bytes) { file.write(data, bytes); });
  file.finish();
  checkpoint.finish();
  if (!saved.expressible) {
    notes.push_back(
        fmt::format("a config of {} cannot express the model; hemostat loads it by its {}, transformers does not",
                    model.config.family, kStructure));
  }
  return notes.empty() ? "" : fmt::format("{}: {}", path, fmt::join(notes, "; "));
}

// What the module itself writes.
std::string save_foreign(const Model& model, const std::string& path) {
  if (gguf::is_path(path)) {
    check_has_blocks(model, "hemostat.Model.save: a GGUF file");
  }
  PartialCheckpoint checkpoint(path, PartialCheckpoint::Replaces::any_model);
  const std::vector<std::string> notes = copy_companions(model.source, checkpoint);
  checkpoint.add(
      [&](const std::filesystem::path& directory) { model.foreign.module->save(model.foreign, directory.string()); });
  checkpoint.finish();
  return notes.empty() ? "" : fmt::format("{}: {}", path, fmt::join(notes, "; "));
}

}  // namespace

std::map<std::string, at::Tensor> Model::tensors() const {
  return foreign ? foreign.module->tensors(foreign) : stored(*this, fitted_config(*this).expressible);
}

std::string family_config(const Model& model) {
  check_has_blocks(model, "hemostat.Model.to_transformers");
  const FittedConfig saved = fitted_config(model);
  if (!saved.expressible) {
    throw ValueError(fmt::format("hemostat.Model: a config of {} cannot express the model", model.config.family));
  }
  return saved.config;
}

std::string Model::save(const std::string& path) const {
  try {
    if (foreign) {
      return save_foreign(*this, path);
    }
    return gguf::is_path(path) ? gguf::save_model(*this, path) : save_directory(*this, path);
  } catch (const std::filesystem::filesystem_error& error) {
    throw ValueError(fmt::format("hemostat.Model.save: {}: {}", path, error.what()));
  }
}

}  // namespace hemostat
