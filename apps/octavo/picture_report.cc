#include "picture_report.h"

#include <algorithm>
#include <boost/json.hpp>
#include <cctype>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <sstream>
#include <vector>

#include "image/codec.h"
#include "image/infotext.h"

namespace octavo::app {
namespace {

/// At most `most` bytes from the file's beginning.
std::vector<std::uint8_t> read_file(const std::string& path, std::size_t most) {
  std::vector<std::uint8_t> bytes;
  std::error_code error;
  if (!std::filesystem::is_regular_file(path, error)) return bytes;
  const std::size_t size = std::filesystem::file_size(path, error);
  if (error) return bytes;
  bytes.resize(std::min(size, most));
  std::ifstream file(path, std::ios::binary);
  file.read(reinterpret_cast<char*>(bytes.data()), static_cast<std::streamsize>(bytes.size()));
  bytes.resize(static_cast<std::size_t>(std::max<std::streamsize>(file.gcount(), 0)));
  return bytes;
}

struct Report {
  image::ImageHeader header;
  std::string parameters;
};

Result<Report> read_report(const std::string& path) {
  const image::DecodeLimits limits;
  // One byte over the limit is enough to be refused.
  const std::vector<std::uint8_t> bytes = read_file(path, limits.max_file_bytes + 1);
  Report report;
  OCTAVO_ASSIGN_OR_RETURN(report.header, image::read_header(bytes, path, limits));
  OCTAVO_ASSIGN_OR_RETURN(report.parameters, image::read_parameters(bytes, path, limits));
  return report;
}

void print_text(const std::string& path, const Report& report) {
  std::cout << printable(
      fmt::format("{}: {}, {}x{}", path, report.header.format, report.header.width, report.header.height));
  if (report.header.orientation != 1) std::cout << ", stored turned (orientation " << report.header.orientation << ")";
  std::cout << '\n';
  if (report.parameters.empty()) {
    std::cout << "no generation parameters\n";
    return;
  }
  std::istringstream lines(report.parameters);
  for (std::string line; std::getline(lines, line);) std::cout << printable(line) << '\n';
}

void print_json(const std::string& path, const Report& report) {
  const image::Infotext infotext = image::parse_infotext(report.parameters);
  boost::json::object items;
  for (const image::InfotextItem& item : infotext.items) items[item.key] = item.value;
  const boost::json::object whole{{"path", path},
                                  {"format", report.header.format},
                                  {"width", report.header.width},
                                  {"height", report.header.height},
                                  {"orientation", report.header.orientation},
                                  {"parameters", report.parameters},
                                  {"prompt", infotext.prompt},
                                  {"negative_prompt", infotext.negative_prompt},
                                  {"items", std::move(items)}};
  std::cout << boost::json::serialize(whole) << '\n';
}

}  // namespace

std::string printable(std::string text) {
  std::replace_if(
      text.begin(), text.end(), [](unsigned char c) { return std::iscntrl(c) != 0; }, '?');
  return text;
}

bool is_picture(const std::string& path) { return image::format_of_content(read_file(path, 12)).has_value(); }

int report_picture(const std::string& path, bool json) {
  const Result<Report> report = read_report(path);
  if (!report.ok()) {
    std::fprintf(stderr, "octavo inspect: %s\n", printable(report.status().to_string()).c_str());
    return 2;
  }
  if (json) {
    print_json(path, *report);
  } else {
    print_text(path, *report);
  }
  return 0;
}

}  // namespace octavo::app
