// conv2d on oneDNN's direct convolutions, channels last.
//
// Mapping: one primitive for the whole batch; oneDNN splits output rows over its threads. Weights are rearranged once
//   at load and kept 16-bit (f32 activations: widened into scratch at each call, as matmul does). With `upsample` the
//   input is doubled into scratch first: a copy of 4 times the input against 2 * 9 * Cout operations for each element.
// Epilogue: bias inside; a residual is what oneDNN adds to, so one that lies elsewhere is copied to out first.
// FLOPs 2 B height' width' Cout Cin kh kw. Measured in bf16 (AMD EPYC of family 25, model 17, two cores, 2026-11-24):
// 327
//   to 481 GFLOP/s of a peak near 460 by the clock of the day; 69 for the last, of 3 channels.
#include <compare>
#include <cstring>

#include "ops/conv2d/conv2d_kernels.h"
#include "ops/onednn_weight.h"

namespace octavo::ops {
namespace {

using dnnl::memory;

struct Key {
  std::int64_t batch, height, width, in_channels, out_channels, kernel;  // height, width of the input as doubled
  int stride, pad_top, pad_bottom, pad_left, pad_right;
  DType x, out;
  bool bias, residual;
  int threads;
  std::strong_ordering operator<=>(const Key&) const = default;
};

const OnednnWeight* packed_weight(const Conv2dArgs& args) {
  return dynamic_cast<const OnednnWeight*>(args.weight.packed.get());
}

dnnl::convolution_forward::primitive_desc describe(const Key& key, const memory::desc& weight) {
  const memory::desc x({key.batch, key.in_channels, key.height, key.width}, onednn_type(key.x),
                       memory::format_tag::nhwc);
  const auto out_side = [&](std::int64_t side, int before, int after) {
    return (side + before + after - key.kernel) / key.stride + 1;
  };
  const memory::desc out({key.batch, key.out_channels, out_side(key.height, key.pad_top, key.pad_bottom),
                          out_side(key.width, key.pad_left, key.pad_right)},
                         onednn_type(key.out), memory::format_tag::nhwc);
  const memory::desc bias({key.out_channels}, memory::data_type::f32, memory::format_tag::a);
  dnnl::primitive_attr attributes;
  attributes.set_scratchpad_mode(dnnl::scratchpad_mode::user);
  if (key.residual) {
    dnnl::post_ops post_ops;
    post_ops.append_sum(1.0f);
    attributes.set_post_ops(post_ops);
  }
  const memory::dims strides{key.stride, key.stride};
  const memory::dims before{key.pad_top, key.pad_left};
  const memory::dims after{key.pad_bottom, key.pad_right};
  using Convolution = dnnl::convolution_forward;
  constexpr auto kKind = dnnl::prop_kind::forward_inference;
  constexpr auto kAlgorithm = dnnl::algorithm::convolution_direct;
  const auto description = key.bias ? Convolution::desc(kKind, kAlgorithm, x, weight, bias, out, strides, before, after)
                                    : Convolution::desc(kKind, kAlgorithm, x, weight, out, strides, before, after);
  return {description, attributes, onednn_engine()};
}

std::shared_ptr<OnednnPrimitive> primitive_for(const Conv2dArgs& args, const DeviceTraits& traits) {
  static OnednnPrimitiveCache<Key> cache;  // primitives are immutable and hold no data of a model
  prepare_onednn(traits);
  const std::int64_t zoom = args.upsample ? 2 : 1;
  const ConvRows rows = conv_rows(args);
  const Key key{.batch = args.x.dim(0),
                .height = rows.rows,
                .width = args.x.dim(2) * zoom,
                .in_channels = args.x.dim(3),
                .out_channels = args.out.dim(3),
                .kernel = args.weight.plain.dim(2),
                .stride = args.stride,
                .pad_top = rows.pad_before,
                .pad_bottom = rows.pad_after,
                .pad_left = args.pad_before,
                .pad_right = args.pad_after,
                .x = args.x.dtype(),
                .out = args.out.dtype(),
                .bias = args.bias.defined(),
                .residual = args.residual.defined(),
                .threads = traits.thread_count};
  return cache.find_or_build(key, [&] {
    const auto description = describe(key, packed_weight(args)->layout());
    std::vector<OnednnPrimitive::Argument> arguments{{DNNL_ARG_SRC, description.src_desc()},
                                                     {DNNL_ARG_WEIGHTS, description.weights_desc()},
                                                     {DNNL_ARG_DST, description.dst_desc()}};
    if (key.bias) arguments.push_back({DNNL_ARG_BIAS, description.bias_desc()});
    return std::make_shared<OnednnPrimitive>(dnnl::convolution_forward(description), std::move(arguments),
                                             description.scratchpad_desc());
  });
}

std::size_t doubled_bytes(const Conv2dArgs& args) { return args.upsample ? align_scratch(args.x.byte_count() * 4) : 0; }

/// Nearest neighbour, twice each way.
void double_sides(const DeviceTraits& traits, const TensorView& x, std::byte* to) {
  const std::size_t pixel_bytes = static_cast<std::size_t>(x.dim(3)) * dtype_size(x.dtype());
  const std::size_t row_bytes = static_cast<std::size_t>(x.dim(2)) * pixel_bytes;
  const auto* from = static_cast<const std::byte*>(x.data());
  device::parallel_for(traits, x.dim(0) * x.dim(1), 4, [&](std::int64_t begin, std::int64_t end) {
    for (std::int64_t row = begin; row < end; ++row) {
      const std::byte* source = from + row * row_bytes;
      std::byte* doubled = to + row * row_bytes * 4;
      for (std::int64_t i = 0; i < x.dim(2); ++i) {
        std::memcpy(doubled + 2 * i * pixel_bytes, source + i * pixel_bytes, pixel_bytes);
        std::memcpy(doubled + (2 * i + 1) * pixel_bytes, source + i * pixel_bytes, pixel_bytes);
      }
      std::memcpy(doubled + 2 * row_bytes, doubled, 2 * row_bytes);
    }
  });
}

void copy(const DeviceTraits& traits, const void* from, void* to, std::size_t bytes) {
  constexpr std::int64_t kGrain = 1 << 16;
  device::parallel_for(traits, static_cast<std::int64_t>(bytes), kGrain, [&](std::int64_t begin, std::int64_t end) {
    std::memcpy(static_cast<std::byte*>(to) + begin, static_cast<const std::byte*>(from) + begin, end - begin);
  });
}

}  // namespace

bool conv2d_onednn_supports(const Conv2dArgs& args, const DeviceTraits&) {
  return packed_weight(args) != nullptr && (!args.bias.defined() || args.bias.dtype() == DType::kF32) &&
         args.weight.packed_for == args.x.dtype() &&
         (args.x.dtype() == DType::kBF16 || args.out.dtype() == DType::kF32);
}

std::size_t conv2d_onednn_scratch_bytes(const ExecutionContext& context, const Conv2dArgs& args) {
  return packed_weight(args)->scratch_bytes() + doubled_bytes(args) +
         primitive_for(args, context.traits())->scratchpad_bytes();
}

void conv2d_onednn(ExecutionContext& context, const Conv2dArgs& args, void* scratch) {
  const DeviceTraits& traits = context.traits();
  const auto primitive = primitive_for(args, traits);
  const OnednnWeight& weight = *packed_weight(args);
  auto* next = static_cast<std::byte*>(scratch);
  const auto take = [&next](std::size_t bytes) { return std::exchange(next, next + bytes); };

  const void* ready_weight = weight.ready(traits, take(weight.scratch_bytes()));
  void* x = args.x.data();
  if (args.upsample) {
    x = take(doubled_bytes(args));
    double_sides(traits, args.x, static_cast<std::byte*>(x));
    const auto row_bytes = 2 * args.x.byte_count() / static_cast<std::size_t>(args.x.dim(1));
    x = static_cast<std::byte*>(x) + static_cast<std::size_t>(conv_rows(args).skipped) * row_bytes;
  }
  if (args.residual.defined() && args.residual.data() != args.out.data()) {
    copy(traits, args.residual.data(), args.out.data(), args.out.byte_count());
  }
  std::array<void*, 5> pointers{};
  std::size_t count = 0;
  pointers[count++] = x;
  pointers[count++] = const_cast<void*>(ready_weight);
  pointers[count++] = args.out.data();
  if (args.bias.defined()) pointers[count++] = args.bias.data();
  pointers[count++] = next;  // the primitive's own scratch comes last
  primitive->execute(std::span(pointers.data(), count));
}

Result<std::shared_ptr<const PackedWeight>> pack_onednn_conv_weight(device::Device& device, const TensorView& plain,
                                                                    DType activation_dtype) {
  std::shared_ptr<const PackedWeight> packed;
  const DeviceTraits& traits = device.traits();
  if (activation_dtype == DType::kBF16 && !traits.has_avx512_bf16) return packed;
  prepare_onednn(traits);
  // The layout depends on channels, kernel and types; the picture's size stands for any.
  constexpr std::int64_t kTypicalSide = 64;
  const std::int64_t kernel = plain.dim(2);
  const int pad = static_cast<int>(kernel / 2);
  const Key key{.batch = 1,
                .height = kTypicalSide,
                .width = kTypicalSide,
                .in_channels = plain.dim(1),
                .out_channels = plain.dim(0),
                .kernel = kernel,
                .stride = 1,
                .pad_top = pad,
                .pad_bottom = pad,
                .pad_left = pad,
                .pad_right = pad,
                .x = activation_dtype,
                .out = activation_dtype,
                .bias = true,
                .residual = false,
                .threads = traits.thread_count};
  const memory::dims shape{plain.dim(0), plain.dim(1), kernel, kernel};
  const memory::desc any(shape, onednn_type(activation_dtype), memory::format_tag::any);
  const memory::desc plain_layout(shape, memory::data_type::f32, memory::format_tag::oihw);
  OCTAVO_ASSIGN_OR_RETURN(packed, pack_for_onednn(device, plain, plain_layout, describe(key, any).weights_desc()));
  return packed;
}

}  // namespace octavo::ops
