// The kernel library for the CPU: its sources as they are, launched by the emulator, on host
// pointers, and the index arithmetic by itself.
#include <cstddef>

#include "emulator.h"

#include "normalize_bgr.cu"
#include "resize.cu"
#include "status.cu"
#include "upsample_argmax.cu"
#include "zoomed_conv.cu"

namespace {

// Every thread leaves a value and takes its neighbour's; right only with the barrier between.
struct Rotate {
  struct Params {
    float *values;
    bool synced;
  };
  struct Shared {
    float left[64];
  };
  static constexpr int kThreads = 64;
  template <class Team> static void run(Team &team, const Params &p, Shared &shared) {
    shared.left[team.thread()] = static_cast<float>(team.thread());
    if (p.synced) {
      team.sync();
    }
    p.values[team.thread()] = shared.left[(team.thread() + 1) % kThreads];
  }
};

// Half of the threads meet at a barrier that the others never reach.
struct Forsake {
  using Params = int;
  using Shared = fasterseg::Nothing;
  static constexpr int kThreads = 64;
  template <class Team> static void run(Team &team, const Params &, Shared &) {
    if (team.thread() < 32) {
      team.sync();
    }
  }
};

} // namespace

extern "C" {

int32_t emulator_rotate(float *values, int32_t synced) {
  return fasterseg::launch<Rotate>({1, 1, 1}, {values, synced != 0}, nullptr);
}

int32_t emulator_forsake(void) { return fasterseg::launch<Forsake>({1, 1, 1}, 0, nullptr); }

// sizeof the argument structs and the offset of each one's last field.
void emulator_layouts(int32_t *bytes) {
  bytes[0] = sizeof(FasterSegNormalizeBgr);
  bytes[1] = offsetof(FasterSegNormalizeBgr, std);
  bytes[2] = sizeof(FasterSegUpsampleArgmax);
  bytes[3] = offsetof(FasterSegUpsampleArgmax, palette);
  bytes[4] = sizeof(FasterSegZoomedConv);
  bytes[5] = offsetof(FasterSegZoomedConv, stride);
  bytes[6] = sizeof(FasterSegResize);
  bytes[7] = offsetof(FasterSegResize, relu);
}

void emulator_order(uint32_t order) { emulator::order = order; }

// cells and weights of all targets, and the first target of every cell and the end.
void emulator_places(int32_t sources, int32_t targets, int32_t *cells, float *weights,
                     int32_t *firsts) {
  for (int target = 0; target < targets; ++target) {
    const fasterseg::Place place = fasterseg::place_of(target, sources, targets);
    cells[target] = place.cell;
    weights[target] = place.weight;
  }
  for (int cell = 0; cell <= fasterseg::cells_of(sources); ++cell) {
    firsts[cell] = fasterseg::first_target(cell, sources, targets);
  }
}

// How many targets and cells of an axis differ from place_of and first_target.
int32_t emulator_axis(int32_t sources, int32_t targets) {
  const fasterseg::Axis axis = fasterseg::axis_of(sources, targets);
  int32_t wrong = 0;
  for (int target = 0; target < targets; ++target) {
    const fasterseg::Place got = fasterseg::place_on(axis, target);
    const fasterseg::Place exact = fasterseg::place_of(target, sources, targets);
    wrong += got.cell != exact.cell || got.weight != exact.weight;
  }
  for (int cell = 0; targets > sources && cell <= fasterseg::cells_of(sources); ++cell) {
    wrong += fasterseg::first_on(axis, cell) != fasterseg::first_target(cell, sources, targets);
  }
  return wrong;
}

// A resize by one of its bodies (0: copy, 1 and 2: gather that many rows, 3: expand), and which
// one the library takes for a call.
int32_t emulator_resize(const FasterSegResize *arguments, int32_t body) {
  using namespace fasterseg::resize;
  const int32_t status = status_of(*arguments);
  return status ? status : run(*arguments, static_cast<Body>(body), nullptr);
}

int32_t emulator_resize_body(const FasterSegResize *arguments) {
  return static_cast<int32_t>(fasterseg::resize::body_of(*arguments));
}

// Which halves a resize with ReLU gives for `halves`, in place.
void emulator_rectified(uint16_t *halves, int64_t count) {
  for (int64_t index = 0; index < count; ++index) {
    halves[index] = fasterseg::rectified(fasterseg::Half{halves[index]}).bits;
  }
}

float emulator_blend(float a, float b, float weight) { return fasterseg::blend(a, b, weight); }

void emulator_to_float(const uint16_t *halves, float *floats, int64_t count) {
  for (int64_t index = 0; index < count; ++index) {
    floats[index] = fasterseg::to_float(fasterseg::Half{halves[index]});
  }
}

void emulator_to_half(const float *floats, uint16_t *halves, int64_t count) {
  for (int64_t index = 0; index < count; ++index) {
    halves[index] = fasterseg::to_half(floats[index]).bits;
  }
}

// (256,) normalised values of one channel.
void emulator_affine(double mean, double std, float *values) {
  const fasterseg::normalize::Affine affine = fasterseg::normalize::affine_of(mean, std);
  for (int value = 0; value < 256; ++value) {
    values[value] = fasterseg::normalize::apply(affine, value);
  }
}

// (256, 256) of frame value by colour value.
void emulator_mix(float alpha, uint8_t *mixed) {
  for (int at = 0; at < 256 * 256; ++at) {
    mixed[at] = fasterseg::tail::mix(static_cast<uint8_t>(at / 256), static_cast<uint8_t>(at % 256),
                                     alpha);
  }
}

// Byte offsets in shared memory that the 32 lanes of a warp name to ldmatrix.
void emulator_patch_offsets(int32_t row, int32_t col, int32_t group, int32_t *bytes) {
  for (int lane = 0; lane < 32; ++lane) {
    bytes[lane] = 16 * fasterseg::zoomed::patch_vector(row, col, group, lane);
  }
}

void emulator_weight_offsets(int32_t tap, int32_t pair, int32_t group, int32_t *bytes) {
  for (int lane = 0; lane < 32; ++lane) {
    bytes[lane] = 16 * fasterseg::zoomed::weight_vector(tap, pair, group, lane);
  }
}

void emulator_result_offsets(int32_t band, int32_t row, int32_t eight, int32_t part,
                             int32_t *bytes) {
  for (int lane = 0; lane < 32; ++lane) {
    bytes[lane] = 4 * fasterseg::zoomed::result_at(band, row, eight, part, lane);
  }
}

// (tiles of a restoring launch, 4): rows, then columns of the output that each writes.
int32_t emulator_restored(int32_t rows, int32_t cols, int32_t out_rows, int32_t out_cols,
                          int32_t *spans) {
  using namespace fasterseg;
  using namespace fasterseg::zoomed;
  const int tiles = tiles_down<true>(rows) * tiles_across<true>(cols);
  for (int number = 0; number < tiles && spans; ++number) {
    const Tile tile = tile_of<true>(number, cols);
    spans[4 * number] = first_target(tile.row, rows, out_rows);
    spans[4 * number + 1] = first_target(tile.row + kTileRows - 1, rows, out_rows);
    spans[4 * number + 2] = first_target(tile.col, cols, out_cols);
    spans[4 * number + 3] = first_target(tile.col + kTileCols - 1, cols, out_cols);
  }
  return tiles;
}
}
