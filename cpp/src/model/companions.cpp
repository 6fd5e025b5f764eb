#include "companions.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <filesystem>
#include <set>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <hemostat/error.h>

#include "checkpoint_files.h"
#include "gguf/model.h"
#include "gguf/tokenizer.h"

namespace hemostat {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kLargest = int64_t{64} << 20;  // bytes; the largest tokenizer.json there is has about half

// What a tokenizer or a generator may read.
constexpr std::array kTokenizer = {
    "added_tokens.json", "chat_template.jinja",     "chat_template.json", "generation_config.json", "merges.txt",
    "tokenizer.json",    "special_tokens_map.json", "tokenizer.model",    "tokenizer_config.json",  "vocab.json",
};

// What only a file is called: a directory of such a name stands in the way of one.
bool is_files_name(const std::string& name) {
  static const std::set<std::string, std::less<>> kExtensions = {".jinja", ".json", ".model", ".txt"};
  return kExtensions.contains(fs::path(name).extension().string());
}

// Whether it describes the weights that stay behind, or is nothing of the model's.
bool stays(const std::string& name) {
  return name.starts_with(".") || name == kConfig || name == kAdapter || name == "__pycache__" || holds_tensors(name);
}

struct stat status_of(const fs::path& file) {
  struct stat status{};
  if (::stat(file.c_str(), &status) != 0) {
    const int reason = errno;
    std::error_code error;
    const fs::path link = fs::read_symlink(file, error);
    fail_save(fmt::format("cannot copy {}{}", file.string(), error ? "" : fmt::format(", a link to {}", link.string())),
              reason);
  }
  return status;
}

void copy(const fs::path& file, const std::string& name, PartialCheckpoint& checkpoint) {
  const auto fail = [&] { fail_save(fmt::format("cannot copy {}", file.string()), errno); };
  const Descriptor input(::open(file.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
  if (input.number() < 0) {
    fail();
  }
  NewFile output = checkpoint.file(name);
  std::vector<char> bytes(size_t{1} << 20);
  for (;;) {
    const ssize_t count = ::read(input.number(), bytes.data(), bytes.size());
    if (count > 0) {
      output.write(bytes.data(), static_cast<size_t>(count));
    } else if (count == 0) {
      break;
    } else if (errno != EINTR) {
      fail();
    }
  }
  output.finish();
}

// Those of a directory; the result names what was left there.
std::vector<std::string> copy_directory(const fs::path& source, const std::string& below,
                                        PartialCheckpoint& checkpoint) {
  std::vector<std::string> left;
  for (const std::string& entry : names_in(source / below)) {
    const std::string name = below + entry;
    if (stays(entry)) {
      continue;
    }
    const fs::path path = source / name;
    const struct stat status = status_of(path);
    if (S_ISREG(status.st_mode) && (status.st_size <= kLargest || entry.starts_with("tokenizer."))) {
      copy(path, name, checkpoint);
    } else if (S_ISDIR(status.st_mode) && name == kChatTemplates) {
      for (const std::string& inner : copy_directory(source, name + "/", checkpoint)) {
        left.push_back(inner);
      }
    } else if (!S_ISREG(status.st_mode) && is_files_name(entry)) {
      throw ValueError(fmt::format("hemostat.Model.save: cannot copy {}: it is {}, but must be a file", path.string(),
                                   S_ISDIR(status.st_mode) ? "a directory" : "a device, a pipe or a socket"));
    } else {
      left.push_back(name + (S_ISDIR(status.st_mode) ? "/" : ""));
    }
  }
  return left;
}

// A tokenizer's files that the directory holds already and nothing replaces.
std::vector<std::string> kept(const PartialCheckpoint& checkpoint) {
  std::vector<std::string> names;
  std::error_code error;
  std::copy_if(kTokenizer.begin(), kTokenizer.end(), std::back_inserter(names), [&](const char* name) {
    return !checkpoint.writes(name) && fs::exists(checkpoint.directory() / name, error);
  });
  return names;
}

}  // namespace

std::vector<std::string> copy_companions(const std::string& source, PartialCheckpoint& checkpoint) {
  std::error_code error;
  if (source.empty() || fs::equivalent(source, checkpoint.directory(), error)) {
    return {};
  }
  std::vector<std::string> notes;
  if (gguf::is_path(source) && fs::is_regular_file(source, error)) {
    const gguf::File file(source);
    if (const std::optional<std::string> tokenizer = gguf::tokenizer_json(file)) {
      checkpoint.write("tokenizer.json", *tokenizer);
      checkpoint.write("tokenizer_config.json", gguf::tokenizer_config_json(file));
    }
    for (const auto& [name, text] : gguf::chat_templates(file)) {
      checkpoint.write(fmt::format("{}/{}.jinja", kChatTemplates, name), text);
    }
  } else if (fs::is_directory(source, error)) {
    if (const auto left = copy_directory(source, "", checkpoint); !left.empty()) {
      notes.push_back(fmt::format("left behind in {}: {}", source, fmt::join(left, ", ")));
    }
  } else {
    notes.push_back(
        fmt::format("{}, where the model came from, is not there any more, and so its tokenizer is missing", source));
  }
  if (const auto stale = kept(checkpoint); !stale.empty()) {
    notes.push_back(fmt::format("kept beside the model, though not its own: {}", fmt::join(stale, ", ")));
  }
  return notes;
}

}  // namespace hemostat
