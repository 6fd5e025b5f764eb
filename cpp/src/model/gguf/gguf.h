// The GGUF format: a header, metadata (typed keys and values), the tensors' descriptions, then their aligned bytes, all
// little-endian. https://github.com/ggml-org/ggml/blob/master/docs/gguf.md describes it. Nothing here knows of models.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include <ATen/core/Tensor.h>
#include <c10/core/ScalarType.h>

#include <hemostat/quantize.h>

#include "model/mapped_file.h"

namespace hemostat::gguf {

// The numbers that stand for types in the file.
enum class ValueType : uint32_t {
  uint8,
  int8,
  uint16,
  int16,
  uint32,
  int32,
  float32,
  boolean,
  string,
  array,
  uint64,
  int64,
  float64
};

// How a tensor's rows are stored: blocks of `entries` in `bytes`.
struct TensorType {
  std::string name;
  uint32_t number;
  int64_t entries, bytes;
  std::optional<quantize::GgufType> blocks;  // none: MXFP4, or single values, of `values`
  at::ScalarType values;

  bool in_blocks() const { return entries > 1; }
};

const TensorType& tensor_type(at::ScalarType type);  // float32, float16 or bfloat16; else TypeError

// Of a weight that a file can hold as it is; null: it cannot.
const TensorType* tensor_type(const quantize::PackedWeight& weight);

// Between such a weight and its blocks, uint8 [rows, bytes per row].
std::shared_ptr<const quantize::PackedWeight> packed(const TensorType& type, const at::Tensor& blocks,
                                                     at::ScalarType dtype);
at::Tensor blocks_of(const quantize::PackedWeight& weight);

// A view on the values where they lie in the file.
struct Array {
  ValueType type = ValueType::uint8;  // of each value
  uint64_t count = 0;
  std::string_view bytes;

  // The values as integers, numbers or strings. Empty optional: they are of another kind.
  std::optional<std::vector<int64_t>> integers() const;
  std::optional<std::vector<double>> numbers() const;
  std::optional<std::vector<std::string_view>> strings() const;
};

using Value = std::variant<bool, int64_t, uint64_t, double, std::string_view, Array>;

struct Entry {
  ValueType type;
  Value value;
  std::string_view bytes;  // the value as it is written
};

struct TensorInfo {
  std::string name;
  const TensorType* type;
  std::vector<int64_t> shape;  // as torch orders it: rows first
  uint64_t begin, bytes;       // within the file
};

// A file, validated whole: every count, length, offset and shape is within the file, no name comes twice, tensors
// follow each other at the stated alignment. ValueError naming the file and the key or tensor.
class File {
 public:
  explicit File(const std::string& path);

  const std::string& path() const { return path_; }
  const std::map<std::string, Entry, std::less<>>& metadata() const { return metadata_; }
  const std::map<std::string, TensorInfo, std::less<>>& tensors() const { return tensors_; }

  // Views on the privately mapped, writable file, which lives as long as any of them: values in their dtype, or for
  // blocks uint8 […, bytes per row].
  at::Tensor view(const TensorInfo& tensor) const { return view_(tensor); }

  // Metadata as one kind; std::nullopt where the key is missing, ValueError where it is of another kind.
  std::optional<std::string_view> text(std::string_view key) const;
  std::optional<int64_t> integer(std::string_view key) const;
  std::optional<int64_t> token(std::string_view kind) const;  // a special token's ID, which −1 is not
  std::optional<double> number(std::string_view key) const;
  std::optional<bool> boolean(std::string_view key) const;
  std::optional<Array> array(std::string_view key) const;

  [[noreturn]] void fail(const std::string& what) const;  // "hemostat.Model.load: <path> <what>"

 private:
  friend class Writer;

  using View = std::function<at::Tensor(const TensorInfo&)>;
  // A file of `size` bytes whose header `bytes` begin with; who calls keeps them.
  File(const std::string& path, std::string_view bytes, uint64_t size, View view);

  void parse(std::string_view bytes, uint64_t size);

  std::string path_;
  View view_;
  std::map<std::string, Entry, std::less<>> metadata_;
  std::map<std::string, TensorInfo, std::less<>> tensors_;
};

// Builds a file of version 3. Keys and tensors stay in the order in which they were added.
class Writer {
 public:
  void add(const std::string& key, const std::string& value);
  void add(const std::string& key, const char* value) { add(key, std::string(value)); }
  void add(const std::string& key, uint32_t value);
  void add(const std::string& key, float value);
  void add(const std::string& key, bool value);
  void add(const std::string& key, const std::vector<std::string>& values);
  void add(const std::string& key, const std::vector<int32_t>& values);
  void add(const std::string& key, const std::vector<float>& values);
  void add(const std::string& key, const Entry& entry);  // as another file has it

  // A tensor of that shape; data() gives its values or blocks when they are written.
  void add(const std::string& name, const TensorType& type, std::vector<int64_t> shape,
           std::function<at::Tensor()> data);
  void add(const std::string& name, const at::Tensor& values);  // in their dtype

  // The whole file, piece by piece.
  void write(const std::function<void(const void* data, size_t bytes)>& output) const;

  // What a reader of the whole file finds in it; `path` is its name in messages. Lives as long as the writer, and until
  // more is added.
  File read_back(const std::string& path);

  bool has(const std::string& key) const { return keys_.count(key) != 0; }

 private:
  struct Tensor {
    TensorInfo info;
    std::function<at::Tensor()> data;
  };
  void key(const std::string& name, ValueType type);
  std::string header() const;  // all before the tensors' bytes

  std::set<std::string> keys_;
  std::string header_;  // of read_back
  std::string metadata_;
  std::vector<Tensor> tensors_;
};

}  // namespace hemostat::gguf
