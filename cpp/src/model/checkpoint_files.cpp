#include "checkpoint_files.h"

#include <filesystem>
#include <regex>
#include <set>

#include <fmt/format.h>

namespace hemostat {

bool holds_weights(const std::string& name) {
  // Parts are numbers and dtypes: model.fp16-00001-of-00002.safetensors. A backup (model.old.safetensors) is no part.
  const auto weights = [](const char* stem, const char* extension) {
    constexpr const char* kParts = R"((?:[.-](?:\d+|\d+-of-\d+|(?:fp|bf|float|bfloat)\d+))*)";
    return fmt::format("(?:{}){}\\.{}", stem, kParts, extension);
  };
  static const std::regex kPattern(
      fmt::format(R"((?:{}|{}|{}|{}|{}|.+\.safetensors(?=\.index))(?:\.index(?:\.\w+)?\.json)?|hemostat\.json)",
                  weights("model|consolidated", "safetensors"), weights("pytorch_model", "bin"),
                  weights("consolidated", "pth"), weights("tf_model", "h5"), weights("flax_model", "msgpack")));
  return std::regex_match(name, kPattern);
}

bool holds_tensors(const std::string& name) {
  static const std::set<std::string, std::less<>> kExtensions = {
      ".bin",       ".ckpt", ".ggml", ".gguf", ".h5",  ".mlmodel", ".msgpack",     ".npz",    ".onnx",
      ".onnx_data", ".ot",   ".pkl",  ".pt",   ".pth", ".pickle",  ".safetensors", ".tflite",
  };
  return holds_weights(name) || name.find(".ckpt.") != std::string::npos ||
         kExtensions.contains(std::filesystem::path(name).extension().string());
}

}  // namespace hemostat
