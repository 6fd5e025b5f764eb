#include "partial_checkpoint.h"

#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <fstream>
#include <iterator>
#include <set>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <hemostat/error.h>

#include "checkpoint_files.h"
#include "config.h"
#include "json.h"

namespace hemostat {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr const char* kSaved = ".hemostat-saved";  // no temporary name: nobody takes it for a leftover
constexpr const char* kList = ".names";

std::optional<std::string> text_of(const fs::path& path) {
  std::error_code error;
  if (!fs::is_regular_file(path, error)) {
    return std::nullopt;
  }
  std::ifstream file(path, std::ios::binary);
  std::string text{std::istreambuf_iterator<char>(file), {}};
  return file.bad() || !file.is_open() ? std::nullopt : std::optional(std::move(text));
}

[[noreturn]] void refuse(const fs::path& directory, const std::string& what) {
  throw ValueError(fmt::format("hemostat.Model.save: {} {}; save to another directory", directory.string(), what));
}

// An existing directory is empty, or holds a checkpoint that a save may replace.
void check_replaceable(const fs::path& directory, bool any_model) {
  const std::vector<std::string> names = names_in(directory);
  if (std::all_of(names.begin(), names.end(), [](const auto& name) { return name.starts_with(kTemporary); })) {
    return;
  }
  const std::optional<std::string> text = text_of(directory / kConfig);
  if (!text) {
    refuse(directory, fmt::format("holds files that are not a checkpoint (it has no {} that can be read)", kConfig));
  }
  std::string type;
  try {
    type = parse_object(*text, kConfig).at("model_type").get<std::string>();
  } catch (const std::exception&) {
    refuse(directory,
           fmt::format("is not a checkpoint of a language model: its {} is no JSON with a model_type", kConfig));
  }
  if (!any_model && !is_model_type(type)) {
    refuse(directory, fmt::format("is not a checkpoint of a model that hemostat reads: its {} has model_type '{}'",
                                  kConfig, type));
  }
  if (fs::exists(directory / kAdapter)) {
    refuse(directory, fmt::format("has an {}, which transformers would load in place of the saved weights", kAdapter));
  }
}

// Weights in `directory` that would contradict the written files: what is named as such, and what an index names.
std::set<std::string> contradicting(const fs::path& directory, const std::vector<std::string>& written) {
  std::set<std::string> names;
  const auto add = [&](const std::string& name) {
    if (fs::path(name).filename() == name && fs::exists(fs::symlink_status(directory / name)) &&
        !fs::is_directory(directory / name) && std::find(written.begin(), written.end(), name) == written.end()) {
      names.insert(name);
    }
  };
  for (const std::string& name : names_in(directory)) {
    if (holds_weights(name)) {
      add(name);
    }
  }
  for (const char* index : {kIndex, "pytorch_model.bin.index.json"}) {
    try {
      const json parts = parse_object(text_of(directory / index).value_or("{}"), index).value("weight_map", json());
      for (const json& part : parts) {
        const auto name = part.get<std::string>();
        if (name.ends_with(".safetensors") || name.ends_with(".bin")) {
          add(name);
        }
      }
    } catch (const std::exception&) {  // an index that nobody can read names nothing
    }
  }
  return names;
}

// Whether a save into it replaces files of a directory that exists.
bool replaces(const fs::path& directory, bool any_model) {
  std::error_code error;
  const fs::file_status status = fs::status(directory, error);
  if (status.type() == fs::file_type::none) {
    fail_save(fmt::format("cannot write {}", directory.string()), error.value());
  }
  if (!fs::exists(status)) {
    return false;
  }
  if (!fs::is_directory(status)) {
    throw ValueError(fmt::format("hemostat.Model.save: {} exists and is not a directory", directory.string()));
  }
  complete_interrupted_save(directory);
  check_replaceable(directory, any_model);
  return true;
}

bool same_file(const fs::path& x, const fs::path& y) {
  std::error_code error;
  return fs::is_regular_file(y, error) && fs::file_size(x, error) == fs::file_size(y, error) &&
         text_of(x) == text_of(y);
}

void make_folder(const fs::path& path) {
  if (::mkdir(path.c_str(), 0777) != 0 && errno != EEXIST) {
    fail_save(fmt::format("cannot create {}", path.string()), errno);
  }
}

void remove_file(const fs::path& path) {
  if (::unlink(path.c_str()) != 0 && errno != ENOENT) {
    fail_save(fmt::format("cannot remove {}", path.string()), errno);
  }
}

void move_file(const fs::path& from, const fs::path& to) {
  if (::rename(from.c_str(), to.c_str()) != 0 && (errno != ENOENT || fs::exists(from))) {
    fail_save(fmt::format("cannot write {}", to.string()), errno);
  }
}

// What the list in kSaved holds: names, each ended by a zero, of files to put in their places, an empty one, and names
// of files to remove.
struct Names {
  std::vector<std::string> written, removed;

  std::string text() const {
    std::string text;
    for (const std::vector<std::string>* names : {&written, &removed}) {
      for (const std::string& name : *names) {
        text.append(name).push_back('\0');
      }
      text.push_back('\0');
    }
    return text;
  }

  // Anybody may have written it: it names files in the directory, or in its chat templates'.
  static Names of(const std::string& text) {
    Names names;
    std::vector<std::string>* list = &names.written;
    for (size_t begin = 0, end; (end = text.find('\0', begin)) != std::string::npos; begin = end + 1) {
      const fs::path path(text.substr(begin, end - begin)), folder = path.parent_path(), file = path.filename();
      if (path.empty()) {
        list = &names.removed;
      } else if (file.empty() || file == "." || file == ".." || !(folder.empty() || folder == kChatTemplates)) {
        throw ValueError(fmt::format("hemostat.Model.save: {} names '{}'", kList, path.string()));
      } else {
        list->push_back(path.string());
      }
    }
    return names;
  }
};

// Steps 2 to 4, from wherever a killed process had come; the directory is locked.
void complete(const fs::path& directory) {
  const fs::path saved = directory / kSaved;
  if (const std::optional<std::string> text = text_of(saved / kList)) {
    const auto [written, removed] = Names::of(*text);
    const bool reloaded = std::find(written.begin(), written.end(), kConfig) != written.end();
    if (reloaded && fs::exists(saved / kConfig)) {
      remove_file(directory / kConfig);
    }
    for (const std::string& name : written) {
      if (name != kConfig) {
        if (const fs::path folder = fs::path(name).parent_path(); !folder.empty()) {
          make_folder(directory / folder);
        }
        move_file(saved / name, directory / name);
      }
    }
    for (const std::string& name : removed) {
      remove_file(directory / name);
    }
    if (reloaded) {
      move_file(saved / kConfig, directory / kConfig);
    }
    sync_directory(directory);
    remove_file(saved / kList);
  }
  std::error_code error;
  fs::remove_all(saved, error);
}

}  // namespace

PartialCheckpoint::PartialCheckpoint(const std::string& path, Replaces what)
    : directory_(save_target(path)),
      exists_(replaces(directory_, what == Replaces::any_model)),
      parents_(directory_),
      temporary_(exists_ ? directory_ : parent_of(directory_)) {}

NewFile PartialCheckpoint::file(const std::string& name) {
  const fs::path there = directory_ / name, folder = fs::path(name).parent_path();
  std::error_code error;
  if (fs::is_directory(there, error)) {
    throw ValueError(fmt::format("hemostat.Model.save: {} is a directory, but must be a file", there.string()));
  }
  if (!folder.empty()) {
    const fs::file_status status = fs::symlink_status(directory_ / folder, error);
    if (fs::exists(status) && !fs::is_directory(status)) {
      throw ValueError(
          fmt::format("hemostat.Model.save: {} must be a directory of its own", (directory_ / folder).string()));
    }
    make_folder(temporary_.path() / folder);
  }
  written_.push_back(name);
  return NewFile(temporary_.path() / name, there.string());
}

void PartialCheckpoint::write(const std::string& name, const std::string& text) {
  NewFile output = file(name);
  output.write(text);
  output.finish();
}

void PartialCheckpoint::add(const std::function<void(const fs::path& directory)>& written) {
  const fs::path scratch = temporary_.path() / ".written";
  make_folder(scratch);
  written(scratch);
  for (const std::string& name : names_in(scratch)) {
    if (!writes(name)) {
      file(name).finish();  // checks the place
      move_file(scratch / name, temporary_.path() / name);
    }
  }
  fs::remove_all(scratch);
}

bool PartialCheckpoint::writes(const std::string& name) const {
  return std::find(written_.begin(), written_.end(), name) != written_.end();
}

void PartialCheckpoint::finish() {
  if (exists_) {
    replace_files();
  } else {
    sync_directory(temporary_.path());
    temporary_.rename(directory_);
    parents_.keep();
    sync_directory(parent_of(directory_));
  }
}

void PartialCheckpoint::replace_files() {
  const Descriptor lock = locked_directory(directory_);
  complete(directory_);
  const std::set<std::string> removed = contradicting(directory_, written_);
  const bool only_tensors =
      !removed.contains(kStructure) && std::all_of(written_.begin(), written_.end(), [&](const std::string& name) {
        return name == kTensors || same_file(temporary_.path() / name, directory_ / name);
      });
  if (only_tensors) {
    written_ = {kTensors};
  }
  NewFile list(temporary_.path() / kList, (directory_ / kSaved / kList).string());
  list.write(Names{written_, {removed.begin(), removed.end()}}.text());
  list.finish();
  sync_directory(temporary_.path());
  const fs::path saved = directory_ / kSaved;
  temporary_.rename(saved);
  sync_directory(directory_);
  try {
    complete(directory_);
  } catch (const ValueError&) {
    // What stopped the first step stops the whole save: nothing is changed yet.
    const bool untouched =
        (only_tensors || fs::exists(directory_ / kConfig)) &&
        std::all_of(written_.begin(), written_.end(), [&](const auto& name) { return fs::exists(saved / name); });
    std::error_code error;
    if (untouched && fs::remove(saved / kList, error)) {
      fs::remove_all(saved, error);
    }
    throw;
  }
}

void complete_interrupted_save(const fs::path& directory) {
  std::error_code error;
  if (!fs::is_directory(fs::symlink_status(directory / kSaved, error))) {
    return;
  }
  const Descriptor lock = locked_directory(directory);
  try {
    complete(directory);
  } catch (const std::exception& reason) {
    throw ValueError(
        fmt::format("hemostat: {} holds a save that was cut short, and what is left of it cannot be done "
                    "({}); its files are in {}",
                    directory.string(), reason.what(), kSaved));
  }
}

}  // namespace hemostat
