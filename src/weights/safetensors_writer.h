// SafetensorsWriter: a file written front to back, without holding a tensor: the header first, then bytes in the order
// of the listed tensors. For write_safetensors (safetensors.h), which has everything in memory, and for checkpoints
// that no memory could hold.
#pragma once

#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"
#include "tensor/tensor.h"

namespace octavo::weights {

/// What the header says of a tensor. `dtype` is the file's word ("BF16", "U8").
struct StreamedTensor {
  std::string name;
  std::string dtype;
  Shape shape;
  std::size_t byte_count() const;
};

/// "BF16" for kBF16.
std::string_view safetensors_word(DType dtype);

/// Bytes go to a temporary beside the path; finish() makes them the file. Destroyed before that, nothing remains. One
/// thread at a time.
class SafetensorsWriter {
 public:
  /// Writes the header. Names must differ and dtypes must be the format's words (checked). kResourceExhausted with the
  /// system's reason when the file cannot be written.
  static Result<std::unique_ptr<SafetensorsWriter>> create(const std::filesystem::path& path,
                                                           std::span<const StreamedTensor> tensors,
                                                           const std::map<std::string, std::string>& metadata = {});
  ~SafetensorsWriter();
  SafetensorsWriter(const SafetensorsWriter&) = delete;
  SafetensorsWriter& operator=(const SafetensorsWriter&) = delete;

  /// The next bytes of the tensors, in any portions. More bytes than the header promised are a programmer's error.
  Status append(std::span<const std::byte> bytes);
  /// Syncs and renames; every promised byte must have come (checked). The writer is of no use afterwards.
  Status finish();

 private:
  SafetensorsWriter() = default;
  Status failed(int reason) const;
  std::filesystem::path path_;
  std::filesystem::path temporary_;
  int descriptor_ = -1;
  bool temporary_exists_ = false;
  std::size_t promised_ = 0;  // bytes of tensors that have not come yet
};

}  // namespace octavo::weights
