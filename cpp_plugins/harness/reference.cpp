#include "reference.h"

#include <algorithm>
#include <limits>

#include "half.h"

namespace harness {
namespace {

// Place of a target between its sources, align_corners.
struct Between {
  int low, high;
  double weight;
};

Between between(int target, int sources, int targets) {
  if (targets == 1 || sources == 1) {
    return {0, 0, 0.0};
  }
  const double at = static_cast<double>(target) * (sources - 1) / (targets - 1);
  const int low = std::min(static_cast<int>(at), sources - 1);
  return {low, std::min(low + 1, sources - 1), at - low};
}

Map resized(const Map &map, int height, int width) {
  Map result = {map.batch, map.channels, height, width, {}};
  result.values.reserve(static_cast<size_t>(map.batch) * map.channels * height * width);
  for (int plane = 0; plane < map.batch * map.channels; ++plane) {
    const double *const from =
        map.values.data() + static_cast<size_t>(plane) * map.height * map.width;
    for (int y = 0; y < height; ++y) {
      const Between row = between(y, map.height, height);
      for (int x = 0; x < width; ++x) {
        const Between col = between(x, map.width, width);
        const auto across = [&](int line) {
          const double *const values = from + static_cast<size_t>(line) * map.width;
          return (1 - col.weight) * values[col.low] + col.weight * values[col.high];
        };
        result.values.push_back((1 - row.weight) * across(row.low) + row.weight * across(row.high));
      }
    }
  }
  return result;
}

// One sum of the 3x3 convolution; outside the map are zeros.
double sum_at(const Map &map, const Convolution &conv, int image, int out, int y, int x) {
  double sum = conv.bias[static_cast<size_t>(out)];
  for (int channel = 0; channel < map.channels; ++channel) {
    const size_t plane = static_cast<size_t>(image * map.channels + channel) * map.height;
    for (int tap = 0; tap < 9; ++tap) {
      const int row = y + tap / 3 - 1, col = x + tap % 3 - 1;
      if (row >= 0 && row < map.height && col >= 0 && col < map.width) {
        sum += map.values[(plane + row) * map.width + col] *
               conv.weight[static_cast<size_t>(out * map.channels + channel) * 9 + tap];
      }
    }
  }
  return sum;
}

Map convolved(const Map &map, const Convolution &conv) {
  Map result = {map.batch, static_cast<int>(conv.bias.size()), map.height, map.width, {}};
  for (int image = 0; image < result.batch; ++image) {
    for (int out = 0; out < result.channels; ++out) {
      for (int y = 0; y < map.height; ++y) {
        for (int x = 0; x < map.width; ++x) {
          result.values.push_back(sum_at(map, conv, image, out, y, x));
        }
      }
    }
  }
  return result;
}

void rectify(Map &map) {
  for (double &value : map.values) {
    value = std::max(value, 0.0);
  }
}

void round_to_fp16(Map &map) {
  for (double &value : map.values) {
    value = to_fp16(value);
  }
}

} // namespace

double to_fp16(double value) {
  return fasterseg::to_float(fasterseg::to_half(static_cast<float>(value)));
}

Labels upsample_argmax(const Values &logits, int batch, int classes, int height, int width) {
  const Map full = resized({batch, classes, height, width, logits}, 8 * height, 8 * width);
  const size_t pixels = static_cast<size_t>(full.height) * full.width;
  Labels labels;
  for (int image = 0; image < batch; ++image) {
    for (size_t pixel = 0; pixel < pixels; ++pixel) {
      double best = -std::numeric_limits<double>::infinity(), second = best;
      int winner = 0;
      for (int id = 0; id < classes; ++id) {
        const size_t plane = static_cast<size_t>(image * classes + id);
        const double value = full.values[plane * pixels + pixel];
        second = std::max(second, std::min(value, best));
        winner = value > best ? id : winner;
        best = std::max(best, value);
      }
      labels.ids.push_back(winner);
      labels.clearance.push_back(best - second);
    }
  }
  return labels;
}

Map zoomed_conv(const Map &input, const std::vector<Convolution> &convolutions, int stride) {
  Map map = resized(input, input.height / 2, input.width / 2);
  round_to_fp16(map);
  map = convolved(map, convolutions[0]);
  if (convolutions.size() == 2) {
    rectify(map);
    round_to_fp16(map);
    map = convolved(map, convolutions[1]);
  }
  if (stride == 1) {
    map = resized(map, input.height, input.width);
  }
  rectify(map);
  return map;
}

} // namespace harness
