#include "quantize/compare/run_files.h"

#include <cstdint>

namespace octavo::quantize {
namespace {

template <typename T>
void put(std::ofstream& file, const T& value) {
  file.write(reinterpret_cast<const char*>(&value), sizeof value);
}

template <typename T>
void put_all(std::ofstream& file, const T* values, std::size_t count) {
  put(file, static_cast<std::uint64_t>(count));
  file.write(reinterpret_cast<const char*>(values), static_cast<std::streamsize>(count * sizeof(T)));
}

template <typename T>
bool get(std::ifstream& file, T& value) {
  return static_cast<bool>(file.read(reinterpret_cast<char*>(&value), sizeof value));
}

template <typename T>
bool get_all(std::ifstream& file, std::vector<T>& values) {
  std::uint64_t count = 0;
  if (!get(file, count)) return false;
  const auto at = file.tellg();
  file.seekg(0, std::ios::end);
  const auto left = static_cast<std::uint64_t>(file.tellg() - at);
  file.seekg(at);
  if (count > left / sizeof(T)) return false;
  values.resize(count);
  return static_cast<bool>(
      file.read(reinterpret_cast<char*>(values.data()), static_cast<std::streamsize>(count * sizeof(T))));
}

Status close(std::ofstream& file, const std::filesystem::path& path) {
  file.close();
  if (file.good()) return {};
  return resource_exhausted(path.string(), "cannot be written; is the disk full?");
}

Status unreadable(const std::filesystem::path& path) {
  return data_corruption(path.string(), "is not what was written: something else has changed it");
}

}  // namespace

void CallWriter::add(int step, float sigma, const TensorView& latents, const TensorView& velocity) {
  put(file_, step);
  put(file_, sigma);
  put_all(file_, latents.f32(), static_cast<std::size_t>(latents.element_count()));
  put_all(file_, velocity.f32(), static_cast<std::size_t>(velocity.element_count()));
}

Status CallWriter::finish() { return close(file_, path_); }

Result<std::vector<AnsweredCall>> read_calls(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::vector<AnsweredCall> calls;
  for (;;) {
    AnsweredCall one;
    if (!get(file, one.call.step)) break;
    if (!get(file, one.call.sigma) || !get_all(file, one.call.latents) || !get_all(file, one.velocity)) {
      return unreadable(path);
    }
    calls.push_back(std::move(one));
  }
  if (calls.empty()) return unreadable(path);
  return calls;
}

Status write_floats(const std::filesystem::path& path, const std::vector<std::vector<float>>& rows) {
  std::ofstream file(path, std::ios::binary);
  for (const std::vector<float>& row : rows) put_all(file, row.data(), row.size());
  return close(file, path);
}

Result<std::vector<std::vector<float>>> read_floats(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::vector<std::vector<float>> rows;
  while (file.peek() != std::ifstream::traits_type::eof()) {
    if (!get_all(file, rows.emplace_back())) return unreadable(path);
  }
  if (rows.empty()) return unreadable(path);
  return rows;
}

Status write_end(const std::filesystem::path& path, const RunEnd& end) {
  std::ofstream file(path, std::ios::binary);
  put_all(file, end.latents.data(), end.latents.size());
  put(file, end.picture.width);
  put(file, end.picture.height);
  put(file, end.picture.channels);
  put_all(file, end.picture.pixels.data(), end.picture.pixels.size());
  return close(file, path);
}

Result<RunEnd> read_end(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  RunEnd end;
  if (!get_all(file, end.latents) || !get(file, end.picture.width) || !get(file, end.picture.height) ||
      !get(file, end.picture.channels) || !get_all(file, end.picture.pixels) ||
      end.picture.pixels.size() != end.picture.byte_count()) {
    return unreadable(path);
  }
  return end;
}

Status write_errors(const std::filesystem::path& path, const FloorErrors& errors) {
  std::ofstream file(path, std::ios::binary);
  for (const auto* calls : {&errors.floor, &errors.against_a}) put_all(file, calls->data(), calls->size());
  return close(file, path);
}

Result<FloorErrors> read_errors(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  FloorErrors errors;
  if (!get_all(file, errors.floor) || !get_all(file, errors.against_a)) return unreadable(path);
  return errors;
}

}  // namespace octavo::quantize
