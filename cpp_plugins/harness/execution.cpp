#include "execution.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>

#include "half.h"
#include "reference.h"

namespace harness {
namespace {

using nvinfer1::PluginTensorDesc;

int extent(const Shape &shape, size_t axis) { return static_cast<int>(shape.at(axis)); }

size_t volume(const Shape &shape) {
  size_t values = 1;
  for (const int64_t length : shape) {
    values *= static_cast<size_t>(length);
  }
  return values;
}

// Where each planar value lies in its format, and how many places there are.
struct Places {
  std::vector<size_t> of;
  size_t count;
};

Places places_of(const Shape &shape, TensorFormat format) {
  const size_t values = volume(shape);
  Places places = {std::vector<size_t>(values), values};
  if (format == TensorFormat::kLINEAR) {
    for (size_t index = 0; index < values; ++index) {
      places.of[index] = index;
    }
    return places;
  }
  const auto channels = static_cast<size_t>(shape[1]);
  const size_t pixels = values / static_cast<size_t>(shape[0]) / channels;
  const size_t pitch = (channels + 7) / 8 * 8; // kHWC8
  for (size_t index = 0; index < values; ++index) {
    const size_t image = index / (channels * pixels);
    places.of[index] = (image * pixels + index % pixels) * pitch + index / pixels % channels;
  }
  places.count = static_cast<size_t>(shape[0]) * pixels * pitch;
  return places;
}

size_t width_of(DataType type) {
  return type == DataType::kFLOAT ? 4 : type == DataType::kHALF ? 2 : 1;
}

// Places that hold no value are NaN: a plugin that reads one shows it.
Bytes encoded(const Values &values, const Shape &shape, const Layout &layout) {
  const Places places = places_of(shape, layout.format);
  const size_t width = width_of(layout.type);
  Bytes bytes(places.count * width, 0xff);
  for (size_t index = 0; index < values.size(); ++index) {
    uint8_t *const to = bytes.data() + places.of[index] * width;
    const auto single = static_cast<float>(values[index]);
    const fasterseg::Half half = fasterseg::to_half(single);
    std::memcpy(to, layout.type == DataType::kHALF ? static_cast<const void *>(&half) : &single,
                width);
  }
  return bytes;
}

Values decoded(const Bytes &bytes, const Shape &shape, const Layout &layout) {
  const Places places = places_of(shape, layout.format);
  Values values;
  for (const size_t place : places.of) {
    if (layout.type == DataType::kINT8) {
      values.push_back(static_cast<int8_t>(bytes[place]));
    } else {
      fasterseg::Half half;
      std::memcpy(&half, bytes.data() + place * sizeof half, sizeof half);
      values.push_back(fasterseg::to_float(half));
    }
  }
  return values;
}

// Random values that fp16 holds, so every layout is given the same.
std::vector<Values> random_inputs(const Node &node) {
  std::mt19937 random(7);
  std::normal_distribution<double> normal;
  std::vector<Values> inputs;
  for (const Tensor &input : node.inputs) {
    const bool weight = input.shape.size() == 4 && !inputs.empty();
    const double scale = weight ? 1 / std::sqrt(9.0 * static_cast<double>(input.shape[1])) : 1.0;
    Values values(volume(input.shape));
    std::generate(values.begin(), values.end(), [&] { return to_fp16(scale * normal(random)); });
    inputs.push_back(values);
  }
  return inputs;
}

void compare_labels(const Node &node, const Values &logits, const Values &got, Report &report) {
  const Shape &shape = node.inputs[0].shape;
  const Labels expected = upsample_argmax(logits, extent(shape, 0), extent(shape, 1),
                                          extent(shape, 2), extent(shape, 3));
  size_t wrong = 0, different = 0;
  for (size_t pixel = 0; pixel < got.size(); ++pixel) {
    const bool differs = expected.ids[pixel] != static_cast<int>(got[pixel]);
    different += differs;
    wrong += differs && expected.clearance[pixel] > 1e-4;
  }
  report.check(wrong == 0 && different * 1000 <= got.size(), "labels equal the reference",
               std::to_string(different) + " of " + std::to_string(got.size()) + " differ, " +
                   std::to_string(wrong) + " of them beyond doubt");
}

void compare_maps(const Node &node, const std::vector<Values> &inputs, const Values &got,
                  Report &report) {
  const Shape &shape = node.inputs[0].shape;
  std::vector<Convolution> convolutions;
  for (int conv = 0; conv < convs_of(node); ++conv) {
    const size_t weight = 1 + 2 * static_cast<size_t>(conv);
    convolutions.push_back({inputs[weight], inputs[weight + 1]});
  }
  const Map input = {extent(shape, 0), extent(shape, 1), extent(shape, 2), extent(shape, 3),
                     inputs[0]};
  const Map expected = zoomed_conv(input, convolutions, stride_of(node));
  double worst = 0.0, total = 0.0;
  for (size_t index = 0; index < got.size(); ++index) {
    const double error = std::abs(got[index] - expected.values[index]);
    const double excess = error - 1e-3 * std::abs(expected.values[index]);
    worst = std::isnan(error) ? HUGE_VAL : std::max(worst, excess);
    total += error;
  }
  const double mean = total / static_cast<double>(got.size());
  report.check(worst <= 1e-3 && mean <= 3e-4, "maps equal the reference",
               "mean error " + std::to_string(mean) + ", worst " + std::to_string(worst));
}

// One call's tensors and workspace in a memory.
class Call {
public:
  Call(Memory &memory, const Node &node, const std::vector<Layout> &layouts,
       const std::vector<Values> &inputs, nvinfer1::IPluginV3 &plugin)
      : tensors_(descriptors(node, layouts)), runtime_(*runtime_of(plugin)) {
    for (size_t index = 0; index < inputs.size(); ++index) {
      given_.push_back(encoded(inputs[index], node.inputs[index].shape, layouts[index]));
      inputs_.push_back(std::make_unique<Buffer>(memory, given_.back().size()));
      inputs_.back()->set(given_.back());
      pointers_.push_back(inputs_.back()->pointer());
    }
    const Layout &out = layouts.back();
    const size_t places = places_of(node.output.shape, out.format).count;
    output_ = std::make_unique<Buffer>(memory, places * width_of(out.type));
    workspace_ = std::make_unique<Buffer>(memory, workspace_of(plugin, tensors_));
  }

  int32_t prepare() {
    const auto inputs = static_cast<int32_t>(inputs_.size());
    return runtime_.onShapeChange(tensors_.data(), inputs, &tensors_.back(), 1);
  }

  int32_t enqueue(cudaStream_t stream) {
    void *const outputs[] = {output_->pointer()};
    return runtime_.enqueue(tensors_.data(), &tensors_.back(), pointers_.data(), outputs,
                            workspace_->pointer(), stream);
  }

  void poison() {
    output_->poison();
    workspace_->poison();
  }

  Bytes output() const { return output_->get(); }

  bool intact() const {
    bool result = output_->intact() && workspace_->intact();
    for (size_t index = 0; index < inputs_.size(); ++index) {
      result = result && inputs_[index]->intact() && inputs_[index]->get() == given_[index];
    }
    return result;
  }

private:
  std::vector<PluginTensorDesc> tensors_;
  nvinfer1::IPluginV3OneRuntime &runtime_;
  std::vector<Bytes> given_;
  std::vector<std::unique_ptr<Buffer>> inputs_;
  std::vector<const void *> pointers_;
  std::unique_ptr<Buffer> output_, workspace_;
};

} // namespace

void check_results(const Library &library, const Node &node, Memory &memory, Report &report) {
  const std::vector<Values> inputs = random_inputs(node);
  const PluginPointer plugin = revived(library, node, report);
  if (!plugin) {
    return;
  }
  for (const std::vector<Layout> &layouts : layouts_of(node)) {
    Call call(memory, node, layouts, inputs, *plugin);
    report.check(call.prepare() == 0, "prepared for the sizes");
    const std::string wrong = memory.run([&](cudaStream_t stream) { return call.enqueue(stream); },
                                         [&] { call.poison(); });
    if (!report.check(wrong.empty(), "enqueued", wrong)) {
      continue;
    }
    const Values got = decoded(call.output(), node.output.shape, layouts.back());
    if (convs_of(node) == 0) {
      compare_labels(node, inputs[0], got, report);
    } else {
      compare_maps(node, inputs, got, report);
    }
    report.check(call.intact(), "nothing but output and workspace is written");
  }
}

void check_no_device(const Library &library, Logger &logger, const Node &node, Report &report) {
  const PluginPointer plugin = revived(library, node, report);
  if (!plugin) {
    return;
  }
  const std::unique_ptr<Memory> memory = host_memory();
  Call call(*memory, node, layouts_of(node)[0], random_inputs(node), *plugin);
  report.check(call.prepare() == 0, "prepared for the sizes");
  logger.taken();
  report.check(call.enqueue(nullptr) != 0, "enqueue without a GPU is an error");
  report.check(logger.taken().size() == (library.shares_loggers() ? 1 : 0), "and is logged");
}

} // namespace harness
