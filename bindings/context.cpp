// Room `context`: what the model reads is changed.
#include <optional>
#include <string>

#include <fmt/format.h>
#include <pybind11/pybind11.h>

#include <hemostat/context.h>
#include <hemostat/error.h>

#include "model/parts.h"
#include "module.h"

namespace py = pybind11;

namespace hemostat::bindings {
namespace {

TokenNoise token_noise_from(const std::string& kind) {
  const std::optional<TokenNoise> known = parts::from_word<TokenNoise>(kind);
  if (!known || *known == TokenNoise::none) {
    throw ValueError(fmt::format("hemostat.context.token_noise: kind is '{}', but takes replace, drop or swap", kind));
  }
  return *known;
}

}  // namespace

void register_context(py::module_& module) {
  using py::literals::operator""_a;
  py::module_ room = module.def_submodule("context", "What the model reads is changed. Model in, Model out.");
  room.def(
      "token_noise",
      [](const Model& model, double rate, const std::string& kind, int64_t seed) {
        return context::token_noise(model, {.rate = rate, .kind = token_noise_from(kind), .seed = seed});
      },
      "model"_a, py::kw_only(), "rate"_a, "kind"_a = "replace", "seed"_a = 0, py::call_guard<py::gil_scoped_release>(),
      R"(A fraction of the tokens that the model reads is noise; the targets stay clean.

A hash of (seed, position, token, previous token) decides what happens to a token, so that batching and caching don't
alter it. With one seed, what falls at a rate also falls at every higher one.

Args:
    model: The model.
    rate: Fraction of tokens, 0 … 1.
    kind: ``"replace"``: a token drawn uniformly from the vocabulary stands in its place; ``"drop"``: its embedding is
        zero; ``"swap"``: its predecessor stands in its place.
    seed: Decides which tokens fall.

Returns:
    Model: With :attr:`Model.input` set; shares every tensor.

Raises:
    ValueError: For a rate out of range or another kind.
)");
}

}  // namespace hemostat::bindings
