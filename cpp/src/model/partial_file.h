// Files that appear whole or not at all. Until they are finished they lie in a temporary directory beside their place,
// on the same file system, and then a rename puts them there. What is there already is never opened for writing, so a
// process that has it mapped keeps it. ValueErrors name the file and the system's reason.
#pragma once

#include <cstddef>
#include <filesystem>
#include <string>
#include <utility>
#include <vector>

namespace hemostat {

// What the names of temporary directories begin with.
inline constexpr const char* kTemporary = ".hemostat-save-";

// "hemostat.Model.save: <what>: <the system's word for errno>"
[[noreturn]] void fail_save(const std::string& what, int error);

// An open file's number, closed at the end.
class Descriptor {
 public:
  explicit Descriptor(int number = -1) : number_(number) {}
  Descriptor(Descriptor&& other) noexcept : number_(std::exchange(other.number_, -1)) {}
  Descriptor& operator=(Descriptor&& other) noexcept;
  ~Descriptor();

  int number() const { return number_; }
  bool close();  // false, with errno: what was written may not have arrived

 private:
  int number_;
};

// Where a save to `path` goes, as the system understands it: links are followed, a last one also where what it names is
// still to be made, and slashes or dots at the end add nothing. The name that is left need not exist.
std::filesystem::path save_target(const std::string& path);

std::filesystem::path parent_of(const std::filesystem::path& path);  // "." of a name alone

std::vector<std::string> names_in(const std::filesystem::path& directory);  // sorted

// The path that does not depend on the working directory any more, its links before its last name followed.
std::filesystem::path settled(const std::filesystem::path& path);

// Makes the directories that `path` lies in, and removes those that it made unless keep() is called.
class Parents {
 public:
  explicit Parents(const std::filesystem::path& path);
  Parents(const Parents&) = delete;
  Parents& operator=(const Parents&) = delete;
  ~Parents();

  void keep() { made_.clear(); }

 private:
  Parents() = default;

  std::vector<std::filesystem::path> made_;  // outermost first
};

// A directory of its own in `where`, removed with what it holds unless it is renamed. Its lock says that its process
// lives; those that no process holds are removed first.
class TemporaryDirectory {
 public:
  explicit TemporaryDirectory(const std::filesystem::path& where);
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
  ~TemporaryDirectory();

  const std::filesystem::path& path() const { return path_; }
  void rename(const std::filesystem::path& target);

 private:
  std::filesystem::path path_;
  Descriptor lock_;
};

// A file that nobody else sees yet. Its permissions are the umask's; messages call it `name`.
class NewFile {
 public:
  NewFile(const std::filesystem::path& path, std::string name);

  void write(const void* data, size_t bytes);
  void write(const std::string& text) { write(text.data(), text.size()); }
  void finish();  // it is on the disk

 private:
  [[noreturn]] void fail() const;

  std::string name_;
  Descriptor file_;
};

// The file at `target`, which save_target() gave, replaced by finish().
class PartialFile {
 public:
  explicit PartialFile(const std::filesystem::path& target);

  void write(const void* data, size_t bytes) { file_.write(data, bytes); }
  void finish();

 private:
  std::filesystem::path target_;
  Parents parents_;
  TemporaryDirectory directory_;
  NewFile file_;
};

// A rename's, an unlink's and the like's effect on the disk, where the file system can be asked for it.
void sync_directory(const std::filesystem::path& directory);

// Waits until no other process holds the directory, where the file system has such locks. Held while the result lives.
Descriptor locked_directory(const std::filesystem::path& directory);

}  // namespace hemostat
