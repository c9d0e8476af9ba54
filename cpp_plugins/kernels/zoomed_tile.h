// The tile that a block of zoomed_conv.h convolves: its geometry, and how its pixels (resized on
// the way) and weights come from global to shared memory.
#pragma once

#include "bilinear.h"
#include "half.h"

namespace fasterseg::zoomed {

constexpr int kTileRows = 8, kTileCols = 16;
constexpr int kPatchRows = kTileRows + 2, kPatchCols = kTileCols + 2;
constexpr int kPatchPixels = kPatchRows * kPatchCols;
constexpr int kThreads = 256;
constexpr int kOut = 32;              // output channels of a block
constexpr int kChunk = 32;            // input channels of a step, 16 to each half of the warps
constexpr int kVectors = kChunk / 8;  // 16-byte vectors of a pixel
// 80 bytes from pixel to pixel: the eight rows that an ldmatrix phase reads start in different
// banks (5 is odd, so 5 * i mod 8 runs through all eight 16-byte columns).
constexpr int kPitch = kVectors + 1;
constexpr int kTaps = 9;
constexpr int kWeightRows = kOut * kTaps;
constexpr int kPatchLoads = (kPatchPixels * kVectors + kThreads - 1) / kThreads;
constexpr int kWeightLoads = (kWeightRows * kVectors + kThreads - 1) / kThreads;
struct Params {
  const Half8 *input;
  const Half8 *weight; // (out_channels, 9, in_channels)
  const float *bias;
  Half8 *output;
  int in_rows, in_cols, in_channels;
  int rows, cols; // of the convolved map
  int out_rows, out_cols, out_channels;
};

struct Stage {
  Half8 patch[kPatchPixels * kPitch];
  Half8 weights[kWeightRows * kPitch];
};

template <bool kRestore> FSG_FN int tiles_down(int rows) {
  return kRestore ? ceil_div(cells_of(rows), kTileRows - 1) : ceil_div(rows, kTileRows);
}

template <bool kRestore> FSG_FN int tiles_across(int cols) {
  return kRestore ? ceil_div(cells_of(cols), kTileCols - 1) : ceil_div(cols, kTileCols);
}

// First pixel of the block's tile on the convolved map.
struct Tile {
  int row, col;
};

template <bool kRestore> FSG_FN Tile tile_of(int number, int cols) {
  const int across = tiles_across<kRestore>(cols);
  return {number / across * (kTileRows - kRestore), number % across * (kTileCols - kRestore)};
}

// Where one 16-byte vector of the patch comes from; the same for every chunk.
struct Source {
  int at;  // vector of the upper left tap in the image, negative: outside the map, so zero
  float row_weight, col_weight;
};

template <bool kHalve> FSG_FN Source source_of(const Params &p, const Tile &tile, int item) {
  const int pixel = item / kVectors, vector = item % kVectors;
  const int y = tile.row - 1 + pixel / kPatchCols, x = tile.col - 1 + pixel % kPatchCols;
  if (pixel >= kPatchPixels || y < 0 || y >= p.rows || x < 0 || x >= p.cols) {
    return {-1, 0.0f, 0.0f};
  }
  const int vectors = p.in_channels / 8;
  if constexpr (kHalve) {
    const Place row = place_of(y, p.in_rows, p.rows), col = place_of(x, p.in_cols, p.cols);
    return {(row.cell * p.in_cols + col.cell) * vectors + vector, row.weight, col.weight};
  }
  return {(y * p.in_cols + x) * vectors + vector, 0.0f, 0.0f};
}

// One chunk on its way from global memory: registers of one thread.
template <bool kHalve> struct Flight {
  static constexpr int kTapsOfPixel = kHalve ? 4 : 1;
  Half8 patch[kPatchLoads][kTapsOfPixel];
  Half8 weights[kWeightLoads];
};

template <bool kHalve, class Team>
FSG_KERNEL_FN void fetch(Team &team, const Params &p, const Half8 *input,
                         const Source (&sources)[kPatchLoads], int chunk, Flight<kHalve> &flight) {
  const int vectors = p.in_channels / 8, first = chunk * kVectors;
  // Threads are a multiple of kVectors, so all items of one thread are the same vector of a pixel.
  const bool filled = first + team.thread() % kVectors < vectors;
  FSG_UNROLL
  for (int load_number = 0; load_number < kPatchLoads; ++load_number) {
    const Source &source = sources[load_number];
    Half8 *const taps = flight.patch[load_number];
    const bool real = filled && source.at >= 0;
    const Half8 *const from = input + (real ? source.at + first : 0);
    taps[0] = real ? load(from) : zeros();
    if constexpr (kHalve) {
      const int below = p.in_cols * vectors;
      taps[1] = real ? load(from + vectors) : zeros();
      taps[2] = real ? load(from + below) : zeros();
      taps[3] = real ? load(from + below + vectors) : zeros();
    }
  }
  const int first_row = team.slice() * kWeightRows, rows = p.out_channels * kTaps;
  FSG_UNROLL
  for (int load_number = 0; load_number < kWeightLoads; ++load_number) {
    const int item = team.thread() + load_number * kThreads;
    const int row = first_row + item / kVectors;
    const bool real = filled && item < kWeightRows * kVectors && row < rows;
    const int at = row * vectors + first + item % kVectors;
    flight.weights[load_number] = real ? load(p.weight + at) : zeros();
  }
}

FSG_KERNEL_FN Half8 between(const Half8 (&taps)[4], const Source &source) {
  Half8 result;
  FSG_UNROLL
  for (int word = 0; word < 4; ++word) {
    float value[4][2];
    FSG_UNROLL
    for (int tap = 0; tap < 4; ++tap) {
      unpack(taps[tap].word[word], value[tap][0], value[tap][1]);
    }
    float mixed[2];
    FSG_UNROLL
    for (int half = 0; half < 2; ++half) {
      const float top = blend(value[0][half], value[1][half], source.col_weight);
      const float bottom = blend(value[2][half], value[3][half], source.col_weight);
      mixed[half] = blend(top, bottom, source.row_weight);
    }
    result.word[word] = pack(mixed[0], mixed[1]);
  }
  return result;
}

template <bool kHalve, class Team>
FSG_KERNEL_FN void land(Team &team, const Flight<kHalve> &flight,
                        const Source (&sources)[kPatchLoads], Stage &stage) {
  FSG_UNROLL
  for (int number = 0; number < kPatchLoads; ++number) {
    const int item = team.thread() + number * kThreads;
    if (item < kPatchPixels * kVectors) {
      Half8 &to = stage.patch[item / kVectors * kPitch + item % kVectors];
      if constexpr (kHalve) {
        to = between(flight.patch[number], sources[number]);
      } else {
        to = flight.patch[number][0];
      }
    }
  }
  FSG_UNROLL
  for (int number = 0; number < kWeightLoads; ++number) {
    const int item = team.thread() + number * kThreads;
    if (item < kWeightRows * kVectors) {
      stage.weights[item / kVectors * kPitch + item % kVectors] = flight.weights[number];
    }
  }
}

} // namespace fasterseg::zoomed
