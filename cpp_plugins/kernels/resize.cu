// Launch of resize.h.
#include "launch.h"
#include "resize.h"
#include "validation.h"

namespace fasterseg::resize {
namespace {

constexpr int kMaxChannels = 65528;
// From here on a launch keeps a large GPU busy although each of its threads does more.
constexpr int64_t kManyBlocks = 192;
// A thread of `expand` does all rows of its cells, so it is for cells of few rows.
constexpr int kMostGrowth = 4;

struct Copy {
  using Params = resize::Params;
  using Shared = Nothing;
  static constexpr int kThreads = resize::kThreads;
  template <class Team> static FSG_KERNEL_FN void run(Team &team, const Params &params, Shared &) {
    copy(team, params);
  }
};

template <int kRows> struct Gather {
  using Params = resize::Params;
  using Shared = Nothing;
  static constexpr int kThreads = resize::kThreads;
  template <class Team> static FSG_KERNEL_FN void run(Team &team, const Params &params, Shared &) {
    gather<kRows>(team, params);
  }
};

struct Expand {
  using Params = resize::Params;
  using Shared = Nothing;
  static constexpr int kThreads = resize::kThreads;
  template <class Team> static FSG_KERNEL_FN void run(Team &team, const Params &params, Shared &) {
    expand(team, params);
  }
};

bool is_pitch(int pitch, int channels) { return pitch >= channels && pitch % 8 == 0; }

int32_t status_of(const FasterSegResize &a) {
  if (!a.input || !a.output) {
    return FASTERSEG_NULL_POINTER;
  }
  if (a.relu != 0 && a.relu != 1) {
    return FASTERSEG_BAD_KIND;
  }
  if (a.channels < 8 || a.channels > kMaxChannels || a.channels % 8 ||
      !is_pitch(a.in_pitch, a.channels) || !is_pitch(a.out_pitch, a.channels)) {
    return FASTERSEG_BAD_CHANNELS;
  }
  if (!is_size(a.batch, a.in_height, a.in_width, 1) ||
      !is_size(a.batch, a.out_height, a.out_width, 1) ||
      !fits(a.in_height, a.in_width, a.in_pitch) || !fits(a.out_height, a.out_width, a.out_pitch)) {
    return FASTERSEG_BAD_SIZE;
  }
  return is_aligned(a.input, 16) && is_aligned(a.bias, 16) && is_aligned(a.output, 16)
             ? FASTERSEG_OK
             : FASTERSEG_BAD_ALIGNMENT;
}

Params params_of(const FasterSegResize &a) {
  const int vectors = a.channels / 8;
  return {static_cast<const Half8 *>(a.input),
          reinterpret_cast<const Float8 *>(a.bias),
          static_cast<Half8 *>(a.output),
          axis_of(a.in_height, a.out_height),
          axis_of(a.in_width, a.out_width),
          divider_of(vectors),
          a.out_width * vectors,
          a.in_pitch / 8,
          a.out_pitch / 8,
          a.relu};
}

enum class Body { kCopy, kGather, kGatherTwo, kExpand };

int slices_of(const FasterSegResize &a, Body body) {
  switch (body) {
  case Body::kCopy:
    return ceil_div(a.out_height, kCopied);
  case Body::kGatherTwo:
    return ceil_div(a.out_height, 2);
  case Body::kExpand:
    return ceil_div(cells_of(a.in_height), kCells);
  default:
    return a.out_height;
  }
}

Grid grid_of(const FasterSegResize &a, Body body) {
  return {ceil_div(a.out_width * (a.channels / 8), kThreads), slices_of(a, body), a.batch};
}

Body body_of(const FasterSegResize &a) {
  if (a.in_height == a.out_height && a.in_width == a.out_width) {
    return Body::kCopy;
  }
  const auto fills = [&](Body body) {
    const Grid grid = grid_of(a, body);
    return grid.tiles * grid.slices * grid.images >= kManyBlocks;
  };
  const bool grows = a.out_height > a.in_height && a.out_height <= kMostGrowth * a.in_height;
  if (grows && fills(Body::kExpand)) {
    return Body::kExpand;
  }
  return fills(Body::kGatherTwo) ? Body::kGatherTwo : Body::kGather;
}

int32_t run(const FasterSegResize &a, Body body, void *stream) {
  const Params p = params_of(a);
  const Grid grid = grid_of(a, body);
  switch (body) {
  case Body::kCopy:
    return launch<Copy>(grid, p, stream);
  case Body::kGatherTwo:
    return launch<Gather<2>>(grid, p, stream);
  case Body::kExpand:
    return launch<Expand>(grid, p, stream);
  default:
    return launch<Gather<1>>(grid, p, stream);
  }
}

} // namespace
} // namespace fasterseg::resize

extern "C" int32_t fasterseg_resize(const FasterSegResize *arguments, void *stream) {
  using namespace fasterseg::resize;
  if (!arguments) {
    return FASTERSEG_NULL_POINTER;
  }
  const FasterSegResize &a = *arguments;
  if (const int32_t status = status_of(a)) {
    return status;
  }
  return run(a, body_of(a), stream);
}
