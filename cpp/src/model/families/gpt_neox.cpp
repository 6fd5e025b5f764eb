#include "family.h"
#include "model/config.h"

namespace hemostat::family_tables {

// Pythia's, and GPT-NeoX.
Family gpt_neox() {
  const std::string qkv = "attention.query_key_value";
  return {
      .model_type = "gpt_neox",
      .architecture = "GPTNeoXForCausalLM",
      .names = {.embedding = "gpt_neox.embed_in",
                .block = "gpt_neox.layers.",
                .final_norm = "gpt_neox.final_layer_norm",
                .head = "embed_out",
                .q = qkv + ".q",
                .k = qkv + ".k",
                .v = qkv + ".v",
                .o = "attention.dense",
                .up = "mlp.dense_h_to_4h",
                .down = "mlp.dense_4h_to_h"},
      .keys = {.kv_heads = "",
               .head_dim = "",
               .epsilon = "layer_norm_eps",
               .rope_theta = "rotary_emb_base",
               .partial_rotary = "rotary_pct"},
      .defaults = {.intermediate_size = 24576,
                   .activation = "gelu",
                   .epsilon = 1e-5,
                   .partial_rotary = 0.25,
                   .bos = 0,
                   .eos = 2},
      .shape = {.norm = NormKind::layer, .norm_bias = true, .gate = false, .mlp_bias = true},
      .stored = {{.name = qkv, .parts = {qkv + ".q", qkv + ".k", qkv + ".v"}, .order = Stored::Order::per_head},
                 {.scope = Stored::Scope::model, .name = "lm_head", .parts = {"embed_out"}, .read_only = true}},
      .ignored = {".attention.bias", ".attention.masked_bias", ".rotary_emb.inv_freq"},
      .padded_embedding = false,
      .read =
          [](ConfigFields& fields, CheckpointConfig& config) {
            config.shape.qkv_bias = config.shape.o_bias = fields.boolean("attention_bias", true);
            config.block.parallel = fields.boolean("use_parallel_residual", true);
          },
      .gguf = {.name = "gptneox",
               .names = {.q = "attn_qkv", .k = "attn_qkv", .v = "attn_qkv"},
               .keys = {{.key = "use_parallel_residual",
                         .field = "use_parallel_residual",
                         .value = [](const CheckpointConfig& config) { return config.block.parallel ? 1.0 : 0.0; },
                         .kind = GgufKey::Kind::boolean}},
               .head = GgufArchitecture::Head::own,
               .own_head_dim = false,
               .partial_rotation = true,
               .otherwise =
                   [](const CheckpointConfig&) { return std::string("computes its GELU by the tanh approximation"); }},
  };
}

}  // namespace hemostat::family_tables
