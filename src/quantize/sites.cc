#include "quantize/sites.h"

#include <algorithm>
#include <map>

namespace octavo::quantize {
namespace {

/// Chunks of a modulation (models/mmdit/mmdit.cc has the same table).
struct Chunks {
  int shift, scale;
};
constexpr Chunks kAttention{0, 1}, kFeedForward{3, 4}, kOwnAttention{6, 7}, kContinuous{1, 0};
constexpr std::int64_t kContinuousChunks = 2;  // a modulation of (scale, shift) alone: the last block's text

class Finder {
 public:
  explicit Finder(const weights::SourcePart& part) {
    for (const weights::SourceTensor& tensor : part.tensors) shapes_[tensor.name] = tensor.shape;
  }
  bool has(const std::string& layer) const { return shapes_.contains(layer + ".weight"); }
  const Shape& shape(const std::string& layer) const { return shapes_.at(layer + ".weight"); }

  void modulated(std::vector<std::string> readers, const std::string& modulation, Chunks chunks) {
    add({.readers = std::move(readers),
         .producer = Site::Producer::kModulation,
         .makers = {modulation},
         .shift_chunk = chunks.shift,
         .scale_chunk = chunks.scale});
  }
  void attended(std::vector<std::string> readers, std::vector<std::string> values) {
    add({.readers = std::move(readers), .producer = Site::Producer::kValues, .makers = std::move(values)});
  }
  void activated(const std::string& reader) { add({.readers = {reader}}); }
  std::vector<Site> take() { return std::move(sites_); }

 private:
  void add(Site site) {
    std::erase_if(site.readers, [&](const std::string& layer) { return !has(layer); });
    if (site.readers.empty()) return;
    if (!std::all_of(site.makers.begin(), site.makers.end(), [&](const std::string& layer) { return has(layer); })) {
      return;
    }
    site.channels = shape(site.readers.front())[1];
    sites_.push_back(std::move(site));
  }
  std::map<std::string, Shape, std::less<>> shapes_;
  std::vector<Site> sites_;
};

}  // namespace

std::vector<Site> sites_of(const weights::SourcePart& transformer) {
  Finder find(transformer);
  for (int block = 0;; ++block) {
    const std::string at = "transformer_blocks." + std::to_string(block) + ".";
    const std::string image = at + "norm1.linear", text = at + "norm1_context.linear";
    if (!find.has(image) || !find.has(text)) return find.take();
    const bool last = find.shape(text)[0] == kContinuousChunks * find.shape(text)[1];
    find.modulated({at + "attn.to_q", at + "attn.to_k", at + "attn.to_v"}, image, kAttention);
    find.modulated({at + "attn.add_q_proj", at + "attn.add_k_proj", at + "attn.add_v_proj"}, text,
                   last ? kContinuous : kAttention);
    find.attended({at + "attn.to_out.0", at + "attn.to_add_out"}, {at + "attn.to_v", at + "attn.add_v_proj"});
    find.modulated({at + "attn2.to_q", at + "attn2.to_k", at + "attn2.to_v"}, image, kOwnAttention);
    if (find.has(at + "attn2.to_v")) find.attended({at + "attn2.to_out.0"}, {at + "attn2.to_v"});
    find.modulated({at + "ff.net.0.proj"}, image, kFeedForward);
    find.activated(at + "ff.net.2");
    find.modulated({at + "ff_context.net.0.proj"}, text, kFeedForward);
    find.activated(at + "ff_context.net.2");
  }
}

const Site* site_of(const std::vector<Site>& sites, std::string_view layer) {
  for (const Site& site : sites) {
    if (std::find(site.readers.begin(), site.readers.end(), layer) != site.readers.end()) return &site;
  }
  return nullptr;
}

}  // namespace octavo::quantize
