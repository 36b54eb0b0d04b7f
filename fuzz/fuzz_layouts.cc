// Any bytes as a model file: what it is gets told from hostile names and shapes, and every tensor that is accepted can
// be taken through its layout, or the refusal says why.
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <string>

#include "weights/layouts/part_config.h"
#include "weights/model_checkpoint.h"

namespace {

using namespace octavo;

/// Takes everything that a part has, as a model would that wants just that.
void take_all(weights::Part part, const weights::IdentifiedPart& identified,
              const std::shared_ptr<const weights::SafetensorsFile>& file) {
  auto sources = weights::map_part(part, weights::layout_of(part, identified), identified.prefix, {file});
  if (!sources.ok()) {
    if (sources.status().message().empty()) std::abort();
    return;
  }
  auto store = weights::WeightStore::open("fuzz", {file}, std::move(*sources));
  const auto config = weights::config_from_shapes(part, store);
  if (!config.ok() && config.status().message().empty()) std::abort();
  volatile std::uint8_t sink = 0;
  for (const std::string& name : store.names()) {
    if (store.own_name(name).empty()) std::abort();
    for (const std::byte byte : store.first_bytes(name, 64)) sink = sink ^ static_cast<std::uint8_t>(byte);
    const TensorView view = store.require(name, *store.shape_of(name));
    if (!view.defined()) continue;  // a dtype of no model
    const auto* bytes = static_cast<const std::uint8_t*>(view.data());
    for (std::size_t i = 0; i < view.byte_count(); ++i) sink = sink ^ bytes[i];
  }
  store.require("missing", Shape{1});
  if (store.finish().ok()) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const int descriptor = ::memfd_create("fuzz", MFD_CLOEXEC);
  if (descriptor < 0 || ::write(descriptor, data, size) != static_cast<ssize_t>(size)) std::abort();
  const std::string path = "/proc/self/fd/" + std::to_string(descriptor);
  const auto file = weights::SafetensorsFile::open(path);
  if (file.ok()) {
    for (const weights::IdentifiedPart& identified : weights::identify_parts((*file)->tensors())) {
      if (const auto part = weights::part_of_kind(identified.kind)) take_all(*part, identified, *file);
    }
    weights::ModelFiles files(path);
    files.without_t5 = true;
    const auto opened = weights::ModelCheckpoint::open(files);
    if (opened.ok() ? opened->findings().empty() : opened.status().message().empty()) std::abort();
  }
  ::close(descriptor);
  return 0;
}
