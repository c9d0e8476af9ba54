// Launches of zoomed_conv.h: one for one convolution, two for two.
#include "launch.h"
#include "validation.h"
#include "zoomed_conv.h"

namespace fasterseg::zoomed {
namespace {

template <bool kHalve, bool kRestore> struct Convolve {
  using Params = zoomed::Params;
  using Shared = zoomed::Shared;
  static constexpr int kThreads = zoomed::kThreads;
  template <class Team>
  static FSG_KERNEL_FN void run(Team &team, const Params &params, Shared &shared) {
    convolve<kHalve, kRestore>(team, params, shared);
  }
};

int32_t size_status(const FasterSegZoomedConv &a) {
  if (a.stride != 1 && a.stride != 2) {
    return FASTERSEG_BAD_KIND;
  }
  if (a.in_channels < 8 || a.out_channels < 8 || a.in_channels % 8 || a.out_channels % 8 ||
      a.out_channels > kMaxBatch ||
      static_cast<int64_t>(a.in_channels) * a.out_channels * kTaps > kMaxValues) {
    return FASTERSEG_BAD_CHANNELS;
  }
  const bool sized = is_size(a.batch, a.height, a.width, 2) &&
                     fits(a.height, a.width, a.in_channels) &&
                     fits(a.height, a.width, a.out_channels);
  return sized ? FASTERSEG_OK : FASTERSEG_BAD_SIZE;
}

// The map between the two convolutions, at half size.
int64_t workspace_of(const FasterSegZoomedConv &a) {
  const int64_t pixels = static_cast<int64_t>(a.batch) * (a.height / 2) * (a.width / 2);
  return a.weight2 ? pixels * a.out_channels * static_cast<int64_t>(sizeof(Half)) : 0;
}

int32_t pointer_status(const FasterSegZoomedConv &a) {
  if (!a.input || !a.output || !a.weight1 || !a.bias1 ||
      (a.weight2 && (!a.bias2 || !a.workspace))) {
    return FASTERSEG_NULL_POINTER;
  }
  for (const void *pointer : {a.input, a.weight1, a.weight2, static_cast<const void *>(a.output),
                              static_cast<const void *>(a.workspace)}) {
    if (!is_aligned(pointer, 16)) {
      return FASTERSEG_BAD_ALIGNMENT;
    }
  }
  return a.workspace_bytes >= workspace_of(a) ? FASTERSEG_OK : FASTERSEG_SMALL_WORKSPACE;
}

template <bool kHalve, bool kRestore>
int32_t run(const Params &p, int batch, void *stream) {
  const int tiles = tiles_down<kRestore>(p.rows) * tiles_across<kRestore>(p.cols);
  return launch<Convolve<kHalve, kRestore>>({tiles, ceil_div(p.out_channels, kOut), batch}, p,
                                            stream);
}

Params first_of(const FasterSegZoomedConv &a) {
  const bool restores = !a.weight2 && a.stride == 1;
  Params p = {};
  p.input = static_cast<const Half8 *>(a.input);
  p.weight = static_cast<const Half8 *>(a.weight1);
  p.bias = a.bias1;
  p.output = static_cast<Half8 *>(a.weight2 ? a.workspace : a.output);
  p.in_rows = a.height;
  p.in_cols = a.width;
  p.in_channels = a.in_channels;
  p.rows = a.height / 2;
  p.cols = a.width / 2;
  p.out_rows = restores ? a.height : p.rows;
  p.out_cols = restores ? a.width : p.cols;
  p.out_channels = a.out_channels;
  return p;
}

Params second_of(const FasterSegZoomedConv &a) {
  Params p = first_of(a);
  p.input = static_cast<const Half8 *>(a.workspace);
  p.weight = static_cast<const Half8 *>(a.weight2);
  p.bias = a.bias2;
  p.output = static_cast<Half8 *>(a.output);
  p.in_rows = p.rows;
  p.in_cols = p.cols;
  p.in_channels = a.out_channels;
  p.out_rows = a.stride == 1 ? a.height : p.rows;
  p.out_cols = a.stride == 1 ? a.width : p.cols;
  return p;
}

} // namespace
} // namespace fasterseg::zoomed

extern "C" int64_t fasterseg_zoomed_conv_workspace(const FasterSegZoomedConv *arguments) {
  using namespace fasterseg::zoomed;
  if (!arguments) {
    return FASTERSEG_NULL_POINTER;
  }
  const int32_t status = size_status(*arguments);
  return status ? status : workspace_of(*arguments);
}

extern "C" int32_t fasterseg_zoomed_conv(const FasterSegZoomedConv *arguments, void *stream) {
  using namespace fasterseg::zoomed;
  if (!arguments) {
    return FASTERSEG_NULL_POINTER;
  }
  const FasterSegZoomedConv &a = *arguments;
  if (const int32_t status = size_status(a)) {
    return status;
  }
  if (const int32_t status = pointer_status(a)) {
    return status;
  }
  const bool restores = a.stride == 1;
  if (!a.weight2) {
    return restores ? run<true, true>(first_of(a), a.batch, stream)
                    : run<true, false>(first_of(a), a.batch, stream);
  }
  if (const int32_t status = run<true, false>(first_of(a), a.batch, stream)) {
    return status;
  }
  return restores ? run<false, true>(second_of(a), a.batch, stream)
                  : run<false, false>(second_of(a), a.batch, stream);
}
