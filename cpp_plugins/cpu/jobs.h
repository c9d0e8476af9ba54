// What the part compiled for every CPU hands to the kernels of one instruction set.
#pragma once

#include <stdint.h>

namespace fasterseg::cpu {

constexpr int kMostLanes = 16; // floats of the widest vector
constexpr int kWidestTile = 512;
constexpr int kGroup = 256;    // pixels that blend handles at once

// Logits (height, width) grow to labels. Column arrays are padded by kMostLanes. The scratch holds
// 2 * classes * pitch floats from an address that is a multiple of 64 bytes.
struct Labelling {
  const float *logits;
  uint8_t *labels;
  int classes, height, width;
  int out_height, out_width;
  int tile;  // label columns handled at once, a multiple of kMostLanes up to kWidestTile
  int pitch; // floats from class to class in the scratch, over tile by kMostLanes
  bool same_columns; // a label column per logit column: nothing to interpolate along rows
  const int *row_cell;        // of each label row
  const float *row_weight;    // of the lower logit row
  const int *column_cell;     // of each label column
  const int *first_column;    // of each cell; one more entry ends the last
  const float *column_weight; // of the right logit
};

struct Blending {
  const uint8_t *frame; // NULL: colours only
  const uint8_t *labels;
  const uint8_t *palette;
  uint8_t *output;
  float frame_share;
  const float *products; // (256, 4): colour times its share; the fourth is 0
};

struct Normalizing {
  const uint8_t *frames;
  float *output;
  int64_t plane;           // pixels of one image
  double scale[3], shift[3]; // RGB
  bool exact;              // value * scale + shift gives what the table holds
  const float *table;      // (3, 256), RGB
};

// The kernels of one instruction set. Rows count through the batch.
struct Kernels {
  void (*label)(const Labelling &job, int64_t first_row, int64_t end_row, float *scratch);
  void (*blend)(const Blending &job, int64_t first_pixel, int64_t end_pixel);
  void (*normalize)(const Normalizing &job, int64_t first_pixel, int64_t end_pixel);
};

extern const Kernels kAvx512, kAvx2, kNeon, kBaseline;

} // namespace fasterseg::cpu
