// Any bytes as a picture: decode() gives a whole picture or one line that says why not, the header tells its size, the
// parameters are UTF-8, and what was decoded survives being written and read again.
#include <cstdint>
#include <cstdlib>
#include <span>
#include <string>
#include <vector>

#include "base/utf8.h"
#include "image/codec.h"
#include "image/exif.h"
#include "image/mask.h"

namespace {

void require(bool condition) {
  if (!condition) std::abort();
}

void check_refusal(const octavo::Status& status) {
  require(!status.message().empty() && status.message().find('\n') == std::string::npos);
  require(status.code() != octavo::ErrorCode::kInternal);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace octavo;
  const std::span bytes(data, size);
  const image::DecodeLimits limits{.max_file_bytes = 1 << 20, .max_pixels = 1 << 16, .max_side = 4096};

  const image::Exif exif = image::parse_exif(bytes);
  require(exif.orientation >= 1 && exif.orientation <= 8 && is_valid_utf8(exif.user_comment));

  const auto parameters = image::read_parameters(bytes, "fuzz", limits);
  const auto header = image::read_header(bytes, "fuzz", limits);
  require(parameters.ok() == header.ok());
  const auto picture = image::decode(bytes, "fuzz", limits);
  if (!header.ok()) {
    check_refusal(header.status());
    require(!picture.ok());
    return 0;
  }
  require(is_valid_utf8(*parameters));
  if (!picture.ok()) {
    check_refusal(picture.status());
    return 0;
  }
  require(picture->width == header->width && picture->height == header->height);
  require((picture->channels == 3 || picture->channels == 4) && picture->pixels.size() == picture->byte_count());
  if (picture->pixels.size() > 1 << 12) return 0;

  const image::Image opaque = image::has_transparency(*picture) ? *picture : image::flatten(*picture, {0, 0, 0});
  // A PNG's text cannot hold NUL, and a mark of byte order at its beginning is not taken for text.
  const bool text = parameters->find('\0') == std::string::npos && parameters->rfind("\xEF\xBB\xBF", 0) != 0 &&
                    parameters->rfind("\xEF\xBF\xBE", 0) != 0;
  for (const char* format : {"PNG", "WebP"}) {
    const image::EncodeOptions options{.lossless = true, .parameters = text ? *parameters : ""};
    const auto written = image::encode(*picture, format, options);
    require(written.ok());
    const auto again = image::decode(*written, "again", limits);
    // WebP does not keep an alpha that hides nothing.
    const image::Image& expected = again.ok() && again->channels == 3 ? opaque : *picture;
    require(again.ok() && again->pixels == expected.pixels);
    require(*image::read_parameters(*written, "again", limits) == options.parameters);
  }
  return 0;
}
