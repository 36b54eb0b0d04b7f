// A request's pictures between their files and the autoencoder: sizes, mask and the way back, as AUTOMATIC1111 1.10
// does it (modules/processing.py, masking.py, images.py), so that its parameters mean the same here.
#pragma once

#include <vector>

#include "generation/generation.h"
#include "image/resize.h"

namespace octavo::pipeline {

struct InputPixels {
  image::Image picture;     // RGB, width x height of the request: what the encoder sees
  std::vector<float> mask;  // [height / downscale, width / downscale], 1 = repaint, 0 = keep; empty without a mask
  // How the drawn picture goes back where the mask keeps what was there; unused without a mask.
  image::Image canvas;  // RGB: what the drawn picture is laid on
  image::Box box;       // where it lies on the canvas
  image::Image alpha;   // one channel, as large as the box: 255 = the drawn picture alone
};

/// For a resolved request with an init_image. A mask is stretched to the picture's size, blurred, and shrunk to
/// latents: a latent is repainted when its pixels are white on average (A1111 rounds a bicubic reduction, diffusers
/// takes one pixel of each latent: all agree on masks whose borders lie between latents). kInvalidArgument (subject
/// "mask") when none is.
Result<InputPixels> prepare_pixels(const generation::GenerationRequest& request, int downscale);

/// `drawn` (RGB, the request's width x height) laid on the canvas: the final picture, of the canvas's size.
image::Image paste_back(const InputPixels& pixels, const image::Image& drawn);

}  // namespace octavo::pipeline
