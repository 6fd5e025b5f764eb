// Damage as a dict and back: one list of its fields.
#include "damage_fields.h"

#include <cmath>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <type_traits>
#include <vector>

#include <fmt/format.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <hemostat/error.h>

namespace py = pybind11;

namespace hemostat::bindings {
namespace {

template <class Value>
constexpr bool plain = std::is_same_v<Value, int64_t> || std::is_same_v<Value, bool> ||
                       std::is_same_v<Value, std::string> || std::is_same_v<Value, std::vector<int64_t>>;

template <class Summary, class Visit>
void visit_kl(Summary& kl, const Visit& visit) {
  visit("mean", kl.mean);
  visit("median", kl.median);
  visit("p90", kl.p90);
  visit("p99", kl.p99);
  visit("max", kl.max);
  visit("by_confidence", kl.by_confidence);
  visit("reverse_mean", kl.reverse_mean);
  visit.added("mean_interval", kl.mean_interval);
}

template <class Owner, class Visit>
void visit_fields(Owner& damage, const Visit& visit) {
  visit.added("measure", damage.measure);
  visit("windows", damage.windows);
  visit("tokens", damage.tokens);
  visit("nll_baseline", damage.nll_baseline);
  visit("nll", damage.nll);
  visit("perplexity_baseline", damage.perplexity_baseline);
  visit("perplexity", damage.perplexity);
  visit("delta_nll", damage.delta_nll);
  visit("delta_nll_interval", damage.delta_nll_interval);
  visit("bits_per_byte", damage.bits_per_byte);
  visit("kl", damage.kl);
  visit.added("acceptance", damage.acceptance);
  visit.added("acceptance_interval", damage.acceptance_interval);
  visit("top1_agreement", damage.top1_agreement);
  visit.added("top1_agreement_interval", damage.top1_agreement_interval);
  visit.derived("volume", damage.volume());
  visit.added("direction", damage.direction);
  visit.added("direction_interval", damage.direction_interval);
  visit.added("delta_nll_unchanged", damage.delta_nll_unchanged);
  visit.derived("silent", damage.silent());
  visit("top5_overlap", damage.top5_overlap);
  visit("flips_right_to_wrong", damage.flips_right_to_wrong);
  visit("flips_wrong_to_right", damage.flips_wrong_to_right);
  visit("accuracy_baseline", damage.accuracy_baseline);
  visit("accuracy", damage.accuracy);
  visit("calibration_error_baseline", damage.calibration_error_baseline);
  visit("calibration_error", damage.calibration_error);
  visit("entropy_baseline", damage.entropy_baseline);
  visit("entropy_shift", damage.entropy_shift);
  visit("index", damage.index);
  visit.added("unigram_nll", damage.unigram_nll);
  visit.derived("no_better_than_unigram", damage.no_better_than_unigram());
  visit("index_source", damage.index_source);
  visit("within_noise_floor", damage.within_noise_floor);
  visit.added("bytes_baseline", damage.bytes_baseline);
  visit.added("bytes", damage.bytes);
}

template <class Owner, class Visit>
void visit_generation(Owner& damage, const Visit& visit) {
  auto& divergence = damage.divergence;
  visit("prompts", damage.prompts);
  visit("prompt_length", damage.prompt_length);
  visit("new_tokens", damage.new_tokens);
  visit("first_divergence", divergence.first_divergence);
  visit("first_divergence_interval", divergence.first_divergence_interval);
  visit("first_divergence_median", divergence.first_divergence_median);
  visit("exact_match", divergence.exact_match);
  visit("repetition_baseline", divergence.repetition_baseline);
  visit("repetition", divergence.repetition);
  visit("distinct_1", divergence.distinct_1);
  visit("distinct_2", divergence.distinct_2);
  visit("distinct_1_baseline", divergence.distinct_1_baseline);
  visit("distinct_2_baseline", divergence.distinct_2_baseline);
  visit("seed", damage.seed);
}

template <class Owner, class Visit>
void visit_windows(Owner& damage, const Visit& visit) {
  visit("window_nll_baseline", damage.window_nll_baseline);
  visit("window_nll", damage.window_nll);
  visit.added("window_kl", damage.window_kl);
  visit.added("window_top1_agreement", damage.window_top1_agreement);
  visit.added("window_acceptance", damage.window_acceptance);
}

// A visitor is called with each field; `added` are those that earlier versions did not store, `derived` those that
// others give.
struct Writer {
  py::dict& target;
  bool finite;

  void added(const char* name, const auto& value) const { (*this)(name, value); }
  void derived(const char* name, const auto& value) const { (*this)(name, value); }

  py::object number(double value) const {
    return finite && !std::isfinite(value) ? py::object(py::none()) : py::object(py::float_(value));
  }
  void operator()(const char* name, double value) const { target[name] = number(value); }
  void operator()(const char* name, const std::optional<double>& value) const {
    target[name] = value ? number(*value) : py::object(py::none());
  }
  void operator()(const char* name, const std::vector<double>& values) const {
    py::list list;
    for (double value : values) {
      list.append(number(value));
    }
    target[name] = list;
  }
  void operator()(const char* name, const std::optional<Interval>& interval) const {
    if (interval) {
      (*this)(name, std::vector<double>{interval->low, interval->high});
    } else {
      target[name] = py::none();
    }
  }
  void operator()(const char* name, const std::optional<bool>& value) const { target[name] = py::cast(value); }
  void operator()(const char* name, const KlSummary& kl) const {
    py::dict inner;
    visit_kl(kl, Writer{inner, finite});
    target[name] = inner;
  }
  template <class Value>
    requires plain<Value>
  void operator()(const char* name, const Value& value) const {
    target[name] = py::cast(value);
  }
};

struct Reader {
  const py::dict& fields;

  void added(const char* name, auto& value) const {
    if (fields.contains(name)) {
      (*this)(name, value);
    }
  }
  void derived(const char*, const auto&) const {}

  template <class Value>
  static Value as(const char* name, py::handle value, const char* takes) {
    try {
      return value.cast<Value>();
    } catch (const py::cast_error&) {
      throw ValueError(fmt::format("hemostat.Damage.from_dict: {} has {}, but takes {}", name,
                                   py::repr(value).cast<std::string>(), takes));
    }
  }
  static double number(const char* name, py::handle value) {
    return value.is_none() ? std::numeric_limits<double>::quiet_NaN() : as<double>(name, value, "a number or None");
  }
  py::object field(const char* name) const {
    if (!fields.contains(name)) {
      throw ValueError(fmt::format("hemostat.Damage.from_dict: there is no field {}", name));
    }
    return fields[name];
  }
  void operator()(const char* name, double& value) const { value = number(name, field(name)); }
  void operator()(const char* name, std::optional<double>& value) const {
    const py::object given = field(name);
    value = given.is_none() ? std::nullopt : std::optional(number(name, given));
  }
  void operator()(const char* name, std::vector<double>& values) const {
    values.clear();
    for (py::handle value : as<py::sequence>(name, field(name), "a list of numbers")) {
      values.push_back(number(name, value));
    }
  }
  void operator()(const char* name, std::optional<Interval>& interval) const {
    interval.reset();
    if (field(name).is_none()) {
      return;
    }
    std::vector<double> ends;
    (*this)(name, ends);
    if (ends.size() != 2) {
      throw ValueError(fmt::format("hemostat.Damage.from_dict: {} has {} entries, but takes 2", name, ends.size()));
    }
    interval = Interval{.low = ends[0], .high = ends[1]};
  }
  void operator()(const char* name, KlSummary& kl) const {
    const auto inner = as<py::dict>(name, field(name), "a dict");
    visit_kl(kl, Reader{inner});
  }
  template <class Value>
    requires plain<Value>
  void operator()(const char* name, Value& value) const {
    value =
        as<Value>(name, field(name), std::is_same_v<Value, std::string> ? "a text" : "a whole number or a truth value");
  }
};

}  // namespace

py::dict damage_to_dict(const Damage& damage, const DamageDictOptions& options) {
  py::dict result;
  const Writer writer{result, options.finite};
  visit_fields(damage, writer);
  if (options.windows) {
    visit_windows(damage, writer);
  }
  if (damage.generation) {
    result["generation"] = generation_to_dict(*damage.generation, options);
  }
  return result;
}

py::dict generation_to_dict(const GenerationDamage& damage, const DamageDictOptions& options) {
  py::dict result;
  const Writer writer{result, options.finite};
  visit_generation(damage, writer);
  if (options.windows) {
    writer("positions", damage.divergence.positions);
  }
  return result;
}

Damage damage_from_dict(const py::dict& fields) {
  Damage damage;
  const Reader reader{fields};
  visit_fields(damage, reader);
  if (damage.windows < 2) {
    damage.delta_nll_interval.reset();  // earlier versions stored one without width
  }
  if (fields.contains("window_nll")) {
    visit_windows(damage, reader);
  }
  if (fields.contains("generation") && !fields["generation"].is_none()) {
    const auto inner = fields["generation"].cast<py::dict>();
    GenerationDamage& generation = damage.generation.emplace();
    visit_generation(generation, Reader{inner});
    if (generation.prompts < 2) {
      generation.divergence.first_divergence_interval.reset();
    }
    if (inner.contains("positions")) {
      generation.divergence.positions = inner["positions"].cast<std::vector<int64_t>>();
    }
  }
  return damage;
}

}  // namespace hemostat::bindings
