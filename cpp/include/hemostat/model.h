// Room `model`: a language model as data, the one function that interprets it, and its files.
//
// A Model is a plain value. Tensors are shared, so a copy costs nothing; a damaged model is another value that
// shares every untouched tensor. forward() reads the fields below and never asks which method set them: a room
// that needs something new adds a field whose default changes nothing.
//
// Letters in shapes: B batch, T tokens of this call, S tokens visible to it (cache included), H hidden_size,
// V vocab_size.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>

#include <hemostat/quantize.h>

namespace hemostat {

// What happens to a linear layer's input first, in the order of the fields. All neutral by default.
struct LinearInput {
  at::Tensor scale;        // [in_features]: x · scale. Undefined: none
  at::Tensor rotation;     // [in_features, in_features]: x @ rotation. Undefined: none
  double bits = 16;        // < 16: dynamic fake quantization of each token to round(2^bits) levels
  bool symmetric = false;  // of that quantization
  double noise = 0;        // σ: x + σ · std(x of the token) · z, z standard normal from (noise_seed, position, feature)
  int64_t noise_seed = 0;

  bool neutral() const;
};

// y = weight · x + bias. Exactly one of: weight; a and b (weight = a·b, kept as two products); packed.
struct Linear {
  at::Tensor weight;                                     // [out_features, in_features]
  at::Tensor a, b;                                       // [out_features, r], [r, in_features]
  std::shared_ptr<const quantize::PackedWeight> packed;  // dequantized on use
  at::Tensor bias;                                       // [out_features], undefined: none
  // Bits per weight of the storage format that a dense weight was rounded to, scales and zero points included; 0: none,
  // so those of its dtype. Only Model::bytes() reads it.
  double stored_bits = 0;
  LinearInput input;

  bool defined() const;  // false: this model has no such layer (e.g. the gate of a plain MLP)
  bool factored() const;
  int64_t out_features() const;
  int64_t in_features() const;
  at::Tensor dense() const;  // the weight, factors multiplied out and codes dequantized
  // The same layer with a dense weight, which was rounded to a storage format of so many bits per weight, or to none.
  Linear with_weight(at::Tensor weight, double stored_bits = 0) const;
  Linear with_packed(std::shared_ptr<const quantize::PackedWeight> weight) const;  // and with one in a storage format
};

enum class NormKind { none, rms, layer, dynamic_tanh };

// rms:  (offset + weight) · x / sqrt(mean(x²) + epsilon)  layer: weight · (x − mean)/sqrt(var + epsilon) + bias
// dynamic_tanh: weight · tanh(alpha · x) + bias           none:  x
struct Norm {
  NormKind kind = NormKind::none;
  at::Tensor weight, bias;
  double epsilon = 1e-5;
  double alpha = 1;
  double offset = 0;  // of rms: Gemma's weights are stored less 1
};

// Rotary position embedding of the first 2·frequencies features of each head, halves rotated (not interleaved).
// Frequencies may depend on how many tokens a call sees, those in the cache included; keys in a cache stay as they were
// rotated, so that text read in steps then differs from text read at once.
struct Rope {
  at::Tensor inverse_frequencies;       // [rotary_dim / 2] float32, radians per position. Undefined: no rotation
  double attention_scale = 1;           // multiplies cos and sin (YaRN)
  int64_t context = 0;                  // where more tokens than these are seen, the fields below hold
  at::Tensor long_inverse_frequencies;  // in the place of inverse_frequencies (LongRoPE). Undefined: none
  // > 0: the base of the frequencies is multiplied by (dynamic_factor · seen/context − dynamic_factor + 1)^(d/(d − 2)),
  // d = rotary_dim (dynamic NTK)
  double dynamic_factor = 0;
};

// Keys are quantized per channel in fixed ranges, values per token in their own: each token's cache entry depends
// on that token alone.
struct CacheQuantization {
  double bits = 16;             // < 16: round(2^bits) levels
  at::Tensor key_min, key_max;  // [kv_heads, head_dim] float32; undefined: keys per token too
};

enum class NormScope { head, all };  // over the features of each head, or over all heads' at once

struct Attention {
  Linear q, k, v, o;
  int64_t heads = 0, kv_heads = 0, head_dim = 0;
  Norm q_norm, k_norm;  // before the rotation
  NormScope qk_norm_scope = NormScope::head;
  Rope rope;
  double scale = 0;    // of q·k; 0: 1/sqrt(head_dim)
  double softcap = 0;  // c > 0: scores become c · tanh(scores / c)
  // [heads]: a logit beside each token's scores, that takes its share of the softmax and gives nothing. Undefined: none
  at::Tensor sink_logits;
  int64_t window = 0;  // a token sees itself and the window − 1 before it; 0: all before it
  int64_t sinks = 0;   // with a window: the first `sinks` positions stay visible
  CacheQuantization cache;
};

// silu: x · sigmoid(slope · x), slope a field of Mlp
enum class Activation { silu, gelu, gelu_tanh, relu };

// down(activation(gate(x)) · (up(x) + up_offset)), or down(activation(up(x))) where there is no gate.
struct Mlp {
  Linear gate, up, down;
  Activation activation = Activation::silu;
  double slope = 1;      // of silu; 1.702: quick GELU
  double limit = 0;      // c > 0: what gate gives is at most c, what up gives from −c to c
  double up_offset = 0;  // of a gated MLP
};

// A mixture: softmax(router(x)/temperature) chooses top_k of mlps per token; empty: the block has a dense mlp.
struct Experts {
  Linear router;  // [experts, H]
  int64_t top_k = 0;
  bool normalize = true;  // the chosen weights sum to 1
  double temperature = 1;
  std::vector<Mlp> mlps;
};

enum class NormPlacement { pre, post };  // x + f(norm(x)), or norm(x + f(x))

struct Block {
  NormPlacement placement = NormPlacement::pre;
  Norm attention_norm, mlp_norm;
  Norm attention_output_norm, mlp_output_norm;  // on a sublayer's output before it is added (sandwich); none by default
  Attention attention;
  Mlp mlp;
  Experts experts;
  bool skip_attention = false, skip_mlp = false;        // the sublayer is not computed and adds nothing
  bool attention_residual = true, mlp_residual = true;  // false: the sublayer's input is not added to its output
  double residual_scale = 1;                            // multiplies a sublayer's output before it is added
  // [H, H]: x @ shortcut is what a sublayer's output is added to (residual streams in another basis). Undefined: x
  at::Tensor attention_shortcut, mlp_shortcut;
  bool parallel = false;  // the MLP reads the block's input, as the attention does: x + f(norm(x)) + g(norm(x))
  int64_t origin = 0;     // index of the checkpoint's block; names and statistics follow it
};

enum class TokenNoise { none, replace, drop, swap };

// A hash of (seed, position, token, previous token) decides what happens to a token, so that batching and caching
// don't alter it; the targets stay clean.
//   replace  a token drawn uniformly from the vocabulary stands in its place
//   drop     its embedding is zero
//   swap     its predecessor stands in its place: the causal half of exchanging two neighbours (the other half
//            would show a token before its time and hand the model its own target)
struct InputPerturbation {
  TokenNoise kind = TokenNoise::none;
  double rate = 0;  // fraction of tokens, 0 … 1
  int64_t seed = 0;

  bool operator==(const InputPerturbation&) const = default;
};

// logits ← scale · logits + bias + a·(b·logits)
struct LogitMap {
  double scale = 1;
  at::Tensor bias;  // [V], undefined: none
  at::Tensor a, b;  // [V, r], [r, V], undefined: none
};

// c · tanh(scale · linear(x) / c), then the map
struct Head {
  Linear linear;       // [V, H]; shares the embedding's storage where they are tied
  double scale = 1;    // the family's own: a map may scale too
  double softcap = 0;  // c; 0: none
  LogitMap map;
};

// How a token is chosen from the logits, which forward() returns raw. Neutral: drawn from the model's own distribution.
struct Decoder {
  double temperature = 1;  // > 0: logits / temperature
  bool do_sample = true;   // drawn from softmax(logits / temperature); false: the most likely, the lowest of equal ones

  bool operator==(const Decoder&) const = default;
};

// The names of a family's linears and tensors, as its checkpoints spell them; LLaMA's unless a family says otherwise. A
// linear that checkpoints store with others in one tensor has that tensor's name and its own: "attn.c_attn.q".
struct Naming {
  std::string embedding = "model.embed_tokens", positions = "model.embed_positions", block = "model.layers.",
              final_norm = "model.norm", head = "lm_head";
  // Within a block.
  std::string q = "self_attn.q_proj", k = "self_attn.k_proj", v = "self_attn.v_proj", o = "self_attn.o_proj",
              q_norm = "self_attn.q_norm", k_norm = "self_attn.k_norm", sink_logits = "self_attn.sinks",
              gate = "mlp.gate_proj", up = "mlp.up_proj", down = "mlp.down_proj", router = "mlp.gate",
              attention_norm = "input_layernorm", mlp_norm = "post_attention_layernorm",
              attention_output_norm = "attention_output_norm", mlp_output_norm = "mlp_output_norm";
  // An expert's number follows the first, then a dot and one of the others.
  std::string expert = "mlp.experts.", expert_gate = "gate_proj", expert_up = "up_proj", expert_down = "down_proj";
};

struct ModelConfig {
  std::string family;                                    // model_type in config.json, of families()
  int64_t vocab_size = 0, hidden_size = 0, context = 0;  // context: max_position_embeddings
  std::vector<int64_t> eos_token_ids;
  std::optional<int64_t> bos_token_id;
  std::optional<int64_t> padding_row;  // of the embedding: gets no gradient, as in transformers (pad_token_id)
  std::string left_out;                // what of a multimodal checkpoint is no language model's; empty: nothing
  std::string json;                    // config.json as loaded
  Naming names;
};

class KvCache;
class Observer;
struct Foreign;
struct Linear;

// A module of another architecture than families(): an opaque forward, on linears that can be replaced. Of a torch
// module in Python hemostat.Model.from_module() makes one.
class ForeignModule {
 public:
  virtual ~ForeignModule() = default;

  virtual std::string name() const = 0;  // its class: "MambaForCausalLM"

  // The module's own forward with `linears` in the place of its own, unaltered but for that; it does not change. An
  // observer sees inputs and outputs of the linears that are called, all as of block 0.
  //   of a language model  tokens int64 [B, T] → logits [B, T, V]
  //   has_loss()           a batch of any kind, its first dimension of the samples → their losses [B]
  virtual at::Tensor run(const Foreign& linears, const at::Tensor& batch, Observer* observer) const = 0;
  virtual bool has_loss() const = 0;

  // The same module with its own weights in another dtype or on another device.
  virtual Foreign converted(std::optional<at::ScalarType> dtype, std::optional<c10::Device> device) const = 0;

  // Everything that decides on what it computes beside tensors, as text; and the tensors as its checkpoint names them.
  virtual std::string structure() const = 0;
  virtual std::map<std::string, at::Tensor> tensors(const Foreign& linears) const = 0;

  // Writes its checkpoint into an empty directory. ValueError where it has no such form.
  virtual void save(const Foreign& linears, const std::string& directory) const = 0;
};

struct ForwardOptions {
  KvCache* cache = nullptr;  // continues after the tokens it holds, and appends these
  Observer* observer = nullptr;
};

struct LoadOptions {
  std::optional<at::ScalarType> dtype;  // none: as stored
  c10::Device device = c10::kCPU;
};

struct ModelState;

// A linear of a foreign module, and as the module has it.
struct ForeignLinear {
  std::string name;
  Linear linear, own;
  bool output = false;  // it computes logits, or shares a tensor with an embedding: only include patterns choose it

  bool changed() const;
};

// What stands in the place of embedding, blocks, final norm and head.
struct Foreign {
  std::shared_ptr<const ForeignModule> module;  // null: the model is one of blocks
  std::vector<ForeignLinear> linears;
  std::map<std::string, at::Tensor> others;  // parameters and buffers that are in no linear
  at::ScalarType dtype = at::kFloat;
  c10::Device device = c10::kCPU;

  explicit operator bool() const { return module != nullptr; }
  bool has_loss() const { return module != nullptr && module->has_loss(); }
};

struct Model {
  ModelConfig config;
  InputPerturbation input;
  at::Tensor embedding;           // [V, H]
  double embedding_scale = 1;     // multiplies what is read of it, rounded to the model's dtype
  at::Tensor position_embedding;  // [P, H]: row position + position_offset is added. Undefined: none
  int64_t position_offset = 0;
  std::vector<Block> blocks;
  Norm final_norm;
  Head head;
  Decoder decoder;
  Foreign foreign;     // computes in the place of all these but input and decoder
  std::string source;  // the directory or GGUF file it was loaded from, absolute; empty: none

  // A Hugging Face directory of one of families(): config.json and one or many *.safetensors (and hemostat.json where
  // save() wrote one). Tensors are private, writable views on the mapped files. Every config field that changes a
  // number is honoured or refused by name. Throws ValueError naming the file and the field or tensor.
  //
  // Or a GGUF file (a path that ends in .gguf) of an architecture that one of families() has in llama.cpp. Its block
  // formats stay packed in linears, experts and parts of fused tensors too, as GgufPacked (MXFP4: BlockPacked); an
  // embedding or a head in one is dequantized. Without a dtype the model has bfloat16 or float16 where the file has a
  // matrix of it, else float32; with one every weight is dense.
  static Model load(const std::string& checkpoint, const LoadOptions& options = {});

  // The same from config.json's text and named tensors, which are shared, gradients included.
  static Model from_tensors(const std::string& config_json, const std::map<std::string, at::Tensor>& tensors);

  // Every part of a model, and a model of them: what pickling keeps. Tensors are shared. Packed weights stay packed.
  ModelState state() const;
  static Model from_state(const ModelState& state);

  // Writes what load() reads, whole or not at all: config.json, model.safetensors, and what lies beside the weights in
  // `source` (tokenizer, chat templates, generation config, licence, model card, custom code). What the family's config
  // cannot express (per-layer sizes, factors, input treatments) goes to hemostat.json. The result says so, and what was
  // left behind; else it is empty.
  //
  // In a checkpoint's directory that exists, only files that are written are replaced (a link by a file), and weights,
  // indexes and hemostat.json that contradict the new model removed. A killed process leaves the old model or the new
  // one; where it was killed between the renames at the end, the next load() or save() does those that are left.
  // ValueError, naming the file, for a directory that holds something else, an adapter_config.json in it, and what
  // cannot be read or written; nothing is changed then.
  //
  // A path that ends in .gguf: one GGUF file, its tokenizer included. Weights that are GgufPacked (or MXFP4) keep their
  // bytes, but linears of different types that share a tensor; the others have the model's dtype, and norms, biases,
  // routers and learned positions float32. ValueError, before anything is written, where the file would be read as
  // another model; the result is a sentence on what other readers overlook or compute otherwise.
  std::string save(const std::string& path) const;

  // Named tensors as save() writes them; a tied head is left out.
  std::map<std::string, at::Tensor> tensors() const;

  // ValueError naming the tensor where the dtype cannot hold it: finite entries would be infinite, or all would be 0.
  Model to(std::optional<at::ScalarType> dtype, std::optional<c10::Device> device = std::nullopt) const;

  at::ScalarType dtype() const;
  c10::Device device() const;
  bool tied() const;           // the head's weight is the embedding
  int64_t parameters() const;  // entries of what a checkpoint of it holds: factors as factors, a tied head once
  // Of those: packed weights as packed, and rounded ones (Linear::stored_bits) as their format would store them.
  double bytes() const;

  // tokens int64 [B, T] → logits [B, T, V]
  at::Tensor forward(const at::Tensor& tokens, const ForwardOptions& options = {}) const;

  // A linear of each name becomes dense with the given weight (its bias stays). Throws ValueError for an unknown name
  // a wrong shape or entries beyond the model's dtype, TypeError for a dtype that is not floating.
  Model replace(const std::map<std::string, at::Tensor>& weights) const;
};

struct ModelState {
  ModelConfig config;     // from_state() reads all but json, context and the tokens from json
  std::string structure;  // as hemostat.json says it, and the stored bits of linears
  std::map<std::string, at::Tensor> tensors;
  std::map<std::string, std::shared_ptr<const quantize::PackedWeight>> packed;  // by names of linears
  std::vector<int64_t> origins;                                                 // of the blocks
  std::string source;
};

// What loads: the model_type of config.json, and the class in transformers that computes the same.
struct FamilyName {
  std::string model_type, architecture;
};

std::vector<FamilyName> families();

// config.json for the model as it is now, as save() writes it. ValueError where its family's cannot express it.
std::string family_config(const Model& model);

// tokenizer.json of the tokenizer in a GGUF file; none where the file has none. ValueError where it is of a kind that
// no tokenizer.json can be made of.
std::optional<std::string> gguf_tokenizer(const std::string& path);

// Everything of a model but its tensors' data and its source, as JSON: models of equal structure and equal tensors
// compute the same.
std::string structure(const Model& model);

// The interpreter in its parts. hidden_states: the final norm's output [B, T, H]; logits: the head on it. Of a foreign
// module hidden_states are the logits themselves [B, T, V], or the losses [B] where it has a loss; run_blocks and embed
// throw ValueError.
at::Tensor hidden_states(const Model& model, const at::Tensor& tokens, const ForwardOptions& options = {});
at::Tensor logits(const Model& model, const at::Tensor& hidden);
at::Tensor embed(const Model& model, const at::Tensor& tokens, KvCache* cache = nullptr);
at::Tensor apply_norm(const Norm& norm, const at::Tensor& x);

// Blocks first … last − 1 on the residual stream x [B, T, H] as it is before block `first` → as it is after them,
// before the final norm; x stays as it is. An observer sees it before each and after the last. A cache is appended to,
// but not advanced, which ends a call. ValueError unless first ≤ last ≤ the number of blocks.
at::Tensor run_blocks(const Model& model, const at::Tensor& x, size_t first, size_t last,
                      const ForwardOptions& options = {});

// x [..., in_features]; positions int64, broadcastable to x without its last dimension, is read by input noise alone.
at::Tensor apply_linear(const Linear& linear, const at::Tensor& x, const at::Tensor& positions);

// tokens are int64 [B, T] (or [T]) on the model's device with ids in 0 … V − 1; else ValueError or TypeError. Of a
// foreign module with a loss, a batch of any kind.
at::Tensor checked_tokens(const Model& model, const at::Tensor& tokens, const char* operation);

// Keys and values of the tokens seen so far, one entry a block.
class KvCache {
 public:
  // ValueError for a foreign module, whose caches are its own.
  explicit KvCache(const Model& model, int64_t batch = 1, int64_t capacity = 0);

  int64_t length() const { return length_; }

  // Appends [B, kv_heads, T, head_dim] of a block and returns all it holds, [B, kv_heads, S, head_dim].
  std::pair<at::Tensor, at::Tensor> append(size_t block, const at::Tensor& keys, const at::Tensor& values);

  // Ends a call: `tokens` [B, T] have been appended to every block.
  void advance(const at::Tensor& tokens);

  const at::Tensor& last_token() const { return last_token_; }  // [B, 1], undefined at first

 private:
  struct Entry {
    at::Tensor keys, values;  // [B, kv_heads, capacity, head_dim]
  };
  std::vector<Entry> entries_;
  int64_t batch_, capacity_, length_ = 0;
  at::Tensor last_token_;
};

// Sees a forward pass from inside. Tensors are live: copy what you keep.
class Observer {
 public:
  virtual ~Observer() = default;

  // Before the linears `names`, which share the input x […, in_features], as it is before their own LinearInput.
  virtual void linear_input(size_t /*block*/, const std::vector<std::string>& /*names*/, const at::Tensor& /*x*/) {}

  // What the linear `name` gives, y […, out_features]; what follows may be computed in its memory.
  virtual void linear_output(size_t /*block*/, const std::string& /*name*/, const at::Tensor& /*y*/) {}

  // The residual stream [B, T, H] before block 0 … L − 1, and after the last (index L, before the final norm).
  virtual void hidden_state(size_t /*index*/, const at::Tensor& /*x*/) {}

  // Attention probabilities [B, heads, T, S]; computed only where wants_attention().
  virtual bool wants_attention() const { return false; }
  virtual void attention(size_t /*block*/, const at::Tensor& /*probabilities*/) {}

  // Chosen experts int64 [tokens, top_k] and their weights.
  virtual void routing(size_t /*block*/, const at::Tensor& /*experts*/, const at::Tensor& /*weights*/) {}
};

// Where a model's numbers stop being finite.
struct NonFinite {
  enum class Place { tensor, layer, state };

  Place place = Place::tensor;
  // Of a tensor, its name in the checkpoint; of a layer that gives NaN or Inf for finite input, the layer's; else what
  // is between layers: "the input of model.layers.3.mlp.down_proj".
  std::string name;
  int64_t nan = 0, infinite = 0;                       // entries
  at::ScalarType dtype = at::kFloat;                   // the tensor's, or what is computed in
  std::optional<double> largest_input = std::nullopt;  // magnitude of the largest entry that went in

  // "model.layers.17.mlp.down_proj gives Inf; float16 reaches 65504, and the largest value that goes in is 31240: try
  // bfloat16 or float32"
  std::string text() const;
};

// The first place, in the order of a forward pass over tokens int64 [windows, length], window by window. None where all
// logits are finite. ValueError, TypeError as forward().
std::optional<NonFinite> first_nonfinite(const Model& model, const at::Tensor& tokens);

// The first of the stored tensors, in the order of tensors(), that has a NaN or infinite entry.
std::optional<NonFinite> first_nonfinite(const Model& model);

enum class Role { q, k, v, o, gate, up, down, router, head, other };  // other: of a foreign module

std::string name(Role role);  // "q", …

// A linear of a model, under the checkpoint's own name without ".weight". Repeated blocks repeat their names.
struct NamedLinear {
  std::string name;
  const Linear* linear;
  Role role;
  int64_t input_id;             // linears with one read the same tensor: q, k and v of a block, gate and up of an MLP
  std::optional<size_t> block;  // its index in the model; none: the head, or of a foreign module
};

// fnmatch patterns on names. Without include: the linears inside blocks (routers left out); with it: all that match,
// head ("lm_head") and routers too.
struct LinearFilter {
  std::vector<std::string> include, exclude;
};

std::vector<NamedLinear> linears(const Model& model, const LinearFilter& filter = {});
std::vector<NamedLinear> linears(Model&& model, const LinearFilter& filter = {}) = delete;  // they would outlive it

// A model whose chosen linears are function(name, linear).
Model map_linears(const Model& model, const LinearFilter& filter,
                  const std::function<Linear(const std::string&, const Linear&)>& function);

}  // namespace hemostat
