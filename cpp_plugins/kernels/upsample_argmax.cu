// Launch of upsample_argmax.h.
#include "launch.h"
#include "upsample_argmax.h"
#include "validation.h"

namespace fasterseg::tail {
namespace {

template <class T, bool kOverlay> struct Label {
  using Params = tail::Params;
  using Shared = tail::Shared;
  static constexpr int kThreads = tail::kThreads;
  template <class Team>
  static FSG_KERNEL_FN void run(Team &team, const Params &params, Shared &shared) {
    label<T, kOverlay>(team, params, shared);
  }
};

template <class T>
int32_t run(const Grid &grid, const Params &params, void *stream) {
  return params.overlay ? launch<Label<T, true>>(grid, params, stream)
                        : launch<Label<T, false>>(grid, params, stream);
}

bool is_crop(int side, int full) { return side >= 1 && side <= full; }

int32_t status_of(const FasterSegUpsampleArgmax &a) {
  if (!a.logits || !a.labels || (a.overlay && !a.palette)) {
    return FASTERSEG_NULL_POINTER;
  }
  if (!is_type(a.type) || !is_layout(a.layout)) {
    return FASTERSEG_BAD_KIND;
  }
  if (a.classes < 1 || a.classes > 127 || (a.layout == FASTERSEG_NHWC && a.pitch < a.classes)) {
    return FASTERSEG_BAD_CHANNELS;
  }
  const int values = a.layout == FASTERSEG_NHWC ? a.pitch : a.classes;
  const bool sized = is_size(a.batch, a.height, a.width, 1) && fits(a.height, a.width, values) &&
                     a.height <= FASTERSEG_MAX_SIDE / kScale &&
                     a.width <= FASTERSEG_MAX_SIDE / kScale;
  if (!sized || !is_crop(a.out_height, kScale * a.height) ||
      !is_crop(a.out_width, kScale * a.width)) {
    return FASTERSEG_BAD_SIZE;
  }
  return is_aligned(a.logits, a.type == FASTERSEG_FP16 ? 2 : 4) ? FASTERSEG_OK
                                                                : FASTERSEG_BAD_ALIGNMENT;
}

Params params_of(const FasterSegUpsampleArgmax &a) {
  const bool pixel_major = a.layout == FASTERSEG_NHWC;
  const int area = a.height * a.width;
  Params p = {};
  p.logits = a.logits;
  p.labels = a.labels;
  p.overlay = a.overlay;
  p.frames = a.frames;
  p.palette = a.palette;
  p.height = a.height;
  p.width = a.width;
  p.out_height = a.out_height;
  p.out_width = a.out_width;
  p.classes = a.classes;
  p.pixel_step = pixel_major ? a.pitch : 1;
  p.class_step = pixel_major ? 1 : area;
  p.image_values = area * (pixel_major ? a.pitch : a.classes);
  p.alpha = a.alpha;
  return p;
}

} // namespace
} // namespace fasterseg::tail

extern "C" int32_t fasterseg_upsample_argmax(const FasterSegUpsampleArgmax *arguments,
                                             void *stream) {
  using namespace fasterseg;
  using namespace fasterseg::tail;
  if (!arguments) {
    return FASTERSEG_NULL_POINTER;
  }
  const FasterSegUpsampleArgmax &a = *arguments;
  if (const int32_t status = status_of(a)) {
    return status;
  }
  const Grid grid = {ceil_div(a.out_width, kThreads), cells_of(a.height), a.batch};
  return a.type == FASTERSEG_FP16 ? run<Half>(grid, params_of(a), stream)
                                  : run<float>(grid, params_of(a), stream);
}
