#include "consistency.h"

#include <array>
#include <cmath>
#include <type_traits>
#include <vector>

#include <ATen/ops/isfinite.h>
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <hemostat/error.h>

#include "parts.h"

namespace hemostat {
namespace {

using parts::Size;

constexpr int64_t kLargest = int64_t{1} << 31;  // sizes below it multiply without overflow

class Checker {
 public:
  Checker(const Model& model, const std::string& file) : file_(file) {
    size(Size::hidden) = model.config.hidden_size;
    size(Size::vocabulary) = model.config.vocab_size;
    size(Size::positions) = model.position_embedding.defined() ? model.position_embedding.size(0) : 0;
  }

  template <typename Part>
  void check(const Part& part) {
    measure(part);
    parts::visit_used(part, *this);
    relate(part);
  }

  // --- each field by itself ---

  void operator()(const parts::IsTensor auto& field, const at::Tensor& tensor) const {
    require(label(field), tensor.defined() || !field.required, "is missing");
    const parts::Shape& shape = field.shape;
    if (!tensor.defined() || shape.rows == Size::rank || shape.columns == Size::rank) {  // see factors()
      return;
    }
    if (shape.columns == Size::none) {
      require_shape(label(field), tensor, {size(shape.rows)});
    } else {
      require_shape(label(field), tensor, {size(shape.rows), size(shape.columns)});
    }
  }

  void operator()(const parts::IsValue auto& field, const auto& value) const {
    if constexpr (std::is_same_v<std::decay_t<decltype(value)>, double>) {
      require(label(field), field.rule.fits == nullptr || field.rule.fits(value), field.rule.problem);
    }
  }

  void operator()(const parts::IsLinear auto& field, const Linear& linear) const {
    if (!field.optional || linear.defined()) {
      Checker inner = within(field);
      inner.size(Size::out) = size(field.shape.rows);
      inner.size(Size::in) = size(field.shape.columns);
      inner.check(linear);
    }
  }

  void operator()(const parts::IsNorm auto& field, const Norm& norm) const {
    Checker inner = within(field);
    inner.size(Size::features) = size(field.features);
    inner.check(norm);
  }

  void operator()(const parts::IsPart auto&, const std::vector<Block>& blocks) const {
    Checker inner = *this;
    for (size_t i = 0; i < blocks.size(); ++i) {
      inner.where_ = fmt::format("block {}: ", i);
      inner.check(blocks[i]);
    }
  }

  void operator()(const parts::IsPart auto& field, const auto& part) const {
    parts::for_each_element(part, [&](const auto& element) { within(field).check(element); });
  }

  void operator()(const auto&, const auto&) const {}

 private:
  // --- the sizes of a part's fields, and what they need ---

  void measure(const Attention& attention) {
    const auto counts = [](int64_t n) { return n >= 1 && n <= kLargest; };
    require("heads", counts(attention.heads), "is not a count");
    require("kv_heads", counts(attention.kv_heads) && attention.heads % attention.kv_heads == 0,
            "does not divide heads");
    require("head_dim", counts(attention.head_dim), "is not a count");
    size(Size::heads) = attention.heads;
    size(Size::kv_heads) = attention.kv_heads;
    size(Size::head_dim) = attention.head_dim;
    size(Size::queries) = attention.heads * attention.head_dim;
    size(Size::keys) = attention.kv_heads * attention.head_dim;
    const bool over_all = attention.qk_norm_scope == NormScope::all;
    size(Size::q_norm) = over_all ? size(Size::queries) : attention.head_dim;
    size(Size::k_norm) = over_all ? size(Size::keys) : attention.head_dim;
  }

  void measure(const Mlp& mlp) {
    require(label_ + " up", mlp.up.defined(), "is missing");
    size(Size::width) = (mlp.up.factored() ? mlp.up.a : mlp.up.weight).dim() == 2 ? mlp.up.out_features() : 0;
    Checker inner = *this;  // of up first: the others' shapes follow from it
    inner.label_ = joined("up");
    inner.size(Size::out) = size(Size::width);
    inner.size(Size::in) = size(Size::hidden);
    inner.check(mlp.up);
  }

  void measure(const Experts& experts) { size(Size::experts) = static_cast<int64_t>(experts.mlps.size()); }

  void measure(const Linear& linear) const {
    require(label_, linear.weight.defined() != linear.a.defined(), "has not exactly one of weight and factors");
    factors(label_, linear.a, linear.b, size(Size::out), size(Size::in));
  }

  void measure(const CacheQuantization& cache) const {
    require("cache_key_min", cache.key_min.defined() == cache.key_max.defined(), "is not given with cache_key_max");
  }

  void measure(const auto&) const {}

  // --- what relates its fields to each other ---

  void relate(const Attention& attention) const {
    const at::Tensor& frequencies = attention.rope.inverse_frequencies;
    if (frequencies.defined()) {
      require("inverse_frequencies", 2 * frequencies.numel() <= attention.head_dim, "are more than half of head_dim");
      require("inverse_frequencies", at::isfinite(frequencies).all().item<bool>(), "are not finite");
    }
    const Rope& rope = attention.rope;
    if (rope.long_inverse_frequencies.defined()) {
      require("long_inverse_frequencies",
              frequencies.defined() && rope.long_inverse_frequencies.sizes() == frequencies.sizes(),
              "are not as many as inverse_frequencies");
      require("long_inverse_frequencies", at::isfinite(rope.long_inverse_frequencies).all().item<bool>(),
              "are not finite");
    }
    const bool bounded = rope.long_inverse_frequencies.defined() || rope.dynamic_factor > 0;
    require("rope_context", bounded ? rope.context > 0 : rope.context >= 0, "is not a count");
    require("window", attention.window >= 0 && attention.sinks >= 0, "or sinks is negative");
  }

  void relate(const Experts& experts) const {
    require("top_k", experts.top_k >= 1 && experts.top_k <= size(Size::experts), "is not one to all of the experts");
    require("router temperature", parts::kPositive.fits(experts.temperature), parts::kPositive.problem);
  }

  void relate(const Model& model) const {
    require("position_offset", model.position_offset >= 0 && model.position_offset <= size(Size::positions),
            "is not a row of position_embedding");
  }

  void relate(const LogitMap& map) const {
    factors("logit", map.a, map.b, size(Size::vocabulary), size(Size::vocabulary));
  }

  void relate(const auto&) const {}

  // Both or neither; their product is [rows, columns].
  void factors(const std::string& part, const at::Tensor& a, const at::Tensor& b, int64_t rows, int64_t columns) const {
    require(part, a.defined() == b.defined(), "has one factor of two");
    if (a.defined()) {
      require(part + " a", a.dim() == 2, "is not a matrix");
      require_shape(part + " a", a, {rows, a.size(1)});
      require_shape(part + " b", b, {a.size(1), columns});
    }
  }

  void require(const std::string& part, bool fits, const std::string& problem) const {
    if (!fits) {
      throw ValueError(fmt::format("hemostat.Model.load: {}: {}{} {}", file_, where_, part, problem));
    }
  }

  void require_shape(const std::string& part, const at::Tensor& tensor, at::IntArrayRef sizes) const {
    require(part, tensor.sizes() == sizes,
            fmt::format("has shape [{}], but must have [{}]", fmt::join(tensor.sizes(), ", "), fmt::join(sizes, ", ")));
  }

  std::string joined(const char* name) const { return label_.empty() ? name : label_ + " " + name; }

  // "q bias"; of a weight "q".
  std::string label(const auto& field) const {
    return field.names.key == std::string_view("weight") ? label_ : joined(field.names.key);
  }

  Checker within(const parts::IsPart auto& field) const {
    Checker inner = *this;
    inner.label_ = *field.label == '\0' ? label_ : joined(field.label);
    return inner;
  }

  int64_t& size(Size symbol) { return sizes_[static_cast<size_t>(symbol)]; }
  int64_t size(Size symbol) const { return sizes_[static_cast<size_t>(symbol)]; }

  const std::string& file_;
  std::string where_, label_;  // "block 3: " or nothing; "q" or nothing
  std::array<int64_t, parts::kSizes> sizes_ = {};
};

}  // namespace

void check_consistency(const Model& model, const std::string& file) { Checker(model, file).check(model); }

}  // namespace hemostat
