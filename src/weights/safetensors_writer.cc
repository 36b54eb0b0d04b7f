#include "weights/safetensors_writer.h"

#include <fcntl.h>
#include <unistd.h>

#include <boost/json.hpp>
#include <cerrno>
#include <cstring>

namespace octavo::weights {
namespace {

std::size_t element_size(std::string_view word) {
  if (word == "F64" || word == "I64" || word == "U64") return 8;
  if (word == "F32" || word == "I32" || word == "U32") return 4;
  if (word == "F16" || word == "BF16" || word == "I16" || word == "U16") return 2;
  if (word == "F8_E4M3" || word == "F8_E5M2" || word == "I8" || word == "U8" || word == "BOOL") return 1;
  return 0;
}

/// All of it, or errno's value.
int write_all(int descriptor, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t written = ::write(descriptor, bytes.data(), bytes.size());
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return written < 0 ? errno : ENOSPC;
    bytes = bytes.subspan(static_cast<std::size_t>(written));
  }
  return 0;
}

}  // namespace

std::size_t StreamedTensor::byte_count() const {
  return static_cast<std::size_t>(shape.element_count()) * element_size(dtype);
}

std::string_view safetensors_word(DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return "F32";
    case DType::kF16:
      return "F16";
    case DType::kBF16:
      return "BF16";
    case DType::kE4M3:
      return "F8_E4M3";
    case DType::kE5M2:
      return "F8_E5M2";
    case DType::kI8:
      return "I8";
    case DType::kI32:
      return "I32";
  }
  return "";
}

Result<std::unique_ptr<SafetensorsWriter>> SafetensorsWriter::create(
    const std::filesystem::path& path, std::span<const StreamedTensor> tensors,
    const std::map<std::string, std::string>& metadata) {
  boost::json::object header;
  if (!metadata.empty()) {
    boost::json::object words;
    for (const auto& [key, value] : metadata) words[key] = value;
    header["__metadata__"] = std::move(words);
  }
  std::size_t offset = 0;
  for (const StreamedTensor& tensor : tensors) {
    OCTAVO_CHECK(element_size(tensor.dtype) > 0, "tensor {} has the dtype '{}'", tensor.name, tensor.dtype);
    OCTAVO_CHECK(!header.contains(tensor.name), "tensor {} is written twice", tensor.name);
    boost::json::array shape;
    for (int axis = 0; axis < tensor.shape.rank(); ++axis) shape.emplace_back(tensor.shape[axis]);
    const std::size_t end = offset + tensor.byte_count();
    header[tensor.name] = {{"dtype", tensor.dtype}, {"shape", std::move(shape)}, {"data_offsets", {offset, end}}};
    offset = end;
  }
  std::string text(8, '\0');
  text += boost::json::serialize(header);
  text.resize((text.size() + 7) / 8 * 8, ' ');  // tensors start at a multiple of eight, as other writers do
  for (std::size_t i = 0; i < 8; ++i) {
    text[i] = static_cast<char>(static_cast<unsigned char>((text.size() - 8) >> (8 * i)));
  }

  std::unique_ptr<SafetensorsWriter> writer(new SafetensorsWriter);
  writer->path_ = path;
  writer->temporary_ = fmt::format("{}.{}.partial", path.string(), ::getpid());
  writer->promised_ = offset;
  writer->descriptor_ = ::open(writer->temporary_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (writer->descriptor_ < 0) return writer->failed(errno);
  writer->temporary_exists_ = true;
  if (const int reason = write_all(writer->descriptor_, std::as_bytes(std::span(text))); reason != 0) {
    return writer->failed(reason);
  }
  return writer;
}

SafetensorsWriter::~SafetensorsWriter() {
  if (descriptor_ >= 0) ::close(descriptor_);
  if (temporary_exists_) ::unlink(temporary_.c_str());
}

Status SafetensorsWriter::failed(int reason) const {
  return resource_exhausted(path_.string(), std::string("cannot be written: ") + std::strerror(reason));
}

Status SafetensorsWriter::append(std::span<const std::byte> bytes) {
  OCTAVO_CHECK(bytes.size() <= promised_, "{} bytes for a file that expects {} more", bytes.size(), promised_);
  promised_ -= bytes.size();
  if (const int reason = write_all(descriptor_, bytes); reason != 0) return failed(reason);
  return {};
}

Status SafetensorsWriter::finish() {
  OCTAVO_CHECK(promised_ == 0, "{} bytes of the promised tensors are missing", promised_);
  if (::fsync(descriptor_) != 0) return failed(errno);
  const int closed = ::close(descriptor_);
  descriptor_ = -1;
  if (closed != 0) return failed(errno);
  if (::rename(temporary_.c_str(), path_.c_str()) != 0) return failed(errno);
  temporary_exists_ = false;
  return {};
}

}  // namespace octavo::weights
