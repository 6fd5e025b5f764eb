#include "partial_file.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <random>
#include <system_error>
#include <utility>

#include <fmt/format.h>

#include <hemostat/error.h>

namespace hemostat {

namespace fs = std::filesystem;

namespace {

constexpr int kMostLinks = 40;                  // as Linux has it
constexpr size_t kMostBytes = size_t{1} << 30;  // a single write() takes no more than 2 GiB

int open_directory(const fs::path& path, int links = 0) {
  return ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC | links);
}

// What killed processes left. Where directories cannot be locked, nobody can tell, and everything stays.
void remove_leftovers(const fs::path& where) {
  for (const std::string& name : names_in(where)) {
    if (!name.starts_with(kTemporary)) {
      continue;
    }
    const fs::path path = where / name;
    std::error_code error;
    const Descriptor directory(open_directory(path, O_NOFOLLOW));
    if (directory.number() >= 0 && ::flock(directory.number(), LOCK_EX | LOCK_NB) == 0) {
      fs::remove_all(path, error);
    }
  }
}

std::string random_name() { return fmt::format("{}{:08x}", kTemporary, std::random_device()()); }

}  // namespace

fs::path parent_of(const fs::path& path) { return path.has_parent_path() ? path.parent_path() : fs::path("."); }

void fail_save(const std::string& what, int error) {
  throw ValueError(fmt::format("hemostat.Model.save: {}: {}", what, std::strerror(error)));
}

Descriptor& Descriptor::operator=(Descriptor&& other) noexcept {
  std::swap(number_, other.number_);
  return *this;
}

Descriptor::~Descriptor() { close(); }

bool Descriptor::close() {
  const int number = std::exchange(number_, -1);
  return number < 0 || ::close(number) == 0;
}

fs::path save_target(const std::string& path) {
  if (path.empty()) {
    throw ValueError("hemostat.Model.save: path is empty");
  }
  std::error_code error;
  if (fs::is_directory(path, error)) {
    const fs::path target = fs::canonical(path, error);
    if (error) {
      fail_save(fmt::format("cannot find {}", path), error.value());
    }
    return target;
  }
  fs::path target = path;
  while (!target.has_filename() || target.filename() == ".") {
    target = target.parent_path();
  }
  for (int links = 0; fs::is_symlink(fs::symlink_status(target, error)); ++links) {
    if (links == kMostLinks) {
      fail_save(fmt::format("cannot write {}", path), ELOOP);
    }
    const fs::path named = fs::read_symlink(target, error);
    if (error) {
      fail_save(fmt::format("cannot read the link {}", target.string()), error.value());
    }
    target = target.parent_path() / named;
  }
  return target;
}

std::vector<std::string> names_in(const fs::path& directory) {
  std::vector<std::string> names;
  std::error_code error;
  for (fs::directory_iterator entry(directory, error), end; !error && entry != end; entry.increment(error)) {
    names.push_back(entry->path().filename().string());
  }
  if (error) {
    fail_save(fmt::format("cannot read {}", directory.string()), error.value());
  }
  std::sort(names.begin(), names.end());
  return names;
}

fs::path settled(const fs::path& path) {
  std::error_code error;
  const fs::path name = path.filename();
  const bool whole = name.empty() || name == "." || name == "..";
  const fs::path parent = fs::canonical(whole ? path : parent_of(path), error);
  return error ? fs::absolute(path) : whole ? parent : parent / name;
}

Parents::Parents(const fs::path& path) : Parents() {
  std::error_code error;
  std::vector<fs::path> missing;
  fs::path parent = parent_of(path);
  for (; !fs::exists(parent, error); parent = parent_of(parent)) {
    if (error || parent.filename() == "..") {
      fail_save(fmt::format("cannot write {}", path.string()), error ? error.value() : ENOENT);
    }
    missing.push_back(parent);
  }
  if (!fs::is_directory(parent, error)) {
    throw ValueError(
        fmt::format("hemostat.Model.save: cannot write {}: {} is not a directory", path.string(), parent.string()));
  }
  for (auto directory = missing.rbegin(); directory != missing.rend(); ++directory) {
    if (::mkdir(directory->c_str(), 0777) == 0) {
      made_.push_back(*directory);
    } else if (errno != EEXIST) {  // another process may have made it meanwhile
      fail_save(fmt::format("cannot create {}", directory->string()), errno);
    }
  }
}

Parents::~Parents() {
  for (auto directory = made_.rbegin(); directory != made_.rend(); ++directory) {
    ::rmdir(directory->c_str());  // fails where something else came into it
  }
}

TemporaryDirectory::TemporaryDirectory(const fs::path& where) {
  remove_leftovers(where);
  for (;;) {
    fs::path path = where / random_name();
    if (::mkdir(path.c_str(), 0777) != 0) {
      if (errno == EEXIST) {
        continue;
      }
      fail_save(fmt::format("cannot write in {}", where.string()), errno);
    }
    lock_ = Descriptor(open_directory(path));
    if (lock_.number() < 0) {
      const int error = errno;
      ::rmdir(path.c_str());
      fail_save(fmt::format("cannot open {}", path.string()), error);
    }
    if (::flock(lock_.number(), LOCK_EX | LOCK_NB) == 0 ? fs::exists(path) : errno != EWOULDBLOCK) {
      path_ = std::move(path);
      return;
    }  // else somebody who removes leftovers came first
  }
}

TemporaryDirectory::~TemporaryDirectory() {
  if (!path_.empty()) {
    std::error_code error;
    fs::remove_all(path_, error);
  }
}

void TemporaryDirectory::rename(const fs::path& target) {
  if (::rename(path_.c_str(), target.c_str()) != 0) {
    fail_save(fmt::format("cannot write {}", target.string()), errno);
  }
  path_.clear();
}

NewFile::NewFile(const fs::path& path, std::string name)
    : name_(std::move(name)), file_(::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666)) {
  if (file_.number() < 0) {
    fail();
  }
}

void NewFile::write(const void* data, size_t bytes) {
  const char* rest = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t written = ::write(file_.number(), rest, std::min(bytes, kMostBytes));
    if (written > 0) {
      rest += written;
      bytes -= static_cast<size_t>(written);
    } else if (written == 0 || errno != EINTR) {
      fail();
    }
  }
}

void NewFile::finish() {
  if (::fsync(file_.number()) != 0 || !file_.close()) {
    fail();
  }
}

void NewFile::fail() const { fail_save(fmt::format("cannot write {}", name_), errno); }

PartialFile::PartialFile(const fs::path& target)
    : target_(target),
      parents_(target),
      directory_(parent_of(target)),
      file_(directory_.path() / target.filename(), target.string()) {}

void PartialFile::finish() {
  file_.finish();
  if (::rename((directory_.path() / target_.filename()).c_str(), target_.c_str()) != 0) {
    fail_save(fmt::format("cannot write {}", target_.string()), errno);
  }
  parents_.keep();
  sync_directory(parent_of(target_));
}

void sync_directory(const fs::path& directory) {
  const Descriptor opened(open_directory(directory));
  if (opened.number() >= 0 && ::fsync(opened.number()) != 0 && errno != EINVAL && errno != ENOTSUP) {
    fail_save(fmt::format("cannot write {}", directory.string()), errno);
  }
}

Descriptor locked_directory(const fs::path& directory) {
  const int number = open_directory(directory);
  while (number >= 0 && ::flock(number, LOCK_EX) != 0 && errno == EINTR) {
  }
  return Descriptor(number);
}

}  // namespace hemostat
