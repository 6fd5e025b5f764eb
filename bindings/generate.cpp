// Room `generate`, and damage by generation.
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <fmt/format.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <hemostat/generate.h>
#include <hemostat/metrics.h>

#include "damage_fields.h"
#include "module.h"

namespace py = pybind11;

namespace hemostat::bindings {
namespace {

using py::literals::operator""_a;

// A getter of a field of GenerationDamage::divergence.
template <class Field>
auto of_divergence(Field metrics::GenerationDivergence::* field) {
  return [field](const GenerationDamage& damage) { return damage.divergence.*field; };
}

// The fields that the two classes share, each through `get`: a function from a member pointer to a getter.
template <class Class, class Get>
void define_fields(Class& definition, const Get& get) {
  using D = metrics::GenerationDivergence;
  const auto interval = get(&D::first_divergence_interval);
  definition
      .def_property_readonly("positions", get(&D::positions),
                             "Of each prompt: tokens in common before the first that differs or that only one has; "
                             "``new_tokens`` where none does.")
      .def_property_readonly("first_divergence", get(&D::first_divergence), "Their mean, in tokens.")
      .def_property_readonly(
          "first_divergence_interval", [interval](const typename Class::type& self) { return ends(interval(self)); },
          "(low, high) of the mean, 95 %, bootstrap over prompts; None of one prompt.")
      .def_property_readonly("first_divergence_median", get(&D::first_divergence_median), "Their median, in tokens.")
      .def_property_readonly("exact_match", get(&D::exact_match), "Fraction of prompts with equal continuations.")
      .def_property_readonly(
          "repetition_baseline", get(&D::repetition_baseline),
          "Fraction of 4-grams that occurred before in the same continuation, mean over the baseline's continuations; "
          "NaN where all are shorter than 4 tokens.")
      .def_property_readonly("repetition", get(&D::repetition), "The same of the damaged model's.")
      .def_property_readonly("distinct_1_baseline", get(&D::distinct_1_baseline),
                             "Different tokens / tokens, over all of the baseline's continuations; NaN without tokens.")
      .def_property_readonly("distinct_1", get(&D::distinct_1), "The same of the damaged model's.")
      .def_property_readonly("distinct_2_baseline", get(&D::distinct_2_baseline),
                             "Different pairs of neighbours / pairs, over all of the baseline's continuations.")
      .def_property_readonly("distinct_2", get(&D::distinct_2), "The same of the damaged model's.");
}

std::string text(const metrics::GenerationDivergence& divergence) {
  return fmt::format("first divergence {:.4g}, exact match {:.4g}, repetition {:.4g} → {:.4g}",
                     divergence.first_divergence, divergence.exact_match, divergence.repetition_baseline,
                     divergence.repetition);
}

void register_generation_divergence(py::module_& room) {
  py::class_<metrics::GenerationDivergence> divergence(
      room, "GenerationDivergence",
      R"(How far two models' continuations stay together, and how varied each model's are. Read-only.

Repetition is seq-rep-4 (Welleck et al., "Neural Text Generation with Unlikelihood Training", arXiv 1908.04319), distinct-n
that of Li et al., "A Diversity-Promoting Objective Function for Neural Conversation Models", arXiv 1510.03055.
)");
  define_fields(divergence,
                [](auto field) { return [field](const metrics::GenerationDivergence& d) { return d.*field; }; });
  divergence.def("__repr__", [](const metrics::GenerationDivergence& self) {
    return fmt::format("GenerationDivergence({} prompts, {})", self.positions.size(), text(self));
  });

  room.def(
      "generation_divergence",
      [](const metrics::Continuations& baseline, const metrics::Continuations& damaged,
         std::optional<int64_t> new_tokens, int64_t bootstrap_samples, int64_t seed) {
        return metrics::generation_divergence(
            baseline, damaged, {.new_tokens = new_tokens, .bootstrap_samples = bootstrap_samples, .seed = seed});
      },
      "baseline_tokens"_a, "damaged_tokens"_a, py::kw_only(), "new_tokens"_a = std::optional<int64_t>(),
      "bootstrap_samples"_a = metrics::GenerationDivergenceOptions().bootstrap_samples, "seed"_a = 0,
      py::call_guard<py::gil_scoped_release>(), R"(Compares two models' continuations of the same prompts.

Args:
    baseline_tokens: The unchanged model's, a list of token IDs a prompt, the end-of-text token included where one came.
        May be empty or of different lengths.
    damaged_tokens: The changed model's, in the same order.
    new_tokens: How long a continuation could be; what equal ones count as. None: the longest given.
    bootstrap_samples: Resamples of prompts behind the interval.
    seed: Of the resampling.

Returns:
    GenerationDivergence: ``.first_divergence``, ``.exact_match``, ``.repetition`` and more.

Raises:
    ValueError: Where the lists differ in length or are empty, or a continuation is longer than ``new_tokens``.

Example:
    >>> divergence = hemostat.metrics.generation_divergence([[5, 6, 7, 8]], [[5, 6, 9]])
    >>> divergence.positions, divergence.exact_match
    ([2], 0.0)
)");
}

void register_protocol(py::module_& module) {
  const GenerationProtocol neutral;
  py::class_<GenerationProtocol>(module, "GenerationProtocol", R"(How damage by generation is measured. Read-only.

Both models continue the first tokens of the first evaluated windows, with the same random numbers.

Args:
    prompts: At most so many windows.
    prompt_length: Tokens of each; at most half of a window.
    new_tokens: At most, within the model's context and up to an end of text.
    decoder: Of both models, ``hemostat.Decoder(do_sample=False)`` for the most likely tokens. None: each its own.
)")
      .def(py::init([](int64_t prompts, int64_t prompt_length, int64_t new_tokens, std::optional<Decoder> decoder) {
             return GenerationProtocol{
                 .prompts = prompts, .prompt_length = prompt_length, .new_tokens = new_tokens, .decoder = decoder};
           }),
           py::kw_only(), "prompts"_a = neutral.prompts, "prompt_length"_a = neutral.prompt_length,
           "new_tokens"_a = neutral.new_tokens, "decoder"_a = std::optional<Decoder>())
      .def_readonly("prompts", &GenerationProtocol::prompts, "At most so many windows.")
      .def_readonly("prompt_length", &GenerationProtocol::prompt_length, "Tokens of each.")
      .def_readonly("new_tokens", &GenerationProtocol::new_tokens, "At most so many new ones.")
      .def_readonly("decoder", &GenerationProtocol::decoder, "Of both models; None: each its own.")
      .def("__repr__", [](const GenerationProtocol& self) {
        return fmt::format("GenerationProtocol(prompts={}, prompt_length={}, new_tokens={}, decoder={})", self.prompts,
                           self.prompt_length, self.new_tokens,
                           self.decoder ? std::string(py::repr(py::cast(*self.decoder))) : "None");
      });
}

void register_damage_of_generation(py::module_& module) {
  py::class_<GenerationDamage> damage(module, "GenerationDamage", R"(Damage measured on continuations. Read-only.

The baseline's and the damaged model's, of the same prompts, with the same random numbers.
)");
  damage.def_readonly("prompts", &GenerationDamage::prompts, "Prompts that were continued.")
      .def_readonly("prompt_length", &GenerationDamage::prompt_length, "Tokens of each.")
      .def_readonly("new_tokens", &GenerationDamage::new_tokens, "Most tokens of a continuation.")
      .def_readonly("seed", &GenerationDamage::seed, "Of the random numbers that both models share.");
  define_fields(damage, [](auto field) { return of_divergence(field); });
  damage
      .def(
          "to_dict",
          [](const GenerationDamage& self, bool positions) {
            return generation_to_dict(self, {.windows = positions, .finite = true});
          },
          py::kw_only(), "positions"_a = false, R"(Every field, ready for JSON: None stands for NaN.

Args:
    positions: Whether to include each prompt's first divergence.

Returns:
    dict: The interval is a list.
)")
      .def("__repr__", [](const GenerationDamage& self) {
        return fmt::format("GenerationDamage({} prompts of {} tokens, up to {} new ones, {})", self.prompts,
                           self.prompt_length, self.new_tokens, text(self.divergence));
      });
}

}  // namespace

void register_generation_damage(py::module_& module, py::module_& room) {
  register_generation_divergence(room);
  register_protocol(module);
  register_damage_of_generation(module);
}

void register_generate(py::module_& module) {
  module.def(
      "generate",
      [](const Model& model, const std::vector<std::vector<int64_t>>& prompts, const Decoder& decoder,
         int64_t max_new_tokens, int64_t seed, const std::optional<std::vector<int64_t>>& eos_token_ids,
         int64_t batch) {
        return generate(
            model, prompts, decoder,
            {.max_new_tokens = max_new_tokens, .seed = seed, .eos_token_ids = eos_token_ids, .batch = batch});
      },
      "model"_a, "prompts"_a, "decoder"_a, py::kw_only(), "max_new_tokens"_a, "seed"_a = 0,
      "eos_token_ids"_a = std::optional<std::vector<int64_t>>(), "batch"_a = GenerateOptions().batch,
      py::call_guard<py::gil_scoped_release>(), "What hemostat.generate calls. eos_token_ids None: the model's.");
}

}  // namespace hemostat::bindings
