#include "weights/safetensors.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <boost/json.hpp>
#include <cctype>
#include <cerrno>
#include <cstring>
#include <limits>
#include <optional>

#include "weights/safetensors_writer.h"

namespace octavo::weights {
namespace {

constexpr std::size_t kMaxHeaderBytes = 100'000'000;  // the format's own limit
constexpr std::size_t kPrefixBytes = 8;

/// Bytes of one element of a dtype in the file's words; 0 = unknown.
std::size_t stored_size(std::string_view dtype) {
  if (dtype == "F64" || dtype == "I64" || dtype == "U64") return 8;
  if (dtype == "F32" || dtype == "I32" || dtype == "U32") return 4;
  if (dtype == "F16" || dtype == "BF16" || dtype == "I16" || dtype == "U16") return 2;
  if (dtype == "F8_E4M3" || dtype == "F8_E5M2" || dtype == "I8" || dtype == "U8" || dtype == "BOOL") return 1;
  return 0;
}

bool starts_with(std::span<const std::byte> bytes, std::string_view text) {
  return bytes.size() >= text.size() && std::memcmp(bytes.data(), text.data(), text.size()) == 0;
}

/// What people save under this name by accident; "" when it is none of them. Only for bytes that are no safetensors
/// header: a header of 640 bytes starts as a pickle does.
std::string recognise_other_format(std::span<const std::byte> bytes) {
  if (bytes.empty()) return "the file is empty; download it again";
  if (starts_with(bytes, "version https://git-lfs")) {
    return "this is a git-LFS pointer, not the weights; fetch them with `git lfs pull`";
  }
  std::size_t blanks = 0;
  while (blanks < bytes.size() && std::isspace(static_cast<unsigned char>(bytes[blanks]))) ++blanks;
  const auto visible = bytes.subspan(blanks);
  if (starts_with(visible, "<!DOCTYPE") || starts_with(visible, "<!doctype") || starts_with(visible, "<html") ||
      starts_with(visible, "<HTML") || starts_with(visible, "<?xml")) {
    return "this is a web page saved under the name of the weights (a login or error page?); download it again";
  }
  if (starts_with(bytes, "PK\x03\x04") || starts_with(bytes, "\x80\x02") || starts_with(bytes, "\x80\x04")) {
    return "this is a PyTorch pickle (.ckpt, .pt, .bin), which can run code when loaded and is refused; convert it to "
           "safetensors";
  }
  if (starts_with(bytes, "GGUF")) return "this is a GGUF file; a safetensors file is needed";
  const auto is_text = [](std::byte byte) {
    const auto c = static_cast<unsigned char>(byte);
    return std::isprint(c) || std::isspace(c);
  };
  // The length of a header that is within the limit has four zero bytes.
  if (const auto first = bytes.first(std::min(bytes.size(), kPrefixBytes));
      std::all_of(first.begin(), first.end(), is_text)) {
    return "this is a text file, not weights (an error message saved under their name?)";
  }
  return {};
}

/// A non-negative integer of the header; JSON integers above 2^63 parse as unsigned.
std::optional<std::uint64_t> as_count(const boost::json::value& value) {
  if (value.is_uint64()) return value.get_uint64();
  if (value.is_int64() && value.get_int64() >= 0) return static_cast<std::uint64_t>(value.get_int64());
  return std::nullopt;
}

/// Members of all objects of a valid JSON text: its colons outside strings.
std::size_t written_members(std::string_view text) {
  std::size_t count = 0;
  bool in_string = false;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (in_string && text[i] == '\\') {
      ++i;
    } else if (text[i] == '"') {
      in_string = !in_string;
    } else if (text[i] == ':' && !in_string) {
      ++count;
    }
  }
  return count;
}

/// Members that the parser kept: fewer than written when a name appears twice, because the last one wins.
std::size_t kept_members(const boost::json::value& value) {
  std::size_t count = 0;
  if (value.is_object()) {
    count = value.get_object().size();
    for (const auto& member : value.get_object()) count += kept_members(member.value());
  } else if (value.is_array()) {
    for (const auto& element : value.get_array()) count += kept_members(element);
  }
  return count;
}

Result<TensorInfo> parse_tensor(const std::string& name, const boost::json::value& value, std::size_t data_bytes,
                                const std::string& subject) {
  const auto broken = [&](const std::string& why) { return data_corruption(subject, "tensor " + name + ": " + why); };
  if (!value.is_object()) return broken("its entry is not an object");
  const auto& entry = value.get_object();
  const auto* dtype = entry.if_contains("dtype");
  const auto* shape = entry.if_contains("shape");
  const auto* offsets = entry.if_contains("data_offsets");
  if (dtype == nullptr || !dtype->is_string() || shape == nullptr || !shape->is_array() || offsets == nullptr ||
      !offsets->is_array() || offsets->get_array().size() != 2) {
    return broken("needs dtype, shape and two data_offsets");
  }
  TensorInfo info;
  info.dtype = std::string(dtype->get_string());
  const std::size_t element_size = stored_size(info.dtype);
  if (element_size == 0) return broken("unknown dtype " + info.dtype);
  if (shape->get_array().size() > Shape::kMaxRank) {
    return broken(fmt::format("rank {} is over {}", shape->get_array().size(), Shape::kMaxRank));
  }
  std::uint64_t bytes = element_size;
  std::uint64_t widest = element_size;  // as if no extent were zero: strides must not overflow either
  for (const auto& extent_value : shape->get_array()) {
    const auto extent = as_count(extent_value);
    if (!extent || *extent > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max())) {
      return broken("a shape is made of non-negative integers");
    }
    const std::uint64_t factor = std::max<std::uint64_t>(*extent, 1);
    if (widest > static_cast<std::uint64_t>(std::numeric_limits<std::int64_t>::max()) / factor) {
      return broken("the shape overflows");
    }
    widest *= factor;
    bytes *= *extent;
    info.shape.append(static_cast<std::int64_t>(*extent));
  }
  const auto begin = as_count(offsets->get_array()[0]);
  const auto end = as_count(offsets->get_array()[1]);
  if (!begin || !end || *begin > *end) return broken("data_offsets are not [begin, end]");
  if (*end > data_bytes) {
    return broken(fmt::format("ends at byte {} of {}: the file is cut short; download it again", *end, data_bytes));
  }
  if (*end - *begin != bytes) {
    return broken(fmt::format("{} {} needs {} bytes, its data_offsets hold {}", info.dtype, info.shape.to_string(),
                              bytes, *end - *begin));
  }
  info.offset = *begin;
  info.byte_count = bytes;
  return info;
}

/// The tensors must tile the data: no overlap, no hole, nothing after the last.
Status check_layout(const std::map<std::string, TensorInfo, std::less<>>& tensors, std::size_t data_bytes,
                    const std::string& subject) {
  std::vector<std::pair<const std::string*, const TensorInfo*>> order;
  order.reserve(tensors.size());
  for (const auto& [name, info] : tensors) order.emplace_back(&name, &info);
  std::sort(order.begin(), order.end(), [](const auto& a, const auto& b) {
    return std::pair(a.second->offset, a.second->byte_count) < std::pair(b.second->offset, b.second->byte_count);
  });
  std::size_t expected = 0;
  for (const auto& [name, info] : order) {
    if (info->offset < expected) return data_corruption(subject, "tensor " + *name + " overlaps the one before it");
    if (info->offset > expected) {
      return data_corruption(subject, fmt::format("{} unused bytes before tensor {}", info->offset - expected, *name));
    }
    expected = info->offset + info->byte_count;
  }
  if (expected != data_bytes) {
    return data_corruption(subject, fmt::format("{} unused bytes after the last tensor", data_bytes - expected));
  }
  return {};
}

}  // namespace

Result<SafetensorsHeader> parse_safetensors(std::span<const std::byte> bytes, const std::string& subject) {
  std::uint64_t header_bytes = 0;
  if (bytes.size() >= kPrefixBytes) {
    for (std::size_t i = 0; i < kPrefixBytes; ++i) header_bytes |= static_cast<std::uint64_t>(bytes[i]) << (8 * i);
  }
  const bool plausible = bytes.size() > kPrefixBytes && header_bytes <= kMaxHeaderBytes &&
                         bytes[kPrefixBytes] == static_cast<std::byte>('{');
  if (!plausible) {
    if (const std::string other = recognise_other_format(bytes); !other.empty()) return data_corruption(subject, other);
    if (bytes.size() < kPrefixBytes + 2) {
      return data_corruption(subject, fmt::format("{} bytes are too few for a safetensors file", bytes.size()));
    }
    if (header_bytes > kMaxHeaderBytes) {
      return data_corruption(
          subject, fmt::format("not a safetensors file: a header of {} bytes is over the limit of {}", header_bytes,
                               kMaxHeaderBytes));
    }
    return data_corruption(subject, "not a safetensors file: the header is not a JSON object");
  }
  if (header_bytes > bytes.size() - kPrefixBytes) {
    return data_corruption(subject, fmt::format("the header has {} bytes, the file only {}: it is cut short; "
                                                "download it again",
                                                header_bytes, bytes.size()));
  }
  SafetensorsHeader header;
  header.data_begin = kPrefixBytes + static_cast<std::size_t>(header_bytes);
  const std::size_t data_bytes = bytes.size() - header.data_begin;
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()) + kPrefixBytes, header_bytes);

  boost::json::parse_options parse_options;
  parse_options.max_depth = 8;
  boost::json::monotonic_resource memory;
  boost::system::error_code error;
  boost::json::value parsed;
  try {
    parsed = boost::json::parse(text, error, &memory, parse_options);
  } catch (const std::exception& failure) {
    return data_corruption(subject, std::string("the header is not valid JSON: ") + failure.what());
  }
  if (error || !parsed.is_object()) {
    return data_corruption(subject, "the header is not valid JSON: " + (error ? error.message() : "not an object"));
  }
  if (written_members(text) != kept_members(parsed)) {
    return data_corruption(subject, "the header has one name twice in one object");
  }
  for (const auto& member : parsed.get_object()) {
    const std::string name(member.key());
    if (name == "__metadata__") {
      if (!member.value().is_object()) return data_corruption(subject, "__metadata__ is not an object");
      for (const auto& pair : member.value().get_object()) {
        if (!pair.value().is_string()) {
          return data_corruption(subject, "__metadata__ " + std::string(pair.key()) + " is not a string");
        }
        header.metadata.emplace(pair.key(), pair.value().get_string());
      }
      continue;
    }
    if (name.empty() ||
        std::any_of(name.begin(), name.end(), [](char c) { return std::iscntrl(static_cast<unsigned char>(c)); })) {
      return data_corruption(subject, "a tensor's name is empty or holds control characters");
    }
    OCTAVO_ASSIGN_OR_RETURN(TensorInfo info, parse_tensor(name, member.value(), data_bytes, subject));
    header.tensors.emplace(name, std::move(info));
  }
  OCTAVO_RETURN_IF_ERROR(check_layout(header.tensors, data_bytes, subject));
  return header;
}

Result<std::shared_ptr<const SafetensorsFile>> SafetensorsFile::open(const std::filesystem::path& path) {
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) {
    const int reason = errno;
    if (reason == ENOENT) return not_found(path.string(), "no such file");
    return failed_precondition(path.string(), std::string("cannot be opened: ") + std::strerror(reason));
  }
  std::shared_ptr<SafetensorsFile> file(new SafetensorsFile);
  file->path_ = path;
  struct stat status {};
  const bool regular = ::fstat(descriptor, &status) == 0 && S_ISREG(status.st_mode);
  void* mapping = MAP_FAILED;
  if (regular && status.st_size > 0) {
    mapping = ::mmap(nullptr, static_cast<std::size_t>(status.st_size), PROT_READ, MAP_PRIVATE, descriptor, 0);
  }
  const int reason = errno;
  ::close(descriptor);
  if (!regular) return data_corruption(path.string(), "is not a regular file");
  if (status.st_size > 0) {
    if (mapping == MAP_FAILED) {
      return resource_exhausted(path.string(), std::string("cannot be mapped: ") + std::strerror(reason));
    }
    file->mapping_ = static_cast<const std::byte*>(mapping);
    file->size_ = static_cast<std::size_t>(status.st_size);
  }
  OCTAVO_RETURN_IF_ERROR(file->parse());
  return std::shared_ptr<const SafetensorsFile>(std::move(file));
}

std::optional<DType> readable_dtype(std::string_view dtype) {
  if (dtype == "F32") return DType::kF32;
  if (dtype == "F16") return DType::kF16;
  if (dtype == "BF16") return DType::kBF16;
  if (dtype == "F8_E4M3") return DType::kE4M3;
  if (dtype == "F8_E5M2") return DType::kE5M2;
  if (dtype == "I8") return DType::kI8;
  if (dtype == "I32") return DType::kI32;
  return std::nullopt;
}

void prefetch(std::span<const std::byte> mapped) {
  if (mapped.empty()) return;
  const auto page = static_cast<std::uintptr_t>(::sysconf(_SC_PAGESIZE));
  const auto begin = reinterpret_cast<std::uintptr_t>(mapped.data()) / page * page;
  const auto end = reinterpret_cast<std::uintptr_t>(mapped.data()) + mapped.size();
  ::madvise(reinterpret_cast<void*>(begin), end - begin, MADV_WILLNEED);  // a hint: its failure changes nothing
}

Status SafetensorsFile::parse() {
  OCTAVO_ASSIGN_OR_RETURN(SafetensorsHeader header, parse_safetensors({mapping_, size_}, path_.string()));
  tensors_ = std::move(header.tensors);
  metadata_ = std::move(header.metadata);
  data_begin_ = header.data_begin;
  return {};
}

std::shared_ptr<const SafetensorsFile> SafetensorsFile::of_memory(
    const std::string& name, std::shared_ptr<const std::byte> memory, std::size_t bytes,
    std::map<std::string, TensorInfo, std::less<>> tensors, std::map<std::string, std::string, std::less<>> metadata) {
  for (const auto& [tensor, info] : tensors) {
    OCTAVO_CHECK(info.offset + info.byte_count <= bytes, "{} ends at byte {} of {}", tensor,
                 info.offset + info.byte_count, bytes);
  }
  std::shared_ptr<SafetensorsFile> file(new SafetensorsFile);
  file->path_ = name;
  file->mapping_ = memory.get();
  file->memory_ = std::move(memory);
  file->size_ = bytes;
  file->tensors_ = std::move(tensors);
  file->metadata_ = std::move(metadata);
  return file;
}

SafetensorsFile::~SafetensorsFile() {
  if (mapping_ != nullptr && memory_ == nullptr) ::munmap(const_cast<std::byte*>(mapping_), size_);
}

std::span<const std::byte> SafetensorsFile::bytes(const TensorInfo& info) const {
  return {mapping_ + data_begin_ + info.offset, info.byte_count};
}

void SafetensorsFile::prefetch() const {
  ::madvise(const_cast<std::byte*>(mapping_), size_, MADV_WILLNEED);  // a hint: its failure changes nothing
}

void SafetensorsFile::release(const TensorInfo& info) const {
  static const auto kPage = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  const std::size_t begin = (data_begin_ + info.offset + kPage - 1) / kPage * kPage;
  const std::size_t end = (data_begin_ + info.offset + info.byte_count) / kPage * kPage;
  if (begin < end) ::madvise(const_cast<std::byte*>(mapping_) + begin, end - begin, MADV_DONTNEED);
}

Result<TensorView> SafetensorsFile::view(const TensorInfo& info) const {
  const auto dtype = readable_dtype(info.dtype);
  if (!dtype) return invalid_argument(path_.string(), "dtype " + info.dtype + " is not one that a model can use");
  return TensorView(static_cast<const void*>(bytes(info).data()), *dtype, info.shape);
}

Status write_safetensors(const std::filesystem::path& path, std::span<const NamedTensor> tensors,
                         const std::map<std::string, std::string>& metadata) {
  std::vector<StreamedTensor> header;
  for (const NamedTensor& tensor : tensors) {
    OCTAVO_CHECK(tensor.view.contiguous(), "tensor {} is not contiguous", tensor.name);
    header.push_back({tensor.name, std::string(safetensors_word(tensor.view.dtype())), tensor.view.shape()});
  }
  OCTAVO_ASSIGN_OR_RETURN(const auto writer, SafetensorsWriter::create(path, header, metadata));
  for (const NamedTensor& tensor : tensors) {
    OCTAVO_RETURN_IF_ERROR(
        writer->append({static_cast<const std::byte*>(tensor.view.data()), tensor.view.byte_count()}));
  }
  return writer->finish();
}

}  // namespace octavo::weights
