#include "zoomed_conv_plugin.h"

#include <cstring>
#include <new>

#include "fasterseg_kernels.h"
#include "log.h"
#include "widen.h"

namespace fasterseg::trt {
namespace {

using nvinfer1::DataType;
using nvinfer1::Dims;
using nvinfer1::DimensionOperation;
using nvinfer1::DynamicPluginTensorDesc;
using nvinfer1::PluginField;
using nvinfer1::PluginFieldCollection;
using nvinfer1::PluginFieldType;
using nvinfer1::PluginTensorDesc;
using nvinfer1::TensorFormat;

struct Variant {
  const char *name;
  int convs, stride;
  int inputs() const { return 1 + 2 * convs; }
};

constexpr Variant kVariants[] = {
    {"ZoomedConv1xS1", 1, 1}, {"ZoomedConv1xS2", 1, 2},
    {"ZoomedConv2xS1", 2, 1}, {"ZoomedConv2xS2", 2, 2}};

const Variant &variant_of(int convs, int stride) { return kVariants[2 * convs + stride - 3]; }

// Inputs in order: x, weight1, bias1, weight2, bias2.
constexpr int kX = 0, kWeight1 = 1, kBias1 = 2, kWeight2 = 3, kBias2 = 4;

bool is_bias(int input) { return input > 0 && input % 2 == 0; }

// An attribute of four sizes (N, C, h, w); absent where the graph has free axes.
struct Sizes {
  bool given = false;
  int32_t of[4] = {};
};

struct Attributes {
  Sizes half, out;
};

constexpr const char *kHalfSizes = "half_sizes", *kOutSizes = "out_sizes";

const PluginField kDeclared[] = {{kHalfSizes, nullptr, PluginFieldType::kINT32, 4},
                                 {kOutSizes, nullptr, PluginFieldType::kINT32, 4}};

// Sizes of the kernel's arguments from the shapes of x and of the first weights.
FasterSegZoomedConv sizes_of(const Variant &variant, const Dims &x, const Dims &weight) {
  FasterSegZoomedConv arguments = {};
  arguments.batch = narrow(x.d[0]);
  arguments.in_channels = narrow(x.d[1]);
  arguments.height = narrow(x.d[2]);
  arguments.width = narrow(x.d[3]);
  arguments.out_channels = narrow(weight.d[0]);
  arguments.stride = variant.stride;
  // Whether there are second weights decides the workspace; where they lie comes later.
  arguments.weight2 = variant.convs == 2 ? &arguments : nullptr;
  return arguments;
}

class ZoomedConv final : public Plugin {
public:
  ZoomedConv(const Variant &variant, const Attributes &attributes)
      : Plugin(variant.name), variant_(variant), attributes_(attributes) {}

  nvinfer1::IPluginV3 *clone() noexcept override {
    return new (std::nothrow) ZoomedConv(variant_, attributes_);
  }

  int32_t getOutputDataTypes(DataType *outputs, int32_t, const DataType *inputs,
                             int32_t count) const noexcept override {
    if (count != variant_.inputs()) {
      return fail(variant_.name, "takes %d inputs, not %d", variant_.inputs(), count);
    }
    for (int index = 0; index < count; ++index) {
      const bool widened = is_bias(index) && inputs[index] == DataType::kFLOAT;
      if (inputs[index] != DataType::kHALF && !widened) {
        return fail(variant_.name, "input %d: maps and weights must be fp16, biases float32 or "
                    "fp16; build other precisions without this plugin", index);
      }
    }
    outputs[0] = DataType::kHALF;
    return 0;
  }

  int32_t getOutputShapes(const nvinfer1::DimsExprs *inputs, int32_t count,
                          const nvinfer1::DimsExprs *, int32_t, nvinfer1::DimsExprs *outputs,
                          int32_t, nvinfer1::IExprBuilder &builder) noexcept override {
    if (const int32_t status = check_shapes(inputs, count)) {
      return status;
    }
    const auto &x = inputs[kX].d;
    outputs[0].nbDims = 4;
    outputs[0].d[0] = x[0];
    outputs[0].d[1] = inputs[kWeight1].d[0];
    for (int axis = 2; axis < 4; ++axis) {
      outputs[0].d[axis] =
          variant_.stride == 1
              ? x[axis]
              : builder.operation(DimensionOperation::kFLOOR_DIV, *x[axis], *builder.constant(2));
    }
    return 0;
  }

  // The kernel reads weights as (O, 3, 3, I). That is what kHWC8 makes of (O, I, 3, 3), as I is a
  // multiple of eight: asking for this format lets TensorRT reorder the constants when it builds,
  // so nothing is left to repack while it runs.
  bool supportsFormatCombination(int32_t position, const DynamicPluginTensorDesc *tensors,
                                 int32_t inputs, int32_t) noexcept override {
    const PluginTensorDesc &tensor = tensors[position].desc;
    if (position == inputs || !is_bias(position)) {
      return is_half_hwc8(tensor);
    }
    return is_float_linear(tensor) &&
           (position == kBias1 || tensor.type == tensors[kBias1].desc.type);
  }

  size_t getWorkspaceSize(const DynamicPluginTensorDesc *inputs, int32_t,
                          const DynamicPluginTensorDesc *, int32_t) const noexcept override {
    const FasterSegZoomedConv sizes =
        sizes_of(variant_, inputs[kX].max, inputs[kWeight1].desc.dims);
    const int64_t bytes = fasterseg_zoomed_conv_workspace(&sizes);
    if (bytes < 0) {
      report(static_cast<int32_t>(bytes));
      return 0;
    }
    return static_cast<size_t>(bytes) + bias_bytes(sizes, inputs[kBias1].desc.type);
  }

  int32_t onShapeChange(const PluginTensorDesc *inputs, int32_t, const PluginTensorDesc *,
                        int32_t) noexcept override {
    const FasterSegZoomedConv sizes =
        sizes_of(variant_, inputs[kX].dims, inputs[kWeight1].dims);
    const int64_t bytes = fasterseg_zoomed_conv_workspace(&sizes);
    if (bytes < 0) {
      return report(static_cast<int32_t>(bytes));
    }
    const int32_t half[4] = {sizes.batch, sizes.in_channels, sizes.height / 2, sizes.width / 2};
    const int32_t out[4] = {sizes.batch, sizes.out_channels, sizes.height, sizes.width};
    const bool same = agree(attributes_.half, half) && agree(attributes_.out, out);
    return same ? 0
                : fail(variant_.name, "x of %dx%dx%dx%d is not what half_sizes and out_sizes say",
                       sizes.batch, sizes.in_channels, sizes.height, sizes.width);
  }

  int32_t enqueue(const PluginTensorDesc *inputs, const PluginTensorDesc *,
                  const void *const *input, void *const *output, void *workspace,
                  cudaStream_t stream) noexcept override {
    FasterSegZoomedConv arguments = sizes_of(variant_, inputs[kX].dims, inputs[kWeight1].dims);
    const bool twice = variant_.convs == 2;
    const void *const biases[2] = {input[kBias1], twice ? input[kBias2] : nullptr};
    const float *first = static_cast<const float *>(biases[0]);
    const float *second = static_cast<const float *>(biases[1]);
    const size_t used = bias_bytes(arguments, inputs[kBias1].type);
    if (used > 0) {
      float *const widened = static_cast<float *>(workspace);
      const int32_t result =
          widen(biases[0], biases[1], widened, arguments.out_channels, stream);
      if (result) {
        return report(result);
      }
      first = widened;
      second = widened + arguments.out_channels;
    }
    arguments.workspace_bytes = fasterseg_zoomed_conv_workspace(&arguments);
    arguments.workspace =
        arguments.workspace_bytes > 0 ? static_cast<char *>(workspace) + used : nullptr;
    arguments.input = input[kX];
    arguments.output = output[0];
    arguments.weight1 = input[kWeight1];
    arguments.bias1 = first;
    arguments.weight2 = twice ? input[kWeight2] : nullptr;
    arguments.bias2 = twice ? second : nullptr;
    const int32_t result = fasterseg_zoomed_conv(&arguments, stream);
    return result ? report(result) : 0;
  }

  const PluginFieldCollection *getFieldsToSerialize() noexcept override {
    stored_.nbFields = 0;
    stored_.fields = fields_;
    store(kHalfSizes, attributes_.half);
    store(kOutSizes, attributes_.out);
    return &stored_;
  }

private:
  // Biases of fp16 are widened into the front of the workspace; out_channels is a multiple of
  // eight, so what follows stays aligned.
  size_t bias_bytes(const FasterSegZoomedConv &sizes, DataType type) const {
    const size_t values = static_cast<size_t>(sizes.out_channels) * variant_.convs;
    return type == DataType::kHALF ? values * sizeof(float) : 0;
  }

  int32_t report(int32_t result) const {
    return fail(variant_.name, "%s", fasterseg_kernels_message(result));
  }

  static bool agree(const Sizes &sizes, const int32_t (&expected)[4]) {
    return !sizes.given || std::equal(expected, expected + 4, sizes.of);
  }

  int32_t check_shapes(const nvinfer1::DimsExprs *inputs, int32_t count) const {
    if (count != variant_.inputs()) {
      return fail(variant_.name, "takes %d inputs, not %d", variant_.inputs(), count);
    }
    for (int index = 0; index < count; ++index) {
      const int rank = is_bias(index) ? 1 : 4;
      if (inputs[index].nbDims != rank) {
        return fail(variant_.name, "input %d must have %d dimensions", index, rank);
      }
    }
    const nvinfer1::IDimensionExpr *const *const weight = inputs[kWeight1].d;
    const int64_t in_channels = constant(weight[1]), out_channels = constant(weight[0]);
    if (in_channels < 8 || out_channels < 8 || in_channels % 8 || out_channels % 8) {
      return fail(variant_.name, "channels must be known and multiples of 8, not %d to %d; build "
                  "without this plugin", narrow(in_channels), narrow(out_channels));
    }
    bool consistent = constant(inputs[kX].d[1]) == in_channels;
    for (int conv = 0; conv < variant_.convs; ++conv) {
      const auto &given = inputs[kWeight1 + 2 * conv].d;
      consistent = consistent && constant(given[0]) == out_channels &&
                   constant(given[1]) == (conv == 0 ? in_channels : out_channels) &&
                   constant(given[2]) == 3 && constant(given[3]) == 3 &&
                   constant(inputs[kBias1 + 2 * conv].d[0]) == out_channels;
    }
    return consistent ? 0 : fail(variant_.name, "weights must be (O, I, 3, 3) and biases (O,), "
                                 "with I the channels of what they are applied to");
  }

  static int64_t constant(const nvinfer1::IDimensionExpr *extent) {
    return extent->isConstant() ? extent->getConstantValue() : -1;
  }

  void store(const char *name, const Sizes &sizes) {
    if (sizes.given) {
      fields_[stored_.nbFields++] = {name, sizes.of, PluginFieldType::kINT32, 4};
    }
  }

  const Variant &variant_;
  const Attributes attributes_;
  PluginField fields_[2];
  PluginFieldCollection stored_;
};

bool read(const PluginField &field, Sizes &sizes) {
  if (field.type != PluginFieldType::kINT32 || field.length != 4 || !field.data) {
    return false;
  }
  sizes.given = true;
  std::memcpy(sizes.of, field.data, sizeof sizes.of);
  return true;
}

nvinfer1::IPluginV3 *make(const char *name, const PluginFieldCollection &fields) {
  Attributes attributes;
  for (int32_t index = 0; index < fields.nbFields; ++index) {
    const PluginField &field = fields.fields[index];
    const bool half = std::strcmp(field.name, kHalfSizes) == 0;
    const bool out = std::strcmp(field.name, kOutSizes) == 0;
    if ((half || out) && !read(field, half ? attributes.half : attributes.out)) {
      fail(name, "attribute %s must be four integers", field.name);
      return nullptr;
    }
  }
  for (const Variant &variant : kVariants) {
    if (std::strcmp(variant.name, name) == 0) {
      return new (std::nothrow) ZoomedConv(variant, attributes);
    }
  }
  return nullptr;
}

} // namespace

Creator &zoomed_conv_creator(int convs, int stride) {
  // With stride 2 there is no way back whose sizes could be given.
  static const PluginFieldCollection both = {2, kDeclared}, half = {1, kDeclared};
  static Creator creators[] = {{kVariants[0].name, make, both}, {kVariants[1].name, make, half},
                               {kVariants[2].name, make, both}, {kVariants[3].name, make, half}};
  return creators[&variant_of(convs, stride) - kVariants];
}

} // namespace fasterseg::trt
