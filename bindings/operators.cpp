#include "operators.h"

#include <cctype>
#include <sstream>

namespace hemostat::bindings {

std::string argument_lines(const char* name, const std::string& text) {
  constexpr size_t kWidth = 120;
  std::string sentence = text;
  sentence[0] = static_cast<char>(std::toupper(static_cast<unsigned char>(sentence[0])));
  std::string line = fmt::format("    {}:", name), result;
  std::istringstream parts(sentence + ".");
  for (std::string part; parts >> part;) {
    if (line.size() + 1 + part.size() > kWidth) {
      result += line + "\n";
      line = std::string(7, ' ');
    }
    line += " " + part;
  }
  return result + line + "\n";
}

std::string with_options(std::string_view docstring, const std::string& lines) {
  constexpr std::string_view kPlace = "{options}\n";
  std::string result(docstring);
  return result.replace(result.find(kPlace), kPlace.size(), lines);
}

std::string operation_name(const py::module_& room, const char* name) {
  const auto full = py::cast<std::string>(room.attr("__name__"));
  return fmt::format("hemostat.{}.{}", full.substr(full.rfind('.') + 1), name);
}

}  // namespace hemostat::bindings
