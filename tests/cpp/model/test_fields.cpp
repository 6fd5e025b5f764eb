// Every field of Model that forward() interprets: its neutral value changes nothing, its effect is the formula's, and
// batching, caching and saving leave it alone.
#include <filesystem>
#include <functional>
#include <map>
#include <string>

#include <gtest/gtest.h>

#include <ATen/ATen.h>

#include <hemostat/error.h>
#include <hemostat/model.h>

#include "../random_model.h"

namespace hemostat {
namespace {

using testing::random_model;
using testing::random_tokens;

at::Tensor random(at::IntArrayRef sizes, uint64_t seed) {
  return at::randn(sizes, at::detail::createCPUGenerator(seed), at::kFloat);
}

Linear random_linear(int64_t out, int64_t in, uint64_t seed) {
  Linear linear;
  linear.weight = random({out, in}, seed) / std::sqrt(static_cast<double>(in));
  return linear;
}

Experts random_experts() {
  Experts experts;
  experts.router = random_linear(4, 32, 50);
  experts.top_k = 2;
  for (uint64_t i = 0; i < 4; ++i) {
    experts.mlps.push_back(
        {random_linear(24, 32, 60 + i), random_linear(24, 32, 70 + i), random_linear(32, 24, 80 + i)});
  }
  return experts;
}

// Each sets one field (or a few that belong together) of a model to something else than its default.
const std::map<std::string, std::function<void(Model&)>>& changes() {
  static const std::map<std::string, std::function<void(Model&)>> all = {
      {"input_scale", [](Model& m) { m.blocks[1].mlp.up.input.scale = random({32}, 1).abs() + 0.5; }},
      {"input_rotation",
       [](Model& m) { m.blocks[1].attention.q.input.rotation = std::get<0>(at::linalg_qr(random({32, 32}, 2))); }},
      {"input_bits", [](Model& m) { m.blocks[0].mlp.down.input.bits = 4; }},
      {"input_noise",
       [](Model& m) {
         m.blocks[0].attention.o.input.noise = 0.2;
         m.blocks[0].attention.o.input.noise_seed = 3;
       }},
      {"factors",
       [](Model& m) {
         Linear& linear = m.blocks[2].mlp.gate;
         linear = Linear{
             .weight = {}, .a = random({64, 5}, 4), .b = random({5, 32}, 5), .packed = {}, .bias = {}, .input = {}};
       }},
      {"bias", [](Model& m) { m.blocks[0].attention.k.bias = random({16}, 6); }},
      {"packed",
       [](Model& m) {
         Linear& linear = m.blocks[0].mlp.up;
         linear.packed = quantize::rtn_packed(linear.weight, {.bits = 3, .group_size = 8});
         linear.weight = at::Tensor();
       }},
      {"packed_blocks",
       [](Model& m) {
         Linear& linear = m.blocks[0].mlp.up;
         linear.packed = quantize::nvfp4_packed(linear.weight);
         linear.weight = at::Tensor();
       }},
      {"layer_norm",
       [](Model& m) { m.blocks[0].mlp_norm = {NormKind::layer, random({32}, 7), random({32}, 8), 1e-3, 1}; }},
      {"dynamic_tanh",
       [](Model& m) { m.blocks[0].mlp_norm = {NormKind::dynamic_tanh, random({32}, 9), random({32}, 10), 1e-5, 0.7}; }},
      {"no_norm", [](Model& m) { m.final_norm = {}; }},
      {"post_norm", [](Model& m) { m.blocks[1].placement = NormPlacement::post; }},
      {"sandwich_norm",
       [](Model& m) { m.blocks[1].attention_output_norm = {NormKind::rms, random({32}, 11), {}, 1e-5, 1}; }},
      {"q_norm", [](Model& m) { m.blocks[1].attention.q_norm = {NormKind::rms, random({8}, 12), {}, 1e-5, 1}; }},
      {"q_norm_over_all",
       [](Model& m) {
         m.blocks[1].attention.qk_norm_scope = NormScope::all;
         m.blocks[1].attention.q_norm = {NormKind::rms, random({32}, 12), {}, 1e-5, 1};
       }},
      {"norm_offset", [](Model& m) { m.blocks[1].mlp_norm.offset = 1; }},
      {"softcap", [](Model& m) { m.blocks[1].attention.softcap = 0.5; }},
      {"sink_logits", [](Model& m) { m.blocks[1].attention.sink_logits = random({4}, 16); }},
      {"no_rope", [](Model& m) { m.blocks[1].attention.rope = {}; }},
      {"rope_scale", [](Model& m) { m.blocks[1].attention.rope.attention_scale = 1.2; }},
      // Read in steps, both would rotate otherwise than at once where the context is passed; see Rope.
      {"long_rope",
       [](Model& m) {
         Rope& rope = m.blocks[1].attention.rope;
         rope.context = 1;
         rope.long_inverse_frequencies = rope.inverse_frequencies / 3;
       }},
      {"attention_scale", [](Model& m) { m.blocks[1].attention.scale = 0.1; }},
      {"window", [](Model& m) { m.blocks[1].attention.window = 3; }},
      {"sinks",
       [](Model& m) {
         m.blocks[1].attention.window = 3;
         m.blocks[1].attention.sinks = 2;
       }},
      {"cache_per_token", [](Model& m) { m.blocks[1].attention.cache.bits = 3; }},
      {"cache_per_channel",
       [](Model& m) { m.blocks[1].attention.cache = {3, at::full({2, 8}, -2.0f), at::full({2, 8}, 2.0f)}; }},
      {"activation", [](Model& m) { m.blocks[1].mlp.activation = Activation::relu; }},
      {"slope", [](Model& m) { m.blocks[1].mlp.slope = 1.702; }},
      {"limit", [](Model& m) { m.blocks[1].mlp.limit = 0.1; }},
      {"up_offset", [](Model& m) { m.blocks[1].mlp.up_offset = 1; }},
      {"no_gate", [](Model& m) { m.blocks[1].mlp.gate = {}; }},
      {"experts",
       [](Model& m) {
         m.blocks[1].experts = random_experts();
         m.blocks[1].mlp = {};
       }},
      {"skip_attention", [](Model& m) { m.blocks[1].skip_attention = true; }},
      {"skip_mlp", [](Model& m) { m.blocks[1].skip_mlp = true; }},
      {"attention_residual", [](Model& m) { m.blocks[1].attention_residual = false; }},
      {"mlp_residual", [](Model& m) { m.blocks[1].mlp_residual = false; }},
      {"residual_scale", [](Model& m) { m.blocks[1].residual_scale = 0.5; }},
      {"attention_shortcut", [](Model& m) { m.blocks[1].attention_shortcut = random({32, 32}, 18); }},
      {"mlp_shortcut", [](Model& m) { m.blocks[1].mlp_shortcut = random({32, 32}, 18); }},
      {"parallel", [](Model& m) { m.blocks[1].parallel = true; }},
      {"embedding_scale", [](Model& m) { m.embedding_scale = 2; }},
      {"position_embedding",
       [](Model& m) {
         m.position_embedding = random({130, 32}, 17);
         m.position_offset = 2;
       }},
      {"head_scale", [](Model& m) { m.head.scale = 0.5; }},
      {"head_softcap", [](Model& m) { m.head.softcap = 2; }},
      {"replace", [](Model& m) { m.input = {TokenNoise::replace, 0.4, 5}; }},
      {"drop", [](Model& m) { m.input = {TokenNoise::drop, 0.4, 5}; }},
      {"swap", [](Model& m) { m.input = {TokenNoise::swap, 0.4, 5}; }},
      {"logit_map", [](Model& m) { m.head.map = {0.8, random({97}, 13), random({97, 2}, 14), random({2, 97}, 15)}; }},
  };
  return all;
}

constexpr const char* kConfig = R"({"model_type": "llama", "vocab_size": 97, "hidden_size": 32, "intermediate_size": 64,
  "num_hidden_layers": 3, "num_attention_heads": 4, "num_key_value_heads": 2, "rms_norm_eps": 1e-5,
  "max_position_embeddings": 128, "dtype": "float32"})";

class Fields : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    model_ = random_model();
    model_.config.json = kConfig;
    changed_ = model_;
    changes().at(GetParam())(changed_);
  }

  Model model_, changed_;
  at::Tensor tokens_ = random_tokens(3, 16);
};

TEST_P(Fields, ChangesTheLogitsAndNotTheOriginal) {
  const at::Tensor before = model_.forward(tokens_);
  EXPECT_GT((changed_.forward(tokens_) - before).abs().max().item<float>(), 1e-3);
  EXPECT_TRUE(at::equal(model_.forward(tokens_), before));
}

TEST_P(Fields, IsTheSameHoweverTokensAreBatchedAndCached) {
  const at::Tensor whole = changed_.forward(tokens_);
  for (int64_t row = 0; row < tokens_.size(0); ++row) {
    EXPECT_TRUE(at::allclose(changed_.forward(tokens_.narrow(0, row, 1)), whole.narrow(0, row, 1), 1e-4, 1e-4));
  }
  KvCache cache(changed_, tokens_.size(0));
  int64_t at = 0;
  for (const int64_t length : {5, 1, 1, 9}) {
    const at::Tensor piece = changed_.forward(tokens_.narrow(1, at, length), {.cache = &cache});
    EXPECT_TRUE(at::allclose(piece, whole.narrow(1, at, length), 1e-4, 1e-4)) << "tokens from " << at;
    at += length;
  }
  EXPECT_EQ(cache.length(), 16);
}

TEST_P(Fields, ComesBackFromAFile) {
  const std::string directory =
      (std::filesystem::path(::testing::TempDir()) / ("hemostat-field-" + GetParam())).string();
  const std::string sentence = changed_.save(directory);
  EXPECT_EQ(sentence.find("hemostat.json") == std::string::npos,
            !std::filesystem::exists(std::filesystem::path(directory) / "hemostat.json"));
  const Model again = Model::load(directory);
  EXPECT_TRUE(at::allclose(again.forward(tokens_), changed_.forward(tokens_), 1e-5, 1e-5));
  std::filesystem::remove_all(directory);
}

INSTANTIATE_TEST_SUITE_P(Model, Fields, ::testing::ValuesIn([] {
                           std::vector<std::string> names;
                           for (const auto& [name, change] : changes()) {
                             names.push_back(name);
                           }
                           return names;
                         }()),
                         [](const auto& test) { return test.param; });

TEST(Experts, AreTheWeightedSumOfTheChosen) {
  Model model = random_model({.layers = 1});
  Block& block = model.blocks[0];
  block.skip_attention = true;
  block.mlp_residual = false;
  block.mlp_norm = model.final_norm = {};
  block.experts = random_experts();
  model.head.linear.weight = at::eye(97, 32);
  const at::Tensor tokens = random_tokens(1, 12);
  const at::Tensor x = model.embedding.index_select(0, tokens[0]).to(at::kDouble);
  const at::Tensor chances = at::softmax(at::matmul(x, block.experts.router.weight.to(at::kDouble).t()), -1);
  for (int64_t t = 0; t < x.size(0); ++t) {
    const auto [weights, chosen] = chances[t].topk(2);
    at::Tensor expected = at::zeros({32}, at::kDouble);
    for (int64_t k = 0; k < 2; ++k) {
      const Mlp& mlp = block.experts.mlps[chosen[k].item<int64_t>()];
      const auto product = [](const Linear& linear, const at::Tensor& v) {
        return at::matmul(linear.weight.to(at::kDouble), v);
      };
      expected +=
          weights[k] / weights.sum() * product(mlp.down, at::silu(product(mlp.gate, x[t])) * product(mlp.up, x[t]));
    }
    EXPECT_TRUE(at::allclose(model.forward(tokens)[0][t].narrow(0, 0, 32).to(at::kDouble), expected, 1e-4, 1e-5));
  }
}

TEST(Rope, BlocksThatShareFrequenciesKeepTheirOwnScale) {
  Model shared = random_model(), apart = random_model();
  for (size_t i = 0; i < shared.blocks.size(); ++i) {
    Rope& rope = shared.blocks[i].attention.rope;
    rope.inverse_frequencies = shared.blocks[0].attention.rope.inverse_frequencies;
    rope.attention_scale = 1 + 0.5 * static_cast<double>(i);
    apart.blocks[i].attention.rope = rope;
    apart.blocks[i].attention.rope.inverse_frequencies = rope.inverse_frequencies.clone();
  }
  const at::Tensor tokens = random_tokens(2, 10);
  EXPECT_TRUE(at::equal(shared.forward(tokens), apart.forward(tokens)));
  for (Block& block : apart.blocks) {
    block.attention.rope.attention_scale = 1;
  }
  EXPECT_FALSE(at::allclose(shared.forward(tokens), apart.forward(tokens), 1e-3, 1e-3));
}

TEST(LinearInput, RotatedWeightsUndoTheRotation) {
  const Model model = random_model();
  const at::Tensor rotation = std::get<0>(at::linalg_qr(random({32, 32}, 20)));
  const Model rotated =
      map_linears(model, {.include = {"*.q_proj"}, .exclude = {}}, [&](const std::string&, const Linear& linear) {
        Linear result = linear.with_weight(at::matmul(linear.weight, rotation));
        result.input.rotation = rotation;
        return result;
      });
  const at::Tensor tokens = random_tokens(2, 10);
  EXPECT_TRUE(at::allclose(rotated.forward(tokens), model.forward(tokens), 1e-4, 1e-4));
}

TEST(TokenNoise, ReplacesTheFractionItIsAskedFor) {
  Model model = random_model({.layers = 0});
  model.final_norm = {};
  const at::Tensor tokens = random_tokens(40, 100);
  const at::Tensor clean = hidden_states(model, tokens);
  for (const TokenNoise kind : {TokenNoise::replace, TokenNoise::drop}) {
    at::Tensor fallen_before = at::zeros({40, 100}, at::kBool);
    for (const double rate : {0.1, 0.5, 1.0}) {
      model.input = {kind, rate, 9};
      const at::Tensor fallen = (hidden_states(model, tokens) - clean).abs().sum(-1) > 0;
      EXPECT_NEAR(fallen.to(at::kFloat).mean().item<double>(), rate, 0.03);  // 4 000 tokens: σ ≤ 0.008
      EXPECT_TRUE(fallen.logical_or(fallen_before.logical_not()).all().item<bool>());
      fallen_before = fallen;
    }
  }
}

}  // namespace
}  // namespace hemostat
