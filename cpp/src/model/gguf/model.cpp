#include "model/gguf/model.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <string_view>

#include <ATen/ops/arange.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <hemostat/error.h>

#include "model/cast.h"
#include "model/family_fit.h"
#include "model/finite.h"
#include "model/gguf/config.h"
#include "model/gguf/gguf.h"
#include "model/gguf/tokenizer.h"
#include "model/partial_file.h"
#include "model/skeleton.h"
#include "model/tensor_slots.h"

namespace hemostat::gguf {
namespace {

namespace fs = std::filesystem;

// The order of the rows of q or k: in a head's file, pairs of rows that are rotated together are neighbours; in ours
// they are half a head apart.
at::Tensor row_order(int64_t rows, int64_t head_dim, bool to_file) {
  const int64_t half = head_dim / 2;
  const at::Tensor numbers = at::arange(rows);
  return (to_file ? numbers.view({-1, 2, half}) : numbers.view({-1, half, 2})).transpose(1, 2).reshape(-1);
}

// Whether a tensor is the weight or bias of q or k.
bool rotated(const Naming& names, const std::string& name) {
  const auto is = [&](const std::string& part) {
    return name.ends_with("." + part + ".weight") || name.ends_with("." + part + ".bias");
  };
  return is(names.q) || is(names.k);
}

// Takes the tensors of a file for a model's slots, each once.
class Source {
 public:
  Source(const File& file, const CheckpointConfig& config)
      : file_(file), config_(config), adjacent_(family_of(config.model).gguf.adjacent_pairs) {}

  // The tensor for a slot, null where it is missing; of the slot's shape, if it is there.
  const TensorInfo* find(const std::string& name, at::IntArrayRef sizes) {
    const std::string theirs = tensor_name(config_.model.names, name);
    const auto found = file_.tensors().find(theirs);
    if (found == file_.tensors().end()) {
      missing_.insert(theirs);
      return nullptr;
    }
    const TensorInfo& info = found->second;
    if (at::IntArrayRef(info.shape) != sizes) {
      file_.fail(fmt::format("has tensor '{}' of shape [{}], but its metadata asks for [{}]", theirs,
                             fmt::join(info.shape, ", "), fmt::join(sizes, ", ")));
    }
    used_.insert(theirs);
    return &info;
  }

  // Its bytes or values with rows in our order.
  at::Tensor rows(const TensorInfo& info, const std::string& name) const {
    const at::Tensor stored = file_.view(info);
    return adjacent_ && rotated(config_.model.names, name)
               ? stored.index_select(0, row_order(stored.size(0), config_.head_dim, /*to_file=*/false))
               : stored;
  }

  std::shared_ptr<const quantize::GgufPacked> packed(const TensorInfo& info, const std::string& name,
                                                     at::ScalarType dtype) const {
    return std::make_shared<quantize::GgufPacked>(rows(info, name), *info.type->blocks, info.shape.back(), dtype);
  }

  // In `dtype`; 1-D tensors have no blocks of rows, and none is stored so.
  at::Tensor dense(const TensorInfo& info, const std::string& name, at::ScalarType dtype) const {
    const std::string subject = "hemostat.Model.load: " + name;
    if (!info.type->blocks) {
      return cast(rows(info, name), dtype, subject);
    }
    if (info.shape.size() != 2) {
      file_.fail(fmt::format("stores tensor '{}', which is no matrix, as {}", info.name, info.type->name));
    }
    at::Tensor values = packed(info, name, dtype)->dequantize();
    if (dtype == at::kHalf && !extent_of(values).finite()) {
      values = cast(packed(info, name, at::kFloat)->dequantize(), dtype, subject);
    }
    return values;
  }

  void check_complete() const {
    if (!missing_.empty()) {
      file_.fail(fmt::format("has no tensor '{}'{}", *missing_.begin(),
                             missing_.size() > 1 ? fmt::format(", and {} more are missing", missing_.size() - 1) : ""));
    }
    for (const auto& [name, info] : file_.tensors()) {
      if (used_.count(name) == 0 && name != kRopeFactors) {
        file_.fail(fmt::format("has tensor '{}', which has no place in a {} model with this metadata", name,
                               config_.model.family));
      }
    }
  }

 private:
  const File& file_;
  const CheckpointConfig& config_;
  bool adjacent_;
  std::set<std::string, std::less<>> used_;
  std::set<std::string> missing_;
};

// llama.cpp's name for a whole file of one type (enum llama_ftype), for people and tools that list files.
uint32_t file_type(const std::string& type) {
  static const std::map<std::string, uint32_t> kNumbers = {
      {"F32", 0},   {"F16", 1},   {"Q4_0", 2},  {"Q4_1", 3},  {"Q8_0", 7},    {"Q5_0", 8},  {"Q5_1", 9},
      {"Q2_K", 10}, {"Q3_K", 12}, {"Q4_K", 15}, {"Q5_K", 17}, {"IQ4_NL", 25}, {"Q6_K", 18}, {"BF16", 32},
  };
  return kNumbers.at(type);
}

// The model's tensors, and the type that most linears have.
std::string add_tensors(Writer& writer, Model model, int64_t head_dim) {
  const Naming& names = model.config.names;
  const bool adjacent = family_of(model.config).gguf.adjacent_pairs;
  const auto rows = [&](const std::string& name, const at::Tensor& tensor) {
    return adjacent && rotated(names, name)
               ? tensor.index_select(0, row_order(tensor.size(0), head_dim, /*to_file=*/true).to(tensor.device()))
               : tensor;
  };
  std::map<std::string, int64_t> counts;
  for_each_linear(model, [&](const LinearPlace& place, Linear& linear) {
    const auto* packed = dynamic_cast<const quantize::GgufPacked*>(linear.packed.get());
    const TensorType& type = packed != nullptr ? tensor_type(packed->type()) : tensor_type(model.dtype());
    if (place.role != Role::head) {
      ++counts[type.name];
    }
    if (packed != nullptr) {
      const std::string weight = place.name + ".weight";
      writer.add(tensor_name(names, weight), rows(weight, packed->data()), type);
    } else if (linear.packed) {
      linear = linear.with_weight(linear.dense().to(model.dtype()));
    }
  });
  if (model.tied()) {
    model.head.linear.weight = at::Tensor();
  }
  for_each_tensor(model, [&](const std::string& name, at::Tensor& tensor) {
    // Norms and biases are float32 in every GGUF file: llama.cpp computes with them so.
    writer.add(tensor_name(names, name), rows(name, tensor.dim() == 1 ? tensor.to(at::kFloat) : tensor));
  });
  const auto most =
      std::max_element(counts.begin(), counts.end(), [](const auto& x, const auto& y) { return x.second < y.second; });
  return most == counts.end() ? tensor_type(model.dtype()).name : most->first;
}

// What a model's source says of it but for its hyperparameters: its names, licence and tokenizer, as they stand.
void copy_descriptions(Writer& writer, const File& file) {
  for (const auto& [key, entry] : file.metadata()) {
    static const std::set<std::string, std::less<>> kOwn = {
        "general.architecture",
        "general.type",
        "general.alignment",
        "general.file_type",
        "general.quantization_version",
        "tokenizer.ggml.bos_token_id",
        "tokenizer.ggml.eos_token_id",
        "tokenizer.ggml.eot_token_id",
        "tokenizer.ggml.eom_token_id",
    };
    if ((key.starts_with("general.") || key.starts_with("tokenizer.")) && kOwn.count(key) == 0) {
      writer.add(key, entry);
    }
  }
}

bool begins_as_gguf(const fs::path& path) {
  std::array<char, 4> magic{};
  std::ifstream file(path, std::ios::binary);
  return file.read(magic.data(), magic.size()) && std::string_view(magic.data(), magic.size()) == "GGUF";
}

// Where the file goes: a place that is free, empty or a GGUF file's.
fs::path replaceable(const std::string& path) {
  const fs::path target = save_target(path);
  std::error_code error;
  const fs::file_status status = fs::status(target, error);
  if (fs::exists(status)) {
    const char* wrong = fs::is_directory(status)            ? "is a directory"
                        : !fs::is_regular_file(status)      ? "is not a regular file"
                        : fs::file_size(target, error) == 0 ? nullptr
                        : !begins_as_gguf(target)           ? "exists and is not a GGUF file"
                                                            : nullptr;
    if (wrong != nullptr) {
      throw ValueError(fmt::format("hemostat.Model.save: {} {}; save to another path", path, wrong));
    }
  }
  return target;
}

}  // namespace

bool is_path(const std::string& path) { return path.ends_with(".gguf"); }

Model load_model(const std::string& path, const LoadOptions& options) {
  const File file(path);
  const CheckpointConfig config = read_config(file);
  const at::ScalarType dtype = options.dtype.value_or(config.dtype.value());
  if (dtype != at::kFloat && dtype != at::kBFloat16 && dtype != at::kHalf) {
    throw ValueError(
        fmt::format("hemostat.Model.load: dtype is {}; give float32, bfloat16 or float16", c10::toString(dtype)));
  }
  Model model = skeleton(config);
  Source source(file, config);
  const bool tied = model.tied();
  if (tied) {
    model.head.linear.weight = at::Tensor();
  }
  for (size_t i = 0; i < model.blocks.size() && !options.dtype; ++i) {
    const std::string prefix = config.model.names.block + std::to_string(i) + ".";
    for_each_linear(model.blocks[i], config.model.names, prefix, [&](const LinearPlace& place, Linear& linear) {
      const std::string weight = place.name + ".weight";
      const TensorInfo* info = source.find(weight, linear.weight.sizes());
      if (info != nullptr && info->type->blocks) {
        linear.packed = source.packed(*info, weight, dtype);
        linear.weight = at::Tensor();
      }
    });
  }
  for_each_tensor(model, [&](const std::string& name, at::Tensor& slot) {
    if (const TensorInfo* info = source.find(name, slot.sizes())) {
      slot = source.dense(*info, name, dtype);
    }
  });
  source.check_complete();
  if (tied) {
    model.head.linear.weight = model.embedding;
  }
  model.source = settled(path).string();
  return options.device == model.device() ? model : model.to(std::nullopt, options.device);
}

std::string save_model(const Model& model, const std::string& path) {
  const auto fail = [&](const std::string& what) { throw ValueError(fmt::format("hemostat.Model.save: {}", what)); };
  // GGUF holds what a family's config expresses, and other rotations.
  Model plain = shapes_only(model);
  const CheckpointConfig config = parse_config(fitted_config(plain).config, path);
  for (size_t i = 0; i < plain.blocks.size(); ++i) {
    plain.blocks[i].attention.rope = config.layers[i].rope;
  }
  if (!fitted_config(plain).expressible) {
    fail(
        fmt::format("{}: a GGUF file of a {} model cannot express what was changed (per-layer sizes, factors, input "
                    "or output treatments); save to a directory",
                    path, model.config.family));
  }

  const fs::path target = replaceable(path);
  PartialFile output(target);

  Writer writer;
  std::vector<std::string> notes;
  if (const std::string overlooked = add_config(writer, model, config); !overlooked.empty()) {
    notes.push_back(fmt::format("transformers overlooks {} in a GGUF file", overlooked));
  }
  const std::string type = add_tensors(writer, model, config.head_dim);
  writer.add("general.file_type", file_type(type));
  if (type.starts_with("Q") || type.starts_with("IQ")) {
    writer.add("general.quantization_version", uint32_t{2});
  }
  std::error_code error;
  if (is_path(model.source) && fs::is_regular_file(model.source, error)) {
    copy_descriptions(writer, File(model.source));
  } else if (fs::is_directory(model.source, error)) {
    if (const std::string note = add_tokenizer(writer, model.source, model); !note.empty()) {
      notes.push_back(note);
    }
  } else if (!model.source.empty()) {
    notes.push_back(fmt::format("{}, where the model came from, is not there any more, and so its tokenizer is missing",
                                model.source));
  }
  writer.write([&](const void* data, size_t bytes) { output.write(data, bytes); });
  output.finish();
  return notes.empty() ? "" : fmt::format("{}: {}", path, fmt::join(notes, "; "));
}

}  // namespace hemostat::gguf
