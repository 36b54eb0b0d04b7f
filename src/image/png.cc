// libpng reports errors by longjmp. Each function that calls it keeps everything with a destructor in a struct owned
// by its caller, so that a jump skips no destructor.
#include "image/png.h"

#include <png.h>

#include <csetjmp>
#include <cstring>

#include "base/utf8.h"
#include "image/format.h"
#include "image/latin1.h"

namespace octavo::image {
namespace {

struct ErrorText {
  char message[160] = "unknown error";
};

[[noreturn]] void on_error(png_structp png, png_const_charp message) {
  auto* error = static_cast<ErrorText*>(png_get_error_ptr(png));
  std::strncpy(error->message, message, sizeof(error->message) - 1);
  png_longjmp(png, 1);
}

void ignore_warning(png_structp, png_const_charp) {}

// ---- encoding ----

struct Writer {
  ErrorText error;
  std::vector<std::uint8_t> bytes;
  std::vector<std::string> contents;  // as stored in the file; png_text points into it
  std::vector<png_text> chunks;
  std::vector<png_bytep> rows;
  bool out_of_memory = false;
  png_structp png = nullptr;
  png_infop info = nullptr;
  ~Writer() { png_destroy_write_struct(&png, &info); }
};

void append(png_structp png, png_bytep data, png_size_t size) {
  auto* writer = static_cast<Writer*>(png_get_io_ptr(png));
  try {
    writer->bytes.insert(writer->bytes.end(), data, data + size);
  } catch (const std::bad_alloc&) {
    writer->out_of_memory = true;
  }
  // Outside the handler: a longjmp out of one would leave its exception alive.
  if (writer->out_of_memory) png_error(png, "out of memory");
}

void flush_nothing(png_structp) {}

bool write_all(Writer& writer, const Image& image, int level) {
  if (setjmp(png_jmpbuf(writer.png)) != 0) return false;
  png_set_write_fn(writer.png, &writer, append, flush_nothing);
  const int colour = image.channels == 1   ? PNG_COLOR_TYPE_GRAY
                     : image.channels == 3 ? PNG_COLOR_TYPE_RGB
                                           : PNG_COLOR_TYPE_RGB_ALPHA;
  png_set_IHDR(writer.png, writer.info, static_cast<png_uint_32>(image.width), static_cast<png_uint_32>(image.height),
               8, colour, PNG_INTERLACE_NONE, PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
  png_set_compression_level(writer.png, level);
  png_set_filter(writer.png, PNG_FILTER_TYPE_BASE, PNG_ALL_FILTERS);
  if (!writer.chunks.empty()) {
    png_set_text(writer.png, writer.info, writer.chunks.data(), static_cast<int>(writer.chunks.size()));
  }
  png_write_info(writer.png, writer.info);
  png_write_image(writer.png, writer.rows.data());
  png_write_end(writer.png, nullptr);
  return true;
}

Status prepare_texts(std::span<const PngText> texts, Writer& writer) {
  writer.contents.reserve(texts.size());
  for (const PngText& text : texts) {
    OCTAVO_CHECK(!text.keyword.empty() && text.keyword.size() <= 79, "a PNG keyword has 1 to 79 characters");
    if (!is_valid_utf8(text.text)) return invalid_argument(text.keyword, "is not valid UTF-8");
    if (text.text.find('\0') != std::string::npos) return invalid_argument(text.keyword, "contains a NUL byte");
    std::optional<std::string> latin1 = latin1_from_utf8(text.text);
    const bool fits = latin1.has_value();
    writer.contents.push_back(fits ? *latin1 : text.text);
    png_text chunk{};
    chunk.compression = fits ? PNG_TEXT_COMPRESSION_NONE : PNG_ITXT_COMPRESSION_NONE;
    chunk.key = const_cast<char*>(text.keyword.c_str());  // libpng copies it
    chunk.text = writer.contents.back().data();
    if (fits) {
      chunk.text_length = writer.contents.back().size();
    } else {
      chunk.itxt_length = writer.contents.back().size();
    }
    writer.chunks.push_back(chunk);
  }
  return {};
}

// ---- decoding ----

struct Reader {
  ErrorText error;
  std::span<const std::uint8_t> bytes;
  std::size_t at = 0;
  Image image;
  std::vector<png_bytep> rows;
  png_structp png = nullptr;
  png_infop info = nullptr;
  ~Reader() { png_destroy_read_struct(&png, &info, nullptr); }
};

void take(png_structp png, png_bytep out, png_size_t size) {
  auto* reader = static_cast<Reader*>(png_get_io_ptr(png));
  if (size > reader->bytes.size() - reader->at) png_error(png, "file ends too early");
  std::memcpy(out, reader->bytes.data() + reader->at, size);
  reader->at += size;
}

constexpr std::string_view kParametersKeyword = "parameters";
constexpr std::uint8_t kSignature[] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1A, '\n'};

bool matches(Bytes bytes) {
  return bytes.size() >= sizeof(kSignature) && std::memcmp(bytes.data(), kSignature, sizeof(kSignature)) == 0;
}

/// From IHDR, which is the first chunk and has a fixed place; libpng checks the rest of it.
Result<StoredSize> read_size(Bytes bytes, const std::string& subject) {
  constexpr std::size_t kTypeAt = 12, kWidthAt = 16, kHeightAt = 20, kHeaderEnd = 33;
  if (!matches(bytes)) return data_corruption(subject, "is not a PNG");
  if (bytes.size() < kHeaderEnd) return data_corruption(subject, "is a PNG that cannot be read: file ends too early");
  if (std::memcmp(bytes.data() + kTypeAt, "IHDR", 4) != 0) {
    return data_corruption(subject, "is a PNG that cannot be read: it does not begin with IHDR");
  }
  const png_uint_32 width = png_get_uint_32(bytes.data() + kWidthAt);
  const png_uint_32 height = png_get_uint_32(bytes.data() + kHeightAt);
  if (width == 0 || height == 0 || width > PNG_UINT_31_MAX || height > PNG_UINT_31_MAX) {
    return data_corruption(subject, fmt::format("is a PNG that cannot be read: its size is {}x{}", width, height));
  }
  return StoredSize{static_cast<int>(width), static_cast<int>(height)};
}

bool read_info(Reader& reader) {
  if (setjmp(png_jmpbuf(reader.png)) != 0) return false;
  png_set_read_fn(reader.png, &reader, take);
  png_set_user_limits(reader.png, PNG_UINT_31_MAX, PNG_UINT_31_MAX);  // the caller's own limits are tighter
  // All but IHDR, PLTE, tRNS, IDAT and IEND is skipped: nothing else changes the pixels, and texts may be bombs.
  png_set_keep_unknown_chunks(reader.png, PNG_HANDLE_CHUNK_NEVER, nullptr, -1);
  png_read_info(reader.png, reader.info);
  png_set_expand(reader.png);  // palettes, fewer than 8 bits, transparency chunks
  png_set_scale_16(reader.png);
  if ((png_get_color_type(reader.png, reader.info) & PNG_COLOR_MASK_COLOR) == 0 &&
      (png_get_color_type(reader.png, reader.info) == PNG_COLOR_TYPE_GRAY_ALPHA ||
       png_get_valid(reader.png, reader.info, PNG_INFO_tRNS) != 0)) {
    png_set_gray_to_rgb(reader.png);
  }
  png_set_interlace_handling(reader.png);
  png_read_update_info(reader.png, reader.info);
  reader.image.width = static_cast<int>(png_get_image_width(reader.png, reader.info));
  reader.image.height = static_cast<int>(png_get_image_height(reader.png, reader.info));
  reader.image.channels = png_get_channels(reader.png, reader.info);
  return true;
}

bool read_pixels(Reader& reader) {
  if (setjmp(png_jmpbuf(reader.png)) != 0) return false;
  png_read_image(reader.png, reader.rows.data());
  png_read_end(reader.png, reader.info);
  return true;
}

void point_rows_into(Image& image, std::vector<png_bytep>& rows) {
  const std::size_t stride = static_cast<std::size_t>(image.width) * static_cast<std::size_t>(image.channels);
  for (int y = 0; y < image.height; ++y) rows.push_back(image.pixels.data() + stride * static_cast<std::size_t>(y));
}

/// Grey, RGB or RGBA.
Result<Image> decode_pixels(Bytes bytes, const std::string& subject) {
  Reader reader;
  reader.bytes = bytes;
  reader.png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &reader.error, on_error, ignore_warning);
  if (reader.png != nullptr) reader.info = png_create_info_struct(reader.png);
  if (reader.info == nullptr) return resource_exhausted(subject, "out of memory");
  const auto damaged = [&] {
    return data_corruption(subject, fmt::format("is a PNG that cannot be read: {}", reader.error.message));
  };
  if (!read_info(reader)) return damaged();
  reader.image.pixels.resize(reader.image.byte_count());
  point_rows_into(reader.image, reader.rows);
  if (!read_pixels(reader)) return damaged();
  return std::move(reader.image);
}

Metadata read_metadata(Bytes bytes) {
  const Bytes exif = find_png_exif(bytes);
  Metadata metadata{{exif.begin(), exif.end()}, {}};
  for (PngText& text : read_png_texts(bytes)) {
    if (text.keyword != kParametersKeyword) continue;
    metadata.parameters = std::move(text.text);
    break;
  }
  return metadata;
}

Result<Image> decode(Bytes bytes, const std::string& subject) {
  OCTAVO_ASSIGN_OR_RETURN(Image image, decode_pixels(bytes, subject));
  return image.channels == 1 ? rgb_from_grey(image) : std::move(image);
}

Result<std::vector<std::uint8_t>> encode(const Image& image, const EncodeOptions& options) {
  if (options.parameters.empty()) return encode_png(image);
  const std::vector<PngText> texts = {{std::string(kParametersKeyword), options.parameters}};
  return encode_png(image, texts);
}

}  // namespace

Result<std::vector<std::uint8_t>> encode_png(const Image& image, std::span<const PngText> texts,
                                             const PngOptions& options) {
  OCTAVO_CHECK(image.width > 0 && image.height > 0 && image.pixels.size() == image.byte_count(),
               "a {}x{}x{} picture with {} bytes", image.width, image.height, image.channels, image.pixels.size());
  OCTAVO_CHECK(image.channels == 1 || image.channels == 3 || image.channels == 4, "{} channels", image.channels);
  Writer writer;
  OCTAVO_RETURN_IF_ERROR(prepare_texts(texts, writer));
  writer.bytes.reserve(image.byte_count() / 2);
  const std::size_t stride = static_cast<std::size_t>(image.width) * static_cast<std::size_t>(image.channels);
  for (int y = 0; y < image.height; ++y) {
    // libpng's row type is not const, but it only reads rows it writes.
    writer.rows.push_back(const_cast<png_bytep>(image.pixels.data() + stride * static_cast<std::size_t>(y)));
  }
  writer.png = png_create_write_struct(PNG_LIBPNG_VER_STRING, &writer.error, on_error, ignore_warning);
  if (writer.png != nullptr) writer.info = png_create_info_struct(writer.png);
  if (writer.info == nullptr) return resource_exhausted("png", "out of memory");
  if (!write_all(writer, image, options.compression_level)) {
    if (writer.out_of_memory) return resource_exhausted("png", "out of memory");
    return internal_error("png", writer.error.message);
  }
  return std::move(writer.bytes);
}

Result<DecodedPng> decode_png(std::span<const std::uint8_t> bytes, std::size_t max_pixels) {
  OCTAVO_ASSIGN_OR_RETURN(const StoredSize size, read_size(bytes, "png"));
  if (static_cast<std::size_t>(size.width) * static_cast<std::size_t>(size.height) > max_pixels) {
    return resource_exhausted("png", fmt::format("has more than {} pixels", max_pixels));
  }
  DecodedPng decoded;
  OCTAVO_ASSIGN_OR_RETURN(decoded.image, decode_pixels(bytes, "png"));
  decoded.texts = read_png_texts(bytes);
  return decoded;
}

const Format kPngFormat{.name = "PNG",
                        .extensions = {".png"},
                        .lossless = true,
                        .matches = matches,
                        .read_size = read_size,
                        .read_metadata = read_metadata,
                        .decode = decode,
                        .encode = encode};

}  // namespace octavo::image
