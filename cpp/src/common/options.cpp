#include <hemostat/options.h>

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace hemostat {

std::string to_string(const Range& range) {
  const bool above = std::isfinite(range.least), below = std::isfinite(range.most);
  if (above && range.most == std::numeric_limits<float>::max()) {
    return fmt::format("{} or more, and finite in float32", range.least);
  }
  if (above && below) {
    return fmt::format("from {} to {}", range.least, range.most);
  }
  if (above) {
    return fmt::format("{} or more", range.least);
  }
  return "";
}

namespace options_detail {

namespace {

template <typename Value>
[[noreturn]] void refuse(std::string_view operation, std::string_view name, Value value, const std::string& takes) {
  throw ValueError(fmt::format("{}: {} is {}, but must be {}", operation, name, value, takes));
}

}  // namespace

void refuse_number(std::string_view operation, std::string_view name, double value, const Range& range) {
  const std::string takes = to_string(range);
  const bool bounded = std::isfinite(range.most);
  refuse(operation, name, value, bounded ? takes : takes.empty() ? "finite" : takes + ", and finite");
}

void refuse_number(std::string_view operation, std::string_view name, int64_t value, const Range& range) {
  const bool two = std::isfinite(range.least) && range.most == range.least + 1;
  refuse(operation, name, value, two ? fmt::format("{} or {}", range.least, range.most) : to_string(range));
}

void refuse_word(std::string_view operation, std::string_view name, std::string_view word,
                 const std::vector<std::string>& choices) {
  std::vector<std::string> quoted;
  for (const std::string& choice : choices) {
    quoted.push_back(fmt::format("\"{}\"", choice));
  }
  const std::string last = quoted.back();
  quoted.pop_back();
  refuse(operation, name, fmt::format("\"{}\"", word),
         quoted.empty() ? last : fmt::format("{} or {}", fmt::join(quoted, ", "), last));
}

}  // namespace options_detail

}  // namespace hemostat
