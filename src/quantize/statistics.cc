#include "quantize/statistics.h"

#include <algorithm>
#include <bit>
#include <boost/json.hpp>
#include <cmath>
#include <cstring>

#include "weights/safetensors.h"
#include "weights/safetensors_writer.h"

namespace octavo::quantize {
namespace {

constexpr const char* kMetadata = "octavo.calibration";
constexpr std::int64_t kFormatVersion = 2;

float percentile_of(std::span<const std::int64_t> histogram, float largest, double fraction) {
  // Histograms of several steps may lie one after another.
  std::int64_t total = 0;
  for (const std::int64_t count : histogram) total += count;
  const auto above = static_cast<std::int64_t>(std::floor((1.0 - fraction) * static_cast<double>(total)));
  std::int64_t seen = 0;
  for (int bin = kBins - 1; bin >= 0; --bin) {
    for (std::size_t at = static_cast<std::size_t>(bin); at < histogram.size(); at += kBins) seen += histogram[at];
    if (seen > above) return std::min(largest, bin == kBins - 1 ? largest : bin_edge(bin));
  }
  return 0.0f;
}

template <typename T>
std::span<const std::byte> bytes_of(const std::vector<T>& values) {
  return std::as_bytes(std::span(values.data(), values.size()));
}

/// The five tensors of an input, in the order of the file.
struct Fields {
  const char* name;
  const char* word;
};
constexpr Fields kAmax{".amax", "F32"}, kHistogram{".histogram", "I64"}, kChannels{".channel_amax", "F32"},
    kSample{".sample", "BF16"}, kKeys{".sample_keys", "U64"};

class FileReader {
 public:
  FileReader(const weights::SafetensorsFile& file, Status& status) : file_(file), status_(status) {}

  template <typename T>
  std::vector<T> take(const std::string& name, const Fields& field, std::int64_t count) {
    const auto found = file_.tensors().find(name + field.name);
    const auto bytes = static_cast<std::size_t>(count) * sizeof(T);
    if (found == file_.tensors().end() || found->second.dtype != field.word || found->second.byte_count != bytes) {
      if (status_.ok()) {
        status_ =
            data_corruption(file_.path().string(), fmt::format("has no {}{} of {} values", name, field.name, count));
      }
      return {};
    }
    std::vector<T> values(static_cast<std::size_t>(count));
    if (count > 0) std::memcpy(values.data(), file_.bytes(found->second).data(), bytes);
    return values;
  }

 private:
  const weights::SafetensorsFile& file_;
  Status& status_;
};

}  // namespace

float bin_edge(int bin) {
  return std::ldexp(1.0f + static_cast<float>(bin % kBinsOfOctave + 1) / kBinsOfOctave,
                    kSmallestExponent + bin / kBinsOfOctave);
}

bool InputStatistics::operator==(const InputStatistics& other) const {
  const auto same_bits = [](const auto& a, const auto& b) {
    return a.size() == b.size() && (a.empty() || std::memcmp(a.data(), b.data(), bytes_of(a).size()) == 0);
  };
  return layer == other.layer && channels == other.channels && same_bits(amax, other.amax) &&
         same_bits(histogram, other.histogram) && same_bits(channel_amax, other.channel_amax) &&
         same_bits(sample, other.sample) && same_bits(sample_keys, other.sample_keys);
}

float InputStatistics::largest() const { return amax.empty() ? 0.0f : *std::max_element(amax.begin(), amax.end()); }

float InputStatistics::percentile(double fraction) const { return percentile_of(histogram, largest(), fraction); }

float InputStatistics::percentile(double fraction, std::int64_t step, std::int64_t branches) const {
  const auto first = static_cast<std::size_t>(step * branches), count = static_cast<std::size_t>(branches);
  const float most = *std::max_element(amax.begin() + static_cast<std::ptrdiff_t>(first),
                                       amax.begin() + static_cast<std::ptrdiff_t>(first + count));
  return percentile_of(std::span(histogram).subspan(first * kBins, count * kBins), most, fraction);
}

Statistics Statistics::empty(const CalibrationRecord& record, std::int64_t branches, const std::vector<Site>& sites) {
  Statistics statistics{.record = record, .branches = branches};
  const auto cells = static_cast<std::size_t>(record.steps * branches);
  const auto add = [&](const std::string& layer, std::int64_t channels) {
    InputStatistics input{.layer = layer, .channels = channels};
    input.amax.assign(cells, 0.0f);
    input.histogram.assign(cells * kBins, 0);
    input.channel_amax.assign(static_cast<std::size_t>(channels), 0.0f);
    statistics.inputs.push_back(std::move(input));
  };
  for (const Site& site : sites) {
    if (site.producer == Site::Producer::kValues) {
      for (const std::string& reader : site.readers) add(reader, site.channels);
    } else {
      add(site.name(), site.channels);
    }
  }
  return statistics;
}

std::vector<const InputStatistics*> Statistics::of(const Site& site) const {
  std::vector<const InputStatistics*> found;
  for (const InputStatistics& input : inputs) {
    if (std::find(site.readers.begin(), site.readers.end(), input.layer) != site.readers.end()) found.push_back(&input);
  }
  return found;
}

Status Statistics::save(const std::filesystem::path& path) const {
  boost::json::array layers;
  std::vector<weights::StreamedTensor> listed;
  const auto cells = record.steps * branches;
  for (const InputStatistics& input : inputs) {
    layers.push_back(boost::json::object{
        {"layer", input.layer}, {"channels", input.channels}, {"sample_rows", input.sample_rows()}});
    const auto list = [&](const Fields& field, Shape shape) {
      listed.push_back({input.layer + field.name, field.word, shape});
    };
    list(kAmax, Shape{record.steps, branches});
    list(kHistogram, Shape{cells, kBins});
    list(kChannels, Shape{input.channels});
    list(kSample, Shape{input.sample_rows(), input.channels});
    list(kKeys, Shape{input.sample_rows()});
  }
  const boost::json::object description = {{"format_version", kFormatVersion},
                                           {"record", to_json(record)},
                                           {"branches", branches},
                                           {"finished_prompts", finished_prompts},
                                           {"layers", std::move(layers)}};
  OCTAVO_ASSIGN_OR_RETURN(const auto writer, weights::SafetensorsWriter::create(
                                                 path, listed, {{kMetadata, boost::json::serialize(description)}}));
  for (const InputStatistics& input : inputs) {
    OCTAVO_RETURN_IF_ERROR(writer->append(bytes_of(input.amax)));
    OCTAVO_RETURN_IF_ERROR(writer->append(bytes_of(input.histogram)));
    OCTAVO_RETURN_IF_ERROR(writer->append(bytes_of(input.channel_amax)));
    OCTAVO_RETURN_IF_ERROR(writer->append(bytes_of(input.sample)));
    OCTAVO_RETURN_IF_ERROR(writer->append(bytes_of(input.sample_keys)));
  }
  return writer->finish();
}

Result<Statistics> Statistics::load(const std::filesystem::path& path) {
  OCTAVO_ASSIGN_OR_RETURN(const auto file, weights::SafetensorsFile::open(path));
  const auto foreign = [&] { return data_corruption(path.string(), "does not hold statistics of octavo quantize"); };
  const auto found = file->metadata().find(kMetadata);
  if (found == file->metadata().end()) return foreign();
  Statistics statistics;
  struct Listed {
    std::string layer;
    std::int64_t channels = 0, sample_rows = 0;
  };
  std::vector<Listed> listed;
  try {
    const auto description = boost::json::parse(found->second).as_object();
    if (description.at("format_version").as_int64() != kFormatVersion) {
      return data_corruption(path.string(), "has statistics of another version of octavo; delete it to calibrate anew");
    }
    OCTAVO_ASSIGN_OR_RETURN(statistics.record,
                            calibration_record_from_json(description.at("record").as_object(), path.string()));
    statistics.branches = description.at("branches").as_int64();
    statistics.finished_prompts = description.at("finished_prompts").as_int64();
    for (const auto& layer : description.at("layers").as_array()) {
      const auto& object = layer.as_object();
      listed.push_back({std::string(object.at("layer").as_string()), object.at("channels").as_int64(),
                        object.at("sample_rows").as_int64()});
    }
  } catch (const std::exception&) {  // Boost.JSON's way of saying that a member is missing or of another type
    return foreign();
  }
  const std::int64_t cells = statistics.record.steps * statistics.branches;
  if (statistics.record.steps < 1 || statistics.record.steps > 10000 || statistics.branches < 1 ||
      statistics.branches > 2) {
    return foreign();
  }
  Status status;
  FileReader in(*file, status);
  for (const Listed& one : listed) {
    if (one.channels < 1 || one.channels > (1 << 24) || one.sample_rows < 0 ||
        one.sample_rows > static_cast<std::int64_t>(kSampleRows)) {
      return foreign();
    }
    InputStatistics input{.layer = one.layer, .channels = one.channels};
    input.amax = in.take<float>(one.layer, kAmax, cells);
    input.histogram = in.take<std::int64_t>(one.layer, kHistogram, cells * kBins);
    input.channel_amax = in.take<float>(one.layer, kChannels, one.channels);
    input.sample = in.take<BFloat16>(one.layer, kSample, one.sample_rows * one.channels);
    input.sample_keys = in.take<std::uint64_t>(one.layer, kKeys, one.sample_rows);
    if (!status.ok()) return status;
    statistics.inputs.push_back(std::move(input));
  }
  return statistics;
}

}  // namespace octavo::quantize
