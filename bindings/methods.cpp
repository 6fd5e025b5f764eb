// Room `methods`: the registry, prepare and collect.
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include <fmt/format.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>
#include <torch/csrc/utils/pybind.h>

#include <hemostat/error.h>
#include <hemostat/methods.h>
#include <hemostat/threshold.h>

#include "arguments.h"
#include "callbacks.h"
#include "method_options.h"
#include "module.h"
#include "needs.h"

namespace py = pybind11;

namespace hemostat::bindings {

namespace {

// ValueError where it needs more than 64 bits.
int64_t whole_number(const std::string& name, py::handle value) {
  int overflow = 0;
  const auto result = PyLong_AsLongLongAndOverflow(value.ptr(), &overflow);
  if (overflow != 0) {
    throw ValueError(fmt::format("hemostat: option {} is {}, but takes a whole number of 64 bits", name,
                                 py::str(value).cast<std::string>()));
  }
  return result;
}

// Entries of a list option: all integers or all text.
template <class Entry>
std::optional<std::vector<Entry>> all_of(const std::string& name, py::handle list) {
  std::vector<Entry> entries;
  for (py::handle entry : py::reinterpret_borrow<py::object>(list)) {
    const bool fits =
        std::is_same_v<Entry, std::string> ? py::isinstance<py::str>(entry) : py::isinstance<py::int_>(entry);
    if (!fits) {
      return std::nullopt;
    }
    if constexpr (std::is_same_v<Entry, std::string>) {
      entries.push_back(entry.cast<std::string>());
    } else {
      entries.push_back(whole_number(name, entry));
    }
  }
  return entries;
}

const OptionSpec* find_option(const std::string& method, const std::string& name) {
  for (const OptionSpec& option : find_method(method).options) {
    if (option.name == name) {
      return &option;
    }
  }
  return nullptr;
}

}  // namespace

OptionValue option_value(const std::string& name, py::handle value) {
  if (py::isinstance<py::bool_>(value)) {
    return value.cast<bool>();
  }
  if (py::isinstance<py::str>(value)) {
    return value.cast<std::string>();
  }
  if (PyIndex_Check(value.ptr()) != 0) {
    const auto integer = py::reinterpret_steal<py::object>(PyNumber_Index(value.ptr()));
    if (integer) {
      return whole_number(name, integer);
    }
    PyErr_Clear();  // a tensor has __index__ even where it holds a fraction
  }
  if (PyNumber_Check(value.ptr()) != 0) {
    const auto number = py::reinterpret_steal<py::object>(PyNumber_Float(value.ptr()));
    if (number) {
      return number.cast<double>();
    }
    PyErr_Clear();
  }
  if (PySequence_Check(value.ptr()) != 0) {
    if (auto texts = all_of<std::string>(name, value)) {
      return *std::move(texts);
    }
    if (auto integers = all_of<int64_t>(name, value)) {
      return *std::move(integers);
    }
  }
  throw TypeError(
      fmt::format("hemostat: option {} is a {}, but takes a bool, a number, a str, or a list of str or of int", name,
                  Py_TYPE(value.ptr())->tp_name));
}

py::dict options_to_dict(const MethodSpec& spec) {
  py::dict result;
  for (const auto& [name, value] : spec.options) {
    const auto* text = std::get_if<std::string>(&value);
    const size_t first = text != nullptr && text->starts_with('-') ? 1 : 0;
    const bool integer =
        text != nullptr && text->size() > first && text->find_first_not_of("0123456789", first) == std::string::npos;
    result[py::str(name)] = integer ? py::object(py::int_(std::stoll(*text))) : py::cast(value);
  }
  return result;
}

MethodSpec spec_from(const std::string& text, const py::dict& keywords) {
  MethodSpec spec = MethodSpec::parse(text);
  for (const auto& [key, value] : keywords) {
    const auto name = key.cast<std::string>();
    const OptionSpec* option = find_option(spec.method, name);
    OptionValue given;
    if (name == "group_size" && (value.is_none() || value.equal(py::int_(quantize::kPerRow)))) {
      given = std::string("row");  // as the operators spell it
    } else if (value.is_none() && option != nullptr) {
      continue;
    } else {
      given = option_value(name, value);
    }
    const auto* texts = std::get_if<std::vector<std::string>>(&given);
    if (texts != nullptr && texts->empty() && option != nullptr &&
        std::holds_alternative<std::vector<int64_t>>(option->default_value)) {
      given = std::vector<int64_t>();  // an empty list is one of integers too
    }
    if (!spec.options.emplace(name, std::move(given)).second) {
      throw TypeError(fmt::format("hemostat.prepare: option {} is given twice, in '{}' and as a keyword", name, text));
    }
  }
  complete_options(find_method(spec.method), spec.options);  // refuses what the method does not take
  return spec;
}

namespace {

using py::literals::operator""_a;

// The linears that a spec names; all inside blocks, where its method has no such options.
LinearFilter filter_of(const MethodSpec& spec) {
  const Options options = complete_options(find_method(spec.method), spec.options);
  const auto patterns = [&](const char* name) {
    const auto found = options.find(name);
    const auto* given = found == options.end() ? nullptr : std::get_if<std::vector<std::string>>(&found->second);
    return given == nullptr ? std::vector<std::string>() : *given;
  };
  return {.include = patterns("include"), .exclude = patterns("exclude")};
}

py::dict keywords(const Options& options) {
  py::dict result;
  for (const auto& [name, value] : options) {
    result[py::str(name)] = py::cast(value);
  }
  return result;
}

// What a method is in messages.
std::string title(const std::string& method) { return "hemostat.method '" + method + "'"; }

Model model_from(const py::object& result, const std::string& method) {
  if (!py::isinstance<Model>(result)) {
    throw TypeError(fmt::format("{}: the function of severity gave a {}, but must give a hemostat.Model", title(method),
                                Py_TYPE(result.ptr())->tp_name));
  }
  return result.cast<Model>();
}

Axis axis_from(const py::object& result, const std::string& method) {
  if (!py::isinstance<Axis>(result)) {
    throw TypeError(fmt::format("{}: axis_for gave a {}, but must give a hemostat.Axis", title(method),
                                Py_TYPE(result.ptr())->tp_name));
  }
  return result.cast<Axis>();
}

// Of ours, or any other word for a method of one's own.
Kind user_kind(const std::string& kind) {
  try {
    return kind_from_name(kind);
  } catch (const ValueError&) {
    return Kind::user;
  }
}

// What a Python function gave for a model: the function of severity, and whether that takes an int.
struct AtSeverity {
  Callable function;
  bool whole;
};

// A Python function (model, statistics, **options) → (severity → Model) as a Method.
void register_python_method(const std::string& name, const std::string& kind, const std::string& description,
                            const Axis& axis, const std::set<std::string>& needs, std::vector<OptionSpec> options,
                            const py::function& function, const std::optional<py::function>& axis_for) {
  Method method{.name = name,
                .kind = user_kind(kind),
                .description = description,
                .axis = axis,
                .needs = {},
                .options = std::move(options),
                .change = OnModel{}};
  for (const std::string& need : needs) {
    method.needs.insert(need_from_name(need));
  }
  if (axis_for) {
    method.axis_for = [name, call = Callable(*axis_for)](const Model& model, const Options& given) {
      py::gil_scoped_acquire gil;
      return axis_from(call(py::cast(model), **keywords(given)), name);
    };
  }
  const auto hold = [name, axis, own_axis = method.axis_for, call = Callable(function)](
                        const Model& model, const Statistics* statistics, const Options& given) {
    py::gil_scoped_acquire gil;
    const bool whole = (own_axis ? own_axis(model, given) : axis).kind == AxisKind::integer;
    const py::object passed = statistics == nullptr ? py::object(py::none()) : py::cast(*statistics);
    py::object at = call(py::cast(model), passed, **keywords(given));
    if (PyCallable_Check(at.ptr()) == 0) {
      throw TypeError(
          fmt::format("{}: gave a {}, but must give a function of severity", title(name), Py_TYPE(at.ptr())->tp_name));
    }
    return Held(AtSeverity{Callable(std::move(at)), whole});
  };
  const auto change = [name](const Model&, const Held& held, const Options&, double severity) {
    py::gil_scoped_acquire gil;
    const auto& [at, whole] = std::any_cast<const AtSeverity&>(held);
    return model_from(whole ? at(static_cast<int64_t>(severity)) : at(severity), name);
  };
  method.change = OnModel{.hold = hold, .change = change};
  py::gil_scoped_release release;
  register_method(std::move(method));
}

std::set<Need> needs_from(const std::vector<std::string>& given) {
  std::set<std::string> known = names(every_need());
  known.merge(names(gradient_needs()));
  known.insert(name(Need::tokens));
  std::set<Need> needs;
  std::vector<std::string> specs;
  for (const std::string& entry : given) {
    if (known.count(entry) > 0) {
      needs.insert(need_from_name(entry));
    } else {
      specs.push_back(entry);
    }
  }
  needs.merge(needs_of(specs));
  return needs;
}

Labels labels_from(const std::string& word) {
  if (word != "model" && word != "text") {
    throw ValueError(fmt::format("hemostat.collect: labels is '{}', but takes model, text", word));
  }
  return word == "model" ? Labels::model : Labels::text;
}

void register_predict(py::module_& module) {
  const auto threshold = [](const Prediction& self) { return Threshold(self.axis, self.severities, self.delta_nll); };
  py::class_<Prediction>(module, "Prediction", R"(What a method is predicted to cost along its axis. Read-only.

Without an evaluation: of second order about the unchanged model, linear by linear. It understates cascades from early
blocks, and what is beyond about a nat.
)")
      .def_readonly("method", &Prediction::method, "The method with its options.")
      .def_readonly("axis", &Prediction::axis, "The method's axis for this model.")
      .def_readonly("severities", &Prediction::severities, "On the axis.")
      .def_readonly("delta_nll", &Prediction::delta_nll, "Predicted ΔNLL at each, nats per token.")
      .def_readonly("linears", &Prediction::linears, "Of each severity the predicted ΔNLL of each linear, by name.")
      .def(
          "zone",
          [threshold](const Prediction& self, double tolerance) { return threshold(self).zone(tolerance).severity; },
          "tolerance"_a, R"(The largest severity at which the predicted ΔNLL is within a tolerance.

Args:
    tolerance: Nats per token, above 0.

Returns:
    float | None: Interpolated as :meth:`Threshold.zone` does; None where even the mildest is beyond it.
)")
      .def("__repr__", [](const Prediction& self) {
        return fmt::format("Prediction({}, {} severities, ΔNLL {:.4g} … {:.4g})", self.method, self.severities.size(),
                           self.delta_nll.empty() ? 0 : self.delta_nll.front(),
                           self.delta_nll.empty() ? 0 : self.delta_nll.back());
      });
  module.def(
      "predict",
      [](const Model& model, const std::string& method, const Statistics& statistics,
         const std::optional<std::vector<double>>& severities, const std::optional<const Statistics*>& judge,
         const py::kwargs& options) {
        const MethodSpec spec = spec_from(method, options);
        py::gil_scoped_release release;
        return predict(model, spec, statistics, {.severities = severities, .judge = judge.value_or(nullptr)});
      },
      "model"_a, "method"_a, "statistics"_a, py::kw_only(), "severities"_a = std::optional<std::vector<double>>(),
      "judge"_a = std::optional<const Statistics*>(), R"(What a method is predicted to cost, without an evaluation.

A change ΔW of a linear costs about ½ Σ_r f_r ΔW_r G ΔW_rᵀ nats per token, with G the Gram matrix of its input and f_r the
mean square of the loss's gradient with respect to its output r (``collect(model, tokens, needs=["predict", method])``).

Args:
    model: The model.
    method: A method's name or spec, of one that changes weights.
    statistics: Of the model, with what the method and the prediction need.
    severities: On the method's axis. None: its default grid.
    judge: Statistics to predict by, of another text than the method is calibrated on, which flatters it. None: the
        method's own.
    **options: The method's own options.

Returns:
    Prediction: ``.severities``, ``.delta_nll``, ``.linears``, ``.zone(tolerance)``.

Raises:
    ValueError: For a method that changes other things than weights, or statistics that are missing.

Example:
    >>> statistics = hemostat.collect(model, calibration, needs=["wanda", "predict"])
    >>> predicted = hemostat.predict(model, "wanda", statistics, severities=[0.3, 0.5])
)");
  module.def("predicted_damage", &predicted_damage, "model"_a, "changed"_a, "statistics"_a,
             py::call_guard<py::gil_scoped_release>(),
             R"(Predicted ΔNLL of each linear that differs between two models, nats per token.

Args:
    model: The unchanged model.
    changed: The same with other weights.
    statistics: Of the unchanged model, with ``gram`` and ``row_fisher``.

Returns:
    dict[str, float]: By the linears' names.
)");
}

void register_registry(py::module_& module) {
  py::class_<OptionSpec>(module, "OptionSpec", R"(An option that a method takes.

Args:
    name: The keyword.
    default: The value unless given; its type is the option's type.
    description: With unit and range.
    choices: Of a text option; empty: any.
)")
      .def(py::init([](const std::string& name, const py::object& default_value, const std::string& description,
                       const std::vector<std::string>& choices) {
             return OptionSpec{.name = name,
                               .default_value = option_value(name, default_value),
                               .description = description,
                               .choices = choices};
           }),
           "name"_a, "default"_a, "description"_a = "", "choices"_a = std::vector<std::string>())
      .def_readonly("name", &OptionSpec::name, "The keyword.")
      .def_readonly("default", &OptionSpec::default_value, "The value unless given.")
      .def_readonly("description", &OptionSpec::description, "What it does, with unit and range.")
      .def_readonly("choices", &OptionSpec::choices, "Of a text option; empty: any.")
      .def_property_readonly(
          "range", [](const OptionSpec& self) { return to_string(self.range); },
          "Of a number, in words; empty: any that is finite.")
      .def("__repr__", [](const OptionSpec& self) {
        return fmt::format("OptionSpec({}={})", self.name, to_string(self.default_value));
      });

  py::class_<Method>(module, "Method", "A perturbation in the registry. Read-only.")
      .def_readonly("name", &Method::name, "What it is called, ``'wanda'``.")
      .def_property_readonly(
          "kind", [](const Method& self) { return name(self.kind); },
          "What it changes: weights, factors, activations, architecture, normalization, input, decoding; or 'user'.")
      .def_property_readonly("packs", &Method::packs,
                             "Whether linears come back packed, in as many bits a weight as the severity says.")
      .def_property_readonly(
          "in_place", [](const Method& self) { return properties(self.kind).in_place; },
          "Whether every block stays where it is.")
      .def_property_readonly(
          "localizable", [](const Method& self) { return properties(self.kind).localizable; },
          "Whether parts of the changed model can be put into the unchanged one.")
      .def_property_readonly(
          "changes_weights", [](const Method& self) { return properties(self.kind).changes_weights; },
          "Whether noise as large as the change can stand beside it.")
      .def_property_readonly("on_linears", &Method::on_linears,
                             "Whether it changes linear by linear, and can be calibrated block by block.")
      .def_readonly("description", &Method::description, "One line.")
      .def_readonly("axis", &Method::axis, "The severity axis for default options, before a model is known.")
      .def_property_readonly(
          "needs", [](const Method& self) { return names(self.needs); },
          "Statistics that it reads by default: 'column_norm', 'absmax', 'absmean', 'gram', 'mean', 'gradient_mean', "
          "'gradient_absmean', 'gradient_square'.")
      .def_readonly("options", &Method::options, "What its preparation takes.")
      .def("__repr__", [](const Method& self) {
        return fmt::format("Method('{}', kind='{}', axis='{}', needs=[{}], options=[{}])", self.name, name(self.kind),
                           self.axis.name, fmt::join(names(self.needs), ", "), [&] {
                             std::string list;
                             for (const OptionSpec& option : self.options) {
                               list += (list.empty() ? "" : ", ") + option.name + "=" + to_string(option.default_value);
                             }
                             return list;
                           }());
      });

  py::class_<MethodSpec>(module, "MethodSpec",
                         R"(A method and its options, as text: ``"rtn:group_size=64,symmetric=true"``.

Args:
    text: A method's name, then options after a colon.
    **options: More options.

Raises:
    ValueError: For an unknown method or option, or a bad value.
    TypeError: For an option of another type, or one that is given twice.
)")
      .def(py::init([](const std::string& text, const py::kwargs& options) { return spec_from(text, options); }),
           "text"_a)
      .def_static("parse", &MethodSpec::parse, "text"_a, R"(Reads a spec.

Args:
    text: A method's name, then options after a colon.

Returns:
    MethodSpec: The method and the options given.

Raises:
    ValueError: For an unknown method or option, or a bad value.
)")
      .def_readonly("method", &MethodSpec::method, "The method's name.")
      .def_readonly("options", &MethodSpec::options, "The options given, by name.")
      .def(
          "to_dict",
          [](const MethodSpec& self) {
            return py::dict("method"_a = self.method, "options"_a = options_to_dict(self));
          },
          R"(The method and its options, ready for JSON.

Returns:
    dict: ``method`` and ``options``; numbers are numbers, also those of options that take a word too.
)")
      .def("text", &MethodSpec::text, "The canonical spelling: options sorted, defaults left out.")
      .def("__str__", &MethodSpec::text)
      .def("__repr__", [](const MethodSpec& self) { return fmt::format("MethodSpec('{}')", self.text()); });

  module.def("methods", &methods, R"(All registered methods: ours in catalogue order, then users'.

Returns:
    list[Method]: With ``name``, ``kind``, ``axis``, ``needs``, ``options``, ``description``.
)");
  module.def("find_method", &find_method, "name"_a, py::return_value_policy::copy, R"(The method of a name.

Args:
    name: Without options.

Returns:
    Method: Its entry in the registry.

Raises:
    ValueError: For an unknown name; the message lists near ones.
)");
  module.def("register_method", &register_python_method, py::kw_only(), "name"_a, "kind"_a, "description"_a, "axis"_a,
             "needs"_a, "options"_a, "function"_a, "axis_for"_a = std::optional<py::function>(),
             "What hemostat.method calls.");
}

void register_prepare(py::module_& module) {
  py::class_<Prepared>(module, "Prepared", "A method made ready for one model: cheap to apply at any severity.")
      .def_readonly("axis", &Prepared::axis, "The method's axis for this model and these options.")
      .def("at", &Prepared::at, "severity"_a, py::call_guard<py::gil_scoped_release>(),
           R"(The model at a severity.

Args:
    severity: On :attr:`axis`; integer axes take 4.0 too.

Returns:
    Model: The unchanged model at neutral. Shares every tensor that the method leaves alone.

Raises:
    ValueError: For a severity out of range or between two steps.
)")
      .def("__repr__", [](const Prepared& self) {
        return fmt::format("Prepared({} in {} … {}, neutral {})", self.axis.name, self.axis.minimum, self.axis.maximum,
                           self.axis.neutral);
      });

  module.def(
      "prepare",
      [](const Model& model, const std::string& method, const std::optional<Statistics>& statistics,
         const std::optional<at::Tensor>& calibration, bool propagate, double correct, double correct_damp,
         double memory_budget, const py::kwargs& options) {
        const MethodSpec spec = spec_from(method, options);
        if (propagate && !calibration) {
          throw ValueError(fmt::format("hemostat.prepare({}): propagate takes calibration tokens", spec.method));
        }
        if (correct != 0 && !propagate) {
          throw ValueError(
              fmt::format("hemostat.prepare({}): correct = {} aims at the unchanged model's outputs block by block, so "
                          "it takes propagate",
                          spec.method, correct));
        }
        py::gil_scoped_release release;
        const Statistics* given = statistics ? &*statistics : nullptr;
        if (propagate) {
          const Propagation propagation{
              .tokens = *calibration, .correct = correct, .correct_damp = correct_damp, .memory_budget = memory_budget};
          return prepare(model, spec.method, given, spec.options, &propagation);
        }
        const std::set<Need> needs = spec.needs();
        if (given != nullptr || !calibration || needs.empty()) {
          return prepare(model, spec.method, given, spec.options);
        }
        planned_axis(model, spec);  // refuses what does not fit before the pass
        CollectOptions collecting;
        collecting.needs = needs;
        collecting.memory_budget = memory_budget;
        collecting.filter = filter_of(spec);
        const Statistics collected = collect(model, *calibration, collecting);
        return prepare(model, spec.method, &collected, spec.options);
      },
      "model"_a, "method"_a, "statistics"_a = std::optional<Statistics>(), py::kw_only(),
      "calibration"_a = std::optional<at::Tensor>(), "propagate"_a = false, "correct"_a = Propagation().correct,
      "correct_damp"_a = Propagation().correct_damp, "memory_budget"_a = Propagation().memory_budget,
      R"(Does the work that does not depend on severity; ``at(severity)`` is then cheap.

Args:
    model: The model to change.
    method: A method's name, or a spec with options, ``"rtn:group_size=64"``.
    statistics: What :func:`hemostat.collect` gathered, for methods that need it.
    calibration: int64 ``[windows, length]`` token IDs, from which to collect what ``statistics`` are not given for.
    propagate: Calibrate block by block, and in a block q k v, o, gate up, down one after the other: each linear on what
        reaches it in the model that is changed so far, instead of in the unchanged one. Every ``at(severity)`` is then
        a pass over ``calibration``. For methods on linears.
    correct: With ``propagate``, 0 to 1: how far each linear is aimed at what the unchanged model gives there,
        W + correct · W · C · (H + correct_damp · mean(diag H) · I)⁻¹, with H = E[x̂x̂ᵀ] and C = E[(x − x̂)x̂ᵀ] of the
        unchanged model's input x and the changed one's x̂.
    correct_damp: What keeps that from fitting the calibration text; more than 0.
    memory_budget: Bytes of statistics and of activations in memory; more goes to temporary files.
    **options: The method's own options; see :func:`hemostat.methods`.

Returns:
    Prepared: With ``axis`` and ``at(severity)``.

Raises:
    ValueError: For an unknown method or option, a value out of range, statistics that are needed but not given, or
        ``propagate`` for a method that changes the model as a whole.
    TypeError: For an option of another type.

Example:
    >>> pruned = hemostat.prepare(model, "wanda", statistics).at(0.5)
    >>> pruned = hemostat.prepare(model, "sparsegpt", calibration=calibration, propagate=True).at(0.5)
)");

  py::class_<Composition>(module, "Composition",
                          "Methods in order as one with as many axes: each changes what the one before it gave.")
      .def_readonly("axes", &Composition::axes, "Each method's axis for the unchanged model, in order.")
      .def(
          "at",
          [](const Composition& self, const py::args& severities) {
            std::vector<double> given;
            for (const py::handle severity : severities) {
              given.push_back(PyFloat_AsDouble(severity.ptr()));
              if (PyErr_Occurred() != nullptr) {
                PyErr_Clear();
                throw TypeError(fmt::format("hemostat.Composition.at: severity {} is a {}, but takes a number",
                                            given.size(), Py_TYPE(severity.ptr())->tp_name));
              }
            }
            py::gil_scoped_release release;
            return self.at(given);
          },
          R"(The model at a severity of each method.

The preparation of a method after the first depends on the model that it gets, and is kept until a severity before it
changes: walk a grid with the last severity innermost.

Args:
    *severities: One a method, on its axis. Where one is neutral, that method does nothing.

Returns:
    Model: The unchanged model where all are neutral. Shares every tensor that the methods leave alone.

Raises:
    ValueError: For a severity out of range, or another number of them.
)")
      .def("__repr__", [](const Composition& self) {
        std::vector<std::string> names;
        for (const Axis& axis : self.axes) {
          names.push_back(axis.name);
        }
        return fmt::format("Composition({})", fmt::join(names, ", "));
      });

  module.def(
      "compose",
      [](const Model& model, const std::vector<std::string>& methods, const std::optional<Statistics>& statistics) {
        std::vector<MethodSpec> specs;
        for (const std::string& method : methods) {
          specs.push_back(MethodSpec::parse(method));
        }
        py::gil_scoped_release release;
        return compose(model, specs, statistics ? &*statistics : nullptr);
      },
      "model"_a, "methods"_a, "statistics"_a = std::optional<Statistics>(),
      R"(Methods in order as one with as many axes: prune, then quantize.

Each method is prepared on the model that those before it gave, since scores and ranges depend on the weights.

Args:
    model: The model to change.
    methods: Names or specs with options, in the order in which they are applied.
    statistics: What :func:`hemostat.collect` gathered on ``model``, for methods that need it. They serve a method too
        whose model an earlier one changed.

Returns:
    Composition: With ``axes`` and ``at(severity, …)``.

Raises:
    ValueError: For no methods, an unknown method or option, or statistics that are needed but not given.

Example:
    >>> both = hemostat.compose(model, ["wanda", "rtn"], statistics)
    >>> pruned_and_quantized = both.at(0.3, 4)
)");

  module.def(
      "compress",
      [](const Model& model, const std::vector<std::pair<std::string, double>>& methods, const at::Tensor& calibration,
         bool propagate, double correct, double correct_damp, double memory_budget, int64_t batch,
         const ProgressFunction& progress) {
        std::vector<MethodAtSeverity> parsed;
        for (const auto& [method, severity] : methods) {
          parsed.push_back({MethodSpec::parse(method), severity});
        }
        const Propagation propagation{.tokens = calibration,
                                      .correct = correct,
                                      .correct_damp = correct_damp,
                                      .memory_budget = memory_budget,
                                      .batch = batch,
                                      .progress = progress_callback(progress)};
        py::gil_scoped_release release;
        return compress(model, parsed, propagation, propagate);
      },
      "model"_a, "methods"_a, "calibration"_a, py::kw_only(), "propagate"_a = true, "correct"_a = Propagation().correct,
      "correct_damp"_a = Propagation().correct_damp, "memory_budget"_a = Propagation().memory_budget,
      "batch"_a = Propagation().batch, "progress"_a = ProgressFunction(), "What hemostat.compress calls.");

  const auto estimate = [&](const char* name, double (*of)(const Model&, const MethodSpec&), const char* says) {
    module.def(
        name, [of](const Model& model, const std::string& method) { return of(model, MethodSpec::parse(method)); },
        "model"_a, "method"_a, py::call_guard<py::gil_scoped_release>(), says);
  };
  estimate("held_bytes", &held_bytes, "Bytes that a prepared method holds beside the statistics.");
  estimate("estimated_work", &estimated_work, "Arithmetic that grows with the model as a method's does.");

  module.def(
      "collect",
      [](const Model& model, const at::Tensor& tokens, const std::optional<std::vector<std::string>>& needs,
         const std::string& labels, int64_t seed, double memory_budget, int64_t batch, const Patterns& include,
         const Patterns& exclude, const ProgressFunction& progress) {
        CollectOptions options;
        if (needs) {
          options.needs = needs_from(*needs);
        }
        options.labels = labels_from(labels);
        options.seed = seed;
        options.memory_budget = memory_budget;
        options.batch = batch;
        options.filter = linear_filter(include, exclude);
        options.progress = progress_callback(progress);
        py::gil_scoped_release release;
        return collect(model, tokens, options);
      },
      "model"_a, "tokens"_a, "needs"_a = std::optional<std::vector<std::string>>(), py::kw_only(), "labels"_a = "model",
      "seed"_a = CollectOptions().seed, "memory_budget"_a = CollectOptions().memory_budget,
      "batch"_a = CollectOptions().batch, "include"_a = Patterns(), "exclude"_a = Patterns(),
      "progress"_a = ProgressFunction(), "What hemostat.collect calls.");

  module.def(
      "needs_of",
      [](const std::vector<std::string>& specs, bool propagate) { return names(needs_of(specs, propagate)); },
      "methods"_a, "propagate"_a = false,
      R"(What methods need with their options, together.

Args:
    methods: Names or specs.
    propagate: Of the unchanged model, where they are calibrated block by block.

Returns:
    set[str]: Names of statistics.
)");
}

}  // namespace

void register_methods(py::module_& module) {
  register_registry(module);
  register_prepare(module);
  register_predict(module);
}

}  // namespace hemostat::bindings
