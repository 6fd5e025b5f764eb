#include "model/gguf/model.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <string_view>

#include <ATen/ops/cat.h>
#include <ATen/ops/stack.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <hemostat/error.h>

#include "model/cast.h"
#include "model/family_fit.h"
#include "model/finite.h"
#include "model/gguf/config.h"
#include "model/gguf/gguf.h"
#include "model/gguf/layout.h"
#include "model/gguf/rope.h"
#include "model/gguf/tokenizer.h"
#include "model/partial_file.h"
#include "model/skeleton.h"
#include "model/tensor_slots.h"

namespace hemostat::gguf {
namespace {

namespace fs = std::filesystem;

// Takes the tensors of a file for a model's slots, each once.
class Source {
 public:
  Source(const File& file, const CheckpointConfig& config, const Model& skeleton) : file_(file), config_(config) {
    for (const FileTensor& tensor : layout(skeleton)) {
      add(tensor);
    }
    check_complete();
  }

  // Its weight where it is stored in blocks, else null.
  std::shared_ptr<const quantize::PackedWeight> packed(const std::string& name, at::ScalarType dtype) const {
    const Slot& slot = slots_.at(name);
    return slot.info->type->in_blocks() ? gguf::packed(*slot.info->type, rows(slot), dtype) : nullptr;
  }

  at::Tensor dense(const std::string& name, at::ScalarType dtype) const {
    const Slot& slot = slots_.at(name);
    const std::string subject = "hemostat.Model.load: " + name;
    const TensorType& type = *slot.info->type;
    if (!type.in_blocks()) {
      const at::Tensor values = rows(slot);
      return cast(slot.part.offset != 0 ? values.to(at::kFloat) - slot.part.offset : values, dtype, subject);
    }
    if (slot.part.sizes.size() != 2) {
      file_.fail(fmt::format("stores tensor '{}', which is no matrix, as {}", slot.info->name, type.name));
    }
    at::Tensor values = gguf::packed(type, rows(slot), dtype)->dequantize();
    if (dtype == at::kHalf && !extent_of(values).finite()) {
      values = cast(gguf::packed(type, rows(slot), at::kFloat)->dequantize(), dtype, subject);
    }
    return values;
  }

 private:
  struct Slot {
    const TensorInfo* info;
    Part part;
    bool expert;
    int64_t begin;  // the first of its rows, or which expert
  };

  void add(const FileTensor& tensor) {
    const auto found = file_.tensors().find(tensor.name);
    if (found == file_.tensors().end()) {
      missing_.push_back(tensor.name);
      return;
    }
    const TensorInfo& info = found->second;
    if (info.shape != tensor.shape()) {
      file_.fail(fmt::format("has tensor '{}' of shape [{}], but its metadata asks for [{}]", tensor.name,
                             fmt::join(info.shape, ", "), fmt::join(tensor.shape(), ", ")));
    }
    used_.insert(tensor.name);
    int64_t begin = 0;
    for (const Part& part : tensor.parts) {
      slots_.emplace(part.name, Slot{&info, part, tensor.experts, begin});
      begin += tensor.experts ? 1 : part.sizes.front();
    }
  }

  // Bytes or values, in our order.
  at::Tensor rows(const Slot& slot) const {
    const at::Tensor whole = file_.view(*slot.info);
    const at::Tensor own =
        slot.expert ? whole.select(0, slot.begin) : whole.narrow(0, slot.begin, slot.part.sizes.front());
    return slot.part.adjacent ? own.index_select(0, row_order(own.size(0), config_.head_dim, /*to_file=*/false)) : own;
  }

  void check_complete() const {
    if (!missing_.empty()) {
      file_.fail(fmt::format("has no tensor '{}'{}", missing_.front(),
                             missing_.size() > 1 ? fmt::format(", and {} more are missing", missing_.size() - 1) : ""));
    }
    for (const auto& [name, info] : file_.tensors()) {
      if (used_.count(name) == 0 && !is_rope_tensor(family_of(config_.model), name)) {
        file_.fail(fmt::format("has tensor '{}', which has no place in a {} model with this metadata", name,
                               config_.model.family));
      }
    }
  }

  const File& file_;
  const CheckpointConfig& config_;
  std::map<std::string, Slot> slots_;
  std::set<std::string, std::less<>> used_;
  std::vector<std::string> missing_;
};

// llama.cpp's name for a whole file of one type (enum llama_ftype), for people and tools that list files.
uint32_t file_type(const std::string& type) {
  static const std::map<std::string, uint32_t> kNumbers = {
      {"F32", 0},   {"F16", 1},   {"Q4_0", 2},  {"Q4_1", 3},    {"Q8_0", 7},  {"Q5_0", 8},  {"Q5_1", 9},   {"Q2_K", 10},
      {"Q3_K", 12}, {"Q4_K", 15}, {"Q5_K", 17}, {"IQ4_NL", 25}, {"Q6_K", 18}, {"BF16", 32}, {"MXFP4", 38},
  };
  return kNumbers.at(type);
}

// What a file's tensor has of one of the model's: a packed weight that it can hold, or values.
struct Content {
  std::shared_ptr<const quantize::PackedWeight> packed;
  at::Tensor values;
};

// One tensor of the file, its rows in the file's order, its parts together. `type` is that of its blocks, or of values.
at::Tensor together(const FileTensor& tensor, const std::vector<Content>& contents, const TensorType& type,
                    int64_t head_dim) {
  std::vector<at::Tensor> parts;
  for (size_t i = 0; i < contents.size(); ++i) {
    const auto& [packed, values] = contents[i];
    const Part& part = tensor.parts[i];
    at::Tensor own = type.in_blocks() ? blocks_of(*packed) : packed ? packed->dequantize() : values;
    if (!type.in_blocks()) {
      own = part.offset != 0 ? own.to(at::kFloat) + part.offset : own.to(type.values);
    }
    if (part.adjacent) {
      own = own.index_select(0, row_order(own.size(0), head_dim, /*to_file=*/true).to(own.device()));
    }
    parts.push_back(own);
  }
  return tensor.experts ? at::stack(parts) : parts.size() == 1 ? parts.front() : at::cat(parts);
}

struct Written {
  std::string most;   // the type that most linears have
  int64_t mixed = 0;  // tensors whose parts were stored in different types
};

Written add_tensors(Writer& writer, Model model, int64_t head_dim) {
  std::map<std::string, Content> contents;
  std::map<std::string, int64_t> counts;
  for_each_linear(model, [&](const LinearPlace& place, Linear& linear) {
    const TensorType* type = linear.packed ? tensor_type(*linear.packed) : nullptr;
    if (place.role != Role::head) {
      ++counts[type != nullptr ? type->name : tensor_type(model.dtype()).name];
    }
    if (linear.packed) {
      contents[place.name + ".weight"] = {linear.packed, {}};
    }
  });
  for_each_stored(model,
                  [&](const std::string& name, const at::Tensor& tensor) { contents[name] = {nullptr, tensor}; });

  Written result;
  for (const FileTensor& tensor : layout(model)) {
    std::vector<Content> parts;
    std::set<const TensorType*> types;
    for (const Part& part : tensor.parts) {
      const Content& content = parts.emplace_back(contents.at(part.name));
      types.insert(content.packed ? tensor_type(*content.packed) : nullptr);
    }
    const bool blocks = types.size() == 1 && *types.begin() != nullptr;
    result.mixed += types.size() > 1 ? 1 : 0;
    // llama.cpp computes with these in float32, whatever the model's dtype.
    const TensorType* type = blocks ? *types.begin() : &tensor_type(tensor.precise ? at::kFloat : model.dtype());
    writer.add(tensor.name, *type, tensor.shape(),
               [tensor, parts, type, head_dim] { return together(tensor, parts, *type, head_dim); });
  }
  const auto most =
      std::max_element(counts.begin(), counts.end(), [](const auto& x, const auto& y) { return x.second < y.second; });
  result.most = most == counts.end() ? tensor_type(model.dtype()).name : most->first;
  return result;
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
  const Source source(file, config, model);
  const bool tied = model.tied();
  if (tied) {
    model.head.linear.weight = at::Tensor();
  }
  for (size_t i = 0; i < model.blocks.size() && !options.dtype; ++i) {
    const std::string prefix = config.model.names.block + std::to_string(i) + ".";
    for_each_linear(model.blocks[i], config.model.names, prefix, [&](const LinearPlace& place, Linear& linear) {
      if (auto packed = source.packed(place.name + ".weight", dtype)) {
        linear.packed = std::move(packed);
        linear.weight = at::Tensor();
      }
    });
  }
  for_each_tensor(model, [&](const std::string& name, at::Tensor& slot) { slot = source.dense(name, dtype); });
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

  Writer writer;
  std::vector<std::string> notes;
  if (const std::string overlooked = add_config(writer, model, config); !overlooked.empty()) {
    notes.push_back(fmt::format("transformers overlooks {} in a GGUF file", overlooked));
  }
  const Written written = add_tensors(writer, model, config.head_dim);
  check_says(writer, model, path);
  const auto otherwise = family_of(model.config).gguf.otherwise;
  if (const std::string what = otherwise != nullptr ? otherwise(config) : ""; !what.empty()) {
    notes.push_back("llama.cpp " + what);
  }
  const bool longrope = std::any_of(model.blocks.begin(), model.blocks.end(), [](const Block& block) {
    return block.attention.rope.long_inverse_frequencies.defined();
  });
  if (longrope) {
    notes.emplace_back("llama.cpp takes the long rotations by the context that it makes room for, not by what is read");
  }
  if (written.mixed > 0) {
    notes.push_back(fmt::format("{} of its tensors hold linears of different types, and so are {}", written.mixed,
                                tensor_type(model.dtype()).name));
  }
  writer.add("general.file_type", file_type(written.most));
  if (written.most.starts_with("Q") || written.most.starts_with("IQ") || written.most == "MXFP4") {
    writer.add("general.quantization_version", uint32_t{2});
  }
  PartialFile output(target);
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
  if (!writer.has("tokenizer.ggml.model")) {
    writer.add("tokenizer.ggml.model", "none");  // without which llama.cpp loads no file
  }
  writer.write([&](const void* data, size_t bytes) { output.write(data, bytes); });
  output.finish();
  return notes.empty() ? "" : fmt::format("{}: {}", path, fmt::join(notes, "; "));
}

}  // namespace hemostat::gguf
