#include "weights/export/export.h"

#include <fcntl.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <fstream>
#include <future>
#include <thread>

#include "tensor/convert.h"
#include "tensor/float8.h"
#include "weights/weight_store.h"

namespace octavo::weights {
namespace fs = std::filesystem;
namespace {

constexpr std::int64_t kPortionElements = std::int64_t{4} << 20;  // 16 MiB of f32: what is made and written at a time
constexpr std::int64_t kLeastShare = 1 << 16;                     // elements for which another thread is worth starting
constexpr std::size_t kSpareBytes = 64 << 20;                     // left free on the disk; headers are within it

/// Runs `work(begin, count)` over [0, count) on all processors; the first failure of the shares, in their order. An
/// item is `elements` long.
template <typename Work>
Status in_shares(std::int64_t count, const Work& work, std::int64_t elements = 1) {
  const auto threads = static_cast<std::int64_t>(std::max(1u, std::thread::hardware_concurrency()));
  const std::int64_t most = std::min(count, threads);
  const std::int64_t shares =
      std::clamp<std::int64_t>(count * elements / kLeastShare, 1, std::max<std::int64_t>(most, 1));
  std::vector<Status> results(static_cast<std::size_t>(shares));
  std::vector<std::thread> running;
  const auto run = [&](std::int64_t share) {
    const std::int64_t begin = count * share / shares, end = count * (share + 1) / shares;
    results[static_cast<std::size_t>(share)] = work(begin, end - begin);
  };
  for (std::int64_t share = 1; share < shares; ++share) running.emplace_back(run, share);
  run(0);
  for (std::thread& thread : running) thread.join();
  for (const Status& result : results) OCTAVO_RETURN_IF_ERROR(result);
  return {};
}

/// Writes one file; a portion is made while the one before it goes to the disk.
class FileExport {
 public:
  FileExport(const TensorSource& source, const ExportPlan& plan, const ExportControl& control, std::size_t& done)
      : source_(source), control_(control), check_finite_(plan.check_finite), done_(done), total_(plan.byte_count()) {}

  Status run(const PlannedFile& file, const fs::path& path) {
    std::vector<StreamedTensor> header;
    for (const PlannedTensor& tensor : file.tensors) header.push_back(tensor.stored);
    OCTAVO_ASSIGN_OR_RETURN(writer_, SafetensorsWriter::create(path, header, file.metadata));
    Status status = put_tensors(file);
    if (pending_.valid()) {
      const Status last = pending_.get();
      if (status.ok()) status = last;
    }
    OCTAVO_RETURN_IF_ERROR(status);
    OCTAVO_RETURN_IF_ERROR(writer_->finish());
    return report();
  }

 private:
  Status put_tensors(const PlannedFile& file) {
    float dequant_scale = 1.0f;
    for (const PlannedTensor& tensor : file.tensors) {
      switch (tensor.kind) {
        case PlannedTensor::Kind::kValues:
          for (const Piece& piece : tensor.pieces) OCTAVO_RETURN_IF_ERROR(put_values(tensor, piece));
          break;
        case PlannedTensor::Kind::kScaledWeight: {
          OCTAVO_ASSIGN_OR_RETURN(const float largest, largest_magnitude(tensor));
          // An all-zero tensor, or one too small for its inverse to be a number, is stored as it is.
          const bool usable = std::isfinite(kE4M3Largest / largest);
          dequant_scale = usable ? largest / kE4M3Largest : 1.0f;
          const float inverse = usable ? kE4M3Largest / largest : 1.0f;
          for (const Piece& piece : tensor.pieces) OCTAVO_RETURN_IF_ERROR(put_scaled(piece, inverse));
          break;
        }
        case PlannedTensor::Kind::kScale:
          OCTAVO_RETURN_IF_ERROR(put_bytes(std::as_bytes(std::span(&dequant_scale, 1))));
          break;
        case PlannedTensor::Kind::kConstant:
          OCTAVO_RETURN_IF_ERROR(put_bytes(std::as_bytes(std::span(tensor.constant))));
          break;
        case PlannedTensor::Kind::kCodes:
          OCTAVO_RETURN_IF_ERROR(put_codes(tensor));
          break;
        case PlannedTensor::Kind::kCodeScales:
          OCTAVO_RETURN_IF_ERROR(put_bytes(std::as_bytes(std::span(scales_))));
          break;
        case PlannedTensor::Kind::kOutliers:
          OCTAVO_RETURN_IF_ERROR(put_bytes(std::as_bytes(std::span(outliers_))));
          break;
      }
      for (const Piece& piece : tensor.pieces) source_.release(piece.part, piece.tensor);
    }
    return {};
  }

  Status report() const {
    if (control_.on_progress && !control_.on_progress(done_, total_)) return cancelled("interrupted");
    return {};
  }

  /// Hands the filled buffer to the disk and gives the other one for the next portion.
  Status flush(std::size_t byte_count) {
    if (pending_.valid()) OCTAVO_RETURN_IF_ERROR(pending_.get());
    std::swap(filling_, writing_);
    pending_ = std::async(std::launch::async,
                          [this, byte_count] { return writer_->append(std::span(writing_).first(byte_count)); });
    done_ += byte_count;
    return report();
  }

  Status put_bytes(std::span<const std::byte> bytes) {
    filling_.assign(bytes.begin(), bytes.end());
    return flush(bytes.size());
  }

  Status put_values(const PlannedTensor& tensor, const Piece& piece) {
    const DType dtype = tensor.dtype;
    const std::size_t size = dtype_size(dtype);
    for (std::int64_t at = 0; at < piece.count; at += kPortionElements) {
      const std::int64_t portion = std::min(kPortionElements, piece.count - at);
      filling_.resize(static_cast<std::size_t>(portion) * size);
      OCTAVO_RETURN_IF_ERROR(in_shares(portion, [&](std::int64_t begin, std::int64_t count) {
        return source_.read(piece.part, piece.tensor, piece.begin + at + begin, count, dtype,
                            filling_.data() + static_cast<std::size_t>(begin) * size);
      }));
      if (check_finite_) {
        const TensorView written(static_cast<const void*>(filling_.data()), dtype, Shape{portion});
        if (const auto bad = first_not_finite(written)) {
          return data_corruption(tensor.stored.name,
                                 fmt::format("holds NaN or infinity, first at element {}", piece.begin + at + *bad));
        }
      }
      OCTAVO_RETURN_IF_ERROR(flush(filling_.size()));
    }
    return {};
  }

  Status put_scaled(const Piece& piece, float inverse_scale) {
    for (std::int64_t at = 0; at < piece.count; at += kPortionElements) {
      const std::int64_t portion = std::min(kPortionElements, piece.count - at);
      filling_.resize(static_cast<std::size_t>(portion));
      floats_.resize(static_cast<std::size_t>(portion));
      const auto encode = [&](std::int64_t begin, std::int64_t count) {
        float* values = floats_.data() + begin;
        const Status read = source_.read(piece.part, piece.tensor, piece.begin + at + begin, count, DType::kF32,
                                         reinterpret_cast<std::byte*>(values));
        for (std::int64_t i = 0; read.ok() && i < count; ++i) {
          filling_[static_cast<std::size_t>(begin + i)] =
              static_cast<std::byte>(to_float8_e4m3(values[i] * inverse_scale).bits);
        }
        return read;
      };
      OCTAVO_RETURN_IF_ERROR(in_shares(portion, encode));
      OCTAVO_RETURN_IF_ERROR(flush(filling_.size()));
    }
    return {};
  }

  /// Reads rows of a weight as f32 into floats_ and, with `keep_outliers`, its outlier columns into outliers_; there
  /// they are zero from then on, so that no scale and no code knows of them.
  Status read_rows(const PlannedTensor& tensor, std::int64_t first_row, std::int64_t row, std::int64_t count,
                   bool keep_outliers) {
    const std::int64_t inner = tensor.stored.shape[1];
    float* values = floats_.data() + row * inner;
    OCTAVO_RETURN_IF_ERROR(source_.read(tensor.pieces.front().part, tensor.pieces.front().tensor,
                                        (first_row + row) * inner, count * inner, DType::kF32,
                                        reinterpret_cast<std::byte*>(values)));
    const auto& columns = tensor.layer.outliers;
    for (std::int64_t i = 0; i < count; ++i) {
      for (std::size_t k = 0; k < columns.size(); ++k) {
        float& value = values[i * inner + columns[k]];
        if (!std::isfinite(value)) {
          return data_corruption(tensor.stored.name, fmt::format("is {} in row {}, column {}: it cannot be quantised",
                                                                 value, first_row + row + i, columns[k]));
        }
        if (keep_outliers) {
          outliers_[static_cast<std::size_t>(first_row + row + i) * columns.size() + k] = to_bfloat16(value);
        }
        value = 0;
      }
    }
    return {};
  }

  /// Codes of a weight, row by row, and its scales into scales_.
  Status put_codes(const PlannedTensor& tensor) {
    const std::int64_t rows = tensor.stored.shape[0], inner = tensor.stored.shape[1];
    const QuantizedLayer& layer = tensor.layer;
    const std::int64_t scales_a_row = layer.grain == ScaleGrain::kTensor ? 0
                                      : layer.grain == ScaleGrain::kRow  ? 1
                                                                         : (inner + kScaleBlock - 1) / kScaleBlock;
    scales_.assign(static_cast<std::size_t>(layer.grain == ScaleGrain::kTensor ? 1 : rows * scales_a_row), 0.0f);
    outliers_.assign(static_cast<std::size_t>(rows) * layer.outliers.size(), BFloat16{});
    const std::int64_t rows_a_portion = std::clamp<std::int64_t>(kPortionElements / inner, 1, rows);
    floats_.resize(static_cast<std::size_t>(rows_a_portion * inner));
    if (layer.grain == ScaleGrain::kTensor) {
      OCTAVO_ASSIGN_OR_RETURN(const float largest, largest_in_rows(tensor, rows_a_portion));
      scales_[0] = dequant_scale_of(largest, layer.format);
    }
    for (std::int64_t at = 0; at < rows; at += rows_a_portion) {
      const std::int64_t portion = std::min(rows_a_portion, rows - at);
      filling_.resize(static_cast<std::size_t>(portion * inner));
      const auto encode = [&](std::int64_t begin, std::int64_t count) {
        OCTAVO_RETURN_IF_ERROR(read_rows(tensor, at, begin, count, true));
        const TensorView values(static_cast<const void*>(floats_.data() + begin * inner), DType::kF32,
                                Shape{count, inner});
        const QuantizedView out{
            TensorView(static_cast<void*>(filling_.data() + begin * inner), layer.format, Shape{count, inner}),
            TensorView(static_cast<void*>(scales_.data() + (at + begin) * scales_a_row), DType::kF32,
                       scale_shape(layer.grain, count, inner)),
            layer.grain};
        if (layer.grain != ScaleGrain::kTensor) {
          return try_quantize_rows(values, out, tensor.stored.name, at + begin);
        }
        encode_rows(values, out);
        return Status();
      };
      OCTAVO_RETURN_IF_ERROR(in_shares(portion, encode, inner));
      OCTAVO_RETURN_IF_ERROR(flush(filling_.size()));
    }
    return {};
  }

  /// The largest magnitude outside the outlier columns.
  Result<float> largest_in_rows(const PlannedTensor& tensor, std::int64_t rows_a_portion) {
    const std::int64_t rows = tensor.stored.shape[0], inner = tensor.stored.shape[1];
    float largest = 0;
    std::vector<float> of_rows(static_cast<std::size_t>(rows_a_portion));
    for (std::int64_t at = 0; at < rows; at += rows_a_portion) {
      const std::int64_t portion = std::min(rows_a_portion, rows - at);
      const auto look = [&](std::int64_t begin, std::int64_t count) {
        OCTAVO_RETURN_IF_ERROR(read_rows(tensor, at, begin, count, false));
        for (std::int64_t row = begin; row < begin + count; ++row) {
          const float* values = floats_.data() + row * inner;
          const float amax =
              octavo::largest_magnitude(TensorView(static_cast<const void*>(values), DType::kF32, Shape{1, inner}));
          if (!std::isfinite(amax)) {
            const float* bad = std::find_if(values, values + inner, [](float one) { return !std::isfinite(one); });
            return data_corruption(tensor.stored.name, fmt::format("is {} in row {}, column {}: it cannot be quantised",
                                                                   *bad, at + row, bad - values));
          }
          of_rows[static_cast<std::size_t>(row)] = amax;
        }
        return Status();
      };
      OCTAVO_RETURN_IF_ERROR(in_shares(portion, look, inner));
      for (std::int64_t row = 0; row < portion; ++row)
        largest = std::max(largest, of_rows[static_cast<std::size_t>(row)]);
      OCTAVO_RETURN_IF_ERROR(report());
    }
    return largest;
  }

  Result<float> largest_magnitude(const PlannedTensor& tensor) {
    float largest = 0;
    for (const Piece& piece : tensor.pieces) {
      for (std::int64_t at = 0; at < piece.count; at += kPortionElements) {
        const std::int64_t portion = std::min(kPortionElements, piece.count - at);
        floats_.resize(static_cast<std::size_t>(portion));
        OCTAVO_RETURN_IF_ERROR(in_shares(portion, [&](std::int64_t begin, std::int64_t count) {
          return source_.read(piece.part, piece.tensor, piece.begin + at + begin, count, DType::kF32,
                              reinterpret_cast<std::byte*>(floats_.data() + begin));
        }));
        for (std::size_t i = 0; i < floats_.size(); ++i) {
          const float magnitude = std::fabs(floats_[i]);
          if (!std::isfinite(magnitude)) {
            return data_corruption(tensor.stored.name, "holds NaN or infinity, which no scale can hold");
          }
          largest = std::max(largest, magnitude);
        }
        OCTAVO_RETURN_IF_ERROR(report());
      }
    }
    return largest;
  }

  const TensorSource& source_;
  const ExportControl& control_;
  const bool check_finite_;
  std::size_t& done_;
  const std::size_t total_;
  std::unique_ptr<SafetensorsWriter> writer_;
  std::vector<std::byte> filling_, writing_;
  std::vector<float> floats_;
  std::vector<float> scales_;       // of the last kCodes
  std::vector<BFloat16> outliers_;  // of the last kCodes, [rows, columns]
  std::future<Status> pending_;     // the portion that goes to the disk; last, so that it ends before what it uses
};

/// A folder beside the final one, removed with all it holds unless it was given its name.
class TemporaryFolder {
 public:
  explicit TemporaryFolder(const fs::path& final_path)
      : final_(final_path), path_(fmt::format("{}.{}.partial", final_path.string(), ::getpid())) {}
  ~TemporaryFolder() {
    std::error_code ignored;
    if (!path_.empty()) fs::remove_all(path_, ignored);
  }
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  const fs::path& path() const { return path_; }
  Status give_name() {
    std::error_code error;
    fs::rename(path_, final_, error);
    if (error) return resource_exhausted(final_.string(), "cannot be written: " + error.message());
    path_.clear();
    return {};
  }

 private:
  fs::path final_;
  fs::path path_;
};

Status write_text_file(const fs::path& path, const std::string& text) {
  std::error_code error;
  fs::create_directories(path.parent_path(), error);
  std::ofstream file(path, std::ios::binary);
  file << text;
  file.close();
  if (error || !file.good()) return resource_exhausted(path.string(), "cannot be written");
  return {};
}

/// The files of one folder, none below it: a tokenizer.
Status copy_files(const fs::path& from, const fs::path& to) {
  std::error_code error;
  fs::create_directories(to, error);
  if (error) return resource_exhausted(to.string(), "cannot be written: " + error.message());
  for (const auto& entry : fs::directory_iterator(from, error)) {
    if (!entry.is_regular_file()) continue;
    fs::copy_file(entry.path(), to / entry.path().filename(), error);
    if (error) return resource_exhausted(entry.path().string(), "cannot be copied: " + error.message());
  }
  if (error) return failed_precondition(from.string(), "cannot be read: " + error.message());
  return {};
}

/// "folder/" names the folder.
fs::path without_slash(const fs::path& path) { return path.has_filename() ? path : path.parent_path(); }

fs::path parent_of(const fs::path& path) { return path.has_parent_path() ? path.parent_path() : fs::path("."); }

std::string gigabytes(std::uintmax_t bytes) { return fmt::format("{:.2f} GB", static_cast<double>(bytes) / 1e9); }

Status check_room(const fs::path& parent, const fs::path& out, std::size_t needed) {
  struct statvfs disk {};
  if (::statvfs(parent.c_str(), &disk) != 0) return {};  // unknown: writing will tell
  const std::uintmax_t available = static_cast<std::uintmax_t>(disk.f_bavail) * disk.f_frsize;
  if (needed + kSpareBytes <= available) return {};
  return resource_exhausted(out.string(),
                            fmt::format("needs {}, the disk has {} free", gigabytes(needed), gigabytes(available)));
}

}  // namespace

Status check_destination(const fs::path& out) {
  std::error_code error;
  const fs::path target = without_slash(out);
  if (fs::exists(fs::symlink_status(target, error))) {
    return failed_precondition(target.string(), "exists already; choose another name or remove it");
  }
  const fs::path parent = parent_of(target);
  if (!fs::is_directory(parent, error)) return not_found(parent.string(), "no such folder");
  return {};
}

Status export_checkpoint(const TensorSource& source, const ExportPlan& plan, const fs::path& out,
                         const ExportControl& control) {
  OCTAVO_RETURN_IF_ERROR(check_destination(out));
  std::error_code error;
  const fs::path target = without_slash(out), parent = parent_of(target);
  OCTAVO_RETURN_IF_ERROR(check_room(parent, target, plan.byte_count()));

  std::size_t done = 0;
  if (plan.files.size() == 1 && plan.files.front().path.empty()) {
    return FileExport(source, plan, control, done).run(plan.files.front(), target);
  }
  TemporaryFolder folder(target);
  fs::create_directory(folder.path(), error);
  if (error) return resource_exhausted(target.string(), "cannot be written: " + error.message());
  for (const auto& [path, text] : plan.texts) OCTAVO_RETURN_IF_ERROR(write_text_file(folder.path() / path, text));
  for (const auto& [from, name] : control.folders) {
    OCTAVO_RETURN_IF_ERROR(copy_files(from, folder.path() / name));
  }
  for (const PlannedFile& file : plan.files) {
    const fs::path path = folder.path() / file.path;
    fs::create_directories(path.parent_path(), error);
    OCTAVO_RETURN_IF_ERROR(FileExport(source, plan, control, done).run(file, path));
  }
  return folder.give_name();
}

}  // namespace octavo::weights
