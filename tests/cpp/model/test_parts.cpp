// The list of the model's fields is complete, and what walks through it treats each of them.
#include <filesystem>
#include <set>
#include <string>
#include <tuple>
#include <type_traits>
#include <typeinfo>
#include <utility>

#include <gtest/gtest.h>

#include <ATen/ATen.h>

#include <hemostat/error.h>
#include <hemostat/model.h>

#include "../random_model.h"
#include "model/consistency.h"
#include "model/parts.h"
#include "model/skeleton.h"
#include "model/structure.h"
#include "model/tensor_slots.h"

namespace hemostat {
namespace {

// --- as many entries as members ---

struct Anything {
  template <typename T>
  operator T() const;
};

template <typename T, typename... Initializers>
constexpr size_t members() {
  if constexpr (requires { T{std::declval<Initializers>()..., Anything{}}; }) {
    return members<T, Initializers..., Anything>();
  } else {
    return sizeof...(Initializers);
  }
}

template <typename... Parts>
constexpr bool all_listed() {
  return ((members<Parts>() == std::tuple_size_v<std::decay_t<decltype(parts::kFields<Parts>)>>) && ...);
}

static_assert(members<CacheQuantization>() == 3);
static_assert(all_listed<LinearInput, Linear, Norm>(), "a field is missing in parts.h");
static_assert(all_listed<Rope, CacheQuantization, Attention>(), "a field is missing in parts.h");
static_assert(all_listed<Mlp, Experts, Block>(), "a field is missing in parts.h");
static_assert(all_listed<InputPerturbation, LogitMap, Head, Decoder, Model>(), "a field is missing in parts.h");

// --- a model where each field has another value than its default, in one of its parts ---

at::Tensor random(at::IntArrayRef sizes) {
  static uint64_t seed = 0;
  return at::randn(sizes, at::detail::createCPUGenerator(++seed), at::kFloat);
}

Linear random_linear(int64_t out, int64_t in) {
  Linear linear;
  linear.weight = random({out, in});
  return linear;
}

Norm random_norm(int64_t size) { return {NormKind::dynamic_tanh, random({size}), random({size}), 1e-3, 0.7, 1}; }

Model changed_everywhere() {
  Model model = testing::random_model();
  model.config.json = R"({"model_type": "llama", "vocab_size": 97, "hidden_size": 32, "intermediate_size": 64,
    "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2, "dtype": "float32"})";
  model.source = "/somewhere";
  model.input = {TokenNoise::swap, 0.25, 5};
  model.head.map = {0.8, random({97}), random({97, 2}), random({2, 97})};
  model.head.linear.packed = quantize::rtn_packed(model.head.linear.weight, {.bits = 8, .group_size = 8});
  model.head.linear.weight = at::Tensor();
  model.decoder = {1.5, false};
  model.embedding_scale = 2;
  model.position_embedding = random({130, 32});
  model.position_offset = 2;
  model.head.scale = 0.5;
  model.head.softcap = 30;
  Block& first = model.blocks[0];
  first.placement = NormPlacement::post;
  first.attention_output_norm = first.mlp_output_norm = random_norm(32);
  Attention& attention = first.attention;
  attention.q.bias = random({32});
  attention.q.input = {random({32}), random({32, 32}), 4, true, 0.2, 3};
  attention.q.stored_bits = 4.5;
  attention.k.packed = quantize::rtn_packed(attention.k.weight, {.bits = 3, .group_size = 8});
  attention.k.weight = at::Tensor();
  attention.v = {.weight = {}, .a = random({16, 3}), .b = random({3, 32}), .packed = {}, .bias = {}, .input = {}};
  attention.q_norm = random_norm(32);
  attention.k_norm = random_norm(16);
  attention.qk_norm_scope = NormScope::all;
  attention.rope.attention_scale = 1.2;
  attention.rope.context = 64;
  attention.rope.long_inverse_frequencies = attention.rope.inverse_frequencies / 2;
  attention.rope.dynamic_factor = 2;
  attention.scale = 0.1;
  attention.softcap = 20;
  attention.sink_logits = random({4});
  attention.window = 3;
  attention.sinks = 2;
  attention.cache = {3, random({2, 8}), random({2, 8})};
  first.mlp.activation = Activation::relu;
  first.mlp.slope = 1.702;
  first.mlp.limit = 7;
  first.mlp.up_offset = 1;
  first.residual_scale = 0.5;
  first.attention_shortcut = random({32, 32});
  first.mlp_shortcut = random({32, 32});
  first.parallel = true;
  first.skip_attention = first.skip_mlp = true;
  first.attention_residual = first.mlp_residual = false;
  model.blocks[1].mlp = {};
  model.blocks[1].experts = {
      .router = random_linear(4, 32), .top_k = 2, .normalize = false, .temperature = 1.5, .mlps = {}};
  for (int64_t i = 0; i < 4; ++i) {
    Mlp& expert = model.blocks[1].experts.mlps.emplace_back();
    expert.gate = random_linear(24, 32);
    expert.up = random_linear(24, 32);
    expert.down = random_linear(32, 24);
  }
  return model;
}

std::string name_of(const std::string& owner, const auto& field) { return owner + "." + field.names.name; }

// The fields that have another value than a new part has.
template <typename Part>
void collect_changed(const Part& part, std::set<std::string>& changed, std::set<std::string>& all) {
  const Part fresh{};
  parts::visit_fields(part, [&]<typename F>(const F& field, const auto& value) {
    const std::string name = name_of(typeid(Part).name(), field);
    all.insert(name);
    bool differs = false;
    if constexpr (parts::IsPart<F>) {
      differs = true;  // its own fields are looked at
      parts::for_each_element(value, [&](const auto& element) { collect_changed(element, changed, all); });
    } else if constexpr (std::is_same_v<std::decay_t<decltype(value)>, at::Tensor>) {
      differs = value.defined();
    } else if constexpr (std::is_same_v<std::decay_t<decltype(value)>, ModelConfig>) {
      differs = !value.family.empty();
    } else if constexpr (std::is_same_v<std::decay_t<decltype(value)>, Foreign>) {
      differs = true;  // it stands in the place of all the others, so no model of blocks has one
    } else {
      differs = value != fresh.*field.member;
    }
    if (differs) {
      changed.insert(name);
    }
  });
}

TEST(Parts, AreAllChangedInTheModelOfTheseTests) {
  std::set<std::string> changed, all;
  collect_changed(changed_everywhere(), changed, all);
  EXPECT_EQ(changed, all);
}

// Whether the two have one value in each field; `unsaved`: in those too that files leave out.
template <typename Part>
void expect_equal(const Part& x, const Part& y, bool unsaved, const std::string& where) {
  parts::visit_fields(x, [&]<typename F>(const F& field, const auto& value) {
    using Value = std::decay_t<decltype(value)>;
    const Value& other = y.*field.member;
    const std::string name = name_of(where, field);
    if constexpr (parts::IsPart<F> && requires { value.begin(); }) {
      ASSERT_EQ(value.size(), other.size()) << name;
      for (size_t i = 0; i < value.size(); ++i) {
        expect_equal(value[i], other[i], unsaved, name + "." + std::to_string(i));
      }
    } else if constexpr (parts::IsPart<F>) {
      expect_equal(value, other, unsaved, name);
    } else if constexpr (std::is_same_v<Value, at::Tensor>) {
      EXPECT_TRUE(same(value, other)) << name;
    } else if constexpr (parts::IsValue<F>) {
      EXPECT_TRUE(value == other) << name;
    } else if constexpr (std::is_same_v<Value, ModelConfig>) {
      EXPECT_EQ(value.json, other.json);
    } else if constexpr (std::is_same_v<Value, Foreign>) {
      EXPECT_EQ(value.module, other.module);
    } else if constexpr (std::is_same_v<Value, std::shared_ptr<const quantize::PackedWeight>>) {
      EXPECT_EQ(value != nullptr, other != nullptr) << name;
      EXPECT_TRUE(value == nullptr || other == nullptr || same(value->dequantize(), other->dequantize())) << name;
    } else if (unsaved) {
      EXPECT_TRUE(value == other) << name;
    }
  });
}

Model unpacked(Model model) {
  for_each_linear(model, [](const LinearPlace&, Linear& linear) {
    if (linear.packed) {
      linear = linear.with_weight(linear.dense());
    }
  });
  return model;
}

TEST(Parts, ComeBackFromADirectory) {
  const std::string directory = (std::filesystem::path(::testing::TempDir()) / "hemostat-parts").string();
  const Model model = changed_everywhere();
  model.save(directory);
  Model again = Model::load(directory);
  std::filesystem::remove_all(directory);
  again.config.json = model.config.json;
  expect_equal(unpacked(model), again, /*unsaved=*/false, "model");
}

TEST(Parts, ComeBackFromAState) {
  Model model = changed_everywhere();
  model.blocks[0].origin = 7;
  expect_equal(model, Model::from_state(model.state()), /*unsaved=*/true, "model");
}

template <typename Part>
void expect_on(const Part& part, at::ScalarType dtype, c10::Device device) {
  parts::visit_fields(part, [&]<typename F>(const F& field, const auto& value) {
    if constexpr (parts::IsPart<F>) {
      parts::for_each_element(value, [&](const auto& element) { expect_on(element, dtype, device); });
    } else if constexpr (std::is_same_v<std::decay_t<decltype(value)>, at::Tensor>) {
      if (value.defined()) {
        EXPECT_EQ(value.scalar_type(), parts::IsTensor<F> ? dtype : at::kFloat) << field.names.name;
        EXPECT_EQ(value.device(), device) << field.names.name;
      }
    }
  });
}

TEST(Parts, TakeOnADtypeAndADevice) {
  const Model model = changed_everywhere();
  const Model wide = model.to(at::kDouble);
  expect_on(wide, at::kDouble, at::kCPU);
  expect_equal(model, wide.to(at::kFloat), /*unsaved=*/true, "model");
  Model moved = model.to(std::nullopt, at::kMeta);
  expect_on(moved, at::kFloat, at::kMeta);
  for_each_linear(moved, [](const LinearPlace& place, Linear& linear) {
    if (linear.packed) {
      EXPECT_TRUE(linear.packed->dequantize().is_meta()) << place.name;
    }
  });
}

TEST(Parts, HaveEachTensorsShapeChecked) {
  const Model model = unpacked(changed_everywhere());
  check_consistency(model, "file");
  Model other = model;
  int64_t tensors = 0;
  for_each_tensor(other, [&](const std::string& name, at::Tensor& slot) {
    const at::Tensor fitting = slot;
    std::vector<int64_t> sizes = slot.sizes().vec();
    ++sizes.back();  // of a table of positions, the rows are as many as it has
    slot = shape_only(sizes);
    EXPECT_THROW(check_consistency(other, "file"), ValueError) << name;
    slot = fitting;
    ++tensors;
  });
  EXPECT_EQ(tensors, static_cast<int64_t>(model.tensors().size()));
}

}  // namespace
}  // namespace hemostat
