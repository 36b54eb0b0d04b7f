// JPEG by libjpeg-turbo. libjpeg reports errors by longjmp. Each function that calls it keeps everything with a
// destructor in a struct owned by its caller, so that a jump skips no destructor.

// jpeglib.h needs FILE and size_t, jerror.h needs jpeglib.h.
// clang-format off
#include <cstdio>
#include <jpeglib.h>
#include <jerror.h>
// clang-format on

#include <csetjmp>
#include <cstddef>
#include <cstdlib>
#include <cstring>

#include "image/exif.h"
#include "image/format.h"

namespace octavo::image {
namespace {

/// A progressive file may hold any number of scans, each a pass over the whole picture; encoders write about ten.
constexpr int kMostScans = 100;
constexpr std::string_view kExifMark("Exif\0\0", 6);

struct Reader {
  jpeg_decompress_struct jpeg{};
  jpeg_error_mgr errors{};
  jpeg_progress_mgr progress{};
  std::jmp_buf jump{};
  char message[JMSG_LENGTH_MAX] = "unknown error";
  Image image;
  std::vector<std::uint8_t> inks;  // one row of CMYK
  ~Reader() { jpeg_destroy_decompress(&jpeg); }
};

Reader& reader_of(j_common_ptr jpeg) { return *static_cast<Reader*>(jpeg->client_data); }

[[noreturn]] void on_error(j_common_ptr jpeg) {
  Reader& reader = reader_of(jpeg);
  reader.errors.format_message(jpeg, reader.message);
  std::longjmp(reader.jump, 1);
}

/// Called for warnings (level -1) and traces. libjpeg fills what is missing with grey and goes on; we do not.
void on_message(j_common_ptr jpeg, int level) {
  if (level >= 0) return;
  switch (jpeg->err->msg_code) {
    case JWRN_JPEG_EOF:
    case JWRN_HIT_MARKER:
    case JWRN_HUFF_BAD_CODE:
    case JWRN_ARITH_BAD_CODE:
    case JWRN_MUST_RESYNC:
    case JWRN_NOT_SEQUENTIAL:
      on_error(jpeg);
    default:
      break;  // oddities that lose nothing: stray bytes between markers, an unknown Adobe transform
  }
}

void ignore_output(j_common_ptr) {}

void on_progress(j_common_ptr jpeg) {
  if (reinterpret_cast<j_decompress_ptr>(jpeg)->input_scan_number <= kMostScans) return;
  std::snprintf(reader_of(jpeg).message, JMSG_LENGTH_MAX, "more than %d scans", kMostScans);
  std::longjmp(reader_of(jpeg).jump, 1);
}

/// Everything before the first scan. False: `reader.message` says why.
bool read_markers(Reader& reader, Bytes bytes, bool keep_exif) {
  reader.jpeg.err = jpeg_std_error(&reader.errors);
  reader.errors.error_exit = on_error;
  reader.errors.emit_message = on_message;
  reader.errors.output_message = ignore_output;
  reader.jpeg.client_data = &reader;
  if (setjmp(reader.jump) != 0) return false;
  jpeg_create_decompress(&reader.jpeg);  // keeps err and client_data
  reader.progress.progress_monitor = on_progress;
  reader.jpeg.progress = &reader.progress;
  jpeg_mem_src(&reader.jpeg, bytes.data(), bytes.size());
  if (keep_exif) jpeg_save_markers(&reader.jpeg, JPEG_APP0 + 1, 0xFFFF);
  jpeg_read_header(&reader.jpeg, TRUE);
  return true;
}

/// Inks as Adobe's programs store them, inverted: 255 is none. A file without Adobe's marker is read the same way, as
/// Pillow does, because nothing else writes four inks. The rounding is Pillow's, too.
void rgb_from_inks(const std::uint8_t* inks, int width, std::uint8_t* rgb) {
  for (int x = 0; x < width; ++x) {
    const int light = inks[4 * x + 3];
    for (int c = 0; c < 3; ++c) {
      const int product = (255 - inks[4 * x + c]) * light + 128;
      rgb[3 * x + c] = static_cast<std::uint8_t>(light - ((product + (product >> 8)) >> 8));
    }
  }
}

bool read_pixels(Reader& reader) {
  if (setjmp(reader.jump) != 0) return false;
  const bool four_inks = reader.jpeg.num_components == 4;
  reader.jpeg.out_color_space = four_inks ? JCS_CMYK : JCS_RGB;
  jpeg_start_decompress(&reader.jpeg);
  reader.image.width = static_cast<int>(reader.jpeg.output_width);
  reader.image.height = static_cast<int>(reader.jpeg.output_height);
  reader.image.channels = 3;
  reader.image.pixels.resize(reader.image.byte_count());
  if (four_inks) reader.inks.resize(static_cast<std::size_t>(reader.image.width) * 4);
  const std::size_t stride = static_cast<std::size_t>(reader.image.width) * 3;
  while (reader.jpeg.output_scanline < reader.jpeg.output_height) {
    std::uint8_t* rgb = reader.image.pixels.data() + stride * reader.jpeg.output_scanline;
    JSAMPROW row = four_inks ? reader.inks.data() : rgb;
    jpeg_read_scanlines(&reader.jpeg, &row, 1);
    if (four_inks) rgb_from_inks(reader.inks.data(), reader.image.width, rgb);
  }
  jpeg_finish_decompress(&reader.jpeg);
  return true;
}

Status damaged(const std::string& subject, const Reader& reader) {
  return data_corruption(subject, fmt::format("is a JPEG that cannot be read: {}", reader.message));
}

bool matches(Bytes bytes) { return bytes.size() >= 3 && bytes[0] == 0xFF && bytes[1] == 0xD8 && bytes[2] == 0xFF; }

Result<StoredSize> read_size(Bytes bytes, const std::string& subject) {
  Reader reader;
  if (!read_markers(reader, bytes, false)) return damaged(subject, reader);
  return StoredSize{static_cast<int>(reader.jpeg.image_width), static_cast<int>(reader.jpeg.image_height)};
}

Metadata read_metadata(Bytes bytes) {
  Reader reader;
  if (!read_markers(reader, bytes, true)) return {};
  for (auto marker = reader.jpeg.marker_list; marker != nullptr; marker = marker->next) {
    const std::uint8_t* data = marker->data;
    if (marker->data_length < kExifMark.size() || std::memcmp(data, kExifMark.data(), kExifMark.size()) != 0) continue;
    return {.exif = {data + kExifMark.size(), data + marker->data_length}};
  }
  return {};
}

Result<Image> decode(Bytes bytes, const std::string& subject) {
  Reader reader;
  if (!read_markers(reader, bytes, false) || !read_pixels(reader)) return damaged(subject, reader);
  return std::move(reader.image);
}

// ---- encoding ----

struct Writer {
  jpeg_compress_struct jpeg{};
  jpeg_error_mgr errors{};
  std::jmp_buf jump{};
  char message[JMSG_LENGTH_MAX] = "unknown error";
  unsigned char* buffer = nullptr;  // libjpeg's, from malloc
  unsigned long size = 0;           // NOLINT: its type in libjpeg
  ~Writer() {
    jpeg_destroy_compress(&jpeg);
    std::free(buffer);
  }
};

[[noreturn]] void on_write_error(j_common_ptr jpeg) {
  auto& writer = *static_cast<Writer*>(jpeg->client_data);
  writer.errors.format_message(jpeg, writer.message);
  std::longjmp(writer.jump, 1);
}

bool write_all(Writer& writer, const Image& image, int quality, const std::vector<std::uint8_t>& exif) {
  writer.jpeg.err = jpeg_std_error(&writer.errors);
  writer.errors.error_exit = on_write_error;
  writer.errors.output_message = ignore_output;
  writer.jpeg.client_data = &writer;
  if (setjmp(writer.jump) != 0) return false;
  jpeg_create_compress(&writer.jpeg);
  jpeg_mem_dest(&writer.jpeg, &writer.buffer, &writer.size);
  writer.jpeg.image_width = static_cast<JDIMENSION>(image.width);
  writer.jpeg.image_height = static_cast<JDIMENSION>(image.height);
  writer.jpeg.input_components = image.channels;
  writer.jpeg.in_color_space = image.channels == 1 ? JCS_GRAYSCALE : JCS_RGB;
  jpeg_set_defaults(&writer.jpeg);
  jpeg_set_quality(&writer.jpeg, quality, TRUE);
  writer.jpeg.optimize_coding = TRUE;
  jpeg_start_compress(&writer.jpeg, TRUE);
  if (!exif.empty()) {
    jpeg_write_marker(&writer.jpeg, JPEG_APP0 + 1, exif.data(), static_cast<unsigned>(exif.size()));
  }
  const std::size_t stride = static_cast<std::size_t>(image.width) * static_cast<std::size_t>(image.channels);
  while (writer.jpeg.next_scanline < writer.jpeg.image_height) {
    // libjpeg's row type is not const, but it only reads rows it writes.
    JSAMPROW row = const_cast<JSAMPROW>(image.pixels.data() + stride * writer.jpeg.next_scanline);
    jpeg_write_scanlines(&writer.jpeg, &row, 1);
  }
  jpeg_finish_compress(&writer.jpeg);
  return true;
}

Result<std::vector<std::uint8_t>> encode(const Image& image, const EncodeOptions& options) {
  constexpr std::size_t kMostMarkerBytes = 65533;  // 16 bits, less the two that hold the length
  if (image.channels == 4)
    return invalid_argument("image", "JPEG holds no transparency: flatten it, or take PNG or WebP");
  if (image.width > JPEG_MAX_DIMENSION || image.height > JPEG_MAX_DIMENSION) {
    return invalid_argument("image", fmt::format("{}x{}: a JPEG has sides of at most {} pixels", image.width,
                                                 image.height, JPEG_MAX_DIMENSION));
  }
  std::vector<std::uint8_t> exif;
  if (!options.parameters.empty()) {
    exif.assign(kExifMark.begin(), kExifMark.end());
    const auto tiff = write_exif(options.parameters);
    exif.insert(exif.end(), tiff.begin(), tiff.end());
    if (exif.size() > kMostMarkerBytes) {
      return invalid_argument("parameters", fmt::format("{} bytes of EXIF, of which a JPEG holds {}: take PNG or WebP",
                                                        exif.size(), kMostMarkerBytes));
    }
  }
  Writer writer;
  if (!write_all(writer, image, options.quality.value_or(kDefaultQuality), exif)) {
    return internal_error("image", fmt::format("libjpeg: {}", writer.message));
  }
  return std::vector<std::uint8_t>(writer.buffer, writer.buffer + writer.size);
}

}  // namespace

const Format kJpegFormat{.name = "JPEG",
                         .extensions = {".jpg", ".jpeg"},
                         .lossy = true,
                         .matches = matches,
                         .read_size = read_size,
                         .read_metadata = read_metadata,
                         .decode = decode,
                         .encode = encode};

}  // namespace octavo::image
