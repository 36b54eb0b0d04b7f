// velocities: what the transformer answers to given text, noise levels and latents, for comparisons too large for a
// fixture (bench/peers/gpu_diffusers.py --parity).
//
//     octavo_velocities MODEL DEVICE f32|bf16|fp8 IN.safetensors OUT.safetensors
//
// IN, all F32: text [R, T, context width], pooled [R, pooled width], timesteps [S] (sigma * 1000), latents
// [S, C, height, width]. OUT: velocity [S, R, C, height, width], row r of step s from latents s and text r. Each step
// runs once; nothing is captured.
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "device/cuda_backend.h"
#include "models/mmdit/mmdit.h"
#include "pipeline/pipeline.h"
#include "weights/model_checkpoint.h"

namespace octavo {
namespace {

Result<layers::Precision> parse_precision(const std::string& word, const device::DeviceTraits& traits) {
  using Asked = pipeline::LoadOptions::Precision;
  OCTAVO_ASSIGN_OR_RETURN(const pipeline::LoadOptions options, pipeline::parse_load_options(word, {}, 0));
  if (options.precision == Asked::kF32) return layers::Precision(DType::kF32, layers::WeightPrecision::kWidened);
  if (options.precision != Asked::kBf16 && options.precision != Asked::kFp8) {
    return invalid_argument(word, "is neither f32, bf16 nor fp8");
  }
  layers::Precision precision(DType::kBF16, options.precision == Asked::kFp8 ? layers::WeightPrecision::kQuantized
                                                                             : layers::WeightPrecision::kWidened);
  precision.residuals = traits.preferred_residual_dtype;
  return precision;
}

Status run(char** argument) {
  OCTAVO_ASSIGN_OR_RETURN(const device::DeviceChoice choice, device::parse_device(argument[2]));
  OCTAVO_ASSIGN_OR_RETURN(const auto device, device::create_device(choice));
  OCTAVO_ASSIGN_OR_RETURN(const layers::Precision precision, parse_precision(argument[3], device->traits()));
  OCTAVO_ASSIGN_OR_RETURN(const auto checkpoint, weights::ModelCheckpoint::open(argument[1]));
  OCTAVO_ASSIGN_OR_RETURN(auto part, checkpoint.open_part(weights::Part::kTransformer));
  OCTAVO_ASSIGN_OR_RETURN(const models::Mmdit mmdit, models::Mmdit::load(*device, std::move(part), precision));

  OCTAVO_ASSIGN_OR_RETURN(const auto file, weights::open_weights_file(argument[4]));
  const auto given = [&](const char* name) -> Result<TensorView> {
    const auto found = file->tensors().find(name);
    if (found == file->tensors().end()) return not_found(argument[4], std::string("has no ") + name);
    OCTAVO_ASSIGN_OR_RETURN(const TensorView view, file->view(found->second));
    if (view.dtype() != DType::kF32) return invalid_argument(argument[4], std::string(name) + " is not F32");
    return view;
  };
  OCTAVO_ASSIGN_OR_RETURN(const TensorView text, given("text"));
  OCTAVO_ASSIGN_OR_RETURN(const TensorView pooled, given("pooled"));
  OCTAVO_ASSIGN_OR_RETURN(const TensorView timesteps, given("timesteps"));
  OCTAVO_ASSIGN_OR_RETURN(const TensorView latents, given("latents"));
  const std::int64_t rows = text.dim(0), steps = latents.dim(0);

  const auto stream = device->create_stream();
  std::vector<device::Buffer> buffers;
  const auto empty = [&](const Shape& shape) -> Result<TensorView> {
    OCTAVO_ASSIGN_OR_RETURN(device::Buffer buffer,
                            device->allocate(static_cast<std::size_t>(shape.element_count()) * sizeof(float)));
    const TensorView view(buffer.data(), DType::kF32, shape);
    buffers.push_back(std::move(buffer));
    return view;
  };
  const auto copied = [&](const TensorView& host) -> Result<TensorView> {
    OCTAVO_ASSIGN_OR_RETURN(const TensorView view, empty(host.shape()));
    device->copy_to_device(*stream, view.data(), host.data(), host.byte_count());
    return view;
  };
  OCTAVO_ASSIGN_OR_RETURN(const TensorView text_there, copied(text));
  OCTAVO_ASSIGN_OR_RETURN(const TensorView pooled_there, copied(pooled));
  OCTAVO_ASSIGN_OR_RETURN(const TensorView latents_there, copied(latents));
  OCTAVO_ASSIGN_OR_RETURN(const TensorView timesteps_there, copied(timesteps));
  const models::MmditConfig& config = mmdit.config();
  models::MmditConditioning conditioning;
  conditioning.rows = rows;
  OCTAVO_ASSIGN_OR_RETURN(conditioning.context, empty(Shape{rows, text.dim(1), config.width}));
  OCTAVO_ASSIGN_OR_RETURN(conditioning.modulations, empty(Shape{steps * rows, mmdit.modulation_width()}));
  const Shape out_shape{rows, config.out_channels, latents.dim(2), latents.dim(3)};
  OCTAVO_ASSIGN_OR_RETURN(const TensorView out, empty(out_shape));

  std::vector<float> velocity(static_cast<std::size_t>(steps * out_shape.element_count()));
  device::Arena arena;
  device::ExecutionContext context(*device, *stream, arena);
  const auto forward = [&] {
    mmdit.prepare(context, text_there, pooled_there, timesteps_there, conditioning);
    for (std::int64_t step = 0; step < steps; ++step) {
      mmdit.predict(context, latents_there.slice(0, step, 1), static_cast<int>(step), conditioning, out);
      if (context.dry_run()) continue;
      device->copy_to_host(*stream, velocity.data() + step * out_shape.element_count(), out.data(), out.byte_count());
      stream->synchronize();
    }
  };
  arena.set_measuring(true);
  forward();
  const std::size_t peak = arena.peak_bytes();
  arena.set_measuring(false);
  OCTAVO_RETURN_IF_ERROR(arena.reserve(*device, peak));
  forward();
  const std::vector<weights::NamedTensor> tensors = {
      {"velocity", TensorView(static_cast<void*>(velocity.data()), DType::kF32,
                              Shape{steps, rows, config.out_channels, latents.dim(2), latents.dim(3)})}};
  return weights::write_safetensors(argument[5], tensors);
}

}  // namespace
}  // namespace octavo

int main(int count, char** arguments) {
  if (count != 6) {
    std::fprintf(stderr, "usage: %s MODEL DEVICE f32|bf16|fp8 IN OUT\n", arguments[0]);
    return 2;
  }
  const octavo::Status status = octavo::run(arguments);
  if (!status.ok()) std::fprintf(stderr, "%s\n", status.to_string().c_str());
  return status.ok() ? 0 : 1;
}
