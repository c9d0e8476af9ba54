// Launch of normalize_bgr.h.
#include "launch.h"
#include "normalize_bgr.h"
#include "validation.h"

namespace fasterseg::normalize {
namespace {

template <class T, bool kPlanar> struct Single {
  using Params = normalize::Params;
  using Shared = Nothing;
  static constexpr int kThreads = normalize::kThreads;
  template <class Team> static FSG_KERNEL_FN void run(Team &team, const Params &params, Shared &) {
    single<T>(team, params, kPlanar);
  }
};

template <class T> struct Planes {
  using Params = normalize::Params;
  using Shared = Nothing;
  static constexpr int kThreads = normalize::kThreads;
  template <class Team> static FSG_KERNEL_FN void run(Team &team, const Params &params, Shared &) {
    planes<T>(team, params);
  }
};

int32_t status_of(const FasterSegNormalizeBgr &a) {
  if (!a.frames || !a.output) {
    return FASTERSEG_NULL_POINTER;
  }
  if (!is_type(a.type) || !is_layout(a.layout)) {
    return FASTERSEG_BAD_KIND;
  }
  if (!is_size(a.batch, a.height, a.width, 1) || !fits(a.height, a.width, 8)) {
    return FASTERSEG_BAD_SIZE;
  }
  const bool padded = a.layout == FASTERSEG_NHWC && (a.channels == 4 || a.channels == 8);
  if (a.channels != 3 && !padded) {
    return FASTERSEG_BAD_CHANNELS;
  }
  return is_aligned(a.frames, 4) && is_aligned(a.output, 16) ? FASTERSEG_OK
                                                             : FASTERSEG_BAD_ALIGNMENT;
}

template <class T> int32_t run(const FasterSegNormalizeBgr &a, const Params &params, void *stream) {
  const bool planar = a.layout == FASTERSEG_NCHW, wide = planar && params.plane % kPixels == 0;
  const int64_t pixels = kThreads * (wide ? kPixels : 1);
  const Grid grid = {(params.pixels + pixels - 1) / pixels, 1, 1};
  if (wide) {
    return launch<Planes<T>>(grid, params, stream);
  }
  return planar ? launch<Single<T, true>>(grid, params, stream)
                : launch<Single<T, false>>(grid, params, stream);
}

} // namespace
} // namespace fasterseg::normalize

extern "C" int32_t fasterseg_normalize_bgr(const FasterSegNormalizeBgr *arguments, void *stream) {
  using namespace fasterseg::normalize;
  if (!arguments) {
    return FASTERSEG_NULL_POINTER;
  }
  const FasterSegNormalizeBgr &a = *arguments;
  if (const int32_t status = status_of(a)) {
    return status;
  }
  const int64_t plane = static_cast<int64_t>(a.height) * a.width;
  Params params = {a.frames, a.output, plane * a.batch, plane, a.channels, {}};
  for (int channel = 0; channel < 3; ++channel) {
    params.affine[channel] = affine_of(a.mean[channel], a.std[channel]);
  }
  return a.type == FASTERSEG_FP16 ? run<fasterseg::Half>(a, params, stream)
                                  : run<float>(a, params, stream);
}
