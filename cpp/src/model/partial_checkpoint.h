// A checkpoint's directory, changed by a save whole or not at all.
//
// A directory that does not exist yet is written under another name and renamed. In one that does, only what the save
// writes is replaced, and only what holds_weights() is removed. All new files are written to a temporary directory in
// it first. Then
//
//   1. the temporary directory is renamed to kSaved: from here on the save is done, and the rest follows from what is
//      in it (a list of names, and the files);
//   2. config.json is removed, unless nothing but model.safetensors changes: every loader refuses what comes between;
//   3. the files are renamed to their places, weights of other forms removed, and config.json renamed last;
//   4. kSaved is removed.
//
// A process killed before 1 leaves the old model, after 3 the new one. Between them complete_interrupted_save(), which
// every load and save begins with, does the rest. Where only model.safetensors changes, one rename of one file
// separates old from new for every other reader, too.
#pragma once

#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "partial_file.h"

namespace hemostat {

class PartialCheckpoint {
 public:
  enum class Replaces { model_of_a_family, any_model };

  // ValueError for what is no directory, or holds files without being a checkpoint of such a model.
  explicit PartialCheckpoint(const std::string& path, Replaces replaces = Replaces::model_of_a_family);

  const std::filesystem::path& directory() const { return directory_; }  // where it will be
  NewFile file(const std::string& name);  // one of its files, to be written and finished; name may begin with "folder/"
  void write(const std::string& name, const std::string& text);
  // Files that somebody else writes into a directory; of those that have been asked for already, none.
  void add(const std::function<void(const std::filesystem::path& directory)>& written);
  bool writes(const std::string& name) const;  // it has been asked for
  void finish();

 private:
  void replace_files();

  std::filesystem::path directory_;
  bool exists_;
  Parents parents_;
  TemporaryDirectory temporary_;
  std::vector<std::string> written_;
};

// Where a save was killed between its renames, does those that are left. ValueError where it cannot.
void complete_interrupted_save(const std::filesystem::path& directory);

}  // namespace hemostat
