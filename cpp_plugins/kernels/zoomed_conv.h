// 3x3 convolution between two bilinear resizes, on tensor cores: kernel body.
//
// A block convolves a tile of the halved map, kTileRows x kTileCols pixels by kOut output channels,
// kChunk input channels at a time. The way down happens while the tile is loaded (four taps per
// pixel), the way up while the result leaves shared memory, so no map of full size but the input
// and the output exists. Restoring needs the pixel beyond each cell, so tiles that restore overlap
// by one row and one column.
//
// While the tensor cores work on one chunk, the next is on its way into registers: everything a
// block needs next is in flight at once, with one stage of shared memory, which fits the static
// limit of every architecture.
#pragma once

#include "zoomed_tile.h"

namespace fasterseg::zoomed {

constexpr int kResultPitch = kOut + 8; // floats: the fragments of a warp's store do not collide
// Rows and columns of the output that a restoring tile can write, at most (halved maps grow by a
// factor below 2 * 8 / 7 from eight rows on; smaller ones fit one tile).
constexpr int kMaxRows = 20, kMaxCols = 40;

// Where the output's rows and columns lie among those of the convolved map, for one tile.
struct Division {
  int first_row[kTileRows]; // first output row of each cell, and the end
  int first_col[kTileCols];
  float row_weight[kMaxRows];
  float col_weight[kMaxCols];
};

struct alignas(16) Result {
  float sums[kTileRows * kTileCols * kResultPitch];
  Division division;
};

// The result replaces the stage once the last product is done.
union alignas(16) Shared {
  Stage stage;
  Result result;
};

struct alignas(8) Float2 {
  float first, second;
};

// Eight sums of a pixel, from a multiple of four on.
FSG_KERNEL_FN Float8 eight_of(const float *sums) { return *reinterpret_cast<const Float8 *>(sums); }

// Vector of the patch that a lane names to ldmatrix: pixel lane % 16 of a patch row from `col`
// on, first or second eight of the warp's 16 channels.
FSG_FN int patch_vector(int row, int col, int group, int lane) {
  return (row * kPatchCols + col + lane % 16) * kPitch + group * 2 + lane / 16;
}

// Vector of the weights that a lane names to ldmatrix: 16 output channels from 16 * `pair` on.
FSG_FN int weight_vector(int tap, int pair, int group, int lane) {
  const int channel = pair * 16 + lane % 8 + lane / 16 * 8;
  return (channel * kTaps + tap) * kPitch + group * 2 + lane / 8 % 2;
}

// Sums of one warp: two rows of 16 pixels by four times eight output channels.
struct Sums {
  float of[2][4][4];
};

// A warp multiplies its two tile rows with its 16 of the chunk's 32 channels: eight warps are
// four bands of rows times two halves of the channels, so that few blocks still fill a
// multiprocessor with warps. Each patch row is read once and serves up to three taps.
template <class Team> FSG_KERNEL_FN void multiply(Team &team, const Stage &stage, Sums &sums) {
  const int group = team.warp() / 4, band = team.warp() % 4 * 2;
  FSG_UNROLL
  for (int dx = 0; dx < 3; ++dx) {
    uint32_t pixels[4][4];
    FSG_UNROLL
    for (int row = 0; row < 4; ++row) {
      team.load_matrices(pixels[row],
                         &stage.patch[patch_vector(band + row, dx, group, team.lane())]);
    }
    FSG_UNROLL
    for (int dy = 0; dy < 3; ++dy) {
      uint32_t weights[2][4];
      FSG_UNROLL
      for (int pair = 0; pair < 2; ++pair) {
        team.load_matrices(weights[pair],
                           &stage.weights[weight_vector(dy * 3 + dx, pair, group, team.lane())]);
      }
      FSG_UNROLL
      for (int row = 0; row < 2; ++row) {
        FSG_UNROLL
        for (int eight = 0; eight < 4; ++eight) {
          team.multiply_add(sums.of[row][eight], pixels[row + dy],
                            weights[eight / 2][eight % 2 * 2],
                            weights[eight / 2][eight % 2 * 2 + 1]);
        }
      }
    }
  }
}

// Where a lane's sums `part` (0: columns 0 and 1 of its row, 1: of the row eight below) belong.
FSG_FN int result_at(int band, int row, int eight, int part, int lane) {
  const int pixel = (band * 2 + row) * kTileCols + lane / 4 + part * 8;
  return pixel * kResultPitch + eight * 8 + lane % 4 * 2;
}

// Brings both halves of the channels and the bias together in shared memory.
template <class Team>
FSG_KERNEL_FN void collect(Team &team, const Params &p, const Sums &sums, float *result) {
  const int group = team.warp() / 4, band = team.warp() % 4;
  for (int turn = 1; turn >= 0; --turn) {
    if (group == turn) {
      FSG_UNROLL
      for (int eight = 0; eight < 4; ++eight) {
        const int channel = team.slice() * kOut + eight * 8 + team.lane() % 4 * 2;
        const bool real = turn == 0 && channel < p.out_channels;
        const float bias[2] = {real ? p.bias[channel] : 0.0f, real ? p.bias[channel + 1] : 0.0f};
        FSG_UNROLL
        for (int half = 0; half < 4; ++half) {
          const int row = half / 2, part = half % 2;
          float *const to = result + result_at(band, row, eight, part, team.lane());
          const float *const own = sums.of[row][eight] + part * 2;
          Float2 &pair = *reinterpret_cast<Float2 *>(to);
          const Float2 other = turn == 1 ? Float2{0.0f, 0.0f} : pair;
          pair = {own[0] + other.first + bias[0], own[1] + other.second + bias[1]};
        }
      }
    }
    team.sync();
  }
}

FSG_KERNEL_FN Half8 rectified(const Float8 &values) {
  Half8 result;
  FSG_UNROLL
  for (int word = 0; word < 4; ++word) {
    result.word[word] =
        pack(fmaxf(values.of[2 * word], 0.0f), fmaxf(values.of[2 * word + 1], 0.0f));
  }
  return result;
}

// ReLU and out, at the convolved map's own size.
template <class Team>
FSG_KERNEL_FN void emit(Team &team, const Params &p, const Tile &tile, const float *result,
                        Half8 *output) {
  const int vectors = p.out_channels / 8;
  for (int item = team.thread(); item < kTileRows * kTileCols * kVectors; item += kThreads) {
    const int pixel = item / kVectors, vector = team.slice() * (kOut / 8) + item % kVectors;
    const int y = tile.row + pixel / kTileCols, x = tile.col + pixel % kTileCols;
    if (y < p.rows && x < p.cols && vector < vectors) {
      const float *const sums = result + pixel * kResultPitch + item % kVectors * 8;
      output[(y * p.out_cols + x) * vectors + vector] = rectified(eight_of(sums));
    }
  }
}

// The division of the output among the tile's cells, once per block instead of once per pixel.
template <class Team>
FSG_KERNEL_FN void survey(Team &team, const Params &p, const Tile &tile, Division &division) {
  const int thread = team.thread();
  if (thread < kTileRows) {
    division.first_row[thread] = first_target(tile.row + thread, p.rows, p.out_rows);
  } else if (thread < kTileRows + kTileCols) {
    const int col = thread - kTileRows;
    division.first_col[col] = first_target(tile.col + col, p.cols, p.out_cols);
  } else if (thread >= 64 && thread < 64 + kMaxRows) {
    const int y = first_target(tile.row, p.rows, p.out_rows) + thread - 64;
    division.row_weight[thread - 64] =
        place_of(at_most(y, p.out_rows - 1), p.rows, p.out_rows).weight;
  } else if (thread >= 96 && thread < 96 + kMaxCols) {
    const int x = first_target(tile.col, p.cols, p.out_cols) + thread - 96;
    division.col_weight[thread - 96] =
        place_of(at_most(x, p.out_cols - 1), p.cols, p.out_cols).weight;
  }
}

// Bilinear back, ReLU and out. A thread does whole cells (about 2 x 2 pixels of the output), so
// each corner is read from shared memory once per row of pixels, not once per pixel.
template <class Team>
FSG_KERNEL_FN void restore(Team &team, const Params &p, const Result &result, Half8 *output) {
  const Division &division = result.division;
  const int vectors = p.out_channels / 8, vector = team.thread() % kVectors;
  const int written = team.slice() * (kOut / 8) + vector;
  if (written >= vectors) {
    return;
  }
  constexpr int kRight = kResultPitch, kBelow = kTileCols * kResultPitch;
  constexpr int kCellCols = kTileCols - 1, kCells = (kTileRows - 1) * kCellCols;
  for (int cell = team.thread() / kVectors; cell < kCells; cell += kThreads / kVectors) {
    const int row = cell / kCellCols, col = cell % kCellCols;
    const float *const corner =
        result.sums + (row * kTileCols + col) * kResultPitch + vector * 8;
    for (int y = division.first_row[row]; y < division.first_row[row + 1]; ++y) {
      const float row_weight = division.row_weight[y - division.first_row[0]];
      const Float8 west = blend(eight_of(corner), eight_of(corner + kBelow), row_weight);
      const Float8 east =
          blend(eight_of(corner + kRight), eight_of(corner + kRight + kBelow), row_weight);
      for (int x = division.first_col[col]; x < division.first_col[col + 1]; ++x) {
        const float col_weight = division.col_weight[x - division.first_col[0]];
        output[(y * p.out_cols + x) * vectors + written] =
            rectified(blend(west, east, col_weight));
      }
    }
  }
}

// Block (tile, slice, image): output channels from slice * kOut on.
template <bool kHalve, bool kRestore, class Team>
FSG_KERNEL_FN void convolve(Team &team, const Params &p, Shared &shared) {
  const Tile tile = tile_of<kRestore>(team.tile(), p.cols);
  const Half8 *const input =
      image_of(p.input, team.image(), p.in_rows * p.in_cols * (p.in_channels / 8));
  Half8 *const output =
      image_of(p.output, team.image(), p.out_rows * p.out_cols * (p.out_channels / 8));
  Source sources[kPatchLoads];
  FSG_UNROLL
  for (int number = 0; number < kPatchLoads; ++number) {
    sources[number] = source_of<kHalve>(p, tile, team.thread() + number * kThreads);
  }
  Sums sums = {};
  Flight<kHalve> flight;
  const int chunks = ceil_div(p.in_channels, kChunk);
  fetch(team, p, input, sources, 0, flight);
  FSG_NO_UNROLL
  for (int chunk = 0; chunk < chunks; ++chunk) {
    land(team, flight, sources, shared.stage);
    team.sync();
    if (chunk + 1 < chunks) {
      fetch(team, p, input, sources, chunk + 1, flight);
    }
    multiply(team, shared.stage, sums);
    team.sync();
  }
  if constexpr (kRestore) {
    survey(team, p, tile, shared.result.division);
  }
  collect(team, p, sums, shared.result.sums);
  if constexpr (kRestore) {
    restore(team, p, shared.result, output);
  } else {
    emit(team, p, tile, shared.result.sums, output);
  }
}

} // namespace fasterseg::zoomed
