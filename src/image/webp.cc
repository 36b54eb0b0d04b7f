// WebP by libwebp: lossy, lossless and with transparency.
#include <webp/decode.h>
#include <webp/demux.h>
#include <webp/encode.h>
#include <webp/mux.h>

#include <cstring>
#include <memory>

#include "image/exif.h"
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

Metadata read_metadata(Bytes bytes) {
  const WebPData data{bytes.data(), bytes.size()};
  const std::unique_ptr<WebPDemuxer, DeleteDemuxer> demuxer(WebPDemux(&data));
  WebPChunkIterator chunk{};
  if (demuxer == nullptr || WebPDemuxGetChunk(demuxer.get(), "EXIF", 1, &chunk) == 0) return {};
  Bytes exif(chunk.chunk.bytes, chunk.chunk.size);
  WebPDemuxReleaseChunkIterator(&chunk);  // the bytes are the caller's
  if (exif.size() >= kExifMark.size() && std::memcmp(exif.data(), kExifMark.data(), kExifMark.size()) == 0) {
    exif = exif.subspan(kExifMark.size());
  }
  return {.exif = {exif.begin(), exif.end()}};
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

// ---- encoding ----

struct Writer {
  WebPPicture picture{};
  WebPMemoryWriter memory{};
  WebPMux* mux = nullptr;
  WebPData assembled{};
  ~Writer() {
    WebPPictureFree(&picture);
    WebPMemoryWriterClear(&memory);
    WebPMuxDelete(mux);
    WebPDataClear(&assembled);
  }
};

/// The compressed picture goes to writer.memory.
Status compress(Writer& writer, const Image& image, const EncodeOptions& options) {
  constexpr int kLosslessEffort = 6;  // of 0 to 9, as cwebp's default
  WebPConfig config;
  bool good = WebPConfigInit(&config) != 0 && WebPPictureInit(&writer.picture) != 0;
  if (options.lossless) {
    good = good && WebPConfigLosslessPreset(&config, kLosslessEffort) != 0;
    config.exact = 1;  // the colour under what is transparent, too
  } else {
    config.quality = static_cast<float>(options.quality.value_or(kDefaultQuality));
  }
  if (!good) return internal_error("image", "libwebp is of another version than built for");
  writer.picture.use_argb = options.lossless ? 1 : 0;
  writer.picture.width = image.width;
  writer.picture.height = image.height;
  WebPMemoryWriterInit(&writer.memory);
  writer.picture.writer = WebPMemoryWrite;
  writer.picture.custom_ptr = &writer.memory;
  const int stride = image.width * image.channels;
  const auto import = image.channels == 4 ? WebPPictureImportRGBA : WebPPictureImportRGB;
  if (import(&writer.picture, image.pixels.data(), stride) == 0) return resource_exhausted("image", "out of memory");
  if (WebPEncode(&config, &writer.picture) == 0) {
    return internal_error("image", fmt::format("libwebp: error {}", static_cast<int>(writer.picture.error_code)));
  }
  return {};
}

Result<std::vector<std::uint8_t>> encode(const Image& image, const EncodeOptions& options) {
  if (image.width > WEBP_MAX_DIMENSION || image.height > WEBP_MAX_DIMENSION) {
    return invalid_argument("image", fmt::format("{}x{}: a WebP has sides of at most {} pixels", image.width,
                                                 image.height, WEBP_MAX_DIMENSION));
  }
  Writer writer;
  OCTAVO_RETURN_IF_ERROR(compress(writer, image.channels == 1 ? rgb_from_grey(image) : image, options));
  if (options.parameters.empty()) {
    return std::vector<std::uint8_t>(writer.memory.mem, writer.memory.mem + writer.memory.size);
  }
  const std::vector<std::uint8_t> exif = write_exif(options.parameters);
  const WebPData picture{writer.memory.mem, writer.memory.size}, chunk{exif.data(), exif.size()};
  writer.mux = WebPMuxNew();
  if (writer.mux == nullptr || WebPMuxSetImage(writer.mux, &picture, 0) != WEBP_MUX_OK ||
      WebPMuxSetChunk(writer.mux, "EXIF", &chunk, 0) != WEBP_MUX_OK ||
      WebPMuxAssemble(writer.mux, &writer.assembled) != WEBP_MUX_OK) {
    return internal_error("image", "libwebp could not put EXIF beside the picture");
  }
  return std::vector<std::uint8_t>(writer.assembled.bytes, writer.assembled.bytes + writer.assembled.size);
}

}  // namespace

const Format kWebpFormat{.name = "WebP",
                         .extensions = {".webp"},
                         .lossy = true,
                         .lossless = true,
                         .matches = matches,
                         .read_size = read_size,
                         .read_metadata = read_metadata,
                         .decode = decode,
                         .encode = encode};

}  // namespace octavo::image
