#include <ATen/core/Tensor.h>

#include "model/gguf/gguf.h"

namespace hemostat::gguf {
namespace {

constexpr uint32_t kVersion = 3;
constexpr uint64_t kAlignment = 32;  // what readers take where general.alignment is missing

uint64_t padding(uint64_t bytes) { return (kAlignment - bytes % kAlignment) % kAlignment; }

template <typename T>
void append(std::string& bytes, T value) {
  bytes.append(reinterpret_cast<const char*>(&value), sizeof(T));
}

void append(std::string& bytes, const std::string& text) {
  append(bytes, uint64_t{text.size()});
  bytes += text;
}

}  // namespace

void Writer::key(const std::string& name, ValueType type) {
  append(metadata_, name);
  append(metadata_, static_cast<uint32_t>(type));
  ++keys_;
}

void Writer::add(const std::string& name, const std::string& value) {
  key(name, ValueType::string);
  append(metadata_, value);
}

void Writer::add(const std::string& name, uint32_t value) {
  key(name, ValueType::uint32);
  append(metadata_, value);
}

void Writer::add(const std::string& name, float value) {
  key(name, ValueType::float32);
  append(metadata_, value);
}

void Writer::add(const std::string& name, bool value) {
  key(name, ValueType::boolean);
  append(metadata_, static_cast<uint8_t>(value));
}

void Writer::add(const std::string& name, const std::vector<std::string>& values) {
  key(name, ValueType::array);
  append(metadata_, static_cast<uint32_t>(ValueType::string));
  append(metadata_, uint64_t{values.size()});
  for (const std::string& value : values) {
    append(metadata_, value);
  }
}

void Writer::add(const std::string& name, const std::vector<int32_t>& values) {
  key(name, ValueType::array);
  append(metadata_, static_cast<uint32_t>(ValueType::int32));
  append(metadata_, uint64_t{values.size()});
  metadata_.append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(int32_t));
}

void Writer::add(const std::string& name, const std::vector<float>& values) {
  key(name, ValueType::array);
  append(metadata_, static_cast<uint32_t>(ValueType::float32));
  append(metadata_, uint64_t{values.size()});
  metadata_.append(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float));
}

void Writer::add(const std::string& name, const Entry& entry) {
  key(name, entry.type);
  metadata_ += entry.bytes;
}

void Writer::add(const std::string& name, const at::Tensor& values) {
  tensors_.push_back({name, &tensor_type(values.scalar_type()), values.sizes().vec(), values});
}

void Writer::add(const std::string& name, const at::Tensor& blocks, const TensorType& type) {
  std::vector<int64_t> shape = blocks.sizes().vec();
  shape.back() = shape.back() / type.bytes * type.entries;
  tensors_.push_back({name, &type, std::move(shape), blocks});
}

std::string Writer::header() const {
  std::string bytes = "GGUF";
  append(bytes, kVersion);
  append(bytes, uint64_t{tensors_.size()});
  append(bytes, keys_);
  bytes += metadata_;
  uint64_t offset = 0;
  for (const Tensor& tensor : tensors_) {
    append(bytes, tensor.name);
    append(bytes, static_cast<uint32_t>(tensor.shape.size()));
    for (auto size = tensor.shape.rbegin(); size != tensor.shape.rend(); ++size) {  // ggml's order: fastest first
      append(bytes, static_cast<uint64_t>(*size));
    }
    append(bytes, tensor.type->number);
    append(bytes, offset);
    offset += tensor.data.nbytes() + padding(tensor.data.nbytes());
  }
  bytes.append(padding(bytes.size()), '\0');
  return bytes;
}

void Writer::write(const std::function<void(const void* data, size_t bytes)>& output) const {
  const std::string head = header(), zeros(kAlignment, '\0');
  output(head.data(), head.size());
  for (const Tensor& tensor : tensors_) {
    const at::Tensor bytes = tensor.data.detach().to(at::kCPU).contiguous();
    output(bytes.const_data_ptr(), bytes.nbytes());
    output(zeros.data(), padding(bytes.nbytes()));
  }
}

}  // namespace hemostat::gguf
