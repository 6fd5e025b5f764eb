#include <fmt/format.h>

#include "family.h"
#include "model/config.h"

namespace hemostat::family_tables {

Family opt() {
  return {
      .model_type = "opt",
      .architecture = "OPTForCausalLM",
      .names = {.embedding = "model.decoder.embed_tokens",
                .positions = "model.decoder.embed_positions",
                .block = "model.decoder.layers.",
                .final_norm = "model.decoder.final_layer_norm",
                .o = "self_attn.out_proj",
                .up = "fc1",
                .down = "fc2",
                .attention_norm = "self_attn_layer_norm",
                .mlp_norm = "final_layer_norm"},
      .keys = {.kv_heads = "",
               .head_dim = "",
               .intermediate_size = "ffn_dim",
               .activation = "activation_function",
               .epsilon = ""},
      .defaults = {.activation = "relu", .epsilon = 1e-5, .bos = 2, .eos = 2, .pad = 1, .tied = true},
      .shape = {.norm = NormKind::layer, .norm_bias = true, .gate = false, .rotary = false},
      .read =
          [](ConfigFields& fields, CheckpointConfig& config) {
            const bool before = fields.boolean("do_layer_norm_before", true);
            config.block.placement = before ? NormPlacement::pre : NormPlacement::post;
            const bool removed = fields.boolean("_remove_final_layer_norm", false);
            config.shape.final_norm = before && !removed;
            config.shape.norm_weight = config.shape.norm_bias = fields.boolean("layer_norm_elementwise_affine", true);
            const bool bias = fields.boolean("enable_bias", true);
            config.shape.qkv_bias = config.shape.o_bias = config.shape.mlp_bias = bias;
            config.position_offset = 2;  // the rows before are of padding
            const int64_t width = fields.integer("word_embed_proj_dim", config.model.hidden_size);
            if (width != config.model.hidden_size) {
              fields.fail(fmt::format("field 'word_embed_proj_dim' is {}, and only hidden_size = {} is supported",
                                      width, config.model.hidden_size));
            }
          },
  };
}

}  // namespace hemostat::family_tables
