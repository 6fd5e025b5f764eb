#include "safetensors.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <string_view>
#include <vector>

#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <c10/core/ScalarType.h>
#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <hemostat/error.h>

#include "json.h"
#include "mapped_file.h"

namespace hemostat::safetensors {
namespace {

using nlohmann::json;

constexpr uint64_t kMaximumHeader = 100'000'000;  // bytes, as the format's own reader allows

struct Dtype {
  const char* name;
  at::ScalarType type;
};

constexpr Dtype kDtypes[] = {
    {"F64", at::kDouble},
    {"F32", at::kFloat},
    {"F16", at::kHalf},
    {"BF16", at::kBFloat16},
    {"F8_E4M3", at::kFloat8_e4m3fn},
    {"F8_E5M2", at::kFloat8_e5m2},
    {"I64", at::kLong},
    {"I32", at::kInt},
    {"I16", at::kShort},
    {"I8", at::kChar},
    {"U8", at::kByte},
    {"BOOL", at::kBool},
};

struct Entry {
  std::string name;
  at::ScalarType type;
  std::vector<int64_t> shape;
  uint64_t begin, end;
};

class HeaderReader {
 public:
  HeaderReader(const std::string& path, const MappedFile& file) : path_(path), file_(file) {}

  std::vector<Entry> read() {
    if (file_.size() < 8) {
      fail(fmt::format("is {} bytes long; a header length alone takes 8", file_.size()));
    }
    uint64_t length = 0;
    std::memcpy(&length, file_.data(), 8);
    if (length > kMaximumHeader) {
      fail(fmt::format("states a header of {} bytes; at most {} are accepted", length, kMaximumHeader));
    }
    if (length > file_.size() - 8) {
      fail(fmt::format("states a header of {} bytes, but only {} follow: it is truncated", length, file_.size() - 8));
    }
    data_begin_ = 8 + length;
    const json header = parse_object(std::string_view(file_.data() + 8, length), fmt::format("{}: its header", path_));
    std::vector<Entry> entries;
    for (const auto& [name, value] : header.items()) {
      if (name != "__metadata__") {
        entries.push_back(entry(name, value));
      }
    }
    check_layout(entries);
    return entries;
  }

  uint64_t data_begin() const { return data_begin_; }

 private:
  [[noreturn]] void fail(const std::string& what) const {
    throw ValueError(fmt::format("hemostat.Model.load: {} {}", path_, what));
  }

  Entry entry(const std::string& name, const json& value) const {
    if (!value.is_object() || !value.contains("dtype") || !value["dtype"].is_string() || !value.contains("shape") ||
        !value["shape"].is_array() || !value.contains("data_offsets") || !value["data_offsets"].is_array() ||
        value["data_offsets"].size() != 2) {
      fail(fmt::format("describes tensor '{}' without a dtype, a shape and two data_offsets", name));
    }
    const std::string dtype = value["dtype"];
    const auto* known =
        std::find_if(std::begin(kDtypes), std::end(kDtypes), [&](const Dtype& d) { return dtype == d.name; });
    if (known == std::end(kDtypes)) {
      fail(fmt::format("gives tensor '{}' the unknown dtype '{}'", name, dtype));
    }
    Entry entry{name, known->type, {}, 0, 0};
    uint64_t bytes = c10::elementSize(known->type), extent = bytes;  // extent: with sizes of 0 taken for 1
    for (const json& size : value["shape"]) {
      if (!size.is_number_unsigned() || size.get<uint64_t>() > static_cast<uint64_t>(INT64_MAX)) {
        fail(fmt::format("gives tensor '{}' the shape {}, which is not a list of sizes", name, value["shape"].dump()));
      }
      if (__builtin_mul_overflow(extent, std::max<uint64_t>(size.get<uint64_t>(), 1), &extent) ||
          extent > static_cast<uint64_t>(INT64_MAX)) {
        fail(fmt::format("gives tensor '{}' the shape {}, whose size overflows", name, value["shape"].dump()));
      }
      bytes *= size.get<uint64_t>();
      entry.shape.push_back(size.get<int64_t>());
    }
    for (const json& offset : value["data_offsets"]) {
      if (!offset.is_number_unsigned()) {
        fail(fmt::format("gives tensor '{}' the data_offsets {}", name, value["data_offsets"].dump()));
      }
    }
    entry.begin = value["data_offsets"][0].get<uint64_t>();
    entry.end = value["data_offsets"][1].get<uint64_t>();
    const uint64_t available = file_.size() - data_begin_;
    if (entry.begin > entry.end || entry.end > available) {
      fail(fmt::format("places tensor '{}' at bytes {} … {} of {}: it is truncated or its header lies", name,
                       entry.begin, entry.end, available));
    }
    if (entry.end - entry.begin != bytes) {
      fail(fmt::format("gives tensor '{}' {} bytes, but {} of shape {} takes {}", name, entry.end - entry.begin, dtype,
                       value["shape"].dump(), bytes));
    }
    return entry;
  }

  // The format leaves no byte unused and none used twice.
  void check_layout(std::vector<Entry> entries) const {
    std::sort(entries.begin(), entries.end(),
              [](const Entry& x, const Entry& y) { return std::pair(x.begin, x.end) < std::pair(y.begin, y.end); });
    uint64_t expected = 0;
    for (const Entry& entry : entries) {
      if (entry.begin != expected) {
        fail(fmt::format("has {} before tensor '{}'", entry.begin < expected ? "overlapping data" : "unused bytes",
                         entry.name));
      }
      expected = entry.end;
    }
    if (data_begin_ + expected != file_.size()) {
      fail(fmt::format("has {} bytes after its last tensor", file_.size() - data_begin_ - expected));
    }
  }

  const std::string& path_;
  const MappedFile& file_;
  uint64_t data_begin_ = 0;
};

const char* dtype_name(at::ScalarType type) {
  for (const Dtype& dtype : kDtypes) {
    if (dtype.type == type) {
      return dtype.name;
    }
  }
  throw TypeError(fmt::format("hemostat.Model.save: safetensors has no dtype for {}", c10::toString(type)));
}

}  // namespace

std::map<std::string, at::Tensor> load(const std::string& path) {
  auto file = std::make_shared<MappedFile>(path);
  HeaderReader reader(path, *file);
  std::map<std::string, at::Tensor> tensors;
  for (const Entry& entry : reader.read()) {
    const auto options = at::TensorOptions().dtype(entry.type);
    if (entry.begin == entry.end) {
      tensors.emplace(entry.name, at::empty(entry.shape, options));
      continue;
    }
    char* data = file->data() + reader.data_begin() + entry.begin;
    if (reinterpret_cast<uintptr_t>(data) % c10::elementSize(entry.type) == 0) {
      tensors.emplace(entry.name, at::from_blob(data, entry.shape, [file](void*) {}, options));
    } else {
      at::Tensor copy = at::empty(entry.shape, options);
      std::memcpy(copy.mutable_data_ptr(), data, entry.end - entry.begin);
      tensors.emplace(entry.name, std::move(copy));
    }
  }
  return tensors;
}

void write(const std::map<std::string, at::Tensor>& tensors,
           const std::function<void(const void* data, size_t bytes)>& output) {
  nlohmann::ordered_json header;
  header["__metadata__"] = {{"format", "pt"}};
  uint64_t offset = 0;
  for (const auto& [name, tensor] : tensors) {
    const uint64_t end = offset + static_cast<uint64_t>(tensor.numel()) * tensor.element_size();
    header[name] = {{"dtype", dtype_name(tensor.scalar_type())},
                    {"shape", std::vector<int64_t>(tensor.sizes().begin(), tensor.sizes().end())},
                    {"data_offsets", {offset, end}}};
    offset = end;
  }
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');  // so that every tensor's bytes are aligned
  const uint64_t length = text.size();
  output(&length, 8);
  output(text.data(), text.size());
  for (const auto& [name, tensor] : tensors) {
    const at::Tensor bytes = tensor.detach().to(at::kCPU).contiguous();
    output(bytes.const_data_ptr(), bytes.nbytes());
  }
}

}  // namespace hemostat::safetensors
