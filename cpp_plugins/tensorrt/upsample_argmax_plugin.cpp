#include "upsample_argmax_plugin.h"

#include <cstring>
#include <new>

#include "fasterseg_kernels.h"
#include "log.h"

namespace fasterseg::trt {
namespace {

using nvinfer1::DataType;
using nvinfer1::DimensionOperation;
using nvinfer1::PluginField;
using nvinfer1::PluginFieldCollection;
using nvinfer1::PluginFieldType;
using nvinfer1::PluginTensorDesc;
using nvinfer1::TensorFormat;

constexpr const char *kName = "UpsampleArgmax";
constexpr int32_t kScale = 8;
constexpr int64_t kMostClasses = 127;

class UpsampleArgmax final : public Plugin {
public:
  UpsampleArgmax() : Plugin(kName) {}

  nvinfer1::IPluginV3 *clone() noexcept override { return new (std::nothrow) UpsampleArgmax(); }

  int32_t getOutputDataTypes(DataType *outputs, int32_t, const DataType *inputs,
                             int32_t count) const noexcept override {
    if (count != 1 || (inputs[0] != DataType::kFLOAT && inputs[0] != DataType::kHALF)) {
      return fail(kName, "takes one input, logits in float32 or fp16");
    }
    outputs[0] = DataType::kINT8;
    return 0;
  }

  int32_t getOutputShapes(const nvinfer1::DimsExprs *inputs, int32_t count,
                          const nvinfer1::DimsExprs *, int32_t, nvinfer1::DimsExprs *outputs,
                          int32_t, nvinfer1::IExprBuilder &builder) noexcept override {
    if (count != 1 || inputs[0].nbDims != 4) {
      return fail(kName, "takes one input of four dimensions, logits (N, C, h, w)");
    }
    const auto &logits = inputs[0].d;
    if (logits[1]->isConstant() && logits[1]->getConstantValue() > kMostClasses) {
      return fail(kName, "has int8 ids, so at most %d classes, not %d",
                  static_cast<int>(kMostClasses), narrow(logits[1]->getConstantValue()));
    }
    const nvinfer1::IDimensionExpr *const scale = builder.constant(kScale);
    outputs[0].nbDims = 3;
    outputs[0].d[0] = logits[0];
    outputs[0].d[1] = builder.operation(DimensionOperation::kPROD, *logits[2], *scale);
    outputs[0].d[2] = builder.operation(DimensionOperation::kPROD, *logits[3], *scale);
    return 0;
  }

  bool supportsFormatCombination(int32_t position, const nvinfer1::DynamicPluginTensorDesc *tensors,
                                 int32_t, int32_t) noexcept override {
    const PluginTensorDesc &tensor = tensors[position].desc;
    return position == 0 ? is_float_linear(tensor) || is_half_hwc8(tensor)
                         : tensor.type == DataType::kINT8 && tensor.format == TensorFormat::kLINEAR;
  }

  int32_t enqueue(const PluginTensorDesc *inputs, const PluginTensorDesc *outputs,
                  const void *const *input, void *const *output, void *,
                  cudaStream_t stream) noexcept override {
    const auto &logits = inputs[0].dims.d;
    const auto &labels = outputs[0].dims.d;
    const bool pixel_major = inputs[0].format == TensorFormat::kHWC8;
    FasterSegUpsampleArgmax arguments = {};
    arguments.logits = input[0];
    arguments.labels = static_cast<uint8_t *>(output[0]);
    arguments.batch = narrow(logits[0]);
    arguments.height = narrow(logits[2]);
    arguments.width = narrow(logits[3]);
    arguments.out_height = narrow(labels[1]);
    arguments.out_width = narrow(labels[2]);
    arguments.classes = narrow(logits[1]);
    arguments.pitch = pixel_major ? narrow((logits[1] + 7) / 8 * 8) : arguments.classes;
    arguments.type = inputs[0].type == DataType::kHALF ? FASTERSEG_FP16 : FASTERSEG_FP32;
    arguments.layout = pixel_major ? FASTERSEG_NHWC : FASTERSEG_NCHW;
    const int32_t result = fasterseg_upsample_argmax(&arguments, stream);
    return result ? fail(kName, "%s", fasterseg_kernels_message(result)) : 0;
  }

  const PluginFieldCollection *getFieldsToSerialize() noexcept override {
    static const PluginField field = {"scale", &kScale, PluginFieldType::kINT32, 1};
    static const PluginFieldCollection fields = {1, &field};
    return &fields;
  }
};

nvinfer1::IPluginV3 *make(const char *, const PluginFieldCollection &fields) {
  for (int32_t index = 0; index < fields.nbFields; ++index) {
    const PluginField &field = fields.fields[index];
    if (std::strcmp(field.name, "scale") != 0) {
      continue;
    }
    const bool number = field.type == PluginFieldType::kINT32 && field.length == 1 && field.data;
    const int32_t scale = number ? *static_cast<const int32_t *>(field.data) : 0;
    if (scale != kScale) {
      fail(kName, "attribute scale must be the integer %d", kScale);
      return nullptr;
    }
  }
  return new (std::nothrow) UpsampleArgmax();
}

} // namespace

Creator &upsample_argmax_creator() {
  static const PluginField field = {"scale", nullptr, PluginFieldType::kINT32, 1};
  static Creator creator(kName, make, {1, &field});
  return creator;
}

} // namespace fasterseg::trt
