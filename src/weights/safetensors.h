// safetensors files: mapped, checked to the last byte, never trusted.
//
// Layout (github.com/huggingface/safetensors): 8 bytes little-endian header length, a JSON object {name: {dtype,
// shape, data_offsets}}, optional "__metadata__" of strings, then the tensors without gaps.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "tensor/tensor.h"

namespace octavo::weights {

/// One tensor of a file. `dtype` is the file's own word ("BF16"): a header may hold types that no op reads.
struct TensorInfo {
  std::string dtype;
  Shape shape;
  std::size_t offset = 0;  // from the first byte after the header
  std::size_t byte_count = 0;
};

/// A read-only mapping. Safe from any thread. If another process shortens the file while it is mapped, reads fault;
/// replace checkpoints by renaming a new file over them.
class SafetensorsFile {
 public:
  /// kNotFound when there is no such file; kDataCorruption with one line that says what the file is instead (cut
  /// short, an HTML page, a git-LFS pointer, a pickle) or which tensor breaks which rule.
  static Result<std::shared_ptr<const SafetensorsFile>> open(const std::filesystem::path& path);
  /// Tensors that lie in memory instead, at their offsets from `memory`; they may share bytes. `name` stands for a path
  /// in messages.
  static std::shared_ptr<const SafetensorsFile> of_memory(const std::string& name,
                                                          std::shared_ptr<const std::byte> memory, std::size_t bytes,
                                                          std::map<std::string, TensorInfo, std::less<>> tensors,
                                                          std::map<std::string, std::string, std::less<>> metadata);
  ~SafetensorsFile();
  SafetensorsFile(const SafetensorsFile&) = delete;
  SafetensorsFile& operator=(const SafetensorsFile&) = delete;

  const std::filesystem::path& path() const { return path_; }
  const std::map<std::string, TensorInfo, std::less<>>& tensors() const { return tensors_; }
  const std::map<std::string, std::string, std::less<>>& metadata() const { return metadata_; }
  /// The tensor's bytes, alive as long as the file object.
  std::span<const std::byte> bytes(const TensorInfo& info) const;
  /// kInvalidArgument when the dtype is one that no op reads.
  Result<TensorView> view(const TensorInfo& info) const;
  std::size_t data_byte_count() const { return size_ - data_begin_; }
  /// Asks the system to read the whole file ahead; returns at once, and reading is right without it.
  void prefetch() const;
  /// The tensor will not be read again soon: its pages need not stay in this process. Reading it later is right.
  void release(const TensorInfo& info) const;

 private:
  SafetensorsFile() = default;
  Status parse();
  std::filesystem::path path_;
  std::shared_ptr<const std::byte> memory_;  // instead of a file
  const std::byte* mapping_ = nullptr;
  std::size_t size_ = 0;
  std::size_t data_begin_ = 0;
  std::map<std::string, TensorInfo, std::less<>> tensors_;
  std::map<std::string, std::string, std::less<>> metadata_;
};

/// Checks `bytes` as a whole file and fills the maps; what open() does after mapping, and what the fuzzer calls.
struct SafetensorsHeader {
  std::map<std::string, TensorInfo, std::less<>> tensors;
  std::map<std::string, std::string, std::less<>> metadata;
  std::size_t data_begin = 0;
};
Result<SafetensorsHeader> parse_safetensors(std::span<const std::byte> bytes, const std::string& subject);

/// The type behind a file's word ("BF16"), if ops know it.
std::optional<DType> readable_dtype(std::string_view word);
/// Asks the system to read mapped bytes ahead.
void prefetch(std::span<const std::byte> mapped);

/// The tensor to write under a name.
struct NamedTensor {
  std::string name;
  TensorView view;  // contiguous
};

/// Writes to a temporary beside `path`, syncs, renames: either the whole file is there or none of it. Names must differ
/// (checked). kResourceExhausted with the system's reason when it cannot be written.
Status write_safetensors(const std::filesystem::path& path, std::span<const NamedTensor> tensors,
                         const std::map<std::string, std::string>& metadata = {});

}  // namespace octavo::weights
