#include <algorithm>
#include <charconv>
#include <cmath>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <hemostat/error.h>
#include <hemostat/methods.h>

namespace hemostat {
namespace {

template <class... Functions>
struct Overloaded : Functions... {
  using Functions::operator()...;
};

std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> parts;
  size_t begin = 0;
  for (size_t end; (end = text.find(separator, begin)) != std::string::npos; begin = end + 1) {
    parts.push_back(text.substr(begin, end - begin));
  }
  parts.push_back(text.substr(begin));
  return parts;
}

template <typename Number>
std::optional<Number> number(const std::string& text) {
  Number value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size() ? std::optional(value) : std::nullopt;
}

const OptionSpec& find_option(const Method& method, const std::string& name) {
  const auto found = std::find_if(method.options.begin(), method.options.end(),
                                  [&](const OptionSpec& option) { return option.name == name; });
  if (found == method.options.end()) {
    std::vector<std::string> known;
    for (const OptionSpec& option : method.options) {
      known.push_back(option.name);
    }
    throw ValueError(fmt::format("hemostat: method '{}' has no option '{}'; it takes {}", method.name, name,
                                 known.empty() ? "none" : fmt::format("{}", fmt::join(known, ", "))));
  }
  return *found;
}

const char* type_name(const OptionValue& value) {
  return std::visit(Overloaded{[](bool) { return "true or false"; }, [](int64_t) { return "an integer"; },
                               [](double) { return "a finite number"; }, [](const std::string&) { return "a string"; },
                               [](const std::vector<int64_t>&) { return "a list of integers"; },
                               [](const std::vector<std::string>&) { return "a list of strings"; }},
                    value);
}

[[noreturn]] void bad_value(const Method& method, const OptionSpec& option, const std::string& got) {
  throw ValueError(fmt::format("hemostat: option '{}' of '{}' takes {}, got '{}'", option.name, method.name,
                               option.choices.empty() ? std::string(type_name(option.default_value))
                                                      : fmt::format("{}", fmt::join(option.choices, ", ")),
                               got));
}

OptionValue parse_value(const Method& method, const OptionSpec& option, const std::string& text) {
  const auto integer = [&](const std::string& part) {
    const auto value = number<int64_t>(part);
    if (!value) {
      bad_value(method, option, text);
    }
    return *value;
  };
  return std::visit(Overloaded{[&](bool) -> OptionValue {
                                 if (text == "true" || text == "True" || text == "1") return true;
                                 if (text == "false" || text == "False" || text == "0") return false;
                                 bad_value(method, option, text);
                               },
                               [&](int64_t) -> OptionValue { return integer(text); },
                               [&](double) -> OptionValue {
                                 const auto value = number<double>(text);
                                 if (!value) {
                                   bad_value(method, option, text);
                                 }
                                 return *value;
                               },
                               [&](const std::string&) -> OptionValue { return text; },
                               [&](const std::vector<int64_t>&) -> OptionValue {
                                 std::vector<int64_t> values;
                                 for (const std::string& part : split(text, '+')) {
                                   values.push_back(integer(part));
                                 }
                                 return values;
                               },
                               [&](const std::vector<std::string>&) -> OptionValue { return split(text, '+'); }},
                    option.default_value);
}

// The value in the option's own type, where it converts without loss.
OptionValue converted(const Method& method, const OptionSpec& option, const OptionValue& value) {
  if (value.index() == option.default_value.index()) {
    return value;
  }
  const bool wants_number = std::holds_alternative<double>(option.default_value);
  const bool wants_string = std::holds_alternative<std::string>(option.default_value);
  if (const auto* integer = std::get_if<int64_t>(&value)) {
    if (wants_number) {
      return static_cast<double>(*integer);
    }
    if (wants_string) {
      return std::to_string(*integer);
    }
    if (std::holds_alternative<std::vector<int64_t>>(option.default_value)) {
      return std::vector<int64_t>{*integer};
    }
  }
  if (const auto* text = std::get_if<std::string>(&value)) {
    if (std::holds_alternative<std::vector<std::string>>(option.default_value)) {
      return std::vector<std::string>{*text};
    }
  }
  throw TypeError(fmt::format("hemostat: option '{}' of '{}' takes {}, got {}", option.name, method.name,
                              type_name(option.default_value), type_name(value)));
}

}  // namespace

std::string to_string(const OptionValue& value) {
  return std::visit(
      Overloaded{[](bool flag) -> std::string { return flag ? "true" : "false"; },
                 [](int64_t integer) { return std::to_string(integer); },
                 [](double real) { return fmt::format("{}", real); }, [](const std::string& text) { return text; },
                 [](const auto& list) { return fmt::format("{}", fmt::join(list, "+")); }},
      value);
}

Options complete_options(const Method& method, const Options& given) {
  Options complete;
  for (const OptionSpec& option : method.options) {
    complete[option.name] = option.default_value;
  }
  for (const auto& [name, value] : given) {
    const OptionSpec& option = find_option(method, name);
    complete[name] = converted(method, option, value);
    const auto* real = std::get_if<double>(&complete[name]);
    const auto* integer = std::get_if<int64_t>(&complete[name]);
    const std::string operation = fmt::format("hemostat.prepare({})", method.name);
    if (real != nullptr) {
      check_range(operation, name, *real, option.range);
    } else if (integer != nullptr) {
      check_range(operation, name, *integer, option.range);
    }
    const auto* text = std::get_if<std::string>(&complete[name]);
    if (text != nullptr && !option.choices.empty() &&
        std::find(option.choices.begin(), option.choices.end(), *text) == option.choices.end()) {
      bad_value(method, option, *text);
    }
  }
  return complete;
}

MethodSpec MethodSpec::parse(const std::string& text) {
  const size_t colon = text.find(':');
  MethodSpec spec{text.substr(0, colon), {}};
  const Method& method = find_method(spec.method);
  if (colon == std::string::npos) {
    return spec;
  }
  for (const std::string& part : split(text.substr(colon + 1), ',')) {
    const size_t equals = part.find('=');
    if (equals == std::string::npos || equals == 0) {
      throw ValueError(fmt::format("hemostat: '{}' in '{}' is not option=value", part, text));
    }
    const std::string name = part.substr(0, equals);
    if (spec.options.count(name)) {
      throw ValueError(fmt::format("hemostat: option '{}' stands twice in '{}'", name, text));
    }
    spec.options[name] = parse_value(method, find_option(method, name), part.substr(equals + 1));
  }
  complete_options(method, spec.options);
  return spec;
}

std::string MethodSpec::text() const {
  const Method& found = find_method(method);
  std::vector<std::string> parts;
  for (const auto& [name, value] : complete_options(found, options)) {
    if (value != find_option(found, name).default_value) {
      parts.push_back(name + "=" + to_string(value));
    }
  }
  return parts.empty() ? method : fmt::format("{}:{}", method, fmt::join(parts, ","));
}

}  // namespace hemostat
