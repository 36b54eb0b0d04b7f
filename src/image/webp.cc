// WebP by libwebp: lossy, lossless and with transparency.
#include <webp/decode.h>
#include <webp/demux.h>

#include <cstring>
#include <memory>

#include "image/format.h"

namespace octavo::image {
namespace {

constexpr std::string_view kExifMark("Exif\0\0", 6);  // belongs to JPEG, but some writers put it here, too

struct DeleteDemuxer {
  void operator()(WebPDemuxer* demuxer) const { WebPDemuxDelete(demuxer); }
};

Status damaged(const std::string& subject, VP8StatusCode status) {
  std::string_view reason = "it is damaged";
  if (status == VP8_STATUS_NOT_ENOUGH_DATA) reason = "the file is cut short";
  if (status == VP8_STATUS_UNSUPPORTED_FEATURE) reason = "it uses a feature that libwebp does not know";
  if (status == VP8_STATUS_OUT_OF_MEMORY) return resource_exhausted(subject, "out of memory");
  return data_corruption(subject, fmt::format("is a WebP that cannot be read: {}", reason));
}

Result<WebPBitstreamFeatures> read_features(Bytes bytes, const std::string& subject) {
  WebPBitstreamFeatures features{};
  const VP8StatusCode status = WebPGetFeatures(bytes.data(), bytes.size(), &features);
  if (status != VP8_STATUS_OK) return damaged(subject, status);
  if (features.has_animation != 0) {
    return invalid_argument(subject, "is an animated WebP: a still picture is needed");
  }
  return features;
}

bool matches(Bytes bytes) {
  return bytes.size() >= 12 && std::memcmp(bytes.data(), "RIFF", 4) == 0 &&
         std::memcmp(bytes.data() + 8, "WEBP", 4) == 0;
}

Result<StoredSize> read_size(Bytes bytes, const std::string& subject) {
  OCTAVO_ASSIGN_OR_RETURN(const WebPBitstreamFeatures features, read_features(bytes, subject));
  return StoredSize{features.width, features.height};
}

std::vector<std::uint8_t> read_exif(Bytes bytes) {
  const WebPData data{bytes.data(), bytes.size()};
  const std::unique_ptr<WebPDemuxer, DeleteDemuxer> demuxer(WebPDemux(&data));
  WebPChunkIterator chunk{};
  if (demuxer == nullptr || WebPDemuxGetChunk(demuxer.get(), "EXIF", 1, &chunk) == 0) return {};
  Bytes exif(chunk.chunk.bytes, chunk.chunk.size);
  WebPDemuxReleaseChunkIterator(&chunk);  // the bytes are the caller's
  if (exif.size() >= kExifMark.size() && std::memcmp(exif.data(), kExifMark.data(), kExifMark.size()) == 0) {
    exif = exif.subspan(kExifMark.size());
  }
  return {exif.begin(), exif.end()};
}

Result<Image> decode(Bytes bytes, const std::string& subject) {
  OCTAVO_ASSIGN_OR_RETURN(const WebPBitstreamFeatures features, read_features(bytes, subject));
  Image image{features.width, features.height, features.has_alpha != 0 ? 4 : 3, {}};
  image.pixels.resize(image.byte_count());
  const std::size_t size = image.pixels.size();
  WebPDecoderConfig config;
  if (WebPInitDecoderConfig(&config) == 0)
    return internal_error(subject, "libwebp is of another version than built for");
  config.output.colorspace = image.channels == 4 ? MODE_RGBA : MODE_RGB;
  config.output.is_external_memory = 1;
  config.output.u.RGBA = {image.pixels.data(), image.width * image.channels, size};
  const VP8StatusCode status = WebPDecode(bytes.data(), bytes.size(), &config);
  if (status != VP8_STATUS_OK) return damaged(subject, status);
  return image;
}

}  // namespace

const Format kWebpFormat{"WebP", matches, read_size, read_exif, decode};

}  // namespace octavo::image
