// Class logits at 1/8 to class ids at full size, bilinear with align_corners: kernel body.
//
// A block labels one row of cells (the 8 or 9 label rows between two rows of logits) over
// kThreads columns; each thread walks down its own column, so the horizontal interpolation is
// done twice per class and column instead of once per pixel.
//
// Most classes cannot win inside a cell: an interpolated logit lies between the least and the
// greatest of its four corners, so a class whose greatest corner is below the best least corner
// of any class is never looked at. Exact: ties survive the comparison and go to the first class.
#pragma once

#include "bilinear.h"
#include "half.h"

namespace fasterseg::tail {

constexpr int kScale = 8;
constexpr int kThreads = 128;
constexpr int kWarps = kThreads / 32;
constexpr int kClasses = 32; // handled together: one per lane
// A row of 128 labels spans at most 16 cell widths, so touches 17 cells and 18 logits.
constexpr int kCells = (kThreads - 1 + kScale - 1) / kScale + 1;
constexpr int kColumns = kCells + 1;
constexpr int kPlane = 2 * kColumns + 1; // odd: lanes of different classes meet different banks
constexpr int kRows = 9;                 // rows of a cell taken at once: all, for maps over 8 rows
constexpr float kLowest = -3.402823466e38f;

struct Params {
  const void *logits;
  uint8_t *labels;
  uint8_t *overlay;
  const uint8_t *frames;
  const uint8_t *palette;
  int height, width, out_height, out_width;
  int classes;
  int pixel_step, class_step; // values from logit to logit along a row; from class to class
  int image_values;           // from image to image
  float alpha;
};

struct Shared {
  float logits[kClasses * kPlane];
  float floor[kCells];     // best least corner of the classes seen so far
  uint32_t alive[kCells];  // classes of this step that may win in the cell
  float row_weight[kRows];
};

// What a thread keeps for its column.
struct Column {
  int cell; // in the block
  float weight;
};

template <class T, class Team>
FSG_KERNEL_FN void stage(Team &team, const Params &p, Shared &shared, const T *logits, int row,
                         int first_column, int first_class) {
  const int below = p.height > 1 ? 1 : 0;
  const bool pixel_major = p.class_step == 1;
  // Consecutive threads read consecutive values in either layout.
  for (int item = team.thread(); item < 2 * kColumns * kClasses; item += kThreads) {
    const int index = pixel_major ? item % kClasses : item / (2 * kColumns);
    const int place = pixel_major ? item / kClasses : item % (2 * kColumns);
    const int y = row + place / kColumns * below;
    const int x = at_most(first_column + place % kColumns, p.width - 1);
    const int number = first_class + index;
    float value = kLowest;
    if (number < p.classes) {
      value = to_float(logits[(y * p.width + x) * p.pixel_step + number * p.class_step]);
    }
    shared.logits[index * kPlane + place] = value;
  }
}

// Which classes of this step can win in each cell: one class per lane, one cell per warp at a time.
template <class Team>
FSG_KERNEL_FN void prune(Team &team, const Params &p, Shared &shared, int first_class) {
  const float *const own = shared.logits + team.lane() * kPlane;
  const bool real = first_class + team.lane() < p.classes;
  for (int cell = team.warp(); cell < kCells; cell += kWarps) {
    const float least = fminf(fminf(own[cell], own[cell + 1]),
                              fminf(own[kColumns + cell], own[kColumns + cell + 1]));
    const float most = fmaxf(fmaxf(own[cell], own[cell + 1]),
                             fmaxf(own[kColumns + cell], own[kColumns + cell + 1]));
    const float known = first_class > 0 ? shared.floor[cell] : kLowest;
    const float floor = fmaxf(team.warp_max(least), known);
    const uint32_t alive = team.ballot(real && most >= floor);
    team.sync_warp();
    if (team.lane() == 0) {
      shared.floor[cell] = floor;
      shared.alive[cell] = alive;
    }
  }
}

// Lets the living classes of this step compete for `rows` pixels down one column.
FSG_KERNEL_FN void compete(const Shared &shared, const Column &column, int first_class,
                           float (&best)[kRows], int (&winner)[kRows]) {
  float row_weight[kRows];
  FSG_UNROLL
  for (int row = 0; row < kRows; ++row) {
    row_weight[row] = shared.row_weight[row];
  }
  for (uint32_t alive = shared.alive[column.cell]; alive != 0; alive &= alive - 1) {
#if defined(__CUDA_ARCH__)
    const int index = __ffs(static_cast<int>(alive)) - 1;
#else
    const int index = __builtin_ctz(alive);
#endif
    const float *const corner = shared.logits + index * kPlane + column.cell;
    const float top = blend(corner[0], corner[1], column.weight);
    const float bottom = blend(corner[kColumns], corner[kColumns + 1], column.weight);
    FSG_UNROLL
    for (int row = 0; row < kRows; ++row) {
      const float value = blend(top, bottom, row_weight[row]);
      if (value > best[row]) {
        best[row] = value;
        winner[row] = first_class + index;
      }
    }
  }
}

// As cv2.addWeighted: the weighted sum in float32, to nearest with ties to even.
FSG_FN uint8_t mix(uint8_t frame, uint8_t colour, float alpha) {
  const float sum = fmaf(static_cast<float>(frame), 1.0f - alpha,
                         static_cast<float>(colour) * alpha);
  return static_cast<uint8_t>(rintf(fminf(fmaxf(sum, 0.0f), 255.0f)));
}

template <bool kOverlay, class Team>
FSG_KERNEL_FN void write(Team &team, const Params &p, int y, int x, int winner) {
  const int64_t pixel =
      (static_cast<int64_t>(team.image()) * p.out_height + y) * p.out_width + x;
  p.labels[pixel] = static_cast<uint8_t>(winner);
  if constexpr (kOverlay) {
    FSG_UNROLL
    for (int channel = 0; channel < 3; ++channel) {
      const uint8_t colour = p.palette[3 * winner + channel];
      const int64_t at = 3 * pixel + channel;
      p.overlay[at] = p.frames ? mix(p.frames[at], colour, p.alpha) : colour;
    }
  }
}

// Block (tile, slice, image): columns from tile * kThreads, row of cells `slice`.
template <class T, bool kOverlay, class Team>
FSG_KERNEL_FN void label(Team &team, const Params &p, Shared &shared) {
  const T *const logits = image_of(static_cast<const T *>(p.logits), team.image(), p.image_values);
  const int full_height = kScale * p.height, full_width = kScale * p.width;
  const int x0 = team.tile() * kThreads, row = team.slice();
  const int first_column = place_of(x0, p.width, full_width).cell;
  const int x = x0 + team.thread();
  const bool inside = x < p.out_width;
  const Place place = place_of(inside ? x : x0, p.width, full_width);
  const Column column = {place.cell - first_column, place.weight};
  const int end = at_most(first_target(row + 1, p.height, full_height), p.out_height);
  FSG_NO_UNROLL
  for (int y0 = first_target(row, p.height, full_height); y0 < end; y0 += kRows) {
    if (team.thread() < kRows) {
      const int y = at_most(y0 + team.thread(), end - 1);
      shared.row_weight[team.thread()] = place_of(y, p.height, full_height).weight;
    }
    float best[kRows];
    int winner[kRows];
    FSG_UNROLL
    for (int index = 0; index < kRows; ++index) {
      best[index] = -INFINITY;
      winner[index] = 0;
    }
    FSG_NO_UNROLL
    for (int first_class = 0; first_class < p.classes; first_class += kClasses) {
      stage<T>(team, p, shared, logits, row, first_column, first_class);
      team.sync();
      prune(team, p, shared, first_class);
      team.sync();
      compete(shared, column, first_class, best, winner);
      team.sync();
    }
    FSG_UNROLL
    for (int index = 0; index < kRows; ++index) {
      if (inside && y0 + index < end) {
        write<kOverlay>(team, p, y0 + index, x, winner[index]);
      }
    }
  }
}

} // namespace fasterseg::tail
