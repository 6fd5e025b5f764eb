#include "structure.h"

#include <algorithm>
#include <memory>
#include <set>
#include <string>
#include <type_traits>
#include <vector>

#include <ATen/ops/equal.h>
#include <ATen/ops/tensor.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <nlohmann/json.hpp>

#include <hemostat/error.h>

#include "json.h"
#include "parts.h"
#include "skeleton.h"

namespace hemostat {

// Three visitors of the fields in parts.h: a Writer fills JSON from the model, a Reader the model from JSON, and a
// Collector takes the tensors, so that parts can be compared. A field that a file does not have is neutral, so that
// what is saved today can be read when there are more fields; one that is not known is refused, since it may not be
// neutral.
namespace {

using nlohmann::json;

constexpr int64_t kVersion = 3;  // 2: enumerations were numbers

class Writer {
 public:
  explicit Writer(bool words) : words_(words) {}

  template <typename Owner, typename V>
  void operator()(const parts::Value<Owner, V>& field, const V& value) {
    static const Owner neutral{};
    if (field.sparse && value == neutral.*field.member) {
      return;
    }
    if constexpr (std::is_enum_v<V>) {
      object[field.names.key] = words_ ? json(parts::word(value)) : json(static_cast<size_t>(value));
    } else {
      object[field.names.key] = value;
    }
  }

  void operator()(const parts::IsTensor auto& field, const at::Tensor& tensor) {
    if (tensor.defined()) {
      object[field.names.key] = tensor.sizes().vec();
    }
  }
  void operator()(const parts::IsNumbers auto& field, const at::Tensor& tensor) {
    if (tensor.defined()) {
      const at::Tensor values = tensor.to(at::kCPU).contiguous();
      object[field.names.key] =
          std::vector<float>(values.const_data_ptr<float>(), values.const_data_ptr<float>() + values.numel());
    }
  }
  void operator()(const parts::IsPart auto& field, const auto& part) {
    if (field.inlined()) {
      parts::visit_fields(part, *this);
    } else {
      object[field.names.key] = written(part);
    }
  }
  void operator()(const auto&, const auto&) {}

  json written(const auto& part) const {
    if constexpr (requires { part.begin(); }) {
      json array = json::array();
      for (const auto& element : part) {
        array.push_back(written(element));
      }
      return array;
    } else {
      Writer inner(words_);
      parts::visit_fields(part, inner);
      return inner.object;
    }
  }

  json object = json::object();

 private:
  bool words_;  // spell enumerations as words
};

class Reader {
 public:
  explicit Reader(const json& given) : object_(given) {}

  void operator()(const parts::IsTensor auto& field, at::Tensor& tensor) {
    const char* key = field.names.key;
    if (has(key)) {
      std::vector<int64_t> sizes;
      for (const json& size : object_[key]) {
        sizes.push_back(integer(key, size));
      }
      tensor = shape_only(sizes);
    }
  }
  void operator()(const parts::IsNumbers auto& field, at::Tensor& tensor) {
    if (has(field.names.key)) {
      tensor = at::tensor(object_[field.names.key].template get<std::vector<float>>());
    }
  }
  void operator()(const parts::IsValue auto& field, auto& value) { read(field.names.key, value); }
  void operator()(const parts::IsPart auto& field, auto& part) {
    if (field.inlined()) {
      parts::visit_fields(part, *this);
    } else if (has(field.names.key)) {
      read_part(object_.at(field.names.key), part);
    }
  }
  void operator()(const auto&, auto&) {}

  void read(const char* key, bool& value) {
    if (has(key)) {
      value = object_.at(key).get<bool>();
    }
  }
  void read(const char* key, double& value) {
    if (has(key)) {
      value = object_.at(key).get<double>();
    }
  }
  void read(const char* key, int64_t& value) {
    if (has(key)) {
      value = integer(key, object_.at(key));
    }
  }
  template <typename Enum>
  void read(const char* key, Enum& value) {
    if (!has(key)) {
      return;
    }
    const auto& words = parts::kWords<Enum>;
    const json& given = object_.at(key);
    const auto fits = [&](size_t i) { return given == words[i] || (given.is_number_integer() && given == i); };
    for (size_t i = 0; i < words.size(); ++i) {
      if (fits(i)) {
        value = static_cast<Enum>(i);
        return;
      }
    }
    throw ValueError(fmt::format("hemostat.Model.load: hemostat.json: field '{}' is {}, but takes {}", key,
                                 given.dump(-1, ' ', false, json::error_handler_t::replace), fmt::join(words, ", ")));
  }

  void check_known() const {
    for (const auto& [key, value] : object_.items()) {
      if (known_.count(key) == 0) {
        throw ValueError(fmt::format(
            "hemostat.Model.load: hemostat.json: field '{}' is unknown; a later hemostat may have written it", key));
      }
    }
  }

 private:
  static void read_part(const json& given, auto& part) {
    if constexpr (requires { part.emplace_back(); }) {
      for (const json& element : given) {
        read_part(element, part.emplace_back());
      }
    } else {
      Reader inner(given);
      parts::visit_fields(part, inner);
      inner.check_known();
    }
  }

  bool has(const char* key) {
    known_.insert(key);
    return object_.contains(key);
  }

  static int64_t integer(const char* key, const json& value) {
    if (!value.is_number_integer() || (value.is_number_unsigned() && value.get<uint64_t>() > INT64_MAX)) {
      throw ValueError(fmt::format("hemostat.Model.load: hemostat.json: field '{}' has no integer", key));
    }
    return value.get<int64_t>();
  }

  const json& object_;
  std::set<std::string> known_;  // what was asked for
};

struct Collector {
  void operator()(const parts::IsTensor auto&, const at::Tensor& tensor) { tensors.push_back(tensor); }
  void operator()(const auto&, const std::shared_ptr<const quantize::PackedWeight>& packed) {
    tensors.push_back(packed ? packed->dequantize() : at::Tensor());
  }
  void operator()(const parts::IsPart auto&, const auto& part) {
    parts::for_each_element(part, [&](const auto& element) { parts::visit_fields(element, *this); });
  }
  void operator()(const auto&, const auto&) {}  // a Writer writes them

  std::vector<at::Tensor> tensors;
};

template <typename Part>
bool same_part(const Part& x, const Part& y) {
  const Writer numbers(/*words=*/false);
  if (numbers.written(x) != numbers.written(y)) {
    return false;
  }
  Collector ours, theirs;
  parts::visit_fields(x, ours);
  parts::visit_fields(y, theirs);
  return std::equal(ours.tensors.begin(), ours.tensors.end(), theirs.tensors.begin(), theirs.tensors.end(),
                    [](const at::Tensor& a, const at::Tensor& b) { return same(a, b); });
}

}  // namespace

bool same(const at::Tensor& x, const at::Tensor& y) {
  if (!x.defined() || !y.defined()) {
    return x.defined() == y.defined();
  }
  if (x.sizes() != y.sizes() || x.scalar_type() != y.scalar_type() || x.device() != y.device()) {
    return false;
  }
  const bool one_memory = x.is_alias_of(y) && x.storage_offset() == y.storage_offset() && x.strides() == y.strides();
  return one_memory || at::equal(x, y);  // the same memory also where it holds NaN
}

bool same(const Linear& x, const Linear& y) { return same_part(x, y); }
bool same(const Norm& x, const Norm& y) { return same_part(x, y); }
bool same(const Head& x, const Head& y) { return same_part(x, y); }
bool same(const Block& x, const Block& y) { return same_part(x, y); }

namespace {

std::string written(const Model& model, int64_t version, bool words) {
  json object = Writer(words).written(model);
  object["version"] = version;
  object["tied"] = model.tied();
  if (model.foreign) {
    json& foreign = object["foreign"];
    foreign["module"] = model.foreign.module->structure();
    for (const ForeignLinear& entry : model.foreign.linears) {
      foreign["linears"][entry.name] = Writer(words).written(entry.linear);
    }
  }
  return object.dump(1) + "\n";
}

}  // namespace

// What models are known by must not change with the form of files.
std::string structure(const Model& model) { return written(model, 2, /*words=*/false); }

std::string saved_structure(const Model& model) { return written(model, kVersion, /*words=*/true); }

Model from_structure(const std::string& text, const ModelConfig& config, const std::string& file) {
  try {
    const json object = parse_object(text, file);
    int64_t version = 0;
    Reader reader(object);
    bool tied = false;
    reader.read("version", version);
    reader.read("tied", tied);
    if (version < 2 || version > kVersion) {
      throw ValueError(
          fmt::format("hemostat.Model.load: {} has version {}; this hemostat reads 2 to {}", file, version, kVersion));
    }
    Model model;
    model.config = config;
    parts::visit_fields(model, reader);
    reader.check_known();
    if (model.embedding.defined() && model.embedding.dim() == 2) {
      model.config.hidden_size = model.embedding.size(1);
    }
    if (tied) {
      model.head.linear.weight = model.embedding;
    }
    for (size_t i = 0; i < model.blocks.size(); ++i) {
      model.blocks[i].origin = static_cast<int64_t>(i);
    }
    return model;
  } catch (const json::exception& error) {
    throw ValueError(fmt::format("hemostat.Model.load: {} is not a model's structure (JSON error {})", file, error.id));
  }
}

}  // namespace hemostat
