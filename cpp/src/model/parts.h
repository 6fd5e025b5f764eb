// The one list of a model's fields: what each is called in Python, in hemostat.json and in checkpoints, what sizes it
// has, and what it must be. Files, checks, conversions and bindings walk through it, so that a new field of the model
// is one entry here, and its use in forward().
#pragma once

#include <array>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <tuple>
#include <type_traits>

#include <hemostat/model.h>

namespace hemostat::parts {

// --- words of enumerations, in the order of model.h ---

template <typename Enum>
inline constexpr std::array<const char*, 0> kWords = {};
template <>
inline constexpr std::array kWords<NormKind> = {"none", "rms", "layer", "dynamic_tanh"};
template <>
inline constexpr std::array kWords<Activation> = {"silu", "gelu", "gelu_tanh", "relu"};
template <>
inline constexpr std::array kWords<NormScope> = {"head", "all"};
template <>
inline constexpr std::array kWords<NormPlacement> = {"pre", "post"};
template <>
inline constexpr std::array kWords<TokenNoise> = {"none", "replace", "drop", "swap"};
template <>
inline constexpr std::array kWords<Role> = {"q", "k", "v", "o", "gate", "up", "down", "router", "head", "other"};

template <typename Enum>
constexpr const char* word(Enum value) {
  return kWords<Enum>[static_cast<size_t>(value)];
}

template <typename Enum>
constexpr std::optional<Enum> from_word(std::string_view word) {
  for (size_t i = 0; i < kWords<Enum>.size(); ++i) {
    if (kWords<Enum>[i] == word) {
      return static_cast<Enum>(i);
    }
  }
  return std::nullopt;
}

// --- what is said of a field ---

// The name is the member's, and Python's; the key is hemostat.json's, within the object of the field's part.
struct Names {
  const char* name;
  const char* key;
  constexpr Names(const char* both) : name(both), key(both) {}
  constexpr Names(const char* name, const char* key) : name(name), key(key) {}
};

inline constexpr const char* kInlined = "";  // as a key: the part's fields stand among its owner's

// A name in checkpoints, which follows that of what holds it: the family's word, then a suffix.
struct Place {
  std::string Naming::* word = nullptr;
  const char* suffix = "";

  std::string after(const std::string& prefix, const Naming& names) const {
    return prefix + (word != nullptr ? names.*word : "") + suffix;
  }
};

// Sizes: of the model, of a block's attention and MLP, of its mixture; then of one linear (rank: of its factors), and
// of one norm.
enum class Size {
  none,
  hidden,
  vocabulary,
  positions,
  queries,
  keys,
  heads,
  kv_heads,
  head_dim,
  q_norm,
  k_norm,
  width,
  experts,
  out,
  in,
  rank,
  features
};
inline constexpr size_t kSizes = 17;

struct Shape {
  Size rows;
  Size columns = Size::none;  // of a vector
};

// What a number must be, and what is said of one that is not.
struct Rule {
  bool (*fits)(double) = nullptr;  // none: any
  const char* problem = "";
};
inline constexpr Rule kFinite = {[](double x) { return std::isfinite(x); }, "is not finite"};
inline constexpr Rule kPositive = {[](double x) { return std::isfinite(x) && x > 0; }, "is not positive"};
inline constexpr Rule kNotNegative = {[](double x) { return std::isfinite(x) && x >= 0; }, "is not 0 or more"};
inline constexpr Rule kFraction = {[](double x) { return x >= 0 && x <= 1; }, "is not from 0 to 1"};
inline constexpr Rule kBits = {[](double x) { return x >= 16 || (x >= 2 && x <= 8); }, "is neither from 2 to 8 nor 16"};

// What linears of a block read: those with one input read the same tensor. Experts have two each, after these.
enum Input : int64_t { kAttention, kAttended, kMlp, kActivated, kRouter, kExperts };

// --- kinds of fields ---

template <typename Owner, typename Value>
struct Field {
  Value Owner::* member;
  Names names;
  const char* text;  // Python's help; none: Python's property is written by hand
};

// A tensor that checkpoints hold.
template <typename Owner>
struct Tensor : Field<Owner, at::Tensor> {
  Shape shape;
  std::optional<Place> place;  // none: a dot and the key
  bool required = false;       // never undefined

  std::string name_after(const std::string& prefix, const Naming& naming) const {
    return place ? place->after(prefix, naming) : prefix + "." + this->names.key;
  }
};

// A float32 tensor whose values are in hemostat.json, or follow from config.json; no checkpoint holds it.
template <typename Owner>
struct Numbers : Field<Owner, at::Tensor> {};

template <typename Owner, typename V>
struct Value : Field<Owner, V> {
  Rule rule;
  bool sparse = false;  // written only where it is not neutral, so that models without it are known by what they were
};

// What hemostat.json leaves out: pickling and copies keep it.
template <typename Owner, typename V>
struct Unsaved : Field<Owner, V> {};

// What has fields of its own, or a vector of such.
template <typename Owner, typename P>
struct Part : Field<Owner, P> {
  const char* label = "";                // before the names of its fields in messages
  bool (*used)(const Owner&) = nullptr;  // whether forward() reads it; none: always

  constexpr bool inlined() const { return *this->names.key == '\0'; }
};

template <typename Owner>
struct LinearPart : Part<Owner, Linear> {
  Role role;
  Place place;
  int64_t input;
  Shape shape;
  bool optional = false;                      // left out of the model's linears where it is not defined
  std::string Naming::* in_expert = nullptr;  // its name where the MLP is an expert
};

template <typename Owner>
struct NormPart : Part<Owner, Norm> {
  Place place;
  Size features;
};

template <typename F>
concept IsTensor = requires(F field) { field.required; };
template <typename F>
concept IsValue = requires(F field) { field.rule; };
template <typename F>
concept IsPart = requires(F field) { field.used; };
template <typename F>
concept IsLinear = IsPart<F> && requires(F field) { field.role; };
template <typename F>
concept IsNorm = IsPart<F> && requires(F field) { field.features; };
template <typename F>
inline constexpr bool kIsNumbers = false;
template <typename Owner>
inline constexpr bool kIsNumbers<Numbers<Owner>> = true;
template <typename F>
concept IsNumbers = kIsNumbers<F>;

template <typename Owner>
constexpr auto tensor(at::Tensor Owner::* member, Names names, Shape shape, const char* text,
                      std::optional<Place> place = std::nullopt, bool required = false) {
  return Tensor<Owner>{{member, names, text}, shape, place, required};
}
template <typename Owner>
constexpr auto numbers(at::Tensor Owner::* member, Names names, const char* text) {
  return Numbers<Owner>{{member, names, text}};
}
template <typename Owner, typename V>
constexpr auto value(V Owner::* member, Names names, const char* text, Rule rule = {}) {
  return Value<Owner, V>{{member, names, text}, rule};
}
template <typename Owner, typename V>
constexpr auto sparse(V Owner::* member, Names names, const char* text, Rule rule = {}) {
  return Value<Owner, V>{{member, names, text}, rule, true};
}
template <typename Owner, typename V>
constexpr auto unsaved(V Owner::* member, Names names, const char* text = nullptr) {
  return Unsaved<Owner, V>{{member, names, text}};
}
template <typename Owner, typename P>
constexpr auto part(P Owner::* member, Names names, const char* text, const char* label = "",
                    bool (*used)(const Owner&) = nullptr) {
  return Part<Owner, P>{{member, names, text}, label, used};
}
template <typename Owner>
constexpr auto linear(Linear Owner::* member, Names names, Role role, Place place, int64_t input, Shape shape,
                      const char* text, bool optional = false, std::string Naming::* in_expert = nullptr) {
  return LinearPart<Owner>{{{member, names, text}, names.key}, role, place, input, shape, optional, in_expert};
}
template <typename Owner>
constexpr auto norm(Norm Owner::* member, Names names, Place place, Size features, const char* text) {
  return NormPart<Owner>{{{member, names, text}, names.key}, place, features};
}

// --- the fields ---

template <typename P>
inline constexpr std::tuple<> kFields = {};

using enum Size;

template <>
inline constexpr auto kFields<LinearInput> = std::tuple(
    tensor(&LinearInput::scale, {"scale", "input_scale"}, {in}, "[in_features]: x · scale; None: no scaling."),
    tensor(&LinearInput::rotation, {"rotation", "input_rotation"}, {in, in},
           "[in_features, in_features]: x @ rotation; None: no rotation."),
    value(&LinearInput::bits, {"bits", "input_bits"}, "Below 16: each token is fake-quantized to round(2^bits) levels.",
          kBits),
    value(&LinearInput::symmetric, {"symmetric", "input_symmetric"}, "Whether that quantization is symmetric."),
    value(&LinearInput::noise, {"noise", "input_noise"}, "σ of the noise, relative to the token's standard deviation.",
          kNotNegative),
    value(&LinearInput::noise_seed, {"noise_seed", "input_noise_seed"}, "Seed of the noise."));

template <>
inline constexpr auto kFields<Linear> = std::tuple(
    tensor(&Linear::weight, "weight", {out, in},
           "[out_features, in_features]; None where the layer is factored or packed."),
    tensor(&Linear::a, "a", {out, rank}, "[out_features, r], the first factor, or None."),
    tensor(&Linear::b, "b", {rank, in}, "[r, in_features], the second factor, or None."),
    tensor(&Linear::bias, "bias", {out}, "[out_features], or None."),
    unsaved(&Linear::stored_bits, "stored_bits",
            "Bits per weight of the format that a dense weight was rounded to, scales and zero points included; "
            "0: none, so those of its dtype."),
    unsaved(&Linear::packed, "packed"), part(&Linear::input, {"input", kInlined}, "What happens to the input first."));

template <>
inline constexpr auto kFields<Norm> =
    std::tuple(value(&Norm::kind, "kind", "'rms', 'layer', 'dynamic_tanh' or 'none'."),
               tensor(&Norm::weight, "weight", {features}, "[features], or None."),
               tensor(&Norm::bias, "bias", {features}, "[features], or None."),
               value(&Norm::epsilon, "epsilon", "Added to the mean square (rms) or the variance (layer)."),
               value(&Norm::alpha, "alpha", "dynamic_tanh: weight · tanh(alpha · x) + bias."),
               sparse(&Norm::offset, "offset", "Added to the weight of rms.", kFinite));

template <>
inline constexpr auto kFields<Rope> = std::tuple(
    numbers(&Rope::inverse_frequencies, "inverse_frequencies",
            "float32 [rotary_dim / 2], radians per position; None: no rotation."),
    value(&Rope::attention_scale, {"attention_scale", "rope_attention_scale"}, "Multiplies cosine and sine (YaRN)."),
    sparse(&Rope::context, {"context", "rope_context"},
           "Where a call sees more tokens, long_inverse_frequencies or dynamic_factor hold."),
    numbers(&Rope::long_inverse_frequencies, "long_inverse_frequencies",
            "Beyond `context`, in the place of inverse_frequencies (LongRoPE), or None."),
    sparse(&Rope::dynamic_factor, {"dynamic_factor", "rope_dynamic_factor"},
           "Beyond `context`, the base grows with what is seen (dynamic NTK); 0: it does not.", kNotNegative));

template <>
inline constexpr auto kFields<CacheQuantization> = std::tuple(
    value(&CacheQuantization::bits, {"bits", "cache_bits"}, "Below 16: round(2^bits) levels.", kBits),
    tensor(&CacheQuantization::key_min, {"key_min", "cache_key_min"}, {kv_heads, head_dim},
           "float32 [kv_heads, head_dim]; None: keys are quantized per token.", Place{nullptr, "self_attn.key_min"}),
    tensor(&CacheQuantization::key_max, {"key_max", "cache_key_max"}, {kv_heads, head_dim},
           "float32 [kv_heads, head_dim]; None: keys are quantized per token.", Place{nullptr, "self_attn.key_max"}));

template <>
inline constexpr auto kFields<Attention> = std::tuple(
    linear(&Attention::q, "q", Role::q, {&Naming::q}, kAttention, {queries, hidden}, "Query projection."),
    linear(&Attention::k, "k", Role::k, {&Naming::k}, kAttention, {keys, hidden}, "Key projection."),
    linear(&Attention::v, "v", Role::v, {&Naming::v}, kAttention, {keys, hidden}, "Value projection."),
    linear(&Attention::o, "o", Role::o, {&Naming::o}, kAttended, {hidden, queries}, "Output projection."),
    value(&Attention::heads, "heads", "Query heads."), value(&Attention::kv_heads, "kv_heads", "Key-value heads."),
    value(&Attention::head_dim, "head_dim", "Features of a head."),
    norm(&Attention::q_norm, "q_norm", {&Naming::q_norm}, Size::q_norm, "Norm of the queries, before the rotation."),
    norm(&Attention::k_norm, "k_norm", {&Naming::k_norm}, Size::k_norm, "Norm of the keys, before the rotation."),
    sparse(&Attention::qk_norm_scope, "qk_norm_scope", "'head': those norms are over each head; 'all': over all."),
    part(&Attention::rope, {"rope", kInlined}, "Rotary position embedding."),
    value(&Attention::scale, "scale", "Of q·k; 0: 1/sqrt(head_dim).", kFinite),
    sparse(&Attention::softcap, "softcap", "c > 0: scores become c · tanh(scores / c).", kNotNegative),
    tensor(&Attention::sink_logits, "sink_logits", {Size::heads},
           "[heads], a logit beside each token's scores that takes its share of the softmax; None: none.",
           Place{&Naming::sink_logits}),
    value(&Attention::window, "window", "Tokens that one sees, itself included; 0: all before it."),
    value(&Attention::sinks, "sinks", "With a window: first positions that stay visible."),
    part(&Attention::cache, {"cache", kInlined}, "Quantization of the key-value cache."));

template <>
inline constexpr auto kFields<Mlp> = std::tuple(
    linear(&Mlp::gate, "gate", Role::gate, {&Naming::gate}, kMlp, {width, hidden},
           "Gate projection; not defined where there is none.", /*optional=*/true, &Naming::expert_gate),
    linear(&Mlp::up, "up", Role::up, {&Naming::up}, kMlp, {width, hidden}, "Up projection.",
           /*optional=*/false, &Naming::expert_up),
    linear(&Mlp::down, "down", Role::down, {&Naming::down}, kActivated, {hidden, width}, "Down projection.",
           /*optional=*/false, &Naming::expert_down),
    value(&Mlp::activation, "activation", "'silu', 'gelu', 'gelu_tanh' or 'relu'."),
    sparse(&Mlp::slope, "slope", "silu: x · sigmoid(slope · x).", kFinite),
    sparse(&Mlp::limit, "limit", "c > 0: what gate gives is at most c, what up gives from −c to c.", kNotNegative),
    sparse(&Mlp::up_offset, "up_offset", "Added to what up gives, where there is a gate.", kFinite));

template <>
inline constexpr auto kFields<Experts> =
    std::tuple(linear(&Experts::router, "router", Role::router, {&Naming::router}, kRouter, {experts, hidden},
                      "[experts, hidden_size]."),
               value(&Experts::top_k, "top_k", "Experts that each token uses."),
               value(&Experts::normalize, "normalize", "Whether the chosen weights sum to 1."),
               value(&Experts::temperature, "temperature", "softmax(router(x)/temperature) chooses."),
               part(&Experts::mlps, "mlps", "The experts; empty where the block has a dense MLP.", "expert"));

template <>
inline constexpr auto kFields<Block> = std::tuple(
    value(&Block::placement, "placement", "'pre': x + f(norm(x)); 'post': norm(x + f(x))."),
    norm(&Block::attention_norm, "attention_norm", {&Naming::attention_norm}, hidden,
         "Norm of the attention sublayer."),
    norm(&Block::mlp_norm, "mlp_norm", {&Naming::mlp_norm}, hidden, "Norm of the MLP sublayer."),
    norm(&Block::attention_output_norm, "attention_output_norm", {&Naming::attention_output_norm}, hidden,
         "Norm of the attention's output before it is added."),
    norm(&Block::mlp_output_norm, "mlp_output_norm", {&Naming::mlp_output_norm}, hidden,
         "Norm of the MLP's output before it is added."),
    part(&Block::attention, "attention", "The attention sublayer."),
    part(
        &Block::mlp, "mlp", "The dense MLP; its layers are not defined where there are experts.", "mlp",
        +[](const Block& block) { return block.experts.mlps.empty(); }),
    part(
        &Block::experts, "experts", "The mixture of experts; empty where the MLP is dense.", "",
        +[](const Block& block) { return !block.experts.mlps.empty(); }),
    value(&Block::skip_attention, "skip_attention", "The attention is not computed and adds nothing."),
    value(&Block::skip_mlp, "skip_mlp", "The MLP is not computed and adds nothing."),
    value(&Block::attention_residual, "attention_residual", "False: the attention's input is not added to its output."),
    value(&Block::mlp_residual, "mlp_residual", "False: the MLP's input is not added to its output."),
    sparse(&Block::residual_scale, "residual_scale", "Multiplies a sublayer's output before it is added.", kFinite),
    tensor(&Block::attention_shortcut, "attention_shortcut", {hidden, hidden},
           "[hidden_size, hidden_size]: the attention's output is added to x @ attention_shortcut; None: to x.",
           Place{nullptr, "attention_shortcut"}),
    tensor(&Block::mlp_shortcut, "mlp_shortcut", {hidden, hidden},
           "[hidden_size, hidden_size]: the MLP's output is added to x @ mlp_shortcut; None: to x.",
           Place{nullptr, "mlp_shortcut"}),
    sparse(&Block::parallel, "parallel", "The MLP reads the block's input, as the attention does."),
    unsaved(&Block::origin, "origin", "Index of the checkpoint's block that this one came from."));

template <>
inline constexpr auto kFields<InputPerturbation> = std::tuple(
    value(&InputPerturbation::kind, {"kind", "token_noise"}, "'none', 'replace', 'drop' or 'swap'."),
    value(&InputPerturbation::rate, {"rate", "token_noise_rate"}, "Fraction of the tokens, 0 … 1.", kFraction),
    value(&InputPerturbation::seed, {"seed", "token_noise_seed"}, "Decides, with position and token, which fall."));

template <>
inline constexpr auto kFields<LogitMap> =
    std::tuple(value(&LogitMap::scale, {"scale", "logit_scale"}, "Multiplies the logits."),
               tensor(&LogitMap::bias, {"bias", "logit_bias"}, {vocabulary}, "[vocab_size], or None.",
                      Place{&Naming::head, ".map_bias"}),
               tensor(&LogitMap::a, {"a", "logit_a"}, {vocabulary, rank}, "[vocab_size, r], or None.",
                      Place{&Naming::head, ".map_a"}),
               tensor(&LogitMap::b, {"b", "logit_b"}, {rank, vocabulary}, "[r, vocab_size], or None.",
                      Place{&Naming::head, ".map_b"}));

template <>
inline constexpr auto kFields<Head> = std::tuple(
    linear(&Head::linear, {"linear", "head"}, Role::head, {&Naming::head}, 0, {vocabulary, hidden},
           "[vocab_size, hidden_size]; the embedding's storage where they are tied."),
    sparse(&Head::scale, {"scale", "head_scale"}, "The family's own factor of the logits.", kFinite),
    sparse(&Head::softcap, {"softcap", "head_softcap"}, "c > 0: logits become c · tanh(logits / c).", kNotNegative),
    part(&Head::map, {"map", kInlined}, "What happens to the logits."));

template <>
inline constexpr auto kFields<Decoder> =
    std::tuple(value(&Decoder::temperature, "temperature", "logits / temperature; 1 changes nothing.", kPositive),
               value(&Decoder::do_sample, "do_sample", "Whether a token is drawn, or the most likely taken."));

template <>
inline constexpr auto kFields<Model> =
    std::tuple(unsaved(&Model::config, "config", "What the checkpoint's config says."),
               part(&Model::input, {"input", kInlined}, "What happens to the tokens that the model reads."),
               tensor(&Model::embedding, "embedding", {vocabulary, hidden}, "[vocab_size, hidden_size].",
                      Place{&Naming::embedding, ".weight"}, /*required=*/true),
               sparse(&Model::embedding_scale, "embedding_scale", "Multiplies what is read of the embedding.", kFinite),
               tensor(&Model::position_embedding, "position_embedding", {positions, hidden},
                      "[P, hidden_size]: row position + position_offset is added; None: none.",
                      Place{&Naming::positions, ".weight"}),
               sparse(&Model::position_offset, "position_offset", "Of the row of position 0."),
               part(&Model::blocks, "blocks", "The blocks in order."),
               norm(&Model::final_norm, "final_norm", {&Naming::final_norm}, hidden, "The norm before the head."),
               part(&Model::head, {"head", kInlined}, "The output head."),
               part(&Model::decoder, {"decoder", kInlined}, "What decoding does to the logits."),
               unsaved(&Model::foreign, "foreign"), unsaved(&Model::source, "source"));

// --- visitors ---

// visitor(field, value) for each field of one part, in the order of the list.
template <typename P, typename Visitor>
void visit_fields(P& part, Visitor&& visitor) {
  std::apply([&](const auto&... field) { (visitor(field, part.*field.member), ...); }, kFields<std::remove_const_t<P>>);
}

// The same for what forward() reads.
template <typename P, typename Visitor>
void visit_used(P& part, Visitor&& visitor) {
  const auto visit = [&]<typename F>(const F& field) {
    if constexpr (IsPart<F>) {
      if (field.used != nullptr && !field.used(part)) {
        return;
      }
    }
    visitor(field, part.*field.member);
  };
  std::apply([&](const auto&... field) { (visit(field), ...); }, kFields<std::remove_const_t<P>>);
}

// function(part) of a part, function(element) of each element of a vector of them.
template <typename P, typename Function>
void for_each_element(P& part, const Function& function) {
  if constexpr (requires { part.begin(); }) {
    for (auto& element : part) {
      function(element);
    }
  } else {
    function(part);
  }
}

}  // namespace hemostat::parts
