// Room `metrics`: damage.
#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include <fmt/format.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <torch/csrc/utils/pybind.h>

#include <hemostat/metrics.h>

#include "callbacks.h"
#include "compare_options.h"
#include "damage_fields.h"
#include "module.h"

namespace py = pybind11;

namespace hemostat::bindings {
namespace {

using py::literals::operator""_a;

std::string text(const Damage& damage) {
  if (!damage.predicts_tokens()) {
    const auto& interval = damage.delta_nll_interval;
    return fmt::format("Damage(loss {:.5g} → {:.5g}, by {:.4g}{})", damage.nll_baseline, damage.nll, damage.delta_nll,
                       interval ? fmt::format(" [{:.4g}, {:.4g}]", interval->low, interval->high) : "");
  }
  const std::string index = damage.index ? fmt::format("{:.3g}", *damage.index) : "None";
  const auto& interval = damage.delta_nll_interval;
  return fmt::format(
      "Damage(perplexity {:.5g} → {:.5g}, ΔNLL {:.4g}{}, KL {:.4g}, acceptance {:.4g}, top-1 agreement {:.4g}, "
      "index {}{}{})",
      damage.perplexity_baseline, damage.perplexity, damage.delta_nll,
      interval ? fmt::format(" [{:.4g}, {:.4g}]", interval->low, interval->high) : "", damage.kl.mean,
      damage.acceptance, damage.top1_agreement, index, damage.silent().value_or(false) ? ", silent" : "",
      damage.within_noise_floor ? ", within the noise floor" : "");
}

void register_divergence(py::module_& room) {
  py::class_<metrics::TokenDivergence>(room, "TokenDivergence", R"(How two models differ on each token. Read-only.

Tensors have the targets' shape; NLL, KL and entropy are in nats.
)")
      .def_readonly("nll_baseline", &metrics::TokenDivergence::nll_baseline,
                    "float32: −log of the baseline's probability of the target.")
      .def_readonly("nll_damaged", &metrics::TokenDivergence::nll_damaged,
                    "float32: −log of the damaged model's probability of the target.")
      .def_readonly("kl", &metrics::TokenDivergence::kl, "float32: KL(baseline ‖ damaged).")
      .def_readonly("kl_reverse", &metrics::TokenDivergence::kl_reverse, "float32: KL(damaged ‖ baseline).")
      .def_readonly("acceptance", &metrics::TokenDivergence::acceptance,
                    "float32, 0 … 1: Σ min(p, q), the chance that speculative decoding accepts a token.")
      .def_readonly("entropy_baseline", &metrics::TokenDivergence::entropy_baseline,
                    "float32: entropy of the baseline.")
      .def_readonly("entropy_damaged", &metrics::TokenDivergence::entropy_damaged,
                    "float32: entropy of the damaged model.")
      .def_readonly("confidence_baseline", &metrics::TokenDivergence::confidence_baseline,
                    "float32: the baseline's largest probability.")
      .def_readonly("confidence_damaged", &metrics::TokenDivergence::confidence_damaged,
                    "float32: the damaged model's largest probability.")
      .def_readonly("top5_overlap", &metrics::TokenDivergence::top5_overlap,
                    "float32: fraction of the baseline's five likeliest tokens that the damaged model shares.")
      .def_readonly("top1_baseline", &metrics::TokenDivergence::top1_baseline, "int64: the baseline's likeliest token.")
      .def_readonly("top1_damaged", &metrics::TokenDivergence::top1_damaged,
                    "int64: the damaged model's likeliest token.")
      .def_readonly("agree", &metrics::TokenDivergence::agree, "bool: whether these are the same.")
      .def_readonly("right_baseline", &metrics::TokenDivergence::right_baseline,
                    "bool: whether the baseline's is the target.")
      .def_readonly("right_damaged", &metrics::TokenDivergence::right_damaged,
                    "bool: whether the damaged model's is the target.")
      .def("__repr__", [](const metrics::TokenDivergence& self) {
        return fmt::format("TokenDivergence({} tokens)", self.kl.defined() ? self.kl.numel() : 0);
      });

  room.def("divergence", &metrics::divergence, "baseline_logits"_a, "damaged_logits"_a, "targets"_a, py::kw_only(),
           "damaged_scale"_a = 1.0, py::call_guard<py::gil_scoped_release>(),
           R"(How two models' predictions differ, token by token.

Each logit is read once, and arithmetic is in float32 or better. Logits that hold NaN or +Inf give NaN, agree with
nothing and are right nowhere.

Args:
    baseline_logits: [..., vocab], float32, bfloat16 or float16.
    damaged_logits: The same shape and device; of another dtype, both are compared in float32.
    targets: int64 [...], the tokens that came, 0 … vocab − 1.
    damaged_scale: Multiplies the damaged logits: 1/temperature.

Returns:
    TokenDivergence: Tensors of the targets' shape.

Raises:
    ValueError: For shapes or devices that differ, or a target out of range.
    TypeError: For another dtype.
)");
  room.def("expected_calibration_error", &metrics::expected_calibration_error, "confidence"_a, "right"_a, py::kw_only(),
           "bins"_a = 15, py::call_guard<py::gil_scoped_release>(),
           R"(Expected calibration error: Σ over bins of |accuracy − mean confidence| · share of tokens.

Bins of equal width, ((b − 1)/bins, b/bins] (Guo et al., "On Calibration of Modern Neural Networks", arXiv 1706.04599,
equation 3).

Args:
    confidence: floating [tokens], 0 … 1.
    right: bool [tokens].
    bins: How many bins.

Returns:
    float: 0 … 1; 0 where the model is right as often as it says; NaN where a confidence is NaN or there are no tokens.

Raises:
    ValueError: For shapes that differ or no bins.
)");
  room.def("unigram_nll", &metrics::unigram_nll, "counts"_a, "targets"_a, py::call_guard<py::gil_scoped_release>(),
           R"(Mean NLL of targets under the add-one smoothed unigram model, (count + 1)/(total + V).

Args:
    counts: int64 [vocab_size], how often each token occurs in some text.
    targets: int64, the tokens to predict.

Returns:
    float: Nats per token.
)");
}

void register_damage(py::module_& module) {
  py::class_<KlSummary>(module, "KlSummary", "KL(baseline ‖ damaged) over tokens, in nats. Read-only.")
      .def_readonly("mean", &KlSummary::mean, "Mean.")
      .def_readonly("median", &KlSummary::median, "Median.")
      .def_readonly("p90", &KlSummary::p90, "90th percentile.")
      .def_readonly("p99", &KlSummary::p99, "99th percentile.")
      .def_readonly("max", &KlSummary::max, "Largest.")
      .def_readonly("by_confidence", &KlSummary::by_confidence,
                    "Mean in each quartile of the baseline's confidence, least confident first.")
      .def_readonly("reverse_mean", &KlSummary::reverse_mean, "Mean of KL(damaged ‖ baseline).")
      .def_property_readonly(
          "mean_interval", [](const KlSummary& self) { return ends(self.mean_interval); },
          "(low, high) of the mean, 95 %, paired bootstrap over windows; None of one window.")
      .def("__repr__", [](const KlSummary& self) {
        return fmt::format("KlSummary(mean={:.4g}, median={:.4g}, p90={:.4g}, p99={:.4g}, max={:.4g})", self.mean,
                           self.median, self.p90, self.p99, self.max);
      });

  py::class_<Damage>(module, "Damage", R"(What was measured between a baseline and a damaged model on the same tokens.

Teacher forcing: every target inside a window counts once. Logarithms are natural. :attr:`generation` alone is measured on
text that the models write. Intervals are 95 %, from one paired bootstrap over windows; one window has none, they are
None. Read-only.
)")
      .def_readonly("measure", &Damage::measure,
                    "'nll' of tokens; 'loss' where a foreign module's own loss stands in its place, a window a sample: "
                    "there is then no KL and no index, and perplexity and what follows from predictions are NaN.")
      .def_readonly("windows", &Damage::windows, "Windows that were evaluated.")
      .def_readonly("tokens", &Damage::tokens, "Targets that were evaluated.")
      .def_readonly("nll_baseline", &Damage::nll_baseline, "The baseline's mean NLL, nats per token.")
      .def_readonly("nll", &Damage::nll, "The damaged model's mean NLL, nats per token.")
      .def_readonly("perplexity_baseline", &Damage::perplexity_baseline, "exp(nll_baseline).")
      .def_readonly("perplexity", &Damage::perplexity, "exp(nll) of the damaged model.")
      .def_readonly("delta_nll", &Damage::delta_nll, "nll − nll_baseline, nats per token.")
      .def_property_readonly(
          "delta_nll_interval", [](const Damage& self) { return ends(self.delta_nll_interval); },
          "(low, high) of delta_nll, 95 %, paired bootstrap over windows; None of one window.")
      .def_property_readonly(
          "silent", &Damage::silent,
          R"(Whether delta_nll_interval holds 0: no damage was shown, which does not prove that there is none.

None where there is no interval.
)")
      .def_readonly("bits_per_byte", &Damage::bits_per_byte,
                    "NLL in bits per UTF-8 byte, comparable across tokenizers; None without a byte count.")
      .def_property_readonly(
          "kl", [](const Damage& self) { return self.predicts_tokens() ? std::optional(self.kl) : std::nullopt; },
          "KL(baseline ‖ damaged); None of a module's loss.")
      .def_readonly("acceptance", &Damage::acceptance,
                    R"(Mean over tokens of Σ min(p, q), 0 … 1: what speculative decoding would accept.

1 − acceptance is the mean total variation distance. NaN in damage that an earlier version stored without it.
)")
      .def_property_readonly(
          "acceptance_interval", [](const Damage& self) { return ends(self.acceptance_interval); },
          "(low, high) of acceptance; None of one window.")
      .def_readonly("top1_agreement", &Damage::top1_agreement, "Fraction of tokens with the same likeliest prediction.")
      .def_property_readonly(
          "top1_agreement_interval", [](const Damage& self) { return ends(self.top1_agreement_interval); },
          "(low, high) of top1_agreement; None of one window.")
      .def_property_readonly("volume", &Damage::volume,
                             "How much changed: fraction of tokens whose likeliest prediction did, 1 − top1_agreement.")
      .def_readonly("direction", &Damage::direction,
                    R"(Which way it changed: mean ΔNLL of the tokens whose likeliest prediction did, nats.

Above 0 the changes are for the worse, below for the better; None where none changed. ``delta_nll`` is
``volume · direction + (1 − volume) · delta_nll_unchanged``.
)")
      .def_property_readonly(
          "direction_interval", [](const Damage& self) { return ends(self.direction_interval); },
          "(low, high) of direction, a ratio of sums over windows; None unless two windows have a change.")
      .def_readonly("delta_nll_unchanged", &Damage::delta_nll_unchanged,
                    "Mean ΔNLL of the other tokens, nats; None where all changed.")
      .def_readonly("top5_overlap", &Damage::top5_overlap, "Mean shared fraction of the five likeliest predictions.")
      .def_readonly("flips_right_to_wrong", &Damage::flips_right_to_wrong,
                    "Fraction of tokens that only the baseline got right.")
      .def_readonly("flips_wrong_to_right", &Damage::flips_wrong_to_right,
                    "Fraction of tokens that only the damaged model got right.")
      .def_readonly("accuracy_baseline", &Damage::accuracy_baseline, "The baseline's top-1 accuracy, 0 … 1.")
      .def_readonly("accuracy", &Damage::accuracy, "The damaged model's top-1 accuracy, 0 … 1.")
      .def_readonly("calibration_error_baseline", &Damage::calibration_error_baseline,
                    "The baseline's expected calibration error, 0 … 1.")
      .def_readonly("calibration_error", &Damage::calibration_error,
                    "The damaged model's expected calibration error, 0 … 1.")
      .def_readonly("entropy_baseline", &Damage::entropy_baseline, "The baseline's mean entropy, nats.")
      .def_readonly("entropy_shift", &Damage::entropy_shift, "Mean entropy of the damaged model minus the baseline's.")
      .def_readonly("index", &Damage::index, R"(The hemorrhage index, (NLL − NLL_base)/(NLL_unigram − NLL_base), from 0.

0 for the unchanged model, 1 where it is no better than the unigram model; None where the baseline is no better.
)")
      .def_readonly(
          "unigram_nll", &Damage::unigram_nll,
          "Mean NLL of the unigram model on the targets, nats per token; None in damage that earlier versions "
          "stored.")
      .def_property_readonly(
          "no_better_than_unigram", &Damage::no_better_than_unigram,
          "Whether the baseline predicts the text no better than the unigram model does: then damage "
          "to it says nothing about what is safe, and there is no index.")
      .def_readonly("index_source", &Damage::index_source,
                    "Where the unigram counts came from: 'given' or 'evaluated tokens'.")
      .def_readonly("within_noise_floor", &Damage::within_noise_floor,
                    "Whether a sweep found no more damage than numerics alone do.")
      .def_readonly("bytes_baseline", &Damage::bytes_baseline, "Bytes of the baseline, as :attr:`Model.bytes`.")
      .def_readonly("bytes", &Damage::bytes,
                    "Bytes of the damaged model as stored, in the formats that its weights were rounded to; None in "
                    "damage that earlier versions stored.")
      .def_readonly("generation", &Damage::generation,
                    "Damage measured on continuations, a :class:`GenerationDamage`; None where it was not.")
      .def_readonly("window_nll_baseline", &Damage::window_nll_baseline, "The baseline's mean NLL of each window.")
      .def_readonly("window_nll", &Damage::window_nll, "The damaged model's mean NLL of each window.")
      .def_readonly("window_kl", &Damage::window_kl, "Mean KL(baseline ‖ damaged) of each window.")
      .def_readonly("window_top1_agreement", &Damage::window_top1_agreement, "top1_agreement of each window.")
      .def_readonly("window_acceptance", &Damage::window_acceptance, "acceptance of each window.")
      .def(
          "to_dict",
          [](const Damage& self, bool windows, bool finite) {
            return damage_to_dict(self, {.windows = windows, .finite = finite});
          },
          py::kw_only(), "windows"_a = false, "finite"_a = true,
          R"(Every field, ready for JSON: None stands for NaN and infinity.

Args:
    windows: Whether to include each window's NLL, KL, top-1 agreement and acceptance, which intervals of thresholds
        and of differences are made from, and each prompt's first divergence.
    finite: False: NaN and infinity stay as they are, so that :meth:`from_dict` gives back exactly this damage.

Returns:
    dict: ``kl`` is a dict, an interval a list or None. ``generation`` is there where it was measured.
)")
      .def_static("from_dict", damage_from_dict, "fields"_a, R"(The inverse of :meth:`to_dict`.

Args:
    fields: What ``to_dict(windows=True)`` gave, by this version or an earlier one. None stands for NaN.

Returns:
    Damage: The same damage. What an earlier version did not measure is NaN, None or empty.

Raises:
    ValueError: For a field that is missing, other than the windows' means, generation, and what earlier versions did
        not store.
)")
      .def("__repr__", [](const Damage& self) { return text(self); })
      .def(py::pickle([](const Damage& self) { return damage_to_dict(self, {.windows = true, .finite = false}); },
                      [](const py::dict& state) { return damage_from_dict(state); }));
}

void register_compare(py::module_& module) {
  py::class_<BaselineEvaluation>(module, "BaselineEvaluation", R"(A baseline evaluated once, to be compared with many.

Keeps the baseline's logits where they fit into the budget, else its final hidden states.

Args:
    baseline: The unchanged model.
    tokens: int64 [windows, length] on the model's device.
    unigram: int64 [vocab_size] token counts for the hemorrhage index. None: counted from the evaluated tokens.
    byte_count: UTF-8 bytes of all targets, for bits per byte.
    batch: Windows at a time.
    memory_budget: Bytes.
    bootstrap_samples: Resamples of the intervals.
    seed: Of the resampling, and of sampled text.
    generation: How :meth:`compare_generation` measures.
    progress: Called with (done, total) windows; what it raises ends the work.

Raises:
    NumericalError: Where the baseline is not finite; the message says where that begins, and the dtype's part.
)")
      .def(
          py::init([](const Model& baseline, const at::Tensor& tokens, const std::optional<at::Tensor>& unigram,
                      std::optional<int64_t> byte_count, int64_t batch, double memory_budget, int64_t bootstrap_samples,
                      int64_t seed, const GenerationProtocol& generation, const ProgressFunction& progress) {
            const CompareOptions options = compare_options(unigram, byte_count, batch, memory_budget, bootstrap_samples,
                                                           seed, generation, progress);
            py::gil_scoped_release release;
            return std::make_unique<BaselineEvaluation>(baseline, tokens, options);
          }),
          "baseline"_a, "tokens"_a, py::kw_only(), "unigram"_a = std::optional<at::Tensor>(),
          "byte_count"_a = std::optional<int64_t>(), "batch"_a = CompareOptions().batch,
          "memory_budget"_a = CompareOptions().memory_budget,
          "bootstrap_samples"_a = CompareOptions().bootstrap_samples, "seed"_a = 0,
          "generation"_a = GenerationProtocol(), "progress"_a = ProgressFunction())
      .def("compare", py::overload_cast<const Model&>(&BaselineEvaluation::compare, py::const_), "damaged"_a,
           py::call_guard<py::gil_scoped_release>(),
           R"(The damage between the baseline and another model, by teacher forcing.

Args:
    damaged: A model with the same vocabulary.

Returns:
    Damage: What was measured.

Raises:
    ValueError: Where the vocabularies differ.
)")
      .def("compare_generation", &BaselineEvaluation::compare_generation, "damaged"_a,
           py::call_guard<py::gil_scoped_release>(), R"(Compares both models' continuations of the same prompts.

The baseline's are made once, at the first call. Models that choose the same tokens give exactly no damage.

Args:
    damaged: A model with the same vocabulary.

Returns:
    GenerationDamage: What was measured.

Raises:
    ValueError: Where the vocabularies differ.
)")
      .def("unchanged", &BaselineEvaluation::unchanged, py::call_guard<py::gil_scoped_release>(),
           "The baseline compared with itself, without another forward pass: its perplexity, and no damage.")
      .def_property_readonly("model", &BaselineEvaluation::model, "The baseline.")
      .def_property_readonly("tokens", &BaselineEvaluation::tokens,
                             "int64 [windows, length], what it was evaluated on.")
      .def_property_readonly("keeps_logits", &BaselineEvaluation::keeps_logits,
                             "Whether the baseline's logits fit into the budget.")
      .def_property_readonly("bytes", &BaselineEvaluation::bytes, "Memory that the kept logits or hidden states take.")
      .def("__repr__", [](const BaselineEvaluation& self) {
        return fmt::format("BaselineEvaluation({} windows of {} tokens, {} kept)", self.tokens().size(0),
                           self.tokens().size(-1), self.keeps_logits() ? "logits" : "hidden states");
      });

  module.def(
      "compare",
      [](const Model& baseline, const Model& damaged, const at::Tensor& tokens,
         const std::optional<at::Tensor>& unigram, std::optional<int64_t> byte_count, int64_t batch,
         double memory_budget, int64_t bootstrap_samples, int64_t seed, const GenerationArgument& generation,
         const ProgressFunction& progress) {
        const CompareOptions options =
            compare_options(unigram, byte_count, batch, memory_budget, bootstrap_samples, seed, generation, progress);
        py::gil_scoped_release release;
        return compare(baseline, damaged, tokens, options);
      },
      "baseline"_a, "damaged"_a, "tokens"_a, py::kw_only(), "unigram"_a = std::optional<at::Tensor>(),
      "byte_count"_a = std::optional<int64_t>(), "batch"_a = CompareOptions().batch,
      "memory_budget"_a = CompareOptions().memory_budget, "bootstrap_samples"_a = CompareOptions().bootstrap_samples,
      "seed"_a = 0, "generation"_a = GenerationArgument(false), "progress"_a = ProgressFunction(),
      "What hemostat.compare calls.");
}

}  // namespace

void register_metrics(py::module_& module) {
  py::module_ room =
      module.def_submodule("metrics", "Damage measured on logits and on continuations. Logarithms are natural.");
  register_divergence(room);
  register_generation_damage(module, room);
  register_damage(module);
  register_compare(module);
}

}  // namespace hemostat::bindings
