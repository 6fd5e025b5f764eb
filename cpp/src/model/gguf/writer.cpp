#include <algorithm>

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
  keys_.insert(name);
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

void Writer::add(const std::string& name, const TensorType& type, std::vector<int64_t> shape,
                 std::function<at::Tensor()> data) {
  int64_t blocks = 1;
  for (const int64_t size : shape) {
    blocks *= size;
  }
  const auto bytes = static_cast<uint64_t>(blocks / type.entries * type.bytes);
  const uint64_t end = tensors_.empty() ? 0 : tensors_.back().info.begin + tensors_.back().info.bytes;
  tensors_.push_back({{name, &type, std::move(shape), end + padding(end), bytes}, std::move(data)});
}

void Writer::add(const std::string& name, const at::Tensor& values) {
  add(name, tensor_type(values.scalar_type()), values.sizes().vec(), [values] { return values; });
}

std::string Writer::header() const {
  std::string bytes = "GGUF";
  append(bytes, kVersion);
  append(bytes, uint64_t{tensors_.size()});
  append(bytes, uint64_t{keys_.size()});
  bytes += metadata_;
  for (const auto& [info, data] : tensors_) {
    append(bytes, info.name);
    append(bytes, static_cast<uint32_t>(info.shape.size()));
    for (auto size = info.shape.rbegin(); size != info.shape.rend(); ++size) {  // ggml's order: fastest first
      append(bytes, static_cast<uint64_t>(*size));
    }
    append(bytes, info.type->number);
    append(bytes, info.begin);
  }
  bytes.append(padding(bytes.size()), '\0');
  return bytes;
}

void Writer::write(const std::function<void(const void* data, size_t bytes)>& output) const {
  const std::string head = header(), zeros(kAlignment, '\0');
  output(head.data(), head.size());
  for (const auto& [info, data] : tensors_) {
    const at::Tensor bytes = data().detach().to(at::kCPU).contiguous();
    output(bytes.const_data_ptr(), bytes.nbytes());
    output(zeros.data(), padding(bytes.nbytes()));
  }
}

File Writer::read_back(const std::string& path) {
  header_ = header();
  const uint64_t data = tensors_.empty() ? 0 : tensors_.back().info.begin + tensors_.back().info.bytes;
  return File(path, header_, header_.size() + data, [this](const TensorInfo& wanted) {
    const auto found = std::find_if(tensors_.begin(), tensors_.end(),
                                    [&](const Tensor& tensor) { return tensor.info.name == wanted.name; });
    return found->data();
  });
}

}  // namespace hemostat::gguf
