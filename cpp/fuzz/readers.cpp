#include "readers.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>

#include <ATen/ops/arange.h>
#include <ATen/ops/full.h>
#include <ATen/ops/zeros.h>
#include <fmt/format.h>

#include <hemostat/error.h>
#include <hemostat/model.h>

#include "model/config.h"
#include "model/consistency.h"
#include "model/gguf/gguf.h"
#include "model/gguf/model.h"
#include "model/gguf/tokenizer.h"
#include "model/safetensors.h"
#include "model/skeleton.h"
#include "model/structure.h"
#include "model/tensor_slots.h"

namespace hemostat::fuzz {
namespace {

constexpr const char* kLlama = R"({"model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 11,
  "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
  "max_position_embeddings": 32, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu",
  "tie_word_embeddings": true, "bos_token_id": 1, "eos_token_id": [2, 3], "torch_dtype": "float32"})";

constexpr const char* kLlama3 = R"({"model_type": "llama", "vocab_size": 11, "hidden_size": 8, "intermediate_size": 12,
  "num_hidden_layers": 1, "num_attention_heads": 2, "head_dim": 6, "attention_bias": true, "mlp_bias": true,
  "rope_parameters": {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0,
  "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}, "hidden_act": "gelu_new", "dtype": "bfloat16",
  "pretraining_tp": 1, "use_cache": false, "some_future_field": null})";

constexpr const char* kMistral = R"({"model_type": "mistral", "vocab_size": 11, "hidden_size": 8,
  "intermediate_size": 12, "num_hidden_layers": 3, "num_attention_heads": 8, "head_dim": 2, "sliding_window": 4,
  "rope_scaling": {"type": "linear", "factor": 2}, "layer_types": ["sliding_attention", "sliding_attention",
  "sliding_attention"], "bos_token_id": null, "dtype": "float16"})";

constexpr const char* kQwen2 = R"({"model_type": "qwen2", "vocab_size": 11, "hidden_size": 8, "intermediate_size": 12,
  "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "use_sliding_window": true,
  "sliding_window": 16, "max_window_layers": 1, "eos_token_id": 5, "hidden_act": "relu"})";

Linear linear(int64_t out_features, int64_t in_features) {
  Linear result;
  result.weight = shape_only({out_features, in_features});
  return result;
}

// Models that no config.json can express, and what they are written as.
std::vector<std::string> structures() {
  const Model plain = skeleton(parse_config(kLlama, "config.json"));
  Model treated = plain;
  Attention& attention = treated.blocks[0].attention;
  attention.q.weight = at::Tensor();
  attention.q.a = shape_only({8, 3});
  attention.q.b = shape_only({3, 8});
  attention.q.bias = shape_only({8});
  attention.o.input = {.scale = shape_only({8}), .rotation = shape_only({8, 8}), .bits = 4, .noise = 0.1};
  attention.q_norm = {.kind = NormKind::layer, .weight = shape_only({2}), .bias = shape_only({2})};
  attention.window = 2;
  attention.sinks = 1;
  attention.cache = {.bits = 3, .key_min = shape_only({2, 2}), .key_max = shape_only({2, 2})};
  treated.blocks[0].mlp_output_norm = {.kind = NormKind::dynamic_tanh, .weight = {}, .bias = {}};
  treated.blocks[0].placement = NormPlacement::post;
  treated.blocks[1].skip_attention = true;
  treated.blocks[1].mlp_residual = false;
  treated.blocks[1].experts = {.router = linear(2, 8),
                               .top_k = 1,
                               .mlps = {{linear(5, 8), linear(5, 8), linear(8, 5)}, {{}, linear(4, 8), linear(8, 4)}}};
  treated.input = {.kind = TokenNoise::swap, .rate = 0.5, .seed = 7};
  treated.head.linear = linear(11, 8);
  treated.head.map = {.scale = 0.5, .bias = shape_only({11}), .a = shape_only({11, 1}), .b = shape_only({1, 11})};
  treated.decoder.temperature = 1.5;
  return {saved_structure(plain), saved_structure(treated)};
}

std::string safetensors_file(const std::string& header, size_t data_bytes) {
  const uint64_t length = header.size();
  return std::string(reinterpret_cast<const char*>(&length), 8) + header + std::string(data_bytes, '\1');
}

std::vector<std::string> safetensors_files() {
  return {safetensors_file("{}", 0),
          safetensors_file(R"({"__metadata__":{"format":"pt"},"w":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]}})"
                           "   ",
                           24),
          safetensors_file(R"({"a":{"dtype":"BF16","shape":[],"data_offsets":[0,2]},)"
                           R"("b":{"dtype":"I64","shape":[1,1,2],"data_offsets":[2,18]},)"
                           R"("c":{"dtype":"BOOL","shape":[0,4],"data_offsets":[18,18]},)"
                           R"("d":{"dtype":"F8_E4M3","shape":[3],"data_offsets":[18,21]}})",
                           21)};
}

// The tensors of a small model of one block, without a head of its own; q is in blocks where `blocks` is given. The
// last one's bytes end at the alignment: no padding follows.
void add_tensors(gguf::Writer& writer, at::ScalarType type, std::optional<quantize::GgufType> blocks, bool biases) {
  constexpr int64_t kHidden = 32, kVocabulary = 6, kInner = 4;
  const auto matrix = [&](int64_t rows, int64_t columns) { return at::full({rows, columns}, 0.5, type); };
  const auto vector = [](int64_t size) { return at::full({size}, 1.5, at::kFloat); };
  writer.add("token_embd.weight", matrix(kVocabulary, kHidden));
  if (blocks) {
    const at::Tensor bytes = at::full({8, quantize::gguf_block_bytes(*blocks)}, 1, at::kByte);
    const quantize::GgufPacked packed(bytes, *blocks, kHidden, type);
    writer.add("blk.0.attn_q.weight", *gguf::tensor_type(packed), packed.sizes(), [bytes] { return bytes; });
  } else {
    writer.add("blk.0.attn_q.weight", matrix(8, kHidden));
  }
  writer.add("blk.0.attn_k.weight", matrix(4, kHidden));
  writer.add("blk.0.attn_v.weight", matrix(4, kHidden));
  if (biases) {
    writer.add("blk.0.attn_q.bias", vector(8));
    writer.add("blk.0.attn_k.bias", vector(4));
    writer.add("blk.0.attn_v.bias", vector(4));
    writer.add("blk.0.attn_output.bias", vector(kHidden));
  }
  writer.add("blk.0.attn_output.weight", matrix(kHidden, 8));
  writer.add("blk.0.ffn_gate.weight", matrix(kInner, kHidden));
  writer.add("blk.0.ffn_up.weight", matrix(kInner, kHidden));
  writer.add("blk.0.ffn_down.weight", matrix(kHidden, kInner));
  for (const char* norm : {"blk.0.attn_norm.weight", "blk.0.ffn_norm.weight", "output_norm.weight"}) {
    writer.add(norm, vector(kHidden));
  }
}

// Heads of 4 features, but of the embedding's 32 in two where an architecture takes no others.
void add_hyperparameters(gguf::Writer& writer, const std::string& architecture) {
  const uint32_t head = architecture == "phi3" ? 16 : 4, kv_heads = architecture == "phi3" ? 2 : 1;
  const auto set = [&](const char* key, auto value) { writer.add(architecture + "." + key, value); };
  writer.add("general.architecture", architecture);
  for (const auto& [key, value] : {std::pair("context_length", 32U),
                                   {"embedding_length", 32},
                                   {"block_count", 1},
                                   {"feed_forward_length", 4},
                                   {"attention.head_count", 2},
                                   {"attention.head_count_kv", kv_heads},
                                   {"attention.key_length", head},
                                   {"attention.value_length", head},
                                   {"rope.dimension_count", 4}}) {
    set(key, value);
  }
  set("attention.layer_norm_rms_epsilon", 1e-5F);
  set("rope.freq_base", 1e4F);
}

std::string gguf_file(const gguf::Writer& writer) {
  std::string bytes;
  writer.write([&](const void* data, size_t size) { bytes.append(static_cast<const char*>(data), size); });
  return bytes;
}

// A model whose blocks have experts, and one whose linears lie together and whose rotations have divisors.
std::vector<std::string> other_gguf_files() {
  const auto matrix = [](std::vector<int64_t> sizes) { return at::full(sizes, 0.5, at::kFloat); };
  gguf::Writer mixture, fused;
  add_hyperparameters(mixture, "qwen3moe");
  add_hyperparameters(fused, "phi3");
  for (const auto& [key, value] :
       {std::pair("expert_count", 2U), {"expert_used_count", 1}, {"expert_feed_forward_length", 4}}) {
    mixture.add(std::string("qwen3moe.") + key, value);
  }
  fused.add("phi3.rope.scaling.attn_factor", 1.25F);
  fused.add("phi3.rope.scaling.original_context_length", 16U);
  fused.add("phi3.attention.sliding_window", 8U);
  for (gguf::Writer* writer : {&mixture, &fused}) {
    writer->add("token_embd.weight", matrix({6, 32}));
    for (const char* norm : {"blk.0.attn_norm.weight", "blk.0.ffn_norm.weight", "output_norm.weight"}) {
      writer->add(norm, matrix({32}));
    }
  }
  mixture.add("blk.0.attn_q.weight", matrix({8, 32}));
  mixture.add("blk.0.attn_k.weight", matrix({4, 32}));
  mixture.add("blk.0.attn_v.weight", matrix({4, 32}));
  mixture.add("blk.0.attn_output.weight", matrix({32, 8}));
  mixture.add("blk.0.attn_q_norm.weight", matrix({4}));
  mixture.add("blk.0.attn_k_norm.weight", matrix({4}));
  mixture.add("blk.0.ffn_gate_inp.weight", matrix({2, 32}));
  mixture.add("blk.0.ffn_gate_exps.weight", matrix({2, 4, 32}));
  mixture.add("blk.0.ffn_up_exps.weight", matrix({2, 4, 32}));
  mixture.add("blk.0.ffn_down_exps.weight", matrix({2, 32, 4}));
  fused.add("blk.0.attn_qkv.weight", matrix({96, 32}));
  fused.add("blk.0.attn_output.weight", matrix({32, 32}));
  fused.add("blk.0.ffn_up.weight", matrix({8, 32}));
  fused.add("blk.0.ffn_down.weight", matrix({32, 4}));
  fused.add("rope_factors_long.weight", matrix({2}));
  fused.add("rope_factors_short.weight", matrix({2}));
  return {gguf_file(mixture), gguf_file(fused)};
}

std::vector<std::string> gguf_files() {
  gguf::Writer llama, biased;
  add_hyperparameters(llama, "llama");
  llama.add("llama.vocab_size", 6U);
  llama.add("llama.rope.scaling.type", "linear");
  llama.add("llama.rope.scaling.factor", 2.0F);
  llama.add("tokenizer.ggml.model", "gpt2");
  llama.add("tokenizer.ggml.pre", "smollm");
  llama.add("tokenizer.ggml.tokens", std::vector<std::string>{"<s>", "a", "b", "ab", "<x>", "[PAD5]"});
  llama.add("tokenizer.ggml.token_type", std::vector<int32_t>{3, 1, 1, 1, 4, 5});
  llama.add("tokenizer.ggml.merges", std::vector<std::string>{"a b"});
  llama.add("tokenizer.ggml.bos_token_id", 0U);
  llama.add("tokenizer.ggml.eos_token_id", 4U);
  llama.add("tokenizer.ggml.add_bos_token", true);
  llama.add("tokenizer.chat_template", "{{ messages }}");
  add_tensors(llama, at::kHalf, quantize::GgufType::q8_0, false);
  add_hyperparameters(biased, "llama");
  biased.add("tokenizer.ggml.model", "llama");
  biased.add("tokenizer.ggml.tokens", std::vector<std::string>{"<unk>", "<s>", "<0x41>", "▁", "b", "▁b"});
  biased.add("tokenizer.ggml.scores", std::vector<float>{0, 0, 0, -2, -3, -1});
  biased.add("tokenizer.ggml.token_type", std::vector<int32_t>{2, 3, 6, 1, 1, 1});
  biased.add("tokenizer.ggml.unknown_token_id", 0U);
  biased.add("tokenizer.ggml.bos_token_id", 1U);
  biased.add("tokenizer.ggml.add_space_prefix", true);
  biased.add("rope_freqs.weight", at::full({2}, 1.5, at::kFloat));
  add_tensors(biased, at::kBFloat16, std::nullopt, true);
  std::vector<std::string> files = other_gguf_files();
  files.insert(files.begin(), {gguf_file(llama), gguf_file(biased)});
  return files;
}

// A file without a name.
class MemoryFile {
 public:
  explicit MemoryFile(std::string_view bytes) : file_(::memfd_create("hemostat", MFD_CLOEXEC)) {
    while (!bytes.empty()) {
      const ssize_t written = ::write(file_, bytes.data(), bytes.size());
      if (written <= 0) {
        std::perror("hemostat: cannot write to a file in memory");
        std::abort();
      }
      bytes.remove_prefix(static_cast<size_t>(written));
    }
  }
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;
  ~MemoryFile() { ::close(file_); }

  std::string path() const { return fmt::format("/proc/self/fd/{}", file_); }

 private:
  int file_;
};

// Zeros in place of shapes; false: more than a fuzzer has time for.
bool fill(Model& model) {
  constexpr int64_t kMost = 1 << 16;
  int64_t total = 0;
  for_each_tensor(model, [&](const std::string&, at::Tensor& slot) { total += std::min(slot.numel(), kMost); });
  if (total >= kMost) {
    return false;
  }
  const bool tied = model.tied();
  for_each_tensor(model, [](const std::string&, at::Tensor& slot) { slot = at::zeros(slot.sizes()); });
  if (tied) {
    model.head.linear.weight = model.embedding;
  }
  return true;
}

}  // namespace

bool read_safetensors(std::string_view bytes) {
  const MemoryFile file(bytes);
  std::map<std::string, at::Tensor> tensors;
  try {
    tensors = safetensors::load(file.path());
  } catch (const ValueError&) {
    return false;
  }
  unsigned sum = 0;
  for (const auto& [name, tensor] : tensors) {
    const auto* data = static_cast<const unsigned char*>(tensor.const_data_ptr());
    for (size_t i = 0; i < tensor.nbytes(); ++i) {
      sum += data[i];
    }
  }
  static std::atomic<unsigned> sink;  // so that the bytes are read
  sink = sum;
  return true;
}

bool read_gguf(std::string_view bytes) {
  const MemoryFile file(bytes);
  unsigned sum = 0;
  try {
    const gguf::File opened(file.path());
    for (const auto& [name, info] : opened.tensors()) {
      const at::Tensor tensor = opened.view(info);
      const auto* data = static_cast<const unsigned char*>(tensor.const_data_ptr());
      for (size_t i = 0; i < tensor.nbytes(); ++i) {
        sum += data[i];
      }
    }
    gguf::load_model(file.path(), {});
    gguf::tokenizer_json(opened);
    gguf::tokenizer_config_json(opened);
  } catch (const ValueError&) {
    return false;
  }
  static std::atomic<unsigned> sink;  // so that the bytes are read
  sink = sum;
  return true;
}

bool read_config(std::string_view text) {
  CheckpointConfig config;
  Model model;
  try {
    config = parse_config(without_structure_mark(std::string(text), "config.json"), "config.json");
    if (config.layers.size() > 64 || config.experts > 64) {
      return true;
    }
    model = skeleton(config);
  } catch (const ValueError&) {
    return false;
  }
  const std::string saved = updated_config(config.model, model.blocks, config.tied, config.dtype.value_or(at::kFloat));
  const CheckpointConfig again =
      parse_config(without_structure_mark(with_structure_mark(saved), "config.json"), "config.json");
  const std::string described = structure(model);
  check_consistency(from_structure(described, config.model, "hemostat.json"), "hemostat.json");
  if (structure(skeleton(again)) != described) {
    std::fprintf(stderr, "hemostat: what was saved reads otherwise:\n%s\n", saved.c_str());
    std::abort();
  }
  return true;
}

bool read_structure(std::string_view text) {
  static const ModelConfig config = parse_config(kLlama, "config.json").model;
  Model model;
  try {
    model = from_structure(std::string(text), config, "hemostat.json");
    check_consistency(model, "hemostat.json");
  } catch (const ValueError&) {
    return false;
  }
  if (saved_structure(from_structure(saved_structure(model), config, "hemostat.json")) != saved_structure(model)) {
    std::fprintf(stderr, "hemostat: what was written reads otherwise:\n%s\n", structure(model).c_str());
    std::abort();
  }
  if (fill(model)) {
    model.forward(at::arange(3));
  }
  return true;
}

const std::map<std::string, Reader>& readers() {
  static const std::map<std::string, Reader> all = {
      {"safetensors", {read_safetensors, safetensors_files()}},
      {"config", {read_config, {kLlama, kLlama3, kMistral, kQwen2}}},
      {"gguf", {read_gguf, gguf_files()}},
      {"structure", {read_structure, structures()}},
  };
  return all;
}

}  // namespace hemostat::fuzz
