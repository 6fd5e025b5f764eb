#include "model/gguf/gguf.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <type_traits>

#include <ATen/ops/cat.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/stack.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <hemostat/error.h>

namespace hemostat::gguf {
namespace {

constexpr char kMagic[] = {'G', 'G', 'U', 'F'};
constexpr uint64_t kDefaultAlignment = 32, kLargestAlignment = 1 << 20;
constexpr uint32_t kMostDimensions = 4;
constexpr int kDeepestArray = 8;

constexpr uint32_t kMxfp4 = 39;
constexpr int64_t kMxfp4Entries = 32;

// Types of single values by ggml's numbers, MXFP4, and the block formats that room quantize knows.
const std::vector<TensorType>& tensor_types() {
  static const std::vector<TensorType> types = [] {
    std::vector<TensorType> result = {{"F32", 0, 1, 4, std::nullopt, at::kFloat},
                                      {"F16", 1, 1, 2, std::nullopt, at::kHalf},
                                      {"BF16", 30, 1, 2, std::nullopt, at::kBFloat16},
                                      {"MXFP4", kMxfp4, kMxfp4Entries, 1 + kMxfp4Entries / 2, std::nullopt, at::kByte}};
    for (const quantize::GgufType type : quantize::gguf_types()) {
      result.push_back({quantize::gguf_name(type), static_cast<uint32_t>(type), quantize::gguf_block_size(type),
                        quantize::gguf_block_bytes(type), type, at::kByte});
    }
    return result;
  }();
  return types;
}

template <typename Predicate>
const TensorType* find_type(const Predicate& predicate) {
  const auto found = std::find_if(tensor_types().begin(), tensor_types().end(), predicate);
  return found == tensor_types().end() ? nullptr : &*found;
}

std::string supported_types() {
  std::vector<std::string_view> names;
  for (const TensorType& type : tensor_types()) {
    names.emplace_back(type.name);
  }
  return fmt::format("{}", fmt::join(names, ", "));
}

// Bytes of one value; 0: it has no fixed size.
uint64_t width(ValueType type) {
  switch (type) {
    case ValueType::uint8:
    case ValueType::int8:
    case ValueType::boolean:
      return 1;
    case ValueType::uint16:
    case ValueType::int16:
      return 2;
    case ValueType::uint32:
    case ValueType::int32:
    case ValueType::float32:
      return 4;
    case ValueType::uint64:
    case ValueType::int64:
    case ValueType::float64:
      return 8;
    default:
      return 0;
  }
}

template <typename T>
T at(const char* bytes) {
  T value;
  std::memcpy(&value, bytes, sizeof(T));
  return value;
}

// A value of fixed size.
Value decoded(ValueType type, const char* bytes) {
  switch (type) {
    case ValueType::uint8:
      return uint64_t{at<uint8_t>(bytes)};
    case ValueType::uint16:
      return uint64_t{at<uint16_t>(bytes)};
    case ValueType::uint32:
      return uint64_t{at<uint32_t>(bytes)};
    case ValueType::uint64:
      return at<uint64_t>(bytes);
    case ValueType::int8:
      return int64_t{at<int8_t>(bytes)};
    case ValueType::int16:
      return int64_t{at<int16_t>(bytes)};
    case ValueType::int32:
      return int64_t{at<int32_t>(bytes)};
    case ValueType::int64:
      return at<int64_t>(bytes);
    case ValueType::float32:
      return double{at<float>(bytes)};
    case ValueType::float64:
      return at<double>(bytes);
    default:
      return at<uint8_t>(bytes) != 0;
  }
}

std::optional<int64_t> as_integer(const Value& value) {
  if (const auto* number = std::get_if<int64_t>(&value)) {
    return *number;
  }
  const auto* number = std::get_if<uint64_t>(&value);
  return number != nullptr && *number <= static_cast<uint64_t>(INT64_MAX) ? std::optional(static_cast<int64_t>(*number))
                                                                          : std::nullopt;
}

std::optional<double> as_number(const Value& value) {
  if (const auto* number = std::get_if<double>(&value)) {
    return *number;
  }
  const auto integer = as_integer(value);
  return integer ? std::optional(static_cast<double>(*integer)) : std::nullopt;
}

// Values of fixed size, each by `convert`; std::nullopt where it takes one of them for another kind.
template <typename T, typename Convert>
std::optional<std::vector<T>> converted(const Array& array, const Convert& convert) {
  const uint64_t step = width(array.type);
  if (step == 0) {
    return std::nullopt;
  }
  std::vector<T> result;
  result.reserve(array.count);  // the file holds as many
  for (uint64_t i = 0; i < array.count; ++i) {
    const std::optional<T> value = convert(decoded(array.type, array.bytes.data() + i * step));
    if (!value) {
      return std::nullopt;
    }
    result.push_back(*value);
  }
  return result;
}

bool is_utf8(std::string_view text) {
  for (size_t i = 0; i < text.size();) {
    const auto byte = [&](size_t offset) { return static_cast<unsigned char>(text[i + offset]); };
    const size_t length = byte(0) < 0x80                       ? 1
                          : byte(0) >= 0xC2 && byte(0) <= 0xDF ? 2
                          : (byte(0) & 0xF0) == 0xE0           ? 3
                          : byte(0) >= 0xF0 && byte(0) <= 0xF4 ? 4
                                                               : 0;
    if (length == 0 || length > text.size() - i) {
      return false;
    }
    for (size_t offset = 1; offset < length; ++offset) {
      if ((byte(offset) & 0xC0) != 0x80) {
        return false;
      }
    }
    const bool overlong = (byte(0) == 0xE0 && byte(1) < 0xA0) || (byte(0) == 0xF0 && byte(1) < 0x90);
    const bool surrogate = byte(0) == 0xED && byte(1) > 0x9F;
    const bool beyond = byte(0) == 0xF4 && byte(1) > 0x8F;
    if (overlong || surrogate || beyond) {
      return false;
    }
    i += length;
  }
  return true;
}

std::string shape_text(const std::vector<uint64_t>& dimensions) {
  return fmt::format("[{}]", fmt::join(dimensions.rbegin(), dimensions.rend(), ", "));
}

// Reads forward and never beyond the end.
class HeaderReader {
 public:
  HeaderReader(const File& file, std::string_view bytes) : file_(file), bytes_(bytes) {}

  uint64_t position() const { return position_; }
  uint64_t left() const { return bytes_.size() - position_; }

  std::string_view take(uint64_t bytes, const std::string& what) {
    if (bytes > left()) {
      file_.fail(
          fmt::format("states {} bytes of {}, but only {} follow: it is truncated or lies", bytes, what, left()));
    }
    const std::string_view result = bytes_.substr(position_, bytes);
    position_ += bytes;
    return result;
  }

  template <typename T>
  T number(const std::string& what) {
    return at<T>(take(sizeof(T), what).data());
  }

  std::string_view text(const std::string& what) {
    const auto length = number<uint64_t>("the length of " + what);
    const std::string_view result = take(length, what);
    if (!is_utf8(result)) {
      file_.fail(fmt::format("has in {} bytes that are not UTF-8", what));
    }
    return result;
  }

  // A count of things of which each takes at least `least` bytes.
  uint64_t count(const std::string& what, uint64_t least) {
    const auto stated = number<uint64_t>("the count of " + what);
    if (stated > left() / least) {
      file_.fail(fmt::format("states {} {}, but only {} bytes follow: it is truncated or lies", stated, what, left()));
    }
    return stated;
  }

  ValueType type(const std::string& key) {
    const auto number = this->number<uint32_t>("the type of " + key);
    if (number > static_cast<uint32_t>(ValueType::float64)) {
      file_.fail(fmt::format("gives {} the unknown type {}", key, number));
    }
    return static_cast<ValueType>(number);
  }

  Entry entry(const std::string& key) {
    const ValueType value_type = type(key);
    const uint64_t begin = position_;
    Value read = value(value_type, key, 0);
    return {value_type, std::move(read), bytes_.substr(begin, position_ - begin)};
  }

 private:
  Value value(ValueType value_type, const std::string& key, int depth) {
    if (value_type == ValueType::string) {
      return text(key);
    }
    if (value_type == ValueType::array) {
      return array(key, depth + 1);
    }
    const std::string_view bytes = take(width(value_type), key);
    if (value_type == ValueType::boolean && static_cast<uint8_t>(bytes[0]) > 1) {
      file_.fail(
          fmt::format("gives {} the byte {}, which is neither true nor false", key, static_cast<uint8_t>(bytes[0])));
    }
    return decoded(value_type, bytes.data());
  }

  Array array(const std::string& key, int depth) {
    if (depth > kDeepestArray) {
      file_.fail(fmt::format("nests the arrays of {} deeper than {}", key, kDeepestArray));
    }
    Array result;
    result.type = type(key);
    const uint64_t fixed = width(result.type);
    const uint64_t least = fixed > 0 ? fixed : result.type == ValueType::string ? 8 : 12;
    result.count = count("values of " + key, least);
    const uint64_t begin = position_;
    if (fixed > 0 && result.type != ValueType::boolean) {
      take(result.count * fixed, key);
    } else {
      for (uint64_t i = 0; i < result.count; ++i) {
        value(result.type, key, depth);
      }
    }
    result.bytes = bytes_.substr(begin, position_ - begin);
    return result;
  }

  const File& file_;
  std::string_view bytes_;
  uint64_t position_ = 0;
};

// A tensor's description; its `begin` counts from where the tensors' bytes begin.
TensorInfo tensor_info(const File& file, HeaderReader& reader, const std::string& name) {
  const std::string what = fmt::format("tensor '{}'", name);
  const auto count = reader.number<uint32_t>(what);
  if (count == 0 || count > kMostDimensions) {
    file.fail(fmt::format("gives {} {} dimensions; 1 to {} are possible", what, count, kMostDimensions));
  }
  std::vector<uint64_t> dimensions;  // ggml's order: the one that runs fastest first
  uint64_t entries = 1;
  for (uint32_t i = 0; i < count; ++i) {
    dimensions.push_back(reader.number<uint64_t>(what));
  }
  for (const uint64_t size : dimensions) {
    if (size == 0 || __builtin_mul_overflow(entries, size, &entries) || entries > static_cast<uint64_t>(INT64_MAX)) {
      file.fail(fmt::format("gives {} the shape {}, {}", what, shape_text(dimensions),
                            size == 0 ? "which holds nothing" : "whose size overflows"));
    }
  }
  const auto number = reader.number<uint32_t>(what);
  TensorInfo info{name,
                  find_type([&](const TensorType& known) { return known.number == number; }),
                  {dimensions.rbegin(), dimensions.rend()},
                  0,
                  0};
  if (info.type == nullptr) {
    file.fail(fmt::format("stores {} in the type of number {}; supported are {}", what, number, supported_types()));
  }
  const auto block = static_cast<uint64_t>(info.type->entries);
  if (dimensions[0] % block != 0) {
    file.fail(fmt::format("gives {} the shape {}, but {} stores rows in blocks of {}", what, shape_text(dimensions),
                          info.type->name, block));
  }
  if (__builtin_mul_overflow(entries / block, static_cast<uint64_t>(info.type->bytes), &info.bytes) ||
      info.bytes > static_cast<uint64_t>(INT64_MAX)) {
    file.fail(fmt::format("gives {} the shape {}, whose size overflows", what, shape_text(dimensions)));
  }
  info.begin = reader.number<uint64_t>(what);
  return info;
}

uint64_t padded(uint64_t position, uint64_t alignment) { return (position + alignment - 1) / alignment * alignment; }

uint64_t alignment_of(const File& file) {
  const auto stated = file.integer("general.alignment");
  if (!stated) {
    return kDefaultAlignment;
  }
  if (*stated < 8 || *stated > static_cast<int64_t>(kLargestAlignment) || (*stated & (*stated - 1)) != 0) {
    file.fail(
        fmt::format("has general.alignment {}, which is not a power of two from 8 to {}", *stated, kLargestAlignment));
  }
  return static_cast<uint64_t>(*stated);
}

// Tensors follow each other, each at the next aligned offset, and nothing comes after them. Their offsets become
// positions in the file.
void place(const File& file, std::map<std::string, TensorInfo, std::less<>>& tensors, uint64_t header_end,
           uint64_t file_end) {
  const uint64_t alignment = alignment_of(file);
  std::vector<TensorInfo*> order;
  for (auto& [name, info] : tensors) {
    order.push_back(&info);
  }
  std::sort(order.begin(), order.end(), [](const auto* x, const auto* y) { return x->begin < y->begin; });
  const uint64_t data_begin = padded(header_end, alignment);
  uint64_t end = 0;
  for (TensorInfo* info : order) {
    const uint64_t expected = padded(end, alignment);
    if (info->begin % alignment != 0) {
      file.fail(fmt::format("places tensor '{}' at {}, which is no multiple of the alignment {}", info->name,
                            info->begin, alignment));
    }
    if (info->begin != expected) {
      file.fail(fmt::format("has {} before tensor '{}'", info->begin < expected ? "overlapping data" : "unused bytes",
                            info->name));
    }
    if (data_begin > file_end || info->begin > file_end - data_begin ||
        info->bytes > file_end - data_begin - info->begin) {
      file.fail(fmt::format("places tensor '{}' at bytes {} … {} of {}: it is truncated or its header lies", info->name,
                            info->begin, info->begin + info->bytes, file_end - std::min(file_end, data_begin)));
    }
    end = info->begin + info->bytes;
    info->begin += data_begin;
  }
}

}  // namespace

const TensorType& tensor_type(at::ScalarType type) {
  const TensorType* found = find_type([&](const TensorType& known) { return !known.blocks && known.values == type; });
  if (found == nullptr) {
    throw TypeError(fmt::format("hemostat.Model.save: a GGUF file holds float32, float16 or bfloat16, not {}",
                                c10::toString(type)));
  }
  return *found;
}

const TensorType* tensor_type(const quantize::PackedWeight& weight) {
  if (const auto* blocks = dynamic_cast<const quantize::GgufPacked*>(&weight)) {
    return find_type([&](const TensorType& known) { return known.blocks == blocks->type(); });
  }
  const auto* other = dynamic_cast<const quantize::BlockPacked*>(&weight);
  const bool mxfp4 = other != nullptr && other->format() == quantize::Format::mxfp4 &&
                     other->block_size() == kMxfp4Entries && other->sizes().back() % kMxfp4Entries == 0;
  return mxfp4 ? find_type([](const TensorType& known) { return known.number == kMxfp4; }) : nullptr;
}

std::shared_ptr<const quantize::PackedWeight> packed(const TensorType& type, const at::Tensor& blocks,
                                                     at::ScalarType dtype) {
  const int64_t in_features = blocks.size(1) / type.bytes * type.entries;
  if (type.blocks) {
    return std::make_shared<quantize::GgufPacked>(blocks, *type.blocks, in_features, dtype);
  }
  // A scale, then bytes with an entry of the first half of the block and one of the second.
  const at::Tensor split = blocks.unflatten(1, {-1, type.bytes}), halves = split.narrow(2, 1, type.bytes - 1);
  const at::Tensor entries = at::cat({halves.bitwise_and(15), halves.bitwise_right_shift(4)}, 2).unflatten(2, {-1, 2});
  const at::Tensor codes = entries.select(3, 0).bitwise_or(entries.select(3, 1).bitwise_left_shift(4));
  return std::make_shared<quantize::BlockPacked>(quantize::Format::mxfp4, codes.flatten(1).contiguous(),
                                                 split.select(2, 0).contiguous().view(at::kFloat8_e8m0fnu),
                                                 /*tensor_scale=*/at::Tensor(), in_features, type.entries, dtype);
}

at::Tensor blocks_of(const quantize::PackedWeight& weight) {
  if (const auto* blocks = dynamic_cast<const quantize::GgufPacked*>(&weight)) {
    return blocks->data();
  }
  const auto& mxfp4 = dynamic_cast<const quantize::BlockPacked&>(weight);
  const at::Tensor codes = mxfp4.codes().unflatten(1, {-1, kMxfp4Entries / 2});
  const at::Tensor entries = at::stack({codes.bitwise_and(15), codes.bitwise_right_shift(4)}, 3).flatten(2);
  const std::vector<at::Tensor> halves = entries.chunk(2, 2);
  const at::Tensor bytes = halves[0].bitwise_or(halves[1].bitwise_left_shift(4));
  return at::cat({mxfp4.scale().view(at::kByte).unsqueeze(2), bytes}, 2).flatten(1);
}

std::optional<std::vector<int64_t>> Array::integers() const { return converted<int64_t>(*this, as_integer); }

std::optional<std::vector<double>> Array::numbers() const { return converted<double>(*this, as_number); }

std::optional<std::vector<std::string_view>> Array::strings() const {
  if (type != ValueType::string) {
    return std::nullopt;
  }
  std::vector<std::string_view> result;
  result.reserve(count);
  uint64_t position = 0;
  for (uint64_t i = 0; i < count; ++i) {  // lengths were validated with the header
    const auto length = at<uint64_t>(bytes.data() + position);
    result.push_back(bytes.substr(position + 8, length));
    position += 8 + length;
  }
  return result;
}

File::File(const std::string& path) : path_(path) {
  const auto file = std::make_shared<MappedFile>(path);
  view_ = [file](const TensorInfo& tensor) {
    std::vector<int64_t> shape = tensor.shape;
    shape.back() = tensor.type->in_blocks() ? shape.back() / tensor.type->entries * tensor.type->bytes : shape.back();
    // Aligned: the alignment is a multiple of 8, and a mapping begins at a page.
    return at::from_blob(
        file->data() + tensor.begin, shape, [file](void*) {}, at::TensorOptions().dtype(tensor.type->values));
  };
  parse({file->data(), file->size()}, file->size());
}

File::File(const std::string& path, std::string_view bytes, uint64_t size, View view)
    : path_(path), view_(std::move(view)) {
  parse(bytes, size);
}

void File::parse(std::string_view bytes, uint64_t size) {
  if (bytes.size() < sizeof(kMagic) || std::memcmp(bytes.data(), kMagic, sizeof(kMagic)) != 0) {
    fail("does not begin with GGUF");
  }
  HeaderReader reader(*this, bytes);
  reader.take(sizeof(kMagic), "magic");
  const auto version = reader.number<uint32_t>("the version");
  if (version != 2 && version != 3) {
    fail(version == 0x03000000 || version == 0x02000000
             ? std::string("is big-endian; only little-endian files are supported")
             : fmt::format("has version {}; versions 2 and 3 are supported", version));
  }
  // The least that one takes: an empty name, and the rest of its description.
  constexpr uint64_t kLeastTensor = 8 + 4 + 8 + 4 + 8, kLeastEntry = 8 + 4 + 1;
  const uint64_t tensors = reader.count("tensors", kLeastTensor);
  const uint64_t entries = reader.count("metadata entries", kLeastEntry);
  for (uint64_t i = 0; i < entries; ++i) {
    const std::string key(reader.text("a metadata key"));
    if (metadata_.count(key) != 0) {
      fail(fmt::format("has the metadata key '{}' twice", key));
    }
    metadata_.emplace(key, reader.entry(fmt::format("metadata '{}'", key)));
  }
  for (uint64_t i = 0; i < tensors; ++i) {
    const std::string name(reader.text("a tensor's name"));
    if (tensors_.count(name) != 0) {
      fail(fmt::format("has tensor '{}' twice", name));
    }
    tensors_.emplace(name, tensor_info(*this, reader, name));
  }
  place(*this, tensors_, reader.position(), size);
}

void File::fail(const std::string& what) const {
  throw ValueError(fmt::format("hemostat.Model.load: {} {}", path_, what));
}

namespace {

const Value* find(const File& file, std::string_view key) {
  const auto found = file.metadata().find(key);
  return found == file.metadata().end() ? nullptr : &found->second.value;
}

template <typename T>
std::optional<T> as(const File& file, std::string_view key, const char* kind) {
  const Value* value = find(file, key);
  if (value == nullptr) {
    return std::nullopt;
  }
  const T* found = std::get_if<T>(value);
  if (found == nullptr) {
    file.fail(fmt::format("has no {} in metadata '{}'", kind, key));
  }
  return *found;
}

}  // namespace

std::optional<std::string_view> File::text(std::string_view key) const {
  return as<std::string_view>(*this, key, "string");
}

std::optional<bool> File::boolean(std::string_view key) const { return as<bool>(*this, key, "boolean"); }

std::optional<Array> File::array(std::string_view key) const { return as<Array>(*this, key, "array"); }

std::optional<int64_t> File::integer(std::string_view key) const {
  const Value* value = find(*this, key);
  if (value == nullptr) {
    return std::nullopt;
  }
  const auto result = as_integer(*value);
  if (!result) {
    fail(fmt::format("has no integer in metadata '{}'", key));
  }
  return result;
}

std::optional<int64_t> File::token(std::string_view kind) const {
  const auto id = integer(fmt::format("tokenizer.ggml.{}_token_id", kind));
  return id && (*id == -1 || *id == UINT32_MAX) ? std::nullopt : id;
}

std::optional<double> File::number(std::string_view key) const {
  const Value* value = find(*this, key);
  if (value == nullptr) {
    return std::nullopt;
  }
  const auto result = as_number(*value);
  if (!result || !std::isfinite(*result)) {
    fail(fmt::format("has no finite number in metadata '{}'", key));
  }
  return result;
}

}  // namespace hemostat::gguf
