// libpng reports errors by longjmp. Each function that calls it keeps everything with a destructor in a struct owned
// by its caller, so that a jump skips no destructor.
#include "image/png.h"

#include <png.h>

#include <csetjmp>
#include <cstring>

#include "base/utf8.h"
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
  bool too_large = false;
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

bool read_header(Reader& reader, std::size_t max_pixels) {
  if (setjmp(png_jmpbuf(reader.png)) != 0) return false;
  png_set_read_fn(reader.png, &reader, take);
  png_set_user_limits(reader.png, 1 << 16, 1 << 16);
  png_set_chunk_malloc_max(reader.png, 8 << 20);  // one text chunk, inflated
  png_set_chunk_cache_max(reader.png, 64);
  png_read_info(reader.png, reader.info);
  const std::size_t width = png_get_image_width(reader.png, reader.info);
  const std::size_t height = png_get_image_height(reader.png, reader.info);
  if (width * height > max_pixels) {
    reader.too_large = true;
    return false;
  }
  png_set_expand(reader.png);  // palettes, fewer than 8 bits, transparency chunks
  png_set_scale_16(reader.png);
  if (png_get_color_type(reader.png, reader.info) == PNG_COLOR_TYPE_GRAY_ALPHA) png_set_gray_to_rgb(reader.png);
  png_set_interlace_handling(reader.png);
  png_read_update_info(reader.png, reader.info);
  reader.image.width = static_cast<int>(width);
  reader.image.height = static_cast<int>(height);
  reader.image.channels = png_get_channels(reader.png, reader.info);
  return true;
}

bool read_pixels(Reader& reader) {
  if (setjmp(png_jmpbuf(reader.png)) != 0) return false;
  png_read_image(reader.png, reader.rows.data());
  png_read_end(reader.png, reader.info);
  return true;
}

std::vector<PngText> collect_texts(Reader& reader) {
  std::vector<PngText> texts;
  png_textp chunks = nullptr;
  int count = 0;
  png_get_text(reader.png, reader.info, &chunks, &count);
  for (int i = 0; i < count; ++i) {
    const png_text& chunk = chunks[i];
    const bool utf8 = chunk.compression >= PNG_ITXT_COMPRESSION_NONE;
    const std::string content(chunk.text, utf8 ? chunk.itxt_length : chunk.text_length);
    if (utf8 && !is_valid_utf8(content)) continue;  // a broken comment does not spoil the picture
    texts.push_back({utf8_from_latin1(chunk.key), utf8 ? content : utf8_from_latin1(content)});
  }
  return texts;
}

void point_rows_into(Image& image, std::vector<png_bytep>& rows) {
  const std::size_t stride = static_cast<std::size_t>(image.width) * static_cast<std::size_t>(image.channels);
  for (int y = 0; y < image.height; ++y) rows.push_back(image.pixels.data() + stride * static_cast<std::size_t>(y));
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
  Reader reader;
  reader.bytes = bytes;
  reader.png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &reader.error, on_error, ignore_warning);
  if (reader.png != nullptr) reader.info = png_create_info_struct(reader.png);
  if (reader.info == nullptr) return resource_exhausted("png", "out of memory");
  if (!read_header(reader, max_pixels)) {
    if (reader.too_large) return resource_exhausted("png", fmt::format("has more than {} pixels", max_pixels));
    return data_corruption("png", reader.error.message);
  }
  reader.image.pixels.resize(reader.image.byte_count());
  point_rows_into(reader.image, reader.rows);
  if (!read_pixels(reader)) return data_corruption("png", reader.error.message);
  DecodedPng decoded;
  decoded.texts = collect_texts(reader);
  decoded.image = std::move(reader.image);
  return decoded;
}

}  // namespace octavo::image
