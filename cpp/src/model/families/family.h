// A family of models as data: what its config.json says, what its blocks look like, and how its checkpoints store them.
// Loading and saving read these tables, and nothing else asks which family a model is of.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <hemostat/model.h>

#include "model/config_fields.h"

namespace hemostat {

struct CheckpointConfig;

// How config.json spells what every family has. Empty: this family's has no such field.
struct ConfigKeys {
  std::string hidden_size = "hidden_size", layers = "num_hidden_layers", heads = "num_attention_heads",
              kv_heads = "num_key_value_heads", head_dim = "head_dim", intermediate_size = "intermediate_size",
              context = "max_position_embeddings", activation = "hidden_act", epsilon = "rms_norm_eps",
              rope_theta = "rope_theta", partial_rotary = "partial_rotary_factor", local_rope_theta = "",
              rotated_layers = "",  // a list of 1 and 0: whether a layer sees positions
      dense_layers = "",            // a list of the layers without experts
      sparse_step = "";             // each so-many-th of the others has them
};

// What transformers gives fields that a config leaves out.
struct ConfigDefaults {
  int64_t vocab_size = 0, hidden_size = 0, layers = 0, heads = 0;  // 0: none
  int64_t kv_heads = 0;                                            // 0: as many as heads
  int64_t head_dim = 0;                                            // 0: hidden_size / heads
  int64_t intermediate_size = 0;                                   // 0: none
  int64_t intermediate_multiple = 0;                               // of hidden_size; 0: none
  int64_t context = 2048;
  std::string activation = "silu";
  double epsilon = 1e-6, rope_theta = 10000, partial_rotary = 1;
  int64_t original_context = 0;      // original_max_position_embeddings, where rotations are scaled; 0: none
  double local_rope_theta = 0;       // of layers with a window, which have their own rotation; 0: they have not
  std::string rope_parameters = {};  // JSON
  std::optional<int64_t> bos = {}, eos = {}, pad = {};
  bool tied = false;
};

// Which layers have the window of sliding_window.
enum class WindowRule {
  none,
  every_layer,
  past_layer,  // from max_window_layers on, where use_sliding_window; or by layer_types
  by_type      // by layer_types; without them all but each period-th
};

// Which tensors a block has, beside its projections. What has no shape, family.block says.
struct Shape {
  NormKind norm = NormKind::rms;
  bool norm_weight = true, norm_bias = false;
  double norm_offset = 0;
  bool input_norms = true, output_norms = false, qk_norms = false, final_norm = true;
  bool gate = true;
  bool qkv_bias = false, o_bias = false, mlp_bias = false, router_bias = false;
  bool sink_logits = false;
  bool rotary = true;             // false: learned positions
  bool scaled_embedding = false;  // by the square root of hidden_size
};

// A tensor of a checkpoint that holds what the model keeps apart, or keeps otherwise.
struct Stored {
  enum class Scope { model, block, experts };            // experts: the first dimension counts them
  enum class Order { sequence, per_head, alternating };  // part after part; of each head one after another; row by row

  Scope scope = Scope::block;
  std::string name;                // within the scope, without ".weight"
  std::vector<std::string> parts;  // the linears, within the scope; of experts within one
  Order order = Order::sequence;
  bool transposed = false;                         // [in_features, out_features]
  std::string weight = ".weight", bias = ".bias";  // what follows the name
  bool read_only = false;                          // another spelling, which is not written
};

// Names in GGUF files, without ".weight" and ".bias". Linears of one name lie in one tensor, rows after rows; a tensor
// of experts holds all of a block's.
struct GgufNames {
  std::string embedding = "token_embd", positions = "position_embd", final_norm = "output_norm", head = "output";
  // Within a block.
  std::string q = "attn_q", k = "attn_k", v = "attn_v", o = "attn_output", q_norm = "attn_q_norm",
              k_norm = "attn_k_norm", sink_logits = "attn_sinks", gate = "ffn_gate", up = "ffn_up", down = "ffn_down",
              router = "ffn_gate_inp", attention_norm = "attn_norm", mlp_norm = "ffn_norm",
              attention_output_norm = "post_attention_norm", mlp_output_norm = "post_ffw_norm",
              expert_gate = "ffn_gate_exps", expert_up = "ffn_up_exps", expert_down = "ffn_down_exps";
};

// A hyperparameter that not every architecture has.
struct GgufKey {
  enum class Kind { integer, number, boolean };

  std::string key;    // "attn_logit_softcapping"
  std::string field;  // of config.json, which says the same
  double (*value)(const CheckpointConfig& config);
  std::optional<double> missing = {};  // what a file without the key means, and 0 is not written; none: all have it
  Kind kind = Kind::number;
};

// What llama.cpp makes of the files of a family. What its files cannot say is as the family's defaults have it.
struct GgufArchitecture {
  enum class Head { either, tied, own };

  std::string name = {};  // general.architecture; empty: no file of this family is read or written
  GgufNames names = {};
  std::vector<GgufKey> keys = {};
  Head head = Head::either;       // what llama.cpp loads
  bool adjacent_pairs = false;    // its files order rows of q and k so that what is rotated together is adjacent
  bool optional_bias = false;     // a tensor of that name makes it so
  bool own_head_dim = true;       // heads may be of another size than embedding_length / head_count
  bool grouped_heads = true;      // there may be fewer key-value heads than heads
  bool partial_rotation = false;  // of a head's first rope.dimension_count features
  bool rope_divisors = false;     // rope_freqs.weight may divide the frequencies
  bool long_divisors = false;     // and rope_factors_long.weight, rope_factors_short.weight (LongRoPE)
  bool windows = false;           // attention.sliding_window holds
  int64_t missing_window = 0;     // where it is missing
  std::vector<std::string> only_true = {};             // flags that no file may have as false
  void (*complete)(nlohmann::json& config) = nullptr;  // adds the fields that every file means
  // What llama.cpp computes otherwise with a file of this model, after "llama.cpp "; empty: nothing.
  std::string (*otherwise)(const CheckpointConfig& config) = nullptr;
};

struct Family {
  std::string model_type, architecture;  // "llama", "LlamaForCausalLM"
  std::string multimodal = {};           // model_type of checkpoints whose text_config is one of these
  Naming names = {};
  ConfigKeys keys = {};
  ConfigDefaults defaults = {};
  Shape shape = {};
  Block block = {};  // what all blocks have alike, without tensors
  WindowRule windows = WindowRule::none;
  int64_t window_period = 0, default_window = 4096;  // default_window 0: none
  bool windows_everywhere = false;                   // past_layer: use_sliding_window alone decides
  std::vector<Stored> stored = {};
  std::vector<std::string> ignored = {".rotary_emb.inv_freq"};             // how tensors end that change no number
  std::vector<NeutralField> neutral = {};                                  // fields of its own that change no number
  bool attention_bias = false, mlp_bias = false;                           // whether config.json may say so
  bool padded_embedding = true;                                            // the row of pad_token_id gets no gradient
  bool yarn_is_longrope = false;                                           // what older files call yarn is LongRoPE
  void (*read)(ConfigFields& fields, CheckpointConfig& config) = nullptr;  // fields that no other family has
  GgufArchitecture gguf = {};
};

namespace family_tables {

Family llama();
Family mistral();
Family ministral();
Family qwen2();
Family qwen3();
Family gemma();
Family gemma2();
Family gemma3();
Family phi3();
Family olmo2();
Family smollm3();
Family granite();
Family gpt2();
Family opt();
Family gpt_neox();
Family mixtral();
Family qwen3_moe();
Family olmoe();
Family gpt_oss();

const std::vector<Family>& all();
const Family* find(const std::string& model_type);  // null: it is none of them

// What families with experts have in common: "num_experts_per_tok" and how many there are, by either of two spellings.
void read_experts(ConfigFields& fields, CheckpointConfig& config, int64_t default_experts, int64_t default_top_k);

// What GGUF files of such families have in common; `count` is the field that says how many experts there are.
std::vector<GgufKey> gguf_experts(const std::string& count);

// query_pre_attn_scalar of Gemma, which files leave out: head_dim, but of models with so many layers hidden_size /
// heads.
void complete_query_scale(nlohmann::json& config, int64_t wide_layers);

// The tensors in which transformers 5 keeps the experts of a model in memory, beside its own files.
std::vector<Stored> stacked_experts(const Naming& names);

}  // namespace family_tables
}  // namespace hemostat
